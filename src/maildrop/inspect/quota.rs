//! Compares the quota file of a Maildir, `maildirsize`, with the messages that it counts. Its first line is the quota, and
//! each further line has octets and messages that were added or, with a minus, removed.
//!
//! Programs disagree on messages with the flag `T` and on the folder `.Trash`: some count them and some do not. Either is
//! right here.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::Read;

use super::{Fault, Findings};
use crate::maildrop::directory::Directory;
use crate::maildrop::location::Location;
use crate::maildrop::name;

const FILE: &[u8] = b"maildirsize";

/// The largest quota file that is read. Programs begin a new one at 5,120 octets.
const MOST_OCTETS: u64 = 1 << 20;

/// Octets and messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    octets: i64,
    messages: i64,
}

impl Sum {
    fn add(&mut self, octets: i64, messages: i64) {
        self.octets = self.octets.saturating_add(octets);
        self.messages = self.messages.saturating_add(messages);
    }

    fn plus(mut self, other: Self) -> Self {
        self.add(other.octets, other.messages);
        self
    }
}

/// What a Maildir has with all its folders.
#[derive(Debug, Default)]
struct Use {
    /// The messages that every program counts.
    counted: Sum,
    /// Those with the flag `T` in other folders than `.Trash`.
    flagged: Sum,
    /// Those in `.Trash`.
    trash: Sum,
}

pub(super) fn examine(location: &Location, findings: &mut Findings) {
    let Ok((file, _)) = location.root().file(&[location.path(), b"/", FILE].concat()) else { return };
    let mut text = Vec::new();
    if file.take(MOST_OCTETS).read_to_end(&mut text).is_err() {
        return;
    }
    let Some(noted) = noted(&text) else {
        findings.add(Fault::Quota, Cow::Borrowed(FILE));
        return findings.explain(Fault::Quota, "it is not a quota file".to_owned());
    };
    let Use { counted, flagged, trash } = used(location);
    let possible = [counted, counted.plus(flagged), counted.plus(trash), counted.plus(flagged).plus(trash)];
    if !possible.contains(&noted) {
        findings.add(Fault::Quota, Cow::Borrowed(FILE));
        let Sum { octets, messages } = possible[3];
        let text = format!(
            "it counts {} messages with {} octets, and there are {messages} with {octets}; without the file, the next \
             delivery counts again",
            noted.messages, noted.octets
        );
        findings.explain(Fault::Quota, text);
    }
}

/// The sum of a quota file. `None` if that is not one.
fn noted(text: &[u8]) -> Option<Sum> {
    let mut sum = Sum::default();
    for line in std::str::from_utf8(text).ok()?.lines().skip(1) {
        let mut numbers = line.split_ascii_whitespace();
        sum.add(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    }
    Some(sum)
}

fn used(location: &Location) -> Use {
    let root = location.root();
    let mut used = Use::default();
    let folders = RefCell::new(vec![Vec::new()]);
    if let Ok(top) = root.directory(location.path()) {
        // Only the names of the sub-directories are of interest.
        let _ = top.messages(|name| {
            if name.starts_with(b".") {
                folders.borrow_mut().push(name.to_vec());
            }
            Ok(())
        });
    }
    for folder in folders.into_inner() {
        let is_trash = folder == b".Trash";
        for part in [&b"/new"[..], b"/cur"] {
            let separator: &[u8] = if folder.is_empty() { b"" } else { b"/" };
            if let Ok(directory) = root.directory(&[location.path(), separator, &folder, part].concat()) {
                add(&directory, is_trash, &mut used);
            }
        }
    }
    used
}

fn add(directory: &Directory, is_trash: bool, used: &mut Use) {
    for (name, _) in directory.messages(|_| Ok(())).unwrap_or_default() {
        let told = name::told_size(&name);
        let octets = told.or_else(|| directory.identity(&name).ok().map(|identity| identity.size));
        let Some(octets) = octets.and_then(|octets| i64::try_from(octets).ok()) else { continue };
        let is_flagged = name::is_trashed(&name);
        let sum = match (is_trash, is_flagged) {
            (true, _) => &mut used.trash,
            (false, true) => &mut used.flagged,
            (false, false) => &mut used.counted,
        };
        sum.add(octets, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_a_quota_file_are_added_up() {
        // As Courier writes them.
        let text = b"10000000S,1000C\n      30374            2\n      -29962           -1\n";
        assert_eq!(noted(text), Some(Sum { octets: 412, messages: 1 }));
        assert_eq!(noted(b"10S\n"), Some(Sum::default()));
        for wrong in [&b"1S\nx 1\n"[..], b"1S\n7\n", b"1S\n\xff 1\n", b"1S\n\n"] {
            assert_eq!(noted(wrong), None);
        }
    }
}
