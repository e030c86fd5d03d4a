//! The counters as they are written to files: kept in the state directory, and appended to the statistics log.
//!
//! A thread of its own writes them, since a disk may be frozen and a pipe full: nothing else waits for these files.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, select, tick};

use crate::shared::Shared;
use crate::stats::{Kept, StatsLog};

/// How often the thread looks whether there is something to write. A server that is killed loses the counts since then.
const TICK: Duration = Duration::from_secs(1);

/// How long the end of the server waits for the last record.
const PATIENCE: Duration = Duration::from_secs(1);

/// The files that counters are written to, if any.
#[derive(Debug)]
pub struct Records {
    /// Counters that the next server goes on with.
    pub kept: Option<Kept>,
    /// Lines of counters.
    pub log: Option<StatsLog>,
}

/// The running thread.
#[derive(Debug)]
pub struct Recorder {
    end: Sender<()>,
    set_log: LogSetter,
    ended: Receiver<()>,
}

impl Records {
    /// Starts the thread that writes them.
    ///
    /// # Errors
    /// When there can be no more threads.
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

    /// Keeps the counters if they have changed, and logs them when it is time to, or for the last time.
    fn write(&mut self, shared: &Shared, last: bool) {
        if let Some(kept) = &mut self.kept {
            kept.save(&shared.stats);
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
    /// What sets the log of counters.
    #[must_use]
    pub fn log_setter(&self) -> LogSetter {
        self.set_log.clone()
    }

    /// Has the last record written, and says so in the log when the files do not take it in time.
    pub fn end(self) {
        let Self { end, ended, set_log: _set_log } = self;
        let _ = end.try_send(());
        if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            log::warn!("the last counters could not be written within {PATIENCE:?}");
        }
    }
}
