//! The whole command line: the task, the flags, and the configuration file that `--config` names.

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::error::{ContextKind, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::file::{ConfigFile, Setting};
use super::{Args, ConfigError, FileError, in_force};
use crate::auth::Scheme;
use crate::check_user::CheckUserArgs;
use crate::doctor::DoctorArgs;
use crate::import::ImportArgs;
use crate::manual::Page;
use crate::trial::TrialArgs;

/// What the operator asks the program to do.
#[derive(Debug)]
pub enum Task {
    /// Run the server.
    Serve(Box<Args>),
    /// Check whether the server would start.
    Check(Box<Args>),
    /// Ask a running server for its greeting.
    Health(Box<Args>),
    /// Ask the account sources about a user.
    CheckUser(Box<CheckUserArgs>),
    /// Examine maildrops.
    Doctor(Box<DoctorArgs>),
    /// Keep the unique-ids that other servers gave to messages.
    ImportIds(Box<ImportArgs>),
    /// Run a server with everything in a temporary directory.
    Test(Box<TrialArgs>),
    /// Print these settings, which are in the form of a configuration file.
    Show(String),
    /// Ask for a password and print its hash.
    Passwd(Scheme),
    /// Print a page of the manual, or the list of pages.
    Help(Option<Page>),
}

/// The command line for clap.
#[derive(Debug, Parser)]
#[command(name = "pop3d", version, about = super::ABOUT, max_term_width = 100, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    other: Option<OtherTask>,

    #[command(flatten)]
    args: Args,
}

/// The tasks besides running the server.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
enum OtherTask {
    /// Check whether a server with these flags would start, without starting it; the exit status is 1 if it would not
    Check {
        #[command(flatten)]
        args: Box<Args>,
    },

    /// Ask the running server with these flags for its POP3 greeting; the exit status is 1 if there is none
    Health {
        #[command(flatten)]
        args: Box<Args>,
    },

    /// Ask the account sources for a user as a login does, and print what each says, how long that takes, and where the user's
    /// maildrop is; the exit status is 1 if the user could not log in. The password is asked for, or is a line of standard input
    CheckUser {
        #[command(flatten)]
        args: Box<CheckUserArgs>,
    },

    /// Examine the mail of these users, or of all, before pop3d serves it: what cannot be read, names and sizes that are
    /// wrong, locks, quota; the exit status is 1 if something needs a hand. It changes nothing
    Doctor {
        #[command(flatten)]
        args: Box<DoctorArgs>,
    },

    /// Count the unique-ids that Dovecot and Courier gave to the messages of these users, or of all; with --write, keep them
    /// in a file in each maildrop, so that the lists of these servers are not needed any more
    ImportIds {
        #[command(flatten)]
        args: Box<ImportArgs>,
    },

    /// Run a server to try out mail programs: a temporary directory, free ports on this machine, a user with a new password, a
    /// new certificate; everything is removed at the end
    Test {
        #[command(flatten)]
        args: Box<TrialArgs>,
    },

    /// Print the settings of a server with these flags as a configuration file
    Show {
        /// Print a comment on what each setting does
        #[arg(long)]
        explain: bool,

        #[command(flatten)]
        args: Box<Args>,
    },

    /// Ask for a password, or read it from stdin, and print its hash for --users or --peep-admin
    Passwd {
        /// How to store the password
        #[arg(short, long, value_enum, ignore_case = true, default_value = "ARGON2ID")]
        scheme: Scheme,
    },

    /// Print a page of the manual, or the list of pages
    Help {
        /// The name of the page
        page: Option<Page>,
    },
}

/// Why the command line does not lead to a task.
#[derive(Debug)]
pub enum UsageError {
    /// It asks for help or for the version, which clap prints.
    Help(clap::Error),
    /// The command line is wrong.
    CommandLine(String),
    /// The configuration file is wrong.
    File(FileError),
    /// Flags, or keys of the file, contradict each other.
    Config(ConfigError),
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Help(error) => error.fmt(f),
            Self::CommandLine(what) => write!(f, "{what} (see --help)"),
            Self::File(error) => error.fmt(f),
            Self::Config(error) => write!(f, "{error} (see --help)"),
        }
    }
}

impl std::error::Error for UsageError {}

impl From<clap::Error> for UsageError {
    fn from(error: clap::Error) -> Self {
        if error.use_stderr() { Self::CommandLine(in_one_line(&error)) } else { Self::Help(error) }
    }
}

impl Task {
    /// Parses the command line of this process. The mail directory, users and ports are not checked yet.
    ///
    /// # Errors
    /// [`UsageError`]
    pub fn read() -> Result<Self, UsageError> {
        Self::parse(std::env::args_os().collect())
    }

    /// Parses these arguments, of which the first is the program's name.
    ///
    /// # Errors
    /// [`UsageError`]
    pub fn parse(typed: Vec<OsString>) -> Result<Self, UsageError> {
        let matches = matches(typed)?;
        let CommandLine { other, mut args } = CommandLine::from_arg_matches(&matches)?;
        match other {
            None => {
                args.check().map_err(UsageError::Config)?;
                args.in_force = in_force::of(&matches);
                Ok(Self::Serve(Box::new(args)))
            }
            Some(OtherTask::Check { mut args }) => {
                args.in_force = in_force::of(flags(&matches));
                Ok(Self::Check(args))
            }
            Some(OtherTask::Health { args }) => Ok(Self::Health(args)),
            Some(OtherTask::CheckUser { args }) => Ok(Self::CheckUser(args)),
            Some(OtherTask::Doctor { args }) => Ok(Self::Doctor(args)),
            Some(OtherTask::ImportIds { args }) => Ok(Self::ImportIds(args)),
            Some(OtherTask::Test { args }) => Ok(Self::Test(args)),
            Some(OtherTask::Show { explain, args }) => {
                args.check().map_err(UsageError::Config)?;
                Ok(Self::Show(super::show::settings(flags(&matches), explain)))
            }
            Some(OtherTask::Passwd { scheme }) => Ok(Self::Passwd(scheme)),
            Some(OtherTask::Help { page }) => Ok(Self::Help(page)),
        }
    }
}

/// Returns the whole command line of `pop3d`, for manual pages and completions.
#[must_use]
pub fn command() -> Command {
    CommandLine::command()
}

/// Returns the matches of the server's flags, which follow the name of the task if there is one.
fn flags(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, of_task)| of_task)
}

/// Parses the command line together with the configuration file that it names.
fn matches(typed: Vec<OsString>) -> Result<ArgMatches, UsageError> {
    let command = CommandLine::command();
    // Errors are ignored here, because missing flags may be in the file.
    let lenient = command.clone().ignore_errors(true).try_get_matches_from(&typed)?;
    let typed_flags = flags(&lenient);
    let path = match typed_flags.try_get_one::<PathBuf>("config") {
        Ok(Some(path)) => path.clone(),
        _ => return Ok(command.try_get_matches_from(typed)?),
    };
    let server_flags = Args::command();
    let file = ConfigFile::read(&path, &server_flags).map_err(UsageError::File)?;
    let from_file = file.settings.iter().filter(|setting| !is_overruled(setting, typed_flags, &server_flags));
    // The program's name and the name of the task come first.
    let words = 1 + usize::from(lenient.subcommand().is_some());
    let mut all: Vec<OsString> = typed.iter().take(words).cloned().collect();
    all.extend(from_file.flat_map(|setting| &setting.arguments).map(OsString::from));
    all.extend(typed.iter().skip(words).cloned());
    command.clone().try_get_matches_from(all).map_err(|error| {
        if !error.use_stderr() {
            return UsageError::Help(error);
        }
        // An error that also occurs without the file is reported as one of the command line.
        match command.try_get_matches_from(typed) {
            Err(same) if same.to_string() == error.to_string() => same.into(),
            _ => UsageError::File(file.fault(&error)),
        }
    })
}

/// Returns true if the command line overrides a setting of the file, because it has the same flag or one that conflicts
/// with it.
fn is_overruled(setting: &Setting, typed: &ArgMatches, command: &Command) -> bool {
    // The names of certificates belong to the certificates.
    if setting.name == "tls-names" && typed.value_source("tls_cert") == Some(ValueSource::CommandLine) {
        return true;
    }
    let is_this = |flag: &&Arg| flag.get_long() == Some(&setting.name);
    let is_rival = |flag: &Arg, other: &Arg| command.get_arg_conflicts_with(flag).contains(&other);
    let Some(flag) = command.get_arguments().find(is_this) else { return false };
    command
        .get_arguments()
        .filter(|other| typed.value_source(other.get_id().as_str()) == Some(ValueSource::CommandLine))
        .any(|other| other == flag || is_rival(flag, other) || is_rival(other, flag))
}

/// Describes an error of the command line in one line, without the passwords that the command line may contain.
fn in_one_line(error: &clap::Error) -> String {
    let said = |kind| error.get(kind).map(ToString::to_string).unwrap_or_default();
    let stray = match error.kind() {
        ErrorKind::UnknownArgument => said(ContextKind::InvalidArg),
        _ => said(ContextKind::InvalidSubcommand),
    };
    if !stray.is_empty() && !stray.starts_with('-') && CommandLine::command().find_subcommand(&stray).is_none() {
        // The word may be a password that was separated from its flag by a superfluous space, so it is not shown.
        return "there is an argument that belongs to no flag".to_owned();
    }
    without_passwords(error)
}

/// Returns the first sentence of an error in one line, without the value if the value contains a password.
pub(super) fn without_passwords(error: &clap::Error) -> String {
    let said = |kind| error.get(kind).map(ToString::to_string).unwrap_or_default();
    let mut text = error.to_string();
    // The tables of account sources may have passwords in them.
    if ["PASSWORD", "--accounts"].iter().any(|secret| said(ContextKind::InvalidArg).contains(secret)) {
        text = text.replace(&format!(" '{}'", said(ContextKind::InvalidValue)), "");
    }
    let first = text.split("\n\n").next().unwrap_or_default();
    first.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Does the same without the name of the flag, for a message that begins with the name of the key.
pub(super) fn of_a_value(error: &clap::Error) -> String {
    let text = without_passwords(error);
    match text.split_once(" for '--").and_then(|(_, rest)| rest.split_once("': ")) {
        Some((_, why)) => why.to_owned(),
        None => text,
    }
}
