//! The text of a users file: parses its lines, and adds or removes the line of one user without changing any other octet.
//!
//! The format is that of Dovecot's passwd-file: `NAME:{SCHEME}HASH:uid:gid:gecos:home:shell:extra`. The fields after the
//! password may be missing; of these, the ids, the home directory and some extra fields are used. Lines that begin with `#`
//! are comments.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::hidden::Hidden;
use super::location::MailLocation;
use super::mailbox::Mailbox;
use super::name::{InvalidName, UserName};
use super::own_expiry::OwnExpiry;
use super::secret::{BadSecret, Secret};
use super::session_limit::{NoNumber, SessionLimit};

/// An account.
#[derive(Debug)]
pub(super) struct Account {
    /// The password field as it is in the file; empty if the account is not from a file.
    pub(super) field: Hidden<Vec<u8>>,
    pub(super) secret: Secret,
    pub(super) mailbox: Arc<Mailbox>,
}

/// Why a line is invalid, or its user cannot be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    Name(InvalidName),
    NoPassword,
    Secret(BadSecret),
    /// An earlier line has the same name.
    Twice,
    /// The line has an extra field of Dovecot's that restricts logins. This server does not support the field, so it must
    /// not let the user in.
    Restricted(&'static str),
    /// This field says for how long messages are kept, and its value is wrong.
    Expiry(&'static str),
    /// The value of [`SessionLimit::FIELD`] is wrong.
    Sessions(NoNumber),
    /// The user can log in, but the location of the mail is not supported.
    Location(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => write!(f, "{error}"),
            Self::NoPassword => f.write_str("there is no password"),
            Self::Secret(error) => write!(f, "{error}"),
            Self::Twice => f.write_str("an earlier line has the same user"),
            Self::Restricted(field) => write!(f, "{field} is not supported, so the user is kept out"),
            Self::Expiry(field) => {
                write!(f, "{field} has to be 0 to {} days, or never; the user is kept out", OwnExpiry::MOST_DAYS)
            }
            Self::Sessions(why) => write!(f, "{} {why}; the user is kept out", SessionLimit::FIELD),
            Self::Location(why) => write!(f, "{why}; the user's logins fail"),
        }
    }
}

/// Dovecot's extra fields that restrict logins.
const RESTRICTIONS: [&str; 4] = ["nologin", "allow_nets", "allow_real_nets", "fail"];

/// The byte order mark of UTF-8.
pub(super) const MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads an account from the fields of its line, without the first one.
pub(super) fn account<'l>(fields: impl Iterator<Item = &'l [u8]>) -> Result<Account, Fault> {
    let fields: Vec<&[u8]> = fields.collect();
    // What follows the password in a line of /etc/shadow are days.
    let mut fields = if is_of_shadow(&fields) { fields[..1].to_vec() } else { fields }.into_iter();
    let field = fields.next().filter(|field| !field.is_empty()).ok_or(Fault::NoPassword)?;
    let secret = Secret::parse(field).map_err(Fault::Secret)?;
    if secret.readable().is_some_and(<[u8]>::is_empty) {
        return Err(Fault::NoPassword);
    }
    let mut given = |at| fields.nth(at).filter(|field| !field.is_empty());
    let [uid, gid] = [given(0), given(0)].map(|id| Some(String::from_utf8_lossy(id?).into_owned()));
    let home = given(1).map(path);
    let mut mailbox = Mailbox { home, uid, gid, ..Mailbox::default() };
    let mut extras = Vec::new();
    for extra in fields.skip(1) {
        if let Some(restriction) = restriction(extra) {
            return Err(Fault::Restricted(restriction));
        }
        extras.extend_from_slice(b":");
        extras.extend_from_slice(extra);
    }
    mailbox.expiry = OwnExpiry::read(|name| extra_field(&extras, name)).map_err(Fault::Expiry)?;
    let limit = extra_field(&extras, SessionLimit::FIELD).unwrap_or_default();
    mailbox.session_limit = SessionLimit::read(limit).map_err(Fault::Sessions)?;
    mailbox.location =
        extra_field(&extras, "userdb_mail").and_then(|text| MailLocation::read(text, mailbox.home.as_deref()));
    Ok(Account { field: Hidden(field.to_vec()), secret, mailbox: Arc::new(mailbox) })
}

/// Returns true for the fields behind the name in a line of /etc/shadow (shadow(5)): eight, of which the last seven are
/// numbers or empty.
fn is_of_shadow(fields: &[&[u8]]) -> bool {
    fields.len() == 8 && fields[1..].iter().all(|field| field.iter().all(u8::is_ascii_digit))
}

fn path(octets: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(octets))
}

/// The value of the field with this name in an account's extra fields.
fn extra_field<'e>(extras: &'e [u8], name: &str) -> Option<&'e [u8]> {
    let mut fields = extras.split(|&octet| octet == b' ' || octet == b'\t');
    let value =
        |field: &'e [u8]| field.strip_prefix(b":").unwrap_or(field).strip_prefix(name.as_bytes())?.strip_prefix(b"=");
    fields.find_map(value)
}

/// Returns the field of Dovecot's that restricts logins, if one of these extra fields is such a field.
pub(super) fn restriction(extra: &[u8]) -> Option<&'static str> {
    let mut keys = extra.split(u8::is_ascii_whitespace).filter_map(|field| field.split(|&octet| octet == b'=').next());
    keys.find_map(|key| RESTRICTIONS.into_iter().find(|restriction| restriction.as_bytes() == key))
}

/// Returns `text` with a further line for a user, unless a line has that name already.
pub(super) fn with_user(text: &[u8], name: &UserName, field: &str) -> Option<Vec<u8>> {
    if lines(text).any(|line| is_of(line, name)) {
        return None;
    }
    let body = text.strip_prefix(MARK).unwrap_or(text);
    let end = if body.is_empty() || body.ends_with(b"\n") { "" } else { "\n" };
    Some([text, format!("{end}{name}:{field}\n").as_bytes()].concat())
}

/// Returns `text` without the lines of that name, or `None` if there are none.
pub(super) fn without_user(text: &[u8], name: &UserName) -> Option<Vec<u8>> {
    let mark = if text.starts_with(MARK) { MARK } else { b"" };
    let others = lines(text).filter(|line| !is_of(line, name));
    let rest: Vec<u8> = std::iter::once(mark).chain(others).collect::<Vec<_>>().concat();
    (rest.len() < text.len()).then_some(rest)
}

/// Returns the lines with their line ends, without the byte order mark.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.strip_prefix(MARK).unwrap_or(text).split_inclusive(|&octet| octet == b'\n')
}

/// Returns the fields of a line, unless it is a comment or empty.
pub(super) fn fields(line: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let has_fields = !line.starts_with(b"#") && !line.trim_ascii().is_empty();
    has_fields.then(|| line.split(|&octet| octet == b':'))
}

fn is_of(line: &[u8], name: &UserName) -> bool {
    fields(line).is_some_and(|mut fields| fields.next() == Some(name.as_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::accounts::Accounts;
    use proptest::prelude::*;

    fn user(name: &str) -> UserName {
        name.parse().unwrap()
    }

    /// Some editors write a byte order mark at the beginning of a file.
    #[test]
    fn a_byte_order_mark_is_not_part_of_a_name() {
        let text = "\u{feff}ana:{PLAIN}a\nbob:{PLAIN}b\n";
        let accounts = Accounts::read(text.as_bytes());
        assert_eq!(accounts.names(None).map(|name| name.to_string()).collect::<Vec<_>>(), ["ana", "bob"]);
        assert!(accounts.has_mark && accounts.faults.is_empty());
        assert_eq!(with_user(text.as_bytes(), &user("ana"), "{PLAIN}x"), None);
        assert_eq!(without_user(text.as_bytes(), &user("ana")).unwrap(), "\u{feff}bob:{PLAIN}b\n".as_bytes());
        assert_eq!(without_user(text.as_bytes(), &user("eve")), None);
        let alone = "\u{feff}";
        let added = with_user(alone.as_bytes(), &user("eve"), "{PLAIN}e").unwrap();
        assert_eq!(added, "\u{feff}eve:{PLAIN}e\n".as_bytes());
        assert!(!Accounts::read(*b"ana:{PLAIN}a\n\xef\xbb\xbfbob:{PLAIN}b\n").has_mark);
    }

    #[test]
    fn lines_of_shadow_have_no_home() {
        let text = b"ana:$1$Q4FstVWN$CLc8X7s/Raxuogk8Bb6D0.:19000:0:99999:7:::\nbob:!:19000:0:99999:7:::\n\
            eve:{PLAIN}e:1000:1000::/home/eve:::\n";
        let accounts = Accounts::read(&text[..]);
        assert_eq!(accounts.get(&user("ana")).unwrap().mailbox, Arc::new(Mailbox::default()));
        assert_eq!(accounts.get(&user("eve")).unwrap().mailbox.home, Some("/home/eve".into()));
        assert_eq!(accounts.faults, [(2, Fault::Secret(BadSecret::Locked))]);
    }

    #[test]
    fn lines_are_accounts_comments_or_faults() {
        let text = b"# comment:{PLAIN}x\n\n  \t\r\nana:{PLAIN}a\n#\xff\nbob:{PLAIN}b:1:1:Bob::/bin/sh:x=y\r\n\
            carl:secret\ndora\neve:\n../x:{PLAIN}x\nfay:{MD5}x\nana:{PLAIN}other\n\xff:{PLAIN}x\n\
            gil:{PLAIN}g::::::nologin\nhal:{PLAIN}h::::::a=b allow_nets=127.0.0.1\nivy:{PLAIN}i\n\
            jim:{PLAIN}j::::::allow_real_nets=127.0.0.1\nkim:{PLAIN}k::::::fail=y\nlea:{PLAIN}";
        let accounts = Accounts::read(&text[..]);
        let names: Vec<String> = accounts.names(None).map(|name| name.to_string()).collect();
        assert_eq!(names, ["ana", "bob", "ivy"]);
        assert_eq!(accounts.get(&user("ana")).unwrap().secret.readable(), Some(&b"a"[..]));
        assert_eq!(accounts.get(&user("bob")).unwrap().secret.readable(), Some(&b"b"[..]));
        assert_eq!(
            accounts.faults,
            [
                (7, Fault::Secret(BadSecret::NoScheme)),
                (8, Fault::NoPassword),
                (9, Fault::NoPassword),
                (10, Fault::Name(InvalidName)),
                (11, Fault::Secret(BadSecret::UnknownScheme("MD5".into()))),
                (12, Fault::Twice),
                (13, Fault::Name(InvalidName)),
                (14, Fault::Restricted("nologin")),
                (15, Fault::Restricted("allow_nets")),
                (17, Fault::Restricted("allow_real_nets")),
                (18, Fault::Restricted("fail")),
                (19, Fault::NoPassword),
            ]
        );
    }

    #[test]
    fn home_and_location_are_read() {
        let text = b"a:{PLAIN}a\nb:{PLAIN}b:1:1::/home/b\nc:{PLAIN}c::::::userdb_mail=maildir:~/Maildir\n\
            d:{PLAIN}d::::/d::x=y userdb_mail=mbox:~/mail:INBOX=/var/mail/%u userdb_quota_rule=*:storage=1M\n\
            e:{PLAIN}e:1:2:::/bin/sh:userdb_mail=maildir:/srv/%d/%n:LAYOUT=fs\nf:{PLAIN}f::::::userdb_mail=sdbox:/x\n";
        let accounts = Accounts::read(&text[..]);
        let found = |name: &str| {
            let Mailbox { home, location, .. } = accounts.get(&user(name)).unwrap().mailbox.as_ref().clone();
            [home, location.map(|location| location.path)]
                .map(|path| path.map(|path| path.to_str().unwrap().to_owned()))
        };
        let expected = |home: Option<&str>, location: Option<&str>| [home, location].map(|it| it.map(str::to_owned));
        assert_eq!(found("a"), expected(None, None));
        assert_eq!(found("b"), expected(Some("/home/b"), None));
        let owner = |name: &str| {
            let Mailbox { uid, gid, .. } = accounts.get(&user(name)).unwrap().mailbox.as_ref().clone();
            [uid, gid].map(Option::unwrap_or_default)
        };
        assert_eq!([owner("a"), owner("b"), owner("c")], [["", ""], ["1", "1"], ["", ""]]);
        assert_eq!(found("c"), expected(None, Some("%h/Maildir")));
        assert_eq!(found("d"), expected(Some("/d"), Some("/var/mail/%u")));
        assert_eq!(found("e"), expected(None, Some("/srv/%d/%n")));
        assert_eq!(found("f"), expected(None, Some("sdbox:/x")));
        assert!(matches!(&accounts.faults[..], [(6, Fault::Location(why))] if why.contains("\"sdbox:/x\"")));
    }

    #[test]
    fn a_user_is_added_as_a_line_after_all_others() {
        for (before, after) in [
            ("", "ana:{PLAIN}x\n"),
            ("# users\n", "# users\nana:{PLAIN}x\n"),
            ("bob:{PLAIN}b", "bob:{PLAIN}b\nana:{PLAIN}x\n"),
            ("#ana:{PLAIN}b\r\nanas:b\n", "#ana:{PLAIN}b\r\nanas:b\nana:{PLAIN}x\n"),
        ] {
            assert_eq!(with_user(before.as_bytes(), &user("ana"), "{PLAIN}x").unwrap(), after.as_bytes());
        }
        // The name of a malformed line is taken, too.
        for taken in ["ana:{PLAIN}b\n", "ana:b\n", "ana", "#\nana:::::\r\n"] {
            assert_eq!(with_user(taken.as_bytes(), &user("ana"), "{PLAIN}x"), None, "{taken}");
        }
    }

    #[test]
    fn a_user_is_removed_with_all_lines_of_the_name() {
        let text = b"# ana\nana:{PLAIN}x\nanas:{PLAIN}\xff\nana:old\n\nana";
        assert_eq!(without_user(text, &user("ana")).unwrap(), b"# ana\nanas:{PLAIN}\xff\n\n");
        assert_eq!(without_user(text, &user("bob")), None);
    }

    /// Arbitrary text with some lines that look like accounts.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..20),
            "(ana|bob|#ana|)(:(\\{PLAIN\\}[a-z]*|x)?(:[0-9]*)*)?\r?".prop_map(String::into_bytes),
        ];
        let joined = |(lines, ended): (Vec<Vec<u8>>, bool)| {
            let mut text = lines.join(&b"\n"[..]);
            text.extend_from_slice(if ended { b"\n" } else { b"" });
            text
        };
        (proptest::collection::vec(line, 0..12), any::<bool>()).prop_map(joined)
    }

    proptest! {
        #[test]
        fn changes_keep_all_octets_of_other_lines(text in text()) {
            let others = |text: &[u8]| -> Vec<Vec<u8>> {
                lines(text).filter(|line| !is_of(line, &user("ana"))).map(<[u8]>::to_vec).collect()
            };
            let removed = without_user(&text, &user("ana"));
            if let Some(removed) = &removed {
                prop_assert_eq!(others(removed), others(&text));
            }
            let base = removed.unwrap_or(text);
            let added = with_user(&base, &user("ana"), "{PLAIN}x").unwrap();
            prop_assert!(added.starts_with(&base));
            let accounts = Accounts::read(&added[..]);
            let account = accounts.get(&user("ana")).unwrap();
            prop_assert_eq!(account.secret.readable(), Some(&b"x"[..]));
            let mut unended = without_user(&added, &user("ana")).unwrap();
            if !base.is_empty() && !base.ends_with(b"\n") {
                prop_assert_eq!(unended.pop(), Some(b'\n'));
            }
            prop_assert_eq!(unended, base);
        }
    }
}
