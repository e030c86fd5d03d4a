//! PEEP 1.1: how an admin watches a running server and intervenes.

mod about;
mod bans;
mod drain;
mod follow;
mod sessions;
mod transforms;
mod viewers;

use pop3d::peep::SessionLine;

use crate::harness::{Certificate, Client, Server};

/// A server with STLS and POP3S, and PEEP without TLS.
#[track_caller]
fn with_pop3s(certificate: &Certificate) -> Server {
    let (chain, key) = (certificate.chain(), certificate.key());
    let flags = ["--pop3s-port", "0", "--tls-cert", chain.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    Server::builder().flags(flags).start()
}

/// The connections that `w?` shows.
#[track_caller]
fn sessions(admin: &mut Client) -> Vec<SessionLine> {
    admin.values("w?").iter().map(|line| line.parse().unwrap()).collect()
}

/// Sends a command and returns the first line of its answer.
#[track_caller]
fn answer(client: &mut Client, command: &str) -> String {
    client.send(command);
    client.line()
}

/// Sends commands, each with its answer of one line.
#[track_caller]
fn play<'a>(client: &mut Client, dialogue: impl IntoIterator<Item = (&'a str, &'a str)>) {
    for (command, expected) in dialogue {
        assert_eq!(answer(client, command), expected, "{command:?}");
    }
}

/// Sends everything on one connection and returns all answers after that to the login.
#[track_caller]
fn answers(server: &Server, lines: &str) -> String {
    let mut client = server.admin();
    client.write(lines);
    client.finish_writing();
    String::from_utf8(client.rest()).unwrap()
}
