//! A PEEP answer as the server writes it. The client reads it as an [`Answer`](super::Answer).

use std::fmt;

/// The most octets of an answer line, CRLF included.
const LINE_LIMIT: usize = 512;

/// One answer of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `+`
    Done,
    /// `+VALUE`
    Value(String),
    /// `+n`, then n lines.
    Lines(Vec<String>),
    /// `-N`
    Error(ErrorCode),
}

/// Why a command was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// -0: there is no such command in this state.
    UnknownCommand,
    /// -1: an argument is missing or malformed, or the line is too long.
    BadSyntax,
    /// -2: wrong admin name or password.
    WrongCredentials,
    /// -3: the user exists already.
    UserExists,
    /// -4: there is no such user.
    NoSuchUser,
    /// -5: outside the range of `c=`.
    BadMaxConnections,
    /// -6: the path cannot be used as the mail directory.
    BadMaildir,
    /// -7: outside the range of `t=`.
    BadTimeout,
    /// -8, beyond the protocol's table: the users file cannot be written.
    UsersNotWritten,
    /// -9, beyond the protocol's table: too many connections, commands or failed logins; the connection is closed.
    TooMany,
    /// -10: no connection, or no ban, is meant by the argument.
    NoSuchConnection,
    /// -11: the configuration cannot be used, the old one stays.
    BadConfiguration,
    /// -12: a viewer may not do this.
    NotForViewers,
    /// -13: nothing is kept of what is meant by the argument.
    NoSuchDeletion,
    /// -14: the maildrop has a session.
    MaildropInUse,
    /// -15: the maildrop cannot be read or written; the log tells why.
    BadMaildrop,
    /// -16: the server was started without `--allow-faults`.
    NoFaults,
    /// -17: no fault has the number that the argument is.
    NoSuchFault,
    /// -18: the server has no transform.
    NoTransform,
    /// -19: the maildrop has no message of this number.
    NoSuchMessage,
    /// A code that a newer server may send.
    Other(u32),
}

impl ErrorCode {
    const KNOWN: [Self; 20] = [
        Self::UnknownCommand,
        Self::BadSyntax,
        Self::WrongCredentials,
        Self::UserExists,
        Self::NoSuchUser,
        Self::BadMaxConnections,
        Self::BadMaildir,
        Self::BadTimeout,
        Self::UsersNotWritten,
        Self::TooMany,
        Self::NoSuchConnection,
        Self::BadConfiguration,
        Self::NotForViewers,
        Self::NoSuchDeletion,
        Self::MaildropInUse,
        Self::BadMaildrop,
        Self::NoFaults,
        Self::NoSuchFault,
        Self::NoTransform,
        Self::NoSuchMessage,
    ];

    pub(super) fn from_number(number: u32) -> Self {
        let known = usize::try_from(number).ok().and_then(|index| Self::KNOWN.get(index));
        known.copied().unwrap_or(Self::Other(number))
    }

    pub(super) fn number(self) -> u32 {
        match self {
            Self::UnknownCommand => 0,
            Self::BadSyntax => 1,
            Self::WrongCredentials => 2,
            Self::UserExists => 3,
            Self::NoSuchUser => 4,
            Self::BadMaxConnections => 5,
            Self::BadMaildir => 6,
            Self::BadTimeout => 7,
            Self::UsersNotWritten => 8,
            Self::TooMany => 9,
            Self::NoSuchConnection => 10,
            Self::BadConfiguration => 11,
            Self::NotForViewers => 12,
            Self::NoSuchDeletion => 13,
            Self::MaildropInUse => 14,
            Self::BadMaildrop => 15,
            Self::NoFaults => 16,
            Self::NoSuchFault => 17,
            Self::NoTransform => 18,
            Self::NoSuchMessage => 19,
            Self::Other(number) => number,
        }
    }
}

/// The text that the client shows a person.
impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownCommand => f.write_str("Unknown server command"),
            Self::BadSyntax => f.write_str("Invalid command syntax"),
            Self::WrongCredentials => f.write_str("Incorrect username or password"),
            Self::UserExists => f.write_str("Invalid username, already in use"),
            Self::NoSuchUser => f.write_str("Invalid username, does not exist"),
            Self::BadMaxConnections => f.write_str("Invalid maximum connections count"),
            Self::BadMaildir => f.write_str("Invalid path format"),
            Self::BadTimeout => f.write_str("Invalid timeout amount"),
            Self::UsersNotWritten => f.write_str("The users file cannot be written, nothing was changed"),
            Self::TooMany => f.write_str("Too many connections or failed logins, try again later"),
            Self::NoSuchConnection => f.write_str("No such connection or ban"),
            Self::BadConfiguration => {
                f.write_str("The configuration cannot be used, the old one stays; the command errors tells why")
            }
            Self::NotForViewers => f.write_str("A viewer may not do this"),
            Self::NoSuchDeletion => f.write_str("No deleted messages are kept of that"),
            Self::MaildropInUse => f.write_str("The maildrop is in use, try again later"),
            Self::BadMaildrop => f.write_str("The maildrop cannot be used, the log tells why"),
            Self::NoFaults => f.write_str("The server does not allow faults, see pop3d --allow-faults"),
            Self::NoSuchFault => f.write_str("No such fault"),
            Self::NoTransform => f.write_str("The server has no transform"),
            Self::NoSuchMessage => f.write_str("The maildrop has no such message"),
            Self::Other(number) => write!(f, "Unknown error code {number}"),
        }
    }
}

impl Reply {
    /// Appends the answer's lines to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Done => out.extend_from_slice(b"+\r\n"),
            Self::Value(value) => signed(out, "+", value),
            Self::Lines(lines) => {
                signed(out, "+", &lines.len().to_string());
                lines.iter().for_each(|text| line(out, text));
            }
            Self::Error(code) => signed(out, "-", &code.number().to_string()),
        }
    }
}

/// Appends a line that is not the first of an answer.
pub(super) fn line(out: &mut Vec<u8>, text: &str) {
    signed(out, "", text);
}

/// Appends one answer line, its text made safe: no control characters, cut to the line limit.
fn signed(out: &mut Vec<u8>, sign: &str, text: &str) {
    let text: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let room = text.floor_char_boundary(LINE_LIMIT - sign.len() - 2);
    out.extend_from_slice(sign.as_bytes());
    out.extend_from_slice(&text.as_bytes()[..room]);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(reply: &Reply) -> Vec<u8> {
        let mut out = Vec::new();
        reply.write(&mut out);
        out
    }

    #[test]
    fn each_kind_of_reply_has_its_first_line() {
        assert_eq!(written(&Reply::Done), b"+\r\n");
        assert_eq!(written(&Reply::Value("395".into())), b"+395\r\n");
        assert_eq!(written(&Reply::Lines(vec![])), b"+0\r\n");
        assert_eq!(written(&Reply::Lines(vec!["a".into(), "b".into()])), b"+2\r\na\r\nb\r\n");
        assert_eq!(written(&Reply::Error(ErrorCode::BadTimeout)), b"-7\r\n");
        assert_eq!(written(&Reply::Error(ErrorCode::Other(99))), b"-99\r\n");
    }

    #[test]
    fn a_value_cannot_break_its_line() {
        let long = written(&Reply::Value("é".repeat(600)));
        assert!(long.len() <= LINE_LIMIT && long.ends_with(b"\r\n"));
        assert_eq!(written(&Reply::Value("a\r\n-1".into())), b"+a??-1\r\n");
    }
}
