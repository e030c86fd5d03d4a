//! Several certificates, chosen by the name that the client asks for.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tempfile::TempDir;

use crate::harness::{Certificate, PATIENCE, PROGRAM, Server};

/// Makes a certificate for each list of names.
fn certificates<const N: usize>(names: [&[&str]; N]) -> [Certificate; N] {
    names.map(|names| {
        let certificate = Certificate::new();
        renew(&certificate, names);
        certificate
    })
}

fn renew(certificate: &Certificate, names: &[&str]) {
    certificate.renew_with(|params| {
        *params = rcgen::CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    });
}

/// The server's own certificate in the file, in DER.
fn own(certificate: &Certificate) -> Vec<u8> {
    CertificateDer::from_pem_file(certificate.chain()).unwrap().to_vec()
}

/// The TLS configuration of a client that accepts any certificate.
fn any_server(asks_by_name: bool) -> Arc<ClientConfig> {
    let mut trust = pop3d::trust::Trust::default();
    trust.insecure = true;
    let mut config = trust.config(rustls::crypto::aws_lc_rs::default_provider()).unwrap();
    config.enable_sni = asks_by_name;
    Arc::new(config)
}

/// Connects a client that asks for `name` or for no name, by STLS or by POP3S, and returns the server's certificate.
fn presented(address: SocketAddr, name: Option<&str>, stls: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let line = |stream: &mut dyn Read| {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            let mut octet = [0];
            stream.read_exact(&mut octet).unwrap();
            line.push(octet[0]);
        }
        assert!(line.starts_with(b"+OK"), "{}", String::from_utf8_lossy(&line));
    };
    if stls {
        line(&mut stream);
        stream.write_all(b"STLS\r\n").unwrap();
        line(&mut stream);
    }
    let server = ServerName::try_from(name.unwrap_or("localhost").to_owned()).unwrap();
    let connection = ClientConnection::new(any_server(name.is_some()), server).unwrap();
    let mut tls = StreamOwned::new(connection, stream);
    tls.write_all(b"CAPA\r\n").unwrap();
    line(&mut tls);
    tls.conn.peer_certificates().unwrap()[0].to_vec()
}

/// Connects `openssl s_client` with this name, and returns the names in the server's certificate.
fn openssl(address: SocketAddr, name: &str) -> String {
    let script = format!(
        "timeout 20 openssl s_client -connect {address} -servername {name} </dev/null 2>/dev/null \
         | openssl x509 -noout -ext subjectAltName"
    );
    let output = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn flags(certificates: &[Certificate]) -> Vec<String> {
    let path = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
    let files = certificates.iter().flat_map(|certificate| {
        ["--tls-cert".to_owned(), path(certificate.chain()), "--tls-key".to_owned(), path(certificate.key())]
    });
    files.collect()
}

#[test]
fn a_client_gets_the_certificate_for_the_name_that_it_asks_for() {
    let all = certificates([&["mail.a.example"], &["mail.b.example", "*.b.example"], &["c.example"]]);
    let server = Server::builder().flags(flags(&all)).flags(["--pop3s-port", "0"]).start();
    let owns: Vec<_> = all.iter().map(own).collect();
    for (name, expected) in [
        (Some("mail.a.example"), 0),
        (Some("mail.b.example"), 1),
        (Some("other.b.example"), 1),
        (Some("OTHER.B.example"), 1),
        (Some("c.example"), 2),
        (Some("mail.c.example"), 0),
        (Some("unknown.example"), 0),
        (None, 0),
    ] {
        for (address, stls) in [(server.pop3s_address(), false), (server.pop3_address(), true)] {
            let presented = presented(address, name, stls);
            assert_eq!(owns.iter().position(|own| *own == presented), Some(expected), "{name:?} {stls}");
        }
    }
    assert!(openssl(server.pop3s_address(), "c.example").contains("DNS:c.example"));
    assert!(openssl(server.pop3s_address(), "x.b.example").contains("DNS:mail.b.example, DNS:*.b.example"));
    assert!(openssl(server.pop3s_address(), "nowhere.example").contains("DNS:mail.a.example"));
}

#[test]
fn a_reload_reads_all_certificates_and_their_names() {
    let all = certificates([&["a.example"], &["b.example"]]);
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("pop3d.toml");
    let write = |count: usize, names: &str| {
        let table = |certificate: &Certificate| {
            format!("[[tls]]\ncert = {:?}\nkey = {:?}\n", certificate.chain(), certificate.key())
        };
        let tables: String = all[..count].iter().map(table).collect();
        fs::write(&path, tables + names).unwrap();
    };
    write(2, "names = ['given.example', '*.given.example']");
    let server = Server::builder().flags(["--config", path.to_str().unwrap(), "--pop3s-port", "0"]).start();
    server.expect_log("WARN", "is not for given.example, so clients will refuse it");
    let is_second = |name: &str| presented(server.pop3s_address(), Some(name), false) == own(&all[1]);
    assert!(is_second("given.example") && is_second("x.given.example") && !is_second("b.example"));
    let mut reloads = 0;
    let mut reload = || {
        server.signal(Signal::HUP);
        reloads += 1;
        let read = "the configuration has been read again";
        crate::harness::eventually("the configuration is read again", || {
            server.stderr().matches(read).count() == reloads
        });
    };
    write(2, "");
    reload();
    assert!(is_second("b.example") && !is_second("given.example"));
    renew(&all[1], &["new.example"]);
    reload();
    assert!(is_second("new.example") && !is_second("b.example"));
    write(1, "");
    reload();
    assert!(!is_second("new.example"));
    let mut session = server.session();
    session.call("STAT");
    session.quit();
}

#[test]
fn check_reports_each_certificate() {
    let all = certificates([&["a.example"], &["b.example", "*.b.example"]]);
    fs::write(all[1].key(), fs::read(all[0].key()).unwrap()).unwrap();
    let check = || {
        let output = Command::new(PROGRAM)
            .args([
                "check",
                "-p",
                "0",
                "-P",
                "0",
                "-m",
                "/tmp",
                "-u",
                "ana:x",
                "--tls-names",
                "x.example",
                "--tls-names",
                "",
            ])
            .args(flags(&all))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, output) = check();
    let (first, second) = (all[0].chain(), all[1].chain());
    assert_eq!(code, Some(1), "{output}");
    for line in [
        format!("warning  certificate: the TLS certificate {} is not for x.example, so clients", first.display()),
        "ok       certificate: valid until ".to_owned(),
        format!("error    certificate: cannot use the TLS certificate: the key in {} does not", all[1].key().display()),
    ] {
        assert!(output.lines().any(|it| it.starts_with(&line)), "{line}: {output}");
    }
    renew(&all[1], &["b.example", "*.b.example"]);
    let (code, output) = check();
    assert_eq!(code, Some(0), "{output}");
    let named = format!(" for b.example, *.b.example: {}, whose key it is", second.display());
    assert!(output.lines().any(|it| it.starts_with("ok ") && it.contains(&named)), "{output}");
}

#[test]
fn a_certificate_without_its_key_is_refused() {
    let all = certificates([&["a.example"], &["b.example"]]);
    let mut flags = flags(&all);
    flags.truncate(6);
    let output = Server::builder().flags(flags).refused();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("each --tls-cert needs its --tls-key"), "{error}");
}
