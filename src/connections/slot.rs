//! Connection slots: first reserved by an acceptor, then occupied by a connection and its session.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::Socket;

use super::{Connection, Connections, Protocol, Service, WRITE_STALL};
use crate::events::Client;
use crate::net::Origin;

/// A connection slot that is reserved for the next connection. The slot becomes free when this is dropped.
#[derive(Debug)]
pub struct Reservation {
    connections: Arc<Connections>,
    protocol: Protocol,
}

impl Reservation {
    /// The caller has counted the slot as occupied.
    pub(super) fn new(connections: Arc<Connections>, protocol: Protocol) -> Self {
        Self { connections, protocol }
    }

    /// Enters an accepted connection into the registry; it occupies the slot from now on.
    #[must_use]
    pub fn occupy(self, stream: Socket, origin: Origin, service: Service) -> Slot {
        let connections = &self.connections;
        let id = connections.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let client = Client::new(id, origin, service);
        let connection = Arc::new(Connection::new(stream, client, self.protocol));
        connections.state.lock().insert(id, Arc::clone(&connection));
        if connections.is_closing() {
            // `close` may have run before this connection was in the registry.
            connection.end_reading();
        }
        Slot { id, reservation: self, connection }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.connections.state.lock().release(self.protocol);
        self.connections.changed.notify_all();
    }
}

/// The slot of an open connection, owned by its session. Dropping it removes the connection from the registry, frees the
/// slot and then closes the connection, so a client that sees the end of the stream can connect again at once.
#[derive(Debug)]
pub struct Slot {
    /// Identifies the connection in the log.
    pub id: u64,
    // Fields are dropped in this order.
    reservation: Reservation,
    connection: Arc<Connection>,
}

impl Slot {
    /// The protocol that the connection speaks.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.reservation.protocol
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.connection.client
    }

    /// How long a write to the client may make no progress.
    #[must_use]
    pub fn write_stall(&self) -> Duration {
        match self.protocol() {
            Protocol::Pop3 => Duration::from_millis(self.reservation.connections.write_stall.load(Ordering::Relaxed)),
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
        self.reservation.connections.state.lock().remove(self.id);
    }
}
