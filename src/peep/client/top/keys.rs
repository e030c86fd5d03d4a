//! What the keys of `top` do.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::super::phrases::{self, Request as Phrase};
use super::feed::Request;
use super::model::{Mode, Model};
use crate::net::network_text;
use crate::peep::Command;

/// What is left to do after a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    End,
    Ask(Request),
}

/// The keys, for the help.
pub(super) const HELP: [(&str, &str); 11] = [
    ("↑ ↓ PgUp PgDn Home End", "select a session"),
    ("← → or < >", "sort by the column to the left or right"),
    ("r", "reverse the order"),
    ("/", "show only the sessions of a user or an address"),
    ("Enter", "show all fields of the session, and its user"),
    ("k", "end (kick) the session"),
    ("u", "end all sessions of its user"),
    ("b", "ban its address"),
    ("l", "show or hide the events"),
    ("Esc", "show all sessions again, or leave"),
    ("q Ctrl-C", "leave"),
];

/// The number of rows that PgUp and PgDn move.
const PAGE: isize = 10;

/// The number of lines that they scroll.
const LINES_OF_PAGE: u16 = 10;

/// What Ctrl-U is turned into: it clears what has been typed.
const ALL_TYPED: KeyCode = KeyCode::Null;

/// The most characters that can be typed.
const MOST_TYPED: usize = 100;

/// The seconds of a ban, unless the admin types another number.
const BAN_SECONDS: u32 = 3600;

/// Changes the model as the key says. Returns what is left to do.
pub(super) fn pressed(model: &mut Model, key: KeyEvent) -> Option<Wish> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let code = match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Some(Wish::End),
        KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => ALL_TYPED,
        // A letter with Ctrl or Alt is another key than the letter.
        KeyCode::Char(_) if key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => return None,
        code => code,
    };
    let wish = carry_out(model, code);
    model.settle();
    wish
}

fn carry_out(model: &mut Model, code: KeyCode) -> Option<Wish> {
    match model.mode.clone() {
        Mode::Table => in_the_table(model, code),
        Mode::Filter => {
            if typed(&mut model.filter, code) == Some(false) {
                model.filter.clear();
            }
            leave_if_entered(model, code);
            None
        }
        Mode::Ban(mut text) => {
            match typed(&mut text, code) {
                None => model.mode = Mode::Ban(text),
                Some(false) => model.mode = Mode::Table,
                Some(true) => ask_for_a_ban(model, &text),
            }
            None
        }
        Mode::Question(_, command) => {
            model.mode = Mode::Table;
            let yes = matches!(code, KeyCode::Char('y' | 'Y'));
            model.message = if yes { "…" } else { "nothing was changed" }.to_owned();
            yes.then_some(Wish::Ask(Request::Change(command)))
        }
        Mode::Detail(above) => {
            model.mode = match code {
                KeyCode::Down => Mode::Detail(above.saturating_add(1)),
                KeyCode::Up => Mode::Detail(above.saturating_sub(1)),
                KeyCode::PageDown => Mode::Detail(above.saturating_add(LINES_OF_PAGE)),
                KeyCode::PageUp => Mode::Detail(above.saturating_sub(LINES_OF_PAGE)),
                _ => Mode::Table,
            };
            None
        }
        Mode::Help => {
            model.mode = Mode::Table;
            None
        }
    }
}

fn in_the_table(model: &mut Model, code: KeyCode) -> Option<Wish> {
    model.message.clear();
    match code {
        KeyCode::Esc if !model.filter.is_empty() => model.filter.clear(),
        KeyCode::Char('q') | KeyCode::Esc => return Some(Wish::End),
        KeyCode::Up => model.select(-1),
        KeyCode::Down => model.select(1),
        KeyCode::PageUp => model.select(-PAGE),
        KeyCode::PageDown => model.select(PAGE),
        KeyCode::Home => model.select(isize::MIN),
        KeyCode::End => model.select(isize::MAX),
        KeyCode::Left | KeyCode::Char('<') => model.sort(-1),
        KeyCode::Right | KeyCode::Char('>') => model.sort(1),
        KeyCode::Char('r') => model.descending = !model.descending,
        KeyCode::Char('/') => model.mode = Mode::Filter,
        KeyCode::Char('l') => model.shows_events = !model.shows_events,
        KeyCode::Char('h' | '?') => model.mode = Mode::Help,
        KeyCode::Enter => {
            let session = model.selected()?;
            model.mode = Mode::Detail(0);
            return session.user.map(|user| Wish::Ask(Request::About(user)));
        }
        KeyCode::Char('k' | 'u' | 'b') if model.read_only => {
            model.message = "read-only: a viewer may change nothing".to_owned();
        }
        KeyCode::Char('k' | 'u' | 'b') if model.away.is_some() => {
            model.message = "the server is not there".to_owned();
        }
        KeyCode::Char('k') => {
            let session = model.selected()?;
            let user = session.user.map(|user| format!(" of {user:?}")).unwrap_or_default();
            ask(model, format!("End connection {}{user}?", session.id), Command::Kick { id: session.id });
        }
        KeyCode::Char('u') => match model.selected()?.user {
            Some(user) => {
                let question = format!("End all connections of {user:?}?");
                ask(model, question, Command::KickUser { name: crate::peep::Encoded(user) });
            }
            None => model.message = "nobody has logged in there".to_owned(),
        },
        KeyCode::Char('b') => match model.selected()?.address {
            Some(address) => model.mode = Mode::Ban(format!("{address} {BAN_SECONDS}")),
            None => model.message = "a client on this machine's socket has no address".to_owned(),
        },
        _ => {}
    }
    None
}

fn ask(model: &mut Model, question: String, command: Command) {
    model.mode = Mode::Question(question, command);
}

fn ask_for_a_ban(model: &mut Model, text: &str) {
    model.mode = Mode::Table;
    let said = [&["ban"], &phrases::words(text)[..]].concat();
    match phrases::parse(&said) {
        Ok(Phrase::Send(Command::Ban { network, seconds })) => {
            let how_long = if seconds == 0 { "without end".to_owned() } else { format!("for {seconds} s") };
            ask(model, format!("Ban {} {how_long}?", network_text(&network)), Command::Ban { network, seconds });
        }
        Ok(_) => {}
        Err(error) => model.message = error,
    }
}

/// Edits a text. Returns true if it is complete, false if it is given up, and `None` while it is typed.
fn typed(text: &mut String, code: KeyCode) -> Option<bool> {
    match code {
        KeyCode::Enter => return Some(true),
        KeyCode::Esc => return Some(false),
        KeyCode::Backspace => drop(text.pop()),
        ALL_TYPED => text.clear(),
        KeyCode::Char(c) if text.chars().count() < MOST_TYPED => text.push(c),
        _ => {}
    }
    None
}

fn leave_if_entered(model: &mut Model, code: KeyCode) {
    if matches!(code, KeyCode::Enter | KeyCode::Esc) {
        model.mode = Mode::Table;
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::model;
    use super::*;

    fn press(model: &mut Model, code: KeyCode) -> Option<Wish> {
        pressed(model, KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn enter(model: &mut Model, text: &str) {
        text.chars().for_each(|c| assert_eq!(press(model, KeyCode::Char(c)), None));
    }

    #[test]
    fn a_session_is_kicked_after_a_question() {
        let mut model = model();
        press(&mut model, KeyCode::Down);
        enter(&mut model, "k");
        assert!(matches!(&model.mode, Mode::Question(text, _) if text == "End connection 17 of \"ana\"?"));
        enter(&mut model, "n");
        assert_eq!((&model.mode, model.message.as_str()), (&Mode::Table, "nothing was changed"));
        enter(&mut model, "k");
        let wish = Wish::Ask(Request::Change(Command::Kick { id: 17 }));
        assert_eq!(press(&mut model, KeyCode::Char('y')), Some(wish));
        enter(&mut model, "u");
        let wish = Wish::Ask(Request::Change(Command::KickUser { name: crate::peep::Encoded("ana".into()) }));
        assert_eq!(press(&mut model, KeyCode::Char('y')), Some(wish));
    }

    #[test]
    fn an_address_is_banned_for_the_seconds_that_are_typed() {
        let mut model = model();
        press(&mut model, KeyCode::Down);
        enter(&mut model, "b");
        assert_eq!(model.mode, Mode::Ban("192.0.2.4 3600".into()));
        (0..4).for_each(|_| drop(press(&mut model, KeyCode::Backspace)));
        enter(&mut model, "60");
        press(&mut model, KeyCode::Enter);
        let network = "192.0.2.4/32".parse().unwrap();
        let wish = Wish::Ask(Request::Change(Command::Ban { network, seconds: 60 }));
        assert_eq!(press(&mut model, KeyCode::Char('y')), Some(wish));
        enter(&mut model, "bx");
        press(&mut model, KeyCode::Enter);
        assert_eq!((&model.mode, model.message.starts_with("Invalid <seconds>")), (&Mode::Table, true));
        enter(&mut model, "b");
        press(&mut model, KeyCode::Esc);
        assert_eq!(model.mode, Mode::Table);
    }

    #[test]
    fn a_viewer_changes_nothing() {
        let mut model = model();
        model.read_only = true;
        press(&mut model, KeyCode::Down);
        for key in "kub".chars() {
            assert_eq!(press(&mut model, KeyCode::Char(key)), None);
            assert_eq!((&model.mode, model.message.starts_with("read-only")), (&Mode::Table, true));
        }
    }

    #[test]
    fn a_filter_is_typed_and_given_up() {
        let mut model = model();
        enter(&mut model, "/anq");
        press(&mut model, KeyCode::Backspace);
        press(&mut model, KeyCode::Enter);
        assert_eq!((&model.mode, model.filter.as_str(), model.sessions().len()), (&Mode::Table, "an", 1));
        enter(&mut model, "/x");
        press(&mut model, KeyCode::Esc);
        assert_eq!((&model.mode, model.filter.as_str()), (&Mode::Table, ""));
    }

    fn press_control(model: &mut Model, c: char) -> Option<Wish> {
        pressed(model, KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL))
    }

    #[test]
    fn a_letter_with_control_is_not_the_letter() {
        let mut model = model();
        for key in "kubqr".chars() {
            assert_eq!((press_control(&mut model, key), &model.mode), (None, &Mode::Table), "{key}");
        }
        enter(&mut model, "/ana");
        press_control(&mut model, 'u');
        assert_eq!((&model.mode, model.filter.as_str()), (&Mode::Filter, ""));
    }

    #[test]
    fn escape_clears_the_filter_before_it_leaves() {
        let mut model = model();
        enter(&mut model, "/ana");
        press(&mut model, KeyCode::Enter);
        assert_eq!((press(&mut model, KeyCode::Esc), model.filter.as_str()), (None, ""));
        assert_eq!(press(&mut model, KeyCode::Esc), Some(Wish::End));
    }

    #[test]
    fn a_change_of_the_order_does_not_change_who_is_asked_about() {
        let mut model = model();
        enter(&mut model, "rk");
        assert!(matches!(&model.mode, Mode::Question(text, _) if text == "End connection 2?"), "{:?}", model.mode);
    }

    #[test]
    fn nothing_is_changed_while_the_server_is_away() {
        let mut model = model();
        model.away = Some("it was restarted".into());
        for key in "kub".chars() {
            assert_eq!(press(&mut model, KeyCode::Char(key)), None);
            assert_eq!((&model.mode, model.message.as_str()), (&Mode::Table, "the server is not there"));
        }
    }

    #[test]
    fn detail_asks_for_the_user() {
        let mut model = model();
        press(&mut model, KeyCode::Down);
        assert_eq!(press(&mut model, KeyCode::Enter), Some(Wish::Ask(Request::About("ana".into()))));
        assert_eq!(model.mode, Mode::Detail(0));
        press(&mut model, KeyCode::PageDown);
        press(&mut model, KeyCode::Up);
        assert_eq!(model.mode, Mode::Detail(9));
        assert_eq!((press(&mut model, KeyCode::Char('q')), &model.mode), (None, &Mode::Table));
    }

    #[test]
    fn q_and_control_c_end() {
        let mut model = model();
        assert_eq!(press(&mut model, KeyCode::Char('q')), Some(Wish::End));
        enter(&mut model, "/");
        assert_eq!(pressed(&mut model, KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Some(Wish::End));
    }
}
