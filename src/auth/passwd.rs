//! `pop3d passwd`: asks for a password and makes the field of a users file.

use std::io::{self, IsTerminal};

use super::Scheme;

/// Asks twice without echo on a terminal, and reads one line elsewhere.
///
/// # Errors
/// When no password is given, when the two passwords differ, or when the scheme would ignore the end of the password.
pub fn make_field(scheme: Scheme) -> io::Result<String> {
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
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
        return Err(wrong("the password is empty"));
    }
    if let Some(limit) = scheme.limit().filter(|limit| password.len() > *limit) {
        return Err(wrong(&format!(
            "the scheme takes {limit} octets of a password, and this one has {}",
            password.len()
        )));
    }
    Ok(scheme.field(password.as_bytes()))
}
