//! What the server and systemd tell each other: sockets that systemd has bound for the server, and notifications of the
//! server's state (sd_listen_fds(3), sd_notify(3)).
//!
//! Without systemd there are no sockets and the notifications go nowhere.

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;
use socket2::Socket;

/// How often systemd is sent the status line and a sign of life, unless its watchdog needs the latter more often.
const INTERVAL: Duration = Duration::from_secs(5);

/// The sockets that systemd has passed, by the names that the socket unit gives them (`FileDescriptorName=`).
#[derive(Debug, Default)]
pub struct Sockets(BTreeMap<String, Vec<Socket>>);

impl Sockets {
    /// Takes the sockets that systemd has passed to this process.
    ///
    /// # Errors
    /// If one is neither a listening TCP socket nor a UNIX socket, or has a name that is not among `known`.
    pub fn take(known: &[&str]) -> io::Result<Self> {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut descriptors = ListenFd::from_env();
        let mut sockets = Self::default();
        for (index, name) in (0..descriptors.len()).zip(names.split(':').chain(std::iter::repeat(""))) {
            if !known.contains(&name) {
                let known = known.join(", ");
                let what =
                    format!("systemd has passed a socket named {name:?}: FileDescriptorName= has to be one of {known}");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
            let socket = match descriptors.take_tcp_listener(index) {
                Ok(socket) => socket.map(Socket::from),
                Err(error) => {
                    let socket = descriptors.take_unix_listener(index).ok().flatten();
                    Some(socket.map(Socket::from).ok_or(error)?)
                }
            };
            sockets.0.entry(name.to_owned()).or_default().extend(socket);
        }
        Ok(sockets)
    }

    /// Takes the sockets with this name. The result is empty if systemd has passed none.
    pub fn named(&mut self, name: &str) -> Vec<Socket> {
        self.0.remove(name).unwrap_or_default()
    }
}

/// Tells systemd that clients can connect.
pub fn tell_ready() {
    tell(&[NotifyState::Ready]);
}

/// Tells systemd that a reload begins. [`tell_ready`] tells it when the reload is done.
pub fn tell_reloading() {
    // With `Type=notify-reload`, systemd requires the time at which the reload began.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// Tells systemd that the server is shutting down.
pub fn tell_stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("cannot notify systemd: {error}");
    }
}

/// Counts the rounds of the server's main loop, so that systemd's watchdog notices if it hangs.
#[derive(Debug, Default)]
pub struct Pulse(AtomicU64);

impl Pulse {
    /// Counts a round.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn beats(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Starts a thread that sends systemd the server's status and, while the main loop is running, signs of life. Without
/// systemd, no thread is started.
///
/// # Errors
/// If the thread cannot be started.
pub fn start_reporting(pulse: Arc<Pulse>, status: impl Fn() -> String + Send + 'static) -> io::Result<()> {
    if env::var_os("NOTIFY_SOCKET").is_none() {
        return Ok(());
    }
    // sd_watchdog_enabled(3) recommends half of the time after which systemd would kill the server.
    let watchdog = sd_notify::watchdog_enabled();
    let interval = watchdog.map_or(INTERVAL, |limit| INTERVAL.min(limit / 2));
    thread::Builder::new().name("systemd".to_owned()).spawn(move || {
        let (mut last_status, mut last_beats) = (String::new(), None);
        loop {
            let (status, beats) = (status(), pulse.beats());
            if status != last_status {
                tell(&[NotifyState::Status(&status)]);
                last_status = status;
            }
            if watchdog.is_some() && last_beats != Some(beats) {
                tell(&[NotifyState::Watchdog]);
                last_beats = Some(beats);
            }
            thread::sleep(interval);
        }
    })?;
    Ok(())
}
