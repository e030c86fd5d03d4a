//! Lists what sessions have removed or hidden and brings it back.

use std::io;

use super::files::restored;
use super::hidden;
use super::location::Location;
use super::message::Folder;
use super::trash::{Batch, Kept, Trash};
use super::{Lock, mbox};
use crate::maildrop::with_folders::FolderName;

/// The maildrop and those of its folders that are shown.
fn with_folders(location: &Location) -> Vec<Location> {
    let names = location.root().layouts().maildirs().folders.iter();
    let folder = |name: &FolderName| match name {
        FolderName::Inbox => None,
        FolderName::Folder(name) => Some(location.maildir_folder(name)),
    };
    std::iter::once(location.clone()).chain(names.filter_map(folder)).collect()
}

fn trashes(location: &Location) -> io::Result<Vec<Trash>> {
    let mut trashes = Vec::new();
    for location in with_folders(location) {
        trashes.extend(Trash::open(&location)?);
    }
    Ok(trashes)
}

/// The deletions of sessions that can be brought back, the oldest first.
///
/// # Errors
/// When the maildrop cannot be read.
pub fn deletions(location: &Location) -> io::Result<Vec<Kept>> {
    let mut all: Vec<Kept> = Vec::new();
    let mut add = |kept: Kept| match all.iter_mut().find(|other| other.batch == kept.batch) {
        Some(other) => {
            other.messages += kept.messages;
            other.octets += kept.octets;
        }
        None => all.push(kept),
    };
    hidden::kept(location)?.into_iter().for_each(&mut add);
    for trash in trashes(location)? {
        for batch in trash.batches()? {
            add(trash.look(batch)?);
        }
    }
    all.retain(|kept| kept.messages > 0);
    all.sort_by_key(|kept| (kept.batch.time, kept.batch.session));
    Ok(all)
}

/// Messages that were brought back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restored {
    /// How many.
    pub messages: u64,
    /// How many could not be.
    pub failed: u64,
}

impl Lock {
    /// Brings back the messages of the sessions that are `meant`.
    ///
    /// # Errors
    /// When the maildrop cannot be read. Some messages may be back then.
    pub fn undelete(&self, meant: impl Fn(&Batch) -> bool) -> io::Result<Restored> {
        let hidden = hidden::kept(self.location())?;
        let hidden = hidden.iter().filter(|kept| meant(&kept.batch)).map(|kept| kept.messages).sum();
        let mut sum = Restored { messages: hidden, failed: 0 };
        if hidden > 0 {
            with_folders(self.location()).iter().try_for_each(|location| hidden::show(location, &meant))?;
        }
        for trash in trashes(self.location())? {
            for batch in trash.batches()?.iter().filter(|batch| meant(batch)) {
                let before = (trash.folder() != Folder::Mbox).then(|| trash.look(batch.clone())).transpose()?;
                let (messages, failed) = match trash.folder() {
                    Folder::Mbox => mbox::restore(self.location(), &trash, batch)?,
                    _ => trash.put_back(batch)?,
                };
                sum.messages += messages;
                sum.failed += failed;
                if let Some(before) = before.filter(|_| failed == 0) {
                    restored(self.location(), before.octets, before.messages);
                }
            }
        }
        Ok(sum)
    }

    /// Removes for good what sessions removed before this time, in seconds since 1970. Returns how many messages that were.
    ///
    /// # Errors
    /// When the maildrop cannot be read.
    pub fn purge(&self, before: u64) -> io::Result<u64> {
        let mut removed = 0;
        for trash in trashes(self.location())? {
            for batch in trash.batches()?.iter().filter(|batch| batch.time < before) {
                removed += trash.purge(batch)?;
            }
        }
        Ok(removed)
    }
}
