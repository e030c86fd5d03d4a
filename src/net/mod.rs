//! Sockets: binding, accepting, and a connection as sessions see it, in clear or by TLS.

mod certificate;
mod listener;
mod socket;
mod tls;

pub use certificate::{Certificate, CertificateError, self_signed};
pub use listener::{Listener, WRITE_STALL, bind};
pub use socket::{Socket, discard_input, refuse};
