//! What `top` shows: the last snapshot, the admin's view of it, and what the admin is being asked.

use std::collections::VecDeque;

use super::columns::COLUMNS;
use super::feed::{Snapshot, Update};
use crate::peep::{Command, SessionLine};

/// The most events that are kept.
const EVENTS: usize = 1000;

/// What the keys mean at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    /// Keys are commands.
    Table,
    /// A filter is typed.
    Filter,
    /// A network and seconds for a ban are typed.
    Ban(String),
    /// A change waits for `y`.
    Question(String, Command),
    /// All of the selected session, without so many lines at the top.
    Detail(u16),
    Help,
}

/// Everything that is shown.
pub(super) struct Model {
    pub(super) server: String,
    pub(super) snapshot: Snapshot,
    pub(super) events: VecDeque<String>,
    pub(super) shows_events: bool,
    pub(super) read_only: bool,
    pub(super) mode: Mode,
    /// The column that sessions are sorted by.
    pub(super) sorted_by: usize,
    pub(super) descending: bool,
    /// Sessions are shown if this is in their user or address.
    pub(super) filter: String,
    /// The number of the selected session, so that the selection stays with it.
    selected: Option<u64>,
    /// Where the selected session was in the table, for when it has ended.
    row: usize,
    /// The user that `about` is about, and what is known.
    pub(super) about: Option<(String, Vec<(String, String)>)>,
    /// Why the server is not there at the moment.
    pub(super) away: Option<String>,
    /// The last line for the admin: what became of a change, or why a key does nothing.
    pub(super) message: String,
}

impl Model {
    pub(super) fn new(server: &str) -> Self {
        Self {
            server: server.to_owned(),
            snapshot: Snapshot::default(),
            events: VecDeque::new(),
            shows_events: true,
            read_only: false,
            mode: Mode::Table,
            sorted_by: 0,
            descending: false,
            filter: String::new(),
            selected: None,
            row: 0,
            about: None,
            away: None,
            message: String::new(),
        }
    }

    /// Takes in what the server has said.
    pub(super) fn take(&mut self, update: Update) {
        match update {
            Update::Snapshot(snapshot) => {
                (self.snapshot, self.away) = (snapshot, None);
                self.settle();
            }
            Update::Away(reason) => {
                self.away = Some(reason);
                // The connection that a question is about will not be there any more.
                if matches!(self.mode, Mode::Question(..) | Mode::Ban(_)) {
                    self.mode = Mode::Table;
                }
            }
            Update::Event(line) => {
                self.events.push_back(line);
                if self.events.len() > EVENTS {
                    self.events.pop_front();
                }
            }
            Update::About(user, pairs) => self.about = Some((user, pairs)),
            Update::Outcome(Ok(count)) if count.is_empty() => self.message = "done".to_owned(),
            Update::Outcome(Ok(count)) => self.message = format!("done: {count} ended"),
            Update::Outcome(Err(code)) => self.message = code.to_string(),
            Update::ReadOnly => self.read_only = true,
            Update::Lost(_) => {}
        }
    }

    /// The sessions that the filter lets through, in their order.
    pub(super) fn sessions(&self) -> Vec<&SessionLine> {
        let fits = |session: &&SessionLine| {
            let user = session.user.as_deref().unwrap_or_default();
            let address = session.address.map(|address| address.to_string()).unwrap_or_default();
            user.contains(&self.filter) || address.contains(&self.filter)
        };
        let mut sessions: Vec<_> = self.snapshot.sessions.iter().filter(fits).collect();
        let order = COLUMNS[self.sorted_by].order;
        sessions.sort_by(|a, b| {
            let by_column = if self.descending { order(b, a) } else { order(a, b) };
            by_column.then(a.id.cmp(&b.id))
        });
        sessions
    }

    /// The row of the selected session among `sessions`.
    pub(super) fn selected_row(&self, sessions: &[&SessionLine]) -> Option<usize> {
        let by_id = sessions.iter().position(|session| Some(session.id) == self.selected);
        by_id.or_else(|| sessions.len().checked_sub(1).map(|last| self.row.min(last)))
    }

    /// The selected session.
    pub(super) fn selected(&self) -> Option<SessionLine> {
        let sessions = self.sessions();
        self.selected_row(&sessions).map(|row| sessions[row].clone())
    }

    /// Binds the selection to the session in the selected row, so that it stays with it when the order changes.
    pub(super) fn settle(&mut self) {
        let sessions = self.sessions();
        let found = self.selected_row(&sessions).map(|row| (row, sessions[row].id));
        if let Some((row, id)) = found {
            (self.row, self.selected) = (row, Some(id));
        }
    }

    /// Moves the selection by so many rows.
    pub(super) fn select(&mut self, step: isize) {
        let sessions = self.sessions();
        let Some(row) = self.selected_row(&sessions) else { return };
        let row = row.saturating_add_signed(step).min(sessions.len() - 1);
        let id = sessions[row].id;
        (self.row, self.selected) = (row, Some(id));
    }

    /// Sorts by the column that is so many further to the right.
    pub(super) fn sort(&mut self, step: isize) {
        let count = COLUMNS.len();
        self.sorted_by = (self.sorted_by + count).saturating_add_signed(step) % count;
    }

    /// A value of `s?`.
    pub(super) fn statistic(&self, name: &str) -> Option<&str> {
        self.snapshot.statistics.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::peep::ErrorCode;

    /// A model with four sessions.
    pub(in super::super) fn model() -> Model {
        let mut model = Model::new("127.0.0.1:2110");
        let lines = [
            "17 pop3s 192.0.2.4 transaction ana 312 4 3 10240 1 TLSv1.3",
            "18 pop3 192.0.2.9 transaction bob 12 0 900 4000000 0 -",
            "19 pop3 2001:db8::7 authorization - 2 2 0 100 0 -",
            "2 peep - admin - 4000 0 0 0 0 -",
        ];
        let sessions = lines.iter().map(|line| line.parse().unwrap()).collect();
        let statistics = vec![("version".to_owned(), "0.1.0".to_owned()), ("uptime".to_owned(), "90061".to_owned())];
        let rates = vec![3, 2, 1, 40, 0, 1_250_000];
        model.take(Update::Snapshot(Snapshot { sessions, no_sessions: None, rates, limit: 998, statistics }));
        model
    }

    fn ids(model: &Model) -> Vec<u64> {
        model.sessions().iter().map(|session| session.id).collect()
    }

    #[test]
    fn sessions_are_sorted_by_any_column() {
        let mut model = model();
        assert_eq!(ids(&model), [2, 17, 18, 19]);
        model.sort(-3); // from the first column to the third from the end
        assert_eq!((COLUMNS[model.sorted_by].heading, ids(&model)), ("OCTETS", vec![2, 19, 17, 18]));
        model.descending = true;
        assert_eq!(ids(&model), [18, 17, 19, 2]);
        for column in 0..COLUMNS.len() {
            model.sorted_by = column;
            assert_eq!(ids(&model).len(), 4);
        }
    }

    #[test]
    fn the_filter_is_for_users_and_addresses() {
        let mut model = model();
        for (filter, shown) in [("ana", &[17][..]), ("192.0.2", &[17, 18]), ("2001:", &[19]), ("x", &[])] {
            filter.clone_into(&mut model.filter);
            assert_eq!(ids(&model), shown, "{filter}");
        }
        assert_eq!(model.selected(), None);
        model.select(1);
    }

    #[test]
    fn the_selection_stays_with_its_session() {
        let mut model = model();
        model.select(2);
        assert_eq!(model.selected().unwrap().id, 18);
        model.descending = true;
        assert_eq!(model.selected().unwrap().id, 18);
        model.snapshot.sessions.retain(|session| session.id != 18);
        assert_eq!(model.selected().unwrap().id, 2, "its row is the last one now");
        model.select(-9);
        assert_eq!(model.selected().unwrap().id, 19);
        model.select(99);
        assert_eq!(model.selected().unwrap().id, 2);
    }

    #[test]
    fn the_selection_stays_with_its_session_before_it_is_moved() {
        let mut model = model();
        assert_eq!(model.selected().unwrap().id, 2);
        model.descending = true;
        assert_eq!((model.selected().unwrap().id, ids(&model)[0]), (2, 19));
    }

    #[test]
    fn a_question_ends_when_the_server_is_away() {
        let mut model = model();
        model.mode = Mode::Question("End connection 17?".into(), Command::Kick { id: 17 });
        model.take(Update::Away("the server closed the connection".into()));
        assert_eq!((&model.mode, model.away.is_some()), (&Mode::Table, true));
        model.take(Update::Snapshot(Snapshot::default()));
        assert_eq!(model.away, None);
    }

    #[test]
    fn the_last_events_are_kept() {
        let mut model = model();
        (0..3 * EVENTS).for_each(|number| model.take(Update::Event(number.to_string())));
        assert_eq!((model.events.len(), model.events.back().map(String::as_str)), (EVENTS, Some("2999")));
    }

    #[test]
    fn what_became_of_a_change_is_told() {
        let mut model = model();
        for (outcome, message) in [
            (Ok(String::new()), "done"),
            (Ok("2".to_owned()), "done: 2 ended"),
            (Err(ErrorCode::NoSuchConnection), "No such connection or ban"),
        ] {
            model.take(Update::Outcome(outcome));
            assert_eq!(model.message, message);
        }
    }
}
