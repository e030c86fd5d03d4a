//! Flags for proxies in front of the server.

use ipnet::IpNet;

use super::limits::Net;

/// The flags for proxies.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Proxies")]
pub(super) struct ProxyArgs {
    /// Connections to the POP3 and POP3S ports from this network are a proxy's, and have to begin with a PROXY header
    /// (version 1 or 2) that says which client they are for; can be repeated
    #[arg(long, value_name = "NET")]
    proxy_from: Vec<Net>,

    /// If a PROXY header says that the client has used TLS, accept passwords as if it had used TLS here
    #[arg(long, requires = "proxy_from")]
    pub(super) proxy_tls: bool,
}

impl ProxyArgs {
    pub(super) fn networks(&self) -> Vec<IpNet> {
        self.proxy_from.iter().map(|net| net.0).collect()
    }
}
