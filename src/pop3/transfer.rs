//! A message on its way to the client: from its file, or from a transform that reads its file.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use super::reply::{self, Fault, Refusal};
use crate::maildrop::OpenMessage;
use crate::transform::{self, Failure, Running};
use crate::wire::{BLOCK, Block, Link, Output, Stuffer, Top};

/// How much of the message is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// RETR
    Whole,
    /// TOP
    Lines(u32),
}

/// How a transfer failed.
#[derive(Debug)]
pub(super) enum TransferError {
    /// Nothing was sent; the client gets -ERR and the session goes on.
    Refused(Refusal, io::Error),
    /// Part of the message is out, and the rest cannot be had. Only closing the connection tells the client.
    Cut(io::Error),
    /// The client is gone.
    Broken(io::Error),
}

impl From<io::Error> for TransferError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl TransferError {
    /// The message has gone, or the disk fails.
    pub(super) fn unreadable(error: io::Error) -> Self {
        Self::Refused(Refusal::Message(Fault::from(&error)), error)
    }

    /// The message is not the one that was listed.
    pub(super) fn changed() -> Self {
        Self::Refused(Refusal::Changed, io::Error::other("it has changed since login"))
    }

    /// The transform gave nothing.
    pub(super) fn transform(failure: Failure) -> Self {
        Self::Refused(Refusal::Transform, io::Error::other(format!("transform: {failure}")))
    }

    /// The same when part of the message is out already.
    fn midway(self) -> Self {
        match self {
            Self::Refused(_, error) => Self::Cut(error),
            other => other,
        }
    }
}

/// What is kept back of a message that goes by [`Link::send_file`], so that the last octets and the termination
/// octet are one write: there are clients that look for the end of a response in one segment only.
const TAIL: usize = 4096;

/// Sends a message as it is stored. Returns its octets.
pub(super) fn stored<L: Link>(output: &mut Output<L>, message: OpenMessage, body: Body) -> Result<u64, TransferError> {
    if message.wire_form && body == Body::Whole && message.stored > BLOCK as u64 {
        return wire_form(output, &message);
    }
    let OpenMessage { file, stored, octets, .. } = message;
    let status: &dyn Display = match body {
        Body::Whole => &format_args!("{octets} octets"),
        Body::Lines(_) => &"top of message follows",
    };
    send(output, Stored { file, left: stored }, status, body)
}

/// Sends what a transform makes of a message. Returns its octets. `input_pending` says whether the client has
/// sent more commands already, so that the end of its input is no end of its interest.
pub(super) fn transformed<L: Link>(
    output: &mut Output<L>,
    running: Running,
    input_pending: bool,
    body: Body,
) -> Result<u64, TransferError> {
    output.flush()?; // the replies before this one need not wait for the program
    send(output, Transformed { running, input_pending }, &"transformed message follows", body)
}

/// Sends a message whose stored octets are the wire's.
// Not inlined: a session that waits needs no stack for the tail.
#[inline(never)]
fn wire_form<L: Link>(output: &mut Output<L>, message: &OpenMessage) -> Result<u64, TransferError> {
    let mut tail = [0; TAIL];
    let body = message.stored - TAIL as u64;
    message.file.read_exact_at(&mut tail, body).map_err(TransferError::unreadable)?;
    reply::ok(output.pending(), format_args!("{} octets", message.octets));
    output.flush()?;
    output.link.send_file(&message.file, body).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => TransferError::Cut(shortened()),
        _ => TransferError::Broken(error),
    })?;
    output.pending().extend_from_slice(&tail);
    reply::end(output.pending());
    Ok(message.stored)
}

/// What was there at login is not there any more.
fn shortened() -> io::Error {
    io::Error::other("the file has become shorter meanwhile")
}

/// Reads blocks, makes wire form of them and sends them. Until the first block is there the message can be refused.
fn send<L: Link>(
    output: &mut Output<L>,
    mut source: impl Source,
    status: &dyn Display,
    body: Body,
) -> Result<u64, TransferError> {
    let mut top = match body {
        Body::Whole => None,
        Body::Lines(lines) => Some(Top::new(lines)),
    };
    let mut stuffer = Stuffer::default();
    let mut block = Block::new();
    output.enlarge();
    let mut length = source.read(&mut block, &mut output.link)?;
    reply::ok(output.pending(), status);
    while length > 0 {
        let wanted = top.as_mut().map_or(length, |top| top.take(&block[..length]));
        stuffer.push(&block[..wanted], output.pending());
        if source.keeps_us_waiting() {
            output.flush()?
        } else {
            output.flush_if_large()?
        }
        if top.as_ref().is_some_and(Top::is_done) {
            break;
        }
        length = source.read(&mut block, &mut output.link).map_err(TransferError::midway)?;
    }
    Ok(stuffer.finish(output.pending()))
}

/// Where a message's octets come from.
trait Source {
    /// The next octets, none at the end. An error at the first call is a refusal.
    fn read<L: Link>(&mut self, block: &mut [u8], link: &mut L) -> Result<usize, TransferError>;

    /// Whether to send on what there is, as the rest may take its time.
    fn keeps_us_waiting(&self) -> bool;
}

/// The octets that the file had at login: not those that it gains meanwhile, and an error when it has lost some.
struct Stored {
    file: File,
    left: u64,
}

impl Source for Stored {
    fn read<L: Link>(&mut self, block: &mut [u8], _: &mut L) -> Result<usize, TransferError> {
        if self.left == 0 {
            return Ok(0);
        }
        let room = usize::try_from(self.left).map_or(block.len(), |left| left.min(block.len()));
        let read = match self.file.read(&mut block[..room]) {
            Ok(0) => Err(shortened()),
            result => result,
        };
        let read = read.map_err(TransferError::unreadable)?;
        self.left -= read as u64;
        Ok(read)
    }

    fn keeps_us_waiting(&self) -> bool {
        false
    }
}

struct Transformed {
    running: Running,
    input_pending: bool,
}

impl Source for Transformed {
    fn read<L: Link>(&mut self, block: &mut [u8], link: &mut L) -> Result<usize, TransferError> {
        let mut client = Waiting { link, input_pending: self.input_pending };
        let read = self.running.read(block, &mut client);
        let ended = if let Ok(0) = read { self.running.finish(&mut client).map(|()| 0) } else { read };
        ended.map_err(|failure| match failure {
            Failure::ClientLeft => TransferError::Broken(io::ErrorKind::ConnectionAborted.into()),
            failure => TransferError::transform(failure),
        })
    }

    fn keeps_us_waiting(&self) -> bool {
        true
    }
}

/// The client of a transform.
struct Waiting<'a, L> {
    link: &'a mut L,
    input_pending: bool,
}

impl<L: Link> transform::Client for Waiting<'_, L> {
    fn watch(&self) -> Option<BorrowedFd<'_>> {
        self.link.watch()
    }

    fn left(&mut self) -> bool {
        !self.input_pending && self.link.client_left()
    }
}
