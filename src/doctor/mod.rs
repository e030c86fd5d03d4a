//! `pop3d doctor`: examines maildrops and reports what an operator should know before pop3d serves them.
//!
//! - [`DoctorArgs`] are its flags. [`run`] examines one maildrop after the other, by [`maildrop::inspect`].
//! - `against` compares the maildrops with what another server shows of them.
//! - `report` writes the results, as text for people or as JSON for programs.
//!
//! It changes nothing: no index is written and no lock is taken.

mod against;
mod report;

use std::collections::BTreeSet;
use std::io::Write;

use crate::auth::UserName;
use crate::config::{Args, Maildrops};
use crate::maildrop::{self, Inspection};
use against::{AgainstArgs, Comparison, OldServer};
use report::Report;

/// The flags of `pop3d doctor`, besides the server's.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// Print the results as JSON
    #[arg(long)]
    json: bool,

    /// The users whose maildrops are examined [default: all]
    #[arg(value_name = "USER")]
    names: Vec<String>,

    #[command(flatten)]
    against: AgainstArgs,

    #[command(flatten)]
    server: Args,
}

/// The result for one maildrop.
struct Examined {
    user: UserName,
    inspection: Inspection,
    /// The comparison with the other server, or why there is none; `None` if it was not asked for.
    comparison: Option<Result<Comparison, String>>,
}

impl Examined {
    fn needs_a_hand(&self) -> bool {
        let differs = |result: &Result<Comparison, _>| !result.as_ref().is_ok_and(Comparison::all_stays);
        self.inspection.findings.need_a_hand() || self.comparison.as_ref().is_some_and(differs)
    }
}

/// Examines the maildrops and writes the results to `output`. Returns true if none of them needs a hand.
///
/// # Errors
/// A message, if the settings cannot be used or `output` cannot be written.
pub fn run(args: &DoctorArgs, output: &mut impl Write) -> Result<bool, String> {
    let maildrops = args.server.look().map_err(|error| error.to_string())?;
    let old_server = OldServer::new(&args.against, &maildrops.accounts)?;
    let users = users(args, &maildrops, old_server.as_ref())?;
    let unwritable = |error| format!("cannot write the results: {error}");
    let mut report = Report::begin(output, args.json).map_err(unwritable)?;
    for user in users {
        report.add(&examine(user, &maildrops, old_server.as_ref())).map_err(unwritable)?;
    }
    report.end().map_err(unwritable)
}

/// The users to examine: those that are named, or else all, and all whose passwords on the other server are known.
fn users(
    args: &DoctorArgs,
    maildrops: &Maildrops,
    old_server: Option<&OldServer>,
) -> Result<BTreeSet<UserName>, String> {
    let mut users: BTreeSet<_> = maildrops.users(&args.names)?.into_iter().collect();
    if args.names.is_empty() {
        users.extend(old_server.into_iter().flat_map(OldServer::users).cloned());
    }
    Ok(users)
}

fn examine(user: UserName, maildrops: &Maildrops, old_server: Option<&OldServer>) -> Examined {
    // The other server comes first, so that mail which arrives meanwhile is not taken for lost.
    let old = old_server.map(|server| server.list(&user));
    let acting = maildrops.act_for(&user);
    let (inspection, maildrop) = match &acting {
        Ok((_, location)) => maildrop::inspect(location),
        Err(error) => (Inspection::of_no_location(error), None),
    };
    let comparison = old.map(|old| Ok(OldServer::compare(&old?, maildrop.as_ref())));
    Examined { user, inspection, comparison }
}
