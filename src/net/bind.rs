//! Binding listening sockets.

use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use super::address::ListenAddress;
use super::listener::Listener;

/// The most attempts to find a port that is free on every address.
const PORT_TRIES: u32 = 16;

/// Binds `port` on each address. Port 0 selects a free port, the same on all addresses. If the addresses are not
/// `required`, those that this machine does not have are skipped.
///
/// # Errors
/// If an address cannot be bound; the error names it.
pub fn bind(addresses: &[ListenAddress], port: u16, required: bool) -> io::Result<Vec<Listener>> {
    let listeners = bind_beside(addresses, port, required, &[])?;
    if listeners.is_empty() {
        return Err(io::Error::other("no address to listen on"));
    }
    Ok(listeners)
}

/// Does the same while the listeners that are to be `replaced` are still open: their addresses may be among those that are
/// bound, or cover them, as 0.0.0.0 covers 127.0.0.1. There may be no address to bind.
///
/// # Errors
/// As of [`bind`]. A server that has become another user cannot replace sockets that its first user has bound.
pub fn bind_beside(
    addresses: &[ListenAddress],
    port: u16,
    required: bool,
    replaced: &[Arc<Listener>],
) -> io::Result<Vec<Listener>> {
    match bind_free(addresses, port, required, false) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && !replaced.is_empty() => {
            replaced.iter().for_each(|listener| listener.share(true));
            let bound = bind_free(addresses, port, required, true);
            let all = replaced.iter().map(|listener| &**listener).chain(bound.iter().flatten());
            all.for_each(|listener| listener.share(false));
            bound
        }
        bound => bound,
    }
}

/// Binds the addresses. A free port is looked for that is free on all of them.
fn bind_free(addresses: &[ListenAddress], port: u16, required: bool, shared: bool) -> io::Result<Vec<Listener>> {
    let mut tries = 0;
    loop {
        match bind_once(addresses, port, required, shared) {
            Err(error) if port == 0 && error.kind() == io::ErrorKind::AddrInUse && tries < PORT_TRIES => tries += 1,
            result => return result,
        }
    }
}

fn bind_once(addresses: &[ListenAddress], mut port: u16, required: bool, shared: bool) -> io::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for address in addresses {
        match Listener::bind(address, port, shared) {
            Ok(listener) => {
                port = listener.port();
                listeners.push(listener);
            }
            Err(error) if !required && is_missing_family(&error) => {
                log::info!("not listening on {}: {error}", address.text_with_port(port));
            }
            Err(error) => {
                let what = format!("cannot listen on {}: {error}", address.text_with_port(port));
                return Err(io::Error::new(error.kind(), what));
            }
        }
    }
    Ok(listeners)
}

fn is_missing_family(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}
