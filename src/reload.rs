//! Reads the certificate again when the operator asks for it, in a thread of its own: its files may be on a disk that is
//! frozen, and the server goes on meanwhile.

use std::io;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::Sender;

use crate::shared::Shared;
use crate::systemd;

/// Asks the thread that reads.
#[derive(Debug)]
pub struct Reloader(Sender<()>);

impl Reloader {
    /// Starts the thread. Sessions that have begun go on with the certificate that they have.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(shared: Arc<Shared>) -> io::Result<Self> {
        // Room for one request: it is carried out after it was made, and so stands for all that were made before.
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

    /// Has the certificate read again. Does not wait for that.
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
