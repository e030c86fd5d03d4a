//! The location of all maildrops, as the operator gave it, and that of each user's maildrop.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::stat;

use super::expiry::Expiry;
use super::layout::Layouts;
use super::location::Location;
use super::root::{Links, Root, RootId};
use super::template::{Fixed, Template};
use super::trash::Deletes;
use super::{system, walk};
use crate::auth::{MailFormat, MailLocation, Mailbox, UserName};

/// The location of all maildrops as the operator gave it: a directory with a maildrop for each user, or a template.
#[derive(Debug)]
pub struct MailRoot {
    path: PathBuf,
    pub(super) template: Template,
    pub(super) layouts: Arc<Layouts>,
    /// The template's fixed part; `None` if that is the account's home directory.
    directory: Option<Mutex<Arc<Root>>>,
}

impl MailRoot {
    /// Opens the directory at `path`, or the fixed part of a template.
    ///
    /// # Errors
    /// When that is not a directory that can be searched, or is one of the system's, or the template is wrong.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        Self::with_layouts(path, Arc::default())
    }

    /// Opens the directory at `path`, in which maildrops have these layouts.
    ///
    /// # Errors
    /// As of [`MailRoot::open`].
    pub fn with_layouts(path: PathBuf, layouts: Arc<Layouts>) -> io::Result<Self> {
        let template = Template::parse(&path)?;
        let directory = match &template.fixed {
            Fixed::Directory(path) => Some(Mutex::new(Arc::new(Root::open(path, &layouts)?))),
            Fixed::Home => None,
        };
        Ok(Self { path, template, layouts, directory })
    }

    /// Opens another directory, in which maildrops have the same layouts.
    ///
    /// # Errors
    /// As of [`MailRoot::open`].
    pub fn elsewhere(&self, path: PathBuf) -> io::Result<Self> {
        Self::with_layouts(path, Arc::clone(&self.layouts))
    }

    /// When messages expire.
    #[must_use]
    pub fn expiry(&self) -> Expiry {
        self.layouts.expiry()
    }

    /// What a session's deletion does.
    #[must_use]
    pub fn deletes(&self) -> Deletes {
        self.layouts.deletes()
    }

    /// The path as the operator gave it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Starts the thread that looks home directories up, unless it runs already.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_look_ups(&self) -> io::Result<()> {
        self.layouts.start_look_ups()
    }

    /// Returns true if the location of an account's maildrop is in the account's home directory.
    #[must_use]
    pub fn is_in_home(&self, mailbox: &Mailbox) -> bool {
        match &mailbox.location {
            Some(location) => {
                Template::of_one_maildrop(&location.path).is_ok_and(|template| template.fixed == Fixed::Home)
            }
            None => self.template.fixed == Fixed::Home,
        }
    }

    /// The location of the maildrop of `user`, whose account has no home and no location of its own.
    ///
    /// # Errors
    /// As of [`MailRoot::location_of`].
    pub fn location(&self, user: UserName) -> io::Result<Location> {
        self.location_of(user, &Mailbox::default())
    }

    /// The location of the maildrop of `user`: the one that the account names, or else the one of the template. If it is the
    /// account's own, or in the account's home directory, the directories above it may be missing.
    ///
    /// # Errors
    /// When a directory cannot be opened, when the template needs a home and the account has none, when the name does not
    /// fit into the template, and when the account's own location is not supported.
    pub fn location_of(&self, user: UserName, mailbox: &Mailbox) -> io::Result<Location> {
        let below_own = |template: &Template| -> io::Result<(Arc<Root>, Vec<u8>)> {
            let path = template.expand(user.as_str())?;
            let directory = match &template.fixed {
                Fixed::Directory(directory) => directory,
                Fixed::Home => mailbox.home.as_ref().ok_or_else(|| {
                    let why = "the location of maildrops begins with %h, and the users file has no home for the user";
                    io::Error::new(io::ErrorKind::InvalidInput, why)
                })?,
            };
            let found = walk::find(&[directory.as_os_str().as_bytes(), b"/", &path].concat())?;
            if template.fixed != Fixed::Home && !found.misses_directory() {
                system::refuse(&found.directory)?;
            }
            Ok((Arc::new(Root::new(found.directory, Links::Refused, &self.layouts)?), found.rest))
        };
        if let Some(why) = mailbox.location.as_ref().and_then(MailLocation::unsupported) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        let format = mailbox.location.as_ref().map(|location| location.format);
        let format = format.filter(|format| *format != MailFormat::Unnamed);
        let (root, path) = match (&mailbox.location, &self.directory) {
            (Some(location), _) => below_own(&Template::of_one_maildrop(&location.path)?)?,
            (None, Some(directory)) => (self.current(directory)?, self.template.expand(user.as_str())?),
            (None, None) => below_own(&self.template)?,
        };
        Ok(Location::new(root, path, user, format, mailbox.expiry))
    }

    /// The directory that the path names now. It may have been replaced since it was last opened, for example by a
    /// mount.
    ///
    /// # Errors
    /// When the path is no longer a directory that can be searched.
    fn current(&self, directory: &Mutex<Arc<Root>>) -> io::Result<Arc<Root>> {
        let path = self.template.directory();
        let now = RootId::new(&stat(path)?);
        let mut directory = directory.lock();
        if directory.id() != now {
            *directory = Arc::new(Root::open(path, &self.layouts)?);
        }
        Ok(Arc::clone(&directory))
    }
}
