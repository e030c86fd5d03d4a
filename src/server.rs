//! The server as a whole: binds, starts an acceptor thread for each listening socket and the pool of sessions,
//! waits for a signal, shuts down.

use std::fmt;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, select, tick, unbounded};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;
use crate::connections::{MAX_CONNECTIONS, Protocol, Slot};
use crate::net::{self, Listener, Socket, WRITE_STALL};
use crate::shared::Shared;
use crate::{peep, pop3};

/// A session needs little; a thread's stack is not resident until it is used.
const STACK: usize = 256 * 1024;

/// How long a shut-down lets sessions finish what they are at, and how long those closed then take to notice.
const GRACE: Duration = Duration::from_secs(3);
const LAST_GRACE: Duration = Duration::from_secs(1);

/// How often sessions that wait are held against the autologout timer, which PEEP may have lowered.
const TICK: Duration = Duration::from_secs(1);

/// Descriptors beside those of connections: listeners, log, standard streams, the mail root and some to spare.
const OTHER_DESCRIPTORS: u64 = 64;

/// A connection's own descriptor, a message's file, and a transform's pipe and process.
const DESCRIPTORS_PER_CONNECTION: u64 = 4;

/// A server whose ports are bound.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    listeners: Vec<(Protocol, Listener)>,
}

/// Why a server shuts down, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(pub &'static str);

impl Server {
    /// Binds the ports.
    ///
    /// # Errors
    /// When a port cannot be bound.
    pub fn bind(config: Config) -> io::Result<Self> {
        let mut listeners = Vec::new();
        for (protocol, endpoint) in [(Protocol::Pop3, &config.pop3), (Protocol::Peep, &config.peep)] {
            let bound = net::bind(&endpoint.addresses, endpoint.port, endpoint.required)?;
            listeners.extend(bound.into_iter().map(|listener| (protocol, listener)));
        }
        let shared = Arc::new(config.into_shared());
        Ok(Self { shared, listeners })
    }

    /// What listens where, for people to read.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        let line = |(protocol, listener): &(Protocol, Listener)| {
            let protocol = match protocol {
                Protocol::Pop3 => "POP3",
                Protocol::Peep => "PEEP",
            };
            format!("{protocol} listening on {}", listener.address())
        };
        self.listeners.iter().map(line).collect()
    }

    /// Serves until `stop` has something to say, then shuts down: running replies are finished within a grace
    /// period, nothing is removed that was not to be by a QUIT.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub fn run(self, stop: &Receiver<Signal>) -> io::Result<()> {
        let Self { shared, listeners } = self;
        shared.connections.set_ceiling(raise_descriptor_limit());
        let sessions = start_pool(&shared)?;
        thread::scope(|scope| {
            for (protocol, listener) in &listeners {
                let (shared, sessions) = (&shared, sessions.clone());
                let accept = move || {
                    listener.accept_all(&shared.connections, *protocol, |slot| {
                        // The pool never stops taking them.
                        let _ = sessions.send(slot);
                    });
                };
                let acceptor = thread::Builder::new().name("acceptor".to_owned()).spawn_scoped(scope, accept);
                if let Err(error) = acceptor {
                    close(shared, &listeners);
                    return Err(io::Error::new(error.kind(), format!("cannot start a thread: {error}")));
                }
            }
            let ticks = tick(TICK);
            let signal = loop {
                select! {
                    recv(stop) -> signal => break signal,
                    recv(ticks) -> _ => {
                        if let Some(timeout) = shared.settings.timeout() {
                            shared.connections.end_overdue(timeout);
                        }
                    }
                }
            };
            log::info!("shutting down: {}", signal.map_or("the program ends", |signal| signal.0));
            close(&shared, &listeners);
            Ok(())
        })
    }
}

/// Ends what [`Server::run`] has started.
fn close(shared: &Shared, listeners: &[(Protocol, Listener)]) {
    shared.connections.let_nobody_in();
    listeners.iter().for_each(|(_, listener)| listener.wake());
    if !shared.connections.close(GRACE, LAST_GRACE) {
        log::warn!("some sessions did not end in time");
    }
}

/// Starts the pool of sessions: as many threads as there can be places, so one is free for each connection sent.
/// Each takes connections itself, which wakes one thread for each; the pool's own queue would wake two.
fn start_pool(shared: &Arc<Shared>) -> io::Result<Sender<Slot>> {
    let builder = threadpool::Builder::new()
        .num_threads(MAX_CONNECTIONS)
        .thread_name("session".to_owned())
        .thread_stack_size(STACK);
    // It panics when a thread cannot be had. That is an error here, and told as one.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let pool = panic::catch_unwind(|| builder.build());
    panic::set_hook(hook);
    let pool = pool.map_err(|_| io::Error::other(format!("cannot start {MAX_CONNECTIONS} threads")))?;

    let (sender, receiver) = unbounded::<Slot>();
    for _ in 0..MAX_CONNECTIONS {
        let (shared, receiver) = (Arc::clone(shared), receiver.clone());
        pool.execute(move || receiver.iter().for_each(|slot| serve(slot, &shared)));
    }
    Ok(sender)
}

/// Runs a session. A fault of one session ends that session alone: what it held is given back as it unwinds.
fn serve(slot: Slot, shared: &Shared) {
    let name = Name(&slot).to_string();
    let session = AssertUnwindSafe(|| match slot.protocol() {
        Protocol::Pop3 => serve_pop3(&slot, shared, &name),
        Protocol::Peep => serve_peep(&slot, shared, &name),
    });
    if panic::catch_unwind(session).is_err() {
        log::error!("{name} end: a fault of the server, which the log tells of above");
    }
    net::discard_input(slot.connection());
}

fn serve_pop3(slot: &Slot, shared: &Shared, name: &str) {
    shared.stats.connections.add(1);
    log::info!("{name} connected to POP3");
    let socket = Socket::new(slot.connection(), Some(&shared.stats.sent));
    if let Some(timeout) = shared.settings.timeout().filter(|timeout| *timeout < WRITE_STALL)
        && let Err(error) = socket.set_write_timeout(timeout)
    {
        log::warn!("{name} no write timeout: {error}");
    }
    let summary = pop3::serve(socket, shared, name);
    log::info!("{name} {summary}");
}

fn serve_peep(slot: &Slot, shared: &Shared, name: &str) {
    log::info!("{name} connected to PEEP");
    match peep::serve(Socket::new(slot.connection(), None), shared, name) {
        Ok(()) => log::info!("{name} end"),
        Err(error) => log::info!("{name} end: {error}"),
    }
}

/// A connection in the log: its number and the client's address.
struct Name<'a>(&'a Slot);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} {}", self.0.id, self.0.peer)
    }
}

/// Asks for as many descriptors as all connections may need, and says so when that is more than is allowed. Returns
/// how many connections there may be, so that they leave descriptors for mail and an admin.
fn raise_descriptor_limit() -> usize {
    let needed = MAX_CONNECTIONS as u64 * DESCRIPTORS_PER_CONNECTION + OTHER_DESCRIPTORS;
    let limit = getrlimit(Resource::Nofile);
    let enough = |bound: Option<u64>| bound.is_none_or(|bound| bound >= needed);
    if !enough(limit.current) {
        let wanted = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }) {
            log::warn!("cannot raise the limit on open files: {error}");
        }
    }
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(needed);
    if !enough(Some(allowed)) {
        log::warn!(
            "at most {allowed} files may be open, {MAX_CONNECTIONS} connections may need {needed}: \
             some may have to wait"
        );
    }
    let connections = allowed.saturating_sub(OTHER_DESCRIPTORS);
    usize::try_from(connections).map_or(MAX_CONNECTIONS, |connections| connections.clamp(2, MAX_CONNECTIONS))
}
