//! Brings the messages that a session has removed back into the mbox.
//!
//! A message is appended to the mbox as it was. If the server is killed meanwhile, a part of it may be at the end of the mbox,
//! without the rest; the whole message is still kept. So the size that the mbox had is noted first, and the next attempt cuts
//! off what is behind it, if that is the beginning of this message.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use super::journal::note;
use super::kept::Kept;
use super::list::{Listing, check_of};
use super::parse::Parsed;
use super::{Mbox, Section, is_missing};
use crate::maildrop::directory::Directory;
use crate::maildrop::index::Index;
use crate::maildrop::location::Location;
use crate::maildrop::message::{Folder, Message};
use crate::maildrop::names::Name;
use crate::maildrop::trash::{Batch, Trash};

/// The file that has the size of the mbox from before a message was appended.
const MARK: &[u8] = b".before";

/// How many messages of a session are kept, and their octets.
pub(in crate::maildrop) fn sums(bin: &Directory) -> io::Result<(u64, u64)> {
    Kept::open(bin).map(|kept| kept.sums())
}

/// Removes the messages of a session for good. Returns how many there were.
pub(in crate::maildrop) fn purge(bin: &Directory) -> io::Result<u64> {
    let kept = Kept::open(bin)?;
    let (count, _) = kept.sums();
    kept.remove()?;
    match bin.unlink(MARK) {
        Err(error) if !is_missing(&error) => Err(error),
        _ => Ok(count),
    }
}

/// Brings the messages of a session back, with the unique-ids that they had. Returns how many there were, and how many
/// could not be brought back.
pub(in crate::maildrop) fn restore(location: &Location, trash: &Trash, batch: &Batch) -> io::Result<(u64, u64)> {
    let (root, own) = (location.root(), location.own_files(Folder::Mbox));
    let mbox = Mbox::new(location.clone());
    mbox.recover()?;
    let directory = root.directory(&own.directory())?;
    let (file, _lock) = mbox.open_for_writing(&directory)?;
    let bin = trash.bin(batch)?;
    let kept = Kept::open(bin.directory())?;
    undo_half(bin.directory(), &kept, &file)?;
    let index = Index::load(root, &own).unwrap_or_default();
    let listing = Listing::read(&file, index.entries.into(), index.mbox)?;
    let mut known = listing.messages.into_owned();
    // If the server was killed before the messages were removed, they are still there.
    let there: HashSet<Vec<u8>> = known.iter().map(|message| message.path.name.to_vec()).collect();
    let mut failed = 0;
    for message in kept.messages.iter().filter(|message| !there.contains(&*message.name)) {
        let mut text = separator(&file, file.metadata()?.len())?;
        match kept.append_to(&mut text, message) {
            Ok(parsed) => known.push(append(bin.directory(), &message.name, &parsed, &text, &file)?),
            Err(error) => {
                failed += 1;
                let (user, name) = (location.user(), message.name.escape_ascii());
                log::error!("{user}: message {name} cannot be brought back: {error}");
            }
        }
    }
    // The index is how messages keep their unique-ids, so it is written before the kept messages go.
    let listing = Listing::read(&file, known.into(), None)?;
    Index::save_mbox(root, &own, listing.state, listing.messages.iter());
    note();
    let (count, _) = kept.sums();
    if failed == 0 {
        purge(bin.directory())?;
        trash.remove_if_empty(batch);
    }
    Ok((count - failed, failed))
}

/// Appends a message, with what has to be in front of it. Returns it with its unique-id and with its place in the mbox.
fn append(bin: &Directory, name: &Name, parsed: &Parsed, text: &[u8], mbox: &File) -> io::Result<Message> {
    let before = mbox.metadata()?.len();
    let _ = bin.unlink(MARK);
    let mut mark = bin.create(MARK)?;
    note();
    mark.write_all(format!("{before} ").as_bytes())?;
    mark.write_all(name)?;
    mark.sync_data()?;
    note();
    // A server that is killed may have written a part.
    #[cfg(test)]
    mbox.write_all_at(&text[..text.len() / 2], before)?;
    note();
    mbox.write_all_at(text, before)?;
    mbox.sync_data()?;
    note();
    let Parsed { from, start, end, octets, .. } = *parsed;
    let section = Section { from: before + from, start: before + start, length: end - start, check: check_of(parsed) };
    Ok(section.message(name.clone(), octets))
}

/// What has to be at the end of the mbox so that a message can begin.
fn separator(mbox: &File, size: u64) -> io::Result<Vec<u8>> {
    let mut end = vec![0; usize::try_from(size.min(4)).unwrap_or(0)];
    let at = size - end.len() as u64;
    mbox.read_exact_at(&mut end, at)?;
    Ok(match &end[..] {
        [] | [.., b'\n', b'\n'] | [.., b'\n', b'\r', b'\n'] => b"".to_vec(),
        [.., b'\n'] => b"\n".to_vec(),
        _ => b"\n\n".to_vec(),
    })
}

/// Cuts off the beginning of a message that could not be appended completely.
fn undo_half(bin: &Directory, kept: &Kept<'_>, mbox: &File) -> io::Result<()> {
    let mut text = String::new();
    match bin.file(MARK) {
        Ok((mut mark, _)) => drop(mark.read_to_string(&mut text)),
        Err(error) if is_missing(&error) => return Ok(()),
        Err(error) => return Err(error),
    }
    let Some((before, name)) = text.split_once(' ') else { return Ok(()) };
    let Ok(before) = before.parse::<u64>() else { return Ok(()) };
    let size = mbox.metadata()?.len();
    let Some(message) = kept.find(name.as_bytes()) else { return Ok(()) };
    if size <= before {
        return Ok(());
    }
    let mut whole = separator(mbox, before)?;
    if kept.append_to(&mut whole, message).is_err() {
        return Ok(());
    }
    let mut there = vec![0; usize::try_from(size - before).unwrap_or(0)];
    if there.len() < whole.len() {
        mbox.read_exact_at(&mut there, before)?;
        if whole.starts_with(&there) {
            mbox.set_len(before)?;
        }
    }
    Ok(())
}
