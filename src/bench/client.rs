//! One POP3 connection as a client sees it: commands out, status lines and multi-line replies in.
//!
//! A message's body is processed one receive buffer at a time. The only sequence that matters is CRLF and a dot (a
//! stuffed line or the end). A substring search finds it, and everything in between is passed on in large pieces.

use std::fmt;
use std::io::Write;
use std::sync::LazyLock;

use memchr::memchr;
use memchr::memmem::Finder;

use super::failure::{self, Failure, quoted};
use super::intake::Intake;
use super::line::{Line, Stream};
use super::security::Tls;
use super::tls::Agreed;

/// The most octets of a reply line, line end included. RFC 2449 (section 4) allows 512; a server that exceeds it a
/// little is tolerated.
const LINE_LIMIT: usize = 4096;

static LINE_WITH_DOT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n."));

/// A connection over any stream.
pub(super) struct Connection<'a, 'i, S> {
    stream: S,
    intake: &'a mut Intake<'i>,
    batch: Vec<u8>,
}

impl<'i> Connection<'_, 'i, Line<'i>> {
    /// Switches to TLS and completes the handshake.
    pub(super) async fn start_tls(&mut self, tls: &Tls) -> Result<Option<Agreed>, Failure> {
        if !self.intake.unread().is_empty() {
            let planted = "octets before the TLS handshake, which anybody in between could have added";
            return Err(Failure::Violation(planted.to_owned()));
        }
        let layer = tls.layer(self.intake.buffers).map_err(|error| Failure::Tls(error.to_string()))?;
        self.stream.start_tls(layer);
        // The client speaks first.
        self.intake.readiness.set(true);
        self.intake.receive(&mut self.stream, 0, |line, _| line.handshake().map(|()| 0)).await?;
        Ok(self.stream.agreed())
    }
}

impl<'a, 'i, S: Stream> Connection<'a, 'i, S> {
    pub(super) fn new(stream: S, intake: &'a mut Intake<'i>) -> Self {
        intake.clear();
        Connection { stream, intake, batch: Vec::new() }
    }

    /// Waits until the server sends something or hangs up. Either shows that the connection was established.
    pub(super) async fn opened(&mut self) -> Result<(), Failure> {
        self.intake.fill(&mut self.stream).await.map(drop)
    }

    /// Sends a command without an argument. Returns the text behind `+OK`.
    pub(super) async fn command(&mut self, verb: &'static str) -> Result<&str, Failure> {
        self.batch.extend_from_slice(verb.as_bytes());
        self.batch.extend_from_slice(b"\r\n");
        self.send()?;
        self.status(verb).await
    }

    /// Sends a command with its argument. Returns the text behind `+OK`.
    pub(super) async fn command_with(
        &mut self,
        verb: &'static str,
        argument: impl fmt::Display,
    ) -> Result<&str, Failure> {
        self.queue(verb, argument);
        self.send()?;
        self.status(verb).await
    }

    /// Puts a command into the batch that the next `send` writes.
    pub(super) fn queue(&mut self, verb: &'static str, argument: impl fmt::Display) {
        // Writing to a Vec cannot fail.
        let _ = write!(self.batch, "{verb} {argument}\r\n");
    }

    /// Writes the batch in one call. All earlier replies have been read, so the socket's buffer has room for it.
    pub(super) fn send(&mut self) -> Result<(), Failure> {
        self.stream.write_all(&self.batch)?;
        self.batch.clear();
        Ok(())
    }

    /// Reads the status line that answers `command`. Returns the text behind `+OK`.
    pub(super) async fn status(&mut self, command: &'static str) -> Result<&str, Failure> {
        let line = self.line().await?;
        if let Some(text) = line.strip_prefix("+OK") {
            return Ok(text);
        }
        Err(match line.strip_prefix("-ERR") {
            Some(text) => Failure::Refusal { command, text: text.to_owned() },
            None => Failure::Violation(format!("{command} was answered {}", quoted(line))),
        })
    }

    /// Passes each line of a multi-line reply to `each`. The status line has been read.
    pub(super) async fn listing(&mut self, mut each: impl FnMut(&str) -> Result<(), Failure>) -> Result<(), Failure> {
        loop {
            match self.line().await? {
                "." => return Ok(()),
                line => each(line.strip_prefix('.').unwrap_or(line))?,
            }
        }
    }

    /// Passes a multi-line reply to `content` in pieces, without the byte-stuffing. The status line has been read. The
    /// first `unseen` octets are discarded; they must end before the last line does.
    pub(super) async fn body(
        &mut self,
        unseen: u64,
        mut content: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.skip(unseen).await?;
        let mut at_line_start = unseen == 0;
        loop {
            let unread = self.intake.unread();
            if at_line_start {
                match unread {
                    [b'.', b'\r', b'\n', ..] => {
                        self.intake.start += 3;
                        return Ok(());
                    }
                    [] | [b'.'] | [b'.', b'\r'] => {
                        self.fill().await?;
                        continue;
                    }
                    [b'.', ..] => self.intake.start += 1,
                    _ => {}
                }
                at_line_start = false;
                continue;
            }
            let (length, complete) = match LINE_WITH_DOT.find(unread) {
                Some(line_end) => (line_end + 2, true),
                None => (unread.len() - undecided(unread), false),
            };
            content(&unread[..length])?;
            self.intake.start += length;
            if complete {
                at_line_start = true;
            } else {
                self.fill().await?;
            }
        }
    }

    /// Discards the next octets. Those that have not been received yet are not copied from the kernel.
    async fn skip(&mut self, mut octets: u64) -> Result<(), Failure> {
        while octets > 0 {
            let unread = self.intake.unread().len();
            let count = if unread > 0 {
                let count = usize::try_from(octets).map_or(unread, |octets| octets.min(unread));
                self.intake.start += count;
                count
            } else {
                match self.intake.discard(&mut self.stream, octets).await? {
                    0 => return Err(failure::hang_up()),
                    count => count,
                }
            };
            octets -= count as u64;
        }
        Ok(())
    }

    /// Sends QUIT and waits until the server closes the connection, so that the server's side gets the TIME_WAIT state.
    pub(super) async fn quit(mut self) -> Result<(), Failure> {
        self.command("QUIT").await?;
        if self.intake.unread().is_empty() && self.intake.fill(&mut self.stream).await? == 0 {
            return Ok(());
        }
        Err(Failure::Violation("octets after the reply to QUIT".to_owned()))
    }

    /// Reads the next line and removes its CRLF.
    async fn line(&mut self) -> Result<&str, Failure> {
        let mut searched = 0;
        let length = loop {
            match memchr(b'\n', &self.intake.unread()[searched..]) {
                Some(position) => break searched + position,
                None => searched = self.intake.unread().len(),
            }
            if searched >= LINE_LIMIT {
                break searched;
            }
            self.fill().await?;
        };
        if length >= LINE_LIMIT {
            return Err(Failure::Violation(format!("a line of more than {LINE_LIMIT} octets")));
        }
        let start = self.intake.start;
        self.intake.start += length + 1;
        let line = self.intake.buffer[start..start + length]
            .strip_suffix(b"\r")
            .ok_or_else(|| Failure::Violation("a line ends in LF without CR".to_owned()))?;
        str::from_utf8(line).map_err(|_| Failure::Violation("a reply line is not UTF-8".to_owned()))
    }

    /// Receives more. The end of the stream is an error, because a reply is not complete.
    async fn fill(&mut self) -> Result<(), Failure> {
        match self.intake.fill(&mut self.stream).await? {
            0 => Err(failure::hang_up()),
            _ => Ok(()),
        }
    }
}

/// How many octets at the end may belong to a CRLF and a dot that has not arrived yet.
fn undecided(octets: &[u8]) -> usize {
    match octets {
        [.., b'\r', b'\n'] => 2,
        [.., b'\r'] => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::buffers::Buffers;
    use super::super::reactor::Readiness;
    use super::*;
    use std::io::{self, Read};
    use std::pin::pin;
    use std::sync::atomic::AtomicU64;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    /// A server's answers, which arrive in two pieces. What the client sends is discarded.
    struct Split<'a>(&'a [u8], &'a [u8]);

    impl Read for Split<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let piece = if self.0.is_empty() { &mut self.1 } else { &mut self.0 };
            piece.read(buffer)
        }
    }

    impl Write for Split<'_> {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Stream for Split<'_> {
        fn discard(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
            self.read(scratch)
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    type Pop<'a, 'i, 's> = Connection<'a, 'i, Split<'s>>;

    /// Polls the future until it is done. The socket is always ready.
    fn finish<T>(readiness: &Readiness, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        for _ in 0..100 {
            readiness.set(true);
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return output;
            }
        }
        panic!("it waits for more than was sent");
    }

    /// Runs `check` on `answers`, cut in two at every position, with several sizes of buffers from the smallest
    /// possible one on.
    fn at_every_split<T>(answers: &str, check: impl AsyncFn(Pop) -> T) -> Vec<T> {
        let octets = answers.as_bytes();
        let longest = answers.split_inclusive("\r\n").map(str::len).max().unwrap_or(0).max(3);
        let (received, readiness) = (AtomicU64::new(0), Readiness::default());
        let mut results = Vec::new();
        for capacity in [longest + 1, longest + 2, 4096] {
            for cut in 0..=octets.len() {
                let buffers = Buffers::of(capacity);
                let mut intake = Intake::new(&buffers, &readiness, LONG, None, &received);
                let pop = Connection::new(Split(&octets[..cut], &octets[cut..]), &mut intake);
                results.push(finish(&readiness, check(pop)));
            }
        }
        results
    }

    async fn body(pop: &mut Pop<'_, '_, '_>) -> Result<String, Failure> {
        let mut content = Vec::new();
        pop.status("RETR").await?;
        pop.body(0, |piece| {
            content.extend_from_slice(piece);
            Ok(())
        })
        .await?;
        Ok(String::from_utf8(content).unwrap())
    }

    #[test]
    fn a_body_is_unstuffed_and_ends_at_the_lone_dot() {
        let bodies = [
            ("", ""),
            ("a\r\n", "a\r\n"),
            ("..\r\n", ".\r\n"),
            ("...\r\n..a\r\n", "..\r\n.a\r\n"),
            ("a\r\n..\r\n\r\n..b\r\nc.\r\n", "a\r\n.\r\n\r\n.b\r\nc.\r\n"),
            ("a\n.\nb\r.\r\r\n", "a\n.\nb\r.\r\r\n"),
            ("\r\n\r\n", "\r\n\r\n"),
        ];
        for (sent, content) in bodies {
            let answers = format!("+OK\r\n{sent}.\r\n+OK next\r\n");
            at_every_split(&answers, async |mut pop| {
                assert_eq!(body(&mut pop).await.unwrap(), content);
                assert_eq!(pop.status("NOOP").await.unwrap(), " next");
            });
        }
    }

    #[test]
    fn the_end_of_a_body_is_found_after_discarded_octets() {
        for sent in ["", "a\r\n", "..\r\n", "\r\n", "a\r\n..\r\nbc\r\n", "x.\r\n..\r\n", "a\r\n..\r\n..\r\n"] {
            let answers = format!("+OK\r\n{sent}.\r\n+OK next\r\n");
            for unseen in 0..=sent.len().saturating_sub(2) {
                // A dot is taken for stuffing where its line's beginning is seen.
                let rest = format!("{}{}", if unseen == 0 { "\r\n" } else { "" }, &sent[unseen..]);
                let content = rest.replace("\r\n.", "\r\n");
                at_every_split(&answers, async |mut pop| {
                    let mut seen = if unseen == 0 { "\r\n".to_owned() } else { String::new() };
                    pop.status("RETR").await.unwrap();
                    pop.body(unseen as u64, |piece| {
                        seen.push_str(str::from_utf8(piece).unwrap());
                        Ok(())
                    })
                    .await
                    .unwrap();
                    assert_eq!(seen, content, "{sent:?} from {unseen}");
                    assert_eq!(pop.status("NOOP").await.unwrap(), " next");
                });
            }
        }
    }

    #[test]
    fn a_listing_is_read_line_by_line() {
        at_every_split("+OK 2\r\n1 120\r\n2 200\r\n..\r\n.\r\n+OK\r\n", async |mut pop| {
            let mut lines = Vec::new();
            pop.status("LIST").await.unwrap();
            pop.listing(|line| {
                lines.push(line.to_owned());
                Ok(())
            })
            .await
            .unwrap();
            assert_eq!(lines, ["1 120", "2 200", "."]);
            pop.status("NOOP").await.unwrap();
        });
    }

    #[test]
    fn a_reply_that_is_cut_off_anywhere_is_a_hang_up() {
        let answers = "+OK\r\na\r\n..\r\n.\r\n";
        for length in 0..answers.len() {
            for failure in at_every_split(&answers[..length], async |mut pop| body(&mut pop).await.unwrap_err()) {
                assert_eq!(failure.kind(), "hang-up");
            }
        }
    }

    #[test]
    fn failures_are_counted_by_kind() {
        let kinds = [
            ("-ERR [IN-USE] locked\r\n", "-ERR [IN-USE]"),
            ("-ERR no\r\n", "-ERR to PASS"),
            ("-ERR\r\n", "-ERR to PASS"),
            ("-ERR [open\r\n", "-ERR to PASS"),
            ("* OK IMAP\r\n", "protocol violation"),
            ("+OK\n", "protocol violation"),
            ("+OK \u{fffd}\r\n", "fine"),
            ("", "hang-up"),
        ];
        for (answer, kind) in kinds {
            for counted in at_every_split(answer, async |mut pop| match pop.command_with("PASS", "x").await {
                Ok(_) => "fine".to_owned(),
                Err(failure) => failure.kind(),
            }) {
                assert_eq!(counted, kind, "{answer:?}");
            }
        }
    }

    #[test]
    fn a_line_longer_than_the_buffer_is_a_violation() {
        let (received, readiness) = (AtomicU64::new(0), Readiness::default());
        let buffers = Buffers::of(8);
        let mut intake = Intake::new(&buffers, &readiness, LONG, None, &received);
        let mut pop = Connection::new(
            Split(
                b"+OK 12345",
                b"6
",
            ),
            &mut intake,
        );
        let result = finish(&readiness, pop.status("connect")).map(drop);
        assert_eq!(result.unwrap_err().kind(), "protocol violation");
    }

    #[test]
    fn octets_after_the_reply_to_quit_are_a_violation() {
        at_every_split("+OK\r\n", async |pop| pop.quit().await.unwrap());
        for result in at_every_split("+OK\r\n+OK\r\n", async |pop| pop.quit().await) {
            assert_eq!(result.unwrap_err().kind(), "protocol violation");
        }
    }
}
