//! `--run-as`: gives up the rights of root for good and continues as an ordinary user.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;
use std::str::FromStr;

use rustix::thread::set_keep_capabilities;

use nix::unistd::{
    Gid, Group, Uid, User, geteuid, getgroups, getresgid, getresuid, seteuid, setgroups, setresgid, setresuid, setuid,
};

/// An ordinary user and group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAs {
    user: Uid,
    group: Gid,
    /// The user as the operator wrote it.
    name: String,
}

impl fmt::Display for RunAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (uid {}, gid {})", self.name, self.user, self.group)
    }
}

impl FromStr for RunAs {
    type Err = String;

    /// Parses `USER` or `USER:GROUP`, each a name or a number. The default is the user's primary group.
    fn from_str(text: &str) -> Result<Self, String> {
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        let number = user.parse().ok().map(Uid::from_raw);
        let mut known = look_up(User::from_name(user))?;
        if let (None, Some(number)) = (&known, number) {
            known = look_up(User::from_uid(number))?;
        }
        let uid = known.as_ref().map(|user| user.uid).or(number);
        let gid = match group {
            None => known
                .map(|user| user.gid)
                .ok_or("there is no such user, or its group is unknown (USER:GROUP names the group)"),
            Some(group) => look_up(Group::from_name(group))?
                .map(|group| group.gid)
                .or(group.parse().ok().map(Gid::from_raw))
                .ok_or("there is no such group"),
        };
        let user = uid.ok_or("there is no such user")?;
        let group = gid?;
        if user.is_root() || group.as_raw() == 0 {
            return Err("it has to be an ordinary user and group, not root".to_owned());
        }
        Ok(Self { user, group, name: text.to_owned() })
    }
}

fn look_up<T>(found: nix::Result<Option<T>>) -> Result<Option<T>, String> {
    found.map_err(|error| format!("it cannot be looked up: {error}"))
}

impl RunAs {
    /// Makes the user the owner of a directory and of the files in it that this process has created.
    pub(super) fn take(&self, directory: &Path) -> io::Result<()> {
        let give = |path: &Path| lchown(path, Some(self.user.as_raw()), Some(self.group.as_raw()));
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            // A file with another name (a hard link) may belong to another directory as well.
            if metadata.is_file() && metadata.uid() == geteuid().as_raw() && metadata.nlink() == 1 {
                give(&entry.path())?;
            }
        }
        give(directory)
    }

    /// Sets the real, effective and saved user and group, and gives up all other groups. With `keep_rights`, the capabilities
    /// stay, but are not in effect.
    pub(super) fn become_it(&self, keep_rights: bool) -> io::Result<()> {
        if keep_rights {
            set_keep_capabilities(true)?; // until the next execve(2)
        }
        setgroups(&[])?;
        setresgid(self.group, self.group, self.group)?;
        Ok(setresuid(self.user, self.user, self.user)?)
    }

    /// Returns true if the process is not entirely this user, or could become another one.
    pub(super) fn could_be_undone(&self) -> bool {
        let is_user = getresuid().is_ok_and(|ids| [ids.real, ids.effective, ids.saved] == [self.user; 3])
            && getresgid().is_ok_and(|ids| [ids.real, ids.effective, ids.saved] == [self.group; 3])
            && getgroups().is_ok_and(|groups| groups.is_empty());
        let root = Uid::from_raw(0);
        !is_user || setuid(root).is_ok() || seteuid(root).is_ok() || setgroups(&[]).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(u32, u32)> {
        text.parse::<RunAs>().ok().map(|run_as| (run_as.user.as_raw(), run_as.group.as_raw()))
    }

    #[test]
    fn users_and_groups_are_names_or_numbers() {
        let nobody = User::from_name("nobody").unwrap().unwrap();
        let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
        assert_eq!(parsed("nobody"), Some((uid, gid)));
        assert_eq!(parsed(&uid.to_string()), Some((uid, gid)));
        assert_eq!(parsed("nobody:12345"), Some((uid, 12345)));
        assert_eq!(parsed("54321:12345"), Some((54321, 12345)));
        let group = Group::from_gid(Gid::from_raw(1)).unwrap().unwrap().name;
        assert_eq!(parsed(&format!("nobody:{group}")), Some((uid, 1)));
    }

    #[test]
    fn unknown_users_and_root_are_refused() {
        for bad in ["", ":", "nobody:", ":nogroup", "no-such-user", "nobody:no-such-group", "54321", "-1", "nobody:-1"]
        {
            assert_eq!(parsed(bad), None, "{bad}");
        }
        for root in ["root", "0", "root:nogroup", "nobody:0", "nobody:root", "0:0"] {
            assert_eq!(
                root.parse::<RunAs>(),
                Err("it has to be an ordinary user and group, not root".to_owned()),
                "{root}"
            );
        }
    }

    #[test]
    fn a_process_that_is_another_user_is_noticed() {
        let other = RunAs { user: Uid::from_raw(54321), group: Gid::from_raw(54321), name: String::new() };
        assert!(other.could_be_undone());
    }
}
