//! What a POP3 client sees, where it takes more than a dialogue to show it.

use crate::harness::Server;

#[test]
fn a_session_greets_and_ends() {
    let server = Server::start();
    server.pop3().quit();
}
