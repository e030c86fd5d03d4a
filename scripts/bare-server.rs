//! A POP3 server that does no work, for comparison: `cargo run --release --example bare-server MAILDIR [read]`. It shows
//! what the machine's loopback, pop3d's pool with a thread for each connection, and the client allow at most.
//!
//! Any user may log in and gets the messages in MAILDIR/new. Replies are prepared in memory. A message of more than 1 MB
//! must be stored in wire form; it is sent from its file by sendfile(2).
//!
//! With `read`, it does at each login what every server must do that sees a Maildir for the first time: it lists the
//! messages, then opens, examines, reads and closes each, on all cores, in the fastest order. It keeps nothing of that.
//!
//! It listens on a free port of 127.0.0.1, prints the port, and runs until it is killed.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use pop3d::pool::Pool;
use pop3d::{cores, descriptors};
use rustix::fs::{Mode, OFlags, openat, sendfile};
use rustix::net::sockopt::set_tcp_congestion;
use socket2::SockRef;

const THREADS: usize = 998;

/// The length of the backlog. The standard library's 128 are too few for `popbench storm`.
const QUEUE: i32 = 4096;

/// A message of at least this many octets is not kept in memory.
const LARGE: u64 = 1_000_000;

/// The most octets for one sendfile(2), which accepts less than 2 GiB.
const PIECE: usize = 1 << 30;

/// Collected replies are sent when they reach this size.
const BLOCK: usize = 64 * 1024;

/// The whole reply to RETR, or for a large message the file between the reply's first and last line.
enum Retrieved {
    Ready(Vec<u8>),
    File(PathBuf),
}

struct Maildrop {
    /// What is read at each login.
    unread: Option<PathBuf>,
    messages: Vec<Retrieved>,
    stat: Vec<u8>,
    /// Of each message, to LIST with its number.
    scan_listings: Vec<Vec<u8>>,
    list: Vec<u8>,
    uidl: Vec<u8>,
}

impl Maildrop {
    fn read(maildir: &Path, at_login: bool) -> io::Result<Self> {
        let mut paths = fs::read_dir(maildir.join("new"))?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        let (mut messages, mut scan_listings, mut all_octets) = (Vec::new(), Vec::new(), 0);
        let (mut list, mut uidl) = (b"+OK\r\n".to_vec(), b"+OK\r\n".to_vec());
        for (number, path) in (1..).zip(paths) {
            let stored = path.metadata()?.len();
            let octets = if stored > LARGE {
                messages.push(Retrieved::File(path));
                stored
            } else {
                let (octets, wire) = wire_form(&fs::read(path)?);
                messages.push(Retrieved::Ready([&b"+OK\r\n"[..], &wire, b".\r\n"].concat()));
                octets
            };
            all_octets += octets;
            scan_listings.push(format!("+OK {number} {octets}\r\n").into_bytes());
            write!(list, "{number} {octets}\r\n")?;
            write!(uidl, "{number} {number}\r\n")?;
        }
        list.extend(b".\r\n");
        uidl.extend(b".\r\n");
        let stat = format!("+OK {} {all_octets}\r\n", messages.len()).into_bytes();
        let unread = at_login.then(|| maildir.join("new"));
        Ok(Self { unread, messages, stat, scan_listings, list, uidl })
    }
}

/// Reads up to [`BLOCK`] octets of each file of a directory, in the order of the inodes, which is about the order in which
/// the kernel has the files in memory.
fn read_all(directory: &Path) -> io::Result<()> {
    let entries = fs::read_dir(directory)?.map(|entry| entry.map(|entry| (entry.ino(), entry.file_name())));
    let mut names = entries.collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    let directory = File::open(directory)?;
    let threads = thread::available_parallelism()?.get();
    thread::scope(|scope| {
        let read = |part: &[(u64, OsString)]| -> io::Result<()> {
            let mut buffer = vec![0; BLOCK];
            for (_, name) in part {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let mut file = File::from(openat(&directory, name.as_bytes(), flags, Mode::empty())?);
                let stored = usize::try_from(file.metadata()?.len()).map_or(BLOCK, |stored| stored.min(BLOCK));
                file.read_exact(&mut buffer[..stored])?;
            }
            Ok(())
        };
        let parts = names.chunks(names.len().div_ceil(threads).max(1));
        let readers: Vec<_> = parts.map(|part| scope.spawn(move || read(part))).collect();
        readers.into_iter().try_for_each(|reader| reader.join().unwrap_or(Err(io::ErrorKind::Other.into())))
    })
}

/// Returns the octets of a stored message on the wire, and how to send them.
fn wire_form(stored: &[u8]) -> (u64, Vec<u8>) {
    let (mut octets, mut wire) = (0, Vec::new());
    for line in stored.split_inclusive(|&octet| octet == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend(line);
        wire.extend(b"\r\n");
        octets += line.len() as u64 + 2;
    }
    (octets, wire)
}

/// Accepts every login and supports STAT, LIST, UIDL, RETR, NOOP and QUIT.
fn serve(mut stream: TcpStream, maildrop: &Maildrop) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(b"+OK ready\r\n")?;
    let mut input = BufReader::new(stream.try_clone()?);
    let (mut line, mut replies) = (String::new(), Vec::new());
    loop {
        line.clear();
        if input.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_ascii_whitespace();
        let (command, number) = (words.next().unwrap_or_default(), words.next());
        match (command, number) {
            ("RETR", Some(number)) => match nth(&maildrop.messages, number) {
                Some(Retrieved::Ready(answer)) => replies.extend(answer),
                Some(Retrieved::File(path)) => {
                    replies.extend(b"+OK\r\n");
                    stream.write_all(&replies)?;
                    replies.clear();
                    send_file(&stream, &File::open(path)?)?;
                    replies.extend(b".\r\n");
                }
                None => replies.extend(b"-ERR\r\n"),
            },
            ("LIST", Some(number)) => match nth(&maildrop.scan_listings, number) {
                Some(answer) => replies.extend(answer),
                None => replies.extend(b"-ERR\r\n"),
            },
            ("STAT", None) => replies.extend(&maildrop.stat),
            ("LIST", None) => replies.extend(&maildrop.list),
            ("UIDL", None) => replies.extend(&maildrop.uidl),
            ("PASS", _) => {
                maildrop.unread.as_deref().map_or(Ok(()), read_all)?;
                replies.extend(b"+OK\r\n");
            }
            ("USER" | "NOOP" | "QUIT", _) => replies.extend(b"+OK\r\n"),
            _ => replies.extend(b"-ERR\r\n"),
        }
        if input.buffer().is_empty() || replies.len() >= BLOCK {
            stream.write_all(&replies)?;
            replies.clear();
        }
        if command == "QUIT" {
            return Ok(());
        }
    }
}

/// Returns the message with this number.
fn nth<'a, T>(of_messages: &'a [T], number: &str) -> Option<&'a T> {
    of_messages.get(number.parse::<usize>().ok()?.checked_sub(1)?)
}

fn send_file(stream: &TcpStream, file: &File) -> io::Result<()> {
    let (octets, mut offset) = (file.metadata()?.len(), 0);
    while offset < octets {
        if sendfile(stream, file, Some(&mut offset), PIECE)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let mut arguments = env::args_os().skip(1);
    let (maildir, read) = (arguments.next(), arguments.next());
    let maildir = maildir.ok_or_else(|| io::Error::other("usage: bare-server MAILDIR [read]"))?;
    let maildrop = Arc::new(Maildrop::read(Path::new(&maildir), read.is_some())?);
    descriptors::enlarge_table(2 * THREADS as u64);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    SockRef::from(&listener).listen(QUEUE)?;
    set_tcp_congestion(&listener, "reno")?; // as pop3d on loopback
    let pool = Pool::start(THREADS, move |stream| {
        let _ = serve(stream, &maildrop); // a client that has gone
    })?;
    println!("{}", listener.local_addr()?.port());
    for stream in listener.incoming() {
        let stream = stream?;
        let near = cores::of_packets(&SockRef::from(&stream));
        pool.submit(stream, near);
    }
    Ok(())
}
