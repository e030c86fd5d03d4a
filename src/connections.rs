//! The open connections: how many there may be, who waits for a place, and how each is reached from outside its
//! session.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::guard::{MinRate, Pace};

/// The most connections at once, and the threads in the pool. The project's report measured this figure: 997
/// POP3 clients and one admin.
pub const MAX_CONNECTIONS: usize = 998;

/// The descriptors that so many may need: each its own, its lock's and a message's, or a transform's pipe and process.
pub const MAX_DESCRIPTORS: u64 = 4 * MAX_CONNECTIONS as u64;

/// What the limit can be set to.
pub const MAX_CONNECTIONS_RANGE: (u64, u64) = (1, MAX_CONNECTIONS as u64);

/// The most PEEP connections that have not authenticated. They are not limited by address, as they come from
/// loopback mostly, and each could hold a place until it has to be logged in.
const MAX_PEEP_STRANGERS: usize = 32;

/// A client that takes nothing at all for this long while it is being sent something is given up; a POP3 client sooner if
/// the autologout timer is shorter.
pub const WRITE_STALL: Duration = Duration::from_secs(120);

/// How long a PEEP client may take to authenticate while an admin waits for its slot: a few round trips, so that admins
/// who connect at the same time do not close each other.
const PEEP_HEAD_START: Duration = Duration::from_millis(500);

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 1939
    Pop3,
    /// The admin protocol.
    Peep,
}

/// The connections of both protocols together.
#[derive(Debug)]
pub struct Connections {
    state: Mutex<State>,
    /// A place has become free, the limit has changed, or the server is closing.
    changed: Condvar,
    closing: AtomicBool,
    /// [`WRITE_STALL`] of POP3 clients, in milliseconds.
    write_stall: AtomicU64,
}

#[derive(Debug)]
struct State {
    limit: usize,
    /// No limit can be higher.
    ceiling: usize,
    taken: usize,
    pop3: usize,
    next_id: u64,
    open: HashMap<u64, Arc<Connection>>,
}

impl State {
    /// The last place is kept for PEEP, so that POP3 clients cannot keep an admin out.
    fn has_room(&self, protocol: Protocol) -> bool {
        let limit = self.limit.min(self.ceiling);
        self.taken < limit && (protocol == Protocol::Peep || self.pop3 + 1 < limit)
    }

    /// The PEEP connections that have not authenticated, each with its number.
    fn peep_strangers(&self) -> impl Iterator<Item = (u64, &Connection)> {
        let is_stranger = |connection: &Connection| {
            connection.protocol == Protocol::Peep && !connection.logged_in.load(Ordering::Acquire)
        };
        self.open.iter().filter(move |(_, connection)| is_stranger(connection)).map(|(id, it)| (*id, &**it))
    }

    /// Of too many that have not authenticated the oldest has to go. An admin is not among them for long: who comes to
    /// authenticate does so at once.
    fn bound_peep_strangers(&self) {
        let strangers = || self.peep_strangers().filter(|(_, connection)| !connection.reading_is_ended());
        if strangers().count() > MAX_PEEP_STRANGERS
            && let Some((_, oldest)) = strangers().min_by_key(|(id, _)| *id)
        {
            oldest.end_reading();
        }
    }

    /// An admin waits and there is no room: closes the oldest PEEP connection that has not authenticated. One at a time
    /// is closed; while it ends this does nothing.
    fn make_room_for_admin(&self, now: Instant) -> ForAdmin {
        if self.peep_strangers().any(|(_, connection)| connection.reading_is_ended()) {
            return ForAdmin::Wait;
        }
        let Some((id, oldest)) = self.peep_strangers().min_by_key(|(id, _)| *id) else { return ForAdmin::Wait };
        let until = oldest.accepted + PEEP_HEAD_START;
        if now < until {
            return ForAdmin::TryAgain(until);
        }
        oldest.end_reading();
        ForAdmin::Closed(id)
    }
}

/// What can be done for an admin who waits for a connection slot.
#[derive(Debug, PartialEq, Eq)]
enum ForAdmin {
    /// This connection is being closed.
    Closed(u64),
    /// A connection has not had the time to authenticate yet.
    TryAgain(Instant),
    /// Only the end of another connection, or a higher limit, makes room.
    Wait,
}

/// An open connection, shared between its session and the registry.
#[derive(Debug)]
pub struct Connection {
    /// Reading and writing it needs no exclusive access.
    pub stream: TcpStream,
    protocol: Protocol,
    accepted: Instant,
    /// Since when its session waits for a command or for a part of the TLS handshake, if it does.
    waiting_since: Mutex<Option<Instant>>,
    /// The server itself has ended the reading.
    reading_ended: AtomicBool,
    logged_in: AtomicBool,
    /// How fast the client takes what it is sent.
    pace: Mutex<Pace>,
    given_up: AtomicBool,
}

impl Connection {
    /// Whether an end of the stream is the server's doing and says nothing of the client.
    #[must_use]
    pub fn reading_is_ended(&self) -> bool {
        self.reading_ended.load(Ordering::Acquire)
    }

    /// Lets the session read what has come in, and then the end of the stream.
    fn end_reading(&self) {
        self.reading_ended.store(true, Ordering::Release);
        let _ = self.stream.shutdown(Shutdown::Read);
    }

    /// The session waits for the client since `since`, or does not wait.
    pub fn set_waiting(&self, since: Option<Instant>) {
        *self.waiting_since.lock() = since;
    }

    /// The session knows who it is.
    pub fn set_logged_in(&self) {
        self.logged_in.store(true, Ordering::Release);
    }

    /// Does a write of `octets`, which tells how many it has sent, and takes the time.
    ///
    /// # Errors
    /// Those of the write; a timeout when it failed because the client was given up as too slow.
    pub fn timed(&self, octets: u64, write: impl FnOnce() -> io::Result<u64>) -> io::Result<u64> {
        self.pace.lock().begin(octets, Instant::now());
        let result = write();
        self.pace.lock().end(result.as_ref().copied().unwrap_or(0), Instant::now());
        result.map_err(|error| match self.given_up.load(Ordering::Acquire) {
            true => io::ErrorKind::TimedOut.into(),
            false => error,
        })
    }
}

impl Connections {
    /// With room for `limit`.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        let state = State { limit, ceiling: MAX_CONNECTIONS, taken: 0, pop3: 0, next_id: 1, open: HashMap::new() };
        let connections = Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            closing: AtomicBool::new(false),
            write_stall: AtomicU64::default(),
        };
        connections.set_write_stall(WRITE_STALL);
        Arc::new(connections)
    }

    /// Sets how long a POP3 client may take nothing of what it is sent, also for writes that are going on.
    pub fn set_write_stall(&self, stall: Duration) {
        let milliseconds = stall.min(WRITE_STALL).as_millis();
        self.write_stall.store(u64::try_from(milliseconds).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Waits for a place. `None` when the server is closing. To be called for PEEP when a client is waiting, as one that
    /// has not authenticated may lose its place to it.
    #[must_use]
    pub fn reserve(self: &Arc<Self>, protocol: Protocol) -> Option<Place> {
        let mut state = self.state.lock();
        while !self.is_closing() {
            if state.has_room(protocol) {
                state.taken += 1;
                state.pop3 += usize::from(protocol == Protocol::Pop3);
                return Some(Place { connections: Arc::clone(self), protocol });
            }
            if protocol == Protocol::Pop3 {
                self.changed.wait(&mut state);
                continue;
            }
            match state.make_room_for_admin(Instant::now()) {
                ForAdmin::Closed(id) => MutexGuard::unlocked(&mut state, || {
                    log::warn!(
                        "all places are taken and an admin waits: #{id}, which has not authenticated, is closed"
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

    /// Changes the limit. None is closed; a lower limit holds as connections end.
    pub fn set_limit(&self, limit: usize) {
        self.state.lock().limit = limit;
        self.changed.notify_all();
    }

    /// Whatever the limit is, there are no more connections than this: the machine has not the means.
    pub fn set_ceiling(&self, ceiling: usize) {
        self.state.lock().ceiling = ceiling;
        self.changed.notify_all();
    }

    /// How many connections speak `protocol` now.
    #[must_use]
    pub fn count(&self, protocol: Protocol) -> usize {
        self.state.lock().open.values().filter(|connection| connection.protocol == protocol).count()
    }

    /// Ends the reading of POP3 connections that have waited for a command longer than `timeout`. A session's
    /// own read timeout does that too, but is set when the wait begins; this is for a timeout lowered since.
    pub fn end_overdue(&self, timeout: Duration) {
        let overdue =
            |connection: &Connection| connection.waiting_since.lock().is_some_and(|since| since.elapsed() > timeout);
        for connection in self.state.lock().open.values() {
            if connection.protocol == Protocol::Pop3 && overdue(connection) {
                connection.end_reading();
            }
        }
    }

    /// When all of POP3's places are taken: ends the reading of those connections that have been waited for longer than
    /// `patience` and have not logged in, be it in a TLS handshake. Those of PEEP are among them when they have places
    /// that POP3 clients could have. Returns how many.
    pub fn make_room(&self, patience: Duration) -> usize {
        let loiters = |connection: &Connection| {
            !connection.logged_in.load(Ordering::Acquire)
                && !connection.reading_is_ended()
                && connection.accepted.elapsed() > patience
                && connection.waiting_since.lock().is_some()
        };
        let state = self.state.lock();
        if state.has_room(Protocol::Pop3) {
            return 0;
        }
        let of_peep_too = state.pop3 + 1 < state.limit.min(state.ceiling);
        let loiterers = state
            .open
            .values()
            .filter(|connection| (of_peep_too || connection.protocol == Protocol::Pop3) && loiters(connection));
        loiterers.map(|connection| connection.end_reading()).count()
    }

    /// Closes connections whose client takes what it is sent too slowly, so that it holds its thread and its maildrop
    /// no longer.
    pub fn end_slow(&self, least: MinRate) {
        let now = Instant::now();
        for connection in self.state.lock().open.values() {
            if connection.pace.lock().is_too_slow(least, now) {
                connection.given_up.store(true, Ordering::Release);
                let _ = connection.stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// Whether the server is shutting down.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// The server is shutting down: from now on there is a place for nobody.
    pub fn let_nobody_in(&self) {
        let _state = self.state.lock(); // so that who is about to wait sees it
        self.closing.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    /// Ends idle sessions, gives the others `grace` to finish what they are at, then closes them. True when all
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

    fn all_ended(&self, state: &mut MutexGuard<'_, State>, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while state.taken > 0 {
            if self.changed.wait_until(state, deadline).timed_out() {
                return false;
            }
        }
        true
    }
}

/// The right to one connection; free again when dropped.
#[derive(Debug)]
pub struct Place {
    connections: Arc<Connections>,
    protocol: Protocol,
}

impl Place {
    /// Makes an accepted connection known.
    #[must_use]
    pub fn take(self, stream: TcpStream, peer: SocketAddr) -> Slot {
        let connections = &self.connections;
        let connection = Arc::new(Connection {
            stream,
            protocol: self.protocol,
            accepted: Instant::now(),
            waiting_since: Mutex::new(None),
            reading_ended: AtomicBool::new(false),
            logged_in: AtomicBool::new(false),
            pace: Mutex::default(),
            given_up: AtomicBool::new(false),
        });
        let id = {
            let mut state = connections.state.lock();
            let id = state.next_id;
            state.next_id += 1;
            state.open.insert(id, Arc::clone(&connection));
            state.bound_peep_strangers();
            id
        };
        if connections.is_closing() {
            // `close` may have looked before this one was known.
            connection.end_reading();
        }
        Slot { id, peer, place: self, connection }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.connections.state.lock();
        state.taken -= 1;
        state.pop3 -= usize::from(self.protocol == Protocol::Pop3);
        drop(state);
        self.connections.changed.notify_all();
    }
}

/// A connection's place in the registry, owned by its session. When it is dropped the connection is forgotten,
/// and then closed: who sees the end of the stream also sees the place free.
#[derive(Debug)]
pub struct Slot {
    /// Tells the connection in the log.
    pub id: u64,
    /// The client's address.
    pub peer: SocketAddr,
    // Dropped in this order.
    place: Place,
    connection: Arc<Connection>,
}

impl Slot {
    /// What it speaks.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.place.protocol
    }

    /// How long the client may take nothing of what it is sent.
    #[must_use]
    pub fn write_stall(&self) -> Duration {
        match self.protocol() {
            Protocol::Pop3 => Duration::from_millis(self.place.connections.write_stall.load(Ordering::Relaxed)),
            Protocol::Peep => WRITE_STALL,
        }
    }

    /// The connection itself.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.place.connections.state.lock().open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    /// A connection of this process with itself.
    fn stream() -> (TcpStream, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (TcpStream::connect(address).unwrap(), address)
    }

    fn slot(connections: &Arc<Connections>, protocol: Protocol) -> Slot {
        let (stream, peer) = stream();
        connections.reserve(protocol).unwrap().take(stream, peer)
    }

    fn has_room(connections: &Connections, protocol: Protocol) -> bool {
        connections.state.lock().has_room(protocol)
    }

    #[test]
    fn the_last_place_is_kept_for_peep() {
        let connections = Connections::new(2);
        let _client = slot(&connections, Protocol::Pop3);
        assert!(!has_room(&connections, Protocol::Pop3));
        assert!(has_room(&connections, Protocol::Peep));
        let _admin = slot(&connections, Protocol::Peep);
        assert!(!has_room(&connections, Protocol::Peep));
        assert_eq!((connections.count(Protocol::Pop3), connections.count(Protocol::Peep)), (1, 1));
    }

    #[test]
    fn room_is_made_of_who_has_not_logged_in_and_only_when_it_is_needed() {
        let connections = Connections::new(4);
        let slots = [(); 3].map(|()| slot(&connections, Protocol::Pop3));
        let [user, at_work, silent] = slots.each_ref().map(|slot| slot.connection());
        user.set_logged_in();
        user.set_waiting(Some(Instant::now()));
        silent.set_waiting(Some(Instant::now()));
        assert_eq!(connections.make_room(Duration::from_secs(1000)), 0);
        connections.set_limit(5);
        assert_eq!(connections.make_room(Duration::ZERO), 0);
        connections.set_limit(4);
        assert_eq!(connections.make_room(Duration::ZERO), 1);
        assert_eq!([user, at_work, silent].map(Connection::reading_is_ended), [false, false, true]);
        assert_eq!(connections.make_room(Duration::ZERO), 0);
    }

    #[test]
    fn peep_clients_make_room_for_pop3_only_where_that_helps() {
        let connections = Connections::new(3);
        let slots = [Protocol::Pop3, Protocol::Peep, Protocol::Peep].map(|protocol| slot(&connections, protocol));
        let [_, silent, admin] = slots.each_ref().map(|slot| slot.connection());
        admin.set_logged_in();
        slots.iter().for_each(|slot| slot.connection().set_waiting(Some(Instant::now())));
        slots[0].connection().set_logged_in();
        connections.set_limit(2);
        assert_eq!(connections.make_room(Duration::ZERO), 0);
        connections.set_limit(3);
        assert_eq!(connections.make_room(Duration::ZERO), 1);
        assert_eq!([silent, admin].map(Connection::reading_is_ended), [true, false]);
    }

    #[test]
    fn the_oldest_unauthenticated_peep_client_makes_room_for_an_admin() {
        let connections = Connections::new(4);
        let [admin, first, second] = [(); 3].map(|()| slot(&connections, Protocol::Peep));
        let _client = slot(&connections, Protocol::Pop3);
        admin.connection().set_logged_in();
        let room = |now| connections.state.lock().make_room_for_admin(now);
        let (accepted, later) = (first.connection().accepted, Instant::now() + PEEP_HEAD_START);
        // It may be about to authenticate.
        assert_eq!(room(accepted), ForAdmin::TryAgain(accepted + PEEP_HEAD_START));
        assert_eq!(room(later), ForAdmin::Closed(first.id));
        assert!(first.connection().reading_is_ended());
        // While it ends, no other one is closed.
        assert_eq!(room(later), ForAdmin::Wait);
        drop(first);
        assert_eq!(room(later), ForAdmin::Closed(second.id));
        drop(second);
        assert_eq!(room(later), ForAdmin::Wait);
        assert!(!admin.connection().reading_is_ended());
    }

    #[test]
    fn the_ceiling_is_above_any_limit() {
        let connections = Connections::new(998);
        connections.set_ceiling(2);
        let _client = slot(&connections, Protocol::Pop3);
        connections.set_limit(500);
        assert!(!has_room(&connections, Protocol::Pop3));
        assert_eq!(connections.limit(), 500);
    }

    /// As [`crate::server`] runs it: the slot belongs to the session.
    #[test]
    fn a_session_that_panics_gives_its_place_back() {
        let connections = Connections::new(2);
        for _ in 0..5 {
            let slot = slot(&connections, Protocol::Pop3);
            let session = AssertUnwindSafe(move || {
                assert_eq!(slot.connection().protocol, Protocol::Pop3);
                resume_unwind(Box::new("a fault of the server"));
            });
            assert!(catch_unwind(session).is_err());
            assert_eq!(connections.count(Protocol::Pop3), 0);
            assert!(has_room(&connections, Protocol::Pop3));
        }
    }

    /// A place that was reserved for nobody is free, too.
    #[test]
    fn a_place_that_is_not_taken_is_free() {
        let connections = Connections::new(2);
        drop(connections.reserve(Protocol::Pop3));
        drop(connections.reserve(Protocol::Pop3));
        connections.let_nobody_in();
        assert!(connections.reserve(Protocol::Peep).is_none());
        assert!(connections.close(Duration::ZERO, Duration::ZERO));
    }
}
