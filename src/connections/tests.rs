//! Tests of the registry.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::state::{ForAdmin, PEEP_HEAD_START};
use super::{Connection, Connections, Protocol, Service, Slot};

/// A connection to a listener of this process.
fn stream() -> (TcpStream, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (TcpStream::connect(address).unwrap(), address)
}

fn slot(connections: &Arc<Connections>, protocol: Protocol) -> Slot {
    let (stream, peer) = stream();
    connections.reserve(protocol).unwrap().occupy(stream.into(), peer.into(), Service::Pop3)
}

fn has_free_slot(connections: &Connections, protocol: Protocol) -> bool {
    connections.state.lock().has_free_slot(protocol)
}

#[test]
fn the_last_slot_is_reserved_for_peep() {
    let connections = Connections::new(2);
    let _client = slot(&connections, Protocol::Pop3);
    assert!(!has_free_slot(&connections, Protocol::Pop3));
    assert!(has_free_slot(&connections, Protocol::Peep));
    let _admin = slot(&connections, Protocol::Peep);
    assert!(!has_free_slot(&connections, Protocol::Peep));
    assert_eq!((connections.count(Protocol::Pop3), connections.count(Protocol::Peep)), (1, 1));
}

#[test]
fn unauthenticated_connections_are_ended_only_if_all_slots_are_taken() {
    let connections = Connections::new(4);
    let slots = [(); 3].map(|()| slot(&connections, Protocol::Pop3));
    let [user, busy, silent] = slots.each_ref().map(|slot| slot.connection());
    user.set_logged_in();
    user.set_waiting(Some(Instant::now()));
    silent.set_waiting(Some(Instant::now()));
    assert_eq!(connections.end_unauthenticated_if_full(Duration::from_secs(1000)), 0);
    connections.set_limit(5);
    assert_eq!(connections.end_unauthenticated_if_full(Duration::ZERO), 0);
    connections.set_limit(4);
    assert_eq!(connections.end_unauthenticated_if_full(Duration::ZERO), 1);
    assert_eq!([user, busy, silent].map(Connection::reading_is_ended), [false, false, true]);
    assert_eq!(connections.end_unauthenticated_if_full(Duration::ZERO), 0);
}

#[test]
fn unauthenticated_peep_connections_are_ended_only_if_pop3_can_use_their_slots() {
    let connections = Connections::new(3);
    let slots = [Protocol::Pop3, Protocol::Peep, Protocol::Peep].map(|protocol| slot(&connections, protocol));
    let [_, silent, admin] = slots.each_ref().map(|slot| slot.connection());
    admin.set_logged_in();
    slots.iter().for_each(|slot| slot.connection().set_waiting(Some(Instant::now())));
    slots[0].connection().set_logged_in();
    connections.set_limit(2);
    assert_eq!(connections.end_unauthenticated_if_full(Duration::ZERO), 0);
    connections.set_limit(3);
    assert_eq!(connections.end_unauthenticated_if_full(Duration::ZERO), 1);
    assert_eq!([silent, admin].map(Connection::reading_is_ended), [true, false]);
}

#[test]
fn the_oldest_unauthenticated_peep_connection_is_closed_for_an_admin() {
    let connections = Connections::new(4);
    let [admin, first, second] = [(); 3].map(|()| slot(&connections, Protocol::Peep));
    let _client = slot(&connections, Protocol::Pop3);
    admin.connection().set_logged_in();
    let free_slot = |now| connections.state.lock().free_slot_for_admin(now);
    let (accepted, later) = (first.connection().client.since, Instant::now() + PEEP_HEAD_START);
    // It may be about to authenticate, so it is not closed yet.
    assert_eq!(free_slot(accepted), ForAdmin::TryAgain(accepted + PEEP_HEAD_START));
    assert_eq!(free_slot(later), ForAdmin::Closed(first.id));
    assert!(first.connection().reading_is_ended());
    // While it ends, no other connection is closed.
    assert_eq!(free_slot(later), ForAdmin::Wait);
    drop(first);
    assert_eq!(free_slot(later), ForAdmin::Closed(second.id));
    drop(second);
    assert_eq!(free_slot(later), ForAdmin::Wait);
    assert!(!admin.connection().reading_is_ended());
}

#[test]
fn the_ceiling_holds_whatever_the_limit_is() {
    let connections = Connections::new(998);
    connections.set_ceiling(2);
    let _client = slot(&connections, Protocol::Pop3);
    connections.set_limit(500);
    assert!(!has_free_slot(&connections, Protocol::Pop3));
    assert_eq!(connections.limit(), 500);
}

/// The session owns the slot, as in [`crate::server`].
#[test]
fn a_session_that_panics_frees_its_slot() {
    let connections = Connections::new(2);
    for _ in 0..5 {
        let slot = slot(&connections, Protocol::Pop3);
        let session = AssertUnwindSafe(move || {
            assert_eq!(slot.connection().protocol, Protocol::Pop3);
            resume_unwind(Box::new("a fault of the server"));
        });
        assert!(catch_unwind(session).is_err());
        assert_eq!(connections.count(Protocol::Pop3), 0);
        assert!(has_free_slot(&connections, Protocol::Pop3));
    }
}

#[test]
fn a_reservation_that_is_dropped_frees_its_slot() {
    let connections = Connections::new(2);
    drop(connections.reserve(Protocol::Pop3));
    drop(connections.reserve(Protocol::Pop3));
    connections.start_closing();
    assert!(connections.reserve(Protocol::Peep).is_none());
    assert!(connections.close(Duration::ZERO, Duration::ZERO));
}
