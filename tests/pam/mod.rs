//! Accounts of PAM, with the real libpam and its real modules.
//!
//! Each test has a mount namespace of its own, in which files of the test are mounted as /etc/passwd, /etc/shadow and
//! /etc/pam.d. These tests return at once unless they run as root.

mod logins;
mod processes;
mod rights;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use tempfile::TempDir;

use crate::harness::can_unshare;
use crate::harness::processes::children_of;

/// The program that calls libpam.
const PAM_PROGRAM: &str = env!("CARGO_BIN_EXE_pop3d-pam");

/// The service that the tests use: the users of /etc/shadow, without the delay after a wrong password.
const UNIX: &str = "auth required pam_unix.so nodelay\naccount required pam_unix.so\n";

/// The password `secret` in /etc/shadow.
const HASH: &str = "$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA";

/// The users of [`System`], and what stands behind their names in /etc/shadow.
const USERS: [(&str, &str); 5] = [
    ("ana", "HASH:::::::"),
    (r#"o'b"r%n"#, "HASH:::::::"),
    ("expired", "HASH::::::1:"),
    ("locked", "!HASH:::::::"),
    // The password was changed on the first day of 1970 and may be ten days old.
    ("aged", "HASH:1:0:10:7:::"),
];

/// The accounts and services that a test sees as the system's.
struct System(TempDir);

impl System {
    /// A system whose service `pop3d` has this text. `None` if the tests cannot make namespaces.
    fn new(service: &str) -> Option<Self> {
        if !geteuid().is_root() || !can_unshare(&["--mount"], "mount --bind /etc/passwd /etc/passwd") {
            return None;
        }
        let this = Self(TempDir::new().unwrap());
        fs::set_permissions(this.0.path(), Permissions::from_mode(0o755)).unwrap();
        let [mut passwd, mut shadow] =
            ["passwd", "shadow"].map(|name| fs::read_to_string(Path::new("/etc").join(name)).unwrap());
        for ((name, fields), uid) in USERS.into_iter().zip(30_001..) {
            passwd += &format!("{name}:x:{uid}:{uid}::/nowhere:/bin/sh\n");
            shadow += &format!("{name}:{}\n", fields.replace("HASH", HASH));
        }
        fs::write(this.path("passwd"), passwd).unwrap();
        fs::write(this.path("shadow"), shadow).unwrap();
        fs::set_permissions(this.path("shadow"), Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(this.path("pam.d")).unwrap();
        this.write_service(service);
        Some(this)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write_service(&self, text: &str) {
        fs::write(self.path("pam.d/pop3d"), text).unwrap();
    }

    /// Makes a program that modules can run. It is a script for bash, in which `DIR` is the test's directory.
    fn program(&self, name: &str, script: &str) -> String {
        let (path, directory) = (self.path(name), self.0.path().to_str().unwrap());
        fs::write(&path, format!("#!/bin/bash\n{}", script.replace("DIR", directory))).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The words that start the command line behind them in this system.
    fn launcher(&self) -> Vec<String> {
        let mount = |name: &str| format!("mount --bind '{}' /etc/{name} && ", self.path(name).display());
        let script = ["passwd", "shadow", "pam.d"].map(mount).concat() + "exec \"$0\" \"$@\"";
        ["unshare", "--mount", "bash", "-c", &script].map(str::to_owned).to_vec()
    }
}

/// The workers that have this monitor.
fn workers_of(monitor: u32) -> Vec<u32> {
    let is_worker = |process: &u32| {
        let words = fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap_or_default();
        words.split('\0').nth(1) == Some("worker")
    };
    children_of(monitor).into_iter().filter(is_worker).collect()
}
