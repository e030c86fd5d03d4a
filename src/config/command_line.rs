//! The whole command line: the task, the flags, and the configuration file that `--config` names.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::error::{ContextKind, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::file::{ConfigFile, Setting};
use super::{Args, ConfigError, FileError};
use crate::auth::Scheme;
use crate::manual::Page;

/// What the operator asks the program to do.
#[derive(Debug)]
pub enum Task {
    /// Run the server.
    Serve(Box<Args>),
    /// Check whether the server would start.
    Check(Box<Args>),
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
        let CommandLine { other, args } = CommandLine::from_arg_matches(&matches)?;
        match other {
            None => {
                args.check().map_err(UsageError::Config)?;
                Ok(Self::Serve(Box::new(args)))
            }
            Some(OtherTask::Check { args }) => Ok(Self::Check(args)),
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
    if said(ContextKind::InvalidArg).contains("PASSWORD") {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn parse(arguments: &[&str]) -> Result<Task, UsageError> {
        Task::parse([&["pop3d"], arguments].concat().into_iter().map(OsString::from).collect())
    }

    /// Parses these arguments together with a configuration file with this text.
    fn parse_with(file: &str, arguments: &[&str]) -> Result<String, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pop3d.toml");
        fs::write(&path, file).unwrap();
        let path = path.to_str().unwrap();
        match parse(&[&["--config", path], arguments].concat()) {
            Ok(Task::Serve(args)) => Ok(format!("{args:?}").replace(&format!("Some({path:?})"), "None")),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string().replace(path, "FILE")),
        }
    }

    /// Parses these arguments alone.
    fn told(arguments: &[&str]) -> String {
        match parse(arguments).unwrap() {
            Task::Serve(args) => format!("{args:?}"),
            other => panic!("{other:?}"),
        }
    }

    const TWO_CERTIFICATES: [&str; 12] = [
        "--tls-cert",
        "c",
        "--tls-key",
        "k",
        "--tls-names",
        "a.example,*.b.example",
        "--tls-cert",
        "d",
        "--tls-key",
        "l",
        "--tls-names",
        "",
    ];

    #[test]
    fn each_flag_is_a_key() {
        let samples = [
            ("user = ['ana:x', 'bob:y']", &["-u", "ana:x", "-u", "bob:y"][..]),
            ("user = 'ana:x'", &["-u", "ana:x"]),
            ("mailbox = '/var/mail'", &["-m", "/var/mail"]),
            ("maildir = '/var/mail'", &["-m", "/var/mail"]),
            ("peep-admin = 'boss:x'", &["-a", "boss:x"]),
            ("[peep]\nadmin-file = '/etc/admin'", &["--peep-admin-file", "/etc/admin"]),
            ("pop3-port = 110\npeep-port = 0", &["-p", "110", "-P", "0"]),
            ("[transform]\ncommand = 'tr a b'\ntimeout = 5", &["-t", "tr a b", "--transform-timeout", "5"]),
            ("transform = 'cat'\ntransform-path = ['/opt']", &["-t", "cat", "--transform-path", "/opt"]),
            ("timeout = 0\nmax-connections = 1", &["-T", "0", "-c", "1"]),
            ("address = ['127.0.0.1', '::1']", &["--address", "127.0.0.1", "--address", "::1"]),
            ("[peep]\naddress = ['127.0.0.1']", &["--peep-address", "127.0.0.1"]),
            ("verbose = 2", &["-vv"]),
            ("quiet = 1", &["-q"]),
            ("log-file = 'log'", &["--log-file", "log"]),
            (
                "tls = { cert = 'c', key = 'k' }\npop3s-port = 995",
                &["--tls-cert", "c", "--tls-key", "k", "--pop3s-port", "995"],
            ),
            (
                "[[tls]]\ncert = 'c'\nkey = 'k'\nnames = ['a.example', '*.b.example']\n[[tls]]\ncert = 'd'\nkey = 'l'",
                &TWO_CERTIFICATES,
            ),
            (
                "tls-cert = ['c', 'd']\ntls-key = ['k', 'l']\ntls-names = ['a.example,*.b.example', '']",
                &TWO_CERTIFICATES,
            ),
            (
                "[tls]\ncert = 'c'\nkey = 'k'\nnames = ['a.example', 'b.example']",
                &["--tls-cert", "c", "--tls-key", "k", "--tls-names", "a.example,b.example"],
            ),
            (
                "state = 's'\ntls-self-signed = true\npeep-tls = true",
                &["--state", "s", "--tls-self-signed", "--peep-tls"],
            ),
            ("state = 's'\ntls-self-signed = 'mail.example'", &["--state", "s", "--tls-self-signed=mail.example"]),
            ("tls-self-signed = false\nallow-cleartext = false", &[]),
            ("allow-cleartext = true", &["--allow-cleartext"]),
            ("per-address = 3\ntrusted = ['192.0.2.0/24']", &["--per-address", "3", "--trusted", "192.0.2.0/24"]),
            ("limit-loopback = true\nmin-rate = '9:1'", &["--limit-loopback", "--min-rate", "9:1"]),
            (
                "lower-case-names = true\ndefault-domain = 'example.org'",
                &["--lower-case-names", "--default-domain", "example.org"],
            ),
            ("stats-log = 'f:5'\nusers = 'u'", &["--stats-log", "f:5", "--users", "u"]),
            ("run-as = 'mail'\nallow-dir = ['/srv']", &["--run-as", "mail", "--allow-dir", "/srv"]),
            (
                "transform = 'cat'\ntransform-network = true\ntransform-limit = ['cpu=1', 'files=9']",
                &["-t", "cat", "--transform-network", "--transform-limit", "cpu=1,files=9"],
            ),
            ("no-landlock = true", &["--no-landlock"]),
            ("confine = true", &["--confine"]),
            ("layout = 'flat'", &["--layout", "flat"]),
        ];
        let mut seen = String::new();
        for (file, arguments) in samples {
            assert_eq!(parse_with(file, &[]).as_deref(), Ok(told(arguments).as_str()), "{file}");
            seen += &file
                .replace("[transform]\n", "transform-")
                .replace("[peep]\n", "peep-")
                .replace("timeout", " timeout transform-timeout");
        }
        let seen = seen.replace("tls = { cert = 'c', key", "tls-cert tls-key");
        for flag in super::super::file::keys(&Args::command()) {
            let name = flag.get_long().unwrap();
            assert!(seen.contains(name), "there is no sample of {name}");
        }
    }

    #[test]
    fn the_command_line_wins() {
        let wins = |file: &str, arguments: &[&str]| {
            assert_eq!(parse_with(file, arguments).as_deref(), Ok(told(arguments).as_str()), "{file}");
        };
        wins("pop3-port = 110", &["-p", "0"]);
        wins("user = ['ana:x', 'bob:y']", &["-u", "ana:z"]);
        wins("verbose = 2", &["-q"]);
        wins("quiet = 2", &["-v"]);
        wins("tls-cert = 'c'\ntls-key = 'k'", &["--tls-self-signed", "--state", "s"]);
        wins("[[tls]]\ncert = 'c'\nkey = 'k'\nnames = ['a', 'b']", &["--tls-cert", "d", "--tls-key", "l"]);
    }

    #[test]
    fn what_the_command_line_lacks_may_be_in_the_file() {
        let with_both = parse_with("[tls]\ncert = 'c'\nkey = 'k'", &["--pop3s-port", "0"]);
        assert_eq!(with_both.unwrap(), told(&["--tls-cert", "c", "--tls-key", "k", "--pop3s-port", "0"]));
    }

    #[test]
    fn what_is_wrong_in_the_file_has_its_line_and_column() {
        for (file, expected) in [
            (
                "colour = 1",
                "FILE:1:1: there is no setting \"colour\": see pop3d --help for the flags; keys have the same names",
            ),
            ("\nmax-connection = 1", "FILE:2:1: there is no setting \"max-connection\"; there is \"max-connections\""),
            ("config = 'x'", "FILE:1:1: there is no setting \"config\"; there is \"confine\""),
            ("max-connections = 999", "FILE:1:19: max-connections: 999 is not in 1..=998"),
            ("pop3-port = '1110'", "FILE:1:13: pop3-port: it has to be a number, not a string"),
            ("mailbox = 5", "FILE:1:11: mailbox: it has to be a string, not a number"),
            ("peep-tls = 'yes'", "FILE:1:12: peep-tls: it has to be true or false, not a string"),
            ("timeout = 1.5", "FILE:1:11: timeout: it has to be a number, not a number with a point"),
            ("address = ['127.0.0.1', 'x']", "FILE:1:25: address: invalid IP address syntax"),
            ("user = ['ana:']", "FILE:1:9: user: the password is empty"),
            ("timeout = 1\ntimeout = 2", "FILE:2:1: duplicate key"),
            ("mailbox = '.'\nmaildir = '.'", "FILE:2:1: maildir is set twice, under two of its names"),
            ("\ntls-cert = 'c'", "FILE:2:1: the following required arguments were not provided: --tls-key <FILE>"),
            ("[[tls]]\ncert = 'c'", "FILE:1:1: the certificate has no \"key\""),
            (
                "[[tls]]\ncert = 'c'\nkey = 'k'\nname = 'n'",
                "FILE:4:1: a certificate has no \"name\"; it has cert, key, names",
            ),
            (
                "tls = [{ cert = 'c', key = 'k', names = ['a b'] }]",
                "FILE:1:41: tls-names: \"a b\" is not the name of a host, nor * and the names below one",
            ),
            (
                "timeout = 'a'\npop3-ports = 1",
                "FILE:1:11: timeout: it has to be a number, not a string\nFILE:2:1: there is no setting \"pop3-ports\"; there is \"pop3-port\"",
            ),
        ] {
            assert_eq!(parse_with(file, &[]).unwrap_err(), expected, "{file}");
        }
    }

    #[test]
    fn no_password_is_told() {
        for file in
            ["user = ['ana:hunter2\n']", "user = ['a/b:hunter2']", "user = 'hunter2'", "peep-admin = 'a:hunter2 2'"]
        {
            let error = parse_with(file, &[]).unwrap_err();
            assert!(error.starts_with("FILE:1:") && !error.contains("hunter2"), "{file}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_in_one_line_without_passwords() {
        let line = |arguments: &[&str]| parse(arguments).unwrap_err().to_string();
        for (arguments, expected) in [
            (&["hunter2"][..], "there is an argument that belongs to no flag (see --help)"),
            (&["-u", "ana:x", "hunter2"], "there is an argument that belongs to no flag (see --help)"),
            (&["--", "hunter2"], "there is an argument that belongs to no flag (see --help)"),
            (&["passwd", "hunter2"], "there is an argument that belongs to no flag (see --help)"),
            (&["-u", "ana:", "hunter2"], "there is an argument that belongs to no flag (see --help)"),
            (&["-u", "ana:"], "invalid value for '--user <NAME:PASSWORD>': the password is empty (see --help)"),
            (
                &["-u", "ana:hunter2", "passwd"],
                "the subcommand 'passwd' cannot be used with '--user <NAME:PASSWORD>' (see --help)",
            ),
            (&["--unknown", "hunter2"], "unexpected argument '--unknown' found (see --help)"),
        ] {
            assert_eq!(line(arguments), expected, "{arguments:?}");
        }
        let text = line(&["-u", "a/b:hunter2\n\nhunter2 hunter2"]);
        assert!(!text.contains("hunter2") && text.contains("--user"), "{text}");
    }

    #[test]
    fn the_settings_shown_are_the_settings_meant() {
        let show = |file: &str, arguments: &[&str]| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("pop3d.toml");
            fs::write(&path, file).unwrap();
            match parse(&[&["show", "--config", path.to_str().unwrap()], arguments].concat()).unwrap() {
                Task::Show(text) => text,
                other => panic!("{other:?}"),
            }
        };
        let file =
            "timeout = 5\naddress = ['127.0.0.1', '::1']\nmin-rate = \"9:1\"\nverbose = 1\nallow-cleartext = true";
        let shown = show(file, &["-u", "ana:hunter2", "-m", "/a \"b\""]);
        assert!(!shown.contains("hunter2") && shown.contains("# user = [\"ana:(hidden)\"]"), "{shown}");
        assert!(shown.contains("# max-connections = 998\n") && shown.contains("\ntimeout = 5\n"), "{shown}");
        let told = told(&[
            "-T",
            "5",
            "--address",
            "127.0.0.1",
            "--address",
            "::1",
            "--min-rate",
            "9:1",
            "-v",
            "--allow-cleartext",
            "-m",
            "/a \"b\"",
        ]);
        assert_eq!(parse_with(&shown, &[]).unwrap(), told);
    }
}
