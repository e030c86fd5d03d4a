//! The columns of `top`'s table of sessions: text, width and order.

use std::cmp::Ordering;

use crate::peep::SessionLine;
use crate::printable::printable;

/// One column.
pub(super) struct Column {
    pub(super) heading: &'static str,
    /// The width on a narrow and on a wide terminal. The user's column gets the remaining width.
    pub(super) widths: (u16, u16),
    pub(super) is_number: bool,
    text: fn(&SessionLine) -> String,
    pub(super) order: fn(&SessionLine, &SessionLine) -> Ordering,
}

/// The heading of the column whose words are shorter on a narrow terminal.
const STATE: &str = "STATE";

impl Column {
    /// What the column shows of a session.
    pub(super) fn cell(&self, session: &SessionLine, is_wide: bool) -> String {
        match (self.text)(session) {
            text if is_wide || self.heading != STATE => text,
            text if text == "authorization" => "auth".to_owned(),
            text if text == "transaction" => "trans".to_owned(),
            text => text,
        }
    }
}

/// All columns, in the order of the protocol's fields.
pub(super) const COLUMNS: [Column; 11] = [
    Column {
        heading: "ID",
        widths: (6, 9),
        is_number: true,
        text: |it| it.id.to_string(),
        order: |a, b| a.id.cmp(&b.id),
    },
    Column {
        heading: "PROTO",
        widths: (5, 5),
        is_number: false,
        text: |it| safe(&it.protocol.to_string()),
        order: |a, b| a.protocol.to_string().cmp(&b.protocol.to_string()),
    },
    Column {
        heading: "ADDRESS",
        widths: (15, 39),
        is_number: false,
        text: |it| it.address.map_or_else(|| "-".to_owned(), |address| address.to_string()),
        order: |a, b| a.address.cmp(&b.address),
    },
    Column {
        heading: STATE,
        widths: (6, 13),
        is_number: false,
        text: |it| safe(&it.state.to_string()),
        order: |a, b| a.state.to_string().cmp(&b.state.to_string()),
    },
    Column {
        heading: "USER",
        widths: (0, 0),
        is_number: false,
        text: |it| it.user.as_deref().map_or_else(|| "-".to_owned(), safe),
        order: |a, b| a.user.cmp(&b.user),
    },
    Column {
        heading: "AGE",
        widths: (5, 8),
        is_number: true,
        text: |it| span(it.age),
        order: |a, b| a.age.cmp(&b.age),
    },
    Column {
        heading: "IDLE",
        widths: (5, 8),
        is_number: true,
        text: |it| span(it.idle),
        order: |a, b| a.idle.cmp(&b.idle),
    },
    Column {
        heading: "RETR",
        widths: (5, 9),
        is_number: true,
        text: |it| it.retrieved.to_string(),
        order: |a, b| a.retrieved.cmp(&b.retrieved),
    },
    Column {
        heading: "OCTETS",
        widths: (6, 8),
        is_number: true,
        text: |it| amount(it.octets),
        order: |a, b| a.octets.cmp(&b.octets),
    },
    Column {
        heading: "DELE",
        widths: (4, 8),
        is_number: true,
        text: |it| it.marked.to_string(),
        order: |a, b| a.marked.cmp(&b.marked),
    },
    Column {
        heading: "TLS",
        widths: (3, 7),
        is_number: false,
        text: |it| it.tls.as_deref().map_or_else(|| "-".to_owned(), |tls| safe(tls.trim_start_matches("TLSv"))),
        order: |a, b| a.tls.cmp(&b.tls),
    },
];

fn safe(text: &str) -> String {
    printable(text).into_owned()
}

/// Seconds in at most four characters, up to 999 days.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..600 => format!("{seconds}s"),
        600..36_000 => format!("{}m", seconds / 60),
        36_000..864_000 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// An amount in at most five characters, with a prefix of 1000.
pub(in crate::peep::client) fn amount(count: u64) -> String {
    const PREFIXES: [char; 6] = ['k', 'M', 'G', 'T', 'P', 'E'];
    if count < 10_000 {
        return count.to_string();
    }
    let (mut whole, mut tenths, mut prefix) = (count, 0, 0);
    while whole >= 1000 {
        tenths = whole % 1000 / 100;
        whole /= 1000;
        prefix += 1;
    }
    let unit = PREFIXES[prefix - 1];
    if whole < 100 { format!("{whole}.{tenths}{unit}") } else { format!("{whole}{unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_and_spans_are_short() {
        for (count, text) in
            [(0, "0"), (9999, "9999"), (10_000, "10.0k"), (123_456, "123k"), (1_250_000, "1.2M"), (u64::MAX, "18.4E")]
        {
            assert_eq!(amount(count), text);
        }
        for (seconds, text) in [(0, "0s"), (599, "599s"), (600, "10m"), (36_000, "10h"), (864_000, "10d")] {
            assert_eq!(span(seconds), text);
        }
    }
}
