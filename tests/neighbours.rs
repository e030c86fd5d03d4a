//! Maildirs that other programs use, too: what sessions do for them.

use crate::harness::{Maildrop, Server};

const MESSAGE: &str = "Subject: a\r\n\r\nbody\r\n";

/// A server with these flags, and a Maildir with these messages.
fn maildir(flags: &[&str], names: &[&str]) -> (Server, Maildrop) {
    let server = Server::builder().flags(flags.iter().copied()).start();
    let maildrop = server.maildrop();
    maildrop.make_maildir();
    for name in names {
        maildrop.put(name, MESSAGE);
    }
    (server, maildrop)
}

#[test]
fn only_complete_retrievals_are_marked_and_only_at_quit() {
    let names = ["new/1.a.h", "new/2.a.h", "new/3.a.h"];
    let (server, maildrop) = maildir(&["--seen"], &names);
    let mut session = server.session();
    session.fetch("RETR 1");
    drop(session);
    // The next login waits for the end of the session.
    let mut session = server.session();
    assert_eq!(maildrop.messages(), names);
    session.fetch("RETR 1");
    session.fetch("TOP 2 100");
    session.call("RSET");
    assert_eq!(maildrop.messages(), names);
    session.quit();
    assert_eq!(maildrop.messages(), ["cur/1.a.h:2,S", "new/2.a.h", "new/3.a.h"]);
    let mut session = server.session();
    assert_eq!(session.listing("UIDL"), ["1 1.a.h", "2 2.a.h", "3 3.a.h"]);
    assert_eq!(session.fetch("RETR 1"), MESSAGE.as_bytes());
    session.call("DELE 1");
    session.fetch("RETR 3");
    session.quit();
    assert_eq!(maildrop.messages(), ["cur/3.a.h:2,S", "new/2.a.h"]);
}

#[test]
fn a_transformed_message_counts_as_retrieved() {
    let (server, maildrop) = maildir(&["--seen", "--transform", "cat"], &["new/1.a.h"]);
    let mut session = server.session();
    session.fetch("RETR 1");
    session.quit();
    assert_eq!(maildrop.messages(), ["cur/1.a.h:2,S"]);
}
