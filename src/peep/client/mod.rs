//! `peepclient`: everything between its arguments and its exit code.
//!
//! A command is an English phrase (`phrases`). It comes from the arguments (one command, whose bare answer is made for
//! scripts), from a terminal (`prompt`), or from any other standard input, one command a line (`input`). `connection`
//! sends it and reads the answer within a deadline. `show` prints the answer without characters that would control the
//! terminal, in one of the forms of `listing`, `table`, `csv` and `json`. `wait`, `stat` and `top` send commands repeatedly. `fleet`
//! sends a command to several servers, and `together` combines their answers.
//!
//! [`Options`] are the arguments (`arguments`, `profile`, `target`, `span`) and [`run()`] is the program;
//! `bin/peepclient.rs` calls it.

mod arguments;
mod brief_report;
mod connection;
mod csv;
mod failure;
mod fleet;
mod follow;
mod input;
mod json;
mod listing;
mod options;
mod output;
mod phrases;
mod profile;
mod prompt;
mod show;
mod stat;
mod stream;
mod table;
mod target;
mod together;
mod top;
mod wait;

use std::cell::RefCell;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::ExitCode;
use std::thread;

use super::{Answer, Command, Form, TestedLogin};
use connection::Connection;
use failure::Failure;
use input::{Input, Piped};
use listing::{Listing, Style};
pub use options::Options;
use phrases::Request;
use prompt::Prompt;
use show::{Look, show};

/// Does what the options ask for. A failure is reported in one line on standard error.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    match carry_out(options) {
        Ok(all_well) => ExitCode::from(u8::from(!all_well)),
        // The program that reads the output has read enough, as in `| head -1`.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            let text = failure.to_string();
            if !text.is_empty() {
                let _ = writeln!(io::stderr(), "{text}"); // if standard error is closed, the exit status still tells
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Returns false if a command from a file or pipe failed. At a prompt the result is always true, because the person has
/// seen the errors.
fn carry_out(options: &Options) -> Result<bool, Failure> {
    let on_a_terminal = io::stdout().is_terminal();
    let style = match on_a_terminal {
        _ if options.json => Style::Json,
        _ if options.csv => Style::Csv,
        true => Style::Table,
        false => Style::Tabs,
    };
    let mut stdout = BufWriter::new(io::stdout());
    let targets = options.targets();
    if options.stat {
        stat::run(options, style, &mut stdout)?;
        return Ok(true);
    }
    if let Some(words) = options.one_command() {
        if words.first().is_some_and(|first| first.eq_ignore_ascii_case("wait")) {
            wait::run(&words[1..], || targets.iter().map(|target| Connection::to(target, options)).collect())?;
            return Ok(true);
        }
        if matches!(&words[..], [word] if word.eq_ignore_ascii_case("top")) {
            one_server(options)?;
            top::run(options)?;
            return Ok(true);
        }
        if targets.len() == 1 {
            once(&words, options, style, &mut stdout)?;
            return Ok(true);
        }
    }
    if targets.len() > 1 {
        return fleet::run(options, style, &mut stdout);
    }
    if options.repeat.is_some() {
        return Err(Failure::Usage("--repeat needs a command in the arguments".to_owned()));
    }
    let server = RefCell::new(Connection::open(options)?);
    let look = Look { style, labelled: true };
    if io::stdin().is_terminal() && on_a_terminal {
        if options.trust.insecure {
            print(
                &mut stdout,
                "Warning: the server's certificate is not checked (--insecure), so this may be another server\n",
            )?;
        }
        converse(Prompt::new(Some(&server)).map_err(Failure::Input)?, &server, look, &mut stdout)?;
        return Ok(true);
    }
    converse(Piped::new().map_err(Failure::Input)?, &server, look, &mut stdout)
}

/// Checks that the options name one server.
fn one_server(options: &Options) -> Result<(), Failure> {
    match options.targets().len() {
        1 => Ok(()),
        count => Err(Failure::Usage(format!("this command is for one server, and {count} are named"))),
    }
}

/// Sends one command, perhaps again and again, and prints its answers bare. Connects only if the command is a valid one.
fn once(words: &[&str], options: &Options, style: Style, out: &mut impl Write) -> Result<(), Failure> {
    let command = match phrases::parse(words).map_err(Failure::Usage)? {
        Request::Help if style == Style::Json => return print(out, &help_as_json()),
        Request::Help => return print(out, &phrases::help_table("")),
        Request::HelpAbout(typed) => return print(out, &phrases::help_table(&typed)),
        Request::Send(command) => command,
    };
    let mut server = Connection::open(options)?;
    let look = Look { style, labelled: false };
    let mut left = options.repeat.unwrap_or(1);
    loop {
        let answer = server.call(&command)?;
        if let Some(code) = show(&command, &answer, &mut server, look, out)? {
            return Err(Failure::Answer(code));
        }
        if is_refusal(&command, &answer) {
            return Err(Failure::Printed(1));
        }
        if command.form() == Form::Events {
            return follow::follow(&mut server, &mut Listing::new(&command, style), out, || false);
        }
        left = left.wrapping_sub(1); // 0 means without end
        if left == 0 || command == Command::Quit {
            return Ok(());
        }
        thread::sleep(options.interval);
    }
}

/// Returns true if the answer says that a login would be refused.
fn is_refusal(command: &Command, answer: &Answer) -> bool {
    matches!((command, answer), (Command::TestLogin { .. }, Answer::Value(value)) if TestedLogin::read(value).reason != "ok")
}

/// Sends the commands of `input` until it ends or one of them is `quit`. Returns false if any command was answered with
/// an error.
fn converse(
    mut input: impl Input,
    server: &RefCell<Connection>,
    look: Look,
    out: &mut impl Write,
) -> Result<bool, Failure> {
    if look.style != Style::Json {
        print(out, "Connected successfully to server through PEEP!\nSee available commands with 'help'\n")?;
    }
    let mut all_well = true;
    while let Some(line) = input.next() {
        let request = match line {
            Ok(line) if line.trim_ascii().is_empty() => continue,
            Ok(line) => phrases::parse(&phrases::words(&line)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err("Invalid text, not UTF-8".to_owned()),
            Err(error) => return Err(Failure::Input(error)),
        };
        match request {
            Ok(Request::Help) => print(out, &help(look.style))?,
            Ok(Request::HelpAbout(typed)) => print(out, &phrases::help_table(&typed))?,
            Ok(Request::Send(command)) => {
                let mut server = server.borrow_mut();
                let answer = server.call(&command)?;
                all_well &= show(&command, &answer, &mut server, look, out)?.is_none();
                all_well &= !is_refusal(&command, &answer);
                if command.form() == Form::Events && answer == Answer::Done {
                    let mut listing = Listing::new(&command, look.style);
                    input.events_begin();
                    let followed = follow::follow(&mut server, &mut listing, out, || input.ends_events());
                    input.events_end();
                    followed?;
                }
                if command == Command::Quit {
                    break;
                }
            }
            Err(error) => {
                all_well = false;
                let text = match look.style {
                    Style::Json => json::object([("error", error.into())]) + "\n",
                    _ => output::error(&error),
                };
                print(out, &text)?;
            }
        }
    }
    Ok(all_well)
}

/// The list of all commands: one command on each line for a person, the report's single line for a program.
fn help(style: Style) -> String {
    match style {
        Style::Table => phrases::help_table(""),
        Style::Tabs | Style::Csv => phrases::help_line(),
        Style::Json => help_as_json(),
    }
}

fn help_as_json() -> String {
    let phrase = |(text, meaning): (&str, &str)| json::object([("command", text.into()), ("meaning", meaning.into())]);
    format!("[{}]\n", phrases::all().map(phrase).collect::<Vec<_>>().join(",\n "))
}

/// Prints `text` at once, because a program at the other end of a pipe may be waiting for the answer.
fn print(out: &mut impl Write, text: &str) -> Result<(), Failure> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)
}
