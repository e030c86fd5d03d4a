//! The life of the server: [`Server::bind`] binds the ports; [`Server::run`] starts the pool of sessions and an acceptor
//! thread for each listening socket, enforces time limits every second, and shuts down when it is asked to. `bin/pop3d.rs`
//! is the caller.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, select, tick};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Config, Endpoint};
use crate::connections::{Connections, MAX_CONNECTIONS, MAX_DESCRIPTORS, Protocol, Slot, WRITE_STALL};
use crate::events::{self, Client, EndResult, Ended, What, WhyRefused};
use crate::guard::Admission;
use crate::maildrop::{PLENTY_OF_DESCRIPTORS, SCAN_DESCRIPTORS};
use crate::net::{self, Listener, Socket};
use crate::pool::Pool;
use crate::pop3::Summary;
use crate::records::Records;
use crate::reload::Reloader;
use crate::shared::{HANDSHAKE_LIMIT, LOGIN_LIMIT_WHEN_FULL, Shared};
use crate::stats::Kept;
use crate::systemd::{self, Pulse, Sockets};
use crate::wire::Link;
use crate::{cores, descriptors, peep, pop3};

/// How long a shutdown lets sessions finish their current command, and how long it then waits for the sessions whose
/// connections it has closed.
const GRACE: Duration = Duration::from_secs(3);
const LAST_GRACE: Duration = Duration::from_secs(1);

/// How often the time limits of open connections are enforced.
const TICK: Duration = Duration::from_secs(1);

/// File descriptors that are not used by connections: those for measuring maildrops, and 64 for the listeners, the log,
/// the standard streams, the mail directory and others.
const OTHER_DESCRIPTORS: u64 = SCAN_DESCRIPTORS + 64;

/// A server whose ports are bound.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    listeners: Vec<(Service, Listener)>,
    records: Records,
}

/// The protocol of a listening socket.
#[derive(Debug, Clone, Copy)]
struct Service {
    protocol: Protocol,
    /// True if the connection uses TLS from its first octet on.
    tls: bool,
}

impl From<Service> for events::Service {
    fn from(service: Service) -> Self {
        Self::new(service.protocol, service.tls)
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.protocol, self.tls) {
            (Protocol::Pop3, false) => "POP3",
            (Protocol::Pop3, true) => "POP3S",
            (Protocol::Peep, false) => "PEEP",
            (Protocol::Peep, true) => "PEEP over TLS",
        })
    }
}

/// A request of the operator to a running server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Read the certificate again.
    Reload,
    /// Shut down. The text says why, for the log.
    Stop(&'static str),
}

/// The names of sockets in socket units of systemd (`FileDescriptorName=`), one for each protocol.
const POP3_SOCKET: &str = "pop3";
const POP3S_SOCKET: &str = "pop3s";
const PEEP_SOCKET: &str = "peep";

/// Binds the ports. If systemd has passed sockets for a protocol, they are used instead of the configured port.
fn bind_all(config: &Config) -> io::Result<Vec<(Service, Listener)>> {
    let mut inherited = Sockets::take(&[POP3_SOCKET, POP3S_SOCKET, PEEP_SOCKET])?;
    let mut listeners = Vec::new();
    let mut bind = |service: Service, name, endpoint: Option<&Endpoint>| {
        let sockets = inherited.named(name);
        let bound = match endpoint {
            _ if !sockets.is_empty() => {
                sockets.into_iter().map(Listener::from_socket).collect::<io::Result<Vec<_>>>()?
            }
            Some(endpoint) => net::bind(&endpoint.addresses, endpoint.port, endpoint.required)?,
            None => Vec::new(),
        };
        if service.tls && config.settings.certificate.is_none() && !bound.is_empty() {
            let what = format!("systemd has passed a socket named {name:?}, but there is no TLS certificate");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        listeners.extend(bound.into_iter().map(|listener| (service, listener)));
        Ok(())
    };
    bind(Service { protocol: Protocol::Pop3, tls: false }, POP3_SOCKET, Some(&config.pop3))?;
    bind(Service { protocol: Protocol::Pop3, tls: true }, POP3S_SOCKET, config.pop3s.as_ref())?;
    bind(Service { protocol: Protocol::Peep, tls: config.peep_tls }, PEEP_SOCKET, Some(&config.peep))?;
    Ok(listeners)
}

impl Server {
    /// Binds the ports, and reads the counters from the state directory to continue them.
    ///
    /// # Errors
    /// If a port cannot be bound or the state directory cannot be written.
    pub fn bind(mut config: Config) -> io::Result<Self> {
        let listeners = bind_all(&config)?;
        if config.users.names().is_empty() {
            log::warn!("there are no users, so nobody can log in: see --user, --users, or add some by PEEP");
        }
        if config.settings.certificate.is_none()
            && !config.settings.allow_cleartext
            && config.pop3.addresses.iter().any(|address| !address.is_loopback())
        {
            log::warn!(
                "without TLS no password is taken from beyond this machine: see --tls-cert, --tls-self-signed, --allow-cleartext"
            );
        }
        if config.settings.admin.is_roots {
            log::warn!(
                "running as root with the default admin, which is taken from programs of root alone: see --peep-admin, --run-as"
            );
        } else if config.has_default_admin {
            log::warn!(
                "every user of this machine may log in by PEEP as the default admin root:root: see --peep-admin"
            );
        }
        let (state, log) = (config.state.take(), config.stats_log.take());
        let shared = config.into_shared();
        shared.connections.set_ceiling(raise_descriptor_limit());
        let kept = state.map(|directory| Kept::open(directory, &shared.stats)).transpose();
        let kept = kept.map_err(|error| io::Error::new(error.kind(), format!("cannot keep counters: {error}")))?;
        Ok(Self { shared: Arc::new(shared), listeners, records: Records { kept, log } })
    }

    /// The protocol and address of each listening socket, as lines for people to read.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.listeners
            .iter()
            .map(|(service, listener)| format!("{service} listening on {}", listener.address()))
            .collect()
    }

    /// Serves clients until a request to stop arrives, then shuts down. Sessions get a grace period to finish the reply
    /// that they are sending. Only messages for which a client has sent QUIT are removed.
    ///
    /// # Errors
    /// If threads cannot be started.
    pub fn run(self, requests: &Receiver<Request>) -> io::Result<()> {
        let Self { shared, listeners, records } = self;
        let sessions = {
            let shared = Arc::clone(&shared);
            Pool::start(MAX_CONNECTIONS, move |accepted| serve(accepted, &shared))?
        };
        let recorder = records.start(Arc::clone(&shared)).map_err(no_thread)?;
        let reloader = Reloader::start(Arc::clone(&shared)).map_err(no_thread)?;
        thread::scope(|scope| {
            for (service, listener) in &listeners {
                let (shared, sessions) = (&shared, &sessions);
                let accept =
                    move || {
                        listener.accept_all(&shared.connections, service.protocol, |reservation, stream, peer| {
                            match shared.guard.admit(peer.ip()) {
                                Some(admission) => {
                                    let near = cores::of_packets(&stream);
                                    let accepted = AcceptedConnection {
                                        admission,
                                        slot: reservation.occupy(stream, peer),
                                        tls: service.tls,
                                    };
                                    sessions.submit(accepted, near);
                                }
                                None => refuse(&stream, peer, *service, shared),
                            }
                        });
                    };
                let acceptor = thread::Builder::new().name("acceptor".to_owned()).spawn_scoped(scope, accept);
                if let Err(error) = acceptor {
                    close(shared, &listeners);
                    return Err(no_thread(error));
                }
            }
            enforce_timeout(&shared);
            systemd::tell_ready();
            let pulse = Arc::new(Pulse::default());
            systemd::start_reporting(Arc::clone(&pulse), status_of(&shared)).map_err(no_thread)?;
            let ticks = tick(TICK);
            let why = loop {
                select! {
                    recv(requests) -> request => match request {
                        Ok(Request::Reload) => reloader.ask(),
                        Ok(Request::Stop(why)) => break why,
                        Err(_) => break "the program ends",
                    },
                    recv(ticks) -> _ => {
                        pulse.beat();
                        enforce_timeout(&shared);
                        if let Some(least) = shared.settings().min_rate {
                            shared.connections.end_slow(least);
                        }
                        if listeners.iter().any(|(service, it)| service.protocol == Protocol::Pop3 && it.has_backlog()) {
                            end_unauthenticated(&shared.connections);
                        }
                    }
                }
            };
            log::info!("shutting down: {why}");
            systemd::tell_stopping();
            close(&shared, &listeners);
            recorder.end();
            Ok(())
        })
    }
}

/// The line that `systemctl status` shows.
fn status_of(shared: &Arc<Shared>) -> impl Fn() -> String + Send + 'static {
    let shared = Arc::clone(shared);
    move || {
        let now = shared.sample();
        format!("{} POP3 connections, {} users logged in", now.connections, now.logged_in)
    }
}

fn no_thread(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot start a thread: {error}"))
}

/// An accepted connection that waits for a thread to run its session.
struct AcceptedConnection {
    admission: Admission,
    slot: Slot,
    /// True if the connection uses TLS from its first octet on.
    tls: bool,
}

/// Refuses a connection because there are too many from its address. The acceptor thread does this itself, so nothing in
/// it may wait for the client.
fn refuse(stream: &TcpStream, peer: SocketAddr, service: Service, shared: &Shared) {
    match (service.tls, service.protocol) {
        (true, _) => {} // a reply would need a TLS handshake, which waits for the client
        (false, Protocol::Pop3) => net::refuse(stream, pop3::TOO_MANY_CONNECTIONS),
        (false, Protocol::Peep) => net::refuse(stream, peep::TOO_MANY_CONNECTIONS),
    }
    let is_news = shared.guard.should_log_refusal(peer.ip());
    shared.events.emit(&Client::refused(peer, service.into()), What::Refused { reason: WhyRefused::TooMany, is_news });
}

/// Applies the present autologout timer, which PEEP may have changed, to open sessions: to those that wait for a command
/// and to those whose client reads nothing of what it is sent.
fn enforce_timeout(shared: &Shared) {
    let timeout = shared.settings().timeout;
    shared.connections.set_write_stall(timeout.unwrap_or(WRITE_STALL));
    if let Some(timeout) = timeout {
        shared.connections.end_overdue(timeout);
    }
}

/// Gives connections that have not logged in a shorter deadline while clients are waiting for a slot.
fn end_unauthenticated(connections: &Connections) {
    let closed = connections.end_unauthenticated_if_full(LOGIN_LIMIT_WHEN_FULL);
    if closed > 0 {
        log::warn!(
            "all connection slots are taken: closed {closed} connections that had not logged in within {LOGIN_LIMIT_WHEN_FULL:?}"
        );
    }
}

/// Ends the acceptors and the sessions that [`Server::run`] has started.
fn close(shared: &Shared, listeners: &[(Service, Listener)]) {
    shared.connections.start_closing();
    listeners.iter().for_each(|(_, listener)| listener.wake());
    if !shared.connections.close(GRACE, LAST_GRACE) {
        log::warn!("some sessions did not end in time");
    }
}

/// Runs a session. A panic ends only this session; unwinding frees its slot and its maildrop.
// Not inlined, so that idle threads do not use stack for the variables of a session.
#[inline(never)]
fn serve(AcceptedConnection { admission, slot, tls }: AcceptedConnection, shared: &Shared) {
    let client = Client::new(slot.id, slot.peer, Service { protocol: slot.protocol(), tls }.into());
    let ended = |result, reason: Option<fmt::Arguments<'_>>, counts| {
        shared.events.emit(&client, What::Ended(Ended { result, reason, counts }));
    };
    let session = AssertUnwindSafe(|| {
        shared.events.emit(&client, What::Connected);
        let sent = (slot.protocol() == Protocol::Pop3).then_some(&shared.stats.sent);
        let mut socket = Socket::new(&slot, sent, shared.settings().certificate.clone());
        if tls {
            match socket.start_tls(Instant::now() + HANDSHAKE_LIMIT) {
                Ok(agreed) => {
                    client.set_tls(&agreed);
                    shared.events.emit(&client, What::Tls { agreed: &agreed });
                }
                Err(error) => {
                    return ended(EndResult::Handshake, Some(format_args!("TLS handshake failed: {error}")), None);
                }
            }
        }
        match slot.protocol() {
            Protocol::Pop3 => {
                let Summary { end, counts } = pop3::serve(socket, shared, &admission, &client);
                ended(end.result(), Some(format_args!("{end}")), Some(counts));
            }
            Protocol::Peep => match peep::serve(socket, shared, &admission, &client) {
                Ok(()) => ended(EndResult::Quit, None, None),
                Err(error) => ended(EndResult::Failed, Some(format_args!("{error}")), None),
            },
        }
    });
    if panic::catch_unwind(session).is_err() {
        ended(EndResult::Fault, Some(format_args!("fault of the server, see the panic logged above")), None);
    }
    net::discard_input(slot.connection());
    drop(admission); // before the connection is closed, so a client that sees it closed can connect again at once
}

/// Raises the limit on file descriptors to what all connections may need, and logs a warning if the system does not allow
/// that. Returns the most connections for which the allowed descriptors suffice.
// To be called before threads are started: see `enlarge_table`.
fn raise_descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < PLENTY_OF_DESCRIPTORS) {
        let wanted = limit.maximum.map_or(PLENTY_OF_DESCRIPTORS, |maximum| maximum.min(PLENTY_OF_DESCRIPTORS));
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }) {
            log::warn!("cannot raise the limit on open files: {error}");
        }
    }
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(PLENTY_OF_DESCRIPTORS);
    let needed = MAX_DESCRIPTORS + OTHER_DESCRIPTORS;
    if allowed < needed {
        log::warn!(
            "at most {allowed} files may be open, but {MAX_CONNECTIONS} connections may need {needed}: \
             clients may have to wait for a slot"
        );
    }
    descriptors::enlarge_table(PLENTY_OF_DESCRIPTORS);
    let connections = allowed.saturating_sub(OTHER_DESCRIPTORS);
    usize::try_from(connections).map_or(MAX_CONNECTIONS, |connections| connections.clamp(2, MAX_CONNECTIONS))
}
