//! The file that the log is appended to. When it has been moved away it can be opened anew.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

/// For the owner, and the group that reads logs: there are addresses and names in it.
const MODE: u32 = 0o640;

/// The log file.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    /// Opens it, and makes it if it is missing.
    ///
    /// # Errors
    /// Those of open(2).
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = append_to(&path)?;
        Ok(Self { path, file })
    }

    /// Goes on in the file that has the name now, or in a new one. After an error it goes on in the old one.
    ///
    /// # Errors
    /// Those of open(2).
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.file = append_to(&self.path)?;
        Ok(())
    }
}

/// Does not wait for a reader if it is a FIFO: without one that is an error.
fn append_to(path: &Path) -> io::Result<File> {
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().create(true).append(true).mode(MODE).custom_flags(nonblocking).open(path);
    file.map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::NXIO) => io::Error::other("it is a FIFO that no program reads"),
        _ => error,
    })
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
    use std::process::Command;

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

    #[test]
    fn a_fifo_that_no_program_reads_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert_eq!(LogFile::open(path).unwrap_err().to_string(), "it is a FIFO that no program reads");
    }
}
