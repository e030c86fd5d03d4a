//! Reads the configuration again when the operator or the admin asks for it, in a thread of its own: files may be on a
//! disk that is frozen, and the server goes on meanwhile.
//!
//! Everything is read, checked and opened before anything is changed, so a configuration that cannot be used changes
//! nothing. Open sessions go on.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use crate::acceptors::Acceptors;
use crate::config::{Refused, Rereading, Running};
use crate::logging::Reopener;
use crate::records::LogSetter;
use crate::shared::Shared;
use crate::state::StateDir;
use crate::systemd;

/// How long an admin waits for the outcome.
const PATIENCE: Duration = Duration::from_secs(30);

/// The changed settings that only a restart applies. `None`: the configuration cannot be used and the old one stays; the
/// log says why.
pub type Outcome = Option<BTreeSet<&'static str>>;

/// Asks the thread that reads. Until that runs, nothing is reloaded.
#[derive(Debug, Default)]
pub struct Reloader(OnceLock<Sender<Sender<Outcome>>>);

/// What can be reloaded.
#[derive(Debug)]
pub struct Reload {
    /// The configuration as it was read last.
    pub configuration: Rereading,
    /// What sessions share.
    pub shared: Arc<Shared>,
    /// The ports.
    pub acceptors: Arc<Acceptors>,
    /// The state directory.
    pub state: Option<Arc<StateDir>>,
    /// The log of counters.
    pub stats_log: LogSetter,
    /// The log file.
    pub log: Reopener,
}

impl Reloader {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(&self, reload: Reload) -> io::Result<()> {
        let (ask, requests) = crossbeam_channel::unbounded();
        thread::Builder::new().name("reload".to_owned()).spawn(move || reload.run(&requests))?;
        let _ = self.0.set(ask);
        Ok(())
    }

    /// Has everything read again. Does not wait for that.
    pub fn ask(&self) {
        drop(self.request());
    }

    /// Has everything read again, and waits for the outcome.
    #[must_use]
    pub fn ask_and_wait(&self) -> Outcome {
        self.request()?.recv_timeout(PATIENCE).ok()?
    }

    fn request(&self) -> Option<Receiver<Outcome>> {
        let (answer, outcome) = crossbeam_channel::bounded(1);
        self.0.get()?.send(answer).ok()?;
        Some(outcome)
    }
}

impl Reload {
    fn run(mut self, requests: &Receiver<Sender<Outcome>>) {
        for first in requests {
            // One reload is for all that have asked before it begins.
            let asked: Vec<_> = std::iter::once(first).chain(requests.try_iter()).collect();
            systemd::tell_reloading();
            let outcome = self.reload();
            systemd::tell_ready();
            for answer in asked {
                let _ = answer.try_send(outcome.clone());
            }
        }
    }

    fn reload(&mut self) -> Outcome {
        // Whatever the configuration is like, or logrotate would wait for somebody to mend it.
        self.log.reopen();
        match self.carry_out() {
            Ok(needs_restart) if needs_restart.is_empty() => {
                log::info!("the configuration has been read again");
                Some(needs_restart)
            }
            Ok(needs_restart) => {
                let names: Vec<_> = needs_restart.iter().copied().collect();
                log::warn!(
                    "the configuration has been read again; these settings need a restart: {}",
                    names.join(", ")
                );
                Some(needs_restart)
            }
            Err(error) => {
                for line in error.to_string().lines() {
                    log::error!("the configuration cannot be used, the old one stays: {line}");
                }
                None
            }
        }
    }

    fn carry_out(&mut self) -> Result<BTreeSet<&'static str>, Refused> {
        let Self { configuration, shared, acceptors, state, stats_log, .. } = self;
        let settings = shared.settings();
        let running = Running { settings: &settings, users: &shared.users, state: state.as_deref() };
        let mut next = configuration.read(&running)?;
        let ports = acceptors.prepare(&next.ports, &next.settings)?;
        let mut needs_restart = std::mem::take(&mut next.needs_restart);
        for (service, error) in &ports.needs_restart {
            log::error!("{error}; that needs a restart");
            needs_restart.insert(service.port_setting());
        }

        // From here on nothing can fail.
        shared.change_settings(|settings| next.apply_to(settings));
        shared.users.set_file(next.users_file.clone());
        let [before, now] = &next.own_users;
        shared.users.change_own(before, now);
        shared.users.set_name_rules(next.name_rules.clone());
        shared.guard.set_limits(next.limits.clone());
        if let Some(limit) = next.max_connections {
            shared.connections.set_limit(limit);
        }
        if let Some(level) = next.level {
            log::set_max_level(level);
        }
        if let Some(log) = next.stats_log.take() {
            stats_log.set(log);
        }
        acceptors.apply(ports);
        configuration.set_applied(next);
        Ok(needs_restart)
    }
}
