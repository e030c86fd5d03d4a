//! The server program.

use std::env;
use std::io::{self, Write};
use std::panic;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use pop3d::auth;
use pop3d::config::{self, Args, Rereading, Task, UsageError};
use pop3d::logging::Log;
use pop3d::malloc;
use pop3d::manual;
use pop3d::server::{Request, Server};
use pop3d::transform;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

/// How long the program waits for the reader of stderr when it ends because of an error.
const PATIENCE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    if let Some(error) = transform::launch(env::args_os()) {
        return ended(126, &error.to_string());
    }
    let task = match Task::read() {
        Ok(task) => task,
        Err(UsageError::Help(help)) => help.exit(),
        Err(error) => return ended(2, &error.to_string()),
    };
    let ended_well = match task {
        Task::Serve(args) => serve(*args),
        Task::Check(args) => {
            return match config::check(&args, &mut io::stdout().lock()) {
                Ok(true) => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            };
        }
        Task::Health(args) => match config::health(&args) {
            Ok(greeting) => writeln!(io::stdout(), "{greeting}").map_err(Into::into),
            Err(why) => Err(why.into()),
        },
        Task::Show(settings) => write!(io::stdout(), "{settings}").map_err(Into::into),
        Task::Passwd(scheme) => print_field(scheme),
        Task::Help(page) => manual::print(page.as_ref()).map_err(Into::into),
    };
    match ended_well {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ended(1, &error.to_string()),
    }
}

/// Says why the program ends. A pipe or terminal that takes no output does not keep it from ending.
fn ended(code: u8, why: &str) -> ExitCode {
    let said: String = why.lines().map(|line| format!("pop3d: {line}\n")).collect();
    let (done, is_done) = crossbeam_channel::bounded(1);
    let say = {
        let said = said.clone();
        move || done.send(io::stderr().write_all(said.as_bytes()))
    };
    let _ = match thread::Builder::new().spawn(say) {
        Ok(_) => is_done.recv_timeout(PATIENCE).unwrap_or(Ok(())),
        Err(_) => io::stderr().write_all(said.as_bytes()),
    };
    ExitCode::from(code)
}

fn print_field(scheme: auth::Scheme) -> Result<(), Box<dyn std::error::Error>> {
    Ok(writeln!(io::stdout(), "{}", auth::make_field(scheme)?)?)
}

fn serve(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let bloated = malloc::restart_with_small_caches();
    let config = args.log();
    let mut log = Log::start(config.level, config.file)?;
    if let Some(error) = bloated {
        log::debug!("cannot be started again with small caches, so it may take more memory: {error}");
    }
    panic::set_hook(Box::new(|fault| log::error!("{fault}")));
    // A file that has become as large as it may (`ulimit -f`) is an error of the write, and does not kill the server. The
    // programs that the server starts have the signal's default action again, as they would not if it were ignored.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    let mut signals = Signals::new([SIGHUP])?;
    let confinement = args.confinement()?;
    let config = args.resolve()?;
    // Not before the files are opened, which may take for ever, and before anybody can know that the server is there.
    signals.add_signal(SIGINT)?;
    signals.add_signal(SIGTERM)?;
    let server = Server::bind(config)?;
    // Threads have the rights of the thread that starts them, so there are none before.
    confinement.enforce()?;
    log.start_writing().map_err(no_thread)?;

    let (ask, requests) = crossbeam_channel::unbounded();
    let listen = move || {
        for signal in signals.forever() {
            let _ = ask.send(match signal {
                SIGHUP => Request::Reload,
                SIGINT => Request::Stop("SIGINT"),
                _ => Request::Stop("SIGTERM"),
            });
        }
    };
    thread::Builder::new().spawn(listen).map_err(no_thread)?;
    print(server.endpoints())?;
    let configuration = Rereading::new(env::args_os().collect(), args);
    Ok(server.run(&requests, configuration, log.reopener())?)
}

fn no_thread(error: io::Error) -> String {
    format!("cannot start a thread: {error}")
}

/// Prints lines on stdout, as far as that is possible. A thread of its own does it: the server also serves when stdout is
/// closed, or is a pipe or a terminal that takes no output.
fn print(lines: Vec<String>) -> Result<(), String> {
    let print = move || {
        let mut stdout = io::stdout().lock();
        let _ = lines.iter().try_for_each(|line| writeln!(stdout, "{line}"));
    };
    thread::Builder::new().spawn(print).map(drop).map_err(no_thread)
}
