//! Configuration: from what the operator typed to what the server needs.
//!
//! - [`Task`] is what the program was asked to do: serve, or print settings, a check, a password's hash, the manual.
//! - [`Args`] has every flag with its default and its limits, declared once with clap. The other files of this module
//!   declare the flags of one topic each. A configuration file (`file`) is turned into the flags that it stands for.
//! - [`Config`] is the result: checked, with files opened. [`ConfigError`] and [`UsageError`] say what is wrong.
//!
//! `bin/pop3d.rs` reads a [`Task`] and passes the [`Config`] to [`crate::server`].

mod accounts;
mod admin;
mod check;
mod command_line;
mod confinement;
mod file;
mod limits;
mod show;
mod state;
mod tls;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgAction, Parser};
use log::LevelFilter;
use rustix::process::geteuid;

use crate::auth::{Credentials, Hidden, UserName, Users};
use crate::confine::Confinement;
use crate::connections::{Connections, MAX_CONNECTIONS, MAX_CONNECTIONS_RANGE};
use crate::events::Events;
use crate::guard::{Guard, Limits, MinRate};
use crate::maildrop::{LayoutChoice, Layouts, MailRoot};
use crate::net::{Certificate, CertificateError, ListenAddress};
use crate::shared::{Settings, Shared, TIMEOUT_RANGE};
use crate::state::StateDir;
use crate::stats::{Stats, StatsLog};
use crate::transform::{Limit, Transform};
use accounts::AccountsArgs;
use admin::AdminArgs;
pub use check::check;
pub use command_line::{Task, UsageError, command};
use confinement::{ConfinementArgs, Used};
pub use file::{Fault, FileError, is_number, keys};
use limits::LimitArgs;
use state::StateArgs;
use tls::TlsArgs;

/// What the program is, for its help.
const ABOUT: &str = "Serves directories of mail over POP3";

/// The server's flags.
#[derive(Debug, Parser)]
#[command(name = "pop3d", about = ABOUT)]
pub struct Args {
    /// Read settings from this file, in TOML: its keys have the names of the flags, which win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// A user who may log in; can be given many times. The password may contain ':'
    #[arg(short, long = "user", value_name = "NAME:PASSWORD")]
    users: Vec<Account>,

    /// The directory that holds a directory of mail for each user
    #[arg(short, long, visible_alias = "maildir", value_name = "DIR", default_value = ".")]
    mailbox: PathBuf,

    /// How users' directories hold mail
    #[arg(long, value_enum, default_value = "auto")]
    layout: LayoutChoice,

    #[command(flatten)]
    admin: AdminArgs,

    /// The port for POP3 (0: any free one)
    #[arg(short = 'p', long, value_name = "PORT", default_value_t = 1110)]
    pop3_port: u16,

    /// The port for PEEP, the admin protocol (0: any free one)
    #[arg(short = 'P', long, value_name = "PORT", default_value_t = 2110)]
    peep_port: u16,

    /// A program that every message goes through on its way to the client: reads it on stdin, writes it on stdout
    #[arg(short, long, value_name = "COMMAND")]
    transform: Option<String>,

    /// How long a client may be idle, in seconds (0: for ever)
    #[arg(short = 'T', long, value_name = "SECONDS", default_value_t = 600, value_parser = within(TIMEOUT_RANGE))]
    timeout: u64,

    /// The most connections at once, POP3 and PEEP together; the last is kept for PEEP
    #[arg(short = 'c', long, value_name = "N", default_value_t = MAX_CONNECTIONS as u64, value_parser = within(MAX_CONNECTIONS_RANGE))]
    max_connections: u64,

    /// An address to serve POP3 on; can be given many times [default: all, IPv4 and IPv6]
    #[arg(long, value_name = "IP")]
    address: Vec<ListenAddress>,

    /// An address to serve PEEP on; can be given many times [default: 127.0.0.1 and ::1]
    #[arg(long, value_name = "IP")]
    peep_address: Vec<ListenAddress>,

    /// How long the transform may give no output, in seconds (0: for ever)
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = within(TIMEOUT_RANGE), requires = "transform")]
    transform_timeout: u64,

    /// Log more: once for each command, twice for the first line of each reply too
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,

    /// Log less: once for warnings and errors, twice for errors
    #[arg(short, long, action = ArgAction::Count, conflicts_with = "verbose")]
    quiet: u8,

    /// Append the log to this file instead of writing it to stderr; SIGHUP opens it again
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,

    #[command(flatten)]
    tls: TlsArgs,

    #[command(flatten)]
    limits: LimitArgs,

    #[command(flatten)]
    state: StateArgs,

    #[command(flatten)]
    accounts: AccountsArgs,

    #[command(flatten)]
    confinement: ConfinementArgs,
}

fn within((low, high): (u64, u64)) -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(low..=high)
}

/// A name and a password, written `NAME:PASSWORD`.
#[derive(Debug, Clone)]
struct Account {
    name: UserName,
    password: Hidden<String>,
}

impl FromStr for Account {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, password) = text.split_once(':').ok_or("it has to be NAME:PASSWORD")?;
        let name = name.parse().map_err(|error| format!("{error}"))?;
        if password.is_empty() {
            return Err("the password is empty".to_owned());
        }
        if password.contains(['\r', '\n', '\0']) {
            return Err("a password with a line end or a NUL cannot be sent".to_owned());
        }
        Ok(Self { name, password: Hidden(password.to_owned()) })
    }
}

/// How to log.
#[derive(Debug)]
pub struct LogConfig {
    /// The least important level that is logged.
    pub level: LevelFilter,
    /// Where to, if not to stderr.
    pub file: Option<PathBuf>,
}

/// A server's configuration, checked.
#[derive(Debug)]
pub struct Config {
    /// The accounts.
    pub users: Users,
    /// The admin.
    pub admin: Credentials,
    /// Nobody has set another admin than root:root.
    pub has_default_admin: bool,
    /// Only programs of root may log in as the admin.
    pub admin_is_roots: bool,
    /// The directory of the users' directories.
    pub mail_root: MailRoot,
    /// The program that messages go through, if any.
    pub transform: Option<Transform>,
    /// The autologout timer.
    pub timeout: Option<Duration>,
    /// The most connections at once.
    pub max_connections: usize,
    /// Where POP3 is served.
    pub pop3: Endpoint,
    /// Where POP3 is served by TLS from the first octet on.
    pub pop3s: Option<Endpoint>,
    /// Where PEEP is served.
    pub peep: Endpoint,
    /// PEEP goes by TLS.
    pub peep_tls: bool,
    /// What TLS needs.
    pub certificate: Option<Certificate>,
    /// Passwords may cross the net in clear.
    pub allow_cleartext: bool,
    /// What an address is allowed.
    pub limits: Limits,
    /// The slowest that a client may read.
    pub min_rate: Option<MinRate>,
    /// What outlives the server.
    pub state: Option<StateDir>,
    /// The log of counters.
    pub stats_log: Option<StatsLog>,
}

impl Config {
    /// What the sessions of a server so configured share at its start, and its certificate.
    #[must_use]
    pub fn into_shared(self) -> (Shared, Option<Certificate>) {
        let stats = Arc::<Stats>::default();
        let shared = Shared {
            events: Events::new(Arc::clone(&stats)),
            stats,
            settings: Settings::new(self.mail_root, self.timeout),
            users: self.users,
            locks: Arc::default(),
            connections: Connections::new(self.max_connections),
            guard: Guard::new(self.limits),
            min_rate: self.min_rate,
            admin: self.admin,
            admin_is_roots: self.admin_is_roots,
            transform: self.transform,
            allow_cleartext: self.allow_cleartext,
        };
        (shared, self.certificate)
    }
}

/// Addresses and a port.
#[derive(Debug)]
pub struct Endpoint {
    /// At least one.
    pub addresses: Vec<ListenAddress>,
    /// 0 for any free one.
    pub port: u16,
    /// The addresses were asked for, so each has to be there.
    pub required: bool,
}

impl Endpoint {
    fn new(asked: Vec<ListenAddress>, default: [IpAddr; 2], port: u16) -> Self {
        let required = !asked.is_empty();
        Self { addresses: if required { asked } else { default.map(ListenAddress::from).to_vec() }, port, required }
    }
}

/// Why the command line makes no configuration.
#[derive(Debug)]
pub enum ConfigError {
    /// A user is given twice.
    UserTwice(UserName),
    /// A flag is given more often than it means something.
    TooOften(&'static str),
    /// A resource is limited twice.
    LimitTwice(Limit),
    /// No words, or an open quote.
    Transform(String),
    /// Who can reach the port could change everything.
    DefaultAdmin(ListenAddress),
    /// The admin's secret cannot be used.
    Admin(String),
    /// The admin's password would cross the net in clear.
    PeepInClear(ListenAddress),
    /// The mail directory cannot be used.
    MailRoot(PathBuf, io::Error),
    /// The users file cannot be read, or is none.
    UsersFile(PathBuf, io::Error),
    /// There can be no TLS with it.
    Certificate(CertificateError),
    /// The server cannot make one for itself.
    SelfSigned(io::Error),
    /// The state directory cannot be used.
    State(PathBuf, io::Error),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UserTwice(name) => write!(f, "user {name} is given twice"),
            Self::TooOften(flag) => write!(f, "{flag} can be given twice at the most"),
            Self::LimitTwice(limit) => write!(f, "--transform-limit {limit}: there is a limit of that already"),
            Self::Transform(command) => write!(f, "cannot split the transform into words: {command:?}"),
            Self::DefaultAdmin(address) => {
                write!(f, "PEEP on {address} can be reached from elsewhere: set an admin with --peep-admin first")
            }
            Self::Admin(why) => write!(f, "the admin's password cannot be used: {why}"),
            Self::PeepInClear(address) => {
                write!(f, "PEEP on {address} would take passwords in clear: add --peep-tls (or --allow-cleartext)")
            }
            Self::MailRoot(path, error) => write!(f, "cannot use {} as mail directory: {error}", path.display()),
            Self::UsersFile(path, error) => write!(f, "cannot use {} as users file: {error}", path.display()),
            Self::Certificate(error) => write!(f, "cannot use the TLS certificate: {error}"),
            Self::SelfSigned(error) => write!(f, "--tls-self-signed has no certificate: {error}"),
            Self::State(path, error) => write!(f, "cannot use {} as state directory: {error}", path.display()),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Args {
    /// Checks what is wrong with several flags together.
    fn check(&self) -> Result<(), ConfigError> {
        let mut names = BTreeSet::new();
        if let Some(twice) = self.users.iter().find(|user| !names.insert(&user.name)) {
            return Err(ConfigError::UserTwice(twice.name.clone()));
        }
        for (flag, count) in [("--verbose", self.verbose), ("--quiet", self.quiet)] {
            if count > 2 {
                return Err(ConfigError::TooOften(flag));
            }
        }
        self.transform()?;
        self.confinement.check()?;
        if let Some(address) = self.peep_address.iter().find(|address| !address.is_loopback()) {
            if self.admin.is_default() {
                return Err(ConfigError::DefaultAdmin(address.clone()));
            }
            if !(self.tls.peep_tls || self.tls.allow_cleartext) {
                return Err(ConfigError::PeepInClear(address.clone()));
            }
        }
        Ok(())
    }

    /// Where the settings come from, for people to read.
    fn configured_by(&self) -> String {
        self.config.as_ref().map_or_else(|| "the command line".to_owned(), |path| path.display().to_string())
    }

    fn pop3_endpoint(&self) -> Endpoint {
        self.endpoint_on(self.pop3_port)
    }

    fn pop3s_endpoint(&self) -> Option<Endpoint> {
        self.tls.pop3s_port.map(|port| self.endpoint_on(port))
    }

    fn endpoint_on(&self, port: u16) -> Endpoint {
        Endpoint::new(self.address.clone(), [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()], port)
    }

    fn peep_endpoint(&self) -> Endpoint {
        let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        Endpoint::new(self.peep_address.clone(), loopback, self.peep_port)
    }

    /// How to log; needed before anything can be said.
    #[must_use]
    pub fn log(&self) -> LogConfig {
        let level = match (self.quiet, self.verbose) {
            (0, 0) => LevelFilter::Info,
            (0, 1) => LevelFilter::Debug,
            (0, _) => LevelFilter::Trace,
            (1, _) => LevelFilter::Warn,
            (_, _) => LevelFilter::Error,
        };
        LogConfig { level, file: self.log_file.clone() }
    }

    /// What the server is to be confined to when its ports are bound.
    ///
    /// # Errors
    /// [`ConfigError`], as for [`Args::resolve`].
    pub fn confinement(&self) -> Result<Confinement, ConfigError> {
        let users_file = self.accounts.users_file.clone().map(|file| ("--users", file));
        let stats_log = self.state.stats_log.as_ref().map(|log| ("--stats-log", log.path.clone()));
        let log_file = self.log_file.clone().map(|file| ("--log-file", file));
        let used = Used {
            mail_root: self.mailbox.clone(),
            state: self.state.state.clone(),
            written: users_file.iter().cloned().chain(stats_log).chain(log_file).collect(),
            read_again: self.tls.files().chain(users_file).collect(),
        };
        Ok(self.confinement.confinement(used, self.transform()?.as_ref()))
    }

    fn transform(&self) -> Result<Option<Transform>, ConfigError> {
        let Some(command) = &self.transform else { return Ok(None) };
        let transform = Transform::new(command, seconds(self.transform_timeout));
        let transform = transform.ok_or(ConfigError::Transform(command.clone()))?;
        Ok(Some(self.confinement.restricted(transform, &self.mailbox)))
    }

    /// Opens what the server needs.
    ///
    /// # Errors
    /// [`ConfigError`], of what is not there or not as it has to be.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        // Everybody knows the default admin, who could make root serve any file of this machine as mail.
        let has_default_admin = self.admin.is_default();
        let admin_is_roots = has_default_admin && !self.confinement.becomes_user() && geteuid().is_root();
        let transform = self.transform()?;
        let (pop3, pop3s, peep) = (self.pop3_endpoint(), self.pop3s_endpoint(), self.peep_endpoint());
        let state =
            self.state.state.map(|path| StateDir::open(path.clone()).map_err(|error| ConfigError::State(path, error)));
        let state = state.transpose()?;
        let file = self.accounts.users_file;
        let mut users =
            Users::open(file.clone()).map_err(|error| ConfigError::UsersFile(file.unwrap_or_default(), error))?;
        if let Some(state) = &state {
            users.keep_salts(state).map_err(|error| ConfigError::State(state.path().to_owned(), error))?;
        }
        for Account { name, password } in self.users {
            users.add_own(name, password.0.as_bytes());
        }
        Ok(Config {
            users,
            has_default_admin,
            admin_is_roots,
            admin: self.admin.credentials()?,
            mail_root: MailRoot::with_layouts(self.mailbox.clone(), Arc::new(Layouts::new(self.layout)))
                .map_err(|error| ConfigError::MailRoot(self.mailbox, error))?,
            transform,
            timeout: seconds(self.timeout),
            max_connections: usize::try_from(self.max_connections).unwrap_or(MAX_CONNECTIONS),
            pop3,
            pop3s,
            peep,
            peep_tls: self.tls.peep_tls,
            certificate: self.tls.certificate(state.as_ref())?,
            allow_cleartext: self.tls.allow_cleartext,
            state,
            limits: self.limits.limits(),
            min_rate: self.limits.min_rate(),
            stats_log: self.state.stats_log.map(|log| StatsLog::new(log.path, log.interval)),
        })
    }
}

/// A timeout in seconds, of which 0 is none.
fn seconds(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from([&["pop3d"], arguments].concat())
    }

    fn resolve(arguments: &[&str]) -> Result<Config, ConfigError> {
        parse(arguments).unwrap().resolve()
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let config = resolve(&[]).unwrap();
        assert_eq!((config.pop3.port, config.peep.port), (1110, 2110));
        assert_eq!(config.mail_root.path().to_str(), Some("."));
        assert_eq!(config.timeout, Some(Duration::from_secs(600)));
        assert_eq!(config.max_connections, 998);
        assert_eq!((config.limits.per_address, config.limits.loopback_too), (Some(32), false));
        assert_eq!(config.min_rate.map(|rate| (rate.octets, rate.span.as_secs())), Some((256, 120)));
        assert!(config.admin.match_with(b"root", b"root"));
        assert!(config.pop3.addresses.iter().all(ListenAddress::is_unspecified));
        assert!(config.peep.addresses.iter().all(ListenAddress::is_loopback));
    }

    #[test]
    fn a_password_may_have_colons_and_spaces() {
        let config = resolve(&["-u", "ana:a:b c", "--user", "bob:x"]).unwrap();
        assert_eq!(config.users.names(), ["ana", "bob"]);
        assert!(config.users.authenticate(b"ana", b"a:b c").is_ok());
        assert!(config.users.authenticate(b"bob", b"x").is_ok());
    }

    #[test]
    fn bad_values_are_refused() {
        for bad in [
            &["-u", "ana"][..],
            &["-u", ":x"],
            &["-u", "ana:"],
            &["-u", "../x:y"],
            &["-c", "0"],
            &["-c", "999"],
            &["-T", "86401"],
            &["-T", "-1"],
            &["-p", "65536"],
            &["--address", "localhost.invalid"],
            &["-a", "root"],
            &["-v", "-q"],
            &["--tls-cert", "chain"],
            &["--tls-key", "key"],
            &["--pop3s-port", "0"],
            &["--peep-tls"],
            &["--state", "state", "--tls-self-signed", "--tls-cert", "chain", "--tls-key", "key"],
            &["--unknown"],
            &["stray"],
        ] {
            assert_eq!(parse(bad).unwrap_err().exit_code(), 2, "{bad:?}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing");
        assert!(matches!(resolve(&["-m", missing.to_str().unwrap()]), Err(ConfigError::MailRoot(..))));
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(resolve(&["-m", file.to_str().unwrap()]), Err(ConfigError::MailRoot(..))));
        assert!(matches!(resolve(&["--users", missing.to_str().unwrap()]), Err(ConfigError::UsersFile(..))));
        assert!(matches!(resolve(&["--tls-cert", "none", "--tls-key", "none"]), Err(ConfigError::Certificate(_))));
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused() {
        let check = |arguments: &[&str]| parse(arguments).unwrap().check();
        assert!(matches!(check(&["-u", "a:1", "-u", "b:1", "-u", "a:2"]), Err(ConfigError::UserTwice(_))));
        assert!(matches!(check(&["-t", "tr 'a"]), Err(ConfigError::Transform(_))));
        assert!(matches!(check(&["-vvv"]), Err(ConfigError::TooOften("--verbose"))));
        assert!(matches!(check(&["-qqq"]), Err(ConfigError::TooOften("--quiet"))));
        let twice = ["-t", "cat", "--transform-limit", "cpu=1,files=9", "--transform-limit", "cpu=2"];
        assert!(matches!(check(&twice), Err(ConfigError::LimitTwice(_))));
        assert!(matches!(check(&["--peep-address", "0.0.0.0"]), Err(ConfigError::DefaultAdmin(_))));
        let admin = ["--peep-address", "0.0.0.0", "-a", "admin:secret"];
        assert!(matches!(check(&admin), Err(ConfigError::PeepInClear(_))));
        for good in [&[&admin[..], &["--allow-cleartext"]].concat()[..], &["-vv"], &["-qq"], &twice[..4]] {
            assert!(check(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn passwords_are_not_in_debug_texts() {
        let text = format!("{:?}", parse(&["-u", "ana:hunter2", "-a", "boss:hunter3"]).unwrap());
        assert!(!text.contains("hunter"), "{text}");
    }
}
