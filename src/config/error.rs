//! Errors of settings.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::auth::UserName;
use crate::net::{CertificateError, ListenAddress};
use crate::transform::Limit;

/// Why settings do not make a configuration.
#[derive(Debug)]
pub enum ConfigError {
    /// A user is given twice.
    UserTwice(UserName),
    /// A flag is given more often than is allowed.
    TooOften(&'static str),
    /// A resource is limited twice.
    LimitTwice(Limit),
    /// The transform's command line is empty or has an unclosed quote.
    Transform(String),
    /// The default admin could log in from other machines.
    DefaultAdmin(ListenAddress),
    /// The admin's secret cannot be used.
    Admin(String),
    /// A viewer has this name, which is the admin's.
    ViewerIsAdmin(String),
    /// The file with the admin cannot be read.
    AdminFile(PathBuf, io::Error),
    /// The admin's password would be sent over the network without TLS.
    PeepInClear(ListenAddress),
    /// The mail directory cannot be used.
    MailRoot(PathBuf, io::Error),
    /// The users file cannot be read or has no valid account.
    UsersFile(PathBuf, io::Error),
    /// An account source stands for the users file, and there is none.
    NoUsersFile,
    /// Two account sources stand for the users file.
    UsersFileTwice,
    /// An account source cannot be used, for this reason.
    AccountSource(String),
    /// PAM cannot be asked.
    Pam(String),
    /// A running server has an account source that it would have to start processes for.
    ProcessAfterStart,
    /// The certificate cannot be used.
    Certificate(CertificateError),
    /// The flags of several certificates do not belong together.
    Pairs {
        /// How often `--tls-cert` is given.
        certificates: usize,
        /// How often `--tls-key` is given.
        keys: usize,
        /// How often `--tls-names` is given.
        names: usize,
    },
    /// TLS cannot be set up.
    Tls(rustls::Error),
    /// The server cannot create a self-signed certificate.
    SelfSigned(io::Error),
    /// The state directory cannot be used.
    State(PathBuf, io::Error),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UserTwice(name) => write!(f, "user {name} is given twice"),
            Self::TooOften(flag) => write!(f, "{flag} can be given twice at the most"),
            Self::LimitTwice(limit) => write!(f, "--transform-limit {limit}: this resource is limited twice"),
            Self::Transform(command) => write!(f, "cannot split the transform into words: {command:?}"),
            Self::DefaultAdmin(address) => {
                write!(f, "other machines can reach PEEP on {address}: set an admin with --peep-admin first")
            }
            Self::Admin(why) => write!(f, "the admin's password cannot be used: {why}"),
            Self::ViewerIsAdmin(name) => {
                write!(f, "the viewer {name:?} has the name of the admin; give it another name")
            }
            Self::AdminFile(path, error) => {
                write!(f, "the admin's password cannot be read: {}: {error}", path.display())
            }
            Self::PeepInClear(address) => {
                write!(f, "PEEP on {address} would accept passwords without TLS: add --peep-tls (or --allow-cleartext)")
            }
            Self::MailRoot(path, error) => write!(f, "cannot use {} as mail directory: {error}", path.display()),
            Self::UsersFile(path, error) => write!(f, "cannot use {} as users file: {error}", path.display()),
            Self::NoUsersFile => {
                f.write_str("an account source of the kind users-file has no file, and there is no --users FILE either")
            }
            Self::UsersFileTwice => {
                f.write_str("two account sources of the kind users-file have no file; only one can stand for --users")
            }
            Self::AccountSource(why) => f.write_str(why),
            Self::Pam(why) => f.write_str(why),
            Self::ProcessAfterStart => {
                f.write_str("an account source with a process of its own can only be added when the server starts")
            }
            Self::Certificate(error) => write!(f, "cannot use the TLS certificate: {error}"),
            Self::Pairs { certificates, keys, names } => write!(
                f,
                "each --tls-cert needs its --tls-key and, if any has them, its --tls-names: there are {certificates}, \
                 {keys} and {names}"
            ),
            Self::Tls(error) => write!(f, "cannot use TLS: {error}"),
            Self::SelfSigned(error) => write!(f, "cannot create the certificate of --tls-self-signed: {error}"),
            Self::State(path, error) => write!(f, "cannot use {} as state directory: {error}", path.display()),
        }
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// Returns the kind of the error, if the operating system has reported it.
    pub(super) fn kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::MailRoot(_, error)
            | Self::UsersFile(_, error)
            | Self::AdminFile(_, error)
            | Self::State(_, error)
            | Self::SelfSigned(error) => Some(error.kind()),
            Self::Certificate(error) => error.kind(),
            Self::ProcessAfterStart => Some(io::ErrorKind::PermissionDenied),
            _ => None,
        }
    }
}
