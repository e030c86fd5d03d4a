//! The way of a connection from its acceptor to its session: it is admitted, or refused with a reason.
//!
//! Where the client comes from decides, so this is known first. For a connection of a proxy (`--proxy-from`) the header says
//! it. The thread of the session reads the header and decides then, because an acceptor must not wait.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::connections::{Protocol, Reservation, Service, Slot};
use crate::events::{Client, What, WhyRefused};
use crate::guard::Admission;
use crate::net::proxy::{self, Header, HeaderError, NotAHeader};
use crate::net::{self, Origin};
use crate::pool::Pool;
use crate::settings::Settings;
use crate::shared::Shared;
use crate::{cores, peep, pop3};

/// How long a proxy may take for its header. It is sent with the first packet, so this is for a network that loses some.
const HEADER_LIMIT: Duration = Duration::from_secs(3);

/// An accepted connection that waits for a thread.
pub(crate) enum Accepted {
    /// A client that is admitted.
    Client(Admitted),
    /// A connection of a proxy, whose header has not been read.
    OfProxy(OfProxy),
}

/// A connection that is admitted, for its session.
pub(crate) struct Admitted {
    pub(crate) admission: Admission,
    pub(crate) slot: Slot,
    pub(crate) service: Service,
    /// The version of TLS between the client and the proxy, if that counts as TLS.
    pub(crate) tls_at_proxy: Option<String>,
}

pub(crate) struct OfProxy {
    reservation: Reservation,
    stream: Socket,
    proxy: SocketAddr,
    service: Service,
}

/// Gives an accepted connection to a thread of `sessions`, or refuses it.
pub(crate) fn admit(
    service: Service,
    reservation: Reservation,
    stream: Socket,
    origin: Origin,
    shared: &Shared,
    sessions: &Pool<Accepted>,
) {
    let near = cores::of_packets(&stream);
    if let Origin::Address(proxy) = origin
        && service.protocol() == Protocol::Pop3
        && shared.is_proxy(origin)
    {
        sessions.submit(Accepted::OfProxy(OfProxy { reservation, stream, proxy, service }), near);
    } else if let Some(admitted) = decide(reservation, stream, origin, service, shared) {
        sessions.submit(Accepted::Client(admitted), near);
    }
}

impl Accepted {
    /// Returns the connection if it is admitted, after its header has been read if it is a proxy's.
    pub(crate) fn admitted(self, shared: &Shared) -> Option<Admitted> {
        match self {
            Self::Client(admitted) => Some(admitted),
            Self::OfProxy(of_proxy) => of_proxy.admitted(shared),
        }
    }
}

impl OfProxy {
    fn admitted(self, shared: &Shared) -> Option<Admitted> {
        let Self { reservation, stream, proxy, service } = self;
        let is_closing = || shared.connections.is_closing();
        match proxy::read_header(&stream, Instant::now() + HEADER_LIMIT, is_closing) {
            // Version 1 cannot say that the proxy is the client, so HAProxy's checks name their own address.
            Ok(Header::Client { address, .. }) if address == proxy => {
                decide(reservation, stream, Origin::HealthCheck(proxy), service, shared)
            }
            Ok(Header::Client { address: client, tls }) => {
                let tls = tls.filter(|_| shared.settings().proxy_tls);
                let origin = Origin::Proxied { client, proxy, tls: tls.is_some() };
                let admitted = decide(reservation, stream, origin, service, shared)?;
                Some(Admitted { tls_at_proxy: tls, ..admitted })
            }
            Ok(Header::Proxy) => decide(reservation, stream, Origin::HealthCheck(proxy), service, shared),
            Err(error) => {
                if let Some(reason) = reason(error) {
                    tell_refused(proxy.into(), service, reason, shared);
                }
                None
            }
        }
    }
}

/// Why a connection without a header is refused; `None` if the server is shutting down.
fn reason(error: HeaderError) -> Option<WhyRefused> {
    match error {
        HeaderError::Closed | HeaderError::Wrong(NotAHeader::Other) => Some(WhyRefused::NoHeader),
        HeaderError::Late => Some(WhyRefused::LateHeader),
        HeaderError::Wrong(NotAHeader::Malformed) => Some(WhyRefused::WrongHeader),
        HeaderError::Stopped => None,
    }
}

/// Admits a connection of a known origin to a slot, or refuses it.
fn decide(
    reservation: Reservation,
    stream: Socket,
    origin: Origin,
    service: Service,
    shared: &Shared,
) -> Option<Admitted> {
    match examine(origin, service, shared) {
        Ok(admission) => {
            let slot = reservation.occupy(stream, origin, service);
            Some(Admitted { admission, slot, service, tls_at_proxy: None })
        }
        Err(reason) => {
            refuse(&stream, origin, service, reason, shared);
            None
        }
    }
}

/// Admits a connection, or says why it is refused. PEEP is concerned neither by bans nor by draining, so that an admin can
/// undo both.
fn examine(origin: Origin, service: Service, shared: &Shared) -> Result<Admission, WhyRefused> {
    if service.protocol() == Protocol::Pop3 {
        if shared.connections.is_draining() {
            return Err(WhyRefused::Draining);
        }
        if origin.ip().is_some_and(|ip| shared.guard.is_banned(ip)) {
            return Err(WhyRefused::Banned);
        }
    }
    shared.guard.admit(origin).ok_or(WhyRefused::TooMany)
}

/// Refuses a connection. An acceptor thread may do this itself, so nothing in it may wait for the client.
fn refuse(stream: &Socket, origin: Origin, service: Service, reason: WhyRefused, shared: &Shared) {
    let words = match (service.protocol(), reason) {
        (Protocol::Peep, _) => peep::TOO_MANY_CONNECTIONS,
        (Protocol::Pop3, WhyRefused::Banned) => pop3::BANNED,
        (Protocol::Pop3, WhyRefused::Draining) => pop3::DRAINING,
        (Protocol::Pop3, _) => pop3::TOO_MANY_CONNECTIONS,
    };
    // With TLS, a reply would need a handshake, which waits for the client.
    if !begins_with_tls(service, origin, &shared.settings()) {
        net::refuse(stream, words);
    }
    // A health check is no client that was refused.
    if !matches!(origin, Origin::HealthCheck(_)) {
        tell_refused(origin, service, reason, shared);
    }
}

fn tell_refused(origin: Origin, service: Service, reason: WhyRefused, shared: &Shared) {
    let is_news = origin.ip().is_none_or(|ip| shared.guard.should_log_refusal(ip));
    shared.events.emit(&Client::refused(origin, service), What::Refused { reason, is_news });
}

/// Returns true if connections of `service` use TLS from their first octet on. A UNIX socket never has TLS.
pub(crate) fn begins_with_tls(service: Service, origin: Origin, settings: &Settings) -> bool {
    service == Service::Pop3s || service == Service::Peep && settings.peep_tls && origin.ip().is_some()
}
