//! The settings that a running server has, as PEEP's `s?` shows them. They come from the declaration of the flags, like those
//! of `pop3d show`, so that a new setting is among them without further work.

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory};

use super::file::keys;
use super::{Args, show};
use crate::settings::{InForce, Setting};

/// The settings whose values are, or name, the files and programs with secrets. Only the admin sees them.
const PRIVATE: [&str; 5] = ["accounts", "peep-admin-file", "tls-key", "transform", "users"];

/// The longest value that is shown, in octets. Each may be three on the wire, where a line has at most 512.
const LONGEST: usize = 128;

/// The settings of these flags. The log's level is not among them, as two flags say it together.
pub(super) fn of(flags: &ArgMatches) -> InForce {
    let command = Args::command();
    let is_wanted = |flag: &&Arg| flag.get_action().takes_values() || matches!(flag.get_action(), ArgAction::SetTrue);
    keys(&command).filter(is_wanted).map(|flag| setting(flag, flags)).collect()
}

fn setting(flag: &Arg, flags: &ArgMatches) -> Setting {
    let key = flag.get_long().unwrap_or_default().to_owned();
    let is_private = show::has_password(flag) || PRIVATE.contains(&&*key);
    let value = match flag.get_action() {
        ArgAction::SetTrue => Some(u8::from(flags.get_flag(flag.get_id().as_str())).to_string()),
        _ => show::values(flag, flags).map(|values| values.join(",")).filter(|value| !value.is_empty()).map(short),
    };
    let is_given = flags.value_source(flag.get_id().as_str()) == Some(ValueSource::CommandLine);
    Setting { key, value, is_private, is_given }
}

fn short(mut value: String) -> String {
    if value.len() > LONGEST {
        value.truncate(value.floor_char_boundary(LONGEST - "...".len()));
        value.push_str("...");
    }
    value
}

#[cfg(test)]
mod tests {
    use super::super::Task;
    use super::*;

    fn in_force(flags: &[&str]) -> InForce {
        let words = ["pop3d"].iter().chain(flags).map(Into::into).collect();
        let Ok(Task::Serve(args)) = Task::parse(words) else { panic!("{flags:?}") };
        args.in_force
    }

    #[track_caller]
    fn value(settings: &InForce, key: &str) -> Option<String> {
        settings.iter().find(|setting| setting.key == key).unwrap().value.clone()
    }

    #[test]
    fn each_setting_has_its_value_or_default() {
        let flags = ["-m", "/srv", "-u", "ana:secret", "-u", "bob:x", "--per-address", "7", "--allow-cleartext"];
        let settings = in_force(&flags);
        for (key, expected) in [
            ("mailbox", Some("/srv")),
            ("user", Some("ana:(hidden),bob:(hidden)")),
            ("peep-admin", Some("root:(hidden)")),
            ("per-address", Some("7")),
            ("allow-cleartext", Some("1")),
            ("peep-tls", Some("0")),
            ("timeout", Some("600")),
            ("deletes", Some("remove")),
            ("state", None),
            ("users", None),
        ] {
            assert_eq!(value(&settings, key).as_deref(), expected, "{key}");
        }
        let all: Vec<_> = settings.iter().map(|setting| &*setting.key).collect();
        assert!(PRIVATE.iter().all(|key| all.contains(key)), "{all:?}");
        assert!(settings.iter().any(|setting| setting.key == "user" && setting.is_private));
        assert!(!settings.iter().any(|setting| setting.key == "timeout" && setting.is_private));
    }

    #[test]
    fn settings_that_need_a_restart_stay() {
        let (before, after) = (in_force(&["-T", "5", "-c", "7"]), in_force(&["-T", "6", "-c", "8"]));
        let mixed = after.keeping(&["timeout"].into(), &before);
        assert_eq!((value(&mixed, "timeout"), value(&mixed, "max-connections")), (Some("5".into()), Some("8".into())));
    }

    #[test]
    fn a_long_value_is_cut() {
        assert_eq!(short("é".repeat(70)), "é".repeat(62) + "...");
        assert_eq!(short("é".repeat(64)), "é".repeat(64));
    }
}
