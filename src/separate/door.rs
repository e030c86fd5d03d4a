//! How a connection comes about between the server and a worker that is free.
//!
//! Through the sockets that the server made when it started the monitor, the server sends one end of a new pair of sockets.
//! The kernel gives it to one of the workers that wait. Through a UNIX socket, the server connects, and the kernel gives the
//! connection to one of the workers that wait there.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::cmsg_space;
use rustix::net::sockopt::socket_acceptconn;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, connect, recvmsg, sendmsg, socket_with,
    socketpair,
};

/// The server's way to a worker.
#[derive(Debug)]
pub enum Door {
    /// The server's end of the sockets that it shares with the workers that it started.
    Shared(OwnedFd),
    /// The UNIX socket of workers that another service has started.
    Path(PathBuf),
}

/// A new pair of connected sockets, on which each message arrives whole.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

impl Door {
    /// Returns a connection to the worker that is free next. A worker may not be there yet.
    ///
    /// # Errors
    /// `WouldBlock` if too many connections wait already; any other error if there are no workers.
    pub fn connect(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Shared(door) => {
                let (ours, theirs) = pair()?;
                send(door, theirs)?;
                Ok(ours)
            }
            Self::Path(path) => {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK; // or connect(2) would wait in a full queue
                let connection = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
                connect(&connection, &SocketAddrUnix::new(path)?)?;
                Ok(connection)
            }
        }
    }
}

fn send(door: &OwnedFd, connection: OwnedFd) -> io::Result<()> {
    let descriptors = [connection.as_fd()];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(door, &[IoSlice::new(b"?")], &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    Ok(())
}

/// A worker's side of the door: where it waits for connections. Several workers wait at the same one.
#[derive(Debug)]
pub(super) struct Waiting {
    socket: OwnedFd,
    is_listener: bool,
}

impl Waiting {
    pub(super) fn at(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { is_listener: socket_acceptconn(&socket)?, socket })
    }

    /// Waits for the next connection. Returns `None` when the server has gone.
    pub(super) fn next(&self) -> io::Result<Option<OwnedFd>> {
        loop {
            let result = if self.is_listener { self.accept().map(Some) } else { self.receive() };
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                result => return result,
            }
        }
    }

    fn accept(&self) -> io::Result<OwnedFd> {
        Ok(accept_with(&self.socket, SocketFlags::CLOEXEC)?)
    }

    fn receive(&self) -> io::Result<Option<OwnedFd>> {
        let mut octet = [0; 1];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut octet)];
        let received = recvmsg(&self.socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        if received.bytes == 0 {
            return Ok(None);
        }
        let mut messages = control.drain();
        let connection = messages.find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        connection.map(Some).ok_or_else(|| io::Error::other("the server has sent no connection"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::{read, write};
    use rustix::net::{bind, listen};

    /// A door, and the workers' side of it.
    fn doors() -> [(Door, Waiting, Option<tempfile::TempDir>); 2] {
        let (ours, theirs) = pair().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&listener, 4).unwrap();
        [
            (Door::Shared(ours), Waiting::at(theirs).unwrap(), None),
            (Door::Path(path), Waiting::at(listener).unwrap(), Some(directory)),
        ]
    }

    #[test]
    fn each_connection_has_its_own_messages() {
        for (door, waiting, _directory) in doors() {
            let [first, second] = [(); 2].map(|()| door.connect().unwrap());
            write(&second, b"two").unwrap();
            write(&first, b"one").unwrap();
            for expected in [&b"one"[..], b"two"] {
                let connection = waiting.next().unwrap().unwrap();
                let mut buffer = [0; 9];
                let length = read(&connection, &mut buffer).unwrap();
                assert_eq!(&buffer[..length], expected);
            }
        }
    }

    #[test]
    fn both_sides_notice_that_the_other_has_gone() {
        let [(door, waiting, _), (path, listener, _directory)] = doors();
        drop(waiting);
        assert!(door.connect().is_err());
        drop(listener);
        assert!(path.connect().is_err());
        let [(door, waiting, _), _] = doors();
        drop(door);
        assert!(waiting.next().unwrap().is_none());
    }

    #[test]
    fn a_connection_that_nobody_takes_does_not_block_the_server() {
        for (door, _waiting, _directory) in doors() {
            let refused = std::iter::repeat_with(|| door.connect()).take(10_000).find_map(Result::err);
            assert_eq!(refused.unwrap().kind(), io::ErrorKind::WouldBlock);
        }
    }
}
