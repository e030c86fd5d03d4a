//! The listening sockets and their acceptor threads, which a reload adds and removes while the server runs.
//!
//! - [`Listeners`] are the bound ports of a server that does not serve yet.
//! - [`Acceptors`] has a thread for each of them. [`Acceptors::prepare`] binds the ports that a new configuration adds;
//!   only if nothing else is wrong with it, [`Acceptors::apply`] serves them and closes those that it removes.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use socket2::Socket;

use crate::config::{Endpoint, Ports};
use crate::connections::Service;
use crate::connections::{Connections, Protocol, Reservation};
use crate::net::{self, ListenAddress, Listener, Origin};
use crate::settings::Settings;
use crate::systemd::Sockets;

/// A listening socket with the setting that it was bound for.
#[derive(Debug, Clone)]
struct Open {
    service: Service,
    setting: Setting,
    listener: Arc<Listener>,
}

/// What decides whether a reload closes a socket.
#[derive(Debug, Clone)]
enum Setting {
    /// The configured address and port; the port may be 0.
    Port(ListenAddress, u16),
    /// The configured UNIX socket, which only a restart changes.
    File,
    /// Nothing: systemd has passed the socket.
    Systemd,
}

impl Open {
    /// The configured address, if the socket is a port of the server's own.
    fn port_setting(&self) -> Option<&ListenAddress> {
        match &self.setting {
            Setting::Port(address, _) => Some(address),
            Setting::File | Setting::Systemd => None,
        }
    }

    fn is_from_systemd(&self) -> bool {
        matches!(self.setting, Setting::Systemd)
    }
}

/// Listening sockets that are bound and not served yet.
#[derive(Debug)]
pub struct Listeners(Vec<Open>);

impl Listeners {
    /// Binds the ports and the UNIX socket. If systemd has passed sockets for a service, they are used instead.
    ///
    /// # Errors
    /// If a port cannot be bound, or a socket of systemd's cannot be used.
    pub fn bind(ports: &Ports, settings: &Settings) -> io::Result<Self> {
        let mut inherited = Sockets::take(&Service::ALL.map(Service::name))?;
        let mut open = Vec::new();
        for service in Service::ALL {
            let sockets = inherited.named(service.name());
            if sockets.is_empty() {
                if let Some(endpoint) = ports.of(service) {
                    let bound = net::bind(&endpoint.addresses, endpoint.port, endpoint.required)?;
                    open.extend(bound.into_iter().map(|listener| configured(service, endpoint.port, listener)));
                }
                if let Some(file) = ports.file_of(service) {
                    open.push(configured(service, 0, Listener::bind_file(file)?));
                }
                continue;
            }
            check_tls(service, settings)?;
            for socket in sockets {
                let listener = Arc::new(Listener::from_socket(socket)?);
                open.push(Open { service, setting: Setting::Systemd, listener });
            }
        }
        Ok(Self(open))
    }

    /// Each socket and its service.
    pub fn iter(&self) -> impl Iterator<Item = (Service, &Listener)> {
        self.0.iter().map(|open| (open.service, &*open.listener))
    }
}

/// Checks that there is a certificate if a socket that systemd has passed needs one. For other sockets the flags see to it.
fn check_tls(service: Service, settings: &Settings) -> io::Result<()> {
    if service == Service::Pop3s && settings.certificates.is_none() {
        let what = "systemd has passed a socket named \"pop3s\", but there is no TLS certificate";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok(())
}

/// A socket of the server's own: a port, which the setting names as `port`, or a UNIX socket.
fn configured(service: Service, port: u16, listener: Listener) -> Open {
    let setting = listener.name().map_or(Setting::File, |address| Setting::Port(address.clone(), port));
    Open { service, setting, listener: Arc::new(listener) }
}

/// Hands an accepted connection to its session, for which a slot is reserved.
type Serve = dyn Fn(Service, Reservation, Socket, Origin) + Send + Sync;

/// The listening sockets of a running server.
pub struct Acceptors {
    open: Mutex<Vec<Open>>,
    connections: Arc<Connections>,
    serve: Arc<Serve>,
}

impl fmt::Debug for Acceptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptors").field("open", &self.open).finish_non_exhaustive()
    }
}

/// What a new configuration changes about the ports: new sockets are bound already, but not served.
#[derive(Debug, Default)]
pub struct PortChange {
    added: Vec<Open>,
    removed: Vec<Open>,
    /// Services whose new ports only a restart can bind, with the reason. Their old ports stay.
    pub needs_restart: BTreeMap<Service, io::Error>,
}

impl Acceptors {
    /// Starts a thread for each socket, which hands its connections to `serve`.
    ///
    /// # Errors
    /// If threads cannot be started.
    pub fn start(
        listeners: Listeners,
        connections: Arc<Connections>,
        serve: impl Fn(Service, Reservation, Socket, Origin) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let this = Self { open: Mutex::default(), connections, serve: Arc::new(serve) };
        for open in listeners.0 {
            this.accept(open).inspect_err(|_| this.close())?;
        }
        Ok(this)
    }

    fn accept(&self, open: Open) -> io::Result<()> {
        let (connections, serve) = (Arc::clone(&self.connections), Arc::clone(&self.serve));
        let Open { service, listener, .. } = open.clone();
        let accept = move || {
            listener.accept_all(&connections, service.protocol(), |reservation, stream, origin| {
                serve(service, reservation, stream, origin);
            });
        };
        thread::Builder::new().name("acceptor".to_owned()).spawn(accept)?;
        self.open.lock().push(open);
        Ok(())
    }

    /// Returns true if a POP3 client waits to be accepted.
    #[must_use]
    pub fn have_pop3_backlog(&self) -> bool {
        let of_pop3 = |open: &&Open| open.service.protocol() == Protocol::Pop3;
        self.open.lock().iter().filter(of_pop3).any(|open| open.listener.has_backlog())
    }

    /// Binds the ports that these settings add to the present ones. Nothing is served yet: dropping the value gives the
    /// ports up. A server that `gave_up_rights` at its start may lack the right to bind a port, which a restart can do.
    ///
    /// # Errors
    /// If a port cannot be bound, and a restart could not bind it either.
    pub fn prepare(&self, ports: &Ports, settings: &Settings, gave_up_rights: bool) -> io::Result<PortChange> {
        let open = self.open.lock().clone();
        let mut change = PortChange::default();
        let stays = |open: &Open| match open.setting {
            Setting::Port(ref address, port) => ports
                .of(open.service)
                .is_some_and(|endpoint| port == endpoint.port && endpoint.addresses.contains(address)),
            Setting::File | Setting::Systemd => true,
        };
        let (kept, removed): (Vec<_>, Vec<_>) = open.into_iter().partition(stays);
        for service in Service::ALL {
            if kept.iter().any(|open| open.service == service && open.is_from_systemd()) {
                check_tls(service, settings)?;
                continue;
            }
            let Some(endpoint) = ports.of(service) else { continue };
            let kept = kept.iter().filter(|open| open.service == service && open.port_setting().is_some());
            match bind_added(service, endpoint, kept, &removed) {
                Ok(added) => change.added.extend(added),
                Err(error) if gave_up_rights && needs_restart(&error, endpoint, &removed) => {
                    change.needs_restart.insert(service, error);
                }
                Err(error) => return Err(error),
            }
        }
        change.removed = removed;
        change.removed.retain(|open| !change.needs_restart.contains_key(&open.service));
        Ok(change)
    }

    /// Serves the added ports and closes the removed ones. Sessions of a closed port go on.
    pub fn apply(&self, change: PortChange) {
        for open in change.removed {
            self.open.lock().retain(|other| !Arc::ptr_eq(&other.listener, &open.listener));
            open.listener.close();
            log::info!("{} no longer listening on {}", open.service, open.listener.address());
        }
        for open in change.added {
            let what = format!("{} listening on {}", open.service, open.listener.address());
            match self.accept(open) {
                Ok(()) => log::info!("{what}"),
                Err(error) => log::error!("not {what}: cannot start a thread: {error}"),
            }
        }
    }

    /// Ends all acceptors: no connection is accepted after this.
    pub fn close(&self) {
        self.open.lock().iter().for_each(|open| open.listener.close());
    }
}

/// Binds the addresses of a service that have no socket yet.
fn bind_added<'a>(
    service: Service,
    endpoint: &Endpoint,
    mut kept: impl Iterator<Item = &'a Open> + Clone,
    removed: &[Open],
) -> io::Result<Vec<Open>> {
    let is_open = |address: &&ListenAddress| kept.clone().any(|open| open.port_setting() == Some(*address));
    let added: Vec<_> = endpoint.addresses.iter().filter(|address| !is_open(address)).cloned().collect();
    // A free port is the same on all addresses.
    let port = match endpoint.port {
        0 => kept.next().map_or(0, |open| open.listener.port()),
        port => port,
    };
    let has_port = |open: &&Open| open.listener.port() == port;
    let replaced: Vec<_> = removed.iter().filter(has_port).map(|open| Arc::clone(&open.listener)).collect();
    let bound = net::bind_beside(&added, port, endpoint.required, &replaced)?;
    Ok(bound.into_iter().map(|listener| configured(service, endpoint.port, listener)).collect())
}

/// Returns true if a server that has given up rights cannot bind a port because of that. It may lack the permission, or the
/// port may be in use by a socket of its own that was bound before the server changed its user.
fn needs_restart(error: &io::Error, endpoint: &Endpoint, removed: &[Open]) -> bool {
    match error.kind() {
        io::ErrorKind::PermissionDenied => true,
        io::ErrorKind::AddrInUse => removed.iter().any(|open| open.listener.port() == endpoint.port),
        _ => false,
    }
}
