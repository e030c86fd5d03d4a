//! `report` as a table that fits a terminal: short headings, times to the minute, and amounts with a prefix. All that
//! is known is in the other forms.

use serde_json::Value;

use super::listing;
use super::table::Fit;
use super::top::columns::amount;

/// The headings of [`crate::peep::ReportLine`]'s fields.
pub(super) const HEADINGS: &[&str] =
    &["user", "last login", "address", "complete fetch", "unfetched", "today", "30 days", "client"];

const LOGIN: usize = 1;
const ADDRESS: usize = 2;
const FETCH: usize = 3;
const TODAY: usize = 5;
const DAYS: usize = 6;
const CLIENT: usize = 7;

/// What a terminal with so many columns is too narrow for, if `before` columns precede those of the report.
pub(super) fn fit(room: usize, before: usize) -> Fit {
    Fit { room, cut: before + CLIENT, dispensable: [ADDRESS, TODAY, DAYS].map(|column| before + column).to_vec() }
}

/// A field as a cell.
pub(super) fn cell(column: usize, value: &Value) -> String {
    let whole = listing::cell(value);
    match (column, value.as_u64()) {
        (TODAY | DAYS, Some(octets)) => amount(octets),
        (LOGIN | FETCH, _) => minute(&whole).unwrap_or(whole),
        _ => whole,
    }
}

/// `2026-11-28T02:00:01Z` as `2026-11-28 02:00`.
fn minute(time: &str) -> Option<String> {
    let (date, time) = time.strip_suffix('Z')?.split_once('T')?;
    let (minute, _seconds) = time.rsplit_once(':')?;
    Some(format!("{date} {minute}"))
}
