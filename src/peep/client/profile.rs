//! Profiles: flags written in a file, `~/.config/pop3d/peepclient.toml`, or that of the machine.
//!
//! A key is the name of a flag. Keys before the first table are used when no profile is named; a table is a profile,
//! which `-@ NAME` selects. Flags of the command line come before those of a profile.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// The flags that a profile may have. None of them is a secret.
const KEYS: [&str; 11] =
    ["address", "socket", "port", "user", "pass-file", "timeout", "tls", "ca", "insecure", "json", "interval"];

/// The keys whose value is a file. A relative one is relative to the profiles' directory.
const FILES: [&str; 3] = ["socket", "pass-file", "ca"];

/// The flags that say where a server is. If the command line has one of them, a profile's are not used.
const WHERE: [&str; 6] = ["address", "socket", "port", "tls", "ca", "insecure"];

/// The most octets of the file.
const LIMIT: u64 = 64 * 1024;

/// The file for users who have none of their own.
const FOR_ALL: &str = "/etc/pop3d/peepclient.toml";

/// The path of the file that is read: the user's, or that of the machine if only that exists.
pub(super) fn path() -> Option<PathBuf> {
    either(own_path(), Path::new(FOR_ALL))
}

/// The path of the user's file by the XDG base directory specification.
fn own_path() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
    Some(config.join("pop3d/peepclient.toml"))
}

fn either(own: Option<PathBuf>, for_all: &Path) -> Option<PathBuf> {
    if own.as_ref().is_some_and(|path| path.exists()) || !for_all.exists() { own } else { Some(for_all.to_owned()) }
}

/// The flags of the profile `name`, or of the file's beginning if there is no name. `given` are the names of the flags
/// that the command line has. A missing file is an error only if a profile is asked for.
pub(super) fn flags(path: Option<&Path>, name: Option<&str>, given: &[String]) -> Result<Vec<OsString>, String> {
    let Some((path, text)) = path.and_then(|path| read(path).transpose().map(|text| (path, text))) else {
        return match name {
            None => Ok(Vec::new()),
            Some(name) => Err(format!("there is no profile {name:?}: no file {}", shown(path))),
        };
    };
    let fault = |what: String| format!("{}: {what}", path.display());
    let table: Table = text.and_then(|text| text.parse().map_err(|error| faults(&text, &error))).map_err(fault)?;
    let profile = match name {
        None => table.into_iter().filter(|(_, value)| !value.is_table()).collect(),
        Some(name) => match table.get(name) {
            Some(Value::Table(profile)) => profile.clone(),
            _ => return Err(fault(format!("there is no profile {name:?}"))),
        },
    };
    let directory = path.parent().unwrap_or(Path::new(""));
    let elsewhere = given.iter().any(|flag| WHERE[..2].contains(&flag.as_str()));
    let mut flags = Vec::new();
    for (key, value) in &profile {
        let flag = flag(key, value, directory).map_err(fault)?;
        let is_overridden = given.contains(key)
            || (key == "json" && given.iter().any(|flag| flag == "csv"))
            || (elsewhere && WHERE.contains(&key.as_str()));
        if !is_overridden {
            flags.extend(flag);
        }
    }
    Ok(flags)
}

/// Returns `None` if there is no such file.
fn read(path: &Path) -> Result<Option<String>, String> {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(LIMIT).read_to_string(&mut text)) {
        Ok(_) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

fn shown(path: Option<&Path>) -> String {
    path.map_or_else(|| "of profiles, since HOME is not set".to_owned(), |path| path.display().to_string())
}

/// The line of the file and what is wrong there.
fn faults(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let what = error.message().lines().collect::<Vec<_>>().join(", ");
    format!("line {}: {what}", before.matches('\n').count() + 1)
}

/// A key and its value as a flag; none for a switch that is off.
fn flag(key: &str, value: &Value, directory: &Path) -> Result<Option<OsString>, String> {
    if !KEYS.contains(&key) {
        return Err(format!("{key:?} is no key of a profile; the keys are {}", KEYS.join(", ")));
    }
    let mut flag = OsString::from(format!("--{key}"));
    match value {
        Value::Boolean(on) => return Ok(on.then_some(flag)),
        Value::String(text) if FILES.contains(&key) => {
            flag.push("=");
            flag.push(directory.join(text));
        }
        Value::String(text) => flag.push(format!("={text}")),
        Value::Integer(number) => flag.push(format!("={number}")),
        _ => return Err(format!("{key:?} has to be a text, an integer or true")),
    }
    Ok(Some(flag))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const FILE: &str = "address = \"a.example\"\nuser = \"me\"\n[prod]\nsocket = \"/run/peep\"\npass-file = \"word\"\n\
                        [far]\naddress = \"b.example,c.example:7\"\nport = 9\ntls = true\ninsecure = false\n";

    fn of(text: &str, name: Option<&str>, given: &[&str]) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peepclient.toml");
        fs::write(&path, text).unwrap();
        let given: Vec<_> = given.iter().map(ToString::to_string).collect();
        let prefix = folder.path().to_str().unwrap().to_owned();
        let flags = flags(Some(&path), name, &given)?;
        Ok(flags.into_iter().map(|flag| flag.into_string().unwrap().replace(&prefix, "DIR")).collect())
    }

    #[test]
    fn the_machines_file_is_read_if_the_user_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let [own, for_all] = ["own", "all"].map(|name| folder.path().join(name));
        let chosen = || either(Some(own.clone()), &for_all);
        assert_eq!(chosen(), Some(own.clone()));
        fs::write(&for_all, "").unwrap();
        assert_eq!((chosen(), either(None, &for_all)), (Some(for_all.clone()), Some(for_all.clone())));
        fs::write(&own, "").unwrap();
        assert_eq!(chosen(), Some(own.clone()));
    }

    #[test]
    fn a_profile_is_flags() {
        assert_eq!(of(FILE, None, &[]).unwrap(), ["--address=a.example", "--user=me"]);
        assert_eq!(of(FILE, Some("prod"), &[]).unwrap(), ["--pass-file=DIR/word", "--socket=/run/peep"]);
        assert_eq!(of(FILE, Some("far"), &[]).unwrap(), ["--address=b.example,c.example:7", "--port=9", "--tls"]);
    }

    #[test]
    fn the_command_line_comes_first() {
        assert_eq!(of(FILE, None, &["user"]).unwrap(), ["--address=a.example"]);
        assert_eq!(of(FILE, Some("prod"), &["address"]).unwrap(), ["--pass-file=DIR/word"]);
        assert_eq!(of(FILE, Some("far"), &["socket"]).unwrap(), [""; 0]);
        let output = "json = true\ninterval = \"5s\"";
        assert_eq!(of(output, None, &[]).unwrap(), ["--interval=5s", "--json"]);
        assert_eq!(of(output, None, &["csv"]).unwrap(), ["--interval=5s"]);
        assert_eq!(of(FILE, Some("far"), &["port"]).unwrap(), ["--address=b.example,c.example:7", "--tls"]);
    }

    #[test]
    fn mistakes_are_told() {
        for (text, name, fault) in [
            (FILE, Some("test"), "there is no profile \"test\""),
            ("pass = \"secret\"", None, "\"pass\" is no key of a profile"),
            ("port = 1.5", None, "has to be a text, an integer or true"),
            ("user = \"me\"\nport = ", None, "line 2: "),
        ] {
            let error = of(text, name, &[]).unwrap_err();
            assert!(error.contains("peepclient.toml: ") && error.contains(fault), "{error}");
        }
        let missing = Path::new("/nowhere/at/all");
        assert_eq!(flags(Some(missing), None, &[]), Ok(vec![]));
        assert_eq!(flags(None, None, &[]), Ok(vec![]));
        assert!(flags(Some(missing), Some("prod"), &[]).unwrap_err().contains("no file /nowhere/at/all"));
    }
}
