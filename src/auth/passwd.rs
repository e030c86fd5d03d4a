//! Asks for a password, and makes the field of a users file from it (`pop3d passwd`).

use std::io::{self, IsTerminal};

use super::Scheme;

/// Asks for a password, without echo on a terminal, and reads one line elsewhere. On a terminal, a new one is asked for twice.
///
/// # Errors
/// When no password is given, or when the two differ.
pub fn ask_for_password(is_new: bool) -> io::Result<String> {
    let password = if io::stdin().is_terminal() {
        let password = rpassword::prompt_password("Password: ")?;
        if is_new && rpassword::prompt_password("Again: ")? != password {
            return Err(wrong("the passwords are not the same"));
        }
        password
    } else {
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        line.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).unwrap_or(&line).to_owned()
    };
    if password.is_empty() { Err(wrong("the password is empty")) } else { Ok(password) }
}

fn wrong(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why.to_owned())
}

/// Asks for a new password and makes a field.
///
/// # Errors
/// As of [`ask_for_password`], and when the scheme would ignore the end of the password.
pub fn make_field(scheme: Scheme) -> io::Result<String> {
    let password = ask_for_password(true)?;
    if let Some(limit) = scheme.limit().filter(|limit| password.len() > *limit) {
        return Err(wrong(&format!(
            "the scheme takes {limit} octets of a password, and this one has {}",
            password.len()
        )));
    }
    Ok(scheme.field(password.as_bytes()))
}
