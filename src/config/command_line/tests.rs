//! What command lines and configuration files come to.

use super::*;
use std::fs;

fn parse(arguments: &[&str]) -> Result<Task, UsageError> {
    Task::parse([&["pop3d"], arguments].concat().into_iter().map(OsString::from).collect())
}

/// Parses these arguments together with a configuration file with this text.
fn parse_with(file: &str, arguments: &[&str]) -> Result<String, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pop3d.toml");
    fs::write(&path, file).unwrap();
    let path = path.to_str().unwrap();
    match parse(&[&["--config", path], arguments].concat()) {
        Ok(Task::Serve(args)) => Ok(format!("{args:?}").replace(&format!("Some({path:?})"), "None")),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.to_string().replace(path, "FILE")),
    }
}

/// Parses these arguments alone.
fn parse_alone(arguments: &[&str]) -> String {
    match parse(arguments).unwrap() {
        Task::Serve(args) => format!("{args:?}"),
        other => panic!("{other:?}"),
    }
}

const TWO_CERTIFICATES: [&str; 12] = [
    "--tls-cert",
    "c",
    "--tls-key",
    "k",
    "--tls-names",
    "a.example,*.b.example",
    "--tls-cert",
    "d",
    "--tls-key",
    "l",
    "--tls-names",
    "",
];

#[test]
fn each_flag_is_a_key() {
    let samples = [
        ("user = ['ana:x', 'bob:y']", &["-u", "ana:x", "-u", "bob:y"][..]),
        ("user = 'ana:x'", &["-u", "ana:x"]),
        ("mailbox = '/var/mail'", &["-m", "/var/mail"]),
        ("maildir = '/var/mail'", &["-m", "/var/mail"]),
        ("peep-admin = 'boss:x'", &["-a", "boss:x"]),
        ("[peep]\nadmin-file = '/etc/admin'", &["--peep-admin-file", "/etc/admin"]),
        ("[peep]\nviewer = ['eva:x', 'ben:y']", &["--peep-viewer", "eva:x", "--peep-viewer", "ben:y"]),
        (
            "peep-socket = '/run/peep'\npeep-socket-mode = '660'\npeep-socket-group = '0'",
            &["--peep-socket", "/run/peep", "--peep-socket-mode", "660", "--peep-socket-group", "0"],
        ),
        ("no-peep = true", &["--no-peep"]),
        ("pop3-port = 110\npeep-port = 0", &["-p", "110", "-P", "0"]),
        ("[transform]\ncommand = 'tr a b'\ntimeout = 5", &["-t", "tr a b", "--transform-timeout", "5"]),
        ("transform = 'cat'\ntransform-path = ['/opt']", &["-t", "cat", "--transform-path", "/opt"]),
        ("timeout = 0\nmax-connections = 1", &["-T", "0", "-c", "1"]),
        ("address = ['127.0.0.1', '::1']", &["--address", "127.0.0.1", "--address", "::1"]),
        ("[peep]\naddress = ['127.0.0.1']", &["--peep-address", "127.0.0.1"]),
        ("verbose = 2", &["-vv"]),
        ("quiet = 1", &["-q"]),
        ("log-file = 'log'", &["--log-file", "log"]),
        ("log-format = 'json'", &["--log-format", "json"]),
        ("metrics = '127.0.0.1:9110'", &["--metrics", "127.0.0.1:9110"]),
        (
            "tls = { cert = 'c', key = 'k' }\npop3s-port = 995",
            &["--tls-cert", "c", "--tls-key", "k", "--pop3s-port", "995"],
        ),
        (
            "[[tls]]\ncert = 'c'\nkey = 'k'\nnames = ['a.example', '*.b.example']\n[[tls]]\ncert = 'd'\nkey = 'l'",
            &TWO_CERTIFICATES,
        ),
        ("tls-cert = ['c', 'd']\ntls-key = ['k', 'l']\ntls-names = ['a.example,*.b.example', '']", &TWO_CERTIFICATES),
        (
            "[tls]\ncert = 'c'\nkey = 'k'\nnames = ['a.example', 'b.example']",
            &["--tls-cert", "c", "--tls-key", "k", "--tls-names", "a.example,b.example"],
        ),
        ("state = 's'\ntls-self-signed = true\npeep-tls = true", &["--state", "s", "--tls-self-signed", "--peep-tls"]),
        ("state = 's'\ntls-self-signed = 'mail.example'", &["--state", "s", "--tls-self-signed=mail.example"]),
        ("tls-self-signed = false\nallow-cleartext = false", &[]),
        ("allow-cleartext = true", &["--allow-cleartext"]),
        ("per-address = 3\ntrusted = ['192.0.2.0/24']", &["--per-address", "3", "--trusted", "192.0.2.0/24"]),
        ("limit-loopback = true\nmin-rate = '9:1'", &["--limit-loopback", "--min-rate", "9:1"]),
        (
            "lower-case-names = true\ndefault-domain = 'example.org'",
            &["--lower-case-names", "--default-domain", "example.org"],
        ),
        ("stats-log = 'f:5'\nusers = 'u'", &["--stats-log", "f:5", "--users", "u"]),
        (
            "users = 'u'\n[[accounts]]\nkind = 'users-file'\n[[accounts]]\nfile = 'a \"b'\nkind = 'users-file'",
            &["--users", "u", "--accounts", "kind = 'users-file'", "--accounts", "kind = 'users-file', file = 'a \"b'"],
        ),
        (
            "[[accounts]]\nkind = 'sql'\nurl = 'sqlite:/a'\nquery = 'SELECT 1'\nat-once = 4\ntls = 'off'",
            &["--accounts", "kind = 'sql', url = 'sqlite:/a', query = 'SELECT 1', at-once = 4, tls = 'off'"],
        ),
        (
            "[[accounts]]\nkind = 'program'\ncommand = 'c'\npath = ['/p', '/q']\nnetwork = true\nlimit = ['cpu=1']\n\
             timeout = '1m'\nat-once = 3\ncache = 'off'\ngrace = '1h'",
            &[
                "--accounts",
                "kind = 'program', command = 'c', path = ['/p', '/q'], network = true, limit = ['cpu=1'], \
              timeout = '1m', at-once = 3, cache = 'off', grace = '1h'",
            ],
        ),
        (
            "[[accounts]]\nkind = 'pam'\nservice = 's'\nprogram = '/p'\ntimeout = '1m'\nat-once = 3\ncache = 'off'\n\
             grace = '1h'",
            &[
                "--accounts",
                "kind = 'pam', service = 's', program = '/p', timeout = '1m', at-once = 3, cache = 'off', grace = '1h'",
            ],
        ),
        ("[[accounts]]\nkind = 'pam'\nsocket = '/s'", &["--accounts", "kind = 'pam', socket = '/s'"]),
        (
            "[[accounts]]\nkind = 'separate-users-file'\nfile = '/f'\ntimeout = '1m'\nat-once = 3",
            &["--accounts", "kind = 'separate-users-file', file = '/f', timeout = '1m', at-once = 3"],
        ),
        ("run-as = 'mail'\nallow-dir = ['/srv']", &["--run-as", "mail", "--allow-dir", "/srv"]),
        (
            "transform = 'cat'\ntransform-network = true\ntransform-limit = ['cpu=1', 'files=9']",
            &["-t", "cat", "--transform-network", "--transform-limit", "cpu=1,files=9"],
        ),
        (
            "transform = 'cat'\ntransform-sizes = 'exact'\ntransform-failure = 'original'",
            &["-t", "cat", "--transform-sizes", "exact", "--transform-failure", "original"],
        ),
        ("no-landlock = true", &["--no-landlock"]),
        ("confine = true", &["--confine"]),
        (
            "as-owner = true\nfirst-uid = 500\nmail-group = '8'",
            &["--as-owner", "--first-uid", "500", "--mail-group", "8"],
        ),
        (
            "proxy-from = ['192.0.2.1', '2001:db8::/64']\nproxy-tls = true",
            &["--proxy-from", "192.0.2.1", "--proxy-from", "2001:db8::/64", "--proxy-tls"],
        ),
        ("busy = 'take-over=60s'\nshared-maildrops = true", &["--busy", "take-over=60s", "--shared-maildrops"]),
        ("expire-read = 30\nexpire-all = 0", &["--expire-read", "30", "--expire-all", "0"]),
        ("deletes = 'trash=7'", &["--deletes", "trash=7"]),
        ("allow-faults = true\nfault = ['* no-uidl 0 0']", &["--allow-faults", "--fault", "* no-uidl 0 0"]),
        ("layout = 'flat'", &["--layout", "flat"]),
        (
            "unique-ids = 'dovecot'\ndovecot-uidl-format = '%v.%u'",
            &["--unique-ids", "dovecot", "--dovecot-uidl-format", "%v.%u"],
        ),
        (
            "seen = true\nhide-trashed = true\nfolders = ['INBOX', 'Junk']",
            &["--seen", "--hide-trashed", "--folders", "INBOX,Junk"],
        ),
    ];
    let mut seen = String::new();
    for (file, arguments) in samples {
        assert_eq!(parse_with(file, &[]).as_deref(), Ok(parse_alone(arguments).as_str()), "{file}");
        seen += &file
            .replace("[transform]\n", "transform-")
            .replace("[peep]\n", "peep-")
            .replace("timeout", " timeout transform-timeout");
    }
    let seen = seen.replace("tls = { cert = 'c', key", "tls-cert tls-key");
    for flag in super::super::file::keys(&Args::command()) {
        let name = flag.get_long().unwrap();
        assert!(seen.contains(name), "there is no sample of {name}");
    }
}

#[test]
fn the_command_line_wins() {
    let wins = |file: &str, arguments: &[&str]| {
        assert_eq!(parse_with(file, arguments).as_deref(), Ok(parse_alone(arguments).as_str()), "{file}");
    };
    wins("pop3-port = 110", &["-p", "0"]);
    wins("user = ['ana:x', 'bob:y']", &["-u", "ana:z"]);
    wins("verbose = 2", &["-q"]);
    wins("quiet = 2", &["-v"]);
    wins("tls-cert = 'c'\ntls-key = 'k'", &["--tls-self-signed", "--state", "s"]);
    wins("[[tls]]\ncert = 'c'\nkey = 'k'\nnames = ['a', 'b']", &["--tls-cert", "d", "--tls-key", "l"]);
}

#[test]
fn what_the_command_line_lacks_may_be_in_the_file() {
    let with_both = parse_with("[tls]\ncert = 'c'\nkey = 'k'", &["--pop3s-port", "0"]);
    assert_eq!(with_both.unwrap(), parse_alone(&["--tls-cert", "c", "--tls-key", "k", "--pop3s-port", "0"]));
}

#[test]
fn what_is_wrong_in_the_file_has_its_line_and_column() {
    for (file, expected) in [
        (
            "colour = 1",
            "FILE:1:1: there is no setting \"colour\": see pop3d --help for the flags; keys have the same names",
        ),
        ("\nmax-connection = 1", "FILE:2:1: there is no setting \"max-connection\"; there is \"max-connections\""),
        ("config = 'x'", "FILE:1:1: there is no setting \"config\"; there is \"confine\""),
        ("max-connections = 999", "FILE:1:19: max-connections: 999 is not in 1..=998"),
        ("pop3-port = '1110'", "FILE:1:13: pop3-port: it has to be a number, not a string"),
        ("mailbox = 5", "FILE:1:11: mailbox: it has to be a string, not a number"),
        ("peep-tls = 'yes'", "FILE:1:12: peep-tls: it has to be true or false, not a string"),
        ("timeout = 1.5", "FILE:1:11: timeout: it has to be a number, not a number with a point"),
        ("address = ['127.0.0.1', 'x']", "FILE:1:25: address: invalid IP address syntax"),
        ("user = ['ana:']", "FILE:1:9: user: the password is empty"),
        ("timeout = 1\ntimeout = 2", "FILE:2:1: duplicate key"),
        ("mailbox = '.'\nmaildir = '.'", "FILE:2:1: maildir is set twice, under two of its names"),
        ("\ntls-cert = 'c'", "FILE:2:1: the following required arguments were not provided: --tls-key <FILE>"),
        ("[[tls]]\ncert = 'c'", "FILE:1:1: the certificate has no \"key\""),
        (
            "[[tls]]\ncert = 'c'\nkey = 'k'\nname = 'n'",
            "FILE:4:1: a certificate has no \"name\"; it has cert, key, names",
        ),
        (
            "tls = [{ cert = 'c', key = 'k', names = ['a b'] }]",
            "FILE:1:41: tls-names: \"a b\" is not the name of a host, nor * and the names below one",
        ),
        ("[[accounts]]\nfile = 'u'", "FILE:1:1: accounts: an account source needs its \"kind\", which is one of KINDS"),
        (
            "[[accounts]]\nkind = 'users-file'\n[[accounts]]\nkind = 'ldap'",
            "FILE:4:8: accounts: kind: there are these kinds of account sources: KINDS",
        ),
        (
            "[[accounts]]\nkind = 'users-file'\nfiles = 'u'",
            "FILE:3:1: accounts: an account source of the kind users-file has no \"files\"; there is \"file\"",
        ),
        (
            "[[accounts]]\nkind = 'users-file'\nfile = 5",
            "FILE:3:8: accounts: file: it has to be a string, not a number",
        ),
        ("accounts = ['users-file']", "FILE:1:13: accounts: it has to be a list of tables"),
        ("[accounts]\nkind = 'users-file'", "FILE:1:2: accounts: it has to be a list, as in [[accounts]]"),
        (
            "timeout = 'a'\npop3-ports = 1",
            "FILE:1:11: timeout: it has to be a number, not a string\nFILE:2:1: there is no setting \"pop3-ports\"; there is \"pop3-port\"",
        ),
    ] {
        let kinds = crate::config::kinds();
        let kinds: Vec<_> = kinds.get_subcommands().map(Command::get_name).collect();
        let expected = expected.replace("KINDS", &kinds.join(", "));
        assert_eq!(parse_with(file, &[]).unwrap_err(), expected, "{file}");
    }
}

#[test]
fn no_password_is_shown() {
    for file in ["user = ['ana:hunter2\n']", "user = ['a/b:hunter2']", "user = 'hunter2'", "peep-admin = 'a:hunter2 2'"]
    {
        let error = parse_with(file, &[]).unwrap_err();
        assert!(error.starts_with("FILE:1:") && !error.contains("hunter2"), "{file}: {error}");
    }
}

#[test]
fn errors_are_reported_in_one_line_without_passwords() {
    let line = |arguments: &[&str]| parse(arguments).unwrap_err().to_string();
    for (arguments, expected) in [
        (&["hunter2"][..], "there is an argument that belongs to no flag (see --help)"),
        (&["-u", "ana:x", "hunter2"], "there is an argument that belongs to no flag (see --help)"),
        (&["--", "hunter2"], "there is an argument that belongs to no flag (see --help)"),
        (&["passwd", "hunter2"], "there is an argument that belongs to no flag (see --help)"),
        (&["-u", "ana:", "hunter2"], "there is an argument that belongs to no flag (see --help)"),
        (&["-u", "ana:"], "invalid value for '--user <NAME:PASSWORD>': the password is empty (see --help)"),
        (
            &["-u", "ana:hunter2", "passwd"],
            "the subcommand 'passwd' cannot be used with '--user <NAME:PASSWORD>' (see --help)",
        ),
        (&["--unknown", "hunter2"], "unexpected argument '--unknown' found (see --help)"),
    ] {
        assert_eq!(line(arguments), expected, "{arguments:?}");
    }
    let text = line(&["-u", "a/b:hunter2\n\nhunter2 hunter2"]);
    assert!(!text.contains("hunter2") && text.contains("--user"), "{text}");
}

#[test]
fn the_settings_shown_are_the_settings_meant() {
    let show = |file: &str, arguments: &[&str]| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pop3d.toml");
        fs::write(&path, file).unwrap();
        match parse(&[&["show", "--config", path.to_str().unwrap()], arguments].concat()).unwrap() {
            Task::Show(text) => text,
            other => panic!("{other:?}"),
        }
    };
    let file = "timeout = 5\naddress = ['127.0.0.1', '::1']\nmin-rate = \"9:1\"\nverbose = 1\nallow-cleartext = true";
    let shown = show(file, &["-u", "ana:hunter2", "-m", "/a \"b\""]);
    assert!(!shown.contains("hunter2") && shown.contains("# user = [\"ana:(hidden)\"]"), "{shown}");
    assert!(shown.contains("# max-connections = 998\n") && shown.contains("\ntimeout = 5\n"), "{shown}");
    let expected = parse_alone(&[
        "-T",
        "5",
        "--address",
        "127.0.0.1",
        "--address",
        "::1",
        "--min-rate",
        "9:1",
        "-v",
        "--allow-cleartext",
        "-m",
        "/a \"b\"",
    ]);
    assert_eq!(parse_with(&shown, &[]).unwrap(), expected);
    let of_two = "[[tls]]\ncert = 'c'\nkey = 'k'\nnames = ['a.example', '*.b.example']\n[[tls]]\ncert = 'd'\nkey = 'l'";
    assert_eq!(parse_with(&show(of_two, &[]), &[]), parse_with(of_two, &[]));
    let sources =
        "users = 'u'\n[[accounts]]\nkind = 'users-file'\n[[accounts]]\nkind = 'users-file'\nfile = '''a\n\"b'''";
    assert_eq!(parse_with(&show(sources, &[]), &[]), parse_with(sources, &[]));
    let source = ["--accounts", "file = 'x', kind = 'users-file'"];
    assert_eq!(parse_with(&show("", &source), &[]).unwrap(), parse_alone(&source));
}
