//! Marks the messages that a client has retrieved as seen: moves them to `cur/` and adds the flag `S` to their names, as
//! Dovecot does at QUIT.
//!
//! Another program may rename a message at the same time. Then the message is looked for again. A message that cannot be
//! marked stays as it is.

use std::io;

use super::directory::Directory;
use super::files::is_message;
use super::is_missing;
use super::location::Location;
use super::message::{FilePath, Folder, Message};
use super::moved::Search;
use super::name;
use super::root;

/// Marks these messages, which are given by their indices. What fails is logged.
pub(super) fn mark(location: &Location, messages: &[Message], mut retrieved: Vec<usize>) {
    if let Err(error) = try_to_mark(location, messages, &mut retrieved) {
        let (count, path) = (retrieved.len(), root::display(location.path()));
        log::warn!("{count} retrieved messages in {path} cannot be marked as seen: {error}");
    }
}

/// Takes the messages that are marked, or that do not exist any more, off the list.
fn try_to_mark(location: &Location, messages: &[Message], retrieved: &mut Vec<usize>) -> io::Result<()> {
    retrieved.retain(|&index| !is_marked(&messages[index].path));
    if retrieved.is_empty() {
        return Ok(());
    }
    let root = location.root();
    let cur = root.directory(&location.folder(Folder::Cur))?;
    let new = root.directory(&location.folder(Folder::New));
    let mut error = None;
    retrieved.retain(|&index| {
        let path = &messages[index].path;
        let from = if path.folder == Folder::Cur { Some(&cur) } else { new.as_ref().ok() };
        from.is_none_or(|from| keep_if_failed(rename(from, path, &cur, messages, index), &mut error))
    });
    let mut search = Search::new(location);
    while error.is_none() && !retrieved.is_empty() {
        let Some(listing) = search.list()? else {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "other programs rename messages without a pause"));
        };
        retrieved.retain(|&index| {
            let mut files = listing.of(messages[index].path.base()).iter();
            let is_left = files.all(|file| {
                is_marked(&file.path)
                    || listing
                        .directory(file)
                        .is_none_or(|from| keep_if_failed(rename(from, &file.path, &cur, messages, index), &mut error))
            });
            is_left && !listing.at_rest
        });
    }
    error.map_or(Ok(()), Err)
}

/// Returns false if a message needs no further attempt. An error ends all attempts.
fn keep_if_failed(renamed: io::Result<bool>, first: &mut Option<io::Error>) -> bool {
    match renamed {
        Ok(is_done) => !is_done,
        Err(error) => {
            first.get_or_insert(error);
            true
        }
    }
}

fn is_marked(path: &FilePath) -> bool {
    path.folder == Folder::Cur && name::flags(&path.name).contains(&b'S')
}

/// Renames the file at `path` if it is the message. Returns false if it is not, or is not there any more.
fn rename(from: &Directory, path: &FilePath, cur: &Directory, messages: &[Message], index: usize) -> io::Result<bool> {
    let renamed = from.identity(&path.name).and_then(|identity| {
        if !is_message(messages, index, &identity) {
            return Ok(false);
        }
        from.move_to(&path.name, cur, &name::with_flag(&path.name, b'S')).map(|()| true)
    });
    match renamed {
        Err(error) if is_missing(&error) => Ok(false),
        // Another file has that name: a second link to the message, or a message with the same base name.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(true),
        result => result,
    }
}
