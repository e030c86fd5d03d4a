//! The syntax of the files in `tests/dialogues`.
//!
//! Blank lines and lines that start with `#` are ignored. The other lines are:
//!
//! ```text
//! user NAME PASSWORD         an account, whose messages follow; without this line: mrose, tanstaaf
//! message NAME [mtime=SECS]  a message in the maildrop, whose octets follow in `>` lines
//! flat NAME [mtime=SECS]     the same, and the dialogue is played with a flat maildrop only
//! maildir new/NAME           the same with a Maildir only (or cur/NAME:2,FLAGS)
//! > Subject: a\r\n           octets of the message; no line end is added
//! remove NAME                another program removes the message
//! rename new/A cur/A:2,S     another program moves the message or changes its flags
//! login                      the greeting, and USER and PASS of the account above, all answered by +OK
//! C: LIST                    the client sends this line and CRLF, in one segment with the C: lines that follow
//! C| NO                      the client sends these octets in a segment of their own, without a line end
//! S: +OK 2 320               the server sends exactly this line and CRLF
//! S:                         the server sends an empty line
//! S: +OK ...                 the server sends +OK, and may add a space and any text up to 512 octets in all
//! S: 1 <id>                  <id> is 1 to 70 octets from 0x21 to 0x7E, the same ones wherever <id> is used again
//! S~ TOP                     this line is among those up to the terminator, in any order
//! S! APOP ...                no such line is among those up to the terminator
//! SP~ uptime <t>             the same on a PEEP connection: this line is among those of the answer, and +n is not written
//! differ a b                 <a> and <b> are different
//! closed                     the server closes the connection and sends nothing more
//! hangup                     the client closes the connection
//! remains NAME...            these messages are on disk, and no others
//! flags -T 1                 the dialogue gets a server of its own with these flags
//! ```
//!
//! C2, S2, `login 2`, `closed 2` and `hangup 2` belong to a second connection, and any other name to another one. CP
//! and SP belong to a PEEP connection, as all names do that start with P. A connection is opened where it is used
//! first, and again after `closed` or `hangup`. At the end of the dialogue, the server may have sent nothing more on
//! any connection.
//!
//! In text that is sent or expected, `\r \n \t \0 \\ \xHH` stand for octets, `{a*998}` for 998 times `a`, and `$mrose`
//! for the name of that account on the server.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use crate::harness::{PASSWORD, USER};

/// A dialogue.
pub(super) struct Dialogue {
    /// The path of its file in the repository.
    pub(super) path: String,
    pub(super) stem: String,
    pub(super) users: Vec<(String, String)>,
    pub(super) flags: Vec<String>,
    pub(super) steps: Vec<(usize, Step)>,
}

pub(super) enum Step {
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
    /// Patterns for the lines of an answer: `true` for one that a line has to match, `false` for one that no line may
    /// match.
    Among {
        connection: String,
        patterns: Vec<(bool, Pattern)>,
    },
    Differ(String, String),
    Closed(String),
    HangUp(String),
}

/// A message for the maildrop.
pub(super) struct Stored {
    pub(super) layout: Option<Layout>,
    pub(super) name: String,
    pub(super) modified: Option<u64>,
    pub(super) octets: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Layout {
    Flat,
    Maildir,
}

/// Octets to send, in which the users' names are not filled in.
pub(super) struct Text(pub(super) Vec<Piece>);

/// An expected line.
pub(super) struct Pattern {
    written: String,
    pub(super) pieces: Vec<Piece>,
    /// True if a space and any text may follow.
    pub(super) open: bool,
}

#[derive(Debug, PartialEq)]
pub(super) enum Piece {
    Octets(Vec<u8>),
    User(String),
    Capture(String),
}

impl Dialogue {
    pub(super) fn read(path: &Path) -> Self {
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

    /// Adds the steps that `login` stands for.
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

    /// Adds the step of a `C:`, `C|`, `S:`, `S~` or `S!` line. `word` is the part before its first space.
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
                let pattern = (mark == '~', Pattern::parse(rest)?);
                match self.steps.last_mut() {
                    Some((_, Step::Among { connection: last, patterns })) if *last == connection => {
                        patterns.push(pattern);
                        return Ok(());
                    }
                    _ => Step::Among { connection, patterns: vec![pattern] },
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

    pub(super) fn needs_own_server(&self) -> bool {
        self.is_peep() || !self.flags.is_empty()
    }

    /// The layouts in which the dialogue is played.
    pub(super) fn layouts(&self) -> Vec<Layout> {
        let named = self.steps.iter().find_map(|(_, step)| match step {
            Step::Put { message, .. } => message.layout,
            _ => None,
        });
        named.map_or(vec![Layout::Flat, Layout::Maildir], |layout| vec![layout])
    }

    /// The reason why the dialogue cannot be played against another server, if there is one.
    pub(super) fn only_ours(&self) -> Option<&'static str> {
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
            return Err("not the name of a message");
        }
        Ok(Self { layout, name: name.to_owned(), modified, octets: Vec::new() })
    }
}

/// Parses text without names and captures.
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
    let octets = match characters.next().ok_or("the text ends in the middle")? {
        '\\' => vec![match characters.next().ok_or("a backslash without a character")? {
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

/// Splits `text` into octets, `$name`s and, if `capturing` is true, `<name>`s.
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

/// Splits a name of lower-case letters and digits off the beginning of `text`.
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
