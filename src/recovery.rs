//! Finishes, when the server starts, what a server that was killed has left at mboxes: a journal, or a dot-lock that would
//! keep delivery programs waiting until the user's next login.
//!
//! A thread of its own looks at the mbox of each user while sessions are served already. Mboxes in home directories are left
//! to the next login, because looking at all homes could mount thousands of them.

use std::io;
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use rustix::process::geteuid;

use crate::acting;
use crate::auth::Login;
use crate::maildrop::{Holder, LockError, finish_interrupted};
use crate::net::Origin;
use crate::shared::Shared;

/// Starts the thread.
///
/// # Errors
/// If it cannot be started.
pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<()> {
    let shared = Arc::clone(shared);
    thread::Builder::new().name("recovery".to_owned()).spawn(move || run(&shared)).map(drop)
}

fn run(shared: &Shared) {
    for user in shared.users.names() {
        if shared.connections.is_closing() || !acting::has_own_ids() {
            return;
        }
        let mailbox = shared.users.mailbox(&user);
        if shared.settings().mail_root.is_in_home(&mailbox) {
            continue;
        }
        let login = Login { user, mailbox };
        match look_at(shared, &login) {
            // A session has the mbox, and has looked itself.
            Ok(()) | Err(LockError::HeldBy(_) | LockError::HeldElsewhere(_)) => {}
            // The user's next login meets the same error and logs it.
            Err(LockError::Io(error)) => {
                log::debug!("the maildrop of {:?} is not looked at: {error}", login.user.as_str())
            }
        }
    }
}

fn look_at(shared: &Shared, login: &Login) -> Result<(), LockError> {
    let (_acting, location) = shared.act_for_login(login)?;
    let origin = Origin::Process { pid: process::id(), uid: geteuid().as_raw() };
    let holder = Holder { session: None, origin, since: Instant::now() };
    finish_interrupted(&shared.locks, location, holder)
}
