//! Reads the certificate again when the operator asks for it. A thread of its own does so, because reading may block on a
//! disk that hangs.

use std::io;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::Sender;

use crate::shared::Shared;
use crate::systemd;

/// A handle to the thread that reads the certificate.
#[derive(Debug)]
pub struct Reloader(Sender<()>);

impl Reloader {
    /// Starts the thread. Open connections keep using the certificate that they began with.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(shared: Arc<Shared>) -> io::Result<Self> {
        // There is room for one waiting request. It has not been carried out yet, so it covers all further ones.
        let (ask, requests) = crossbeam_channel::bounded(1);
        let read = move || {
            for () in requests {
                systemd::tell_reloading();
                reload(&shared);
                systemd::tell_ready();
            }
        };
        thread::Builder::new().name("reload".to_owned()).spawn(read)?;
        Ok(Self(ask))
    }

    /// Requests a reload. Does not wait for it.
    pub fn ask(&self) {
        let _ = self.0.try_send(());
    }
}

fn reload(shared: &Shared) {
    match shared.settings().certificate.as_ref().map(|certificate| certificate.read_again()) {
        Some(Ok(Some(certificate))) => {
            shared.change_settings(|settings| settings.certificate = Some(Arc::new(certificate)));
            log::info!("the TLS certificate has been read again");
        }
        Some(Err(error)) => log::error!("the TLS certificate stays the old one: {error}"),
        Some(Ok(None)) | None => log::info!("there is no TLS certificate to read again"),
    }
}
