//! The most of everything: connections, places, descriptors; and that none of them is lost.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::Duration;

use pop3d::shared::LOGIN_LIMIT_WHEN_FULL;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use crate::harness::{Certificate, Client, PASSWORD, PATIENCE, Server, USER, eventually, reset, settled, throughout};

/// The most connections at once.
const MOST: usize = 998;

/// The most POP3 clients at once: one place is kept for an admin.
const MOST_POP3: usize = MOST - 1;

/// Allows this process as many descriptors as it may have.
pub(crate) fn raise_our_limit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    });
}

/// A server with the users `user0`, `user1`, …
fn server_with_users(count: usize, flags: &[&str]) -> Server {
    raise_our_limit();
    let builder = Server::builder().flags(flags.iter().copied());
    (0..count).fold(builder, |builder, number| builder.user(&format!("user{number}"), "x")).start()
}

/// One of these tests at a time, so that together they need no more descriptors than the largest of them.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An admin's good bye; the place is free then.
#[track_caller]
fn leave(mut admin: Client) {
    admin.send("q");
    admin.expect("+");
    admin.closed();
}

#[track_caller]
fn log_in(client: &mut Client, number: usize) {
    client.send_all([&*format!("USER user{number}"), "PASS x"]);
    client.ok();
    client.ok();
}

/// Begins to connect and does not wait for it, so that any number can be begun at once.
fn knock(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => panic!("{error}"),
        _ => {}
    }
    socket.into()
}

/// Waits for the greeting of a connection that was begun by [`knock`].
#[track_caller]
fn greeted(stream: &mut TcpStream) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut greeting = Vec::new();
    while !greeting.ends_with(b"\r\n") {
        let mut octet = [0];
        assert_eq!(stream.read(&mut octet).unwrap(), 1, "closed");
        greeting.extend(octet);
    }
    assert!(greeting.starts_with(b"+OK"), "{}", greeting.escape_ascii());
}

/// Whether the server has said anything yet.
fn is_greeted(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    match stream.peek(&mut [0]) {
        Ok(length) => length > 0,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => false,
        Err(error) => panic!("{error}"),
    }
}

/// What the server's /proc/PID has: threads, KiB of memory and the like.
fn status(server: &Server, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    value.split_whitespace().next().unwrap().parse().unwrap()
}

fn descriptors(server: &Server) -> usize {
    fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count()
}

/// The processor time that the server has used, in ticks of 10 ms.
fn processor_ticks(server: &Server) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Checks that the server uses less than 200 ms of processor time within half a second. A server that spins uses more.
#[track_caller]
fn is_at_rest(server: &Server) {
    let before = processor_ticks(server);
    throughout(Duration::from_millis(500), || {
        let used = processor_ticks(server) - before;
        assert!(used < 20, "the server has used {used} ticks of processor time while it should be idle");
    });
}

/// All places can be taken at once, and all of them are free in the end.
#[track_caller]
fn all_places_are_free(server: &Server) {
    let mut admin = server.admin();
    eventually("all have gone", || admin.value("cc?") == "0");
    assert!(admin.values("cu?").is_empty());
    let mut streams: Vec<_> = (0..MOST_POP3).map(|_| knock(server.pop3_address())).collect();
    streams.iter_mut().for_each(greeted);
    assert_eq!(admin.value("cc?"), MOST_POP3.to_string());
}

// ---------------------------------------------------------------------------------------------------------------------
// Connections

#[test]
fn all_places_taken_by_users_who_are_logged_in() {
    let _alone = alone();
    let server = server_with_users(MOST_POP3, &[]);
    let mut clients: Vec<_> = (0..MOST_POP3).map(|_| Client::connect(server.pop3_address())).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.ok();
        log_in(client, number);
    }
    let mut admin = server.admin();
    assert_eq!(admin.value("cc?"), MOST_POP3.to_string());
    assert_eq!(admin.values("cu?").len(), MOST_POP3);
    for client in &mut clients {
        assert_eq!(client.call("STAT"), "0 0");
    }
    // All at work at once.
    clients.iter_mut().for_each(|client| client.send_all(["NOOP", "UIDL", "NOOP"]));
    for client in &mut clients {
        client.ok();
        client.ok();
        client.expect(".");
        client.ok();
    }

    // Who comes now waits, and is served in turn.
    let mut waiting: Vec<_> = (0..20).map(|_| knock(server.pop3_address())).collect();
    assert_eq!(admin.value("hc?"), MOST_POP3.to_string());
    assert!(!waiting.iter().any(is_greeted));
    for (place, next) in waiting.iter_mut().enumerate() {
        clients.pop().unwrap().quit();
        greeted(next);
        assert_eq!(admin.value("hc?"), (MOST_POP3 + place + 1).to_string());
    }
    assert_eq!(admin.value("cc?"), MOST_POP3.to_string());

    // The last place is the admin's; when it is taken no second admin is served until it is free.
    let mut second = server.peep();
    leave(admin);
    second.send("a root root");
    second.expect("+");
    drop((clients, waiting));
    eventually("all have gone", || second.value("cc?") == "0");
}

#[test]
fn three_thousand_at_once() {
    const STORM: usize = 3000;
    let _alone = alone();
    let server = server_with_users(1, &[]);
    let mut admin = server.admin();
    let mut streams: Vec<_> = (0..STORM).map(|_| knock(server.pop3_address())).collect();
    // Each makes room for one of those behind it.
    for (number, stream) in streams.iter_mut().enumerate() {
        greeted(stream);
        stream.shutdown(Shutdown::Both).unwrap();
        if number % 500 == 0 {
            assert!(admin.value("cc?").parse::<usize>().unwrap() <= MOST_POP3);
        }
    }
    eventually("all have gone", || admin.value("cc?") == "0");
    assert_eq!(admin.value("hc?"), STORM.to_string());
    assert!(status(&server, "VmHWM") < 64 * 1024);
}

#[test]
fn an_admin_gets_in_when_all_other_places_are_taken() {
    let _alone = alone();
    let server = server_with_users(1, &[]);
    let mut streams: Vec<_> = (0..MOST_POP3 + 200).map(|_| knock(server.pop3_address())).collect();
    streams[..MOST_POP3].iter_mut().for_each(greeted);
    for _ in 0..50 {
        let mut admin = server.admin();
        assert_eq!(admin.value("cc?"), MOST_POP3.to_string());
        leave(admin);
    }
}

/// Every rude way to leave, some thousand times.
#[test]
fn no_place_is_lost() {
    let _alone = alone();
    let server = server_with_users(2, &[]);
    let mut admin = server.admin();
    let before = descriptors(&server);
    let mut streams = Vec::new();
    for round in 0..3000 {
        match round % 6 {
            0 => drop(knock(server.pop3_address())),
            1 => reset(Client::connect(server.pop3_address())),
            2 => {
                let mut client = Client::connect(server.pop3_address());
                client.write("USER user0\r\nPASS x\r\nCAPA\r\nQUI");
                drop(client);
            }
            3 => {
                let mut client = Client::connect(server.pop3_address());
                client.write("USER user1\r\nPASS x\r\nCAPA\r\nQUIT\r\nNOOP\r\n");
                reset(client);
            }
            4 => streams.push(knock(server.pop3_address())),
            _ => reset(Client::connect(server.peep_address())),
        }
    }
    drop(streams);
    eventually("all have gone", || admin.value("cc?") == "0");
    eventually("all descriptors are closed", || descriptors(&server) <= before);
    drop(admin);
    all_places_are_free(&server);
}

/// Nobody who waits is forgotten, whatever the limit does meanwhile.
#[test]
fn a_limit_that_changes_all_the_time() {
    const CLIENTS: usize = 600;
    let _alone = alone();
    let server = server_with_users(1, &[]);
    let mut admin = server.admin();
    let mut streams: Vec<_> = (0..CLIENTS).map(|_| knock(server.pop3_address())).collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        admin.send_all(["c= 2", "c= 1", &*format!("c= {}", 2 + number % 7)]);
        (0..3).for_each(|_| admin.expect("+"));
        greeted(stream);
        stream.shutdown(Shutdown::Both).unwrap();
    }
    assert_eq!(admin.value("hc?"), CLIENTS.to_string());
    admin.send("c= 998");
    admin.expect("+");
    drop(admin);
    all_places_are_free(&server);
}

/// Those who wait and those who are idle cost no processor time.
#[test]
fn a_full_server_is_at_rest() {
    let _alone = alone();
    let server = server_with_users(1, &["-c", "100"]);
    let mut streams: Vec<_> = (0..300).map(|_| knock(server.pop3_address())).collect();
    streams[..99].iter_mut().for_each(greeted);
    is_at_rest(&server);
}

#[test]
fn a_signal_ends_all_of_them_in_time() {
    let _alone = alone();
    let mut server = server_with_users(MOST_POP3, &[]);
    let mut clients: Vec<_> = (0..MOST_POP3).map(|_| Client::connect(server.pop3_address())).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.ok();
        if number % 2 == 0 {
            log_in(client, number);
        }
    }
    let _waiting: Vec<_> = (0..100).map(|_| knock(server.pop3_address())).collect();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    clients.iter_mut().for_each(Client::closed);
}

/// When places are wanted they are not kept for as long as otherwise for who does not log in; users keep theirs.
#[test]
fn the_silent_make_room_for_others() {
    let certificate = Certificate::new();
    let server = Server::builder().user(USER, PASSWORD).user("other", "pass").flags(["-c", "8"]);
    let server = server.flags(["--pop3s-port", "0", "--tls-cert", certificate.chain().to_str().unwrap()]);
    let server = server.flags(["--tls-key", certificate.key().to_str().unwrap()]).start();
    let mut user = server.session();
    // Silent before the login, in the handshake of POP3S, in that of STLS, and on the port of PEEP.
    let mut silent = vec![server.pop3(), server.pop3(), Client::connect(server.pop3s_address()), server.pop3()];
    silent[3].call("STLS");
    silent.extend([server.peep(), server.peep(), server.peep()]);
    // All are overdue before a client waits for a slot, so the server closes them together.
    throughout(LOGIN_LIMIT_WHEN_FULL, || assert_eq!(user.call("STAT"), "0 0"));
    let mut other = Client::connect(server.pop3_address());
    other.ok();
    other.login("other", "pass");
    silent.iter_mut().for_each(Client::closed);
    user.call("NOOP");
    server.expect_log("WARN", "all connection slots are taken: closed 7 connections");
}

/// Clients that connect to PEEP and say nothing keep no admin out: when no slot is left, the oldest of them is closed.
#[test]
fn silent_peep_clients_make_room_for_an_admin() {
    let certificate = Certificate::new();
    for by_tls in [false, true] {
        let mut builder = Server::builder().flags(["-c", "3"]);
        if by_tls {
            builder = builder.tls(&certificate);
        }
        let server = builder.start();
        let connect = |server: &Server| match by_tls {
            true => server.peep().tls(&certificate),
            false => server.peep(),
        };
        let log_in = |mut client: Client| {
            client.send("a root root");
            client.expect("+");
            client
        };
        let mut first = log_in(connect(&server));
        // With TLS they are silent in the handshake.
        let mut silent = [server.peep(), server.peep()];
        let mut second = log_in(connect(&server));
        silent[0].closed();
        let mut third = log_in(connect(&server));
        silent[1].closed();
        for admin in [&mut first, &mut second, &mut third] {
            assert_eq!(admin.value("c?"), "3");
        }
        // An admin who has authenticated keeps the slot.
        let mut waiting = server.peep();
        waiting.write("a");
        leave(first);
        if !by_tls {
            waiting.send(" root root");
            waiting.expect("+");
        }
        for admin in [&mut second, &mut third] {
            assert_eq!(admin.value("c?"), "3");
        }
    }
}

/// With one slot, admins that connect at the same time are served one after the other, and none closes another one
/// that is about to authenticate.
#[test]
fn admins_who_come_together_are_served_in_turn() {
    let server = Server::builder().flags(["-c", "1"]).start();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..5).for_each(|_| leave(server.admin())));
        }
    });
}

#[test]
fn one_place_is_for_an_admin() {
    let _alone = alone();
    let server = server_with_users(1, &["-c", "1"]);
    let waiting = knock(server.pop3_address());
    for _ in 0..3 {
        let mut admin = server.admin();
        assert_eq!((admin.value("c?"), admin.value("hc?")), ("1".to_owned(), "0".to_owned()));
        leave(admin);
    }
    assert!(!is_greeted(&waiting));
}

#[test]
fn two_places_are_for_one_client_and_an_admin() {
    let _alone = alone();
    let server = server_with_users(1, &["-c", "2"]);
    let mut admin = server.admin();
    let mut waiting: Vec<_> = (0..5).map(|_| knock(server.pop3_address())).collect();
    for (place, stream) in waiting.drain(..).enumerate() {
        let mut stream = stream;
        greeted(&mut stream);
        assert_eq!((admin.value("cc?"), admin.value("hc?")), ("1".to_owned(), (place + 1).to_string()));
    }
    eventually("the last has gone", || admin.value("cc?") == "0");
    // Two admins leave no place for a client.
    let other = server.admin();
    let mut stream = knock(server.pop3_address());
    assert_eq!(admin.value("cc?"), "0");
    assert!(!is_greeted(&stream));
    drop(other);
    greeted(&mut stream);
}

// ---------------------------------------------------------------------------------------------------------------------
// Memory and threads

/// The promise is 25 MiB, for the program as it is released; this one has no optimisation.
#[test]
fn threads_and_memory_are_bounded_from_the_start() {
    let _alone = alone();
    let server = server_with_users(MOST_POP3, &[]);
    server.admin();
    assert!(status(&server, "VmRSS") < 40 * 1024, "{} KiB", status(&server, "VmRSS"));
    let threads = status(&server, "Threads");
    assert!((MOST as u64..MOST as u64 + 20).contains(&threads), "{threads} threads");
    let mut clients: Vec<_> = (0..MOST_POP3).map(|_| Client::connect(server.pop3_address())).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.ok();
        log_in(client, number);
    }
    assert_eq!(status(&server, "Threads"), threads);
    assert!(status(&server, "VmRSS") < 80 * 1024, "{} KiB", status(&server, "VmRSS"));
}

/// Lists of many messages are freed for the system, not only for the next login. There are several logins at once, as
/// each thread frees memory in an arena of its own.
#[test]
fn memory_for_large_maildrops_is_given_back() {
    const USERS: usize = 8;
    const MESSAGES: usize = 12_000;
    const ROUNDS: usize = 3;
    let _alone = alone();
    let server = server_with_users(USERS, &[]);
    thread::scope(|scope| {
        for number in 0..USERS {
            let new = server.mail().maildrop(&format!("user{number}")).path("new");
            scope.spawn(move || {
                fs::create_dir_all(&new).unwrap();
                for message in 0..MESSAGES {
                    File::create(new.join(format!("{message}.M{message}P1_delivered.example.org"))).unwrap();
                }
            });
        }
    });
    let at_start = status(&server, "VmRSS");
    for _ in 0..ROUNDS {
        let mut clients: Vec<_> = (0..USERS).map(|_| server.pop3()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.send_all([&*format!("USER user{number}"), "PASS x", "STAT"]);
        }
        for client in &mut clients {
            client.ok();
            client.ok();
            assert_eq!(client.ok(), format!("{MESSAGES} 0"));
        }
        clients.into_iter().for_each(|client| client.quit());
    }
    let kept = || status(&server, "VmRSS").saturating_sub(at_start);
    eventually("what the sessions needed is given back", || kept() < 12 * 1024);
}

// ---------------------------------------------------------------------------------------------------------------------
// Descriptors

/// Allows the server no more than `count` descriptors from now on.
fn limit_descriptors(server: &Server, count: u64) {
    prlimit(Some(server.process()), Resource::Nofile, Rlimit { current: Some(count), ..getrlimit(Resource::Nofile) })
        .unwrap();
}

/// The same from the start: the server knows.
fn server_with_descriptors(count: u64) -> Server {
    raise_our_limit();
    Server::builder().user("user0", "x").user("user1", "x").descriptors(count).start()
}

/// Nobody is refused: clients wait until others leave; the log tells once; nobody spins.
#[test]
fn descriptors_run_out() {
    let _alone = alone();
    let server = server_with_users(2, &[]);
    let mut admin = server.admin();
    limit_descriptors(&server, descriptors(&server) as u64 + 20);
    let mut streams: Vec<_> = (0..60).map(|_| knock(server.pop3_address())).collect();
    eventually("it is logged", || server.stderr().contains("cannot accept"));
    assert!(server.stderr().contains("Too many open files"));
    let served: usize = admin.value("cc?").parse().unwrap();
    assert!((1..60).contains(&served), "{served}");

    is_at_rest(&server);
    assert_eq!(server.stderr().matches("cannot accept").count(), 1);

    for mut stream in streams.drain(..) {
        greeted(&mut stream);
    }
    eventually("all have gone", || admin.value("cc?") == "0");
    assert_eq!(admin.value("hc?"), "60");
    let mut client = server.pop3();
    log_in(&mut client, 0);
}

/// With few descriptors allowed some connections have to wait; those that are served can log in and read mail.
#[test]
fn sessions_have_descriptors_left_for_mail() {
    let server = server_with_descriptors(132);
    server.mail().maildrop("user0").put("1", "one\r\n");
    let mut first = server.pop3();
    let _streams: Vec<_> = (0..200).map(|_| knock(server.pop3_address())).collect();
    let mut admin = server.admin();
    let served = || admin.value("hc?");
    settled("the number of accepted connections settles", served);
    log_in(&mut first, 0);
    assert_eq!(first.fetch("RETR 1"), b"one\r\n");
    assert!(!server.stderr().contains("ERROR"), "{}", server.stderr());
}

/// A transform needs more descriptors than there are: refused for now, and the session goes on.
#[test]
fn no_descriptors_for_a_transform() {
    let _alone = alone();
    let server = server_with_users(1, &["-t", "cat"]);
    server.mail().maildrop("user0").put("1", "one\r\n");
    let mut client = server.pop3();
    log_in(&mut client, 0);
    assert_eq!(client.fetch("RETR 1"), b"one\r\n");
    let open = descriptors(&server) as u64;
    for spare in 0..8 {
        limit_descriptors(&server, open + 8 - spare);
        client.send("RETR 1");
        match &*client.line() {
            line if line.starts_with("+OK") => assert_eq!(client.multiline(), b"one\r\n"),
            line => assert!(line.starts_with("-ERR [SYS/TEMP]"), "{line}"),
        }
        assert_eq!(client.call("STAT"), "1 5");
    }
    assert_eq!(descriptors(&server) as u64, open);
}

/// A login that finds no descriptors is refused for now, and works later.
#[test]
fn no_descriptors_for_a_login() {
    let _alone = alone();
    let server = server_with_users(1, &[]);
    for number in 0..5 {
        server.mail().maildrop("user0").put(&number.to_string(), "one\r\n");
    }
    let mut client = server.pop3();
    let open = descriptors(&server) as u64;
    limit_descriptors(&server, open);
    client.call("USER user0");
    let refused = client.refused("PASS x");
    assert!(refused.starts_with("[SYS/TEMP]"), "{refused}");
    assert_eq!(descriptors(&server) as u64, open);
    limit_descriptors(&server, open + 20);
    log_in(&mut client, 0);
    assert_eq!(client.call("STAT"), "5 25");
}

/// A large maildrop is measured with many files open at once, but one descriptor is enough.
#[test]
fn one_descriptor_for_a_first_login() {
    let _alone = alone();
    let server = server_with_users(1, &[]);
    let too_large_for_one_read = "line\n".repeat(20_000);
    for number in 0..300 {
        server.mail().maildrop("user0").put(&number.to_string(), &too_large_for_one_read);
    }
    let mut client = server.pop3();
    let beside = 2; // the lock and the directory
    limit_descriptors(&server, descriptors(&server) as u64 + beside + 1);
    log_in(&mut client, 0);
    assert_eq!(client.call("STAT"), "300 36000000");
}
