//! Accounts in MariaDB and MySQL.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use mysql::consts::CapabilityFlags;
use mysql::prelude::Queryable;
use mysql::{Conn, DriverError, Opts, OptsBuilder, Params, SslOpts};

use super::driver::{Connection, Driver, Error, Rows, Value};
use super::statement::{Dialect, Statement};

/// How long a connection may be silent until the kernel asks whether the other machine is still there.
const SILENCE: Duration = Duration::from_secs(30);

/// The server's error for a key that there is already.
const DUPLICATE: u16 = 1062;

/// Errors of a server that shuts down, or of a statement that it no longer knows.
const OF_CONNECTION: [u16; 5] = [1053, 1243, 1152, 1158, 1927];

/// How to connect to a server.
pub(super) struct Mysql {
    opts: Opts,
}

impl fmt::Debug for Mysql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mysql").finish_non_exhaustive()
    }
}

/// TLS with the authorities that the program has with it, and those of the file.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    pub(super) ca: Option<PathBuf>,
}

impl Mysql {
    /// Connects by these settings. `limit` is the most time for a statement.
    pub(super) fn new(
        opts: Opts,
        password: Option<String>,
        tls: Option<Tls>,
        connect: Duration,
        limit: Duration,
    ) -> Self {
        let given = opts.get_pass().map(str::to_owned);
        let silence = u32::try_from(SILENCE.as_millis()).unwrap_or(u32::MAX);
        let opts = OptsBuilder::from_opts(opts)
            .pass(password.or(given))
            // Otherwise it goes on by a UNIX socket that the server names.
            .prefer_socket(false)
            .ssl_opts(tls.map(|tls| SslOpts::default().with_root_cert_path(tls.ca)))
            .tcp_connect_timeout(Some(connect))
            .tcp_keepalive_time_ms(Some(silence))
            .tcp_user_timeout_ms(Some(silence))
            // The server ends the statement in time; if it does not answer at all, the connection is given up.
            .read_timeout(Some(limit + Duration::from_secs(1)))
            .write_timeout(Some(limit + Duration::from_secs(1)))
            .additional_capabilities(CapabilityFlags::CLIENT_FOUND_ROWS)
            .init(vec![time_limit(limit)]);
        Self { opts: opts.into() }
    }
}

/// Sets the limit of a statement. MariaDB and MySQL have different variables for it; each reads the comment that is for
/// it.
fn time_limit(limit: Duration) -> String {
    let (seconds, milliseconds) = (limit.as_secs_f64(), limit.as_millis());
    format!(
        "SET @pop3d = 1 /*M!100101 , SESSION max_statement_time = {seconds} */ /*!50708 , SESSION max_execution_time = \
         {milliseconds} */"
    )
}

impl Driver for Mysql {
    fn dialect(&self) -> Dialect {
        Dialect::Mysql
    }

    fn connect(&self) -> Result<Box<dyn Connection>, Error> {
        let conn = Conn::new(self.opts.clone()).map_err(|error| Error::Broken(explain(&error)))?;
        Ok(Box::new(Connected(conn)))
    }
}

struct Connected(Conn);

impl Connected {
    /// The crate keeps what it has prepared on a connection.
    fn prepare(&mut self, statement: &Statement) -> Result<mysql::Statement, Error> {
        let prepared = self.0.prep(&statement.text).map_err(|failure| match &failure {
            // Class 42: a syntax error, a table or column that is not there or that may not be used.
            mysql::Error::MySqlError(told) if told.state.starts_with("42") => Error::Wrong(explain(&failure)),
            _ => error(failure),
        })?;
        let (named, found) = (statement.parameters.len(), usize::from(prepared.num_params()));
        if named == found { Ok(prepared) } else { Err(Error::of_parameters(named, found)) }
    }
}

impl Connection for Connected {
    fn columns(&mut self, statement: &Statement) -> Result<Vec<String>, Error> {
        Ok(names(&self.prepare(statement)?.columns()))
    }

    fn query(&mut self, statement: &Statement, values: &[Value], most: usize) -> Result<Rows, Error> {
        let prepared = self.prepare(statement)?;
        let mut result = self.0.exec_iter(&prepared, parameters(values)).map_err(error)?;
        let names = names(result.columns().as_ref());
        let cells = |row: mysql::Row| row.unwrap_raw().into_iter().map(|value| text(value?)).collect();
        let rows = result.by_ref().take(most).map(|row| row.map(cells)).collect::<Result<_, _>>().map_err(error)?;
        Ok(Rows { names, rows })
    }

    fn execute(&mut self, statement: &Statement, values: &[Value]) -> Result<u64, Error> {
        let prepared = self.prepare(statement)?;
        let result = self.0.exec_iter(&prepared, parameters(values)).map_err(error)?;
        Ok(result.affected_rows())
    }
}

fn names(columns: &[mysql::Column]) -> Vec<String> {
    columns.iter().map(|column| column.name_str().into_owned()).collect()
}

fn parameters(values: &[Value]) -> Params {
    let value = |value: &Value| match value {
        Some(text) => mysql::Value::Bytes(text.clone().into_bytes()),
        None => mysql::Value::NULL,
    };
    if values.is_empty() { Params::Empty } else { Params::Positional(values.iter().map(value).collect()) }
}

fn text(value: mysql::Value) -> Option<Vec<u8>> {
    Some(match value {
        mysql::Value::NULL => return None,
        mysql::Value::Bytes(octets) => octets,
        mysql::Value::Int(number) => number.to_string().into_bytes(),
        mysql::Value::UInt(number) => number.to_string().into_bytes(),
        mysql::Value::Float(number) => number.to_string().into_bytes(),
        mysql::Value::Double(number) => number.to_string().into_bytes(),
        // Dates and times, which no column here is.
        other => other.as_sql(true).into_bytes(),
    })
}

fn error(error: mysql::Error) -> Error {
    let why = explain(&error);
    match error {
        mysql::Error::MySqlError(told) if told.code == DUPLICATE => Error::Exists,
        mysql::Error::MySqlError(told) if OF_CONNECTION.contains(&told.code) => Error::Broken(why),
        mysql::Error::MySqlError(_) | mysql::Error::DriverError(DriverError::MismatchedStmtParams(..)) => {
            Error::Failed(why)
        }
        _ => Error::Broken(why),
    }
}

fn explain(error: &mysql::Error) -> String {
    match error {
        mysql::Error::MySqlError(told) => told.message.clone(),
        error => error.to_string(),
    }
}
