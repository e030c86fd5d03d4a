//! What a program has to know to use a test server: addresses, account, certificate.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::USER;
use crate::connections::Service;
use crate::net::fingerprint_of;
use crate::server::Server;

/// The address that the server listens on.
pub(super) const HOST: &str = "127.0.0.1";

/// A server that can be used.
#[derive(Debug)]
pub(super) struct Ready {
    /// The ports of POP3, of POP3 over TLS and of PEEP.
    ports: [u16; 3],
    password: String,
    directory: PathBuf,
    certificate: PathBuf,
    fingerprint: String,
}

impl Ready {
    /// # Errors
    /// A message, if a port is not bound or the certificate cannot be read.
    pub(super) fn of(server: &Server, password: &str, directory: &Path, certificate: &Path) -> Result<Self, String> {
        let port = |service| server.port(service).ok_or_else(|| format!("there is no port for {service}"));
        let fingerprint = fingerprint_of(certificate).map_err(|error| error.to_string())?;
        Ok(Self {
            ports: [port(Service::Pop3)?, port(Service::Pop3s)?, port(Service::Peep)?],
            password: password.to_owned(),
            directory: directory.to_owned(),
            certificate: certificate.to_owned(),
            fingerprint,
        })
    }

    /// The JSON object. Its names never change.
    fn object(&self) -> String {
        let Self { ports: [pop3, pop3s, peep], password, directory, certificate, fingerprint } = self;
        let object = json!({
            "host": HOST,
            "pop3": pop3,
            "pop3s": pop3s,
            "peep": peep,
            "user": USER,
            "password": password,
            "directory": directory.to_string_lossy(),
            "certificate": certificate.to_string_lossy(),
            "fingerprint": fingerprint,
        });
        format!("{object}\n")
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ports: [pop3, pop3s, peep], password, directory, certificate, fingerprint } = self;
        writeln!(f, "POP3         {HOST}:{pop3}\nPOP3S        {HOST}:{pop3s}\nPEEP         {HOST}:{peep}")?;
        writeln!(f, "user         {USER}\npassword     {password}\ndirectory    {}", directory.display())?;
        writeln!(f, "certificate  {}\nfingerprint  {fingerprint}", certificate.display())
    }
}

/// The file of `--ready-file`. It is removed when this is dropped.
#[derive(Debug)]
pub(super) struct ReadyFile(PathBuf);

impl ReadyFile {
    /// Writes the file at once: who finds it finds all of it. Only its owner may read it.
    ///
    /// # Errors
    /// Those of writing.
    pub(super) fn write(path: &Path, ready: &Ready) -> io::Result<Self> {
        let mut new = path.as_os_str().to_owned();
        new.push(format!(".{}.new", std::process::id()));
        let new = PathBuf::from(new);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        let written = write(file, ready).and_then(|()| fs::rename(&new, path));
        written.inspect_err(|_| fs::remove_file(&new).unwrap_or(()))?;
        Ok(Self(path.to_owned()))
    }
}

fn write(mut file: File, ready: &Ready) -> io::Result<()> {
    file.write_all(ready.object().as_bytes())
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0); // a test may have removed it
    }
}
