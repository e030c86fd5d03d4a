//! Metrics in the format of OpenMetrics, for Prometheus and for PEEP's `mt?`.
//!
//! - [`text`] has all of them at this moment. Counters that the server always keeps and gauges are always there.
//! - [`names_and_values`] has the counters and gauges among them by short names, for PEEP's `s?`.
//! - [`Metrics`] counts what [`crate::events`] tells in more detail, from when it is switched on by `--metrics`.
//! - [`Exporter`] serves the text over HTTP (`--metrics`).
//!
//! No label has a user's name or an address: there would be too many values, and they are private.

mod counted;
mod exporter;
mod exposition;
mod plain;

pub use counted::Metrics;
pub use exporter::Exporter;
pub use exposition::{for_prometheus, text};
pub use plain::{names_and_values, timestamp};
