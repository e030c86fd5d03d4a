//! postfixadmin's tables, and the example configuration for them.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::database::{Database, Kind};
use super::{Configuration, attempt, refused};
use crate::harness::{Maildrop, bounded_output};

/// The tables as postfixadmin 3.3 makes them.
fn tables(kind: Kind) -> [&'static str; 2] {
    match kind {
        Kind::Postgres => [
            "CREATE TABLE domain (
                domain character varying(255) NOT NULL,
                description character varying(255) NOT NULL default '',
                aliases integer NOT NULL default 0,
                mailboxes integer NOT NULL default 0,
                maxquota integer NOT NULL default 0,
                quota integer NOT NULL default 0,
                transport character varying(255) default NULL,
                backupmx boolean NOT NULL default false,
                created timestamp with time zone default now(),
                modified timestamp with time zone default now(),
                active boolean NOT NULL default true,
                Constraint domain_key Primary Key (domain))",
            "CREATE TABLE mailbox (
                username character varying(255) NOT NULL,
                password character varying(255) NOT NULL default '',
                name character varying(255) NOT NULL default '',
                maildir character varying(255) NOT NULL default '',
                quota integer NOT NULL default 0,
                domain character varying(255) NOT NULL REFERENCES domain,
                created timestamp with time zone default now(),
                modified timestamp with time zone default now(),
                active boolean NOT NULL default true,
                local_part character varying(255) NOT NULL,
                Constraint mailbox_key Primary Key (username))",
        ],
        Kind::Mariadb => [
            "CREATE TABLE `domain` (
                `domain` varchar(255) NOT NULL default '',
                `description` varchar(255) CHARACTER SET utf8 NOT NULL default '',
                `aliases` int(10) NOT NULL default '0',
                `mailboxes` int(10) NOT NULL default '0',
                `maxquota` bigint(20) NOT NULL default '0',
                `quota` bigint(20) NOT NULL default '0',
                `transport` varchar(255) default NULL,
                `backupmx` tinyint(1) NOT NULL default '0',
                `created` datetime NOT NULL default '2000-01-01 00:00:00',
                `modified` datetime NOT NULL default '2000-01-01 00:00:00',
                `active` tinyint(1) NOT NULL default '1',
                PRIMARY KEY (`domain`)
             ) CHARACTER SET latin1 COLLATE latin1_general_ci",
            "CREATE TABLE `mailbox` (
                `username` varchar(255) NOT NULL default '',
                `password` varchar(255) NOT NULL default '',
                `name` varchar(255) CHARACTER SET utf8 NOT NULL default '',
                `maildir` varchar(255) NOT NULL default '',
                `quota` bigint(20) NOT NULL default '0',
                `local_part` varchar(255) NOT NULL,
                `domain` varchar(255) NOT NULL default '',
                `created` datetime NOT NULL default '2000-01-01 00:00:00',
                `modified` datetime NOT NULL default '2000-01-01 00:00:00',
                `active` tinyint(1) NOT NULL default '1',
                PRIMARY KEY (`username`), KEY domain (domain)
             ) CHARACTER SET latin1 COLLATE latin1_general_ci",
        ],
        Kind::Sqlite => [
            "CREATE TABLE domain (
                `domain` varchar(255) NOT NULL,
                `description` varchar(255) NOT NULL,
                `aliases` int(11) NOT NULL DEFAULT 0,
                `mailboxes` int(11) NOT NULL DEFAULT 0,
                `maxquota` bigint(20) NOT NULL DEFAULT 0,
                `quota` bigint(20) NOT NULL DEFAULT 0,
                `transport` varchar(255) NOT NULL,
                `backupmx` tinyint(1) NOT NULL DEFAULT '0',
                `created` datetime NOT NULL default '2000-01-01',
                `modified` datetime NOT NULL default '2000-01-01',
                `active` tinyint(1) NOT NULL DEFAULT '1',
                PRIMARY KEY (`domain`))",
            "CREATE TABLE mailbox (
                `username` varchar(255) NOT NULL,
                `password` varchar(255) NOT NULL,
                `name` varchar(255) NOT NULL,
                `maildir` varchar(255) NOT NULL,
                `quota` bigint(20) NOT NULL DEFAULT 0,
                `local_part` varchar(255) NOT NULL,
                `domain` varchar(255) NOT NULL,
                `created` datetime NOT NULL default '2000-01-01',
                `modified` datetime NOT NULL default '2000-01-01',
                `active` tinyint(1) NOT NULL DEFAULT '1',
                PRIMARY KEY (`username`))",
        ],
    }
}

/// Passwords as postfixadmin stores them: its md5crypt has no `{SCHEME}`, and PHP's or Dovecot's bcrypt has one. All
/// are
/// `secret`.
const MD5_CRYPT: &str = "$1$Q4FstVWN$ShgitA./1ydkUuarNgNQN.";
const BLF_CRYPT: &str = "{BLF-CRYPT}$2y$05$2VfBEWZV4HEZ02Q9.hoIUuZDNPBloljie.PDqwu4PVQB.82Indksi";

fn the_example_configuration_works(kind: Kind) {
    let database = Database::start(kind);
    tables(kind).iter().for_each(|table| database.execute(table));
    let (on, off) = if kind == Kind::Postgres { ("true", "false") } else { ("1", "0") };
    for (domain, active) in [("example.com", on), ("example.org", off)] {
        database.execute(&format!(
            "INSERT INTO domain (domain, description, transport, active) VALUES ('{domain}', '', 'virtual', {active})"
        ));
    }
    for (name, domain, password, active) in [
        ("ana", "example.com", MD5_CRYPT, on),
        ("bob", "example.com", BLF_CRYPT, on),
        ("carol", "example.com", BLF_CRYPT, off),
        ("dora", "example.org", BLF_CRYPT, on),
    ] {
        database.execute(&format!(
            "INSERT INTO mailbox (username, password, name, maildir, local_part, domain, active) \
             VALUES ('{name}@{domain}', '{password}', '', '{domain}/{name}/', '{name}', '{domain}', {active})"
        ));
    }

    let mail = TempDir::new().unwrap();
    let text = example(&database, mail.path());
    let maildrop = Maildrop::at(mail.path().join("example.com/ana"));
    maildrop.make_maildir();
    maildrop.put("new/1", "Subject: Hello\n\nHello, Ana!\n");
    let server = Configuration::of(&text).server().start();

    let url = |user: &str| format!("pop3://{user}:secret@{}/", server.pop3_address());
    let curl = bounded_output(Command::new("curl").args(["-s", &url("ana%40example.com")]));
    assert_eq!(String::from_utf8(curl.stdout).unwrap(), "1 31\r\n");
    assert_eq!(attempt(&server, "bob@example.com", "secret"), Ok(()));
    for name in ["ana@example.org", "ana", "carol@example.com", "dora@example.org"] {
        assert_eq!(attempt(&server, name, "secret"), refused(), "{name}");
    }
    assert_eq!(attempt(&server, "ana@example.com", "Secret"), refused());
}

/// The shipped configuration for this database and this mail directory.
fn example(database: &Database, mail: &Path) -> String {
    let shipped = fs::read_to_string("scripts/examples/postfixadmin.toml").unwrap();
    let ours = |line: &str| match line.split_once(" = ").map(|(key, _)| key) {
        Some("url") => format!("url = \"{}\"", database.url()),
        // What a test that is not root cannot do, and the password that these databases do not ask for.
        Some("run-as" | "users" | "state" | "pop3-port" | "pop3s-port" | "tls-cert" | "tls-key" | "password-file") => {
            String::new()
        }
        _ => line.replace("/var/vmail", mail.to_str().unwrap()),
    };
    shipped.lines().map(|line| ours(line) + "\n").collect()
}

#[test]
fn the_example_configuration_works_with_sqlite() {
    the_example_configuration_works(Kind::Sqlite);
}

#[test]
fn the_example_configuration_works_with_postgresql() {
    the_example_configuration_works(Kind::Postgres);
}

#[test]
fn the_example_configuration_works_with_mariadb() {
    the_example_configuration_works(Kind::Mariadb);
}
