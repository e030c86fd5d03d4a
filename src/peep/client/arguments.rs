//! The program's arguments before clap reads them: long options with one dash or two, and those of a profile.

use std::ffi::OsString;

use clap::{Arg, CommandFactory};

use super::Options;
use super::profile;

/// The arguments for clap: those of the selected profile, then the program's own.
///
/// # Errors
/// A message if there is no such profile or it cannot be used.
pub(super) fn with_profile(arguments: impl IntoIterator<Item = OsString>) -> Result<Vec<OsString>, String> {
    let mut arguments = with_two_dashes(arguments);
    let options: Vec<_> =
        arguments.iter().skip(1).map(|it| it.to_string_lossy()).take_while(|it| *it != "--").collect();
    let selected = options.iter().rev().find_map(|it| it.strip_prefix("-@=").or_else(|| it.strip_prefix("--profile=")));
    let names = options.iter().filter_map(|it| it.strip_prefix("--"));
    let given: Vec<_> = names.map(|it| it.split_once('=').map_or(it, |(name, _)| name).to_owned()).collect();
    let flags = profile::flags(profile::path().as_deref(), selected, &given)?;
    let behind_the_name = 1.min(arguments.len());
    arguments.splice(behind_the_name..behind_the_name, flags);
    Ok(arguments)
}

/// Rewrites long options to the form that clap expects, `--name=VALUE`, and ends them with `--`. A value may then begin
/// with a dash, and so may the words of a command (`set timeout -1`).
pub(super) fn with_two_dashes(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut program = Options::command();
    program.build();
    let mut arguments = arguments.into_iter();
    let mut rewritten: Vec<_> = arguments.next().into_iter().collect();
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy();
        let Some(dashless) = text.strip_prefix('-').filter(|rest| !rest.is_empty() && *rest != "-") else {
            // A report's form may be given behind it: `report ana --csv`.
            let is_report = text.eq_ignore_ascii_case("report");
            let (forms, words): (Vec<_>, Vec<_>) =
                arguments.partition(|it| is_report && (it == "--csv" || it == "--json"));
            rewritten.extend(forms);
            if text != "--" {
                rewritten.push("--".into());
            }
            rewritten.push(argument);
            rewritten.extend(words);
            break;
        };
        let option = dashless.strip_prefix('-').unwrap_or(dashless);
        let name = option.split_once('=').map_or(option, |(name, _)| name);
        let is_meant = |known: &&Arg| {
            known.get_long() == Some(name) || known.get_short().is_some_and(|short| name == short.to_string())
        };
        let known = program.get_arguments().find(is_meant);
        let one_dash_too_few = !text.starts_with("--") && name.len() > 1; // a short option is one dash and one letter
        let mut long = OsString::from(if one_dash_too_few { "-" } else { "" });
        long.push(&argument);
        if known.is_some_and(|known| known.get_action().takes_values())
            && name == option
            && let Some(value) = arguments.next()
        {
            long.push("=");
            long.push(value);
        }
        rewritten.push(long);
    }
    rewritten
}
