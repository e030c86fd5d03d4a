//! Finds the programs that listen on a port, from the kernel's files in /proc.

use std::collections::HashSet;

use procfs::ProcResult;
use procfs::net::{TcpState, tcp, tcp6};
use procfs::process::{FDTarget, Process, all_processes};

/// A program that listens on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The program's name.
    pub name: String,
    /// The number of its process.
    pub process: i32,
}

/// Returns the programs that listen on this TCP port of any address. Only root can see other users' programs.
#[must_use]
pub fn holders(port: u16) -> Vec<Holder> {
    let sockets: HashSet<u64> = [tcp(), tcp6()]
        .into_iter()
        .flatten()
        .flatten()
        .filter(|socket| socket.state == TcpState::Listen && socket.local_address.port() == port)
        .map(|socket| socket.inode)
        .collect();
    let processes = all_processes().into_iter().flatten().flatten();
    processes.filter_map(|process| holder(&process, &sockets).ok().flatten()).collect()
}

/// Returns the process as a holder if it has one of the sockets open. A process that has ended meanwhile is an error.
fn holder(process: &Process, sockets: &HashSet<u64>) -> ProcResult<Option<Holder>> {
    let holds_one = process
        .fd()?
        .flatten()
        .any(|descriptor| matches!(descriptor.target, FDTarget::Socket(socket) if sockets.contains(&socket)));
    Ok(if holds_one { Some(Holder { name: process.stat()?.comm, process: process.pid }) } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_program_that_listens_is_found() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // Not every machine has IPv6.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let port = listener.local_addr().unwrap().port();
            let us = i32::try_from(std::process::id()).unwrap();
            assert!(holders(port).iter().any(|holder| holder.process == us), "{:?}", holders(port));
        }
    }
}
