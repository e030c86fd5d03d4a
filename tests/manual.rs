//! The manual and the README: their commands print what the pages show, and their tables of flags match the programs.
//!
//! In a ```` ```console ```` block, a line with `$ ` begins a command, lines with `> ` continue it, and the lines after
//! it are its output. The test runs the commands by bash in an empty directory, and in a network and a process
//! namespace of their own, so that the default ports are free and every process ends with the test. A `console
//! continued` block continues the session of the block before it. A `console not-run: WHY` block is not run.
//!
//! In the output, a line `…` stands for any number of lines, and `…` within a line for any text. The stderr of a
//! command that ends in `&` is not compared, because a server logs there. The next command starts when the background
//! command has printed as many lines as the page shows.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use clap::{Arg, CommandFactory};
use pop3d::manual::{PAGES, Page};

use crate::harness::{ChildGuard, PROGRAM, can_unshare, lines_of, unshare};

/// How long one command of a page may take.
const LIMIT: Duration = Duration::from_secs(30);

/// The namespaces in which the commands of a page run.
const NAMESPACES: [&str; 5] = ["--net", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// The languages of blocks that show files or output, and no commands.
const SHOWN: [&str; 4] = ["", "text", "ini", "toml"];

macro_rules! run_the_commands_of {
    ($($page:ident),+) => {
        $(#[test]
        fn $page() {
            run_page(stringify!($page), Page::named(stringify!($page)).unwrap().text);
        })+

        #[test]
        fn this_list_has_every_page_of_the_manual() {
            assert_eq!(PAGES.iter().map(|page| page.name).collect::<Vec<_>>(), [$(stringify!($page)),+]);
        }
    };
}

run_the_commands_of!(
    administration,
    accounts,
    maildrops,
    migration,
    transforms,
    security,
    hosts,
    capacity,
    peep,
    pop3,
    testing,
    faults,
    popbench,
    performance,
    architecture
);

#[test]
fn readme() {
    run_page("README.md", include_str!("../README.md"));
}

// ---------------------------------------------------------------------------------------------------------------------
// pop3d help

#[test]
fn help_lists_the_pages_and_prints_each() {
    let (code, stdout, _) = pop3d(&["help"]);
    assert_eq!(code, Some(0));
    for page in PAGES {
        assert!(stdout.lines().any(|line| line.contains(page.name) && line.ends_with(page.summary())), "{stdout}");
        let (code, stdout, _) = pop3d(&["help", page.name]);
        assert_eq!((code, &*stdout), (Some(0), page.text));
    }
}

#[test]
fn help_for_an_unknown_page_fails_and_names_the_pages() {
    let (code, stdout, stderr) = pop3d(&["help", "me"]);
    assert_eq!((code, &*stdout), (Some(2), ""));
    for page in PAGES {
        assert!(stderr.contains(page.name), "{stderr}");
    }
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn help_ends_with_success_when_its_reader_has_closed_the_pipe() {
    for arguments in [&["help"][..], &["help", "security"]] {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(PROGRAM);
        command.args(arguments).stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped());
        let mut child = ChildGuard(command.spawn().unwrap());
        let code = child.wait().code();
        let mut stderr = lines_of(child.0.stderr.take().unwrap()).into_iter();
        assert_eq!((code, stderr.next()), (Some(0), None), "{arguments:?}");
    }
}

/// Runs `pop3d` with arguments that make it end by itself. Returns its exit code, stdout and stderr.
fn pop3d(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = ChildGuard(command.spawn().unwrap());
    let (stdout, stderr) = (lines_of(child.0.stdout.take().unwrap()), lines_of(child.0.stderr.take().unwrap()));
    let code = child.wait().code();
    let text = |lines: Receiver<String>| lines.into_iter().fold(String::new(), |text, line| text + &line + "\n");
    (code, text(stdout), text(stderr))
}

// ---------------------------------------------------------------------------------------------------------------------
// Tables of flags

#[test]
fn tables_of_flags_match_the_programs() {
    let expected = [
        ("administration", table(pop3d::config::Args::command())),
        ("peep", table(pop3d::peep::client::Options::command())),
        ("popbench", table(pop3d::bench::Args::command())),
    ];
    let mut missing = String::new();
    for (page, table) in expected {
        if !Page::named(page).unwrap().text.contains(&table) {
            writeln!(missing, "src/manual/{page}.md has to contain this table:\n\n{table}\n").unwrap();
        }
    }
    assert!(missing.is_empty(), "{missing}");
}

/// Each kind of account sources has its heading, and below it the table of its keys.
/// A wrong key or value would be found by a reader in the middle of a move.
#[test]
fn the_settings_of_the_migration_page_are_accepted() {
    let rows =
        Page::named("migration").unwrap().text.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let code = rows.flat_map(|(_, ours)| ours.split('`').skip(1).step_by(2));
    // The keys of account sources are another table's, and those pages run examples of them.
    let of_sources = ["kind", "service", "url", "password-file", "query", "names-statement", "active"];
    let key = |code: &str| code.split(" = ").next().unwrap_or_default().to_owned();
    let settings: BTreeSet<&str> =
        code.filter(|code| code.contains(" = ") && !of_sources.contains(&key(code).as_str())).collect();
    assert!(settings.len() > 25, "{settings:?}");
    let file = tempfile::NamedTempFile::new().unwrap();
    for setting in settings {
        // NET is what the operator has to fill in.
        fs::write(&file, setting.replace("NET", "192.0.2.0/24")).unwrap();
        let (code, _, stderr) = pop3d(&["show", "--config", file.path().to_str().unwrap()]);
        // Some need another setting as well, or a user that the old server has.
        let is_alone = ["required arguments were not provided", "there is no such user"];
        assert!(code == Some(0) || is_alone.iter().any(|why| stderr.contains(why)), "{setting}: {stderr}");
    }
}

#[test]
fn tables_of_account_sources_match_the_program() {
    let page = &Page::named("accounts").unwrap().text;
    let mut missing = String::new();
    for kind in pop3d::config::kinds().get_subcommands() {
        let heading = format!("### kind = \"{}\"", kind.get_name());
        let mut expected = "| key | default | meaning |\n|---|---|---|\n".to_owned();
        for key in pop3d::config::keys(kind) {
            let (default, meaning) = meaning(key);
            writeln!(expected, "{}", row(&[&format!("`{}`", key.get_long().unwrap()), &default, &meaning])).unwrap();
        }
        let section = page.split_once(&format!("\n{heading}\n")).map(|(_, rest)| rest.split("\n### ").next().unwrap());
        if !section.is_some_and(|section| section.contains(&expected)) {
            writeln!(missing, "src/manual/accounts.md has to contain this:\n\n{heading}\n\n{expected}\n").unwrap();
        }
    }
    assert!(missing.is_empty(), "{missing}");
}

/// The settings that a reload does not change.
#[test]
fn the_table_of_what_needs_a_restart_is_that_of_the_program() {
    let text = &Page::named("administration").unwrap().text;
    let (_, table) = text.split_once("| a change of these needs a restart |").expect("the table is there");
    let begins = |row: &&str| row.starts_with("| `");
    let shown: Vec<_> =
        table.lines().skip(2).take_while(begins).map(|row| row.split('`').nth(1).unwrap().to_owned()).collect();
    let fixed = pop3d::config::fixed();
    assert_eq!(shown.into_iter().collect::<std::collections::BTreeSet<_>>(), fixed);
}

/// The tables of a program's flags in Markdown: one for the flags without a heading, then one for each heading.
fn table(mut program: clap::Command) -> String {
    program.build();
    let mut text = String::new();
    let mut heading = Some("");
    for flag in program.get_arguments().filter(|flag| flag.get_long().is_some()) {
        if ["help", "version"].contains(&flag.get_id().as_str()) {
            continue;
        }
        if heading != flag.get_help_heading() {
            heading = flag.get_help_heading();
            let title = heading.map(|title| format!("\n### {title}\n\n")).unwrap_or_default();
            write!(text, "{title}| flag | default | meaning |\n|---|---|---|\n").unwrap();
        }
        let (default, meaning) = meaning(flag);
        writeln!(text, "{}", row(&[&spelling(flag), &default, &meaning])).unwrap();
    }
    text
}

/// A row of a table in Markdown. An empty cell is a single space.
fn row(cells: &[&str]) -> String {
    cells.iter().fold("|".to_owned(), |row, cell| row + " " + cell + if cell.is_empty() { "|" } else { " |" })
}

/// The forms of a flag, for example `-m`, `--mailbox DIR`, `--maildir`.
fn spelling(flag: &Arg) -> String {
    let long = flag.get_long().unwrap_or_default();
    let value = flag.get_value_names().and_then(|names| names.first()).map(ToString::to_string).unwrap_or_default();
    let value = match flag.get_num_args() {
        _ if !flag.get_action().takes_values() => String::new(),
        Some(number) if number.min_values() == 0 => format!("[={value}]"),
        _ => format!(" {value}"),
    };
    let short = flag.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
    let others = flag.get_visible_aliases().unwrap_or_default();
    let others: String = others.iter().map(|other| format!(", `--{other}`")).collect();
    format!("{short}`--{long}{value}`{others}")
}

/// The default of a flag, and the first sentence of its help with the values to choose from.
fn meaning(flag: &Arg) -> (String, String) {
    let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
    let (help, told) = help.split_once(" [default: ").unwrap_or((&help, ""));
    let own: Vec<_> = flag.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default = match (flag.get_action().takes_values(), &own[..]) {
        (true, [_, ..]) => own.join(", "),
        _ => told.trim_end_matches(']').to_owned(),
    };
    let sentence = help.split(". ").next().unwrap_or_default().trim_end_matches('.');
    let values: Vec<_> = flag.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let values = match (flag.get_action().takes_values(), &values[..]) {
        (true, [_, ..]) if !flag.is_hide_possible_values_set() => format!(" ({})", values.join(", ")),
        _ => String::new(),
    };
    (default.replace('|', "\\|"), format!("{sentence}{values}").replace('|', "\\|"))
}

// ---------------------------------------------------------------------------------------------------------------------
// Commands

/// One command of a page with its expected output.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    line: usize,
    command: String,
    expected: Vec<String>,
}

impl Step {
    fn is_in_background(&self) -> bool {
        self.command.trim_end().ends_with('&')
    }
}

/// The sessions of a page. Each is a list of commands that starts in an empty directory.
fn sessions(text: &str) -> Vec<Vec<Step>> {
    let mut sessions: Vec<Vec<Step>> = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let Some(language) = line.strip_prefix("```") else { continue };
        let block: Vec<_> = lines.by_ref().take_while(|(_, line)| *line != "```").collect();
        match language {
            "console" => sessions.push(steps(&block)),
            "console continued" => sessions.last_mut().expect("there is a block to continue").extend(steps(&block)),
            _ if language.strip_prefix("console not-run: ").is_some_and(|why| !why.is_empty()) => {}
            _ => assert!(SHOWN.contains(&language), "line {}: unknown kind of block: {language}", at + 1),
        }
    }
    sessions
}

fn steps(block: &[(usize, &str)]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for &(at, line) in block {
        let last = steps.last_mut();
        match (line.strip_prefix("$ "), line.strip_prefix("> "), last) {
            (Some(command), ..) => {
                steps.push(Step { line: at + 1, command: command.to_owned(), expected: Vec::new() });
            }
            (_, Some(more), Some(step)) if step.expected.is_empty() => write!(step.command, "\n{more}").unwrap(),
            (.., Some(step)) => step.expected.push(line.to_owned()),
            (.., None) => panic!("line {}: a block has to begin with a command", at + 1),
        }
    }
    steps
}

/// Runs each session of a page.
fn run_page(name: &str, text: &str) {
    let sessions = sessions(text);
    if sessions.is_empty() {
        return;
    }
    if !can_unshare(&NAMESPACES, "true") {
        return;
    }
    for session in &sessions {
        run(name, session);
    }
}

/// Runs a session and compares the output of each command with the page.
fn run(name: &str, session: &[Step]) {
    let directory = tempfile::tempdir().unwrap();
    let work = directory.path().join("work");
    fs::create_dir(&work).unwrap();
    if session.iter().any(|step| step.command.contains(" scripts/")) {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
        std::os::unix::fs::symlink(scripts, work.join("scripts")).unwrap();
    }
    // A server with `--run-as` has to reach the directory.
    for open in [directory.path(), &work] {
        fs::set_permissions(open, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    if session.iter().any(|step| step.command.starts_with("scripts/")) {
        std::os::unix::fs::symlink(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts"), work.join("scripts"))
            .unwrap();
    }
    let programs = Path::new(PROGRAM).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let script = directory.path().join("script");
    fs::write(&script, script_for(session, directory.path())).unwrap();
    let mut command = unshare(&NAMESPACES);
    command.arg("bash").arg(&script).current_dir(&work);
    command.env("PATH", path).env("HOME", &work).env("LC_ALL", "C.UTF-8").env_remove("PEEP_PASSWORD");
    let mut child = ChildGuard(command.stdout(Stdio::piped()).spawn().unwrap());
    let done = lines_of(child.0.stdout.take().unwrap());
    for (number, step) in session.iter().enumerate() {
        let place = format!("{name}, line {}: {}", step.line, step.command);
        let printed = || lines(&directory.path().join(format!("{number}.out")));
        if let Err(error) = done.recv_timeout(LIMIT) {
            panic!("{place}\ndid not end within {LIMIT:?} ({error}); it printed\n{}", printed().join("\n"));
        }
        let printed = printed();
        assert!(
            matches(&step.expected, &printed),
            "{place}\nprinted\n{}\ninstead of\n{}",
            printed.join("\n"),
            step.expected.join("\n")
        );
    }
}

/// The lines of a file without their line ends.
fn lines(file: &Path) -> Vec<String> {
    let octets = fs::read(file).unwrap_or_default();
    String::from_utf8_lossy(&octets).lines().map(str::to_owned).collect()
}

/// A bash script that runs the commands of a session and prints `done` after each.
fn script_for(session: &[Step], directory: &Path) -> String {
    let mut script = "ip link set lo up\nexec 19>&1\n".to_owned();
    for (number, step) in session.iter().enumerate() {
        let file = |kind| directory.join(format!("{number}.{kind}"));
        fs::write(file("command"), &step.command).unwrap();
        let [command, out, log] = ["command", "out", "log"].map(|kind| file(kind).display().to_string());
        let errors = if step.is_in_background() { log.as_str() } else { "&1" };
        writeln!(script, "{{ eval \"$(< {command})\"; }} >{out} 2>{errors} </dev/null 19>&-").unwrap();
        if step.is_in_background() {
            let count = step.expected.iter().filter(|line| *line != "…").count();
            writeln!(script, "until (($(wc -l <{out}) >= {count})); do sleep 0.02; done").unwrap();
        }
        writeln!(script, "echo done >&19").unwrap();
    }
    script
}

/// Returns true if the lines match the expected ones, in which `…` stands for any lines or any text.
fn matches(expected: &[String], actual: &[String]) -> bool {
    match expected.split_first() {
        None => actual.is_empty(),
        Some((any, rest)) if any == "…" => (0..=actual.len()).any(|skipped| matches(rest, &actual[skipped..])),
        Some((line, rest)) => actual.split_first().is_some_and(|(printed, others)| {
            line_matches(line, printed.trim_end_matches('\r')) && matches(rest, others)
        }),
    }
}

fn line_matches(expected: &str, actual: &str) -> bool {
    let mut parts = expected.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = actual.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some((_, behind)) = rest.split_once(part) else { return false };
        rest = behind;
    }
    rest.ends_with(last)
}

#[test]
fn blocks_are_parsed_into_commands_and_their_output() {
    let text = "a\n```console\n$ one\nout\n$ two \\\n>   more\n\n> shown\n```\n```console continued\n$ three &\n```\n";
    let step = |line, command: &str, expected: &[&str]| Step {
        line,
        command: command.to_owned(),
        expected: expected.iter().map(ToString::to_string).collect(),
    };
    let first = [step(3, "one", &["out"]), step(5, "two \\\n  more", &["", "> shown"]), step(11, "three &", &[])];
    assert_eq!(sessions(text), [first]);
    assert!(sessions("```console not-run: it needs a network\n$ false\n```\n```text\nx\n```\n").is_empty());
}

#[test]
fn output_is_compared_with_wildcards() {
    let matches = |expected: &str, actual: &str| {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        matches(&lines(expected), &lines(actual))
    };
    assert!(matches("a\n…\nd", "a\nb\nc\nd") && matches("a\n…", "a") && matches("at …Z <…>", "at 12:00Z <x@y>"));
    assert!(matches("a", "a\r\n") && matches("", ""));
    for (expected, actual) in [("a", "a\nb"), ("a\nb", "a"), ("a…", "b"), ("a…c", "ab"), ("a\n…\nd", "a\nb"), ("", "a")]
    {
        assert!(!matches(expected, actual), "{expected:?} {actual:?}");
    }
}
