//! Several clients of one user: logins that wait, are refused, take a session over, or share the maildrop.

use crate::harness::{Client, MailRoot, PASSWORD, Server, USER, eventually};

const MESSAGE: &str = "Subject: a\r\n\r\nbody\r\n";

fn server_with(flags: &[&str], mail: &MailRoot) -> Server {
    Server::builder().mail(mail).user(USER, PASSWORD).flags(flags.iter().copied()).start()
}

/// Mail in which the maildrop has these messages.
fn mail(names: &[&str]) -> MailRoot {
    let mail = MailRoot::new();
    names.iter().for_each(|name| drop(mail.maildrop(USER).put(name, MESSAGE)));
    mail
}

#[track_caller]
fn assert_refused(server: &Server) {
    let mut client = server.pop3();
    client.call(&format!("USER {USER}"));
    let refusal = client.refused(&format!("PASS {PASSWORD}"));
    assert!(refusal.starts_with("[IN-USE]"), "{refusal}");
}

#[test]
fn a_busy_maildrop_can_be_refused_at_once() {
    let mail = mail(&["1"]);
    let server = server_with(&["--busy", "refuse"], &mail);
    let session = server.session();
    assert_refused(&server);
    session.quit();
    server.session().quit();
}

/// The client of the session that was taken over learns why, and what it has marked stays.
#[test]
fn an_idle_session_is_taken_over_without_update() {
    for layout in ["1", "new/1"] {
        let mail = mail(&[layout]);
        let server = server_with(&["--busy", "take-over=0s"], &mail);
        let mut old = server.session();
        old.call("DELE 1");
        let mut new = server.session();
        let words = old.err();
        assert!(words.starts_with("[SYS/TEMP] another login"), "{words}");
        old.closed();
        assert_eq!(new.call("STAT"), "1 20");
        assert_eq!(mail.maildrop(USER).messages(), [layout]);
        new.call("DELE 1");
        new.quit();
        assert!(mail.maildrop(USER).messages().is_empty());
        server.expect_log("INFO", "end: taken over by another login; retrieved=0 octets=0 deleted=0 marks-dropped=1");
    }
}

#[test]
fn a_session_in_use_is_not_taken_over() {
    let mail = mail(&["1"]);
    let server = server_with(&["--busy", "take-over=1h"], &mail);
    let mut session = server.session();
    assert_refused(&server);
    session.call("STAT");
    // Another server's session is never taken over.
    let other = server_with(&["--busy", "take-over=0s"], &mail);
    assert_refused(&other);
    session.call("STAT");
    session.quit();
    other.session().quit();
}

#[test]
fn a_kick_by_an_admin_has_its_own_words() {
    let server = server_with(&["--busy", "take-over=0s"], &mail(&["1"]));
    let mut session = server.session();
    let mut admin = server.admin();
    admin.send(&format!("ku= {USER}"));
    admin.expect("+1");
    let words = session.err();
    assert!(words.starts_with("[SYS/TEMP] the administrator"), "{words}");
}

fn shared(mail: &MailRoot) -> Server {
    server_with(&["--shared-maildrops", "--busy", "refuse"], mail)
}

/// Each session has its own view, in all formats, also if the sessions belong to two servers.
#[test]
fn sessions_share_a_maildrop() {
    for names in [["1", "2", "3"], ["new/1", "new/2", "cur/3:2,S"]] {
        let mail = mail(&names);
        share(&mail, 20);
        assert_eq!(mail.maildrop(USER).messages().len(), 1);
    }
    let mail = MailRoot::new();
    let mbox = mail.path().join(USER);
    let message = |name: &str| format!("From a Thu Jan  1 00:00:00 2026\nSubject: {name}\n\nbody\n\n");
    std::fs::write(&mbox, ["1", "2", "3"].map(message).concat()).unwrap();
    share(&mail, 20);
    assert_eq!(std::fs::read_to_string(&mbox).unwrap(), message("3"));
}

/// Two sessions on two servers remove the first two of three messages.
fn share(mail: &MailRoot, octets: usize) {
    let (one, two) = (shared(mail), shared(mail));
    let mut phone = one.session();
    let mut pc = two.session();
    let mut third = one.session();
    for session in [&mut phone, &mut pc, &mut third] {
        assert_eq!(session.call("STAT"), format!("3 {}", 3 * octets));
    }
    let ids = pc.listing("UIDL");
    phone.call("DELE 1");
    pc.call("DELE 1");
    pc.call("DELE 2");
    phone.quit();
    assert_eq!(pc.listing("UIDL"), ids[2..], "the other session's view is fixed");
    let refusal = third.refused("RETR 1");
    assert!(refusal.starts_with("[SYS/TEMP]"), "{refusal}");
    // A message that the other session has removed counts as removed.
    pc.quit();
    assert_eq!(third.fetch("RETR 3").len(), octets);
    third.quit();
    assert_eq!(one.session().listing("UIDL"), [ids[2].replace("3 ", "1 ")]);
}

#[test]
fn sessions_that_share_keep_out_those_that_do_not() {
    let mail = mail(&["new/1"]);
    let sharing = shared(&mail);
    let alone = server_with(&["--busy", "refuse"], &mail);
    let (one, two) = (sharing.session(), sharing.session());
    assert_refused(&alone);
    one.quit();
    assert_refused(&alone);
    two.quit();
    let session = alone.session();
    assert_refused(&sharing);
    session.quit();
    sharing.session().quit();
}

/// Whatever sessions that share a maildrop do at the same time, each message is removed once and none is lost.
#[test]
fn many_sessions_remove_messages_of_one_maildrop_at_once() {
    const CLIENTS: usize = 8;
    let names: Vec<String> = (0..5 * CLIENTS).map(|number| format!("new/{number}.a.h")).collect();
    let mail = mail(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let server = shared(&mail);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.session()).collect();
    for (at, client) in clients.iter_mut().enumerate() {
        (0..4).for_each(|number| drop(client.call(&format!("DELE {}", at * 5 + number + 1))));
    }
    for client in &mut clients {
        client.send("QUIT");
    }
    for client in &mut clients {
        client.ok();
        client.closed();
    }
    let left: Vec<String> = (0..CLIENTS).map(|at| format!("new/{}.a.h", at * 5 + 4)).collect();
    eventually("all marked messages are gone", || {
        let mut messages = mail.maildrop(USER).messages();
        messages.sort_by_key(|name| name["new/".len()..].split('.').next().unwrap().parse::<u32>().unwrap());
        messages == left
    });
}
