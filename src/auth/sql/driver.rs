//! What the databases have in common.

use std::fmt;

use super::statement::{Dialect, Statement};

/// A value of a parameter; `None` is NULL.
pub(super) type Value = Option<String>;

/// A row of a result: a value for each column, as text.
pub(super) type Row = Vec<Option<Vec<u8>>>;

/// A result, with the names of its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) names: Vec<String>,
    pub(super) rows: Vec<Row>,
}

/// Connects to one database. Each thread of the pool has a connection of its own.
pub(super) trait Driver: fmt::Debug + Send + Sync {
    /// The form of the database's statements.
    fn dialect(&self) -> Dialect;

    /// Makes a connection.
    fn connect(&self) -> Result<Box<dyn Connection>, Error>;
}

/// A connection. It ends a statement that takes longer than the time limit.
pub(super) trait Connection {
    /// Has the database check a statement. Returns the names of the columns of its result.
    fn columns(&mut self, statement: &Statement) -> Result<Vec<String>, Error>;

    /// Returns the result of a query, but not more than `most` rows.
    fn query(&mut self, statement: &Statement, values: &[Value], most: usize) -> Result<Rows, Error>;

    /// Runs a statement. Returns how many rows it has changed.
    fn execute(&mut self, statement: &Statement, values: &[Value]) -> Result<u64, Error>;
}

/// Why a database has not done what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Error {
    /// The database says that the statement is wrong: its syntax, a table or a column. It would be wrong again.
    Wrong(String),
    /// There is an account of this name already.
    Exists,
    /// The connection is of no more use. Another one may be.
    Broken(String),
    /// The database cannot do it at present, or refuses it.
    Failed(String),
}

impl Error {
    /// The database has other parameters in the statement than the named ones.
    pub(super) fn of_parameters(named: usize, found: usize) -> Self {
        Self::Wrong(format!("it has {found} parameters, of which {named} have a name; write all as :user and the like"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(why) | Self::Broken(why) | Self::Failed(why) => f.write_str(why),
            Self::Exists => f.write_str("there is such an account already"),
        }
    }
}
