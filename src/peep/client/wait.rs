//! `wait WHAT CONDITION [--timeout TIME]`: ends when a value of the server fulfils a condition, or of each of several
//! servers. It asks on one open connection to each, twenty times a second.

use std::cmp::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::Failure;
use super::connection::Connection;
use super::phrases::{self, Request};
use crate::peep::{Answer, Command, Form, NameValue};
use crate::printable::printable;
use crate::span::span_or_zero;

/// The time between two questions.
const POLL: Duration = Duration::from_millis(50);

/// The most lines of an answer with names and values.
const MOST_NAMES: u64 = 10_000;

const USAGE: &str = "the command is: wait <what> <condition> [--timeout <time>], where <what> is sessions, \
                     user <username> <name>, stats <name> or a command that shows a value or a list, and <condition> is \
                     one of == != < <= > >= and a value, as '>=3'";

/// Names of `user` that the answer has only at times: while the maildrop cannot be opened `problem` is there instead of
/// the first two, and `transform` depends on the configuration. All other names are always there.
const AT_TIMES: [&str; 4] = ["messages", "octets", "problem", "transform"];

/// What a value that there is not is compared as.
const NONE: &str = "-";

/// Waits until the condition in `words` holds on each server. Connects only if the words are valid.
pub(super) fn run(words: &[&str], connect: impl FnOnce() -> Result<Vec<Connection>, Failure>) -> Result<(), Failure> {
    let (wait, timeout) = parse(words).map_err(Failure::Usage)?;
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut servers = connect()?;
    let is_one = servers.len() == 1;
    loop {
        let mut missing = None;
        for server in &mut servers {
            let value = wait.question.value(&wait.what, server)?;
            if !wait.condition.is_fulfilled(&value) {
                let name = if is_one { String::new() } else { format!("{}: ", server.name()) };
                missing = Some(format!("{name}{} is {value:?}, not {}", wait.what, wait.condition_text));
                break;
            }
        }
        let Some(missing) = missing else { return Ok(()) };
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(Failure::NotInTime(missing));
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
    let timeout = time.map(span_or_zero).transpose()?;
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
    /// Asks for the value. An error that the server answers, and a name that it does not know, are mistakes in `what`: they
    /// would not go away by waiting.
    fn value(&self, what: &str, server: &mut Connection) -> Result<String, Failure> {
        let (command, name) = match self {
            Self::Whole(command) => (command, None),
            Self::Named(command, name) => (command, Some(name)),
        };
        match (server.ask(command, MOST_NAMES)?, name) {
            ((Answer::Error(code), _), _) => Err(Failure::Usage(format!("{what}: {code}"))),
            ((Answer::Value(value), _), _) => Ok(value),
            ((Answer::Done, _), _) => Ok(String::new()),
            ((Answer::Lines(count), _), None) => Ok(count.to_string()),
            ((Answer::Lines(_), lines), Some(name)) => {
                let pairs: Vec<_> = lines.iter().filter_map(|line| line.parse::<NameValue>().ok()).collect();
                match pairs.iter().find(|pair| pair.name == *name) {
                    Some(pair) => Ok(pair.value.clone().unwrap_or_else(|| NONE.to_owned())),
                    None if matches!(command, Command::AboutUser { .. }) && AT_TIMES.contains(&name.as_str()) => {
                        Ok(NONE.to_owned())
                    }
                    None => {
                        let names: Vec<_> = pairs.iter().map(|pair| printable(&pair.name)).collect();
                        Err(Failure::Usage(format!("{what}: there is no {name:?}, but {}", names.join(", "))))
                    }
                }
            }
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
            ("==-", &["-"], &["17"]),
            ("!=-", &["17"], &["-"]),
            ("!=17", &["-", "18"], &["17"]),
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
        assert_eq!(parse(&["sessions", "==0", "--timeout", "0s"]).unwrap().1, Some(Duration::ZERO));
    }

    #[test]
    fn what_cannot_be_waited_for_is_refused() {
        for line in ["", "sessions", "sessions 0", "kick 1 ==0", "follow ==0", "x ==1", "sessions ==0 --timeout soon"] {
            assert!(parse(&phrases::words(line)).is_err(), "{line}");
        }
    }
}
