//! `pop3d check-user`: asks the account sources for a user as a login does, and prints what each of them says, how long that
//! takes, and where the user's maildrop is. It changes nothing.

use std::io::Write;

use crate::auth::{self, Denied, Login, Said, Trace};
use crate::config::{Args, Maildrops};
use crate::maildrop::Maildrop;
use crate::printable::printable;

/// The flags of `pop3d check-user`, besides the server's.
#[derive(Debug, clap::Args)]
pub struct CheckUserArgs {
    /// Do not ask for a password; only ask the sources whether they know the name
    #[arg(long)]
    no_password: bool,

    /// The name, as a client would send it
    #[arg(value_name = "NAME")]
    name: String,

    #[command(flatten)]
    server: Args,
}

/// Asks the sources and writes the results to `output`. Returns true if the user could log in, or, without a password, is
/// known.
///
/// # Errors
/// A message, if the settings cannot be used, no password is given, or `output` cannot be written.
pub fn run(args: &CheckUserArgs, output: &mut impl Write) -> Result<bool, String> {
    let maildrops = args.server.look().map_err(|error| error.to_string())?;
    let password = match args.no_password {
        true => String::new(),
        false => auth::ask_for_password(false).map_err(|error| error.to_string())?,
    };
    maildrops.accounts.prepare().map_err(|error| error.to_string())?;
    maildrops.accounts.start();
    let (lines, could_log_in) = ask(&maildrops, &args.name, &password);
    lines
        .iter()
        .try_for_each(|line| writeln!(output, "{}", printable(line)))
        .map_err(|error| format!("cannot write the results: {error}"))?;
    Ok(could_log_in)
}

/// Returns the lines to print, and whether the user could log in.
fn ask(maildrops: &Maildrops, name: &str, password: &str) -> (Vec<String>, bool) {
    let Trace { said, result } = maildrops.accounts.trace(name.as_bytes(), password.as_bytes(), None);
    let line = |said: &Said| format!("{}: {said} ({:.1} ms)", said.source, said.took.as_secs_f64() * 1e3);
    let mut lines: Vec<_> = said.iter().map(line).collect();
    let (last, could_log_in) = match result {
        Ok(login) => match maildrop(maildrops, &login) {
            Ok(maildrop) => (maildrop, true),
            Err(why) => (why, false),
        },
        Err(Denied::Busy) => ("too many passwords are being verified".to_owned(), false),
        Err(_) if said.is_empty() => (format!("{name:?} cannot be the name of a user"), false),
        Err(_) => return (lines, false),
    };
    lines.push(last);
    (lines, could_log_in)
}

/// Opens the user's maildrop as a session does. Returns where it is and what is in it, or why it cannot be opened.
fn maildrop(maildrops: &Maildrops, login: &Login) -> Result<String, String> {
    let (_acting, location) =
        maildrops.act_for_login(login).map_err(|error| format!("the maildrop cannot be found: {error}"))?;
    let location = location.behind_links().unwrap_or(location);
    let place = location.shown();
    match Maildrop::open(location) {
        Ok(maildrop) => Ok(format!("maildrop {place}: {} messages, {} octets", maildrop.count(), maildrop.octets())),
        Err(error) => Err(format!("maildrop {place}: it cannot be opened: {error}")),
    }
}
