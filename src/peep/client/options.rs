//! The arguments of `peepclient`. Long options begin with one dash or two. The first other word begins a command.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, Parser, value_parser};

use super::Failure;
use super::arguments::with_profile;
use super::phrases::{self, ARGUMENT_RULE};
use super::target::{Address, Target};
use crate::auth::Hidden;
use crate::peep::Command;
use crate::peep::is_argument;
use crate::span::span;
use crate::trust::{BY_TLS, Trust};

/// The environment variable for the password. Unlike arguments, `ps` does not show it to other users.
const PASSWORD_VARIABLE: &str = "PEEP_PASSWORD";

/// The most octets that are read of a password file. It is more than any password has, and it protects from files
/// without end, such as `/dev/zero`.
const PASSWORD_FILE_LIMIT: u64 = 1024;

/// The arguments of which one asks for answers without labels.
const BARE: &str = "bare";

/// Administers a pop3d server: a prompt on a terminal, commands from standard input, or one command given here.
#[derive(Clone, Parser)]
#[command(name = "peepclient", version, after_help = MORE_HELP)]
pub struct Options {
    /// The server's name or address, optionally with a port; several servers are separated by commas.
    #[arg(long, value_name = "HOST[:PORT],…", default_value = "localhost", value_delimiter = ',', action = ArgAction::Set)]
    address: Vec<Address>,

    /// The server's UNIX socket, instead of an address. Every user who may open it is admin, without a password.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["address", "port", BY_TLS])]
    socket: Option<PathBuf>,

    /// The server's PEEP port.
    #[arg(long, value_name = "PORT", default_value_t = 2110, value_parser = value_parser!(u16).range(1..))]
    port: u16,

    /// The admin's name.
    #[arg(long, value_name = "NAME", default_value = "root")]
    user: String,

    /// The admin's password [default: from --pass-file, or else from the variable PEEP_PASSWORD, or else root].
    #[arg(long, value_name = "PASSWORD")]
    pass: Option<String>,

    /// A file whose first line is the password.
    #[arg(long, value_name = "FILE")]
    pass_file: Option<PathBuf>,

    /// How long to wait for the connection, and for each answer as a whole (in a listing: for each 1000 lines).
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = value_parser!(u64).range(1..=86400))]
    timeout: u64,

    /// Take flags from this profile in ~/.config/pop3d/peepclient.toml.
    #[arg(long, short = '@', value_name = "NAME")]
    #[allow(dead_code)] // `arguments` reads it, before clap does
    profile: Option<String>,

    /// Use TLS, which the server has to offer (pop3d --peep-tls).
    #[arg(long, group = BY_TLS)]
    pub(super) tls: bool,

    #[command(flatten)]
    pub(super) trust: Trust,

    /// Print answers as JSON, one object or array for each.
    #[arg(long)]
    pub(super) json: bool,

    /// Print the lines of the command's answer as CSV, with a line of headings.
    #[arg(long, conflicts_with = "json", requires = BARE)]
    pub(super) csv: bool,

    /// Send the command N times (0: until interrupted).
    #[arg(long, value_name = "N")]
    pub(super) repeat: Option<u64>,

    /// The time between two commands of --repeat, and between two lines of --stat.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = span)]
    pub(super) interval: Duration,

    /// Print a line with rates at each --interval.
    #[arg(long, group = BARE)]
    pub(super) stat: bool,

    /// With several servers: send commands that change something to all of them without asking.
    #[arg(long)]
    pub(super) all: bool,

    /// One command, as listed by `help`. Its answer is printed bare.
    #[arg(value_name = "COMMAND", group = BARE)]
    words: Vec<String>,
}

const MORE_HELP: &str = "Commands beside those of `help`: wait <what> <condition>, top.
Options may begin with one dash too, and may follow a command: -address HOST users --json.
Exit status: 0 success, 1 a command was answered with an error (wait: not in time), 2 invalid arguments,
3 the connection (or TLS) failed or was lost, 4 the login was refused.";

impl Options {
    /// Reads the program's arguments, its own name first.
    ///
    /// # Errors
    /// The message that clap has made: an error, or the help that the arguments ask for.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let arguments = with_profile(arguments).map_err(|fault| Self::command().error(ErrorKind::Io, fault))?;
        Self::try_parse_from(arguments)
    }

    /// The words of the command in the arguments, if there is one. All words may be quoted as one argument.
    pub(super) fn one_command(&self) -> Option<Vec<&str>> {
        match &self.words[..] {
            [] => None,
            [line] => Some(phrases::words(line)),
            words => Some(words.iter().map(String::as_str).collect()),
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// The servers to connect to. There is at least one.
    pub(super) fn targets(&self) -> Vec<Target> {
        match &self.socket {
            Some(path) => vec![Target::Unix(path.clone())],
            None => self.address.iter().map(|address| address.with_default_port(self.port)).collect(),
        }
    }

    /// The command that logs in. A UNIX socket needs no password, so none is read or sent.
    pub(super) fn login(&self) -> Result<Command, Failure> {
        let name = self.user.clone();
        let password = match self.socket {
            Some(_) => "-".to_owned(),
            None => self.password(env::var_os(PASSWORD_VARIABLE))?,
        };
        for (what, text) in [("name", &name), ("password", &password)] {
            if !is_argument(text) {
                return Err(Failure::Usage(format!("Invalid {what}, {ARGUMENT_RULE}")));
            }
        }
        Ok(Command::Authenticate { name, password: Hidden(password) })
    }

    fn password(&self, variable: Option<OsString>) -> Result<String, Failure> {
        if let Some(password) = &self.pass {
            return Ok(password.clone());
        }
        if let Some(file) = &self.pass_file {
            return first_line(file)
                .map_err(|error| Failure::Usage(format!("cannot read the password from {}: {error}", file.display())));
        }
        let password = variable.unwrap_or_else(|| "root".into());
        password.into_string().map_err(|_| Failure::Usage(format!("{PASSWORD_VARIABLE} is not UTF-8")))
    }
}

fn first_line(file: &Path) -> io::Result<String> {
    let start = File::open(file)?.take(PASSWORD_FILE_LIMIT);
    BufReader::new(start).lines().next().unwrap_or(Ok(String::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Options, clap::Error> {
        // Without the profiles of the person who runs the tests.
        let arguments = [&["peepclient"], arguments].concat().into_iter().map(OsString::from);
        Options::try_parse_from(super::super::arguments::with_two_dashes(arguments))
    }

    fn accepted(arguments: &[&str]) -> Options {
        read(arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    }

    #[test]
    fn clap_finds_no_fault_in_the_declaration() {
        Options::command().debug_assert();
    }

    #[test]
    fn the_defaults_are_the_reports() {
        let options = accepted(&[]);
        assert_eq!((options.targets()[0].to_string().as_str(), &*options.user), ("localhost:2110", "root"));
        assert_eq!(options.password(None).unwrap(), "root");
        assert_eq!(options.one_command(), None);
    }

    #[test]
    fn long_options_take_one_dash_or_two_and_their_value_either_way() {
        for arguments in [
            &["-address", "::1", "-port", "7", "-user", "a", "-pass", "b", "-pass-file", "f"][..],
            &["--address", "::1", "--port", "7", "--user", "a", "--pass", "b", "--pass-file", "f"],
            &["-address=::1", "-port=7", "-user=a", "-pass=b", "-pass-file=f"],
            &["--address=::1", "--port=7", "--user=a", "--pass=b", "--pass-file=f"],
        ] {
            let options = accepted(arguments);
            assert_eq!((options.targets()[0].to_string().as_str(), &*options.user), ("[::1]:7", "a"));
            assert_eq!((options.pass.as_deref(), options.pass_file.as_deref()), (Some("b"), Some(Path::new("f"))));
        }
    }

    #[test]
    fn servers_are_separated_by_commas_and_a_socket_is_one_server() {
        let targets =
            |arguments: &[&str]| accepted(arguments).targets().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(targets(&["-address", "a,b:7,[::1]:8", "-port", "9"]), ["a:9", "b:7", "[::1]:8"]);
        assert_eq!(targets(&["-socket", "/run/peep"]), ["/run/peep"]);
        let login = accepted(&["-socket", "/run/peep", "-pass-file", "/nowhere"]).login().unwrap();
        assert_eq!(login.to_string(), "a root -");
    }

    #[test]
    fn a_profile_is_named_with_an_at_sign() {
        let rewritten = |arguments: &[&str]| {
            let all = [&["peepclient"], arguments].concat();
            super::super::arguments::with_two_dashes(all.into_iter().map(OsString::from))
        };
        assert_eq!(rewritten(&["-@", "prod", "users"]), ["peepclient", "-@=prod", "--", "users"]);
        assert_eq!(rewritten(&["-@prod"]), rewritten(&["-@", "prod"]));
        assert_eq!(rewritten(&["-@=prod"]), rewritten(&["-@", "prod"]));
        assert_eq!(rewritten(&["-profile", "prod"]), ["peepclient", "--profile=prod"]);
    }

    #[test]
    fn a_value_may_look_like_an_option() {
        for value in ["-x", "-user", "--user", "--", "-", "-user=z", "--help", "", "=", "a=b", "-h"] {
            assert_eq!(accepted(&["-pass", value]).pass.as_deref(), Some(value));
            assert_eq!(accepted(&["--pass", value, "-port", "7"]).port, 7);
            assert_eq!(accepted(&[&format!("-pass={value}")]).pass.as_deref(), Some(value));
        }
    }

    #[test]
    fn the_first_other_word_begins_the_command() {
        let command = |arguments: &[&str]| accepted(arguments).words.join(" ");
        assert_eq!(command(&["-port", "7", "retrieved", "bytes"]), "retrieved bytes");
        assert_eq!(command(&["set", "timeout", "-1"]), "set timeout -1");
        assert_eq!(command(&["add", "user", "-user", "--help"]), "add user -user --help");
        assert_eq!(command(&["--", "-x", "--"]), "-x --");
        assert_eq!(command(&["report", "--days", "ana", "--csv"]), "report --days ana");
        assert!(accepted(&["report", "--csv"]).csv && accepted(&["report", "ana", "--json"]).json);
        assert_eq!(command(&["delete", "user", "--csv"]), "delete user --csv");
        let options = accepted(&["sessions", "--json", "-interval", "1s"]);
        assert!(options.json && options.interval == Duration::from_secs(1) && options.words == ["sessions"]);
        assert_eq!(accepted(&["top", "--interval", "1s"]).interval, Duration::from_secs(1));
        assert_eq!(command(&["add", "user", "bob", "--json"]), "add user bob --json");
        assert_eq!(command(&["expire", "--dry-run", "--json"]), "expire --dry-run");
        assert!(read(&["report", "--csv", "--json"]).is_err() && accepted(&["--csv", "--stat"]).csv);
        assert_eq!(command(&["-", "x"]), "- x");
        assert_eq!(command(&["", "x"]), " x");
    }

    #[test]
    fn a_command_may_be_quoted_into_one_word() {
        assert_eq!(accepted(&["retrieved  bytes"]).one_command(), Some(vec!["retrieved", "bytes"]));
        assert_eq!(accepted(&["set", "maildir", "a b"]).one_command(), Some(vec!["set", "maildir", "a b"]));
        assert_eq!(accepted(&[""]).one_command(), Some(vec![]));
    }

    #[test]
    fn mistakes_are_usage_errors() {
        for arguments in [
            &["-nonsense"][..],
            &["--nonsense", "x"],
            &["-p", "7"],
            &["-pass"],
            &["-port", "0"],
            &["-port", "65536"],
            &["-port", "x"],
            &["-timeout", "0"],
            &["-user", "a", "-user", "b"],
            &["-socket", "s", "-port", "7"],
            &["-socket", "s", "-tls"],
            &["-interval", "soon"],
            &["-stat", "users"],
            &["-csv"],
            &["---user", "a"],
        ] {
            assert_eq!(read(arguments).err().map(|error| error.exit_code()), Some(2), "{arguments:?}");
        }
    }

    #[test]
    fn help_and_version_are_no_errors() {
        for argument in ["-help", "--help", "-h", "-version", "--version", "-V"] {
            assert_eq!(read(&[argument]).err().map(|error| error.exit_code()), Some(0), "{argument}");
        }
    }

    #[test]
    fn the_password_comes_from_the_most_explicit_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "from file\r\nsecond line\n").unwrap();
        let file = file.to_str().unwrap();
        let password = |arguments: &[&str], variable: Option<&str>| {
            accepted(arguments).password(variable.map(OsString::from)).map_err(|failure| failure.to_string())
        };
        assert_eq!(password(&["-pass", "given", "-pass-file", file], Some("variable")).as_deref(), Ok("given"));
        assert_eq!(password(&["-pass-file", file], Some("variable")).as_deref(), Ok("from file"));
        assert_eq!(password(&[], Some("variable")).as_deref(), Ok("variable"));
        let error = password(&["-pass-file", "/nowhere/at/all"], None).unwrap_err();
        assert!(error.contains("/nowhere/at/all: No such file"), "{error}");
    }

    #[test]
    fn a_login_that_the_protocol_cannot_carry_is_a_usage_error() {
        for arguments in [["-pass", "a b"], ["-pass", ""], ["-user", "a\nb"], ["-user", &"x".repeat(129)]] {
            assert!(matches!(accepted(&arguments).login(), Err(Failure::Usage(_))), "{arguments:?}");
        }
    }
}
