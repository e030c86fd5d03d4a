//! `at`: tells whether a login would succeed, and what each account source says.

use std::time::Instant;

use super::Session;
use crate::auth::{Login, Trace};
use crate::events::Reason;
use crate::peep::{Reply, SourceSaid, TestedLogin, TestedMaildrop};

impl Session<'_> {
    /// Does what a login does, and releases the maildrop at once. This counts neither as a login nor as a failed one.
    pub(super) fn test_login(&self, name: &str, password: &str, tells_more: bool) -> Reply {
        let begun = Instant::now();
        let address = self.client.origin.ip();
        let Trace { said, result } = self.shared.users.trace(name.as_bytes(), password.as_bytes(), address);
        let mut maildrop = None;
        let result = result.map_err(Reason::from).and_then(|login| self.try_maildrop(&login, &mut maildrop));
        let reason = result.map_or_else(|reason| reason.to_string(), |()| "ok".to_owned());
        self.log_change(format_args!("login of {name:?} tested: {reason}"));
        if !tells_more {
            return Reply::Value(reason);
        }
        let sources = said.iter().map(|one| SourceSaid {
            source: one.source.clone(),
            said: one.to_string(),
            seconds: one.took.as_secs_f64(),
        });
        let tested =
            TestedLogin { reason, seconds: Some(begun.elapsed().as_secs_f64()), maildrop, sources: sources.collect() };
        Reply::Value(tested.to_string())
    }

    /// Opens the maildrop of a user whose password is right, and notes where it is and what is in it, as far as that is found
    /// out.
    fn try_maildrop(&self, login: &Login, tested: &mut Option<TestedMaildrop>) -> Result<(), Reason> {
        let terms = self.shared.settings().busy.terms();
        let mut account_session = self.shared.admit(login)?;
        let (_acting, location) = self.shared.act_for_login(login).map_err(Reason::Maildrop)?;
        let tested = tested.insert(TestedMaildrop { path: location.shown(), content: None });
        let lock = self.shared.locks.lock(&location, self.client.into(), terms)?;
        account_session.begin()?;
        let maildrop = lock.open().map_err(Reason::Maildrop)?;
        tested.content = Some((maildrop.count() as u64, maildrop.octets()));
        Ok(())
    }
}
