//! The transform of one user's messages (`tr=`), and what it does to a message (`tt`).

use pop3d::peep::NameValue;

use super::play;
use crate::harness::{Client, PASSWORD, Server, USER};

fn server(program: &str, flags: &[&str]) -> Server {
    let server = Server::builder()
        .user(USER, PASSWORD)
        .user("bob", PASSWORD)
        .flags(["-t", program])
        .flags(flags.iter().copied())
        .start();
    server.maildrop().put("1", "Subject: one\n\nbody\n");
    server
}

/// What `tt` answers on message 1: the values of each name.
#[track_caller]
fn tested(admin: &mut Client) -> impl Fn(&str) -> Vec<String> + use<> {
    let lines = admin.values(&format!("tt {USER} 1"));
    let pairs: Vec<NameValue> = lines.iter().map(|line| line.parse().unwrap()).collect();
    move |name| {
        pairs.iter().filter(|pair| pair.name == name).map(|pair| pair.value.clone().unwrap_or_default()).collect()
    }
}

#[test]
fn the_difference_that_a_transform_makes_is_shown() {
    let server = server("sh -c 'echo one >&2; echo two >&2; tr b B'", &[]);
    let told = tested(&mut server.admin());
    assert_eq!((told("stored"), told("transformed")), (vec!["22".to_owned()], vec!["22".to_owned()]));
    assert_eq!((told("result"), told("stderr")), (vec!["exit status: 0".to_owned()], vec!["one".into(), "two".into()]));
    let diff =
        ["--- stored", "+++ transformed", "@@ -1,3 +1,3 @@", "-Subject: one", "+SuBject: one", " ", "-body", "+Body"];
    assert_eq!(told("diff"), diff);
    server.expect_log("INFO", "transform tested on message 1");
}

#[test]
fn a_failing_transform_is_told_as_such() {
    for (program, result) in [
        ("sh -c 'exit 3'", "exit status: 3"),
        ("sh -c 'cat; kill -9 $$'", "signal: 9 (SIGKILL)"),
        ("/dev/null/program", "cannot run /dev/null/program: Not a directory (os error 20)"),
        ("sleep 1000", "no output for too long"),
    ] {
        let server = server(program, &["--transform-timeout", "1"]);
        let told = tested(&mut server.admin());
        let shown = [told("result"), told("stderr")].concat().join(" ");
        assert!(shown.contains(result), "{program}: {shown}");
    }
}

/// Neither an endless standard error nor a message without ends fills the answer, and the program does not wait.
#[test]
fn what_is_shown_is_bounded() {
    let server = server("sh -c 'yes error | head -c 3000000 >&2; yes line | head -c 3000000'", &[]);
    let mut admin = server.admin();
    let told = tested(&mut admin);
    assert_eq!(told("transformed"), ["3600000"]);
    assert_eq!((told("stderr").len(), told("diff").len()), (20, 61));
    assert!(admin.values(&format!("tt {USER} 1")).iter().all(|line| line.len() <= 510));
}

#[test]
fn errors_have_their_codes() {
    let server = server("cat", &[]);
    play(
        &mut server.admin(),
        [
            ("tt nobody 1", "-4"),
            ("tt bob 1", "-19"),
            (&format!("tt {USER} 0"), "-19"),
            (&format!("tt {USER} 2"), "-19"),
            (&format!("tt {USER} x"), "-1"),
            ("tr= nobody 1", "-4"),
            ("tr= bob on", "-1"),
        ],
    );
    let without = Server::start();
    let mut admin = without.admin();
    play(&mut admin, [(&*format!("tt {USER} 1"), "-18"), (&format!("tr= {USER} 0"), "-18"), ("tr?", "+0")]);
}

/// A session keeps the sizes that it was told, and what it retrieves has them.
#[test]
fn a_session_with_exact_sizes_keeps_its_transform() {
    let server = server("sed p", &["--transform-sizes", "exact"]);
    let (mut admin, mut before) = (server.admin(), server.session());
    play(&mut admin, [(&*format!("tr= {USER} 0"), "+")]);
    assert_eq!((before.call("STAT"), before.fetch("RETR 1").len()), ("1 44".to_owned(), 44));
    before.quit();
    let mut after = server.session();
    play(&mut admin, [(&*format!("tr= {USER} 1"), "+")]);
    assert_eq!(after.call("STAT"), "1 22");
    after.quit();
    assert_eq!(server.session().call("STAT"), "1 44");
}

#[test]
fn a_new_account_of_the_same_name_has_the_transform() {
    let server = server("sed p", &[]);
    let mut admin = server.admin();
    play(&mut admin, [("u+ kim x", "+"), ("tr= kim 0", "+"), ("u- kim", "+"), ("tr?", "+0")]);
}
