//! Real client programs against the real server. Each client fetches the same unusual messages, and has to store them
//! as they are in the maildrop.
//!
//! Some clients change messages, and no option prevents that. [`Fetcher::expected`] says what a client changes and why,
//! and leaves out messages that the client cannot handle. Each client writes only to a [`Home`] of its own and connects
//! only to 127.0.0.1.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{env, iter};

use tempfile::TempDir;

use crate::harness::{Certificate, Maildrop, PASSWORD, Server, USER, eventually};

/// The most seconds that a client may take. `timeout` of coreutils ends it then.
const CLIENT_PATIENCE: &str = "120";

// ---------------------------------------------------------------------------------------------------------------------
// Messages

/// An unusual message, with a name for the case that it does not arrive.
struct Odd {
    name: &'static str,
    stored: Vec<u8>,
}

impl Odd {
    fn new(name: &'static str, stored: impl Into<Vec<u8>>) -> Self {
        Self { name, stored: stored.into() }
    }

    /// A message with an ordinary header, whose lines end in LF, before this body.
    fn body(name: &'static str, body: impl AsRef<[u8]>) -> Self {
        Self { name, stored: [header(name).as_bytes(), b"\n", body.as_ref()].concat() }
    }
}

/// The name of the message with a header line of more than RFC 5322's 998 octets.
const LONG_HEADER: &str = "a long header line";

fn header(name: &str) -> String {
    format!(
        "From: Marshall Rose <mrose@example.org>\n\
         To: mrose@example.org\n\
         Date: Thu, 30 May 1996 12:00:00 +0000\n\
         Message-ID: <{}@example.org>\n\
         Subject: {name}\n",
        name.replace(' ', "-")
    )
}

fn crlf(lf: &str) -> String {
    lf.replace('\n', "\r\n")
}

fn odd_messages() -> Vec<Odd> {
    let text = "One line.\n\nAnother one, after an empty line.\n";
    let dots = ".\n..\n...\n.dot\n. \n\n.\n.\n";
    let many_lines: String = (0..100_000).map(|line| format!("{line}\n")).collect();
    let of_lengths = |lengths: RangeInclusive<usize>| -> String {
        lengths.flat_map(|length| ["x".repeat(length), "\n".to_owned()]).collect()
    };
    vec![
        Odd::body("LF line ends", text),
        Odd::new("CRLF line ends", crlf(&format!("{}\n{text}", header("CRLF line ends")))),
        Odd::body("mixed line ends", "lf\ncrlf\r\nlf\n\r\n\n\r\nend\r\n"),
        Odd::body("dots", dots),
        Odd::new("dots and CRLF", crlf(&format!("{}\n{dots}", header("dots and CRLF")))),
        Odd::new("a dot at once", ".\n.dot\n"),
        Odd::body("no final line end", "the last line"),
        Odd::body("a dot and no line end", "text\n."),
        Odd::body("a CR at the end", "text\r"),
        Odd::body("lone CRs", "a\rb\rc\n\rd\ne\r\r\nf\r\r\r\ng\n"),
        Odd::body("empty lines at the end", "text\n\n\n\n"),
        Odd::new("header only", header("header only")),
        Odd::new("header and empty line", format!("{}\n", header("header and empty line"))),
        Odd::new("header without line end", header("header without line end").trim_end()),
        Odd::new("nothing", ""),
        Odd::new("one line end", "\n"),
        Odd::body("Latin-1", b"caf\xe9 \xa1\xbf\xff\x80 \x85 end\n"),
        Odd::body("UTF-8", "café, Ελληνικά, 日本語, 🐈\n"),
        Odd::new("UTF-8 in the header", format!("X-Name: José 日本語\n{}\n{text}", header("UTF-8 in the header"))),
        Odd::body("control characters", (1..32).chain([127]).filter(|octet| *octet != b'\r').collect::<Vec<u8>>()),
        Odd::body("NULs", b"a\0b\n\0\n\0\0.\n.\0\nend\0\n"),
        Odd::body("a line of 1 MB", [vec![b'x'; 1_000_000], b"\nend\n".to_vec()].concat()),
        Odd::body("100,000 lines", &many_lines),
        Odd::new("100,000 lines in CRLF", crlf(&format!("{}\n{many_lines}", header("100,000 lines in CRLF")))),
        Odd::body("5 MB of anything", noise(5_000_000)),
        Odd::new(LONG_HEADER, format!("X-Long: {}\n{}\n{text}", "y".repeat(5000), header(LONG_HEADER))),
        Odd::body("lines of about 1 KiB", of_lengths(1022..=1026)),
        Odd::body("lines of about 64 KiB", of_lengths(65_534..=65_538)),
        Odd::body("a dot at each of two block ends", dots_around(&[65_536, 131_073])),
        Odd::body("From at a line start", "From here\n>From there\nFrom mrose Thu May 30 12:00:00 1996\n\nFrom \n"),
        Odd::new("a MIME message", format!("{}{MULTIPART}", header("a MIME message"))),
    ]
}

/// A body with lines of one dot around each of these offsets in the message: an LF is at the offset, and dots are just
/// before and after it.
fn dots_around(places: &[usize]) -> Vec<u8> {
    let before = header("a dot at each of two block ends").len() + 1;
    let mut body = Vec::new();
    for place in places {
        body.resize(place - before - 4, b'x');
        body.extend_from_slice(b"\n.\n.\n.\n.\n");
    }
    body
}

/// Pseudo-random octets of all values but NUL, as in a binary attachment without encoding. They are the same in each
/// run.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    });
    next.filter(|octet| *octet != 0).take(length).chain(*b"\n").collect()
}

/// The end of the header and the body of a MIME message.
const MULTIPART: &str = "MIME-Version: 1.0\n\
    Content-Type: multipart/mixed; boundary=\"=_part\"\n\
    \n\
    No part begins yet.\n\
    --=_part\n\
    Content-Type: text/plain; charset=UTF-8\n\
    Content-Transfer-Encoding: quoted-printable\n\
    \n\
    caf=C3=A9\n\
    --=_part\n\
    Content-Type: application/octet-stream\n\
    Content-Transfer-Encoding: base64\n\
    \n\
    AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v\n\
    MDEyMzQ1Njc4OTo7PD0+Pw==\n\
    --=_part--\n";

/// The lines of a message as POP3 sends them, without their line ends.
fn lines(stored: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = stored.split(|octet| *octet == b'\n').collect();
    if lines.last().is_some_and(|last| last.is_empty()) {
        lines.pop();
        lines.iter_mut().for_each(|line| *line = line.strip_suffix(b"\r").unwrap_or(line));
    } else if let Some((_, ended)) = lines.split_last_mut() {
        ended.iter_mut().for_each(|line| *line = line.strip_suffix(b"\r").unwrap_or(line));
    }
    lines
}

/// The message with `end` as the end of each line.
fn ended_by(end: &[u8], stored: &[u8]) -> Vec<u8> {
    lines(stored).into_iter().flat_map(|line| [line, end]).flatten().copied().collect()
}

/// The message, whose lines end in LF, with each lone CR and each CRLF replaced by LF.
fn cr_as_line_end(message: &[u8]) -> Vec<u8> {
    let next = message.iter().skip(1).chain([&0]);
    let ends = message.iter().zip(next).filter(|pair| *pair != (&b'\r', &b'\n'));
    ends.map(|(&octet, _)| if octet == b'\r' { b'\n' } else { octet }).collect()
}

/// The length of the header, which is the first lines that have a colon.
fn header_length(message: &[u8]) -> usize {
    message.split_inclusive(|octet| *octet == b'\n').take_while(|line| line.contains(&b':')).map(<[u8]>::len).sum()
}

/// The message with an empty line after its header. Programs that rewrite the header add this line.
fn with_empty_line(mut message: Vec<u8>, line_end: &[u8]) -> Vec<u8> {
    let end = header_length(&message);
    if !message[end..].starts_with(line_end) {
        message.splice(end..end, line_end.iter().copied());
    }
    message
}

/// The length of the message's longest line.
fn longest_line(stored: &[u8]) -> usize {
    lines(stored).into_iter().map(<[u8]>::len).max().unwrap_or(0)
}

// ---------------------------------------------------------------------------------------------------------------------
// Clients

/// The home directory of a client program, with its configuration, its state and the mail that it has fetched.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(TempDir::new().unwrap());
        fs::create_dir(home.mail()).unwrap();
        for folder in ["tmp", "new", "cur"] {
            fs::create_dir_all(home.path(&format!("Maildir/{folder}"))).unwrap();
        }
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The directory for clients that write each message to a file.
    fn mail(&self) -> PathBuf {
        self.path("mail")
    }

    /// Writes a configuration file that only its owner may read. Some clients insist on that, because it has a
    /// password.
    fn configure(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Writes a script that delivers messages for a client: it writes each message to a numbered file.
    fn delivery_script(&self) -> PathBuf {
        let script = format!(r#"cat > "$(printf '%s/%03d' '{0}' "$(ls '{0}' | wc -l)")""#, self.mail().display());
        self.configure("deliver", &script)
    }

    /// A command that runs a program with this home and no other environment.
    #[track_caller]
    fn command(&self, program: &str) -> Command {
        path_of(program);
        let path = env::var_os("PATH").unwrap();
        let mut command = Command::new("timeout");
        command.args([CLIENT_PATIENCE, program]).env_clear().env("PATH", path).env("LC_ALL", "C.UTF-8");
        for variable in ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "TMPDIR"] {
            command.env(variable, self.0.path());
        }
        command.current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    /// Runs fetchmail once with this configuration.
    #[track_caller]
    fn fetchmail(&self, config: &str) -> Output {
        let config = self.configure("fetchmailrc", config);
        let mut command = self.command("fetchmail");
        command.env("FETCHMAILHOME", self.path("")).args(["--nodetach", "--daemon", "0", "--nosyslog"]);
        command.arg("--pidfile").arg(self.path("pid")).arg("--idfile").arg(self.path("ids"));
        command.arg("--fetchmailrc").arg(config).output().unwrap()
    }

    /// Runs mpop with this configuration.
    #[track_caller]
    fn mpop(&self, config: &str) -> Output {
        let config = self.configure("mpoprc", config);
        self.command("mpop").arg("--file").arg(config).output().unwrap()
    }

    /// The contents of the files in a directory of this home, in the order of their names.
    fn files(&self, directory: &str) -> Vec<Vec<u8>> {
        let entries = fs::read_dir(self.path(directory)).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.iter().map(|path| fs::read(path).unwrap()).collect()
    }
}

#[track_caller]
fn path_of(program: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap();
    let found = env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{program} is not installed: run scripts/install-test-tools"))
}

/// What a client does with a message on the server after it has fetched it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Keep,
    Delete,
}

/// A client program that fetches a whole maildrop.
trait Fetcher {
    /// Fetches [`USER`]'s mail into `home`.
    fn fetch(&self, home: &Home, server: &Server, password: &str, then: Then) -> Output;

    /// The messages that the client has stored in `home`.
    fn fetched(&self, home: &Home) -> Vec<Vec<u8>>;

    /// The message as the client stores it, or `None` if the client cannot handle it.
    fn expected(&self, odd: &Odd) -> Option<Vec<u8>>;

    /// A part of the client's output and its exit code when the password is wrong.
    fn refusal(&self) -> (&'static str, i32);
}

struct Curl;

impl Fetcher for Curl {
    fn fetch(&self, home: &Home, server: &Server, password: &str, then: Then) -> Output {
        let url = format!("pop3://{}", server.pop3_address());
        let curl = |arguments: &[&str]| {
            let user = format!("{USER}:{password}");
            let mut command = home.command("curl");
            command.args(["--silent", "--show-error", "--fail-early", "--user", &user]).args(arguments);
            command.output().unwrap()
        };
        let list = curl(&[&url]);
        let count = String::from_utf8_lossy(&list.stdout).lines().count();
        if !list.status.success() || count == 0 {
            return list;
        }
        let all = format!("{url}/[001-{count:03}]");
        let output = curl(&["--output", "mail/#1", &all]);
        if !output.status.success() || then == Then::Keep {
            return output;
        }
        curl(&["--request", "DELE", "--head", &all])
    }

    fn fetched(&self, home: &Home) -> Vec<Vec<u8>> {
        home.files("mail")
    }

    fn expected(&self, odd: &Odd) -> Option<Vec<u8>> {
        // curl 7 stores an empty message as one CRLF, and later versions as an empty file.
        (!odd.stored.is_empty()).then(|| ended_by(b"\r\n", &odd.stored))
    }

    fn refusal(&self) -> (&'static str, i32) {
        ("curl: (67) ", 67)
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// A script in tests/clients that uses a POP3 library.
struct Script {
    interpreter: &'static str,
    script: &'static str,
    line_end: &'static [u8],
    refused: i32,
}

const POPLIB: Script = Script { interpreter: "python3", script: "fetch.py", line_end: b"\r\n", refused: 1 };
const NET_POP3: Script = Script { interpreter: "perl", script: "fetch.pl", line_end: b"\n", refused: 255 };

impl Fetcher for Script {
    fn fetch(&self, home: &Home, server: &Server, password: &str, then: Then) -> Output {
        let address = server.pop3_address();
        let mut command = home.command(self.interpreter);
        command.arg(script(self.script));
        command.args([&address.ip().to_string(), &address.port().to_string(), USER, password]).arg(home.mail());
        command.arg(if then == Then::Keep { "keep" } else { "delete" });
        command.output().unwrap()
    }

    fn fetched(&self, home: &Home) -> Vec<Vec<u8>> {
        home.files("mail")
    }

    fn expected(&self, odd: &Odd) -> Option<Vec<u8>> {
        Some(ended_by(self.line_end, &odd.stored))
    }

    fn refusal(&self) -> (&'static str, i32) {
        ("login refused: ", self.refused)
    }
}

struct Fetchmail;

impl Fetcher for Fetchmail {
    fn fetch(&self, home: &Home, server: &Server, password: &str, then: Then) -> Output {
        let address = server.pop3_address();
        let config = format!(
            "set invisible\n\
             set no bouncemail\n\
             poll {} protocol POP3 port {} timeout 60 uidl auth password\n\
             user {USER} password {password} is {USER} here\n\
             sslproto '' no rewrite no stripcr {} mda 'sh {}'\n",
            address.ip(),
            address.port(),
            if then == Then::Keep { "keep" } else { "no keep" },
            home.delivery_script().display(),
        );
        home.fetchmail(&config)
    }

    fn fetched(&self, home: &Home) -> Vec<Vec<u8>> {
        home.files("mail")
    }

    fn expected(&self, odd: &Odd) -> Option<Vec<u8>> {
        // fetchmail loses octets of a line that fills its buffer of 8 KiB, and adds a header to a message without one.
        let carried = longest_line(&odd.stored) < 8000 && header_length(&odd.stored) > 0;
        carried.then(|| with_empty_line(ended_by(b"\r\n", &odd.stored), b"\r\n"))
    }

    fn refusal(&self) -> (&'static str, i32) {
        ("Authorization failure", 3)
    }
}

struct Getmail;

impl Fetcher for Getmail {
    fn fetch(&self, home: &Home, server: &Server, password: &str, then: Then) -> Output {
        let address = server.pop3_address();
        let config = format!(
            "[retriever]\n\
             type = SimplePOP3Retriever\n\
             server = {}\n\
             port = {}\n\
             username = {USER}\n\
             password = {password}\n\
             timeout = 60\n\
             [destination]\n\
             type = MDA_external\n\
             path = /bin/sh\n\
             arguments = ('{}',)\n\
             allow_root_commands = true\n\
             [options]\n\
             read_all = false\n\
             delete = {}\n\
             delivered_to = false\n\
             received = false\n",
            address.ip(),
            address.port(),
            home.delivery_script().display(),
            then == Then::Delete,
        );
        home.configure("getmailrc", &config);
        // getmail is a Debian package, so it needs Debian's interpreter, which may not be the first python3 in PATH.
        let mut command = home.command("/usr/bin/python3");
        command.arg(script("getmail.py")).arg(path_of("getmail"));
        command.arg("--getmaildir").arg(home.path("")).output().unwrap()
    }

    fn fetched(&self, home: &Home) -> Vec<Vec<u8>> {
        home.files("mail")
    }

    fn expected(&self, odd: &Odd) -> Option<Vec<u8>> {
        // getmail rewrites each message with Python's email package, which folds long header lines and takes a lone CR
        // for a line end. It always adds the envelope's sender at the top.
        if odd.name == LONG_HEADER {
            return None;
        }
        let message = cr_as_line_end(&ended_by(b"\n", &odd.stored));
        Some([b"Return-Path: <unknown>\n", &with_empty_line(message, b"\n")[..]].concat())
    }

    fn refusal(&self) -> (&'static str, i32) {
        ("operation error (POP error (b'-ERR [AUTH]", 127)
    }
}

struct Mpop;

impl Fetcher for Mpop {
    fn fetch(&self, home: &Home, server: &Server, password: &str, then: Then) -> Output {
        let address = server.pop3_address();
        let config = format!(
            "account default\n\
             host {}\n\
             port {}\n\
             tls off\n\
             auth user\n\
             user {USER}\n\
             password {password}\n\
             keep {}\n\
             uidls_file {}\n\
             received_header off\n\
             delivery maildir {}\n",
            address.ip(),
            address.port(),
            if then == Then::Keep { "on" } else { "off" },
            home.path("uidls").display(),
            home.path("Maildir").display(),
        );
        home.mpop(&config)
    }

    fn fetched(&self, home: &Home) -> Vec<Vec<u8>> {
        home.files("Maildir/new")
    }

    fn expected(&self, odd: &Odd) -> Option<Vec<u8>> {
        Some(ended_by(b"\n", &odd.stored))
    }

    fn refusal(&self) -> (&'static str, i32) {
        ("authentication failed", 77)
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Tests of every client

/// How a maildrop is stored.
#[derive(Clone, Copy)]
enum Store {
    Flat,
    Maildir,
}

fn put(maildrop: &Maildrop, store: Store, number: usize, stored: &[u8]) {
    match store {
        Store::Flat => maildrop.put(&format!("{number}.eml"), stored),
        Store::Maildir => maildrop.put(&format!("new/{}.M1P{number}.host", 800_000_000 + number), stored),
    };
}

/// Checks that a client has ended with status 0.
#[track_caller]
fn expect_success(output: &Output) {
    assert!(output.status.success(), "{}\n{}", output.status, text_of(output));
}

/// Everything that a client has printed.
fn text_of(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).join("\n")
}

/// Checks that a client stores every unusual message that it can handle as expected, and nothing else.
#[track_caller]
fn check_odd_messages(client: &impl Fetcher, store: Store) {
    let server = Server::start();
    let odd: Vec<(Odd, Vec<u8>)> =
        odd_messages().into_iter().filter_map(|odd| client.expected(&odd).map(|expected| (odd, expected))).collect();
    for (number, (odd, _)) in odd.iter().enumerate() {
        put(&server.maildrop(), store, number, &odd.stored);
    }
    let home = Home::new();
    expect_success(&client.fetch(&home, &server, PASSWORD, Then::Keep));

    // The files of some clients are not in the maildrop's order.
    let mut fetched = client.fetched(&home);
    let mut problems = String::new();
    for (odd, expected) in &odd {
        match fetched.iter().position(|message| message == expected) {
            Some(at) => drop(fetched.swap_remove(at)),
            None => describe(&mut problems, &format!("not fetched: {}", odd.name), expected),
        }
    }
    for message in &fetched {
        describe(&mut problems, "fetched, but not expected", message);
    }
    assert!(problems.is_empty(), "{problems}");
    assert_eq!(server.maildrop().messages().len(), odd.len());
}

/// Adds a problem to the list, with enough of the message to see what is wrong.
fn describe(problems: &mut String, what: &str, message: &[u8]) {
    const SHOWN: usize = 300;
    let beginning = &message[..message.len().min(SHOWN)];
    let _ = writeln!(problems, "{what} ({} octets):\n  {}", message.len(), beginning.escape_ascii());
    if message.len() > SHOWN {
        let _ = writeln!(problems, "  … {}", message[message.len() - 60..].escape_ascii());
    }
}

/// Makes a module for each client, with the tests that every client has.
macro_rules! clients {
    ($($name:ident: $client:expr;)*) => { $(
        mod $name {
            use super::*;

            #[test]
            fn stores_the_messages_of_a_flat_maildrop_as_they_are() {
                check_odd_messages(&$client, Store::Flat);
            }

            #[test]
            fn stores_the_messages_of_a_maildir_as_they_are() {
                check_odd_messages(&$client, Store::Maildir);
            }

            #[test]
            fn deletes_messages_that_it_has_fetched() {
                check_deletion(&$client);
            }

            #[test]
            fn reports_a_wrong_password() {
                check_wrong_password(&$client);
            }
        }
    )* };
}

clients! {
    curl: Curl;
    poplib: POPLIB;
    net_pop3: NET_POP3;
    fetchmail: Fetchmail;
    getmail: Getmail;
    mpop: Mpop;
}

/// Checks that a client fetches all messages and that none is left in the maildrop.
#[track_caller]
fn check_deletion(client: &impl Fetcher) {
    let server = Server::start();
    for number in 1..=3 {
        put(&server.maildrop(), Store::Maildir, number, &Odd::body("plain", "text\n").stored);
    }
    let home = Home::new();
    expect_success(&client.fetch(&home, &server, PASSWORD, Then::Delete));
    assert_eq!(client.fetched(&home).len(), 3);
    assert_eq!(server.maildrop().messages(), Vec::<String>::new());
}

/// Checks that a client reports that the login has failed and that the mail stays in the maildrop.
#[track_caller]
fn check_wrong_password(client: &impl Fetcher) {
    let server = Server::start();
    put(&server.maildrop(), Store::Flat, 1, b"Subject: private\n\ntext\n");
    let home = Home::new();
    let output = client.fetch(&home, &server, "not-the-password", Then::Delete);
    let (text, code) = client.refusal();
    let printed = text_of(&output);
    assert!(printed.contains(text), "no {text:?} in: {printed}");
    assert_eq!(output.status.code(), Some(code), "{printed}");
    assert!(client.fetched(&home).is_empty());
    assert_eq!(server.maildrop().messages().len(), 1);
}

/// Checks that a client fetches each message once, by its unique-id, also when another program has moved messages from
/// new/ to cur/ and has set their flags.
#[track_caller]
fn check_that_only_new_messages_are_fetched(client: &impl Fetcher) {
    let server = Server::start();
    let maildrop = server.maildrop();
    let subject = |number| format!("Subject: message {number}\n\ntext\n");
    for number in 1..=3 {
        put(&maildrop, Store::Maildir, number, subject(number).as_bytes());
    }
    let home = Home::new();
    expect_success(&client.fetch(&home, &server, PASSWORD, Then::Keep));
    assert_eq!(client.fetched(&home).len(), 3);

    for name in maildrop.messages() {
        maildrop.rename(&name, &format!("{}:2,S", name.replace("new/", "cur/")));
    }
    put(&maildrop, Store::Maildir, 4, subject(4).as_bytes());
    expect_success(&client.fetch(&home, &server, PASSWORD, Then::Keep));
    let fetched = client.fetched(&home);
    assert_eq!(fetched.len(), 4, "each message once");
    for number in 1..=4 {
        let text = format!("Subject: message {number}");
        let times = fetched.iter().filter(|message| String::from_utf8_lossy(message).contains(&text)).count();
        assert_eq!(times, 1, "{text}");
    }
    assert_eq!(maildrop.messages().len(), 4);
}

/// The commands are those of the POP3 examples in curl's manual.
#[test]
fn curl_gets_the_answers_to_other_commands() {
    let server = Server::start();
    for number in 1..=3 {
        put(&server.maildrop(), Store::Maildir, number, b"Subject: three\n\n.one\ntwo\nthree\n");
    }
    let home = Home::new();
    let curl = |arguments: &[&str], path: &str| {
        let url = format!("pop3://{}/{path}", server.pop3_address());
        let mut command = home.command("curl");
        command.args(["--silent", "--show-error", "--user", &format!("{USER}:{PASSWORD}")]).args(arguments).arg(url);
        let output = command.output().unwrap();
        expect_success(&output);
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(curl(&[], ""), "1 36\r\n2 36\r\n3 36\r\n");
    assert_eq!(curl(&["--list-only"], "2"), "");
    let unique_ids = curl(&["--request", "UIDL"], "");
    assert_eq!(unique_ids, "1 800000001.M1P1.host\r\n2 800000002.M1P2.host\r\n3 800000003.M1P3.host\r\n");
    assert_eq!(curl(&["--request", "TOP 2 1"], ""), "Subject: three\r\n\r\n.one\r\n");
    assert_eq!(curl(&["--request", "TOP 2 0"], ""), "Subject: three\r\n\r\n");
    assert_eq!(curl(&["--head", "--request", "STAT"], ""), "");
    assert_eq!(curl(&["--head", "--request", "NOOP"], ""), "");
    assert_eq!(curl(&["--head", "--request", "DELE"], "2"), "");
    assert_eq!(server.maildrop().messages(), ["new/800000001.M1P1.host", "new/800000003.M1P3.host"]);
}

#[test]
fn fetchmail_fetches_only_new_messages() {
    check_that_only_new_messages_are_fetched(&Fetchmail);
}

#[test]
fn getmail_fetches_only_new_messages() {
    check_that_only_new_messages_are_fetched(&Getmail);
}

#[test]
fn mpop_fetches_only_new_messages() {
    check_that_only_new_messages_are_fetched(&Mpop);
}

// ---------------------------------------------------------------------------------------------------------------------
// Ways to log in

/// Checks that a client logs in by the command `way`, which the server's log shows, and that a wrong password is
/// refused.
#[track_caller]
fn check_login(way: &str, client: impl Fn(&Home, &Server, &str) -> Output) {
    let server = Server::builder().flags(["-v"]).start();
    put(&server.maildrop(), Store::Flat, 1, b"Subject: one\n\ntext\n");
    let home = Home::new();
    expect_success(&client(&home, &server, PASSWORD));
    eventually("the log shows the login", || server.stderr().contains(" login: user="));
    let log = server.stderr();
    assert!(log.contains(way) && !log.contains("PASS"), "{log}");
    assert!(!client(&home, &server, "not-the-password").status.success());
    eventually("the log shows the failed login", || server.stderr().contains("login failed: user="));
}

fn curl_with(options: &'static str) -> impl Fn(&Home, &Server, &str) -> Output {
    move |home, server, password| {
        let mut command = home.command("curl");
        command.args(["--silent", "--show-error", "--login-options", options, "--user", &format!("{USER}:{password}")]);
        command.arg(format!("pop3://{}/1", server.pop3_address())).output().unwrap()
    }
}

fn mpop_with(method: &'static str) -> impl Fn(&Home, &Server, &str) -> Output {
    move |home, server, password| {
        let address = server.pop3_address();
        let config = format!(
            "account default\nhost {}\nport {}\ntls off\nauth {method}\nuser {USER}\npassword {password}\nkeep on\n\
             uidls_file {}\ndelivery maildir {}\n",
            address.ip(),
            address.port(),
            home.path("uidls").display(),
            home.path("Maildir").display(),
        );
        home.mpop(&config)
    }
}

#[test]
fn curl_logs_in_by_auth_plain() {
    check_login("AUTH \"PLAIN\"", curl_with("AUTH=PLAIN"));
}

#[test]
fn curl_logs_in_by_apop() {
    check_login("APOP \"mrose\"", curl_with("AUTH=+APOP"));
}

#[test]
fn mpop_logs_in_by_auth_plain() {
    check_login("AUTH \"PLAIN\"", mpop_with("plain"));
}

#[test]
fn curl_logs_in_by_auth_login() {
    check_login("AUTH \"LOGIN\"", curl_with("AUTH=LOGIN"));
}

#[test]
fn mpop_logs_in_by_auth_login() {
    check_login("AUTH \"LOGIN\"", mpop_with("login"));
}

#[test]
fn mpop_logs_in_by_scram() {
    check_login("AUTH \"SCRAM-SHA-256\"", mpop_with("scram-sha-256"));
}

#[test]
fn mpop_logs_in_by_apop() {
    check_login("APOP \"mrose\"", mpop_with("apop"));
}

#[test]
fn poplib_logs_in_by_apop() {
    let script = "import poplib, sys; server = poplib.POP3(sys.argv[1], int(sys.argv[2]), timeout=60); \
                  server.apop(sys.argv[3], sys.argv[4]); assert server.stat()[0] == 1; server.quit()";
    check_login("APOP \"mrose\"", |home, server, password| {
        let address = server.pop3_address();
        let mut command = home.command("python3");
        command.args(["-c", script, &address.ip().to_string(), &address.port().to_string(), USER, password]);
        command.output().unwrap()
    });
}

#[test]
fn fetchmail_logs_in_by_apop() {
    check_login("APOP \"mrose\"", |home, server, password| {
        let address = server.pop3_address();
        let config = format!(
            "set invisible\nset no bouncemail\npoll {} protocol APOP port {} timeout 60\n\
             user {USER} password {password} is {USER} here\nsslproto '' keep mda 'sh {}'\n",
            address.ip(),
            address.port(),
            home.delivery_script().display(),
        );
        home.fetchmail(&config)
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// TLS

/// How a client starts TLS.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Security {
    Stls,
    Pop3s,
}

impl Security {
    fn address(self, server: &Server) -> SocketAddr {
        match self {
            Self::Stls => server.pop3_address(),
            Self::Pop3s => server.pop3s_address(),
        }
    }
}

/// Checks that a client fetches a message by STLS and by POP3S, and that it does not log in to a server whose
/// certificate it does not trust.
#[track_caller]
fn check_tls(client: impl Fn(&Home, SocketAddr, Security, &Path) -> Output) {
    let (certificate, other) = (Certificate::new(), Certificate::new());
    for security in [Security::Stls, Security::Pop3s] {
        let server = Server::builder().tls(&certificate).start();
        put(&server.maildrop(), Store::Flat, 1, &Odd::body("large", "text of a line\n".repeat(50_000)).stored);
        let address = security.address(&server);
        let refused = client(&Home::new(), address, security, &other.chain());
        assert!(!refused.status.success(), "{}", text_of(&refused));
        expect_success(&client(&Home::new(), address, security, &certificate.chain()));
        eventually("the session ends", || server.stderr().contains("end: quit; retrieved=1"));
        let log = server.stderr();
        assert!(log.contains(" TLS: TLSv1.") && log.matches("login: user=").count() == 1, "{log}");
    }
}

#[test]
fn curl_fetches_by_tls() {
    check_tls(|home, address, security, trusted| {
        let (scheme, option) = match security {
            Security::Stls => ("pop3", "--ssl-reqd"),
            Security::Pop3s => ("pop3s", "--no-progress-meter"),
        };
        let mut command = home.command("curl");
        command.args(["--silent", "--show-error", option, "--user", &format!("{USER}:{PASSWORD}"), "--cacert"]);
        command.arg(trusted).arg(format!("{scheme}://localhost:{}/1", address.port())).output().unwrap()
    });
}

#[test]
fn poplib_fetches_by_tls() {
    let script = "import poplib, ssl, sys\n\
                  port, way, trusted, user, password = sys.argv[1:]\n\
                  context = ssl.create_default_context(cafile=trusted)\n\
                  if way == 'stls':\n\
                  \x20   server = poplib.POP3('localhost', int(port), timeout=60)\n\
                  \x20   server.stls(context)\n\
                  else:\n\
                  \x20   server = poplib.POP3_SSL('localhost', int(port), context=context, timeout=60)\n\
                  assert 'STLS' not in server.capa()\n\
                  server.user(user)\n\
                  server.pass_(password)\n\
                  assert len(server.retr(1)[1]) > 50_000\n\
                  server.quit()\n";
    check_tls(|home, address, security, trusted| {
        let way = if security == Security::Stls { "stls" } else { "pop3s" };
        let mut command = home.command("python3");
        command.args(["-c", script, &address.port().to_string(), way]).arg(trusted).args([USER, PASSWORD]);
        command.output().unwrap()
    });
}

#[test]
fn mpop_fetches_by_tls() {
    check_tls(|home, address, security, trusted| {
        let config = format!(
            "account default\nhost localhost\nport {}\ntls on\ntls_starttls {}\ntls_trust_file {}\nauth user\n\
             user {USER}\npassword {PASSWORD}\nkeep on\nuidls_file {}\ndelivery maildir {}\n",
            address.port(),
            if security == Security::Stls { "on" } else { "off" },
            trusted.display(),
            home.path("uidls").display(),
            home.path("Maildir").display(),
        );
        home.mpop(&config)
    });
}

#[test]
fn fetchmail_fetches_by_tls() {
    check_tls(|home, address, security, trusted| {
        let config = format!(
            "set invisible\nset no bouncemail\npoll localhost protocol POP3 port {} timeout 60 auth password\n\
             user {USER} password {PASSWORD} is {USER} here\n{} sslcertck sslcertfile {} keep mda 'sh {}'\n",
            address.port(),
            if security == Security::Stls { "sslproto 'TLS1.2+'" } else { "ssl" },
            trusted.display(),
            home.delivery_script().display(),
        );
        home.fetchmail(&config)
    });
}
