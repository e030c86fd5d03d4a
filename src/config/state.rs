//! Flags for the state directory and the statistics log.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The interval of the statistics log in seconds: the default, and the values that can be set.
const DEFAULT_INTERVAL: u64 = 60;
const INTERVAL_RANGE: (u64, u64) = (1, 86_400);

/// The flags for files with counters and other state.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "State")]
pub(super) struct StateArgs {
    /// Keep the counters, who fetched what, the key of SCRAM's salts and a self-signed certificate in this directory, so that
    /// they survive a restart; it is created if it is missing
    #[arg(long, value_name = "DIR", group = super::NEEDS_RESTART)]
    pub(super) state: Option<PathBuf>,

    /// Append a line of counters to this CSV file every SECONDS [default: 60]
    #[arg(long, value_name = "FILE[:SECONDS]")]
    pub(super) stats_log: Option<StatsLogArg>,
}

/// The value of `--stats-log`: a file and the interval between two lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StatsLogArg {
    pub(super) path: PathBuf,
    pub(super) interval: Duration,
}

impl FromStr for StatsLogArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, seconds) = text.rsplit_once(':').unzip();
        let path = path.unwrap_or(text);
        if path.is_empty() {
            return Err("the file name is missing".to_owned());
        }
        let (low, high) = INTERVAL_RANGE;
        let seconds = seconds.map_or(Ok(DEFAULT_INTERVAL), str::parse);
        let seconds = seconds.ok().filter(|seconds| (low..=high).contains(seconds));
        let seconds = seconds.ok_or_else(|| format!("behind the last ':' there have to be {low} to {high} seconds"))?;
        Ok(Self { path: path.into(), interval: Duration::from_secs(seconds) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_behind_the_last_colon() {
        let parse = |text: &str| text.parse::<StatsLogArg>().map(|log| (log.path, log.interval.as_secs()));
        assert_eq!(parse("stats.csv"), Ok(("stats.csv".into(), 60)));
        assert_eq!(parse("stats.csv:5"), Ok(("stats.csv".into(), 5)));
        assert_eq!(parse("a:b.csv:60"), Ok(("a:b.csv".into(), 60)));
        assert_eq!(parse("a:1:2"), Ok(("a:1".into(), 2)));
        let too_large = "stats.csv:99999999999999999999";
        for bad in ["", ":5", "stats.csv:", "stats.csv:0", "stats.csv:86401", too_large, "stats.csv:x", "a:b.csv"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
