//! The flags of PEEP's UNIX socket.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::NEEDS_RESTART;
use super::args::keep;
use crate::acting;
use crate::net::SocketFile;

/// The flags for the UNIX socket.
#[derive(Debug, Clone, Args)]
pub(super) struct PeepSocketArgs {
    /// Serve PEEP on this UNIX socket, and on a port only if --peep-address is given; whoever may open the socket is the admin
    #[arg(long, value_name = "PATH", group = NEEDS_RESTART)]
    peep_socket: Option<PathBuf>,

    /// The permissions of the UNIX socket, in octal
    #[arg(long, value_name = "MODE", default_value = "600", requires = "peep_socket", group = NEEDS_RESTART)]
    peep_socket_mode: Mode,

    /// The group of the UNIX socket (name or number) [default: the server's]
    #[arg(long, value_name = "GROUP", requires = "peep_socket", group = NEEDS_RESTART)]
    peep_socket_group: Option<SocketGroup>,

    /// Do not serve PEEP
    #[arg(long, conflicts_with_all = ["peep_socket", "peep_port", "peep_address"])]
    pub(super) no_peep: bool,
}

/// The permissions of a file: `600`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mode(u32);

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o777 => Ok(Self(mode)),
            _ => Err("permissions are an octal number of 0 to 777, such as 660".to_owned()),
        }
    }
}

/// A group, by the number that it had when the flags were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SocketGroup(u32);

impl FromStr for SocketGroup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        acting::group(text).map(Self)
    }
}

impl PeepSocketArgs {
    /// The socket to make, if one is asked for.
    pub(super) fn file(&self) -> Option<SocketFile> {
        let group = self.peep_socket_group.map(|SocketGroup(group)| group);
        let Mode(mode) = self.peep_socket_mode;
        self.peep_socket.clone().map(|path| SocketFile { path, mode, group })
    }

    /// Takes the settings that need a restart from `started`. Returns the names of those that were different.
    pub(super) fn keep_fixed(&mut self, started: &Self) -> Vec<&'static str> {
        let mut names = Vec::new();
        names.extend(keep("peep-socket", &mut self.peep_socket, &started.peep_socket));
        names.extend(keep("peep-socket-mode", &mut self.peep_socket_mode, &started.peep_socket_mode));
        names.extend(keep("peep-socket-group", &mut self.peep_socket_group, &started.peep_socket_group));
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_octal() {
        assert_eq!(
            ["600", "0660", "777"].map(|text| text.parse()),
            [Ok(Mode(0o600)), Ok(Mode(0o660)), Ok(Mode(0o777))]
        );
        for wrong in ["", "8", "1777", "rw", "-1"] {
            assert!(wrong.parse::<Mode>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_group_has_a_name_or_a_number() {
        assert_eq!(["root", "0", "12345"].map(|text| text.parse()), [0, 0, 12345].map(|group| Ok(SocketGroup(group))));
        assert!("no-such-group".parse::<SocketGroup>().is_err());
        // chown(2) takes this number for "leave the group as it is".
        assert!(u32::MAX.to_string().parse::<SocketGroup>().is_err());
    }
}
