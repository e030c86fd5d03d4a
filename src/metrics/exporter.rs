//! The HTTP server of `--metrics`: `/metrics` and `/healthz`, one request for each connection.
//!
//! An acceptor and two more threads serve it, which take no connection slot. A client cannot hold it up: its request has to
//! be complete after five seconds, or after a quarter of a second if other clients wait. The newest connection is served
//! first. If too many connections wait, the oldest is closed. A request has at most 8 KiB.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::exposition::{for_prometheus, text};
use crate::shared::Shared;

/// The threads that answer requests.
const WORKERS: usize = 2;

/// The most connections that wait for one of these threads.
const MAX_WAITING: usize = 16;

/// The largest request, and the most header fields in it.
const MAX_REQUEST: usize = 8 * 1024;
const MAX_FIELDS: usize = 64;

/// How long a client may take for sending its request and reading the answer, alone and while others wait.
const PATIENCE: Duration = Duration::from_secs(5);
const PATIENCE_WHEN_BUSY: Duration = Duration::from_millis(250);

/// How often a thread that waits for its client checks whether other clients wait.
const LOOK: Duration = Duration::from_millis(50);

/// How long the acceptor pauses after an error such as a lack of descriptors.
const REST: Duration = Duration::from_millis(200);

/// The media type of OpenMetrics, with which Prometheus asks for it.
const OPEN_METRICS: &str = "application/openmetrics-text";

/// A bound port that is not served yet.
#[derive(Debug)]
pub struct Exporter(TcpListener);

/// The connections that wait for a thread, the newest last.
#[derive(Debug, Default)]
struct Waiting {
    streams: Mutex<Vec<TcpStream>>,
    added: Condvar,
}

impl Exporter {
    /// Binds the port.
    ///
    /// # Errors
    /// Those of bind(2).
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot serve metrics on {address}: {error}")))?;
        Ok(Self(listener))
    }

    /// Starts the threads that serve until the process ends.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(self, shared: &Arc<Shared>) -> io::Result<()> {
        let waiting = Arc::new(Waiting::default());
        for _ in 0..WORKERS {
            let (waiting, shared) = (Arc::clone(&waiting), Arc::clone(shared));
            thread::Builder::new().name("metrics".to_owned()).spawn(move || {
                loop {
                    let stream = waiting.take();
                    // A client that leaves or is too slow gets no answer.
                    let _ = serve(stream, &shared, &waiting);
                }
            })?;
        }
        if let Ok(address) = self.0.local_addr() {
            log::info!("metrics on http://{address}/metrics");
        }
        let accept = move || {
            loop {
                match self.0.accept() {
                    Ok((stream, _)) => waiting.add(stream),
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(_) => thread::sleep(REST),
                }
            }
        };
        thread::Builder::new().name("metrics-acceptor".to_owned()).spawn(accept).map(drop)
    }
}

impl Waiting {
    fn add(&self, stream: TcpStream) {
        let mut streams = self.streams.lock();
        if streams.len() == MAX_WAITING {
            streams.remove(0);
        }
        streams.push(stream);
        self.added.notify_one();
    }

    fn take(&self) -> TcpStream {
        let mut streams = self.streams.lock();
        loop {
            if let Some(stream) = streams.pop() {
                return stream;
            }
            self.added.wait(&mut streams);
        }
    }

    /// Returns true if a client whose connection was taken at `since` has to be given up.
    fn is_overdue(&self, since: Instant) -> bool {
        let patience = if self.streams.lock().is_empty() { PATIENCE } else { PATIENCE_WHEN_BUSY };
        since.elapsed() >= patience
    }
}

/// Reads a request and answers it.
fn serve(mut stream: TcpStream, shared: &Shared, waiting: &Waiting) -> io::Result<()> {
    let since = Instant::now();
    stream.set_read_timeout(Some(LOOK))?;
    stream.set_write_timeout(Some(LOOK))?;
    let mut request = Vec::with_capacity(1024);
    let answer = loop {
        let mut piece = [0; 1024];
        let read = patiently(since, waiting, || stream.read(&mut piece))?;
        request.extend_from_slice(&piece[..read]);
        match answer_to(&request, shared) {
            Some(answer) => break answer,
            None if read == 0 => return Ok(()),
            None if request.len() >= MAX_REQUEST => break Answer::error("431 Request Header Fields Too Large"),
            None => {}
        }
    };
    let octets = answer.octets();
    let mut rest = &octets[..];
    while !rest.is_empty() {
        let written = patiently(since, waiting, || stream.write(rest))?;
        rest = &rest[written..];
    }
    // The client sees the end of the answer before the connection is closed, and what it has sent since is read, because
    // closing with input unread would reset the connection.
    stream.shutdown(std::net::Shutdown::Write)?;
    while patiently(since, waiting, || stream.read(&mut [0; 1024]))? > 0 {}
    Ok(())
}

/// Repeats a read or a write that has timed out until the client is overdue.
fn patiently(since: Instant, waiting: &Waiting, mut operation: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        // Also after a success, because a client may send or read octet by octet.
        if waiting.is_overdue(since) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match operation() {
            Err(error) if crate::wire::is_timeout(&error) || error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

struct Answer {
    status: &'static str,
    media_type: &'static str,
    body: String,
    /// HEAD asks for the header alone.
    without_body: bool,
}

impl Answer {
    fn error(status: &'static str) -> Self {
        Self::plain(status, format!("{status}\n"))
    }

    fn plain(status: &'static str, body: String) -> Self {
        Self { status, media_type: "text/plain; charset=utf-8", body, without_body: false }
    }

    fn octets(&self) -> Vec<u8> {
        let Self { status, media_type, body, without_body } = self;
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        [head.as_bytes(), if *without_body { b"" } else { body.as_bytes() }].concat()
    }
}

/// The answer to a request; `None` if it is not whole yet.
fn answer_to(request: &[u8], shared: &Shared) -> Option<Answer> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    match parsed.parse(request) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return None,
        Err(httparse::Error::TooManyHeaders) => return Some(Answer::error("431 Request Header Fields Too Large")),
        Err(_) => return Some(Answer::error("400 Bad Request")),
    }
    let without_body = match parsed.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Some(Answer::error("405 Method Not Allowed")),
    };
    let path = parsed.path.unwrap_or_default().split('?').next().unwrap_or_default();
    let answer = match path {
        "/metrics" => {
            let accepts = |field: &httparse::Header<'_>| {
                field.name.eq_ignore_ascii_case("accept")
                    && memchr::memmem::find(field.value, OPEN_METRICS.as_bytes()).is_some()
            };
            let body = text(shared);
            if parsed.headers.iter().any(accepts) {
                let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                Answer { media_type, ..Answer::plain("200 OK", body) }
            } else {
                let media_type = "text/plain; version=0.0.4; charset=utf-8";
                Answer { media_type, ..Answer::plain("200 OK", for_prometheus(&body)) }
            }
        }
        "/healthz" => Answer::plain("200 OK", "ok\n".to_owned()),
        _ => Answer::error("404 Not Found"),
    };
    Some(Answer { without_body, ..answer })
}
