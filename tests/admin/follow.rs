//! Following events (`f`).

use std::io::Read;
use std::time::Instant;

use super::answer;
use crate::harness::{Client, PASSWORD, Server, USER, eventually};

/// Reads events until one has this name, and returns its line.
#[track_caller]
fn event(follower: &mut Client, name: &str) -> String {
    loop {
        let line = follower.line();
        if line.split(' ').nth(1) == Some(name) {
            return line;
        }
    }
}

#[test]
fn an_admin_follows_a_session() {
    let server = Server::start();
    let mut follower = server.admin();
    assert_eq!(answer(&mut follower, "f"), "+");
    server.maildrop().put("1", "Subject: x\r\n\r\n");
    let mut client = server.session();
    client.fetch("RETR 1");
    client.call("DELE 1");
    client.quit();
    for (name, field) in [
        ("connected", "protocol=pop3"),
        ("login", "user=mrose"),
        ("retrieved", "octets=14"),
        ("update", "removed=1"),
        ("end", "result=quit"),
    ] {
        let line = event(&mut follower, name);
        assert!(line.contains(field), "{line}");
    }
    // Any line ends it, and is not a command.
    follower.send("u- mrose");
    follower.expect("+");
    assert_eq!(answer(&mut follower, "c?"), "+998");
    assert_eq!(follower.values("u?"), [USER]);
}

#[test]
fn one_user_can_be_followed() {
    let server = Server::builder().user(USER, PASSWORD).user("bob", "x").start();
    let mut follower = server.admin();
    assert_eq!(answer(&mut follower, "f bob"), "+");
    server.session().quit();
    let mut client = server.pop3();
    client.call("USER bob");
    client.refused("PASS wrong");
    let line = follower.line();
    assert!(line.contains(" login-refused ") && line.contains(" user=bob ") && line.contains(" reason="), "{line}");
    client.login("bob", "x");
    assert!(event(&mut follower, "login").contains(" user=bob "));
    follower.send("");
    follower.expect("+");
}

/// Pipelined: the line behind `f` ends it at once. A long line is a line too, and half a line is none.
#[test]
fn any_line_ends_following() {
    let server = Server::start();
    let mut admin = server.admin();
    admin.write("f\r\nq\r\nf nobody\nx\nc?\r\nf");
    admin.write(" x y z\r");
    admin.write("\n");
    for line in ["+", "+", "+", "+", "+998", "+"] {
        admin.expect(line);
    }
    admin.write("half a line");
    admin.write("x".repeat(5000));
    admin.write("\r\n");
    admin.expect("+");
    assert_eq!(answer(&mut admin, "c?"), "+998");
}

#[test]
fn a_follower_can_leave_or_be_ended() {
    let server = Server::start();
    let mut admin = server.admin();
    let mut follower = server.admin();
    assert_eq!(answer(&mut follower, "f"), "+");
    let id = super::sessions(&mut admin).pop().unwrap().id;
    assert_eq!(answer(&mut admin, &format!("k= {id}")), "+1");
    let _ = follower.rest();
    let mut follower = server.admin();
    assert_eq!(answer(&mut follower, "f"), "+");
    follower.finish_writing();
    let _ = follower.rest();
    eventually("both are gone", || super::sessions(&mut admin).len() == 1);
    let mut follower = server.admin();
    assert_eq!(answer(&mut follower, "f"), "+");
    server.signal(rustix::process::Signal::TERM);
    let _ = follower.rest();
}

/// 32 followers, of whom the first reads nothing until the end: sessions go on, the others get every event, and it is told
/// how many it has lost.
#[test]
fn a_follower_that_does_not_read_slows_no_one() {
    const SESSIONS: usize = 3000;
    let server = Server::start();
    let mut followers: Vec<Client> = (0..32).map(|_| server.admin()).collect();
    socket2::SockRef::from(followers[0].socket()).set_recv_buffer_size(4096).unwrap();
    followers.iter_mut().for_each(|follower| assert_eq!(answer(follower, "f nobody"), "+"));
    for follower in &mut followers[..2] {
        follower.send("");
        assert_eq!(answer(follower, "f"), "+");
        follower.expect("+");
    }
    let mut reader = followers.remove(1);
    // On a busy machine it may lose events, too; the login is the last one.
    let reading = std::thread::spawn(move || event(&mut reader, "login"));
    let started = Instant::now();
    for _ in 0..SESSIONS {
        server.pop3().quit();
    }
    println!("{SESSIONS} sessions took {:?}", started.elapsed());
    server.session().quit();
    reading.join().unwrap();
    // The slow one begins to read.
    let slow = &mut followers[0];
    slow.send("");
    let mut rest = Vec::new();
    slow.finish_writing();
    slow.socket().read_to_end(&mut rest).unwrap();
    let rest = String::from_utf8(rest).unwrap();
    let lines = rest.lines().filter(|line| line.contains("protocol=pop3")).count();
    let lost: usize = rest.lines().filter_map(|line| line.split_once(" lost events=")?.1.parse::<usize>().ok()).sum();
    assert!(rest.ends_with("\r\n+\r\n"));
    // Its time has milliseconds, as that of each event.
    let times = rest.lines().filter(|line| line.contains(" lost events=")).filter_map(|line| line.split(' ').next());
    assert!(
        times.clone().all(|time| time.len() == "2026-11-28T02:00:01.000Z".len()),
        "{:?}",
        times.collect::<Vec<_>>()
    );
    println!("{lines} lines were read and {lost} lost");
    assert!(lines + lost >= 2 * SESSIONS); // each has a beginning and an end
    assert_eq!(server.admin().value("hc?"), (SESSIONS + 1).to_string());
}
