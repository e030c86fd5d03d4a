//! Every reply of the server. Every first line stays far under the 512 octets of RFC 2449 section 4.
//!
//! No text begins with `[` except for a response code of RFC 2449 or RFC 3206, because clients take it for one when
//! RESP-CODES is announced.

use std::fmt;
use std::io::{self, Write as _};

use rustix::io::Errno;

use crate::auth::sasl::{self, Failure, Mechanism};
use crate::guard::Penalty;
use crate::wire::Foreign;

/// The greeting. A `<…>` in it announces APOP (RFC 1939 section 7).
pub(super) const GREETING: &str = "pop3d ready";

/// The reply in place of the greeting when there are too many connections from the client's address.
pub const TOO_MANY_CONNECTIONS: &str = "-ERR [SYS/TEMP] too many connections from your address\r\n";

/// The reply in place of the greeting when an admin has banned the client's address.
pub const BANNED: &str = "-ERR [SYS/PERM] connections from your address are not accepted\r\n";

/// The reply in place of the greeting when an admin has said that no new connections are to be taken.
pub const DRAINING: &str = "-ERR [SYS/TEMP] no new connections are accepted at present\r\n";

/// The capabilities of every connection (RFC 2449 section 5 and its "announced states").
const CAPABILITIES: &str = "RESP-CODES\r\n\
    AUTH-RESP-CODE\r\n\
    PIPELINING\r\n\
    IMPLEMENTATION pop3d\r\n";

/// The capabilities that this connection has now besides [`CAPABILITIES`].
#[derive(Debug)]
pub(super) struct Offer {
    /// USER and PASS.
    pub(super) user: bool,
    /// STLS (RFC 2595 section 4).
    pub(super) stls: bool,
    /// UIDL. Only a fault that a tester has ordered leaves it out.
    pub(super) uidl: bool,
    /// TOP. Only a fault that a tester has ordered leaves it out.
    pub(super) top: bool,
    /// The mechanisms of AUTH.
    pub(super) mechanisms: Vec<Mechanism>,
    /// For how many days messages are kept at least (RFC 2449 section 6.7); `None` for ever.
    pub(super) expire: Option<u32>,
    /// True if that differs between users, and none has logged in.
    pub(super) expire_by_user: bool,
}

/// Appends the answer to CAPA.
pub(super) fn capabilities(out: &mut Vec<u8>, offer: &Offer) {
    ok(out, "capability list follows");
    for (capability, offered) in [
        ("USER\r\n", offer.user),
        ("STLS\r\n", offer.stls),
        ("TOP\r\n", offer.top),
        ("UIDL\r\n", offer.uidl),
        (CAPABILITIES, true),
    ] {
        if offered {
            out.extend_from_slice(capability.as_bytes());
        }
    }
    // Writing to a vector cannot fail.
    let by_user = if offer.expire_by_user { " USER" } else { "" };
    let _ = match offer.expire {
        Some(days) => write!(out, "EXPIRE {days}{by_user}\r\n"),
        None => write!(out, "EXPIRE NEVER\r\n"),
    };
    if !offer.mechanisms.is_empty() {
        let names: String = offer.mechanisms.iter().map(|mechanism| format!(" {mechanism}")).collect();
        out.extend_from_slice(format!("SASL{names}\r\n").as_bytes());
    }
    end(out);
}

/// Appends the answer to AUTH without an argument, which is not in RFC 5034 but sent by older clients.
pub(super) fn mechanisms(out: &mut Vec<u8>, mechanisms: &[Mechanism]) {
    ok(out, "mechanisms follow");
    for mechanism in mechanisms {
        out.extend_from_slice(format!("{mechanism}\r\n").as_bytes());
    }
    end(out);
}

/// Appends a challenge. An empty one keeps the space behind `+` (RFC 5034 section 4).
pub(super) fn challenge(out: &mut Vec<u8>, challenge: &[u8]) {
    status(out, b"+ ", sasl::encode(challenge));
}

/// Why a well-formed command is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A TRANSACTION command before login.
    LoginFirst,
    /// USER, PASS, APOP, AUTH or STLS after login.
    LoggedIn,
    /// A password would cross the network without TLS.
    InClear,
    /// STLS on a server without a certificate.
    NoTls,
    /// STLS when TLS is active already.
    TlsActive,
    /// PASS without USER right before it.
    UserFirst,
    /// APOP although the greeting has not announced it.
    NoApop,
    /// AUTH with a mechanism that is not offered on this connection now.
    NoMechanism,
    /// An exchange of AUTH that failed.
    Exchange(Failure),
    /// An admin has ended the session.
    Kicked,
    /// Another login of the user has taken the maildrop over.
    TakenOver,
    /// Wrong user name or password; the reply does not say which.
    Credentials,
    /// An admin has banned the client's address since it connected.
    Banned,
    /// The login waited too long for its turn to be verified.
    Busy,
    /// The accounts cannot be asked at present.
    Unavailable,
    /// More commands before login than any client needs.
    TooManyCommands,
    /// There were too many failed logins from the client's address. The code is not `[AUTH]`, because a client that
    /// gets that asks its user for another password.
    Penalty(Penalty),
    /// Another session holds the maildrop.
    InUse,
    /// The account has as many sessions as it may have.
    TooManySessions,
    /// The message is marked as deleted, or there is no message of this number.
    NoSuchMessage,
    /// The server cannot keep other servers out of the maildrop, so it removes nothing.
    ReadOnly,
    /// The operator lets nobody delete messages.
    KeepsAll,
    /// The maildrop cannot be opened.
    Maildrop(Fault),
    /// The message cannot be read: it has vanished, or the disk fails.
    Message(Fault),
    /// The message has changed since login.
    Changed,
    /// The transform failed before its first octet.
    Transform,
    /// The transformed message has another size than the client was told.
    OtherSize,
    /// Some transformed messages have no known size yet.
    Uncounted,
    /// Some marked messages are still there after UPDATE.
    NotRemoved,
    /// The command line is longer than the limit.
    TooLong,
    /// The client does not speak POP3.
    Foreign(Foreign),
}

/// Whether a failure of the server may pass by itself (RFC 3206 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Trying again later may help.
    Temporary,
    /// The operator has to act first.
    Permanent,
}

impl From<&io::Error> for Fault {
    fn from(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            // The last is for a symbolic link where a directory or a message should be.
            Some(Errno::ACCESS | Errno::PERM | Errno::NOTDIR | Errno::LOOP) => Self::Permanent,
            // A directory that is not to be taken for a maildrop.
            None if error.kind() == io::ErrorKind::PermissionDenied => Self::Permanent,
            _ => Self::Temporary,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Temporary => "[SYS/TEMP]",
            Self::Permanent => "[SYS/PERM]",
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoginFirst => f.write_str("log in first"),
            Self::LoggedIn => f.write_str("already logged in"),
            Self::InClear => f.write_str("[AUTH] passwords are accepted only over TLS"),
            Self::NoTls => f.write_str("this server has no TLS"),
            Self::TlsActive => f.write_str("TLS is active already"),
            Self::UserFirst => f.write_str("send USER first"),
            Self::NoApop => f.write_str("no user of this server can log in by APOP"),
            Self::NoMechanism => f.write_str("unknown mechanism, see CAPA"),
            Self::Exchange(failure) => write!(f, "{failure}"),
            Self::TooManyCommands => f.write_str("too many commands before login"),
            Self::Kicked => write!(f, "{} the administrator has ended this session", Fault::Temporary),
            Self::TakenOver => {
                write!(f, "{} another login has taken over this maildrop", Fault::Temporary)
            }
            Self::Penalty(left) => {
                write!(f, "{} too many failed logins from your address, try again in {left}", Fault::Temporary)
            }
            Self::Credentials => f.write_str("[AUTH] wrong user name or password"),
            Self::Banned => write!(f, "{} connections from your address are not accepted", Fault::Permanent),
            Self::Busy => write!(f, "{} too many logins at once, try again later", Fault::Temporary),
            Self::Unavailable => write!(f, "{} the accounts cannot be asked, try again later", Fault::Temporary),
            Self::InUse => f.write_str("[IN-USE] another session has this maildrop open"),
            Self::TooManySessions => f.write_str("[IN-USE] this account has as many sessions as it may have"),
            Self::NoSuchMessage => f.write_str("no such message"),
            Self::ReadOnly => write!(f, "{} the maildrop is read-only: the server cannot lock it", Fault::Permanent),
            Self::KeepsAll => write!(f, "{} this server keeps all messages", Fault::Permanent),
            Self::Maildrop(fault) => write!(f, "{fault} the maildrop cannot be opened"),
            Self::Message(fault) => write!(f, "{fault} the message cannot be read"),
            Self::Changed => write!(f, "{} the message has changed since login", Fault::Temporary),
            Self::Transform => write!(f, "{} the message could not be transformed", Fault::Temporary),
            Self::OtherSize => {
                write!(f, "{} the transformed message has another size than was listed", Fault::Temporary)
            }
            Self::Uncounted => {
                write!(f, "{} sizes of messages are being determined, try again later", Fault::Temporary)
            }
            Self::NotRemoved => write!(f, "{} some deleted messages were not removed", Fault::Temporary),
            Self::TooLong => f.write_str("command line too long"),
            Self::Foreign(Foreign::Http) => f.write_str("this is POP3, not HTTP"),
            Self::Foreign(Foreign::Tls) => f.write_str("TLS is started by STLS on this port"),
        }
    }
}

/// Room for a status line that is not unusually long, so that the buffer need not grow as the parts of the line are appended.
const USUAL: usize = 128;

/// Appends `+OK text`.
pub(super) fn ok(out: &mut Vec<u8>, text: impl fmt::Display) {
    status(out, b"+OK ", text);
}

/// Appends `-ERR text`.
pub(super) fn err(out: &mut Vec<u8>, text: impl fmt::Display) {
    status(out, b"-ERR ", text);
}

fn status(out: &mut Vec<u8>, indicator: &[u8], text: impl fmt::Display) {
    out.reserve(USUAL);
    out.extend_from_slice(indicator);
    let _ = write!(out, "{text}"); // writing to a vector cannot fail
    out.extend_from_slice(b"\r\n");
}

/// Appends a scan listing: number, space, octets (RFC 1939 section 5).
pub(super) fn scan_listing(out: &mut Vec<u8>, number: usize, octets: u64) {
    listing(out, number, itoa::Buffer::new().format(octets).as_bytes());
}

/// Appends a unique-id listing: number, space, unique-id (RFC 1939 section 7).
pub(super) fn unique_id_listing(out: &mut Vec<u8>, number: usize, unique_id: &[u8]) {
    listing(out, number, unique_id);
}

fn listing(out: &mut Vec<u8>, number: usize, value: &[u8]) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    out.push(b' ');
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends the termination octet and its CRLF.
pub(super) fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(b".\r\n");
}
