//! Flags for maildrops that several clients want at once.

use std::str::FromStr;
use std::time::Duration;

use crate::maildrop::{Busy, WhenBusy};
use crate::span::span;

/// The longest that a login may wait for its maildrop. It must get its answer before the time for a login is over.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The longest time after which an idle session can be taken over: the longest that the autologout timer can be.
const LONGEST_IDLE: Duration = Duration::from_secs(86_400);

/// The flags for logins to a maildrop that has a session.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Several clients of one user")]
pub(super) struct BusyArgs {
    /// What a login does if the maildrop has a session: wait=SPAN (up to 30s, then it is refused), refuse, or take-over=SPAN
    /// (end a session whose client has sent nothing for that long, up to 24h; its marks are dropped)
    #[arg(long, value_name = "WHAT", default_value = "wait=2s")]
    busy: BusyArg,

    /// Let several clients of a user into the maildrop at once, in spite of RFC 1939; each sees it as it was at its login
    #[arg(long)]
    shared_maildrops: bool,
}

impl BusyArgs {
    pub(super) fn rules(&self) -> Busy {
        Busy { when: self.busy.0, shared: self.shared_maildrops }
    }
}

/// The value of `--busy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BusyArg(WhenBusy);

impl FromStr for BusyArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (what, time) = text.split_once('=').map_or((text, None), |(what, time)| (what, Some(time)));
        let up_to = |time: &str, most: Duration| match time {
            "0" | "0s" => Ok(Duration::ZERO),
            _ => span(time)
                .and_then(|span| if span <= most { Ok(span) } else { Err(format!("{time} is more than {most:?}")) }),
        };
        Ok(Self(match (what, time) {
            ("wait", Some(time)) => WhenBusy::Wait(up_to(time, LONGEST_WAIT)?),
            ("refuse", None) => WhenBusy::Wait(Duration::ZERO),
            ("take-over", Some(time)) => WhenBusy::TakeOver(up_to(time, LONGEST_IDLE)?),
            _ => return Err("it has to be wait=SPAN, refuse or take-over=SPAN, as in take-over=60s".to_owned()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_maildrop_is_waited_for_refused_or_taken_over() {
        let parse = |text: &str| text.parse::<BusyArg>().map(|BusyArg(when)| when);
        let seconds = Duration::from_secs;
        for (text, when) in [
            ("wait=2s", WhenBusy::Wait(seconds(2))),
            ("wait=30", WhenBusy::Wait(seconds(30))),
            ("wait=500ms", WhenBusy::Wait(Duration::from_millis(500))),
            ("wait=0s", WhenBusy::Wait(seconds(0))),
            ("refuse", WhenBusy::Wait(seconds(0))),
            ("take-over=60s", WhenBusy::TakeOver(seconds(60))),
            ("take-over=0", WhenBusy::TakeOver(seconds(0))),
            ("take-over=24h", WhenBusy::TakeOver(seconds(86_400))),
        ] {
            assert_eq!(parse(text), Ok(when), "{text}");
        }
        for bad in
            ["", "wait", "wait=", "wait=31s", "refuse=1s", "take-over", "take-over=25h", "take-over=-1s", "kick=1s"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Busy::default(), Busy { when: parse("wait=2s").unwrap(), shared: false });
    }
}
