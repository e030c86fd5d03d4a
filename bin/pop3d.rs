//! The server program: parses the command line, then serves or carries out the task that was asked for.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::panic;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use pop3d::auth;
use pop3d::check_user;
use pop3d::config::{self, Args, Rereading, Task, UsageError};
use pop3d::doctor;
use pop3d::import;
use pop3d::logging::Log;
use pop3d::malloc;
use pop3d::manual;
use pop3d::server::{Request, Server};
use pop3d::transform;
use pop3d::trial::{Trial, TrialArgs};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

/// When the program ends because of an error, the longest time that writing the message to stderr may take.
const PATIENCE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    if let Some(error) = transform::launch(env::args_os()) {
        return fail(126, &error.to_string());
    }
    if let Some(code) = transform::report(env::args_os()) {
        return code;
    }
    if let Some(result) = auth::read_users_file_for_server(env::args_os()) {
        return result.map_or_else(|error| fail(1, &error.to_string()), |()| ExitCode::SUCCESS);
    }
    let task = match Task::read() {
        Ok(task) => task,
        Err(UsageError::Help(help)) => help.exit(),
        Err(error) => return fail(2, &error.to_string()),
    };
    let result = match task {
        Task::Serve(args) => serve(*args, env::args_os().collect(), |server| print(server.endpoints())),
        Task::Test(args) => test(&args),
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
        Task::CheckUser(args) => {
            return match check_user::run(&args, &mut io::stdout().lock()) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(why) => fail(2, &why),
            };
        }
        Task::Doctor(args) => {
            return match doctor::run(&args, &mut io::stdout().lock()) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(why) => fail(2, &why),
            };
        }
        Task::ImportIds(args) => {
            return match import::run(&args, &mut io::stdout().lock()) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(why) => fail(2, &why),
            };
        }
        Task::Show(settings) => write!(io::stdout(), "{settings}").map_err(Into::into),
        Task::Passwd(scheme) => print_field(scheme),
        Task::Help(page) => manual::print(page.as_ref()).map_err(Into::into),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error.to_string()),
    }
}

/// Prints why the program ends and returns its exit code. A pipe or terminal that blocks does not keep it from ending.
fn fail(code: u8, why: &str) -> ExitCode {
    let message: String = why.lines().map(|line| format!("pop3d: {line}\n")).collect();
    let (done, is_done) = crossbeam_channel::bounded(1);
    let write = {
        let message = message.clone();
        move || done.send(io::stderr().write_all(message.as_bytes()))
    };
    let _ = match thread::Builder::new().spawn(write) {
        Ok(_) => is_done.recv_timeout(PATIENCE).unwrap_or(Ok(())),
        Err(_) => io::stderr().write_all(message.as_bytes()),
    };
    ExitCode::from(code)
}

/// Asks for a password and prints its hash.
fn print_field(scheme: auth::Scheme) -> Result<(), Box<dyn std::error::Error>> {
    Ok(writeln!(io::stdout(), "{}", auth::make_field(scheme)?)?)
}

/// Serves with everything in a temporary directory, which is removed at the end, also after SIGINT and SIGTERM.
fn test(args: &TrialArgs) -> Result<(), Box<dyn std::error::Error>> {
    // This comes first, because the directory would be left behind.
    let _ = malloc::restart_with_small_caches();
    let is_interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&is_interrupted))?;
    }
    let mut trial = Trial::new(args)?;
    let typed = trial.command_line();
    let Task::Serve(args) = Task::parse(typed.clone())? else {
        return Err("behind -- there can be flags of the server only".into());
    };
    serve(*args, typed, |server| match is_interrupted.load(Ordering::Relaxed) {
        true => Err("interrupted".to_owned()),
        false => trial.announce(server),
    })
}

/// Serves with these settings. `announce` is called when clients can connect.
fn serve(
    args: Args,
    typed: Vec<OsString>,
    announce: impl FnOnce(&Server) -> Result<(), String>,
) -> Result<(), Box<dyn std::error::Error>> {
    let not_restarted = malloc::restart_with_small_caches();
    let config = args.log();
    let mut log = Log::start(config.level, config.format, config.file)?;
    if let Some(error) = not_restarted {
        log::debug!("cannot restart with glibc's settings for less memory: {error}");
    }
    panic::set_hook(Box::new(|panic| log::error!("{panic}")));
    // When a file reaches the limit on file sizes (`ulimit -f`), the write shall fail, but the signal shall not kill the
    // server. The signal is handled rather than ignored, because transforms would inherit that it is ignored.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    let mut signals = Signals::new([SIGHUP])?;
    let confinement = args.confinement()?;
    let config = args.resolve()?;
    config.users.prepare()?;
    // These two are handled from now on. Until the files are open, which may block, they end the program at once; once the
    // ports are bound, they have to shut it down properly.
    signals.add_signal(SIGINT)?;
    signals.add_signal(SIGTERM)?;
    let server = Server::bind(config)?;
    // Threads keep the rights of the thread that starts them, so none is started before this.
    confinement.enforce()?;
    log.start_writing().map_err(no_thread)?;
    server.check_accounts()?;

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
    announce(&server)?;
    let configuration = Rereading::new(typed, args);
    Ok(server.run(&requests, configuration, log.reopener())?)
}

fn no_thread(error: io::Error) -> String {
    format!("cannot start a thread: {error}")
}

/// Prints lines to stdout in a thread of its own, so that the server serves even if stdout is closed or blocks.
fn print(lines: Vec<String>) -> Result<(), String> {
    let print = move || {
        let mut stdout = io::stdout().lock();
        let _ = lines.iter().try_for_each(|line| writeln!(stdout, "{line}"));
    };
    thread::Builder::new().spawn(print).map(drop).map_err(no_thread)
}
