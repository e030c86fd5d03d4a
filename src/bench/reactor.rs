//! Many clients on one thread: each is a future, polled when its socket has something to read.
//!
//! With a thread for each client, half of this program's CPU time was spent on switching between them. On a small
//! machine the server under test would lack that time. With futures, the code of a session still follows the protocol,
//! and one system call returns all sockets that are ready. Only its socket and the clock wake a future, so no waker is
//! needed: every future is also polled at each tick.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

/// The most that a timeout may be noticed late. Each tick costs one cheap poll of every client.
const TICK: Duration = Duration::from_millis(50);

/// Events fetched by one system call.
const EVENTS: usize = 1024;

/// Tells whether a client's socket has something to read.
#[derive(Debug, Default)]
pub(super) struct Readiness(Cell<bool>);

impl Readiness {
    pub(super) fn set(&self, ready: bool) {
        self.0.set(ready);
    }

    /// Waits for something to read. Returns false if `time` passes first.
    pub(super) async fn within(&self, time: Duration) -> bool {
        self.before(Instant::now() + time, || false).await
    }

    /// Waits for something to read. Returns false at `deadline`, or at the tick after `cancelled` becomes true.
    pub(super) async fn before(&self, deadline: Instant, cancelled: impl Fn() -> bool) -> bool {
        poll_fn(|_| {
            if self.0.get() {
                Poll::Ready(true)
            } else if cancelled() || Instant::now() >= deadline {
                Poll::Ready(false)
            } else {
                Poll::Pending
            }
        })
        .await
    }
}

/// A thread's event loop for several clients, each identified by its slot.
pub(super) struct Reactor {
    epoll: OwnedFd,
    slots: Vec<Readiness>,
}

impl Reactor {
    pub(super) fn new(slots: usize) -> io::Result<Reactor> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Reactor { epoll, slots: (0..slots).map(|_| Readiness::default()).collect() })
    }

    pub(super) fn readiness(&self, slot: usize) -> &Readiness {
        &self.slots[slot]
    }

    /// Lets the socket's events set the slot's readiness, until the socket is closed.
    pub(super) fn watch(&self, socket: &TcpStream, slot: usize) -> io::Result<()> {
        self.slots[slot].set(false);
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(slot as u64), EventFlags::IN)?)
    }

    /// Waits until a watched socket is connected or refused. Needed by a client that sends first. Returns false if
    /// `time` passes before that.
    pub(super) async fn connected(&self, socket: &TcpStream, slot: usize, time: Duration) -> io::Result<bool> {
        let data = EventData::new_u64(slot as u64);
        epoll::modify(&self.epoll, socket, data, EventFlags::OUT)?;
        let in_time = self.slots[slot].within(time).await;
        epoll::modify(&self.epoll, socket, data, EventFlags::IN)?;
        Ok(in_time)
    }

    /// Polls the clients, in the order of their slots, until all are done.
    pub(super) fn drive<'a>(&self, clients: impl Iterator<Item = impl Future<Output = ()> + 'a>) -> io::Result<()> {
        let mut clients: Vec<Option<Pin<Box<_>>>> = clients.map(|client| Some(Box::pin(client))).collect();
        let mut running = clients.len();
        let mut poll = |slot: usize, running: &mut usize| {
            let Some(client) = &mut clients[slot] else {
                return;
            };
            if client.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                clients[slot] = None;
                *running -= 1;
            }
        };

        let timeout = Timespec { tv_sec: 0, tv_nsec: TICK.as_nanos() as _ };
        let mut events = Vec::with_capacity(EVENTS);
        let mut next_tick = Instant::now();
        while running > 0 {
            if Instant::now() >= next_tick {
                (0..self.slots.len()).for_each(|slot| poll(slot, &mut running));
                next_tick = Instant::now() + TICK;
            }
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                let slot = event.data.u64() as usize;
                self.slots[slot].set(true);
                poll(slot, &mut running);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn each_client_is_woken_by_its_own_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pair = || {
            let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (near, listener.accept().unwrap().0)
        };
        let (mut near, far): (Vec<_>, Vec<_>) = (0..3).map(|_| pair()).unzip();
        let reactor = Reactor::new(3).unwrap();
        let order = Cell::new(0);

        // Client 0 waits for 1, which waits for 2, which speaks first.
        let clients = near.iter_mut().enumerate().map(|(slot, socket)| {
            let (reactor, far, order) = (&reactor, &far, &order);
            async move {
                reactor.watch(socket, slot).unwrap();
                if slot < 2 {
                    assert!(reactor.readiness(slot).within(Duration::from_secs(3600)).await);
                    assert_eq!(socket.read(&mut [0; 8]).unwrap(), 1);
                }
                assert_eq!(order.replace(order.get() + 1), 2 - slot);
                if slot > 0 {
                    (&far[slot - 1]).write_all(b"x").unwrap();
                }
            }
        });
        reactor.drive(clients).unwrap();
        assert_eq!(order.get(), 3);
    }

    #[test]
    fn a_wait_ends_at_its_deadline_or_when_cancelled() {
        let reactor = Reactor::new(2).unwrap();
        let clients = (0..2).map(|slot| {
            let readiness = reactor.readiness(slot);
            async move {
                assert!(!readiness.within(Duration::ZERO).await);
                assert!(!readiness.before(Instant::now() + Duration::from_secs(3600), || true).await);
            }
        });
        reactor.drive(clients).unwrap();
    }
}
