//! Accounts: who there is, and what proves it.
//!
//! [`Users`] are those of the command line and those of a users file, which is Dovecot's passwd-file. It is read again
//! when it has changed, and PEEP changes it. [`sasl`] are the exchanges of AUTH.

mod apop;
mod file;
mod hidden;
mod name;
mod on_disk;
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

/// Octets that nobody can guess.
///
/// # Panics
/// When the kernel gives none, which no Linux of today does.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut octets = [0; N];
    getrandom::fill(&mut octets).expect("the kernel gives random octets");
    octets
}
