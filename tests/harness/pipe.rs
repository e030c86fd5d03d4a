//! Readers of a child's pipe that keep the child from blocking on it.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

/// Starts a thread that reads a pipe to its end and sends its lines to the receiver.
pub(crate) fn lines_of(pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}

/// Starts a thread that reads a pipe to its end and adds what it reads to `gathered`.
pub(super) fn gather(mut pipe: impl Read + Send + 'static, gathered: Arc<Mutex<Vec<u8>>>) {
    thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = pipe.read(&mut piece) {
            gathered.lock().unwrap().extend_from_slice(&piece[..length]);
        }
    });
}
