//! Verifies passwords by PAM for `pop3d`, in processes of its own. It is the only program that libpam is linked to.
//!
//! The server starts it with one end of a pair of sockets as its standard input, or systemd does with a UNIX socket. It is
//! the monitor then, and starts itself again as each of the workers.

use std::cell::RefCell;
use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use nix::unistd::User;
use nonstick::items::{Items, ItemsMut};
use nonstick::{
    AuthnFlags, ConversationAdapter, ErrorCode, PamShared, Result as PamResult, Transaction, TransactionBuilder,
};
use pop3d::pam::{self, Answer, Question, Verdict};

/// The longest password that PAM takes (PAM_MAX_RESP_SIZE is 512, with the NUL at the end).
const LONGEST_PASSWORD: usize = 511;

/// Some modules want a terminal's name; this is what they get.
const TTY: &str = "pop3d";

/// Verifies passwords by PAM for pop3d, which starts this program itself
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The service of PAM, which is the name of a file in /etc/pam.d
    #[arg(long, default_value = "pop3d")]
    service: String,

    /// How many passwords are verified at a time, each in a process of its own
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    processes: u16,

    /// How many seconds PAM may take for a password before the process is killed
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

fn main() -> ExitCode {
    let mut words = env::args_os().skip(1);
    let result = match (words.next(), words.next()) {
        (Some(word), Some(service)) if word == pam::WORKER => pam::work(|question| verify(&service, question)),
        _ => {
            let Args { service, processes, timeout } = Args::parse();
            let worker = ["/proc/self/exe", pam::WORKER, &service].map(OsString::from).to_vec();
            pam::watch(worker, processes.into(), Duration::from_secs(timeout))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What the modules are told, and what they say.
struct Talk {
    user: OsString,
    password: OsString,
    said: RefCell<Vec<String>>,
}

impl ConversationAdapter for &Talk {
    fn prompt(&self, _: impl AsRef<OsStr>) -> PamResult<OsString> {
        Ok(self.user.clone())
    }

    fn masked_prompt(&self, _: impl AsRef<OsStr>) -> PamResult<OsString> {
        Ok(self.password.clone())
    }

    fn error_msg(&self, message: impl AsRef<OsStr>) {
        self.said.borrow_mut().push(message.as_ref().to_string_lossy().into_owned());
    }

    fn info_msg(&self, message: impl AsRef<OsStr>) {
        self.error_msg(message);
    }
}

/// Asks PAM whether a password is right and the account may be used.
fn verify(service: &OsStr, question: &Question) -> Answer {
    let Question { user, password, address } = question;
    // For PAM, a text ends at a NUL. What is behind it would not count.
    if password.contains(&0) || password.len() > LONGEST_PASSWORD {
        return Answer::new(Verdict::Refused, "PAM takes no password with a NUL or of more than 511 octets");
    }
    if user.contains('\0') || address.contains('\0') {
        return Answer::new(Verdict::Unknown, "PAM takes no name with a NUL");
    }
    let password = OsString::from_vec(password.clone());
    let talk = Talk { user: user.into(), password, said: RefCell::default() };
    let (verdict, why) = match decide(service, &talk, address) {
        Ok(()) => (Verdict::Accepted, String::new()),
        Err(Refusal::NameChanged) => (Verdict::Refused, "a module has changed the user's name".to_owned()),
        Err(Refusal::Password(code)) => (verdict_of(code, user), code.to_string()),
        Err(Refusal::Account(code)) => (verdict_of_account(code), code.to_string()),
    };
    Answer { verdict, why, messages: talk.said.into_inner() }
}

/// Why PAM lets a user not in.
enum Refusal {
    /// `pam_authenticate` has failed.
    Password(ErrorCode),
    /// `pam_acct_mgmt` has failed.
    Account(ErrorCode),
    /// The user is another one now. That one's mail is not what the client has asked for.
    NameChanged,
}

fn decide(service: &OsStr, talk: &Talk, address: &str) -> Result<(), Refusal> {
    let started = TransactionBuilder::new_with_service(service).username(&talk.user).build(talk.into_conversation());
    let mut transaction = started.map_err(Refusal::Password)?;
    let given = (|| {
        let mut items = transaction.items_mut();
        items.set_tty_name(Some(TTY.as_ref()))?;
        items.set_remote_host(Some(address).filter(|address| !address.is_empty()).map(OsStr::new))
    })();
    given.map_err(Refusal::Password)?;
    let flags = AuthnFlags::DISALLOW_NULL_AUTHTOK;
    transaction.authenticate(flags).map_err(Refusal::Password)?;
    transaction.account_management(flags).map_err(Refusal::Account)?;
    let user = transaction.items().user().map_err(Refusal::Password)?;
    if user.as_ref() == Some(&talk.user) { Ok(()) } else { Err(Refusal::NameChanged) }
}

fn verdict_of(code: ErrorCode, user: &str) -> Verdict {
    use ErrorCode::{AuthenticationError, CredentialsInsufficient, MaxTries, PermissionDenied, UserUnknown};
    match code {
        // For most services the last module only says that the login has failed, also if there is no such user.
        AuthenticationError | CredentialsInsufficient | MaxTries | PermissionDenied => match User::from_name(user) {
            Ok(None) => Verdict::Unknown,
            _ => Verdict::Refused,
        },
        UserUnknown => Verdict::Unknown,
        _ => verdict_of_account(code),
    }
}

fn verdict_of_account(code: ErrorCode) -> Verdict {
    use ErrorCode::{
        AccountExpired, AuthTokExpired, AuthenticationError, CredentialsExpired, NewAuthTokRequired, PermissionDenied,
        UserUnknown,
    };
    match code {
        AccountExpired | AuthTokExpired | AuthenticationError | CredentialsExpired | NewAuthTokRequired
        | PermissionDenied | UserUnknown => Verdict::Closed,
        _ => Verdict::Unavailable,
    }
}
