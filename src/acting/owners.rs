//! The ids that users have: those of the users file, or else those of the system's account of the same name.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use nix::unistd::{self, Group, User};
use rustix::process::{Gid, Uid};

use crate::auth::{Mailbox, UserName};
use crate::look_up::LookUps;

/// An account's user, group and supplementary groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) groups: Vec<Gid>,
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {} and gid {}", self.uid.as_raw(), self.gid.as_raw())
    }
}

/// The group of `--mail-group`, by its name or number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailGroup(Gid);

impl FromStr for MailGroup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match group(text)? {
            0 => Err("it has to be an ordinary group, not root's".to_owned()),
            gid => Ok(Self(Gid::from_raw(gid))),
        }
    }
}

/// Finds out which ids a user has, and refuses those that no user of mail should have.
#[derive(Debug)]
pub struct Owners {
    first_uid: u32,
    mail_group: Option<MailGroup>,
    accounts: LookUps<Question, Result<Account, String>>,
}

/// What the users file says about a user.
#[derive(Debug)]
struct Question {
    name: String,
    uid: Option<String>,
    gid: Option<String>,
}

/// What was found out.
#[derive(Debug, PartialEq, Eq)]
struct Account {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    home: Option<PathBuf>,
}

impl Owners {
    /// The uids below `first_uid` are refused. Each user is in `mail_group` as well.
    #[must_use]
    pub fn new(first_uid: u32, mail_group: Option<MailGroup>) -> Self {
        Self { first_uid, mail_group, accounts: LookUps::new(look_up) }
    }

    /// Starts the thread that looks accounts up, unless it runs already.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self) -> io::Result<()> {
        self.accounts.start()
    }

    /// Returns a user's ids. If the users file has no home directory for the user, `mailbox` gets that of the system's
    /// account whose ids these are.
    ///
    /// # Errors
    /// `PermissionDenied` if the user has no ids or they are refused. Any other error means that the system's accounts could
    /// not be looked up.
    pub fn ids_of(&self, user: &UserName, mailbox: &mut Mailbox) -> io::Result<Ids> {
        let Mailbox { uid, gid, home, .. } = mailbox;
        let number = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<u32>().ok());
        let account = match (number(uid), number(gid)) {
            (Some(uid), Some(gid)) => Account { uid, gid, groups: Vec::new(), home: None },
            _ => {
                let question = Question { name: user.to_string(), uid: uid.clone(), gid: gid.clone() };
                self.accounts.ask(question)?.map_err(|why| io::Error::new(io::ErrorKind::PermissionDenied, why))?
            }
        };
        let ids = self.permitted(&account).map_err(|why| io::Error::new(io::ErrorKind::PermissionDenied, why))?;
        if home.is_none() {
            *home = account.home;
        }
        Ok(ids)
    }

    fn permitted(&self, account: &Account) -> Result<Ids, String> {
        let Account { uid, gid, ref groups, .. } = *account;
        // The kernel takes the highest number for "leave it as it is".
        if [uid, gid].into_iter().chain(groups.iter().copied()).any(|id| id == u32::MAX) {
            return Err(format!("{} is no id of a user or group", u32::MAX));
        }
        if uid == 0 || uid < self.first_uid {
            return Err(format!("the user's uid {uid} is below {} (--first-uid)", self.first_uid.max(1)));
        }
        if gid == 0 {
            return Err("the user's group is root's".to_owned());
        }
        let mut groups: Vec<_> = groups.iter().map(|&group| Gid::from_raw(group)).collect();
        groups.extend(self.mail_group.map(|MailGroup(group)| group));
        Ok(Ids { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), groups })
    }
}

/// Looks up what the users file does not say. Only the ids of an account of the system come with its supplementary groups.
fn look_up(Question { name, uid, gid }: &Question) -> Result<Account, String> {
    let found = |found: nix::Result<Option<User>>, what: &str| {
        let found = found.map_err(|error| format!("the account of {what} cannot be looked up: {error}"))?;
        found.ok_or_else(|| format!("the system has no account of {what}"))
    };
    let Some(uid) = uid else {
        let account = found(User::from_name(name), "this name, and the users file has no uid of the user")?;
        let gid = gid.as_deref().map_or(Ok(account.gid.as_raw()), group)?;
        let groups = groups(&account.name, gid)?;
        return Ok(Account { uid: account.uid.as_raw(), gid, groups, home: Some(account.dir) });
    };
    let number = uid.parse::<u32>().ok();
    let account = match number {
        Some(number) if gid.is_some() => Err((number, None)),
        Some(number) => Ok(found(User::from_uid(number.into()), &format!("uid {uid}, which names the user's group"))?),
        None => Ok(found(User::from_name(uid), &format!("{uid:?}, which the users file has in place of a uid"))?),
    };
    let (uid, default_gid) = account.map_or_else(|known| known, |account| (account.uid.as_raw(), Some(account.gid)));
    let gid = match (gid, default_gid) {
        (Some(gid), _) => group(gid)?,
        (None, Some(gid)) => gid.as_raw(),
        (None, None) => return Err("the user has no group".to_owned()),
    };
    Ok(Account { uid, gid, groups: Vec::new(), home: None })
}

/// The supplementary groups of an account.
fn groups(account: &str, gid: u32) -> Result<Vec<u32>, String> {
    let name = CString::new(account).map_err(|error| error.to_string())?;
    let groups = unistd::getgrouplist(&name, gid.into());
    let groups = groups.map_err(|error| format!("the groups of {account:?} cannot be looked up: {error}"))?;
    Ok(groups.into_iter().map(unistd::Gid::as_raw).collect())
}

/// The number of a group that is given by its name or number.
///
/// # Errors
/// If there is no such group, or the system's groups cannot be looked up.
pub fn group(text: &str) -> Result<u32, String> {
    let found = Group::from_name(text).map_err(|error| format!("the group {text:?} cannot be looked up: {error}"))?;
    let number = found.map(|group| group.gid.as_raw()).or_else(|| text.parse().ok());
    number.filter(|&number| number != u32::MAX).ok_or_else(|| format!("there is no group {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(first_uid: u32, user: &str, uid: &str, gid: &str) -> Result<(u32, u32, Vec<u32>), String> {
        let owners = Owners::new(first_uid, Some("12".parse().unwrap()));
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let mut mailbox = Mailbox { uid: given(uid), gid: given(gid), ..Mailbox::default() };
        let ids = owners.ids_of(&user.parse().unwrap(), &mut mailbox).map_err(|error| error.to_string())?;
        Ok((ids.uid.as_raw(), ids.gid.as_raw(), ids.groups.into_iter().map(Gid::as_raw).collect()))
    }

    #[test]
    fn ids_come_from_the_users_file_or_from_the_system() {
        let nobody = User::from_name("nobody").unwrap().unwrap();
        let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
        assert_eq!(ids(1000, "ana", "2000", "3000"), Ok((2000, 3000, vec![12])));
        assert_eq!(ids(1000, "nobody", "", ""), Ok((uid, gid, vec![gid, 12])));
        assert_eq!(ids(1000, "ana", &uid.to_string(), ""), Ok((uid, gid, vec![12])));
        assert_eq!(ids(1000, "ana", "nobody", ""), Ok((uid, gid, vec![12])));
        let mail = Group::from_name("mail").unwrap().unwrap().gid.as_raw();
        assert_eq!(ids(1000, "ana", "2000", "mail"), Ok((2000, mail, vec![12])));
        assert_eq!(ids(1000, "nobody", "", "3000"), Ok((uid, 3000, vec![3000, 12])));
        let mut mailbox = Mailbox::default();
        Owners::new(1, None).ids_of(&"nobody".parse().unwrap(), &mut mailbox).unwrap();
        assert_eq!(mailbox.home, Some(nobody.dir));
    }

    #[test]
    fn ids_that_no_user_of_mail_has_are_refused() {
        for (first_uid, user, uid, gid) in [
            (1000, "root", "", ""),
            (0, "root", "", ""),
            (1000, "ana", "0", "1000"),
            (0, "ana", "0", "1000"),
            (1000, "ana", "999", "1000"),
            (1000, "ana", "1000", "0"),
            (1000, "ana", "1000", "root"),
            (1000, "ana", "root", "1000"),
            (1000, "ana", "4294967295", "1000"),
            (1000, "ana", "1000", "4294967295"),
            (1000, "ana", "-1", "1000"),
            (1000, "ana", "1000", "-1"),
            (1000, "ana", "", ""),
            (1000, "no-such@example.com", "", ""),
            (1000, "ana", "4000000000", ""),
            (1000, "ana", "no-such-user", "1000"),
            (1000, "ana", "1000", "no-such-group"),
        ] {
            assert!(ids(first_uid, user, uid, gid).is_err(), "{user} {uid:?} {gid:?}");
        }
        assert!(ids(100, "ana", "100", "1").is_ok());
        for bad in ["root", "0", "", "no-such-group", "4294967295"] {
            assert!(bad.parse::<MailGroup>().is_err(), "{bad}");
        }
    }
}
