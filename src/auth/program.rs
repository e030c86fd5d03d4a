//! A program as an account source, by the interface of checkpassword. How it is run is in [`crate::transform`].

use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{getgid, getuid};

use super::location::MailLocation;
use super::mailbox::Mailbox;
use super::name::UserName;
use super::outage::Outage;
use super::own_expiry::OwnExpiry;
use super::permits::Busy;
use super::session_limit::SessionLimit;
use super::source::{Answer, Attempt, Found, Source, Totals};
use super::text::restriction;
use super::verifier::Verifier;
use crate::clock::seconds_since_1970;
use crate::transform::{Reply, Transform};

/// The most octets of name, password and time, with a NUL behind each. The interface says so.
const MOST_CREDENTIALS: usize = 512;

/// The exit status of a program that refuses. Those beside 1 are vpopmail's, which Dovecot takes for the same.
const REFUSED: [i32; 9] = [1, 3, 12, 13, 15, 20, 21, 22, 23];

/// A program that knows accounts.
#[derive(Debug)]
pub(super) struct Program {
    program: Transform,
    name: String,
    timeout: Duration,
    outage: Outage,
    /// How many microseconds the last refusal took.
    refusal_took: AtomicU64,
}

impl Program {
    /// A source that runs this program, each time for `timeout` at the most.
    pub(super) fn new(program: Transform, timeout: Duration) -> Self {
        let name = format!("program {}", program.name());
        Self { program, name, timeout, outage: Outage::default(), refusal_took: AtomicU64::new(0) }
    }

    fn ask(&self, attempt: &Attempt<'_>) -> Result<Answer, String> {
        let Some(credentials) = credentials(attempt) else { return Ok(Answer::NotAccepted) };
        let mut environment = vec![("PROTO", "TCP".to_owned()), ("SERVICE", "pop3".to_owned())];
        environment.extend(attempt.address.map(|address| ("TCPREMOTEIP", address.to_string())));
        let reply =
            self.program.ask(&credentials, &environment, self.timeout).map_err(|failure| failure.to_string())?;
        match (reply.status.code(), reply) {
            (Some(0), Reply { report: Some(report), .. }) => self.accepted(attempt.user, &report),
            (Some(0), _) => Err("it has not become the program that its arguments name".to_owned()),
            (Some(code), _) if REFUSED.contains(&code) => Ok(Answer::NotAccepted),
            (Some(111), _) => Err("it cannot tell at present (exit status 111)".to_owned()),
            (_, Reply { status, .. }) => Err(unexpected(status)),
        }
    }

    /// Reads what the program has reported about a user whom it has accepted.
    fn accepted(&self, user: &UserName, report: &[(String, Vec<u8>)]) -> Result<Answer, String> {
        if let Some(restriction) = report.iter().find_map(|(name, _)| restriction(name.as_bytes())) {
            log::warn!("{} sets {restriction} for {user}, which is not supported, so the user is kept out", self.name);
            return Ok(Answer::NotAccepted);
        }
        let field = |name: &str| report.iter().find(|(it, _)| it == name).map(|(_, value)| &value[..]);
        let value = |name: &str| field(name).map(<[u8]>::to_vec);
        let text = |name: &str| value(name).map(|value| String::from_utf8_lossy(&value).into_owned());
        let name = text("user").filter(|name| name != user.as_str());
        let name = name.map(|name| name.parse().map_err(|error| format!("it names a user {name:?}: {error}")));
        let home = value("userdb_home").or_else(|| value("home")).filter(|home| !home.is_empty());
        let home = home.map(|home| OsString::from_vec(home).into());
        let location = value("userdb_mail").and_then(|mail| MailLocation::read(&mail, home.as_deref()));
        let given = |name: &str| text(name).filter(|id| !id.is_empty());
        // A program that may not change its ids has the server's, which are not the user's.
        let changed = |id: &str, own: u32| given(id).filter(|id| *id != own.to_string());
        let uid = given("userdb_uid").or_else(|| changed("uid", getuid().as_raw()));
        let gid = given("userdb_gid").or_else(|| changed("gid", getgid().as_raw()));
        let expiry = OwnExpiry::read(field).map_err(|field| format!("{field} cannot be used"))?;
        let session_limit = SessionLimit::read(field(SessionLimit::FIELD).unwrap_or_default());
        let session_limit = session_limit.map_err(|why| format!("{} {why}", SessionLimit::FIELD))?;
        let mailbox = Mailbox { home, uid, gid, location, expiry, session_limit, user: name.transpose()? };
        Ok(Answer::Accepted(Arc::new(mailbox)))
    }
}

impl Source for Program {
    fn name(&self) -> Cow<'_, str> {
        self.name.as_str().into()
    }

    fn tells_names(&self) -> bool {
        false
    }

    /// The program tells nothing without a password.
    fn find(&self, _: &UserName) -> Found {
        Found::Unknown
    }

    fn verify(&self, attempt: &Attempt<'_>, _: &Verifier) -> Result<Answer, Busy> {
        let since = Instant::now();
        let answer = match self.ask(attempt) {
            Ok(answer) => {
                self.outage.ends(&self.name);
                answer
            }
            Err(why) => {
                self.outage.begins(&self.name, &why);
                Answer::Unavailable
            }
        };
        if answer == Answer::NotAccepted {
            self.refusal_took.store(u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        Ok(answer)
    }

    /// The program is not run, because it may count wrong passwords.
    fn verify_in_vain(&self, _: &Attempt<'_>) {
        thread::sleep(Duration::from_micros(self.refusal_took.load(Ordering::Relaxed)));
    }

    fn totals(&self) -> Totals {
        Totals { some: true, some_unreadable: true, some_without_scram: true, ..Totals::default() }
    }

    fn names(&self) -> Vec<UserName> {
        Vec::new()
    }
}

/// Name, password and time, with a NUL behind each. `None` if the interface has no way to say them.
fn credentials(attempt: &Attempt<'_>) -> Option<Vec<u8>> {
    let seconds = seconds_since_1970().to_string();
    let parts = [attempt.user.as_str().as_bytes(), attempt.password, seconds.as_bytes()];
    let octets = parts.map(|part| [part, b"\0"].concat()).concat();
    let is_said = octets.len() <= MOST_CREDENTIALS && !attempt.password.contains(&0);
    is_said.then_some(octets)
}

fn unexpected(status: ExitStatus) -> String {
    format!("it ended with {status}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise a remembered password would come with other ids than the program has told.
    #[test]
    fn an_id_that_is_empty_is_none() {
        let program = Program::new(Transform::new("true", None).unwrap(), Duration::from_secs(1));
        let mailbox = |uid: &str| {
            let report = [("userdb_uid".to_owned(), uid.into()), ("userdb_gid".to_owned(), b"mail".to_vec())];
            let Ok(Answer::Accepted(mailbox)) = program.accepted(&"ana".parse().unwrap(), &report) else { panic!() };
            assert_eq!(Mailbox::decode(&mailbox.encode().unwrap()).as_ref(), Some(&*mailbox));
            mailbox
        };
        assert_eq!(mailbox("").uid, None);
        assert_eq!((mailbox("5000").uid.as_deref(), mailbox("").gid.as_deref()), (Some("5000"), Some("mail")));
    }

    #[test]
    fn credentials_have_a_nul_behind_each_part() {
        let user: UserName = "ana\"%'".parse().unwrap();
        let octets = |password: &[u8]| credentials(&Attempt { user: &user, password, address: None });
        let text = octets(b" a:b\n").unwrap();
        assert!(text.starts_with(b"ana\"%'\0 a:b\n\0") && text.ends_with(b"\0"));
        assert!(octets(&[b'x'; 480]).is_some());
        for unsaid in [&[b'x'; 512][..], &[b'x'; 1000], b"a\0b", b"\0"] {
            assert_eq!(octets(unsaid), None);
        }
    }
}
