//! Accounts in an SQL database: SQLite, PostgreSQL, MariaDB or MySQL.
//!
//! A query looks an account up at each login. `statement` turns its named parameters into those of the database, `row`
//! makes an account of its result. `pool` has the connections; `driver` says what a database is, and `sqlite`, `postgres`
//! and `mysql` are the three. `address` reads the URL, and `health` tells the log when the database cannot be used.

mod address;
mod driver;
mod health;
mod mysql;
mod pool;
mod postgres;
mod row;
mod sqlite;
mod statement;

use std::borrow::Cow;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use self::address::{Address, Terms};
use self::driver::{Error, Rows, Value};
use self::health::Health;
use self::pool::{Outcome, Pool, Task};
use self::row::Columns;
use self::statement::{Dialect, Parameter, Statement};
use super::asked::AskRules;
use super::hidden::Hidden;
use super::name::UserName;
use super::outcome::Unchanged;
use super::permits::Busy;
use super::scheme::Scheme;
use super::secret::Secret;
use super::source::{Answer, Attempt, Found, Source, Totals};
use super::text::Account;
use super::verifier::Verifier;

/// The most names of accounts that are listed.
const NAMES: usize = 1_000_000;

/// Unknown names are verified against this until an account has been seen: bcrypt with its usual cost.
const FIRST_DECOY: &[u8] = b"{BLF-CRYPT}$2y$10$IFSn9bFgp0IIyTLBIYmsA.9CYwZ8o8kOyzcFBX5X6Y1bdvY5cSr5a";

/// A refused login takes this time at least. A database takes some microseconds longer to find an account than to find none,
/// which is told by the answer if the password is cheap to verify.
const LEAST_REFUSAL: Duration = Duration::from_millis(10);

/// What the configuration says about a database of accounts.
#[derive(Debug, Clone)]
pub struct SqlSettings {
    /// `sqlite:/PATH`, `postgres://…` or `mysql://…`.
    pub url: Hidden<String>,
    /// The password, which replaces one in the URL.
    pub password: Option<Hidden<String>>,
    /// True for TLS, false for none. By default TLS is used to other machines.
    pub tls: Option<bool>,
    /// The certificates that are trusted instead of the system's authorities (PEM).
    pub tls_ca: Option<PathBuf>,
    /// The query for an account.
    pub query: String,
    /// The statement for a login that was made.
    pub login_statement: Option<String>,
    /// The statement that adds an account.
    pub add_statement: Option<String>,
    /// The statement that removes an account.
    pub remove_statement: Option<String>,
    /// The query for the names of all accounts.
    pub names_statement: Option<String>,
    /// The most time for a new connection.
    pub connect_timeout: Duration,
}

/// What a confined server must be able to reach for a database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SqlReach {
    /// The directory with the SQLite file, in which SQLite also makes and removes files.
    pub directory: Option<PathBuf>,
    /// The TCP ports of the database's server.
    pub ports: Vec<u16>,
    /// True if the server's name has to be looked up.
    pub names: bool,
    /// The file with the certificates of the authorities.
    pub ca: Option<PathBuf>,
}

impl SqlSettings {
    /// What a confined server must be able to reach; nothing, if the URL is wrong.
    #[must_use]
    pub fn reach(&self) -> SqlReach {
        let Ok(address) = Address::parse(&self.url.0) else { return SqlReach::default() };
        let directory = match &address {
            Address::Sqlite(path) => {
                let real = path.canonicalize().unwrap_or_else(|_| path.clone());
                real.parent().map(Path::to_owned)
            }
            _ => None,
        };
        SqlReach { directory, ports: address.ports(), names: address.has_name(), ca: self.tls_ca.clone() }
    }
}

/// A database of accounts.
#[derive(Debug)]
pub(super) struct Sql {
    name: String,
    query: Arc<Statement>,
    login: Option<Arc<Statement>>,
    add: Option<Arc<Statement>>,
    remove: Option<Arc<Statement>>,
    names: Option<Arc<Statement>>,
    pool: Pool,
    /// The connection for login statements, so that these keep no login waiting.
    notes: Pool,
    health: Health,
    /// The account seen so far whose password takes the longest to verify, or [`FIRST_DECOY`].
    costliest: RwLock<(Arc<Account>, bool)>,
}

impl Sql {
    /// Reads the settings. Up to `rules.at_once` connections are made, and one more for login statements. A login waits for
    /// up to `rules.timeout` for an answer. The database is not asked yet.
    ///
    /// # Errors
    /// What is wrong in the settings.
    pub(super) fn new(settings: SqlSettings, rules: &AskRules) -> Result<Self, String> {
        let (connect, limit) = (settings.connect_timeout, rules.timeout);
        let address = Address::parse(&settings.url.0)?;
        let name = format!("sql {}", address.shown());
        let terms = Terms { password: settings.password, tls: settings.tls, ca: settings.tls_ca, connect, limit };
        let driver = address.driver(terms)?;
        let dialect = driver.dialect();
        let read = |key, text: Option<String>, known| text.map(|text| parse(key, &text, dialect, known)).transpose();
        Ok(Self {
            name: name.clone(),
            query: parse("query", &settings.query, dialect, Parameter::OF_LOGIN)?,
            login: read("login-statement", settings.login_statement, Parameter::OF_LOGIN)?,
            add: read("add-statement", settings.add_statement, Parameter::OF_NEW_ACCOUNT)?,
            remove: read("remove-statement", settings.remove_statement, Parameter::OF_ACCOUNT)?,
            names: read("names-statement", settings.names_statement, &[])?,
            pool: Pool::new(Arc::clone(&driver), rules.at_once, limit),
            notes: Pool::new(driver, 1, limit),
            health: Health::new(name),
            costliest: RwLock::new((first_decoy(), false)),
        })
    }

    fn find_for(&self, user: &UserName, address: Option<IpAddr>) -> Found {
        match self.look_up(user, address) {
            Ok(found) => {
                self.health.is_well();
                found.map_or(Found::Unknown, Found::Account)
            }
            Err(error) => {
                self.health.is_down(&error);
                Found::Unavailable
            }
        }
    }

    fn look_up(&self, user: &UserName, address: Option<IpAddr>) -> Result<Option<Arc<Account>>, Error> {
        let values = values(&self.query, user, address, None);
        // A second row would show that the query does not tell accounts apart.
        let Rows { names, rows } = self.pool.rows(&self.query, values, 2)?;
        let columns = Columns::of(&names).map_err(Error::Wrong)?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (account, fault) = columns.account(row, rows.len());
        let account = Arc::new(account);
        match fault {
            Some(fault) => self.health.tell(user, &fault),
            None if account.secret.cost() > 0 => self.see(&account),
            None => {}
        }
        Ok(Some(account))
    }

    /// Keeps the account if its password takes longer to verify than the others'.
    fn see(&self, account: &Arc<Account>) {
        let is_costlier =
            |(kept, is_seen): &(Arc<Account>, bool)| !is_seen || account.secret.cost() > kept.secret.cost();
        if is_costlier(&self.costliest.read()) {
            let mut costliest = self.costliest.write();
            if is_costlier(&costliest) {
                *costliest = (Arc::clone(account), true);
            }
        }
    }

    /// Changes an account. Returns false if the statement has changed nothing.
    fn change(&self, statement: &Arc<Statement>, user: &UserName, password: Option<&str>) -> Result<bool, Unchanged> {
        match self.pool.run(statement, values(statement, user, None, password), Task::Change) {
            Ok(Outcome::Changed(count)) => Ok(count > 0),
            Ok(Outcome::Rows(_)) => Ok(true),
            Err(Error::Exists) => Err(Unchanged::Exists),
            Err(error) => Err(Unchanged::Source(error.to_string())),
        }
    }
}

impl Source for Sql {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.name)
    }

    /// Has the database check all statements.
    fn check(&self) -> Result<Vec<String>, String> {
        self.pool.prepare();
        self.notes.prepare();
        let wrong = |key: &str, why: String| Err(format!("{}: {key}: {why}", self.name));
        let columns = match self.pool.run(&self.query, Vec::new(), Task::Check) {
            Ok(Outcome::Rows(result)) => Columns::of(&result.names),
            Ok(Outcome::Changed(_)) => Columns::of(&[]),
            Err(Error::Wrong(why)) => return wrong("query", why),
            Err(error) => return Ok(vec![format!("{} is unavailable: {error}", self.name)]),
        };
        let columns = match columns {
            Ok(columns) => columns,
            Err(why) => return wrong("query", why),
        };
        let further = [
            ("login-statement", &self.login),
            ("add-statement", &self.add),
            ("remove-statement", &self.remove),
            ("names-statement", &self.names),
        ];
        for (key, statement) in further {
            if let Some(statement) = statement
                && let Err(Error::Wrong(why)) = self.pool.run(statement, Vec::new(), Task::Check)
            {
                return wrong(key, why);
            }
        }
        let others =
            columns.others.iter().map(|other| format!("{}: the column {other} has no meaning here", self.name));
        Ok(others.collect())
    }

    fn find(&self, user: &UserName) -> Found {
        self.find_for(user, None)
    }

    fn verify(&self, attempt: &Attempt<'_>, verifier: &Verifier) -> Result<Answer, Busy> {
        self.find_for(attempt.user, attempt.address).verify(attempt, verifier)
    }

    fn logged_in(&self, attempt: &Attempt<'_>) {
        if let Some(login) = &self.login
            && !self.notes.note(login, values(login, attempt.user, attempt.address, None))
        {
            self.health.is_behind();
        }
    }

    fn verify_in_vain(&self, attempt: &Attempt<'_>) {
        drop(self.find_for(attempt.user, attempt.address));
    }

    /// The accounts are not known all together, so no mechanism is announced that only some of them may support.
    fn totals(&self) -> Totals {
        Totals {
            some: true,
            costliest: Some(Arc::clone(&self.costliest.read().0)),
            some_unreadable: true,
            some_without_scram: true,
            least_refusal: LEAST_REFUSAL,
            ..Totals::default()
        }
    }

    fn names(&self) -> Vec<UserName> {
        let Some(statement) = &self.names else { return Vec::new() };
        match self.pool.rows(statement, Vec::new(), NAMES) {
            Ok(Rows { rows, .. }) => {
                let first = |row: Vec<Option<Vec<u8>>>| String::from_utf8(row.into_iter().next()??).ok()?.parse().ok();
                rows.into_iter().filter_map(first).collect()
            }
            Err(error) => {
                self.health.is_down(&error);
                Vec::new()
            }
        }
    }

    fn add(&self, user: &UserName, password: &[u8]) -> Result<(), Unchanged> {
        let Some(statement) = &self.add else { return Err(Unchanged::ReadOnly) };
        let field = Scheme::Argon2id.field(password);
        if self.change(statement, user, Some(&field))? { Ok(()) } else { Err(Unchanged::Exists) }
    }

    fn remove(&self, user: &UserName) -> Result<(), Unchanged> {
        let Some(statement) = &self.remove else { return Err(Unchanged::ReadOnly) };
        if self.change(statement, user, None)? { Ok(()) } else { Err(Unchanged::Missing) }
    }
}

fn parse(key: &str, text: &str, dialect: Dialect, known: &'static [Parameter]) -> Result<Arc<Statement>, String> {
    Statement::parse(text, dialect, known).map(Arc::new).map_err(|fault| format!("{key}: {fault}"))
}

/// The values of a statement's parameters.
fn values(statement: &Statement, user: &UserName, address: Option<IpAddr>, password: Option<&str>) -> Vec<Value> {
    let whole = user.as_str();
    let (name, domain) = whole.rsplit_once('@').unwrap_or((whole, ""));
    let value = |parameter: &Parameter| match parameter {
        Parameter::User => Some(whole.to_owned()),
        Parameter::Name => Some(name.to_owned()),
        Parameter::Domain => Some(domain.to_owned()),
        Parameter::Address => address.map(|address| address.to_canonical().to_string()),
        Parameter::Password => password.map(str::to_owned),
    };
    statement.parameters.iter().map(value).collect()
}

fn first_decoy() -> Arc<Account> {
    let secret = Secret::parse(FIRST_DECOY).unwrap_or_else(|_| Secret::of_password(b""));
    Arc::new(Account { field: Hidden(FIRST_DECOY.to_vec()), secret, mailbox: Arc::default() })
}
