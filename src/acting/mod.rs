//! Who acts: whose rights a thread has (`--as-owner`).
//!
//! Before the login a session's thread has the server's ids. From the login to the end of the session it has those of the
//! user's account, so the kernel bounds what the session may do, and files get the right owner and count for the right
//! quota. Ids and capabilities of Linux belong to a thread, so the other sessions are not concerned.
//!
//! - [`Owners`] knows which ids a user has.
//! - [`ActingAs`] is a thread that has them. Dropping it gives the thread its own ids back. If that fails, [`has_own_ids`]
//!   is false from then on, and the pool ends the thread.
//! - [`act_for`] does so for the user of a maildrop, and finds the maildrop.
//! - `spawn` starts a program that has the user's ids for good.
//! - `give_up_other_rights` leaves the server nothing else of root's rights.
//!
//! Only the *effective* ids are the user's. The real and the saved ones stay the server's for two reasons: the thread needs
//! no right to return to them, and a program of the user could send signals to a thread that had the user's real or saved
//! uid, so it could kill the server. A thread that acts for a user has no capability in effect.

mod maildrop;
mod owners;

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::process::{Gid, Uid, getegid, geteuid, getgroups};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

pub use maildrop::act_for;
pub use owners::{Ids, MailGroup, Owners, group};

/// The capabilities that a change of ids needs.
const NEEDED: CapabilitySet = CapabilitySet::SETUID.union(CapabilitySet::SETGID);

/// Whose ids a thread has.
#[derive(Debug, Clone, Copy)]
enum State {
    /// The server's.
    Own,
    /// Those of a user.
    User(Uid, Gid),
    /// The thread has failed to take the server's ids back.
    Lost,
}

thread_local! {
    static STATE: Cell<State> = const { Cell::new(State::Own) };
}

/// Returns true unless this thread has failed to take the server's ids back. It must not begin another session then.
#[must_use]
pub fn has_own_ids() -> bool {
    !matches!(STATE.get(), State::Lost)
}

/// As long as this exists, its thread acts for a user.
#[derive(Debug)]
pub struct ActingAs {
    /// The server's ids; `None` if the thread has kept them.
    own: Option<Box<Own>>,
    /// It belongs to its thread.
    _thread: PhantomData<*const ()>,
}

impl ActingAs {
    /// The thread keeps the server's ids: without `--as-owner`.
    #[must_use]
    pub fn server() -> Self {
        Self { own: None, _thread: PhantomData }
    }

    /// Gives the thread the ids of a user.
    ///
    /// # Errors
    /// If a call fails. The thread has its own ids then, unless [`has_own_ids`] is false.
    pub fn user(ids: &Ids) -> io::Result<Self> {
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("cannot act as {ids}: {error}"));
        if !matches!(STATE.get(), State::Own) {
            return Err(failed(io::Error::other("the thread does not have the server's ids")));
        }
        let own = Box::new(Own::of_this_thread().map_err(failed)?);
        let acting = Self { own: Some(own), _thread: PhantomData };
        // From here on, dropping `acting` restores the server's ids.
        STATE.set(State::User(ids.uid, ids.gid));
        become_user(ids).map_err(failed)?;
        Ok(acting)
    }
}

impl Drop for ActingAs {
    fn drop(&mut self) {
        let Some(own) = &self.own else { return };
        match own.restore() {
            Ok(()) => STATE.set(State::Own),
            Err(error) => {
                STATE.set(State::Lost);
                log::error!("a thread cannot take the server's ids back, so it ends with this session: {error}");
            }
        }
    }
}

fn become_user(ids: &Ids) -> io::Result<()> {
    put_in_effect(NEEDED)?;
    set_thread_groups(&ids.groups)?;
    set_thread_res_gid(None, ids.gid, None)?;
    set_thread_res_uid(None, ids.uid, None)?;
    put_in_effect(CapabilitySet::empty())
}

/// The ids and capabilities of a thread that acts for no user.
#[derive(Debug)]
struct Own {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    capabilities: CapabilitySets,
}

impl Own {
    fn of_this_thread() -> io::Result<Self> {
        let (uid, gid, groups) = (geteuid(), getegid(), getgroups()?);
        Ok(Self { uid, gid, groups, capabilities: capabilities(None)? })
    }

    fn restore(&self) -> io::Result<()> {
        put_in_effect(NEEDED)?;
        set_thread_res_uid(None, self.uid, None)?;
        // For root, the kernel has now put all capabilities in effect that the thread may have.
        set_thread_res_gid(None, self.gid, None)?;
        set_thread_groups(&self.groups)?;
        Ok(set_capabilities(None, self.capabilities)?)
    }
}

/// Puts capabilities in effect that the thread may have, and no others.
fn put_in_effect(effective: CapabilitySet) -> io::Result<()> {
    let sets = capabilities(None)?;
    Ok(set_capabilities(None, CapabilitySets { effective, ..sets })?)
}

/// Starts a program. If this thread acts for a user, the program has the user's ids as its real and saved ones, too, so that
/// it cannot become the server's user. It is in no supplementary group.
///
/// # Errors
/// Those of starting it.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    let State::User(uid, gid) = STATE.get() else { return command.spawn() };
    put_in_effect(NEEDED)?;
    let spawned = command.uid(uid.as_raw()).gid(gid.as_raw()).spawn();
    match put_in_effect(CapabilitySet::empty()) {
        Ok(()) => spawned,
        Err(error) => {
            if let Ok(mut child) = spawned {
                let _ = child.kill().and_then(|()| child.wait());
            }
            Err(error)
        }
    }
}

/// Gives up all capabilities of this thread but those for [`ActingAs`]. They are not in effect until they are needed.
///
/// # Errors
/// `PermissionDenied` if the thread lacks one of those.
pub(crate) fn give_up_other_rights() -> io::Result<()> {
    if !capabilities(None)?.permitted.contains(NEEDED) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (effective, inheritable) = (CapabilitySet::empty(), CapabilitySet::empty());
    Ok(set_capabilities(None, CapabilitySets { effective, permitted: NEEDED, inheritable })?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::thread;

    use rustix::process::getuid;

    fn ids() -> Ids {
        let raw = [54321, 23456].map(Gid::from_raw);
        Ids { uid: Uid::from_raw(12345), gid: Gid::from_raw(54321), groups: raw.to_vec() }
    }

    /// Runs a test as root on a thread of its own.
    fn as_root(test: impl FnOnce() + Send + 'static) {
        if geteuid().is_root() {
            thread::spawn(test).join().unwrap();
        }
    }

    #[test]
    fn a_thread_has_the_users_rights_until_it_is_done() {
        as_root(|| {
            let before = (Own::of_this_thread().unwrap().groups, capabilities(None).unwrap());
            let directory = tempfile::tempdir().unwrap();
            fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
            let (made, secret) = (directory.path().join("made"), directory.path().join("secret"));
            fs::write(&secret, "").unwrap();
            fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
            let acting = ActingAs::user(&ids()).unwrap();
            assert_eq!(capabilities(None).unwrap().effective, CapabilitySet::empty());
            assert_eq!((getuid().as_raw(), geteuid().as_raw(), getegid().as_raw()), (0, 12345, 54321));
            File::create(&made).unwrap();
            assert_eq!(File::open(&secret).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            assert!(ActingAs::user(&ids()).is_err(), "a user acts for another one");
            assert_eq!(geteuid().as_raw(), 12345);
            drop(acting);
            let made = fs::metadata(&made).unwrap();
            assert_eq!((made.uid(), made.gid()), (12345, 54321));
            File::open(&secret).unwrap();
            assert_eq!((Own::of_this_thread().unwrap().groups, capabilities(None).unwrap()), before);
            assert!(has_own_ids());
        });
    }

    #[test]
    fn other_threads_keep_their_ids() {
        as_root(|| {
            let _acting = ActingAs::user(&ids()).unwrap();
            // A thread has the ids of the one that starts it, so this one was started before.
            assert!(fs::read_to_string("/proc/self/status").unwrap().contains("Uid:\t0\t0\t0\t0"));
            let inherited = thread::spawn(|| geteuid().as_raw());
            assert_eq!(inherited.join().unwrap(), 12345);
        });
    }

    #[test]
    fn a_program_has_the_users_ids_for_good() {
        as_root(|| {
            give_up_other_rights().unwrap();
            let _acting = ActingAs::user(&ids()).unwrap();
            let mut command = Command::new("cat");
            let child = spawn(command.arg("/proc/self/status").stdout(std::process::Stdio::piped())).unwrap();
            assert_eq!(capabilities(None).unwrap().effective, CapabilitySet::empty());
            let status = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
            let has = |line: &str| assert!(status.lines().any(|it| it.trim_end() == line), "{line:?} {status}");
            has("Uid:\t12345\t12345\t12345\t12345");
            has("Gid:\t54321\t54321\t54321\t54321");
            has("Groups:");
            ["Prm", "Eff", "Inh", "Amb"].iter().for_each(|set| has(&format!("Cap{set}:\t0000000000000000")));
        });
    }

    #[test]
    fn a_thread_that_cannot_return_is_noticed() {
        as_root(|| {
            let acting = ActingAs::user(&ids()).unwrap();
            let none = CapabilitySet::empty();
            set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none }).unwrap();
            drop(acting);
            assert!(!has_own_ids());
            assert!(ActingAs::user(&ids()).is_err());
        });
    }

    #[test]
    fn a_thread_without_the_rights_keeps_its_ids() {
        as_root(|| {
            let none = CapabilitySet::empty();
            set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none }).unwrap();
            assert_eq!(give_up_other_rights().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            assert!(ActingAs::user(&ids()).is_err());
            assert_eq!(geteuid().as_raw(), 0);
        });
    }
}
