//! The text of all metrics.

use std::fmt::Write;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::connections::Protocol;
use crate::shared::Shared;

/// All metrics at this moment, as OpenMetrics text.
#[must_use]
pub fn text(shared: &Shared) -> String {
    let mut registry = Registry::with_prefix("pop3d");
    register_gauges(&mut registry, shared);
    let stats = &shared.stats;
    for (name, help, counter) in [
        ("connections", "POP3 connections", &stats.connections),
        ("logins", "Successful logins", &stats.logins),
        ("sent_octets", "Octets sent to POP3 clients", &stats.sent),
        ("retrieved_messages", "Messages sent by RETR", &stats.retrieved),
        ("removed_messages", "Messages removed by QUIT", &stats.removed),
        ("expired_messages", "Messages removed because they had expired", &stats.expired),
    ] {
        registry.register(name, help, ConstCounter::new(counter.value()));
    }
    if let Some(metrics) = shared.events.metrics() {
        metrics.register(&mut registry);
    }
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = encode(&mut text, &registry);
    text
}

fn register_gauges(registry: &mut Registry, shared: &Shared) {
    let connections = &shared.connections;
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    registry.register("build", "The server's version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
    let uptime = ConstGauge::new(shared.started.elapsed().as_secs_f64());
    registry.register_with_unit("uptime", "Time since the server's start", Unit::Seconds, uptime);
    let open = Family::<[(&str, &str); 1], Gauge>::default();
    for (name, protocol) in [("pop3", Protocol::Pop3), ("peep", Protocol::Peep)] {
        open.get_or_create(&[("protocol", name)]).set(number(connections.count(protocol)));
    }
    registry.register("open_connections", "Connections that are open", open);
    for (name, help, value) in [
        ("slots", "The most connections at once", connections.limit()),
        ("slots_used", "Connection slots that are in use", connections.used()),
        ("clients_waiting", "1 if POP3 clients are waiting for a slot", connections.clients_wait().into()),
        ("users_logged_in", "Users who are logged in", shared.locks.users().len()),
        ("users", "Accounts", shared.users.names().len()),
        ("bans_and_penalties", "Bans and penalties in force", shared.guard.exclusions().len()),
        ("draining", "1 if the server takes no more POP3 clients", connections.is_draining().into()),
    ] {
        registry.register(name, help, ConstGauge::new(number(value)));
    }
    if let Some(expiry) = shared.settings().certificates.as_ref().and_then(|certificates| certificates.expiry()) {
        let expiry = ConstGauge::new(i64::try_from(expiry.as_secs()).unwrap_or(i64::MAX));
        let help = "When the first of the TLS certificates expires, in seconds since 1970";
        registry.register_with_unit("certificate_expiry_timestamp", help, Unit::Seconds, expiry);
    }
}

/// OpenMetrics text in Prometheus's older format, for programs that do not ask for OpenMetrics: there a counter's name
/// ends in `_total`, an info is a gauge, and there are neither units nor an end.
#[must_use]
pub fn for_prometheus(open_metrics: &str) -> String {
    let kind = |name: &str| {
        let is_of_name =
            |line: &&str| line.strip_prefix("# TYPE ").is_some_and(|rest| rest.split(' ').next() == Some(name));
        open_metrics.lines().find(is_of_name).and_then(|line| line.rsplit(' ').next()).unwrap_or_default()
    };
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        let comment = line.strip_prefix("# ").and_then(|comment| comment.split_once(' '));
        let Some((what @ ("HELP" | "TYPE"), rest)) = comment else {
            if !line.starts_with('#') {
                let _ = writeln!(text, "{line}");
            }
            continue;
        };
        let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let _ = match (kind(name), what) {
            ("counter", _) => writeln!(text, "# {what} {name}_total {rest}"),
            ("info", "TYPE") => writeln!(text, "# TYPE {name}_info gauge"),
            ("info", _) => writeln!(text, "# HELP {name}_info {rest}"),
            _ => writeln!(text, "# {what} {name} {rest}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_has_other_names_in_comments_and_no_end() {
        let open = "# HELP a_seconds A.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total 1\n\
                    # HELP b B.\n# TYPE b info\nb_info{version=\"1\"} 1\n# HELP c C.\n# TYPE c gauge\nc 2\n# EOF\n";
        let old = "# HELP a_seconds_total A.\n# TYPE a_seconds_total counter\na_seconds_total 1\n\
                   # HELP b_info B.\n# TYPE b_info gauge\nb_info{version=\"1\"} 1\n# HELP c C.\n# TYPE c gauge\nc 2\n";
        assert_eq!(for_prometheus(open), old);
    }
}
