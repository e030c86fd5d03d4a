//! `pop3d doctor`: examines maildrops and reports what an operator should know before pop3d serves them.
//!
//! - [`DoctorArgs`] are its flags. [`run`] examines one maildrop after the other, by [`maildrop::inspect`].
//! - `report` writes the results, as text for people or as JSON for programs.
//!
//! It changes nothing: no index is written and no lock is taken.

mod report;

use std::io::Write;

use crate::auth::{UserName, Users};
use crate::config::{Args, every};
use crate::maildrop::{self, Inspection, MailRoot};
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
    server: Args,
}

/// The result for one maildrop.
struct Examined {
    user: UserName,
    inspection: Inspection,
}

impl Examined {
    fn needs_a_hand(&self) -> bool {
        self.inspection.findings.need_a_hand()
    }
}

/// Examines the maildrops and writes the results to `output`. Returns true if none of them needs a hand.
///
/// # Errors
/// A message, if the settings cannot be used or `output` cannot be written.
pub fn run(args: &DoctorArgs, output: &mut impl Write) -> Result<bool, String> {
    let (accounts, mail_root) = args.server.look().map_err(|error| error.to_string())?;
    let users = every::users(&args.names, &accounts, &mail_root)?;
    let unwritable = |error| format!("cannot write the results: {error}");
    let mut report = Report::begin(output, args.json).map_err(unwritable)?;
    for user in users {
        report.add(&examine(user, &accounts, &mail_root)).map_err(unwritable)?;
    }
    report.end().map_err(unwritable)
}

fn examine(user: UserName, accounts: &Users, mail_root: &MailRoot) -> Examined {
    let inspection = match mail_root.location_of(user.clone(), &accounts.mailbox(&user)) {
        Ok(location) => maildrop::inspect(&location).0,
        Err(error) => Inspection::of_no_location(&error),
    };
    Examined { user, inspection }
}
