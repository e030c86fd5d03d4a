//! Why the client cannot continue, and its exit status.

use std::fmt;
use std::io;

use crate::peep::{ErrorCode, UnreadableAnswer};
use crate::trust;

/// Why the client cannot continue. Each kind has an exit status.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server answered the command of the arguments with an error.
    Answer(ErrorCode),
    /// What `wait` waits for did not happen in time.
    NotInTime(String),
    /// The person did not want the change.
    NotWanted,
    /// The arguments are not valid.
    Usage(String),
    /// The connection to the server of this name failed.
    Unreachable(String, io::Error),
    /// The TLS handshake with the server of this name failed.
    NoTls(String, io::Error),
    /// The server of this name gave no answer, or one that is not PEEP.
    NoAnswer(String, UnreadableAnswer),
    /// Standard input cannot be read.
    Input(io::Error),
    /// Standard output cannot be written.
    Output(io::Error),
    /// The terminal cannot be used.
    Terminal(io::Error),
    /// The server of this name refused the admin's name and password.
    Refused(String, ErrorCode),
    /// Several servers were asked and the worst of their failures, which have been printed, has this exit status.
    Printed(u8),
}

impl Failure {
    /// The failure without the program's name in front.
    pub(super) fn reason(&self) -> String {
        self.to_string().trim_start_matches("peepclient: ").to_owned()
    }

    /// Returns true if the server may be there again later, for example because it is being restarted.
    pub(super) fn may_pass(&self) -> bool {
        use UnreadableAnswer::{Closed, Failed, Silent, Unfinished};
        match self {
            Self::Unreachable(..) | Self::NoTls(..) | Self::Refused(_, ErrorCode::TooMany) => true,
            Self::NoAnswer(_, why) => matches!(why, Closed | Failed(_) | Silent | Unfinished),
            _ => false,
        }
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Answer(_) | Self::NotInTime(_) | Self::NotWanted => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(..) | Self::NoTls(..) | Self::NoAnswer(..) => 3,
            Self::Input(_) | Self::Output(_) | Self::Terminal(_) => 3,
            Self::Refused(..) => 4,
            Self::Printed(code) => *code,
        }
    }
}

/// The line for standard error. An error that answers the command of the arguments is printed bare, as an answer is.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(code) => write!(f, "{code}"),
            Self::NotWanted => write!(f, "peepclient: nothing was changed"),
            Self::NotInTime(text) | Self::Usage(text) => write!(f, "peepclient: {text}"),
            Self::Unreachable(server, error) => write!(f, "peepclient: cannot connect to {server}: {error}"),
            Self::NoTls(server, error) => {
                let reason = match error.kind() {
                    io::ErrorKind::TimedOut => "the server does not complete the TLS handshake".to_owned(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                        "the server closed the connection in the TLS handshake".to_owned()
                    }
                    _ => trust::explain(error).unwrap_or_else(|| format!("the connection failed: {error}")),
                };
                write!(f, "peepclient: {server}: {reason}")
            }
            Self::NoAnswer(server, error) => write!(f, "peepclient: {server}: {error}"),
            Self::Input(error) => write!(f, "peepclient: cannot read the commands: {error}"),
            Self::Output(error) => write!(f, "peepclient: cannot write the answer: {error}"),
            Self::Terminal(error) => write!(f, "peepclient: cannot use the terminal: {error}"),
            Self::Refused(server, code) => write!(f, "peepclient: {server} refused the login: {code}"),
            Self::Printed(_) => Ok(()),
        }
    }
}
