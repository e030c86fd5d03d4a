//! Accounts of the kind `pam`.

use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::common::Common;
use super::{ConfigError, Users};
use crate::auth::AccountSource;
use crate::pam::{Way, find_program};

/// Where the services of PAM are.
const SERVICES: &str = "/etc/pam.d";

/// The keys of PAM.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(in crate::config) struct PamArgs {
    /// The service of PAM, which is the name of a file in /etc/pam.d
    #[arg(long, value_name = "NAME", default_value = "pop3d", value_parser = service)]
    service: String,

    /// The program that asks PAM (otherwise pop3d-pam, beside pop3d or in /usr/libexec/pop3d)
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,

    /// Ask the processes that wait at this UNIX socket, and start none. Their service is set where they are started
    #[arg(long, value_name = "FILE", conflicts_with_all = ["service", "program"])]
    socket: Option<PathBuf>,

    #[command(flatten)]
    common: Common,
}

impl PamArgs {
    /// Makes the source. Its processes are started later.
    pub(super) fn open(&self, running: &Users) -> Result<AccountSource, ConfigError> {
        let (name, way) = match &self.socket {
            Some(path) => (format!("PAM behind {}", path.display()), Way::Socket(path.clone())),
            None if running.is_serving() => return Err(ConfigError::ProcessAfterStart),
            None => {
                let program = self.program.clone().map_or_else(find_program, Ok).map_err(ConfigError::Pam)?;
                (format!("PAM service {}", self.service), Way::Program { program, service: self.service.clone() })
            }
        };
        Ok(AccountSource::pam(name, way, self.common.rules()))
    }

    /// Logs a warning about what keeps most users from logging in.
    pub(super) fn warn(&self) {
        if let Some(socket) = &self.socket {
            if !socket.exists() {
                log::warn!("{} is missing: logins by PAM fail until something waits there", socket.display());
            }
            return;
        }
        let file = Path::new(SERVICES).join(&self.service);
        if !file.exists() {
            log::warn!(
                "{} is missing, so the service \"other\" of PAM decides, which mostly refuses everyone",
                file.display()
            );
        }
        if !geteuid().is_root() {
            log::warn!("without the rights of root, PAM cannot verify the passwords of /etc/shadow");
        }
    }
}

fn service(name: &str) -> Result<String, &'static str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_name = name.chars().all(is_plain) && !name.is_empty() && !name.starts_with(['.', '-']);
    if is_name { Ok(name.to_owned()) } else { Err("it has to be the name of a file in /etc/pam.d") }
}
