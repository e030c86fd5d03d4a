//! Several servers at once: each command goes to all of them, and their answers are printed together.

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;

use super::connection::Connection;
use super::input::Piped;
use super::listing::{self, Style};
use super::phrases::{self, Request};
use super::prompt::Prompt;
use super::together::{self, Outcome};
use super::{Failure, Options, follow, help, print};
use crate::peep::{Answer, Command, ErrorCode, Form};
use crate::printable::printable;

/// The most lines of a server's answer. All answers are in memory before they are printed.
const MOST_LINES: u64 = 50_000;

/// Events of all servers that may wait to be printed.
const EVENTS: usize = 1000;

/// Servers with their names, in the order of the arguments. A server that cannot be used has the reason instead of a
/// connection.
struct Fleet(Vec<(String, Result<Connection, Failure>)>);

/// Does what the options ask for with all their servers. Returns false if a server answered a command with an error.
pub(super) fn run(options: &Options, style: Style, out: &mut impl Write) -> Result<bool, Failure> {
    if let Some(words) = options.one_command() {
        return match phrases::parse(&words).map_err(Failure::Usage)? {
            Request::Help => print(out, &help(style)).map(|()| true),
            Request::HelpAbout(typed) => print(out, &phrases::help_table(&typed)).map(|()| true),
            Request::Send(command) => again_and_again(&command, options, style, out),
        };
    }
    let mut fleet = Fleet::open(options);
    let names = fleet.0.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    print(out, &format!("Commands go to all of {names}\nSee available commands with 'help'\n"))?;
    match io::stdin().is_terminal() && style != Style::Tabs {
        true => {
            // The prompt asks the first server that answers for completions, over a connection of its own.
            let connect = |target| Connection::to(target, options).ok();
            let server = options.targets().iter().find_map(connect).map(RefCell::new);
            fleet.converse(Prompt::new(server.as_ref()).map_err(Failure::Input)?, options, style, out)
        }
        false => fleet.converse(Piped::new().map_err(Failure::Input)?, options, style, out),
    }
}

fn again_and_again(command: &Command, options: &Options, style: Style, out: &mut impl Write) -> Result<bool, Failure> {
    let mut fleet = Fleet::open(options);
    if command.form() == Form::Events {
        return fleet.follow(command, style, out).map(|()| true);
    }
    let mut left = options.repeat.unwrap_or(1);
    loop {
        let worst = fleet.carry_out(command, options, style, out)?;
        left = left.wrapping_sub(1); // 0 means without end
        if left == 0 {
            return if worst == 0 { Ok(true) } else { Err(Failure::Printed(worst)) };
        }
        thread::sleep(options.interval);
    }
}

impl Fleet {
    /// Connects to all servers at the same time.
    fn open(options: &Options) -> Self {
        let targets = options.targets();
        let connected = thread::scope(|scope| {
            let threads: Vec<_> =
                targets.iter().map(|target| scope.spawn(|| Connection::to(target, options))).collect();
            // A thread that panicked has already printed a message.
            threads.into_iter().map(|thread| thread.join().unwrap_or(Err(Failure::Printed(3)))).collect::<Vec<_>>()
        });
        Self(targets.iter().map(ToString::to_string).zip(connected).collect())
    }

    /// Sends a command to all servers and prints the answers. Returns the exit status that the worst of them has.
    fn carry_out(
        &mut self,
        command: &Command,
        options: &Options,
        style: Style,
        out: &mut impl Write,
    ) -> Result<u8, Failure> {
        let changes = !command.is_for_viewers() && !matches!(command, Command::TestLogin { .. });
        if changes {
            self.may_be_changed(command, options.all)?;
        }
        let mut answers = self.ask(command);
        if ends_what_is_there(command) {
            let found = answers.iter().any(|(_, answer)| matches!(answer, Ok((Answer::Value(_) | Answer::Done, _))));
            if found {
                answers.iter_mut().for_each(|(_, answer)| had_none(command, answer));
            }
        }
        let text = together::text(command, &answers, style).map_err(|line| {
            let what = printable(&line).into_owned();
            Failure::Usage(format!("a server's answer is not PEEP: {what}"))
        })?;
        print(out, &text)?;
        let refused = |(_, outcome): &(String, Outcome)| {
            outcome.as_ref().is_ok_and(|(answer, _)| super::is_refusal(command, answer))
        };
        Ok(self.report(&answers).max(u8::from(answers.iter().any(refused))))
    }

    /// Sends a command to all servers at the same time. A server that cannot be used any more is asked no further.
    fn ask(&mut self, command: &Command) -> Vec<(String, Outcome)> {
        thread::scope(|scope| {
            let ask = |(name, server): &mut (String, Result<Connection, Failure>)| {
                let asked = match server {
                    Ok(connection) => connection.ask(command, MOST_LINES),
                    Err(failure) => return (name.clone(), Err(failure.reason())),
                };
                let outcome = asked.map_err(|failure| {
                    let reason = failure.reason();
                    *server = Err(failure);
                    reason
                });
                (name.clone(), outcome)
            };
            let threads: Vec<_> = self.0.iter_mut().map(|server| scope.spawn(move || ask(server))).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        })
    }

    /// Prints a line for each server that answered with an error or did not answer. Returns the worst exit status.
    fn report(&self, answers: &[(String, Outcome)]) -> u8 {
        let mut worst = 0;
        for (_, server) in &self.0 {
            if let Err(failure) = server {
                let _ = writeln!(io::stderr(), "{failure}"); // the exit status still tells
                worst = worst.max(failure.exit_code());
            }
        }
        for (name, answer) in answers {
            if let Ok((Answer::Error(code), _)) = answer {
                let _ = writeln!(io::stderr(), "peepclient: {name}: {code}");
                worst = worst.max(1);
            }
        }
        worst
    }

    /// A change is made on all servers or on none: all have to be connected, and the admin has to confirm it.
    fn may_be_changed(&self, command: &Command, all: bool) -> Result<(), Failure> {
        let count = self.0.len();
        if self.0.iter().any(|(_, server)| server.is_err()) {
            let worst = self.report(&[]);
            let _ =
                writeln!(io::stderr(), "peepclient: nothing was changed, as not all of {count} servers are connected");
            return Err(Failure::Printed(worst));
        }
        if all {
            return Ok(());
        }
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            return Err(Failure::Usage(format!("this changes something on {count} servers: say so with --all")));
        }
        let names = self.0.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        let what = printable(&phrases::in_words(command)).into_owned();
        let _ = write!(io::stderr(), "{what} on {names}? [y/N] ");
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map_err(Failure::Input)?;
        if answer.trim().eq_ignore_ascii_case("y") { Ok(()) } else { Err(Failure::NotWanted) }
    }

    /// Prints the events of all servers, each behind its server's name.
    fn follow(&mut self, command: &Command, style: Style, out: &mut impl Write) -> Result<(), Failure> {
        let refused = self.ask(command);
        let worst = self.report(&refused);
        let (sender, events) = sync_channel(EVENTS);
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            for (name, server) in &mut self.0 {
                if let Ok(server) = server {
                    let (sender, is_over) = (sender.clone(), &is_over);
                    scope.spawn(move || send_events(server, name, &sender, is_over));
                }
            }
            drop(sender);
            let printed = print_events(&events, style, out);
            is_over.store(true, Ordering::Release);
            drop(events); // a thread may be waiting to send
            printed
        })?;
        Err(Failure::Printed(worst.max(3))) // events end only when the servers do
    }

    fn converse(
        &mut self,
        input: impl Iterator<Item = io::Result<String>>,
        options: &Options,
        style: Style,
        out: &mut impl Write,
    ) -> Result<bool, Failure> {
        let mut worst = 0;
        for line in input {
            let line = line.map_err(Failure::Input)?;
            if line.trim_ascii().is_empty() {
                continue;
            }
            let outcome = match phrases::parse(&phrases::words(&line)) {
                Ok(Request::Help) => print(out, &help(style)).map(|()| 0),
                Ok(Request::HelpAbout(typed)) => print(out, &phrases::help_table(&typed)).map(|()| 0),
                Ok(Request::Send(Command::Quit)) => break,
                Ok(Request::Send(command)) if command.form() == Form::Events => {
                    Err(Failure::Usage("to follow several servers, give follow as an argument".to_owned()))
                }
                Ok(Request::Send(command)) => self.carry_out(&command, options, style, out),
                Err(error) => Err(Failure::Usage(error)),
            };
            worst = worst.max(match outcome {
                Err(failure @ (Failure::Output(_) | Failure::Input(_))) => return Err(failure),
                Err(failure) => {
                    if !matches!(failure, Failure::Printed(_)) {
                        let _ = writeln!(io::stderr(), "{failure}");
                    }
                    failure.exit_code()
                }
                Ok(code) => code,
            });
        }
        if worst < 3 { Ok(worst == 0) } else { Err(Failure::Printed(worst)) }
    }
}

/// Returns true for a command that ends what a server has of its argument. If one server has had something, the command has
/// done what was asked, although others had nothing.
fn ends_what_is_there(command: &Command) -> bool {
    matches!(
        command,
        Command::Kick { .. } | Command::KickUser { .. } | Command::KickAddress { .. } | Command::Unban { .. }
    )
}

/// Turns the error of a server that had nothing to end into an answer.
fn had_none(command: &Command, outcome: &mut Outcome) {
    if let Ok((answer @ Answer::Error(ErrorCode::NoSuchConnection), _)) = outcome {
        *answer = if matches!(command, Command::Unban { .. }) { Answer::Done } else { Answer::Value("0".to_owned()) };
    }
}

/// An event of the server of this name, or the reason why there are no more.
type Told = (String, Result<String, Failure>);

/// Prints events until no server has more, or no program reads the output any more.
fn print_events(events: &Receiver<Told>, style: Style, out: &mut impl Write) -> Result<(), Failure> {
    loop {
        match events.recv_timeout(follow::LOOK) {
            Ok((name, Ok(line))) => print(out, &listing::event(Some(&name), &line, style))?,
            Ok((_, Err(failure))) => drop(writeln!(io::stderr(), "{failure}")),
            Err(RecvTimeoutError::Timeout) => follow::check_output()?,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// Sends the events of one server to the thread that prints, until one of the two ends.
fn send_events(server: &mut Connection, name: &str, sender: &SyncSender<Told>, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Acquire) {
        let event = match server.event(follow::LOOK) {
            Ok(None) => continue,
            Ok(Some(line)) => Ok(line),
            Err(failure) => Err(failure),
        };
        let is_last = event.is_err();
        if sender.send((name.to_owned(), event)).is_err() || is_last {
            return;
        }
    }
}
