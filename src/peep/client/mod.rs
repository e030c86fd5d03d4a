//! `peepclient`: everything between its arguments and its exit code.
//!
//! A command is an English phrase (`phrases`). It comes from the arguments (one command, whose bare answer is made for
//! scripts), from a terminal (`prompt`), or from any other standard input, one command a line. `connection` sends it and
//! reads the answer within a deadline, `output` prints that safely.
//!
//! [`Options`] are the arguments and [`run()`] is the program; `bin/peepclient.rs` calls it.

mod connection;
mod options;
mod output;
mod phrases;
mod prompt;

use std::fmt;
use std::io::{self, BufRead, BufWriter, IsTerminal, Write};
use std::process::ExitCode;

use super::{Answer, Command, ErrorCode, UnreadableAnswer};
use crate::trust;
use connection::Connection;
pub use options::Options;
use phrases::Request;
use prompt::Prompt;

/// Does what the options ask for. A failure is reported in one line on standard error.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    match carry_out(options) {
        Ok(all_well) => ExitCode::from(u8::from(!all_well)),
        // The program that reads the output has read enough, as in `| head -1`.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "{failure}"); // if standard error is closed, the exit status still tells
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Returns false if a command from a file or pipe failed. At a prompt the result is always true, because the person has
/// seen the errors.
fn carry_out(options: &Options) -> Result<bool, Failure> {
    let stdin = io::stdin();
    let on_a_terminal = io::stdout().is_terminal();
    let mut stdout = BufWriter::new(io::stdout());
    if let Some(words) = options.one_command() {
        once(&words, || Connection::open(options), &mut stdout)?;
        return Ok(true);
    }
    let mut server = Connection::open(options)?;
    if stdin.is_terminal() && on_a_terminal {
        if options.trust.insecure {
            print(
                &mut stdout,
                "Warning: the server's certificate is not checked (--insecure), so this may be another server\n",
            )?;
        }
        converse(Prompt::new().map_err(Failure::Input)?, &mut server, &mut stdout)?;
        return Ok(true);
    }
    converse(stdin.lock().lines(), &mut server, &mut stdout)
}

/// Sends one command and prints its answer bare. Connects only if the command is a valid one.
fn once(
    words: &[&str],
    connect: impl FnOnce() -> Result<Connection, Failure>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    match phrases::parse(words).map_err(Failure::Usage)? {
        Request::Help => print(out, &help()),
        Request::HelpAbout(typed) => print(out, &phrases::help_table(&typed)),
        Request::Send(command) => {
            let mut server = connect()?;
            match server.call(&command)? {
                Answer::Error(code) => Err(Failure::Answer(code)),
                answer => show(&answer, output::bare, &mut server, out),
            }
        }
    }
}

/// Sends the commands in `lines` until the lines end or one of them is `quit`. Returns false if any command was
/// answered with an error.
fn converse(
    lines: impl Iterator<Item = io::Result<String>>,
    server: &mut Connection,
    out: &mut impl Write,
) -> Result<bool, Failure> {
    print(out, "Connected successfully to server through PEEP!\nSee available commands with 'help'\n")?;
    let mut all_well = true;
    for line in lines {
        let request = match line {
            Ok(line) if line.trim_ascii().is_empty() => continue,
            Ok(line) => phrases::parse(&phrases::words(&line)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err("Invalid text, not UTF-8".to_owned()),
            Err(error) => return Err(Failure::Input(error)),
        };
        let quit = matches!(request, Ok(Request::Send(Command::Quit)));
        match request {
            Ok(Request::Help) => print(out, &help())?,
            Ok(Request::HelpAbout(typed)) => print(out, &phrases::help_table(&typed))?,
            Ok(Request::Send(command)) => {
                let answer = server.call(&command)?;
                all_well &= !matches!(answer, Answer::Error(_));
                show(&answer, output::labelled, server, out)?;
            }
            Err(error) => {
                all_well = false;
                print(out, &output::error(&error))?;
            }
        }
        if quit {
            break;
        }
    }
    Ok(all_well)
}

/// The list of all commands: one command on each line for a person, all in the report's single line for a program.
fn help() -> String {
    if io::stdout().is_terminal() { phrases::help_table("") } else { phrases::help_line() }
}

/// Prints an answer. The lines of a listing are printed as they arrive, so that only one of them is in memory.
fn show(
    answer: &Answer,
    first_line: impl Fn(&Answer) -> String,
    server: &mut Connection,
    out: &mut impl Write,
) -> Result<(), Failure> {
    out.write_all(first_line(answer).as_bytes()).map_err(Failure::Output)?;
    let count = if let Answer::Lines(count) = answer { *count } else { 0 };
    for _ in 0..count {
        if server.is_drained() {
            out.flush().map_err(Failure::Output)?; // the next line may take a while
        }
        let line = server.line()?;
        out.write_all(output::line(&line).as_bytes()).map_err(Failure::Output)?;
    }
    out.flush().map_err(Failure::Output)
}

/// Prints `text` at once, because a program at the other end of a pipe may be waiting for the answer.
fn print(out: &mut impl Write, text: &str) -> Result<(), Failure> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)
}

/// Why the client cannot continue. Each kind has an exit status.
#[derive(Debug)]
enum Failure {
    /// The server answered the command of the arguments with an error.
    Answer(ErrorCode),
    /// The arguments are not valid.
    Usage(String),
    /// The connection to the server of this name failed.
    Unreachable(String, io::Error),
    /// The TLS handshake with the server of this name failed.
    NoTls(String, io::Error),
    /// The server of this name gave no answer, or one that is not PEEP.
    NoAnswer(String, UnreadableAnswer),
    /// Standard input cannot be read.
    Input(io::Error),
    /// Standard output cannot be written.
    Output(io::Error),
    /// The server of this name refused the admin's name and password.
    Refused(String, ErrorCode),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Answer(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(..) | Self::NoTls(..) | Self::NoAnswer(..) | Self::Input(_) | Self::Output(_) => 3,
            Self::Refused(..) => 4,
        }
    }
}

/// The line for standard error. An error that answers the command of the arguments is printed bare, as an answer is.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(code) => write!(f, "{code}"),
            Self::Usage(text) => write!(f, "peepclient: {text}"),
            Self::Unreachable(server, error) => write!(f, "peepclient: cannot connect to {server}: {error}"),
            Self::NoTls(server, error) => {
                let reason = match error.kind() {
                    io::ErrorKind::TimedOut => "the server does not complete the TLS handshake".to_owned(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                        "the server closed the connection in the TLS handshake".to_owned()
                    }
                    _ => trust::explain(error).unwrap_or_else(|| format!("the connection failed: {error}")),
                };
                write!(f, "peepclient: {server}: {reason}")
            }
            Self::NoAnswer(server, error) => write!(f, "peepclient: {server}: {error}"),
            Self::Input(error) => write!(f, "peepclient: cannot read the commands: {error}"),
            Self::Output(error) => write!(f, "peepclient: cannot write the answer: {error}"),
            Self::Refused(server, code) => write!(f, "peepclient: {server} refused the login: {code}"),
        }
    }
}
