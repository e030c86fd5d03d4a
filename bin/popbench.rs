//! The load generator for POP3 servers.

use std::process::ExitCode;

use clap::Parser;
use pop3d::bench::{self, Args};

fn main() -> ExitCode {
    bench::run(Args::parse())
}
