//! Programs with the interface of checkpassword (<https://cr.yp.to/checkpwd/interface.html>): a program reads a name and a
//! password from descriptor 3 and, if they are right, becomes the program that its last arguments name, with what it knows
//! of the user in the environment.
//!
//! That program is this server's executable ([`report`]). It writes the environment to standard output, between two lines
//! that only the server knows, so that nothing else that is written there is taken for it.
//!
//! The launcher moves the credentials to descriptor 3 and opens the executable, so that a program finds it even if the file
//! has been replaced, and if it may not enter its directory.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, dup, fcntl_setfd};
use rustix::process::{getgid, getuid};
use rustix::stdio::{dup2_stdin, stdin};

use super::launch;
use super::whole::Nobody;
use super::{Failure, OURSELVES, Running, Transform};
use crate::acting;
use crate::auth::random;

/// The first argument of a launcher, whose command line is `ASK MARK RESTRICTION… -- PATH NAME ARGUMENT…`.
pub(super) const ASK: &str = "launch-checkpassword";

/// The first argument of the program that a checkpassword program becomes. The second one is the mark.
const REPORT: &str = "report-account";

/// The descriptor from which a program reads name and password.
const CREDENTIALS: i32 = 3;

/// The most octets that a program may write, with the report.
const MOST_OUTPUT: usize = 64 << 10;

/// The end of a program that was asked.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: ExitStatus,
    /// The names and values that the program has reported, if it has.
    pub(crate) report: Option<Vec<(String, Vec<u8>)>>,
}

impl Transform {
    /// Asks the program whether the `credentials` are right. After `timeout` its process group is killed.
    ///
    /// # Errors
    /// [`Failure`], if the program cannot be started, takes too long or writes too much.
    pub(crate) fn ask(
        &self,
        credentials: &[u8],
        environment: &[(&str, String)],
        timeout: Duration,
    ) -> Result<Reply, Failure> {
        let deadline = Instant::now() + timeout;
        let mark = random::<16>().map(|octet| format!("{octet:02x}")).concat();
        let mut running = self.start_asking(&mark, credentials, environment)?;
        let mut output = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            running.patience = Some(deadline.saturating_duration_since(Instant::now()));
            match running.read(&mut buffer, &mut Nobody(None))? {
                0 => break,
                read => output.extend_from_slice(&buffer[..read]),
            }
            if output.len() > MOST_OUTPUT {
                return Err(Failure::Io(io::Error::other(format!("it wrote more than {MOST_OUTPUT} octets"))));
            }
        }
        running.patience = Some(deadline.saturating_duration_since(Instant::now()));
        let status = match running.finish(&mut Nobody(None)) {
            Ok(()) => ExitStatus::default(),
            Err(Failure::Status(status)) => status,
            Err(failure) => return Err(failure),
        };
        Ok(Reply { status, report: reported(&output, &mark) })
    }

    fn start_asking(&self, mark: &str, credentials: &[u8], environment: &[(&str, String)]) -> Result<Running, Failure> {
        let path = self.program().map_err(io::Error::other)?;
        let inherited = ["PATH", "LANG"].into_iter().filter_map(|name| Some((name, env::var_os(name)?)));
        let mut command = Command::new(OURSELVES);
        command.arg(ASK).arg(mark).args(&self.restrictions).arg("--").arg(path).arg(&self.program);
        command.args(&self.arguments).env_clear().envs(inherited);
        command.envs(environment.iter().map(|(name, value)| (*name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = acting::spawn(&mut command)?;
        if let Some(mut pipe) = child.stdin.take() {
            // The pipe has room for them. A program that does not read them has its own reason.
            let _ = pipe.write_all(credentials);
        }
        Running::follow(child, None, None)
    }
}

/// Becomes the program, which is to become [`report`] in turn.
pub(super) fn become_program(mut arguments: impl Iterator<Item = OsString>) -> io::Result<io::Error> {
    let missing = |what: &str| io::Error::other(format!("no {what}"));
    let mark = arguments.next().ok_or_else(|| missing("mark"))?;
    launch::restrict_by(arguments.by_ref().take_while(|argument| argument != "--"))?;
    let path = arguments.next().ok_or_else(|| missing("program"))?;
    let name = arguments.next().ok_or_else(|| missing("name of the program"))?;
    let credentials = dup(stdin())?; // the lowest free number, which is that of the credentials
    if credentials.as_raw_fd() != CREDENTIALS {
        return Err(io::Error::other("descriptor 3 is in use"));
    }
    dup2_stdin(File::open("/dev/null")?)?;
    let ourselves = File::open(OURSELVES)?;
    fcntl_setfd(&ourselves, FdFlags::empty())?;
    let report = format!("/proc/self/fd/{}", ourselves.as_raw_fd());
    let error = Command::new(&path).arg0(name).args(arguments).arg(report).arg(REPORT).arg(mark).exec();
    Ok(io::Error::new(error.kind(), format!("cannot run {}: {error}", path.display())))
}

/// If a checkpassword program has become this process, writes what the program has set. Returns `None` for all other
/// processes.
#[must_use]
pub fn report(arguments: env::ArgsOs) -> Option<ExitCode> {
    let mut arguments = arguments.skip(1);
    if arguments.next()? != REPORT {
        return None;
    }
    let text = report_text(&arguments.next()?.into_vec(), |name| env::var_os(name));
    // A program for Dovecot has looked an account up without a password.
    let is_look_up = env::var_os("AUTHORIZED").is_some_and(|value| value == "2");
    match io::stdout().write_all(&text).and_then(|()| io::stdout().flush()) {
        Ok(()) if is_look_up => Some(ExitCode::from(2)),
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(_) => Some(ExitCode::from(111)),
    }
}

/// The report: the mark, each name and value, the mark. `EXTRA` has the names of further variables.
fn report_text(mark: &[u8], variable: impl Fn(&OsStr) -> Option<OsString>) -> Vec<u8> {
    let mut pairs: Vec<(String, Vec<u8>)> =
        vec![("uid".into(), getuid().to_string().into()), ("gid".into(), getgid().to_string().into())];
    let named = |name: &str| Some((name.to_lowercase(), variable(name.as_ref())?.into_vec()));
    pairs.extend(["USER", "HOME"].into_iter().filter_map(named));
    let extra = variable("EXTRA".as_ref()).unwrap_or_default();
    pairs
        .extend(String::from_utf8_lossy(extra.as_bytes()).split(' ').filter(|name| !name.is_empty()).filter_map(named));
    let mut text = [b"\n", mark, b"\n"].concat();
    for (name, value) in pairs {
        text.extend([name.as_bytes(), b"=", &value, b"\0"].concat());
    }
    text.extend([b"\n", mark, b"\n"].concat());
    text
}

/// Finds a report in the output of a program.
fn reported(output: &[u8], mark: &str) -> Option<Vec<(String, Vec<u8>)>> {
    let mark = format!("\n{mark}\n");
    let find = |octets: &[u8]| memchr::memmem::find(octets, mark.as_bytes());
    let rest = &output[find(output)? + mark.len()..];
    let pairs = rest[..find(rest)?].split(|&octet| octet == 0).filter_map(|pair| {
        let end = memchr::memchr(b'=', pair)?;
        Some((String::from_utf8_lossy(&pair[..end]).into_owned(), pair[end + 1..].to_vec()))
    });
    Some(pairs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_found_among_other_output() {
        let variable = |name: &OsStr| match name.to_str()? {
            "USER" => Some("ana".into()),
            "HOME" => Some(OsString::from_vec(b"/h=\n\xff".to_vec())),
            "EXTRA" => Some("userdb_mail  missing USERDB_quota".into()),
            "userdb_mail" => Some("".into()),
            "USERDB_quota" => Some("1".into()),
            _ => None,
        };
        let text = report_text(b"mark", variable);
        let noise = [b"hello\n\nmar".as_slice(), &text, b"\nmark\nuser=eve\0\nmark\n"].concat();
        let report = reported(&noise, "mark").unwrap();
        let value = |name: &str| report.iter().find(|(it, _)| it == name).map(|(_, value)| &value[..]);
        assert_eq!(value("user"), Some(&b"ana"[..]));
        assert_eq!(value("home"), Some(&b"/h=\n\xff"[..]));
        assert_eq!((value("userdb_mail"), value("userdb_quota")), (Some(&b""[..]), Some(&b"1"[..])));
        assert_eq!(value("uid"), Some(getuid().to_string().as_bytes()));
        assert_eq!(report.len(), 6);
        for nothing in [&b""[..], b"\nmark\n", &text[..text.len() - 1], b"mark\nuser=ana\0\nmark\n"] {
            assert!(reported(nothing, "mark").is_none());
        }
    }
}
