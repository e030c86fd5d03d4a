//! Removes messages from an mbox in place, as other programs may have the file open and wait for its lock.
//!
//! What stays behind the first removed message is moved down in steps, each of which is in the journal before it is in the
//! mbox. At the end an octet 0 is put where the mbox is to end, and the file is cut there. So the next login can tell how
//! far a server has come that was killed: mail that was delivered meanwhile does not begin with that octet.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use super::Section;
use super::journal::{CHUNK, CHUNK_1, Journal, OpenJournal, Step, note};
use super::list::Listing;
use super::lock::DotLock;

/// What is to be moved where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// The mbox's inode.
    pub(super) inode: u64,
    /// The mbox's size before.
    pub(super) old: u64,
    /// The mbox's size afterwards.
    pub(super) new: u64,
    /// Where the first piece goes; the others follow it.
    pub(super) to: u64,
    /// True if the mbox has octets between `to` and the first piece that are no mail, so it cannot be left as it is.
    pub(super) must_finish: bool,
    /// The most octets of a step.
    pub(super) chunk: u64,
    /// Offset and length of what is moved, in ascending order.
    pub(super) pieces: Vec<(u64, u64)>,
}

impl Plan {
    /// Removes the messages that are due.
    pub(super) fn without(listing: &Listing<'_>, due: &[bool]) -> Self {
        let old = listing.state.size;
        let to = listing.messages.iter().zip(due).find(|&(_, &due)| due).map_or(old, |(it, _)| Section::of(it).from);
        let mut pieces: Vec<(u64, u64)> = Vec::new();
        for (index, message) in listing.messages.iter().enumerate().filter(|&(index, _)| !due[index]) {
            let (from, end) = (Section::of(message).from, listing.end_of(index));
            match pieces.last_mut() {
                _ if from < to => {}
                Some((offset, length)) if *offset + *length == from => *length += end - from,
                _ => pieces.push((from, end - from)),
            }
        }
        let new = to + pieces.iter().map(|(_, length)| length).sum::<u64>();
        Self { inode: listing.state.inode, old, new, to, must_finish: false, chunk: CHUNK, pieces }
    }

    /// How many octets are moved.
    pub(super) fn moved(&self) -> u64 {
        self.new - self.to
    }

    /// The most octets that a step of this plan has.
    pub(super) fn room(&self) -> u64 {
        self.moved().clamp(1, self.chunk)
    }

    /// Returns true if every piece is moved towards the beginning, and within the file. A journal may have been forged.
    pub(super) fn is_sound(&self) -> bool {
        let mut end = self.to;
        let mut moved = 0_u64;
        for &(offset, length) in &self.pieces {
            let Some(next) = offset.checked_add(length) else { return false };
            // The first piece lies behind a removed message, so each goes to a lower offset than it has.
            if offset < end || offset == self.to {
                return false;
            }
            end = next;
            moved += length;
        }
        (1..=CHUNK_1).contains(&self.chunk)
            && end <= self.old
            && self.to.checked_add(moved) == Some(self.new)
            && self.new < self.old
    }

    /// How many steps move the pieces.
    fn steps(&self) -> u64 {
        self.moved().div_ceil(self.chunk)
    }

    /// A step, counted from 1, and the parts of the file that it moves.
    fn step(&self, number: u64) -> (Step, Vec<(u64, u64)>) {
        let (from, to) = ((number - 1) * self.chunk, (number * self.chunk).min(self.moved()));
        let (mut parts, mut at) = (Vec::new(), 0);
        for &(offset, length) in &self.pieces {
            let (first, last) = (from.max(at), to.min(at + length));
            if first < last {
                parts.push((offset + first - at, last - first));
            }
            at += length;
        }
        (Step { number, to: self.to + from, length: to - from }, parts)
    }
}

/// Removes what is between the pieces of a plan. The mbox is locked for writing.
///
/// # Errors
/// Those of the files. The mbox is as it was, or the journal says how to finish.
pub(super) fn run(mbox: &File, plan: Plan, journal: &Journal<'_>, lock: &DotLock<'_>) -> io::Result<()> {
    if plan.pieces.is_empty() {
        // Only the end goes, which takes one system call.
        if mbox.metadata()?.size() != plan.old {
            return Err(io::Error::other("another program writes to the mbox without locking it"));
        }
        mbox.set_len(plan.new)?;
        note();
        return mbox.sync_data();
    }
    let open = journal.write(&plan, mbox)?;
    let (step, parts) = plan.step(1);
    if let Err(error) = open.put(step, mbox, &parts) {
        journal.remove()?; // nothing has reached the mbox
        return Err(error);
    }
    open.apply(step, mbox)?;
    go_on(mbox, plan, open, (journal, lock), 2)
}

/// What a removal goes by besides the mbox: its journal, and the dot-lock that is kept fresh.
type Guards<'a> = (&'a Journal<'a>, &'a DotLock<'a>);

/// Does the steps from `next` on.
fn go_on(mbox: &File, plan: Plan, open: OpenJournal, guards: Guards<'_>, next: u64) -> io::Result<()> {
    let steps = plan.steps();
    for number in next..=steps {
        guards.1.refresh();
        let (step, parts) = plan.step(number);
        open.put(step, mbox, &parts)?;
        open.apply(step, mbox)?;
    }
    if next <= steps + 1 {
        let mark = Step { number: steps + 1, to: plan.new, length: 1 };
        open.put_octets(mark, &[0])?;
        open.apply(mark, mbox)?;
    }
    cut(mbox, plan, open, guards)
}

/// Cuts the mbox at its new size. Mail that was delivered behind the old one is moved first.
fn cut(mbox: &File, plan: Plan, open: OpenJournal, guards: Guards<'_>) -> io::Result<()> {
    let size = mbox.metadata()?.size();
    if size > plan.old {
        let pieces = vec![(plan.old, size - plan.old)];
        let new = plan.new + size - plan.old;
        let plan = Plan { inode: plan.inode, old: size, new, to: plan.new, must_finish: true, chunk: CHUNK, pieces };
        drop(open);
        let open = guards.0.write(&plan, mbox)?;
        return go_on(mbox, plan, open, guards, 1);
    }
    open.put_octets(Step { number: plan.steps() + 2, to: plan.new, length: 0 }, &[])?;
    mbox.set_len(plan.new)?;
    note();
    mbox.sync_data()
}

/// Finishes a removal that was interrupted, and removes its journal. Returns false if there was nothing to finish. The mbox
/// is locked for writing.
///
/// # Errors
/// Those of the files. The journal stays then.
pub(super) fn recover(mbox: &File, journal: &Journal<'_>, lock: &DotLock<'_>) -> io::Result<bool> {
    let Some((open, plan)) = journal.open()? else {
        journal.put_aside()?;
        return Ok(false);
    };
    let (inode, size) = mbox.metadata().map(|metadata| (metadata.ino(), metadata.size()))?;
    let is_cut = |size| -> io::Result<bool> {
        let mut octet = [1];
        if size >= plan.old {
            mbox.read_exact_at(&mut octet, plan.new)?;
        }
        Ok(octet != [0])
    };
    let last = open.last_step()?;
    match last {
        None if !plan.must_finish => {
            journal.remove()?;
            return Ok(false);
        }
        Some(step) if inode == plan.inode && step.number == plan.steps() + 2 => {
            if !is_cut(size)? {
                cut(mbox, plan, open, (journal, lock))?;
            }
        }
        _ if inode != plan.inode || size < plan.old => {
            journal.put_aside()?;
            return Ok(false);
        }
        // Only a forged journal has such a step.
        Some(step) if step.number > plan.steps() + 2 || step.to < plan.to || step.to > plan.new => {
            journal.put_aside()?;
            return Ok(false);
        }
        None => go_on(mbox, plan, open, (journal, lock), 1)?,
        Some(step) => {
            open.apply(step, mbox)?;
            go_on(mbox, plan, open, (journal, lock), step.number + 1)?;
        }
    }
    journal.remove()?;
    Ok(true)
}
