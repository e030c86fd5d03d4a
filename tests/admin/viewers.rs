//! Viewers (`--peep-viewer`): they may ask and follow, and change nothing.

use super::{answer, play, sessions};
use crate::harness::{Client, Server};
use pop3d::peep::State;

/// The SHA-256 of `secret`.
const HASH: &str = "{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=";

fn server() -> Server {
    Server::builder().flags(["--peep-viewer", "eva:looks", "--peep-viewer", &format!("ben:{HASH}")]).start()
}

#[track_caller]
fn viewer(server: &Server, name: &str, password: &str) -> Client {
    let mut client = server.peep();
    assert_eq!(answer(&mut client, &format!("a {name} {password}")), "+");
    client
}

#[test]
fn a_viewer_asks_and_follows() {
    let server = server();
    for (name, password) in [("eva", "looks"), ("ben", "secret")] {
        let mut viewer = viewer(&server, name, password);
        let own = &sessions(&mut viewer)[0];
        assert_eq!((&own.state, own.user.as_deref()), (&State::Viewer, Some(name)));
        play(
            &mut viewer,
            [("c?", "+998"), ("b?", "+0"), ("d?", "+0"), ("l?", "+info"), ("rb?", "+0"), ("f nobody", "+")],
        );
        play(&mut viewer, [("", "+")]);
        assert_eq!(viewer.values("u?"), ["mrose"]);
        assert!(!viewer.values("i? mrose").is_empty() && !viewer.values("s?").is_empty());
        viewer.values("e?");
        viewer.values("cap?");
        play(&mut viewer, [("q", "+")]);
        viewer.closed();
    }
}

#[test]
fn a_viewer_changes_nothing() {
    let server = server();
    let mut viewer = viewer(&server, "eva", "looks");
    let session = server.session();
    let changes = "u+ x y,+a x y,u- mrose,c= 5,m= .,t= 5,k= 2,ku= mrose,ka= 127.0.0.1,b+ 127.0.0.1 0,b- 127.0.0.1,\
                   at mrose tanstaaf,l= error,d= 1,r";
    for command in changes.split(',') {
        assert_eq!(answer(&mut viewer, command), "-12", "{command}");
    }
    play(&mut viewer, [("nonsense", "-0"), ("a root root", "-0"), ("k= x", "-1"), ("c?", "+998"), ("d?", "+0")]);
    session.quit();
}

#[test]
fn a_viewer_has_to_know_the_password() {
    let server = server();
    for line in ["a eva secret", "a ben looks", "a eva root", &format!("a ben {HASH}")] {
        assert_eq!(answer(&mut server.peep(), line), "-2", "{line}");
    }
    server.admin();
}

#[test]
fn a_viewer_with_the_name_of_the_admin_is_refused_at_the_start() {
    let output = Server::builder().flags(["--peep-viewer", "eva:x", "--peep-viewer", "root:looks"]).refused();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("the viewer \"root\" has the name of the admin"), "{error}");
}
