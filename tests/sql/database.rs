//! Databases that a test starts for itself, on UNIX sockets.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mysql::prelude::Queryable;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::harness::{ChildGuard, NOBODY, eventually};

/// Which program the database is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Sqlite,
    Postgres,
    Mariadb,
}

/// A database in a directory of its own. Its server ends when this is dropped.
pub(super) struct Database {
    pub(super) kind: Kind,
    directory: TempDir,
    server: Option<ChildGuard>,
    /// The TCP port, if the server is told to listen. PostgreSQL's socket is named after it, too.
    pub(super) port: u16,
    /// A line of shell that runs before the server's program, in a mount namespace of its own.
    pub(super) before: Option<String>,
}

impl Database {
    /// Makes a database that is empty, and starts its server.
    pub(super) fn start(kind: Kind) -> Self {
        // In memory the servers are made in a moment.
        let memory = Path::new("/dev/shm");
        let directory = TempDir::new_in(memory).or_else(|_| TempDir::new()).unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut this = Self { kind, directory, server: None, port: 5432, before: None };
        if geteuid().is_root() {
            chown(this.directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let data = this.data();
        match kind {
            Kind::Sqlite => drop(rusqlite::Connection::open(&data).unwrap()),
            Kind::Postgres => run(unprivileged(&postgres_program("initdb"))
                .args(["--username=pop3d", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "-D"])
                .arg(&data)),
            Kind::Mariadb => run(unprivileged(Path::new("mariadb-install-db"))
                .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
                .args(["--innodb-log-file-size=4M", &format!("--datadir={}", data.display())])),
        }
        this.serve(&[]);
        if kind == Kind::Mariadb {
            this.execute("CREATE DATABASE mail");
        }
        this
    }

    /// Makes a database with a table of accounts: ana, bob, who is not active, and o'neil, all with the password
    /// `hunter2`.
    pub(super) fn with_accounts(kind: Kind) -> Self {
        let this = Self::start(kind);
        this.execute("CREATE TABLE accounts (name VARCHAR(255) PRIMARY KEY, password VARCHAR(255), active INTEGER)");
        this.execute(
            "INSERT INTO accounts VALUES ('ana', '{PLAIN}hunter2', 1), ('bob', '{PLAIN}hunter2', 0), \
             ('o''neil', '{PLAIN}hunter2', 1)",
        );
        this
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The SQLite file.
    pub(super) fn file(&self) -> PathBuf {
        self.data()
    }

    /// MariaDB's UNIX socket.
    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// Starts the server with these settings, and waits until it answers.
    pub(super) fn serve(&mut self, settings: &[&str]) {
        let (directory, data) = (self.directory.path(), self.data());
        let mut command = match self.kind {
            Kind::Sqlite => return,
            Kind::Postgres => {
                let mut command = unprivileged(&postgres_program("postgres"));
                command.arg("-D").arg(&data).arg("-k").arg(directory);
                command.args([
                    "-c",
                    "listen_addresses=",
                    "-c",
                    "shared_buffers=4MB",
                    "-c",
                    "fsync=off",
                    "-p",
                    &self.port.to_string(),
                ]);
                command
            }
            Kind::Mariadb => {
                let mut command = unprivileged(Path::new("mariadbd"));
                let of = |name: &str, path: &Path| format!("--{name}={}", path.display());
                command.arg("--no-defaults").arg(of("datadir", &data)).arg(of("socket", &self.socket()));
                command.args(["--innodb-buffer-pool-size=8M", "--innodb-log-file-size=4M", "--skip-networking"]);
                command.arg(format!("--port={}", self.port));
                command
            }
        };
        if let Some(before) = &self.before {
            let script =
                format!("{before} && exec setpriv --reuid nobody --regid nogroup --clear-groups \"$0\" \"$@\"");
            let mut launched = Command::new("unshare");
            launched.args(["--mount", "bash", "-c", &script]).arg(command.get_program()).args(command.get_args());
            command = launched;
        }
        command.args(settings).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.server = Some(ChildGuard(command.spawn().unwrap()));
        eventually("the database answers", || self.answers());
    }

    fn answers(&self) -> bool {
        match self.kind {
            Kind::Sqlite => true,
            Kind::Postgres => self.postgres().is_ok(),
            Kind::Mariadb => self.mariadb("root", None).is_ok(),
        }
    }

    /// Stops the server without waiting for its clients.
    pub(super) fn stop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        let signal = if self.kind == Kind::Postgres { Signal::QUIT } else { Signal::KILL };
        kill_process(pid(&server.0), signal).unwrap();
        server.wait();
    }

    /// The process of the server.
    pub(super) fn process(&self) -> u32 {
        self.server.as_ref().unwrap().0.id()
    }

    /// Stops the server as a whole, so that it holds all connections and answers none, until it is called with false.
    pub(super) fn freeze(&self, is_frozen: bool) {
        let signal = if is_frozen { Signal::STOP } else { Signal::CONT };
        let server = pid(&self.server.as_ref().unwrap().0);
        // PostgreSQL has a process for each connection.
        let children = fs::read_to_string(format!("/proc/{server}/task/{server}/children")).unwrap();
        let children = children.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?));
        for process in children.chain([server]) {
            let sent = kill_process(process, signal);
            if is_frozen && sent.is_ok() {
                // Its threads may still run when the signal has been sent.
                eventually("the process has stopped", || has_stopped(process));
            }
        }
    }

    /// The URL of the database, for its first user.
    pub(super) fn url(&self) -> String {
        self.url_of(if self.kind == Kind::Mariadb { "root" } else { "pop3d" })
    }

    pub(super) fn url_of(&self, user: &str) -> String {
        let path = |path: &Path| path.to_str().unwrap().replace('/', "%2F");
        match self.kind {
            Kind::Sqlite => format!("sqlite:{}", self.data().display()),
            Kind::Postgres => format!("postgres://{user}@{}:{}/postgres", path(self.directory.path()), self.port),
            Kind::Mariadb => format!("mysql://{user}@localhost/mail?socket={}", path(&self.socket())),
        }
    }

    /// From its next start on, PostgreSQL demands the password of this user.
    pub(super) fn demand_password_of(&self, user: &str) {
        let path = self.data().join("pg_hba.conf");
        let rules = fs::read_to_string(&path).unwrap();
        fs::write(path, format!("local all {user} scram-sha-256\n{rules}")).unwrap();
    }

    fn postgres(&self) -> Result<postgres::Client, postgres::Error> {
        postgres::Client::connect(&self.url(), postgres::NoTls)
    }

    fn mariadb(&self, user: &str, database: Option<&str>) -> mysql::Result<mysql::Conn> {
        let opts = mysql::OptsBuilder::default().user(Some(user)).socket(Some(self.socket().to_str().unwrap()));
        mysql::Conn::new(opts.db_name(database))
    }

    /// Makes a connection as this user.
    pub(super) fn connect(&self, user: &str) -> Connection {
        match self.kind {
            Kind::Sqlite => Connection::Sqlite(rusqlite::Connection::open(self.data()).unwrap()),
            Kind::Postgres => {
                let client = postgres::Client::connect(&self.url_of(user), postgres::NoTls);
                Connection::Postgres(Box::new(client.unwrap()))
            }
            Kind::Mariadb => Connection::Mariadb(self.mariadb(user, Some("mail")).unwrap()),
        }
    }

    /// Runs a statement.
    pub(super) fn execute(&self, statement: &str) {
        match self.kind {
            Kind::Sqlite => rusqlite::Connection::open(self.data()).unwrap().execute_batch(statement).unwrap(),
            Kind::Postgres => self.postgres().unwrap().batch_execute(statement).unwrap(),
            Kind::Mariadb => {
                let database = Some("mail").filter(|_| !statement.starts_with("CREATE DATABASE"));
                self.mariadb("root", database).unwrap().query_drop(statement).unwrap();
            }
        }
    }

    /// Returns the one value of a query, which is a number.
    pub(super) fn number(&self, query: &str) -> i64 {
        match self.kind {
            Kind::Sqlite => {
                let database = rusqlite::Connection::open(self.data()).unwrap();
                database.query_row(query, [], |row| row.get(0)).unwrap()
            }
            Kind::Postgres => self.postgres().unwrap().query_one(query, &[]).unwrap().get(0),
            Kind::Mariadb => self.mariadb("root", Some("mail")).unwrap().query_first(query).unwrap().unwrap(),
        }
    }

    /// Locks the table of accounts until the result is dropped. Whoever reads it has to wait.
    pub(super) fn lock(&self) -> Connection {
        let mut connection = self.connect(if self.kind == Kind::Mariadb { "root" } else { "pop3d" });
        match &mut connection {
            Connection::Sqlite(database) => database.execute_batch("BEGIN EXCLUSIVE").unwrap(),
            Connection::Postgres(client) => {
                client.batch_execute("BEGIN; LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE").unwrap();
            }
            Connection::Mariadb(conn) => conn.query_drop("LOCK TABLES accounts WRITE").unwrap(),
        }
        connection
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A connection to the database.
pub(super) enum Connection {
    Sqlite(rusqlite::Connection),
    Postgres(Box<postgres::Client>),
    Mariadb(mysql::Conn),
}

/// Returns true if no thread of the process runs.
fn has_stopped(process: Pid) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return true };
    let is_stopped = |thread: &Path| {
        // The state comes after the name, which may contain spaces and brackets.
        let stat = fs::read_to_string(thread.join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 'Z', 'X']))
    };
    threads.flatten().all(|thread| is_stopped(&thread.path()))
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// A command that runs as an ordinary user, as the servers demand.
fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new(program);
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.current_dir("/");
    command
}

/// The path of a program of PostgreSQL, which Debian keeps in a directory of its version.
fn postgres_program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed (scripts/install-test-tools)");
    let programs = versions.map(|version| version.unwrap().path().join("bin").join(name));
    programs.filter(|program| program.is_file()).max().expect("PostgreSQL has this program")
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
