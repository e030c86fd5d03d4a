//! A PEEP command as a value. The server parses it and the client writes it, so both have the same grammar.
//!
//! Each command is declared once, in the table of `commands!`: its variant, its arguments, how it begins on the wire and
//! the form of its answer. [`argument`] has the types of arguments.

use std::fmt;

use ipnet::IpNet;
use log::Level;

use super::ErrorCode;
use super::argument::{self, Argument, Encoded};
use crate::auth::Hidden;
use crate::faults::What;

/// The most octets of a line, CRLF included: a commencement of 8 and two arguments of 128, each after a space. A command
/// with more arguments has shorter ones.
pub const LINE_LIMIT: usize = 268;

/// The form of an answer that is not an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `+` or `+VALUE`.
    OneLine,
    /// `+n` and n lines.
    Lines,
    /// `+` alone, or `+n` and n lines.
    PerhapsLines,
    /// `+`, then a line for each event until the client sends a line, which `+` answers.
    Events,
}

/// Declares [`Command`], its parser and its text from one table.
macro_rules! commands {
    ($(
        $(#[$attribute:meta])*
        $variant:ident $({ $($field:ident: $type:ty),+ })? = $commencement:literal $(or $other:literal)? => $form:ident,
    )+) => {
        /// One command of the protocol. Integers may have any value (larger ones saturate): the session checks their
        /// range, because each command has its own error code for that.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[allow(missing_docs)] // the table in the module's documentation describes each
        pub enum Command {
            $($(#[$attribute])* $variant $({ $($field: $type),+ })?,)+
        }

        impl Command {
            fn with_arguments<'a>(
                commencement: &str,
                words: impl Iterator<Item = &'a [u8]>,
            ) -> Result<Self, ErrorCode> {
                Ok(match commencement {
                    $($commencement $(| $other)? => {
                        // Further arguments are ignored, but have to be well-formed.
                        let words = words.map(argument::from_octets).collect::<Result<Vec<_>, _>>()?;
                        let mut _words = words.into_iter();
                        Self::$variant $({ $($field: <$type>::from_words(&mut _words)?),+ })?
                    })+
                    _ => return Err(ErrorCode::UnknownCommand),
                })
            }

            /// How the command begins on the wire, for example `u+`.
            #[must_use]
            pub fn commencement(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => $commencement,)+
                }
            }

            /// The form of the command's answer, if that is no error.
            #[must_use]
            pub fn form(&self) -> Form {
                match self {
                    $(Self::$variant { .. } => Form::$form,)+
                }
            }
        }

        /// The line that [`Command::parse`] parses, without a line end.
        impl fmt::Display for Command {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.commencement())?;
                match self {
                    $(Self::$variant $({ $($field),+ })? => {
                        $($($field.put(f)?;)+)?
                    })+
                }
                Ok(())
            }
        }
    };
}

commands! {
    Authenticate { name: String, password: Hidden<String> } = "a" => OneLine,
    Capabilities = "cap?" => Lines,
    Quit = "q" => OneLine,
    AddUser { name: String, password: Hidden<String> } = "u+" or "+a" => OneLine,
    DeleteUser { name: String } = "u-" => OneLine,
    Users = "u?" => Lines,
    SetMaxConnections { limit: i64 } = "c=" => OneLine,
    MaxConnections = "c?" => OneLine,
    SetMaildir { path: String } = "m=" => OneLine,
    Maildir = "m?" => OneLine,
    SetTimeout { seconds: i64 } = "t=" => OneLine,
    Timeout = "t?" => OneLine,
    RetrievedBytes = "rb?" => OneLine,
    RetrievedEmails = "re?" => OneLine,
    RemovedEmails = "xe?" => OneLine,
    CurrentConnections = "cc?" => OneLine,
    CurrentUsers = "cu?" => Lines,
    AllConnections = "hc?" => OneLine,
    AllLogins = "hu?" => OneLine,
    // Version 1.1.
    Sessions = "w?" => Lines,
    Kick { id: u64 } = "k=" => OneLine,
    KickUser { name: Encoded } = "ku=" => OneLine,
    KickAddress { network: IpNet } = "ka=" => OneLine,
    Ban { network: IpNet, seconds: u32 } = "b+" => OneLine,
    Unban { network: IpNet } = "b-" => OneLine,
    Bans = "b?" => Lines,
    Statistics = "s?" => Lines,
    AboutUser { name: Encoded } = "i?" => Lines,
    TestLogin { name: Encoded, password: Hidden<String>, more: Option<Encoded> } = "at" => OneLine,
    Errors = "e?" => Lines,
    SetLogLevel { level: Level } = "l=" => OneLine,
    LogLevel = "l?" => OneLine,
    SetDraining { on: bool } = "d=" => OneLine,
    Draining = "d?" => OneLine,
    Reload = "r" => PerhapsLines,
    Follow { name: Option<Encoded> } = "f" => Events,
    Metrics = "mt?" => Lines,
    Expire = "ex" => Lines,
    WouldExpire = "ex?" => Lines,
    Deletions { name: Encoded } = "dl?" => Lines,
    Undelete { id: Encoded } = "ud" => OneLine,
    UndeleteSince { name: Encoded, seconds: u32 } = "uds" => OneLine,
    SetTransform { name: Encoded, on: bool } = "tr=" => OneLine,
    Untransformed = "tr?" => Lines,
    TestTransform { name: Encoded, number: u32 } = "tt" => Lines,
    Report { name: Option<Encoded> } = "rp?" => Lines,
    ReportByDay { name: Option<Encoded> } = "rd?" => Lines,
    AddFault { who: Encoded, what: What, count: u32, seconds: u32 } = "ft+" => OneLine,
    ClearFaults { id: Option<u64> } = "ft-" => OneLine,
    Faults = "ft?" => Lines,
}

/// How the commands of version 1.1 begin, as `cap?` lists them.
pub const VERSION_1_1: [&str; 31] = [
    "w?", "k=", "ku=", "ka=", "b+", "b-", "b?", "s?", "i?", "at", "e?", "l=", "l?", "d=", "d?", "r", "f", "mt?", "ex",
    "ex?", "dl?", "ud", "uds", "rp?", "rd?", "ft+", "ft-", "ft?", "tr=", "tr?", "tt",
];

impl Command {
    /// Parses a line without its line end, in the state before (`authenticated == false`) or after `a`.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownCommand`] when this state has no such commencement,
    /// [`ErrorCode::BadSyntax`] when an argument is missing or malformed.
    pub fn parse(line: &[u8], authenticated: bool) -> Result<Self, ErrorCode> {
        let mut words = line.split(|&octet| octet == b' ');
        let commencement = std::str::from_utf8(words.next().unwrap_or_default());
        let commencement = commencement.map_err(|_| ErrorCode::UnknownCommand)?;
        let is_known = match commencement {
            "a" => !authenticated,
            "cap?" | "q" => true,
            _ => authenticated,
        };
        if is_known { Self::with_arguments(commencement, words) } else { Err(ErrorCode::UnknownCommand) }
    }

    /// Returns true if the answer may be `+n` and n lines, rather than `+` or `+VALUE`.
    #[must_use]
    pub fn answers_lines(&self) -> bool {
        matches!(self.form(), Form::Lines | Form::PerhapsLines)
    }

    /// Returns true if a viewer may send it: it asks for something and changes nothing.
    #[must_use]
    pub fn is_for_viewers(&self) -> bool {
        self.commencement().ends_with('?') || matches!(self, Self::Quit | Self::Follow { .. })
    }

    /// Returns true if the command has a password in it, so that it must not be kept or shown.
    #[must_use]
    pub fn has_password(&self) -> bool {
        matches!(self, Self::Authenticate { .. } | Self::AddUser { .. } | Self::TestLogin { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::argument::is_argument;
    use super::*;
    use proptest::prelude::*;

    fn parse(line: &str) -> Result<Command, ErrorCode> {
        Command::parse(line.as_bytes(), true)
    }

    #[test]
    fn only_a_cap_and_q_are_known_before_authentication() {
        for line in ["u?", "u+ x y", "u+", "c= 5", "rb?", "", "A b c", "nonsense"] {
            assert_eq!(Command::parse(line.as_bytes(), false), Err(ErrorCode::UnknownCommand), "{line}");
        }
        for line in ["a b c", "cap?", "q"] {
            assert!(Command::parse(line.as_bytes(), false).is_ok(), "{line}");
        }
        assert_eq!(parse("a b c"), Err(ErrorCode::UnknownCommand));
    }

    #[test]
    fn a_missing_or_malformed_argument_is_bad_syntax() {
        let long = "x".repeat(129);
        for line in [
            "u+ x",
            "u-",
            "u- ",
            "u-  x",
            "u+ x  y",
            "c=",
            "c= x",
            "c= 1.5",
            "c= +5",
            "c= -",
            "t= 1x",
            "u? ",
            "cap?  x",
            "m= a\tb",
            "m= \u{7f}",
            &format!("u- {long}"),
        ] {
            assert_eq!(parse(line), Err(ErrorCode::BadSyntax), "{line:?}");
        }
        assert_eq!(Command::parse(b"u- \xff", true), Err(ErrorCode::BadSyntax));
    }

    #[test]
    fn an_unknown_commencement_is_an_unknown_command_with_any_arguments() {
        for line in ["", " c?", "C?", "c", "c=5", "cc", "u+x y", "foo  bar"] {
            assert_eq!(parse(line), Err(ErrorCode::UnknownCommand), "{line:?}");
        }
    }

    #[test]
    fn extra_arguments_are_ignored() {
        assert_eq!(parse("c? more words"), Ok(Command::MaxConnections));
        assert_eq!(parse("u- x y z"), Ok(Command::DeleteUser { name: "x".into() }));
    }

    #[test]
    fn adding_a_user_has_two_spellings() {
        assert_eq!(parse("+a x y"), parse("u+ x y"));
    }

    #[test]
    fn the_arguments_of_version_1_1_have_their_types() {
        let network = |text: &str| text.parse::<IpNet>().unwrap();
        let name = |text: &str| Encoded(text.into());
        for (line, command) in [
            ("k= 17", Command::Kick { id: 17 }),
            ("ku= a%20b", Command::KickUser { name: name("a b") }),
            ("ku= 50%off", Command::KickUser { name: name("50%off") }),
            ("ka= 192.0.2.4", Command::KickAddress { network: network("192.0.2.4/32") }),
            ("ka= ::ffff:192.0.2.77/120", Command::KickAddress { network: network("192.0.2.0/24") }),
            ("ka= ::ffff:192.0.2.4", Command::KickAddress { network: network("192.0.2.4/32") }),
            ("b+ 192.0.2.77/24 60", Command::Ban { network: network("192.0.2.0/24"), seconds: 60 }),
            ("b+ 2001:db8::/32 4294967295", Command::Ban { network: network("2001:db8::/32"), seconds: u32::MAX }),
            ("b- ::1", Command::Unban { network: network("::1/128") }),
            ("at ana 100%20", Command::TestLogin { name: name("ana"), password: Hidden("100%20".into()), more: None }),
            ("l= debug", Command::SetLogLevel { level: Level::Debug }),
            ("d= 1", Command::SetDraining { on: true }),
            ("f", Command::Follow { name: None }),
            ("f ana", Command::Follow { name: Some(name("ana")) }),
            ("rp?", Command::Report { name: None }),
            ("rd? a%20b", Command::ReportByDay { name: Some(name("a b")) }),
            (
                "ft+ a%20b slow=10/s 2 60",
                Command::AddFault { who: name("a b"), what: "slow=10".parse().unwrap(), count: 2, seconds: 60 },
            ),
            ("ft-", Command::ClearFaults { id: None }),
            ("ft- 3", Command::ClearFaults { id: Some(3) }),
        ] {
            assert_eq!(parse(line), Ok(command), "{line}");
        }
        for line in [
            "k=",
            "k= -1",
            "k= x",
            "ku=",
            "ku= %ff",
            "ka= here",
            "ka= 192.0.2.0/33",
            "ka= 192.0.2.4:110",
            "b+ ::1",
            "b+ ::1 -5",
            "b+ ::1 1h",
            "b+ ::1 4294967296",
            "b- x",
            "i?",
            "at ana",
            "l= loud",
            "l= off",
            "d= 2",
            "d= on",
            "d=",
            "f ",
            "f %ff",
            "ft+ * no-uidl 1",
            "ft+ * no-mail 1 1",
            "ft+ * slow 1 1",
            "ft+ * no-uidl 1 1m",
            "ft- x",
        ] {
            assert_eq!(parse(line), Err(ErrorCode::BadSyntax), "{line}");
        }
    }

    #[test]
    fn version_1_1_lists_each_of_its_commands() {
        for commencement in VERSION_1_1 {
            let without_arguments = parse(commencement);
            assert!(without_arguments.is_ok() || without_arguments == Err(ErrorCode::BadSyntax), "{commencement}");
        }
        assert!(!VERSION_1_1.contains(&"cap?"));
    }

    #[test]
    fn viewers_may_ask_and_follow() {
        for line in ["cap?", "w?", "i? ana", "f", "f ana", "q", "m?", "mt?", "ex?", "rp?", "rd? ana", "ft?", "tr?"] {
            assert!(parse(line).unwrap().is_for_viewers(), "{line}");
        }
        for line in [
            "k= 1",
            "at ana x",
            "d= 0",
            "r",
            "u+ a b",
            "+a a b",
            "b- ::1",
            "l= info",
            "ex",
            "ft-",
            "ft+ * auth 1 1",
            "tr= ana 0",
            "tt ana 1",
        ] {
            assert!(!parse(line).unwrap().is_for_viewers(), "{line}");
        }
    }

    #[test]
    fn integers_saturate() {
        assert_eq!(parse("c= 99999999999999999999"), Ok(Command::SetMaxConnections { limit: i64::MAX }));
        assert_eq!(parse("t= -99999999999999999999"), Ok(Command::SetTimeout { seconds: i64::MIN }));
        assert_eq!(parse("t= -1"), Ok(Command::SetTimeout { seconds: -1 }));
        assert_eq!(parse("c= 007"), Ok(Command::SetMaxConnections { limit: 7 }));
    }

    fn any_command() -> impl Strategy<Value = Command> {
        let word = || "[!-~é]{1,64}".prop_filter("an argument", |text| is_argument(text));
        let name = || ".{1,10}".prop_map(Encoded);
        let network = || {
            let address = || any::<std::net::IpAddr>().prop_map(|address| address.to_canonical());
            (address(), 0..=32u8).prop_map(|(address, prefix)| IpNet::new(address, prefix).unwrap().trunc())
        };
        prop_oneof![
            (word(), word()).prop_map(|(name, password)| Command::AddUser { name, password: Hidden(password) }),
            word().prop_map(|name| Command::DeleteUser { name }),
            word().prop_map(|path| Command::SetMaildir { path }),
            any::<i64>().prop_map(|limit| Command::SetMaxConnections { limit }),
            any::<i64>().prop_map(|seconds| Command::SetTimeout { seconds }),
            prop::sample::select(vec![
                Command::Capabilities,
                Command::Quit,
                Command::Users,
                Command::MaxConnections,
                Command::Maildir,
                Command::Timeout,
                Command::RetrievedBytes,
                Command::RetrievedEmails,
                Command::RemovedEmails,
                Command::CurrentConnections,
                Command::CurrentUsers,
                Command::AllConnections,
                Command::AllLogins,
                Command::Sessions,
                Command::Bans,
                Command::Statistics,
                Command::Errors,
                Command::LogLevel,
                Command::Draining,
                Command::Reload,
                Command::Metrics,
                Command::Expire,
                Command::WouldExpire,
                Command::Faults,
                Command::Untransformed,
            ]),
            any::<u64>().prop_map(|id| Command::Kick { id }),
            name().prop_map(|name| Command::KickUser { name }),
            network().prop_map(|network| Command::KickAddress { network }),
            (network(), any::<u32>()).prop_map(|(network, seconds)| Command::Ban { network, seconds }),
            network().prop_map(|network| Command::Unban { network }),
            name().prop_map(|name| Command::AboutUser { name }),
            (name(), word(), proptest::option::of(name())).prop_map(|(name, password, more)| Command::TestLogin {
                name,
                password: Hidden(password),
                more
            }),
            prop::sample::select(Level::iter().collect::<Vec<_>>()).prop_map(|level| Command::SetLogLevel { level }),
            any::<bool>().prop_map(|on| Command::SetDraining { on }),
            proptest::option::of(name()).prop_map(|name| Command::Follow { name }),
            name().prop_map(|name| Command::Deletions { name }),
            proptest::option::of(name()).prop_map(|name| Command::Report { name }),
            proptest::option::of(name()).prop_map(|name| Command::ReportByDay { name }),
            name().prop_map(|id| Command::Undelete { id }),
            (name(), any::<u16>(), any::<u32>(), any::<u32>()).prop_map(|(who, octets, count, seconds)| {
                let what = format!("reset-after={octets}").parse().unwrap();
                Command::AddFault { who, what, count, seconds }
            }),
            proptest::option::of(any::<u64>()).prop_map(|id| Command::ClearFaults { id }),
            (name(), any::<u32>()).prop_map(|(name, seconds)| Command::UndeleteSince { name, seconds }),
            (name(), any::<bool>()).prop_map(|(name, on)| Command::SetTransform { name, on }),
            (name(), any::<u32>()).prop_map(|(name, number)| Command::TestTransform { name, number }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(command in any_command()) {
            let line = command.to_string();
            prop_assert!(line.len() + 2 <= LINE_LIMIT);
            prop_assert_eq!(parse(&line), Ok(command));
        }

        #[test]
        fn no_octets_panic(line in proptest::collection::vec(any::<u8>(), 0..300), authenticated: bool) {
            let _ = Command::parse(&line, authenticated);
        }
    }
}
