//! What a login does if its maildrop has a session already.

use std::time::Duration;

/// How long a login waits for a maildrop unless the operator says otherwise. The session that holds it may just be ending,
/// for example if the client has closed the connection and connects again.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// The operator's rules for logins to a maildrop that has a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Busy {
    /// What such a login does.
    pub when: WhenBusy,
    /// True if sessions share maildrops.
    pub shared: bool,
}

impl Busy {
    /// How a maildrop is locked, without taking it from another session.
    #[must_use]
    pub fn terms(&self) -> Terms {
        let patience = match self.when {
            WhenBusy::Wait(patience) => patience,
            WhenBusy::TakeOver(_) => PATIENCE,
        };
        Terms { patience, shared: self.shared }
    }
}

/// What a login to a maildrop does that has a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenBusy {
    /// It waits this long, and is then refused.
    Wait(Duration),
    /// It ends a session whose client has sent nothing for this long.
    TakeOver(Duration),
}

impl Default for WhenBusy {
    fn default() -> Self {
        Self::Wait(PATIENCE)
    }
}

/// How a session locks its maildrop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How long it waits for the maildrop.
    pub patience: Duration,
    /// True if it shares the maildrop with others that do so, too.
    pub shared: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Busy::default().terms()
    }
}
