//! Files that lines are appended to: the log and the log of counters.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::owner;

/// Opens a file to append to it. If the file is missing, it is created with `mode` and given to the owner of its directory.
/// For a FIFO, this does not wait for a reader but fails if there is none; later writes fail with
/// [`io::ErrorKind::WouldBlock`] while the FIFO is full.
///
/// # Errors
/// Those of open(2).
pub fn append_to(path: &Path, mode: u32) -> io::Result<File> {
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let mut options = OpenOptions::new();
    options.append(true).mode(mode).custom_flags(nonblocking);
    let mut file = options.open(path);
    if file.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        file = options.create(true).open(path);
        file.iter().try_for_each(|file| owner::give_to_owner_of_parent(path, file))?;
    }
    file.map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::NXIO) => io::Error::other("it is a FIFO that no program reads"),
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_fifo_that_no_program_reads_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert_eq!(append_to(&path, 0o600).unwrap_err().to_string(), "it is a FIFO that no program reads");
    }
}
