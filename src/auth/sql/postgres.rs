//! Accounts in PostgreSQL.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use bytes::BytesMut;
use postgres::config::{Host, SslMode};
use postgres::error::SqlState;
use postgres::types::{Format, FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};
use postgres::{Client, Config, NoTls};
use rustls::ClientConfig;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::driver::{Connection, Driver, Error, Rows, Value};
use super::statement::{Dialect, Statement};

/// How long a connection may be silent until the kernel asks whether the other machine is still there, and how often it
/// asks.
const SILENCE: Duration = Duration::from_secs(30);
const QUESTIONS: u32 = 3;

/// How to connect to a PostgreSQL server.
pub(super) struct Postgres {
    config: Config,
    tls: Option<ClientConfig>,
    limit: Duration,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").finish_non_exhaustive()
    }
}

impl Postgres {
    /// Connects by these settings, with TLS if there is a configuration for it. `limit` is the most time for a
    /// statement.
    pub(super) fn new(mut config: Config, tls: Option<ClientConfig>, connect: Duration, limit: Duration) -> Self {
        config
            .application_name("pop3d")
            .ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable })
            .connect_timeout(connect)
            // A connection whose other end is out of reach is given up with the statement, and the next one gets a new one.
            .tcp_user_timeout(SILENCE.min(limit))
            .keepalives_idle(SILENCE)
            .keepalives_interval(SILENCE / QUESTIONS)
            .keepalives_retries(QUESTIONS);
        Self { config, tls, limit }
    }

    /// The TCP ports that it connects to.
    pub(super) fn ports(config: &Config) -> Vec<u16> {
        let ports = config.get_ports();
        if ports.is_empty() { vec![5432] } else { ports.to_vec() }
    }

    /// The hosts that it connects to by TCP.
    pub(super) fn hosts(config: &Config) -> Vec<String> {
        let name = |host: &Host| match host {
            Host::Tcp(name) => Some(name.clone()),
            Host::Unix(_) => None,
        };
        let addresses = config.get_hostaddrs().iter().map(ToString::to_string);
        config.get_hosts().iter().filter_map(name).chain(addresses).collect()
    }
}

impl Driver for Postgres {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    fn connect(&self) -> Result<Box<dyn Connection>, Error> {
        let connected = match &self.tls {
            Some(tls) => self.config.connect(MakeRustlsConnect::new(tls.clone())),
            None => self.config.connect(NoTls),
        };
        let mut client = connected.map_err(|error| Error::Broken(explain(&error)))?;
        let limit = self.limit.as_millis();
        client.batch_execute(&format!("SET statement_timeout = {limit}")).map_err(error)?;
        Ok(Box::new(Connected { client, prepared: Vec::new() }))
    }
}

struct Connected {
    client: Client,
    /// The statements that this connection has prepared, which are few.
    prepared: Vec<(String, postgres::Statement)>,
}

impl Connected {
    fn prepare(&mut self, statement: &Statement) -> Result<postgres::Statement, Error> {
        if let Some((_, prepared)) = self.prepared.iter().find(|(text, _)| *text == statement.text) {
            return Ok(prepared.clone());
        }
        let prepared = self.client.prepare(&statement.text).map_err(|failure| match failure.code() {
            // Class 42: a syntax error, a table or column that is not there or that may not be used.
            Some(code) if code.code().starts_with("42") => Error::Wrong(explain(&failure)),
            _ => error(failure),
        })?;
        let (named, found) = (statement.parameters.len(), prepared.params().len());
        if named != found {
            return Err(Error::of_parameters(named, found));
        }
        if let Some(column) = prepared.columns().iter().find(|column| !Cell::accepts(column.type_())) {
            let (name, kind) = (column.name(), column.type_());
            return Err(Error::Wrong(format!("the column {name} is of type {kind}; write it as {name}::text")));
        }
        self.prepared.push((statement.text.clone(), prepared.clone()));
        Ok(prepared)
    }
}

impl Connection for Connected {
    fn columns(&mut self, statement: &Statement) -> Result<Vec<String>, Error> {
        Ok(names(&self.prepare(statement)?))
    }

    fn query(&mut self, statement: &Statement, values: &[Value], most: usize) -> Result<Rows, Error> {
        let prepared = self.prepare(statement)?;
        let values = values.iter().map(|value| Text(value.as_deref())).collect::<Vec<_>>();
        let values = values.iter().map(|value| value as &(dyn ToSql + Sync)).collect::<Vec<_>>();
        let rows = self.client.query(&prepared, &values).map_err(error)?;
        let cells = |row: &postgres::Row| {
            (0..row.len()).map(|at| row.try_get::<_, Option<Cell>>(at).map(|cell| cell.map(|cell| cell.0))).collect()
        };
        let rows = rows.iter().take(most).map(cells).collect::<Result<_, _>>().map_err(error)?;
        Ok(Rows { names: names(&prepared), rows })
    }

    fn execute(&mut self, statement: &Statement, values: &[Value]) -> Result<u64, Error> {
        let prepared = self.prepare(statement)?;
        let values = values.iter().map(|value| Text(value.as_deref())).collect::<Vec<_>>();
        let values = values.iter().map(|value| value as &(dyn ToSql + Sync)).collect::<Vec<_>>();
        self.client.execute(&prepared, &values).map_err(error)
    }
}

fn names(prepared: &postgres::Statement) -> Vec<String> {
    prepared.columns().iter().map(|column| column.name().to_owned()).collect()
}

/// A value that the server reads as text, whatever type the statement needs.
#[derive(Debug)]
struct Text<'v>(Option<&'v str>);

impl ToSql for Text<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let Some(text) = self.0 else { return Ok(IsNull::Yes) };
        out.extend_from_slice(text.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// A value of a result as text.
struct Cell(Vec<u8>);

impl<'r> FromSql<'r> for Cell {
    fn from_sql(kind: &Type, raw: &'r [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        let number = |number: i64| Ok(Self(number.to_string().into_bytes()));
        match (inner(kind), raw) {
            (&Type::BOOL, [octet]) => number((*octet).into()),
            (&Type::INT2, &[a, b]) => number(i16::from_be_bytes([a, b]).into()),
            (&Type::INT4, &[a, b, c, d]) => number(i32::from_be_bytes([a, b, c, d]).into()),
            (&Type::OID, &[a, b, c, d]) => number(u32::from_be_bytes([a, b, c, d]).into()),
            (&Type::INT8, _) => number(i64::from_be_bytes(raw.try_into()?)),
            _ => Ok(Self(raw.to_vec())),
        }
    }

    fn accepts(kind: &Type) -> bool {
        let kind = inner(kind);
        let has_form = [Type::BOOL, Type::INT2, Type::INT4, Type::OID, Type::INT8].contains(kind);
        let is_text = [Type::TEXT, Type::VARCHAR, Type::BPCHAR, Type::NAME, Type::BYTEA, Type::UNKNOWN].contains(kind);
        has_form || is_text || kind.name() == "citext" || matches!(kind.kind(), Kind::Enum(_))
    }
}

/// The type on which a domain stands, or else the type itself.
fn inner(kind: &Type) -> &Type {
    match kind.kind() {
        Kind::Domain(of) => inner(of),
        _ => kind,
    }
}

fn error(error: postgres::Error) -> Error {
    let why = explain(&error);
    match error.code() {
        Some(&SqlState::UNIQUE_VIOLATION) => Error::Exists,
        // A prepared statement is no longer valid: a table has changed, or a proxy has changed the connection.
        Some(&SqlState::FEATURE_NOT_SUPPORTED | &SqlState::INVALID_SQL_STATEMENT_NAME) => Error::Broken(why),
        // 08: connection exceptions; 57P: the server is shut down.
        Some(code) if code.code().starts_with("08") || code.code().starts_with("57P") => Error::Broken(why),
        Some(_) => Error::Failed(why),
        None => Error::Broken(why),
    }
}

/// The error in one line, with its cause.
fn explain(error: &postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return error.message().to_owned();
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text += ": ";
            text += &cause_text;
        }
        source = cause.source();
    }
    text
}
