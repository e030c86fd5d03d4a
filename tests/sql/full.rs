//! Databases whose disk is full.
//!
//! The disk is a small one in memory, which only the server's processes see. These tests return at once unless they can
//! mount it.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::database::{Database, Kind};
use super::{Configuration, QUERY, attempt, refused};
use crate::harness::{Server, bounded_output, can_unshare, eventually};

const STATEMENTS: &str = "cache = 'off'
    login-statement = \"INSERT INTO logins VALUES (:user, :address)\"
    add-statement = \"INSERT INTO accounts VALUES (:user, :password, 1)\"
    remove-statement = 'DELETE FROM accounts WHERE name = :user'";

/// A disk of 1 MiB, where it is mounted for the server.
struct Disk(TempDir);

impl Disk {
    /// `None` if the tests cannot mount it.
    fn new() -> Option<Self> {
        let this = Self(TempDir::new().unwrap());
        can_unshare(&["--mount"], &this.mount()).then_some(this)
    }

    fn mount(&self) -> String {
        format!("mount -t tmpfs -o size=1M,mode=700,uid=65534,gid=65534 tmpfs '{}'", self.0.path().display())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("accounts.db")
    }

    /// Leaves no room on the disk of this process, until the file is removed that this returns.
    fn fill(&self, process: u32) -> PathBuf {
        let disk = self.0.path().strip_prefix("/").unwrap();
        let path = PathBuf::from(format!("/proc/{process}/root")).join(disk).join("filler");
        let mut filler = File::create(&path).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
        path
    }

    /// The value of a query to the database, asked by another program.
    fn value(&self, server: &Server, query: &str) -> String {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &server.pid().to_string(), "sqlite3"]).arg(self.path()).arg(query);
        String::from_utf8(bounded_output(&mut command).stdout).unwrap().trim().to_owned()
    }
}

fn sqlite_on_a_full_disk_lets_users_in(journal: &str) {
    let Some(disk) = Disk::new() else { return };
    let original = Database::with_accounts(Kind::Sqlite);
    original.execute("CREATE TABLE logins (name TEXT, address TEXT)");
    original.execute(&format!("PRAGMA journal_mode = {journal}"));
    let script = format!(
        "{} && cp '{}' '{}' && exec \"$0\" \"$@\"",
        disk.mount(),
        original.file().display(),
        disk.path().display()
    );
    let configuration = Configuration::at(&format!("sqlite:{}", disk.path().display()), QUERY, STATEMENTS);
    let server = configuration.server().launched_by(["unshare", "--mount", "bash", "-c", &script]).start();
    let noted = |count: &str| {
        eventually("the login is noted", || disk.value(&server, "SELECT count(*) FROM logins") == count);
    };
    assert_eq!(attempt(&server, "ana", "hunter2"), Ok(()));
    noted("1");

    let filler = disk.fill(server.pid());
    for _ in 0..3 {
        assert_eq!(attempt(&server, "ana", "hunter2"), Ok(()));
    }
    assert_eq!(attempt(&server, "ana", "wrong"), refused());
    let mut admin = server.admin();
    for command in ["u+ eve secret", "u- ana"] {
        admin.send(command);
        admin.expect("-8");
    }
    server.expect_log("WARN", "the statement for a login has failed");
    server.expect_log("ERROR", "an account source cannot be changed");
    assert_eq!(attempt(&server, "ana", "hunter2"), Ok(()));
    assert_eq!(attempt(&server, "eve", "secret"), refused());

    fs::remove_file(filler).unwrap();
    eventually("a login is noted again", || {
        assert_eq!(attempt(&server, "ana", "hunter2"), Ok(()));
        server.stderr().contains("the statement for logins is carried out again")
    });
    for command in ["u+ eve secret", "u- o'neil"] {
        admin.send(command);
        admin.expect("+");
    }
    assert_eq!(attempt(&server, "eve", "secret"), Ok(()));
    assert_eq!(
        disk.value(&server, "SELECT group_concat(name) FROM (SELECT name FROM accounts ORDER BY name)"),
        "ana,bob,eve"
    );
    assert_eq!(disk.value(&server, "PRAGMA integrity_check"), "ok");
    // One line tells of all that have failed.
    assert_eq!(server.stderr().matches("the statement for a login has failed").count(), 1);
}

#[test]
fn sqlite_with_a_rollback_journal_on_a_full_disk_lets_users_in() {
    sqlite_on_a_full_disk_lets_users_in("DELETE");
}

#[test]
fn sqlite_with_a_write_ahead_log_on_a_full_disk_lets_users_in() {
    sqlite_on_a_full_disk_lets_users_in("WAL");
}

#[test]
fn postgresql_on_a_full_disk_lets_users_in() {
    let Some(disk) = Disk::new() else { return };
    let mut database = Database::with_accounts(Kind::Postgres);
    database.stop();
    database.before = Some(disk.mount());
    database.serve(&[]);
    database.execute(&format!("CREATE TABLESPACE small LOCATION '{}'", disk.0.path().display()));
    // Each row takes a new page.
    database.execute("CREATE TABLE logins (name text, filler text) TABLESPACE small");
    database.execute("ALTER TABLE logins ALTER filler SET STORAGE PLAIN");
    let statements = "cache = 'off'
        login-statement = \"INSERT INTO logins VALUES (:user, repeat('x', 7000))\"
        add-statement = \"WITH noted AS (INSERT INTO logins VALUES (:user, repeat('x', 7000))) \
            INSERT INTO accounts VALUES (:user, :password, 1)\"";
    let server = Configuration::new(&database, QUERY, statements).server().start();
    let logins = || database.number("SELECT count(*) FROM logins");
    assert_eq!(attempt(&server, "ana", "hunter2"), Ok(()));
    eventually("the login is noted", || logins() == 1);

    let filler = disk.fill(database.process());
    assert_eq!(attempt(&server, "ana", "hunter2"), Ok(()));
    assert_eq!(attempt(&server, "ana", "wrong"), refused());
    server.expect_log("WARN", "the statement for a login has failed: could not extend file");
    let mut admin = server.admin();
    admin.send("u+ eve secret");
    admin.expect("-8");
    server.expect_log("ERROR", "an account source cannot be changed: could not extend file");
    assert_eq!(attempt(&server, "eve", "secret"), refused());

    fs::remove_file(filler).unwrap();
    admin.send("u+ eve secret");
    admin.expect("+");
    assert_eq!(attempt(&server, "eve", "secret"), Ok(()));
    eventually("the login is noted", || logins() == 3);
    server.expect_log("INFO", "the statement for logins is carried out again; 1 have failed");
}
