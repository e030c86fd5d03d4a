//! The last warnings and errors, for an admin who asks for them.

use std::collections::VecDeque;
use std::fmt::Write;

use log::{Level, Record};
use parking_lot::Mutex;
use time::OffsetDateTime;

use super::line::TIME;

/// How many are kept.
const CAPACITY: usize = 100;

/// The longest line that is kept, in octets. Longer ones are cut.
const LINE_LIMIT: usize = 1000;

/// The lines that are kept, oldest first. There is one log in a process, and so there is one list of its problems.
static PROBLEMS: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Returns the last 100 warnings and errors as they are in the log in text, oldest first. Each is one line.
#[must_use]
pub fn recent_problems() -> Vec<String> {
    PROBLEMS.lock().iter().cloned().collect()
}

/// Keeps the record if it is a warning or an error.
pub(super) fn keep(record: &Record<'_>) {
    if record.level() <= Level::Warn {
        add(&mut PROBLEMS.lock(), record);
    }
}

fn add(problems: &mut VecDeque<String>, record: &Record<'_>) {
    // The oldest line's memory is used again, so that a flood of warnings allocates nothing.
    let mut line = if problems.len() < CAPACITY { None } else { problems.pop_front() }.unwrap_or_default();
    line.clear();
    let time = OffsetDateTime::now_utc().format(TIME).unwrap_or_default();
    let _ = write!(line, "{time} [{}] {}", record.level(), record.args());
    line.truncate(line.floor_char_boundary(LINE_LIMIT));
    if line.contains(char::is_control) {
        line = line.replace(char::is_control, " ");
    }
    problems.push_back(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add_line(problems: &mut VecDeque<String>, message: &str) {
        add(problems, &Record::builder().level(Level::Warn).args(format_args!("{message}")).build());
    }

    #[test]
    fn the_last_hundred_are_kept() {
        let mut problems = VecDeque::new();
        for number in 1..=250 {
            add_line(&mut problems, &format!("problem {number}"));
        }
        assert_eq!(problems.len(), 100);
        assert!(problems[0].ends_with("Z [WARN] problem 151") && problems[99].ends_with("Z [WARN] problem 250"));
    }

    #[test]
    fn each_is_one_line_of_bounded_length() {
        let mut problems = VecDeque::new();
        add_line(&mut problems, "panicked at a.rs:1:\r\nno disk");
        add_line(&mut problems, &"é".repeat(2000));
        assert!(problems[0].ends_with("[WARN] panicked at a.rs:1:  no disk"), "{}", problems[0]);
        assert!((LINE_LIMIT - 1..=LINE_LIMIT).contains(&problems[1].len()));
    }
}
