//! Where an account's mail is, and whose it is.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::location::{MailFormat, MailLocation};
use super::name::UserName;
use super::own_expiry::OwnExpiry;
use super::session_limit::SessionLimit;
use crate::separate::fields::{decode, encode, text};

/// Where an account's source says that its mail is, and whose it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mailbox {
    /// The account's home directory.
    pub home: Option<PathBuf>,
    /// The account's uid, as a number or as the name of an account of the system.
    pub uid: Option<String>,
    /// The account's gid, as a number or as the name of a group.
    pub gid: Option<String>,
    /// The location that the field `userdb_mail` gives.
    pub location: Option<MailLocation>,
    /// For how long the account's messages are kept.
    pub expiry: OwnExpiry,
    /// How many sessions the account may have at the same time.
    pub session_limit: Option<SessionLimit>,
    /// The user's name, if the account's source knows the user by another one.
    pub user: Option<UserName>,
}

/// The formats that a location can have, and what an encoded mailbox has for them.
const FORMATS: [(MailFormat, &str); 4] = [
    (MailFormat::Maildir, "maildir"),
    (MailFormat::Mbox, "mbox"),
    (MailFormat::Unnamed, "unnamed"),
    (MailFormat::Unsupported, "unsupported"),
];

impl Mailbox {
    /// Returns the mailbox as one sequence of octets, or `None` if there would be more than [`crate::separate::MOST`]. A
    /// value that the account does not have is an empty field.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let Self { home, uid, gid, location, expiry, session_limit, user } = self;
        let format = location.as_ref().map(|location| location.format);
        let format = FORMATS.iter().find(|(it, _)| Some(*it) == format).map(|(_, word)| *word);
        let [read, all] = expiry.fields();
        let limit = session_limit.map(|limit| limit.sessions().to_string());
        encode([
            octets(home.as_ref()),
            octets(uid.as_ref()),
            octets(gid.as_ref()),
            octets(format),
            octets(location.as_ref().map(|location| &location.path)),
            read.as_bytes(),
            all.as_bytes(),
            octets(limit.as_ref()),
            octets(user.as_ref().map(UserName::as_str)),
        ])
    }

    /// Reads what [`Mailbox::encode`] has returned. Returns `None` if the octets are something else.
    pub(super) fn decode(octets: &[u8]) -> Option<Self> {
        let [home, uid, gid, format, location, read, all, session_limit, user] = decode(octets)?[..] else {
            return None;
        };
        let path = |field: &[u8]| OsString::from_vec(field.to_vec()).into();
        let given = |field: &[u8]| if field.is_empty() { Some(None) } else { text(field).map(Some) };
        let location = match FORMATS.iter().find(|(_, word)| word.as_bytes() == format) {
            Some((format, _)) => Some(MailLocation { format: *format, path: path(location) }),
            None if format.is_empty() => None,
            None => return None,
        };
        Some(Self {
            home: Some(path(home)).filter(|_| !home.is_empty()),
            uid: given(uid)?,
            gid: given(gid)?,
            location,
            expiry: OwnExpiry::of_fields([read, all])?,
            session_limit: SessionLimit::read(session_limit).ok()?,
            user: given(user)?.map(|user| user.parse()).transpose().ok()?,
        })
    }
}

/// The octets of a value, or none if the account does not have it.
fn octets(value: Option<&(impl AsRef<OsStr> + ?Sized)>) -> &[u8] {
    value.map_or(&[], |value| value.as_ref().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::accounts::Accounts;
    use proptest::prelude::*;

    #[test]
    fn a_mailbox_is_decoded_as_it_was() {
        for rest in [
            "",
            ":1000:users::/home/ana",
            ":::::/bin/sh:userdb_mail=mbox:/var/mail/%u userdb_expire_all=never userdb_expire_read=0",
            "::100:::/bin/sh:userdb_mail=maildir:~/Maildir userdb_expire_read=30",
            ":::::/bin/sh:userdb_mail=/srv/%n",
            ":::::/bin/sh:userdb_connections=3",
            ":::::/bin/sh:userdb_mail=sdbox:/x",
        ] {
            let accounts = Accounts::read(format!("ana:{{PLAIN}}secret{rest}\n").as_bytes());
            let mailbox = Mailbox::clone(&accounts.get(&"ana".parse().unwrap()).unwrap().mailbox);
            let renamed = Mailbox { user: Some("other".parse().unwrap()), ..mailbox.clone() };
            for mailbox in [mailbox, renamed] {
                assert_eq!(Mailbox::decode(&mailbox.encode().unwrap()), Some(mailbox), "{rest}");
            }
        }
        let long = Mailbox { home: Some("x".repeat(5000).into()), ..Mailbox::default() };
        assert_eq!(long.encode(), None);
    }

    proptest! {
        #[test]
        fn no_octets_are_a_fault_of_the_parser(octets: Vec<u8>, fields: [Vec<u8>; 9]) {
            let _ = Mailbox::decode(&octets);
            let _ = Mailbox::decode(&encode(fields.iter().map(Vec::as_slice)).unwrap_or_default());
        }
    }
}
