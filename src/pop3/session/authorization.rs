//! The AUTHORIZATION state (RFC 1939 section 4): the commands before login, with STLS (RFC 2595) and AUTH (RFC 5034).

use std::time::{Duration, Instant};

use super::login::Claim;
use super::{Authorization, End, NoCommand, Session, State};
use crate::auth::sasl::{self, Exchange, Failure, Mechanism, Step};
use crate::auth::{Denied, Hidden};
use crate::events::{Method, Reason, What};
use crate::pop3::reply::{self, Refusal};
use crate::pop3::{Command, LINE_LIMIT};
use crate::shared::{HANDSHAKE_LIMIT, LOGIN_LIMIT};
use crate::wire::{Foreign, Line, Link, Tls};

impl<L: Link> Session<'_, L> {
    /// Carries out a command in the AUTHORIZATION state.
    pub(super) fn authorization(
        &mut self,
        state: Authorization,
        command: Result<Command, NoCommand>,
    ) -> Result<State, End> {
        if !self.limits.allow_command() {
            self.err(Refusal::TooManyCommands);
            self.output.flush()?;
            return Err(End::TooManyCommands);
        }
        match command {
            Ok(Command::User(name)) if !self.takes_passwords() => {
                self.refuse_login(&Claim::new(&name, Method::Pass), &Reason::NoTls)?;
            }
            Ok(Command::Pass(_)) if !self.takes_passwords() => self.err(Refusal::InClear), // as USER before it
            Ok(Command::User(name)) => {
                self.ok("send PASS"); // the same reply for unknown users, so that it does not show which accounts exist
                return Ok(State::Authorization(Authorization { user: Some(name) }));
            }
            Ok(Command::Pass(Hidden(password))) => match state.user {
                Some(name) => {
                    self.output.flush()?; // so that earlier replies do not wait for the verification
                    return self.log_in_by_password(Claim::new(&name, Method::Pass), &password);
                }
                None => self.err(Refusal::UserFirst),
            },
            Ok(Command::Apop { name, digest: Hidden(digest) }) => match &self.timestamp {
                Some(timestamp) => {
                    let timestamp = timestamp.clone();
                    let claim = Claim::new(&name, Method::Apop);
                    return self.log_in(claim, None, |users| users.authenticate_apop(&name, &timestamp, &digest));
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
                Some(mechanism) if mechanism.sends_password() => {
                    self.refuse_login(&Claim::without_name(Method::Auth(mechanism)), &Reason::NoTls)?;
                }
                _ => self.err(Refusal::NoMechanism),
            },
            Ok(Command::Stls) => match self.output.link.tls() {
                Tls::Ready => self.start_tls()?,
                Tls::Active => self.err(Refusal::TlsActive),
                Tls::Absent => self.err(Refusal::NoTls),
            },
            Ok(Command::Capa) => self.capabilities(self.output.link.tls() == Tls::Ready, None),
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

    /// Ends the session of a client that speaks another protocol. None of its further lines is read as a command.
    fn end_foreign<T>(&mut self, protocol: Foreign) -> Result<T, End> {
        self.err(Refusal::Foreign(protocol));
        self.output.flush()?;
        Err(End::Foreign(protocol))
    }

    /// Returns true if passwords are accepted: with TLS, from this machine, or if the operator allows it otherwise.
    pub(super) fn takes_passwords(&self) -> bool {
        self.output.link.is_private() || self.shared.settings().allow_cleartext
    }

    /// Carries out STLS (RFC 2595 section 4). Input that arrived after the command without TLS is discarded, because
    /// anyone on the network could have inserted it.
    fn start_tls(&mut self) -> Result<(), End> {
        self.ok("begin the TLS handshake");
        self.output.flush()?;
        self.lines.clear();
        match self.output.link.start_tls(Instant::now() + HANDSHAKE_LIMIT) {
            Ok(agreed) => {
                self.client.set_tls(&agreed);
                self.emit(What::Tls { agreed: &agreed });
            }
            Err(error) => return Err(End::Handshake(error)),
        }
        Ok(())
    }

    /// Returns the mechanisms of AUTH that can be used on this connection now.
    pub(super) fn mechanisms(&self) -> Vec<Mechanism> {
        let usable = |mechanism: &Mechanism| match mechanism {
            Mechanism::Plain | Mechanism::Login => self.takes_passwords(),
            Mechanism::ScramSha256 => self.abilities.scram,
            Mechanism::ScramSha256Plus => self.abilities.scram && self.output.link.channel_binding().is_some(),
        };
        Mechanism::ALL.into_iter().filter(usable).collect()
    }

    /// Carries out AUTH (RFC 5034 section 4): exchanges challenges and responses until the login succeeds or fails.
    fn authenticate(&mut self, mechanism: Mechanism, initial: Option<&Hidden<Vec<u8>>>) -> Result<State, End> {
        self.output.flush()?;
        let method = Method::Auth(mechanism);
        let mut verification = Duration::ZERO;
        let exchange = Exchange::new(mechanism, &self.shared.users).bound_to(self.output.link.channel_binding());
        let mut step = match initial {
            Some(response) => exchange.respond_initially(&response.0),
            None => exchange.ask(),
        };
        loop {
            match step {
                Step::Challenge(challenge, exchange) => {
                    reply::challenge(self.output.pending(), &challenge);
                    step = self.respond(exchange)?;
                }
                Step::Password(name, Hidden(password)) => {
                    return self.log_in_by_password(Claim::new(&name, method), &password);
                }
                // The attempt counts from here and not from the start of the exchange. Otherwise a client could start
                // exchanges before a penalty and complete them during it.
                Step::Proof(proof) => {
                    let name = proof.name.clone();
                    let claim = Claim::new(&name, method);
                    match self.prove(&claim, None, |_| proof.verify()) {
                        Ok(next) => step = next,
                        Err(reason) => return self.end_login(&claim, Err(reason)),
                    }
                    verification = claim.since.elapsed();
                }
                Step::Proven(login) => {
                    let name = login.user.clone();
                    let claim = Claim::new(name.as_str().as_bytes(), method).verified_in(verification);
                    return self.end_login(&claim, Ok(login));
                }
                Step::Denied(name) => {
                    return self.log_in(Claim::new(&name, method), None, |_| Err(Denied::OtherUser));
                }
                Step::Failed(failure) => {
                    self.refuse_login(&Claim::without_name(method), &Reason::Exchange(failure))?;
                    return Ok(State::Authorization(Authorization::default()));
                }
            }
        }
    }

    /// Passes the client's next line, which may be longer than a command, to an exchange.
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
}
