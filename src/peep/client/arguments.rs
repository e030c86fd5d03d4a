//! The program's arguments before clap reads them: long options with one dash or two, and those of a profile.

use std::ffi::{OsStr, OsString};

use clap::{Arg, Command, CommandFactory};

use super::Options;
use super::phrases;
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
        if is_option(&argument) {
            rewritten.push(rewritten_option(&program, &argument, &mut arguments));
            continue;
        }
        if argument == "--" {
            rewritten.push(argument);
            rewritten.extend(arguments);
        } else {
            let mut words: Vec<_> = [argument].into_iter().chain(arguments).collect();
            rewritten.extend(options_behind(&program, &mut words));
            rewritten.push("--".into());
            rewritten.extend(words);
        }
        break;
    }
    rewritten
}

fn is_option(argument: &OsStr) -> bool {
    let text = argument.to_string_lossy();
    text.starts_with('-') && text != "-" && text != "--"
}

/// The program's option that an argument means, and its name as it is written, without the value behind `=`.
fn meant<'a>(program: &'a Command, text: &'a str) -> (Option<&'a Arg>, &'a str) {
    let dashless = text.strip_prefix("--").or_else(|| text.strip_prefix('-')).unwrap_or(text);
    let name = dashless.split_once('=').map_or(dashless, |(name, _)| name);
    let is_it = |known: &&Arg| {
        known.get_long() == Some(name) || known.get_short().is_some_and(|short| name == short.to_string())
    };
    (program.get_arguments().find(is_it), name)
}

/// Rewrites one option. Its value may be the next argument.
fn rewritten_option(program: &Command, argument: &OsStr, rest: &mut impl Iterator<Item = OsString>) -> OsString {
    let text = argument.to_string_lossy();
    // The profile may follow without a space, as in `-@prod`.
    if let Some(profile) = text.strip_prefix("-@").filter(|profile| !profile.is_empty() && !profile.starts_with('=')) {
        return format!("-@={profile}").into();
    }
    let (known, name) = meant(program, &text);
    let one_dash_too_few = !text.starts_with("--") && name.len() > 1; // a short option is one dash and one letter
    let mut long = OsString::from(if one_dash_too_few { "-" } else { "" });
    long.push(argument);
    if known.is_some_and(|known| known.get_action().takes_values())
        && !text.contains('=')
        && let Some(value) = rest.next()
    {
        long.push("=");
        long.push(value);
    }
    long
}

/// Takes the options out of `words` that are behind a whole command, as in `sessions --json`. A word that the command
/// still needs is not one: a user may be called `--json`.
fn options_behind(program: &Command, words: &mut Vec<OsString>) -> Vec<OsString> {
    let texts: Vec<_> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let is_known = |text: &str| is_option(OsStr::new(text)) && meant(program, text).0.is_some();
    let is_whole = |at: usize| {
        let before: Vec<_> = texts[..at].iter().map(String::as_str).collect();
        phrases::is_whole(&before)
    };
    let Some(at) = (1..texts.len()).find(|&at| is_known(&texts[at]) && is_whole(at)) else { return Vec::new() };
    let mut behind = words.split_off(at).into_iter();
    let mut options = Vec::new();
    while let Some(argument) = behind.next() {
        if is_option(&argument) {
            options.push(rewritten_option(program, &argument, &mut behind));
        } else {
            words.push(argument);
        }
    }
    options
}
