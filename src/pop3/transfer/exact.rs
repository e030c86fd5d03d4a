//! Sends a transformed message whose size the client was told (`--transform-sizes exact`).
//!
//! The client gets that size or no whole message. As much of the message as the output's buffer takes is held back until
//! it is clear that the size is right, so most messages of another size are answered by -ERR, and the session goes on. A
//! larger one is cut off: the connection is closed without the end of the message.

use std::fmt;
use std::io;
use std::time::Instant;

use super::{Body, Octets, Part, Refusal, TransferError, Transferred, Transformed};
use crate::pop3::reply;
use crate::wire::{Block, Link, Output, Stuffer};

/// A transform's output has not the size that the client was told.
#[derive(Debug)]
struct OtherSize {
    listed: u64,
    /// The size, or if the output was not read to its end, what there is at least.
    octets: u64,
    is_whole: bool,
}

impl fmt::Display for OtherSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listed, octets, is_whole } = self;
        let more = if *is_whole { "" } else { "at least " };
        write!(f, "it was listed with {listed} octets, and the transform gives {more}{octets}")
    }
}

impl std::error::Error for OtherSize {}

impl TransferError {
    /// Returns true if the message has another size than the client was told.
    pub(in crate::pop3) fn is_other_size(&self) -> bool {
        let (Self::Refused(_, error) | Self::Cut(error) | Self::Broken(error)) = self;
        error.get_ref().is_some_and(|error| error.is::<OtherSize>())
    }
}

/// Sends the output, of which the client was told that it has `listed` octets. Nothing else is pending.
pub(super) fn send<L: Link>(
    output: &mut Output<L>,
    source: &mut Transformed,
    body: Body,
    listed: u64,
) -> Result<Transferred, TransferError> {
    let mut sending = Sending { output, listed, stuffer: Stuffer::default(), is_held: true };
    let mut part = Part::of(body);
    let mut block = Block::new();
    sending.output.enlarge();
    match body.is_asked_whole() {
        true => reply::ok(sending.output.pending(), format_args!("{listed} octets")),
        false => reply::ok(sending.output.pending(), "top of message follows"),
    }
    let ready = loop {
        let length = match source.read(&mut block, &mut sending.output.link) {
            Ok(0) => break sending.end()?,
            Ok(length) => length,
            Err(error) => return Err(sending.fail(error)),
        };
        let wanted = part.as_mut().map_or(length, |part| part.take(&block[..length]));
        sending.push(&block[..wanted])?;
        if part.as_ref().is_some_and(Part::is_done) {
            break Instant::now();
        }
    };
    let Sending { output, stuffer, .. } = sending;
    Ok(Transferred { octets: stuffer.finish(output.pending()), ready })
}

struct Sending<'a, L> {
    output: &'a mut Output<L>,
    listed: u64,
    stuffer: Stuffer,
    /// True as long as nothing of the message was sent.
    is_held: bool,
}

impl<L: Link> Sending<'_, L> {
    fn push(&mut self, piece: &[u8]) -> Result<(), TransferError> {
        self.stuffer.push(piece, self.output.pending());
        if self.stuffer.octets() > self.listed {
            return Err(self.other_size(false));
        }
        self.output.flush_if_large()?;
        self.is_held &= !self.output.pending().is_empty();
        Ok(())
    }

    /// Checks the size at the end of the output.
    fn end(&mut self) -> Result<Instant, TransferError> {
        if self.stuffer.octets_at_end() == self.listed { Ok(Instant::now()) } else { Err(self.other_size(true)) }
    }

    fn other_size(&mut self, is_whole: bool) -> TransferError {
        let octets = if is_whole { self.stuffer.octets_at_end() } else { self.stuffer.octets() };
        let error = OtherSize { listed: self.listed, octets, is_whole };
        self.fail(TransferError::Refused(Refusal::OtherSize, io::Error::other(error)))
    }

    /// Takes back what was not sent.
    fn fail(&mut self, error: TransferError) -> TransferError {
        self.output.pending().clear();
        if self.is_held { error } else { error.after_a_part() }
    }
}
