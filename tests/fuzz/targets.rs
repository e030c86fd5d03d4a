//! The fuzz targets: functions that take arbitrary octets and panic if the program breaks one of its rules.
//!
//! They are compiled into two programs. `scripts/fuzz` runs them in the libFuzzer wrappers of this package, and the
//! ordinary tests run them on the seeds and on some mutations of the seeds.

#![allow(unreachable_pub)] // They are public for the wrappers and private in the tests.

use std::fmt::Display;
use std::fs::{self, File, FileTimes};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use log::LevelFilter;
use pop3d::auth::sasl::{self, Exchange, Mechanism, Step};
use pop3d::auth::{Users, UsersFile};
use pop3d::config::Args;
use pop3d::events::{self, Service};
use pop3d::guard::Admission;
use pop3d::maildrop::{MailRoot, Maildrop, MessageNumber};
use pop3d::net::Origin;
use pop3d::net::proxy::{self, Header};
use pop3d::shared::Shared;
use pop3d::wire::{Foreign, Line, Lines, Link, Meter, Stuffer, Tls, Top};
use pop3d::{peep, pop3};
use tempfile::TempDir;

/// A target. It panics if the octets make the program break a rule.
pub type Target = fn(&[u8]);

/// All targets with their names.
pub const ALL: [(&str, Target); 10] = [
    ("pop3_line", pop3_line),
    ("pop3_session", pop3_session),
    ("peep_line", peep_line),
    ("peep_fields", peep_fields),
    ("peep_session", peep_session),
    ("byte_stuffing", byte_stuffing),
    ("index", index),
    ("passwd_file", passwd_file),
    ("sasl", sasl),
    ("proxy_header", proxy_header),
];

// ---------------------------------------------------------------------------------------------------------------------
// Lines

/// The octets are a POP3 client's. The lines do not depend on the segments in which they arrive. Each command is logged
/// as one line without passwords.
pub fn pop3_line(octets: &[u8]) {
    for line in lines(octets, pop3::LINE_LIMIT).into_iter().flatten() {
        let Ok(command) = pop3::Command::parse(&line) else { continue };
        let shown = command.to_string();
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
        match command {
            pop3::Command::Pass(_) => assert_eq!(shown, "PASS ***"),
            pop3::Command::Apop { .. } => assert!(shown.ends_with(" ***"), "{shown:?}"),
            pop3::Command::Auth(Some(auth)) => assert_eq!(shown.ends_with(" ***"), auth.initial.is_some(), "{shown:?}"),
            pop3::Command::User(_) => {}
            other => assert_eq!(pop3::Command::parse(shown.as_bytes()), Ok(other)),
        }
    }
}

/// The octets are a PEEP client's. The lines do not depend on the segments, and each command that is written again is
/// read as the same command. Then the octets are a PEEP server's: each answer is refused, or is the same when it is
/// written and read again.
pub fn peep_line(octets: &[u8]) {
    for line in lines(octets, peep::LINE_LIMIT).into_iter().flatten() {
        for authenticated in [false, true] {
            if let Ok(command) = peep::Command::parse(&line, authenticated) {
                let written = command.to_string();
                assert_eq!(peep::Command::parse(written.as_bytes(), authenticated), Ok(command), "{written:?}");
            }
        }
    }
    for with_lines in [false, true] {
        let mut source = octets;
        while let Ok(reply) = read_reply(&mut source, with_lines) {
            // A server replaces octets that could break a line. So the answers are compared after writing.
            let written = |reply: &peep::Reply| {
                let mut octets = Vec::new();
                reply.write(&mut octets);
                octets
            };
            let again = read_reply(&mut &written(&reply)[..], with_lines).unwrap();
            assert_eq!(written(&again), written(&reply));
        }
    }
}

/// The octets are lines of PEEP answers with fields. Each line is refused, or is the same when it is written and read
/// again.
pub fn peep_fields(octets: &[u8]) {
    fn read<T: FromStr + Display + PartialEq>(line: &str) {
        let Ok(fields) = line.parse::<T>() else { return };
        let written = fields.to_string();
        assert!(!written.chars().any(char::is_control), "{written:?}");
        assert!(written.parse::<T>().is_ok_and(|again| again == fields), "{line:?} is written as {written:?}");
    }
    for line in octets.split(|&octet| octet == b'\n') {
        let Ok(line) = std::str::from_utf8(line) else { continue };
        read::<peep::SessionLine>(line);
        read::<peep::BanLine>(line);
        read::<peep::FaultLine>(line);
        read::<peep::NameValue>(line);
        read::<peep::EventLine>(line);
    }
}

/// Reads an answer with all its lines, and returns it as the reply that a server writes.
fn read_reply(source: &mut &[u8], with_lines: bool) -> Result<peep::Reply, peep::UnreadableAnswer> {
    Ok(match peep::Answer::read(source, with_lines)? {
        peep::Answer::Done => peep::Reply::Done,
        peep::Answer::Value(value) => peep::Reply::Value(value),
        peep::Answer::Error(code) => peep::Reply::Error(code),
        peep::Answer::Lines(count) => {
            peep::Reply::Lines((0..count).map(|_| peep::read_line(source)).collect::<Result<_, _>>()?)
        }
    })
}

/// The lines of a stream, with `None` for each line that is too long. Checks that they do not depend on the segments.
fn lines(octets: &[u8], limit: usize) -> Vec<Option<Vec<u8>>> {
    let whole = lines_in_segments(octets, limit, usize::MAX);
    for segment in [1, 7, 100] {
        assert_eq!(lines_in_segments(octets, limit, segment), whole, "in segments of {segment}");
    }
    whole
}

fn lines_in_segments(octets: &[u8], limit: usize, segment: usize) -> Vec<Option<Vec<u8>>> {
    let mut found = Vec::new();
    let mut lines = Lines::new(limit);
    let mut client = Client { input: octets, segment, private: true, output: Vec::new() };
    loop {
        while let Some(line) = lines.next() {
            found.push(match line {
                Line::Complete(line) => {
                    assert!(line.len() < limit && !line.contains(&b'\n'));
                    Some(line.to_vec())
                }
                Line::TooLong => None,
            });
        }
        if lines.fill(&mut client).unwrap() == 0 {
            return found;
        }
    }
}

/// The octets are what a proxy sends first. The header's end does not depend on the segments in which it arrives, and what
/// follows does not change what the header says.
pub fn proxy_header(octets: &[u8]) {
    let Ok(Some(end)) = proxy::end(octets) else {
        // Octets that are no header do not become one by more octets.
        if let Err(error) = proxy::end(octets) {
            assert_eq!(proxy::end(&[octets, b"\r\n"].concat()), Err(error));
        }
        return;
    };
    for length in 0..end {
        assert_eq!(proxy::end(&octets[..length]), Ok(None), "{length} of {end}");
    }
    assert_eq!(proxy::end(&octets[..end]), Ok(Some(end)));
    if let Ok(Header::Client { address, tls }) = proxy::parse(&octets[..end]) {
        assert_eq!(address.ip(), address.ip().to_canonical());
        assert!(tls.is_none_or(|version| version.chars().all(|letter| letter.is_ascii_graphic())));
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Sessions

/// A client that sends its input in segments of a given size and keeps the server's output.
struct Client<'a> {
    input: &'a [u8],
    segment: usize,
    private: bool,
    output: Vec<u8>,
}

impl Read for Client<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.len().min(self.segment).min(buffer.len());
        let (now, later) = self.input.split_at(length);
        buffer[..length].copy_from_slice(now);
        self.input = later;
        Ok(length)
    }
}

impl Write for Client<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The session takes a reference, so that the target can look at the output afterwards.
impl Link for &mut Client<'_> {
    fn expect_command(&mut self, _: Instant, _: Option<Instant>) {}

    fn send_file(&mut self, mut file: &File, range: Range<u64>) -> io::Result<()> {
        file.seek(SeekFrom::Start(range.start))?;
        let octets = range.end - range.start;
        let sent = io::copy(&mut file.take(octets), &mut self.output)?;
        if sent == octets { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn client_left(&mut self) -> bool {
        false
    }

    fn watch(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn is_private(&self) -> bool {
        self.private
    }

    fn client_user(&self) -> io::Result<u32> {
        Ok(0)
    }

    fn tls(&self) -> Tls {
        Tls::Ready
    }

    fn start_tls(&mut self, _: Instant) -> io::Result<String> {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// The messages of the maildrops with their names in a Maildir. In a flat maildrop the names have no folder.
const MESSAGES: [(&str, &[u8]); 3] = [
    ("cur/1.a.h:2,S", b"Subject: one\n\n.dot\nlast line without end"),
    ("new/2.b.h", b"Subject: two\r\n\r\nin wire form\r\n"),
    ("cur/3.c.h:2,", b"\r\n.\r\n\r\n"),
];

const USER: &str = "u";
const PASSWORD: &str = "p";

/// A mail directory in which [`USER`] has the [`MESSAGES`] in a Maildir, and `flat` has them in a flat maildrop.
struct Mail(TempDir);

impl Mail {
    fn new() -> Self {
        let mail = Self(TempDir::new().unwrap());
        for folder in ["new", "cur", "tmp"] {
            fs::create_dir_all(mail.path(USER).join(folder)).unwrap();
        }
        fs::create_dir(mail.path("flat")).unwrap();
        mail.deliver();
        mail
    }

    fn path(&self, user: &str) -> PathBuf {
        self.0.path().join(user)
    }

    fn paths(&self) -> impl Iterator<Item = (PathBuf, &'static [u8])> {
        let flat = |name: &str| self.path("flat").join(&name[4..]);
        MESSAGES
            .into_iter()
            .flat_map(move |(name, octets)| [(self.path(USER).join(name), octets), (flat(name), octets)])
    }

    /// Puts back the messages that are missing. They get old modification times, so that the server trusts its index.
    fn deliver(&self) {
        let mut changed = false;
        for (path, octets) in self.paths().filter(|(path, _)| !path.exists()) {
            fs::write(&path, octets).unwrap();
            make_old(&path);
            changed = true;
        }
        if changed {
            make_old(&self.path(USER).join("new"));
            make_old(&self.path(USER).join("cur"));
        }
    }
}

fn make_old(path: &Path) {
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    File::open(path).unwrap().set_times(FileTimes::new().set_modified(old)).unwrap();
}

/// The state that sessions share, for mail in the directory `root`.
fn shared(root: &Path) -> Shared {
    let user = format!("{USER}:{PASSWORD}");
    let root = root.to_str().unwrap();
    let args = ["pop3d", "-u", &user, "-u", "flat:p", "-m", root, "--peep-viewer", "eva:looks", "--allow-faults"];
    Args::try_parse_from(args).unwrap().resolve().unwrap().into_shared()
}

fn origin() -> Origin {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 1)).into()
}

fn admission(shared: &Shared) -> Admission {
    shared.guard.admit(origin()).unwrap()
}

fn client_of(service: Service) -> events::Client {
    events::Client::new(1, origin(), service)
}

/// Runs a session twice, with the input in segments and at once, and checks that the output is the same. The lower bits
/// of the first octet are the size of the segments. If its highest bit is set, others can read the connection. The rest
/// is the client's input. Returns the input and the output.
fn play(octets: &[u8], session: impl Fn(&mut Client<'_>)) -> Option<(&[u8], Vec<u8>)> {
    let (&how, input) = octets.split_first()?;
    let [output, other] = [usize::from(how & 0x7f).max(1), usize::MAX].map(|segment| {
        let mut client = Client { input, segment, private: how & 0x80 == 0, output: Vec::new() };
        session(&mut client);
        client.output
    });
    assert_eq!(without_nonces(&output), without_nonces(&other));
    Some((input, output))
}

/// The lines of the output without the greeting's timestamp, challenges, times, and the order of labels, which differ from
/// session to session.
fn without_nonces(output: &[u8]) -> Vec<String> {
    let lines = output.split(|&octet| octet == b'\n').map(|line| line.escape_ascii().to_string());
    let cut_off = ["started ", "uptime ", "pop3d_uptime_seconds ", "pop3d_open_connections{"];
    let cut = |line: String| match line.split_once('<') {
        Some((greeting, _)) if line.starts_with("+OK ") => greeting.to_owned(),
        _ if line.starts_with("+ ") => "+ ".to_owned(),
        _ => match cut_off.into_iter().find(|name| line.starts_with(name)) {
            Some(name) => name.to_owned(),
            None => line,
        },
    };
    lines.map(cut).collect()
}

/// Runs a POP3 session. Each command gets an answer of its form, which does not depend on the segments. A message is
/// removed only after DELE and QUIT, and the other messages do not change.
pub fn pop3_session(octets: &[u8]) {
    static SCENE: LazyLock<(Mail, Shared)> = LazyLock::new(|| {
        let mail = Mail::new();
        let shared = shared(mail.0.path());
        (mail, shared)
    });
    let (mail, shared) = &*SCENE;
    let played = play(octets, |client| {
        mail.deliver();
        let input = client.input;
        pop3::serve(client, shared, &admission(shared), &client_of(Service::Pop3));
        check_mail(mail, input);
        assert!(shared.locks.users().is_empty(), "the session has left the maildrop locked");
    });
    if let Some((input, output)) = played {
        check_pop3_answers(input, &output);
    }
}

fn check_mail(mail: &Mail, input: &[u8]) {
    let count_of =
        |keyword: &[u8]| input.windows(keyword.len()).filter(|window| window.eq_ignore_ascii_case(keyword)).count();
    let mut gone = 0;
    for (path, octets) in mail.paths() {
        match fs::read(&path) {
            Ok(there) => assert!(there == octets, "{} has changed", path.display()),
            Err(_) => gone += 1,
        }
    }
    assert!(gone == 0 || (count_of(b"QUIT") > 0 && gone <= count_of(b"DELE")), "{gone} messages were removed");
}

/// Goes through a client's commands and the server's answers side by side.
fn check_pop3_answers(input: &[u8], output: &[u8]) {
    let mut answers = output.split_inclusive(|&octet| octet == b'\n').map(|line| {
        line.strip_suffix(b"\r\n").unwrap_or_else(|| panic!("a line without CRLF: {}", line.escape_ascii()))
    });
    let mut next = || answers.next().expect("an answer");
    assert!(next().starts_with(b"+OK "));
    let (mut logged_in, mut lines_before_login, mut failed_logins) = (false, 0, 0);
    for line in lines(input, pop3::LINE_LIMIT) {
        let command = line.as_deref().map(pop3::Command::parse);
        if line.as_deref().is_some_and(may_be_followed_by_other_lines) {
            return;
        }
        let status = next();
        let ok = status.starts_with(b"+OK ");
        lines_before_login += usize::from(!logged_in);
        failed_logins += usize::from(status.starts_with(b"-ERR [AUTH] wrong"));
        let is_foreign = matches!((&command, &line), (Some(Err(_)), Some(line)) if Foreign::of(line).is_some());
        if lines_before_login > 50 || failed_logins == 3 || (!logged_in && (is_foreign || status == TLS_REFUSED)) {
            assert!(!ok);
            break;
        }
        assert!((ok || status.starts_with(b"-ERR ")) && status.len() <= 510, "{}", status.escape_ascii());
        let Some(Ok(command)) = command else {
            assert!(!ok, "{}", status.escape_ascii());
            continue;
        };
        logged_in |= ok && matches!(command, pop3::Command::Pass(_) | pop3::Command::Apop { .. });
        if ok && has_lines(&command) {
            while next() != b"." {}
        }
        if command == pop3::Command::Quit {
            break;
        }
    }
    // A TLS handshake is answered before its line has an end.
    let begins_tls = input.rsplit(|&octet| octet == b'\n').next().and_then(Foreign::of) == Some(Foreign::Tls);
    let more = answers.next();
    assert!(more.is_none() || (begins_tls && !logged_in && more == Some(TLS_REFUSED)), "more answers than commands");
}

/// The answer to a client that begins with a TLS handshake.
const TLS_REFUSED: &[u8] = b"-ERR TLS is started by STLS on this port";

/// Returns true for AUTH and STLS, after which lines may be no commands or be encrypted.
fn may_be_followed_by_other_lines(line: &[u8]) -> bool {
    line.get(..4).is_some_and(|keyword| keyword.eq_ignore_ascii_case(b"AUTH") || keyword.eq_ignore_ascii_case(b"STLS"))
}

fn has_lines(command: &pop3::Command) -> bool {
    use pop3::Command::{Capa, List, Retr, Top, Uidl};
    matches!(command, Capa | List(None) | Uidl(None) | Retr(_) | Top { .. })
}

/// Runs an admin's session. The client can read each answer, and the settings stay within their ranges.
pub fn peep_session(octets: &[u8]) {
    static MAIL: LazyLock<Mail> = LazyLock::new(Mail::new);
    let played = play(octets, |client| {
        let shared = shared(MAIL.0.path());
        pop3d::logging::set_level(LevelFilter::Off); // `l=` of the session before has changed it
        peep::serve(client, &shared, &admission(&shared), &client_of(Service::Peep)).unwrap();
        assert!((1..=998).contains(&shared.connections.limit()));
        assert!(shared.settings().timeout.is_none_or(|timeout| timeout <= Duration::from_secs(86_400)));
        for name in shared.users.names() {
            let name = name.as_str();
            assert!(!name.starts_with('.') && !name.contains(['/', ' ', '\0', '\n']), "{name:?}");
        }
    });
    let Some((input, output)) = played else { return };
    let mut answers = &output[..];
    let mut authenticated = false;
    for line in lines(input, peep::LINE_LIMIT) {
        if answers.is_empty() {
            return;
        }
        let command = line.as_deref().map(|line| peep::Command::parse(line, authenticated));
        let with_lines = command.as_ref().is_some_and(|it| it.as_ref().is_ok_and(peep::Command::answers_lines));
        let reply = read_reply(&mut answers, with_lines).expect("an answer");
        if !authenticated && !matches!(command, Some(Ok(_))) {
            assert!(matches!(reply, peep::Reply::Error(_)));
            break; // The client may speak another protocol, so the server carries out nothing after this line.
        }
        if let Some(Ok(peep::Command::Authenticate { .. })) = command {
            authenticated |= reply == peep::Reply::Done;
        }
    }
    // A TLS handshake is answered before its line has an end.
    let begins_tls = input.rsplit(|&octet| octet == b'\n').next().and_then(Foreign::of) == Some(Foreign::Tls);
    assert!(answers.is_empty() || (begins_tls && !authenticated && answers == b"-0\r\n"), "more answers than commands");
}

// ---------------------------------------------------------------------------------------------------------------------
// Messages

/// The first three octets are two sizes of pieces and the number of lines for TOP; the rest is a stored message. The
/// message without byte-stuffing has the size that was measured. Once it is stored in that form, sending it does not
/// change it.
pub fn byte_stuffing(octets: &[u8]) {
    let [size, other, top, stored @ ..] = octets else { return };
    let (wire, octets) = stuffed(stored, usize::from(*size), None);
    assert_eq!(stuffed(stored, usize::from(*other), None), (wire.clone(), octets));
    let plain = unstuffed(&wire);
    assert_eq!(plain.len() as u64, octets);

    let mut meter = Meter::default();
    pieces(stored, usize::from(*size)).for_each(|piece| meter.push(piece));
    let measure = meter.finish();
    assert_eq!(measure.octets, octets);
    assert_eq!(measure.wire_form, [stored, b".\r\n"].concat() == wire);

    // Apart from line ends it is the stored message, and it is its own wire form.
    let without_cr = |octets: &[u8]| String::from_utf8_lossy(octets).replace("\r\n", "\n");
    assert!([without_cr(stored), without_cr(stored) + "\n"].contains(&without_cr(&plain)));
    assert_eq!(unstuffed(&stuffed(&plain, 1, None).0), plain);

    let (top, _) = stuffed(stored, usize::from(*size), Some(u32::from(*top)));
    assert!(plain.starts_with(&unstuffed(&top)));
}

fn pieces(octets: &[u8], size: usize) -> impl Iterator<Item = &[u8]> {
    octets.chunks(size.max(1))
}

fn stuffed(stored: &[u8], size: usize, top: Option<u32>) -> (Vec<u8>, u64) {
    let mut top = top.map(Top::new);
    let (mut wire, mut stuffer) = (Vec::new(), Stuffer::default());
    for piece in pieces(stored, size) {
        let wanted = top.as_mut().map_or(piece.len(), |top| top.take(piece));
        stuffer.push(&piece[..wanted], &mut wire);
    }
    let octets = stuffer.finish(&mut wire);
    (wire, octets)
}

/// A multi-line response as a client reads it: without byte-stuffing, and ended by the first line that is a dot.
fn unstuffed(wire: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut lines = wire.split_inclusive(|&octet| octet == b'\n');
    for line in lines.by_ref() {
        assert!(line.ends_with(b"\r\n"), "a line without CRLF");
        if line == b".\r\n" {
            break;
        }
        plain.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    assert_eq!(lines.next(), None, "the response ends too early");
    plain
}

// ---------------------------------------------------------------------------------------------------------------------
// The index

/// The messages that a login finds: for each its size in octets, its unique-id and its content.
type Found = Vec<(u64, String, Vec<u8>)>;

/// A maildrop with an index.
struct Indexed {
    user: &'static str,
    /// The index that a login has written.
    good: Vec<u8>,
    /// The messages that a login finds without an index.
    found: Found,
}

struct Indexes {
    mail: Mail,
    root: MailRoot,
    maildrops: [Indexed; 2],
}

impl Indexes {
    fn new() -> Self {
        let mail = Mail::new();
        let root = MailRoot::open(mail.0.path().to_owned()).unwrap();
        let maildrops = [USER, "flat"].map(|user| {
            // The server leaves files that were just written out of the index, and writes no index without files.
            let file = mail.path(user).join(".pop3d-index");
            let deadline = Instant::now() + Duration::from_secs(20);
            loop {
                assert!(Instant::now() < deadline, "the index never has all messages");
                let found = log_in(&root, user).unwrap();
                let good = fs::read(&file).unwrap_or_default();
                if memchr::memmem::find_iter(&good, b".h").count() == MESSAGES.len() {
                    break Indexed { user, good, found };
                }
                thread::sleep(Duration::from_millis(50));
            }
        });
        Self { mail, root, maildrops }
    }
}

fn log_in(root: &MailRoot, user: &str) -> io::Result<Found> {
    let mut maildrop = Maildrop::open(root.location(user.parse().unwrap())?)?;
    let listed: Vec<_> = maildrop
        .messages()
        .map(|(number, message)| {
            let unique_id = String::from_utf8(message.unique_id().into_owned()).unwrap();
            assert!((1..=70).contains(&unique_id.len()) && unique_id.bytes().all(|octet| octet.is_ascii_graphic()));
            (MessageNumber::new(u32::try_from(number).unwrap()).unwrap(), message.octets(), unique_id)
        })
        .collect();
    let mut content = |number| {
        let mut octets = Vec::new();
        if let Ok(mut message) = maildrop.open_message(number) {
            message.source.read_to_end(&mut octets).unwrap();
            // An index never makes the server open a file that is not a message of the maildrop.
            assert!(MESSAGES.iter().any(|(_, message)| octets == *message));
        }
        octets
    };
    Ok(listed.into_iter().map(|(number, octets, unique_id)| (octets, unique_id, content(number))).collect())
}

/// The octets are an index file or edits of a good one, depending on the lowest bit of the first octet. The next bit
/// says whether the checksum is made right, which only somebody with access to the maildrop can do. A damaged index
/// does not change what a login finds. A forged index causes no panic and opens no other file.
pub fn index(octets: &[u8]) {
    static INDEXES: LazyLock<Indexes> = LazyLock::new(Indexes::new);
    let Indexes { mail, root, maildrops } = &*INDEXES;
    let Some((kind, rest)) = octets.split_first() else { return };
    for maildrop in maildrops {
        let mut file = if kind & 1 == 0 { rest.to_vec() } else { edited(&maildrop.good, rest) };
        let forged = kind & 2 != 0 && file.len() >= 16;
        if forged {
            file[..12].copy_from_slice(&maildrop.good[..12]);
            let checksum = crc32fast::hash(&file[16..]);
            file[12..16].copy_from_slice(&checksum.to_le_bytes());
        }
        fs::write(mail.path(maildrop.user).join(".pop3d-index"), &file).unwrap();
        let found = log_in(root, maildrop.user);
        if !forged {
            assert_eq!(found.unwrap(), maildrop.found);
        }
    }
}

/// Edits a good index. Of each three octets, the first two are an offset and the third is the new octet there. If
/// octets are left over, the first of them is the number of octets to cut off at the end.
fn edited(good: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut file = good.to_vec();
    let edits = edits.chunks_exact(3);
    let cut = edits.remainder().first().map_or(0, |&octet| usize::from(octet));
    for edit in edits {
        let at = usize::from(u16::from_be_bytes([edit[0], edit[1]])) % file.len();
        file[at] = edit[2];
    }
    file.truncate(file.len() - cut % file.len());
    file
}

// ---------------------------------------------------------------------------------------------------------------------
// Accounts

/// The octets are a users file. All names in it are valid. Deleting a user removes that user's lines and keeps all
/// other octets of the file.
pub fn passwd_file(octets: &[u8]) {
    static DIRECTORY: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().unwrap());
    let file = DIRECTORY.path().join("users");
    fs::write(&file, octets).unwrap();
    make_old(&file); // The server would wait for the rest of a file that has just been written.
    let open = || UsersFile::open(file.clone()).map(|file| Users::new(vec![file.into()]));
    let Ok(users) = open() else { return };
    let names = users.names();
    assert!(names.is_sorted());
    for name in &names {
        assert!(name.as_str().parse::<pop3d::auth::UserName>().is_ok(), "{name:?}");
    }
    let Some(name) = names.first() else { return };
    if users.remove(name.as_str()).is_err() {
        assert!(fs::read(&file).unwrap() == octets, "a change that failed has changed the file");
        return;
    }
    assert!(!users.names().contains(name));
    let mut rest = fs::read(&file).unwrap();
    let is_of_others = |line: &&[u8]| {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        line.split(|&octet| octet == b':').next() != Some(name.as_str().as_bytes())
    };
    // A byte order mark is not part of the first line.
    let (mark, body) = octets.split_at(if octets.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 });
    let lines = body.split_inclusive(|&octet| octet == b'\n');
    let expected = [mark].into_iter().chain(lines.filter(is_of_others)).collect::<Vec<_>>().concat();
    if !expected.ends_with(b"\n") && rest.ends_with(b"\n") {
        rest.pop();
    }
    assert_eq!(rest.escape_ascii().to_string(), expected.escape_ascii().to_string());
    match open() {
        Ok(users) => assert_eq!(users.names(), names[1..]),
        Err(error) => assert!(names.len() == 1, "{error}"), // A file without any valid line is refused.
    }
}

/// The first octet selects the mechanism, whether the following lines have to be encoded in base64, and whether the
/// first of them is an initial response. A password comes only from PLAIN and LOGIN, as the client sent it, and no proof
/// of SCRAM is accepted.
pub fn sasl(octets: &[u8]) {
    static USERS: LazyLock<Users> = LazyLock::new(|| {
        let users = Users::default();
        assert!(users.add_own(USER.parse().unwrap(), PASSWORD.as_bytes()));
        users
    });
    let Some((how, responses)) = octets.split_first() else { return };
    let mechanism = match how & 9 {
        0 => Mechanism::Plain,
        8 => Mechanism::Login,
        1 => Mechanism::ScramSha256,
        _ => Mechanism::ScramSha256Plus,
    };
    let mut exchange = Exchange::new(mechanism, &USERS).bound_to((how & 16 != 0).then_some([7; 32]));
    for (turn, response) in responses.split(|&octet| octet == b'\n').enumerate() {
        let line = if how & 2 == 0 { response.to_vec() } else { sasl::encode(response).into_bytes() };
        let step = if how & 4 != 0 && turn == 0 { exchange.respond_initially(&line) } else { exchange.respond(&line) };
        exchange = match step {
            Step::Challenge(challenge, exchange) => {
                assert!(mechanism != Mechanism::Plain && sasl::encode(&challenge).len() < sasl::LINE_LIMIT);
                exchange
            }
            Step::Password(name, password) => {
                if mechanism == Mechanism::Login {
                    assert!(turn == 1 && sasl::encode(&password.0).as_bytes() == line && !name.is_empty());
                    return;
                }
                assert_eq!(mechanism, Mechanism::Plain);
                let proof = [&b"\0"[..], &name, b"\0", &password.0].concat();
                let both = [&name[..], &proof].concat();
                assert!([proof, both].iter().any(|right| sasl::encode(right).as_bytes() == line));
                return;
            }
            Step::Proof(proof) => {
                assert!(proof.verify().is_err(), "a proof of random octets was accepted");
                return;
            }
            Step::Proven(login) => panic!("{} was accepted without a proof", login.user),
            Step::Denied(_) | Step::Failed(_) => return,
        };
    }
}
