//! Keeps the messages that are removed from an mbox, each in a file, and brings them back.
//!
//! A message is appended to the mbox as it was. If the server is killed meanwhile, a part of it may be at the end of the mbox,
//! without the rest; the whole message is still kept. So the size that the mbox had is noted first, and the next attempt cuts
//! off what is behind it, if that is the beginning of this message.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use super::list::Listing;
use super::{Mbox, Section};
use crate::maildrop::directory::Directory;
use crate::maildrop::index::Index;
use crate::maildrop::location::Location;
use crate::maildrop::message::{Folder, Message};
use crate::maildrop::trash::{Batch, Bin, Trash};

/// The file that has the size of the mbox from before a message was appended.
const MARK: &[u8] = b".before";

/// The longest piece that is copied at once.
const PIECE: u64 = 1 << 20;

/// Copies the messages that are due into files. They are on the disk before the mbox is changed.
pub(super) fn keep(bin: &Bin, mbox: &File, listing: &Listing<'_>, due: &[bool]) -> io::Result<()> {
    for (index, message) in listing.messages.iter().enumerate().filter(|&(index, _)| due[index]) {
        // One of that name may be left of a session that was killed.
        let _ = bin.directory().unlink(&message.path.name);
        let mut file = bin.directory().create_like(&message.path.name, mbox)?;
        let (mut at, end) = (Section::of(message).from, listing.end_of(index));
        let mut piece = Vec::new();
        while at < end {
            piece.resize(usize::try_from((end - at).min(PIECE)).unwrap_or(0), 0);
            mbox.read_exact_at(&mut piece, at)?;
            file.write_all(&piece)?;
            at += piece.len() as u64;
        }
        file.sync_data()?;
    }
    Ok(())
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
    undo_half(bin.directory(), &file)?;
    let index = Index::load(root, &own).unwrap_or_default();
    let listing = Listing::read(&file, index.entries.into(), index.mbox)?;
    let mut known = listing.messages.into_owned();
    let kept = bin.directory().messages(|_| Ok(()))?;
    for (name, _) in &kept {
        // If the server was killed before the message was removed, it is still there.
        if !known.iter().any(|message| message.path.name == *name) {
            known.push(append(bin.directory(), name, &file)?);
        }
    }
    // The index is how messages keep their unique-ids, so it is written before the kept messages go.
    let listing = Listing::read(&file, known.into(), None)?;
    Index::save_mbox(root, &own, listing.state, listing.messages.iter());
    for (name, _) in &kept {
        bin.directory().unlink(name)?;
    }
    let _ = bin.directory().unlink(MARK);
    trash.remove_if_empty(batch);
    Ok((kept.len() as u64, 0))
}

/// Appends a message. Returns it with its unique-id and with its place in the mbox.
fn append(bin: &Directory, name: &crate::maildrop::names::Name, mbox: &File) -> io::Result<Message> {
    let before = mbox.metadata()?.len();
    let mut text = separator(mbox, before)?;
    bin.file(name)?.0.read_to_end(&mut text)?;
    let _ = bin.unlink(MARK);
    let mut mark = bin.create(MARK)?;
    mark.write_all(format!("{before} ").as_bytes())?;
    mark.write_all(name)?;
    mark.sync_data()?;
    mbox.write_all_at(&text, before)?;
    mbox.sync_data()?;
    let mut found = Vec::new();
    let start = before + leading(&text);
    super::parse::parse(mbox, start, before + text.len() as u64, &mut |message| found.push(message))?;
    let parsed = match &found[..] {
        [parsed] => parsed,
        _ => return Err(io::Error::other("a kept message is not one message any more")),
    };
    let check = ((parsed.hash >> 64) as u64).cast_signed();
    let section = Section { from: parsed.from, start: parsed.start, length: parsed.end - parsed.start, check };
    Ok(section.message(name.clone(), parsed.octets))
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

/// How many line ends are in front of a message.
fn leading(text: &[u8]) -> u64 {
    text.iter().take_while(|&&octet| octet == b'\n').count() as u64
}

/// Cuts off the beginning of a message that could not be appended completely.
fn undo_half(bin: &Directory, mbox: &File) -> io::Result<()> {
    let mut text = String::new();
    match bin.file(MARK) {
        Ok((mut mark, _)) => drop(mark.read_to_string(&mut text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    let Some((before, name)) = text.split_once(' ') else { return Ok(()) };
    let Ok(before) = before.parse::<u64>() else { return Ok(()) };
    let size = mbox.metadata()?.len();
    let Ok((mut kept, _)) = bin.file(name.as_bytes()) else { return Ok(()) };
    if size <= before {
        return Ok(());
    }
    let mut whole = separator(mbox, before)?;
    kept.read_to_end(&mut whole)?;
    let mut there = vec![0; usize::try_from(size - before).unwrap_or(0)];
    if there.len() < whole.len() {
        mbox.read_exact_at(&mut there, before)?;
        if whole.starts_with(&there) {
            mbox.set_len(before)?;
        }
    }
    Ok(())
}
