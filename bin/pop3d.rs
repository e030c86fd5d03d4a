//! The server program.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::thread;

use clap::Parser;
use pop3d::config::{Args, LogConfig};
use pop3d::server::{Server, Signal};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use simplelog::{ColorChoice, ConfigBuilder, TermLogger, TerminalMode, WriteLogger};
use time::macros::format_description;

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "pop3d: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    start_log(&args.log())?;
    let server = Server::bind(args.resolve()?)?;
    let mut stdout = io::stdout().lock();
    for endpoint in server.endpoints() {
        writeln!(stdout, "{endpoint}")?;
    }
    drop(stdout);

    let (stop, stopped) = crossbeam_channel::bounded(1);
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::spawn(move || {
        for signal in signals.forever() {
            let _ = stop.try_send(Signal(if signal == SIGINT { "SIGINT" } else { "SIGTERM" }));
        }
    });
    Ok(server.run(&stopped)?)
}

fn start_log(log: &LogConfig) -> Result<(), Box<dyn std::error::Error>> {
    let time = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let config = ConfigBuilder::new().set_time_format_custom(time).set_target_level(log::LevelFilter::Off).build();
    match &log.file {
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            let file = file.map_err(|error| format!("cannot open the log file {}: {error}", path.display()))?;
            WriteLogger::init(log.level, config, file)?;
        }
        None => {
            let colour = if io::stderr().is_terminal() { ColorChoice::Auto } else { ColorChoice::Never };
            TermLogger::init(log.level, config, TerminalMode::Stderr, colour)?;
        }
    }
    Ok(())
}
