//! Sends a message to the client, from its file or from a transform that reads the file.

mod exact;

use std::fmt::Display;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use super::reply::{self, Fault, Refusal};
use crate::events::TransformResult;
use crate::maildrop::{FileRange, OpenError, OpenMessage, Source, shortened};
use crate::transform::{self, Failure, Running};
use crate::wire::{BLOCK, Block, Link, Output, Stuffer, Top};

/// How much of the message the client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// RETR
    Whole,
    /// TOP
    Lines(u32),
    /// RETR, or TOP with so many lines, by a fault that a tester has ordered: at most so many octets.
    Truncated { lines: Option<u32>, octets: u64 },
}

impl Body {
    /// Returns true if the client asked for the whole message.
    pub(super) fn is_asked_whole(self) -> bool {
        matches!(self, Self::Whole | Self::Truncated { lines: None, .. })
    }
}

/// A message that was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transferred {
    /// The message's octets, before byte-stuffing.
    pub(super) octets: u64,
    /// When the first of them were ready to be sent.
    pub(super) ready: Instant,
}

/// How a transfer failed.
#[derive(Debug)]
pub(super) enum TransferError {
    /// Nothing was sent. The client gets -ERR and the session goes on.
    Refused(Refusal, io::Error),
    /// Part of the message was sent and the rest is not available. Only closing the connection tells the client.
    Cut(io::Error),
    /// The connection to the client is lost.
    Broken(io::Error),
}

impl From<io::Error> for TransferError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl From<OpenError> for TransferError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Changed => Self::Refused(Refusal::Changed, io::Error::other("it has changed since login")),
            OpenError::Io(error) => Self::unreadable(error),
        }
    }
}

impl TransferError {
    /// The message's file has vanished or cannot be read.
    fn unreadable(error: io::Error) -> Self {
        Self::Refused(Refusal::Message(Fault::from(&error)), error)
    }

    /// The transform failed before its first octet.
    pub(super) fn transform(failure: Failure) -> Self {
        Self::Refused(Refusal::Transform, io::Error::other(format!("transform: {failure}")))
    }

    /// The same error after a part of the message was sent.
    fn after_a_part(self) -> Self {
        match self {
            Self::Refused(_, error) => Self::Cut(error),
            other => other,
        }
    }
}

/// How many octets at the end of a message do not go by [`Link::send_file`] but in one write with the termination
/// octet: some clients look for the end of a response in one segment only.
const TAIL: usize = 4096;

/// Sends a message as it is stored.
pub(super) fn stored<L: Link>(
    output: &mut Output<L>,
    message: OpenMessage,
    body: Body,
) -> Result<Transferred, TransferError> {
    let OpenMessage { octets, source } = message;
    if let Source::File(range) = &source
        && range.wire_form
        && body == Body::Whole
        && range.left > BLOCK as u64
    {
        return wire_form(output, range, octets);
    }
    let status: &dyn Display =
        if body.is_asked_whole() { &format_args!("{octets} octets") } else { &"top of message follows" };
    send(output, &mut Stored(source), status, body)
}

/// Sends the output of a transform, and says what became of it. `input_pending` is true if the client has already sent
/// further commands; then the end of its input does not mean that it has left. `listed` is the size of the output if the
/// client was told it.
pub(super) fn transformed<L: Link>(
    output: &mut Output<L>,
    running: Running,
    input_pending: bool,
    body: Body,
    listed: Option<u64>,
) -> (TransformResult, Result<Transferred, TransferError>) {
    let mut source = Transformed { running, input_pending, result: TransformResult::Stopped };
    let sent = match (output.flush(), listed) {
        // Earlier replies are sent first, because they must not wait for the program.
        (Ok(()), None) => send(output, &mut source, &"transformed message follows", body),
        (Ok(()), Some(listed)) => exact::send(output, &mut source, body, listed),
        (Err(error), _) => Err(error.into()),
    };
    (source.result, sent)
}

/// Sends a message whose stored octets are those on the wire.
// Not inlined, so that a waiting session needs no stack for the tail.
#[inline(never)]
fn wire_form<L: Link>(output: &mut Output<L>, message: &FileRange, octets: u64) -> Result<Transferred, TransferError> {
    let mut tail = [0; TAIL];
    let tail_start = message.offset + message.left - TAIL as u64;
    message.file.read_exact_at(&mut tail, tail_start).map_err(TransferError::unreadable)?;
    reply::ok(output.pending(), format_args!("{octets} octets"));
    let ready = Instant::now();
    output.flush()?;
    output.link.send_file(&message.file, message.offset..tail_start).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => TransferError::Cut(shortened()),
        _ => TransferError::Broken(error),
    })?;
    output.pending().extend_from_slice(&tail);
    reply::end(output.pending());
    Ok(Transferred { octets: message.left, ready })
}

/// Reads blocks, converts them to wire form and sends them. An error before the first block is answered by -ERR.
fn send<L: Link>(
    output: &mut Output<L>,
    source: &mut impl Octets,
    status: &dyn Display,
    body: Body,
) -> Result<Transferred, TransferError> {
    let mut part = Part::of(body);
    let mut stuffer = Stuffer::default();
    let mut block = Block::new();
    output.enlarge();
    let mut length = source.read(&mut block, &mut output.link)?;
    let ready = Instant::now();
    reply::ok(output.pending(), status);
    while length > 0 {
        let wanted = part.as_mut().map_or(length, |part| part.take(&block[..length]));
        stuffer.push(&block[..wanted], output.pending());
        if source.is_slow() {
            output.flush()?
        } else {
            output.flush_if_large()?
        }
        if part.as_ref().is_some_and(Part::is_done) {
            break;
        }
        length = source.read(&mut block, &mut output.link).map_err(TransferError::after_a_part)?;
    }
    Ok(Transferred { octets: stuffer.finish(output.pending()), ready })
}

/// The part of a message that is still to be sent.
struct Part {
    top: Option<Top>,
    /// The most octets that are left.
    left: u64,
}

impl Part {
    /// `None` if all of the message is sent.
    fn of(body: Body) -> Option<Self> {
        match body {
            Body::Whole => None,
            Body::Lines(lines) => Some(Self { top: Some(Top::new(lines)), left: u64::MAX }),
            Body::Truncated { lines, octets } => Some(Self { top: lines.map(Top::new), left: octets }),
        }
    }

    /// How many octets of the next piece belong to it.
    fn take(&mut self, piece: &[u8]) -> usize {
        let most = usize::try_from(self.left).map_or(piece.len(), |left| left.min(piece.len()));
        let taken = self.top.as_mut().map_or(most, |top| top.take(&piece[..most]));
        self.left -= taken as u64;
        taken
    }

    /// Returns true if all of it has been taken.
    fn is_done(&self) -> bool {
        self.left == 0 || self.top.as_ref().is_some_and(Top::is_done)
    }
}

/// The source of a message's octets.
trait Octets {
    /// Reads the next octets; 0 at the end. The message is refused if the first call fails.
    fn read<L: Link>(&mut self, block: &mut [u8], link: &mut L) -> Result<usize, TransferError>;

    /// Returns true if the next octets may be a long time coming, so that what is there is sent at once.
    fn is_slow(&self) -> bool;
}

/// A message as it is stored.
struct Stored(Source);

impl Octets for Stored {
    fn read<L: Link>(&mut self, block: &mut [u8], _: &mut L) -> Result<usize, TransferError> {
        self.0.read(block).map_err(TransferError::unreadable)
    }

    fn is_slow(&self) -> bool {
        false
    }
}

struct Transformed {
    running: Running,
    input_pending: bool,
    /// What has become of the transform so far.
    result: TransformResult,
}

impl Octets for Transformed {
    fn read<L: Link>(&mut self, block: &mut [u8], link: &mut L) -> Result<usize, TransferError> {
        let mut client = Waiting { link, input_pending: self.input_pending };
        let read = self.running.read(block, &mut client);
        let has_ended = matches!(read, Ok(0));
        let ended = if has_ended { self.running.finish(&mut client).map(|()| 0) } else { read };
        self.result = match &ended {
            Ok(_) if has_ended => TransformResult::Ok,
            Ok(_) | Err(Failure::ClientLeft) => TransformResult::Stopped,
            Err(Failure::Silent | Failure::Endless) => TransformResult::Silent,
            Err(Failure::Status(_) | Failure::Io(_)) => TransformResult::Failed,
        };
        ended.map_err(|failure| match failure {
            Failure::ClientLeft => TransferError::Broken(io::ErrorKind::ConnectionAborted.into()),
            failure => TransferError::transform(failure),
        })
    }

    fn is_slow(&self) -> bool {
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
