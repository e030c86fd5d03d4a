//! Random sequences of events on two maildrops, compared with a naive model of RFC 1939. Every answer of the server has
//! to be the model's answer, and after each step the files on disk have to be those of the model.
//!
//! One maildrop is flat and one is a Maildir. Clients pipeline commands, close or reset their connections, and send
//! QUIT without waiting for the answer. In some cases, logins wait for the maildrops of other sessions, take them over or
//! share them; what clients delete is kept, or hidden, or they cannot delete; or messages go through a transform and the
//! sizes of its output are told (`--transform-sizes exact`). Mail programs deliver, move, flag and remove messages, also
//! while the server answers. An admin ends sessions, orders that their connections break off, has expired mail removed, and
//! brings deleted mail back. The server is stopped by SIGTERM and killed by SIGKILL at any moment. The messages have old
//! modification times, so that the server trusts its index wherever its rules allow that.
//!
//! `POP3D_MODEL_CASES=5000 cargo test model` runs more cases (default: 24 cases of up to 60 steps each). proptest
//! shrinks a failing case and prints it.

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

/// The modification time of messages, in seconds since 1970: long ago.
const THEN: u64 = 1_000_000_000;

/// What a login does if the maildrop has a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Busy {
    /// It is refused.
    Refused,
    /// It waits until that session has ended (`--busy wait=30s`).
    Waits,
    /// It ends that session (`--busy take-over=0s`).
    TakesOver,
    /// Both have it (`--shared-maildrops`).
    Shares,
}

impl Busy {
    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Refused => &[],
            Self::Waits => &["--busy", "wait=30s"],
            Self::TakesOver => &["--busy", "take-over=0s"],
            Self::Shares => &["--shared-maildrops"],
        }
    }
}

/// What a session's deletions do (`--deletes`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deletes {
    Remove,
    /// They are kept, and an admin can bring them back.
    Keep,
    /// Clients do not see them any more. The files stay.
    Hide,
    /// There are none.
    Refuse,
}

impl Deletes {
    fn flag(self) -> &'static str {
        match self {
            Self::Remove => "remove",
            Self::Keep => "trash=9",
            Self::Hide => "hide",
            Self::Refuse => "refuse",
        }
    }
}

/// The users. Their passwords are their names, which say what kind of maildrop they have.
const USERS: [&str; 2] = ["flat", "maildir"];
const FLAT: usize = 0;

// ---------------------------------------------------------------------------------------------------------------------
// Events

/// An event. Every event is possible at any time; a message is chosen by a number modulo the number of messages.
#[derive(Debug, Clone)]
enum Step {
    /// A client sends these commands in one write. It connects first if it is not connected. If a user is given, it
    /// first logs in as that user, unless the client has logged in or the user's maildrop is in use.
    Say(usize, Option<usize>, Vec<Command>),
    /// The same, while a mail program changes the flags of a message in the Maildir continuously.
    SayBesideFlagger(usize, Box<Step>),
    /// A client closes its connection without QUIT.
    HangUp(usize),
    /// A client resets its connection without QUIT.
    Reset(usize),
    /// A client sends QUIT and closes its connection without waiting for the answer.
    QuitAndHangUp(usize),
    /// A client sends QUIT and resets its connection.
    QuitAndReset(usize),
    /// A client sends QUIT, and the server is killed.
    QuitAndKill(usize),
    /// An admin looks at a client's session and ends it, by its number or by its user. The client logs in again at once.
    Kick(usize, bool),
    /// The connection of a client with a session breaks off before the next answer, by a fault that an admin orders. The
    /// connection is closed or reset, and the client's command is QUIT or another one.
    BreakOff { client: usize, by_reset: bool, quits: bool },
    /// The server is stopped and another one is started.
    Restart(Stop),
    /// A message is delivered to a user.
    Deliver(usize, Vec<Piece>),
    /// A mail program moves or flags a message of the Maildir.
    Move(usize, usize),
    /// A mail program removes a message.
    Remove(usize, usize),
    /// An admin has expired messages removed, which are those that were read, or all.
    Expire,
    /// An admin has all deleted messages brought back.
    Undelete,
    /// An admin looks at what sessions of a user have deleted, and has that of one session brought back.
    UndeleteOne(usize, usize),
    /// An admin asks who fetched what.
    Report,
    /// The Maildir's folders get an old modification time, as if nothing had happened to them for a while.
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

/// A part of a message.
#[derive(Debug, Clone)]
enum Piece {
    Octets(&'static str),
    /// A line that is repeated to more than the size of a block.
    Repeated(&'static str),
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
        2 => (client(), any::<bool>()).prop_map(|(client, by_number)| Step::Kick(client, by_number)),
        2 => (client(), any::<bool>(), any::<bool>())
            .prop_map(|(client, by_reset, quits)| Step::BreakOff { client, by_reset, quits }),
        1 => prop_oneof![Just(Stop::Term), Just(Stop::Kill)].prop_map(Step::Restart),
        6 => (0..USERS.len(), vec(piece(), 0..12)).prop_map(|(user, pieces)| Step::Deliver(user, pieces)),
        3 => (any::<usize>(), any::<usize>()).prop_map(|(which, how)| Step::Move(which, how)),
        1 => (0..USERS.len(), any::<usize>()).prop_map(|(user, which)| Step::Remove(user, which)),
        1 => Just(Step::Expire),
        1 => Just(Step::Undelete),
        1 => (0..USERS.len(), any::<usize>()).prop_map(|(user, which)| Step::UndeleteOne(user, which)),
        2 => Just(Step::Report),
        3 => Just(Step::Rest),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    // There are rarely more messages than this.
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
        1 => prop::sample::select(&LINES[..]).prop_map(Piece::Repeated),
    ]
}

fn octets(pieces: &[Piece]) -> Vec<u8> {
    let octets = |piece: &Piece| match piece {
        Piece::Octets(text) => (*text).to_owned(),
        Piece::Repeated(line) => line.repeat(4000),
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

/// A message that was delivered and may have been removed since. It is known by its index in [`Mail::delivered`].
#[derive(Debug)]
struct Message {
    /// The name of its file; `None` once it was removed.
    file: Option<String>,
    stored: Vec<u8>,
    wire: Vec<u8>,
    unique_id: Option<String>,
    read: Read,
    /// The name of its file when a session deleted it, if that is kept.
    kept: Option<String>,
    /// True if a session deleted it and it is hidden from clients.
    is_hidden: bool,
}

/// Whether the server has written down that a message was retrieved, or all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Read {
    #[default]
    No,
    /// It has, unless it was killed before.
    Perhaps,
    Yes,
}

/// A user's mail.
#[derive(Debug, Default)]
struct Mail {
    /// All messages in the order of delivery, which is also the maildrop's order.
    delivered: Vec<Message>,
    fetches: Fetches,
}

/// What the report tells of a user. It begins with the server's start.
#[derive(Debug, Default)]
struct Fetches {
    has_logged_in: bool,
    /// Whether there was a complete fetch.
    complete: Read,
    /// The octets of the messages retrieved in sessions that have ended.
    octets: usize,
}

impl Mail {
    /// The indices of the messages that a login finds.
    fn present(&self) -> Vec<usize> {
        self.stored().into_iter().filter(|&at| !self.delivered[at].is_hidden).collect()
    }

    /// The indices of the messages that mail programs find.
    fn stored(&self) -> Vec<usize> {
        (0..self.delivered.len()).filter(|&at| self.delivered[at].file.is_some()).collect()
    }

    fn files(&self) -> BTreeMap<String, &[u8]> {
        self.delivered.iter().filter_map(|message| Some((message.file.clone()?, &message.stored[..]))).collect()
    }
}

/// A session in RFC 1939's TRANSACTION state.
#[derive(Debug)]
struct Transaction {
    user: usize,
    /// The index of each message, and true if it is marked as deleted.
    messages: Vec<(usize, bool)>,
    /// The messages that were retrieved.
    read: Vec<usize>,
}

impl Transaction {
    /// The message number and the index of each message that is not marked as deleted.
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

/// A client's connection, and the model of its session.
#[derive(Default)]
struct Session {
    client: Option<Client>,
    transaction: Option<Transaction>,
}

/// How the server is started.
#[derive(Debug, Clone, Copy)]
struct Settings {
    busy: Busy,
    deletes: Deletes,
    /// True if all messages expire at once, and not only those that were read.
    expires_all: bool,
    /// True if an admin may order faults.
    has_faults: bool,
    /// True if each message goes through a program that puts [`ADDED`] in front of it, and its new size is told in advance.
    is_transformed: bool,
    /// True if one client may log in to a maildrop that another session holds, and be refused, which takes 2 s.
    may_try_in_use: bool,
}

fn settings() -> impl Strategy<Value = Settings> {
    let busy = prop_oneof![
        2 => Just(Busy::Refused),
        1 => Just(Busy::Waits),
        1 => Just(Busy::TakesOver),
        1 => Just(Busy::Shares),
    ];
    let deletes = prop_oneof![
        2 => Just(Deletes::Keep),
        2 => Just(Deletes::Hide),
        1 => Just(Deletes::Remove),
        1 => Just(Deletes::Refuse),
    ];
    let rarely = || prop::bool::weighted(0.125);
    (busy, deletes, rarely(), prop::bool::weighted(0.4), rarely(), rarely()).prop_map(
        |(busy, deletes, expires_all, has_faults, is_transformed, may_try_in_use)| Settings {
            busy,
            deletes,
            expires_all,
            has_faults,
            is_transformed,
            may_try_in_use,
        },
    )
}

/// The line that a transform puts in front of each message.
const ADDED: &str = "X-Added: yes\n";

/// The server, and the model that it is compared with.
struct World {
    mail: MailRoot,
    server: Server,
    mails: [Mail; USERS.len()],
    sessions: [Session; CLIENTS],
    settings: Settings,
    /// True if a client may still log in to a maildrop that is in use and be refused.
    may_try_in_use: bool,
    rests: u64,
}

fn start(mail: &MailRoot, settings: Settings) -> Server {
    let Settings { busy, deletes, expires_all, has_faults, is_transformed, .. } = settings;
    let builder = USERS.iter().fold(Server::builder().mail(mail), |builder, user| builder.user(user, user));
    let builder = builder.flags(["--deletes", deletes.flag()]);
    let builder = builder.flags(has_faults.then_some("--allow-faults"));
    let program = format!("sh -c 'printf \"$0\"; exec cat' '{}'", ADDED.escape_default());
    let transform = ["-t", &program, "--transform-sizes", "exact"];
    let builder = builder.flags(transform.into_iter().filter(|_| is_transformed));
    let builder = builder.flags(if expires_all { &["--expire-all", "0"][..] } else { &[] }.iter().copied());
    builder.flags(["-qq", "--expire-read", "0"]).flags(busy.flags().iter().copied()).start()
}

impl World {
    /// Starts a server. `old` becomes the flat maildrop; its messages are old enough to be entered in the index.
    fn new(old: PathBuf, settings: Settings) -> Self {
        let mail = MailRoot::new();
        let flat = mail.maildrop(USERS[FLAT]);
        fs::rename(old, flat.path("")).unwrap();
        mail.maildrop(USERS[1]).make_maildir();
        let server = start(&mail, settings);
        let mut mails = [Mail::default(), Mail::default()];
        for number in 0..OLD_MESSAGES {
            mails[FLAT].delivered.push(Message::new(flat_name(number), old_message(number), settings));
        }
        let sessions = Default::default();
        Self { mail, server, mails, sessions, settings, may_try_in_use: settings.may_try_in_use, rests: 0 }
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
                    && (self.settings.busy != Busy::Refused || self.holder(user).is_none())
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
            Step::QuitAndHangUp(client) => self.quit_unanswered(client, drop, Outcome::Whole),
            Step::QuitAndReset(client) => self.quit_unanswered(client, reset, Outcome::WholeOrNot),
            Step::QuitAndKill(client) => self.quit_and_kill(client),
            Step::Kick(client, by_number) => self.kick(client, by_number),
            Step::BreakOff { client, by_reset, quits } => self.break_off(client, by_reset, quits),
            Step::Restart(stop) => self.restart(stop),
            Step::Deliver(user, pieces) => self.deliver(user, octets(&pieces)),
            Step::Move(which, how) => self.move_message(which, how),
            Step::Remove(user, which) => self.remove(user, which),
            Step::Expire => self.expire(),
            Step::Undelete => self.undelete(),
            Step::UndeleteOne(user, which) => self.undelete_one(user, which),
            Step::Report => self.report(),
            Step::Rest => self.rest(),
        }
    }

    // Clients

    fn say(&mut self, client: usize, commands: &[Command]) {
        let mut commands: Vec<_> = commands.iter().filter(|command| self.may_send(client, command)).collect();
        // A client leaves after a wrong password, because it may try only a few. So this has to be its last command.
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
        self.make_way(client, &commands);
        for command in commands {
            self.answer(client, command);
            if self.sessions[client].client.is_none() {
                break; // The session has ended, so the commands after this one are not answered.
            }
        }
    }

    /// If a login among these commands waits for a maildrop, the session that has it quits.
    fn make_way(&mut self, client: usize, commands: &[&Command]) {
        let user = |command: &&Command| if let Command::LogIn(user) = command { Some(*user) } else { None };
        if self.settings.busy == Busy::Waits
            && self.sessions[client].transaction.is_none()
            && let Some(holder) = commands.iter().find_map(user).and_then(|user| self.holder(user))
        {
            self.say(holder, &[Command::Noop, Command::Noop, Command::Quit]);
        }
    }

    /// Returns false for a login that is refused because the maildrop is in use, except for the one that each case may have.
    fn may_send(&mut self, client: usize, command: &Command) -> bool {
        match command {
            Command::LogIn(user)
                if self.settings.busy == Busy::Refused && self.holder(*user).is_some_and(|holder| holder != client) =>
            {
                mem::take(&mut self.may_try_in_use)
            }
            _ => true,
        }
    }

    /// A client whose session holds this user's maildrop.
    fn holder(&self, user: usize) -> Option<usize> {
        let holds = |session: &Session| session.transaction.as_ref().is_some_and(|it| it.user == user);
        self.sessions.iter().position(holds)
    }

    fn client(&mut self, client: usize) -> &mut Client {
        self.sessions[client].client.as_mut().unwrap()
    }

    /// Carries out `command` in the model, reads the server's answer and compares it with the model's.
    fn answer(&mut self, client: usize, command: &Command) {
        let Some(mut transaction) = self.sessions[client].transaction.take() else {
            return self.answer_before_login(client, command);
        };
        let Mail { delivered: mails, fetches } = &mut self.mails[transaction.user];
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
                let listed: Vec<(usize, &str)> = listing.lines().map(number_and_unique_id).collect();
                assert_eq!(listed.len(), transaction.unmarked().count());
                for ((number, at), (told, unique_id)) in transaction.unmarked().zip(listed) {
                    assert_eq!(told, number);
                    check_unique_id(mails, at, unique_id);
                }
            }
            Command::Uidl(Some(number)) => match transaction.message(*number) {
                Some(at) => {
                    let line = link.ok();
                    let (told, unique_id) = number_and_unique_id(&line);
                    assert_eq!(told, *number as usize);
                    check_unique_id(mails, at, unique_id);
                }
                None => drop(link.err()),
            },
            Command::Retr(number) => {
                expect_message(link, &transaction, mails, *number, <[u8]>::to_vec);
                let sent = transaction.message(*number).filter(|&at| mails[at].file.is_some());
                transaction.read.extend(sent);
            }
            Command::Top(number, lines) => {
                expect_message(link, &transaction, mails, *number, |wire| top_of(wire, *lines as usize));
            }
            Command::Dele(number) => match transaction.message(*number) {
                Some(_) if self.settings.deletes == Deletes::Refuse => {
                    let refusal = link.err();
                    assert!(refusal.starts_with("[SYS/PERM]"), "{refusal}");
                }
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
                let is_read = |at: usize| match &mails[at] {
                    _ if transaction.read.contains(&at) => Read::Yes,
                    // A look for expired messages forgets what is not there.
                    Message { file: None, read, .. } => (*read).min(Read::Perhaps),
                    message => message.read,
                };
                let is_complete = transaction.unmarked().map(|(_, at)| is_read(at)).min().unwrap_or(Read::Yes);
                fetches.complete = fetches.complete.max(is_complete);
                transaction.marked().for_each(|at| mails[at].delete(self.settings.deletes));
                transaction.read.iter().for_each(|&at| mails[at].read = Read::Yes);
                fetches.octets += transaction.read.iter().map(|&at| mails[at].wire.len()).sum::<usize>();
                self.sessions[client].client = None;
                return;
            }
        }
        self.sessions[client].transaction = Some(transaction);
    }

    fn answer_before_login(&mut self, client: usize, command: &Command) {
        match command {
            Command::LogIn(user) => {
                let holder = self.holder(*user);
                let messages = self.mails[*user].present().into_iter().map(|at| (at, false)).collect();
                self.client(client).ok();
                if self.settings.busy == Busy::Refused && holder.is_some() {
                    let refusal = self.client(client).err();
                    assert!(refusal.starts_with("[IN-USE]"), "{refusal}");
                } else {
                    self.client(client).ok();
                    if self.settings.busy == Busy::TakesOver
                        && let Some((old, _)) = holder.and_then(|holder| self.leave(holder))
                    {
                        expect_farewell(old, "-ERR [SYS/TEMP] another login");
                    }
                    self.sessions[client].transaction = Some(Transaction { user: *user, messages, read: Vec::new() });
                    self.mails[*user].fetches.has_logged_in = true;
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

    /// Ends the model's session as a session without QUIT. Returns the client's connection and transaction.
    fn leave(&mut self, client: usize) -> Option<(Client, Option<Transaction>)> {
        let session = mem::take(&mut self.sessions[client]);
        session.transaction.iter().for_each(|transaction| self.note_perhaps_read(transaction));
        session.client.map(|client| (client, session.transaction))
    }

    /// Notes what a session has retrieved that has ended without QUIT.
    fn note_perhaps_read(&mut self, transaction: &Transaction) {
        let Mail { delivered: mails, fetches } = &mut self.mails[transaction.user];
        fetches.octets += transaction.read.iter().map(|&at| mails[at].wire.len()).sum::<usize>();
        for &at in transaction.read.iter().filter(|&&at| mails[at].read == Read::No).collect::<Vec<_>>() {
            mails[at].read = Read::Perhaps;
        }
    }

    /// An admin has expired messages removed. Maildrops in use are skipped.
    fn expire(&mut self) {
        self.wait_for_ended_sessions();
        self.server.admin().values("ex");
        for user in (0..USERS.len()).filter(|&user| self.holder(user).is_none()).collect::<Vec<_>>() {
            let there = self.maildrop(user).messages();
            // What clients do not see stays.
            for message in self.mails[user].delivered.iter_mut().filter(|message| !message.is_hidden) {
                let is_gone = message.file.as_ref().is_some_and(|file| !there.contains(file));
                let is_due = message.read == Read::Yes || self.settings.expires_all;
                if is_due || message.read == Read::Perhaps && is_gone {
                    message.file = None;
                }
            }
        }
    }

    /// An admin has all deleted messages brought back, except those of maildrops in use.
    fn undelete(&mut self) {
        self.wait_for_ended_sessions();
        for user in (0..USERS.len()).filter(|&user| self.holder(user).is_none()).collect::<Vec<_>>() {
            let mut admin = self.server.admin();
            admin.send(&format!("uds {} 86400", USERS[user]));
            let kept = self.mails[user].delivered.iter_mut().filter(|message| message.is_kept());
            let back = kept.map(Message::bring_back).count();
            let expected = if back > 0 { format!("+{back}") } else { "-13".to_owned() };
            admin.expect(&expected);
        }
    }

    /// An admin has the deleted messages of one session brought back, unless the maildrop is in use.
    fn undelete_one(&mut self, user: usize, which: usize) {
        self.wait_for_ended_sessions();
        let mut admin = self.server.admin();
        let lines = admin.values(&format!("dl? {}", USERS[user]));
        let session = |line: &String| {
            let fields: Vec<_> = line.split(' ').collect();
            (fields[0].to_owned(), fields[3].parse().unwrap())
        };
        let sessions: Vec<(String, usize)> = lines.iter().map(session).collect();
        let mails = &mut self.mails[user].delivered;
        let kept = mails.iter().filter(|message| message.is_kept()).count();
        assert_eq!(sessions.iter().map(|(_, count)| count).sum::<usize>(), kept, "{lines:?}");
        let Some((name, count)) = sessions.get(which % sessions.len().max(1)) else { return };
        // The files do not tell which messages are hidden.
        if self.settings.deletes == Deletes::Hide && sessions.len() > 1 {
            return;
        }
        admin.send(&format!("ud {name}"));
        if self.holder(user).is_some() {
            return admin.expect("-14");
        }
        admin.expect(&format!("+{count}"));
        let there = self.maildrop(user).messages();
        let is_back =
            |message: &&mut Message| message.is_kept() && message.kept.as_ref().is_none_or(|file| there.contains(file));
        let back = self.mails[user].delivered.iter_mut().filter(is_back).map(Message::bring_back).count();
        assert_eq!(back, *count, "{lines:?}");
    }

    /// What the report tells of each user.
    fn report(&self) {
        self.wait_for_ended_sessions();
        for (name, mail) in USERS.iter().zip(&self.mails) {
            let mut admin = self.server.admin();
            let mut fields =
                || -> Vec<String> { admin.values(&format!("rp? {name}"))[0].split(' ').map(str::to_owned).collect() };
            let Fetches { has_logged_in, complete, octets } = &mail.fetches;
            eventually("the end of the last session is noted", || fields()[6] == octets.to_string());
            let fields = fields();
            assert_eq!(fields[1] != "-", *has_logged_in, "{fields:?}");
            match complete {
                Read::No => assert_eq!(fields[3], "-"),
                Read::Perhaps => {}
                Read::Yes => assert_ne!(fields[3], "-"),
            }
            let count = |read: Read| mail.present().iter().filter(|&&at| mail.delivered[at].read == read).count();
            let never: usize = fields[4].parse().unwrap();
            let (least, unsure) = (count(Read::No), count(Read::Perhaps));
            assert!((least..=least + unsure).contains(&never), "{least} to {} of {fields:?}", least + unsure);
        }
    }

    /// A client sends QUIT and leaves by `leave`, without reading the answer.
    fn quit_unanswered(&mut self, client: usize, leave: fn(Client), outcome: Outcome) {
        let Some((mut client, transaction)) = self.leave(client) else { return };
        client.send("QUIT");
        leave(client);
        self.wait_for_ended_sessions();
        self.note_removed(transaction, outcome);
    }

    fn quit_and_kill(&mut self, client: usize) {
        let Some((mut client, transaction)) = self.leave(client) else { return };
        client.send("QUIT");
        self.restart(Stop::Kill);
        self.note_removed(transaction, Outcome::Any);
    }

    /// A kicked session removes nothing, and its maildrop is free when the admin has the answer.
    fn kick(&mut self, client: usize, by_number: bool) {
        let Some(user) = self.sessions[client].transaction.as_ref().map(|it| it.user) else { return };
        // Where sessions share a maildrop, the admin's list does not tell which of them is this client's.
        let has_maildrop = |session: &&Session| session.transaction.as_ref().is_some_and(|it| it.user == user);
        if self.sessions.iter().filter(has_maildrop).count() > 1 {
            return;
        }
        let Some(transaction) = self.sessions[client].transaction.take() else { return };
        self.note_perhaps_read(&transaction);
        self.wait_for_ended_sessions();
        let mut admin = self.server.admin();
        let name = USERS[transaction.user];
        let lines = admin.values("w?");
        let mut fields = lines.iter().map(|line| line.split(' ').collect::<Vec<_>>()).filter(|line| line[4] == name);
        let (session, another) = (fields.next().expect("the user's session"), fields.next());
        let marked = transaction.marked().count().to_string();
        assert_eq!((session[3], session[9], another), ("transaction", &*marked, None), "{lines:?}");
        admin.send(&if by_number { format!("k= {}", session[0]) } else { format!("ku= {name}") });
        admin.expect("+1");
        let kicked = self.sessions[client].client.take().unwrap();
        self.say(client, &[Command::LogIn(transaction.user)]);
        expect_farewell(kicked, "-ERR [SYS/TEMP] the administrator");
    }

    /// A connection that breaks off is one without QUIT, unless the server has read a QUIT.
    fn break_off(&mut self, client: usize, by_reset: bool, quits: bool) {
        let Some(user) = self.sessions[client].transaction.as_ref().map(|it| it.user) else { return };
        // Where sessions share a maildrop, another one might get the fault.
        let has_maildrop = |session: &&Session| session.transaction.as_ref().is_some_and(|it| it.user == user);
        if !self.settings.has_faults || self.sessions.iter().filter(has_maildrop).count() > 1 {
            return;
        }
        let Some((mut link, transaction)) = self.leave(client) else { return };
        let fault = if by_reset { "reset-after" } else { "drop-after" };
        self.server.admin().value(&format!("ft+ {} {fault}=0 1 0", USERS[user]));
        link.send(if quits { "QUIT" } else { "NOOP" });
        link.closed();
        self.wait_for_ended_sessions();
        if quits {
            self.note_removed(transaction, Outcome::Whole);
        }
    }

    /// Waits until the server has noticed which clients have left.
    fn wait_for_ended_sessions(&self) {
        let mut admin = self.server.admin();
        let there = self.sessions.iter().filter(|session| session.client.is_some()).count().to_string();
        eventually("the session ends", || admin.value("cc?") == there);
    }

    /// Enters in the model which of a transaction's marked messages the server has removed.
    fn note_removed(&mut self, transaction: Option<Transaction>, outcome: Outcome) {
        let Some(transaction) = transaction else { return };
        let user = transaction.user;
        let complete = &mut self.mails[user].fetches.complete;
        *complete = (*complete).max(Read::Perhaps);
        // A mail program may have removed some of them before.
        let present = self.mails[user].present();
        let due: Vec<usize> = transaction.marked().filter(|at| present.contains(at)).collect();
        let gone: Vec<usize> = if self.settings.deletes == Deletes::Hide {
            let mut client = self.server.pop3();
            client.login(USERS[user], USERS[user]);
            let shown: usize = client.call("STAT").split(' ').next().unwrap().parse().unwrap();
            client.quit();
            self.mails[user].fetches.has_logged_in = true;
            if shown + due.len() == present.len() { due.clone() } else { Vec::from(&due[..present.len() - shown]) }
        } else {
            let (there, mails) = (self.maildrop(user).messages(), &self.mails[user].delivered);
            due.iter().copied().filter(|&at| !there.contains(mails[at].file.as_ref().unwrap())).collect()
        };
        let count = gone.len();
        match outcome {
            // They are hidden all at once.
            Outcome::Any if self.settings.deletes == Deletes::Hide => assert!(count == 0 || count == due.len()),
            Outcome::Whole => assert_eq!(count, due.len(), "messages that QUIT had to remove"),
            Outcome::WholeOrNot => assert!(count == 0 || count == due.len(), "{count} of {} removed", due.len()),
            Outcome::Any => {}
        }
        gone.into_iter().for_each(|at| self.mails[user].delivered[at].delete(self.settings.deletes));
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
        for session in mem::take(&mut self.sessions) {
            session.transaction.iter().for_each(|transaction| self.note_perhaps_read(transaction));
        }
        self.mails.iter_mut().for_each(|mail| mail.fetches = Fetches::default());
        self.server = start(&self.mail, self.settings);
    }

    // Mail programs

    fn deliver(&mut self, user: usize, stored: Vec<u8>) {
        let number = self.mails[user].delivered.len();
        let name = if user == FLAT { flat_name(number) } else { format!("new/{}.M1.h", THEN as usize + number) };
        let maildrop = self.maildrop(user);
        maildrop.put(&name, &stored);
        maildrop.set_modified(&name, THEN + number as u64);
        self.mails[user].delivered.push(Message::new(name, stored, self.settings));
    }

    /// The index of one of the messages that are there.
    fn choose(&self, user: usize, which: usize) -> Option<usize> {
        let stored = self.mails[user].stored();
        (!stored.is_empty()).then(|| stored[which % stored.len()])
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
        // It has no file if a QUIT has removed it.
        if message.file.is_some() {
            message.file = Some(file);
        } else if message.kept.is_some() {
            message.kept = Some(file);
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

    // Checks

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

    /// Logs in to each maildrop twice: with the index as it is, and with the index that the first login has written.
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
            self.report();
        }
        self.check_disk();
    }
}

/// What may have happened to the marked messages of a session whose client has not read the answer to QUIT.
#[derive(Clone, Copy)]
enum Outcome {
    /// All were removed.
    Whole,
    /// Either all were removed or none was.
    WholeOrNot,
    /// Any of them may have been removed.
    Any,
}

impl Message {
    fn new(name: String, stored: Vec<u8>, settings: Settings) -> Self {
        let wire = match settings.is_transformed {
            true => wire_form(&[ADDED.as_bytes(), &stored].concat()),
            false => wire_form(&stored),
        };
        Self { file: Some(name), wire, stored, unique_id: None, read: Read::No, kept: None, is_hidden: false }
    }
}

impl Message {
    /// A session deletes the message, unless it is gone already.
    fn delete(&mut self, deletes: Deletes) {
        match deletes {
            Deletes::Remove => self.file = None,
            Deletes::Keep => self.kept = self.file.take().or_else(|| self.kept.take()),
            Deletes::Hide => self.is_hidden = true,
            Deletes::Refuse => panic!("no message can be marked"),
        }
    }

    /// Returns true if an admin can bring the message back.
    fn is_kept(&self) -> bool {
        self.kept.is_some() || self.is_hidden && self.file.is_some()
    }

    /// An admin has brought the message back.
    fn bring_back(&mut self) {
        if mem::take(&mut self.is_hidden) {
            return;
        }
        // A look for expired messages forgets what is not there.
        self.read = self.read.min(Read::Perhaps);
        self.file = self.kept.take();
    }
}

/// Renames a message of a Maildir until `stopped` is set or the message is removed. Returns the message's last name.
/// The number of renames is limited, so that this ends even if the test fails and never sets `stopped`.
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

/// Reads what a session tells its client that was ended. A machine may be so busy that the connection is closed before that.
fn expect_farewell(mut client: Client, start: &str) {
    let told = String::from_utf8(client.rest()).unwrap();
    assert!(told.is_empty() || told.starts_with(start) && told.matches("\r\n").count() == 1, "{told}");
}

fn number_and_unique_id(line: &str) -> (usize, &str) {
    let (number, unique_id) = line.split_once(' ').unwrap();
    (number.parse().unwrap(), unique_id)
}

/// Checks that a message's unique-id never changes and that no other message has had it.
fn check_unique_id(mails: &mut [Message], at: usize, unique_id: &str) {
    assert!(
        (1..=70).contains(&unique_id.len()) && unique_id.bytes().all(|octet| (0x21..=0x7e).contains(&octet)),
        "{unique_id:?}"
    );
    match &mails[at].unique_id {
        Some(known) => assert_eq!(known, unique_id, "message {at} has another unique-id"),
        None => {
            let other = mails.iter().position(|message| message.unique_id.as_deref() == Some(unique_id));
            assert_eq!(other, None, "{unique_id} is the unique-id of another message");
            mails[at].unique_id = Some(unique_id.to_owned());
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
// Runs

const OLD_MESSAGES: usize = 4;

/// Numbers begin at 8, so that the order is wrong if the server does not compare digits as numbers.
fn flat_name(number: usize) -> String {
    format!("{}.eml", number + 8)
}

fn old_message(number: usize) -> Vec<u8> {
    [b"Subject: old\r\n\r\n".to_vec(), vec![b'.'; number], b"\n".to_vec()].concat()
}

/// Flat maildrops whose messages were written more than 2 s ago, as the index requires. A file's time of change cannot
/// be set, but moving its directory keeps it. So the maildrops are made in advance and moved into the mail directory.
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
        eventually("2.1 seconds pass", || made.elapsed().unwrap_or_default().as_millis() > 2100);
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

    /// The next unused maildrop. While proptest shrinks a failing case, this makes more of them.
    fn next(&self) -> PathBuf {
        let number = self.used.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.path().join(number.to_string());
        if path.exists() { path } else { self.make(number) }
    }
}

#[test]
fn the_server_does_what_the_model_does() {
    let cases = env::var("POP3D_MODEL_CASES").map_or(CASES, |cases| cases.parse().expect("a number of cases"));
    let old = OldMaildrops::new(cases as usize);
    let config = Config { cases, max_shrink_iters: 400, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&(settings(), vec(step(), 1..STEPS)), |(settings, steps)| {
        let mut world = World::new(old.next(), settings);
        steps.into_iter().for_each(|step| world.take(step));
        world.end();
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}
