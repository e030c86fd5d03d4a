//! Finds the users who have a maildrop below the mail directory, for tasks that go through all of them without a list of
//! accounts.

use std::io;
use std::sync::Arc;

use super::MailRoot;
use super::root::Root;
use super::template::Fixed;
use crate::auth::UserName;

/// The end of the name of a dot-lock, which lies beside an mbox.
const LOCK: &[u8] = b".lock";

impl MailRoot {
    /// Returns the users who have a directory or a file where the template puts their maildrop, in order. A link counts, too.
    ///
    /// # Errors
    /// When a directory cannot be read, or when maildrops are in the home directories of accounts, which only a users file
    /// can name.
    pub fn users(&self) -> io::Result<Vec<UserName>> {
        let Fixed::Directory(path) = &self.template.fixed else {
            let why = "the location of maildrops begins with %h, so a users file has to name the users";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        };
        let root = Arc::new(Root::open(path, &self.layouts)?);
        let mut found = Vec::new();
        walk(&root, Vec::new(), self.template.depth(), &mut |path| {
            found.extend(self.template.user_of(path).and_then(|user| user.parse::<UserName>().ok()));
        })?;
        found.sort();
        found.dedup();
        Ok(found)
    }
}

/// Calls `each` with every path that is `depth` components below `path`.
fn walk(root: &Root, path: Vec<u8>, depth: usize, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    if depth == 0 {
        each(&path);
        return Ok(());
    }
    let directory = match root.directory(if path.is_empty() { b"." } else { &path }) {
        // It is a file, or a link, which is not followed below the mail directory.
        Err(_) if !path.is_empty() => return Ok(()),
        directory => directory?,
    };
    for name in directory.names()? {
        if !(depth == 1 && name.ends_with(LOCK)) {
            let below = if path.is_empty() { name } else { [&path, &b"/"[..], &name].concat() };
            walk(root, below, depth - 1, each)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn users_are_found_where_the_template_has_them() {
        let temporary = tempfile::tempdir().unwrap();
        let path = |path: &str| temporary.path().join(path);
        for directory in
            ["vmail/b.org/ana/Maildir", "vmail/b.org/.hidden/Maildir", "vmail/c.org/bob/Maildir", "vmail/c.org/eve"]
        {
            fs::create_dir_all(path(directory)).unwrap();
        }
        fs::create_dir(path("mail")).unwrap();
        for file in ["mail/ana", "mail/ana.lock", "mail/.ana.pop3d-index", "vmail/c.org/a-file"] {
            fs::write(path(file), "").unwrap();
        }
        std::os::unix::fs::symlink(path("vmail/c.org/bob/Maildir"), path("mail/bob")).unwrap();
        let users = |template: &str| -> Vec<String> {
            let users = MailRoot::open(path(template)).unwrap().users().unwrap();
            users.iter().map(ToString::to_string).collect()
        };
        assert_eq!(users("mail"), ["ana", "bob"]);
        assert_eq!(users("mail/%u"), ["ana", "bob"]);
        assert_eq!(users("vmail/%d/%n/Maildir"), ["ana@b.org", "bob@c.org"]);
        assert!(MailRoot::open("%h/Maildir".into()).unwrap().users().is_err());
    }
}
