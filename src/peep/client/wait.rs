//! `wait WHAT CONDITION [--timeout TIME]`: ends when a value of the server fulfils a condition. It asks on one open
//! connection, twenty times a second.

use std::cmp::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::Failure;
use super::connection::Connection;
use super::phrases::{self, Request};
use crate::peep::{Answer, Command, Form, NameValue};
use crate::span::span;

/// The time between two questions.
const POLL: Duration = Duration::from_millis(50);

/// The most lines of an answer with names and values.
const MOST_NAMES: u64 = 10_000;

const USAGE: &str = "the command is: wait <what> <condition> [--timeout <time>], where <what> is sessions, \
                     user <username> <name>, stats <name> or a command that shows a value or a list, and <condition> is \
                     one of == != < <= > >= and a value, as '>=3'";

/// Waits until the condition in `words` holds. Connects only if the words are valid.
pub(super) fn run(words: &[&str], connect: impl FnOnce() -> Result<Connection, Failure>) -> Result<(), Failure> {
    let (wait, timeout) = parse(words).map_err(Failure::Usage)?;
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut server = connect()?;
    loop {
        let value = wait.question.value(&mut server)?;
        if value.as_deref().is_some_and(|value| wait.condition.is_fulfilled(value)) {
            return Ok(());
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            let value = value.unwrap_or_else(|| "unknown".to_owned());
            return Err(Failure::NotInTime(format!("{} is {value:?}, not {}", wait.what, wait.condition_text)));
        }
        thread::sleep(left.map_or(POLL, |left| left.min(POLL)));
    }
}

/// A value of the server, and the condition that it has to fulfil.
#[derive(Debug, PartialEq, Eq)]
struct Wait {
    what: String,
    question: Question,
    condition: Condition,
    condition_text: String,
}

/// Where the value comes from.
#[derive(Debug, PartialEq, Eq)]
enum Question {
    /// The value that a command answers, or the number of its lines.
    Whole(Command),
    /// The value with a name among the lines of an answer.
    Named(Command, String),
}

fn parse(words: &[&str]) -> Result<(Wait, Option<Duration>), String> {
    let (words, time) = match words {
        [words @ .., "--timeout" | "-timeout", time] => (words, Some(*time)),
        [words @ .., last] if last.starts_with('-') => (words, last.trim_start_matches('-').strip_prefix("timeout=")),
        words => (words, None),
    };
    let timeout = time.map(span).transpose()?;
    let [what @ .., condition] = words else { return Err(USAGE.to_owned()) };
    let condition_text = (*condition).to_owned();
    let condition = Condition::parse(condition).ok_or(USAGE)?;
    let wait = Wait { what: what.join(" "), question: question(what)?, condition, condition_text };
    Ok((wait, timeout))
}

fn question(what: &[&str]) -> Result<Question, String> {
    let command = |words: &[&str]| match phrases::parse(words)? {
        Request::Send(command) if command.is_for_viewers() && command.form() != Form::Events => Ok(command),
        _ => Err(USAGE.to_owned()),
    };
    Ok(match what {
        // The sessions of POP3 alone: the client's own connection is not waited for.
        ["sessions"] => Question::Whole(Command::CurrentConnections),
        ["user", user, name] => Question::Named(command(&["user", user])?, (*name).to_owned()),
        ["stats", name] => Question::Named(Command::Statistics, (*name).to_owned()),
        words => Question::Whole(command(words)?),
    })
}

impl Question {
    /// Asks for the value; `None` if the server has none of this name.
    fn value(&self, server: &mut Connection) -> Result<Option<String>, Failure> {
        let (command, name) = match self {
            Self::Whole(command) => (command, None),
            Self::Named(command, name) => (command, Some(name)),
        };
        match server.ask(command, MOST_NAMES)? {
            (Answer::Error(code), _) => Err(Failure::Answer(code)),
            (Answer::Value(value), _) => Ok(Some(value)),
            (Answer::Done, _) => Ok(Some(String::new())),
            (Answer::Lines(count), lines) => Ok(match name {
                None => Some(count.to_string()),
                Some(name) => {
                    let mut pairs = lines.iter().filter_map(|line| line.parse::<NameValue>().ok());
                    pairs.find(|pair| pair.name == *name).and_then(|pair| pair.value)
                }
            }),
        }
    }
}

/// A comparison with a value.
#[derive(Debug, PartialEq, Eq)]
struct Condition {
    accepted: &'static [Ordering],
    value: String,
}

impl Condition {
    fn parse(text: &str) -> Option<Self> {
        use Ordering::{Equal, Greater, Less};
        const OPERATORS: [(&str, &[Ordering]); 6] = [
            ("==", &[Equal]),
            ("!=", &[Less, Greater]),
            ("<=", &[Less, Equal]),
            (">=", &[Greater, Equal]),
            ("<", &[Less]),
            (">", &[Greater]),
        ];
        let found = |(operator, accepted): (&str, &'static [Ordering])| Some((text.strip_prefix(operator)?, accepted));
        let (value, accepted) = OPERATORS.into_iter().find_map(found)?;
        let value = value.trim().to_owned();
        let condition = Self { accepted, value };
        let is_good = condition.needs_no_order() || condition.value.parse::<i128>().is_ok();
        (is_good && !condition.value.is_empty()).then_some(condition)
    }

    /// Returns true for `==` and `!=`.
    fn needs_no_order(&self) -> bool {
        self.accepted.contains(&Ordering::Less) == self.accepted.contains(&Ordering::Greater)
    }

    /// Integers are compared as numbers. Any other text is equal or not.
    fn is_fulfilled(&self, value: &str) -> bool {
        let numbers = value.parse::<i128>().ok().zip(self.value.parse::<i128>().ok());
        match numbers {
            Some((value, given)) => self.accepted.contains(&value.cmp(&given)),
            None => self.accepted.contains(&Ordering::Equal) == (value == self.value) && self.needs_no_order(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_compared_as_numbers_or_as_text() {
        for (condition, fulfilled, not) in [
            ("==0", &["0", "00"][..], &["1", "x", ""][..]),
            ("!=0", &["1", "x"], &["0"]),
            (">=3", &["3", "10"], &["2", "x"]),
            (">3", &["4"], &["3"]),
            ("<=3", &["3", "-1"], &["10", "x"]),
            ("< 3", &["2"], &["3"]),
            ("==info", &["info"], &["debug"]),
            ("!=info", &["debug"], &["info"]),
        ] {
            let parsed = Condition::parse(condition).unwrap();
            assert!(fulfilled.iter().all(|value| parsed.is_fulfilled(value)), "{condition}");
            assert!(!not.iter().any(|value| parsed.is_fulfilled(value)), "{condition}");
        }
        for text in ["", "3", "=3", "==", ">x", "=>3", "<"] {
            assert_eq!(Condition::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_waited_for_is_a_value_a_count_or_a_name() {
        for (line, command, name) in [
            ("sessions ==0", Command::CurrentConnections, None),
            ("current logged users >=1", Command::CurrentUsers, None),
            ("draining ==1", Command::Draining, None),
            ("stats uptime >5", Command::Statistics, Some("uptime")),
        ] {
            let (wait, timeout) = parse(&phrases::words(line)).unwrap();
            let question = match name {
                Some(name) => Question::Named(command, name.to_owned()),
                None => Question::Whole(command),
            };
            assert_eq!((wait.question, timeout), (question, None), "{line}");
        }
        let (wait, timeout) = parse(&["user", "bob", "messages", ">=3", "--timeout", "30s"]).unwrap();
        assert!(matches!(wait.question, Question::Named(Command::AboutUser { .. }, name) if name == "messages"));
        assert_eq!(timeout, Some(Duration::from_secs(30)));
        assert_eq!(parse(&["sessions", "==0", "-timeout=1s"]).unwrap().1, Some(Duration::from_secs(1)));
    }

    #[test]
    fn what_cannot_be_waited_for_is_refused() {
        for line in ["", "sessions", "sessions 0", "kick 1 ==0", "follow ==0", "x ==1", "sessions ==0 --timeout soon"] {
            assert!(parse(&phrases::words(line)).is_err(), "{line}");
        }
    }
}
