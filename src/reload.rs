//! Reads the configuration again when the operator or the admin asks for it. A thread of its own does so, because reading
//! files may block on a disk that hangs.
//!
//! Everything is read, checked and opened before anything is changed, so a configuration that cannot be used changes
//! nothing. Open sessions continue.

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

/// The longest time that an admin's command waits for the outcome.
const PATIENCE: Duration = Duration::from_secs(30);

/// The changed settings that only a restart can apply. `None` if the configuration cannot be used; the old one then stays in
/// force, and the log says why.
pub type Outcome = Option<BTreeSet<&'static str>>;

/// A handle to the thread that reloads. Before the thread is started, requests are ignored.
#[derive(Debug, Default)]
pub struct Reloader(OnceLock<Sender<Sender<Outcome>>>);

/// The requests of a [`Reloader`].
#[derive(Debug)]
pub struct Requests(Receiver<Sender<Outcome>>);

/// The parts of the server that a reload changes.
#[derive(Debug)]
pub struct Reload {
    /// The configuration as it was read last.
    pub configuration: Rereading,
    /// The data that sessions share.
    pub shared: Arc<Shared>,
    /// The ports.
    pub acceptors: Arc<Acceptors>,
    /// The state directory.
    pub state: Option<Arc<StateDir>>,
    /// The statistics log.
    pub stats_log: LogSetter,
    /// The log file.
    pub log: Reopener,
}

impl Reloader {
    /// Takes requests from now on, for [`Reload::start`]. Clients may ask as soon as there are acceptors, so this comes
    /// before them.
    #[must_use]
    pub fn open(&self) -> Requests {
        let (ask, requests) = crossbeam_channel::unbounded();
        let _ = self.0.set(ask);
        Requests(requests)
    }

    /// Requests a reload. Does not wait for it.
    pub fn ask(&self) {
        drop(self.request());
    }

    /// Requests a reload and waits for its outcome, at most for half a minute.
    #[must_use]
    pub fn ask_and_wait(&self) -> Outcome {
        self.request()?.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            log::error!("the configuration is still being read after {PATIENCE:?}");
            None
        })
    }

    fn request(&self) -> Option<Receiver<Outcome>> {
        let (answer, outcome) = crossbeam_channel::bounded(1);
        self.0.get()?.send(answer).ok()?;
        Some(outcome)
    }
}

impl Reload {
    /// Starts the thread.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(self, Requests(requests): Requests) -> io::Result<()> {
        thread::Builder::new().name("reload".to_owned()).spawn(move || self.run(&requests))?;
        Ok(())
    }

    fn run(mut self, requests: &Receiver<Sender<Outcome>>) {
        for first in requests {
            // One reload answers all requests that were made before it begins.
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
        // The log file is opened again even if the configuration is faulty, so that logrotate does not depend on it.
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
        let ports = acceptors.prepare(&next.ports, &next.settings, next.gave_up_rights)?;
        let mut needs_restart = std::mem::take(&mut next.needs_restart);
        for (service, error) in &ports.needs_restart {
            log::error!("{error}; that needs a restart");
            needs_restart.insert(service.port_setting());
        }
        next.settings.in_force = next.settings.in_force.keeping(&needs_restart, &settings.in_force);

        // Nothing can fail from here on.
        shared.change_settings(|settings| next.apply_to(settings));
        shared.users.set_sources(next.sources.clone());
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
