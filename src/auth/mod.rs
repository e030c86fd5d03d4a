//! Accounts and the ways to log in to them.
//!
//! [`Users`] are those of the command line and those of a users file, which is Dovecot's passwd-file. It is read again
//! when it has changed, and PEEP changes it. [`sasl`] are the exchanges of AUTH.

mod apop;
mod file;
mod hidden;
mod name;
mod passwd;
pub mod sasl;
mod scram;
mod secret;
mod text;
mod users;
mod verifier;

pub use apop::timestamp;
pub use hidden::Hidden;
pub use name::{Credentials, InvalidName, UserName};
pub use passwd::make_field;
pub use secret::Scheme;
pub use users::{Abilities, Denied, Unchanged, Users};

/// Random octets from the kernel, which cannot be predicted.
///
/// # Panics
/// When the kernel has no random octets, which does not happen on current versions of Linux.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut octets = [0; N];
    getrandom::fill(&mut octets).expect("the kernel gives random octets");
    octets
}
