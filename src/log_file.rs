//! The file that the log is appended to. When it has been moved away it can be opened anew.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

/// For the owner, and the group that reads logs: there are addresses and names in it.
const MODE: u32 = 0o640;

/// The file; clones share it.
#[derive(Debug, Clone)]
pub struct LogFile {
    path: PathBuf,
    file: Arc<Mutex<File>>,
}

impl LogFile {
    /// Opens it, and makes it if it is missing.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let file = Arc::new(Mutex::new(append_to(&path)?));
        Ok(Self { path, file })
    }

    /// Goes on in the file that has the name now, or in a new one. After an error it goes on in the old one.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn reopen(&self) -> io::Result<()> {
        let file = append_to(&self.path)?;
        *self.file.lock() = file;
        Ok(())
    }
}

fn append_to(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(MODE).open(path)
}

impl Write for LogFile {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.file.lock().write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.lock().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn it_goes_on_in_a_new_file_when_told() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("log"), directory.path().join("log.1"));
        let mut log = LogFile::open(path.clone()).unwrap();
        log.write_all(b"one\n").unwrap();
        fs::rename(&path, &moved).unwrap();
        log.write_all(b"two\n").unwrap();
        log.reopen().unwrap();
        log.write_all(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(&moved).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn it_stays_in_the_old_one_when_there_can_be_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("log"), directory.path().join("log.1"));
        let mut log = LogFile::open(path.clone()).unwrap();
        fs::rename(&path, &moved).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(log.reopen().is_err());
        log.write_all(b"one\n").unwrap();
        assert_eq!(fs::read_to_string(&moved).unwrap(), "one\n");
    }
}
