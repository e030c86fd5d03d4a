//! Runs each fuzz target on its seeds and on mutations of them. The seeds include the inputs in which fuzzing has found
//! faults. `scripts/fuzz` fuzzes the targets for longer.
//!
//! `POP3D_MUTATIONS=100000` sets the number of mutations for each target (default: 1,000).

mod targets;

use std::env;
use std::fs;
use std::panic;
use std::path::Path;

use crate::octets::Chance;
use targets::Target;

const MUTATIONS: usize = 1000;

/// Words that mutations insert, because random octets do not form them.
const WORDS: [&[u8]; 28] = [
    b"USER u\r\n",
    b"PASS p\r\n",
    b"STAT\r\n",
    b"LIST\r\n",
    b"UIDL\r\n",
    b"RETR 1\r\n",
    b"TOP 1 1\r\n",
    b"DELE 1\r\n",
    b"QUIT\r\n",
    b"\r\n.\r\n",
    b"\n",
    b" ",
    b"a root root\r\n",
    b"u+ x y\r\n",
    b"w?\r\n",
    b"f\r\n",
    b"s?\r\n",
    b"b+ 192.0.2.0/24 0\r\n",
    b"b?\r\n",
    b"d= 1\r\n",
    b"ft+ * drop-after=9 1 60\r\n",
    b"4294967296",
    b"%2D",
    b" - ",
    b"::ffff:192.0.2.0/120",
    b"\x16\x03\x01",
    b" HTTP/1.1\r\n",
    b"\0",
];

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(target);
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// A random seed with a few random changes.
fn mutated(seeds: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut octets = seeds[chance.below(seeds.len())].clone();
    for _ in 0..=chance.below(4) {
        let at = chance.below(octets.len() + 1);
        match chance.below(5) {
            0 => octets.truncate(at),
            1 => drop(octets.splice(at..at, WORDS[chance.below(WORDS.len())].iter().copied())),
            2 => octets.insert(at, u8::try_from(chance.below(256)).unwrap()),
            3 => {
                let other = &seeds[chance.below(seeds.len())];
                octets.extend_from_slice(&other[chance.below(other.len() + 1)..]);
            }
            _ => {
                if let Some(octet) = octets.get_mut(at) {
                    *octet ^= 1 << chance.below(8);
                }
            }
        }
    }
    octets
}

/// Runs a target on all its seeds and on mutations of them.
#[track_caller]
fn replay(name: &str) {
    let mutations = env::var("POP3D_MUTATIONS").map_or(MUTATIONS, |count| count.parse().expect("a number"));
    let (_, target) = targets::ALL.into_iter().find(|(it, _)| *it == name).unwrap();
    let seeds = seeds(name);
    let mut chance = Chance(7);
    seeds.iter().for_each(|seed| try_octets(name, target, seed));
    (0..mutations).for_each(|_| try_octets(name, target, &mutated(&seeds, &mut chance)));
}

#[track_caller]
fn try_octets(name: &str, target: Target, octets: &[u8]) {
    let tried = panic::catch_unwind(|| target(octets));
    assert!(tried.is_ok(), "{name} fails with \"{}\"", octets.escape_ascii());
}

#[test]
fn pop3_line() {
    replay("pop3_line");
}

#[test]
fn pop3_session() {
    replay("pop3_session");
}

#[test]
fn peep_line() {
    replay("peep_line");
}

#[test]
fn peep_fields() {
    replay("peep_fields");
}

#[test]
fn peep_session() {
    replay("peep_session");
}

#[test]
fn byte_stuffing() {
    replay("byte_stuffing");
}

#[test]
fn index() {
    replay("index");
}

#[test]
fn passwd_file() {
    replay("passwd_file");
}

#[test]
fn sasl() {
    replay("sasl");
}

#[test]
fn proxy_header() {
    replay("proxy_header");
}

#[test]
fn every_target_has_a_wrapper_an_entry_in_cargo_toml_and_seeds() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let manifest = fs::read_to_string(package.join("Cargo.toml")).unwrap();
    for (name, _) in targets::ALL {
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"")), "{name}");
        let wrapper = fs::read_to_string(package.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(wrapper.contains(&format!("pop3d_fuzz::{name}(")), "{name}");
        assert!(!seeds(name).is_empty(), "{name}");
    }
}
