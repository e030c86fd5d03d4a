//! The server's flags, each declared with its default and its limits. Those of one topic are in a file of their own.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, ArgGroup, Parser};
use log::LevelFilter;

use super::accounts::{Account, AccountsArgs};
use super::admin::AdminArgs;
use super::busy::BusyArgs;
use super::confinement::{ConfinementArgs, Used};
use super::deletes::DeleteArgs;
use super::expiry::ExpiryArgs;
use super::faults::FaultArgs;
use super::limits::LimitArgs;
use super::maildirs::MaildirArgs;
use super::peep_socket::PeepSocketArgs;
use super::proxies::ProxyArgs;
use super::state::StateArgs;
use super::tls::TlsArgs;
use super::transforms::TransformArgs;
use super::{ABOUT, ConfigError, Endpoint};
use crate::confine::Confinement;
use crate::connections::Service;
use crate::connections::{MAX_CONNECTIONS, MAX_CONNECTIONS_RANGE};
use crate::logging::LogFormat;
use crate::maildrop::{LayoutChoice, UniqueIdFormat, UniqueIds, fixed_part};
use crate::net::ListenAddress;
use crate::settings::{InForce, TIMEOUT_RANGE};
use crate::transform::Transform;

/// The group of the flags whose change needs a restart. A reload applies a change of any other flag.
pub const NEEDS_RESTART: &str = "needs-restart";

/// The server's flags.
#[derive(Debug, Clone, Parser)]
#[command(name = "pop3d", about = ABOUT, group = ArgGroup::new(NEEDS_RESTART).multiple(true))]
pub struct Args {
    /// Read settings from this TOML file, whose keys are the names of the flags; flags on the command line override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// A user who may log in; can be repeated. The password may contain ':'
    #[arg(short, long = "user", value_name = "NAME:PASSWORD")]
    pub(super) users: Vec<Account>,

    /// The mail directory, which contains a directory of messages for each user; or a location with %u, %n, %d or %h, such
    /// as /var/mail/%u
    #[arg(short, long, visible_alias = "maildir", value_name = "DIR", default_value = ".")]
    pub(super) mailbox: PathBuf,

    /// How users' directories store mail: maildir (messages are the files in new/ and cur/), flat (each file is a message),
    /// or auto (maildir if there is a new/ or cur/, otherwise flat; home directories are refused)
    #[arg(long, value_enum, default_value = "auto", hide_possible_values = true)]
    pub(super) layout: LayoutChoice,

    /// Which unique-ids the messages of a Maildir or an mbox have
    #[arg(long, value_enum, value_name = "WHOSE", default_value = "name")]
    pub(super) unique_ids: UniqueIds,

    /// Dovecot's pop3_uidl_format, for --unique-ids dovecot and auto
    #[arg(long, value_name = "FORMAT", default_value = "%08Xu%08Xv")]
    pub(super) dovecot_uidl_format: UniqueIdFormat,

    #[command(flatten)]
    pub(super) admin: AdminArgs,

    #[command(flatten)]
    pub(super) peep_socket: PeepSocketArgs,

    /// The port for POP3 (0: any free port)
    #[arg(short = 'p', long, value_name = "PORT", default_value_t = 1110)]
    pop3_port: u16,

    /// The port for PEEP, the admin protocol (0: any free port)
    #[arg(short = 'P', long, value_name = "PORT", default_value_t = 2110)]
    peep_port: u16,

    /// Pass each message through this program on its way to the client: it reads the message from stdin and writes the
    /// result to stdout
    #[arg(short, long, value_name = "COMMAND")]
    transform: Option<String>,

    /// Disconnect a POP3 client that has sent no command for this long, in seconds (0: never)
    #[arg(short = 'T', long, value_name = "SECONDS", default_value_t = 600, value_parser = within(TIMEOUT_RANGE))]
    pub(super) timeout: u64,

    /// The most connections at once, POP3 and PEEP together; the last one is reserved for PEEP
    #[arg(short = 'c', long, value_name = "N", default_value_t = MAX_CONNECTIONS as u64, value_parser = within(MAX_CONNECTIONS_RANGE))]
    pub(super) max_connections: u64,

    /// Listen for POP3 on this address; can be repeated [default: all, IPv4 and IPv6]
    #[arg(long, value_name = "IP")]
    address: Vec<ListenAddress>,

    /// Listen for PEEP on this address; can be repeated [default: 127.0.0.1 and ::1]
    #[arg(long, value_name = "IP")]
    peep_address: Vec<ListenAddress>,

    /// Abort a transform that has written nothing for this long, in seconds (0: never)
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = within(TIMEOUT_RANGE), requires = "transform")]
    transform_timeout: u64,

    /// Log more: given once, also each command; given twice, also the first line of each reply
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,

    /// Log less: given once, only warnings and errors; given twice, only errors
    #[arg(short, long, action = ArgAction::Count, conflicts_with = "verbose")]
    quiet: u8,

    /// Append the log to this file instead of writing it to stderr; a reload opens the file again
    #[arg(long, value_name = "FILE", group = NEEDS_RESTART)]
    log_file: Option<PathBuf>,

    /// How the lines of the log look
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text", group = NEEDS_RESTART)]
    log_format: LogFormat,

    /// Serve metrics for Prometheus over HTTP on this address and port, under /metrics; and /healthz (port 0: any free port)
    #[arg(long, value_name = "ADDRESS:PORT", group = NEEDS_RESTART)]
    pub(super) metrics: Option<SocketAddr>,

    #[command(flatten)]
    pub(super) tls: TlsArgs,

    #[command(flatten)]
    pub(super) limits: LimitArgs,

    #[command(flatten)]
    pub(super) proxies: ProxyArgs,

    #[command(flatten)]
    pub(super) state: StateArgs,

    #[command(flatten)]
    pub(super) maildirs: MaildirArgs,

    #[command(flatten)]
    pub(super) busy: BusyArgs,

    #[command(flatten)]
    pub(super) deletes: DeleteArgs,

    #[command(flatten)]
    pub(super) expiry: ExpiryArgs,

    #[command(flatten)]
    transforms: TransformArgs,

    #[command(flatten)]
    pub(super) accounts: AccountsArgs,

    #[command(flatten)]
    pub(super) confinement: ConfinementArgs,

    #[command(flatten)]
    pub(super) faults: FaultArgs,

    /// All of these settings, to be shown.
    #[arg(skip)]
    pub(super) in_force: InForce,
}

pub(super) fn within((low, high): (u64, u64)) -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(low..=high)
}

/// The settings of the log.
#[derive(Debug)]
pub struct LogConfig {
    /// The least severe level that is logged.
    pub level: LevelFilter,
    /// The format of the lines.
    pub format: LogFormat,
    /// The log file; `None` for stderr.
    pub file: Option<PathBuf>,
}

impl Args {
    /// Checks the flags for contradictions.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
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
        self.accounts.check()?;
        self.confinement.check()?;
        self.tls.check()?;
        self.check_admin(self.admin.are_at_default())?;
        let in_clear = !(self.tls.peep_tls || self.tls.allow_cleartext);
        let address = self.peep_beyond_loopback().filter(|_| in_clear);
        address.map_or(Ok(()), |address| Err(ConfigError::PeepInClear(address.clone())))
    }

    /// Checks that the default admin is not offered to other machines.
    pub(super) fn check_admin(&self, is_default: bool) -> Result<(), ConfigError> {
        let address = self.peep_beyond_loopback().filter(|_| is_default);
        address.map_or(Ok(()), |address| Err(ConfigError::DefaultAdmin(address.clone())))
    }

    fn peep_beyond_loopback(&self) -> Option<&ListenAddress> {
        self.peep_address.iter().find(|address| !address.is_loopback())
    }

    /// Returns where the settings come from, for people to read.
    pub(super) fn configured_by(&self) -> String {
        self.config.as_ref().map_or_else(|| "the command line".to_owned(), |path| path.display().to_string())
    }

    pub(super) fn pop3_endpoint(&self) -> Endpoint {
        self.endpoint_on(self.pop3_port)
    }

    pub(super) fn pop3s_endpoint(&self) -> Option<Endpoint> {
        self.tls.pop3s_port.map(|port| self.endpoint_on(port))
    }

    fn endpoint_on(&self, port: u16) -> Endpoint {
        Endpoint::new(self.address.clone(), [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()], port)
    }

    /// The addresses and the port for PEEP. There is none with `--no-peep`, and none beside a UNIX socket unless an address is
    /// asked for.
    pub(super) fn peep_endpoint(&self) -> Option<Endpoint> {
        if self.peep_socket.no_peep || (self.peep_socket.file().is_some() && self.peep_address.is_empty()) {
            return None;
        }
        let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        Some(Endpoint::new(self.peep_address.clone(), loopback, self.peep_port))
    }

    pub(super) fn metrics_endpoint(&self) -> Option<Endpoint> {
        self.metrics.map(|address| Endpoint {
            addresses: vec![address.ip().into()],
            port: address.port(),
            required: true,
        })
    }

    /// Takes the settings that need a restart from `started`. Returns the names of those that were different.
    pub(super) fn keep_fixed(&mut self, started: &Self) -> Vec<&'static str> {
        let mut names = self.confinement.keep_fixed(&started.confinement);
        names.extend(self.peep_socket.keep_fixed(&started.peep_socket));
        names.extend(self.faults.keep_fixed(&started.faults));
        names.extend(keep("state", &mut self.state.state, &started.state.state));
        names.extend(keep("log-file", &mut self.log_file, &started.log_file));
        names.extend(keep("log-format", &mut self.log_format, &started.log_format));
        names.extend(keep("metrics", &mut self.metrics, &started.metrics));
        names
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
        LogConfig { level, format: self.log_format, file: self.log_file.clone() }
    }

    /// Returns the confinement to put in force after the ports are bound.
    ///
    /// # Errors
    /// [`ConfigError`], as for [`Args::resolve`].
    pub fn confinement(&self) -> Result<Confinement, ConfigError> {
        let accounts = self.accounts.written();
        let stats_log = self.state.stats_log.as_ref().map(|log| ("--stats-log", log.path.clone()));
        let log_file = self.log_file.clone().map(|file| ("--log-file", file));
        let config_file = self.config.clone().map(|file| ("--config", file)).into_iter();
        let used = Used {
            mail_root: fixed_part(&self.mailbox),
            state: self.state.state.clone(),
            ports: Service::ALL.iter().filter_map(|service| self.ports().of(*service).map(|at| at.port)).collect(),
            account_programs: self.accounts.programs(),
            account_network: self.accounts.use_network(),
            written: accounts.iter().cloned().chain(stats_log).chain(log_file).collect(),
            read_again: config_file
                .chain(self.admin.file())
                .chain(self.tls.files())
                .chain(accounts)
                .chain(self.accounts.read())
                .collect(),
            databases: self.accounts.databases(),
        };
        Ok(self.confinement.confinement(used, self.transform()?.as_ref()))
    }

    pub(super) fn transform(&self) -> Result<Option<Transform>, ConfigError> {
        let Some(command) = &self.transform else { return Ok(None) };
        let transform = Transform::new(command, seconds(self.transform_timeout));
        let transform = transform.ok_or(ConfigError::Transform(command.clone()))?.with_rules(self.transforms.rules());
        Ok(Some(self.confinement.restricted(transform, &fixed_part(&self.mailbox))))
    }
}

/// Sets a setting to what it was at the start. Returns its name if it was different.
pub(super) fn keep<T: Clone + PartialEq>(name: &'static str, now: &mut T, started: &T) -> Option<&'static str> {
    let differs = now != started;
    now.clone_from(started);
    differs.then_some(name)
}

/// Returns a timeout, where 0 seconds mean none.
pub(super) fn seconds(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds))
}
