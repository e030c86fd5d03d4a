//! Transforms with `--transform-sizes exact`: STAT and LIST tell the sizes of the output, and RETR gives that size or
//! fails. Also `--transform-failure original`.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::thread;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{Builder, Client, MailRoot, PASSWORD, Server, USER, eventually};

/// A directory with a transform that notes each of its runs. It puts a line in front of the message that the test chooses.
struct Program(TempDir);

impl Program {
    fn new(line: &str) -> Self {
        let program = Self(TempDir::new().unwrap());
        program.set_line(line);
        program
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn set_line(&self, line: &str) {
        fs::write(self.file("line"), line).unwrap();
    }

    /// The command line. With another `name`, it is another one that does the same.
    fn command(&self, name: &str) -> String {
        let directory = self.0.path().display();
        format!("sh -c 'cd \"$0\"; echo \"$POP3_MESSAGE\" >> runs; cat line && cat' '{directory}' {name}")
    }

    fn server(&self, mail: &MailRoot, flags: &[&str]) -> Server {
        self.server_called("", mail, flags)
    }

    fn server_called(&self, name: &str, mail: &MailRoot, flags: &[&str]) -> Server {
        let builder = exact(&self.command(name)).mail(mail).allow(self.0.path());
        builder.flags(flags.iter().copied()).start()
    }

    /// The messages of the runs since the last call, in order.
    fn runs(&self) -> Vec<u32> {
        let runs = fs::read_to_string(self.file("runs")).unwrap_or_default();
        let _ = fs::remove_file(self.file("runs"));
        let mut runs: Vec<_> = runs.split_whitespace().map(|number| number.parse().unwrap()).collect();
        runs.sort_unstable();
        runs
    }
}

fn exact(program: &str) -> Builder {
    Server::builder().flags(["-t", program, "--transform-sizes", "exact"])
}

/// A maildrop with two messages of 22 and 10 octets on the wire.
fn two_messages() -> MailRoot {
    let mail = MailRoot::new();
    mail.maildrop(USER).put("1", "Subject: one\n\nbody\n");
    mail.maildrop(USER).put("2", "A: b\n\nc");
    mail
}

fn sizes(client: &mut Client) -> Vec<usize> {
    let listing = client.listing("LIST");
    listing.iter().map(|line| line.split_once(' ').unwrap().1.parse().unwrap()).collect()
}

/// Retrieves every message. Each has to have the size that LIST tells, and STAT their sum.
#[track_caller]
fn all_have_their_sizes(client: &mut Client) -> Vec<usize> {
    let sizes = sizes(client);
    assert_eq!(client.call("STAT"), format!("{} {}", sizes.len(), sizes.iter().sum::<usize>()));
    for (number, &size) in (1..).zip(&sizes) {
        assert_eq!(client.call(&format!("LIST {number}")), format!("{number} {size}"));
        assert_eq!(client.fetch(&format!("RETR {number}")).len(), size, "message {number}");
        assert_eq!(client.fetch(&format!("TOP {number} 99999")).len(), size, "message {number}");
    }
    sizes
}

#[test]
fn stat_and_list_tell_the_sizes_of_the_output() {
    // The output has dots to stuff, bare line feeds, and no line end at its end.
    for (program, expected) in
        [("sed p", [44, 22]), ("cat", [22, 11]), ("true", [0, 0]), ("printf '.\\n..\\nx'", [10, 10])]
    {
        let server = exact(program).mail(&two_messages()).start();
        let mut client = server.session();
        assert_eq!(all_have_their_sizes(&mut client), expected, "{program}");
        client.call("DELE 1");
        assert_eq!(client.call("STAT"), format!("1 {}", expected[1]));
        client.call("RSET");
        assert_eq!(client.call("STAT"), format!("2 {}", expected[0] + expected[1]));
        client.quit();
    }
}

#[test]
fn every_format_of_maildrops_has_exact_sizes() {
    let mail = MailRoot::new();
    let maildir = mail.maildrop("maildir");
    maildir.make_maildir();
    maildir.put("new/1700000001.M1P1.host", "A: 1\n\none\n");
    maildir.put("cur/1700000002.M2P1.host:2,S", "A: 2\n\ntwo\n");
    fs::create_dir_all(maildir.path(".Junk/new")).unwrap();
    maildir.put(".Junk/new/1700000001.M1P1.host", "A: junk\n\nthree\n");
    fs::create_dir_all(maildir.path(".Junk/cur")).unwrap();
    fs::write(
        mail.path().join("mbox"),
        "From a@b Thu Jan  1 00:00:00 1970\nA: 1\n\none\n\nFrom a@b Thu Jan  1 00:00:00 1970\nA: 2\n\ntwo\n",
    )
    .unwrap();
    mail.maildrop("flat").put("1", "A: 1\n\none\n");
    let expected = |user: &str| match user {
        "maildir" => vec![26, 26, 36],
        "mbox" => vec![26, 26],
        _ => vec![26],
    };
    for _ in 0..2 {
        let mut builder = exact("sed p").mail(&mail).flags(["--folders", "INBOX,Junk"]);
        for user in ["maildir", "mbox", "flat"] {
            builder = builder.user(user, "x");
        }
        let server = builder.start();
        for user in ["maildir", "mbox", "flat"] {
            let mut client = server.pop3();
            client.login(user, "x");
            assert_eq!(all_have_their_sizes(&mut client), expected(user), "{user}");
            client.quit();
        }
    }
}

#[test]
fn each_message_is_transformed_once_for_its_size() {
    let (program, mail) = (Program::new("12345\n"), two_messages());
    let server = program.server(&mail, &[]);
    let mut client = server.session();
    assert_eq!((sizes(&mut client), program.runs()), (vec![29, 18], vec![1, 2]));
    client.quit();
    server.session().quit();
    assert_eq!(program.runs(), [0; 0]);
    // Only a new message is transformed.
    mail.maildrop(USER).put("3", "C: d\n\n");
    let mut client = server.session();
    assert_eq!((sizes(&mut client), program.runs()), (vec![29, 18, 15], vec![3]));
    drop(client);
    drop(server);
    // Sizes survive a restart.
    let server = program.server(&mail, &[]);
    assert_eq!((sizes(&mut server.session()), program.runs()), (vec![29, 18, 15], vec![]));
    drop(server);
    // Another command line gives other sizes. The earlier ones stay.
    let server = program.server_called("other", &mail, &[]);
    assert_eq!((sizes(&mut server.session()), program.runs()), (vec![29, 18, 15], vec![1, 2, 3]));
    drop(server);
    let server = program.server(&mail, &[]);
    assert_eq!((sizes(&mut server.session()), program.runs()), (vec![29, 18, 15], vec![]));
    // Without the file, and with a damaged one, they are determined again.
    for damage in ["", "pop3d transformed 1\n0123456789abcdef 1 00000000\nnonsense"] {
        fs::write(mail.maildrop(USER).path(".pop3d-transformed"), damage).unwrap();
        assert_eq!((sizes(&mut server.session()), program.runs()), (vec![29, 18, 15], vec![1, 2, 3]));
    }
}

#[test]
fn a_changed_script_gives_other_sizes() {
    let (program, mail) = (Program::new(""), two_messages());
    let script = program.file("script");
    fs::write(&script, "sed p").unwrap();
    let builder = exact(&format!("sh {}", script.display())).mail(&mail).allow(program.0.path());
    let server = builder.start();
    assert_eq!(sizes(&mut server.session()), [44, 22]);
    fs::write(&script, "sed 'p;p'").unwrap();
    assert_eq!(all_have_their_sizes(&mut server.session()), [66, 33]);
}

/// The transform gives another size than at the login: RETR and a TOP of the whole message are refused. The session goes
/// on, and the next one has the right size.
#[test]
fn a_message_of_another_size_is_refused() {
    for (first, then) in [("12345\n", "12345678\n"), ("12345678\n", "12345\n"), ("", "1\n")] {
        let (program, mail) = (Program::new(first), two_messages());
        let server = program.server(&mail, &[]);
        let mut client = server.session();
        let told = sizes(&mut client);
        program.set_line(then);
        assert!(client.refused("RETR 1").starts_with("[SYS/TEMP] "));
        assert!(client.refused("TOP 1 1000").starts_with("[SYS/TEMP] "));
        assert!(client.fetch("TOP 2 0").ends_with(b"\r\n\r\n"));
        assert_eq!(sizes(&mut client), told);
        client.call("DELE 2");
        client.quit();
        server.expect_log("ERROR", "message 1 was not sent: it was listed with ");
        assert_eq!(all_have_their_sizes(&mut server.session()), [22 + then.len() + 1]);
    }
}

/// Too much of the message has been sent for a refusal.
#[test]
fn a_large_message_of_another_size_is_cut_off() {
    for then in ["12345678\n", "1\n", ""] {
        let (program, mail) = (Program::new("12345\n"), MailRoot::new());
        mail.maildrop(USER).put("1", "A: b\n\n".to_owned() + &"0123456789abcdef\n".repeat(50_000));
        let server = program.server(&mail, &[]);
        let mut client = server.session();
        assert_eq!(sizes(&mut client), [900_015]);
        program.set_line(then);
        client.call("RETR 1");
        let rest = client.rest();
        assert!(rest.len() > 100_000 && !rest.ends_with(b"\r\n.\r\n"), "{}", rest.len());
        server.expect_log("ERROR", "message 1 was cut off: it was listed with 900015 octets");
        all_have_their_sizes(&mut server.session());
    }
}

/// A transform that fails once in a while.
#[test]
fn a_message_whose_transform_fails_has_its_stored_size() {
    for (flags, is_sent) in [(&[][..], false), (&["--transform-failure", "original"], true)] {
        let server =
            exact("sh -c 'cat > /dev/null; exit 1'").mail(&two_messages()).flags(flags.iter().copied()).start();
        let mut client = server.session();
        assert_eq!(sizes(&mut client), [22, 11]);
        match is_sent {
            true => drop(all_have_their_sizes(&mut client)),
            false => assert!(client.refused("RETR 1").starts_with("[SYS/TEMP] ")),
        }
        server.expect_log("WARN", "the transform failed on message 2: exit status: 1");
    }
}

/// The size that was told is that of the output, so the stored message cannot be sent in its place.
#[test]
fn the_original_is_not_sent_under_the_size_of_the_output() {
    let (program, mail) = (Program::new("12345\n"), two_messages());
    let server = program.server(&mail, &["--transform-failure", "original"]);
    let mut client = server.session();
    assert_eq!(sizes(&mut client), [29, 18]);
    fs::remove_file(program.file("line")).unwrap();
    assert!(client.refused("RETR 1").starts_with("[SYS/TEMP] "));
    assert!(client.refused("TOP 1 0").starts_with("[SYS/TEMP] "));
    program.set_line("12345\n");
    assert_eq!(client.fetch("RETR 1").len(), 29);
}

#[test]
fn the_original_is_sent_if_the_transform_fails_before_its_first_octet() {
    for program in ["false", "/dev/null/program", "sh -c 'cat >/dev/null; kill -9 $$'"] {
        let server = Server::builder().mail(&two_messages()).flags(["-t", program, "--transform-failure", "original"]);
        let server = server.start();
        let mut client = server.session();
        assert_eq!(client.fetch("RETR 1"), b"Subject: one\r\n\r\nbody\r\n");
        assert_eq!(client.fetch("TOP 2 0"), b"A: b\r\n\r\n");
        assert_eq!(client.call("STAT"), "2 33");
        server.expect_log("ERROR", "message 1 is sent as it is stored: transform: ");
        assert_eq!(server.admin().value("re?"), "1");
    }
}

/// The messages are counted in the background: a session that was ended while it waited for that does not stop it.
#[test]
fn counting_goes_on_without_the_login() {
    let (program, mail) = (Program::new("12345\n"), MailRoot::new());
    for number in 1..=40 {
        mail.maildrop(USER).put(&format!("{number:02}"), format!("A: {number}\n\n"));
    }
    let command = format!(
        "sh -c 'cd \"$0\"; echo 1 >> runs; for i in $(seq 3000); do [ ! -e go ] || break; sleep 0.02; done; sed p' '{}'",
        program.0.path().display()
    );
    let server = exact(&command).mail(&mail).allow(program.0.path()).start();
    let mut client = server.pop3();
    client.send_all([&format!("USER {USER}")[..], &format!("PASS {PASSWORD}")]);
    client.ok();
    eventually("a transform runs", || program.file("runs").exists());
    assert_eq!(server.admin().value("ka= 127.0.0.1"), "1");
    assert_eq!(client.err(), "[SYS/TEMP] the administrator has ended this session");
    client.closed();
    fs::write(program.file("go"), "").unwrap();
    let file = mail.maildrop(USER).path(".pop3d-transformed");
    eventually("all are counted", || fs::read_to_string(&file).unwrap_or_default().lines().count() == 41);
    assert_eq!(program.runs().len(), 40);
    let expected: Vec<usize> = (1..=40).map(|number| if number < 10 { 16 } else { 18 }).collect();
    assert_eq!(sizes(&mut server.session()), expected);
    assert_eq!(program.runs(), [0; 0]);
}

/// A server that is killed while it counts loses no size that it has counted, so the next one counts only the rest. Few
/// transforms run at once, however many messages there are. `POP3D_TRANSFORMED_MESSAGES=10000` makes it as many.
#[test]
fn sizes_survive_a_kill() {
    let count: usize = env::var("POP3D_TRANSFORMED_MESSAGES").map_or(150, |count| count.parse().unwrap());
    let (program, mail) = (Program::new(""), MailRoot::new());
    for number in 1..=count {
        mail.maildrop(USER).put(&format!("{number:06}"), format!("A: {number}\n\n"));
    }
    let script = "cd \"$0\"; echo $POP3_MESSAGE >> runs; : > now.$$; ls | grep -c ^now >> most; rm now.$$; sed p";
    let command = format!("sh -c '{script}' '{}'", program.0.path().display());
    let start = || exact(&command).mail(&mail).allow(program.0.path()).start();
    let file = mail.maildrop(USER).path(".pop3d-transformed");
    let counted = || fs::read_to_string(&file).unwrap_or_default().lines().count().saturating_sub(1);

    // A login that does not wait for its answer.
    let log_in = |server: &Server| {
        let mut client = server.pop3();
        client.send_all([&format!("USER {USER}")[..], &format!("PASS {PASSWORD}")]);
        client
    };

    let mut server = start();
    let client = log_in(&server);
    eventually("a part is counted", || counted() > count.min(600) / 3);
    server.signal(Signal::KILL);
    server.wait();
    drop(client);
    let (before, rest) = (program.runs().len(), count - counted());
    let most = thread::available_parallelism().unwrap().get();
    assert!(count - rest <= before && before <= count - rest + most, "{before} runs for {} sizes", count - rest);

    let server = start();
    let mut client = log_in(&server);
    // A test of many messages takes minutes, as long as there is progress.
    while counted() < count {
        let now = counted();
        eventually("more are counted", || counted() > now);
    }
    // A transform of the killed server may still have noted its run.
    let runs = program.runs();
    assert!((rest..=rest + most).contains(&runs.len()), "{} runs for {rest} sizes", runs.len());
    client.ok();
    // With many messages the login has been refused before all of them were counted.
    if client.line().starts_with("+OK") {
        client.quit();
    }
    let mut session = server.session();
    let expected = |number: usize| 2 * (format!("A: {number}").len() + 2) + 4;
    assert_eq!(sizes(&mut session), (1..=count).map(expected).collect::<Vec<_>>());
    assert_eq!(program.runs(), [0; 0]);
    session.quit();
    let at_once = fs::read_to_string(program.file("most")).unwrap();
    // Those of both servers together, for a moment.
    assert!(at_once.split_whitespace().all(|now| now.parse::<usize>().unwrap() <= 2 * most), "{at_once}");

    mail.maildrop(USER).put("999999", "B: new\n\n");
    server.session().quit();
    assert_eq!(program.runs().len(), 1);
}

#[test]
fn a_stopping_server_ends_the_counting() {
    let (program, mail) = (Program::new(""), two_messages());
    let command = format!("sh -c 'cd \"$0\"; echo $$ >> runs; sleep 1000' '{}'", program.0.path().display());
    let mut server = exact(&command).mail(&mail).allow(program.0.path()).start();
    let mut client = server.pop3();
    client.send_all([&format!("USER {USER}")[..], &format!("PASS {PASSWORD}")]);
    client.ok();
    eventually("a transform runs", || fs::read_to_string(program.file("runs")).is_ok_and(|runs| runs.ends_with('\n')));
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    let is_running = |process: &u32| fs::exists(format!("/proc/{process}")).unwrap();
    let runs = program.runs();
    eventually("the transforms have ended", || !runs.iter().any(is_running));
}
