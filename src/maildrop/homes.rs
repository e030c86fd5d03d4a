//! Recognises home directories of the system's accounts, which are not taken for directories of mail.
//! The accounts are looked up by [`LookUps`], and an answer is kept for a minute.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use nix::unistd::{Uid, User};
use parking_lot::Mutex;
use rustix::fs::stat;

use super::RootId;
use crate::look_up::LookUps;

/// How long the answer that a directory is not a home directory is kept.
const GOOD_FOR: Duration = Duration::from_secs(60);

/// How many answers are kept at most. This bounds their memory.
const MOST_ANSWERS: usize = 4096;

/// The name of an account and its home directory.
type Home = (String, std::path::PathBuf);

/// The home directories of accounts.
pub(super) struct Homes {
    /// The homes in /etc/passwd when the server started. A confined server may be unable to read that file later.
    at_start: HashMap<RootId, String>,
    /// Directories that are not an account's home, and when that was found out.
    cleared: Mutex<HashMap<RootId, Instant>>,
    look_ups: LookUps<Named, Option<String>>,
}

/// A user's directory, with what is needed to look up whose home it is.
#[derive(Debug, Clone)]
pub(super) struct Named {
    /// The directory's device and inode.
    pub(super) id: RootId,
    /// The name of the POP3 user whose maildrop it is. An account of the system may have the same name.
    pub(super) user: String,
    /// The uid that owns it.
    pub(super) owner: u32,
}

impl fmt::Debug for Homes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Homes").field("at_start", &self.at_start.len()).finish_non_exhaustive()
    }
}

impl Homes {
    /// The homes of this system's accounts.
    pub(super) fn of_system() -> Self {
        let passwd = fs::read("/etc/passwd").unwrap_or_default();
        Self::new(homes_in(&String::from_utf8_lossy(&passwd)), |directory| owner_of(directory, accounts))
    }

    fn new(at_start: impl IntoIterator<Item = Home>, look_up: fn(&Named) -> Option<String>) -> Self {
        let known = |(account, home): Home| Some((RootId::new(&stat(home).ok()?), account));
        let at_start = at_start.into_iter().filter_map(known).collect();
        Self { at_start, cleared: Mutex::default(), look_ups: LookUps::new(look_up) }
    }

    /// Starts the thread that looks accounts up, unless it runs already.
    pub(super) fn start_look_ups(&self) -> io::Result<()> {
        self.look_ups.start()
    }

    /// Returns the account whose home a directory is, if there is one.
    ///
    /// # Errors
    /// When the look-up takes too long.
    pub(super) fn account_of(&self, directory: &Named) -> io::Result<Option<String>> {
        if let Some(account) = self.at_start.get(&directory.id) {
            return Ok(Some(account.clone()));
        }
        if self.cleared.lock().get(&directory.id).is_some_and(|when| when.elapsed() < GOOD_FOR) {
            return Ok(None);
        }
        let account = self.look_ups.ask(directory.clone())?;
        if account.is_none() {
            let mut cleared = self.cleared.lock();
            if cleared.len() >= MOST_ANSWERS {
                cleared.clear();
            }
            cleared.insert(directory.id, Instant::now());
        }
        Ok(account)
    }
}

/// Returns the account whose home a directory is. `look_up` finds the accounts whose home it could be: the account with the
/// user's name and the directory's owner.
fn owner_of(Named { id, user, owner }: &Named, look_up: fn(&str, u32) -> Vec<Home>) -> Option<String> {
    let is_it = |(_, home): &Home| stat(home).is_ok_and(|stat| RootId::new(&stat) == *id);
    look_up(user, *owner).into_iter().find(is_it).map(|(account, _)| account)
}

/// The system's accounts with this name or this uid.
fn accounts(user: &str, owner: u32) -> Vec<Home> {
    let found = [User::from_name(user), User::from_uid(Uid::from_raw(owner))].into_iter().filter_map(|found| {
        // In a confined server the look-up may fail. Then only the homes known at the start are recognised.
        found.inspect_err(|error| log::debug!("cannot look up an account of the system: {error}")).ok().flatten()
    });
    found.map(|account| (account.name, account.dir)).collect()
}

/// The accounts of a passwd file (passwd(5)).
fn homes_in(passwd: &str) -> Vec<Home> {
    let home = |line: &str| {
        let mut fields = line.split(':');
        Some((fields.next()?.to_owned(), fields.nth(4)?.into()))
    };
    passwd.lines().filter_map(home).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn directory(path: &Path) -> Named {
        Named { id: RootId::new(&stat(path).unwrap()), user: "ana".to_owned(), owner: 1000 }
    }

    #[test]
    fn homes_are_read_from_a_passwd_file() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nana:x:1000:1000:Ana,,,:/home/ana:/bin/sh\n\nbroken:x:1\n";
        let expected = [("root", "/root"), ("ana", "/home/ana")];
        assert_eq!(homes_in(passwd), expected.map(|(name, home)| (name.to_owned(), home.into())));
    }

    #[test]
    fn a_home_is_recognised_by_any_path() {
        let temporary = tempfile::tempdir().unwrap();
        let (home, link) = (temporary.path().join("home"), temporary.path().join("link"));
        fs::create_dir(&home).unwrap();
        std::os::unix::fs::symlink(&home, &link).unwrap();
        let homes = Homes::new([("bob".to_owned(), link), ("eve".to_owned(), "/no/such".into())], |_| None);
        assert_eq!(homes.account_of(&directory(&home)).unwrap().as_deref(), Some("bob"));
        for _ in 0..2 {
            assert_eq!(homes.account_of(&directory(temporary.path())).unwrap(), None);
        }
    }

    #[test]
    fn accounts_made_after_the_start_are_looked_up() {
        let homes = Homes::new([], |directory| {
            owner_of(directory, |user, owner| {
                assert_eq!((user, owner), ("ana", 1000));
                vec![("other".to_owned(), "/no/such".into()), ("ana".to_owned(), std::env::temp_dir())]
            })
        });
        assert_eq!(homes.account_of(&directory(&std::env::temp_dir())).unwrap().as_deref(), Some("ana"));
        assert_eq!(homes.account_of(&directory(Path::new("/"))).unwrap(), None);
    }

    #[test]
    fn the_systems_accounts_are_found_by_name_and_by_uid() {
        let names = |user: &str, owner| accounts(user, owner).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names("root", 0), ["root", "root"]);
        assert_eq!(names("no-such-user", 0), ["root"]);
        assert_eq!(names("root", u32::MAX - 5), ["root"]);
    }
}
