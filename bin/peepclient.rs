//! The admin's client program.

use std::process::ExitCode;

use pop3d::peep::client::{self, Options};

fn main() -> ExitCode {
    match Options::read(std::env::args_os()) {
        Ok(options) => client::run(&options),
        Err(error) => error.exit(),
    }
}
