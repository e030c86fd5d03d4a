//! A session's faults, on a link in memory that keeps each packet and each pause.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::*;
use crate::events::{Client, Events, Service};
use crate::wire::{Link, Tls};

/// What has happened on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Did {
    Packet(Vec<u8>),
    Pause(u128),
    Abrupt { reset: bool },
}

fn packet(octets: &[u8]) -> Did {
    Did::Packet(octets.to_vec())
}

#[derive(Default)]
struct Recorder(Vec<Did>);

impl Read for &mut Recorder {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }
}

impl Write for &mut Recorder {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.push(packet(octets));
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Link for &mut Recorder {
    fn expect_command(&mut self, _: Instant, _: Option<Instant>) {}

    fn send_file(&mut self, _: &File, _: Range<u64>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn client_left(&mut self) -> bool {
        false
    }

    fn watch(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn is_private(&self) -> bool {
        true
    }

    fn tls(&self) -> Tls {
        Tls::Absent
    }

    fn start_tls(&mut self, _: Instant) -> io::Result<String> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Breakable for &mut Recorder {
    fn pause(&mut self, time: Duration) {
        self.0.push(Did::Pause(time.as_millis()));
    }

    fn set_abrupt(&mut self, reset: bool) {
        self.0.push(Did::Abrupt { reset });
    }
}

fn client() -> Client {
    Client::new(1, "192.0.2.4:5555".parse::<SocketAddr>().unwrap().into(), Service::Pop3)
}

fn ordered(orders: &[&str]) -> Faults {
    Faults::new(orders.iter().map(|order| order.parse().unwrap()), Instant::now())
}

/// What a link with these faults does when the session sends these answers, each after a command. `Err` is the error of a
/// write.
fn sent(orders: &[&str], answers: &[&[u8]]) -> (Vec<Did>, Result<(), String>) {
    let (faults, client, events, mut recorder) = (ordered(orders), client(), Events::default(), Recorder::default());
    let mut link = FaultyLink::new(&mut recorder, &faults, &client, &events);
    let result = answers.iter().try_for_each(|answer| {
        link.write_all(answer).map_err(|error| error.to_string())?;
        link.read(&mut [0]).map(drop).map_err(|error| error.to_string())
    });
    (recorder.0, result)
}

#[test]
fn without_a_fault_for_the_client_nothing_is_different() {
    let answer: &[u8] = b"+OK\r\na\r\n.\r\n";
    for orders in [&[][..], &["192.0.2.5 drop-after=0 0 0", "ana delay=5 0 0"]] {
        assert_eq!(sent(orders, &[answer]), (vec![packet(answer)], Ok(())));
    }
}

#[test]
fn a_connection_breaks_off_after_its_octets() {
    let broken = |what| Err(format!("broken off by the fault {what}"));
    let abrupt = |reset| Did::Abrupt { reset };
    assert_eq!(
        sent(&["* drop-after=5 0 0"], &[b"+OK", b"+OK\r\n"]),
        (vec![packet(b"+OK"), packet(b"+O"), abrupt(false)], broken("drop-after=5"))
    );
    assert_eq!(sent(&["* reset-after=0 0 0"], &[b"+OK"]), (vec![abrupt(true)], broken("reset-after=0")));
    assert_eq!(
        sent(&["* reset-after=3 0 0"], &[b"+OK"]),
        (vec![packet(b"+OK"), abrupt(true)], broken("reset-after=3"))
    );
    assert_eq!(sent(&["* reset-after=4 0 0"], &[b"+OK"]), (vec![packet(b"+OK")], Ok(())));
}

#[test]
fn nothing_is_sent_on_a_connection_that_has_broken_off() {
    let (faults, client, events) = (ordered(&["* drop-after=2 1 0"]), client(), Events::default());
    let mut recorder = Recorder::default();
    let mut link = FaultyLink::new(&mut recorder, &faults, &client, &events);
    for _ in 0..2 {
        assert!(link.write_all(b"+OK").is_err());
    }
    let packets = recorder.0.iter().filter(|did| matches!(did, Did::Packet(_)));
    assert_eq!(packets.collect::<Vec<_>>(), [&packet(b"+O")]);
}

#[test]
fn each_octet_of_a_terminator_comes_in_a_packet_of_its_own() {
    let singles =
        |octets: &[u8]| -> Vec<Did> { octets.iter().flat_map(|octet| [Did::Pause(20), packet(&[*octet])]).collect() };
    let split = |first: &[u8]| [vec![packet(first)], singles(b"\n.\r\n")].concat();
    let orders = &["* split-terminator 0 0"];
    assert_eq!(sent(orders, &[b"+OK\r\na\r\n..\r\n.\r\n"]).0, split(b"+OK\r\na\r\n..\r"));
    assert_eq!(sent(orders, &[b"+OK\r\n.\r\n"]).0, split(b"+OK\r"));
    // An answer without one, and two in one write.
    assert_eq!(sent(orders, &[b"+OK\r\n"]).0, [packet(b"+OK\r\n")]);
    let twice = sent(orders, &[b"+OK\r\n.\r\n+OK 1\r\n.\r\n"]).0;
    assert_eq!(twice, [split(b"+OK\r"), split(b"+OK 1\r")].concat());
    // A terminator that begins in an earlier write.
    for begun in 1..5 {
        let whole = b"+OK\r\n.\r\n";
        let (before, behind) = whole.split_at(3 + begun);
        let mut expected = vec![packet(before)];
        expected.extend(singles(behind));
        assert_eq!(sent(orders, &[before, behind]).0, expected, "{begun}");
    }
}

#[test]
fn a_slow_answer_comes_in_small_packets() {
    let (did, _) = sent(&["* slow=30/s 0 0"], &[b"+OK\r\nab"]);
    assert_eq!(did, [Did::Pause(100), packet(b"+OK"), Did::Pause(100), packet(b"\r\na"), Did::Pause(33), packet(b"b")]);
    assert_eq!(sent(&["* slow=1/s 0 0"], &[b"ab"]).0[..2], [Did::Pause(1000), packet(b"a")]);
}

#[test]
fn each_answer_is_delayed_once() {
    let (did, _) = sent(&["* delay=500 0 0", "* drop-after=9 0 0"], &[b"+OK", b"+OK", b"1234"]);
    let expected = [
        Did::Pause(500),
        packet(b"+OK"),
        Did::Pause(500),
        packet(b"+OK"),
        Did::Pause(500),
        packet(b"123"),
        Did::Abrupt { reset: false },
    ];
    assert_eq!(did, expected);
}

#[test]
fn garbage_is_a_line_that_no_reply_can_be() {
    let (did, _) = sent(&["* garbage 0 0"], &[b"+OK\r\n"]);
    let [Did::Packet(line), answer] = &did[..] else { panic!("{did:?}") };
    assert_eq!(answer, &packet(b"+OK\r\n"));
    let text = line.strip_suffix(b"\r\n").unwrap();
    assert!(text.len() > 512 && text.contains(&0) && text.contains(&0xff), "{}", text.len());
    assert!(!text.contains(&b'\r') && !text.contains(&b'\n'));
}

#[test]
fn a_session_that_has_a_fault_keeps_it() {
    let (faults, client, events) = (ordered(&["* no-uidl 1 0"]), client(), Events::default());
    let (mut first, mut second) = (Recorder::default(), Recorder::default());
    let mut first = FaultyLink::new(&mut first, &faults, &client, &events);
    let mut second = FaultyLink::new(&mut second, &faults, &client, &events);
    assert!(first.fault(Kind::NoUidl) && !first.fault(Kind::NoTop));
    assert!(!second.fault(Kind::NoUidl), "it was for one session");
    assert!(first.fault(Kind::NoUidl));
    let later = faults.add("* no-uidl 0 0".parse().unwrap(), Instant::now());
    assert!(second.fault(Kind::NoUidl));
    faults.clear(Some(later), Instant::now());
    assert!(second.fault(Kind::NoUidl));
}

#[test]
fn a_user_has_faults_from_the_login_on() {
    let (faults, client, events) = (ordered(&["ana no-top 1 0", "ana auth 1 0"]), client(), Events::default());
    let mut recorder = Recorder::default();
    let mut link = FaultyLink::new(&mut recorder, &faults, &client, &events);
    assert!(!link.fault(Kind::NoTop));
    assert_eq!(link.fault_at_login(&[Kind::Auth], "bob"), None);
    assert_eq!(link.fault_at_login(&[Kind::InUse], "ana"), None);
    assert_eq!(link.fault_at_login(&[Kind::InUse, Kind::Auth], "ana"), Some(Kind::Auth));
    assert_eq!(link.fault_at_login(&[Kind::Auth], "ana"), None, "each login counts");
    client.set_user("ana".parse().unwrap());
    assert!(link.fault(Kind::NoTop));
}
