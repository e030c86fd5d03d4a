//! The commands about connections and addresses: lists of connections, kicks, bans and draining.

use std::time::Duration;

use ipnet::IpNet;

use super::Session;
use crate::connections::{Connection, Service, Stage};
use crate::guard::{Exclusion, Why};
use crate::net::network_text;
use crate::peep::{BanLine, ErrorCode, Reply, SessionLine, Spoken, State};

impl Session<'_> {
    /// `w?`: all connections.
    pub(super) fn connections(&self) -> Reply {
        let open = self.shared.connections.open();
        Reply::Lines(open.iter().map(|connection| session_line(connection).to_string()).collect())
    }

    /// `k=`: ends one connection. If it is the admin's own, it ends after the answer.
    pub(super) fn kick(&self, id: u64) -> Result<Reply, ErrorCode> {
        if self.client.session == Some(id) {
            return self.kicked(format_args!("#{id}, its own"), self.shared.connections.kick_later(id));
        }
        self.kick_others(format_args!("#{id}"), |connection| connection.client.session == Some(id))
    }

    /// `ku=`: ends the connections of a user.
    pub(super) fn kick_user(&self, name: &str) -> Result<Reply, ErrorCode> {
        self.kick_others(format_args!("of user {name:?}"), |connection| connection.client.user() == Some(name))
    }

    /// `ka=`: ends the connections from a network.
    pub(super) fn kick_address(&self, network: IpNet) -> Result<Reply, ErrorCode> {
        let is_inside = |connection: &Connection| connection.client.origin.ip().is_some_and(|ip| network.contains(&ip));
        self.kick_others(format_args!("from {}", network_text(&network)), is_inside)
    }

    /// Ends connections, but never the one that asks: its admin wants to read the answer.
    fn kick_others(
        &self,
        whose: std::fmt::Arguments<'_>,
        meant: impl Fn(&Connection) -> bool,
    ) -> Result<Reply, ErrorCode> {
        let is_other = |connection: &Connection| connection.client.session != self.client.session;
        self.kicked(whose, self.shared.kick(|connection| is_other(connection) && meant(connection)))
    }

    fn kicked(&self, whose: std::fmt::Arguments<'_>, ended: Option<usize>) -> Result<Reply, ErrorCode> {
        let ended = ended.ok_or(ErrorCode::NoSuchConnection)?;
        let connections = if ended == 1 { "connection" } else { "connections" };
        self.log_change(format_args!("ended {ended} {connections}: {whose}"));
        Ok(Reply::Value(ended.to_string()))
    }

    /// `b+`: refuses connections from a network, for `seconds` or, if that is 0, until `b-`.
    pub(super) fn ban(&self, network: IpNet, seconds: u32) {
        let shown = network_text(&network);
        let lasts = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
        self.shared.guard.ban(network, lasts);
        match seconds {
            0 => self.log_change(format_args!("{shown} is banned")),
            _ => self.log_change(format_args!("{shown} is banned for {seconds} s")),
        }
    }

    /// `b-`: lifts a ban or a penalty.
    pub(super) fn unban(&self, network: IpNet) -> Result<(), ErrorCode> {
        if !self.shared.guard.lift(network) {
            return Err(ErrorCode::NoSuchConnection);
        }
        self.log_change(format_args!("{} is not banned any more", network_text(&network)));
        Ok(())
    }

    /// `b?`: all bans and penalties.
    pub(super) fn bans(&self) -> Reply {
        let line = |Exclusion { network, left, why }: Exclusion| BanLine {
            network,
            // Rounded up, so that a ban in force has not 0 s left.
            seconds_left: left.map(|left| left.as_secs() + u64::from(left.subsec_nanos() > 0)),
            reason: match why {
                Why::Banned => "banned by an admin".to_owned(),
                Why::Penalty => "too many failed logins".to_owned(),
            },
        };
        Reply::Lines(self.shared.guard.exclusions().into_iter().map(|it| line(it).to_string()).collect())
    }
}

/// A connection as `w?` shows it.
fn session_line(connection: &Connection) -> SessionLine {
    let client = &connection.client;
    let progress = &client.progress;
    SessionLine {
        id: client.session.unwrap_or_default(),
        protocol: match client.service {
            Service::Pop3 => Spoken::Pop3,
            Service::Pop3s => Spoken::Pop3s,
            Service::Peep => Spoken::Peep,
        },
        address: client.origin.ip(),
        state: match progress.stage() {
            Stage::Authorization => State::Authorization,
            Stage::Transaction => State::Transaction,
            Stage::Update => State::Update,
            Stage::Admin => State::Admin,
            Stage::Viewer => State::Viewer,
        },
        user: client.user().map(str::to_owned),
        age: client.since.elapsed().as_secs(),
        idle: connection.idle().as_secs(),
        retrieved: progress.retrieved.value(),
        octets: progress.sent.value(),
        marked: progress.marked(),
        tls: client.tls().map(|version| format!("TLSv{}", version.name())),
    }
}
