//! The log. simplelog formats its lines, or `json` does; a buffer takes them, and a thread writes them to stderr or to a
//! file. `problems` keeps the last warnings and errors.
//!
//! Code that logs never waits: a full pipe, a stopped terminal or a disk that hangs only block the writing thread. Lines
//! for which the buffer has no room are lost, and the log says how many.

mod buffer;
mod file;
mod json;
mod line;
mod problems;
mod writer;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use log::{LevelFilter, Metadata, Record, SetLoggerError};
use simplelog::{ConfigBuilder, WriteLogger};

use buffer::Buffer;
use file::LogFile;
use line::{JsonLogger, Lines, Style};
pub use line::{LogFormat, TIME};
pub use problems::recent_problems;
use writer::{Output, Writer};

/// How long the end of the program waits until the last lines are written.
const PATIENCE: Duration = Duration::from_secs(1);

/// The program's log. When it is dropped, the last lines are written if that takes no longer than a second.
#[derive(Debug)]
pub struct Log {
    buffer: Arc<Buffer>,
    /// `None` once the writing thread has started.
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
    pub fn start(level: LevelFilter, format: LogFormat, file: Option<PathBuf>) -> Result<Self, LogError> {
        let (output, style) = match file {
            Some(path) => match LogFile::open(path.clone()) {
                Ok(file) => (Output::File(file), Style { format, ..Style::default() }),
                Err(error) => return Err(LogError::File(path, error)),
            },
            None => {
                let journal = line::stderr_is_journal();
                (Output::Stderr, Style { format, colours: line::stderr_has_colours(), journal })
            }
        };
        let buffer = Arc::new(Buffer::default());
        log::set_boxed_logger(Box::new(Logger::new(&buffer, style))).map_err(LogError::Twice)?;
        set_level(level);
        let writer = Writer::new(Arc::clone(&buffer), output, style);
        Ok(Self { buffer, writer: Some(writer) })
    }

    /// Starts the thread that writes. The thread keeps the rights that the calling thread has now, so the server is
    /// confined first.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start_writing(&mut self) -> io::Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.run())?;
        Ok(())
    }

    /// Returns a handle to request that the log file is opened again.
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

/// Sets the least important level that is logged, from now on.
pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

/// The logger of the process.
struct Logger(Kind);

enum Kind {
    Text(Box<WriteLogger<Lines>>),
    Json(JsonLogger),
}

impl Logger {
    fn new(buffer: &Arc<Buffer>, style: Style) -> Self {
        let buffer = Arc::clone(buffer);
        if style.format == LogFormat::Json {
            return Self(Kind::Json(JsonLogger::new(buffer, style.journal)));
        }
        let off = LevelFilter::Off;
        let config = ConfigBuilder::new()
            .set_time_format_custom(TIME)
            .set_time_level(if style.journal { off } else { LevelFilter::Error })
            .set_target_level(off)
            .set_thread_level(off)
            .set_location_level(off)
            .build();
        // Every record that gets here is written: `set_level` decides which ones do.
        Self(Kind::Text(WriteLogger::new(LevelFilter::Trace, config, Lines::new(buffer, style))))
    }
}

impl log::Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        problems::keep(record);
        match &self.0 {
            Kind::Text(text) => text.log(record),
            Kind::Json(json) => json.log(record),
        }
    }

    fn flush(&self) {}
}

/// Asks for the log file to be opened again, after it was moved away.
#[derive(Debug, Clone)]
pub struct Reopener(Arc<Buffer>);

impl Reopener {
    /// Requests that the file is opened again. Does not wait; the writing thread opens the file after it has written all
    /// earlier lines.
    pub fn reopen(&self) {
        self.0.reopen();
    }
}
