//! Servers whose clocks are wrong: one that jumps while the server runs, and two that differ. libfaketime changes a
//! server's clock; the file system keeps the right time, unless a test sets the time of a file.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use crate::harness::{Builder, Client, MailRoot, Maildrop, Server};

/// The clock of a server, which differs from the right time by an amount that the test sets.
struct Clock(TempDir);

impl Clock {
    fn new() -> Self {
        let clock = Self(TempDir::new().unwrap());
        clock.set("+0");
        clock
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("clock")
    }

    fn set(&self, difference: &str) {
        // The server may read the file at any moment, so it is replaced as a whole.
        let new = self.0.path().join("new");
        fs::write(&new, difference).unwrap();
        fs::rename(new, self.file()).unwrap();
    }

    /// Makes a server use this clock. The server's timers are not changed, because they do not use the time of day.
    fn apply_to(&self, builder: Builder) -> Builder {
        let library = Command::new("faketime").args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"]).output();
        let library = library.expect("faketime is installed (scripts/install-test-tools installs it)").stdout;
        [
            ("LD_PRELOAD", String::from_utf8(library).unwrap().trim()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().to_str().unwrap()),
        ]
        .into_iter()
        .chain([("FAKETIME_NO_CACHE", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("NO_FAKE_STAT", "1")])
        .fold(builder.allow(self.0.path()), |builder, (name, value)| builder.environment(name, value))
    }
}

/// The years in the server's log lines, without repetitions.
fn years(server: &Server) -> Vec<String> {
    let mut years: Vec<_> = server.stderr().lines().map(|line| line[..4].to_owned()).collect();
    years.dedup();
    years
}

/// Checks that a session has exactly these messages, each with the unique-id that an earlier session has reported.
/// Returns the unique-ids.
#[track_caller]
fn check(session: &mut Client, messages: &[(String, Option<String>)]) -> Vec<String> {
    let listing = session.listing("UIDL");
    let found: Vec<&str> = listing.iter().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(found.len(), messages.len());
    for (number, ((text, unique_id), found)) in (1..).zip(messages.iter().zip(&found)) {
        assert!(
            unique_id.as_deref().is_none_or(|unique_id| unique_id == *found),
            "the unique-id of {number} has changed"
        );
        assert_eq!(session.fetch(&format!("RETR {number}")), text.as_bytes());
    }
    found.into_iter().map(str::to_owned).collect()
}

fn through_all_times(maildrop: &Maildrop, user: &str, server: &Server, clock: &Clock, name: fn(usize) -> String) {
    let mut messages: Vec<(String, Option<String>)> = Vec::new();
    let mut delivered = 0;
    for difference in ["+0", "-2h", "+3d", "-20y", "+20y", "-60y", "+0", "+1s", "-1s"] {
        clock.set(difference);
        // An index could miss a message that is delivered right after a login.
        for _ in 0..5 {
            delivered += 1;
            let text = format!("{difference}: {delivered}\r\n");
            maildrop.put(&name(delivered), &text);
            messages.push((text, None));
            let mut session = server.pop3();
            session.login(user, user);
            let unique_ids = check(&mut session, &messages);
            for ((_, known), unique_id) in messages.iter_mut().zip(unique_ids) {
                *known = Some(unique_id);
            }
            session.quit();
        }
        let mut session = server.pop3();
        session.login(user, user);
        session.call("DELE 2");
        messages.remove(1);
        session.quit();
        assert_eq!(maildrop.messages().len(), messages.len());
    }
}

#[test]
fn no_message_is_missed_when_the_servers_clock_jumps() {
    let clock = Clock::new();
    let mail = MailRoot::new();
    let builder = Server::builder().mail(&mail).user("flat", "flat").user("maildir", "maildir");
    let server = clock.apply_to(builder).start();
    through_all_times(&mail.maildrop("flat"), "flat", &server, &clock, |number| format!("{number}"));
    through_all_times(&mail.maildrop("maildir"), "maildir", &server, &clock, |number| format!("new/{number}.M.h"));
    let years = years(&server);
    assert!(years.len() > 8, "the server's clock did not jump: {years:?}");
}

/// Two servers serve one maildrop, as those of two hosts do. What is delivered has the time of either host, as on file
/// systems that take it from the host that writes.
fn two_hosts(mail: &MailRoot, user: &str, name: fn(usize) -> String, folder: &str) {
    let clocks = [Clock::new(), Clock::new()];
    clocks[1].set("+5s");
    let servers = clocks.each_ref().map(|clock| {
        clock.apply_to(Server::builder().mail(mail).user("flat", "flat").user("maildir", "maildir")).start()
    });
    let maildrop = mail.maildrop(user);
    let mut messages: Vec<(String, Option<String>)> = Vec::new();
    for turn in 0..16 {
        let text = format!("{turn}\r\n");
        maildrop.put(&name(turn), &text);
        messages.push((text, None));
        let host = turn / 2 % 2;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + [0, 5][host];
        maildrop.set_modified(&name(turn), now);
        maildrop.set_modified_directory(folder, now);
        for server in [&servers[turn % 2], &servers[1 - turn % 2]] {
            let mut session = server.pop3();
            session.login(user, user);
            let unique_ids = check(&mut session, &messages);
            for ((_, known), unique_id) in messages.iter_mut().zip(unique_ids) {
                *known = Some(unique_id);
            }
            if turn % 4 == 3 {
                session.call("DELE 1");
                messages.remove(0);
            }
            session.quit();
        }
    }
    assert_eq!(maildrop.messages().len(), messages.len());
}

#[test]
fn two_servers_whose_clocks_are_5_s_apart_see_the_same_messages() {
    let mail = MailRoot::new();
    two_hosts(&mail, "flat", |number| format!("{number:02}"), "");
    two_hosts(&mail, "maildir", |number| format!("new/{number:02}.M.h"), "new");
}
