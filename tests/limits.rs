//! The limits of connections, connection slots, memory and file descriptors, and that each is released after use.

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

/// The largest number of connections at once.
const MOST: usize = 998;

/// The largest number of POP3 connections at once. One slot is reserved for an admin.
const MOST_POP3: usize = MOST - 1;

/// Raises the limit of open files of the test's own process to its hard limit.
pub(crate) fn raise_own_descriptor_limit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    });
}

/// Starts a server with `count` users `user0`, `user1`, …
fn server_with_users(count: usize, flags: &[&str]) -> Server {
    raise_own_descriptor_limit();
    let builder = Server::builder().flags(flags.iter().copied());
    (0..count).fold(builder, |builder, number| builder.user(&format!("user{number}"), "x")).start()
}

/// Lets one test run at a time of those that open many connections, so that together they do not run out of
/// descriptors.
pub(crate) fn one_at_a_time() -> MutexGuard<'static, ()> {
    static RUNNING: Mutex<()> = Mutex::new(());
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends an admin's session and waits until the server has closed the connection, which frees the slot.
#[track_caller]
fn log_out(mut admin: Client) {
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

/// Starts to connect and does not wait for the connection, so that a test can start any number of connections at once.
fn start_connecting(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => panic!("{error}"),
        _ => {}
    }
    socket.into()
}

/// Waits for the greeting on a connection from [`start_connecting`].
#[track_caller]
fn expect_greeting(stream: &mut TcpStream) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut greeting = Vec::new();
    while !greeting.ends_with(b"\r\n") {
        let mut octet = [0];
        assert_eq!(stream.read(&mut octet).unwrap(), 1, "the server has closed the connection");
        greeting.extend(octet);
    }
    assert!(greeting.starts_with(b"+OK"), "{}", greeting.escape_ascii());
}

/// Returns true if the server has sent anything.
fn has_greeting(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    match stream.peek(&mut [0]) {
        Ok(length) => length > 0,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => false,
        Err(error) => panic!("{error}"),
    }
}

/// A number from the server's `/proc/PID/status`, for example the number of threads or KiB of memory.
fn status(server: &Server, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    value.split_whitespace().next().unwrap().parse().unwrap()
}

fn descriptors(server: &Server) -> usize {
    fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count()
}

/// The processor time that the server has used, in ticks of 10 ms each.
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

/// Waits until no POP3 session is left, and checks that as many can be served at once as the limit allows.
#[track_caller]
fn expect_all_slots_free(server: &Server) {
    let mut admin = server.admin();
    eventually("no session is left", || admin.value("cc?") == "0");
    assert!(admin.values("cu?").is_empty());
    let mut streams: Vec<_> = (0..MOST_POP3).map(|_| start_connecting(server.pop3_address())).collect();
    streams.iter_mut().for_each(expect_greeting);
    assert_eq!(admin.value("cc?"), MOST_POP3.to_string());
}

// ---------------------------------------------------------------------------------------------------------------------
// Connections

#[test]
fn every_slot_can_be_used_by_a_logged_in_user() {
    let _turn = one_at_a_time();
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
    // All sessions work at the same time.
    clients.iter_mut().for_each(|client| client.send_all(["NOOP", "UIDL", "NOOP"]));
    for client in &mut clients {
        client.ok();
        client.ok();
        client.expect(".");
        client.ok();
    }

    // Further clients wait and are served in the order in which they have connected.
    let mut waiting: Vec<_> = (0..20).map(|_| start_connecting(server.pop3_address())).collect();
    assert_eq!(admin.value("hc?"), MOST_POP3.to_string());
    assert!(!waiting.iter().any(has_greeting));
    for (served, next) in waiting.iter_mut().enumerate() {
        clients.pop().unwrap().quit();
        expect_greeting(next);
        assert_eq!(admin.value("hc?"), (MOST_POP3 + served + 1).to_string());
    }
    assert_eq!(admin.value("cc?"), MOST_POP3.to_string());

    // The last slot is reserved for an admin. While it is taken, a second admin has to wait.
    let mut second = server.peep();
    log_out(admin);
    second.send("a root root");
    second.expect("+");
    drop((clients, waiting));
    eventually("no session is left", || second.value("cc?") == "0");
}

#[test]
fn three_thousand_clients_that_connect_at_once_are_all_served() {
    const STORM: usize = 3000;
    let _turn = one_at_a_time();
    let server = server_with_users(1, &[]);
    let mut admin = server.admin();
    let mut streams: Vec<_> = (0..STORM).map(|_| start_connecting(server.pop3_address())).collect();
    // Each client that leaves frees a slot for one that waits.
    for (number, stream) in streams.iter_mut().enumerate() {
        expect_greeting(stream);
        stream.shutdown(Shutdown::Both).unwrap();
        if number % 500 == 0 {
            assert!(admin.value("cc?").parse::<usize>().unwrap() <= MOST_POP3);
        }
    }
    eventually("no session is left", || admin.value("cc?") == "0");
    assert_eq!(admin.value("hc?"), STORM.to_string());
    assert!(status(&server, "VmHWM") < 64 * 1024);
}

#[test]
fn an_admin_is_served_when_all_other_slots_are_taken() {
    let _turn = one_at_a_time();
    let server = server_with_users(1, &[]);
    let mut streams: Vec<_> = (0..MOST_POP3 + 200).map(|_| start_connecting(server.pop3_address())).collect();
    streams[..MOST_POP3].iter_mut().for_each(expect_greeting);
    for _ in 0..50 {
        let mut admin = server.admin();
        assert_eq!(admin.value("cc?"), MOST_POP3.to_string());
        log_out(admin);
    }
}

/// Clients leave in every way that skips QUIT, some thousand times.
#[test]
fn every_slot_is_released_however_a_client_leaves() {
    let _turn = one_at_a_time();
    let server = server_with_users(2, &[]);
    let mut admin = server.admin();
    let before = descriptors(&server);
    let mut streams = Vec::new();
    for round in 0..3000 {
        match round % 6 {
            0 => drop(start_connecting(server.pop3_address())),
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
            4 => streams.push(start_connecting(server.pop3_address())),
            _ => reset(Client::connect(server.peep_address())),
        }
    }
    drop(streams);
    eventually("no session is left", || admin.value("cc?") == "0");
    eventually("all descriptors are closed", || descriptors(&server) <= before);
    drop(admin);
    expect_all_slots_free(&server);
}

#[test]
fn every_waiting_client_is_served_while_the_limit_changes() {
    const CLIENTS: usize = 600;
    let _turn = one_at_a_time();
    let server = server_with_users(1, &[]);
    let mut admin = server.admin();
    let mut streams: Vec<_> = (0..CLIENTS).map(|_| start_connecting(server.pop3_address())).collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        admin.send_all(["c= 2", "c= 1", &*format!("c= {}", 2 + number % 7)]);
        (0..3).for_each(|_| admin.expect("+"));
        expect_greeting(stream);
        stream.shutdown(Shutdown::Both).unwrap();
    }
    assert_eq!(admin.value("hc?"), CLIENTS.to_string());
    admin.send("c= 998");
    admin.expect("+");
    drop(admin);
    expect_all_slots_free(&server);
}

#[test]
fn idle_and_waiting_clients_cost_no_processor_time() {
    let _turn = one_at_a_time();
    let server = server_with_users(1, &["-c", "100"]);
    let mut streams: Vec<_> = (0..300).map(|_| start_connecting(server.pop3_address())).collect();
    streams[..99].iter_mut().for_each(expect_greeting);
    is_at_rest(&server);
}

#[test]
fn sigterm_ends_a_full_server_in_time() {
    let _turn = one_at_a_time();
    let mut server = server_with_users(MOST_POP3, &[]);
    let mut clients: Vec<_> = (0..MOST_POP3).map(|_| Client::connect(server.pop3_address())).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.ok();
        if number % 2 == 0 {
            log_in(client, number);
        }
    }
    let _waiting: Vec<_> = (0..100).map(|_| start_connecting(server.pop3_address())).collect();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    clients.iter_mut().for_each(Client::closed);
}

/// While a client waits for a slot, connections that have not logged in get a shorter deadline. Sessions of users keep
/// theirs.
#[test]
fn clients_that_do_not_log_in_are_closed_when_others_wait() {
    let certificate = Certificate::new();
    let server = Server::builder().user(USER, PASSWORD).user("other", "pass").flags(["-c", "8"]);
    let server = server.flags(["--pop3s-port", "0", "--tls-cert", certificate.chain().to_str().unwrap()]);
    let server = server.flags(["--tls-key", certificate.key().to_str().unwrap()]).start();
    let mut user = server.session();
    // Clients that send nothing before login, in the handshake of POP3S, in that of STLS, and on PEEP's port.
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

/// When no slot is left and an admin connects, the oldest PEEP connection that has not authenticated is closed.
#[test]
fn silent_peep_clients_are_closed_when_an_admin_connects() {
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
        // With TLS, these clients do not even start the handshake.
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
        log_out(first);
        if !by_tls {
            waiting.send(" root root");
            waiting.expect("+");
        }
        for admin in [&mut second, &mut third] {
            assert_eq!(admin.value("c?"), "3");
        }
    }
}

/// With one slot, admins that connect at the same time are served one after the other. None of them closes the
/// connection of another that is about to authenticate.
#[test]
fn admins_who_connect_together_are_served_in_turn() {
    let server = Server::builder().flags(["-c", "1"]).start();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..5).for_each(|_| log_out(server.admin())));
        }
    });
}

#[test]
fn a_single_slot_is_reserved_for_an_admin() {
    let _turn = one_at_a_time();
    let server = server_with_users(1, &["-c", "1"]);
    let waiting = start_connecting(server.pop3_address());
    for _ in 0..3 {
        let mut admin = server.admin();
        assert_eq!((admin.value("c?"), admin.value("hc?")), ("1".to_owned(), "0".to_owned()));
        log_out(admin);
    }
    assert!(!has_greeting(&waiting));
}

#[test]
fn two_slots_serve_one_client_and_one_admin() {
    let _turn = one_at_a_time();
    let server = server_with_users(1, &["-c", "2"]);
    let mut admin = server.admin();
    let mut waiting: Vec<_> = (0..5).map(|_| start_connecting(server.pop3_address())).collect();
    for (served, stream) in waiting.drain(..).enumerate() {
        let mut stream = stream;
        expect_greeting(&mut stream);
        assert_eq!((admin.value("cc?"), admin.value("hc?")), ("1".to_owned(), (served + 1).to_string()));
    }
    eventually("the last session has ended", || admin.value("cc?") == "0");
    // Two admins leave no slot for a client.
    let other = server.admin();
    let mut stream = start_connecting(server.pop3_address());
    assert_eq!(admin.value("cc?"), "0");
    assert!(!has_greeting(&stream));
    drop(other);
    expect_greeting(&mut stream);
}

// ---------------------------------------------------------------------------------------------------------------------
// Memory and threads

/// The released program is promised to use 25 MiB. The limits here are higher, because tests run a build without
/// optimisation.
#[test]
fn threads_and_memory_are_bounded_from_the_start() {
    let _turn = one_at_a_time();
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
    let now = status(&server, "Threads");
    assert!(now <= threads, "{threads} threads at the start, {now} with all sessions"); // some end after the start
    assert!(status(&server, "VmRSS") < 80 * 1024, "{} KiB", status(&server, "VmRSS"));
}

/// A session's list of messages is returned to the system when the session ends. Several sessions run at once, because
/// each thread's allocator has an arena of its own.
#[test]
fn memory_of_large_maildrops_is_returned_to_the_system() {
    const USERS: usize = 8;
    const MESSAGES: usize = 12_000;
    const ROUNDS: usize = 3;
    let _turn = one_at_a_time();
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
    eventually("the memory of the sessions is returned", || kept() < 12 * 1024);
}

// ---------------------------------------------------------------------------------------------------------------------
// Descriptors

/// Limits the running server to `count` descriptors.
fn limit_descriptors(server: &Server, count: u64) {
    prlimit(Some(server.process()), Resource::Nofile, Rlimit { current: Some(count), ..getrlimit(Resource::Nofile) })
        .unwrap();
}

/// Starts a server with a limit of `count` descriptors, which it can read at its start.
fn server_with_descriptors(count: u64) -> Server {
    raise_own_descriptor_limit();
    Server::builder().user("user0", "x").user("user1", "x").descriptors(count).start()
}

/// Clients wait until others leave, the log has one line, and the server does not spin.
#[test]
fn clients_wait_when_the_server_has_no_descriptors_left() {
    let _turn = one_at_a_time();
    let server = server_with_users(2, &[]);
    let mut admin = server.admin();
    limit_descriptors(&server, descriptors(&server) as u64 + 20);
    let mut streams: Vec<_> = (0..60).map(|_| start_connecting(server.pop3_address())).collect();
    eventually("the log has the reason", || server.stderr().contains("cannot accept"));
    assert!(server.stderr().contains("Too many open files"));
    let served: usize = admin.value("cc?").parse().unwrap();
    assert!((1..60).contains(&served), "{served}");

    is_at_rest(&server);
    assert_eq!(server.stderr().matches("cannot accept").count(), 1);

    for mut stream in streams.drain(..) {
        expect_greeting(&mut stream);
    }
    eventually("no session is left", || admin.value("cc?") == "0");
    assert_eq!(admin.value("hc?"), "60");
    let mut client = server.pop3();
    log_in(&mut client, 0);
}

/// With a low limit of descriptors, some connections have to wait. Those that are served can log in and read mail.
#[test]
fn sessions_have_descriptors_left_for_mail() {
    let server = server_with_descriptors(132);
    server.mail().maildrop("user0").put("1", "one\r\n");
    let mut first = server.pop3();
    let _streams: Vec<_> = (0..200).map(|_| start_connecting(server.pop3_address())).collect();
    let mut admin = server.admin();
    let served = || admin.value("hc?");
    settled("the number of accepted connections settles", served);
    log_in(&mut first, 0);
    assert_eq!(first.fetch("RETR 1"), b"one\r\n");
    assert!(!server.stderr().contains("ERROR"), "{}", server.stderr());
}

/// A RETR whose transform needs more descriptors than are left is refused for now, and the session goes on.
#[test]
fn a_transform_without_descriptors_is_refused_and_the_session_goes_on() {
    let _turn = one_at_a_time();
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

#[test]
fn a_login_without_descriptors_is_refused_for_now_and_works_later() {
    let _turn = one_at_a_time();
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

/// The first login to a large maildrop opens many files at once, but works with a single descriptor.
#[test]
fn one_free_descriptor_is_enough_for_a_first_login() {
    let _turn = one_at_a_time();
    let server = server_with_users(1, &[]);
    let too_large_for_one_read = "line\n".repeat(20_000);
    for number in 0..300 {
        server.mail().maildrop("user0").put(&number.to_string(), &too_large_for_one_read);
    }
    let mut client = server.pop3();
    let lock_and_directory = 2;
    limit_descriptors(&server, descriptors(&server) as u64 + lock_and_directory + 1);
    log_in(&mut client, 0);
    assert_eq!(client.call("STAT"), "300 36000000");
}
