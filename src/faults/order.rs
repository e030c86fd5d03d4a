//! What a tester orders: who gets which fault, how often and for how long.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::net::{network_text, parse_network};

/// The longest delay of an answer, in milliseconds: longer than any client waits.
const LONGEST_DELAY: u64 = 3_600_000;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A login with the right password is refused with [IN-USE].
    InUse,
    /// A login with the right password is refused with `[SYS/TEMP]`.
    SysTemp,
    /// A login with the right password is refused with `[AUTH]`, as if the password were wrong.
    Auth,
    /// The server sends only this number of octets a second.
    Slow,
    /// The server waits for this number of milliseconds before each answer.
    Delay,
    /// The server closes the connection when it has sent this number of octets.
    DropAfter,
    /// The server resets the connection (RST) when it has sent this number of octets.
    ResetAfter,
    /// The octets of the CRLF.CRLF that ends an answer come in packets of their own.
    SplitTerminator,
    /// STAT and LIST tell wrong sizes.
    LieSize,
    /// RETR and TOP send no more than half of the message, and end as if that were all.
    TruncateSilently,
    /// A line of other octets comes before each answer.
    Garbage,
    /// The server does not know CAPA.
    NoCapa,
    /// The server does not know UIDL.
    NoUidl,
    /// The server does not know TOP.
    NoTop,
}

/// The number that belongs to a fault.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    None,
    /// At least 1.
    OctetsPerSecond,
    /// From 1 to [`LONGEST_DELAY`].
    Milliseconds,
    Octets,
}

const TABLE: [(Kind, &str, Unit); 14] = [
    (Kind::InUse, "in-use", Unit::None),
    (Kind::SysTemp, "sys-temp", Unit::None),
    (Kind::Auth, "auth", Unit::None),
    (Kind::Slow, "slow", Unit::OctetsPerSecond),
    (Kind::Delay, "delay", Unit::Milliseconds),
    (Kind::DropAfter, "drop-after", Unit::Octets),
    (Kind::ResetAfter, "reset-after", Unit::Octets),
    (Kind::SplitTerminator, "split-terminator", Unit::None),
    (Kind::LieSize, "lie-size", Unit::None),
    (Kind::TruncateSilently, "truncate-silently", Unit::None),
    (Kind::Garbage, "garbage", Unit::None),
    (Kind::NoCapa, "no-capa", Unit::None),
    (Kind::NoUidl, "no-uidl", Unit::None),
    (Kind::NoTop, "no-top", Unit::None),
];

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct What {
    /// Its kind.
    pub kind: Kind,
    /// Octets, octets a second or milliseconds, as the kind has it; 0 for a kind that has no number.
    pub value: u64,
}

impl What {
    /// The names of all faults, without their numbers.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        TABLE.iter().map(|(_, name, _)| *name)
    }
}

impl FromStr for What {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        let Some(&(kind, _, unit)) = TABLE.iter().find(|(_, known, _)| *known == name) else {
            let names: Vec<_> = TABLE.iter().map(|(_, name, unit)| format!("{name}{unit}")).collect();
            return Err(format!("{name:?} is no fault; there are {}", names.join(", ")));
        };
        let number = |value: &str| value.parse::<u64>().ok();
        let value = match (unit, value) {
            (Unit::None, None) => Some(0),
            (Unit::Octets, Some(value)) => number(value),
            (Unit::OctetsPerSecond, Some(value)) => {
                number(value.strip_suffix("/s").unwrap_or(value)).filter(|rate| *rate > 0)
            }
            (Unit::Milliseconds, Some(value)) => number(value).filter(|time| (1..=LONGEST_DELAY).contains(time)),
            (Unit::None, Some(_)) | (_, None) => None,
        };
        let value = value.ok_or_else(|| format!("this fault is written {name}{unit}"))?;
        Ok(Self { kind, value })
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = TABLE.iter().find(|(kind, ..)| *kind == self.kind);
        let (_, name, unit) = known.unwrap_or(&TABLE[0]);
        f.write_str(name)?;
        match unit {
            Unit::None => Ok(()),
            Unit::OctetsPerSecond => write!(f, "={}/s", self.value),
            Unit::Milliseconds | Unit::Octets => write!(f, "={}", self.value),
        }
    }
}

/// The number as the list of faults shows it.
impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "",
            Self::OctetsPerSecond => "=OCTETS/s",
            Self::Milliseconds => "=MS (up to 3600000)",
            Self::Octets => "=OCTETS",
        })
    }
}

/// Whom a fault is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Every client.
    Everyone,
    /// The clients from this network.
    Network(IpNet),
    /// The clients of this user, from the login on.
    User(String),
}

impl Who {
    /// `*`, a network, an address, or anything else for the user of that name.
    #[must_use]
    pub fn called(text: &str) -> Self {
        match parse_network(text) {
            _ if text == "*" => Self::Everyone,
            Some(network) => Self::Network(network),
            None => Self::User(text.to_owned()),
        }
    }

    /// Returns true if a client from this address, which has logged in or is logging in as this user, is meant.
    pub(super) fn includes(&self, address: Option<IpAddr>, user: Option<&str>) -> bool {
        match self {
            Self::Everyone => true,
            Self::Network(network) => address.is_some_and(|address| network.contains(&address)),
            Self::User(name) => user == Some(name),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everyone => f.write_str("*"),
            Self::Network(network) => f.write_str(&network_text(network)),
            Self::User(name) => f.write_str(name),
        }
    }
}

/// An order: the four words of `--fault`, and of PEEP's `ft+`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Whom the fault is for.
    pub who: Who,
    /// The fault.
    pub what: What,
    /// How many sessions get it, or how many logins if it refuses a login; 0 for any number.
    pub count: u32,
    /// For how many seconds sessions get it; 0 until it is cleared.
    pub seconds: u32,
}

impl FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A user's name may have spaces.
        let words: Vec<_> = text.trim().rsplitn(4, ' ').collect();
        let &[seconds, count, what, who] = words.as_slice() else {
            return Err("it has to be 'WHO WHAT COUNT SECONDS', as in '* no-uidl 0 0'".to_owned());
        };
        let number = |word: &str, name| word.parse().map_err(|_| format!("{name} has to be a number, not {word:?}"));
        Ok(Self {
            who: Who::called(who),
            what: what.parse()?,
            count: number(count, "COUNT")?,
            seconds: number(seconds, "SECONDS")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_its_spelling() {
        for (kind, name, unit) in TABLE {
            let (text, value) = match unit {
                Unit::None => (name.to_owned(), 0),
                Unit::OctetsPerSecond => (format!("{name}=7/s"), 7),
                Unit::Milliseconds | Unit::Octets => (format!("{name}=7"), 7),
            };
            assert_eq!(text.parse(), Ok(What { kind, value }));
            assert_eq!(What { kind, value }.to_string(), text);
        }
        assert_eq!("slow=7".parse(), Ok(What { kind: Kind::Slow, value: 7 }));
        assert_eq!("drop-after=0".parse(), Ok(What { kind: Kind::DropAfter, value: 0 }));
    }

    #[test]
    fn anything_else_is_refused_with_the_spelling() {
        for (text, error) in [
            ("slow", "this fault is written slow=OCTETS/s"),
            ("slow=0", "this fault is written slow=OCTETS/s"),
            ("slow=/s", "this fault is written slow=OCTETS/s"),
            ("delay=3600001", "this fault is written delay=MS (up to 3600000)"),
            ("delay=1s", "this fault is written delay=MS (up to 3600000)"),
            ("drop-after=-1", "this fault is written drop-after=OCTETS"),
            ("drop-after=", "this fault is written drop-after=OCTETS"),
            ("no-top=1", "this fault is written no-top"),
        ] {
            assert_eq!(text.parse::<What>(), Err(error.to_owned()), "{text}");
        }
        let error = "No-Top".parse::<What>().unwrap_err();
        assert!(
            error.starts_with("\"No-Top\" is no fault; there are in-use, ") && error.ends_with("no-top"),
            "{error}"
        );
    }

    #[test]
    fn an_order_is_four_words() {
        let order: Order = "192.0.2.77/24 delay=50 3 60".parse().unwrap();
        assert_eq!(order.who, Who::Network("192.0.2.0/24".parse().unwrap()));
        assert_eq!((order.what.to_string().as_str(), order.count, order.seconds), ("delay=50", 3, 60));
        assert_eq!("* auth 0 0".parse::<Order>().unwrap().who, Who::Everyone);
        assert_eq!("ana b auth 0 0".parse::<Order>().unwrap().who, Who::User("ana b".to_owned()));
        for wrong in ["", "* auth", "auth 0 0", "* auth 0", "* auth -1 0", "* auth 0 1h", "* auth 0 99999999999"] {
            assert!(wrong.parse::<Order>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_fault_is_for_everyone_a_network_or_a_user() {
        let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let here = address("192.0.2.4");
        assert!(Who::called("*").includes(None, None));
        for (who, includes) in [("192.0.2.4", true), ("::ffff:192.0.2.4", true), ("192.0.2.5", false), ("ana", true)] {
            assert_eq!(Who::called(who).includes(here, Some("ana")), includes, "{who}");
        }
        assert!(!Who::called("192.0.2.0/24").includes(None, Some("192.0.2.0/24")));
        assert!(!Who::called("ana").includes(here, None));
    }
}
