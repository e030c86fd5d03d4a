//! Messages that POP3 clients have deleted and do not see any more, while other programs still have them (`--deletes hide`).

use std::collections::{BTreeMap, HashSet};
use std::io;

use super::ages::{self, Ages};
use super::format;
use super::location::Location;
use super::message::Message;
use super::trash::{Batch, Deletes, Kept};
use super::{Update, lock_file, root};

/// Hides the messages that a session has marked.
pub(super) fn hide(location: &Location, messages: &[Message], marked: &[usize], session: Batch) -> Update {
    let Some(first) = messages.first() else { return Update::default() };
    let count = marked.len() as u64;
    let ids = marked.iter().map(|&index| messages[index].unique_id());
    match ages::note_hidden(location, first.path.folder, ids, session) {
        Ok(()) => Update { removed: count, failed: 0 },
        Err(error) => {
            log::error!("cannot hide messages of {}: {error}", root::display(location.path()));
            Update { removed: 0, failed: count }
        }
    }
}

/// Returns true if messages may be hidden.
pub(super) fn hides(location: &Location) -> bool {
    location.root().layouts().deletes() == Deletes::Hide
}

/// Leaves hidden messages out. Returns the sessions that have hidden them.
pub(super) fn leave_out(location: &Location, messages: &mut Vec<Message>) -> Vec<Kept> {
    let Some(folder) = messages.first().map(|message| message.path.folder).filter(|_| hides(location)) else {
        return Vec::new();
    };
    let mut known = Ages::load(location, folder);
    let there: HashSet<Vec<u8>> = messages.iter().map(|message| message.unique_id().into_owned()).collect();
    if !location.root().layouts().is_read_only() {
        known.forget_hidden(location, folder, &there);
    }
    let mut hidden = BTreeMap::new();
    messages.retain(|message| {
        let Some(time) = known.of(&message.unique_id()).hidden else { return true };
        let kept = hidden.entry(time).or_insert_with(|| Kept::none_of(known.session(time)));
        kept.messages += 1;
        kept.octets += message.content.octets;
        false
    });
    hidden.into_values().collect()
}

/// The messages that sessions have hidden and that are still there.
pub(super) fn kept(location: &Location) -> io::Result<Vec<Kept>> {
    if hides(location) { Ok(format::of(location, |_| {})?.list()?.hidden) } else { Ok(Vec::new()) }
}

/// Shows the messages again that sessions have hidden which are `meant`.
pub(super) fn show(location: &Location, meant: impl Fn(&Batch) -> bool) -> io::Result<()> {
    let Some(folder) = lock_file::folder(location)? else { return Ok(()) };
    Ages::load(location, folder).show(location, folder, meant)
}
