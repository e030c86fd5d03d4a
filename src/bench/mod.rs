//! `popbench`: a load generator for any POP3 server.
//!
//! In a run N clients repeat the session of one workload until a count or a time is used up. Their results are added up
//! in one tally, and the report is computed from that tally. [`Args`] are the arguments and [`run()`] is the program;
//! `bin/popbench.rs` calls it.
//!
//! | module | holds |
//! |---|---|
//! | `options` | the command line, and the checked `Plan` made of it |
//! | `security` | the command line's part about TLS, and the settings for one server |
//! | `users` | accounts by pattern or from a file, and which client gets which |
//! | `client` | one connection: status lines, multi-line replies, octets |
//! | `intake`, `buffers` | receiving that connection's octets |
//! | `failure` | what can go wrong in a session |
//! | `line` | that connection's octets, unencrypted or with TLS |
//! | `tls` | TLS over a non-blocking socket |
//! | `reactor` | the event loop that runs many clients on one thread |
//! | `exchange` | what a session asks the server: scans, unique-ids, messages |
//! | `workload` | what a session does in each workload, and the clients that do it |
//! | `run` | a run in progress, as its threads share it |
//! | `tally` | times, totals and errors of a run |
//! | `report` | a run's figures for people, as JSON and as CSV |
//! | `compare` | two servers in turn, and the spread of their ratio |
//! | `progress` | the progress line on a terminal |
//! | `system` | this process's limits and CPU time, a server's memory |
//!
//! It does not depend on the server of this package: it speaks RFC 1939 to any server.

mod buffers;
mod client;
mod compare;
mod exchange;
mod failure;
mod intake;
mod line;
mod options;
mod progress;
mod proxy;
mod reactor;
mod report;
mod run;
mod security;
mod system;
mod tally;
mod tls;
mod users;
mod workload;

use std::io::{self, Write};
use std::process::ExitCode;

pub use options::Args;

use compare::Comparison;
use options::{Output, Plan, Target};
use report::Report;

const ERRORS_OCCURRED: u8 = 1;
const USAGE: u8 = 2;
const CANNOT_CONNECT: u8 = 3;

/// Runs the workload of the command line and prints the report on standard output. Returns the exit code:
/// 0 success, 1 errors occurred in the run, 2 usage, 3 cannot connect at all.
pub fn run(args: Args) -> ExitCode {
    let plan = match Plan::new(args) {
        Ok(plan) => plan,
        Err(problem) => return fail(USAGE, &problem),
    };
    let targets = match plan.targets() {
        Ok(targets) => targets,
        Err(problem) => return fail(CANNOT_CONNECT, &problem),
    };
    for note in plan.notes(system::allow_sockets(plan.clients)) {
        eprintln!("popbench: note: {note}");
    }

    measure(&plan, &targets).unwrap_or_else(|reason| fail(ERRORS_OCCURRED, &reason))
}

fn measure(plan: &Plan, targets: &[Target]) -> Result<ExitCode, String> {
    Ok(match targets {
        [a, b] => {
            let comparison = Comparison::run(plan, a, b)?;
            let differing = comparison.differing_messages();
            let printed = print(plan, &comparison.reports(), Some(&comparison));
            verdict(&comparison.reports(), differing > 0, printed)
        }
        single => {
            let report = workload::run(plan, &single[0], "")?;
            let printed = print(plan, &[&report], None);
            verdict(&[&report], false, printed)
        }
    })
}

fn print(plan: &Plan, reports: &[&Report], comparison: Option<&Comparison>) -> io::Result<()> {
    let text = match (plan.output, comparison) {
        (Output::Csv, _) => report::csv(reports),
        (Output::Json, Some(comparison)) => format!("{:#}\n", comparison.json()),
        (Output::Json, None) => format!("{:#}\n", reports[0].json()),
        (Output::Text, Some(comparison)) => comparison.to_string(),
        (Output::Text, None) => reports[0].to_string(),
    };
    match io::stdout().write_all(text.as_bytes()) {
        // The program that reads the report, for example head(1), has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn verdict(reports: &[&Report], contents_differ: bool, printed: io::Result<()>) -> ExitCode {
    if let Err(error) = printed {
        fail(ERRORS_OCCURRED, &format!("cannot write the report: {error}"))
    } else if reports.iter().any(|report| report.tally.connections == 0) {
        ExitCode::from(CANNOT_CONNECT)
    } else if contents_differ || reports.iter().any(|report| report.tally.failed() > 0) {
        ExitCode::from(ERRORS_OCCURRED)
    } else {
        ExitCode::SUCCESS
    }
}

fn fail(code: u8, problem: &str) -> ExitCode {
    eprintln!("popbench: {problem}");
    ExitCode::from(code)
}
