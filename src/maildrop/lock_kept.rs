//! Whether a maildrop's lock is still held, before messages are removed. It can be lost while the session goes on:
//!
//! - The lock is on a file. A server that has no permission to open the file may replace it by a new one, and other servers
//!   lock that one.
//! - On a file system over a network, the lock is lost when the connection to the file server is lost for a while. The
//!   connection comes back without the lock, and no error tells so. Another server may have had the maildrop meanwhile.

use super::is_missing;
use super::lock_file::{self, LockFile};
use super::lock_record::Elsewhere;
use super::root::Look;

impl LockFile {
    /// Returns true if this session has the lock, and no other server has had it since it was taken. A lock that was lost is
    /// taken again if that is so. If the whole maildrop was removed, there is nothing left to lock, and this is true as well.
    pub(super) fn is_held(&self) -> bool {
        let root = self.location.root();
        match root.names(&lock_file::path(&self.location, self.folder), &self.file, self.id) {
            Ok(is_named) => is_named && self.take_again().is_ok() && !self.names_another(),
            Err(error) => is_missing(&error) && matches!(root.look(&self.location), Ok(Look::Nothing)),
        }
    }

    /// Returns true if another session has written into the file that it holds the lock, or may have. Those that share the
    /// maildrop do.
    fn names_another(&self) -> bool {
        let Some(own) = self.record.filter(|_| !self.is_shared()) else { return false };
        match lock_file::read_holder(&self.location, self.folder) {
            Ok(named) => named.is_some_and(|named| Elsewhere::parse(&own) != Some(named)),
            Err(error) => !lock_file::is_denial(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lock_file::tests::Mail;
    use super::*;
    use crate::maildrop::holder::Holder;
    use std::fs;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Instant;

    /// A lock in which its session is named.
    fn named(mail: &Mail, session: u64) -> LockFile {
        let mut lock = mail.taken();
        let origin = SocketAddr::from((Ipv4Addr::LOCALHOST, 1)).into();
        lock.name_holder(&Holder { session: Some(session), origin, since: Instant::now() });
        lock
    }

    #[test]
    fn a_lock_that_the_file_system_has_lost_is_taken_again() {
        let mail = Mail::with(&["cur"]);
        let lock = named(&mail, 1);
        lock.forget();
        assert!(lock.is_held());
        mail.is_busy();
    }

    #[test]
    fn a_lock_that_another_server_has_now_or_has_had_is_lost() {
        let mail = Mail::with(&["cur"]);
        let lock = named(&mail, 1);
        lock.forget();
        let other = named(&mail, 2);
        assert!(!lock.is_held() && other.is_held());
        drop(other);
        assert!(!lock.is_held());
    }

    #[test]
    fn what_users_write_into_the_file_takes_no_lock_away() {
        let mail = Mail::with(&["cur"]);
        let lock = named(&mail, 1);
        for text in ["", "host=mail2"] {
            fs::write(mail.path("cur/.pop3d-lock"), text).unwrap();
            assert!(lock.is_held(), "{text}");
        }
    }

    #[test]
    fn a_lock_is_lost_with_its_file() {
        let mail = Mail::with(&[""]);
        let lock = mail.taken();
        assert!(lock.is_held());
        fs::remove_file(mail.path(".pop3d-lock")).unwrap();
        assert!(!lock.is_held());
        let next = mail.taken();
        assert!(next.is_held() && !lock.is_held());
        // Moved away, the file still exists.
        fs::rename(mail.path(".pop3d-lock"), mail.path(".elsewhere")).unwrap();
        assert!(!next.is_held());
        let last = mail.taken();
        assert!(last.is_held() && !next.is_held());
    }
}
