//! Limits on the resources of a transform (`--transform-limit`).

use std::fmt;
use std::str::FromStr;

use rustix::process::Resource;

/// One limit, for example `cpu=10`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    resource: Resource,
    most: u64,
    /// The limit as the operator wrote it.
    text: String,
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, number) = text.split_once('=').ok_or("a limit has the form NAME=N")?;
        let (resource, most) = match name {
            "cpu" => (Resource::Cpu, number.parse().ok()),
            "memory" => (Resource::As, octets(number)),
            "file-size" => (Resource::Fsize, octets(number)),
            "files" => (Resource::Nofile, number.parse().ok()),
            // At least 1, because the program itself is one process.
            "processes" => (Resource::Nproc, number.parse().ok().filter(|most| *most > 0)),
            _ => return Err("the limits are cpu, memory, file-size, files and processes".to_owned()),
        };
        let most = most.ok_or_else(|| format!("{number:?} is not a number for this limit"))?;
        Ok(Self { resource, most, text: text.to_owned() })
    }
}

impl Limit {
    pub(super) fn resource(&self) -> Resource {
        self.resource
    }

    pub(super) fn most(&self) -> u64 {
        self.most
    }

    /// Returns true if both limit the same resource.
    #[must_use]
    pub fn is_of_same(&self, other: &Self) -> bool {
        self.resource == other.resource
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Parses a number of octets with an optional unit, for example `512M`.
fn octets(text: &str) -> Option<u64> {
    let (number, unit) = match text.char_indices().last()? {
        (at, 'K') => (&text[..at], 1 << 10),
        (at, 'M') => (&text[..at], 1 << 20),
        (at, 'G') => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_names_and_numbers() {
        for (text, resource, most) in [
            ("cpu=10", Resource::Cpu, 10),
            ("memory=512M", Resource::As, 512 << 20),
            ("file-size=0", Resource::Fsize, 0),
            ("file-size=3K", Resource::Fsize, 3072),
            ("memory=1G", Resource::As, 1 << 30),
            ("files=16", Resource::Nofile, 16),
            ("processes=5", Resource::Nproc, 5),
        ] {
            let limit: Limit = text.parse().unwrap();
            assert_eq!((limit.resource, limit.most, limit.to_string()), (resource, most, text.to_owned()));
        }
        let overflows = format!("memory={}G", u64::MAX);
        for bad in ["", "cpu", "cpu=", "cpu=-1", "cpu=1M", "memory=M", "memory=1T", "size=1", "processes=0", &overflows]
        {
            assert!(bad.parse::<Limit>().is_err(), "{bad}");
        }
    }
}
