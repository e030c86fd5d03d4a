//! The server program.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::panic;
use std::process::ExitCode;
use std::thread;

use log::LevelFilter;
use pop3d::auth;
use pop3d::config::{self, Args, LogConfig, Task};
use pop3d::log_file::LogFile;
use pop3d::malloc;
use pop3d::manual;
use pop3d::server::{Request, Server};
use pop3d::transform;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use simplelog::{ColorChoice, ConfigBuilder, TermLogger, TerminalMode, WriteLogger};
use time::macros::format_description;

fn main() -> ExitCode {
    if let Some(error) = transform::launch(env::args_os()) {
        return ended(126, &error.to_string());
    }
    let args = match Args::read() {
        Ok(args) => args,
        Err(error) if error.use_stderr() => return ended(2, &config::in_one_line(&error)),
        Err(help) => help.exit(),
    };
    let ended_well = match args.task {
        Some(Task::Passwd { scheme }) => print_field(scheme),
        Some(Task::Help { page }) => print_manual(page),
        None => serve(args),
    };
    match ended_well {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ended(1, &error.to_string()),
    }
}

fn ended(code: u8, why: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "pop3d: {why}");
    ExitCode::from(code)
}

fn print_field(scheme: auth::Scheme) -> Result<(), Box<dyn std::error::Error>> {
    Ok(writeln!(io::stdout(), "{}", auth::make_field(scheme)?)?)
}

fn print_manual(page: Option<manual::Page>) -> Result<(), Box<dyn std::error::Error>> {
    Ok(page.map_or_else(manual::print_list, |page| manual::print_page(&page))?)
}

fn serve(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let bloated = malloc::restart_with_small_caches();
    let log_file = start_log(args.log())?;
    if let Some(error) = bloated {
        log::debug!("cannot be started again with small caches, so it may take more memory: {error}");
    }
    panic::set_hook(Box::new(|fault| log::error!("{fault}")));
    // Before anybody can know that the server is there.
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let confinement = args.confinement()?;
    let server = Server::bind(args.resolve()?)?;
    // Threads have the rights of the thread that starts them, so there are none before.
    confinement.enforce()?;

    let (ask, requests) = crossbeam_channel::unbounded();
    let listen = move || {
        for signal in signals.forever() {
            let _ = ask.send(match signal {
                SIGHUP => {
                    log_file.iter().for_each(reopen);
                    Request::Reload
                }
                SIGINT => Request::Stop("SIGINT"),
                _ => Request::Stop("SIGTERM"),
            });
        }
    };
    thread::Builder::new().spawn(listen).map_err(|error| format!("cannot start a thread: {error}"))?;

    let mut stdout = io::stdout().lock();
    for endpoint in server.endpoints() {
        writeln!(stdout, "{endpoint}")?;
    }
    drop(stdout);
    Ok(server.run(&requests)?)
}

/// Starts to log. Returns the file that it is logged to.
fn start_log(log: LogConfig) -> Result<Option<LogFile>, Box<dyn std::error::Error>> {
    let time = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let off = LevelFilter::Off;
    let config = ConfigBuilder::new()
        .set_time_format_custom(time)
        .set_target_level(off)
        .set_thread_level(off)
        .set_location_level(off)
        .build();
    let Some(path) = log.file else {
        let colour = if io::stderr().is_terminal() { ColorChoice::Auto } else { ColorChoice::Never };
        TermLogger::init(log.level, config, TerminalMode::Stderr, colour)?;
        return Ok(None);
    };
    let cannot_open = |error| format!("cannot open the log file {}: {error}", path.display());
    let file = LogFile::open(path.clone()).map_err(cannot_open)?;
    WriteLogger::init(log.level, config, file.clone())?;
    Ok(Some(file))
}

fn reopen(log: &LogFile) {
    match log.reopen() {
        Ok(()) => log::info!("the log file has been opened again"),
        Err(error) => log::error!("the log stays in its old file, a new one cannot be opened: {error}"),
    }
}
