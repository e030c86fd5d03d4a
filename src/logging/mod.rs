//! The log. simplelog formats its lines, a buffer takes them, and a thread writes them to stderr or to a file.
//!
//! No code that logs waits for the log's reader: a pipe that is not read, a stopped terminal and a frozen disk block
//! the writing thread only. Lines that the buffer has no room for are lost, and the log says how many.

mod buffer;
mod file;
mod line;
mod writer;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use log::{LevelFilter, SetLoggerError};
use simplelog::{ConfigBuilder, WriteLogger};

use buffer::Buffer;
use file::LogFile;
use line::Lines;
pub use line::TIME;
use writer::{Output, Writer};

/// How long the end of the program waits until the last lines are written.
const PATIENCE: Duration = Duration::from_secs(1);

/// The program's log. When it is dropped, the last lines are written if that takes no longer than a second.
#[derive(Debug)]
pub struct Log {
    buffer: Arc<Buffer>,
    /// Taken when the writing thread starts.
    writer: Option<Writer>,
}

/// Why the log cannot be started.
#[derive(Debug)]
pub enum LogError {
    /// The log file cannot be opened.
    File(PathBuf, io::Error),
    /// The process has a log already.
    Twice(SetLoggerError),
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "cannot open the log file {}: {error}", path.display()),
            Self::Twice(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LogError {}

impl Log {
    /// Makes this the log of the whole process. Its lines stay in the buffer until [`Log::start_writing`].
    ///
    /// # Errors
    /// [`LogError`]
    pub fn start(level: LevelFilter, file: Option<PathBuf>) -> Result<Self, LogError> {
        let (output, colours) = match file {
            Some(path) => match LogFile::open(path.clone()) {
                Ok(file) => (Output::File(file), false),
                Err(error) => return Err(LogError::File(path, error)),
            },
            None => (Output::Stderr, line::stderr_has_colours()),
        };
        let buffer = Arc::new(Buffer::default());
        let off = LevelFilter::Off;
        let config = ConfigBuilder::new()
            .set_time_format_custom(TIME)
            .set_target_level(off)
            .set_thread_level(off)
            .set_location_level(off)
            .build();
        // The level may change later, and is held against each record before it comes to the logger.
        WriteLogger::init(LevelFilter::Trace, config, Lines::new(Arc::clone(&buffer), colours))
            .map_err(LogError::Twice)?;
        log::set_max_level(level);
        let writer = Writer::new(Arc::clone(&buffer), output, colours);
        Ok(Self { buffer, writer: Some(writer) })
    }

    /// Starts the thread that writes. The thread keeps the rights that the calling thread has now, so the server is
    /// confined first.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start_writing(&mut self) -> io::Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.run())?;
        Ok(())
    }

    /// What asks for the log file to be opened again.
    #[must_use]
    pub fn reopener(&self) -> Reopener {
        Reopener(Arc::clone(&self.buffer))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if self.start_writing().is_ok() {
            self.buffer.wait_until_written(PATIENCE);
        }
    }
}

/// Asks for the log file to be opened again, after it was moved away.
#[derive(Debug, Clone)]
pub struct Reopener(Arc<Buffer>);

impl Reopener {
    /// Asks, and does not wait: the writing thread opens the file when it has written the lines before this call.
    pub fn reopen(&self) {
        self.0.reopen();
    }
}
