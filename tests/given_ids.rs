//! Unique-ids that Dovecot and Courier gave to messages before.

use std::fs;

use crate::harness::{MailRoot, Server, USER};

/// The unique-ids of a Maildir with four messages, and with lists of both servers, under these flags.
fn unique_ids(flags: &[&str]) -> Vec<String> {
    let mail = MailRoot::new();
    let maildrop = mail.maildrop(USER);
    for name in ["cur/1.a.h:2,S", "cur/2.a.h:2,", "new/3.a.h", "new/4.a.h"] {
        maildrop.put(name, "Subject: a\n\na\n");
    }
    fs::write(maildrop.path("dovecot-uidlist"), "3 V10 N5 Gx\n1 :1.a.h\n2 P4.a.h :2.a.h\n5 Ptwice :3.a.h\n6 :9.a.h\n")
        .unwrap();
    fs::write(maildrop.path("courierpop3dsizelist"), "/3 9 7\n1.a.h:2,S 14 8:7:0\n4.a.h 14 4:7:0\n").unwrap();
    let server = Server::builder().mail(&mail).flags(flags.iter().copied()).start();
    let mut session = server.session();
    let ids: Vec<String> = session.listing("UIDL").iter().map(|line| line[2..].to_owned()).collect();
    for (number, id) in (1..).zip(&ids) {
        assert_eq!(session.call(&format!("UIDL {number}")), format!("{number} {id}"));
    }
    session.quit();
    // A later login, with an index, has the same.
    let again: Vec<String> = server.session().listing("UIDL").iter().map(|line| line[2..].to_owned()).collect();
    assert_eq!(again, ids);
    ids
}

#[test]
fn messages_keep_the_unique_ids_of_the_server_before() {
    let own = ["1.a.h", "2.a.h", "3.a.h", "4.a.h"];
    assert_eq!(unique_ids(&[]), own);
    // The second message would have the fourth one's own unique-id.
    let dovecot = ["000000010000000a", "2.a.h", "twice", "4.a.h"];
    assert_eq!(unique_ids(&["--unique-ids", "dovecot"]), dovecot);
    let courier = ["UID8-7", "2.a.h", "3.a.h", "UID4-7"];
    assert_eq!(unique_ids(&["--unique-ids", "courier"]), courier);
    let both = ["10.1", "4.a.h", "twice", "UID4-7"];
    assert_eq!(unique_ids(&["--unique-ids", "auto", "--dovecot-uidl-format", "%v.%u"]), both);
}
