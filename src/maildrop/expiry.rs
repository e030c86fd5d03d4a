//! Which messages have expired.

use std::collections::HashSet;

use super::ages::{self, Ages};
use super::message::Folder;
use super::{Location, Maildrop, Message, MessageNumber};
use crate::auth::{KeptFor, OwnExpiry};

const DAY: u64 = 86_400;

/// After how many days messages expire. A message expires `0` days after something at the next look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expiry {
    /// Days after the message was first retrieved as a whole.
    pub read: Option<u32>,
    /// Days after it has arrived.
    pub all: Option<u32>,
}

impl Expiry {
    /// Returns true if messages never expire.
    #[must_use]
    pub fn is_off(self) -> bool {
        self == Self::default()
    }

    /// The rules for an account that has some of its own.
    #[must_use]
    pub fn with(self, own: OwnExpiry) -> Self {
        let days = |own: Option<KeptFor>, of_all: Option<u32>| match own {
            None => of_all,
            Some(KeptFor::Days(days)) => Some(days),
            Some(KeptFor::Ever) => None,
        };
        Self { read: days(own.read, self.read), all: days(own.all, self.all) }
    }

    /// What CAPA announces before login (RFC 2449 section 6.7): the fewest days for which the messages of any account are kept,
    /// if any message ever expires, and whether that differs between accounts. `own` are the rules that accounts have of their
    /// own.
    #[must_use]
    pub fn announced(self, own: impl IntoIterator<Item = OwnExpiry>) -> (Option<u32>, bool) {
        let mut all = own.into_iter().map(|own| self.with(own).shortest()).collect::<Vec<_>>();
        all.push(self.shortest());
        let differs = all.windows(2).any(|two| two[0] != two[1]);
        (all.into_iter().flatten().min(), differs)
    }

    /// The days for which every message is kept, if any message ever expires.
    #[must_use]
    pub fn shortest(self) -> Option<u32> {
        self.read.into_iter().chain(self.all).min()
    }
}

/// Messages that have expired.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expired {
    /// How many.
    pub messages: u64,
    /// Their octets.
    pub octets: u64,
    /// True if there are more of them.
    pub more: bool,
}

impl Maildrop {
    /// Marks messages that have expired as deleted, `most` at most, and writes down which messages are there now.
    pub fn mark_expired(&mut self, location: &Location, most: usize) -> Expired {
        self.find_expired(location, most, true)
    }

    /// Returns how many messages have expired, and changes nothing.
    #[must_use]
    pub fn count_expired(mut self, location: &Location) -> Expired {
        self.find_expired(location, usize::MAX, false)
    }

    fn find_expired(&mut self, location: &Location, most: usize, is_kept: bool) -> Expired {
        let expiry = location.expiry();
        let Some((now, folder)) = ages::now().zip(self.folder()).filter(|_| !expiry.is_off()) else {
            return Expired::default();
        };
        let mut known = Ages::load(location, folder);
        let (mut expired, mut due, mut is_changed) = (Expired::default(), Vec::new(), false);
        let mut there = HashSet::with_capacity(self.messages.len());
        for (index, message) in self.messages.iter().enumerate() {
            let id = self.id_of(index, message);
            if expiry.all.is_some() {
                is_changed |= known.note_arrival(&id, arrival(message).unwrap_or(now).min(now));
            }
            let age = known.of(&id);
            let is_over = |since: Option<u64>, days: Option<u32>| {
                since.zip(days).is_some_and(|(since, days)| since.saturating_add(u64::from(days) * DAY) <= now)
            };
            if is_over(age.read, expiry.read) || is_over(age.arrived, expiry.all) {
                expired.messages += 1;
                expired.octets += message.octets();
                due.push(index);
            }
            there.insert(id.into_owned());
        }
        if is_kept {
            known.save(location, folder, &there, is_changed);
            expired = Expired { more: due.len() > most, ..Expired::default() };
            for index in due.into_iter().take(most) {
                expired.octets += self.messages[index].octets();
                let number = u32::try_from(index + 1).ok().and_then(MessageNumber::new);
                expired.messages += u64::from(number.is_some_and(|number| self.mark(number)));
            }
        }
        expired
    }

    /// A folder that has messages.
    pub(super) fn folder(&self) -> Option<Folder> {
        self.messages.first().map(|message| message.path.folder)
    }
}

/// A time at which a message's file was there, in seconds since 1970: the later one of its times, as a program that copies
/// mail may set its modification time back. A message of an mbox has none.
fn arrival(message: &Message) -> Option<u64> {
    let identity = message.content.identity;
    let nanoseconds = (message.path.folder != Folder::Mbox).then_some(identity.modified.max(identity.changed))?;
    u64::try_from(nanoseconds / 1_000_000_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(read: Option<KeptFor>, all: Option<KeptFor>) -> OwnExpiry {
        OwnExpiry { read, all }
    }

    #[test]
    fn an_accounts_own_rule_counts() {
        let rule = Expiry { read: Some(30), all: None };
        let (days, ever) = (|days| Some(KeptFor::Days(days)), Some(KeptFor::Ever));
        assert_eq!(rule.with(own(None, None)), rule);
        assert_eq!(rule.with(own(None, days(90))), Expiry { read: Some(30), all: Some(90) });
        assert_eq!(rule.with(own(days(0), ever)), Expiry { read: Some(0), all: None });
        assert!(rule.with(own(ever, None)).is_off());
    }

    #[test]
    fn before_login_the_fewest_days_are_announced() {
        let (days, ever) = (|days| Some(KeptFor::Days(days)), Some(KeptFor::Ever));
        let (off, month) = (Expiry::default(), Expiry { read: Some(30), all: Some(90) });
        assert_eq!((off.announced([]), month.announced([])), ((None, false), (Some(30), false)));
        assert_eq!(off.announced([own(ever, None)]), (None, false));
        assert_eq!(off.announced([own(days(7), None), own(None, days(5))]), (Some(5), true));
        assert_eq!(month.announced([own(days(60), None)]), (Some(30), true));
        assert_eq!(month.announced([own(None, days(60))]), (Some(30), false));
        assert_eq!(month.announced([own(ever, ever)]), (Some(30), true));
    }
}
