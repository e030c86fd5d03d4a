//! Databases that are reached by TCP: TLS, and the ports that a confined server may connect to.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::chown;

use rustix::process::geteuid;

use super::database::{Database, Kind};
use super::{Configuration, QUERY, attempt, unavailable};
use crate::harness::{Certificate, NOBODY, eventually};

/// A port that was free a moment ago: these servers cannot be told to take any.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Restarts the database with TLS on a port.
fn serve_by_tls(database: &mut Database, certificate: &Certificate) -> u16 {
    let (chain, key) = (certificate.chain(), certificate.key());
    if geteuid().is_root() {
        for path in [key.parent().unwrap(), &key, &chain] {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
    database.stop();
    let (chain, key) = (chain.to_str().unwrap(), key.to_str().unwrap());
    let port = free_port();
    let settings = match database.kind {
        Kind::Postgres => vec![
            "-clisten_addresses=127.0.0.1".to_owned(),
            "-cssl=on".to_owned(),
            format!("-cssl_cert_file={chain}"),
            format!("-cssl_key_file={key}"),
        ],
        _ => vec![
            "--skip-networking=0".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--ssl-cert={chain}"),
            format!("--ssl-key={key}"),
        ],
    };
    database.port = port;
    database.serve(&settings.iter().map(String::as_str).collect::<Vec<_>>());
    port
}

/// `query` finds accounts only if its connection is by TLS.
fn a_confined_server_reaches_a_database_by_tls(mut database: Database, query: &str, url: impl Fn(u16) -> String) {
    let (certificate, other) = (Certificate::new(), Certificate::new());
    let port = serve_by_tls(&mut database, &certificate);
    let keys = |ca: &Certificate| format!("tls = 'on'\ntls-ca = '{}'\ncache = 'off'", ca.chain().display());
    let server = Configuration::at(&url(port), query, &keys(&certificate)).server().flags(["--confine"]).start();
    assert_eq!(attempt(&server, "ana", "hunter2"), Ok(()), "{}", server.stderr());
    let server = Configuration::at(&url(port), query, &keys(&other)).server().start();
    assert_eq!(attempt(&server, "ana", "hunter2"), unavailable());
    eventually("the log tells why", || server.stderr().contains("ertificate"));
}

#[test]
fn a_confined_server_reaches_postgresql_by_tls() {
    let query = format!("{QUERY} AND (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid())");
    let url = |port| format!("postgres://pop3d@localhost:{port}/postgres");
    a_confined_server_reaches_a_database_by_tls(Database::with_accounts(Kind::Postgres), &query, url);
}

#[test]
fn a_confined_server_reaches_mariadb_by_tls() {
    let database = Database::with_accounts(Kind::Mariadb);
    database.execute("CREATE USER tls@'%' REQUIRE SSL");
    database.execute("GRANT SELECT ON mail.* TO tls@'%'");
    let url = |port| format!("mysql://tls@localhost:{port}/mail");
    a_confined_server_reaches_a_database_by_tls(database, QUERY, url);
}
