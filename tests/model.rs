//! What several clients, mail programs and a server that is stopped do to two maildrops, at random, beside a naive
//! model of RFC 1939: every answer is the model's, and so is what lies on the disk after each step.
//!
//! A flat maildrop and a Maildir; clients that pipeline, hang up, reset, and go with QUIT; mail that is delivered,
//! moved, flagged (also while the server answers) and removed; SIGTERM, and kill -9 at any moment. Messages have old times, so the index is believed
//! wherever it may be.
//!
//! `POP3D_MODEL_CASES=5000 cargo test model` goes on for longer (default: 24 cases of up to 60 steps each). A case that
//! fails is made as small as it can be and printed.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::fs;
use std::mem;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::SystemTime;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{Client, MailRoot, Maildrop, Server, eventually, reset};
use crate::octets::{difference, top_of, wire_form};

const CASES: u32 = 24;
const STEPS: usize = 60;
const CLIENTS: usize = 3;

/// A message's time: long ago.
const THEN: u64 = 1_000_000_000;

/// The users, whose passwords are their names: one has a flat maildrop, one a Maildir.
const USERS: [&str; 2] = ["flat", "maildir"];
const FLAT: usize = 0;

/// Every so many cases a client logs in where another session is, once: that takes 2 s.
const PATIENT: usize = 8;

// ---------------------------------------------------------------------------------------------------------------------
// What happens

/// A step. Each makes sense at any time; who or what it is about is counted round.
#[derive(Debug, Clone)]
enum Step {
    /// A client sends these at once; it connects if it has to, and may log in first if that maildrop is free.
    Say(usize, Option<usize>, Vec<Command>),
    /// The same, while a mail program changes the flags of a message of the Maildir all the time.
    SayBesideFlagger(usize, Box<Step>),
    /// A client goes without QUIT.
    HangUp(usize),
    Reset(usize),
    /// A client sends QUIT and does not wait for the answer.
    QuitAndHangUp(usize),
    QuitAndReset(usize),
    /// The same, and the server is killed.
    QuitAndKill(usize),
    /// The server is started again.
    Restart(Stop),
    Deliver(usize, Vec<Piece>),
    /// A mail program moves or flags a message of the Maildir.
    Move(usize, usize),
    /// A mail program removes one.
    Remove(usize, usize),
    /// For a while nothing happens to the Maildir.
    Rest,
}

#[derive(Debug, Clone, Copy)]
enum Stop {
    Term,
    Kill,
}

#[derive(Debug, Clone)]
enum Command {
    LogIn(usize),
    WrongPassword(usize),
    Stat,
    List(Option<u32>),
    Uidl(Option<u32>),
    Retr(u32),
    Top(u32, u32),
    Dele(u32),
    Rset,
    Noop,
    Quit,
    Nonsense,
}

/// What messages are made of.
#[derive(Debug, Clone)]
enum Piece {
    Octets(&'static str),
    /// More than a block, in wire form or not.
    Much(&'static str),
}

fn step() -> impl Strategy<Value = Step> {
    let client = || 0..CLIENTS;
    let say = || {
        (client(), proptest::option::weighted(0.8, 0..USERS.len()), vec(command(), 1..8))
            .prop_map(|(client, user, commands)| Step::Say(client, user, commands))
    };
    prop_oneof![
        21 => say(),
        3 => (any::<usize>(), say()).prop_map(|(which, say)| Step::SayBesideFlagger(which, Box::new(say))),
        1 => client().prop_map(Step::HangUp),
        1 => client().prop_map(Step::Reset),
        1 => client().prop_map(Step::QuitAndHangUp),
        1 => client().prop_map(Step::QuitAndReset),
        1 => client().prop_map(Step::QuitAndKill),
        1 => prop_oneof![Just(Stop::Term), Just(Stop::Kill)].prop_map(Step::Restart),
        6 => (0..USERS.len(), vec(piece(), 0..12)).prop_map(|(user, pieces)| Step::Deliver(user, pieces)),
        3 => (any::<usize>(), any::<usize>()).prop_map(|(which, how)| Step::Move(which, how)),
        1 => (0..USERS.len(), any::<usize>()).prop_map(|(user, which)| Step::Remove(user, which)),
        3 => Just(Step::Rest),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    // There are seldom more messages.
    let number = || 0..7u32;
    prop_oneof![
        1 => (0..USERS.len()).prop_map(Command::LogIn),
        1 => (0..USERS.len()).prop_map(Command::WrongPassword),
        2 => Just(Command::Stat),
        2 => proptest::option::of(number()).prop_map(Command::List),
        3 => proptest::option::of(number()).prop_map(Command::Uidl),
        4 => number().prop_map(Command::Retr),
        3 => (number(), 0..4u32).prop_map(|(number, lines)| Command::Top(number, lines)),
        6 => number().prop_map(Command::Dele),
        2 => Just(Command::Rset),
        1 => Just(Command::Noop),
        2 => Just(Command::Quit),
        1 => Just(Command::Nonsense),
    ]
}

const SHORT: [&str; 9] = ["\n", "\r\n", "\r", ".", "a", "..\r\n", "\r\n\r\n", "Subject: x\r\n", "\0\u{fc}"];
const LINES: [&str; 2] = ["in wire form already\r\n", ".to be edited\n"];

fn piece() -> impl Strategy<Value = Piece> {
    prop_oneof![
        30 => prop::sample::select(&SHORT[..]).prop_map(Piece::Octets),
        1 => prop::sample::select(&LINES[..]).prop_map(Piece::Much),
    ]
}

fn octets(pieces: &[Piece]) -> Vec<u8> {
    let octets = |piece: &Piece| match piece {
        Piece::Octets(text) => (*text).to_owned(),
        Piece::Much(line) => line.repeat(4000),
    };
    pieces.iter().map(octets).collect::<String>().into_bytes()
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LogIn(user) => write!(f, "USER {0}\r\nPASS {0}", USERS[*user]),
            Self::WrongPassword(user) => write!(f, "USER {}\r\nPASS wrong", USERS[*user]),
            Self::Stat => f.write_str("STAT"),
            Self::List(None) => f.write_str("LIST"),
            Self::List(Some(number)) => write!(f, "LIST {number}"),
            Self::Uidl(None) => f.write_str("UIDL"),
            Self::Uidl(Some(number)) => write!(f, "UIDL {number}"),
            Self::Retr(number) => write!(f, "RETR {number}"),
            Self::Top(number, lines) => write!(f, "TOP {number} {lines}"),
            Self::Dele(number) => write!(f, "DELE {number}"),
            Self::Rset => f.write_str("RSET"),
            Self::Noop => f.write_str("NOOP"),
            Self::Quit => f.write_str("QUIT"),
            Self::Nonsense => f.write_str("XYZZY"),
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The model

/// A message that was delivered, whether or not it is still there. Its number is its place in [`Mail::delivered`].
#[derive(Debug)]
struct Message {
    /// Its file, while it is there.
    file: Option<String>,
    stored: Vec<u8>,
    wire: Vec<u8>,
    unique_id: Option<String>,
}

/// A user's mail.
#[derive(Debug, Default)]
struct Mail {
    /// In the maildrop's order, which is the order of delivery.
    delivered: Vec<Message>,
}

impl Mail {
    /// Those that a login finds.
    fn present(&self) -> Vec<usize> {
        (0..self.delivered.len()).filter(|&at| self.delivered[at].file.is_some()).collect()
    }

    fn files(&self) -> BTreeMap<String, &[u8]> {
        self.delivered.iter().filter_map(|message| Some((message.file.clone()?, &message.stored[..]))).collect()
    }
}

/// RFC 1939's TRANSACTION state.
#[derive(Debug)]
struct Transaction {
    user: usize,
    /// Each message, and whether it is marked as deleted.
    messages: Vec<(usize, bool)>,
}

impl Transaction {
    fn unmarked(&self) -> impl Iterator<Item = (usize, usize)> {
        (1..).zip(&self.messages).filter(|(_, (_, marked))| !marked).map(|(number, &(at, _))| (number, at))
    }

    fn message(&self, number: u32) -> Option<usize> {
        self.unmarked().find(|&(it, _)| it == number as usize).map(|(_, at)| at)
    }

    fn marked(&self) -> impl Iterator<Item = usize> {
        self.messages.iter().filter(|(_, marked)| *marked).map(|&(at, _)| at)
    }
}

/// A client, and where its session is.
#[derive(Default)]
struct Session {
    client: Option<Client>,
    transaction: Option<Transaction>,
}

/// The server, and the model that it is held against.
struct World {
    mail: MailRoot,
    server: Server,
    mails: [Mail; USERS.len()],
    sessions: [Session; CLIENTS],
    /// May a client still wait for a maildrop that is in use?
    patient: bool,
    rests: u64,
}

fn start(mail: &MailRoot) -> Server {
    let builder = USERS.iter().fold(Server::builder().mail(mail), |builder, user| builder.user(user, user));
    builder.flags(["-qq"]).start()
}

impl World {
    /// With a few messages in the flat maildrop, which are old enough for the index.
    fn new(old: PathBuf, patient: bool) -> Self {
        let mail = MailRoot::new();
        let flat = mail.maildrop(USERS[FLAT]);
        fs::rename(old, flat.path("")).unwrap();
        mail.maildrop(USERS[1]).make_maildir();
        let server = start(&mail);
        let mut mails = [Mail::default(), Mail::default()];
        for number in 0..OLD_MESSAGES {
            mails[FLAT].delivered.push(Message::new(flat_name(number), old_message(number)));
        }
        let sessions = Default::default();
        Self { mail, server, mails, sessions, patient, rests: 0 }
    }

    fn maildrop(&self, user: usize) -> Maildrop {
        self.mail.maildrop(USERS[user])
    }

    fn take(&mut self, step: Step) {
        self.take_unchecked(step);
        self.check_disk();
    }

    fn take_unchecked(&mut self, step: Step) {
        match step {
            Step::Say(client, user, commands) => {
                if let Some(user) = user
                    && self.sessions[client].transaction.is_none()
                    && self.holder(user).is_none()
                {
                    self.say(client, &[Command::LogIn(user)]);
                }
                self.say(client, &commands);
            }
            Step::SayBesideFlagger(which, say) => self.say_beside_flagger(which, *say),
            Step::HangUp(client) => drop(self.leave(client)),
            Step::Reset(client) => {
                if let Some((client, _)) = self.leave(client) {
                    reset(client);
                }
            }
            Step::QuitAndHangUp(client) => self.quit_unheard(client, drop, Outcome::Whole),
            Step::QuitAndReset(client) => self.quit_unheard(client, reset, Outcome::WholeOrNot),
            Step::QuitAndKill(client) => self.quit_and_kill(client),
            Step::Restart(stop) => self.restart(stop),
            Step::Deliver(user, pieces) => self.deliver(user, octets(&pieces)),
            Step::Move(which, how) => self.move_message(which, how),
            Step::Remove(user, which) => self.remove(user, which),
            Step::Rest => self.rest(),
        }
    }

    // The clients

    fn say(&mut self, client: usize, commands: &[Command]) {
        let mut commands: Vec<_> = commands.iter().filter(|command| self.may_be_said(client, command)).collect();
        // The client goes when its password is wrong, as it may not have many tries; it must not have said more.
        let wrong = |command: &&Command| matches!(command, Command::WrongPassword(_));
        if self.sessions[client].transaction.is_none()
            && let Some(last) = commands.iter().position(wrong)
        {
            commands.truncate(last + 1);
        }
        if self.sessions[client].client.is_none() {
            self.sessions[client].client = Some(self.server.pop3());
        }
        let lines: String = commands.iter().map(|command| format!("{command}\r\n")).collect();
        self.client(client).write(lines);
        for command in commands {
            self.answer(client, command);
            if self.sessions[client].client.is_none() {
                break; // it is over, whatever the client has said behind it
            }
        }
    }

    /// A login where another session is takes its time.
    fn may_be_said(&mut self, client: usize, command: &Command) -> bool {
        match command {
            Command::LogIn(user) if self.holder(*user).is_some_and(|holder| holder != client) => {
                mem::take(&mut self.patient)
            }
            _ => true,
        }
    }

    fn holder(&self, user: usize) -> Option<usize> {
        let holds = |session: &Session| session.transaction.as_ref().is_some_and(|it| it.user == user);
        self.sessions.iter().position(holds)
    }

    fn client(&mut self, client: usize) -> &mut Client {
        self.sessions[client].client.as_mut().unwrap()
    }

    /// Reads the answer to `command` and holds it against the model's, which takes the same step.
    fn answer(&mut self, client: usize, command: &Command) {
        let Some(mut transaction) = self.sessions[client].transaction.take() else {
            return self.answer_before_login(client, command);
        };
        let mails = &mut self.mails[transaction.user].delivered;
        let link = self.sessions[client].client.as_mut().unwrap();
        let octets = |at: usize, mails: &[Message]| mails[at].wire.len();
        match command {
            Command::LogIn(_) | Command::WrongPassword(_) => {
                link.err();
                link.err();
            }
            Command::Nonsense => drop(link.err()),
            Command::Noop => drop(link.ok()),
            Command::Stat => {
                let total: usize = transaction.unmarked().map(|(_, at)| octets(at, mails)).sum();
                link.expect(&format!("+OK {} {total}", transaction.unmarked().count()));
            }
            Command::List(None) => {
                link.ok();
                let expected: String =
                    transaction.unmarked().map(|(number, at)| format!("{number} {}\r\n", octets(at, mails))).collect();
                assert_eq!(String::from_utf8(link.multiline()).unwrap(), expected);
            }
            Command::List(Some(number)) => match transaction.message(*number) {
                Some(at) => link.expect(&format!("+OK {number} {}", octets(at, mails))),
                None => drop(link.err()),
            },
            Command::Uidl(None) => {
                link.ok();
                let listing = String::from_utf8(link.multiline()).unwrap();
                let told: Vec<(usize, &str)> = listing.lines().map(number_and_unique_id).collect();
                assert_eq!(told.len(), transaction.unmarked().count());
                for ((number, at), (told, unique_id)) in transaction.unmarked().zip(told) {
                    assert_eq!(told, number);
                    note_unique_id(mails, at, unique_id);
                }
            }
            Command::Uidl(Some(number)) => match transaction.message(*number) {
                Some(at) => {
                    let line = link.ok();
                    let (told, unique_id) = number_and_unique_id(&line);
                    assert_eq!(told, *number as usize);
                    note_unique_id(mails, at, unique_id);
                }
                None => drop(link.err()),
            },
            Command::Retr(number) => expect_message(link, &transaction, mails, *number, <[u8]>::to_vec),
            Command::Top(number, lines) => {
                expect_message(link, &transaction, mails, *number, |wire| top_of(wire, *lines as usize));
            }
            Command::Dele(number) => match transaction.message(*number) {
                Some(_) => {
                    link.ok();
                    transaction.messages[*number as usize - 1].1 = true;
                }
                None => drop(link.err()),
            },
            Command::Rset => {
                link.ok();
                transaction.messages.iter_mut().for_each(|(_, marked)| *marked = false);
            }
            Command::Quit => {
                link.ok();
                link.closed();
                transaction.marked().for_each(|at| mails[at].file = None);
                self.sessions[client].client = None;
                return;
            }
        }
        self.sessions[client].transaction = Some(transaction);
    }

    fn answer_before_login(&mut self, client: usize, command: &Command) {
        match command {
            Command::LogIn(user) => {
                let in_use = self.holder(*user).is_some();
                let messages = self.mails[*user].present().into_iter().map(|at| (at, false)).collect();
                self.client(client).ok();
                if in_use {
                    let refusal = self.client(client).err();
                    assert!(refusal.starts_with("[IN-USE]"), "{refusal}");
                } else {
                    self.client(client).ok();
                    self.sessions[client].transaction = Some(Transaction { user: *user, messages });
                }
            }
            Command::WrongPassword(_) => {
                self.client(client).ok();
                let refusal = self.client(client).err();
                assert!(refusal.starts_with("[AUTH]"), "{refusal}");
                let _ = self.leave(client);
            }
            Command::Quit => {
                self.client(client).ok();
                self.client(client).closed();
                self.sessions[client].client = None;
            }
            _ => drop(self.client(client).err()),
        }
    }

    /// A client's connection and what it was at; the model's session ends as without QUIT.
    fn leave(&mut self, client: usize) -> Option<(Client, Option<Transaction>)> {
        let session = mem::take(&mut self.sessions[client]);
        session.client.map(|client| (client, session.transaction))
    }

    /// A client that goes with QUIT: what it has marked goes, and nothing else, as `outcome` says.
    fn quit_unheard(&mut self, client: usize, go: fn(Client), outcome: Outcome) {
        let Some((mut client, transaction)) = self.leave(client) else { return };
        client.send("QUIT");
        go(client);
        self.await_ends();
        self.note_removed(transaction, outcome);
    }

    fn quit_and_kill(&mut self, client: usize) {
        let Some((mut client, transaction)) = self.leave(client) else { return };
        client.send("QUIT");
        self.restart(Stop::Kill);
        self.note_removed(transaction, Outcome::Any);
    }

    /// Waits until the server has noticed who has gone.
    fn await_ends(&self) {
        let mut admin = self.server.admin();
        let there = self.sessions.iter().filter(|session| session.client.is_some()).count().to_string();
        eventually("the session ends", || admin.value("cc?") == there);
    }

    /// Takes over what was removed of the messages that a transaction had marked.
    fn note_removed(&mut self, transaction: Option<Transaction>, outcome: Outcome) {
        let Some(transaction) = transaction else { return };
        let maildrop = self.maildrop(transaction.user);
        let there = maildrop.messages();
        let mails = &mut self.mails[transaction.user].delivered;
        // A mail program may have been quicker.
        let due: Vec<usize> = transaction.marked().filter(|&at| mails[at].file.is_some()).collect();
        let gone = |at: &&usize| !there.contains(mails[**at].file.as_ref().unwrap());
        let count = due.iter().filter(gone).count();
        match outcome {
            Outcome::Whole => assert_eq!(count, due.len(), "QUIT was sent"),
            Outcome::WholeOrNot => assert!(count == 0 || count == due.len(), "{count} of {} removed", due.len()),
            Outcome::Any => {}
        }
        let gone: Vec<usize> = due.iter().filter(gone).copied().collect();
        gone.into_iter().for_each(|at| mails[at].file = None);
    }

    fn restart(&mut self, stop: Stop) {
        match stop {
            Stop::Term => {
                self.server.signal(Signal::TERM);
                assert_eq!(self.server.wait().code(), Some(0));
            }
            Stop::Kill => {
                self.server.signal(Signal::KILL);
                self.server.wait();
            }
        }
        self.sessions = Default::default();
        self.server = start(&self.mail);
    }

    // The mail programs

    fn deliver(&mut self, user: usize, stored: Vec<u8>) {
        let number = self.mails[user].delivered.len();
        let name = if user == FLAT { flat_name(number) } else { format!("new/{}.M1.h", THEN as usize + number) };
        let maildrop = self.maildrop(user);
        maildrop.put(&name, &stored);
        maildrop.set_modified(&name, THEN + number as u64);
        self.mails[user].delivered.push(Message::new(name, stored));
    }

    /// One of the messages that are there.
    fn choose(&self, user: usize, which: usize) -> Option<usize> {
        let present = self.mails[user].present();
        (!present.is_empty()).then(|| present[which % present.len()])
    }

    fn move_message(&mut self, which: usize, how: usize) {
        let Some(at) = self.choose(1, which) else { return };
        let from = self.mails[1].delivered[at].file.clone().unwrap();
        let base = from["new/".len()..].split(":2,").next().unwrap().to_owned();
        let to = format!("cur/{base}:2,{}", ["", "S", "RS", "FS", "T"][how % 5]);
        self.maildrop(1).rename(&from, &to);
        self.mails[1].delivered[at].file = Some(to);
    }

    fn say_beside_flagger(&mut self, which: usize, say: Step) {
        let Some(at) = self.choose(1, which) else { return self.take(say) };
        let file = self.mails[1].delivered[at].file.clone().unwrap();
        let (maildrop, stopped) = (self.maildrop(1), AtomicBool::new(false));
        let file = thread::scope(|scope| {
            let flagger = scope.spawn(|| change_flags(&maildrop, file, &stopped));
            self.take_unchecked(say);
            stopped.store(true, Ordering::Relaxed);
            flagger.join().unwrap()
        });
        let message = &mut self.mails[1].delivered[at];
        // Otherwise QUIT has removed it.
        if message.file.is_some() {
            message.file = Some(file);
        }
    }

    fn remove(&mut self, user: usize, which: usize) {
        let Some(at) = self.choose(user, which) else { return };
        let file = self.mails[user].delivered[at].file.take().unwrap();
        self.maildrop(user).remove(&file);
    }

    fn rest(&mut self) {
        self.rests += 1;
        for folder in ["new", "cur"] {
            self.maildrop(1).set_modified_directory(folder, THEN + self.rests % 2);
        }
    }

    // What has to hold

    fn check_disk(&self) {
        for (user, mail) in self.mails.iter().enumerate() {
            let maildrop = self.maildrop(user);
            let files = mail.files();
            let names: Vec<_> = files.keys().cloned().collect();
            assert_eq!(maildrop.messages(), names, "{}", USERS[user]);
            for (name, stored) in files {
                assert!(fs::read(maildrop.path(&name)).unwrap() == stored, "{name} has changed");
            }
        }
    }

    /// A last login to each maildrop, twice: with the index as it is, and with the one that this has made.
    fn end(mut self) {
        for client in 0..CLIENTS {
            drop(self.leave(client));
        }
        for _ in 0..2 {
            for user in 0..USERS.len() {
                let count = u32::try_from(self.mails[user].present().len()).unwrap();
                let mut commands = vec![Command::LogIn(user), Command::Stat, Command::List(None), Command::Uidl(None)];
                commands.extend((1..=count).map(Command::Retr));
                commands.push(Command::Quit);
                self.say(0, &commands);
            }
            self.rest();
        }
        self.check_disk();
    }
}

/// What may have become of the marked messages of a session whose QUIT was not answered.
#[derive(Clone, Copy)]
enum Outcome {
    /// All have gone.
    Whole,
    /// All have gone, or none.
    WholeOrNot,
    /// Each has gone or not.
    Any,
}

impl Message {
    fn new(name: String, stored: Vec<u8>) -> Self {
        Self { file: Some(name), wire: wire_form(&stored), stored, unique_id: None }
    }
}

/// Renames a message of a Maildir until it is told to stop, or the message is removed. Returns its last name. It stops by
/// itself after a while, so that it ends also when the test has failed.
fn change_flags(maildrop: &Maildrop, mut file: String, stopped: &AtomicBool) -> String {
    const RENAMES: usize = 100_000;
    let base = file["new/".len()..].split(":2,").next().unwrap().to_owned();
    for flags in ["S", "RS", ""].into_iter().cycle().take(RENAMES) {
        let next = format!("cur/{base}:2,{flags}");
        if stopped.load(Ordering::Relaxed) || fs::rename(maildrop.path(&file), maildrop.path(&next)).is_err() {
            break;
        }
        file = next;
    }
    file
}

fn number_and_unique_id(line: &str) -> (usize, &str) {
    let (number, unique_id) = line.split_once(' ').unwrap();
    (number.parse().unwrap(), unique_id)
}

/// A unique-id is the message's for ever, and no other's.
fn note_unique_id(mails: &mut [Message], at: usize, told: &str) {
    assert!((1..=70).contains(&told.len()) && told.bytes().all(|octet| (0x21..=0x7e).contains(&octet)), "{told:?}");
    match &mails[at].unique_id {
        Some(known) => assert_eq!(known, told, "message {at} has another unique-id"),
        None => {
            let other = mails.iter().position(|message| message.unique_id.as_deref() == Some(told));
            assert_eq!(other, None, "{told} is another message's");
            mails[at].unique_id = Some(told.to_owned());
        }
    }
}

fn expect_message(
    link: &mut Client,
    transaction: &Transaction,
    mails: &[Message],
    number: u32,
    part: impl Fn(&[u8]) -> Vec<u8>,
) {
    let Some(at) = transaction.message(number) else { return drop(link.err()) };
    if mails[at].file.is_none() {
        let refusal = link.err();
        assert!(refusal.starts_with("[SYS/TEMP]"), "{refusal}");
        return;
    }
    link.ok();
    let (got, expected) = (link.multiline(), part(&mails[at].wire));
    assert!(got == expected, "message {number}: {}", difference(&got, &expected));
}

// ---------------------------------------------------------------------------------------------------------------------
// The runs

const OLD_MESSAGES: usize = 4;

/// Its digits are to be compared as numbers.
fn flat_name(number: usize) -> String {
    format!("{}.eml", number + 8)
}

fn old_message(number: usize) -> Vec<u8> {
    [b"Subject: old\r\n\r\n".to_vec(), vec![b'.'; number], b"\n".to_vec()].concat()
}

/// Flat maildrops whose messages were written more than the 2 s ago that the index asks for: a file's time of change
/// cannot be set, but it stays when the directory is moved.
struct OldMaildrops {
    directory: TempDir,
    used: AtomicUsize,
}

impl OldMaildrops {
    fn new(count: usize) -> Self {
        let old = Self { directory: TempDir::new().unwrap(), used: AtomicUsize::new(0) };
        for number in 0..count {
            old.make(number);
        }
        let made = SystemTime::now();
        eventually("time passes", || made.elapsed().unwrap_or_default().as_millis() > 2100);
        old
    }

    fn make(&self, number: usize) -> PathBuf {
        let path = self.directory.path().join(number.to_string());
        for message in 0..OLD_MESSAGES {
            let name = flat_name(message);
            let maildrop = Maildrop::at(&path);
            maildrop.put(&name, old_message(message));
            maildrop.set_modified(&name, THEN);
        }
        path
    }

    /// The next one; more are made when a failure is made small.
    fn next(&self) -> (usize, PathBuf) {
        let number = self.used.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.path().join(number.to_string());
        (number, if path.exists() { path } else { self.make(number) })
    }
}

#[test]
fn all_that_can_happen_is_as_the_model_says() {
    let cases = env::var("POP3D_MODEL_CASES").map_or(CASES, |cases| cases.parse().expect("a number of cases"));
    let old = OldMaildrops::new(cases as usize);
    let config = Config { cases, max_shrink_iters: 400, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&vec(step(), 1..STEPS), |steps| {
        let (number, old) = old.next();
        let mut world = World::new(old, number % PATIENT == 0);
        steps.into_iter().for_each(|step| world.take(step));
        world.end();
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}
