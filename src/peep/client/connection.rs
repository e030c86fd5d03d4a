//! A logged-in connection to the server: one answer for each command.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::time::Duration;

use super::output::bare;
use super::stream;
use super::target::Target;
use super::{Failure, Options};
use crate::dial::Stream;
use crate::peep::{Answer, Command, UnreadableAnswer, read_line};

/// The lines of an answer that the server may take `--timeout` for, so that a long listing is not cut off.
const LINES_PER_TIMEOUT: u64 = 1000;

/// The line that ends the events of `f`.
const ENOUGH: &str = "\r\n";

/// A logged-in connection.
pub(super) struct Connection {
    /// The server's name for messages.
    server: String,
    stream: BufReader<Box<dyn Stream>>,
    /// How long an answer may take, or [`LINES_PER_TIMEOUT`] lines of it.
    timeout: Duration,
    /// The lines of the present answer that have been read.
    lines: u64,
    /// True once an answer could not be read. What comes next would not be the answer of the next command.
    is_lost: bool,
}

impl Connection {
    /// Connects to the first server of the options and logs in.
    pub(super) fn open(options: &Options) -> Result<Self, Failure> {
        Self::to(&options.targets()[0], options)
    }

    /// Connects to a server and logs in.
    pub(super) fn to(target: &Target, options: &Options) -> Result<Self, Failure> {
        let login = options.login()?;
        let timeout = options.timeout();
        let stream = BufReader::new(stream::open(target, options)?);
        let mut connection = Self { server: target.to_string(), stream, timeout, lines: 0, is_lost: false };
        match connection.call(&login)? {
            Answer::Done => Ok(connection),
            Answer::Error(code) => Err(Failure::Refused(connection.server, code)),
            // The greeting of another kind of server, for example of a POP3 server.
            greeting => {
                Err(connection.no_answer(UnreadableAnswer::Nonsense(format!("+{}", bare(&greeting).trim_end()))))
            }
        }
    }

    /// The server's name for messages.
    pub(super) fn name(&self) -> &str {
        &self.server
    }

    /// Sends a command and reads the first line of its answer.
    pub(super) fn call(&mut self, command: &Command) -> Result<Answer, Failure> {
        self.send(&format!("{command}\r\n"))?;
        Answer::read(&mut self.stream, command.answers_lines()).map_err(|error| self.no_answer(error))
    }

    /// Sends a command and reads its whole answer, which may have no more than `limit` lines.
    pub(super) fn ask(&mut self, command: &Command, limit: u64) -> Result<(Answer, Vec<String>), Failure> {
        let answer = self.call(command)?;
        let count = if let Answer::Lines(count) = answer { count } else { 0 };
        if count > limit {
            return Err(self.no_answer(UnreadableAnswer::MoreLines(count, limit)));
        }
        let lines = (0..count).map(|_| self.line()).collect::<Result<_, _>>()?;
        Ok((answer, lines))
    }

    fn send(&mut self, line: &str) -> Result<(), Failure> {
        self.lines = 0;
        if self.is_lost {
            return Err(self.no_answer(UnreadableAnswer::Closed));
        }
        let stream = self.stream.get_mut();
        stream.allow(self.timeout);
        let written = stream.write_all(line.as_bytes()).and_then(|()| stream.flush());
        written.map_err(|error| match error.kind() {
            ErrorKind::TimedOut => self.no_answer(UnreadableAnswer::Silent),
            _ => self.no_answer(UnreadableAnswer::Failed(error)),
        })
    }

    /// Reads the next line of an answer that has several.
    pub(super) fn line(&mut self) -> Result<String, Failure> {
        self.lines += 1;
        if self.lines.is_multiple_of(LINES_PER_TIMEOUT) {
            self.stream.get_mut().allow(self.timeout);
        }
        read_line(&mut self.stream).map_err(|error| match error {
            UnreadableAnswer::Silent => self.no_answer(UnreadableAnswer::Unfinished),
            error => self.no_answer(error),
        })
    }

    /// Waits for the next line of an answer without an end. Returns `None` if none begins within `patience`.
    pub(super) fn event(&mut self, patience: Duration) -> Result<Option<String>, Failure> {
        self.stream.get_mut().allow(patience);
        match self.stream.fill_buf() {
            Ok(_) => {}
            // A signal may have come, for example of Ctrl-C.
            Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Interrupted) => return Ok(None),
            Err(error) => return Err(self.no_answer(UnreadableAnswer::Failed(error))),
        }
        self.stream.get_mut().allow(self.timeout);
        self.line().map(Some)
    }

    /// Ends an answer without an end. The events that the server has sent until then are left out.
    pub(super) fn end_events(&mut self) -> Result<(), Failure> {
        self.send(ENOUGH)?;
        while self.line()? != "+" {}
        Ok(())
    }

    /// Returns true if reading the next line has to ask the network for it.
    pub(super) fn is_drained(&self) -> bool {
        self.stream.buffer().is_empty()
    }

    /// The failure for a line that does not have the form of the command's answers.
    pub(super) fn nonsense(&mut self, line: String) -> Failure {
        self.no_answer(UnreadableAnswer::Nonsense(line))
    }

    fn no_answer(&mut self, error: UnreadableAnswer) -> Failure {
        self.is_lost = true;
        Failure::NoAnswer(self.server.clone(), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Cursor, Read};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A server that has sent everything already. It counts how often it is given time.
    struct Sent(Cursor<Vec<u8>>, Arc<AtomicU32>);

    impl Read for Sent {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Sent {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Stream for Sent {
        fn allow(&mut self, _: Duration) {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_long_listing_gets_more_time_every_thousand_lines() {
        let allowed = Arc::new(AtomicU32::new(0));
        let sent =
            Sent(Cursor::new(["+2500\r\n", &"u\r\n".repeat(2500), "+7\r\n"].concat().into()), Arc::clone(&allowed));
        let stream: Box<dyn Stream> = Box::new(sent);
        let timeout = Duration::from_secs(10);
        let mut server =
            Connection { server: "s".into(), stream: BufReader::new(stream), timeout, lines: 0, is_lost: false };
        assert_eq!(server.call(&Command::Users).unwrap(), Answer::Lines(2500));
        assert!((0..2500).all(|_| server.line().unwrap() == "u"));
        assert_eq!(allowed.load(Ordering::Relaxed), 3);
        assert_eq!(server.call(&Command::Timeout).unwrap(), Answer::Value("7".into()));
        assert_eq!(allowed.load(Ordering::Relaxed), 4);
    }
}
