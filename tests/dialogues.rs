//! Plays the dialogues in `tests/dialogues/*.txt` against the real server. Each dialogue tests one rule, which is its
//! first comment. [`script`] describes the syntax of the files.
//!
//! # Variants
//! Each dialogue is played in up to four variants: with its messages in a flat maildrop and in a Maildir, unless it
//! names one of these, and with its commands sent as they are written and octet by octet.
//!
//! # Another server
//! With `POP3D_TEST_ADDRESS=host:port` and `POP3D_TEST_MAIL_ROOT=dir`, the dialogues are played against that server,
//! with the mail in Maildirs `dir/<user>/`. Each run has new users. Before the first connection, `dir/passwd` lists
//! them as `NAME:{PLAIN.HEX}PASSWORD`. Dialogues that need more than a POP3 server with Maildirs are skipped with a
//! note.

mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::{Client, Maildrop, PATIENCE, Server};
use script::{Dialogue, Layout, Pattern, Piece, Step, Stored, Text};

/// The number of dialogues that are played at the same time. Most of a dialogue's time is waiting for the server.
const PLAYERS: usize = 8;

/// How long another server may take for an answer. Dovecot waits 12 s for a maildrop that is in use.
const PATIENCE_WITH_OTHERS: Duration = Duration::from_secs(30);

/// The most octets of a status line without its CRLF (RFC 2449 section 4).
const LONGEST_STATUS: usize = 510;

#[test]
fn the_server_answers_every_dialogue_as_written() {
    let dialogues = all_dialogues();
    let (failures, played) = match OtherServer::from_environment() {
        Some(other) => other.play(&dialogues),
        None => play_ours(&dialogues),
    };
    println!("{played} variants of {} dialogues", dialogues.len());
    assert!(failures.is_empty(), "{} of {played} variants failed\n\n{}", failures.len(), failures.join("\n"));
}

/// The dialogues in the order of their names.
fn all_dialogues() -> Vec<Dialogue> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let mut paths: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    paths.iter().map(|path| Dialogue::read(path)).collect()
}

/// Plays all variants of each dialogue. They share a server, except for those that need flags or an admin. Returns the
/// failures and the number of variants.
fn play_ours(dialogues: &[Dialogue]) -> (Vec<String>, usize) {
    let variants: Vec<Variant> = dialogues.iter().flat_map(Variant::all).collect();
    let (alone, together): (Vec<Variant>, Vec<Variant>) =
        variants.into_iter().partition(|variant| variant.dialogue.needs_own_server());
    let server = server_for(&together);
    let mut failures = play_all(&together, &Target::of(&server));
    for variant in &alone {
        let server = server_for(std::slice::from_ref(variant));
        failures.extend(variant.play(&Target::of(&server)).err());
    }
    (failures, alone.len() + together.len())
}

fn server_for(variants: &[Variant]) -> Server {
    let mut builder = Server::builder();
    for (name, password) in variants.iter().flat_map(Variant::accounts) {
        builder = builder.user(&name, password);
    }
    if let [variant] = variants {
        builder = builder.flags(&variant.dialogue.flags);
    }
    builder.start()
}

fn play_all(variants: &[Variant], target: &Target) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..PLAYERS {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(variant) = variants.get(index) else { break };
                    if let Err(failure) = variant.play(target) {
                        failures.lock().unwrap().insert(index, failure);
                    }
                }
            });
        }
    });
    failures.into_inner().unwrap().into_values().collect()
}

/// Another server, which the environment names.
struct OtherServer {
    address: SocketAddr,
    mail_root: PathBuf,
}

impl OtherServer {
    fn from_environment() -> Option<Self> {
        let address = env::var("POP3D_TEST_ADDRESS").ok()?;
        let address =
            address.to_socket_addrs().ok().and_then(|mut all| all.next()).expect("POP3D_TEST_ADDRESS: no host");
        let mail_root = env::var_os("POP3D_TEST_MAIL_ROOT").expect("POP3D_TEST_MAIL_ROOT goes with POP3D_TEST_ADDRESS");
        Some(Self { address, mail_root: mail_root.into() })
    }

    fn play(&self, dialogues: &[Dialogue]) -> (Vec<String>, usize) {
        let mut variants = Vec::new();
        for dialogue in dialogues {
            match dialogue.only_ours() {
                Some(reason) => println!("skipped: {} ({reason})", dialogue.path),
                None => variants.push(Variant::elsewhere(dialogue)),
            }
        }
        self.make_accounts(&variants);
        let target = Target {
            pop3: self.address,
            peep: None,
            mail_root: self.mail_root.clone(),
            patience: PATIENCE_WITH_OTHERS,
        };
        (play_all(&variants, &target), variants.len())
    }

    fn make_accounts(&self, variants: &[Variant]) {
        let mut passwd = String::new();
        for (name, password) in variants.iter().flat_map(Variant::accounts) {
            Maildrop::at(self.mail_root.join(&name)).make_maildir();
            let hex: String = password.bytes().map(|octet| format!("{octet:02x}")).collect();
            passwd.push_str(&format!("{name}:{{PLAIN.HEX}}{hex}\n"));
        }
        fs::write(self.mail_root.join("passwd"), passwd).unwrap();
    }
}

/// The server against which dialogues are played.
struct Target {
    pop3: SocketAddr,
    peep: Option<SocketAddr>,
    /// How long to wait for an answer.
    patience: Duration,
    mail_root: PathBuf,
}

impl Target {
    fn of(server: &Server) -> Self {
        let (pop3, peep) = (server.pop3_address(), Some(server.peep_address()));
        Self { pop3, peep, patience: PATIENCE, mail_root: server.mail().path().to_owned() }
    }
}

/// A way of playing a dialogue.
struct Variant<'a> {
    dialogue: &'a Dialogue,
    layout: Layout,
    octet_by_octet: bool,
    /// The beginning of the users' names, so that no two variants share a maildrop.
    prefix: String,
}

impl<'a> Variant<'a> {
    fn all(dialogue: &'a Dialogue) -> Vec<Self> {
        let layouts = dialogue.layouts().into_iter();
        layouts
            .flat_map(|layout| [false, true].map(|octet_by_octet| Self::new(dialogue, layout, octet_by_octet, "")))
            .collect()
    }

    fn elsewhere(dialogue: &'a Dialogue) -> Self {
        Self::new(dialogue, Layout::Maildir, false, &format!("-{}", std::process::id()))
    }

    fn new(dialogue: &'a Dialogue, layout: Layout, octet_by_octet: bool, mark: &str) -> Self {
        let way = match (layout, octet_by_octet) {
            (Layout::Flat, false) => "flat",
            (Layout::Flat, true) => "flat-octets",
            (Layout::Maildir, false) => "maildir",
            (Layout::Maildir, true) => "maildir-octets",
        };
        Self { dialogue, layout, octet_by_octet, prefix: format!("{}-{way}{mark}", dialogue.stem) }
    }

    fn account(&self, user: &str) -> String {
        let is_declared = self.dialogue.users.iter().any(|(name, _)| name == user);
        assert!(is_declared, "{}: there is no user {user}", self.dialogue.path);
        format!("{}-{user}", self.prefix)
    }

    fn accounts(&self) -> impl Iterator<Item = (String, &str)> {
        self.dialogue.users.iter().map(|(name, password)| (self.account(name), password.as_str()))
    }

    /// Plays the dialogue up to its end or to the first answer that is not as written.
    fn play(&self, target: &Target) -> Result<(), String> {
        let mut player = Player { variant: self, target, connections: BTreeMap::new(), captured: BTreeMap::new() };
        for (number, step) in &self.dialogue.steps {
            player
                .step(step)
                .map_err(|mismatch| format!("{}:{number} as {}\n{mismatch}", self.dialogue.path, self.prefix))?;
        }
        player
            .expect_silence()
            .map_err(|mismatch| format!("{}: at its end as {}\n{mismatch}", self.dialogue.path, self.prefix))
    }
}

/// A variant that is being played.
struct Player<'a> {
    variant: &'a Variant<'a>,
    target: &'a Target,
    connections: BTreeMap<&'a str, Connection>,
    captured: BTreeMap<&'a str, Vec<u8>>,
}

impl<'a> Player<'a> {
    fn step(&mut self, step: &'a Step) -> Result<(), Mismatch> {
        match step {
            Step::Put { user, message } => self.put(user, message),
            Step::Remove { user, name } => self.maildrop(user).remove(&self.path_of(user, name)?),
            Step::Rename { user, from, to } => self.maildrop(user).rename(&self.path_of(user, from)?, to),
            Step::Remains { user, names } => self.expect_remaining(user, names)?,
            Step::Send { connection, text } => self.send(connection, &self.resolve(text))?,
            Step::Expect { connection, pattern } => self.expect(connection, pattern)?,
            Step::Among { connection, patterns } => self.expect_among(connection, patterns)?,
            Step::Differ(a, b) => {
                let [a, b] = [a, b].map(|name| &self.captured[name.as_str()]);
                if a == b {
                    return Err(Mismatch::new("two different values", a.escape_ascii()));
                }
            }
            Step::Closed(connection) => self.take_connection(connection)?.expect_end()?,
            Step::HangUp(connection) => drop(self.take_connection(connection)?),
        }
        Ok(())
    }

    fn maildrop(&self, user: &str) -> Maildrop {
        Maildrop::at(self.target.mail_root.join(self.variant.account(user)))
    }

    /// The current path of a message, which a server may have moved within the Maildir.
    fn path_of(&self, user: &str, name: &str) -> Result<String, Mismatch> {
        let mut paths = self.maildrop(user).messages().into_iter();
        paths.find(|path| base_name(path) == base_name(name)).ok_or_else(|| Mismatch::new(name, "no such file"))
    }

    fn put(&self, user: &str, message: &Stored) {
        let Stored { layout, name, modified, octets } = message;
        let maildrop = self.maildrop(user);
        let name = match layout.unwrap_or(self.variant.layout) {
            Layout::Maildir if layout.is_none() => format!("new/{name}"),
            _ => name.clone(),
        };
        maildrop.put(&name, octets);
        if let Some(seconds) = modified {
            maildrop.set_modified(&name, *seconds);
        }
    }

    fn expect_remaining(&self, user: &str, names: &BTreeSet<String>) -> Result<(), Mismatch> {
        let left: BTreeSet<String> = self.maildrop(user).messages().iter().map(|path| base_name(path).into()).collect();
        if left == *names { Ok(()) } else { Err(Mismatch::new(format!("{names:?} on disk"), format!("{left:?}"))) }
    }

    /// The octets of `text` with the users' names of this variant.
    fn resolve(&self, text: &Text) -> Vec<u8> {
        let octets = text.0.iter().map(|piece| match piece {
            Piece::Octets(octets) => octets.clone(),
            Piece::User(name) | Piece::Capture(name) => self.variant.account(name).into_bytes(),
        });
        octets.collect::<Vec<_>>().concat()
    }

    fn send(&mut self, connection: &'a str, octets: &[u8]) -> Result<(), Mismatch> {
        let segment = if self.variant.octet_by_octet { 1 } else { octets.len() };
        let connection = self.connection(connection)?;
        octets
            .chunks(segment)
            .try_for_each(|segment| connection.client.try_write(segment))
            .map_err(|error| Mismatch::new("to send", error))
    }

    fn expect(&mut self, connection: &'a str, pattern: &'a Pattern) -> Result<(), Mismatch> {
        let line = self.connection(connection)?.line(pattern)?;
        if self.matches(pattern, &line) { Ok(()) } else { Err(Mismatch::new(pattern, line.escape_ascii())) }
    }

    /// Reads lines up to the terminator, which is kept for the next step, and looks for each pattern among the lines. The
    /// lines of a PEEP answer are counted in its first line instead.
    fn expect_among(&mut self, connection: &'a str, patterns: &'a [(bool, Pattern)]) -> Result<(), Mismatch> {
        let is_peep = connection.starts_with('P');
        let connection = self.connection(connection)?;
        let lines = if is_peep { connection.counted_lines()? } else { connection.lines_to_terminator()? };
        for (is_expected, pattern) in patterns {
            if lines.iter().any(|line| self.matches(pattern, line)) != *is_expected {
                let which = if *is_expected { "a" } else { "no" };
                let expected = format!("{which} line that is {pattern}");
                return Err(Mismatch::new(expected, lines.join(&b"\n"[..]).escape_ascii()));
            }
        }
        Ok(())
    }

    /// Returns true if `line` matches the pattern. If it does, captures that are new are kept.
    fn matches(&mut self, pattern: &'a Pattern, line: &[u8]) -> bool {
        let mut rest = line;
        let mut captured = self.captured.clone();
        for piece in &pattern.pieces {
            let expected = match piece {
                Piece::Octets(octets) => octets.clone(),
                Piece::User(name) => self.variant.account(name).into_bytes(),
                Piece::Capture(name) => captured.entry(name).or_insert_with(|| unique_id(rest).to_owned()).clone(),
            };
            match rest.strip_prefix(&expected[..]) {
                Some(after) if !expected.is_empty() || *piece == Piece::Octets(Vec::new()) => rest = after,
                _ => return false,
            }
        }
        let matches = rest.is_empty() || pattern.open && rest.starts_with(b" ") && line.len() <= LONGEST_STATUS;
        if matches {
            self.captured = captured;
        }
        matches
    }

    fn connection(&mut self, name: &'a str) -> Result<&mut Connection, Mismatch> {
        if !self.connections.contains_key(name) {
            let address = if name.starts_with('P') { self.target.peep.unwrap() } else { self.target.pop3 };
            let client = Client::try_connect(address).map_err(|error| Mismatch::new("a connection", error))?;
            client.socket().set_read_timeout(Some(self.target.patience)).unwrap();
            self.connections.insert(name, Connection { client, terminator: None });
        }
        Ok(self.connections.get_mut(name).unwrap())
    }

    /// Takes a connection out of the list, because this step ends it.
    fn take_connection(&mut self, name: &str) -> Result<Connection, Mismatch> {
        self.connections.remove(name).ok_or_else(|| Mismatch::new("an open connection", "none of that name"))
    }

    /// Expects that the server sends nothing more on the connections that are still open.
    fn expect_silence(self) -> Result<(), Mismatch> {
        for connection in self.connections.into_values() {
            connection.client.finish_writing();
            connection.expect_end()?;
        }
        Ok(())
    }
}

/// The octets at the beginning of `text` that can be a unique-id.
fn unique_id(text: &[u8]) -> &[u8] {
    let length = text.iter().take(70).take_while(|octet| octet.is_ascii_graphic()).count();
    &text[..length]
}

/// A message's name without folder and flags.
fn base_name(path: &str) -> &str {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    name.split_once(":2,").map_or(name, |(base, _)| base)
}

/// A connection, and a terminator that was read and not yet expected.
struct Connection {
    client: Client,
    terminator: Option<Vec<u8>>,
}

impl Connection {
    fn line(&mut self, expected: impl fmt::Display) -> Result<Vec<u8>, Mismatch> {
        match self.terminator.take().map(Some).map_or_else(|| self.client.try_line(), Ok) {
            Ok(Some(line)) => Ok(line),
            Ok(None) => Err(Mismatch::new(expected, "the end of the connection")),
            Err(error) => Err(Mismatch::unread(expected, &error)),
        }
    }

    /// Reads lines up to the terminator, which is kept.
    fn lines_to_terminator(&mut self) -> Result<Vec<Vec<u8>>, Mismatch> {
        let mut lines = Vec::new();
        loop {
            match self.line("the lines up to the terminator")? {
                terminator if terminator == b"." => {
                    self.terminator = Some(terminator);
                    return Ok(lines);
                }
                line => lines.push(line),
            }
        }
    }

    /// Reads the lines of a PEEP answer.
    fn counted_lines(&mut self) -> Result<Vec<Vec<u8>>, Mismatch> {
        let first = self.line("the number of lines")?;
        let count = std::str::from_utf8(&first).ok().and_then(|first| first.strip_prefix('+')?.parse().ok());
        let count: usize = count.ok_or_else(|| Mismatch::new("the number of lines", first.escape_ascii()))?;
        (0..count).map(|_| self.line("one more line")).collect()
    }

    fn expect_end(mut self) -> Result<(), Mismatch> {
        const END: &str = "the end of the connection";
        match self.terminator.map(Some).map_or_else(|| self.client.try_line(), Ok) {
            Ok(None) => Ok(()),
            Ok(Some(line)) => Err(Mismatch::new(END, line.escape_ascii())),
            Err(error) => Err(Mismatch::unread(END, &error)),
        }
    }
}

/// A difference between a dialogue and what the server does.
struct Mismatch {
    expected: String,
    got: String,
}

impl Mismatch {
    fn new(expected: impl fmt::Display, got: impl fmt::Display) -> Self {
        Self { expected: expected.to_string(), got: got.to_string() }
    }

    fn unread(expected: impl fmt::Display, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::new(expected, "nothing, for too long"),
            _ => Self::new(expected, error),
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  expected: {}\n       got: {}", self.expected, self.got)
    }
}
