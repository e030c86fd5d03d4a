//! Copies the mail that a test server begins with. The original is only read.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// How deep the sub-directories of the mail may lie. A Maildir with folders has two levels.
const DEEPEST: usize = 8;

/// The beginning of the names of the server's own files, which are not copied.
const OWN: &str = ".pop3d-";

/// Makes an empty Maildir.
pub(super) fn make_maildir(maildrop: &Path) -> io::Result<()> {
    fs::create_dir(maildrop)?;
    ["new", "cur", "tmp"].into_iter().try_for_each(|folder| fs::create_dir(maildrop.join(folder)))
}

/// Copies a file, or a directory with everything in it, with the times of the files. Links below it and special files are
/// left out.
///
/// # Errors
/// The path that cannot be copied and why.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), (PathBuf, io::Error)> {
    if fs::metadata(from).map_err(|error| (from.to_owned(), error))?.is_dir() {
        return copy_directory(from, to, DEEPEST);
    }
    copy_file(from, to)
}

fn copy_directory(from: &Path, to: &Path, depth: usize) -> Result<(), (PathBuf, io::Error)> {
    let of = |error| (from.to_owned(), error);
    if depth == 0 {
        return Err(of(io::Error::other("its sub-directories lie too deep for a maildrop")));
    }
    fs::create_dir(to).map_err(of)?;
    for entry in fs::read_dir(from).map_err(of)? {
        let entry = entry.map_err(of)?;
        let (path, copy, kind) = (entry.path(), to.join(entry.file_name()), entry.file_type().map_err(of)?);
        if kind.is_dir() {
            copy_directory(&path, &copy, depth - 1)?;
        } else if kind.is_file() && !entry.file_name().to_string_lossy().starts_with(OWN) {
            copy_file(&path, &copy)?;
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> Result<(), (PathBuf, io::Error)> {
    let copy = || {
        let mut source = File::open(from)?;
        let mut copy = File::create_new(to)?;
        io::copy(&mut source, &mut copy)?;
        // Unique-ids in a flat maildrop depend on it.
        copy.set_modified(source.metadata()?.modified()?)
    };
    copy().map_err(|error| (from.to_owned(), error))
}
