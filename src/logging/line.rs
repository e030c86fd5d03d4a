//! The format of log lines: the time in UTC, the level, and the message. On a terminal the level has a colour.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use log::Level;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::buffer::Buffer;

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

/// Formats a line like simplelog does, for messages of the log about itself.
pub(super) fn line_of_our_own(level: Level, message: &str, colours: bool) -> Vec<u8> {
    let time = OffsetDateTime::now_utc().format(TIME).unwrap_or_default();
    let mut line = format!("{time} [{level}] {message}\n").into_bytes();
    if colours {
        colour_level(&mut line);
    }
    line
}

/// Joins the pieces that simplelog formats, and passes complete lines to the buffer.
pub(super) struct Lines {
    buffer: Arc<Buffer>,
    colours: bool,
    line: Vec<u8>,
}

impl Lines {
    pub(super) fn new(buffer: Arc<Buffer>, colours: bool) -> Self {
        Self { buffer, colours, line: Vec::new() }
    }
}

impl Write for Lines {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(octets);
        if self.line.ends_with(b"\n") {
            if self.colours {
                colour_level(&mut self.line);
            }
            self.buffer.push(&self.line);
            self.line.clear();
        }
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Colours the level of a line with escape sequences that all terminals with colours support.
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
        let mut lines = Lines::new(Arc::clone(&buffer), false);
        for piece in ["1970 ", "[INFO] ", "one", "\n", "two"] {
            lines.write_all(piece.as_bytes()).unwrap();
        }
        assert_eq!(buffer.take().octets, b"1970 [INFO] one\n");
    }

    #[test]
    fn only_the_level_has_a_colour() {
        let coloured = String::from_utf8(line_of_our_own(Level::Warn, "[INFO] is no level here", true)).unwrap();
        assert_eq!(&coloured[LEVEL_AT..], "\x1b[33m[WARN]\x1b[0m [INFO] is no level here\n");
        for unchanged in ["", "\n", "a short line\n", "1970-01-01T00:00:00.000Z [no level\n"] {
            let mut line = unchanged.as_bytes().to_vec();
            colour_level(&mut line);
            assert_eq!(line, unchanged.as_bytes());
        }
    }

    #[test]
    fn without_a_terminal_there_is_no_escape_sequence() {
        let line = line_of_our_own(Level::Error, "message", false);
        assert_eq!(&line[LEVEL_AT..], b"[ERROR] message\n");
    }
}
