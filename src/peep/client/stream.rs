//! Opens the connection to a server: TCP, TLS or a UNIX socket.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::target::Target;
use super::{Failure, Options};
use crate::dial::{Patient, Stream};

/// Connects to a server, by TLS if the options say so.
pub(super) fn open(target: &Target, options: &Options) -> Result<Box<dyn Stream>, Failure> {
    let timeout = options.timeout();
    let unreachable = |error| Failure::Unreachable(target.to_string(), error);
    let (host, port) = match target {
        Target::Tcp { host, port } => (host, *port),
        Target::Unix(path) => return Ok(Box::new(Patient::connect_unix(path, timeout).map_err(unreachable)?)),
    };
    let tls = if options.tls { Some(tls_for(host, options)?) } else { None };
    let socket = Patient::connect((host.as_str(), port), timeout).map_err(unreachable)?;
    Ok(match tls {
        None => Box::new(socket),
        Some(tls) => Box::new(socket.handshake(tls).map_err(|error| Failure::NoTls(target.to_string(), error))?),
    })
}

/// Prepares TLS for the server of this name. The handshake has not begun.
fn tls_for(host: &str, options: &Options) -> Result<ClientConnection, Failure> {
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|_| Failure::Usage(format!("no certificate can be for the name {host:?}")))?;
    let config: ClientConfig = options.trust.config(default_provider()).map_err(Failure::Usage)?;
    ClientConnection::new(Arc::new(config), name).map_err(|error| Failure::Usage(error.to_string()))
}
