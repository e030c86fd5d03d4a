//! The keys of all kinds of sources that ask another program or machine.

use std::time::Duration;

use crate::auth::AskRules;
use crate::span::span;

/// The most requests at once.
const MOST: i64 = 256;

/// The limits that the kinds have in common whose source is another program.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(in crate::config) struct Limits {
    /// How long an answer may take. After that the source is unavailable
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = span)]
    timeout: Duration,

    /// How many logins may ask the source at a time, 1 to 256. More have to wait
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=MOST))]
    at_once: u16,
}

/// The keys that the kinds have in common whose answers are remembered.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(in crate::config) struct Common {
    #[command(flatten)]
    limits: Limits,

    /// How long a right password is remembered, so that the source is not asked (off: it is always asked)
    #[arg(long, value_name = "SPAN", default_value = "30m", value_parser = span_or_off)]
    cache: Duration,

    /// How much longer a remembered password counts while the source is unavailable
    #[arg(long, value_name = "SPAN", default_value = "off", value_parser = span_or_off)]
    grace: Duration,
}

impl Common {
    pub(super) fn rules(&self) -> AskRules {
        AskRules { cache: self.cache, grace: self.grace, ..self.limits.rules() }
    }
}

impl Limits {
    /// Rules by which nothing is remembered.
    pub(super) fn rules(&self) -> AskRules {
        let (at_once, [cache, grace]) = (usize::from(self.at_once), [Duration::ZERO; 2]);
        AskRules { timeout: self.timeout, at_once, cache, grace }
    }
}

fn span_or_off(text: &str) -> Result<Duration, String> {
    if text == "off" { Ok(Duration::ZERO) } else { span(text).map_err(|error| format!("{error}, nor off")) }
}
