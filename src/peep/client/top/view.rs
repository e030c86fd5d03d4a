//! Draws `top`.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Table, TableState};

use super::columns::{COLUMNS, amount, span};
use super::keys::HELP;
use super::model::{Mode, Model};
use crate::peep::SessionLine;
use crate::printable::printable;

/// A terminal with at least this number of columns has room for long addresses and whole words.
const WIDE: u16 = 120;

/// The number of lines for events: at least the first number, and at least one in this many lines of the terminal.
const FEW_EVENTS: u16 = 5;
const PART_OF_EVENTS: u16 = 4;

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const REVERSED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let area = frame.area();
    let events = if model.shows_events { FEW_EVENTS.max(area.height / PART_OF_EVENTS) } else { 0 };
    let rows = [Constraint::Length(3), Constraint::Min(3), Constraint::Length(events), Constraint::Length(1)];
    let [head, table, tail, foot] = Layout::vertical(rows).areas(area);
    frame.render_widget(header(model, area.width), head);
    draw_sessions(frame, model, table);
    draw_events(frame, model, tail);
    frame.render_widget(footer(model, area.width), foot);
    match model.mode {
        Mode::Detail(above) => draw_over(frame, area, " session ", detail(model), above),
        Mode::Help => {
            let line = |(key, meaning): &(&str, &str)| Line::from(format!("{key:<23} {meaning}"));
            draw_over(frame, area, " keys ", HELP.iter().map(line).collect(), 0);
        }
        _ => {}
    }
}

fn header(model: &Model, width: u16) -> Paragraph<'static> {
    let rate = |index: usize| model.snapshot.rates.get(index).copied().unwrap_or_default();
    let mut first = vec![Span::styled(format!("pop3d at {}", model.server), BOLD)];
    if let Some(version) = model.statistic("version") {
        first.push(format!("  version {version}").into());
    }
    if let Some(uptime) = model.statistic("uptime").and_then(|seconds| seconds.parse().ok()) {
        first.push(format!("  up {}", span(uptime)).into());
    }
    if model.read_only {
        first.push(Span::styled("  read-only", BOLD));
    }
    if model.statistic("draining") == Some("1") {
        first.push(Span::styled("  draining", BOLD));
    }
    if let Some(reason) = &model.away {
        first = vec![Span::styled(format!("trying to connect again: {reason}"), BOLD)];
    }
    let limit = model.snapshot.limit;
    let used = if model.snapshot.no_sessions.is_some() { rate(0) } else { model.snapshot.sessions.len() as u64 };
    let label = format!("slots {used}/{limit} ");
    let room = u64::from(width).saturating_sub(label.len() as u64 + 2).min(50);
    let filled = if limit == 0 { 0 } else { (used * room).div_ceil(limit).min(room) };
    let of = |mark: &str, count: u64| mark.repeat(usize::try_from(count).unwrap_or_default());
    let rates = format!(
        "by the second: {} connected, {} logins, {} retrieved, {} removed, {} octets",
        amount(rate(1)),
        amount(rate(2)),
        amount(rate(3)),
        amount(rate(4)),
        amount(rate(5)),
    );
    let gauge = format!("{label}[{}{}]", of("|", filled), of(" ", room - filled));
    Paragraph::new(vec![Line::from(first), Line::from(gauge), Line::from(rates)])
}

fn draw_sessions(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let sessions = model.sessions();
    let filter = match model.filter.as_str() {
        "" => String::new(),
        filter => format!(" with {:?}", printable(filter)),
    };
    let title = match model.snapshot.no_sessions {
        Some(code) => format!(" no sessions: {code} "),
        None => format!(" {} sessions{filter} ", sessions.len()),
    };
    let is_wide = area.width >= WIDE;
    let widths = COLUMNS.iter().map(|column| match if is_wide { column.widths.1 } else { column.widths.0 } {
        0 => Constraint::Min(8),
        width => Constraint::Length(width),
    });
    let headings = COLUMNS.iter().enumerate().map(|(index, column)| {
        let style = if index == model.sorted_by { BOLD.add_modifier(Modifier::UNDERLINED) } else { BOLD };
        cell(column.heading.to_owned(), column.is_number).style(style)
    });
    let rows = sessions.iter().map(|session| {
        Row::new(COLUMNS.iter().map(|column| cell(column.cell(session, is_wide), column.is_number)).collect::<Vec<_>>())
    });
    let table = Table::new(rows, widths)
        .header(Row::new(headings.collect::<Vec<_>>()))
        .column_spacing(1)
        .row_highlight_style(REVERSED)
        .block(Block::new().borders(ratatui::widgets::Borders::TOP).title(title));
    let mut state = TableState::new().with_selected(model.selected_row(&sessions));
    frame.render_stateful_widget(table, area, &mut state);
}

fn cell(text: String, is_number: bool) -> Cell<'static> {
    let alignment = if is_number { Alignment::Right } else { Alignment::Left };
    Cell::from(Text::from(text).alignment(alignment))
}

fn draw_events(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let shown = usize::from(area.height.saturating_sub(1));
    let first = model.events.len().saturating_sub(shown);
    let lines: Vec<_> = model.events.iter().skip(first).map(|event| Line::from(event.as_str())).collect();
    let block = Block::new().borders(ratatui::widgets::Borders::TOP).title(" events ");
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// The keys, as many as fit into 80 columns. On a wide terminal further ones follow.
const KEYS: &str = "q quit  h help  / filter  <> sort  Enter detail";
const KEYS_THAT_CHANGE: &str = "  k kick  u user  b ban";
const FURTHER_KEYS: &str = "  l events";
const KEYS_OF_WIDE_TERMINALS: &str = "  r reverse  Esc no filter";

fn footer(model: &Model, width: u16) -> Paragraph<'static> {
    let line = match &model.mode {
        Mode::Filter => format!("user or address: {}_", printable(&model.filter)),
        Mode::Ban(text) => format!("ban (network, seconds): {}_", printable(text)),
        Mode::Question(question, _) => format!("{} [y/N]", printable(question)),
        Mode::Detail(_) => "↑ ↓ scroll  any other key: back".to_owned(),
        Mode::Help => "any key: back".to_owned(),
        Mode::Table if !model.message.is_empty() => printable(&model.message).into_owned(),
        Mode::Table => {
            let changes = if model.read_only { "" } else { KEYS_THAT_CHANGE };
            let wide = if width >= WIDE { KEYS_OF_WIDE_TERMINALS } else { "" };
            [KEYS, changes, FURTHER_KEYS, wide].concat()
        }
    };
    Paragraph::new(line).style(REVERSED)
}

/// All that is known of the selected session and its user.
fn detail(model: &Model) -> Vec<Line<'static>> {
    let Some(session) = model.selected() else { return vec![Line::from("the session has ended")] };
    let values = session.values().into_iter().map(|value| super::super::listing::cell(&value));
    let line = |name: &str, value: &str| Line::from(format!("{name:<18} {value}"));
    let mut lines: Vec<_> = SessionLine::NAMES.iter().zip(values).map(|(name, value)| line(name, &value)).collect();
    if let Some((user, pairs)) = &model.about
        && session.user.as_ref() == Some(user)
    {
        lines.push(Line::styled(format!("maildrop of {}", printable(user)), BOLD));
        let others = pairs.iter().filter(|(name, _)| name != "user");
        lines.extend(others.map(|(name, value)| line(name, value)));
    }
    lines
}

/// Draws lines in a box over the rest. If they do not all fit, so many at the top are left out.
fn draw_over(frame: &mut Frame<'_>, area: Rect, title: &'static str, lines: Vec<Line<'static>>, above: u16) {
    let width = area.width.saturating_sub(4).min(76);
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(area.height.saturating_sub(2));
    let place = Rect::new((area.width - width) / 2, (area.height - height) / 2, width, height);
    let hidden = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).saturating_sub(height);
    let above = above.min(hidden);
    let more = if above < hidden { " ↓ more " } else { "" };
    frame.render_widget(Clear, place);
    let block = Block::bordered().title(title).title_bottom(more);
    frame.render_widget(Paragraph::new(lines).scroll((above, 0)).block(block), place);
}

#[cfg(test)]
mod tests {
    use super::super::feed::Update;
    use super::super::model::tests::model;
    use super::*;
    use crate::peep::ErrorCode;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    /// What is drawn, line by line.
    fn drawn(model: &Model, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(line).collect()
    }

    #[test]
    fn eighty_columns_have_all() {
        let mut model = model();
        model.take(Update::Event("2026-11-28T02:00:00Z login ana".into()));
        model.select(1);
        let lines = drawn(&model, 80, 24);
        let expected = [
            "pop3d at 127.0.0.1:2110  version 0.1.0  up 25h",
            "slots 4/998 [|                                                 ]",
            "by the second: 2 connected, 1 logins, 40 retrieved, 0 removed, 1.2M octets",
        ];
        assert_eq!(lines[..3], expected);
        assert!(lines[3].starts_with(" 4 sessions ─"), "{lines:#?}");
        assert_eq!(lines[4], "    ID PROTO ADDRESS         STATE  USER         AGE  IDLE  RETR OCTETS DELE TLS");
        assert_eq!(lines[6], "    17 pop3s 192.0.2.4       trans  ana         312s    4s     3  10.2k    1 1.3");
        assert!(lines[17].starts_with(" events ─") && lines[18] == "2026-11-28T02:00:00Z login ana", "{lines:#?}");
        assert_eq!(lines[23], "q quit  h help  / filter  <> sort  Enter detail  k kick  u user  b ban  l events");
    }

    #[test]
    fn wide_terminals_have_all_keys_and_whole_words() {
        let mut model = model();
        let lines = drawn(&model, 200, 50);
        assert!(lines[49].ends_with("b ban  l events  r reverse  Esc no filter"), "{}", lines[49]);
        assert!(lines.iter().any(|line| line.contains(" authorization ")), "{lines:#?}");
        model.read_only = true;
        assert_eq!(drawn(&model, 80, 24)[23], "q quit  h help  / filter  <> sort  Enter detail  l events");
        assert!(drawn(&model, 80, 24).iter().any(|line| line.contains(" auth ")));
    }

    #[test]
    fn a_server_that_is_away_is_told() {
        let mut model = model();
        model.take(Update::Away("localhost:2110: the server closed the connection".into()));
        let first = &drawn(&model, 80, 24)[0];
        assert_eq!(first, "trying to connect again: localhost:2110: the server closed the connection");
    }

    #[test]
    fn every_size_is_drawn() {
        let mut model = model();
        for mode in [Mode::Table, Mode::Detail(0), Mode::Detail(u16::MAX), Mode::Help, Mode::Filter] {
            model.mode = mode;
            for (width, height) in [(200, 50), (80, 24), (40, 10), (10, 3), (1, 1), (300, 2), (3, 100)] {
                drawn(&model, width, height);
            }
        }
        let lines = drawn(&model, 200, 50);
        assert!(lines.iter().any(|line| line.contains("authorization") && line.contains("2001:db8::7")), "{lines:#?}");
    }

    #[test]
    fn a_box_has_the_detail_and_the_footer_the_question() {
        let mut model = model();
        model.select(1);
        model.mode = Mode::Detail(0);
        let known = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let pairs = [known("user", "ana"), known("messages", "7"), known("octets", "31")].into_iter();
        model.take(Update::About("ana".into(), pairs.chain((0..15).map(|n| known("n", &n.to_string()))).collect()));
        let text = drawn(&model, 80, 24).join("\n");
        assert!(text.contains("octets             10240") && text.contains("messages           7"), "{text}");
        assert!(text.contains("│maildrop of ana ") && text.matches("│user ").count() == 1, "{text}");
        assert!(text.contains("↓ more") && !text.contains("n                  14"), "{text}");
        model.mode = Mode::Detail(99);
        let text = drawn(&model, 80, 24).join("\n");
        assert!(!text.contains("↓ more") && text.contains("n                  14"), "{text}");
        model.mode = Mode::Question("End connection 17?".into(), crate::peep::Command::Kick { id: 17 });
        assert_eq!(drawn(&model, 80, 24)[23], "End connection 17? [y/N]");
        model.mode = Mode::Table;
        model.read_only = true;
        assert!(drawn(&model, 80, 24)[0].ends_with("read-only"));
        model.snapshot.no_sessions = Some(ErrorCode::UnknownCommand);
        assert!(drawn(&model, 80, 24)[3].contains("no sessions: Unknown server command"));
    }

    #[test]
    fn nothing_of_a_server_steers_the_terminal() {
        let mut model = model();
        let line = "17 \u{1b}[2J ::1 \u{202e}x a%1B[31m%09%E2%80%AEb 1 1 1 1 1 %C2%9B";
        model.snapshot.sessions = vec![line.parse().unwrap()];
        for mode in [Mode::Table, Mode::Detail(0)] {
            model.mode = mode;
            let text = drawn(&model, 200, 50).join("\n");
            assert!(!text.contains(|c: char| c != '\n' && c.is_control() || c == '\u{202e}'), "{text:?}");
            assert!(text.contains("a\\u{1b}[31m"), "{text}");
        }
    }
}
