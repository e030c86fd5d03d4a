//! The TRANSACTION state (RFC 1939 section 5): listings, messages and marks.

use std::io;
use std::time::Instant;

use super::{End, NoCommand, Session, State, Transaction};
use crate::events::{Sent, TransformResult, What};
use crate::maildrop::{Maildrop, MessageNumber, OpenMessage};
use crate::pop3::Command;
use crate::pop3::reply::{self, Refusal};
use crate::pop3::transfer::{self, Body, TransferError, Transferred};
use crate::transform::{OnFailure, Subject, Transform};
use crate::wire::Link;

impl<L: Link> Session<'_, L> {
    /// Carries out a command in the TRANSACTION state.
    pub(super) fn transaction(
        &mut self,
        mut state: Box<Transaction>,
        command: Result<Command, NoCommand>,
    ) -> Result<State, End> {
        match command {
            Ok(Command::Quit) => {
                self.update(*state)?;
                return self.quit();
            }
            Ok(Command::Stat) => {
                let octets = self.sizes().of_all(&state.maildrop);
                self.ok(format_args!("{} {octets}", state.maildrop.count()));
            }
            Ok(Command::List(None)) => self.scan_listings(&state.maildrop)?,
            Ok(Command::List(Some(number))) => match state.maildrop.octets_of(number) {
                Some(octets) => {
                    let octets = self.sizes().of(number.get() as usize, octets);
                    self.ok(format_args!("{number} {octets}"));
                }
                None => self.err(Refusal::NoSuchMessage),
            },
            Ok(Command::Uidl(None)) => self.unique_id_listings(&state.maildrop)?,
            Ok(Command::Uidl(Some(number))) => match state.maildrop.unique_id(number) {
                Some(id) => self.ok(format_args!("{number} {}", String::from_utf8_lossy(&id))),
                None => self.err(Refusal::NoSuchMessage),
            },
            Ok(Command::Retr(number)) => {
                let body = self.body(&state.maildrop, number, None);
                if let Some(octets) = self.send_message(&mut state, number, body)? {
                    self.client.progress.retrieved.add(1);
                    self.counts.retrieved += 1;
                    self.counts.octets += octets;
                    if body == Body::Whole {
                        state.maildrop.note_retrieved(number);
                    }
                }
            }
            Ok(Command::Top { message, lines }) => {
                let body = self.body(&state.maildrop, message, Some(lines));
                self.send_message(&mut state, message, body)?;
            }
            Ok(Command::Dele(number)) if state.lock.is_read_only() && state.maildrop.message(number).is_some() => {
                self.err(Refusal::ReadOnly);
            }
            Ok(Command::Dele(number)) if state.maildrop.refuses_marks() && state.maildrop.message(number).is_some() => {
                self.err(Refusal::KeepsAll);
            }
            Ok(Command::Dele(number)) if state.maildrop.mark(number) => {
                self.counts.kept += 1;
                self.client.progress.set_marked(state.maildrop.marked());
                self.ok("marked as deleted");
            }
            Ok(Command::Dele(_)) => self.err(Refusal::NoSuchMessage),
            Ok(Command::Rset) => {
                state.maildrop.reset();
                self.counts.kept = 0;
                self.client.progress.set_marked(0);
                self.ok("no message is marked as deleted");
            }
            Ok(Command::Noop) => self.ok("still here"),
            Ok(Command::Capa) => self.capabilities(false, Some(state.lock.location().expiry())),
            Ok(Command::User(_) | Command::Pass(_) | Command::Apop { .. } | Command::Auth(_) | Command::Stls) => {
                self.err(Refusal::LoggedIn)
            }
            Err(NoCommand { why, .. }) => self.err(why),
        }
        Ok(State::Transaction(state))
    }

    /// Answers LIST without a message number.
    fn scan_listings(&mut self, maildrop: &Maildrop) -> io::Result<()> {
        let sizes = self.sizes();
        self.ok(format_args!("{} messages ({} octets)", maildrop.count(), sizes.of_all(maildrop)));
        for (number, octets) in maildrop.sizes() {
            reply::scan_listing(self.output.pending(), number, sizes.of(number, octets));
            self.output.flush_if_large()?;
        }
        reply::end(self.output.pending());
        Ok(())
    }

    /// Answers UIDL without a message number.
    fn unique_id_listings(&mut self, maildrop: &Maildrop) -> io::Result<()> {
        self.ok("unique-id listing follows");
        for (number, id) in maildrop.unique_ids() {
            reply::unique_id_listing(self.output.pending(), number, &id);
            self.output.flush_if_large()?;
        }
        reply::end(self.output.pending());
        Ok(())
    }

    /// Sends a message, or answers -ERR. Returns the number of octets if the message was sent.
    fn send_message(&mut self, state: &mut Transaction, number: MessageNumber, body: Body) -> Result<Option<u64>, End> {
        if state.maildrop.message(number).is_none() {
            self.err(Refusal::NoSuchMessage);
            return Ok(None);
        }
        let begun = Instant::now();
        let sent = match state.maildrop.open_message(number) {
            Ok(message) => self.transfer(state, number, message, body),
            Err(error) => Err(error.into()),
        };
        match sent {
            Ok(Transferred { octets, ready }) => {
                self.emit(What::Sent(Sent {
                    number,
                    whole: body.is_asked_whole(),
                    octets,
                    first_octet: ready.saturating_duration_since(begun),
                    took: begun.elapsed(),
                }));
                Ok(Some(octets))
            }
            Err(TransferError::Refused(refusal, error)) => {
                self.emit(What::NotSent { number, error: &error });
                self.err(refusal);
                Ok(None)
            }
            Err(TransferError::Cut(error)) => {
                self.emit(What::CutOff { number, error: &error });
                Err(error.into())
            }
            Err(TransferError::Broken(error)) => Err(error.into()),
        }
    }

    /// Sends an open message: through the transform if there is one, otherwise as it is stored.
    fn transfer(
        &mut self,
        state: &mut Transaction,
        number: MessageNumber,
        message: OpenMessage,
        body: Body,
    ) -> Result<Transferred, TransferError> {
        let Some(transform) = state.exact.clone().or_else(|| self.shared.transform_of(state.lock.user())) else {
            return self.send_stored(state, number, message, body);
        };
        let stored = message.octets;
        match self.send_transformed(state, &transform, number, message, body) {
            Err(TransferError::Refused(Refusal::Transform, error))
                if transform.rules().on_failure == OnFailure::Original
                    && state.maildrop.transformed_octets(number).is_none_or(|listed| listed == stored) =>
            {
                log::error!("{} message {number} is sent as it is stored: {error}", self.client);
                let message = state.maildrop.open_message(number)?;
                self.send_stored(state, number, message, body)
            }
            sent => sent,
        }
    }

    fn send_stored(
        &mut self,
        state: &mut Transaction,
        number: MessageNumber,
        message: OpenMessage,
        body: Body,
    ) -> Result<Transferred, TransferError> {
        let listed = message.octets;
        let sent = transfer::stored(&mut self.output, message, body)?;
        let octets = sent.octets;
        if body == Body::Whole && octets != listed {
            log::warn!("{} message {number} was listed with {listed} octets and has {octets}", self.client);
            state.maildrop.correct_octets(number, octets);
        }
        Ok(sent)
    }

    fn send_transformed(
        &mut self,
        state: &Transaction,
        transform: &Transform,
        number: MessageNumber,
        message: OpenMessage,
        body: Body,
    ) -> Result<Transferred, TransferError> {
        let unique_id = state.maildrop.unique_id(number).unwrap_or_default();
        let subject =
            Subject { user: state.lock.user().as_str(), unique_id: &String::from_utf8_lossy(&unique_id), number };
        let listed = state.maildrop.transformed_octets(number);
        let begun = Instant::now();
        let (result, sent) = match transform.start(message, subject) {
            Ok(running) => transfer::transformed(&mut self.output, running, !self.lines.is_empty(), body, listed),
            Err(failure) => (TransformResult::NotStarted, Err(TransferError::transform(failure))),
        };
        self.emit(What::Transformed { result, took: begun.elapsed() });
        if matches!(&sent, Err(error) if error.is_other_size()) {
            state.maildrop.forget_transformed(number);
        }
        sent
    }
}
