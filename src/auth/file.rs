//! The users file on disk: read again when it has changed, and changed itself by rename, so that a crash leaves the old
//! one or the new one.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;
use rustix::fs::{FlockOperation, flock};

use super::text::Accounts;

/// A larger file is refused: it would be half a million users.
const SIZE_LIMIT: u64 = 1 << 26;

/// A file that was changed no more than so many seconds ago may change again without a change of its times, which are
/// as coarse as the file system's clock.
const UNSETTLED: u64 = 2;

/// How long a change waits for another program that has the file locked, and between two looks.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// What the file's name gets while its next state is written beside it.
const NEW: &str = ".new";

/// A users file and the accounts that it had when it was last good.
#[derive(Debug)]
pub(super) struct PasswdFile {
    path: PathBuf,
    loaded: RwLock<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    /// The file as it was read, unless it may change without a change of this.
    stamp: Option<Stamp>,
    accounts: Arc<Accounts>,
    /// Told already, so not again with each login.
    fault: Option<String>,
}

/// What tells a file's state from another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

impl PasswdFile {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// When it cannot be read, or has lines but no account.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let (text, metadata) = read(&path)?;
        let accounts = accounts_of(&text)?;
        if metadata.mode() & 0o007 != 0 {
            log::warn!("{} can be read or written by others: chmod o= it", path.display());
        }
        if accounts.by_name.is_empty() {
            log::warn!("{} has no users yet", path.display());
        }
        log_faults(&path, &accounts);
        let loaded = Loaded { stamp: settled_stamp(&metadata), accounts: Arc::new(accounts), fault: None };
        Ok(Self { path, loaded: RwLock::new(loaded) })
    }

    /// The accounts as the file has them now; those that it had last, where it cannot be used.
    pub(super) fn accounts(&self) -> Arc<Accounts> {
        let now = fs::metadata(&self.path).map(|metadata| Stamp::from(&metadata));
        let is_current = |loaded: &Loaded| matches!((&now, &loaded.stamp), (Ok(now), Some(stamp)) if now == stamp);
        let loaded = self.loaded.read();
        if is_current(&loaded) {
            return Arc::clone(&loaded.accounts);
        }
        drop(loaded);
        let mut loaded = self.loaded.write();
        if !is_current(&loaded) {
            loaded.refresh(&self.path);
        }
        Arc::clone(&loaded.accounts)
    }

    /// Replaces the file by what `change` makes of its text, unless that is nothing. Other programs that lock it by
    /// flock(2) wait, and what others have changed meanwhile is there.
    ///
    /// # Errors
    /// Those of reading and writing, and when others have emptied the file; it is as it was then.
    pub(super) fn change(&self, mut change: impl FnMut(&[u8]) -> Option<Vec<u8>>) -> io::Result<bool> {
        // Of a symbolic link the file that it leads to is replaced.
        let path = fs::canonicalize(&self.path)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let _locked = lock(&path, deadline)?;
            let (text, metadata) = read(&path)?;
            self.loaded.read().not_emptied(&Accounts::read(&text))?;
            let Some(text) = change(&text) else { return Ok(false) };
            let new = beside(&path);
            let replaced = write(&new, &text, &metadata).and_then(|()| {
                // A program that takes no lock may have changed it.
                let unchanged = Stamp::from(&fs::metadata(&path)?) == Stamp::from(&metadata);
                if unchanged { fs::rename(&new, &path).map(|()| true) } else { Ok(false) }
            });
            if !matches!(replaced, Ok(true)) {
                let _ = fs::remove_file(&new);
            }
            if replaced? {
                // What was asked for holds, even if the lines that are left are all wrong.
                self.loaded.write().take_over(&self.path, Accounts::read(&text));
                return sync_directory(&path).map(|()| true);
            }
            if Instant::now() >= deadline {
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, "it is changed all the time"));
            }
        }
    }
}

impl Loaded {
    fn refresh(&mut self, path: &Path) {
        self.stamp = None;
        let accounts = read(path).and_then(|(text, metadata)| {
            self.stamp = settled_stamp(&metadata);
            let accounts = accounts_of(&text)?;
            self.not_emptied(&accounts).map(|()| accounts)
        });
        match accounts {
            Ok(accounts) => self.take_over(path, accounts),
            Err(error) => {
                let fault = error.to_string();
                if self.fault.as_ref() != Some(&fault) {
                    log::error!("{} cannot be used, the accounts stay as they were: {fault}", path.display());
                }
                self.fault = Some(fault);
            }
        }
    }

    /// A file that has lost all its accounts is one that an editor or a full disk has cut off. Who means it says so by
    /// PEEP.
    fn not_emptied(&self, now: &Accounts) -> io::Result<()> {
        if now.by_name.is_empty() && !self.accounts.by_name.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no account is left in it"));
        }
        Ok(())
    }

    fn take_over(&mut self, path: &Path, accounts: Accounts) {
        if self.fault.take().is_some() {
            log::info!("{} can be used again", path.display());
        }
        if accounts.faults != self.accounts.faults {
            log_faults(path, &accounts);
        }
        self.accounts = Arc::new(accounts);
    }
}

/// The accounts of a text. One of lines that are all wrong is no users file, but some other one, or a damaged one.
fn accounts_of(text: &[u8]) -> io::Result<Accounts> {
    let accounts = Accounts::read(text);
    match accounts.faults.first() {
        Some((line, fault)) if accounts.by_name.is_empty() => {
            let why = format!("no line is an account; line {line}: {fault}");
            Err(io::Error::new(io::ErrorKind::InvalidData, why))
        }
        _ => Ok(accounts),
    }
}

fn log_faults(path: &Path, accounts: &Accounts) {
    for (line, fault) in &accounts.faults {
        log::error!("{} line {line}: {fault}", path.display());
    }
}

/// The stamp of a file that cannot change from now on without another one.
fn settled_stamp(file: &Metadata) -> Option<Stamp> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    is_settled(file.ctime(), now.cast_signed()).then(|| Stamp::from(file))
}

/// A file's last change is told by its ctime, which cannot be set to any time as its mtime can. One in the future is a
/// clock that has been set back since.
fn is_settled(changed: i64, now: i64) -> bool {
    now.abs_diff(changed) > UNSETTLED
}

/// The file's text, and what it was when it was read. It needs no lock, as all changes of ours come whole by rename.
fn read(path: &Path) -> io::Result<(Vec<u8>, Metadata)> {
    // Without O_NONBLOCK a FIFO would wait for a writer.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut text = Vec::new();
    file.take(SIZE_LIMIT + 1).read_to_end(&mut text)?;
    if text.len() as u64 > SIZE_LIMIT {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 64 MiB"));
    }
    Ok((text, metadata))
}

/// Locks the file that has this name now; one that was locked may have been replaced while we waited.
fn lock(path: &Path, deadline: Instant) -> io::Result<File> {
    loop {
        let file = File::open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let (locked, named) = (file.metadata()?, fs::metadata(path)?);
                if (locked.dev(), locked.ino()) == (named.dev(), named.ino()) {
                    return Ok(file);
                }
            }
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => thread::sleep(POLL),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another program has it locked"));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Where the next state of the file is written. It is always the same name, as only who has the lock writes it: what a
/// crash has left is no trouble and does not pile up.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(NEW);
    name.into()
}

/// Writes the next state of the file, with its owner and mode, to be on the disk before it gets the file's name.
fn write(path: &Path, text: &[u8], old: &Metadata) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    let metadata = file.metadata()?;
    if (metadata.uid(), metadata.gid()) != (old.uid(), old.gid()) {
        fchown(&file, Some(old.uid()), Some(old.gid()))?;
    }
    file.set_permissions(Permissions::from_mode(old.mode() & 0o7777))?;
    file.sync_all()
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tempfile::TempDir;

    fn directory_with(text: &[u8]) -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        fs::write(&path, text).unwrap();
        (directory, path)
    }

    fn names(file: &PasswdFile) -> Vec<String> {
        file.accounts().by_name.keys().map(ToString::to_string).collect()
    }

    fn add(file: &PasswdFile, line: &str) -> io::Result<bool> {
        file.change(|text| Some([text, line.as_bytes()].concat()))
    }

    #[test]
    fn a_file_that_changes_is_read_again_at_once() {
        let (directory, path) = directory_with(b"ana:{PLAIN}a\n");
        let file = PasswdFile::open(path.clone()).unwrap();
        // In place and of the same size, time after time within a tick of the clock.
        for name in ["bob", "eve", "fay", "gil"] {
            fs::write(&path, format!("{name}:{{PLAIN}}a\n")).unwrap();
            assert_eq!(names(&file), [name]);
        }
        let other = directory.path().join("other");
        fs::write(&other, "hal:{PLAIN}a\n").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(names(&file), ["hal"]);
    }

    #[test]
    fn a_file_that_others_empty_leaves_the_accounts_as_they_were() {
        let (_directory, path) = directory_with(b"ana:{PLAIN}a\n");
        let file = PasswdFile::open(path.clone()).unwrap();
        for text in ["", "# nobody\n\n"] {
            fs::write(&path, text).unwrap();
            assert_eq!(names(&file), ["ana"]);
            assert!(add(&file, "bob:{PLAIN}b\n").is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::write(&path, "eve:{PLAIN}e\n").unwrap();
        assert!(file.change(|_| Some(Vec::new())).unwrap());
        assert_eq!(names(&file), [""; 0]);
        assert!(add(&file, "bob:{PLAIN}b\n").unwrap());
        assert_eq!(names(&file), ["bob"]);
    }

    #[test]
    fn a_file_settles_whatever_its_times_are() {
        for (changed, settled) in [(100, false), (98, false), (102, false), (97, true), (5000, true), (-5, true)] {
            assert_eq!(is_settled(changed, 100), settled, "{changed}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_used_leaves_the_accounts_as_they_were() {
        let (_directory, path) = directory_with(b"ana:{PLAIN}a\n");
        let file = PasswdFile::open(path.clone()).unwrap();
        fs::write(&path, b"\x7fELF\0\n").unwrap();
        assert_eq!(names(&file), ["ana"]);
        fs::remove_file(&path).unwrap();
        assert_eq!(names(&file), ["ana"]);
        fs::create_dir(&path).unwrap();
        assert_eq!(names(&file), ["ana"]);
        fs::remove_dir(&path).unwrap();
        fs::write(&path, "bob:{PLAIN}b\n").unwrap();
        assert_eq!(names(&file), ["bob"]);
    }

    #[test]
    fn the_last_account_can_be_removed_from_among_lines_that_are_wrong() {
        let (_directory, path) = directory_with(b"ana:secret\nbob:{PLAIN}b\n");
        let file = PasswdFile::open(path).unwrap();
        assert!(file.change(|_| Some(b"ana:secret\n".to_vec())).unwrap());
        assert_eq!(names(&file), [""; 0]);
        assert!(add(&file, "eve:{PLAIN}e\n").unwrap());
        assert_eq!(names(&file), ["eve"]);
    }

    #[test]
    fn what_cannot_be_used_at_the_start_is_an_error() {
        let (directory, path) = directory_with(b"ana:secret\nbob:secret\n");
        assert_eq!(PasswdFile::open(path).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(PasswdFile::open(directory.path().to_owned()).is_err());
        assert!(PasswdFile::open(directory.path().join("missing")).is_err());
        let (_directory, path) = directory_with(b"# nobody yet\n");
        assert!(PasswdFile::open(path).unwrap().accounts().by_name.is_empty());
    }

    #[test]
    fn a_change_keeps_the_mode_and_goes_through_a_link() {
        let (directory, path) = directory_with(b"ana:{PLAIN}a\n");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("users", &link).unwrap();
        fs::write(beside(&path), "left by a crash").unwrap();
        let file = PasswdFile::open(link.clone()).unwrap();
        assert!(add(&file, "bob:{PLAIN}b\n").unwrap());
        assert_eq!(names(&file), ["ana", "bob"]);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
        assert!(!file.change(|_| None).unwrap());
    }

    /// Two servers, and a program that takes no lock and replaces the file while they are at it.
    #[test]
    fn no_change_of_another_is_lost() {
        const EACH: usize = 40;
        let (_directory, path) = directory_with(b"");
        thread::scope(|scope| {
            for writer in ["a", "b", "c"] {
                let file = PasswdFile::open(path.clone()).unwrap();
                scope.spawn(move || {
                    for n in 0..EACH {
                        assert!(add(&file, &format!("{writer}{n}:{{PLAIN}}x\n")).unwrap());
                    }
                });
            }
        });
        assert_eq!(names(&PasswdFile::open(path.clone()).unwrap()).len(), 3 * EACH);

        let file = PasswdFile::open(path.clone()).unwrap();
        let changed = AtomicBool::new(false);
        let behind_its_back = |text: &[u8]| {
            if !changed.swap(true, Ordering::SeqCst) {
                fs::write(&path, [text, b"editor:{PLAIN}x\n"].concat()).unwrap();
            }
            Some([text, b"ana:{PLAIN}x\n"].concat())
        };
        assert!(file.change(behind_its_back).unwrap());
        assert_eq!(names(&file).len(), 3 * EACH + 2);
    }
}
