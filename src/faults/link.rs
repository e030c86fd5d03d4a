//! The connection of a session that may have faults.

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::due::Due;
use super::{Faults, Kind, What};
use crate::events::{Client, Events};
use crate::wire::{Link, Tls, copy_range};

/// The end of an answer of several lines. Within an answer it does not occur, because leading dots are doubled.
const TERMINATOR: &[u8] = b"\r\n.\r\n";

/// The time between the packets of a split terminator. A client that waits for octets reads each packet by itself then.
const BETWEEN_PACKETS: Duration = Duration::from_millis(20);

/// With `slow`, octets are sent this often.
const SENDS_PER_SECOND: u64 = 10;

/// A link that can wait and break.
pub trait Breakable: Link {
    /// Waits, but no longer than the client and the server want the session.
    fn pause(&mut self, time: Duration);

    /// Makes the end of the session abrupt: without TLS's closing message, and with a reset (RST) if `reset`.
    fn set_abrupt(&mut self, reset: bool);
}

/// A link with the faults that are due.
#[derive(Debug)]
pub struct FaultyLink<'a, L> {
    link: L,
    due: Due<'a>,
    /// True if the client waits for an answer of which nothing has been sent.
    begins_answer: bool,
    /// How many octets have been sent.
    sent: u64,
    /// The last octets that have been sent, one less than [`TERMINATOR`] has.
    last: Vec<u8>,
    /// The fault that ends the connection in this answer.
    cut: Option<What>,
}

impl<'a, L: Breakable> FaultyLink<'a, L> {
    /// Wraps the connection of a client.
    pub fn new(link: L, faults: &'a Faults, client: &'a Client, events: &'a Events) -> Self {
        Self { link, due: Due::new(faults, client, events), begins_answer: true, sent: 0, last: Vec::new(), cut: None }
    }

    fn value(&mut self, kind: Kind) -> Option<u64> {
        self.due.in_session(|what| what.kind == kind).map(|what| what.value)
    }

    fn begin_answer(&mut self) -> io::Result<()> {
        if let Some(milliseconds) = self.value(Kind::Delay) {
            self.link.pause(Duration::from_millis(milliseconds));
        }
        if self.value(Kind::Garbage).is_some() {
            self.link.write_all(&garbage())?;
        }
        Ok(())
    }

    /// Shortens `octets` so that they end where the connection is to be cut. Fails if it is to be cut at once.
    fn before_cut<'o>(&mut self, octets: &'o [u8]) -> io::Result<&'o [u8]> {
        let end = self.sent + octets.len() as u64;
        if self.cut.is_none() {
            let is_cut = |what: What| matches!(what.kind, Kind::DropAfter | Kind::ResetAfter) && what.value <= end;
            self.cut = self.due.in_session(is_cut);
        }
        let Some(cut) = self.cut else { return Ok(octets) };
        match cut.value.checked_sub(self.sent) {
            None | Some(0) => Err(self.break_off(cut)),
            Some(room) => Ok(usize::try_from(room).map_or(octets, |room| &octets[..room.min(octets.len())])),
        }
    }

    fn break_off(&mut self, cut: What) -> io::Error {
        self.link.set_abrupt(cut.kind == Kind::ResetAfter);
        io::Error::other(format!("broken off by the fault {cut}"))
    }

    /// Shortens `octets` to those that are sent at once. Waits if they come later than the ones before.
    fn next_packet<'o>(&mut self, mut octets: &'o [u8]) -> &'o [u8] {
        if let Some(packet) = split(&self.last, octets)
            && self.value(Kind::SplitTerminator).is_some()
        {
            if packet == Packet::Next {
                self.link.pause(BETWEEN_PACKETS);
            }
            octets = &octets[..packet.octets()];
        }
        if let Some(rate) = self.value(Kind::Slow) {
            let most = (rate / SENDS_PER_SECOND).max(1);
            octets = &octets[..usize::try_from(most).map_or(octets.len(), |most| most.min(octets.len()))];
            self.link.pause(Duration::from_secs_f64(octets.len() as f64 / rate as f64));
        }
        octets
    }

    fn note_sent(&mut self, octets: &[u8]) {
        self.sent += octets.len() as u64;
        let kept = TERMINATOR.len() - 1;
        self.last.extend_from_slice(&octets[octets.len().saturating_sub(kept)..]);
        self.last.drain(..self.last.len().saturating_sub(kept));
    }
}

/// The next packet of an answer with a terminator.
#[derive(Debug, PartialEq, Eq)]
enum Packet {
    /// The packet that ends with the terminator's first octet, and how many octets it has.
    First(usize),
    /// One of a single octet of the terminator.
    Next,
}

impl Packet {
    fn octets(&self) -> usize {
        match self {
            Self::First(octets) => *octets,
            Self::Next => 1,
        }
    }
}

/// Returns the packet with which `octets` begin, if a terminator is in them or is completed by them. `last` are the octets
/// before.
fn split(last: &[u8], octets: &[u8]) -> Option<Packet> {
    let completes = |begun: usize| last.ends_with(&TERMINATOR[..begun]) && octets.starts_with(&TERMINATOR[begun..]);
    if (1..TERMINATOR.len()).any(completes) {
        return Some(Packet::Next);
    }
    octets.windows(TERMINATOR.len()).position(|window| window == TERMINATOR).map(|at| Packet::First(at + 1))
}

/// A line that is no POP3: it has all octets but CR and LF, and is longer than the 512 octets that a reply may have (RFC
/// 2449 section 4).
fn garbage() -> Vec<u8> {
    let octets = (0..=u8::MAX).filter(|octet| !b"\r\n".contains(octet));
    let mut line: Vec<u8> = octets.clone().chain(octets.clone()).chain(octets).collect();
    line.extend_from_slice(b"\r\n");
    line
}

impl<L: Breakable> Read for FaultyLink<'_, L> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.link.read(buffer)?;
        self.begins_answer = true;
        Ok(read)
    }
}

impl<L: Breakable> Write for FaultyLink<'_, L> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let octets = self.before_cut(octets)?;
        if std::mem::take(&mut self.begins_answer) {
            self.begin_answer()?;
        }
        let octets = self.next_packet(octets);
        let written = self.link.write(octets)?;
        self.note_sent(&octets[..written]);
        match self.cut {
            Some(cut) if cut.value <= self.sent => Err(self.break_off(cut)),
            _ => Ok(written),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.link.flush()
    }
}

impl<L: Breakable> Link for FaultyLink<'_, L> {
    fn expect_command(&mut self, since: Instant, deadline: Option<Instant>) {
        self.link.expect_command(since, deadline);
    }

    fn set_logged_in(&self) {
        self.link.set_logged_in();
    }

    /// Does nothing, because the packets of the last answer have to stay as they are.
    fn set_ending(&mut self) {}

    fn send_file(&mut self, file: &File, range: Range<u64>) -> io::Result<()> {
        copy_range(file, range, self)
    }

    fn client_left(&mut self) -> bool {
        self.link.client_left()
    }

    fn watch(&self) -> Option<BorrowedFd<'_>> {
        self.link.watch()
    }

    fn is_private(&self) -> bool {
        self.link.is_private()
    }

    fn client_user(&self) -> io::Result<u32> {
        self.link.client_user()
    }

    fn tls(&self) -> Tls {
        self.link.tls()
    }

    fn channel_binding(&self) -> Option<[u8; 32]> {
        self.link.channel_binding()
    }

    fn start_tls(&mut self, deadline: Instant) -> io::Result<String> {
        self.link.start_tls(deadline)
    }

    fn fault(&mut self, kind: Kind) -> bool {
        self.value(kind).is_some()
    }

    fn fault_at_login(&mut self, kinds: &[Kind], user: &str) -> Option<Kind> {
        self.due.once(|what| kinds.contains(&what.kind), Some(user)).map(|what| what.kind)
    }
}
