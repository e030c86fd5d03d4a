//! Plays the dialogues of `tests/dialogues/*.txt`, each the proof of a rule, against the real server.
//!
//! # The files
//! Line by line, blank lines and lines that start with `#` apart:
//!
//! ```text
//! user NAME PASSWORD         a user, and whose the messages below are; without any: mrose, tanstaaf
//! message NAME [mtime=SECS]  a message in the maildrop, its octets in `>` lines below
//! flat NAME [mtime=SECS]     the same for a flat maildrop only
//! maildir new/NAME           the same for a Maildir only (or cur/NAME:2,FLAGS)
//! > Subject: a\r\n           octets of the message, with no line end but the written ones
//! remove NAME                another program removes the message
//! rename new/A cur/A:2,S     another program moves it, or changes its flags
//! login                      greeting, USER and PASS of the user above, all answered by +OK
//! C: LIST                    the client sends this line and CRLF; further C: lines join it in one segment
//! C| NO                      the client sends these octets as a segment of their own, with no line end added
//! S: +OK 2 320               the server answers exactly this line and CRLF
//! S: +OK ...                 +OK alone or with any text behind it, 512 octets in all at most
//! S: 1 <id>                  <id> is any 1 to 70 octets of 0x21-0x7E; where it comes again, the same ones
//! S~ TOP                     among the lines up to the terminator, in any order, there is this one
//! S! APOP ...                and none like this
//! differ a b                 <a> and <b> have been different
//! closed                     the server closes, with no further octet
//! hangup                     the client closes
//! remains NAME...            these messages are on disk, and no others
//! flags -T 1                 flags for a server of the dialogue's own
//! ```
//!
//! C2 and S2, `login 2`, `closed 2`, `hangup 2` are of a second connection. CP and SP speak PEEP, as all whose name
//! starts with P. A connection opens where it is first named, and again after `closed` or `hangup`. When
//! the dialogue is over, no connection may have anything more to read.
//!
//! In what is sent or expected `\r \n \t \0 \\ \xHH` are octets, `{a*998}` is 998 times `a`, and `$mrose` is the
//! name under which that user is known to the server.
//!
//! # The plays
//! A dialogue is played with its messages in a flat maildrop and in a Maildir (unless it says which), and each of
//! these with the commands sent as written and sent octet by octet.
//!
//! # Another server
//! With `POP3D_TEST_ADDRESS=host:port` and `POP3D_TEST_MAIL_ROOT=dir` the dialogues go to that server instead, in
//! Maildirs `dir/<user>/`. The users are new ones for each run; `dir/passwd` lists them as `NAME:{PLAIN.HEX}PASSWORD`
//! before the first connection. What that server cannot play is skipped, which is said.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::{Client, MailRoot, Maildrop, PASSWORD, PATIENCE, Server, USER};

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
        let address = env::var("POP3D_TEST_ADDRESS").ok()?.parse().expect("POP3D_TEST_ADDRESS is IP:PORT");
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
        let mail: &MailRoot = server.mail();
        let (pop3, peep) = (server.pop3_address(), Some(server.peep_address()));
        Self { pop3, peep, patience: PATIENCE, mail_root: mail.path().to_owned() }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// A dialogue as it is written

/// One file.
struct Dialogue {
    /// From the top of the repository.
    path: String,
    stem: String,
    users: Vec<(String, String)>,
    flags: Vec<String>,
    steps: Vec<(usize, Step)>,
}

enum Step {
    Put {
        user: String,
        message: Stored,
    },
    Remove {
        user: String,
        name: String,
    },
    Rename {
        user: String,
        from: String,
        to: String,
    },
    Remains {
        user: String,
        names: BTreeSet<String>,
    },
    Send {
        connection: String,
        text: Text,
    },
    Expect {
        connection: String,
        pattern: Pattern,
    },
    /// What is wanted among the lines of an answer, and what is not.
    Among {
        connection: String,
        wishes: Vec<(bool, Pattern)>,
    },
    Differ(String, String),
    Closed(String),
    HangUp(String),
}

/// A message for the maildrop.
struct Stored {
    layout: Option<Layout>,
    name: String,
    modified: Option<u64>,
    octets: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Layout {
    Flat,
    Maildir,
}

/// Octets in which the users' names are still open.
struct Text(Vec<Piece>);

/// A line to match.
struct Pattern {
    written: String,
    pieces: Vec<Piece>,
    /// Anything may follow, after a space.
    open: bool,
}

#[derive(Debug, PartialEq)]
enum Piece {
    Octets(Vec<u8>),
    User(String),
    Capture(String),
}

impl Dialogue {
    fn read(path: &Path) -> Self {
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut dialogue =
            Self { path: format!("tests/dialogues/{stem}.txt"), stem, users: vec![], flags: vec![], steps: vec![] };
        for (number, line) in (1..).zip(fs::read_to_string(path).unwrap().lines()) {
            if let Err(error) = dialogue.take(number, line) {
                panic!("{}:{number}: {error}: {line}", dialogue.path);
            }
        }
        if dialogue.users.is_empty() {
            dialogue.users.push((USER.to_owned(), PASSWORD.to_owned()));
        }
        dialogue
    }

    fn take(&mut self, number: usize, line: &str) -> Result<(), &'static str> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let user = self.users.last().map_or(USER, |(name, _)| name).to_owned();
        let connection = rest.to_owned();
        let step = match word {
            "user" => {
                let (name, password) = rest.split_once(' ').ok_or("no password")?;
                let password = String::from_utf8(literal(password)?).map_err(|_| "not UTF-8")?;
                self.users.push((name.to_owned(), password));
                return Ok(());
            }
            "flags" => {
                self.flags.extend(rest.split(' ').map(str::to_owned));
                return Ok(());
            }
            ">" => {
                let Some((_, Step::Put { message, .. })) = self.steps.last_mut() else {
                    return Err("no message above");
                };
                message.octets.extend(literal(rest)?);
                return Ok(());
            }
            "message" => Step::Put { user, message: Stored::parse(None, rest)? },
            "flat" => Step::Put { user, message: Stored::parse(Some(Layout::Flat), rest)? },
            "maildir" => Step::Put { user, message: Stored::parse(Some(Layout::Maildir), rest)? },
            "remove" => Step::Remove { user, name: rest.to_owned() },
            "rename" => {
                let (from, to) = rest.split_once(' ').ok_or("two names")?;
                Step::Rename { user, from: from.to_owned(), to: to.to_owned() }
            }
            "remains" => Step::Remains { user, names: rest.split_whitespace().map(str::to_owned).collect() },
            "login" => return self.take_login(number, &user, rest),
            "closed" => Step::Closed(connection),
            "hangup" => Step::HangUp(connection),
            "differ" => {
                let (a, b) = rest.split_once(' ').ok_or("two names")?;
                Step::Differ(a.to_owned(), b.to_owned())
            }
            spoken => return self.take_spoken(number, spoken, rest),
        };
        self.steps.push((number, step));
        Ok(())
    }

    /// Writes out the lines that `login` stands for.
    fn take_login(&mut self, number: usize, user: &str, connection: &str) -> Result<(), &'static str> {
        let password = self.users.last().map_or(PASSWORD, |(_, password)| password);
        let pass = Text(vec![Piece::Octets(format!("PASS {password}\r\n").into_bytes())]);
        let user =
            Text(vec![Piece::Octets(b"USER ".to_vec()), Piece::User(user.to_owned()), Piece::Octets(b"\r\n".to_vec())]);
        self.take_spoken(number, &format!("S{connection}:"), "+OK ...")?;
        for text in [user, pass] {
            self.steps.push((number, Step::Send { connection: connection.to_owned(), text }));
            self.take_spoken(number, &format!("S{connection}:"), "+OK ...")?;
        }
        Ok(())
    }

    /// A `C:`, `C|`, `S:`, `S~` or `S!` line; `word` is all before its first space.
    fn take_spoken(&mut self, number: usize, word: &str, rest: &str) -> Result<(), &'static str> {
        let mark = word.chars().last().unwrap_or_default();
        let speaker = word.strip_suffix(mark).unwrap_or_default();
        let (side, connection) = speaker.split_at_checked(1).ok_or("not a statement")?;
        let connection = connection.to_owned();
        let step = match (side, mark) {
            ("C", ':') => {
                let mut text = Text::parse(rest)?;
                text.0.push(Piece::Octets(b"\r\n".to_vec()));
                match self.steps.last_mut() {
                    Some((_, Step::Send { connection: last, text: before }))
                        if *last == connection && before.is_line() =>
                    {
                        before.0.append(&mut text.0);
                        return Ok(());
                    }
                    _ => Step::Send { connection, text },
                }
            }
            ("C", '|') => Step::Send { connection, text: Text::parse(rest)? },
            ("S", ':') => Step::Expect { connection, pattern: Pattern::parse(rest)? },
            ("S", '~' | '!') => {
                let wish = (mark == '~', Pattern::parse(rest)?);
                match self.steps.last_mut() {
                    Some((_, Step::Among { connection: last, wishes })) if *last == connection => {
                        wishes.push(wish);
                        return Ok(());
                    }
                    _ => Step::Among { connection, wishes: vec![wish] },
                }
            }
            _ => return Err("not a statement"),
        };
        self.steps.push((number, step));
        Ok(())
    }

    fn connections(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter_map(|(_, step)| match step {
            Step::Send { connection, .. } | Step::Expect { connection, .. } => Some(connection.as_str()),
            _ => None,
        })
    }

    fn is_peep(&self) -> bool {
        self.connections().any(|connection| connection.starts_with('P'))
    }

    fn needs_own_server(&self) -> bool {
        self.is_peep() || !self.flags.is_empty()
    }

    /// The layouts to play it in.
    fn layouts(&self) -> Vec<Layout> {
        let said = self.steps.iter().find_map(|(_, step)| match step {
            Step::Put { message, .. } => message.layout,
            _ => None,
        });
        said.map_or(vec![Layout::Flat, Layout::Maildir], |layout| vec![layout])
    }

    /// Why it can be played to no other server.
    fn only_ours(&self) -> Option<&'static str> {
        if self.is_peep() {
            Some("it speaks PEEP")
        } else if !self.flags.is_empty() {
            Some("it sets flags")
        } else if !self.layouts().contains(&Layout::Maildir) {
            Some("it needs a flat maildrop")
        } else {
            None
        }
    }
}

impl Stored {
    fn parse(layout: Option<Layout>, rest: &str) -> Result<Self, &'static str> {
        let (name, modified) = match rest.split_once(" mtime=") {
            Some((name, seconds)) => (name, Some(seconds.parse().map_err(|_| "mtime is in seconds")?)),
            None => (rest, None),
        };
        if name.contains(' ') || (layout == Some(Layout::Maildir)) != name.contains('/') {
            return Err("not a message's name");
        }
        Ok(Self { layout, name: name.to_owned(), modified, octets: Vec::new() })
    }
}

/// Text with no names and no captures.
fn literal(text: &str) -> Result<Vec<u8>, &'static str> {
    let mut octets = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        octets.extend(next_octets(&mut rest)?);
    }
    Ok(octets)
}

/// Takes one character, escape or repetition off the front of `text`.
fn next_octets(text: &mut &str) -> Result<Vec<u8>, &'static str> {
    if let Some((repeated, rest)) = text.strip_prefix('{').and_then(|inside| inside.split_once('}'))
        && let Some((what, count)) = repeated.rsplit_once('*')
        && let Ok(count) = count.parse()
    {
        *text = rest;
        return Ok(literal(what)?.repeat(count));
    }
    let mut characters = text.chars();
    let octets = match characters.next().ok_or("it ends in the middle")? {
        '\\' => vec![match characters.next().ok_or("an escape of nothing")? {
            'r' => b'\r',
            'n' => b'\n',
            't' => b'\t',
            '0' => 0,
            '\\' => b'\\',
            'x' => {
                let digits = characters.as_str().get(..2).ok_or("\\x takes two digits")?;
                characters = characters.as_str()[2..].chars();
                u8::from_str_radix(digits, 16).map_err(|_| "\\x takes two digits")?
            }
            _ => return Err("no such escape"),
        }],
        plain => plain.to_string().into_bytes(),
    };
    *text = characters.as_str();
    Ok(octets)
}

/// Cuts `text` into octets, `$name`s and, when `capturing`, `<name>`s.
fn pieces(text: &str, capturing: bool) -> Result<Vec<Piece>, &'static str> {
    let mut pieces = vec![Piece::Octets(Vec::new())];
    let mut rest = text;
    while !rest.is_empty() {
        if let Some((name, after)) = rest.strip_prefix('$').map(split_word).filter(|(name, _)| !name.is_empty()) {
            pieces.push(Piece::User(name.to_owned()));
            rest = after;
        } else if capturing
            && let Some((name, after)) = rest.strip_prefix('<').map(split_word)
            && let Some(after) = after.strip_prefix('>').filter(|_| !name.is_empty())
        {
            pieces.push(Piece::Capture(name.to_owned()));
            rest = after;
        } else {
            let octets = next_octets(&mut rest)?;
            match pieces.last_mut() {
                Some(Piece::Octets(last)) => last.extend(octets),
                _ => pieces.push(Piece::Octets(octets)),
            }
        }
    }
    Ok(pieces)
}

/// A name in small letters and digits off the front of `text`.
fn split_word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

impl Text {
    fn parse(text: &str) -> Result<Self, &'static str> {
        pieces(text, false).map(Self)
    }

    fn is_line(&self) -> bool {
        matches!(self.0.last(), Some(Piece::Octets(octets)) if octets.ends_with(b"\r\n"))
    }
}

impl Pattern {
    fn parse(written: &str) -> Result<Self, &'static str> {
        let (text, open) = written.strip_suffix(" ...").map_or((written, false), |text| (text, true));
        Ok(Self { written: written.to_owned(), pieces: pieces(text, true)?, open })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// A dialogue as it is played

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
            Step::Remove { user, name } => self.maildrop(user).remove(&self.place(user, name)?),
            Step::Rename { user, from, to } => self.maildrop(user).rename(&self.place(user, from)?, to),
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
    fn place(&self, user: &str, name: &str) -> Result<String, Wrong> {
        let mut places = self.maildrop(user).messages().into_iter();
        places.find(|place| base_name(place) == base_name(name)).ok_or_else(|| Wrong::new(name, "no such file"))
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
        let left: BTreeSet<String> =
            self.maildrop(user).messages().iter().map(|place| base_name(place).into()).collect();
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
fn base_name(place: &str) -> &str {
    let name = place.rsplit_once('/').map_or(place, |(_, name)| name);
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
