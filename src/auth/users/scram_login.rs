//! Logins by SCRAM: the account is looked up once, when an exchange begins, and its keys verify the proof at the end.

use super::{LookUp, UserName, Users, login};
use crate::auth::outcome::Denied;
use crate::auth::scram::{self, ScramKeys, hmac};
use crate::auth::secret::Secret;
use crate::auth::source::Login;

/// A login by SCRAM between the client's first message and its proof.
#[derive(Debug)]
pub(in crate::auth) struct ScramLogin {
    user: Option<UserName>,
    look_up: LookUp,
    /// The salt with which the client derives its keys.
    pub(in crate::auth) salt: Vec<u8>,
    /// The iterations with which it does.
    pub(in crate::auth) iterations: u32,
}

impl Users {
    /// Begins a login by SCRAM. Unknown names get a salt and iterations as well, the same each time. An account is revealed
    /// only if its stored keys have other iterations than the first ones of the file. That a source is unavailable is told
    /// when the proof is verified.
    pub(in crate::auth) fn begin_scram(&self, name: &[u8]) -> ScramLogin {
        let user = self.names.read().apply(name);
        let look_up = self.look_up(user.as_ref());
        let (salt, iterations) = match look_up.account().and_then(|account| account.secret.scram_keys()) {
            Some(keys) => (keys.salt.clone(), keys.iterations),
            None => {
                let salt = hmac(&self.salt_key.0, name)[..scram::SALT].to_vec();
                (salt, self.sources.totals().scram_iterations.unwrap_or(scram::ITERATIONS))
            }
        };
        ScramLogin { user, look_up, salt, iterations }
    }

    /// Verifies a SCRAM client's proof for an exchange. Returns the user and the server's signature.
    ///
    /// # Errors
    /// [`Denied`]
    pub(in crate::auth) fn end_scram(
        &self,
        begun: ScramLogin,
        exchange: &[u8],
        proof: &[u8],
    ) -> Result<(Login, [u8; 32]), Denied> {
        let ScramLogin { user, look_up, salt, iterations } = begun;
        let account = look_up.account_or_unavailable()?;
        let secret = account.map(|account| &account.secret);
        let stored = secret.and_then(Secret::scram_keys);
        let password = secret.and_then(Secret::readable);
        // Keys have to be derived for accounts with readable passwords. If there are such accounts, keys are derived for
        // every name, so that the time reveals nothing.
        let made = if self.sources.totals().some_readable {
            Some(self.verifier.run(|| ScramKeys::derive(password.unwrap_or_default(), salt, iterations))?)
        } else {
            None
        };
        let keys = stored.or(made.as_ref().filter(|_| password.is_some()));
        let right = keys.filter(|keys| keys.match_proof(exchange, proof)).map(|keys| keys.server_signature(exchange));
        login(user.as_ref(), account).zip(right).ok_or_else(|| self.denied(user.as_ref(), &look_up))
    }
}
