//! The location of one account's mail, as Dovecot's field `userdb_mail` writes it: `maildir:PATH`, `mbox:PATH` or `PATH`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The location of one account's mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailLocation {
    /// The format, which counts whatever layout the operator has chosen for all maildrops.
    pub format: MailFormat,
    /// The path, as a template. If the format is unsupported, it is the whole location.
    pub path: PathBuf,
}

/// The format that a location names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailFormat {
    /// A directory of which only the files in new/ and cur/ are messages.
    Maildir,
    /// A file with all messages.
    Mbox,
    /// The location names no format, so it is found out as for all maildrops.
    Unnamed,
    /// The location has a format that this server does not support, so the maildrop cannot be opened.
    Unsupported,
}

impl MailLocation {
    /// Reads the location of an account with this home directory. `~` at its beginning stands for the home. If an mbox
    /// location has `INBOX=PATH`, that path is the result, because the other one is for folders. Returns `None` if the
    /// location is empty.
    #[must_use]
    pub fn read(text: &[u8], home: Option<&Path>) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        let (format, value) = format(text);
        let mut parts = value.split(|&octet| octet == b':');
        let first = parts.next().unwrap_or_default();
        let location = parts.find_map(|part| part.strip_prefix(b"INBOX=")).unwrap_or(first);
        let path = |octets: &[u8]| PathBuf::from(OsStr::from_bytes(octets));
        let location = match location {
            _ if format == MailFormat::Unsupported => return Some(Self { format, path: path(text) }),
            [b'~'] => Self { format, path: path(b"%h") },
            [b'~', b'/', rest @ ..] => Self { format, path: path(&[b"%h/", rest].concat()) },
            // The home of another account of the system.
            [] | [b'~', ..] => return Some(Self { format: MailFormat::Unsupported, path: path(text) }),
            location => Self { format, path: path(location) },
        };
        Some(location.beneath(home))
    }

    /// Why the maildrop cannot be opened, if its location is unsupported.
    #[must_use]
    pub fn unsupported(&self) -> Option<String> {
        (self.format == MailFormat::Unsupported).then(|| {
            format!("the location {:?} is not supported: it has to be maildir:PATH, mbox:PATH or PATH", self.path)
        })
    }

    /// The same location, written as one in the home directory if it is there.
    fn beneath(self, home: Option<&Path>) -> Self {
        match home.and_then(|home| self.path.strip_prefix(home).ok()) {
            Some(rest) if !rest.as_os_str().is_empty() => Self { path: Path::new("%h").join(rest), ..self },
            _ => self,
        }
    }
}

/// The format that a location names, and what follows it. As for Dovecot, letters, digits and `_` in front of a colon name one.
fn format(text: &[u8]) -> (MailFormat, &[u8]) {
    let end = text.iter().position(|octet| !(octet.is_ascii_alphanumeric() || *octet == b'_')).unwrap_or(text.len());
    match (&text[..end], &text[end..]) {
        (b"maildir", [b':', value @ ..]) => (MailFormat::Maildir, value),
        (b"mbox", [b':', value @ ..]) => (MailFormat::Mbox, value),
        ([_, ..], [b':', ..]) => (MailFormat::Unsupported, text),
        _ => (MailFormat::Unnamed, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_read_as_dovecot_does() {
        use MailFormat::{Maildir, Mbox, Unnamed, Unsupported};
        for (text, format, path) in [
            ("maildir:~/Maildir", Maildir, "%h/Maildir"),
            ("maildir:~", Maildir, "%h"),
            ("maildir:~/", Maildir, "%h/"),
            ("maildir:/srv/%d/%n:LAYOUT=fs", Maildir, "/srv/%d/%n"),
            ("maildir:/home/ana/Maildir", Maildir, "%h/Maildir"),
            ("maildir:/home/anna/Maildir", Maildir, "/home/anna/Maildir"),
            ("mbox:~/mail:INBOX=/var/mail/%u", Mbox, "/var/mail/%u"),
            ("mbox:~/mail:INBOX=~/mbox", Mbox, "%h/mbox"),
            ("/srv/%n", Unnamed, "/srv/%n"),
            ("~/Maildir:LAYOUT=fs", Unnamed, "%h/Maildir"),
            ("~", Unnamed, "%h"),
            ("srv/a:b", Unnamed, "srv/a"),
            ("sdbox:/x", Unsupported, "sdbox:/x"),
            ("mdbox:~/mdbox", Unsupported, "mdbox:~/mdbox"),
            ("Maildir:/x", Unsupported, "Maildir:/x"),
            ("maildir:", Unsupported, "maildir:"),
            ("maildir:~bob/Maildir", Unsupported, "maildir:~bob/Maildir"),
        ] {
            let read = MailLocation::read(text.as_bytes(), Some(Path::new("/home/ana"))).unwrap();
            assert_eq!(read, MailLocation { format, path: path.into() }, "{text}");
            assert_eq!(read.unsupported().is_some(), format == Unsupported, "{text}");
        }
        assert_eq!(MailLocation::read(b"", None), None);
    }
}
