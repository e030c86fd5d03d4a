//! What is counted of events, with labels.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::events::{EndResult, Ended, Event, Method, Reason, Sent, TransformResult, What, WhyRefused};

/// The smallest message, in octets, whose rate is counted. A smaller one fits into buffers, so its time says nothing about
/// the client.
const LEAST_FOR_RATE: u64 = 64 * 1024;

/// Counters and histograms of what happens.
#[derive(Debug)]
pub struct Metrics {
    sessions: Family<SessionLabels, Counter>,
    logins: Family<LoginLabels, Counter>,
    admin_logins: Family<ResultLabel, Counter>,
    refused: Family<ReasonLabel, Counter>,
    penalties: Counter,
    commands: Counter,
    not_sent: Counter,
    cut_off: Counter,
    not_removed: Counter,
    transforms: Family<ResultLabel, Counter>,
    login_time: Histogram,
    scan_time: Histogram,
    first_octet_time: Histogram,
    rate: Histogram,
    transform_time: Histogram,
    session_time: Histogram,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SessionLabels {
    protocol: &'static str,
    tls: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoginLabels {
    mechanism: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            sessions: Family::default(),
            logins: Family::default(),
            admin_logins: Family::default(),
            refused: Family::default(),
            penalties: Counter::default(),
            commands: Counter::default(),
            not_sent: Counter::default(),
            cut_off: Counter::default(),
            not_removed: Counter::default(),
            transforms: Family::default(),
            login_time: times(),
            scan_time: times(),
            first_octet_time: times(),
            // From 1 KiB/s, each four times the one before, to 4 GiB/s.
            rate: Histogram::new(exponential_buckets(1024.0, 4.0, 12)),
            transform_time: times(),
            // From 10 ms, each four times the one before, to 12 hours.
            session_time: Histogram::new(exponential_buckets(0.01, 4.0, 12)),
        };
        metrics.begin_at_zero();
        metrics
    }
}

/// A histogram of times from 100 µs, each bound three times the one before, to a minute.
fn times() -> Histogram {
    Histogram::new(exponential_buckets(1e-4, 3.0, 13))
}

impl Metrics {
    /// Creates the counters that alerts watch, with the value 0. A counter that appears with the value 1 is not seen as an
    /// increase.
    fn begin_at_zero(&self) {
        let result = |result| ResultLabel { result };
        for method in Method::ALL {
            for result in ["ok"].into_iter().chain(Reason::CLASSES) {
                drop(self.logins.get_or_create(&LoginLabels { mechanism: method.name(), result }));
            }
        }
        for why in WhyRefused::ALL {
            drop(self.refused.get_or_create(&ReasonLabel { reason: why.class() }));
        }
        for end in TransformResult::ALL {
            drop(self.transforms.get_or_create(&result(end.name())));
        }
        for name in ["ok", "refused"] {
            drop(self.admin_logins.get_or_create(&result(name)));
        }
        for protocol in ["pop3", "pop3s", "peep"] {
            for result in EndResult::ALL.map(EndResult::name) {
                let tls = if protocol == "pop3s" { "1.3" } else { "none" };
                drop(self.sessions.get_or_create(&SessionLabels { protocol, tls, result }));
            }
        }
    }

    /// Counts an event.
    pub fn count(&self, event: &Event<'_>) {
        match &event.what {
            What::Login { method, took, scan, .. } => {
                self.logins.get_or_create(&LoginLabels { mechanism: method.name(), result: "ok" }).inc();
                self.login_time.observe(took.as_secs_f64());
                self.scan_time.observe(scan.as_secs_f64());
            }
            What::LoginRefused { method, reason, .. } => {
                let labels = LoginLabels { mechanism: method.name(), result: reason.class() };
                self.logins.get_or_create(&labels).inc();
            }
            What::AdminLogin { .. } => drop(self.admin_logins.get_or_create(&ResultLabel { result: "ok" }).inc()),
            What::AdminRefused { .. } => {
                self.admin_logins.get_or_create(&ResultLabel { result: "refused" }).inc();
            }
            What::Refused { reason, .. } => {
                self.refused.get_or_create(&ReasonLabel { reason: reason.class() }).inc();
            }
            What::Penalty { .. } => drop(self.penalties.inc()),
            What::Sent(Sent { whole: true, octets, first_octet, took, .. }) => {
                self.first_octet_time.observe(first_octet.as_secs_f64());
                if let Some(rate) = rate(*octets, *took) {
                    self.rate.observe(rate);
                }
            }
            What::NotSent { .. } => drop(self.not_sent.inc()),
            What::CutOff { .. } => drop(self.cut_off.inc()),
            What::Transformed { result, took } => {
                self.transforms.get_or_create(&ResultLabel { result: result.name() }).inc();
                self.transform_time.observe(took.as_secs_f64());
            }
            What::Update { failed, .. } if *failed > 0 => drop(self.not_removed.inc_by(*failed)),
            What::Ended(Ended { result, counts, .. }) => {
                let client = event.client;
                let tls = client.tls().map_or("none", |version| version.name());
                let labels = SessionLabels { protocol: client.service.name(), tls, result: result.name() };
                self.sessions.get_or_create(&labels).inc();
                self.session_time.observe(client.since.elapsed().as_secs_f64());
                if let Some(counts) = counts {
                    self.commands.inc_by(counts.commands);
                }
            }
            What::Connected
            | What::Tls { .. }
            | What::AdminChange { .. }
            | What::Sent(_)
            | What::LockLost
            | What::Expired { .. }
            | What::Fault { .. }
            | What::Update { .. } => {}
        }
    }

    /// Has the registry show what was counted.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("sessions", "Sessions that have ended", self.sessions.clone());
        registry.register("login_attempts", "Logins of users, accepted and refused", self.logins.clone());
        registry.register(
            "admin_login_attempts",
            "Logins of the admin, accepted and refused",
            self.admin_logins.clone(),
        );
        registry.register("refused_connections", "Connections that were refused", self.refused.clone());
        registry.register("penalties", "Penalties that have begun because of failed logins", self.penalties.clone());
        registry.register("commands", "Lines that clients of sessions that have ended had sent", self.commands.clone());
        registry.register("messages_not_sent", "Messages that could not be sent", self.not_sent.clone());
        registry.register("messages_cut_off", "Messages of which only a part could be sent", self.cut_off.clone());
        registry.register(
            "messages_not_removed",
            "Messages marked as deleted that QUIT could not remove",
            self.not_removed.clone(),
        );
        registry.register("transforms", "Messages that were given to the transform", self.transforms.clone());
        for (name, help, histogram) in [
            ("login", "Time from a user's credentials to the open maildrop", &self.login_time),
            ("scan", "Time for listing and measuring a maildrop", &self.scan_time),
            ("retr_first_octet", "Time from RETR to the first octet of the reply", &self.first_octet_time),
            ("transform", "Time that a transform takes for a message", &self.transform_time),
            ("session", "Length of sessions", &self.session_time),
        ] {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
        registry.register(
            "retr_octets_per_second",
            "Rate at which messages of 64 KiB and more were taken by clients or the kernel",
            self.rate.clone(),
        );
    }
}

/// The octets a second of a transfer, if it is large enough.
fn rate(octets: u64, took: Duration) -> Option<f64> {
    (octets >= LEAST_FOR_RATE && !took.is_zero()).then(|| octets as f64 / took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_messages_have_no_rate() {
        assert_eq!(rate(LEAST_FOR_RATE - 1, Duration::from_secs(1)), None);
        assert_eq!(rate(LEAST_FOR_RATE, Duration::ZERO), None);
        assert_eq!(rate(128 * 1024, Duration::from_millis(500)), Some(256.0 * 1024.0));
    }
}
