//! Flags for Maildirs that other programs use, too.

use crate::maildrop::{FolderName, MaildirRules};

/// The flags for getting along with the other programs that use a Maildir.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Maildirs")]
pub(super) struct MaildirArgs {
    /// Mark retrieved messages of a Maildir as seen at QUIT: move them to cur/ with the flag S
    #[arg(long)]
    seen: bool,

    /// Hide messages of a Maildir that a mail program has marked as deleted (flag T)
    #[arg(long)]
    hide_trashed: bool,

    /// Show these folders of a Maildir after its INBOX, as in INBOX,Junk; names as those of their directories, without the
    /// dot in front
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    folders: Vec<FolderName>,
}

impl MaildirArgs {
    pub(super) fn rules(&self) -> MaildirRules {
        MaildirRules { seen: self.seen, hide_trashed: self.hide_trashed, folders: self.folders.clone() }
    }
}
