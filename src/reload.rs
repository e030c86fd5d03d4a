//! Reads the certificate again when the operator asks for it, in a thread of its own: its files may be on a disk that is
//! frozen, and the server goes on meanwhile.

use std::io;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::Sender;

use crate::net::Certificate;
use crate::systemd;

/// Asks the thread that reads.
#[derive(Debug)]
pub struct Reloader(Sender<()>);

impl Reloader {
    /// Starts the thread. Sessions that have begun go on with the certificate that they have.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(certificate: Option<Arc<Certificate>>) -> io::Result<Self> {
        // Room for one request: it is carried out after it was made, and so stands for all that were made before.
        let (ask, requests) = crossbeam_channel::bounded(1);
        let read = move || {
            for () in requests {
                systemd::tell_reloading();
                reload(certificate.as_deref());
                systemd::tell_ready();
            }
        };
        thread::Builder::new().name("reload".to_owned()).spawn(read)?;
        Ok(Self(ask))
    }

    /// Has the certificate read again. Does not wait for that.
    pub fn ask(&self) {
        let _ = self.0.try_send(());
    }
}

fn reload(certificate: Option<&Certificate>) {
    match certificate.map(Certificate::reload) {
        Some(Ok(true)) => log::info!("the TLS certificate has been read again"),
        Some(Err(error)) => log::error!("the TLS certificate stays the old one: {error}"),
        Some(Ok(false)) | None => log::info!("there is no TLS certificate to read again"),
    }
}
