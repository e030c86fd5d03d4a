//! The command line as typed (`Args`), and the checked `Plan` made of it.

use std::fmt;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use super::proxy;
use super::security::{Security, Tls, TlsArgs};
use super::users::Users;

const EXAMPLES: &str = "\
Examples:
  popbench sessions --address 127.0.0.1:1110 --users 'u{0..999}' --password secret --duration 30s
  popbench retr --address mail.example:110 --users alice --password secret --clients 4
  popbench logins --address mail.example --tls --ca cert.pem --users alice --password secret
  popbench logins --users-file accounts --compare 127.0.0.1:2110 --rounds 5 --json

Exit codes: 0 success, 1 errors occurred in the run, 2 usage, 3 cannot connect at all.";

/// What a session does between its login and its QUIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Workload {
    /// Retrieves one message; the figure is MB/s over all clients
    Retr,
    /// Sends STAT and LIST and retrieves some messages; the figure is sessions/s
    Sessions,
    /// Only logs in; the figure is logins/s
    Logins,
    /// Sends STAT, LIST and UIDL for the whole maildrop; the figure is the session's time
    Maildrop,
    /// Deletes the first messages; the figure is the session's time. The next session deletes others
    Delete,
    /// Sends a NOOP now and then until the time is over; the figure is how many sessions survived, or with --pid the
    /// server's memory
    Idle,
    /// Connects all clients at once, each retrieves one message; the figure is the time until the last one is served
    Storm,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

/// The command line of `popbench`.
#[derive(Parser, Debug)]
#[command(name = "popbench", version, about = "A load generator for POP3 servers", after_help = EXAMPLES)]
pub struct Args {
    /// What each session does between its login and its QUIT
    workload: Workload,

    /// The server, as HOST or HOST:PORT
    #[arg(long, short, value_name = "HOST[:PORT]", default_value = "127.0.0.1")]
    address: String,

    /// The port for an address that has none [default: 110, with --tls 995]
    #[arg(long)]
    port: Option<u16>,

    /// Simultaneous clients [default: retr 1, sessions 16, logins 64, maildrop 1, delete 1, idle 900, storm
    /// 3000]
    #[arg(long, short, value_name = "N")]
    clients: Option<NonZeroUsize>,

    /// Threads that share the clients [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// Start sessions for this long (10s, 500ms, 2m; a bare number is seconds). Sessions that continue for longer than
    /// --timeout after it are cut off; idle holds its sessions for this long [default: 10s; retr, maildrop and
    /// delete run each client once]
    #[arg(long, short, value_name = "TIME", value_parser = parse_duration, conflicts_with = "count")]
    duration: Option<Duration>,

    /// Run this many sessions in all
    #[arg(long, short = 'n', value_name = "N")]
    count: Option<NonZeroU64>,

    /// Accounts: a name, or a pattern such as u{0..999}
    #[arg(long, short, value_name = "PATTERN", default_value = "user")]
    users: String,

    /// The password of all accounts of --users
    #[arg(long, short, default_value = "password")]
    password: String,

    /// Accounts from a file of name:password lines
    #[arg(long, value_name = "FILE", conflicts_with_all = ["users", "password"])]
    users_file: Option<PathBuf>,

    /// retr, storm: the number of the message to retrieve [default: 1]
    #[arg(long, value_name = "NUMBER")]
    message: Option<NonZeroU32>,

    /// sessions: messages to retrieve in each session; in a smaller maildrop some are retrieved again [default: 5]
    #[arg(long, value_name = "K")]
    retr: Option<usize>,

    /// sessions: how many RETR to send at once [default: 1]
    #[arg(long, value_name = "DEPTH")]
    pipeline: Option<NonZeroUsize>,

    /// delete: messages to delete in each session [default: 100]
    #[arg(long, value_name = "K")]
    delete: Option<NonZeroU32>,

    /// Check that each message has as many octets as listed (the default)
    #[arg(long, overrides_with = "no_verify")]
    verify: bool,

    /// Discard as many octets as listed without looking at them, which costs least; storm then sends no LIST
    #[arg(long)]
    no_verify: bool,

    /// retr, storm, sessions: hash the messages. The hash is printed and compared between servers; a message that
    /// changes in the run is an error
    #[arg(long)]
    hash: bool,

    /// idle: time between two NOOP of a session [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    interval: Option<Duration>,

    /// idle: a process of the server. Its memory (PSS), with that of its descendants, is reported
    #[arg(long)]
    pid: Option<u32>,

    /// A second server. Both are measured in turn, A B A B, and the ratio is reported
    #[arg(long, value_name = "HOST[:PORT]")]
    compare: Option<String>,

    /// --pid for the second server
    #[arg(long, value_name = "PID", requires = "compare")]
    compare_pid: Option<u32>,

    /// With --compare: how many times each server is measured
    #[arg(long, value_name = "N", default_value = "3", requires = "compare")]
    rounds: NonZeroUsize,

    /// Give up a connect, a read or a write after this long
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "30s")]
    timeout: Duration,

    /// Send the PROXY header (version 2) of a client of this address first, as a proxy does; a server of --compare gets none,
    /// so that the cost can be measured
    #[arg(long, value_name = "IP")]
    proxy: Option<IpAddr>,

    #[command(flatten)]
    tls: TlsArgs,

    /// Report as JSON
    #[arg(long, conflicts_with = "csv")]
    json: bool,

    /// Report as CSV: a heading, then a line for each run
    #[arg(long)]
    csv: bool,

    /// Show no progress line and no notes
    #[arg(long, short)]
    quiet: bool,
}

/// How long a run goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Extent {
    /// One session for each client.
    Once,
    /// This many sessions of all clients together.
    Count(u64),
    /// No session starts after this time, and each is cut off one timeout later.
    For(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Text,
    Json,
    Csv,
}

/// A server as named on the command line.
#[derive(Debug)]
pub(super) struct Server {
    host: String,
    port: u16,
    pid: Option<u32>,
    /// The client for which it gets a PROXY header.
    proxied: Option<IpAddr>,
}

/// A server's address, ready to connect to.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) tls: Option<Tls>,
    pub(super) pid: Option<u32>,
    /// What each connection begins with; empty without a proxy.
    pub(super) header: Vec<u8>,
}

/// What to do, made from a checked command line.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) workload: Workload,
    /// One server, or two to compare.
    servers: Vec<Server>,
    security: Option<Security>,
    pub(super) clients: usize,
    pub(super) threads: usize,
    pub(super) extent: Extent,
    pub(super) hold: Duration,
    pub(super) interval: Duration,
    pub(super) users: Users,
    pub(super) message: u32,
    pub(super) retr: usize,
    /// How many messages a session deletes.
    pub(super) delete: u32,
    pub(super) pipeline: usize,
    pub(super) verify: bool,
    pub(super) hash: bool,
    pub(super) rounds: usize,
    pub(super) timeout: Duration,
    pub(super) output: Output,
    pub(super) quiet: bool,
}

const DEFAULT_DURATION: Duration = Duration::from_secs(10);

const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);

const DEFAULT_RETR: usize = 5;

const DEFAULT_DELETE: u32 = 100;

/// A longer time is taken for a typing error.
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

/// The most RETR in a batch. A batch is written in one call that must not block: this many fit into any socket's
/// buffer.
const MAX_PIPELINE: usize = 1000;

impl Plan {
    pub(super) fn new(args: Args) -> Result<Plan, String> {
        if let Some(flag) = foreign_flag(&args) {
            return Err(format!("{flag} has no effect on {}", args.workload));
        }
        let pipeline = args.pipeline.map_or(1, NonZeroUsize::get);
        if pipeline > MAX_PIPELINE {
            return Err(format!("--pipeline: at most {MAX_PIPELINE}"));
        }
        let users = match &args.users_file {
            Some(path) => Users::from_file(path)?,
            None => Users::from_pattern(&args.users, &args.password)?,
        };
        let port = args.port.unwrap_or(args.tls.default_port());
        let first = Server::parse(&args.address, port, args.pid)?;
        let mut servers = vec![Server { proxied: args.proxy, ..first }];
        if let Some(second) = &args.compare {
            servers.push(Server::parse(second, port, args.compare_pid)?);
        }
        let clients = args.clients.map_or_else(|| default_clients(args.workload), NonZeroUsize::get);
        Ok(Plan {
            workload: args.workload,
            servers,
            security: args.tls.security()?,
            clients,
            threads: args.threads.unwrap_or_else(cores).get().min(clients),
            extent: extent(&args)?,
            hold: args.duration.unwrap_or(DEFAULT_DURATION),
            interval: args.interval.unwrap_or(DEFAULT_INTERVAL),
            users,
            message: args.message.map_or(1, NonZeroU32::get),
            retr: args.retr.unwrap_or(DEFAULT_RETR),
            delete: args.delete.map_or(DEFAULT_DELETE, NonZeroU32::get),
            pipeline,
            verify: !args.no_verify,
            hash: args.hash,
            rounds: args.rounds.get(),
            timeout: args.timeout,
            output: match (args.json, args.csv) {
                (true, _) => Output::Json,
                (_, true) => Output::Csv,
                _ => Output::Text,
            },
            quiet: args.quiet,
        })
    }

    /// Returns true if every octet of a message is looked at.
    pub(super) fn looks_inside(&self) -> bool {
        self.verify || self.hash
    }

    /// Finds the servers' addresses.
    pub(super) fn targets(&self) -> Result<Vec<Target>, String> {
        self.servers.iter().map(|server| Target::resolve(server, self.security.as_ref())).collect()
    }

    /// Notes for the user before the run. `enough_files` says whether the limit of open files suffices.
    pub(super) fn notes(&self, enough_files: bool) -> Vec<String> {
        let mut notes = Vec::new();
        if !enough_files {
            notes.push(format!("the limit of open files is too low for {} clients", self.clients));
        }
        if self.users.len() < self.clients {
            notes.push(format!(
                "{} clients share {} maildrops: a server that locks them answers [IN-USE]",
                self.clients,
                self.users.len()
            ));
        }
        if self.quiet { Vec::new() } else { notes }
    }
}

/// The number of threads by default: one for each core, so that the client does not limit a faster server.
fn cores() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

fn default_clients(workload: Workload) -> usize {
    match workload {
        Workload::Retr | Workload::Maildrop | Workload::Delete => 1,
        Workload::Sessions => 16,
        Workload::Logins => 64,
        Workload::Idle => 900,
        Workload::Storm => 3000,
    }
}

/// Returns a flag that has no effect on the workload, if one was given.
fn foreign_flag(args: &Args) -> Option<&'static str> {
    use Workload::{Delete, Idle, Retr, Sessions, Storm};
    let flags: [(&str, bool, &[Workload]); 8] = [
        ("--message", args.message.is_some(), &[Retr, Storm]),
        ("--retr", args.retr.is_some(), &[Sessions]),
        ("--pipeline", args.pipeline.is_some(), &[Sessions]),
        ("--delete", args.delete.is_some(), &[Delete]),
        ("--hash", args.hash, &[Retr, Storm, Sessions]),
        ("--interval", args.interval.is_some(), &[Idle]),
        ("--pid", args.pid.is_some(), &[Idle]),
        ("--compare-pid", args.compare_pid.is_some(), &[Idle]),
    ];
    flags.into_iter().find(|(_, given, of)| *given && !of.contains(&args.workload)).map(|(flag, ..)| flag)
}

fn extent(args: &Args) -> Result<Extent, String> {
    match (args.workload, args.count, args.duration) {
        (Workload::Storm, Some(_), _) | (Workload::Storm, _, Some(_)) | (Workload::Idle, Some(_), _) => {
            Err(format!("{} runs each client once: --clients is its size", args.workload))
        }
        (Workload::Storm | Workload::Idle, None, _) => Ok(Extent::Once),
        (_, Some(count), _) => Ok(Extent::Count(count.get())),
        (_, _, Some(duration)) => Ok(Extent::For(duration)),
        (Workload::Sessions | Workload::Logins, None, None) => Ok(Extent::For(DEFAULT_DURATION)),
        (Workload::Retr | Workload::Maildrop | Workload::Delete, None, None) => Ok(Extent::Once),
    }
}

impl Server {
    /// Parses `host`, `host:port`, `::1` or `[::1]:port`.
    fn parse(text: &str, default_port: u16, pid: Option<u32>) -> Result<Server, String> {
        let server = |host: &str, port| Ok(Server { host: host.to_owned(), port, pid, proxied: None });
        let port = |port: &str| port.parse().map_err(|_| format!("'{text}': '{port}' is no port"));
        if let Some(bracketed) = text.strip_prefix('[') {
            return match bracketed.split_once(']') {
                Some((host, "")) => server(host, default_port),
                Some((host, rest)) if rest.starts_with(':') => server(host, port(&rest[1..])?),
                _ => Err(format!("'{text}' is no address")),
            };
        }
        match text.split_once(':') {
            Some((host, digits)) if !digits.contains(':') => server(host, port(digits)?),
            _ => server(text, default_port),
        }
    }
}

impl Target {
    /// Finds the server's address. If a name has several, takes the first one that accepts a connection.
    fn resolve(server: &Server, security: Option<&Security>) -> Result<Target, String> {
        let failed = |problem: &dyn fmt::Display| format!("cannot connect to {}: {problem}", server.host);
        let addresses: Vec<SocketAddr> =
            (server.host.as_str(), server.port).to_socket_addrs().map_err(|error| failed(&error))?.collect();
        let address = match &addresses[..] {
            [] => return Err(failed(&"it has no address")),
            [only] => *only,
            several => {
                TcpStream::connect(several).and_then(|probe| probe.peer_addr()).map_err(|error| failed(&error))?
            }
        };
        let tls = security.map(|security| security.towards(&server.host)).transpose()?;
        let header = server.proxied.map_or_else(Vec::new, |client| proxy::header(client, address));
        Ok(Target { address, tls, pid: server.pid, header })
    }
}

/// Parses a time: seconds, or a number with `ms`, `s` or `m`. It must not be zero.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        _ => return Err("the unit is ms, s or m".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| "no number".to_owned())?;
    let duration = Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())?;
    if duration.is_zero() || duration > MAX_DURATION {
        return Err("must be more than nothing and at most a day".to_owned());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(line: &str) -> Result<Plan, String> {
        Plan::new(Args::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?)
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn addresses_have_four_forms() {
        let parse = |text| Server::parse(text, 110, None).map(|server| (server.host, server.port));
        assert_eq!(parse("host"), Ok(("host".into(), 110)));
        assert_eq!(parse("host:1110"), Ok(("host".into(), 1110)));
        assert_eq!(parse("::1"), Ok(("::1".into(), 110)));
        assert_eq!(parse("[::1]"), Ok(("::1".into(), 110)));
        assert_eq!(parse("[::1]:1110"), Ok(("::1".into(), 1110)));
        for bad in ["host:", "host:x", "host:70000", "[::1", "[::1]1110"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "s", "-1", "0", "1h", "nan", "1e99", "1441m"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_workload_has_its_extent_by_default_and_by_flags() {
        assert_eq!(plan("popbench sessions").unwrap().extent, Extent::For(DEFAULT_DURATION));
        assert_eq!(plan("popbench retr").unwrap().extent, Extent::Once);
        assert_eq!(plan("popbench retr -n 4").unwrap().extent, Extent::Count(4));
        assert_eq!(plan("popbench idle -d 3s").unwrap().extent, Extent::Once);
        assert!(plan("popbench storm -n 4").is_err());
        assert!(plan("popbench storm -d 4").is_err());
        assert!(plan("popbench logins -d 1 -n 4").is_err());
        assert!(plan("popbench logins -n 0").is_err());
    }

    #[test]
    fn a_flag_without_effect_on_the_workload_is_refused() {
        let flags = [
            ("--message 2", Workload::Storm),
            ("--retr 1", Workload::Sessions),
            ("--pipeline 2", Workload::Sessions),
            ("--hash", Workload::Retr),
            ("--interval 1s", Workload::Idle),
            ("--pid 1", Workload::Idle),
            ("--compare b --compare-pid 1", Workload::Idle),
        ];
        for (flag, workload) in flags {
            assert!(plan(&format!("popbench {workload} {flag}")).is_ok(), "{flag}");
            assert!(plan(&format!("popbench maildrop {flag}")).is_err(), "{flag}");
        }
    }

    #[test]
    fn messages_are_verified_by_default() {
        assert!(plan("popbench retr").unwrap().verify);
        assert!(plan("popbench retr --no-verify --verify").unwrap().verify);
        assert!(!plan("popbench retr --no-verify").unwrap().verify);
    }
}
