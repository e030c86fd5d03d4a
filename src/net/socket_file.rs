//! A UNIX socket to listen on: a file that clients connect to. Its permissions say who may.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

/// How long a server waits for another one that is starting with a socket in the same directory.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often it looks.
const POLL: Duration = Duration::from_millis(20);

/// How a UNIX socket is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketFile {
    /// Its path.
    pub path: PathBuf,
    /// The permissions of the file. Connecting needs the right to write.
    pub mode: u32,
    /// Its group, by number; `None` for the server's own.
    pub group: Option<u32>,
}

/// The file of a bound socket. It is removed by [`BoundFile::remove`], unless another server has replaced it.
#[derive(Debug)]
pub(super) struct BoundFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Binds the socket and lets it listen. The file appears under its path with its final permissions. The file of a server
    /// that has ended is replaced.
    ///
    /// # Errors
    /// If a server listens there, or something else than a socket has the path, or the file cannot be made.
    pub(super) fn bind(&self, backlog: i32) -> io::Result<(Socket, BoundFile)> {
        self.bind_file(backlog).map_err(|error| {
            let path = self.path.display();
            io::Error::new(error.kind(), format!("cannot listen on {path}: {error}"))
        })
    }

    /// Returns true if a server listens on the socket.
    ///
    /// # Errors
    /// If something else than a socket has the path, or the file cannot be examined.
    pub fn is_taken(&self) -> io::Result<bool> {
        match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Ok(file) if !file.file_type().is_socket() => {
                return Err(io::Error::other("there is a file that is no socket"));
            }
            file => file.map(drop)?,
        }
        let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        probe.set_nonblocking(true)?; // a server whose backlog is full listens, too
        match probe.connect(&SockAddr::unix(&self.path)?) {
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
                Ok(false)
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(true),
        }
    }

    fn bind_file(&self, backlog: i32) -> io::Result<(Socket, BoundFile)> {
        let directory = self.path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Two servers that start at once would both find the file of an earlier one, and replace each other's.
        let directory = open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        lock(|| flock(&directory, FlockOperation::NonBlockingLockExclusive))?;
        if self.is_taken()? {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another server listens on it"));
        }
        // Nobody can connect before the permissions are set, because the socket does not listen yet.
        let mut new = OsString::from(&self.path);
        new.push(".new");
        let new = PathBuf::from(new);
        let address = SockAddr::unix(&new)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => socket.bind(&address)?,
        }
        let bound = self.publish(&socket, &new, backlog);
        if bound.is_err() {
            let _ = fs::remove_file(&new);
        }
        Ok((socket, bound?))
    }

    fn publish(&self, socket: &Socket, new: &Path, backlog: i32) -> io::Result<BoundFile> {
        if self.group.is_some() {
            chown(new, None, self.group)?; // the package's unit forbids this call
        }
        fs::set_permissions(new, Permissions::from_mode(self.mode))?;
        socket.listen(backlog)?;
        let file = fs::symlink_metadata(new)?;
        fs::rename(new, &self.path)?;
        Ok(BoundFile { path: self.path.clone(), device: file.dev(), inode: file.ino() })
    }
}

impl BoundFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file. If the server has lost the right to do so, the next server replaces it.
    pub(super) fn remove(&self) {
        let is_own = |file: fs::Metadata| (file.dev(), file.ino()) == (self.device, self.inode);
        if fs::symlink_metadata(&self.path).is_ok_and(is_own)
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::debug!("{} stays: {error}", self.path.display());
        }
    }
}

/// Takes a lock that others keep for a moment only.
fn lock(mut take: impl FnMut() -> rustix::io::Result<()>) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match take() {
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => thread::sleep(POLL),
            Err(Errno::WOULDBLOCK) => return Err(io::Error::other("another program has locked the directory")),
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    const BACKLOG: i32 = 16;

    fn socket_in(directory: &tempfile::TempDir) -> SocketFile {
        SocketFile { path: directory.path().join("peep.sock"), mode: 0o640, group: None }
    }

    #[test]
    fn the_file_has_its_permissions_and_goes_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let file = socket_in(&directory);
        let (_socket, bound) = file.bind(BACKLOG).unwrap();
        assert_eq!(fs::metadata(&file.path).unwrap().mode() & 0o7777, 0o640);
        UnixStream::connect(&file.path).unwrap();
        bound.remove();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_the_socket_of_a_server_that_has_ended_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let file = socket_in(&directory);
        let (first, bound) = file.bind(BACKLOG).unwrap();
        let why = file.bind(BACKLOG).unwrap_err();
        assert_eq!(why.kind(), io::ErrorKind::AddrInUse);
        assert!(why.to_string().ends_with("another server listens on it"), "{why}");
        drop(first);
        let (_second, _) = file.bind(BACKLOG).unwrap();
        bound.remove(); // which is no longer the first one's
        UnixStream::connect(&file.path).unwrap();
    }

    #[test]
    fn no_other_file_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let file = socket_in(&directory);
        fs::write(&file.path, "letter").unwrap();
        let why = file.bind(BACKLOG).unwrap_err().to_string();
        assert!(why.ends_with("peep.sock: there is a file that is no socket"), "{why}");
        assert_eq!(fs::read(&file.path).unwrap(), b"letter");
    }

    #[test]
    fn a_path_that_is_too_long_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = SocketFile { path: directory.path().join("x".repeat(120)), ..socket_in(&directory) };
        assert!(file.bind(BACKLOG).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
