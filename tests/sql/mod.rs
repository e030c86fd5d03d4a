//! Accounts in databases: SQLite, PostgreSQL and MariaDB, each the real one.

mod database;
mod full;
mod postfixadmin;
mod server_on_tcp;
mod trouble;
mod wrong;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use self::database::{Database, Kind};
use crate::harness::{Builder, Server, eventually};

/// The query of the table that [`Database::with_accounts`] makes.
const QUERY: &str = "SELECT password, active FROM accounts WHERE name = :user";

/// A configuration file with a database of accounts.
struct Configuration {
    _directory: TempDir,
    path: PathBuf,
}

impl Configuration {
    /// `keys` are further keys of the database's table.
    fn new(database: &Database, query: &str, keys: &str) -> Self {
        Self::at(&database.url(), query, keys)
    }

    fn at(url: &str, query: &str, keys: &str) -> Self {
        Self::of(&format!("[[accounts]]\nkind = 'sql'\nurl = '{url}'\nquery = \"{query}\"\n{keys}\n"))
    }

    fn of(text: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("pop3d.toml");
        fs::write(&path, text).unwrap();
        Self { _directory: directory, path }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// A server with these accounts, and [`crate::harness::USER`] of the command line.
    fn server(&self) -> Builder {
        Server::builder().flags(["--config", self.path.to_str().unwrap()])
    }
}

/// Logs in and returns the first word in brackets of a refusal.
fn attempt(server: &Server, name: &str, password: &str) -> Result<(), String> {
    let mut client = server.pop3();
    client.send(&format!("USER {name}"));
    client.line();
    client.send(&format!("PASS {password}"));
    let line = client.line();
    if line.starts_with("+OK") {
        client.quit();
        return Ok(());
    }
    let code = line.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    Err(code.map_or(line.clone(), |(code, _)| code.to_owned()))
}

fn refused() -> Result<(), String> {
    Err("AUTH".to_owned())
}

fn unavailable() -> Result<(), String> {
    Err("SYS/TEMP".to_owned())
}

/// No refusal is faster, whether the database knows the name or not.
const LEAST_REFUSAL: Duration = Duration::from_millis(10);

fn accounts_log_in_and_out(kind: Kind) {
    let database = Database::with_accounts(kind);
    let statements = "login-statement = \"INSERT INTO logins VALUES (:user, :address)\"
        add-statement = \"INSERT INTO accounts VALUES (:user, :password, 1)\"
        remove-statement = 'DELETE FROM accounts WHERE name = :user'
        names-statement = 'SELECT name FROM accounts'";
    database.execute("CREATE TABLE logins (name VARCHAR(255), address VARCHAR(255))");
    let configuration = Configuration::new(&database, QUERY, statements);
    let server = configuration.server().start();

    for name in ["ana", "o'neil", "ana"] {
        assert_eq!(attempt(&server, name, "hunter2"), Ok(()), "{name}");
    }
    for (name, password) in [("ana", "hunter"), ("ana", ""), ("bob", "hunter2"), ("carol", "hunter2")] {
        let begun = Instant::now();
        assert_eq!(attempt(&server, name, password), refused(), "{name} {password}");
        assert!(begun.elapsed() >= LEAST_REFUSAL);
    }
    // None of these is ever part of a statement's text.
    let long = "x".repeat(128);
    for name in ["'", "''", "a\"na", "%", "an_", "';--", "'OR'1'='1", "\\", "$1", "?", ":user", "ana\\'", "å", &long] {
        assert_eq!(attempt(&server, name, "hunter2"), refused(), "{name}");
    }
    eventually("all logins are noted", || {
        let noted = "SELECT count(*) FROM logins WHERE name IN ('ana', 'o''neil') AND address = '127.0.0.1'";
        database.number(noted) == 3
    });
    assert_eq!(database.number("SELECT count(*) FROM logins"), 3);

    let mut admin = server.admin();
    admin.send("u+ dora secret");
    admin.expect("+");
    admin.send("u+ ana secret");
    admin.expect("-3");
    assert_eq!(attempt(&server, "dora", "secret"), Ok(()));
    let hash = "SELECT count(*) FROM accounts WHERE name = 'dora' AND password LIKE '{ARGON2ID}%'";
    assert_eq!(database.number(hash), 1);
    let mut names = admin.values("u?");
    names.sort_unstable();
    assert_eq!(names, ["ana", "bob", "dora", "mrose", "o'neil"]);
    admin.send("u- dora");
    admin.expect("+");
    admin.send("u- dora");
    admin.expect("-4");
    assert_eq!(attempt(&server, "dora", "secret"), refused());
    assert_eq!(database.number("SELECT count(*) FROM accounts"), 3);
}

#[test]
fn accounts_of_sqlite_log_in() {
    accounts_log_in_and_out(Kind::Sqlite);
}

#[test]
fn accounts_of_postgresql_log_in() {
    accounts_log_in_and_out(Kind::Postgres);
}

#[test]
fn accounts_of_mariadb_log_in() {
    accounts_log_in_and_out(Kind::Mariadb);
}

/// Names that no account can have do not even reach the database.
#[test]
fn a_name_with_a_nul_or_1000_octets_is_refused() {
    let database = Database::with_accounts(Kind::Sqlite);
    let server = Configuration::new(&database, QUERY, "").server().start();
    let mut client = server.pop3();
    client.write(b"AUTH PLAIN AGFuYQBzAAA=\r\n".as_slice());
    client.err();
    for name in [b"a\0na".to_vec(), vec![b'x'; 1000]] {
        client.write([b"USER ".as_slice(), &name, b"\r\n"].concat());
        client.line();
        client.write(b"PASS hunter2\r\n".as_slice());
        client.err();
    }
    assert_eq!(attempt(&server, "ana", "hunter2"), Ok(()));
}
