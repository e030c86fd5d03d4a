//! The flags for faults on demand.

use std::time::Instant;

use super::NEEDS_RESTART;
use super::args::keep;
use crate::auth::Users;
use crate::faults::{Faults, Order, Who};

/// The flags for faults.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Faults on demand")]
pub(super) struct FaultArgs {
    /// Let the admin order faults, for tests of mail programs; never on a server of real mail
    #[arg(long, group = NEEDS_RESTART)]
    allow_faults: bool,

    /// Order this fault at the start: WHO WHAT COUNT SECONDS, as in '* no-uidl 0 0'; can be repeated
    #[arg(long, value_name = "ORDER", requires = "allow_faults", group = NEEDS_RESTART)]
    fault: Vec<Order>,
}

impl FaultArgs {
    /// The faults to begin with, with the users' names as logins have them; `None` if faults are not allowed.
    pub(super) fn faults(&self, users: &Users) -> Option<Faults> {
        let called = |who: Who| match who {
            Who::User(name) => Who::User(users.user_called(&name).map_or(name, |user| user.as_str().to_owned())),
            who => who,
        };
        let orders = self.fault.iter().cloned().map(|order| Order { who: called(order.who), ..order });
        self.allow_faults.then(|| Faults::new(orders, Instant::now()))
    }

    /// Takes the settings, which need a restart, from `started`. Returns the names of those that were different.
    pub(super) fn keep_fixed(&mut self, started: &Self) -> Vec<&'static str> {
        let mut names = Vec::new();
        names.extend(keep("allow-faults", &mut self.allow_faults, &started.allow_faults));
        names.extend(keep("fault", &mut self.fault, &started.fault));
        names
    }
}
