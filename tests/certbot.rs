//! Certificates of Let's Encrypt: certbot's directories, which only root may enter, and the deploy hook that copies a
//! renewed certificate for a server with `--run-as`.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::geteuid;
use tempfile::TempDir;

use crate::harness::{Builder, Certificate, Client, MailRoot, NOBODY, Server, bounded_output, eventually};

const HOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/certbot/pop3d");

/// A directory like /etc/letsencrypt of certbot.
struct LetsEncrypt(TempDir);

impl LetsEncrypt {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        for path in ["live", "archive", "live/mail.example", "archive/mail.example"] {
            let path = directory.path().join(path);
            fs::create_dir(&path).unwrap();
            let mode = if path.ends_with("mail.example") { 0o755 } else { 0o700 };
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        }
        Self(directory)
    }

    /// The directory of symbolic links to the current certificate and key.
    fn lineage(&self) -> PathBuf {
        self.0.path().join("live/mail.example")
    }

    /// Stores the certificate under this number, and points the symbolic links of `live` to it.
    fn renew(&self, number: u32, certificate: &Certificate) {
        for (name, source, mode) in [("fullchain", certificate.chain(), 0o644), ("privkey", certificate.key(), 0o600)] {
            let stored = self.0.path().join(format!("archive/mail.example/{name}{number}.pem"));
            fs::copy(source, &stored).unwrap();
            fs::set_permissions(&stored, Permissions::from_mode(mode)).unwrap();
            let link = self.lineage().join(format!("{name}.pem"));
            let _ = fs::remove_file(&link);
            symlink(format!("../../archive/mail.example/{name}{number}.pem"), link).unwrap();
        }
    }
}

/// Runs the deploy hook and returns its output.
fn hook(lineage: Option<&Path>, arguments: &[&str]) -> Output {
    let mut command = Command::new(HOOK);
    command.args(arguments).stdin(Stdio::null());
    match lineage {
        Some(lineage) => command.env("RENEWED_LINEAGE", lineage),
        None => command.env_remove("RENEWED_LINEAGE"),
    };
    bounded_output(&mut command)
}

/// A server with `--run-as` and its certificate and key in `directory`.
fn run_as_nobody(directory: &Path) -> Builder {
    let mail = MailRoot::new();
    chown(mail.path(), Some(NOBODY), None).unwrap();
    let file = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let flags = ["--run-as".to_owned(), NOBODY.to_string(), "--pop3s-port".to_owned(), "0".to_owned()];
    let certificate = ["--tls-cert".to_owned(), file("fullchain.pem"), "--tls-key".to_owned(), file("privkey.pem")];
    Server::builder().mail(&mail).flags(flags).flags(certificate)
}

/// Returns true if the server presents this certificate on a new connection.
fn serves(server: &Server, certificate: &Certificate) -> bool {
    Client::connect(server.pop3s_address()).try_tls(&certificate.trusted()).is_ok()
}

fn is_root() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        eprintln!("SKIPPED: only root can give directories to other users");
    }
    is_root
}

#[test]
fn run_as_reads_a_certificate_from_a_directory_of_root_at_the_start() {
    if !is_root() {
        return;
    }
    let (directories, certificate) = (LetsEncrypt::new(), Certificate::new());
    directories.renew(1, &certificate);
    let server = run_as_nobody(&directories.lineage()).start();
    assert!(serves(&server, &certificate));
    server.expect_log("WARN", "fullchain.pem again when it changes: Permission denied");
    server.expect_log("INFO", "confined by Landlock to the files that it serves");
}

#[test]
fn the_deploy_hook_makes_the_server_use_a_renewed_certificate() {
    if !is_root() {
        return;
    }
    let (directories, old, new) = (LetsEncrypt::new(), Certificate::new(), Certificate::new());
    let directory = TempDir::new().unwrap();
    let path = directory.path().to_str().unwrap();
    chown(path, None, Some(NOBODY)).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o750)).unwrap();

    directories.renew(1, &old);
    let first = hook(Some(&directories.lineage()), &[path, "no-such-unit"]);
    assert!(first.status.success(), "{first:?}");
    assert!(String::from_utf8_lossy(&first.stdout).contains("no-such-unit does not run"), "{first:?}");
    let server = run_as_nobody(directory.path()).start();
    assert!(serves(&server, &old));

    directories.renew(2, &new);
    let second = hook(Some(&directories.lineage()), &[path, &server.pid().to_string()]);
    assert!(second.status.success() && second.stdout.is_empty() && second.stderr.is_empty(), "{second:?}");
    eventually("the server has the new certificate", || serves(&server, &new));
    assert!(!serves(&server, &old));
    assert!(!server.stderr().contains("when it changes"), "{}", server.stderr());

    let key = fs::metadata(directory.path().join("privkey.pem")).unwrap();
    assert_eq!((key.uid(), key.gid(), key.mode() & 0o7777), (0, NOBODY, 0o640));
    assert_eq!(fs::read_dir(path).unwrap().count(), 2, "the hook has left other files in the directory");
}

#[test]
fn a_deploy_hook_that_cannot_copy_changes_nothing() {
    let (directories, certificate, directory) = (LetsEncrypt::new(), Certificate::new(), TempDir::new().unwrap());
    let path = directory.path().to_str().unwrap();
    assert_eq!(hook(None, &[path]).status.code(), Some(2));
    assert_eq!(hook(Some(&directories.lineage()), &[]).status.code(), Some(2));
    assert_eq!(hook(Some(&directories.lineage()), &["/no/such/directory"]).status.code(), Some(1));
    directories.renew(1, &certificate);
    assert!(hook(Some(&directories.lineage()), &[path, "no-such-unit"]).status.success());
    directories.renew(2, &Certificate::new());
    fs::remove_file(directories.lineage().join("privkey.pem")).unwrap();
    assert!(!hook(Some(&directories.lineage()), &[path, "no-such-unit"]).status.success());
    assert_eq!(fs::read(directory.path().join("fullchain.pem")).unwrap(), fs::read(certificate.chain()).unwrap());
    assert_eq!(fs::read_dir(path).unwrap().count(), 2);
}
