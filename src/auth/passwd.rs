//! `pop3d passwd`: asks for a password and makes the field of a users file.

use std::io::{self, IsTerminal};

use super::Scheme;

/// Asks twice without echo on a terminal, and reads one line elsewhere.
///
/// # Errors
/// When no password comes, or not twice the same.
pub fn make_field(scheme: Scheme) -> io::Result<String> {
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why);
    let password = if io::stdin().is_terminal() {
        let password = rpassword::prompt_password("Password: ")?;
        if rpassword::prompt_password("Again: ")? != password {
            return Err(wrong("the passwords are not the same"));
        }
        password
    } else {
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        line.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).unwrap_or(&line).to_owned()
    };
    if password.is_empty() {
        return Err(wrong("there is no password"));
    }
    Ok(scheme.field(password.as_bytes()))
}
