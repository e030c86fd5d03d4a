//! Sockets: listening, accepting, and a connection as sessions see it, unencrypted or with TLS.
//!
//! - [`bind()`] and [`Listener`] make listening sockets and take connections from them; [`SocketFile`] is a UNIX socket.
//! - [`Origin`] says where a client comes from; [`proxy`] reads it from the header of a proxy.
//! - [`Socket`] is a client's connection for one session: blocking, with timeouts, counting the octets sent. It
//!   implements what [`crate::wire`] needs, so sessions do not know sockets.
//! - [`Certificate`] is the server's certificate and key, read again on SIGHUP; [`self_signed()`] makes one.
//! - `parse_network` and `network_text` read and write networks.
//! - [`holders`] tells which programs listen on a port.
//! - [`refuse`] and [`discard_input`] end a connection so that the client still gets the last reply.
//!
//! [`crate::server`] is the caller.

mod address;
mod bind;
mod certificate;
mod certificates;
mod holder;
mod listener;
mod network;
mod origin;
mod patience;
pub mod proxy;
mod self_signed;
mod socket;
mod socket_file;
mod tls;

pub use address::ListenAddress;
pub use bind::{bind, bind_beside};
pub use certificate::{Certificate, CertificateError, fingerprint_of};
pub use certificates::Certificates;
pub use holder::{Holder, holders};
pub use listener::Listener;
pub(crate) use network::{network_text, parse_network};
pub use origin::Origin;
pub use self_signed::self_signed;
pub use socket::{Socket, discard_input, refuse};
pub use socket_file::SocketFile;
