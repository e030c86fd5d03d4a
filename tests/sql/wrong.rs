//! Settings that cannot be right, and databases that are not there at the start.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::database::{Database, Kind};
use super::{Configuration, QUERY, attempt, refused, unavailable};
use crate::harness::{PROGRAM, Server, bounded_output, eventually};

/// Starts a server that refuses its configuration; `pop3d check` does so, too. Returns what both say.
fn refusal(configuration: &Configuration) -> String {
    let output = configuration.server().refused();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_ne!(output.status.code(), Some(0), "{error}");
    let (is_right, checked) = check(configuration);
    assert!(!is_right, "{checked}");
    let why = error.lines().last().unwrap_or_default().trim_start_matches("pop3d: ").to_owned();
    assert!(checked.contains(&why), "{checked}\nlacks: {why}");
    why
}

/// Runs `pop3d check`.
fn check(configuration: &Configuration) -> (bool, String) {
    let mail = TempDir::new().unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["check", "-p", "0", "-P", "0", "-m"]).arg(mail.path()).arg("--config").arg(configuration.path());
    let output = bounded_output(command.stdin(Stdio::null()));
    let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
    (output.status.success(), text(output.stdout) + &text(output.stderr))
}

fn a_query_that_cannot_be_right_is_an_error(kind: Kind) {
    let database = Database::with_accounts(kind);
    for (query, why) in [
        ("SELEC password FROM accounts WHERE name = :user", "SELEC"),
        ("SELECT password FROM acounts WHERE name = :user", "acounts"),
        ("SELECT pasword AS password FROM accounts WHERE name = :user", "pasword"),
        ("SELECT active FROM accounts WHERE name = :user", "no column password; its columns: active"),
        ("SELECT password FROM accounts WHERE name = :usr", "no parameter :usr"),
        ("SELECT password FROM accounts WHERE name = :user; DROP TABLE accounts", "a single statement"),
        ("SELECT password FROM accounts WHERE name = ':user", "has no end"),
    ] {
        let told = refusal(&Configuration::new(&database, query, ""));
        assert!(told.contains(why), "{query}: {told}");
    }
    let placeholder = if kind == Kind::Postgres { "$1" } else { "?" };
    let query = format!("SELECT password FROM accounts WHERE name = {placeholder}");
    let told = refusal(&Configuration::new(&database, &query, ""));
    assert!(told.contains("it has 1 parameters, of which 0 have a name"), "{told}");
    for (key, statement, why) in [
        ("login-statement", "UPDATE acounts SET active = 1 WHERE name = :user", "acounts"),
        ("add-statement", "INSERT INTO accounts VALUES (:user, :pasword, 1)", "no parameter :pasword"),
        ("remove-statement", "DELETE FROM accounts WHERE nam = :user", "nam"),
        ("names-statement", "SELECT name FROM accounts WHERE name = :user", "no parameter :user"),
    ] {
        let told = refusal(&Configuration::new(&database, QUERY, &format!("{key} = '{statement}'")));
        assert!(told.contains(key) && told.contains(why), "{told}");
    }
}

#[test]
fn a_query_of_sqlite_that_cannot_be_right_is_an_error() {
    a_query_that_cannot_be_right_is_an_error(Kind::Sqlite);
}

#[test]
fn a_query_of_postgresql_that_cannot_be_right_is_an_error() {
    a_query_that_cannot_be_right_is_an_error(Kind::Postgres);
}

#[test]
fn a_query_of_mariadb_that_cannot_be_right_is_an_error() {
    a_query_that_cannot_be_right_is_an_error(Kind::Mariadb);
}

#[test]
fn settings_that_do_not_fit_are_errors() {
    for (text, why) in [
        ("url = 'oracle://x'\nquery = 'SELECT 1'", "it has to begin with sqlite:, postgres: or mysql:"),
        ("url = 'sqlite:/x'", "needs \"query\""),
        ("url = 'sqlite:/x'\nquery = 'SELECT 1'\ntls = 'on'", "an SQLite file is not on a server"),
        ("url = 'mysql://h/d'\nquery = 'SELECT 1'\ntls = 'off'\ntls-ca = '/x'", "there is no TLS"),
        ("url = 'mysql://h/d'\nquery = 'SELECT 1'\npassword-file = '/nonexistent'", "/nonexistent"),
        ("url = 'sqlite:/x'\nquery = 'SELECT 1'\nat-once = 0", "at-once"),
    ] {
        let configuration = Configuration::of(&format!("[[accounts]]\nkind = 'sql'\n{text}\n"));
        let output = configuration.server().refused();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(why), "{text}: {error}");
    }
}

#[test]
fn a_database_that_is_not_there_at_the_start_is_a_warning() {
    let mut database = Database::with_accounts(Kind::Postgres);
    let configuration = Configuration::new(&database, QUERY, "cache = 'off'");
    database.stop();
    let (is_right, checked) = check(&configuration);
    assert!(is_right && checked.contains("is unavailable"), "{checked}");
    let server = configuration.server().start();
    eventually("the log warns", || {
        server.stderr().lines().any(|line| line.contains("WARN") && line.contains("is unavailable"))
    });
    assert_eq!(attempt(&server, "ana", "hunter2"), unavailable());
    database.serve(&[]);
    assert_eq!(attempt(&server, "ana", "hunter2"), Ok(()));
}

#[test]
fn columns_and_accounts_that_are_wrong_are_told_once() {
    let database = Database::with_accounts(Kind::Sqlite);
    database.execute("INSERT INTO accounts VALUES ('carol', 'hunter2', 1), ('dora', '{PLAIN}secret', 1)");
    let query = "SELECT password, 5 AS quota, CASE name WHEN 'dora' THEN 'sdbox:/var/mail' END AS mail FROM accounts \
                 WHERE name = :user OR :user = 'all'";
    let configuration = Configuration::new(&database, query, "cache = 'off'");
    let (is_right, checked) = check(&configuration);
    assert!(is_right && checked.contains("the column quota has no meaning"), "{checked}");
    let server = configuration.server().start();
    for _ in 0..3 {
        assert_eq!(attempt(&server, "ana", "hunter2"), Ok(()));
        assert_eq!(attempt(&server, "carol", "hunter2"), refused());
        assert_eq!(attempt(&server, "dora", "secret"), refused());
        assert_eq!(attempt(&server, "all", "hunter2"), refused());
    }
    eventually("the last one is told", || server.stderr().contains("all cannot log in"));
    let log = server.stderr();
    for told in [
        "the column quota has no meaning",
        "carol cannot log in: the password has no {SCHEME}",
        "dora cannot log in: ",
        "all cannot log in: the query has several rows",
    ] {
        assert_eq!(log.matches(told).count(), 1, "{told}: {log}");
    }
}

/// An account that the database cannot list is found all the same.
#[test]
fn peep_tells_of_an_account_without_a_statement_for_names() {
    let database = Database::with_accounts(Kind::Sqlite);
    let server = Configuration::new(&database, QUERY, "").server().start();
    let mut admin = server.admin();
    assert!(admin.values("i? ana").contains(&"account exists".to_owned()));
    admin.send("i? nobody");
    admin.expect("-4");
    assert_eq!(admin.values("rp? ana").len(), 1);
    admin.send("rp? nobody");
    admin.expect("-4");
}

/// The column `connections` limits the sessions of an account, and a value that is no number keeps the user out.
#[test]
fn a_column_limits_the_sessions_of_an_account() {
    let database = Database::with_accounts(Kind::Sqlite);
    let query = "SELECT password, CASE name WHEN 'ana' THEN 1 ELSE 'many' END AS connections FROM accounts \
                 WHERE name = :user";
    let configuration = Configuration::new(&database, query, "");
    let server = configuration.server().flags(["--shared-maildrops", "--busy", "refuse"]).start();
    let mut first = server.pop3();
    first.login("ana", "hunter2");
    assert_eq!(attempt(&server, "ana", "hunter2"), Err("IN-USE".to_owned()));
    first.quit();
    assert_eq!(attempt(&server, "ana", "hunter2"), Ok(()));
    assert_eq!(attempt(&server, "o'neil", "hunter2"), refused());
    server.expect_log("WARN", "o'neil cannot log in: connections has to be a number of sessions, or 0 for no limit");
}

#[test]
fn a_confined_server_uses_its_sqlite_file() {
    let database = Database::with_accounts(Kind::Sqlite);
    database.execute("PRAGMA journal_mode = WAL; CREATE TABLE logins (name TEXT)");
    let configuration =
        Configuration::new(&database, QUERY, "login-statement = 'INSERT INTO logins VALUES (:user)'\ncache = 'off'");
    let server = configuration.server().flags(["--confine"]).start();
    assert_eq!(attempt(&server, "ana", "hunter2"), Ok(()));
    eventually("the login is noted", || database.number("SELECT count(*) FROM logins") == 1);
}

#[test]
fn a_reload_replaces_a_database() {
    let (first, second) = (Database::with_accounts(Kind::Sqlite), Database::with_accounts(Kind::Sqlite));
    second.execute("UPDATE accounts SET password = '{PLAIN}other'");
    let configuration = Configuration::new(&first, QUERY, "");
    let server = configuration.server().start();
    assert_eq!(attempt(&server, "ana", "hunter2"), Ok(()));
    let text = fs::read_to_string(configuration.path()).unwrap();
    fs::write(configuration.path(), text.replace(&first.url(), &second.url())).unwrap();
    reload(&server);
    assert_eq!(attempt(&server, "ana", "hunter2"), refused());
    assert_eq!(attempt(&server, "ana", "other"), Ok(()));
    // A query that cannot be right changes nothing.
    fs::write(configuration.path(), text.replace("WHERE name", "WHERE nam")).unwrap();
    let mut admin = server.admin();
    admin.send("r");
    assert!(admin.line().starts_with('-'));
    assert_eq!(attempt(&server, "ana", "other"), Ok(()));
}

fn reload(server: &Server) {
    let mut admin = server.admin();
    admin.send("r");
    admin.expect("+");
}

#[test]
fn the_password_of_a_database_is_in_a_file_and_shown_nowhere() {
    let mut database = Database::with_accounts(Kind::Postgres);
    database.execute("CREATE ROLE mail LOGIN PASSWORD 'moonshine'; GRANT SELECT ON accounts TO mail");
    database.stop();
    database.demand_password_of("mail");
    database.serve(&[]);
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("password");
    fs::write(&file, "moonshine\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let url = database.url_of("mail");
    let server = Configuration::at(&url, QUERY, &format!("password-file = '{}'", file.display())).server().start();
    assert_eq!(attempt(&server, "ana", "hunter2"), Ok(()));
    fs::write(&file, "sunshine\n").unwrap();
    let configuration = Configuration::at(&url.replace("mail@", "mail:starshine@"), QUERY, "");
    let server = configuration.server().start();
    assert_eq!(attempt(&server, "ana", "hunter2"), unavailable());
    eventually("the log tells", || server.stderr().contains("is unavailable"));
    assert!(!server.stderr().contains("starshine"), "{}", server.stderr());
    let mut show = Command::new(PROGRAM);
    show.arg("show").arg("--config").arg(configuration.path());
    let shown = bounded_output(show.stdin(Stdio::null()));
    assert!(shown.status.success());
    assert!(!String::from_utf8_lossy(&shown.stdout).contains("starshine"));
}
