//! Messages that POP3 clients have deleted and never see again, while other programs still have them (`--deletes hide`).

use std::collections::HashSet;

use super::ages::{self, Ages};
use super::location::Location;
use super::message::Message;
use super::trash::Deletes;
use super::{Update, root};

/// Hides the marked messages.
pub(super) fn hide(location: &Location, messages: &[Message], marked: &[usize]) -> Update {
    let Some(first) = messages.first() else { return Update::default() };
    let count = marked.len() as u64;
    match ages::note_hidden(location, first.path.folder, marked.iter().map(|&index| messages[index].unique_id())) {
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

/// Leaves hidden messages out. Returns true if there were any.
pub(super) fn leave_out(location: &Location, messages: &mut Vec<Message>) -> bool {
    if !hides(location) {
        return false;
    }
    let Some(folder) = messages.first().map(|message| message.path.folder) else { return false };
    let mut known = Ages::load(location, folder);
    let there: HashSet<Vec<u8>> = messages.iter().map(|message| message.unique_id().into_owned()).collect();
    if !location.root().layouts().is_read_only() {
        known.forget_hidden(location, folder, &there);
    }
    let count = messages.len();
    messages.retain(|message| known.of(&message.unique_id()).hidden.is_none());
    messages.len() < count
}
