//! What is known of the server and of an account (`s?`, `i?`), testing a login (`at`), and the log's level (`l=`, `l?`).

use std::collections::BTreeMap;

use super::{answer, play};
use crate::harness::{Certificate, Client, PASSWORD, Server, USER};

/// An answer of names and values.
#[track_caller]
fn values(admin: &mut Client, command: &str) -> BTreeMap<String, String> {
    let pair = |line: &String| line.split_once(' ').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap();
    let lines = admin.values(command);
    let pairs: BTreeMap<_, _> = lines.iter().map(pair).collect();
    assert_eq!(pairs.len(), lines.len(), "a name is there twice");
    pairs
}

#[test]
fn the_server_tells_all_of_itself() {
    let server = Server::builder().flags(["-T", "77", "-c", "55"]).start();
    server.maildrop().put("1", "Subject: x\r\n\r\n");
    let mut client = server.session();
    client.fetch("RETR 1");
    let mut admin = server.admin();
    let shown = values(&mut admin, "s?");
    let expected = [
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("pid", server.pid().to_string()),
        ("current_connections", "1".to_owned()),
        ("open_connections", "2".to_owned()),
        ("users_logged_in", "1".to_owned()),
        ("users", "1".to_owned()),
        ("slots", "55".to_owned()),
        ("slots_used", "2".to_owned()),
        ("bans_and_penalties", "0".to_owned()),
        ("connections", "1".to_owned()),
        ("sent_octets", admin.value("rb?")),
        ("current_logged_users", "1".to_owned()),
        ("retrieved_emails", "1".to_owned()),
        ("removed_emails", "0".to_owned()),
        ("all_connections", "1".to_owned()),
        ("all_logins", "1".to_owned()),
        ("retrieved_bytes", admin.value("rb?")),
        ("max_connections", "55".to_owned()),
        ("timeout", "77".to_owned()),
        ("maildir", admin.value("m?")),
        ("log_level", "info".to_owned()),
        ("draining", "0".to_owned()),
        ("tls", "0".to_owned()),
        ("min_rate_octets", values(&mut admin, "s?")["min_rate_octets"].clone()),
    ];
    for (name, value) in expected {
        assert_eq!(shown.get(name), Some(&value), "{name}");
    }
    for (name, value) in [
        ("setting_timeout", "77"),
        ("setting_max_connections", "55"),
        ("setting_deletes", "remove"),
        ("setting_peep_socket", "-"),
        ("setting_users", "-"),
        ("setting_user", "mrose:(hidden)"),
    ] {
        assert_eq!(shown[name], value, "{name}");
    }
    // Nothing is counted in more detail without --metrics.
    assert_eq!(shown.get("login_attempts"), None);
    play(&mut admin, [("t= 66", "+"), ("c= 44", "+")]);
    let changed = values(&mut admin, "s?");
    assert_eq!((&*changed["setting_timeout"], &*changed["setting_max_connections"]), ("66", "44"));
    assert!(shown["uptime"].parse::<u64>().unwrap() < 600);
    client.call("DELE 1");
    client.quit();
    assert_eq!(values(&mut admin, "s?")["removed_emails"], "1");
}

/// Each counter and gauge of the metrics, by its name without prefix, unit and labels.
#[test]
fn the_server_tells_its_metrics_by_short_names() {
    let server = Server::builder().flags(["--metrics", "127.0.0.1:0"]).start();
    let mut client = server.pop3();
    client.call("USER nobody");
    client.refused("PASS x");
    server.session().quit();
    let mut admin = server.admin();
    let shown = values(&mut admin, "s?");
    assert_eq!((&*shown["login_attempts"], &*shown["admin_login_attempts"]), ("2", "1"));
    let metrics = admin.values("mt?");
    let mut wanted = 0;
    for metric in metrics.iter().filter_map(|line| line.strip_prefix("# TYPE pop3d_")) {
        let (name, kind) = metric.split_once(' ').unwrap();
        let is_wanted = ["counter", "gauge"].contains(&kind);
        let name = name.strip_suffix("_seconds").filter(|_| is_wanted).unwrap_or(name);
        assert_eq!(shown.contains_key(name), is_wanted, "{metric}");
        wanted += u32::from(is_wanted);
    }
    assert!(wanted > 20, "{metrics:?}");
}

/// A viewer learns neither a secret nor where it is.
#[test]
fn a_viewer_does_not_see_where_secrets_are() {
    let users = tempfile::NamedTempFile::new().unwrap();
    let path = users.path().to_str().unwrap();
    let flags = ["--users", path, "--peep-viewer", "tess:secret", "-t", "cat"];
    let server = Server::builder().flags(flags).start();
    assert_eq!(values(&mut server.admin(), "s?")["setting_users"], path);
    let mut viewer = server.peep();
    play(&mut viewer, [("a tess secret", "+")]);
    let shown = values(&mut viewer, "s?");
    for name in ["setting_users", "setting_peep_viewer", "setting_peep_admin", "setting_transform"] {
        assert_eq!(shown[name], "(hidden)", "{name}");
    }
    assert_eq!((&*shown["setting_tls_key"], &*shown["setting_state"]), ("-", "-"));
    let shown = format!("{shown:?}");
    assert!(!shown.contains(path) && !shown.contains("secret"), "{shown}");
}

#[test]
fn a_certificates_expiry_is_a_time() {
    let certificate = Certificate::new();
    let server = Server::builder().tls(&certificate).start();
    let mut admin = server.peep().tls(&certificate);
    assert_eq!(answer(&mut admin, "a root root"), "+");
    let shown = values(&mut admin, "s?");
    let expiry = &shown["certificate_expiry_timestamp"];
    assert!(expiry.ends_with('Z') && expiry.contains('T'), "{expiry}");
}

#[test]
fn an_account_is_shown_with_its_maildrop_and_session() {
    let server = Server::builder().user(USER, PASSWORD).user("a%b", "x").start();
    server.maildrop().put("1", "Subject: x\r\n\r\n");
    let mut admin = server.admin();
    let before = values(&mut admin, "i? mrose");
    for (name, value) in [("user", USER), ("messages", "1"), ("octets", "14"), ("session", "-"), ("logins", "0")] {
        assert_eq!(before[name], value, "{name}");
    }
    assert_eq!((&*before["last_login"], &*before["session_address"]), ("-", "-"));
    let client = server.session();
    server.maildrop().put("2", "Subject: y\r\n\r\n");
    let during = values(&mut admin, "i? mrose");
    assert_eq!((&*during["messages"], &*during["octets"], &*during["logins"]), ("2", "28", "1"));
    assert!(during["session"].parse::<u64>().is_ok() && during["session_address"].starts_with("127.0.0.1:"));
    assert!(during["last_login"].ends_with('Z') && during["last_login_address"] == during["session_address"]);
    client.quit();
    let after = values(&mut admin, "i? mrose");
    assert_eq!((&*after["session"], &after["last_login"]), ("-", &during["last_login"]));
    assert_eq!(values(&mut admin, "i? a%25b")["user"], "a%25b");
    play(&mut admin, [("i? nobody", "-4"), ("i? ../mrose", "-4"), ("i?", "-1"), ("u- mrose", "+"), ("i? mrose", "-4")]);
}

#[test]
fn a_maildrop_that_cannot_be_opened_is_told() {
    let server = Server::start();
    std::fs::write(server.mail().path().join(USER), "no directory").unwrap();
    let mut admin = server.admin();
    assert!(values(&mut admin, "i? mrose")["problem"].starts_with("the%20maildrop%20cannot%20be%20opened:%20"));
    assert!(answer(&mut admin, &format!("at {USER} {PASSWORD}")).starts_with("+the maildrop cannot be opened: "));
}

/// A tested login is no login: nothing is counted, there is no penalty, and the maildrop is free.
#[test]
fn a_login_is_tested() {
    let server = Server::builder().flags(["--limit-loopback"]).start();
    let mut admin = server.admin();
    let right = format!("at {USER} {PASSWORD}");
    let reason = |admin: &mut Client, line: &str| answer(admin, line).split(" seconds=").next().unwrap().to_owned();
    assert_eq!(reason(&mut admin, &right), "+ok");
    for (line, why) in [("at mrose wrong", "+wrong password"), ("at nobody wrong", "+unknown user")].repeat(10) {
        assert_eq!(reason(&mut admin, line), why);
    }
    play(&mut admin, [("hu?", "+0"), ("cu?", "+0"), ("b?", "+0"), ("hc?", "+0")]);
    let client = server.session();
    let why = reason(&mut admin, &right);
    assert!(why.starts_with("+the maildrop is locked by session ") && why.contains(" of 127.0.0.1 for "), "{why}");
    client.quit();
    assert_eq!(reason(&mut admin, &right), "+ok");
    play(&mut admin, [("at", "-1"), ("at x", "-1")]);
    assert!(!server.stderr().contains("wrong\""), "the log has a password");
}

/// What each source has said is behind the reason, in fields that a newer server may add to.
#[test]
fn a_tested_login_tells_what_the_sources_say_and_where_the_maildrop_is() {
    let directory = tempfile::tempdir().unwrap();
    let users = directory.path().join("users");
    std::fs::write(&users, "ana:{PLAIN}secret\nbroken:{NONE}x\n").unwrap();
    let server = Server::builder().users_file(&users).user("own", "o").start();
    server.mail().maildrop("ana").put("1", "Subject: x\r\n\r\n");
    let mut admin = server.admin();
    let mut fields = |line: &str| -> Vec<String> {
        let told = answer(&mut admin, &format!("{line} sources"));
        let words: Vec<_> = told.split(' ').skip_while(|word| !word.contains('=')).map(str::to_owned).collect();
        let is_time = |word: &String| word.starts_with("seconds=") || word.starts_with("took=");
        for time in words.iter().filter(|word| is_time(word)) {
            assert!(time.split_once('=').unwrap().1.parse::<f64>().unwrap() < 600.0, "{told}");
        }
        words.into_iter().filter(|word| !is_time(word)).collect()
    };
    let file = format!("source=users%20file%20{}", users.display());
    let (own, unknown) = ("source=command%20line".to_owned(), "said=unknown%20user".to_owned());
    let place = |name: &str| format!("maildrop={}", server.mail().path().join(name).display());
    let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        fields("at ana secret"),
        text(&[&place("ana"), "messages=1", "octets=14", &own, &unknown, &file, "said=accepted"])
    );
    assert_eq!(fields("at ana wrong"), text(&[&own, &unknown, &file, "said=wrong%20password"]));
    assert_eq!(fields("at nobody x"), text(&[&own, &unknown, &file, &unknown]));
    assert_eq!(fields("at broken x"), text(&[&own, &unknown, &file, "said=line%202%20cannot%20be%20used"]));
    assert_eq!(fields("at own o"), text(&[&place("own"), "messages=0", "octets=0", &own, "said=accepted"]));
    let _session = {
        let mut client = server.pop3();
        client.login("ana", "secret");
        client
    };
    assert_eq!(fields("at ana secret"), text(&[&place("ana"), &own, &unknown, &file, "said=accepted"]));
    assert_eq!(fields("at ../ana secret"), Vec::<String>::new());
}

#[test]
fn the_last_warnings_and_errors_are_told() {
    let server = Server::start();
    let mut admin = server.admin();
    let mut client = server.pop3();
    client.call("USER nobody");
    client.refused("PASS x");
    let problems = admin.values("e?");
    let last = problems.last().unwrap();
    assert!(last.contains("Z [WARN] #") && last.contains("login failed: user=\"nobody\""), "{problems:?}");
    server.expect_log("WARN", last.split_once("] ").unwrap().1);
    play(&mut admin, [("e? x", &*format!("+{}", problems.len()))]);
}

#[test]
fn the_metrics_are_open_metrics_text() {
    let server = Server::start();
    let mut admin = server.admin();
    let metrics = admin.values("mt?");
    assert_eq!(metrics.last().unwrap(), "# EOF");
    assert!(metrics.iter().any(|line| line.starts_with("# TYPE ")), "{metrics:?}");
    play(&mut admin, [("c?", "+998")]);
}

#[test]
fn the_log_level_changes_at_once() {
    let server = Server::start();
    let mut admin = server.admin();
    play(&mut admin, [("l?", "+info"), ("l= debug", "+"), ("l?", "+debug")]);
    server.pop3().call("CAPA");
    server.expect_log("DEBUG", "CAPA");
    play(&mut admin, [("l= error", "+"), ("l?", "+error"), ("l= off", "-1"), ("l= INFO", "-1"), ("l=", "-1")]);
    server.session().quit();
    play(&mut admin, [("l= info", "+")]);
    server.expect_log("INFO", "set: log level = info");
    assert!(!server.stderr().contains(" login: user="));
}
