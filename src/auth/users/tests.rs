use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::auth::scram::ScramKeys;
use crate::auth::secret::Secret;
use crate::auth::source::{Found, Source, Totals};
use crate::auth::{AskRules, Scheme};

const WRONG: Denied = Denied::Credentials(Wrong::Password);
const NOBODY: Denied = Denied::Credentials(Wrong::Name);

fn user(name: &str) -> UserName {
    name.parse().unwrap()
}

fn log_in(users: &Users, name: &[u8], password: &[u8]) -> Result<UserName, Denied> {
    users.authenticate(name, password, None).map(|login| login.user)
}

/// Users of a file with these lines. The file exists as long as the directory.
fn of_file(text: &str) -> (tempfile::TempDir, Users) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users");
    std::fs::write(&path, text).unwrap();
    let users = Users::new(vec![UsersFile::open(path).unwrap().into()]);
    (directory, users)
}

#[test]
fn name_rules_are_applied_before_the_look_up() {
    let users = Users::default();
    assert!(users.add_own(user("ana@example.com"), b"x") && users.add_own(user("Bob@Other"), b"x"));
    let names = |users: &Users| {
        ["ana", "Ana@Example.COM", "Bob@Other", "bob"]
            .map(|name| users.authenticate(name.as_bytes(), b"x", None).is_ok())
    };
    assert_eq!(names(&users), [false, false, true, false]);
    users.set_name_rules(NameRules { lower_case: true, default_domain: Some("example.com".to_owned()) });
    assert_eq!(names(&users), [true, true, false, false]);
    assert_eq!(log_in(&users, b"ANA", b"x").unwrap(), user("ana@example.com"));
    users.set_name_rules(NameRules { lower_case: false, default_domain: Some("Other".to_owned()) });
    assert_eq!(log_in(&users, b"Bob", b"x").unwrap(), user("Bob@Other"));
}

#[test]
fn a_login_needs_the_right_name_and_password() {
    let users = Users::default();
    assert!(users.add_own(user("ana"), b"a b:c"));
    assert!(!users.add_own(user("ana"), b"other"));
    assert_eq!(log_in(&users, b"ana", b"a b:c").unwrap().as_str(), "ana");
    for (name, password) in [("ana", "a b:"), ("ana", ""), ("bob", "a b:c"), ("", ""), ("bob", "")] {
        let denied = Err(if name == "ana" { WRONG } else { NOBODY });
        assert_eq!(log_in(&users, name.as_bytes(), password.as_bytes()), denied, "{name} {password}");
    }
    users.remove("ana").unwrap();
    assert!(matches!(users.remove("ana"), Err(Unchanged::Missing)));
    assert_eq!(log_in(&users, b"ana", b"a b:c"), Err(NOBODY));
}

#[test]
fn users_are_added_to_the_file_and_removed_from_it() {
    let (directory, users) = of_file("# mine\nbob:{PLAIN}b:1:2\n");
    users.add_own(user("own"), b"o");
    for name in ["bob", "own"] {
        assert!(matches!(users.add(user(name), b"x"), Err(Unchanged::Exists)), "{name}");
    }
    users.add(user("ana"), b"a:b").unwrap();
    assert_eq!(users.names(), ["ana", "bob", "own"]);
    let path = directory.path().join("users");
    let other = Users::new(vec![UsersFile::open(path.clone()).unwrap().into()]);
    for users in [&users, &other] {
        // The second login uses the remembered result of the first verification.
        for _ in 0..2 {
            assert_eq!(log_in(users, b"ana", b"a:b"), Ok(user("ana")));
        }
        assert_eq!(log_in(users, b"ana", b"a"), Err(WRONG));
    }
    for name in ["ana", "own"] {
        users.remove(name).unwrap();
        assert!(matches!(users.remove(name), Err(Unchanged::Missing)), "{name}");
    }
    assert_eq!(log_in(&other, b"ana", b"a:b"), Err(NOBODY));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "# mine\nbob:{PLAIN}b:1:2\n");
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(users.add(user("ana"), b"x"), Err(Unchanged::File(_))));
    assert!(matches!(users.remove("bob"), Err(Unchanged::File(_))));
}

#[test]
fn a_user_of_the_command_line_comes_before_one_of_the_file() {
    let (_directory, users) = of_file("ana:{PLAIN}file\n");
    users.add_own(user("ana"), b"own");
    assert_eq!(log_in(&users, b"ana", b"own"), Ok(user("ana")));
    assert_eq!(log_in(&users, b"ana", b"file"), Err(WRONG));
    assert_eq!(users.names(), ["ana"]);
    users.remove("ana").unwrap();
    assert!(users.names().is_empty());
}

#[test]
fn a_reload_changes_what_differs_in_the_configuration_and_nothing_else() {
    let users = Users::default();
    let of = |text: &str| -> Vec<_> {
        let user = |word: &str| word.split_once(':').map(|(name, password)| (user(name), password.to_owned()));
        text.split(' ').filter_map(user).collect()
    };
    let before = of("kept:1 changed:1 gone:1 deleted:1");
    users.change_own(&[], &before);
    users.remove("deleted").unwrap();
    users.add(user("added"), b"1").unwrap();
    users.change_own(&before, &of("kept:1 changed:2 deleted:1 new:1"));
    assert_eq!(users.names(), ["added", "changed", "kept", "new"]);
    assert!(log_in(&users, b"changed", b"2").is_ok() && log_in(&users, b"changed", b"1").is_err());
}

#[test]
fn a_users_file_that_cannot_be_used_changes_nothing() {
    let (directory, users) = of_file("ana:{PLAIN}a\n");
    let other = directory.path().join("other");
    std::fs::write(&other, "bob:{PLAIN}b\n").unwrap();
    let (path, nowhere) = (directory.path().join("users"), directory.path().join("nowhere"));
    assert!(users.read_file(&nowhere).is_err());
    std::fs::write(&path, "no account\n").unwrap();
    std::fs::File::open(&path).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert!(users.read_file(&path).is_err());
    let file = users.read_file(&other).unwrap();
    assert_eq!(users.names(), ["ana"]);
    users.set_sources(vec![file.into()]);
    assert_eq!(users.names(), ["bob"]);
    users.set_sources(Vec::new());
    assert!(users.names().is_empty());
}

/// Lines with an empty password arise by mistake, for example from an empty variable in a script.
#[test]
fn an_empty_password_is_always_refused() {
    let (_directory, users) = of_file(&format!(
        "ana:{{SHA256}}47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\nbob:{}\neve:{{PLAIN}}\nfay:{{PLAIN}}f\n",
        Scheme::BlfCrypt.field(b"")
    ));
    assert_eq!(users.names(), ["ana", "bob", "fay"]);
    for (name, wrong) in
        [("ana", Wrong::Password), ("bob", Wrong::Password), ("eve", Wrong::Line(3)), ("nobody", Wrong::Name)]
    {
        assert_eq!(log_in(&users, name.as_bytes(), b""), Err(Denied::Credentials(wrong)), "{name}");
    }
}

#[test]
fn apop_needs_a_plaintext_password() {
    let (_directory, users) = of_file("bob:{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=\n");
    users.add_own(user("mrose"), b"tanstaaf");
    // RFC 1939 section 7
    let timestamp = "<1896.697170952@dbc.mtview.ca.us>";
    let digest = b"c4c9334bac560ecc979e58001b3e22fb";
    assert_eq!(users.authenticate_apop(b"mrose", timestamp, digest).map(|login| login.user), Ok(user("mrose")));
    for (name, digest) in [
        ("mrose", digest.to_ascii_uppercase()),
        ("mrose", Vec::new()),
        ("bob", apop::digest(timestamp, b"secret").into()),
        ("bob", apop::digest(timestamp, b"").into()),
        ("nobody", apop::digest(timestamp, b"").into()),
    ] {
        let denied = Err(if name == "nobody" { NOBODY } else { WRONG });
        assert_eq!(
            users.authenticate_apop(name.as_bytes(), timestamp, &digest).map(|login| login.user),
            denied,
            "{name}"
        );
    }
}

#[test]
fn a_mechanism_that_only_some_accounts_support_is_not_announced() {
    let hashed = "bob:{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=\n";
    let keys = format!("ana:{{SCRAM-SHA-256}}{}\n", ScramKeys::derive(b"secret", vec![7; scram::SALT], 5000));
    let readable = "eve:{PLAIN}e\n";
    for (text, apop, scram) in [
        ("", false, false),
        (hashed, false, false),
        (readable, true, true),
        (&keys, false, true),
        (&format!("{keys}{readable}"), false, true),
        (&format!("{hashed}{readable}"), false, false),
    ] {
        let (_directory, users) = of_file(text);
        assert_eq!(users.abilities(), Abilities { apop, scram }, "{text}");
        users.add_own(user("own"), b"o");
        let is_only = text.is_empty();
        assert_eq!(users.abilities(), Abilities { apop: apop || is_only, scram: scram || is_only }, "{text}");
    }
}

#[test]
fn every_name_has_a_salt_that_stays_the_same() {
    let keys = ScramKeys::derive(b"secret", vec![7; scram::SALT], 5000);
    let (_directory, users) = of_file(&format!("ana:{{SCRAM-SHA-256}}{keys}\nbob:{{PLAIN}}b\n"));
    for name in [&b"ana"[..], b"bob", b"nobody", b"no/name"] {
        let ScramLogin { salt, iterations, .. } = users.begin_scram(name);
        assert_eq!((salt.len(), iterations), (scram::SALT, 5000));
        assert_eq!(users.begin_scram(name).salt, salt);
    }
    assert_eq!(users.begin_scram(b"ana").salt, keys.salt);
    assert_ne!(users.begin_scram(b"bob").salt, users.begin_scram(b"nobody").salt);

    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::open(directory.path().to_owned()).unwrap();
    let salt_of_bob = || {
        let mut users = Users::default();
        users.keep_salts(&state).unwrap();
        users.begin_scram(b"bob").salt
    };
    let salt = salt_of_bob();
    assert_eq!(salt_of_bob(), salt);
    assert_ne!(users.begin_scram(b"bob").salt, salt);
    // A key that was cut off is replaced by a new one.
    std::fs::write(state.file("scram-salt-key"), "").unwrap();
    assert_ne!(salt_of_bob(), salt);
}

/// A source that says the same to every name, and counts how often it is asked.
#[derive(Debug)]
struct Fixed {
    tells_names: bool,
    found: Found,
    asked: AtomicUsize,
}

impl Fixed {
    fn new(found: Found) -> Arc<Self> {
        Arc::new(Self { tells_names: true, found, asked: AtomicUsize::new(0) })
    }

    fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::Relaxed)
    }
}

impl Source for Arc<Fixed> {
    fn name(&self) -> Cow<'_, str> {
        "fixed".into()
    }

    fn tells_names(&self) -> bool {
        self.tells_names
    }

    fn find(&self, _: &UserName) -> Found {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.found.clone()
    }

    fn totals(&self) -> Totals {
        Totals { some: true, ..Totals::default() }
    }

    fn names(&self) -> Vec<UserName> {
        Vec::new()
    }
}

/// Adds sources behind the users file at `directory`/users.
fn add_sources(users: &Users, directory: Option<&std::path::Path>, sources: &[&Arc<Fixed>]) {
    let file = directory.map(|directory| users.read_file(&directory.join("users")).unwrap().into());
    let seconds = std::time::Duration::from_secs;
    let rules = AskRules { timeout: seconds(60), at_once: 2, cache: seconds(0), grace: seconds(0) };
    let others = sources.iter().map(|&source| AccountSource::asked(Arc::clone(source), rules));
    users.set_sources(file.into_iter().chain(others).collect());
}

fn account(password: &[u8], home: &str) -> Found {
    let mailbox = Mailbox { home: Some(home.into()), ..Mailbox::default() };
    let secret = Secret::of_password(password);
    Found::Account(Arc::new(Account { field: Hidden(Vec::new()), secret, mailbox: Arc::new(mailbox) }))
}

#[test]
fn the_first_source_that_knows_a_name_decides() {
    let (directory, users) = of_file("ana:{PLAIN}file:::::\n");
    let [unknown, first, second] = [Found::Unknown, account(b"1", "/home/1"), account(b"2", "/home/2")].map(Fixed::new);
    add_sources(&users, Some(directory.path()), &[&unknown, &first, &second]);
    let asked = || [&unknown, &first, &second].map(|source| source.asked());

    assert_eq!(log_in(&users, b"ana", b"file"), Ok(user("ana")));
    assert_eq!(asked(), [0, 0, 0]);
    let login = users.authenticate(b"bob", b"1", None).unwrap();
    assert_eq!((login.user, login.mailbox.home.as_deref()), (user("bob"), Some("/home/1".as_ref())));
    assert_eq!(asked(), [1, 1, 0]);
    // The time of a refused login does not tell which source knows the name: all of them are asked.
    for (name, password) in [("bob", "2"), ("ana", "1")] {
        assert_eq!(log_in(&users, name.as_bytes(), password.as_bytes()), Err(WRONG), "{name}");
        assert_eq!(asked(), [1, 1, 1], "{name}");
    }
    assert_eq!(users.mailbox(&user("bob")).home.as_deref(), Some("/home/1".as_ref()));
}

#[test]
fn that_there_is_no_account_is_said_only_if_it_is_certain() {
    let users = Users::default();
    users.add_own(user("own"), b"o");
    let known = |name: &str| users.known(name).map(|(_, known)| known);
    assert_eq!([known("own"), known("bob"), known("../x")], [Some(Known::Exists(Arc::default())), None, None]);
    let [unknown, known_here, down] = [Found::Unknown, account(b"b", "/home/b"), Found::Unavailable].map(Fixed::new);
    add_sources(&users, None, &[&unknown]);
    assert_eq!(known("bob"), None);
    add_sources(&users, None, &[&unknown, &down, &known_here]);
    assert_eq!(known("bob"), Some(Known::Unavailable));
    let untold = Arc::new(Fixed { tells_names: false, found: Found::Unknown, asked: AtomicUsize::new(0) });
    add_sources(&users, None, &[&untold, &unknown]);
    assert_eq!(known("bob"), Some(Known::Untold));
    assert!(matches!(users.remove("bob"), Err(Unchanged::ReadOnly)));
    add_sources(&users, None, &[&untold, &known_here]);
    assert!(matches!(known("bob"), Some(Known::Exists(mailbox)) if mailbox.home.is_some()));
}

/// The sources behind the one that knows the name are asked when the proof is wrong, so that the time does not tell which one
/// that is.
#[test]
fn a_login_by_scram_asks_each_source_once() {
    let users = Users::default();
    let [unknown, known, behind] = [Found::Unknown, account(b"secret", "/home/ana"), Found::Unknown].map(Fixed::new);
    add_sources(&users, None, &[&unknown, &known, &behind]);
    let begun = users.begin_scram(b"ana");
    assert_eq!([&unknown, &known, &behind].map(|source| source.asked()), [1, 1, 0]);
    assert_eq!(users.end_scram(begun, b"", b"").unwrap_err(), WRONG);
    assert_eq!([&unknown, &known, &behind].map(|source| source.asked()), [0, 0, 1]);
}

/// The account might be the unavailable source's, so the sources behind it may not accept another one of the same name.
#[test]
fn a_source_that_is_unavailable_refuses_no_password_and_no_later_source_is_asked() {
    let users = Users::default();
    users.add_own(user("own"), b"o");
    let [down, behind] = [Found::Unavailable, account(b"b", "/home/b")].map(Fixed::new);
    add_sources(&users, None, &[&down, &behind]);
    assert_eq!(log_in(&users, b"own", b"o"), Ok(user("own")));
    assert_eq!(log_in(&users, b"own", b"wrong"), Err(WRONG));
    behind.asked();

    for password in [&b"b"[..], b"wrong"] {
        assert_eq!(log_in(&users, b"bob", password), Err(Denied::Unavailable));
    }
    let timestamp = "<1@host>";
    let digest = apop::digest(timestamp, b"b");
    assert_eq!(users.authenticate_apop(b"bob", timestamp, digest.as_bytes()), Err(Denied::Unavailable));
    let begun = users.begin_scram(b"bob");
    assert_eq!(begun.salt.len(), scram::SALT);
    assert_eq!(users.end_scram(begun, b"", b"").unwrap_err(), Denied::Unavailable);
    assert_eq!(users.mailbox(&user("bob")), Arc::default());
    assert_eq!(behind.asked(), 0);
}
