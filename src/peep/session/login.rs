//! The login of an admin.

use std::sync::Arc;

use super::Session;
use crate::connections::Stage;
use crate::events::{AdminReason, What};
use crate::guard::AttemptRefused;
use crate::peep::ErrorCode;
use crate::settings::Admin;
use crate::wire::Link;

impl Session<'_> {
    /// Carries out `a`.
    pub(super) fn authenticate(&mut self, name: &str, password: &str, link: &impl Link) -> Result<(), ErrorCode> {
        let attempt = self.limits.attempt(name.as_bytes(), Some(password.as_bytes())).map_err(|why| {
            let reason = match why {
                AttemptRefused::Penalty(penalty) => AdminReason::Penalty(penalty),
                AttemptRefused::Busy => AdminReason::Busy,
            };
            self.emit(What::AdminRefused { name, reason: &reason });
            ErrorCode::TooMany
        })?;
        let admin = Arc::clone(&self.shared.settings().admin);
        let reason = if !admin.credentials.match_with(name.as_bytes(), password.as_bytes()) {
            AdminReason::Credentials
        } else if let Some(why) = self.is_refused_to_the_client(&admin, link) {
            AdminReason::NotRoot(why)
        } else {
            self.limits.succeeded(attempt);
            self.authenticated = true;
            if let Ok(name) = name.parse() {
                self.client.set_user(name);
            }
            // If it was ended by an admin meanwhile, the session ends after this answer.
            let _ = self.client.progress.enter(Stage::Admin);
            self.emit(What::AdminLogin { name });
            return Ok(());
        };
        self.emit(What::AdminRefused { name, reason: &reason });
        if let Some(penalty) = self.limits.failed(attempt) {
            self.emit(What::Penalty { penalty });
        }
        Err(ErrorCode::WrongCredentials)
    }

    /// Why this client may not be the admin in spite of the right password.
    fn is_refused_to_the_client(&self, admin: &Admin, link: &impl Link) -> Option<String> {
        if !admin.is_roots {
            return None;
        }
        match link.client_user() {
            Ok(0) => None,
            Ok(user) => Some(format!("this one is of user {user}")),
            Err(error) => Some(format!("whose this one is cannot be told: {error}")),
        }
    }
}
