//! Measuring messages that nobody has measured yet, as quickly as processor and disk let it.

use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::thread;

use parking_lot::Mutex;
use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use rustix::process::{Resource, getrlimit};

use super::message::{Content, Folder, Place};
use super::name;
use super::root::Identity;
use crate::connections::MAX_DESCRIPTORS;
use crate::wire::{BLOCK, Block, Measure, Meter};

/// The most threads that measure a maildrop: more than there are cores, as they wait for the disk. Each has so many
/// messages at least.
const THREADS: usize = 16;
const PER_THREAD: usize = 64;

/// How many files each of them has open at once, so that the disk is asked for all of them before one is waited for, and
/// reads what is side by side in one go.
const GROUP: usize = 32;

/// Descriptors enough for all connections, for groups of that size and for whatever else is open.
pub const PLENTY_OF_DESCRIPTORS: u64 = MAX_DESCRIPTORS + 2 * (THREADS * GROUP) as u64;

/// How many files a group has with less.
const SMALL_GROUP: usize = 2;

/// Descriptors to be set aside for groups of that size.
pub const SCAN_DESCRIPTORS: u64 = (THREADS * SMALL_GROUP) as u64;

/// One scan at a time has several threads and files, so that many first logins at once do not take them without bound.
static LARGE_SCAN: Mutex<()> = Mutex::new(());

/// Measures the messages at `places`, many of them on several threads: best in about their order on the disk.
pub(super) fn all(
    places: &[&Place],
    open: impl Fn(&Place) -> io::Result<(File, Identity)> + Sync,
) -> Vec<io::Result<Content>> {
    let large = (places.len() > PER_THREAD).then(|| LARGE_SCAN.try_lock()).flatten();
    let (threads, size) = match large {
        Some(_) => (THREADS.min(places.len() / PER_THREAD), large_group()),
        None => (1, 1),
    };
    let mut measured: Vec<_> = places.iter().map(|_| Err(io::ErrorKind::NotFound.into())).collect();
    let groups = Mutex::new(places.chunks(size).zip(measured.chunks_mut(size)));
    let work = || {
        let mut buffer = Block::new();
        let next = || groups.lock().next();
        while let Some((places, measured)) = next() {
            group(places, &open, measured, &mut buffer);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // Those that are not to be had are done without.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    // Files side by side may have run out of descriptors where one alone does not.
    for (&place, result) in places.iter().zip(&mut measured) {
        if result.as_ref().is_err_and(is_exhaustion) {
            *result = Opened::new(place, &open).and_then(|opened| opened.measure(&mut Block::new()));
        }
    }
    measured
}

/// Measures what can be without waiting for the disk, asks that for the rest, and then waits.
fn group(
    places: &[&Place],
    open: &impl Fn(&Place) -> io::Result<(File, Identity)>,
    measured: &mut [io::Result<Content>],
    buffer: &mut [u8],
) {
    let mut unread = Vec::new();
    for (&place, result) in places.iter().zip(measured) {
        let mut opened = Opened::new(place, open);
        if opened.as_ref().is_err_and(is_exhaustion) && !unread.is_empty() {
            measure_unread(&mut unread, buffer);
            opened = Opened::new(place, open);
        }
        match opened {
            Err(error) => *result = Err(error),
            Ok(opened) => match opened.measure_at_once(buffer) {
                Some(content) => *result = Ok(content),
                None => {
                    opened.ask_for();
                    unread.push((opened, result));
                }
            },
        }
    }
    measure_unread(&mut unread, buffer);
}

/// Measures what the disk has been asked for, which closes it.
fn measure_unread(unread: &mut Vec<(Opened<'_>, &mut io::Result<Content>)>, buffer: &mut [u8]) {
    for (opened, result) in unread.drain(..) {
        *result = opened.measure(buffer);
    }
}

/// How many files each thread of a large scan may have open.
fn large_group() -> usize {
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < PLENTY_OF_DESCRIPTORS => SMALL_GROUP,
        _ => GROUP,
    }
}

/// A message's file that is to be measured.
struct Opened<'a> {
    place: &'a Place,
    file: File,
    identity: Identity,
}

impl<'a> Opened<'a> {
    fn new(place: &'a Place, open: &impl Fn(&Place) -> io::Result<(File, Identity)>) -> io::Result<Self> {
        open(place).map(|(file, identity)| Self { place, file, identity })
    }

    /// Measures it if it is small and in memory.
    fn measure_at_once(&self, buffer: &mut [u8]) -> Option<Content> {
        let stored = buffer.get_mut(..usize::try_from(self.identity.size).ok()?)?;
        let read = preadv2(&self.file, &mut [IoSliceMut::new(stored)], 0, ReadWriteFlags::NOWAIT).ok()?;
        if read < stored.len() {
            return None;
        }
        let mut meter = Meter::default();
        meter.push(stored);
        Some(self.content(meter.finish()))
    }

    /// Has the disk read what will be looked at of it; of a large one that is read to its end, the beginning is enough.
    fn ask_for(&self) {
        let from = if self.told_octets().is_some() { self.identity.size - 1 } else { 0 };
        let _ = fadvise(&self.file, from, NonZeroU64::new(BLOCK as u64), Advice::WillNeed);
    }

    /// A large message's octets as its Maildir name tells them (`W=`), if the stored size it tells (`S=`) is right.
    /// Small ones are read: that is as quick as looking closely enough.
    fn told_octets(&self) -> Option<u64> {
        let Self { place, identity, .. } = self;
        if place.folder == Folder::Top || identity.size <= BLOCK as u64 {
            return None;
        }
        let (stored, octets) = name::sizes(&place.name)?;
        (stored == identity.size && (stored..=stored.saturating_mul(2)).contains(&octets)).then_some(octets)
    }

    /// Those who write `W=` do not count the line end that a last line may lack.
    fn ends_in_lf(&self) -> io::Result<bool> {
        let mut last = [0];
        self.file.read_exact_at(&mut last, self.identity.size.saturating_sub(1))?;
        Ok(last == *b"\n")
    }

    fn measure(mut self, buffer: &mut [u8]) -> io::Result<Content> {
        if let Some(octets) = self.told_octets()
            && self.ends_in_lf()?
        {
            return Ok(self.content(Measure { octets, wire_form: false }));
        }
        let mut meter = Meter::default();
        // No further than its size now: it may be growing.
        let mut left = self.identity.size;
        while left > 0 {
            let room = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            match self.file.read(&mut buffer[..room]) {
                Ok(0) => break,
                Ok(read) => {
                    meter.push(&buffer[..read]);
                    left -= read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.content(meter.finish()))
    }

    fn content(&self, Measure { octets, wire_form }: Measure) -> Content {
        Content { identity: self.identity, octets, wire_form, namesake: false }
    }
}

/// Out of descriptors or memory: says nothing of the file.
pub(super) fn is_exhaustion(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}
