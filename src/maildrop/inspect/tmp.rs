//! Files that a delivery has left in a Maildir's `tmp/`. A program that delivers mail writes a message there and moves it to
//! `new/`; if it ends in between, the file stays. By the rules of Maildir, a file that was not used for 36 hours may be
//! deleted. What counts here is the last write, because a backup or a search changes the time of the last access.

use std::borrow::Cow;

use super::{Fault, Findings};
use crate::maildrop::identity::nanoseconds_since_1970;
use crate::maildrop::location::Location;

/// The age in seconds from which a file is left over.
const OLD: i64 = 36 * 3600;

pub(super) fn examine(location: &Location, findings: &mut Findings) {
    let Ok(directory) = location.root().directory(&[location.path(), b"/tmp"].concat()) else { return };
    let now = nanoseconds_since_1970() / 1_000_000_000;
    for (name, _) in directory.messages(|_| Ok(())).unwrap_or_default() {
        if directory.stat(&name).is_ok_and(|stat| stat.st_mtime.saturating_add(OLD) < now) {
            findings.add(Fault::LeftOver, Cow::Owned([b"tmp/", &name[..]].concat()));
        }
    }
}
