//! The step from an account to its maildrop: whose rights the maildrop is used with, and where it is.

use std::borrow::Cow;
use std::io;

use super::{ActingAs, Owners};
use crate::auth::Login;
use crate::maildrop::{Location, MailRoot};

/// Lets this thread act for a user, unless there are no `owners`, and returns the location of the user's maildrop. The
/// maildrop may be used only as long as the [`ActingAs`] exists.
///
/// # Errors
/// If the user has no maildrop there, the mail directory cannot be opened, or the user's ids cannot be taken.
pub fn act_for(owners: Option<&Owners>, mail_root: &MailRoot, login: &Login) -> io::Result<(ActingAs, Location)> {
    let Login { user, mailbox } = login;
    let mut mailbox = Cow::Borrowed(&**mailbox);
    let acting = match owners {
        None => ActingAs::server(),
        Some(owners) => {
            // A thread has the ids of the one that starts it, so these are started before this one changes its own.
            owners.start()?;
            mail_root.start_look_ups()?;
            ActingAs::user(&owners.ids_of(user, mailbox.to_mut())?)?
        }
    };
    let location = mail_root.location_of(user.clone(), &mailbox)?;
    Ok((acting, location))
}
