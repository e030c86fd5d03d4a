//! Writes the documents of the package, from the declaration of the flags and from the manual: manual pages, completions
//! for shells, and the reference of the configuration file.
//!
//! `cargo run --example documents -- DIRECTORY` writes `DIRECTORY/man` (pages in roff, and the manual's pages in Markdown,
//! which lowdown turns into roff) and `DIRECTORY/completions`.

use std::env;
use std::error::Error;
use std::fmt::Write;
use std::fs::{self, File};
use std::path::Path;

use clap::{Arg, ArgAction, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use pop3d::{bench, config, manual, peep};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = env::args_os().nth(1).ok_or("usage: documents DIRECTORY")?;
    let (man, completions) = (Path::new(&directory).join("man"), Path::new(&directory).join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;

    let programs = [(config::command(), "8"), (peep::client::Options::command(), "1"), (bench::Args::command(), "1")];
    for (command, section) in programs {
        let name = command.get_name().to_owned();
        let page = Man::new(command.clone()).section(section);
        page.render(&mut File::create(man.join(format!("{name}.{section}")))?)?;
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            clap_complete::generate_to(shell, &mut command.clone(), &name, &completions)?;
        }
    }

    let page = titled("pop3d.toml", "the configuration file of pop3d", &configuration_file());
    fs::write(man.join("pop3d.toml.5.md"), page)?;
    for page in manual::PAGES {
        // The protocol has a page of its own; the others are about the server.
        let name = if page.name == "peep" { "peep".to_owned() } else { format!("pop3d-{}", page.name) };
        let body = page.text.split_once('\n').map_or("", |(_, body)| body);
        fs::write(man.join(format!("{name}.7.md")), titled(&name, page.summary(), body))?;
    }
    Ok(())
}

/// Puts the heading of manual pages, which apropos(1) reads, before a page.
fn titled(name: &str, summary: &str, body: &str) -> String {
    format!("# NAME\n\n{name} - {summary}\n\n# DESCRIPTION\n{body}")
}

/// Writes the page about the configuration file, whose keys are the server's flags.
fn configuration_file() -> String {
    let mut text = String::from(
        "\n`pop3d --config FILE` reads settings from a file in TOML. Each key has the name of a flag of the server. A \
         flag on the command line overrides the key in the file. A table's name is the beginning of its keys' names: `cert` \
         in the table `[tls]` is `tls-cert`. The key `command` in the table `[transform]` is `transform`.\n\n\
         `pop3d check --config FILE` checks whether a server with this file would start. \
         `pop3d show --explain --config FILE` prints all settings in force.\n\n## Settings\n",
    );
    for flag in config::keys(&config::command()) {
        let _ = writeln!(text, "\n### {}\n\n{}. {}", key(flag), help(flag), kind(flag));
    }
    text
}

fn key(flag: &Arg) -> &str {
    flag.get_long().unwrap_or_default()
}

fn help(flag: &Arg) -> String {
    flag.get_help().map(ToString::to_string).unwrap_or_default()
}

/// Describes the values that a key takes.
fn kind(flag: &Arg) -> String {
    let names = || flag.get_value_names().unwrap_or_default().join(" ");
    let default = flag.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
    let default = default.map_or_else(String::new, |value| format!(" Default: `{value}`."));
    match flag.get_action() {
        ArgAction::SetTrue => "`true` or `false` (the default).".to_owned(),
        ArgAction::Count => "A number. Default: `0`.".to_owned(),
        ArgAction::Append => format!("A list of strings `{}`, or a single one.{default}", names()),
        _ if config::is_number(flag) => format!("A number, `{}`.{default}", names()),
        _ => format!("A string, `{}`.{default}", names()),
    }
}
