//! The metrics as names and values, for PEEP's `s?`. They are made of the text of [`super::text`], so that a metric is
//! declared once.

use std::time::{Duration, SystemTime};

use crate::shared::Shared;

/// All counters and gauges at this moment, with their names in the metrics but without prefix, unit and labels. A metric
/// with labels has the sum of its values. Times are in whole seconds. Histograms are not among them.
#[must_use]
pub fn names_and_values(shared: &Shared) -> Vec<(String, i128)> {
    plain(&super::text(shared))
}

fn plain(open_metrics: &str) -> Vec<(String, i128)> {
    let mut found = Vec::new();
    // The name of the present metric, with its unit and without, and its value if it is a counter or a gauge.
    let (mut full, mut short, mut is_wanted) = ("", "", false);
    for line in open_metrics.lines() {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["#", "TYPE", name, kind] => {
                (full, short) = (name, name.strip_prefix("pop3d_").unwrap_or(name));
                is_wanted = matches!(kind, "counter" | "gauge");
            }
            ["#", "UNIT", _, unit] => {
                short = short.strip_suffix(unit).and_then(|name| name.strip_suffix('_')).unwrap_or(short);
            }
            ["#", ..] => {}
            _ if is_wanted && line.starts_with(full) => {
                // The value is behind the last space, because a label's value may have spaces.
                let value = line.rsplit(' ').next().and_then(whole).unwrap_or_default();
                match found.last_mut() {
                    Some((name, sum)) if name == short => *sum += value,
                    _ => found.push((short.to_owned(), value)),
                }
            }
            _ => {}
        }
    }
    found
}

/// A number without its fraction.
#[allow(clippy::cast_possible_truncation)]
fn whole(number: &str) -> Option<i128> {
    number.parse().ok().or_else(|| number.parse::<f64>().ok().map(|number| number as i128))
}

/// The time of a metric that has it in seconds since 1970.
#[must_use]
pub fn timestamp(seconds: i128) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_gauges_have_short_names_and_sums() {
        let text = "# HELP pop3d_a A thing.\n# TYPE pop3d_a counter\n\
                    pop3d_a_total{result=\"no way\"} 2\npop3d_a_total{result=\"ok\"} 18446744073709551615\n\
                    # HELP pop3d_b_seconds B.\n# TYPE pop3d_b_seconds gauge\n# UNIT pop3d_b_seconds seconds\n\
                    pop3d_b_seconds 7.96\n# TYPE pop3d_h histogram\npop3d_h_sum 5.0\npop3d_h_count 1\n\
                    pop3d_h_bucket{le=\"1.0\"} 1\n# TYPE pop3d_i info\npop3d_i_info{version=\"1\"} 1\n\
                    # TYPE pop3d_c gauge\npop3d_c -2\n# EOF\n";
        let expected = [("a", 18_446_744_073_709_551_617), ("b", 7), ("c", -2)];
        assert_eq!(plain(text), expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn a_timestamp_is_a_time_if_there_is_such_a_time() {
        assert_eq!(timestamp(7), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(7)));
        assert_eq!((timestamp(-1), timestamp(i128::MAX)), (None, None));
    }
}
