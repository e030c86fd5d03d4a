//! The thread that writes the counters to files, to the state directory and to the statistics log, and who fetched what to the
//! state directory.
//!
//! Writing may block, because a disk may hang or a pipe may be full. Since it has its own thread, nothing else waits for
//! these files.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, select, tick};

use crate::fetches;
use crate::shared::Shared;
use crate::stats::{Kept, StatsLog};

/// How often the thread writes counters that have changed. A server that is killed loses what it counted since.
const TICK: Duration = Duration::from_secs(1);

/// How long a shutdown waits for the last record.
const PATIENCE: Duration = Duration::from_secs(1);

/// The files, if any.
#[derive(Debug)]
pub struct Records {
    /// The file in the state directory, from which the next server continues counting.
    pub kept: Option<Kept>,
    /// The file with who fetched what.
    pub fetches: Option<fetches::Kept>,
    /// The statistics log.
    pub log: Option<StatsLog>,
}

/// A handle to the thread.
#[derive(Debug)]
pub struct Recorder {
    end: Sender<()>,
    set_log: LogSetter,
    ended: Receiver<()>,
}

impl Records {
    /// Starts the thread.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(mut self, shared: Arc<Shared>) -> io::Result<Recorder> {
        let (end, is_asked_to_end) = crossbeam_channel::bounded(1);
        let (has_ended, ended) = crossbeam_channel::bounded(1);
        let (set_log, new_logs) = crossbeam_channel::unbounded();
        thread::Builder::new().name("records".to_owned()).spawn(move || {
            let ticks = tick(TICK);
            loop {
                self.write(&shared, false);
                select! {
                    recv(ticks) -> _ => {}
                    recv(new_logs) -> log => if let Ok(log) = log { self.log = log },
                    recv(is_asked_to_end) -> _ => break,
                }
            }
            self.write(&shared, true);
            let _ = has_ended.send(());
        })?;
        Ok(Recorder { end, set_log: LogSetter(set_log), ended })
    }

    /// Writes the counters to the state directory if they have changed, and to the statistics log if a line is due or this
    /// is the last time. What users have fetched is written after a while, or now if this is the last time.
    fn write(&mut self, shared: &Shared, last: bool) {
        if let Some(kept) = &mut self.kept {
            kept.save(&shared.stats);
        }
        if let Some(kept) = &mut self.fetches {
            kept.save(&shared.events.fetches, last);
        }
        if let Some(log) = &mut self.log
            && (last || log.is_due(Instant::now()))
        {
            log.write(&shared.sample());
        }
    }
}

/// Gives the thread another log of counters.
#[derive(Debug, Clone)]
pub struct LogSetter(Sender<Option<StatsLog>>);

impl LogSetter {
    /// Has lines appended to `log` from now on, or to none.
    pub fn set(&self, log: Option<StatsLog>) {
        let _ = self.0.send(log);
    }
}

impl Recorder {
    /// A handle by which the log of counters is replaced.
    #[must_use]
    pub fn log_setter(&self) -> LogSetter {
        self.set_log.clone()
    }

    /// Ends the thread after a last record. Logs a warning if that takes too long.
    pub fn end(self) {
        let Self { end, ended, set_log: _set_log } = self;
        let _ = end.try_send(());
        if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            log::warn!("the last counters could not be written within {PATIENCE:?}");
        }
    }
}
