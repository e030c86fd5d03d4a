//! Draining (`d=`, `d?`): new POP3 clients are turned away, sessions go on.

use super::{play, with_pop3s};
use crate::harness::{Certificate, Client, Server};

#[track_caller]
fn is_turned_away(server: &Server) {
    let mut client = Client::connect(server.pop3_address());
    assert_eq!(client.err(), "[SYS/TEMP] no new connections are accepted at present");
    client.closed();
}

#[test]
fn a_draining_server_turns_new_clients_away() {
    let server = Server::start();
    let mut admin = server.admin();
    let mut open = server.session();
    play(&mut admin, [("d?", "+0"), ("d= 1", "+"), ("d?", "+1"), ("d= 1", "+")]);
    is_turned_away(&server);
    is_turned_away(&server);
    open.call("STAT");
    let mut other_admin = server.admin();
    play(&mut other_admin, [("cc?", "+1"), ("hc?", "+1"), ("d= 0", "+"), ("d?", "+0")]);
    server.pop3().quit();
    open.quit();
    server.expect_log("INFO", "set: draining = 1");
    server.expect_log("WARN", "refused: the server takes no more clients");
    play(&mut admin, [("d=", "-1"), ("d= 2", "-1"), ("d= yes", "-1")]);
}

/// A health check must not wait for a slot.
#[test]
fn a_draining_server_refuses_clients_without_a_slot() {
    let server = Server::builder().flags(["-c", "2"]).start();
    let mut admin = server.admin();
    let _open = server.pop3();
    let mut waiting = Client::connect(server.pop3_address());
    play(&mut admin, [("d= 1", "+")]);
    waiting.err();
    waiting.closed();
    is_turned_away(&server);
    play(&mut admin, [("d= 0", "+"), ("cc?", "+1")]);
}

#[test]
fn pop3s_is_closed_at_once() {
    let certificate = Certificate::new();
    let server = with_pop3s(&certificate);
    play(&mut server.admin(), [("d= 1", "+")]);
    Client::connect(server.pop3s_address()).closed();
}
