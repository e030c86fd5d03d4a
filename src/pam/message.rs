//! The messages between the server and a worker.

use std::fmt;

use crate::separate::fields::{decode, encode, text};

/// The most messages of modules in an answer, and the most octets of each text.
const MOST_MESSAGES: usize = 8;
const LONGEST: usize = 256;

/// What the server asks: whether this password is right.
#[derive(Clone, PartialEq, Eq)]
pub struct Question {
    /// The user's name.
    pub user: String,
    /// The password.
    pub password: Vec<u8>,
    /// The client's address, or nothing if the client has none.
    pub address: String,
}

/// Does not show the password.
impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What a worker answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The decision.
    pub verdict: Verdict,
    /// Why, in PAM's words. It is for the log.
    pub why: String,
    /// What the modules want the user to know. A POP3 client cannot show it, so it is for the log as well.
    pub messages: Vec<String>,
}

/// What PAM has decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The password is right and the account may be used.
    Accepted,
    /// The password is wrong.
    Refused,
    /// The password is right, but the account may not be used: it has expired, or the password has.
    Closed,
    /// There is no such user.
    Unknown,
    /// PAM could not decide.
    Unavailable,
}

const VERDICTS: [(Verdict, &[u8]); 5] = [
    (Verdict::Accepted, b"accepted"),
    (Verdict::Refused, b"refused"),
    (Verdict::Closed, b"closed"),
    (Verdict::Unknown, b"unknown"),
    (Verdict::Unavailable, b"unavailable"),
];

impl Question {
    /// Returns the message, or `None` if it would be too long.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        encode([self.user.as_bytes(), &self.password, self.address.as_bytes()])
    }

    /// Parses a message. Returns `None` if the octets are not one.
    #[must_use]
    pub fn decode(message: &[u8]) -> Option<Self> {
        let [user, password, address] = decode(message)?.try_into().ok()?;
        Some(Self { user: text(user)?, password: password.to_vec(), address: text(address)? })
    }
}

impl Answer {
    /// An answer without messages of modules.
    #[must_use]
    pub fn new(verdict: Verdict, why: impl Into<String>) -> Self {
        Self { verdict, why: why.into(), messages: Vec::new() }
    }

    /// Returns the message. Long texts are cut.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let verdict = VERDICTS.iter().find(|(verdict, _)| *verdict == self.verdict).map_or(&b""[..], |(_, word)| word);
        let texts = [&self.why].into_iter().chain(self.messages.iter().take(MOST_MESSAGES));
        let texts = texts.map(|text| &text.as_bytes()[..text.floor_char_boundary(LONGEST)]);
        encode([verdict].into_iter().chain(texts)).unwrap_or_default()
    }

    /// Parses a message. Returns `None` if the octets are not one.
    #[must_use]
    pub fn decode(message: &[u8]) -> Option<Self> {
        let mut fields = decode(message)?.into_iter();
        let word = fields.next()?;
        let (verdict, _) = *VERDICTS.iter().find(|(_, known)| *known == word)?;
        let why = text(fields.next()?)?;
        Some(Self { verdict, why, messages: fields.map(text).collect::<Option<_>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::separate::MOST;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_question_arrives_as_it_was(user: String, password: Vec<u8>, address in "[0-9a-f:.]{0,45}") {
            let question = Question { user, password, address };
            if let Some(message) = question.encode() {
                prop_assert_eq!(Question::decode(&message), Some(question));
            }
        }

        #[test]
        fn an_answer_arrives_with_its_texts_cut(at in 0..VERDICTS.len(), why: String, messages: Vec<String>) {
            let answer = Answer { verdict: VERDICTS[at].0, why, messages };
            let arrived = Answer::decode(&answer.encode()).unwrap();
            prop_assert_eq!(arrived.verdict, answer.verdict);
            prop_assert!(answer.why.starts_with(&arrived.why));
            prop_assert_eq!(arrived.messages.len(), answer.messages.len().min(MOST_MESSAGES));
        }

        #[test]
        fn no_octets_are_a_fault_of_the_parser(message: Vec<u8>) {
            let _ = (Question::decode(&message), Answer::decode(&message));
        }
    }

    #[test]
    fn what_is_too_long_or_incomplete_is_no_message() {
        let question =
            |length| Question { user: "ana".to_owned(), password: vec![b'x'; length], address: String::new() };
        let message = question(MOST - 9).encode().unwrap();
        assert_eq!(message.len(), MOST);
        assert_eq!(question(MOST - 8).encode(), None);
        assert_eq!(question(70_000).encode(), None);
        assert_eq!(Question::decode(&message[..MOST - 1]), None);
        assert_eq!(Question::decode(&[&message[..], &[0, 0]].concat()), None);
        assert_eq!(Answer::decode(b""), None);
        assert_eq!(Answer::decode(b"\0\x07perhaps\0\0"), None);
    }

    #[test]
    fn a_password_is_not_shown() {
        let question = Question { user: "ana".to_owned(), password: b"secret".to_vec(), address: String::new() };
        assert!(!format!("{question:?}").contains("secret"));
    }
}
