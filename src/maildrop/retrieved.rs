//! Which messages of a maildrop clients have retrieved as a whole: in this session, and in earlier ones as far as that was
//! written down.

use std::collections::HashSet;

use super::ages;
use super::{Maildrop, MessageNumber};

impl Maildrop {
    /// Notes that the client has retrieved all of a message.
    pub fn note_retrieved(&mut self, number: MessageNumber) {
        self.retrieved.insert(number.index());
    }

    /// Returns how many messages that are not marked as deleted no session has ever retrieved as a whole. `None` if that is not
    /// known: what earlier sessions have retrieved is written down only with `--state` or `--expire-read`.
    #[must_use]
    pub fn never_retrieved(&self) -> Option<u64> {
        let mut left = self.messages().filter(|&(number, _)| !self.retrieved.contains(number - 1)).peekable();
        if left.peek().is_none() {
            return Some(0);
        }
        let folder = self.folder().filter(|_| self.writes_read())?;
        let ids = left.map(|(number, message)| self.id_of(number - 1, message));
        let text = ages::read(&self.location, folder);
        let count = ages::count_never_retrieved(&text, ids);
        *self.ages_at_quit.borrow_mut() = Some(text);
        Some(count as u64)
    }

    /// Returns true if it is to be written down when messages were first retrieved.
    fn writes_read(&self) -> bool {
        self.location.root().layouts().notes_retrieved() || self.location.expiry().read.is_some()
    }

    /// Writes down that messages were retrieved.
    pub(super) fn write_read(&self, retrieved: &[usize]) {
        let Some(folder) = self.folder().filter(|_| self.writes_read() && !retrieved.is_empty()) else { return };
        let id = |index: usize| self.id_of(index, &self.messages[index]);
        let there = || (0..self.messages.len()).map(|index| id(index).into_owned()).collect::<HashSet<_>>();
        let text = self.ages_at_quit.take();
        ages::note_read(
            &self.location,
            folder,
            text,
            retrieved.iter().map(|&index| id(index)),
            self.messages.len(),
            there,
        );
    }
}
