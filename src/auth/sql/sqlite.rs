//! Accounts in an SQLite file.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::types::ValueRef;
use rusqlite::{ErrorCode, OpenFlags};

use super::driver::{Connection, Driver, Error, Rows, Value};
use super::statement::{Dialect, Statement};

/// How many instructions of its machine SQLite carries out until it looks at the time: a small part of a millisecond.
const INSTRUCTIONS: i32 = 1000;

/// The most memory that a connection keeps pages of the file in, in KiB. A query for one account needs a few pages, and the
/// system keeps them all once for all connections.
const CACHE: i64 = 256;

/// An SQLite file.
#[derive(Debug)]
pub(super) struct Sqlite {
    pub(super) path: PathBuf,
    /// The most time that a statement may take, with the waiting for others who write.
    pub(super) limit: Duration,
}

impl Driver for Sqlite {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    fn connect(&self) -> Result<Box<dyn Connection>, Error> {
        let (opened, file) = (self.open().map_err(error)?, identity(&self.path));
        Ok(Box::new(Open { database: opened, path: self.path.clone(), file, limit: self.limit }))
    }
}

impl Sqlite {
    fn open(&self) -> rusqlite::Result<rusqlite::Connection> {
        // A reader writes, too, in the file that coordinates those who use the database. SQLite takes a file that may
        // not be written as one to read.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = rusqlite::Connection::open_with_flags(&self.path, flags)?;
        database.busy_timeout(self.limit)?;
        // A negative number is one of KiB, others are numbers of pages.
        database.pragma_update(None, "cache_size", -CACHE)?;
        Ok(database)
    }
}

struct Open {
    database: rusqlite::Connection,
    path: PathBuf,
    /// Which file was opened.
    file: Option<(u64, u64)>,
    limit: Duration,
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

impl Open {
    /// Runs a statement and passes its result to `take`.
    fn run<T>(
        &mut self,
        statement: &Statement,
        values: &[Value],
        take: impl FnOnce(Vec<String>, &mut rusqlite::Rows<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        if identity(&self.path) != self.file {
            return Err(Error::Broken(format!("{} is no longer the file that was opened", self.path.display())));
        }
        let deadline = Instant::now() + self.limit;
        self.database.progress_handler(INSTRUCTIONS, Some(move || Instant::now() >= deadline)).map_err(error)?;
        let mut prepared = self.prepare(statement)?;
        for (value, at) in values.iter().zip(1..) {
            prepared.raw_bind_parameter(at, value).map_err(error)?;
        }
        let names = prepared.column_names().map(str::to_owned).collect();
        take(names, &mut prepared.raw_query()).map_err(error)
    }

    fn prepare(&self, statement: &Statement) -> Result<rusqlite::Statement<'_>, Error> {
        let prepared = self.database.prepare(&statement.text).map_err(|failure| match failure {
            // SQLite has one code for a wrong syntax, table or column.
            rusqlite::Error::SqliteFailure(code, _) if code.code == ErrorCode::Unknown => {
                Error::Wrong(failure.to_string())
            }
            rusqlite::Error::SqlInputError { .. } => Error::Wrong(failure.to_string()),
            failure => error(failure),
        })?;
        let (named, found) = (statement.parameters.len(), prepared.parameter_count());
        if named == found { Ok(prepared) } else { Err(Error::of_parameters(named, found)) }
    }
}

impl Connection for Open {
    fn columns(&mut self, statement: &Statement) -> Result<Vec<String>, Error> {
        let prepared = self.prepare(statement)?;
        Ok(prepared.column_names().map(str::to_owned).collect())
    }

    fn query(&mut self, statement: &Statement, values: &[Value], most: usize) -> Result<Rows, Error> {
        self.run(statement, values, |names, result| {
            let mut rows = Vec::new();
            while rows.len() < most
                && let Some(row) = result.next()?
            {
                rows.push((0..names.len()).map(|at| Ok(text(row.get_ref(at)?))).collect::<rusqlite::Result<_>>()?);
            }
            Ok(Rows { names, rows })
        })
    }

    fn execute(&mut self, statement: &Statement, values: &[Value]) -> Result<u64, Error> {
        self.run(statement, values, |_, result| {
            while result.next()?.is_some() {}
            Ok(())
        })?;
        Ok(self.database.changes())
    }
}

fn text(value: ValueRef<'_>) -> Option<Vec<u8>> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string().into_bytes()),
        ValueRef::Real(number) => Some(number.to_string().into_bytes()),
        ValueRef::Text(octets) | ValueRef::Blob(octets) => Some(octets.to_vec()),
    }
}

fn error(error: rusqlite::Error) -> Error {
    let why = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) if is_of_a_key(&error) => Error::Exists,
        Some(ErrorCode::OperationInterrupted) => Error::Failed("the statement takes too long".to_owned()),
        // The file has gone or has been damaged. Perhaps it has been replaced by another.
        Some(
            ErrorCode::CannotOpen | ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt | ErrorCode::SystemIoFailure,
        ) => Error::Broken(why),
        _ => Error::Failed(why),
    }
}

fn is_of_a_key(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE};
    let code = error.sqlite_extended_error_code();
    code.is_some_and(|code| [SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE].contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_keeps_few_pages_in_memory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("accounts.db");
        rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE accounts (name TEXT)").unwrap();
        let mut connection = Sqlite { path, limit: Duration::from_secs(10) }.connect().unwrap();
        let statement = Statement { text: "PRAGMA cache_size".to_owned(), parameters: Vec::new() };
        let rows = connection.query(&statement, &[], 1).unwrap().rows;
        assert_eq!(rows, [[Some(b"-256".to_vec())]]);
    }
}
