//! The life of the server: [`Server::bind`] binds the ports; [`Server::run`] starts the pool of sessions and an acceptor
//! thread for each listening socket, enforces time limits every second, and shuts down when it is asked to. `bin/pop3d.rs`
//! is the caller.

use std::fmt;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, select, tick};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::acceptors::{Acceptors, Listeners};
use crate::admission::{self, Accepted, Admitted, begins_with_tls};
use crate::config::{Config, Rereading};
use crate::connections::{Connections, MAX_CONNECTIONS, MAX_DESCRIPTORS, Protocol, Service, WRITE_STALL};
use crate::events::{Client, EndResult, Ended, What};
use crate::faults::{Faults, FaultyLink};
use crate::guard::Admission;
use crate::logging::Reopener;
use crate::maildrop::{PLENTY_OF_DESCRIPTORS, SCAN_DESCRIPTORS};
use crate::metrics::Exporter;
use crate::net::{self, Listener, Socket};
use crate::pool::Pool;
use crate::pop3::{End, Summary};
use crate::records::Records;
use crate::reload::Reload;
use crate::shared::{HANDSHAKE_LIMIT, LOGIN_LIMIT_WHEN_FULL, Shared};
use crate::state::StateDir;
use crate::stats::Kept;
use crate::systemd::{self, Pulse};
use crate::wire::Link;
use crate::{acting, counting, descriptors, expiry, fetches, peep, pop3, recovery};

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
    listeners: Listeners,
    records: Records,
    state: Option<Arc<StateDir>>,
    /// Serves metrics over HTTP, if it is asked for.
    exporter: Option<Exporter>,
}

/// A request of the operator to a running server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Read the configuration, the certificates and the users file again, and open the log file again.
    Reload,
    /// Shut down. The text says why, for the log.
    Stop(&'static str),
}

impl Server {
    /// Binds the ports, and reads the counters from the state directory to continue them.
    ///
    /// # Errors
    /// If a port cannot be bound or the state directory cannot be written.
    pub fn bind(mut config: Config) -> io::Result<Self> {
        let listeners = Listeners::bind(&config.ports, &config.settings)?;
        if config.users.is_empty() {
            log::warn!("there are no users, so nobody can log in: see --user, --users, or add some by PEEP");
        }
        if config.settings.certificates.is_none()
            && !config.settings.allow_cleartext
            && config.ports.pop3.addresses.iter().any(|address| !address.is_loopback())
        {
            log::warn!(
                "without TLS, passwords are accepted only from this machine: see --tls-cert, --tls-self-signed, --allow-cleartext"
            );
        }
        // Without a port nobody logs in as this admin.
        let admin = config.ports.peep.is_some().then_some(&config.settings.admin);
        if admin.is_some_and(|admin| admin.is_roots) {
            log::warn!(
                "running as root with the default admin, so only programs of root may log in as admin: see --peep-admin, --run-as"
            );
        } else if admin.is_some_and(|admin| admin.is_default) {
            log::warn!(
                "every user of this machine may log in by PEEP as the default admin root:root: see --peep-admin"
            );
        }
        let (state, log) = (config.state.take(), config.stats_log.take());
        let exporter = config.metrics.map(Exporter::bind).transpose()?;
        let shared = config.into_shared();
        if exporter.is_some() {
            shared.events.enable_metrics();
        }
        shared.connections.set_ceiling(raise_descriptor_limit());
        let kept = state.clone().map(|directory| Kept::open(directory, &shared.stats)).transpose();
        let kept = kept.map_err(|error| io::Error::new(error.kind(), format!("cannot keep counters: {error}")))?;
        let fetches = state.clone().map(|directory| fetches::Kept::open(directory, &shared.events.fetches));
        let records = Records { kept, fetches, log };
        Ok(Self { shared: Arc::new(shared), listeners, records, state, exporter })
    }

    /// Asks the sources of accounts that are elsewhere whether they can be used. To be called once the server has its final
    /// rights, because this may start threads.
    ///
    /// # Errors
    /// What is wrong with a source that could never answer by its settings.
    pub fn check_accounts(&self) -> Result<(), String> {
        self.shared.users.check_sources()
    }

    /// The protocol and address of each listening socket, as lines for people to read.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        let peep_tls = if self.shared.settings().peep_tls { " over TLS" } else { "" };
        let describe = |(service, listener): (Service, &Listener)| {
            let tls = if service == Service::Peep && listener.name().is_some() { peep_tls } else { "" };
            format!("{service}{tls} listening on {}", listener.address())
        };
        self.listeners.iter().map(describe).collect()
    }

    /// The port on which a service listens, if it does.
    #[must_use]
    pub fn port(&self, service: Service) -> Option<u16> {
        self.listeners.iter().find(|(of, _)| *of == service).map(|(_, listener)| listener.port())
    }

    /// Serves clients until a request to stop arrives, then shuts down. Sessions get a grace period to finish the reply
    /// that they are sending. Only messages for which a client has sent QUIT are removed.
    ///
    /// # Errors
    /// If threads cannot be started.
    pub fn run(self, requests: &Receiver<Request>, configuration: Rereading, log: Reopener) -> io::Result<()> {
        let Self { shared, listeners, records, state, exporter } = self;
        let sessions = {
            let shared = Arc::clone(&shared);
            let acts_for_users = shared.settings().owners.is_some();
            let work = move |accepted: Accepted| serve(accepted, &shared);
            if acts_for_users {
                Pool::replacing(MAX_CONNECTIONS, work, acting::has_own_ids)?
            } else {
                Pool::start(MAX_CONNECTIONS, work)?
            }
        };
        shared.users.start();
        let recorder = records.start(Arc::clone(&shared)).map_err(no_thread)?;
        counting::start(&shared).map_err(no_thread)?; // before the first login
        let reloads = shared.reloader.open();
        let acceptors = {
            let (connections, shared) = (Arc::clone(&shared.connections), Arc::clone(&shared));
            let admit = move |service, reservation, stream, origin| {
                admission::admit(service, reservation, stream, origin, &shared, &sessions);
            };
            Arc::new(Acceptors::start(listeners, connections, admit).map_err(no_thread)?)
        };
        let reload = Reload {
            configuration,
            shared: Arc::clone(&shared),
            acceptors: Arc::clone(&acceptors),
            state,
            stats_log: recorder.log_setter(),
            log,
        };
        reload.start(reloads).map_err(no_thread)?;
        expiry::start(Arc::clone(&shared)).map_err(no_thread)?;
        exporter.map_or(Ok(()), |exporter| exporter.start(&shared)).map_err(no_thread)?;
        enforce_timeout(&shared);
        recovery::start(&shared).map_err(no_thread)?;
        systemd::tell_ready();
        let pulse = Arc::new(Pulse::default());
        systemd::start_reporting(Arc::clone(&pulse), status_of(&shared)).map_err(no_thread)?;
        let ticks = tick(TICK);
        let why = loop {
            select! {
                recv(requests) -> request => match request {
                    Ok(Request::Reload) => shared.reloader.ask(),
                    Ok(Request::Stop(why)) => break why,
                    Err(_) => break "the program ends",
                },
                recv(ticks) -> _ => {
                    pulse.beat();
                    enforce_timeout(&shared);
                    if let Some(least) = shared.settings().min_rate {
                        shared.connections.end_slow(least);
                    }
                    let clients_wait = acceptors.have_pop3_backlog();
                    shared.connections.set_clients_wait(clients_wait);
                    if clients_wait {
                        end_unauthenticated(&shared.connections);
                    }
                }
            }
        };
        log::info!("shutting down: {why}");
        systemd::tell_stopping();
        close(&shared, &acceptors);
        recorder.end();
        Ok(())
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

/// Applies the present autologout timer, which PEEP may have changed, to open sessions: to those that wait for a command
/// and to those whose client reads nothing of what it is sent.
fn enforce_timeout(shared: &Shared) {
    let timeout = shared.timeout();
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
fn close(shared: &Shared, acceptors: &Acceptors) {
    shared.connections.start_closing();
    acceptors.close();
    if !shared.connections.close(GRACE, LAST_GRACE) {
        log::warn!("some sessions did not end in time");
    }
    shared.counting.stop();
}

/// Runs a session. A panic ends only this session; unwinding frees its slot and its maildrop.
// Not inlined, so that idle threads do not use stack for the variables of a session.
#[inline(never)]
fn serve(accepted: Accepted, shared: &Shared) {
    let Some(Admitted { admission, slot, service, tls_at_proxy }) = accepted.admitted(shared) else { return };
    let client = slot.client();
    let ended = |result, reason: Option<fmt::Arguments<'_>>, counts| {
        shared.events.emit(client, What::Ended(Ended { result, reason, counts }));
    };
    let ended_by = |end: End, counts| ended(end.result(), Some(format_args!("{end}")), counts);
    let session = AssertUnwindSafe(|| {
        shared.events.emit(client, What::Connected);
        if let Some(version) = tls_at_proxy {
            tell_tls_at_proxy(&version, client, shared);
        }
        let sent = (slot.protocol() == Protocol::Pop3).then_some(&shared.stats.sent);
        let (certificates, tls) = {
            let settings = shared.settings();
            (settings.certificates.clone(), begins_with_tls(service, client.origin, &settings))
        };
        let mut socket = Socket::new(&slot, sent, certificates);
        if tls {
            match socket.start_tls(Instant::now() + HANDSHAKE_LIMIT) {
                Ok(agreed) => {
                    client.set_tls(&agreed);
                    shared.events.emit(client, What::Tls { agreed: &agreed });
                }
                Err(error) => return ended_by(End::Handshake(error), None),
            }
        }
        match slot.protocol() {
            Protocol::Pop3 => {
                let Summary { end, counts } = match &shared.faults {
                    None => pop3::serve(socket, shared, &admission, client),
                    Some(faults) => serve_with_faults(socket, faults, shared, &admission, client),
                };
                ended_by(end, Some(counts));
            }
            Protocol::Peep => match peep::serve(socket, shared, &admission, client) {
                _ if client.progress.is_kicked() => ended_by(End::Kicked, None),
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

/// Runs a POP3 session that may have faults, which a tester has ordered.
// Not inlined, so that sessions without faults need no stack for it.
#[inline(never)]
fn serve_with_faults(
    socket: Socket<'_>,
    faults: &Faults,
    shared: &Shared,
    admission: &Admission,
    client: &Client,
) -> Summary {
    pop3::serve(FaultyLink::new(socket, faults, client, &shared.events), shared, admission, client)
}

/// Notes that a proxy has ended TLS, with the version that it has told.
fn tell_tls_at_proxy(version: &str, client: &Client, shared: &Shared) {
    if ["TLSv1.2", "TLSv1.3"].contains(&version) {
        client.set_tls(version);
    }
    let agreed = format!("{version} at the proxy");
    shared.events.emit(client, What::Tls { agreed: agreed.trim_start() });
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
