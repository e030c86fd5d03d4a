//! What happens in the server, as one stream of typed events.
//!
//! - [`Event`] is a [`Client`] and [`What`] has happened to it. [`Reason`] says why a login is refused.
//! - [`Events`] takes each event from the session in which it happens and passes it to its consumers: the log,
//!   the counters of [`crate::stats`], [`crate::metrics`], [`crate::fetches`] and followers. A new consumer is added here and touches no session.
//! - `text` has the event's line in the log, `fields` its named values. Nothing else knows either of them.
//! - [`Follower`] reads the events as lines, for PEEP's `f`. `line` formats them and `ring` keeps them for a moment.
//!
//! Commands are no events. A session counts them and keeps the keywords of the first ones, and its last event has these.

mod client;
mod event;
mod fields;
mod first_commands;
mod follow;
mod line;
mod reason;
mod ring;
mod text;

use std::sync::{Arc, OnceLock};

use log::Record;

pub use crate::connections::Service;
pub use client::{Client, TlsVersion};
pub use event::{Counts, EndResult, Ended, Event, Lossy, Sent, TransformResult, What};
pub use first_commands::FirstCommands;
pub use follow::{Batch, Follower};
pub use reason::{AdminReason, Method, Reason, WhyRefused};
pub use ring::Block;

use crate::fetches::Fetches;
use crate::logging;
use crate::metrics::Metrics;
use crate::stats::Stats;
use ring::Recent;

/// Takes events and gives them to their consumers.
#[derive(Debug, Default)]
pub struct Events {
    stats: Arc<Stats>,
    /// Set once metrics are switched on.
    metrics: OnceLock<Metrics>,
    recent: Arc<Recent>,
    /// Who fetched what.
    pub fetches: Fetches,
}

impl Events {
    /// Events that `stats` counts.
    #[must_use]
    pub fn new(stats: Arc<Stats>) -> Self {
        Self { stats, ..Self::default() }
    }

    /// Tells all consumers that this has happened to the client. None of them lets the session wait. A health check is not
    /// told of unless the session does more than begin and end.
    pub fn emit(&self, client: &Client, what: What<'_>) {
        if client.is_health_check() {
            if matches!(what, What::Connected | What::Tls { .. } | What::Ended(_)) {
                return;
            }
            client.set_no_health_check();
            self.pass_on(client, What::Connected);
        }
        self.pass_on(client, what);
    }

    fn pass_on(&self, client: &Client, what: What<'_>) {
        let event = Event { client, what };
        log(&event);
        self.stats.count(&event);
        if let Some(metrics) = self.metrics.get() {
            metrics.count(&event);
        }
        self.recent.add(&event);
        self.fetches.note(&event);
    }

    /// Returns the last 100 warnings and errors as the log in text has them, oldest first.
    #[must_use]
    pub fn recent_problems(&self) -> Vec<String> {
        logging::recent_problems()
    }

    /// Has events counted in metrics from now on.
    pub fn enable_metrics(&self) {
        self.metrics.get_or_init(Metrics::default);
    }

    /// The metrics, if they are switched on.
    #[must_use]
    pub fn metrics(&self) -> Option<&Metrics> {
        self.metrics.get()
    }

    /// Follows the events from now on: those that concern `user`, or all.
    #[must_use]
    pub fn follow(&self, user: Option<String>) -> Follower {
        Follower::new(Arc::clone(&self.recent), user)
    }
}

fn log(event: &Event<'_>) {
    if let Some(level) = event.level().filter(|level| *level <= log::max_level()) {
        let mut record = Record::builder();
        record.level(level).key_values(event);
        log::logger().log(&record.args(format_args!("{event}")).build());
    }
}
