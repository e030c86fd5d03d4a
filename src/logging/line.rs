//! The format of log lines: the time in UTC, the level, and the message. On a terminal the level has a colour.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use clap::ValueEnum;
use log::{Level, Record};
use parking_lot::Mutex;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::buffer::Buffer;
use super::json::JsonLine;

/// The format of a time in UTC, in lines of the log and elsewhere.
pub const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// The position of the level in a line, after the time and a space.
const LEVEL_AT: usize = "1970-01-01T00:00:00.000Z ".len();

/// Returns true if the log may have colours: on a terminal that supports them, unless the environment forbids them
/// (<https://no-color.org>).
pub(super) fn stderr_has_colours() -> bool {
    let knows_colours = env::var_os("TERM").is_some_and(|terminal| terminal != "dumb");
    io::stderr().is_terminal() && knows_colours && env::var_os("NO_COLOR").is_none()
}

/// How the log's lines look.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Style {
    /// Text or JSON.
    pub(super) format: LogFormat,
    /// Levels have colours.
    pub(super) colours: bool,
    /// The journal of systemd reads the lines. It has times and levels of its own: the level stands in front of the line as
    /// `<N>`, and text has no time.
    pub(super) journal: bool,
}

/// The format of the log's lines, as the operator chose it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people: the time, the level and the message
    #[default]
    Text,
    /// A JSON object on each line: the time, the level, the message and the fields of what has happened
    Json,
}

/// Whether stderr is the journal's, which systemd tells by the device and the inode of the stream that it has made
/// (systemd.exec(5), `$JOURNAL_STREAM`).
pub(super) fn stderr_is_journal() -> bool {
    let Some(stream) = env::var("JOURNAL_STREAM").ok() else { return false };
    rustix::fs::fstat(rustix::stdio::stderr())
        .is_ok_and(|stderr| stream == format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

/// The level's number in syslog(3), by which the journal knows it.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// A line for what the log says of itself.
pub(super) fn line_of_our_own(level: Level, message: &str, style: Style) -> Vec<u8> {
    let prefix = if style.journal { format!("<{}>", priority(level)) } else { String::new() };
    let mut line = prefix.into_bytes();
    match style.format {
        LogFormat::Json => {
            let mut record = Record::builder();
            let mut json = JsonLine::default();
            line.extend_from_slice(json.of(&record.level(level).args(format_args!("{message}")).build()));
        }
        LogFormat::Text if style.journal => line.extend_from_slice(format!("{message}\n").as_bytes()),
        LogFormat::Text => {
            let time = OffsetDateTime::now_utc().format(TIME).unwrap_or_default();
            line.extend_from_slice(format!("{time} [{level}] {message}\n").as_bytes());
            if style.colours {
                colour_level(&mut line);
            }
        }
    }
    line
}

/// Puts together the pieces of text that simplelog formats, and gives whole lines to the buffer.
pub(super) struct Lines {
    buffer: Arc<Buffer>,
    style: Style,
    line: Vec<u8>,
}

impl Lines {
    pub(super) fn new(buffer: Arc<Buffer>, style: Style) -> Self {
        Self { buffer, style, line: Vec::new() }
    }
}

impl Write for Lines {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(octets);
        if self.line.ends_with(b"\n") {
            if self.style.journal {
                self.buffer.push(&for_journal(&self.line));
            } else {
                if self.style.colours {
                    colour_level(&mut self.line);
                }
                self.buffer.push(&self.line);
            }
            self.line.clear();
        }
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The same lines with the level as the journal reads it. The message of a panic has two lines, which get the same level.
fn for_journal(lines: &[u8]) -> Vec<u8> {
    let level = |level: &Level| Some((*level, lines.strip_prefix(format!("[{level}] ").as_bytes())?));
    let Some((level, message)) = Level::iter().find_map(|it| level(&it)) else { return lines.to_owned() };
    let prefix = [b'<', b'0' + priority(level), b'>'];
    message.split_inclusive(|&octet| octet == b'\n').flat_map(|line| [&prefix[..], line].concat()).collect()
}

/// Writes each record as JSON.
pub(super) struct JsonLogger {
    buffer: Arc<Buffer>,
    journal: bool,
    line: Mutex<JsonLine>,
}

impl JsonLogger {
    pub(super) fn new(buffer: Arc<Buffer>, journal: bool) -> Self {
        Self { buffer, journal, line: Mutex::default() }
    }

    pub(super) fn log(&self, record: &Record<'_>) {
        let mut json = self.line.lock();
        let line = json.of(record);
        if self.journal {
            self.buffer.push(&[format!("<{}>", priority(record.level())).as_bytes(), line].concat());
        } else {
            self.buffer.push(line);
        }
    }
}

/// Gives the level of a line its colour, by the escape sequences that all terminals with colours know.
fn colour_level(line: &mut Vec<u8>) {
    let Some(level) = line.get(LEVEL_AT..).filter(|rest| rest.starts_with(b"[")) else { return };
    let Some(length) = memchr::memchr(b']', level).map(|end| end + 1) else { return };
    let colour = match &level[..length] {
        b"[ERROR]" => "\x1b[31m", // red
        b"[WARN]" => "\x1b[33m",  // yellow
        b"[INFO]" => "\x1b[34m",  // blue
        b"[DEBUG]" => "\x1b[36m", // cyan
        b"[TRACE]" => "\x1b[37m", // white
        _ => return,
    };
    let end = LEVEL_AT + length;
    line.splice(end..end, *b"\x1b[0m");
    line.splice(LEVEL_AT..LEVEL_AT, colour.bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_whole_lines() {
        let buffer = Arc::new(Buffer::default());
        let mut lines = Lines::new(Arc::clone(&buffer), Style::default());
        for piece in ["1970 ", "[INFO] ", "one", "\n", "two"] {
            lines.write_all(piece.as_bytes()).unwrap();
        }
        assert_eq!(buffer.take().octets, b"1970 [INFO] one\n");
    }

    #[test]
    fn only_the_level_has_a_colour() {
        let coloured = Style { colours: true, ..Style::default() };
        let coloured = String::from_utf8(line_of_our_own(Level::Warn, "[INFO] is no level here", coloured)).unwrap();
        assert_eq!(&coloured[LEVEL_AT..], "\x1b[33m[WARN]\x1b[0m [INFO] is no level here\n");
        for unchanged in ["", "\n", "a short line\n", "1970-01-01T00:00:00.000Z [no level\n"] {
            let mut line = unchanged.as_bytes().to_vec();
            colour_level(&mut line);
            assert_eq!(line, unchanged.as_bytes());
        }
    }

    #[test]
    fn the_journal_gets_the_level_as_a_number_and_no_time() {
        assert_eq!(for_journal(b"[WARN] [INFO] is no level here\n"), b"<4>[INFO] is no level here\n");
        assert_eq!(for_journal(b"[ERROR] panicked at a.rs:1:\nno disk\n"), b"<3>panicked at a.rs:1:\n<3>no disk\n");
        for (level, number) in [(Level::Info, 6), (Level::Debug, 7), (Level::Trace, 7)] {
            assert_eq!(for_journal(format!("[{level}] x\n").as_bytes()), format!("<{number}>x\n").as_bytes());
        }
        let style = Style { journal: true, ..Style::default() };
        assert_eq!(line_of_our_own(Level::Warn, "1 line", style), b"<4>1 line\n");
    }

    #[test]
    fn what_the_log_says_of_itself_is_json_too() {
        for (journal, prefix) in [(false, ""), (true, "<4>")] {
            let style = Style { format: LogFormat::Json, journal, colours: true };
            let line = String::from_utf8(line_of_our_own(Level::Warn, "1 \"line\"", style)).unwrap();
            let object: serde_json::Value = serde_json::from_str(line.strip_prefix(prefix).unwrap()).unwrap();
            assert_eq!((&object["level"], &object["message"]), (&"warn".into(), &"1 \"line\"".into()));
        }
    }

    #[test]
    fn without_a_terminal_there_is_no_escape_sequence() {
        let line = line_of_our_own(Level::Error, "message", Style::default());
        assert_eq!(&line[LEVEL_AT..], b"[ERROR] message\n");
    }
}
