//! Plays the dialogues of `tests/dialogues/*.txt` against the real server. Each dialogue tests one rule. [`script`]
//! says how they are written.
//!
//! # The plays
//! A dialogue is played with its messages in a flat maildrop and in a Maildir (unless it says which), and each of
//! these with the commands sent as written and sent octet by octet.
//!
//! # Another server
//! With `POP3D_TEST_ADDRESS=host:port` and `POP3D_TEST_MAIL_ROOT=dir` the dialogues go to that server instead, in
//! Maildirs `dir/<user>/`. The users are new ones for each run; `dir/passwd` lists them as `NAME:{PLAIN.HEX}PASSWORD`
//! before the first connection. Dialogues that this server cannot play are skipped, with a note.

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

/// Plays at a time: most of a play is waiting for the server.
const PLAYERS: usize = 8;

/// How long another server may take for an answer: Dovecot waits 12 s for a maildrop that is in use.
const OTHERS_PATIENCE: Duration = Duration::from_secs(30);

/// A status line's most octets without its CRLF (RFC 2449 section 4).
const LONGEST_STATUS: usize = 510;

#[test]
fn every_dialogue_goes_as_written() {
    let dialogues = all_dialogues();
    let (failures, played) = match Other::from_environment() {
        Some(other) => other.play(&dialogues),
        None => play_ours(&dialogues),
    };
    println!("{played} plays of {} dialogues", dialogues.len());
    assert!(failures.is_empty(), "{} of {played} plays failed\n\n{}", failures.len(), failures.join("\n"));
}

/// The dialogues in the order of their names.
fn all_dialogues() -> Vec<Dialogue> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let mut paths: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    paths.iter().map(|path| Dialogue::read(path)).collect()
}

/// Plays each dialogue in all its ways: one server for all, but for those that need flags or an admin.
fn play_ours(dialogues: &[Dialogue]) -> (Vec<String>, usize) {
    let casts: Vec<Cast> = dialogues.iter().flat_map(Cast::all).collect();
    let (alone, together): (Vec<Cast>, Vec<Cast>) =
        casts.into_iter().partition(|cast| cast.dialogue.needs_own_server());
    let server = server_for(&together);
    let mut failures = play_all(&together, &Stage::of(&server));
    for cast in &alone {
        let server = server_for(std::slice::from_ref(cast));
        failures.extend(cast.play(&Stage::of(&server)).err());
    }
    (failures, alone.len() + together.len())
}

fn server_for(casts: &[Cast]) -> Server {
    let mut builder = Server::builder();
    for (name, password) in casts.iter().flat_map(Cast::accounts) {
        builder = builder.user(&name, password);
    }
    if let [cast] = casts {
        builder = builder.flags(&cast.dialogue.flags);
    }
    builder.start()
}

fn play_all(casts: &[Cast], stage: &Stage) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..PLAYERS {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(cast) = casts.get(index) else { break };
                    if let Err(failure) = cast.play(stage) {
                        failures.lock().unwrap().insert(index, failure);
                    }
                }
            });
        }
    });
    failures.into_inner().unwrap().into_values().collect()
}

/// A server that is not ours, from the environment.
struct Other {
    address: SocketAddr,
    mail_root: PathBuf,
}

impl Other {
    fn from_environment() -> Option<Self> {
        let address = env::var("POP3D_TEST_ADDRESS").ok()?;
        let address =
            address.to_socket_addrs().ok().and_then(|mut all| all.next()).expect("POP3D_TEST_ADDRESS: no host");
        let mail_root = env::var_os("POP3D_TEST_MAIL_ROOT").expect("POP3D_TEST_MAIL_ROOT goes with POP3D_TEST_ADDRESS");
        Some(Self { address, mail_root: mail_root.into() })
    }

    fn play(&self, dialogues: &[Dialogue]) -> (Vec<String>, usize) {
        let mut casts = Vec::new();
        for dialogue in dialogues {
            match dialogue.only_ours() {
                Some(reason) => println!("skipped: {} ({reason})", dialogue.path),
                None => casts.push(Cast::elsewhere(dialogue)),
            }
        }
        self.make_accounts(&casts);
        let stage =
            Stage { pop3: self.address, peep: None, mail_root: self.mail_root.clone(), patience: OTHERS_PATIENCE };
        (play_all(&casts, &stage), casts.len())
    }

    fn make_accounts(&self, casts: &[Cast]) {
        let mut passwd = String::new();
        for (name, password) in casts.iter().flat_map(Cast::accounts) {
            Maildrop::at(self.mail_root.join(&name)).make_maildir();
            let hex: String = password.bytes().map(|octet| format!("{octet:02x}")).collect();
            passwd.push_str(&format!("{name}:{{PLAIN.HEX}}{hex}\n"));
        }
        fs::write(self.mail_root.join("passwd"), passwd).unwrap();
    }
}

/// Where a dialogue is played.
struct Stage {
    pop3: SocketAddr,
    peep: Option<SocketAddr>,
    /// How long to wait for an answer.
    patience: Duration,
    mail_root: PathBuf,
}

impl Stage {
    fn of(server: &Server) -> Self {
        let (pop3, peep) = (server.pop3_address(), Some(server.peep_address()));
        Self { pop3, peep, patience: PATIENCE, mail_root: server.mail().path().to_owned() }
    }
}

/// One way of playing a dialogue.
struct Cast<'a> {
    dialogue: &'a Dialogue,
    layout: Layout,
    octet_by_octet: bool,
    /// What the users' names begin with, so that no two plays share a maildrop.
    prefix: String,
}

impl<'a> Cast<'a> {
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

    /// Plays it to its end or to the first thing that goes otherwise.
    fn play(&self, stage: &Stage) -> Result<(), String> {
        let mut play = Play { cast: self, stage, connections: BTreeMap::new(), captured: BTreeMap::new() };
        for (number, step) in &self.dialogue.steps {
            play.step(step).map_err(|wrong| format!("{}:{number} as {}\n{wrong}", self.dialogue.path, self.prefix))?;
        }
        play.expect_silence().map_err(|wrong| format!("{}: at its end as {}\n{wrong}", self.dialogue.path, self.prefix))
    }
}

/// A play going on.
struct Play<'a> {
    cast: &'a Cast<'a>,
    stage: &'a Stage,
    connections: BTreeMap<&'a str, Connection>,
    captured: BTreeMap<&'a str, Vec<u8>>,
}

impl<'a> Play<'a> {
    fn step(&mut self, step: &'a Step) -> Result<(), Wrong> {
        match step {
            Step::Put { user, message } => self.put(user, message),
            Step::Remove { user, name } => self.maildrop(user).remove(&self.path_of(user, name)?),
            Step::Rename { user, from, to } => self.maildrop(user).rename(&self.path_of(user, from)?, to),
            Step::Remains { user, names } => self.expect_remaining(user, names)?,
            Step::Send { connection, text } => self.send(connection, &self.resolve(text))?,
            Step::Expect { connection, pattern } => self.expect(connection, pattern)?,
            Step::Among { connection, wishes } => self.expect_among(connection, wishes)?,
            Step::Differ(a, b) => {
                let [a, b] = [a, b].map(|name| &self.captured[name.as_str()]);
                if a == b {
                    return Err(Wrong::new("two different values", a.escape_ascii()));
                }
            }
            Step::Closed(connection) => self.taken(connection)?.expect_end()?,
            Step::HangUp(connection) => drop(self.taken(connection)?),
        }
        Ok(())
    }

    fn maildrop(&self, user: &str) -> Maildrop {
        Maildrop::at(self.stage.mail_root.join(self.cast.account(user)))
    }

    /// Where a message is now: a server may have moved it within the Maildir.
    fn path_of(&self, user: &str, name: &str) -> Result<String, Wrong> {
        let mut paths = self.maildrop(user).messages().into_iter();
        paths.find(|path| base_name(path) == base_name(name)).ok_or_else(|| Wrong::new(name, "no such file"))
    }

    fn put(&self, user: &str, message: &Stored) {
        let Stored { layout, name, modified, octets } = message;
        let maildrop = self.maildrop(user);
        let name = match layout.unwrap_or(self.cast.layout) {
            Layout::Maildir if layout.is_none() => format!("new/{name}"),
            _ => name.clone(),
        };
        maildrop.put(&name, octets);
        if let Some(seconds) = modified {
            maildrop.set_modified(&name, *seconds);
        }
    }

    fn expect_remaining(&self, user: &str, names: &BTreeSet<String>) -> Result<(), Wrong> {
        let left: BTreeSet<String> = self.maildrop(user).messages().iter().map(|path| base_name(path).into()).collect();
        if left == *names { Ok(()) } else { Err(Wrong::new(format!("{names:?} on disk"), format!("{left:?}"))) }
    }

    /// What `text` stands for in this play.
    fn resolve(&self, text: &Text) -> Vec<u8> {
        let octets = text.0.iter().map(|piece| match piece {
            Piece::Octets(octets) => octets.clone(),
            Piece::User(name) | Piece::Capture(name) => self.cast.account(name).into_bytes(),
        });
        octets.collect::<Vec<_>>().concat()
    }

    fn send(&mut self, connection: &'a str, octets: &[u8]) -> Result<(), Wrong> {
        let segment = if self.cast.octet_by_octet { 1 } else { octets.len() };
        let connection = self.connection(connection)?;
        octets
            .chunks(segment)
            .try_for_each(|segment| connection.client.try_write(segment))
            .map_err(|error| Wrong::new("to send", error))
    }

    fn expect(&mut self, connection: &'a str, pattern: &'a Pattern) -> Result<(), Wrong> {
        let line = self.connection(connection)?.line(pattern)?;
        if self.matches(pattern, &line) { Ok(()) } else { Err(Wrong::new(pattern, line.escape_ascii())) }
    }

    /// Reads up to the terminator, which stays to be read, and looks for each wish among the lines.
    fn expect_among(&mut self, connection: &'a str, wishes: &'a [(bool, Pattern)]) -> Result<(), Wrong> {
        let mut lines = Vec::new();
        let connection = self.connection(connection)?;
        loop {
            match connection.line("the lines up to the terminator")? {
                terminator if terminator == b"." => {
                    connection.terminator = Some(terminator);
                    break;
                }
                line => lines.push(line),
            }
        }
        for (wanted, pattern) in wishes {
            if lines.iter().any(|line| self.matches(pattern, line)) != *wanted {
                let expected = format!("{} among the lines: {pattern}", if *wanted { "this" } else { "not" });
                return Err(Wrong::new(expected, lines.join(&b"\n"[..]).escape_ascii()));
            }
        }
        Ok(())
    }

    /// Whether `line` is as the pattern says; the captures met for the first time are kept if it is.
    fn matches(&mut self, pattern: &'a Pattern, line: &[u8]) -> bool {
        let mut rest = line;
        let mut captured = self.captured.clone();
        for piece in &pattern.pieces {
            let expected = match piece {
                Piece::Octets(octets) => octets.clone(),
                Piece::User(name) => self.cast.account(name).into_bytes(),
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

    fn connection(&mut self, name: &'a str) -> Result<&mut Connection, Wrong> {
        if !self.connections.contains_key(name) {
            let address = if name.starts_with('P') { self.stage.peep.unwrap() } else { self.stage.pop3 };
            let client = Client::try_connect(address).map_err(|error| Wrong::new("a connection", error))?;
            client.socket().set_read_timeout(Some(self.stage.patience)).unwrap();
            self.connections.insert(name, Connection { client, terminator: None });
        }
        Ok(self.connections.get_mut(name).unwrap())
    }

    /// The connection, which is over with this step.
    fn taken(&mut self, name: &str) -> Result<Connection, Wrong> {
        self.connections.remove(name).ok_or_else(|| Wrong::new("an open connection", "none of that name"))
    }

    /// Expects that the servers have nothing more to say on what is still open.
    fn expect_silence(self) -> Result<(), Wrong> {
        for connection in self.connections.into_values() {
            connection.client.finish_writing();
            connection.expect_end()?;
        }
        Ok(())
    }
}

/// What a unique-id may be, off the front of `text`.
fn unique_id(text: &[u8]) -> &[u8] {
    let length = text.iter().take(70).take_while(|octet| octet.is_ascii_graphic()).count();
    &text[..length]
}

/// A message's name without folder and flags.
fn base_name(path: &str) -> &str {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    name.split_once(":2,").map_or(name, |(base, _)| base)
}

/// A connection, and the terminator when it was read ahead.
struct Connection {
    client: Client,
    terminator: Option<Vec<u8>>,
}

impl Connection {
    fn line(&mut self, expected: impl fmt::Display) -> Result<Vec<u8>, Wrong> {
        match self.terminator.take().map(Some).map_or_else(|| self.client.try_line(), Ok) {
            Ok(Some(line)) => Ok(line),
            Ok(None) => Err(Wrong::new(expected, "the end of the connection")),
            Err(error) => Err(Wrong::unread(expected, &error)),
        }
    }

    fn expect_end(mut self) -> Result<(), Wrong> {
        const END: &str = "the end of the connection";
        match self.terminator.map(Some).map_or_else(|| self.client.try_line(), Ok) {
            Ok(None) => Ok(()),
            Ok(Some(line)) => Err(Wrong::new(END, line.escape_ascii())),
            Err(error) => Err(Wrong::unread(END, &error)),
        }
    }
}

/// What went otherwise.
struct Wrong {
    expected: String,
    got: String,
}

impl Wrong {
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

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  expected: {}\n       got: {}", self.expected, self.got)
    }
}
