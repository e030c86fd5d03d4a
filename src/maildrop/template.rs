//! Templates of maildrops' locations, such as `/var/vmail/%d/%n/Maildir`.
//!
//! `%u` is the login name, `%n` its part before the first `@`, `%d` the part after it, `%h` the account's home directory, and
//! `%%` a percent sign. A template without `%` is a directory that holds a maildrop for each user: `/%u` is appended.
//!
//! The components in front of the first variable are the fixed part, which the operator alone has chosen. A component
//! with a variable always stays one component: a name with a slash or a leading dot is refused.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Home directories are expected below this one when the server is confined.
const HOMES: &str = "/home";

/// A location with variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    pub(super) fixed: Fixed,
    /// The components behind the fixed part.
    rest: Vec<Component>,
}

/// The part of a template that no client's name goes into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fixed {
    Directory(PathBuf),
    /// The home directory of the account.
    Home,
}

/// A component of a path.
type Component = Vec<Part>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    /// `%u`
    Name,
    /// `%n`
    Local,
    /// `%d`
    Domain,
}

impl Template {
    /// # Errors
    /// When there is an unknown variable, or `%h` is not the beginning.
    pub(super) fn parse(path: &Path) -> io::Result<Self> {
        if !path.as_os_str().as_bytes().contains(&b'%') {
            return Ok(Self { fixed: Fixed::Directory(path.to_owned()), rest: vec![vec![Part::Name]] });
        }
        Self::of_one_maildrop(path)
    }

    /// Parses the location of one account's maildrop, to which nothing is appended.
    ///
    /// # Errors
    /// As of [`Self::parse`].
    pub(super) fn of_one_maildrop(path: &Path) -> io::Result<Self> {
        let text = path.as_os_str().as_bytes();
        if text == b"%h" || text.starts_with(b"%h/") {
            let rest = components(&text[2..])?;
            return Ok(Self { fixed: Fixed::Home, rest });
        }
        let mut all = components(text)?;
        let variable = |component: &Component| component.iter().any(|part| !matches!(part, Part::Text(_)));
        // If every component is fixed (there are only `%%`), the last one is the maildrop's.
        let first = all.iter().position(variable).unwrap_or(all.len().saturating_sub(1));
        let rest = all.split_off(first);
        let mut fixed = PathBuf::from(if text.starts_with(b"/") { "/" } else { "." });
        fixed.extend(all.iter().map(|component| OsStr::from_bytes(plain(component)).to_owned()));
        Ok(Self { fixed: Fixed::Directory(fixed), rest })
    }

    /// The path below the fixed part for a user.
    ///
    /// # Errors
    /// When a component would be empty, or would lead elsewhere.
    pub(super) fn expand(&self, user: &str) -> io::Result<Vec<u8>> {
        let (local_part, domain) = user.split_once('@').unwrap_or((user, ""));
        let mut path = Vec::new();
        for component in &self.rest {
            if !path.is_empty() {
                path.push(b'/');
            }
            for part in component {
                let (text, is_name) = match part {
                    Part::Text(text) => (&text[..], false),
                    Part::Name => (user.as_bytes(), true),
                    Part::Local => (local_part.as_bytes(), true),
                    Part::Domain => (domain.as_bytes(), true),
                };
                let leads_elsewhere = text.contains(&b'/') || text.contains(&0) || text.starts_with(b".");
                if is_name && (text.is_empty() || leads_elsewhere) {
                    let why = format!("the user's name {user:?} does not fit into the location of maildrops");
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
                }
                path.extend_from_slice(text);
            }
        }
        Ok(if path.is_empty() { b".".to_vec() } else { path })
    }

    /// How many components the path below the fixed part has.
    pub(super) fn depth(&self) -> usize {
        self.rest.len()
    }

    /// Returns the user whose maildrop has this path below the fixed part.
    pub(super) fn user_of(&self, path: &[u8]) -> Option<String> {
        let (mut name, mut local_part, mut domain) = (None, None, None);
        for (component, text) in self.rest.iter().zip(path.split(|&octet| octet == b'/')) {
            let mut text = std::str::from_utf8(text).ok()?;
            for (at, part) in component.iter().enumerate() {
                let bound = match part {
                    Part::Text(expected) => {
                        text = text.strip_prefix(std::str::from_utf8(expected).ok()?)?;
                        continue;
                    }
                    Part::Name => &mut name,
                    Part::Local => &mut local_part,
                    Part::Domain => &mut domain,
                };
                let end = match component.get(at + 1) {
                    Some(Part::Text(next)) => text.rfind(std::str::from_utf8(next).ok()?)?,
                    _ => text.len(),
                };
                *bound = Some(&text[..end]);
                text = &text[end..];
            }
        }
        let user = match (name, local_part, domain) {
            (Some(name), ..) => name.to_owned(),
            (None, Some(local_part), Some(domain)) => format!("{local_part}@{domain}"),
            (None, Some(local_part), None) => local_part.to_owned(),
            (None, None, _) => return None,
        };
        // A name that fits in one place may not fit in another.
        (self.expand(&user).ok()? == path).then_some(user)
    }

    /// The directory above all maildrops, as far as it is known without an account.
    pub(super) fn directory(&self) -> &Path {
        match &self.fixed {
            Fixed::Directory(path) => path,
            Fixed::Home => Path::new(HOMES),
        }
    }
}

/// The directory above all maildrops of a template: what a confined server has to reach. For `%h` it is /home.
#[must_use]
pub fn fixed_part(template: &Path) -> PathBuf {
    Template::parse(template).map_or_else(|_| template.to_owned(), |template| template.directory().to_owned())
}

/// The text of a component without variables.
fn plain(component: &Component) -> &[u8] {
    match component.first() {
        Some(Part::Text(text)) => text,
        _ => b"",
    }
}

fn components(text: &[u8]) -> io::Result<Vec<Component>> {
    text.split(|&octet| octet == b'/').filter(|text| !text.is_empty() && *text != b".").map(component).collect()
}

fn component(text: &[u8]) -> io::Result<Component> {
    let refuse = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, why.to_owned()));
    if text == b".." {
        return refuse("a location with variables, or of one account, has no '..'");
    }
    let (mut parts, mut fixed) = (Vec::new(), Vec::new());
    let mut octets = text.iter().copied();
    while let Some(octet) = octets.next() {
        let variable = match (octet, if octet == b'%' { octets.next() } else { None }) {
            (b'%', Some(b'u')) => Part::Name,
            (b'%', Some(b'n')) => Part::Local,
            (b'%', Some(b'd')) => Part::Domain,
            (b'%', Some(b'h')) => {
                return refuse("%h stands at the beginning of a location, and ends a component there");
            }
            (b'%', Some(b'%')) => {
                fixed.push(b'%');
                continue;
            }
            (b'%', _) => return refuse("a location's variables are %u, %n, %d and %h (%% is a percent sign)"),
            _ => {
                fixed.push(octet);
                continue;
            }
        };
        if !fixed.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut fixed)));
        }
        parts.push(variable);
    }
    if !fixed.is_empty() {
        parts.push(Part::Text(fixed));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(template: &str, user: &str) -> Option<(PathBuf, String)> {
        let template = Template::parse(Path::new(template)).unwrap();
        let path = template.expand(user).ok()?;
        Some((template.directory().to_owned(), String::from_utf8(path).unwrap()))
    }

    #[test]
    fn variables_are_replaced_behind_the_fixed_part() {
        for (template, user, directory, path) in [
            ("mail", "ana", "mail", "ana"),
            ("../mail/", "a@b", "../mail/", "a@b"),
            ("/var/mail/%u", "ana", "/var/mail", "ana"),
            ("/var/vmail/%d/%n/Maildir", "ana@example.com", "/var/vmail", "example.com/ana/Maildir"),
            ("/srv/./m//u-%n@%d.x/", "a@b", "/srv/m", "u-a@b.x"),
            ("%n/Maildir", "a@b@c", ".", "a/Maildir"),
            ("/a/.%u", "ana", "/a", ".ana"),
            ("/100%%/mail/%u", "ana", "/100%/mail", "ana"),
            ("/100%%/mail", "ana", "/100%", "mail"),
            ("%h/Maildir", "ana", "/home", "Maildir"),
            ("%h/mail/%u", "ana", "/home", "mail/ana"),
            ("%h", "ana", "/home", "."),
        ] {
            assert_eq!(expanded(template, user), Some((directory.into(), path.to_owned())), "{template} {user}");
        }
    }

    #[test]
    fn nothing_is_appended_to_the_location_of_one_maildrop() {
        for (location, directory, path) in [
            ("/srv/a/b/", "/srv/a", "b"),
            ("/srv/%u/b", "/srv", "ana/b"),
            ("%h/Maildir", "/home", "Maildir"),
            ("b", ".", "b"),
        ] {
            let template = Template::of_one_maildrop(Path::new(location)).unwrap();
            assert_eq!((template.directory(), template.expand("ana").unwrap()), (Path::new(directory), path.into()));
        }
    }

    #[test]
    fn the_user_of_a_path_is_found() {
        for (template, path, user) in [
            ("/srv/mail", "ana", Some("ana")),
            ("/var/vmail/%d/%n/Maildir", "example.com/ana/Maildir", Some("ana@example.com")),
            ("/var/vmail/%d/%n/Maildir", "example.com/ana/other", None),
            ("/m/%d-%n", "a-b.org-ana", Some("ana@a-b.org")),
            ("/m/%u/of-%n", "ana@b/of-ana", Some("ana@b")),
            ("/m/%u/of-%n", "ana@b/of-bob", None),
            ("/m/%n", "ana", Some("ana")),
            ("/m/%d", "b.org", None),
        ] {
            let found = Template::parse(Path::new(template)).unwrap().user_of(path.as_bytes());
            assert_eq!(found.as_deref(), user, "{template} {path}");
        }
    }

    #[test]
    fn a_name_never_leads_out_of_its_component() {
        for (template, user) in
            [("/m/%d/%n", "ana"), ("/m/%d/%n", "ana@"), ("/m/%d/%n", "ana@.."), ("/m/%d", "a@.b"), ("/m/%n", "@b")]
        {
            assert_eq!(expanded(template, user), None, "{template} {user}");
        }
    }

    #[test]
    fn wrong_templates_are_refused() {
        for template in ["/m/%x", "/m/%", "/m/%h", "%h%u", "/m/../%u", "%h/../%u"] {
            assert!(Template::parse(Path::new(template)).is_err(), "{template}");
        }
    }
}
