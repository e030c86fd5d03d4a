//! `pop3d import-ids`: finds the unique-ids that other servers gave to the messages of all maildrops, and keeps them in a
//! file in each maildrop. The lists of these servers are not needed any more afterwards.

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use rustix::process::geteuid;

use crate::auth::UserName;
use crate::config::{Args, Maildrops};
use crate::maildrop::{Holder, LockError, Locks, Maildrop, Terms};
use crate::net::Origin;
use crate::printable::printable;

/// The flags of `pop3d import-ids`, besides the server's.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// Write the unique-ids; without this, only count them
    #[arg(long)]
    write: bool,

    /// The users whose maildrops are looked at [default: all]
    #[arg(value_name = "USER")]
    names: Vec<String>,

    #[command(flatten)]
    server: Args,
}

/// What one maildrop has, or all of them.
#[derive(Debug, Default)]
struct Count {
    messages: usize,
    given: usize,
}

/// Looks at the maildrops and writes the results to `output`. Returns true if all of them could be read.
///
/// # Errors
/// A message, if the settings cannot be used or `output` cannot be written.
pub fn run(args: &ImportArgs, output: &mut impl Write) -> Result<bool, String> {
    let maildrops = args.server.open_for_import(args.write).map_err(|error| error.to_string())?;
    let users = maildrops.users(&args.names)?;
    let unwritable = |error| format!("cannot write the results: {error}");
    let locks = args.write.then(Arc::<Locks>::default);
    let (mut all, mut failed) = (Count::default(), 0);
    for user in &users {
        let name = printable(user.as_str());
        match maildrop(user, &maildrops, locks.as_ref()) {
            Ok(Count { messages, given }) => {
                all.messages += messages;
                all.given += given;
                writeln!(output, "{name}: {messages} messages, {given} with another server's unique-id")
            }
            Err(why) => {
                failed += 1;
                writeln!(output, "{name}: failed: {}", printable(&why))
            }
        }
        .map_err(unwritable)?;
    }
    let Count { messages, given } = all;
    let count = users.len();
    let end = if args.write { "written" } else { "nothing is written without --write" };
    writeln!(
        output,
        "{count} maildrops ({failed} failed), {messages} messages, {given} with another server's unique-id; {end}"
    )
    .map_err(unwritable)?;
    Ok(failed == 0)
}

/// Counts the messages of one maildrop. If it is locked meanwhile, opening it also writes the unique-ids.
fn maildrop(user: &UserName, maildrops: &Maildrops, locks: Option<&Arc<Locks>>) -> Result<Count, String> {
    let text = |error: std::io::Error| error.to_string();
    let (_acting, location) = maildrops.act_for(user).map_err(text)?;
    let origin = Origin::Process { pid: std::process::id(), uid: geteuid().as_raw() };
    let holder = Holder { session: None, origin, since: Instant::now() };
    let lock =
        locks.map(|locks| locks.lock(&location, holder, Terms::default())).transpose().map_err(
            |error| match error {
                LockError::Io(error) => error.to_string(),
                LockError::HeldBy(_) | LockError::HeldElsewhere(_) => "a session has the maildrop".to_owned(),
            },
        )?;
    let maildrop = match &lock {
        Some(lock) => Maildrop::open(lock.location().clone()),
        None => Maildrop::open_without_lock(location),
    };
    let maildrop = maildrop.map_err(text)?;
    Ok(Count { messages: maildrop.count(), given: maildrop.given_ids() })
}
