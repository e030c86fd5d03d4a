//! The accounts of the users file. They are read again when the file has changed, and PEEP can change them.
//!
//! While another program may be writing the file, only new accounts in it are used in addition to those known before.
//! Once the file is complete, its accounts replace them.

use std::fs;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::accounts::Accounts;
use super::on_disk::{Snapshot, Stamp, lock};
use crate::owner;

/// How long a change waits while another program locks or writes the file, and the pause between two attempts.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

/// How long a login waits for another one that is reading the file. After that it uses the accounts known before.
const READING: Duration = Duration::from_secs(1);

/// A users file, and the accounts of its last usable version.
#[derive(Debug)]
pub(super) struct PasswdFile {
    path: PathBuf,
    loaded: RwLock<Loaded>,
    /// Locked by the thread that reads the file, so that `loaded` is only locked for moments.
    reading: Mutex<()>,
}

#[derive(Debug)]
struct Loaded {
    /// The version of the file that was read. `None` if a later version may have the same stamp.
    stamp: Option<Stamp>,
    accounts: Arc<Accounts>,
    /// What is wrong with the file. It has been logged already, so it is not logged again at each login.
    fault: Option<String>,
}

impl PasswdFile {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// If it cannot be read, or has lines but no valid account.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = Snapshot::read(&path)?;
        let stamp = file.stamp();
        let accounts = accounts_of(file.text)?;
        owner::warn_of_others(&path);
        if accounts.is_empty() {
            log::warn!("{} has no users yet", path.display());
        }
        log_faults(&path, &accounts, &Accounts::default());
        let loaded = Loaded { stamp, accounts: Arc::new(accounts), fault: None };
        Ok(Self { path, loaded: RwLock::new(loaded), reading: Mutex::new(()) })
    }

    /// The file's path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file if it has changed.
    ///
    /// # Errors
    /// If the file cannot be used; the accounts then stay as they were.
    pub(super) fn read_again(&self) -> io::Result<()> {
        fs::File::open(&self.path)?;
        self.accounts();
        match &self.loaded.read().fault {
            Some(fault) => Err(io::Error::new(io::ErrorKind::InvalidData, fault.clone())),
            None => Ok(()),
        }
    }

    /// Returns the present accounts of the file. If the file cannot be used or read in time, returns those known before.
    pub(super) fn accounts(&self) -> Arc<Accounts> {
        let now = fs::metadata(&self.path).map(|metadata| Stamp::from(&metadata));
        let current = || {
            let loaded = self.loaded.read();
            let is_current = matches!((&now, &loaded.stamp), (Ok(now), Some(stamp)) if now == stamp);
            is_current.then(|| Arc::clone(&loaded.accounts))
        };
        if let Some(accounts) = current() {
            return accounts;
        }
        if let Some(_reading) = self.reading.try_lock_for(READING) {
            if let Some(accounts) = current() {
                return accounts;
            }
            let known = Arc::clone(&self.loaded.read().accounts);
            let read = Snapshot::read(&self.path).map(|mut file| {
                let accounts = accounts_of(take_usable_part(&mut file));
                (file, accounts)
            });
            let mut loaded = self.loaded.write();
            // Otherwise this server has changed the file since it was read, and the loaded accounts are newer.
            if Arc::ptr_eq(&known, &loaded.accounts) {
                loaded.refresh(&self.path, read);
            }
        }
        Arc::clone(&self.loaded.read().accounts)
    }

    /// Replaces the text of the file by the result of `change`, unless that is `None`; returns whether it was replaced. The
    /// file is locked by flock(2) meanwhile. If a program that does not lock it has changed it or is writing it, this waits
    /// and starts again.
    ///
    /// # Errors
    /// If the file cannot be read or written, if another program has emptied it, or if one keeps writing it. The file then
    /// stays as it was.
    pub(super) fn change(&self, mut change: impl FnMut(&[u8]) -> Option<Vec<u8>>) -> io::Result<bool> {
        // If the path is a symbolic link, its target is replaced.
        let path = fs::canonicalize(&self.path)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(changed) = self.change_at_once(&path, deadline, &mut change)? {
                return Ok(changed);
            }
            if Instant::now() >= deadline {
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another program is writing it"));
            }
            thread::sleep(POLL);
        }
    }

    /// Does the same in one attempt. Returns `None` if another program may be writing the file.
    fn change_at_once(
        &self,
        path: &Path,
        deadline: Instant,
        change: &mut impl FnMut(&[u8]) -> Option<Vec<u8>>,
    ) -> io::Result<Option<bool>> {
        let _locked = lock(path, deadline)?;
        let file = Snapshot::read(path)?;
        if !file.is_complete {
            return Ok(None);
        }
        let before = Accounts::read(&file.text[..]);
        self.loaded.read().not_emptied(&before)?;
        let Some(text) = change(&file.text) else { return Ok(Some(false)) };
        let after = Accounts::read(&text[..]);
        if after.len() + 1 < before.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "more than one account would be lost"));
        }
        if !file.replace(path, &text)? {
            return Ok(None);
        }
        // The change is in force even if all remaining lines are invalid.
        let mut loaded = self.loaded.write();
        loaded.warn_of_lost(&self.path, &before);
        loaded.take_over(&self.path, after);
        Ok(Some(true))
    }
}

impl Loaded {
    fn refresh(&mut self, path: &Path, read: io::Result<(Snapshot, io::Result<Accounts>)>) {
        self.stamp = None;
        let accounts = match read {
            // The next login reads it again. Until it is complete, faults in it are not logged.
            Ok((file, accounts)) if !file.is_complete => return self.add(&accounts.unwrap_or_default()),
            Ok((file, accounts)) => {
                self.stamp = file.stamp();
                accounts.and_then(|accounts| self.not_emptied(&accounts).map(|()| accounts))
            }
            Err(error) => Err(error),
        };
        match accounts {
            Ok(accounts) => {
                self.warn_of_lost(path, &accounts);
                self.take_over(path, accounts);
            }
            Err(error) => {
                let fault = error.to_string();
                if self.fault.as_ref() != Some(&fault) {
                    log::error!("{} cannot be used, the accounts stay as they were: {fault}", path.display());
                }
                self.fault = Some(fault);
            }
        }
    }

    /// Adds the new accounts of a file that is being written. The known accounts stay as they are.
    fn add(&mut self, accounts: &Accounts) {
        if accounts.missing_in(&self.accounts) > 0 {
            self.accounts = Arc::new(self.accounts.with_those_of(accounts));
        }
    }

    /// Refuses a file that has lost all its accounts, because an editor or a full disk may have truncated it. An admin can
    /// delete the last account by PEEP.
    fn not_emptied(&self, now: &Accounts) -> io::Result<()> {
        if now.is_empty() && !self.accounts.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no account is left in it"));
        }
        Ok(())
    }

    /// Logs a warning about accounts that another program has removed, because it may be a mistake.
    fn warn_of_lost(&self, path: &Path, now: &Accounts) {
        let lost = self.accounts.missing_in(now);
        if lost > 0 {
            let all = self.accounts.len();
            log::warn!("{} has lost {lost} of the {all} accounts that it had", path.display());
        }
    }

    fn take_over(&mut self, path: &Path, accounts: Accounts) {
        if self.fault.take().is_some() {
            log::info!("{} can be used again", path.display());
        }
        log_faults(path, &accounts, &self.accounts);
        self.accounts = Arc::new(accounts);
    }
}

/// Takes the part of a file's text that can be used: without the last line if the file is being written, because that line
/// may be incomplete.
fn take_usable_part(file: &mut Snapshot) -> Vec<u8> {
    let mut text = mem::take(&mut file.text);
    if !file.is_complete {
        text.truncate(memchr::memrchr(b'\n', &text).map_or(0, |at| at + 1));
    }
    text
}

/// Parses the accounts of a file. If all lines are invalid, it is an error: the file is damaged or not a users file.
fn accounts_of(text: Vec<u8>) -> io::Result<Accounts> {
    let accounts = Accounts::read(text);
    match accounts.faults.first() {
        Some((line, fault)) if accounts.is_empty() => {
            let why = format!("no line is an account; line {line}: {fault}");
            Err(io::Error::new(io::ErrorKind::InvalidData, why))
        }
        _ => Ok(accounts),
    }
}

/// Logs what is wrong with a file, unless the same was wrong before.
fn log_faults(path: &Path, accounts: &Accounts, before: &Accounts) {
    if accounts.has_mark && !before.has_mark {
        log::warn!("{} begins with a byte order mark, which is skipped: save it as UTF-8 without one", path.display());
    }
    if accounts.weak > 0 && before.weak == 0 {
        log::warn!(
            "{}: the passwords of {} accounts are stored in schemes that make guessing quick (MD5, SHA without salt)",
            path.display(),
            accounts.weak
        );
    }
    if accounts.faults != before.faults {
        for (line, fault) in &accounts.faults {
            log::error!("{} line {line}: {fault}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::on_disk::beside;
    use super::*;
    use std::fs::{File, Permissions};
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::SystemTime;
    use tempfile::TempDir;

    fn directory_with(text: &[u8]) -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        write(&path, text);
        (directory, path)
    }

    /// Writes a file with an old modification time, as `cp -p` does, so that it is taken for complete.
    fn write(path: &Path, text: impl AsRef<[u8]>) {
        fs::write(path, text).unwrap();
        File::open(path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(10)).unwrap();
    }

    fn names(file: &PasswdFile) -> Vec<String> {
        file.accounts().names(None).map(|name| name.to_string()).collect()
    }

    fn add(file: &PasswdFile, line: &str) -> io::Result<bool> {
        file.change(|text| Some([text, line.as_bytes()].concat()))
    }

    #[test]
    fn a_file_that_changes_is_read_again_at_once() {
        let (directory, path) = directory_with(b"ana:{PLAIN}a\n");
        let file = PasswdFile::open(path.clone()).unwrap();
        // The file is rewritten in place with the same size, several times within a tick of the clock.
        for name in ["bob", "eve", "fay", "gil"] {
            write(&path, format!("{name}:{{PLAIN}}a\n"));
            assert_eq!(names(&file), [name]);
        }
        let other = directory.path().join("other");
        write(&other, "hal:{PLAIN}a\n");
        fs::rename(&other, &path).unwrap();
        assert_eq!(names(&file), ["hal"]);
    }

    #[test]
    fn a_file_that_another_program_empties_changes_no_account() {
        let (_directory, path) = directory_with(b"ana:{PLAIN}a\n");
        let file = PasswdFile::open(path.clone()).unwrap();
        for text in ["", "# nobody\n\n"] {
            write(&path, text);
            assert_eq!(names(&file), ["ana"]);
            assert!(add(&file, "bob:{PLAIN}b\n").is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        write(&path, "eve:{PLAIN}e\n");
        assert!(file.change(|_| Some(Vec::new())).unwrap());
        assert_eq!(names(&file), [""; 0]);
        assert!(add(&file, "bob:{PLAIN}b\n").unwrap());
        assert_eq!(names(&file), ["bob"]);
    }

    #[test]
    fn a_file_that_cannot_be_used_changes_no_account() {
        let (_directory, path) = directory_with(b"ana:{PLAIN}a\n");
        let file = PasswdFile::open(path.clone()).unwrap();
        write(&path, b"\x7fELF\0\n");
        assert_eq!(names(&file), ["ana"]);
        fs::remove_file(&path).unwrap();
        assert_eq!(names(&file), ["ana"]);
        fs::create_dir(&path).unwrap();
        assert_eq!(names(&file), ["ana"]);
        fs::remove_dir(&path).unwrap();
        write(&path, "bob:{PLAIN}b\n");
        assert_eq!(names(&file), ["bob"]);
    }

    /// Returns lines for these accounts, all with the same password.
    fn lines(numbers: std::ops::Range<usize>, password: &str) -> String {
        numbers.map(|number| format!("user{number:03}:{{PLAIN}}{password}\n")).collect()
    }

    #[test]
    fn a_file_that_is_being_written_only_adds_accounts() {
        let (_directory, path) = directory_with(lines(0..100, "old").as_bytes());
        let file = PasswdFile::open(path.clone()).unwrap();
        let mut writer = File::create(&path).unwrap();
        let password = |name: &str| {
            let accounts = file.accounts();
            accounts.get(&name.parse().unwrap()).map(|it| it.secret.readable().unwrap().to_vec())
        };
        assert_eq!(names(&file).len(), 100);
        write!(writer, "{}user150:{{PLAIN}}new\nuser151:{{PLAIN}}n", lines(0..50, "new")).unwrap();
        assert_eq!(names(&file).len(), 101);
        assert_eq!(password("user010").unwrap(), b"old");
        assert_eq!(password("user060").unwrap(), b"old");
        assert_eq!(password("user150").unwrap(), b"new");
        assert_eq!(password("user151"), None); // The rest of its line may be missing.

        // A file that is being written is not changed.
        let deadline = Instant::now() + PATIENCE;
        let mut with_eve = |text: &[u8]| Some([text, b"eve:{PLAIN}e\n"].concat());
        assert_eq!(file.change_at_once(&path, deadline, &mut with_eve).unwrap(), None);

        // When the file is complete, accounts that it lacks are removed and changed passwords count.
        writeln!(writer, "ew").unwrap();
        writer.set_modified(SystemTime::now() - Duration::from_secs(10)).unwrap();
        assert_eq!(names(&file).len(), 52);
        assert_eq!(password("user010").unwrap(), b"new");
        assert!(file.change(with_eve).unwrap());
        assert_eq!(names(&file).len(), 53);
    }

    #[test]
    fn a_file_that_is_not_written_for_a_while_is_taken_for_complete() {
        let (_directory, path) = directory_with(lines(0..2, "old").as_bytes());
        let file = PasswdFile::open(path.clone()).unwrap();
        fs::write(&path, lines(0..1, "new")).unwrap();
        assert_eq!(names(&file).len(), 2);
        assert!(add(&file, "eve:{PLAIN}e\n").unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), lines(0..1, "new") + "eve:{PLAIN}e\n");
        assert_eq!(names(&file), ["eve", "user000"]);
    }

    #[test]
    fn a_change_never_loses_more_than_one_account() {
        let (_directory, path) = directory_with(lines(0..3, "x").as_bytes());
        let file = PasswdFile::open(path.clone()).unwrap();
        assert!(file.change(|_| Some(lines(0..1, "x").into_bytes())).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), lines(0..3, "x"));
        assert!(file.change(|_| Some(lines(0..2, "x").into_bytes())).unwrap());
    }

    /// While another thread reads the file, which may take long, a login uses the accounts that were read before.
    #[test]
    fn a_login_does_not_wait_long_for_another_one_that_reads_the_file() {
        let (_directory, path) = directory_with(b"ana:{PLAIN}a\n");
        let file = PasswdFile::open(path.clone()).unwrap();
        write(&path, "bob:{PLAIN}b\n");
        let reading = file.reading.lock();
        assert_eq!(names(&file), ["ana"]);
        drop(reading);
        assert_eq!(names(&file), ["bob"]);
    }

    #[test]
    fn the_last_account_can_be_removed_from_a_file_with_malformed_lines() {
        let (_directory, path) = directory_with(b"ana:secret\nbob:{PLAIN}b\n");
        let file = PasswdFile::open(path).unwrap();
        assert!(file.change(|_| Some(b"ana:secret\n".to_vec())).unwrap());
        assert_eq!(names(&file), [""; 0]);
        assert!(add(&file, "eve:{PLAIN}e\n").unwrap());
        assert_eq!(names(&file), ["eve"]);
    }

    #[test]
    fn a_file_that_cannot_be_used_at_the_start_is_an_error() {
        let (directory, path) = directory_with(b"ana:secret\nbob:secret\n");
        assert_eq!(PasswdFile::open(path).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(PasswdFile::open(directory.path().to_owned()).is_err());
        assert!(PasswdFile::open(directory.path().join("missing")).is_err());
        let (_directory, path) = directory_with(b"# nobody yet\n");
        assert!(PasswdFile::open(path).unwrap().accounts().is_empty());
    }

    #[test]
    fn a_change_keeps_the_mode_and_follows_a_symbolic_link() {
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

    /// Two servers change the file, and so does a program that takes no lock and replaces the file.
    #[test]
    fn simultaneous_changes_of_several_programs_are_all_kept() {
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
        let while_unlocked = |text: &[u8]| {
            if !changed.swap(true, Ordering::SeqCst) {
                fs::write(&path, [text, b"editor:{PLAIN}x\n"].concat()).unwrap();
            }
            Some([text, b"ana:{PLAIN}x\n"].concat())
        };
        assert!(file.change(while_unlocked).unwrap());
        assert_eq!(names(&file).len(), 3 * EACH + 2);
    }
}
