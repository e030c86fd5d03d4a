//! The first commands of a session, by which mail programs can be told apart.

use std::fmt;

/// The most keywords that are kept.
const MOST: usize = 12;

/// The keywords of commands. The first one stands for a line that is not a command.
const KEYWORDS: [&str; 16] = [
    "?", "APOP", "AUTH", "CAPA", "DELE", "LIST", "NOOP", "PASS", "QUIT", "RETR", "RSET", "STAT", "STLS", "TOP", "UIDL",
    "USER",
];

/// The keywords of a session's first commands. It has no arguments, so neither names nor passwords. A command that is sent
/// several times in a row is there once.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct FirstCommands {
    /// Their positions in [`KEYWORDS`].
    keywords: [u8; MOST],
    count: u8,
}

impl FirstCommands {
    /// Adds a command's keyword; `None` is a line that is not a command. Does nothing if there are enough of them.
    pub fn add(&mut self, keyword: Option<&str>) {
        let count = usize::from(self.count);
        let Some(next) = self.keywords.get_mut(count) else { return };
        *next = keyword.and_then(|keyword| KEYWORDS.iter().position(|it| *it == keyword)).unwrap_or(0) as u8;
        if count == 0 || self.keywords[count - 1] != self.keywords[count] {
            self.count += 1;
        }
    }
}

/// The keywords with a space between them.
impl fmt::Display for FirstCommands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for &keyword in &self.keywords[..usize::from(self.count)] {
            f.write_str(separator)?;
            f.write_str(KEYWORDS[usize::from(keyword)])?;
            separator = " ";
        }
        Ok(())
    }
}

impl fmt::Debug for FirstCommands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_its_keyword() {
        for line in [
            "APOP a b", "AUTH", "CAPA", "DELE 1", "LIST", "NOOP", "PASS x", "QUIT", "RETR 1", "RSET", "STAT", "STLS",
            "TOP 1 0", "UIDL", "USER a",
        ] {
            let mut first = FirstCommands::default();
            first.add(Some(crate::pop3::Command::parse(line.as_bytes()).unwrap().keyword()));
            assert_eq!(first.to_string(), line.split(' ').next().unwrap());
        }
    }

    #[test]
    fn the_first_keywords_are_kept_and_repetitions_are_not() {
        let mut first = FirstCommands::default();
        assert_eq!(first.to_string(), "");
        for keyword in ["CAPA", "USER", "PASS", "STAT", "UIDL", "RETR", "RETR", "RETR", "DELE", "RETR"] {
            first.add(Some(keyword));
        }
        first.add(None);
        first.add(None);
        assert_eq!(first.to_string(), "CAPA USER PASS STAT UIDL RETR DELE RETR ?");
        for _ in 0..1000 {
            first.add(Some("NOOP"));
            first.add(Some("QUIT"));
        }
        assert_eq!(first.to_string(), "CAPA USER PASS STAT UIDL RETR DELE RETR ? NOOP QUIT NOOP");
    }
}
