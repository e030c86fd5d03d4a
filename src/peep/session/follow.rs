//! `f`: sends events to an admin as they happen.

use std::io;
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use super::Session;
use crate::events::{Batch, Follower};
use crate::logging::TIME;
use crate::peep::{Reply, reply};
use crate::wire::{Lines, Link, Output, is_timeout};

/// The time between two looks for events. Each look wakes this session's thread, and each write its client.
const PAUSE: Duration = Duration::from_millis(100);

/// How long events are sent, if there are always more, before the session looks for a line of its client.
const LONGEST: Duration = Duration::from_secs(1);

impl Session<'_> {
    /// Sends a line for each event until the client sends any line, which is answered by `+`. Returns false if the
    /// session is to end.
    ///
    /// A client that does not read lets only this session wait. It loses the events that the ring of recent events has
    /// no room for, and a line tells how many these were.
    pub(super) fn follow<L: Link>(
        &self,
        mut events: Follower,
        lines: &mut Lines,
        output: &mut Output<L>,
    ) -> io::Result<bool> {
        let since = Instant::now();
        loop {
            let is_ended = lines.next().is_some();
            if is_ended {
                events.finish();
            }
            send(&mut events, output, (!is_ended).then_some(LONGEST))?;
            if is_ended {
                Reply::Done.write(output.pending());
                return Ok(true);
            }
            if self.shared.connections.is_closing() || self.client.progress.is_kicked() {
                return Ok(false);
            }
            output.release();
            output.link.expect_command(since, Some(Instant::now() + PAUSE));
            match lines.fill(&mut output.link) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) if is_timeout(&error) || error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Sends events until there are no more, or for about as long as `longest`.
fn send<L: Link>(events: &mut Follower, output: &mut Output<L>, longest: Option<Duration>) -> io::Result<()> {
    let begun = Instant::now();
    output.flush()?;
    while let Some(Batch { lost, block }) = events.take() {
        if lost > 0 {
            let now = OffsetDateTime::now_utc().format(TIME).unwrap_or_default();
            reply::line(output.pending(), &format!("{now} lost events={lost}"));
            output.flush()?;
        }
        // The lines are not copied into the output's buffer.
        output.link.write_all(events.lines(&block).as_bytes())?;
        if longest.is_some_and(|longest| begun.elapsed() >= longest) {
            break;
        }
    }
    Ok(())
}
