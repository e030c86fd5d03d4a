//! From the row of a query to an account.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::driver::Row;
use crate::auth::hidden::Hidden;
use crate::auth::location::MailLocation;
use crate::auth::mailbox::Mailbox;
use crate::auth::secret::{BadSecret, Secret};
use crate::auth::session_limit::{NoNumber, SessionLimit};
use crate::auth::text::Account;

/// The columns that the server knows.
const KNOWN: [&str; 7] = ["password", "home", "uid", "gid", "mail", "active", "connections"];

/// Where the known columns are in a row.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    /// For each of [`KNOWN`].
    at: [Option<usize>; KNOWN.len()],
    /// The names of the columns that are not known.
    pub(super) others: Vec<String>,
}

impl Columns {
    /// Finds the known columns.
    ///
    /// # Errors
    /// What is wrong, if the query can give no account.
    pub(super) fn of(names: &[String]) -> Result<Self, String> {
        let is = |name: &str, known: &str| name.eq_ignore_ascii_case(known);
        for known in KNOWN {
            if names.iter().filter(|name| is(name, known)).count() > 1 {
                return Err(format!("it has two columns {known}"));
            }
        }
        let at = KNOWN.map(|known| names.iter().position(|name| is(name, known)));
        if at[0].is_none() {
            let found = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(format!("it has no column password; its columns: {found}"));
        }
        let others = names.iter().filter(|name| !KNOWN.iter().any(|known| is(name, known)));
        Ok(Self { at, others: others.cloned().collect() })
    }

    /// Makes an account of the first of `rows` rows, of which there has to be one only. An account that may not log in
    /// gets a password that nobody knows, so that it is refused as by a wrong password and no other source is asked for
    /// it; the second value says why.
    pub(super) fn account(&self, row: &Row, rows: usize) -> (Account, Option<Fault>) {
        let field = |at: usize| row.get(self.at[at]?)?.clone().filter(|value| !value.is_empty());
        let text = |at: usize| field(at).map(|value| String::from_utf8_lossy(&value).into_owned());
        let home = field(1).map(|home| PathBuf::from(OsString::from_vec(home)));
        let location = field(4).and_then(|mail| MailLocation::read(&mail, home.as_deref()));
        let mut fault = location.as_ref().and_then(MailLocation::unsupported).map(Fault::Mail);
        let session_limit = SessionLimit::read(&field(6).unwrap_or_default()).unwrap_or_else(|why| {
            fault = Some(Fault::Connections(why));
            None
        });
        let password = field(0).ok_or(Fault::NoPassword);
        let secret = password.as_ref().map_err(|_| Fault::NoPassword).and_then(|field| {
            let secret = Secret::parse(field).map_err(Fault::Secret)?;
            if secret.readable().is_some_and(<[u8]>::is_empty) { Err(Fault::NoPassword) } else { Ok(secret) }
        });
        if self.at[5].is_some() && !field(5).is_some_and(|active| is_true(&active)) {
            fault = Some(Fault::Inactive);
        }
        if rows > 1 {
            fault = Some(Fault::Rows);
        }
        let secret = match secret {
            Ok(secret) if fault.is_none() => secret,
            Ok(_) => unknown(),
            Err(why) => {
                fault = Some(why);
                unknown()
            }
        };
        let mailbox = Mailbox { home, uid: text(2), gid: text(3), location, session_limit, ..Mailbox::default() };
        let field = Hidden(password.unwrap_or_default());
        (Account { field, secret, mailbox: Arc::new(mailbox) }, fault)
    }
}

/// The secret of an account that may not log in.
fn unknown() -> Secret {
    Secret::of_password(&crate::auth::random::<32>())
}

/// Returns true for what databases write for true, and for every number but 0.
fn is_true(value: &[u8]) -> bool {
    let value = value.trim_ascii();
    let is_word = ["t", "true", "y", "yes", "on"].iter().any(|word| value.eq_ignore_ascii_case(word.as_bytes()));
    is_word || std::str::from_utf8(value).is_ok_and(|value| value.parse::<i64>().is_ok_and(|number| number != 0))
}

/// Why an account of the database may not log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    Inactive,
    NoPassword,
    Secret(BadSecret),
    /// The location of the mail is not supported.
    Mail(String),
    /// The column `connections` is wrong.
    Connections(NoNumber),
    /// The query has found more than one row.
    Rows,
}

impl Fault {
    /// True if an operator wants to know it: it is not what the database is meant to say.
    pub(super) fn is_unexpected(&self) -> bool {
        !matches!(self, Self::Inactive | Self::Secret(BadSecret::Locked))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inactive => f.write_str("the account is not active"),
            Self::NoPassword => f.write_str("there is no password"),
            Self::Secret(error) => write!(f, "{error}"),
            Self::Mail(why) => f.write_str(why),
            Self::Connections(why) => write!(f, "connections {why}"),
            Self::Rows => f.write_str("the query has several rows for this name"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::auth::{MailFormat, MailLocation};

    fn account(row: &[(&str, Option<&str>)]) -> (Account, Option<Fault>) {
        let names: Vec<_> = row.iter().map(|(name, _)| (*name).to_owned()).collect();
        let row = row.iter().map(|(_, value)| value.map(|value| value.as_bytes().to_vec())).collect();
        Columns::of(&names).unwrap().account(&row, 1)
    }

    #[test]
    fn columns_are_found_by_their_names() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let Columns { others, .. } = Columns::of(&names(&["quota", "Password", "HOME", "crypt"])).unwrap();
        assert_eq!(others, ["quota", "crypt"]);
        assert!(Columns::of(&names(&["pass"])).unwrap_err().contains("no column password; its columns: pass"));
        assert!(Columns::of(&names(&["password", "PASSWORD"])).unwrap_err().contains("two columns password"));
    }

    #[test]
    fn a_row_is_an_account() {
        let (account, fault) = account(&[
            ("mail", Some("maildir:/var/vmail/example.org/ana/")),
            ("gid", Some("1000")),
            ("connections", Some("3")),
            ("active", Some("t")),
            ("uid", None),
            ("home", Some("/home/ana")),
            ("password", Some("{PLAIN}hunter2")),
        ]);
        assert_eq!(fault, None);
        assert!(account.secret.matches(b"hunter2") && !account.secret.matches(b"hunter"));
        let location = MailLocation { format: MailFormat::Maildir, path: "/var/vmail/example.org/ana/".into() };
        let expected = Mailbox {
            home: Some("/home/ana".into()),
            uid: None,
            gid: Some("1000".to_owned()),
            location: Some(location),
            session_limit: SessionLimit::of(3),
            ..Mailbox::default()
        };
        assert_eq!(*account.mailbox, expected);
        assert_eq!(account.mailbox.home.as_deref(), Some(Path::new("/home/ana")));
    }

    #[test]
    fn an_account_that_may_not_log_in_has_no_password_that_matches() {
        let plain = Some("{PLAIN}hunter2");
        for (row, why) in [
            (vec![("password", plain), ("active", Some("0"))], Fault::Inactive),
            (vec![("password", plain), ("active", Some("f"))], Fault::Inactive),
            (vec![("password", plain), ("active", None)], Fault::Inactive),
            (vec![("password", plain), ("connections", Some("-1"))], Fault::Connections(NoNumber)),
            (vec![("password", None)], Fault::NoPassword),
            (vec![("password", Some(""))], Fault::NoPassword),
            (vec![("password", Some("{PLAIN}"))], Fault::NoPassword),
            (vec![("password", Some("!"))], Fault::Secret(BadSecret::Locked)),
            (vec![("password", Some("hunter2"))], Fault::Secret(BadSecret::NoScheme)),
        ] {
            let (account, fault) = account(&row);
            assert_eq!(fault.as_ref(), Some(&why), "{row:?}");
            assert!(["hunter2", "!", ""].iter().all(|password| !account.secret.matches(password.as_bytes())));
            assert_eq!(why.is_unexpected(), !matches!(why, Fault::Inactive | Fault::Secret(BadSecret::Locked)));
        }
        let columns = Columns::of(&["password".to_owned()]).unwrap();
        let (account, fault) = columns.account(&vec![Some(b"{PLAIN}hunter2".to_vec())], 2);
        assert_eq!((fault, account.secret.matches(b"hunter2")), (Some(Fault::Rows), false));
    }

    #[test]
    fn what_databases_write_for_true_is_active() {
        for active in ["1", "2", "true", "Y", "yes", "on"] {
            assert_eq!(account(&[("password", Some("{PLAIN}hunter2")), ("active", Some(active))]).1, None);
        }
    }
}
