//! Who is connected (`w?`), and ending sessions (`k=`, `ku=`, `ka=`).

use std::net::TcpStream;
use std::time::{Duration, Instant};

use pop3d::peep::{SessionLine, Spoken, State};
use socket2::SockRef;

use super::{answer, answers, play, sessions, with_pop3s};
use crate::harness::{Certificate, Client, PASSWORD, Server, USER, eventually, reset};

/// Returns the only POP3 session.
#[track_caller]
fn session(admin: &mut Client) -> SessionLine {
    let mut all: Vec<_> = sessions(admin).into_iter().filter(|it| it.protocol != Spoken::Peep).collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// A session that is blocked: its client reads nothing of a message that is larger than all buffers.
fn blocked_in_retr(server: &Server, admin: &mut Client) -> Client {
    server.maildrop().put("1", "Subject: large\r\n\r\n".to_owned() + &"line\r\n".repeat(4_000_000));
    let mut client = server.session();
    SockRef::from(client.socket()).set_recv_buffer_size(4096).unwrap();
    client.send("RETR 1");
    client.ok();
    let mut last = 0;
    eventually("the session is blocked", || {
        let octets = session(admin).octets;
        std::mem::replace(&mut last, octets) == octets && octets > 0
    });
    client
}

#[test]
fn each_connection_is_a_line() {
    let server = Server::start();
    let mut admin = server.admin();
    let all = sessions(&mut admin);
    assert_eq!(all.len(), 1);
    assert_eq!((&all[0].protocol, &all[0].state, all[0].user.as_deref()), (&Spoken::Peep, &State::Admin, Some("root")));
    let mut clients = [server.pop3(), server.pop3(), server.session()];
    let _silent = server.peep();
    eventually("all connections have a session", || sessions(&mut admin).len() == 5);
    let all = sessions(&mut admin);
    assert!(all.is_sorted_by_key(|it| it.id));
    assert!(all.iter().all(|it| it.address == Some("127.0.0.1".parse().unwrap()) && it.tls.is_none()));
    let states: Vec<_> = all.iter().map(|it| it.state.to_string()).collect();
    assert_eq!(states, ["admin", "authorization", "authorization", "transaction", "authorization"]);
    assert_eq!(all[3].user.as_deref(), Some(USER));
    assert!(all[..3].iter().all(|it| it.octets > 0 || it.protocol == Spoken::Peep), "a greeting is counted");
    clients[0].call("QUIT");
    clients[0].closed();
    eventually("a closed connection is gone", || sessions(&mut admin).len() == 4);
}

#[test]
fn a_session_shows_what_it_has_done() {
    let server = Server::start();
    for number in 1..=3 {
        server.maildrop().put(&number.to_string(), "Subject: x\r\n\r\nbody\r\n");
    }
    let mut admin = server.admin();
    let mut client = server.session();
    let before = session(&mut admin);
    assert_eq!((before.retrieved, before.marked), (0, 0));
    client.fetch("RETR 1");
    client.fetch("RETR 2");
    client.fetch("TOP 3 1");
    client.call("DELE 1");
    client.call("DELE 2");
    let after = session(&mut admin);
    assert_eq!((after.retrieved, after.marked), (2, 2));
    assert!(after.octets > before.octets + 3 * 20);
    client.call("RSET");
    assert_eq!(session(&mut admin).marked, 0);
    assert_eq!(admin.value("rb?"), session(&mut admin).octets.to_string());
}

#[test]
fn a_session_shows_its_tls() {
    let certificate = Certificate::new();
    let server = with_pop3s(&certificate);
    let mut admin = server.admin();
    let mut client = Client::connect(server.pop3s_address()).tls(&certificate);
    client.ok();
    let shown = session(&mut admin);
    assert_eq!((&shown.protocol, shown.tls.as_deref()), (&Spoken::Pop3s, Some("TLSv1.3")));
    client.quit();
    let mut client = server.pop3();
    client.call("STLS");
    let _client = client.tls(&certificate);
    eventually("STLS shows", || {
        sessions(&mut admin).iter().any(|it| it.protocol == Spoken::Pop3 && it.tls.as_deref() == Some("TLSv1.3"))
    });
}

/// The client gets the reason, no message that it has marked is removed, and the maildrop is free when the admin has the
/// answer.
#[test]
fn a_kicked_session_removes_nothing() {
    let server = Server::start();
    server.maildrop().put("1", "Subject: x\r\n\r\n");
    let mut admin = server.admin();
    for kick in ["k= ", "ku= mrose", "ka= 127.0.0.0/8"] {
        let mut client = server.session();
        client.call("DELE 1");
        let id = session(&mut admin).id.to_string();
        let kick = kick.to_owned() + if kick == "k= " { &id } else { "" };
        play(&mut admin, [(&*kick, "+1"), ("cu?", "+0"), (&*kick, "-10")]);
        assert!(client.err().starts_with("[SYS/TEMP] "));
        client.closed();
        assert_eq!(server.maildrop().messages(), ["1"]);
    }
    server.expect_log("INFO", "end: ended by an admin; retrieved=0 octets=0 deleted=0 marks-dropped=1");
    server.expect_log("INFO", "set: ended 1 connection: of user \"mrose\"");
}

#[test]
fn a_session_that_is_blocked_in_a_write_can_be_ended() {
    let server = Server::start();
    let mut admin = server.admin();
    let client = blocked_in_retr(&server, &mut admin);
    let started = Instant::now();
    play(&mut admin, [("ku= mrose", "+1"), ("cu?", "+0")]);
    println!("the maildrop was free after {:?}", started.elapsed());
    server.session().quit();
    reset(client);
    server.expect_log("INFO", "end: ended by an admin");
}

/// Another session has the maildrop, of this server or of another one. The wait is longer than an admin waits for sessions.
#[test]
fn a_session_that_waits_for_its_maildrop_can_be_ended() {
    let server = Server::builder().flags(["--busy", "wait=30s"]).start();
    // Other servers are kept out only from a maildrop that exists.
    server.mail().maildrop(USER).put("1", "Subject: x\r\n\r\n");
    let other = Server::builder().mail(server.mail()).start();
    let mut admin = server.admin();
    play(&mut admin, [("l= debug", "+")]);
    for holder in [&server, &other] {
        let held = holder.session();
        let mut waiting = server.pop3();
        let id = sessions(&mut admin).iter().map(|it| it.id).max().unwrap();
        waiting.call(&format!("USER {USER}"));
        waiting.send(&format!("PASS {PASSWORD}"));
        let is_it = |line: &str| line.contains(&format!("#{id} ")) && line.contains(" PASS");
        eventually("the login begins", || server.stderr().lines().any(is_it));
        play(&mut admin, [(&*format!("k= {id}"), "+1")]);
        server.expect_log("INFO", &format!("set: ended 1 connection: #{id}"));
        assert_eq!(waiting.err(), "[SYS/TEMP] the administrator has ended this session");
        waiting.closed();
        assert!(sessions(&mut admin).iter().all(|it| it.id != id));
        held.quit();
    }
    server.expect_log("INFO", "end: ended by an admin");
}

#[test]
fn every_kind_of_session_can_be_ended() {
    let certificate = Certificate::new();
    let server = with_pop3s(&certificate);
    let mut admin = server.admin();
    let mut before_login = server.pop3();
    let mut in_auth = server.pop3();
    in_auth.send("AUTH PLAIN");
    assert!(in_auth.line().starts_with('+'));
    let mut by_tls = Client::connect(server.pop3s_address()).tls(&certificate);
    by_tls.ok();
    let in_handshake = TcpStream::connect(server.pop3s_address()).unwrap();
    let mut other_admin = server.admin();
    eventually("all have a session", || {
        let all = sessions(&mut admin);
        all.len() == 6 && all.iter().filter(|it| it.protocol != Spoken::Peep).count() == 4
    });
    // `ka=` does not end the connection on which it is sent.
    assert_eq!(answer(&mut admin, "ka= 0.0.0.0/0"), "+5");
    for client in [&mut before_login, &mut in_auth, &mut by_tls] {
        assert!(client.err().starts_with("[SYS/TEMP] "));
        client.closed();
    }
    other_admin.closed();
    Client::over(in_handshake).unwrap().closed();
    assert_eq!(sessions(&mut admin).len(), 1);
    play(&mut admin, [("ka= 0.0.0.0/0", "-10"), ("ka= ::/0", "-10"), ("ku= nobody", "-10"), ("k= 0", "-10")]);
}

#[test]
fn a_transform_is_ended_with_its_session() {
    let server = Server::builder().flags(["-t", "sh -c 'sleep 600'"]).start();
    server.maildrop().put("1", "Subject: x\r\n\r\n");
    let mut admin = server.admin();
    let mut client = server.session();
    client.send("RETR 1");
    eventually("the session is busy", || answer(&mut admin, "ku= nobody") == "-10" && session(&mut admin).idle == 0);
    play(&mut admin, [("ku= mrose", "+1"), ("cu?", "+0")]);
    let _ = client.try_line();
    assert_eq!(server.maildrop().messages(), ["1"]);
}

/// The server answers first and then closes the connection.
#[test]
fn an_admin_may_end_its_own_session() {
    let server = Server::start();
    let mut admin = server.admin();
    let id = sessions(&mut admin)[0].id;
    admin.send_all([&*format!("k= {id}"), "c?"]);
    admin.expect("+1");
    admin.closed();
    server.expect_log("INFO", "end: ended by an admin");
}

#[test]
fn malformed_kicks_are_bad_syntax() {
    let server = Server::start();
    let lines = "k= x\r\nk=\r\nku=\r\nka= here\r\nka= 10.0.0.0/33\r\nka= 10.0.0.0/8\r\nk= 99999999999999999999\r\n";
    assert_eq!(answers(&server, lines), "-1\r\n-1\r\n-1\r\n-1\r\n-1\r\n-10\r\n-10\r\n");
}

/// An admin ends a session while its QUIT is carried out. Either QUIT is answered by +OK and the marked message is removed,
/// or neither happens.
#[test]
fn a_session_that_is_ended_during_quit_removes_its_messages_or_none() {
    let server = Server::start();
    let mut admin = server.admin();
    for round in 0..60u32 {
        server.maildrop().put("1", "Subject: x\r\n\r\n");
        let mut client = server.session();
        client.call("DELE 1");
        client.send("QUIT");
        let moment = Instant::now() + Duration::from_micros(u64::from(round) * 5); // a different moment in each round
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        let kicked = answer(&mut admin, "ku= mrose");
        assert_eq!(answer(&mut admin, "cu?"), "+0");
        let line = client.try_line().ok().flatten();
        let line = String::from_utf8(line.unwrap_or_default()).unwrap();
        let is_left = server.maildrop().messages() == ["1"];
        match &*kicked {
            "+1" => assert!(is_left && !line.starts_with("+OK"), "{line}"),
            "+0" | "-10" => assert!(!is_left && line.starts_with("+OK"), "{line}"),
            other => panic!("{other}"),
        }
    }
}
