//! Finds the sizes on the wire of messages that the index does not know, as fast as the processor and the disk allow.

use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::thread;

use parking_lot::Mutex;
use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use rustix::process::{Resource, getrlimit};

use super::compressed::{Compression, Decompressed, Told};
use super::identity::Identity;
use super::message::{Content, FilePath, Folder};
use super::name;
use super::opened::FileRange;
use crate::connections::MAX_DESCRIPTORS;
use crate::wire::{BLOCK, Block, Measure, Meter};

/// The most threads that measure one maildrop, and the fewest messages that each of them gets. There are more threads
/// than cores because they wait for the disk.
const THREADS: usize = 16;
const PER_THREAD: usize = 64;

/// How many files each thread has open at once. All of them are requested from the disk before the thread waits for the
/// first one, so the disk can read neighbouring files together.
const GROUP: usize = 32;

/// Enough descriptors for all connections, for two scans with groups of `GROUP` files, and for other open files.
pub const PLENTY_OF_DESCRIPTORS: u64 = MAX_DESCRIPTORS + 2 * (THREADS * GROUP) as u64;

/// How many files a thread has open if the limit on descriptors is lower than that.
const SMALL_GROUP: usize = 2;

/// Descriptors that are set aside for groups of `SMALL_GROUP` files.
pub const SCAN_DESCRIPTORS: u64 = (THREADS * SMALL_GROUP) as u64;

/// Held by the one scan that may use several threads. This bounds threads and descriptors when many users log in for
/// the first time at once.
static LARGE_SCAN: Mutex<()> = Mutex::new(());

/// Measures the messages at `paths`, on several threads if there are many. It is fastest if they are sorted by about
/// their order on the disk.
pub(super) fn all(
    paths: &[&FilePath],
    open: impl Fn(&FilePath) -> io::Result<(File, Identity)> + Sync,
) -> Vec<io::Result<Content>> {
    let large = (paths.len() > PER_THREAD).then(|| LARGE_SCAN.try_lock()).flatten();
    let (threads, size) = match large {
        Some(_) => (THREADS.min(paths.len() / PER_THREAD), large_group()),
        None => (1, 1),
    };
    let mut measured: Vec<_> = paths.iter().map(|_| Err(io::ErrorKind::NotFound.into())).collect();
    let groups = Mutex::new(paths.chunks(size).zip(measured.chunks_mut(size)));
    let work = || {
        let mut buffer = Block::new();
        let next = || groups.lock().next();
        while let Some((paths, measured)) = next() {
            group(paths, &open, measured, &mut buffer);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // If a thread cannot be started, the others do its work.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    // With several files open, a thread may have run out of descriptors. Each of those messages is tried again alone.
    for (&path, result) in paths.iter().zip(&mut measured) {
        if result.as_ref().is_err_and(is_exhaustion) {
            *result = Opened::new(path, &open).and_then(|opened| opened.measure(&mut Block::new()));
        }
    }
    measured
}

/// Measures the messages that are in the page cache, requests the others from the disk, and then waits for them.
fn group(
    paths: &[&FilePath],
    open: &impl Fn(&FilePath) -> io::Result<(File, Identity)>,
    measured: &mut [io::Result<Content>],
    buffer: &mut [u8],
) {
    let mut unread = Vec::new();
    for (&path, result) in paths.iter().zip(measured) {
        let mut opened = Opened::new(path, open);
        if opened.as_ref().is_err_and(is_exhaustion) && !unread.is_empty() {
            measure_unread(&mut unread, buffer);
            opened = Opened::new(path, open);
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

/// Measures the messages that were requested from the disk, and closes their files.
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
    path: &'a FilePath,
    file: File,
    identity: Identity,
}

impl<'a> Opened<'a> {
    fn new(path: &'a FilePath, open: &impl Fn(&FilePath) -> io::Result<(File, Identity)>) -> io::Result<Self> {
        open(path).map(|(file, identity)| Self { path, file, identity })
    }

    /// Measures the message if it is small and in the page cache.
    fn measure_at_once(&self, buffer: &mut [u8]) -> Option<Content> {
        let stored = buffer.get_mut(..usize::try_from(self.identity.size).ok()?)?;
        let read = preadv2(&self.file, &mut [IoSliceMut::new(stored)], 0, ReadWriteFlags::NOWAIT).ok()?;
        if read < stored.len() {
            return None;
        }
        if self.is_compressed(Compression::of(stored)).is_some() {
            return None;
        }
        let mut meter = Meter::default();
        meter.push(stored);
        Some(self.content(meter.finish()))
    }

    /// Requests from the disk the part that will be read first: the last octet if only that is needed, else the
    /// beginning.
    fn ask_for(&self) {
        let from = if self.told_octets().is_some() { self.identity.size - 1 } else { 0 };
        let _ = fadvise(&self.file, from, NonZeroU64::new(BLOCK as u64), Advice::WillNeed);
    }

    /// The size on the wire that a large message's Maildir name gives (`W=`), if the stored size that it gives (`S=`)
    /// is right. Small messages are read in any case, because that is as fast.
    fn told_octets(&self) -> Option<u64> {
        let Self { path, identity, .. } = self;
        let is_plain = path.folder != Folder::Top && Told::by(&path.name, identity.size) != Told::Compressed;
        if !is_plain || identity.size <= BLOCK as u64 {
            return None;
        }
        let (stored, octets) = name::sizes(&path.name)?;
        (stored == identity.size && (stored..=stored.saturating_mul(2)).contains(&octets)).then_some(octets)
    }

    /// Returns true if the last line is complete. Programs that write `W=` do not count the line end that the server
    /// adds to an incomplete last line.
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
        if let Some((compression, told)) = self.is_compressed(Compression::of_file(&self.file)?)
            && let Some(content) = self.measure_compressed(compression, told, buffer)?
        {
            return Ok(content);
        }
        let mut meter = Meter::default();
        // The file may be growing, so only the octets that it had when it was opened are read.
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

    /// Returns the compression that the file seems to have, if its name agrees with that.
    fn is_compressed(&self, seeming: Option<Compression>) -> Option<(Compression, Told)> {
        let compression = seeming.filter(|_| self.path.folder != Folder::Top)?;
        let told = Told::by(&self.path.name, self.identity.size);
        (told != Told::Plain).then_some((compression, told))
    }

    /// Measures a compressed message. Returns `None` if it turns out to be plain.
    fn measure_compressed(
        &self,
        compression: Compression,
        told: Told,
        buffer: &mut [u8],
    ) -> io::Result<Option<Content>> {
        let size = self.identity.size;
        let range = FileRange { file: self.file.try_clone()?, offset: 0, left: size, wire_form: false };
        let mut source = match Decompressed::new(compression, range, &self.path.name) {
            Err(_) if told == Told::Unclear => return Ok(None),
            source => source?,
        };
        let (mut meter, mut plain) = (Meter::default(), 0);
        loop {
            match source.read(buffer) {
                Ok(0) => break,
                Ok(read) => {
                    meter.push(&buffer[..read]);
                    plain += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if told == Told::Unclear => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let measure = Measure { wire_form: false, ..meter.finish() };
        let content = Content { compressed: true, ..self.content(measure) };
        Ok((told == Told::Compressed || plain == size).then_some(content))
    }

    fn content(&self, Measure { octets, wire_form }: Measure) -> Content {
        Content { identity: self.identity, octets, wire_form, compressed: false, namesake: false }
    }
}

/// Returns true if the server ran out of descriptors or memory, which does not mean that the file is unreadable.
pub(super) fn is_exhaustion(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}
