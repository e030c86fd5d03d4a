//! `rp?` and `rd?`: who fetched what.

use std::collections::BTreeSet;
use std::time::Instant;

use super::Session;
use crate::acting;
use crate::auth::{Login, UserName};
use crate::clock::seconds_since_1970;
use crate::events::Reason;
use crate::fetches::Day;
use crate::maildrop::Maildrop;
use crate::peep::{DayLine, ErrorCode, Reply, ReportLine, time_of};

impl Session<'_> {
    /// `rp?`: a line for each user, or for one.
    pub(super) fn report(&self, name: Option<&str>) -> Result<Reply, ErrorCode> {
        let users = self.users_to_report(name)?;
        let goes_on = |_: &UserName| acting::has_own_ids() && !self.shared.connections.is_closing();
        let line = |user: UserName| self.line(&user).to_string();
        Ok(Reply::Lines(users.into_iter().take_while(goes_on).map(line).collect()))
    }

    /// `rd?`: a line for each user and day with octets.
    pub(super) fn report_by_day(&self, name: Option<&str>) -> Result<Reply, ErrorCode> {
        let mut lines = Vec::new();
        for user in self.users_to_report(name)? {
            let days = self.shared.events.fetches.of(&user).unwrap_or_default().days;
            let line = |(day, octets): (Day, u64)| DayLine { user: user.to_string(), day: day.to_string(), octets };
            lines.extend(days.until(today()).map(|day| line(day).to_string()));
        }
        Ok(Reply::Lines(lines))
    }

    /// All users in order: those with an account, and those of whom something is known, as a source of accounts may not be
    /// able to list them. Or the one called `name`.
    fn users_to_report(&self, name: Option<&str>) -> Result<Vec<UserName>, ErrorCode> {
        let fetches = &self.shared.events.fetches;
        let Some(name) = name else {
            let all: BTreeSet<_> = self.shared.users.names().into_iter().chain(fetches.users()).collect();
            return Ok(all.into_iter().collect());
        };
        let user = self.shared.users.user_called(name).ok_or(ErrorCode::NoSuchUser)?;
        let is_known = fetches.of(&user).is_some() || self.shared.users.known(name).is_some();
        if is_known { Ok(vec![user]) } else { Err(ErrorCode::NoSuchUser) }
    }

    fn line(&self, user: &UserName) -> ReportLine {
        let record = self.shared.events.fetches.of(user);
        let last_login = record.as_ref().map(|record| time_of(record.last_login));
        let record = record.unwrap_or_default();
        let (octets_today, octets_30_days) = record.days.sums(today());
        ReportLine {
            user: user.to_string(),
            last_login,
            address: record.address.map(|address| address.ip().to_canonical()),
            last_complete_fetch: record.last_fetch.map(time_of),
            never_retrieved: self.never_retrieved(user),
            octets_today,
            octets_30_days,
            client: (!record.client.is_empty()).then_some(record.client),
        }
    }

    /// How many messages are in the user's maildrop now that no session has retrieved, if that is known. It is not known of a
    /// user whose account is gone, or cannot be asked for at present.
    fn never_retrieved(&self, user: &UserName) -> Option<u64> {
        let login = Login { user: user.clone(), mailbox: self.shared.users.known_mailbox(user)? };
        let look = || {
            let (_acting, location) = self.shared.act_for_login(&login)?;
            Ok(Maildrop::open_without_lock(location)?.never_retrieved())
        };
        // The answer has `-` then. This is no warning, or the maildrops of many users would drive all others out of `e?`.
        look().unwrap_or_else(|error| {
            if self.shared.unreportable.is_due(user, Instant::now()) {
                log::info!("{} the maildrop of {user} cannot be reported: {}", self.client, Reason::Maildrop(error));
            }
            None
        })
    }
}

fn today() -> Day {
    Day::of(seconds_since_1970())
}
