//! `dl?`, `ud` and `uds`: what sessions have deleted, and how it comes back.

use std::fmt::Display;
use std::io;

use super::Session;
use crate::auth::UserName;
use crate::clock::seconds_since_1970;
use crate::events::Reason;
use crate::maildrop::{self, Batch, Kept, LockError, Restored, Terms};
use crate::peep::{DeletionLine, ErrorCode, Reply, time_of};

impl Session<'_> {
    /// `dl?`: what a user's sessions have deleted and is still kept.
    pub(super) fn deletions(&self, name: &str) -> Result<Reply, ErrorCode> {
        let user = self.user(name)?;
        let look = || {
            let (_acting, location) = self.shared.act_for(user)?;
            maildrop::deletions(&location.behind_links()?)
        };
        let all = look().map_err(|error| self.bad_maildrop(name, &Reason::Maildrop(error)))?;
        Ok(Reply::Lines(all.iter().map(|kept| line(name, kept).to_string()).collect()))
    }

    /// `ud`: brings back what one session has deleted.
    pub(super) fn undelete(&self, id: &str) -> Result<Reply, ErrorCode> {
        let (name, session) = id.rsplit_once(':').ok_or(ErrorCode::NoSuchDeletion)?;
        self.bring_back(name, |batch| id_of(batch) == session)
    }

    /// `uds`: brings back what a user's sessions have deleted within this time.
    pub(super) fn undelete_since(&self, name: &str, seconds: u32) -> Result<Reply, ErrorCode> {
        let now = seconds_since_1970();
        self.bring_back(name, |batch| batch.time >= now.saturating_sub(seconds.into()))
    }

    fn bring_back(&self, name: &str, meant: impl Fn(&Batch) -> bool) -> Result<Reply, ErrorCode> {
        let user = self.user(name)?;
        let (_acting, location) =
            self.shared.act_for(user).map_err(|error| self.bad_maildrop(name, &Reason::Maildrop(error)))?;
        let terms = Terms { shared: false, ..Terms::default() };
        let lock = self.shared.locks.lock(&location, self.client.into(), terms).map_err(|error| match error {
            LockError::HeldBy(_) | LockError::HeldElsewhere(_) => ErrorCode::MaildropInUse,
            error @ LockError::Io(_) => self.bad_maildrop(name, &Reason::from(error)),
        })?;
        if !lock.is_exclusive() {
            let error = io::Error::other("the maildrop cannot be locked against other servers");
            return Err(self.bad_maildrop(name, &Reason::Maildrop(error)));
        }
        let restored = lock.undelete(meant).map_err(|error| self.bad_maildrop(name, &Reason::Maildrop(error)))?;
        match restored {
            Restored { messages: 0, failed: 0 } => Err(ErrorCode::NoSuchDeletion),
            Restored { messages: 0, .. } => Err(ErrorCode::BadMaildrop),
            Restored { messages, failed } => {
                self.log_change(format_args!(
                    "deleted messages of {name:?} brought back: {messages}, failed: {failed}"
                ));
                Ok(Reply::Value(messages.to_string()))
            }
        }
    }

    /// The user of this name, unless it is certain that there is no such account.
    pub(super) fn user(&self, name: &str) -> Result<UserName, ErrorCode> {
        self.shared.users.known(name).map(|(user, _)| user).ok_or(ErrorCode::NoSuchUser)
    }

    pub(super) fn bad_maildrop(&self, name: &str, why: &dyn Display) -> ErrorCode {
        log::error!("{} the maildrop of {name:?} cannot be used: {why}", self.client);
        ErrorCode::BadMaildrop
    }
}

fn id_of(batch: &Batch) -> String {
    format!("{}.{}", batch.time, batch.session)
}

fn line(user: &str, Kept { batch, messages, octets }: &Kept) -> DeletionLine {
    DeletionLine {
        session: format!("{user}:{}", id_of(batch)),
        time: time_of(batch.time),
        address: batch.address.clone(),
        messages: *messages,
        octets: *octets,
    }
}
