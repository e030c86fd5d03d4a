//! One message of a maildrop: the path of its file and what is known about its content.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;

use super::identity::Identity;
use super::name;
use super::names::Name;

/// A message's number in the session: from 1 (RFC 1939 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageNumber(NonZeroU32);

impl MessageNumber {
    /// Returns `None` for 0, which is no message's number.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// The number itself.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }

    pub(super) fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl fmt::Display for MessageNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The directory, within the user's directory, that holds a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Folder {
    /// The user's directory itself: a flat maildrop.
    Top,
    /// `new/`: messages of a Maildir that no mail program has seen yet.
    New,
    /// `cur/`: the other messages of a Maildir, with flags in their names.
    Cur,
    /// No directory: the maildrop is a file that holds all messages.
    Mbox,
}

impl Folder {
    pub(super) const ALL: [Self; 4] = [Self::Top, Self::New, Self::Cur, Self::Mbox];

    /// The folder's path below the maildrop's own path.
    pub(super) fn below(self) -> &'static [u8] {
        match self {
            Self::Top | Self::Mbox => b"",
            Self::New => b"/new",
            Self::Cur => b"/cur",
        }
    }
}

/// A message's folder and the name of its file; in an mbox, its unique-id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FilePath {
    pub(super) folder: Folder,
    pub(super) name: Name,
}

impl FilePath {
    /// The part of the name that stays the same when a mail program moves the message or changes its flags.
    pub(super) fn base(&self) -> &[u8] {
        match self.folder {
            Folder::Top | Folder::Mbox => &self.name,
            Folder::New | Folder::Cur => name::base(&self.name),
        }
    }

    /// The path below the maildrop's own, for people to read. In an mbox it is the message's unique-id.
    pub(super) fn shown(&self) -> Vec<u8> {
        let folder = self.folder.below();
        match folder.strip_prefix(b"/") {
            Some(folder) => [folder, b"/", &self.name].concat(),
            None => self.name.to_vec(),
        }
    }
}

/// What the server learned by reading a message's file and the directory around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content {
    /// Which file it is, and in which state it was read.
    pub(super) identity: Identity,
    /// The message's size on the wire.
    pub(super) octets: u64,
    /// True if the message can be sent as it is stored.
    pub(super) wire_form: bool,
    /// True if the file is compressed.
    pub(super) compressed: bool,
    /// True if another message already had this base name when this one arrived. The other one keeps the unique-id.
    pub(super) namesake: bool,
}

impl Content {
    /// Returns true if a file of the same name still has this content, by its size and modification time. The change
    /// time is not compared: it also changes when the file is renamed, when another link to it is removed, and with its
    /// owner and permissions.
    ///
    /// So a program that writes into a file in place and then sets its time back is not noticed during a session. The
    /// message is still framed correctly, because [`Self::is_measured`] is stricter.
    pub(super) fn is(&self, identity: &Identity) -> bool {
        (self.identity.size, self.identity.modified) == (identity.size, identity.modified)
    }

    /// Returns true if a file of the same name in `folder` was certainly not written to. In a flat maildrop the change
    /// time is compared too, which no program can set back.
    pub(super) fn is_untouched(&self, identity: &Identity, folder: Folder) -> bool {
        // Messages in a Maildir are never written to, but renaming one changes its change time.
        self.is(identity) && (folder != Folder::Top || self.identity.changed == identity.changed)
    }

    /// Returns true if a file in `folder` is the very file that was measured, and was not written to since. Only then
    /// `wire_form` can be relied on.
    pub(super) fn is_measured(&self, identity: &Identity, folder: Folder) -> bool {
        self.is_untouched(identity, folder) && self.identity.inode == identity.inode
    }
}

/// One message of the maildrop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub(super) path: FilePath,
    pub(super) content: Content,
}

impl Message {
    pub(super) fn new(path: FilePath, content: Content) -> Self {
        Self { path, content }
    }

    /// When the message's file was last written to, in ns since 1970.
    pub(super) fn written(&self) -> i64 {
        let Identity { modified, changed, .. } = self.content.identity;
        match self.path.folder {
            Folder::Top => changed,
            Folder::New | Folder::Cur => modified,
            // The state of the mbox tells whether its messages may have changed.
            Folder::Mbox => i64::MIN,
        }
    }

    /// The message's size in octets as the client receives it, byte-stuffing not counted (RFC 1939 section 11).
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.content.octets
    }

    /// The message's unique-id: 1 to 70 octets of 0x21–0x7E, the same in every session (RFC 1939 section 7).
    #[must_use]
    pub fn unique_id(&self) -> Cow<'_, [u8]> {
        let Identity { inode, size, modified, .. } = self.content.identity;
        match self.path.folder {
            Folder::Mbox => Cow::Borrowed(&self.path.name),
            Folder::Top => {
                let seconds = modified.div_euclid(1_000_000_000);
                Cow::Owned(name::flat_unique_id(&self.path.name, size, seconds))
            }
            _ if self.content.namesake => Cow::Owned(name::namesake_unique_id(self.path.base(), modified, inode)),
            _ => name::maildir_unique_id(&self.path.name),
        }
    }
}
