//! Sockets: binding, accepting, and a connection as sessions see it, in clear or by TLS.

mod address;
mod certificate;
mod listener;
mod patience;
mod self_signed;
mod socket;
mod tls;

pub use address::ListenAddress;
pub use certificate::{Certificate, CertificateError};
pub use listener::{Listener, bind};
pub use self_signed::self_signed;
pub use socket::{Socket, discard_input, refuse};
