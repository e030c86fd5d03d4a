//! The login of an admin.

use std::sync::Arc;

use super::{Role, Session};
use crate::auth::Credentials;
use crate::connections::Stage;
use crate::events::{AdminReason, What};
use crate::guard::AttemptRefused;
use crate::peep::ErrorCode;
use crate::settings::Admin;
use crate::wire::Link;

impl Session<'_> {
    /// Carries out `a`.
    pub(super) fn authenticate(&mut self, name: &str, password: &str, link: &impl Link) -> Result<(), ErrorCode> {
        if self.is_on_socket() {
            return Ok(()); // it is the admin already
        }
        let attempt = self.limits.attempt(name.as_bytes(), Some(password.as_bytes())).map_err(|why| {
            let reason = match why {
                AttemptRefused::Penalty(penalty) => AdminReason::Penalty(penalty),
                AttemptRefused::Busy => AdminReason::Busy,
            };
            self.emit(What::AdminRefused { name, reason: &reason });
            ErrorCode::TooMany
        })?;
        let admin = Arc::clone(&self.shared.settings().admin);
        let matches = |credentials: &Credentials| credentials.match_with(name.as_bytes(), password.as_bytes());
        // All names are compared each time, so that the time of a login does not tell which names there are.
        let (is_admin, is_viewer) =
            (matches(&admin.credentials), admin.viewers.iter().filter(|viewer| matches(viewer)).count() > 0);
        let reason = match is_admin.then(|| self.is_refused_to_the_client(&admin, link)) {
            Some(Some(why)) => AdminReason::NotRoot(why),
            None if !is_viewer => AdminReason::Credentials,
            _ => {
                self.limits.succeeded(attempt);
                self.has_logged_in(name, if is_admin { Role::Admin } else { Role::Viewer });
                return Ok(());
            }
        };
        self.emit(What::AdminRefused { name, reason: &reason });
        if let Some(penalty) = self.limits.failed(attempt) {
            self.emit(What::Penalty { penalty });
        }
        Err(ErrorCode::WrongCredentials)
    }

    pub(super) fn has_logged_in(&mut self, name: &str, role: Role) {
        self.role = Some(role);
        if let Ok(name) = name.parse() {
            self.client.set_user(name);
        }
        // If an admin has ended the session meanwhile, it ends after this answer.
        let _ = self.client.progress.enter(match role {
            Role::Admin => Stage::Admin,
            Role::Viewer => Stage::Viewer,
        });
        self.emit(What::AdminLogin { name });
    }

    /// Why this client is refused although its password is right.
    fn is_refused_to_the_client(&self, admin: &Admin, link: &impl Link) -> Option<String> {
        if !admin.is_roots {
            return None;
        }
        match link.client_user() {
            Ok(0) => None,
            Ok(user) => Some(format!("the client belongs to user {user}")),
            Err(error) => Some(format!("the client's user cannot be determined: {error}")),
        }
    }
}
