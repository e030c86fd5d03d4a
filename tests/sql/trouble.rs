//! Databases that are slow, full, stopped or started again.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::database::{Database, Kind};
use super::{Configuration, QUERY, attempt, refused, unavailable};
use crate::harness::{PASSWORD, USER, eventually};

fn a_slow_database_holds_nobody_else_up(kind: Kind) {
    let database = Database::with_accounts(kind);
    let server = Configuration::new(&database, QUERY, "timeout = '60s'\ncache = 'off'").server().start();
    let lock = database.lock();
    let mut waiting = server.pop3();
    waiting.call("USER ana");
    waiting.send("PASS hunter2");
    // The accounts of the command line are asked first.
    for _ in 0..20 {
        assert_eq!(attempt(&server, USER, PASSWORD), Ok(()));
    }
    drop(lock);
    waiting.ok();

    // Nobody waits longer than the time limit, be it for the answer or for a connection.
    let keys = "timeout = '1s'\nat-once = 1\ncache = 'off'";
    let server = Configuration::new(&database, QUERY, keys).server().start();
    let lock = database.lock();
    thread::scope(|scope| {
        let logins: Vec<_> = (0..4).map(|_| scope.spawn(|| attempt(&server, "ana", "hunter2"))).collect();
        for login in logins {
            assert_eq!(login.join().unwrap(), unavailable());
        }
    });
    drop(lock);
    eventually("the connection is free again", || attempt(&server, "ana", "hunter2") == Ok(()));
    assert_eq!(attempt(&server, "ana", "hunter"), refused());
}

#[test]
fn slow_sqlite_holds_nobody_else_up() {
    a_slow_database_holds_nobody_else_up(Kind::Sqlite);
}

#[test]
fn slow_postgresql_holds_nobody_else_up() {
    a_slow_database_holds_nobody_else_up(Kind::Postgres);
}

#[test]
fn slow_mariadb_holds_nobody_else_up() {
    a_slow_database_holds_nobody_else_up(Kind::Mariadb);
}

fn a_database_is_restarted_under_load(kind: Kind) {
    let mut database = Database::with_accounts(kind);
    let server = Configuration::new(&database, QUERY, "cache = 'off'").server().start();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = || {
            let mut answers = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                answers.push(attempt(&server, "ana", "hunter2"));
            }
            answers
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
        for _ in 0..2 {
            database.stop();
            assert_eq!(attempt(&server, "ana", "hunter2"), unavailable());
            assert_eq!(attempt(&server, USER, PASSWORD), Ok(()));
            database.serve(&[]);
            // The broken connections are replaced without a failure.
            assert_eq!(attempt(&server, "ana", "hunter2"), Ok(()));
        }
        is_over.store(true, Ordering::Relaxed);
        for client in clients {
            let answers = client.join().unwrap();
            assert!(answers.iter().all(|answer| answer.is_ok() || *answer == unavailable()), "{answers:?}");
            assert!(answers.iter().any(Result::is_ok));
        }
    });
    eventually("the log tells", || server.stderr().contains("is available again"));
    let log = server.stderr();
    assert!((1..=2).contains(&log.matches("is unavailable").count()), "{log}");
}

#[test]
fn postgresql_is_restarted_under_load() {
    a_database_is_restarted_under_load(Kind::Postgres);
}

#[test]
fn mariadb_is_restarted_under_load() {
    a_database_is_restarted_under_load(Kind::Mariadb);
}

/// The server of the database holds its connections but answers none.
fn a_database_that_answers_nothing_is_unavailable(kind: Kind) {
    let database = Database::with_accounts(kind);
    let keys = "timeout = '1s'\ncache = 'off'\ngrace = '1h'\nat-once = 2";
    let server = Configuration::new(&database, QUERY, keys).server().start();
    assert_eq!(attempt(&server, "ana", "hunter2"), Ok(()));
    let mut session = server.pop3();
    session.call("USER o'neil");
    session.call("PASS hunter2");
    database.freeze(true);
    for _ in 0..2 {
        // A name that is not known, and a password that is not remembered.
        assert_eq!(attempt(&server, "eva", "hunter2"), unavailable());
        assert_eq!(attempt(&server, "ana", "hunter"), unavailable());
        // A password that is remembered, and the accounts of the command line.
        assert_eq!(attempt(&server, "ana", "hunter2"), Ok(()));
        assert_eq!(attempt(&server, USER, PASSWORD), Ok(()));
    }
    // More logins at once than may ask the database.
    thread::scope(|scope| {
        let logins: Vec<_> = (0..6).map(|_| scope.spawn(|| attempt(&server, "eva", "hunter2"))).collect();
        for login in logins {
            assert_eq!(login.join().unwrap(), unavailable());
        }
    });
    session.call("STAT");
    session.quit();
    database.freeze(false);
    eventually("the database answers again", || attempt(&server, "eva", "hunter2") == refused());
    assert_eq!(attempt(&server, "ana", "hunter"), refused());
}

#[test]
fn postgresql_that_answers_nothing_is_unavailable() {
    a_database_that_answers_nothing_is_unavailable(Kind::Postgres);
}

#[test]
fn mariadb_that_answers_nothing_is_unavailable() {
    a_database_that_answers_nothing_is_unavailable(Kind::Mariadb);
}

/// The user of the database may have a single connection, which the test has.
fn a_database_without_a_free_connection_is_unavailable(kind: Kind, statements: &[&str]) {
    let database = Database::with_accounts(kind);
    statements.iter().for_each(|statement| database.execute(statement));
    let connection = database.connect("few");
    let url = database.url_of("few");
    let keys = "cache = 'off'\nat-once = 1";
    let server = Configuration::at(&url, QUERY, keys).server().start();
    eventually("the log tells", || server.stderr().contains("is unavailable"));
    assert_eq!(attempt(&server, "ana", "hunter2"), unavailable());
    drop(connection);
    eventually("the connection is free", || attempt(&server, "ana", "hunter2") == Ok(()));
}

#[test]
fn postgresql_without_a_free_connection_is_unavailable() {
    let statements = ["CREATE ROLE few LOGIN CONNECTION LIMIT 1", "GRANT SELECT ON accounts TO few"];
    a_database_without_a_free_connection_is_unavailable(Kind::Postgres, &statements);
}

#[test]
fn mariadb_without_a_free_connection_is_unavailable() {
    let statements =
        ["CREATE USER few@localhost WITH MAX_USER_CONNECTIONS 1", "GRANT SELECT ON mail.* TO few@localhost"];
    a_database_without_a_free_connection_is_unavailable(Kind::Mariadb, &statements);
}

#[test]
fn an_sqlite_file_that_is_replaced_is_opened_again() {
    let (database, other) = (Database::with_accounts(Kind::Sqlite), Database::with_accounts(Kind::Sqlite));
    other.execute("UPDATE accounts SET password = '{PLAIN}other'");
    let server = Configuration::new(&database, QUERY, "cache = 'off'").server().start();
    assert_eq!(attempt(&server, "ana", "hunter2"), Ok(()));
    fs::remove_file(database.file()).unwrap();
    assert_eq!(attempt(&server, "ana", "hunter2"), unavailable());
    fs::rename(other.file(), database.file()).unwrap();
    assert_eq!(attempt(&server, "ana", "hunter2"), refused());
    assert_eq!(attempt(&server, "ana", "other"), Ok(()));
    fs::write(database.file(), "no database").unwrap();
    assert_eq!(attempt(&server, "ana", "other"), unavailable());
}
