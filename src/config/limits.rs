//! Flags for the limits on clients: connections from one address, and the rate at which they read.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use crate::connections::MAX_CONNECTIONS;
use crate::guard::{Limits, MinRate};

/// The time over which a client's rate is averaged, in seconds: the default, and the values that can be set. The default is
/// as long as a client may read nothing at all, because data moves in bursts of the size of the kernel's buffers.
const DEFAULT_SPAN: u64 = 120;
const SPAN_RANGE: (u64, u64) = (1, 86_400);

/// The flags for limits on clients.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArgs {
    /// The most connections at once from one address; an IPv6 network of 64 bits counts as one address (0: no limit)
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u64).range(..=MAX_CONNECTIONS as u64))]
    per_address: u64,

    /// Exempt this network from the limits by address, as loopback is exempt; can be repeated
    #[arg(long, value_name = "NET")]
    trusted: Vec<Net>,

    /// Apply the limits by address to loopback too
    #[arg(long)]
    limit_loopback: bool,

    /// Disconnect a client that reads fewer than OCTETS per second (0: no limit), averaged over SECONDS
    #[arg(long, value_name = "OCTETS[:SECONDS]", default_value = "256:120")]
    min_rate: MinRateArg,
}

impl LimitArgs {
    pub(super) fn limits(&self) -> Limits {
        Limits {
            per_address: usize::try_from(self.per_address).ok().filter(|most| *most > 0),
            trusted: self.trusted.iter().map(|net| net.0).collect(),
            loopback_too: self.limit_loopback,
        }
    }

    pub(super) fn min_rate(&self) -> Option<MinRate> {
        Some(self.min_rate.0).filter(|rate| rate.octets > 0)
    }
}

/// A network such as `192.0.2.0/24`, or a single address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Net(pub(super) IpNet);

impl FromStr for Net {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let net: IpNet = net.map_err(|_| "it has to be an address or a network, as 192.0.2.0/24 or 2001:db8::/32")?;
        if net != net.trunc() {
            return Err(format!("it has bits behind the prefix; the network is {}", net.trunc()));
        }
        Ok(Self(net))
    }
}

#[derive(Debug, Clone, Copy)]
struct MinRateArg(MinRate);

impl FromStr for MinRateArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (octets, seconds) = text.split_once(':').unwrap_or((text, ""));
        let octets = octets.parse::<u32>().map_err(|_| "it has to be octets a second".to_owned())?;
        let seconds = if seconds.is_empty() && !text.ends_with(':') { Ok(DEFAULT_SPAN) } else { seconds.parse() };
        let (low, high) = SPAN_RANGE;
        let seconds = seconds.ok().filter(|seconds| (low..=high).contains(seconds));
        let seconds = seconds.ok_or_else(|| format!("it has to be averaged over {low} to {high} seconds"))?;
        Ok(Self(MinRate { octets: octets.into(), span: Duration::from_secs(seconds) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_a_span() {
        let parse = |text: &str| text.parse().map(|MinRateArg(rate)| (rate.octets, rate.span.as_secs()));
        assert_eq!(parse("256"), Ok((256, 120)));
        assert_eq!(parse("0"), Ok((0, 120)));
        assert_eq!(parse("100:5"), Ok((100, 5)));
        for bad in ["", ":", "5:", "5:0", ":5", "-1", "5:86401", "4294967296", "1k"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_is_a_network_of_one() {
        let contains =
            |net: &str, address: &str| net.parse::<Net>().unwrap().0.contains(&address.parse::<IpAddr>().unwrap());
        assert!(contains("192.0.2.0/24", "192.0.2.9"));
        assert!(contains("192.0.2.9", "192.0.2.9") && !contains("192.0.2.9", "192.0.2.8"));
        assert!(contains("2001:db8::/32", "2001:db8::1"));
        for bad in ["", "all", "192.0.2.0/33", "192.0.2/24", "192.0.2.0/", "10.1.2.3/8", "2001:db8::1/32"] {
            assert!(bad.parse::<Net>().is_err(), "{bad}");
        }
    }
}
