//! One message of a maildrop: where its file is and what is known of it.

use std::borrow::Cow;

use super::name;
use super::names::Name;
use super::root::Identity;

/// Where in the user's directory a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Folder {
    /// A flat maildrop's only one.
    Top,
    /// A Maildir's messages that no mail program has seen.
    New,
    /// A Maildir's others; flags are in their names.
    Cur,
}

impl Folder {
    pub(super) const ALL: [Self; 3] = [Self::Top, Self::New, Self::Cur];

    /// Its path below the mail root.
    pub(super) fn path(self, user: &str) -> Vec<u8> {
        [user.as_bytes(), self.below()].concat()
    }

    /// What leads to it from the user's directory.
    fn below(self) -> &'static [u8] {
        match self {
            Self::Top => b"",
            Self::New => b"/new",
            Self::Cur => b"/cur",
        }
    }
}

/// A message's folder and the name of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) folder: Folder,
    pub(super) name: Name,
}

impl Place {
    /// Its path below the mail root.
    pub(super) fn path(&self, user: &str) -> Vec<u8> {
        [user.as_bytes(), self.folder.below(), b"/", &self.name].concat()
    }

    /// What stays the same when a mail program moves the message or changes its flags.
    pub(super) fn base(&self) -> &[u8] {
        match self.folder {
            Folder::Top => &self.name,
            Folder::New | Folder::Cur => name::base(&self.name),
        }
    }
}

/// What reading a message's file, and the names beside it, has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content {
    /// Which file, and in which state.
    pub(super) identity: Identity,
    /// Octets on the wire.
    pub(super) octets: u64,
    /// The stored octets are the wire's.
    pub(super) wire_form: bool,
    /// It came when another message had its base name already: that one keeps the unique-id.
    pub(super) namesake: bool,
}

impl Content {
    /// Whether a file of the same name still has this content. Its change time says nothing: it also changes when the file
    /// is renamed, when another link to it is removed, and with its owner and permissions.
    ///
    /// A program that writes into a file in place and then sets its time back is therefore not noticed during a session.
    /// What is sent is framed right all the same, as [`Self::is_measured`] asks for more.
    pub(super) fn is(&self, identity: &Identity) -> bool {
        (self.identity.size, self.identity.modified) == (identity.size, identity.modified)
    }

    /// Whether a file of the same name in `folder` has this content for certain, as far as anything but its octets can tell:
    /// nobody can set its change time back.
    pub(super) fn is_untouched(&self, identity: &Identity, folder: Folder) -> bool {
        // In a Maildir messages are renamed, which changes that time, and are never written to.
        self.is(identity) && (folder != Folder::Top || self.identity.changed == identity.changed)
    }

    /// Whether a file in `folder` is the very file that was measured, and untouched. Only then it is certain that it is in
    /// wire form if this says so.
    pub(super) fn is_measured(&self, identity: &Identity, folder: Folder) -> bool {
        self.is_untouched(identity, folder) && self.identity.inode == identity.inode
    }
}

/// One message of the maildrop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub(super) place: Place,
    pub(super) content: Content,
}

impl Message {
    pub(super) fn new(place: Place, content: Content) -> Self {
        Self { place, content }
    }

    /// When its file was last written to, in ns since 1970.
    pub(super) fn written(&self) -> i64 {
        let Identity { modified, changed, .. } = self.content.identity;
        if self.place.folder == Folder::Top { changed } else { modified }
    }

    /// Its size in octets as the client receives it, byte-stuffing not counted (RFC 1939 section 11).
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.content.octets
    }

    /// Its unique-id: 1 to 70 octets of 0x21–0x7E, the same in every session (RFC 1939 section 7).
    #[must_use]
    pub fn unique_id(&self) -> Cow<'_, [u8]> {
        let Identity { inode, size, modified, .. } = self.content.identity;
        match self.place.folder {
            Folder::Top => {
                let seconds = modified.div_euclid(1_000_000_000);
                Cow::Owned(name::flat_unique_id(&self.place.name, size, seconds))
            }
            _ if self.content.namesake => Cow::Owned(name::namesake_unique_id(self.place.base(), modified, inode)),
            _ => name::maildir_unique_id(&self.place.name),
        }
    }
}
