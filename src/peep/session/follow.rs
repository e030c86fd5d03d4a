//! `f`: sends events to an admin as they happen.

use std::io;
use std::time::{Duration, Instant, SystemTime};

use super::Session;
use crate::events::{Batch, Follower};
use crate::peep::{Reply, reply, time};
use crate::wire::{Lines, Link, Output, is_timeout};

/// The time between two looks for events.
const PAUSE: Duration = Duration::from_millis(100);

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
            send(events.take(), output)?; // also what has happened before the client ended this
            if is_ended {
                Reply::Done.write(output.pending());
                return Ok(true);
            }
            if self.shared.connections.is_closing() || self.client.progress.is_kicked() {
                return Ok(false);
            }
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

fn send<L: Link>(Batch { lost, lines }: Batch, output: &mut Output<L>) -> io::Result<()> {
    if lost > 0 {
        reply::line(output.pending(), &format!("{} lost events={lost}", time(SystemTime::now())));
    }
    for line in lines {
        reply::line(output.pending(), &line);
        output.flush_if_large()?;
    }
    output.flush()?;
    output.release();
    Ok(())
}
