//! The registry of open connections. It limits how many there are, gives out connection slots and lets the server reach
//! a connection from outside its session.
//!
//! - [`Connections`] is the registry. Acceptors call [`Connections::reserve`], which waits for a free slot.
//! - [`Reservation`] is a reserved slot; with an accepted connection it becomes a [`Slot`], which the session owns.
//! - [`Connection`] is what the session and the registry share about one connection. It has the [`Progress`] of the session,
//!   which an admin sees.
//!
//! [`crate::server`] owns the registry and calls the time limits in `enforce` every second.

mod connection;
mod enforce;
mod kick;
mod progress;
mod service;
mod slot;
mod state;
#[cfg(test)]
mod tests;

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

pub use self::connection::Connection;
pub use self::progress::{EndedBy, Progress, Stage};
pub use self::service::Service;
pub use self::slot::{Reservation, Slot};
use self::state::{ForAdmin, State};

/// The most connections at once, and the number of threads in the pool. The project's report measured this figure: 997
/// POP3 clients and one admin.
pub const MAX_CONNECTIONS: usize = 998;

/// The most file descriptors that [`MAX_CONNECTIONS`] may need. Each connection needs up to four: its socket, its
/// maildrop's lock, and either a message or a transform's pipe and process.
pub const MAX_DESCRIPTORS: u64 = 4 * MAX_CONNECTIONS as u64;

/// The values that the limit on connections can be set to.
pub const MAX_CONNECTIONS_RANGE: (u64, u64) = (1, MAX_CONNECTIONS as u64);

/// How long a client may read nothing at all while it is being sent something; then its connection is closed. For POP3
/// clients the autologout timer is the limit if it is shorter.
pub const WRITE_STALL: Duration = Duration::from_secs(120);

/// The protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 1939
    Pop3,
    /// The admin protocol.
    Peep,
}

/// The open connections of both protocols.
#[derive(Debug)]
pub struct Connections {
    state: Mutex<State>,
    /// Notified when a slot becomes free, when the limit changes and when the server begins to close.
    changed: Condvar,
    closing: AtomicBool,
    /// POP3 clients were waiting for a slot when the server last looked.
    clients_wait: AtomicBool,
    draining: AtomicBool,
    /// The number of the connection that was accepted last.
    last_id: AtomicU64,
    /// [`WRITE_STALL`] of POP3 clients, in milliseconds.
    write_stall: AtomicU64,
}

impl Connections {
    /// Creates a registry for at most `limit` connections.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        let connections = Self {
            state: Mutex::new(State::new(limit)),
            changed: Condvar::new(),
            closing: AtomicBool::new(false),
            clients_wait: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            last_id: AtomicU64::default(),
            write_stall: AtomicU64::default(),
        };
        connections.set_write_stall(WRITE_STALL);
        Arc::new(connections)
    }

    /// The number of slots that are reserved or occupied.
    #[must_use]
    pub fn used(&self) -> usize {
        self.state.lock().used
    }

    /// Notes whether POP3 clients are waiting for a slot.
    pub fn set_clients_wait(&self, wait: bool) {
        self.clients_wait.store(wait, Ordering::Relaxed);
    }

    /// Returns true if POP3 clients were waiting for a slot a moment ago.
    #[must_use]
    pub fn clients_wait(&self) -> bool {
        self.clients_wait.load(Ordering::Relaxed)
    }

    /// Reserves a slot, waiting until one is free. Returns `None` when the server is closing. For PEEP, call this only
    /// when a client is waiting in the backlog, because an unauthenticated connection may be closed for it.
    #[must_use]
    pub fn reserve(self: &Arc<Self>, protocol: Protocol) -> Option<Reservation> {
        let mut state = self.state.lock();
        while !self.is_closing() {
            // While POP3 clients are turned away, they need not wait for a slot.
            if state.has_free_slot(protocol) || (protocol == Protocol::Pop3 && self.is_draining()) {
                state.reserve(protocol);
                return Some(Reservation::new(Arc::clone(self), protocol));
            }
            if protocol == Protocol::Pop3 {
                self.changed.wait(&mut state);
                continue;
            }
            match state.free_slot_for_admin(Instant::now()) {
                ForAdmin::Closed(id) => MutexGuard::unlocked(&mut state, || {
                    log::warn!(
                        "all connection slots are taken and an admin is waiting: closed #{id}, which had not authenticated"
                    );
                }),
                ForAdmin::TryAgain(at) => drop(self.changed.wait_until(&mut state, at)),
                ForAdmin::Wait => self.changed.wait(&mut state),
            }
        }
        None
    }

    /// The most connections at once.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.state.lock().limit
    }

    /// Changes the limit. Open connections stay open; a lower limit takes effect as they end.
    pub fn set_limit(&self, limit: usize) {
        self.state.lock().limit = limit;
        self.changed.notify_all();
    }

    /// Sets the most connections that the machine's resources allow. It holds whatever the limit is.
    pub fn set_ceiling(&self, ceiling: usize) {
        self.state.lock().ceiling = ceiling;
        self.changed.notify_all();
    }

    /// The number of open connections that speak `protocol`, without health checks.
    #[must_use]
    pub fn count(&self, protocol: Protocol) -> usize {
        let counts =
            |connection: &&Arc<Connection>| connection.protocol == protocol && !connection.client.is_health_check();
        self.state.lock().open.values().filter(counts).count()
    }

    /// Returns true if new POP3 connections are turned away.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Sets whether new POP3 connections are turned away. Open ones go on.
    pub fn set_draining(&self, draining: bool) {
        let _state = self.state.lock(); // so that an acceptor that is about to wait sees the change
        self.draining.store(draining, Ordering::Release);
        self.changed.notify_all();
    }

    /// Returns true if the server is shutting down.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Begins the shutdown: from now on, [`Connections::reserve`] returns `None`.
    pub fn start_closing(&self) {
        let _state = self.state.lock(); // so that an acceptor that is about to wait sees the change
        self.closing.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    /// Ends idle sessions, lets the others work for `grace`, then closes their connections. Returns true if all sessions
    /// have ended within `last` after that.
    pub fn close(&self, grace: Duration, last: Duration) -> bool {
        let mut state = self.state.lock();
        state.open.values().for_each(|connection| connection.end_reading());
        if self.all_ended(&mut state, grace) {
            return true;
        }
        for connection in state.open.values() {
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
        self.all_ended(&mut state, last)
    }

    /// Waits until no slot is used. Returns false if that takes longer than `limit`.
    fn all_ended(&self, state: &mut MutexGuard<'_, State>, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while state.used > 0 {
            if self.changed.wait_until(state, deadline).timed_out() {
                return false;
            }
        }
        true
    }
}
