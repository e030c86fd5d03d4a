//! The log file. It can be opened again under its name after it was moved away.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use crate::append::append_to;

/// The mode of a new file. It contains addresses and names, so only the owner and a group for reading logs get access.
const MODE: u32 = 0o640;

/// The log file.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    /// Opens the file, and creates it if it is missing.
    ///
    /// # Errors
    /// Those of open(2).
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = append_to(&path, MODE)?;
        Ok(Self { path, file })
    }

    /// Opens the file that has the name now, or a new one, and continues there. After an error the log continues in the
    /// old file.
    ///
    /// # Errors
    /// Those of open(2).
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.file = append_to(&self.path, MODE)?;
        Ok(())
    }
}

impl AsFd for LogFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    #[test]
    fn it_goes_on_in_a_new_file_when_told() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("log"), directory.path().join("log.1"));
        let mut log = LogFile::open(path.clone()).unwrap();
        log.file.write_all(b"one\n").unwrap();
        fs::rename(&path, &moved).unwrap();
        log.file.write_all(b"two\n").unwrap();
        log.reopen().unwrap();
        log.file.write_all(b"three\n").unwrap();
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
        log.file.write_all(b"one\n").unwrap();
        assert_eq!(fs::read_to_string(&moved).unwrap(), "one\n");
    }
}
