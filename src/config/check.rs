//! `pop3d check`: does the same as the start of a server, except for serving, and prints a line about each part.
//!
//! It creates and changes nothing, not even a missing state directory or self-signed certificate that the server would
//! create.

use std::fmt::Display;
use std::io::{self, Write};

use log::{Level, LevelFilter, Metadata, Record};
use parking_lot::Mutex;
use time::OffsetDateTime;

use super::admin::DEFAULT_ADMIN;
use super::tls::Pair;
use super::{Args, ConfigError, Endpoint};
use crate::auth::{AccountSource, Users};
use crate::maildrop::MailRoot;
use crate::net::{self, Holder, SocketFile};

/// A certificate that expires in fewer days causes a warning. Those of Let's Encrypt are renewed 30 days before.
const SOON: i64 = 14;

/// Checks whether a server with these settings would start, and prints the results to `output`. Returns true if there are
/// at most warnings.
///
/// # Errors
/// If `output` cannot be written.
pub fn check(args: &Args, output: &mut impl Write) -> io::Result<bool> {
    static LOG: Log = Log(Mutex::new(Vec::new()));
    if log::set_logger(&LOG).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
    let mut report = Report { output, log: &LOG, good: true };
    report.line("configuration", args.check().map(|()| args.configured_by()))?;
    report.line("mail directory", mail_directory(args))?;
    let sources = args.open_sources(&Users::default());
    report.line("accounts", sources.as_ref().map(|sources| accounts(args, sources)))?;
    let asked = || sources.iter().flatten().filter(|source| source.can_be_checked());
    if let Err(error) = asked().try_for_each(AccountSource::prepare) {
        report.line("accounts", Err::<String, _>(error))?;
    }
    if args.tls.is_self_signed() {
        report.line("certificate", Ok::<_, String>("the server creates it".to_owned()))?;
    }
    for pair in args.tls.pairs() {
        report.line("certificate", certificate(&pair))?;
    }
    if let Some(path) = &args.state.state {
        let described = if path.exists() { "it is there" } else { "the server will make it" };
        report.line("state directory", Ok::<_, String>(format!("{}: {described}", path.display())))?;
    }
    if let Some(transform) = args.transform().ok().flatten() {
        report.line("transform", transform.program().map(|program| program.display().to_string()))?;
    }
    if args.peep_endpoint().is_some() {
        report.line("admin", admin(args))?;
    }
    report.line("POP3", ports(&args.pop3_endpoint()))?;
    if let Some(endpoint) = args.pop3s_endpoint() {
        report.line("POP3S", ports(&endpoint))?;
    }
    if let Some(endpoint) = args.peep_endpoint() {
        report.line("PEEP", ports(&endpoint))?;
    }
    if let Some(file) = args.peep_socket.file() {
        report.line("PEEP", socket(&file))?;
    }
    if let Some(endpoint) = args.metrics_endpoint() {
        report.line("metrics", ports(&endpoint))?;
    }
    // This comes after the others, because it gives up rights that they need. Databases and the like are asked as the server would.
    report.line("confinement", confinement(args))?;
    for source in asked() {
        report.line("accounts", asked_source(source))?;
    }
    Ok(report.good)
}

fn mail_directory(args: &Args) -> Result<String, String> {
    let root = MailRoot::open(args.mailbox.clone()).map_err(|error| format!("{}: {error}", args.mailbox.display()))?;
    Ok(root.path().display().to_string())
}

fn asked_source(source: &AccountSource) -> Result<String, String> {
    let warnings = source.check()?;
    warnings.iter().for_each(|warning| log::warn!("{warning}"));
    Ok(source.name() + if warnings.is_empty() { " answers" } else { "" })
}

fn accounts(args: &Args, sources: &[AccountSource]) -> String {
    let (files, others): (Vec<_>, Vec<_>) = sources.iter().partition(|source| source.is_file());
    let names = |word, sources: &[&AccountSource]| match sources {
        [] => String::new(),
        sources => {
            let names: Vec<_> = sources.iter().map(|source| source.name()).collect();
            format!("{word}{}", names.join(", "))
        }
    };
    let shown = names(" in ", &files) + &names("; all in ", &others);
    let users = Users::new(files.into_iter().cloned().collect());
    let typed = match args.users.len() {
        0 => String::new(),
        count => format!("{count} by --user, "),
    };
    args.accounts.warn();
    let count = users.names().len();
    if count + args.users.len() == 0 && others.is_empty() {
        log::warn!("there are no accounts, so nobody can log in until one is added by PEEP");
    }
    format!("{typed}{count}{shown}")
}

fn certificate(pair: &Pair<'_>) -> Result<String, ConfigError> {
    let certificate = pair.open()?;
    let validity = match certificate.expiry().and_then(|time| i64::try_from(time.as_secs()).ok()) {
        None => "its expiry date is unknown".to_owned(),
        Some(expiry) => match OffsetDateTime::from_unix_timestamp(expiry) {
            Err(_) => "its expiry date is out of range".to_owned(),
            Ok(last) => {
                let days = (last - OffsetDateTime::now_utc()).whole_days();
                if (0..SOON).contains(&days) {
                    log::warn!("{} expires soon, on {}", pair.chain.display(), last.date());
                }
                format!("valid until {} ({days} days)", last.date())
            }
        },
    };
    let names = if pair.names.is_empty() { certificate.names() } else { pair.names };
    let names = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
    Ok(format!("{validity}, for {names}: {}, whose key it is", pair.chain.display()))
}

fn admin(args: &Args) -> Result<String, ConfigError> {
    let admin = args.admin.read()?;
    if admin.is_default {
        log::warn!("the admin is {DEFAULT_ADMIN}, because no --peep-admin is set");
    }
    args.check_admin(admin.is_default)?;
    Ok(admin.name)
}

/// Looks whether the UNIX socket is free, or the running server's.
fn socket(file: &SocketFile) -> Result<String, String> {
    let path = file.path.display();
    match file.is_taken() {
        Ok(false) => Ok(path.to_string()),
        Ok(true) => Ok(format!("a server listens on {path}")),
        Err(error) => Err(format!("{path}: {error}")),
    }
}

/// Binds the ports and closes them at once. A port is also in order if the running server has bound it, or systemd in
/// order to pass it.
fn ports(endpoint: &Endpoint) -> Result<String, String> {
    let error = match net::bind(&endpoint.addresses, endpoint.port, endpoint.required) {
        Ok(bound) => {
            return Ok(bound.iter().map(|listener| listener.address().to_string()).collect::<Vec<_>>().join(", "));
        }
        Err(error) => error,
    };
    if error.kind() != io::ErrorKind::AddrInUse {
        return Err(error.to_string());
    }
    let holders = net::holders(endpoint.port);
    let named = |name| holders.iter().find(|holder| holder.name == name);
    if let Some(server) = named("pop3d") {
        return Ok(format!("port {} is in use by the running pop3d (process {})", endpoint.port, server.process));
    }
    if named("systemd").is_some() {
        log::warn!(
            "systemd has bound port {}; it passes the socket to the server if the socket unit is the server's",
            endpoint.port
        );
        return Ok(format!("port {} is in use by systemd", endpoint.port));
    }
    Err(match holders.first() {
        Some(Holder { name, process }) => format!("{error}: {name} has the port (process {process})"),
        None => error.to_string(),
    })
}

fn confinement(args: &Args) -> Result<String, String> {
    let confinement = args.confinement().map_err(|error| error.to_string())?;
    let described = confinement.to_string();
    if args.state.state.as_ref().is_some_and(|directory| !directory.exists()) {
        return Ok(format!("{described}; not tested, because the state directory does not exist yet"));
    }
    confinement.without_own_directory().enforce().map_err(|error| error.to_string())?;
    Ok(described)
}

/// The report, and whether everything was in order so far.
struct Report<'a, W> {
    output: &'a mut W,
    log: &'a Log,
    good: bool,
}

impl<W: Write> Report<'_, W> {
    /// Prints what was logged about one part, and then its result.
    fn line(&mut self, part: &str, outcome: Result<String, impl Display>) -> io::Result<()> {
        for (level, text) in self.log.0.lock().drain(..) {
            self.good &= level != Level::Error;
            let word = if level == Level::Error { "error" } else { "warning" };
            writeln!(self.output, "{word:<8} {part}: {text}")?;
        }
        match outcome {
            Ok(text) => writeln!(self.output, "{:<8} {part}: {text}", "ok"),
            Err(error) => {
                self.good = false;
                writeln!(self.output, "{:<8} {part}: {error}", "error")
            }
        }
    }
}

/// A logger that keeps the messages for the report.
struct Log(Mutex<Vec<(Level, String)>>);

impl log::Log for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().push((record.level(), record.args().to_string()));
        }
    }

    fn flush(&self) {}
}
