//! A server that is killed at random moments while clients delete mail. Messages that a QUIT with +OK has removed are
//! gone. Messages that no session has marked are there. A marked message whose QUIT was not answered is either whole or
//! gone.
//!
//! `POP3D_KILLS=200` sets the number of kills (default: 20).

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use rustix::process::Signal;

use crate::harness::{Client, MailRoot, Maildrop, PATIENCE, Server};
use crate::octets::Chance;

const KILLS: usize = 20;

/// The number of users. Each has a client; every second one has a Maildir and the others a flat maildrop.
const USERS: usize = 6;

/// The number of messages to which deliveries fill each maildrop.
const MESSAGES: usize = 150;

/// State that the clients share with the thread that kills the server.
struct Scene {
    /// The address of the current server.
    address: Mutex<SocketAddr>,
    /// True when no more kills will come.
    over: AtomicBool,
    /// The number of QUITs that were sent.
    quits: AtomicUsize,
    /// The number of QUITs that were not answered.
    unanswered: AtomicUsize,
    /// The number of unanswered QUITs that have removed some of the marked messages and not all.
    in_part: AtomicUsize,
}

/// A user with a client, and the mail that the maildrop has to contain.
struct User<'a> {
    name: String,
    maildrop: Maildrop,
    is_maildir: bool,
    expected: BTreeMap<String, String>,
    delivered: usize,
    chance: Chance,
    scene: &'a Scene,
}

impl User<'_> {
    fn deliver(&mut self) {
        while self.expected.len() < MESSAGES {
            self.delivered += 1;
            let number = self.delivered;
            let name = if self.is_maildir { format!("new/{number}.M.h") } else { format!("{number}") };
            let text = format!("Subject: {number}\r\n\r\n{}\r\n", "x".repeat(number % 70));
            if self.is_maildir {
                let path = self.maildrop.put(&format!("tmp/{number}"), &text);
                fs::rename(path, self.maildrop.path(&name)).unwrap();
            } else {
                self.maildrop.put(&name, &text);
            }
            self.expected.insert(name, text);
        }
    }

    /// The names of the messages in the maildrop's order.
    fn order(&self) -> Vec<String> {
        let number = |name: &String| -> usize {
            let digits: String = name.chars().filter(char::is_ascii_digit).collect();
            digits.parse().unwrap()
        };
        let mut names: Vec<String> = self.expected.keys().cloned().collect();
        names.sort_by_key(number);
        names
    }

    fn connect(&self) -> io::Result<Client> {
        let address = *self.scene.address.lock().unwrap();
        Client::try_connect(address)
    }

    /// A session that may end with or without QUIT. Returns an error if the server was killed meanwhile.
    fn session(&mut self) -> io::Result<()> {
        let order = self.order();
        let mut client = FragileClient(self.connect()?);
        client.status()?;
        client.ok(&format!("USER {0}\r\n", self.name))?;
        client.ok(&format!("PASS {0}\r\n", self.name))?;
        let stat = client.ok("STAT\r\n")?;
        let octets: usize = self.expected.values().map(String::len).sum();
        assert_eq!(stat, format!("+OK {} {octets}", order.len()), "{}", self.name);
        let chosen = self.chance.below(order.len());
        let text = client.message(&format!("RETR {}\r\n", chosen + 1))?;
        assert_eq!(text, self.expected[&order[chosen]], "{}", self.name);

        let marked: Vec<usize> = (0..order.len()).filter(|_| self.chance.below(3) > 0).collect();
        client.0.try_write(marked.iter().map(|at| format!("DELE {}\r\n", at + 1)).collect::<String>())?;
        for _ in &marked {
            client.status()?;
        }
        if self.chance.below(8) == 0 {
            return Ok(());
        }
        self.scene.quits.fetch_add(1, Ordering::Relaxed);
        let answer = client.ok("QUIT\r\n");
        self.note_removed(marked.iter().map(|&at| &order[at]), answer.is_ok());
        answer.map(drop)
    }

    /// Checks what a QUIT has done to the marked messages, and no longer expects those that it has removed.
    fn note_removed<'a>(&mut self, marked: impl Iterator<Item = &'a String>, committed: bool) {
        let (mut gone, mut there) = (0, 0);
        for name in marked {
            if self.maildrop.path(name).exists() {
                assert!(!committed, "{}: QUIT succeeded and has not removed {name}", self.name);
                there += 1;
            } else {
                self.expected.remove(name);
                gone += 1;
            }
        }
        self.scene.unanswered.fetch_add(usize::from(!committed), Ordering::Relaxed);
        self.scene.in_part.fetch_add(usize::from(gone > 0 && there > 0), Ordering::Relaxed);
    }

    fn check_disk(&self) {
        let mut names: Vec<_> = self.expected.keys().cloned().collect();
        names.sort();
        assert_eq!(self.maildrop.messages(), names, "{}", self.name);
        for (name, text) in &self.expected {
            assert_eq!(fs::read_to_string(self.maildrop.path(name)).unwrap(), *text, "{}: {name}", self.name);
        }
    }

    /// Runs sessions until no more kills come, and then one more on the last server.
    fn run(mut self) {
        while !self.scene.over.load(Ordering::Relaxed) {
            self.deliver();
            if self.session().is_err() {
                self.check_disk();
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.session() {
            assert!(Instant::now() < deadline, "the last server does not answer {}: {error}", self.name);
            self.deliver();
        }
        self.check_disk();
    }
}

/// A client whose server may be killed. Its methods return an error then; any answer but +OK fails the test.
struct FragileClient(Client);

impl FragileClient {
    fn status(&mut self) -> io::Result<String> {
        let line = self.0.try_line()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let line = String::from_utf8(line).unwrap();
        assert!(line.starts_with("+OK"), "{line}");
        Ok(line)
    }

    fn ok(&mut self, command: &str) -> io::Result<String> {
        self.0.try_write(command)?;
        self.status()
    }

    fn message(&mut self, command: &str) -> io::Result<String> {
        self.ok(command)?;
        let mut text = String::new();
        loop {
            let line = self.0.try_line()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if line == b"." {
                return Ok(text);
            }
            text.push_str(&String::from_utf8(line).unwrap());
            text.push_str("\r\n");
        }
    }
}

fn start(mail: &MailRoot) -> Server {
    let user = |number: usize| format!("user{number}");
    let builder = (0..USERS).fold(Server::builder().mail(mail), |builder, it| builder.user(&user(it), &user(it)));
    builder.flags(["-qq"]).start()
}

/// Waits until some more QUITs were sent, and then for a random number of turns of the scheduler.
fn wait_for_a_random_moment(scene: &Scene, chance: &mut Chance) {
    let quits = scene.quits.load(Ordering::Relaxed) + chance.below(12);
    let deadline = Instant::now() + PATIENCE;
    while scene.quits.load(Ordering::Relaxed) <= quits {
        assert!(Instant::now() < deadline, "no client makes progress");
        thread::yield_now();
    }
    (0..chance.below(500)).for_each(|_| thread::yield_now());
}

#[test]
fn a_server_killed_under_load_keeps_unmarked_mail() {
    let kills = env::var("POP3D_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number of kills"));
    let mail = MailRoot::new();
    let mut server = start(&mail);
    let scene = Scene {
        address: Mutex::new(server.pop3_address()),
        over: AtomicBool::new(false),
        quits: AtomicUsize::new(0),
        unanswered: AtomicUsize::new(0),
        in_part: AtomicUsize::new(0),
    };
    thread::scope(|scope| {
        let readers: Vec<_> = (0..USERS)
            .map(|number| {
                let name = format!("user{number}");
                let maildrop = mail.maildrop(&name);
                let is_maildir = number % 2 == 0;
                if is_maildir {
                    maildrop.make_maildir();
                }
                let chance = Chance(number as u64);
                let expected = BTreeMap::new();
                let user = User { name, maildrop, is_maildir, expected, delivered: 0, chance, scene: &scene };
                scope.spawn(move || user.run())
            })
            .collect();
        let mut chance = Chance(99);
        // Few QUITs are cut off, so there may be more kills until one is.
        for kill in 0..10 * kills {
            if kill >= kills && scene.unanswered.load(Ordering::Relaxed) > 0 {
                break;
            }
            if readers.iter().any(thread::ScopedJoinHandle::is_finished) {
                break; // A reader has failed. The scope passes its panic on.
            }
            wait_for_a_random_moment(&scene, &mut chance);
            server.signal(Signal::KILL);
            server.wait();
            server = start(&mail);
            *scene.address.lock().unwrap() = server.pop3_address();
        }
        scene.over.store(true, Ordering::Relaxed);
    });
    let [quits, unanswered, in_part] =
        [&scene.quits, &scene.unanswered, &scene.in_part].map(|count| count.load(Ordering::Relaxed));
    println!(
        "{kills} kills or more, {quits} QUITs, {unanswered} not answered, {in_part} of these had removed some messages only"
    );
    assert!(unanswered > 0, "the server was never killed during a QUIT");
}
