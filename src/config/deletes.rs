//! The flag for what a deletion does.

use std::str::FromStr;

use crate::maildrop::Deletes;

/// The most days that deleted messages are kept.
const MOST_DAYS: u32 = 3660;

/// The flags for deletions.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Deletions")]
pub(super) struct DeleteArgs {
    /// What QUIT does with messages that a client has deleted: remove, trash=DAYS (keep them for 1 to 3660 days, so that
    /// peepclient can bring them back), hide (they stay for other programs, and POP3 does not show them), or refuse
    /// (DELE is answered by -ERR)
    #[arg(long, value_name = "WHAT", default_value = "remove")]
    deletes: DeletesArg,
}

impl DeleteArgs {
    pub(super) fn rule(&self) -> Deletes {
        self.deletes.0
    }
}

/// The value of `--deletes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DeletesArg(Deletes);

impl FromStr for DeletesArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(match text.split_once('=') {
            None if text == "remove" => Deletes::Remove,
            None if text == "hide" => Deletes::Hide,
            None if text == "refuse" => Deletes::Refuse,
            Some(("trash", days)) => {
                let days = days.parse().ok().filter(|days| (1..=MOST_DAYS).contains(days));
                Deletes::Trash(days.ok_or_else(|| format!("trash=DAYS needs 1 to {MOST_DAYS} days"))?)
            }
            _ => return Err("it has to be remove, trash=DAYS, hide or refuse".to_owned()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_removes_keeps_hides_or_is_refused() {
        let parse = |text: &str| text.parse::<DeletesArg>().map(|DeletesArg(deletes)| deletes);
        for (text, deletes) in [
            ("remove", Deletes::Remove),
            ("hide", Deletes::Hide),
            ("refuse", Deletes::Refuse),
            ("trash=1", Deletes::Trash(1)),
            ("trash=3660", Deletes::Trash(3660)),
        ] {
            assert_eq!(parse(text), Ok(deletes), "{text}");
        }
        for bad in ["", "trash", "trash=", "trash=0", "trash=3661", "trash=-1", "remove=1", "Hide"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
