//! A Maildir that is shown together with some of its folders (Maildir++), such as `.Junk/`, as one maildrop.
//!
//! Each folder is a Maildir with an index of its own. The messages of the INBOX come first, then those of each folder in
//! the order in which the operator named the folders. The lock of the INBOX protects all of them.
//!
//! Two folders may have messages with equal base names. So the unique-id of a message in a folder begins with the name of
//! the folder and a slash, which no other unique-id has.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::str::FromStr;

use super::files::Maildir;
use super::format::{Format, LeftOut, Listing};
use super::inspect::Layout;
use super::location::{Location, is_link};
use super::message::{Folder, Message};
use super::trash::Batch;
use super::{OpenError, OpenMessage, Update, name, root};

/// The longest name of a folder in octets. The name of its directory may have 255.
const LONGEST_NAME: usize = 200;

/// The name of a folder as its directory has it, without the dot in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FolderName {
    /// The Maildir itself.
    Inbox,
    /// A folder below it, such as `Junk` or `Junk.Old`.
    Folder(String),
}

impl FolderName {
    /// Returns true if a message in the folder may have this unique-id.
    pub(super) fn has_unique_id(&self, id: &[u8]) -> bool {
        let Self::Folder(name) = self else { return false };
        id.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"/"))
    }
}

impl FromStr for FolderName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_inbox = |text: &str| text.eq_ignore_ascii_case("inbox");
        let name = match text.split_once('.') {
            _ if is_inbox(text) => return Ok(Self::Inbox),
            Some((first, rest)) if is_inbox(first) => rest,
            _ => text,
        };
        if name.split('.').any(str::is_empty) {
            return Err("a folder's name has parts of one character or more, with dots between them, as in Junk.Old");
        }
        if name.len() > LONGEST_NAME || name.contains(|octet: char| octet == '/' || octet.is_control()) {
            return Err("a folder's name has no slash or control character, and 200 octets at most");
        }
        Ok(Self::Folder(name.to_owned()))
    }
}

/// The INBOX or a folder.
#[derive(Debug)]
struct Part {
    maildir: Maildir,
    /// The folder's name; `None` for the INBOX.
    name: Option<String>,
    /// The part's messages in the list of all messages.
    range: Range<usize>,
}

impl Part {
    /// The path of one of the part's messages below the maildrop's own.
    fn shown(&self, path: &[u8]) -> Vec<u8> {
        match &self.name {
            None => path.to_vec(),
            Some(folder) => [b".", folder.as_bytes(), b"/", path].concat(),
        }
    }

    /// The indices in this part of those messages among `indices` that it has. They are in ascending order.
    fn own(&self, indices: &[usize]) -> Vec<usize> {
        let from = indices.partition_point(|&index| index < self.range.start);
        let to = indices.partition_point(|&index| index < self.range.end);
        indices[from..to].iter().map(|index| index - self.range.start).collect()
    }
}

/// A Maildir with folders.
#[derive(Debug)]
pub(super) struct WithFolders {
    /// The INBOX comes first.
    parts: Vec<Part>,
}

impl WithFolders {
    /// Adds folders to the INBOX. Folders that do not exist are left out.
    pub(super) fn open(inbox: Maildir, location: &Location, folders: &[FolderName], now: i64) -> io::Result<Self> {
        let mut parts = vec![Part { maildir: inbox, name: None, range: 0..0 }];
        for folder in folders {
            let FolderName::Folder(name) = folder else { continue };
            if parts.iter().any(|part| part.name.as_ref() == Some(name)) {
                continue;
            }
            let folder = location.maildir_folder(name);
            match Maildir::open_folder(location, &folder, now) {
                Ok(Some(maildir)) => parts.push(Part { maildir, name: Some(name.clone()), range: 0..0 }),
                Ok(None) => {}
                Err(error) if is_link(&error) => {
                    log::warn!("{} is left out: it is a symbolic link", root::display(folder.path()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self { parts })
    }

    fn part(&self, index: usize) -> &Part {
        let part = self.parts.iter().find(|part| part.range.contains(&index));
        part.unwrap_or(&self.parts[0])
    }
}

impl Format for WithFolders {
    fn list(&mut self) -> io::Result<Listing> {
        let (mut messages, mut left_out, mut hidden) = (Vec::new(), Vec::new(), Vec::new());
        for part in &mut self.parts {
            let start = messages.len();
            let mut listed = part.maildir.list()?;
            if messages.is_empty() {
                messages = listed.messages;
            } else {
                messages.append(&mut listed.messages);
            }
            part.range = start..messages.len();
            hidden.append(&mut listed.hidden);
            let shown = |it: LeftOut| LeftOut { path: part.shown(&it.path), ..it };
            left_out.extend(listed.left_out.into_iter().map(shown));
        }
        Ok(Listing { messages, left_out, hidden })
    }

    fn inbox<'a>(&self, messages: &'a [Message]) -> &'a [Message] {
        &messages[self.parts[0].range.clone()]
    }

    fn unique_id<'a>(&self, index: usize, message: &'a Message) -> Cow<'a, [u8]> {
        match &self.part(index).name {
            None => message.unique_id(),
            Some(folder) => Cow::Owned(name::folder_unique_id(folder.as_bytes(), &message.unique_id())),
        }
    }

    fn open(&mut self, messages: &mut [Message], index: usize) -> Result<OpenMessage, OpenError> {
        let part = self.parts.iter_mut().find(|part| part.range.contains(&index));
        let part = part.ok_or_else(|| OpenError::Io(io::ErrorKind::NotFound.into()))?;
        part.maildir.open(&mut messages[part.range.clone()], index - part.range.start)
    }

    fn remove(&mut self, messages: &[Message], marked: &[usize], batch: Option<&Batch>) -> Update {
        let mut sum = Update::default();
        for part in &mut self.parts {
            let own = part.own(marked);
            if !own.is_empty() {
                sum.add(part.maildir.remove(&messages[part.range.clone()], &own, batch));
            }
        }
        sum
    }

    fn place(&self) -> (&Location, Folder) {
        self.parts[0].maildir.place()
    }

    fn hide(&mut self, messages: &[Message], marked: &[usize], session: &Batch) -> Update {
        let mut sum = Update::default();
        for part in &mut self.parts {
            let own = part.own(marked);
            if !own.is_empty() {
                sum.add(part.maildir.hide(&messages[part.range.clone()], &own, session));
            }
        }
        sum
    }

    fn mark_seen(&mut self, messages: &[Message], retrieved: Vec<usize>) {
        for part in &mut self.parts {
            let own = part.own(&retrieved);
            part.maildir.mark_seen(&messages[part.range.clone()], own);
        }
    }

    fn layout(&self) -> Layout {
        Layout::Maildir
    }

    fn shown_path(&self, index: usize, message: &Message) -> Vec<u8> {
        self.part(index).shown(&message.path.shown())
    }

    fn forget_index(&self, index: usize) {
        self.part(index).maildir.forget_index(index - self.part(index).range.start);
    }

    fn correct_index(&self, messages: &[Message], corrections: &BTreeMap<usize, u64>) {
        for part in &self.parts {
            let own = corrections.range(part.range.clone()).map(|(index, &octets)| (index - part.range.start, octets));
            let own: BTreeMap<_, _> = own.collect();
            if !own.is_empty() {
                part.maildir.correct_index(&messages[part.range.clone()], &own);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_named_as_their_directories() {
        for (text, expected) in [
            ("Junk", "Junk"),
            ("Junk.Old", "Junk.Old"),
            ("INBOX.Junk", "Junk"),
            ("Entw&APw-rfe", "Entw&APw-rfe"),
            ("Inboxes", "Inboxes"),
        ] {
            assert_eq!(text.parse(), Ok(FolderName::Folder(expected.to_owned())), "{text}");
        }
        for text in ["INBOX", "inbox"] {
            assert_eq!(text.parse(), Ok(FolderName::Inbox));
        }
        for text in ["", ".", "..", ".Junk", "Junk.", "a..b", "INBOX.", "a/b", "../x", "a\n", &"x".repeat(201)] {
            assert!(text.parse::<FolderName>().is_err(), "{text:?}");
        }
    }
}
