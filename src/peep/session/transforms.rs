//! `tr=`, `tr?` and `tt`: whose messages go through the transform, and what it does to one of them.

use std::fmt::Display;
use std::io::{self, PipeReader, Read};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use parking_lot::Mutex;

use super::Session;
use super::difference;
use crate::auth::UserName;
use crate::events::Reason;
use crate::maildrop::{Maildrop, MessageNumber, OpenError, OpenMessage};
use crate::peep::{ErrorCode, NameValue, Reply};
use crate::transform::{Failure, Subject, Transform};
use crate::wire::{Block, Meter};

/// How many octets of a message are compared.
const COMPARED: usize = 1 << 20;

/// How many octets of what the program writes to its standard error are shown.
const STDERR: usize = 4096;

/// How many lines of it are shown, and how long each may be.
const STDERR_LINES: usize = 20;
const STDERR_LINE: usize = 120;

/// How long to wait for the end of the standard error, which other processes may have open.
const LINGER: Duration = Duration::from_secs(1);

impl Session<'_> {
    /// `tr=`: whether a user's messages go through the transform.
    pub(super) fn set_transform(&self, name: &str, on: bool) -> Result<Reply, ErrorCode> {
        let user = self.user(name)?;
        if self.shared.settings().transform.is_none() {
            return Err(ErrorCode::NoTransform);
        }
        self.shared.set_transformed(user, on);
        self.log_change(format_args!("transform of {name:?} = {}", u8::from(on)));
        Ok(Reply::Done)
    }

    /// `tr?`: the users whose messages do not go through the transform.
    pub(super) fn untransformed(&self) -> Reply {
        Reply::Lines(self.shared.untransformed().iter().map(ToString::to_string).collect())
    }

    /// `tt`: what the transform does to a message. It runs whether or not it is on for the user.
    pub(super) fn test_transform(&self, name: &str, number: u32) -> Result<Reply, ErrorCode> {
        let user = self.user(name)?;
        let transform = self.shared.settings().transform.clone().ok_or(ErrorCode::NoTransform)?;
        let bad = |error: io::Error| self.bad_maildrop(name, &Reason::Maildrop(error));
        let (_acting, location) = self.shared.act_for(user.clone()).map_err(bad)?;
        let mut maildrop = Maildrop::open_without_lock(location).map_err(bad)?;
        let number = MessageNumber::new(number).filter(|&number| maildrop.message(number).is_some());
        let number = number.ok_or(ErrorCode::NoSuchMessage)?;
        let opened = |opened: Result<OpenMessage, OpenError>| match opened {
            Ok(message) => Ok(message),
            Err(OpenError::Changed) => Err(ErrorCode::NoSuchMessage),
            Err(OpenError::Io(error)) => Err(bad(error)),
        };
        let stored = stored(opened(maildrop.open_message(number))?).map_err(bad)?;
        let message = opened(maildrop.open_message(number))?;
        let run = Run::of(&transform, &user, &maildrop, number, message).map_err(bad)?;
        self.log_change(format_args!("transform tested on message {number} of {name:?}"));
        Ok(Reply::Lines(lines(&stored, &run)))
    }
}

/// A message, or its beginning, with its size on the wire.
#[derive(Default)]
struct Whole {
    meter: Meter,
    beginning: Vec<u8>,
}

impl Whole {
    fn push(&mut self, piece: &[u8]) {
        self.meter.push(piece);
        let room = COMPARED - self.beginning.len();
        self.beginning.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    fn end(self) -> (u64, Vec<u8>) {
        (self.meter.finish().octets, self.beginning)
    }
}

fn stored(mut message: OpenMessage) -> io::Result<(u64, Vec<u8>)> {
    let (mut whole, mut block) = (Whole::default(), Block::new());
    loop {
        match message.source.read(&mut block) {
            Ok(0) => return Ok(whole.end()),
            Ok(read) => whole.push(&block[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What the program did.
struct Run {
    output: (u64, Vec<u8>),
    result: Result<(), Failure>,
    took: Duration,
    stderr: Vec<u8>,
}

impl Run {
    fn of(
        transform: &Transform,
        user: &UserName,
        maildrop: &Maildrop,
        number: MessageNumber,
        message: OpenMessage,
    ) -> io::Result<Self> {
        let unique_id = maildrop.unique_id(number).unwrap_or_default();
        let subject = Subject { user: user.as_str(), unique_id: &String::from_utf8_lossy(&unique_id), number };
        let (stderr, errors) = io::pipe()?;
        let stderr = Collected::new(stderr)?;
        let (mut output, begun) = (Whole::default(), Instant::now());
        let result = transform.run_noting(message, subject, errors.into(), |piece| output.push(piece));
        Ok(Self { output: output.end(), result, took: begun.elapsed(), stderr: stderr.end() })
    }
}

/// What a program writes to its standard error. All of it is read, so that the program never waits, and the beginning
/// is kept.
struct Collected {
    octets: Arc<Mutex<Vec<u8>>>,
    ended: Receiver<()>,
}

impl Collected {
    fn new(mut pipe: PipeReader) -> io::Result<Self> {
        let octets = Arc::new(Mutex::new(Vec::new()));
        let (end, ended) = bounded(1);
        let collected = Arc::clone(&octets);
        thread::Builder::new().name("stderr".to_owned()).spawn(move || {
            let mut piece = [0; 1024];
            while let Ok(read @ 1..) = pipe.read(&mut piece) {
                let mut octets = collected.lock();
                let room = STDERR - octets.len();
                octets.extend_from_slice(&piece[..read.min(room)]);
            }
            let _ = end.send(());
        })?;
        Ok(Self { octets, ended })
    }

    fn end(self) -> Vec<u8> {
        let _ = self.ended.recv_timeout(LINGER);
        std::mem::take(&mut self.octets.lock())
    }
}

/// The lines of the answer.
fn lines((stored, first): &(u64, Vec<u8>), run: &Run) -> Vec<String> {
    let (transformed, second) = &run.output;
    let line = |name: &str, value: &dyn Display| NameValue::new(name, value).to_string();
    let result: &dyn Display = match &run.result {
        Ok(()) => &"exit status: 0",
        Err(failure) => failure,
    };
    let mut lines = vec![
        line("stored", &stored),
        line("transformed", &transformed),
        line("result", result),
        line("seconds", &format_args!("{:.3}", run.took.as_secs_f64())),
    ];
    let stderr = String::from_utf8_lossy(&run.stderr);
    for text in stderr.lines().take(STDERR_LINES) {
        lines.push(line("stderr", &&text[..text.floor_char_boundary(STDERR_LINE)]));
    }
    lines.extend(difference::unified(first, second).iter().map(|text| line("diff", text)));
    lines
}
