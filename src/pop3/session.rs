//! A POP3 session: its three states, each with only the data that it may use, and the loop that drives them.
//!
//! Only [`Session::update`] removes messages, and only QUIT calls it. If a session ends in any other way, its
//! [`Transaction`] is dropped, which removes nothing and releases the maildrop.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::time::Instant;

use super::reply::{self, Fault, Offer, Refusal};
use super::transfer::{self, Body, TransferError};
use super::{Command, LINE_LIMIT};
use crate::auth::sasl::{self, Exchange, Failure, Mechanism, Step};
use crate::auth::{self, Abilities, Denied, Hidden, UserName, Users};
use crate::guard::{NotLookedAt, Probation, Visit};
use crate::maildrop::{Lock, Maildrop, Message, MessageNumber, OpenError, OpenMessage, Update};
use crate::shared::{HANDSHAKE_LIMIT, LOGIN_LIMIT, Shared};
use crate::transform::Subject;
use crate::wire::{Foreign, Line, Lines, Link, Output, Tls, is_timeout};

/// Why a session ended.
#[derive(Debug)]
pub enum End {
    /// QUIT
    Quit,
    /// The client closed the connection, or it was lost.
    HangUp,
    /// The client sent no command for too long (RFC 1939 section 3), or did not log in in time.
    Timeout,
    /// The client did not read what it had asked for, or read too slowly.
    Stalled,
    /// There were too many failed logins, on this connection or from this address.
    FailedLogins,
    /// The client sent too many commands without logging in.
    TooManyCommands,
    /// The client spoke another protocol before it had logged in.
    Foreign(Foreign),
    /// The server is shutting down.
    ShuttingDown,
    /// The client's TLS handshake did not succeed.
    Handshake(io::Error),
    /// A message could not be sent to its end.
    Failed(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => {
                Self::HangUp
            }
            _ if is_timeout(&error) => Self::Stalled,
            _ => Self::Failed(error),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quit => f.write_str("quit"),
            Self::HangUp => f.write_str("client hung up"),
            Self::Timeout => f.write_str("timeout"),
            Self::Stalled => f.write_str("client reads too slowly"),
            Self::FailedLogins => f.write_str("too many failed logins"),
            Self::TooManyCommands => f.write_str("too many commands before login"),
            Self::Foreign(protocol) => write!(f, "client speaks {protocol}"),
            Self::ShuttingDown => f.write_str("server shutting down"),
            Self::Handshake(error) => write!(f, "TLS handshake failed: {error}"),
            Self::Failed(error) => write!(f, "failed: {error}"),
        }
    }
}

/// What a session did, for the last log line about it.
#[derive(Debug)]
pub struct Summary {
    /// Why it ended.
    pub end: End,
    /// Messages sent by RETR.
    pub retrieved: u64,
    /// Octets of these messages.
    pub octets: u64,
    /// Messages removed.
    pub deleted: u64,
    /// Messages that were marked as deleted and stay, because the session did not end with QUIT.
    pub kept: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { end, retrieved, octets, deleted, kept } = self;
        write!(f, "end: {end}; retrieved={retrieved} octets={octets} deleted={deleted}")?;
        if *kept > 0 { write!(f, " marks-dropped={kept}") } else { Ok(()) }
    }
}

/// Runs a POP3 session over `link` until it ends. `name` identifies the session in the log.
pub fn serve<L: Link>(link: L, shared: &Shared, visit: &Visit, name: &str) -> Summary {
    let summary = Summary { end: End::HangUp, retrieved: 0, octets: 0, deleted: 0, kept: 0 };
    let abilities = shared.users.abilities();
    let mut session = Session {
        shared,
        name,
        connected: Instant::now(),
        abilities,
        timestamp: abilities.apop.then(auth::timestamp),
        lines: Lines::new(LINE_LIMIT),
        output: Output::new(link),
        probation: Probation::new(visit),
        summary,
    };
    let Err(end) = session.run();
    session.summary.end = end;
    session.summary
}

struct Session<'a, L> {
    shared: &'a Shared,
    name: &'a str,
    connected: Instant,
    /// The mechanisms that every account supported when the greeting was sent. CAPA announces the same.
    abilities: Abilities,
    /// The timestamp with which the greeting announces APOP, if it does.
    timestamp: Option<String>,
    lines: Lines,
    output: Output<L>,
    probation: Probation<'a>,
    summary: Summary,
}

/// A line that is not a command.
struct NoCommand {
    why: String,
    /// The other protocol that the line looks like, if any.
    protocol: Option<Foreign>,
}

enum State {
    Authorization(Authorization),
    Transaction(Transaction),
}

/// Before login.
#[derive(Default)]
struct Authorization {
    /// The name that the preceding command gave, if that was USER.
    user: Option<Vec<u8>>,
}

/// After login. Fields are dropped in this order, so the lock is released last.
struct Transaction {
    maildrop: Maildrop,
    lock: Lock,
}

impl<L: Link> Session<'_, L> {
    /// Runs the session. Every end of it is an `Err`, so that `?` leaves from any depth.
    fn run(&mut self) -> Result<Infallible, End> {
        let mut since = self.connected;
        let mut state = State::Authorization(Authorization::default());
        match self.timestamp.clone() {
            Some(timestamp) => self.ok(format_args!("{} {timestamp}", reply::GREETING)),
            None => self.ok(reply::GREETING),
        }
        loop {
            while let Some(command) = self.next_command(matches!(state, State::Authorization(_))) {
                if self.shared.connections.is_closing() {
                    self.output.flush()?;
                    return Err(End::ShuttingDown);
                }
                match &command {
                    Ok(command) => log::debug!("{} {command}", self.name),
                    Err(no_command) => log::debug!("{} no command: {}", self.name, no_command.why),
                }
                state = match state {
                    State::Authorization(authorization) => self.authorization(authorization, command)?,
                    State::Transaction(transaction) => self.transaction(transaction, command)?,
                };
                self.output.flush_if_large()?;
                since = Instant::now();
            }
            self.output.flush()?;
            self.output.release();
            let login_by = matches!(state, State::Authorization(_)).then(|| self.connected + LOGIN_LIMIT);
            self.await_input(since, login_by)?;
        }
    }

    /// The next command that has arrived completely. `Err` is a line that is not a command.
    fn next_command(&mut self, before_login: bool) -> Option<Result<Command, NoCommand>> {
        if before_login && self.lines.begin_tls() {
            return Some(Err(NoCommand {
                why: Refusal::Foreign(Foreign::Tls).to_string(),
                protocol: Some(Foreign::Tls),
            }));
        }
        Some(match self.lines.next()? {
            Line::Complete(line) => {
                Command::parse(line).map_err(|error| NoCommand { why: error.to_string(), protocol: Foreign::of(line) })
            }
            Line::TooLong => Err(NoCommand { why: Refusal::TooLong.to_string(), protocol: None }),
        })
    }

    /// Waits for input. The autologout timer runs since the last complete command, so a part of one does not reset it.
    /// The setting is read anew each time, because PEEP may have changed it.
    fn await_input(&mut self, since: Instant, login_by: Option<Instant>) -> Result<(), End> {
        let settings = &self.shared.settings;
        let deadline = || {
            let logout = settings.timeout().map(|timeout| since + timeout);
            [logout, login_by].into_iter().flatten().min()
        };
        let overdue = || deadline().is_some_and(|deadline| Instant::now() >= deadline);
        loop {
            self.output.link.expect_command(since, deadline());
            match self.lines.fill(&mut self.output.link) {
                Ok(0) if self.shared.connections.is_closing() => return Err(End::ShuttingDown),
                // Also if there is input, because it may arrive octet by octet or be anything but a login.
                Ok(_) if overdue() => return Err(End::Timeout),
                Ok(0) => return Err(End::HangUp),
                Ok(_) => return Ok(()),
                Err(error) if is_timeout(&error) => {
                    if overdue() {
                        return Err(End::Timeout);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn authorization(&mut self, state: Authorization, command: Result<Command, NoCommand>) -> Result<State, End> {
        if !self.probation.may_go_on() {
            self.err(Refusal::TooManyCommands);
            self.output.flush()?;
            return Err(End::TooManyCommands);
        }
        match command {
            Ok(Command::User(_) | Command::Pass(_)) if !self.takes_passwords() => self.err(Refusal::InClear),
            Ok(Command::User(name)) => {
                self.ok("send PASS"); // the same for unknown users, so as not to tell who exists
                return Ok(State::Authorization(Authorization { user: Some(name) }));
            }
            Ok(Command::Pass(Hidden(password))) => match state.user {
                Some(name) => {
                    self.output.flush()?; // earlier replies do not wait for the verification
                    return self.log_in(&name, Some(&password), |users| users.authenticate(&name, &password));
                }
                None => self.err(Refusal::UserFirst),
            },
            Ok(Command::Apop { name, digest: Hidden(digest) }) => match &self.timestamp {
                Some(timestamp) => {
                    let timestamp = timestamp.clone();
                    return self.log_in(&name, None, |users| users.authenticate_apop(&name, &timestamp, &digest));
                }
                None => self.err(Refusal::NoApop),
            },
            Ok(Command::Auth(None)) => {
                let mechanisms = self.mechanisms();
                reply::mechanisms(self.output.pending(), &mechanisms);
            }
            Ok(Command::Auth(Some(auth))) => match Mechanism::named(&auth.mechanism) {
                Some(mechanism) if self.mechanisms().contains(&mechanism) => {
                    return self.authenticate(mechanism, auth.initial.as_ref());
                }
                Some(Mechanism::Plain) => self.err(Refusal::InClear),
                _ => self.err(Refusal::NoMechanism),
            },
            Ok(Command::Stls) => match self.output.link.tls() {
                Tls::Ready => self.start_tls()?,
                Tls::Active => self.err(Refusal::TlsActive),
                Tls::Absent => self.err(Refusal::NoTls),
            },
            Ok(Command::Capa) => self.capabilities(self.output.link.tls() == Tls::Ready),
            Ok(Command::Quit) => {
                self.ok("bye");
                return self.quit();
            }
            Ok(
                Command::Stat
                | Command::List(_)
                | Command::Retr(_)
                | Command::Dele(_)
                | Command::Noop
                | Command::Rset
                | Command::Top { .. }
                | Command::Uidl(_),
            ) => self.err(Refusal::LoginFirst),
            Err(NoCommand { protocol: Some(protocol), .. }) => return self.end_foreign(protocol),
            Err(NoCommand { why, .. }) => self.err(why),
        }
        Ok(State::Authorization(Authorization::default()))
    }

    /// Ends the session of a client that speaks another protocol, before any of its lines is taken for a command.
    fn end_foreign<T>(&mut self, protocol: Foreign) -> Result<T, End> {
        self.err(Refusal::Foreign(protocol));
        self.output.flush()?;
        Err(End::Foreign(protocol))
    }

    /// Returns true if passwords are accepted: with TLS, from this machine, or if the operator allows it otherwise.
    fn takes_passwords(&self) -> bool {
        self.output.link.is_private() || self.shared.allow_cleartext
    }

    /// STLS (RFC 2595 section 4). What the client sent behind it without TLS is discarded, because anyone on the
    /// network could have inserted it.
    fn start_tls(&mut self) -> Result<(), End> {
        self.ok("begin the TLS handshake");
        self.output.flush()?;
        self.lines.clear();
        match self.output.link.start_tls(Instant::now() + HANDSHAKE_LIMIT) {
            Ok(agreed) => log::info!("{} TLS: {agreed}", self.name),
            Err(error) => return Err(End::Handshake(error)),
        }
        Ok(())
    }

    /// The mechanisms of AUTH that can be used on this connection now.
    fn mechanisms(&self) -> Vec<Mechanism> {
        let usable = |mechanism: &Mechanism| match mechanism {
            Mechanism::Plain => self.takes_passwords(),
            Mechanism::ScramSha256 => self.abilities.scram,
        };
        Mechanism::ALL.into_iter().filter(usable).collect()
    }

    /// AUTH (RFC 5034 section 4): challenges and responses until the client has logged in or failed to.
    fn authenticate(&mut self, mechanism: Mechanism, initial: Option<&Hidden<Vec<u8>>>) -> Result<State, End> {
        self.output.flush()?;
        let exchange = Exchange::new(mechanism, &self.shared.users);
        let mut step = match initial {
            Some(response) => exchange.respond_initially(&response.0),
            None => Step::Challenge(Vec::new(), exchange),
        };
        loop {
            match step {
                Step::Challenge(challenge, exchange) => {
                    reply::challenge(self.output.pending(), &challenge);
                    step = self.respond(exchange)?;
                }
                Step::Password(name, Hidden(password)) => {
                    return self.log_in(&name, Some(&password), |users| users.authenticate(&name, &password));
                }
                // The attempt counts here and not when the exchange begins. Otherwise exchanges that began before a
                // penalty could be completed during it.
                Step::Proof(proof) => match self.prove(&proof.name.clone(), None, |_| proof.verify()) {
                    Ok(next) => step = next,
                    Err(refusal) => return self.end_login(Err(refusal)),
                },
                Step::Proven(user) => return self.end_login(Ok(user)),
                Step::Denied(name) => return self.log_in(&name, None, |_| Err(Denied::Credentials)),
                Step::Failed(failure) => {
                    self.err(Refusal::Exchange(failure));
                    return Ok(State::Authorization(Authorization::default()));
                }
            }
        }
    }

    /// Passes the client's next line to an exchange. It may be longer than a command.
    fn respond<'e>(&mut self, exchange: Exchange<'e>) -> Result<Step<'e>, End> {
        let since = Instant::now();
        self.lines.set_limit(sasl::LINE_LIMIT);
        let step = loop {
            match self.lines.next() {
                Some(Line::Complete(line)) => break exchange.respond(line),
                Some(Line::TooLong) => break Step::Failed(Failure::TooLong),
                None => {
                    self.output.flush()?;
                    self.output.release();
                    self.await_input(since, Some(self.connected + LOGIN_LIMIT))?;
                }
            }
        };
        self.lines.set_limit(LINE_LIMIT);
        Ok(step)
    }

    /// A login in one step: `prove` checks the credentials for `name`. `secret` is the password, if the client sent
    /// one; the same wrong password again counts less.
    fn log_in(
        &mut self,
        name: &[u8],
        secret: Option<&[u8]>,
        prove: impl FnOnce(&Users) -> Result<UserName, Denied>,
    ) -> Result<State, End> {
        let proven = self.prove(name, secret, prove);
        self.end_login(proven)
    }

    /// Completes a login of any command: opens the maildrop, or answers -ERR.
    fn end_login(&mut self, proven: Result<UserName, Refusal>) -> Result<State, End> {
        match proven.and_then(|user| self.open_maildrop(user)) {
            Ok(transaction) => {
                self.output.link.set_logged_in();
                self.ok("maildrop open");
                return Ok(State::Transaction(transaction));
            }
            Err(refusal) => self.refuse_login(refusal)?,
        }
        Ok(State::Authorization(Authorization::default()))
    }

    /// Checks credentials, unless logins from the client's address are refused at present. All login attempts are
    /// counted here.
    fn prove<T>(
        &mut self,
        name: &[u8],
        secret: Option<&[u8]>,
        prove: impl FnOnce(&Users) -> Result<T, Denied>,
    ) -> Result<T, Refusal> {
        let shown = String::from_utf8_lossy(name);
        let attempt = self.probation.attempt(name, secret).map_err(|why| match why {
            NotLookedAt::Penalty(penalty) => {
                log::warn!("{} login refused: user={shown:?}, too many failed logins, for {penalty}", self.name);
                Refusal::Penalty(penalty)
            }
            NotLookedAt::Busy => {
                log::warn!("{} login refused: user={shown:?}, too many at once from the client's address", self.name);
                Refusal::Busy
            }
        })?;
        match prove(&self.shared.users) {
            Ok(proven) => {
                self.probation.succeeded(attempt);
                Ok(proven)
            }
            Err(Denied::Credentials) => {
                log::warn!("{} login failed: user={shown:?}", self.name);
                self.probation.failed(attempt);
                Err(Refusal::Credentials)
            }
            Err(Denied::Busy) => {
                log::warn!("{} login refused: user={shown:?}, too many are verified", self.name);
                Err(Refusal::Busy)
            }
        }
    }

    fn open_maildrop(&self, user: UserName) -> Result<Transaction, Refusal> {
        let shown = user.to_string();
        let unopened = |error: io::Error| {
            log::error!("{} login refused: user={shown:?}, the maildrop cannot be opened: {error}", self.name);
            Refusal::Maildrop(Fault::from(&error))
        };
        let location = self.shared.settings.mail_root().location(user).map_err(unopened)?;
        let lock = self.shared.locks.lock(&location).map_err(unopened)?.ok_or_else(|| {
            log::warn!("{} login refused: user={shown:?}, the maildrop is in use", self.name);
            Refusal::InUse
        })?;
        let maildrop = Maildrop::open(location).map_err(unopened)?;
        self.shared.stats.logins.add(1);
        log::info!("{} login: user={shown:?} messages={} octets={}", self.name, maildrop.count(), maildrop.octets());
        Ok(Transaction { maildrop, lock })
    }

    /// Answers a failed login, and ends the session if no further one is allowed.
    fn refuse_login(&mut self, refusal: Refusal) -> Result<(), End> {
        self.err(refusal);
        if self.probation.is_over() || matches!(refusal, Refusal::Penalty(_)) {
            self.output.flush()?;
            return Err(End::FailedLogins);
        }
        Ok(())
    }

    fn transaction(&mut self, mut state: Transaction, command: Result<Command, NoCommand>) -> Result<State, End> {
        match command {
            Ok(Command::Quit) => {
                self.update(state);
                return self.quit();
            }
            Ok(Command::Stat) => self.ok(format_args!("{} {}", state.maildrop.count(), state.maildrop.octets())),
            Ok(Command::List(None)) => self.scan_listings(&state.maildrop)?,
            Ok(Command::List(Some(number))) => match state.maildrop.message(number) {
                Some(message) => self.ok(format_args!("{number} {}", message.octets())),
                None => self.err(Refusal::NoSuchMessage),
            },
            Ok(Command::Uidl(None)) => self.unique_id_listings(&state.maildrop)?,
            Ok(Command::Uidl(Some(number))) => match state.maildrop.message(number) {
                Some(message) => self.ok(format_args!("{number} {}", String::from_utf8_lossy(&message.unique_id()))),
                None => self.err(Refusal::NoSuchMessage),
            },
            Ok(Command::Retr(number)) => {
                if let Some(octets) = self.send_message(&mut state, number, Body::Whole)? {
                    self.shared.stats.retrieved.add(1);
                    self.summary.retrieved += 1;
                    self.summary.octets += octets;
                }
            }
            Ok(Command::Top { message, lines }) => {
                self.send_message(&mut state, message, Body::Lines(lines))?;
            }
            Ok(Command::Dele(number)) if state.lock.is_read_only() && state.maildrop.message(number).is_some() => {
                self.err(Refusal::ReadOnly);
            }
            Ok(Command::Dele(number)) if state.maildrop.mark(number) => {
                self.summary.kept += 1;
                self.ok("marked as deleted");
            }
            Ok(Command::Dele(_)) => self.err(Refusal::NoSuchMessage),
            Ok(Command::Rset) => {
                state.maildrop.reset();
                self.summary.kept = 0;
                self.ok("no message is marked as deleted");
            }
            Ok(Command::Noop) => self.ok("still here"),
            Ok(Command::Capa) => self.capabilities(false),
            Ok(Command::User(_) | Command::Pass(_) | Command::Apop { .. } | Command::Auth(_) | Command::Stls) => {
                self.err(Refusal::LoggedIn)
            }
            Err(NoCommand { why, .. }) => self.err(why),
        }
        Ok(State::Transaction(state))
    }

    /// The UPDATE state (RFC 1939 section 6). The maildrop is free before the client knows that it is done.
    fn update(&mut self, state: Transaction) {
        let Transaction { maildrop, lock } = state;
        let update = if maildrop.marked() == 0 || lock.is_exclusive() {
            maildrop.commit()
        } else {
            log::error!("{} nothing is removed: the maildrop's lock file has been taken away", self.name);
            Update { removed: 0, failed: maildrop.marked() as u64 }
        };
        drop(lock);
        self.shared.stats.removed.add(update.removed);
        self.summary.deleted = update.removed;
        self.summary.kept = 0;
        if update.failed == 0 { self.ok("bye") } else { self.err(Refusal::NotRemoved) }
    }

    fn quit(&mut self) -> Result<State, End> {
        self.output.finish()?;
        Err(End::Quit)
    }

    fn scan_listings(&mut self, maildrop: &Maildrop) -> io::Result<()> {
        self.ok(format_args!("{} messages ({} octets)", maildrop.count(), maildrop.octets()));
        for (number, message) in maildrop.messages() {
            reply::scan_listing(self.output.pending(), number, message.octets());
            self.output.flush_if_large()?;
        }
        reply::end(self.output.pending());
        Ok(())
    }

    fn unique_id_listings(&mut self, maildrop: &Maildrop) -> io::Result<()> {
        self.ok("unique-id listing follows");
        for (number, message) in maildrop.messages() {
            reply::unique_id_listing(self.output.pending(), number, &message.unique_id());
            self.output.flush_if_large()?;
        }
        reply::end(self.output.pending());
        Ok(())
    }

    /// Sends a message, or -ERR; the octets sent if it was sent.
    fn send_message(&mut self, state: &mut Transaction, number: MessageNumber, body: Body) -> Result<Option<u64>, End> {
        if state.maildrop.message(number).is_none() {
            self.err(Refusal::NoSuchMessage);
            return Ok(None);
        }
        let sent = match state.maildrop.open_message(number) {
            Ok(message) => self.transfer(state, number, message, body),
            Err(OpenError::Changed) => Err(TransferError::changed()),
            Err(OpenError::Io(error)) => Err(TransferError::unreadable(error)),
        };
        match sent {
            Ok(octets) => {
                log::trace!("{} +OK {octets} octets sent", self.name);
                Ok(Some(octets))
            }
            Err(TransferError::Refused(refusal, error)) => {
                log::error!("{} message {number} was not sent: {error}", self.name);
                self.err(refusal);
                Ok(None)
            }
            Err(TransferError::Cut(error)) => {
                log::error!("{} message {number} was cut off: {error}", self.name);
                Err(error.into())
            }
            Err(TransferError::Broken(error)) => Err(error.into()),
        }
    }

    fn transfer(
        &mut self,
        state: &mut Transaction,
        number: MessageNumber,
        message: OpenMessage,
        body: Body,
    ) -> Result<u64, TransferError> {
        let Some(transform) = &self.shared.transform else {
            let told = message.octets;
            let octets = transfer::stored(&mut self.output, message, body)?;
            if body == Body::Whole && octets != told {
                log::warn!("{} message {number} was listed with {told} octets and has {octets}", self.name);
                state.maildrop.correct_octets(number, octets);
            }
            return Ok(octets);
        };
        let unique_id = state.maildrop.message(number).map(Message::unique_id).unwrap_or_default();
        let subject =
            Subject { user: state.lock.user().as_str(), unique_id: &String::from_utf8_lossy(&unique_id), number };
        let running = transform.start(message.file, subject).map_err(TransferError::transform)?;
        let input_pending = !self.lines.is_empty();
        transfer::transformed(&mut self.output, running, input_pending, body)
    }

    fn capabilities(&mut self, stls: bool) {
        log::trace!("{} +OK capabilities", self.name);
        let offer = Offer { user: self.takes_passwords(), stls, mechanisms: self.mechanisms() };
        reply::capabilities(self.output.pending(), &offer);
    }

    fn ok(&mut self, text: impl fmt::Display) {
        log::trace!("{} +OK {text}", self.name);
        reply::ok(self.output.pending(), text);
    }

    fn err(&mut self, text: impl fmt::Display) {
        log::trace!("{} -ERR {text}", self.name);
        reply::err(self.output.pending(), text);
    }
}
