//! The thread that writes the log. It is the only one that waits while a pipe, a terminal or a disk blocks.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use log::Level;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::buffer::{Buffer, count_lines};
use super::file::LogFile;
use super::line::{Style, line_of_our_own};

/// How long the thread pauses after a batch. On a busy server it then writes many lines at once instead of one at a time.
const REST: Duration = Duration::from_millis(5);

/// The destination of the log.
#[derive(Debug)]
pub(super) enum Output {
    /// Standard error.
    Stderr,
    /// A file.
    File(LogFile),
}

/// Writes the contents of the buffer.
#[derive(Debug)]
pub(super) struct Writer {
    buffer: Arc<Buffer>,
    output: Sink<Output>,
    style: Style,
}

impl Writer {
    pub(super) fn new(buffer: Arc<Buffer>, output: Output, style: Style) -> Self {
        Self { buffer, output: Sink { output, lost: 0, in_a_line: false }, style }
    }

    /// Writes until the program ends.
    pub(super) fn run(mut self) {
        loop {
            let batch = self.buffer.take();
            let (before, after) = batch.parts();
            self.output.put(before, self.style);
            if batch.reopen_at.is_some() {
                self.output.output.reopen();
            }
            self.output.put(after, self.style);
            self.output.tell_of_lost(batch.lost, self.style);
            self.buffer.set_written();
            thread::sleep(REST);
        }
    }
}

impl Output {
    fn reopen(&mut self) {
        let Self::File(file) = self else { return };
        match file.reopen() {
            Ok(()) => log::info!("the log file has been opened again"),
            Err(error) => log::error!("a new log file cannot be opened, so the log stays in the old one: {error}"),
        }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            // This uses the descriptor, because writing may block and std's handle would be locked meanwhile.
            Self::Stderr => rustix::stdio::stderr(),
            Self::File(file) => file.as_fd(),
        }
    }
}

impl Write for Output {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match rustix::io::write(self.as_fd(), octets) {
            // Another program has made the pipe or terminal non-blocking, or the server has opened a FIFO that way.
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::OUT)], None)?;
                Err(io::ErrorKind::Interrupted.into())
            }
            result => Ok(result?),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes complete lines, and counts those that could not be written.
#[derive(Debug)]
struct Sink<W> {
    output: W,
    /// The number of lost lines that the log has not reported yet.
    lost: u64,
    /// True if only a part of the last line was written because of an error.
    in_a_line: bool,
}

impl<W: Write> Sink<W> {
    /// Writes lines; those that an error keeps from being written are lost.
    fn put(&mut self, lines: &[u8], style: Style) {
        if lines.is_empty() {
            return;
        }
        self.tell_of_lost(0, style);
        let written = if self.lost == 0 { self.write(lines) } else { 0 };
        self.lost += count_lines(&lines[written..]);
    }

    /// Says that `more` lines were lost, and those of earlier errors, if the output takes that.
    fn tell_of_lost(&mut self, more: u64, style: Style) {
        self.lost += more;
        if self.lost > 0 {
            let message = match self.lost {
                1 => "1 line of the log was lost".to_owned(),
                lost => format!("{lost} lines of the log were lost"),
            };
            let line = line_of_our_own(Level::Warn, &message, style);
            if self.write(&line) == line.len() {
                self.lost = 0;
            }
        }
    }

    /// Returns how many octets were written. After an incomplete line, the next one begins on a new line.
    fn write(&mut self, lines: &[u8]) -> usize {
        if self.in_a_line && self.output.write(b"\n").is_ok_and(|written| written == 1) {
            self.in_a_line = false;
        }
        let mut written = 0;
        while !self.in_a_line && written < lines.len() {
            match self.output.write(&lines[written..]) {
                Ok(0) => break,
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.in_a_line |= lines[..written].last().is_some_and(|&octet| octet != b'\n');
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that has room for this many more octets.
    struct Disk {
        file: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            match octets.len().min(self.room) {
                0 => Err(io::ErrorKind::StorageFull.into()),
                length => {
                    self.file.extend_from_slice(&octets[..length]);
                    self.room -= length;
                    Ok(length)
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_an_error_lost_are_counted_and_told_of_when_it_is_over() {
        for room in 0..=12 {
            let mut sink = Sink { output: Disk { file: Vec::new(), room }, lost: 0, in_a_line: false };
            sink.put(b"one\n", Style::default());
            sink.put(b"two\nsix\n", Style::default());
            sink.put(b"ten\n", Style::default());
            let whole = room / 4;
            sink.output.room = 1000;
            sink.put(b"and so on\n", Style::default());
            let text = String::from_utf8(sink.output.file).unwrap();
            let lines: Vec<_> = text.lines().collect();
            assert_eq!(lines[..whole], ["one", "two", "six"][..whole], "{room}: {text}");
            let told = lines[lines.len() - 2];
            let expected = match 4 - whole {
                1 => "1 line of the log was lost".to_owned(),
                lost => format!("{lost} lines of the log were lost"),
            };
            assert!(told.ends_with(&format!("Z [WARN] {expected}")), "{room}: {text}");
            assert!(text.ends_with(" lost\nand so on\n"), "{room}: {text}");
            assert_eq!(sink.lost, 0);
        }
    }

    #[test]
    fn lines_that_the_buffer_lost_are_told_of_where_they_are_missing() {
        let mut sink = Sink { output: Vec::new(), lost: 0, in_a_line: false };
        sink.put(b"one\n", Style::default());
        sink.tell_of_lost(7, Style::default());
        sink.put(b"nine\n", Style::default());
        let text = String::from_utf8(sink.output).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((lines[0], lines[2], lines.len()), ("one", "nine", 3));
        assert!(lines[1].ends_with(" [WARN] 7 lines of the log were lost"), "{text}");
    }
}
