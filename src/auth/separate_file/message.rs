//! The messages between the server and the process that reads the users file. The first field says what the message is.

use std::fmt;

use super::super::mailbox::Mailbox;
use super::super::name::UserName;
use super::super::own_expiry::OwnExpiry;
use crate::separate::MOST;
use crate::separate::fields::{decode, encode, text};

/// What the server asks.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Question {
    /// Whether this password is right.
    Verify(UserName, Vec<u8>),
    /// Whether there is this account, and where its mail is.
    Find(UserName),
    /// The names behind this one in their order, as many as fit into an answer.
    Names(Option<UserName>),
    /// What is true of all accounts together.
    Totals,
}

/// Does not show the password.
impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verify(user, _) => write!(f, "Verify({user:?})"),
            Self::Find(user) => write!(f, "Find({user:?})"),
            Self::Names(after) => write!(f, "Names({after:?})"),
            Self::Totals => f.write_str("Totals"),
        }
    }
}

/// What the process answers. No answer has a password or its hash in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The password is right, or the account is there.
    Accepted(Mailbox),
    /// The password is wrong.
    Refused,
    /// There is no such account. If the user has a wrong line, this is its number.
    Unknown(Option<usize>),
    /// Too many passwords are being verified.
    Busy,
    /// The file cannot be used, for this reason.
    Unavailable(String),
    /// Names of accounts; none if there are no further ones.
    Names(Vec<UserName>),
    /// The rules for mail that expires that accounts have of their own.
    Totals(Vec<OwnExpiry>),
}

impl Question {
    /// Returns the message, or `None` if it would be too long.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        match self {
            Self::Verify(user, password) => encode([&b"verify"[..], user.as_str().as_bytes(), password]),
            Self::Find(user) => encode([&b"find"[..], user.as_str().as_bytes()]),
            Self::Names(after) => encode([&b"names"[..], after.as_ref().map_or("", UserName::as_str).as_bytes()]),
            Self::Totals => encode([&b"totals"[..]]),
        }
    }

    /// Parses a message. Returns `None` if the octets are not one.
    pub(super) fn decode(message: &[u8]) -> Option<Self> {
        match decode(message)?[..] {
            [b"verify", user, password] => Some(Self::Verify(name(user)?, password.to_vec())),
            [b"find", user] => Some(Self::Find(name(user)?)),
            [b"names", b""] => Some(Self::Names(None)),
            [b"names", after] => Some(Self::Names(Some(name(after)?))),
            [b"totals"] => Some(Self::Totals),
            _ => None,
        }
    }
}

impl Answer {
    /// An answer with as many of these names as fit into a message.
    pub(super) fn names(names: impl Iterator<Item = UserName>) -> Self {
        let mut left = MOST - field_length("names");
        let fitting = names.take_while(|name| {
            let length = field_length(name.as_str());
            let fits = length <= left;
            left = left.saturating_sub(length);
            fits
        });
        Self::Names(fitting.collect())
    }

    /// Returns the message, or `None` if it would be too long.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        match self {
            Self::Accepted(mailbox) => encode([&b"accepted"[..], &mailbox.encode()?]),
            Self::Refused => encode([&b"refused"[..]]),
            Self::Unknown(line) => {
                let line = line.map(|line| line.to_string()).unwrap_or_default();
                encode([&b"unknown"[..], line.as_bytes()])
            }
            Self::Busy => encode([&b"busy"[..]]),
            Self::Unavailable(why) => {
                encode([&b"unavailable"[..], &why.as_bytes()[..why.floor_char_boundary(MOST / 2)]])
            }
            Self::Names(names) => {
                encode([&b"names"[..]].into_iter().chain(names.iter().map(|name| name.as_str().as_bytes())))
            }
            Self::Totals(expiries) => {
                let expiries: Vec<_> = expiries.iter().flat_map(|own| own.fields()).collect();
                encode([&b"totals"[..]].into_iter().chain(expiries.iter().map(String::as_bytes)))
            }
        }
    }

    /// Parses a message. Returns `None` if the octets are not one.
    pub(super) fn decode(message: &[u8]) -> Option<Self> {
        let fields = decode(message)?;
        let (kind, rest) = fields.split_first()?;
        match (*kind, rest) {
            (b"accepted", [mailbox]) => Mailbox::decode(mailbox).map(Self::Accepted),
            (b"refused", []) => Some(Self::Refused),
            (b"unknown", [b""]) => Some(Self::Unknown(None)),
            (b"unknown", [line]) => Some(Self::Unknown(Some(text(line)?.parse().ok()?))),
            (b"busy", []) => Some(Self::Busy),
            (b"unavailable", [why]) => text(why).map(Self::Unavailable),
            (b"names", names) => names.iter().copied().map(name).collect::<Option<_>>().map(Self::Names),
            (b"totals", expiries) => {
                let (pairs, []) = expiries.as_chunks::<2>() else { return None };
                pairs.iter().map(|pair| OwnExpiry::of_fields(*pair)).collect::<Option<_>>().map(Self::Totals)
            }
            _ => None,
        }
    }
}

/// How many octets a field takes in a message.
fn field_length(text: &str) -> usize {
    2 + text.len()
}

fn name(field: &[u8]) -> Option<UserName> {
    text(field)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::super::accounts::Accounts;
    use super::*;
    use proptest::prelude::*;

    fn user(name: &str) -> UserName {
        name.parse().unwrap()
    }

    /// What the users file says of this line's account.
    fn mailbox_of(rest: &str) -> Mailbox {
        let accounts = Accounts::read(format!("ana:{{PLAIN}}secret{rest}\n").as_bytes());
        Mailbox::clone(&accounts.get(&user("ana")).unwrap().mailbox)
    }

    #[test]
    fn all_that_a_users_file_says_of_a_user_arrives() {
        let rest =
            ":1000:users::/home/ana:/bin/sh:userdb_mail=mbox:/var/mail/%u userdb_expire_all=never userdb_connections=3";
        for mailbox in [mailbox_of(""), mailbox_of(rest)] {
            let answer = Answer::Accepted(mailbox);
            assert_eq!(Answer::decode(&answer.encode().unwrap()), Some(answer));
        }
    }

    #[test]
    fn other_answers_and_all_questions_arrive() {
        let expiries =
            vec![mailbox_of("::::::userdb_expire_read=3").expiry, mailbox_of("::::::userdb_expire_all=never").expiry];
        for answer in [
            Answer::Refused,
            Answer::Unknown(None),
            Answer::Unknown(Some(7)),
            Answer::Busy,
            Answer::Unavailable("ä".repeat(9)),
            Answer::Names(vec![user("ana"), user("bob")]),
            Answer::Names(Vec::new()),
            Answer::Totals(expiries),
            Answer::Totals(Vec::new()),
        ] {
            assert_eq!(Answer::decode(&answer.encode().unwrap()), Some(answer));
        }
        let [ana, odd] = ["ana", "o'b\"r%n@ä"].map(user);
        for question in [
            Question::Verify(odd, b"\0\xff:".to_vec()),
            Question::Find(ana.clone()),
            Question::Names(None),
            Question::Names(Some(ana)),
            Question::Totals,
        ] {
            assert!(!format!("{question:?}").contains("255"));
            assert_eq!(Question::decode(&question.encode().unwrap()), Some(question));
        }
        let long = Question::Verify(user("ana"), vec![b'x'; MOST]);
        assert_eq!(long.encode(), None);
    }

    #[test]
    fn as_many_names_as_fit_are_in_an_answer() {
        let names: Vec<_> = (0..1000).map(|n| user(&format!("user{n:0100}"))).collect();
        let answer = Answer::names(names.iter().cloned());
        let Answer::Names(some) = &answer else { unreachable!() };
        assert_eq!(some[..], names[..38]);
        assert_eq!(Answer::decode(&answer.encode().unwrap()), Some(answer));
    }

    proptest! {
        #[test]
        fn no_octets_are_a_fault_of_the_parser(message: Vec<u8>, fields: Vec<Vec<u8>>) {
            let _ = (Question::decode(&message), Answer::decode(&message));
            for word in ["accepted", "names", "totals", "unknown", "verify"] {
                let fields = [word.as_bytes()].into_iter().chain(fields.iter().map(Vec::as_slice));
                let message = encode(fields).unwrap_or_default();
                let _ = (Question::decode(&message), Answer::decode(&message));
            }
        }
    }
}
