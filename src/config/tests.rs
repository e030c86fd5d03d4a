//! Tests of the configuration that flags lead to.

use clap::Parser;

use std::time::Duration;

use super::*;
use crate::net::ListenAddress;

fn parse(arguments: &[&str]) -> Result<Args, clap::Error> {
    Args::try_parse_from([&["pop3d"], arguments].concat())
}

fn resolve(arguments: &[&str]) -> Result<Config, ConfigError> {
    parse(arguments).unwrap().resolve()
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let config = resolve(&[]).unwrap();
    assert_eq!((config.ports.pop3.port, config.ports.peep.as_ref().unwrap().port), (1110, 2110));
    assert_eq!(config.settings.mail_root.path().to_str(), Some("."));
    assert_eq!(config.settings.timeout, Some(Duration::from_secs(600)));
    assert_eq!(config.max_connections, 998);
    assert_eq!((config.limits.per_address, config.limits.loopback_too), (Some(32), false));
    assert_eq!(config.settings.min_rate.map(|rate| (rate.octets, rate.span.as_secs())), Some((256, 120)));
    assert!(config.settings.admin.credentials.match_with(b"root", b"root"));
    assert!(config.ports.pop3.addresses.iter().all(ListenAddress::is_unspecified));
    assert!(config.ports.peep.unwrap().addresses.iter().all(ListenAddress::is_loopback));
}

#[test]
fn a_password_may_have_colons_and_spaces() {
    let config = resolve(&["-u", "ana:a:b c", "--user", "bob:x"]).unwrap();
    assert_eq!(config.users.names(), ["ana", "bob"]);
    assert!(config.users.authenticate(b"ana", b"a:b c", None).is_ok());
    assert!(config.users.authenticate(b"bob", b"x", None).is_ok());
}

#[test]
fn bad_values_are_refused() {
    for bad in [
        &["-u", "ana"][..],
        &["-u", ":x"],
        &["-u", "ana:"],
        &["-u", "../x:y"],
        &["-c", "0"],
        &["-c", "999"],
        &["-T", "86401"],
        &["-T", "-1"],
        &["-p", "65536"],
        &["--address", "localhost.invalid"],
        &["-a", "root"],
        &["-v", "-q"],
        &["--tls-cert", "chain"],
        &["--tls-key", "key"],
        &["--pop3s-port", "0"],
        &["--peep-tls"],
        &["--state", "state", "--tls-self-signed", "--tls-cert", "chain", "--tls-key", "key"],
        &["--unknown"],
        &["stray"],
    ] {
        assert_eq!(parse(bad).unwrap_err().exit_code(), 2, "{bad:?}");
    }
}

#[test]
fn what_cannot_work_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    assert!(matches!(resolve(&["-m", missing.to_str().unwrap()]), Err(ConfigError::MailRoot(..))));
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(resolve(&["-m", file.to_str().unwrap()]), Err(ConfigError::MailRoot(..))));
    assert!(matches!(resolve(&["--users", missing.to_str().unwrap()]), Err(ConfigError::UsersFile(..))));
    assert!(matches!(resolve(&["--tls-cert", "none", "--tls-key", "none"]), Err(ConfigError::Certificate(_))));
}

#[test]
fn flags_that_contradict_each_other_are_refused() {
    let check = |arguments: &[&str]| parse(arguments).unwrap().check();
    assert!(matches!(check(&["-u", "a:1", "-u", "b:1", "-u", "a:2"]), Err(ConfigError::UserTwice(_))));
    assert!(matches!(check(&["-t", "tr 'a"]), Err(ConfigError::Transform(_))));
    let pairs = ["--tls-cert", "c", "--tls-key", "k", "--tls-cert", "d"];
    assert!(matches!(check(&pairs), Err(ConfigError::Pairs { certificates: 2, keys: 1, names: 0 })));
    assert!(matches!(check(&["-vvv"]), Err(ConfigError::TooOften("--verbose"))));
    assert!(matches!(check(&["-qqq"]), Err(ConfigError::TooOften("--quiet"))));
    let twice = ["-t", "cat", "--transform-limit", "cpu=1,files=9", "--transform-limit", "cpu=2"];
    assert!(matches!(check(&twice), Err(ConfigError::LimitTwice(_))));
    assert!(matches!(check(&["--peep-address", "0.0.0.0"]), Err(ConfigError::DefaultAdmin(_))));
    let admin = ["--peep-address", "0.0.0.0", "-a", "admin:secret"];
    assert!(matches!(check(&admin), Err(ConfigError::PeepInClear(_))));
    for good in [&[&admin[..], &["--allow-cleartext"]].concat()[..], &["-vv"], &["-qq"], &twice[..4]] {
        assert!(check(good).is_ok(), "{good:?}");
    }
}

#[test]
fn passwords_are_not_in_debug_texts() {
    let text = format!("{:?}", parse(&["-u", "ana:hunter2", "-a", "boss:hunter3"]).unwrap());
    assert!(!text.contains("hunter"), "{text}");
}

/// The flags that [`NEEDS_RESTART`] names are those that a reload keeps as they were at the start.
#[test]
fn what_needs_a_restart_is_declared_beside_the_flag() {
    let changed = [
        "--state",
        "s",
        "--log-file",
        "l",
        "--run-as",
        "65534",
        "--allow-dir",
        "/",
        "--transform-path",
        "/",
        "--transform-network",
        "--confine",
        "--as-owner",
        "--log-format",
        "json",
        "--metrics",
        "127.0.0.1:9110",
        "-t",
        "cat",
        "--peep-socket",
        "peep.sock",
        "--peep-socket-mode",
        "660",
        "--peep-socket-group",
        "0",
        "--allow-faults",
        "--fault",
        "* no-uidl 0 0",
    ];
    let started = parse(&["-m", "here"]).unwrap();
    let mut kept: Vec<&str> = Vec::new();
    for changed in [&changed[..], &["--no-landlock"]] {
        let mut args = parse(changed).unwrap();
        kept.extend(args.keep_fixed(&started));
        assert!(args.keep_fixed(&started).is_empty());
    }
    kept.sort_unstable();
    assert_eq!(kept, Vec::from_iter(fixed()));
}
