//! Unique-ids that another POP3 server gave to messages before. A message that has one keeps it, so that clients do not
//! fetch it again.
//!
//! - `lists` reads Dovecot's `dovecot-uidlist` and Courier's `courierpop3dsizelist`, `header` the fields of a message in
//!   which qpopper, and Dovecot in an mbox, keep them. `template` is Dovecot's `pop3_uidl_format`.
//! - `kept` is a file of ours with the unique-ids that were found. What it has is not looked for again until a list changes,
//!   and stays when the list is gone.
//! - `unique` sees to it that no two messages have the same one.
//!
//! A message that a client has retrieved keeps the unique-id that the client has seen: an IMAP server that uses the Maildir,
//! too, lists new messages later, and would give them another one.

mod header;
mod kept;
mod lists;
mod template;
mod unique;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::Read;

use clap::ValueEnum;

use super::format::Format;
use super::identity::{Identity, is_settled, nanoseconds_since_1970};
use super::location::Location;
use super::message::{Folder, Message};
use header::Header;
use kept::{Entry, Kept, List, MOST_OCTETS};
use lists::Ids;
pub use template::Format as UniqueIdFormat;
use template::Known;

const DOVECOT: &str = "dovecot-uidlist";
const COURIER: &str = "courierpop3dsizelist";

/// Which unique-ids messages have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum UniqueIds {
    /// This server's own, from the file names
    #[default]
    Name,
    /// Those of Dovecot, where it has given some
    Dovecot,
    /// Those of Courier's courierpop3dsizelist, where it has them
    Courier,
    /// Those that qpopper stored in the field X-UIDL of the header, where there are any
    XUidl,
    /// Those of Dovecot or else of Courier, where one of them has them
    Auto,
}

/// How unique-ids are chosen.
#[derive(Debug, Clone, Default)]
pub struct UniqueIdRules {
    /// Where they come from.
    pub source: UniqueIds,
    /// Dovecot's `pop3_uidl_format`.
    pub dovecot_format: UniqueIdFormat,
}

impl UniqueIdRules {
    fn ask(&self, sources: &[UniqueIds]) -> bool {
        sources.contains(&self.source)
    }
}

/// As the file of kept unique-ids names the rules.
impl fmt::Display for UniqueIdRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = &self.dovecot_format;
        match self.source {
            UniqueIds::Name => f.write_str("name"),
            UniqueIds::Dovecot => write!(f, "dovecot {format}"),
            UniqueIds::Courier => f.write_str("courier"),
            UniqueIds::XUidl => f.write_str("x-uidl"),
            UniqueIds::Auto => write!(f, "auto {format}"),
        }
    }
}

/// The unique-id of one message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Choice {
    /// The unique-id that another server gave; `None` for this server's own.
    id: Option<Vec<u8>>,
    /// The UID in an mbox, 0 if there is none.
    uid: u32,
    /// True if it must not change.
    is_fixed: bool,
}

impl Choice {
    fn is_known(&self) -> bool {
        self.is_fixed || self.id.is_some()
    }
}

/// The unique-ids that other servers gave to messages.
#[derive(Debug, Default)]
pub(super) struct GivenIds {
    /// By ascending index. Other messages have this server's own.
    ids: Box<[(usize, Vec<u8>)]>,
    /// How many messages may have one: those of the INBOX.
    inbox: usize,
    /// True if unique-ids that clients have seen are noted.
    is_noting: bool,
}

impl GivenIds {
    /// Finds the unique-ids of a maildrop's messages.
    pub(super) fn of(location: &Location, format: &mut dyn Format, messages: &mut [Message]) -> Self {
        let rules = location.root().layouts().unique_ids();
        let inbox = format.inbox(messages).len();
        let Some(folder) = messages.first().map(|message| message.path.folder) else { return Self::default() };
        if rules.source == UniqueIds::Name || folder == Folder::Top || inbox == 0 {
            return Self::default();
        }
        let text = kept::read(location.root(), &location.own_files(home(folder)));
        let kept = Kept::parse(&text);
        let login = Login { location, rules, folder, kept: &kept };
        let choices = login.choose(format, messages, inbox);
        let ids = choices.into_iter().enumerate().filter_map(|(index, choice)| Some((index, choice.id?)));
        Self { ids: ids.collect(), inbox, is_noting: rules.source != UniqueIds::XUidl }
    }

    /// The unique-id of a message, if another server gave it one.
    pub(super) fn get(&self, index: usize) -> Option<&[u8]> {
        let at = self.ids.binary_search_by_key(&index, |&(index, _)| index).ok()?;
        Some(&self.ids[at].1)
    }

    /// How many messages have one.
    pub(super) fn count(&self) -> usize {
        self.ids.len()
    }

    /// Notes that a client has retrieved these messages. From now on their unique-ids do not change.
    pub(super) fn fix(&self, location: &Location, messages: &[Message], retrieved: &[usize]) {
        let retrieved = retrieved.iter().copied().filter(|&index| index < self.inbox);
        let Some(folder) = messages.first().map(|message| message.path.folder).filter(|_| self.is_noting) else {
            return;
        };
        let (root, files) = (location.root(), location.own_files(home(folder)));
        let text = kept::read(root, &files);
        let mut kept = Kept::parse(&text);
        if kept.rule.is_empty() {
            kept.rule = root.layouts().unique_ids().to_string();
        }
        let positions: HashMap<&[u8], usize> =
            kept.entries.iter().enumerate().map(|(at, entry)| (entry.name, at)).collect();
        let mut has_changed = false;
        for index in retrieved.filter(|&index| !messages[index].content.namesake) {
            let name = messages[index].path.base();
            match positions.get(name) {
                Some(&at) => has_changed |= !std::mem::replace(&mut kept.entries[at].is_fixed, true),
                None => {
                    kept.entries.push(Entry { name, id: self.get(index), uid: 0, is_fixed: true });
                    has_changed = true;
                }
            }
        }
        if has_changed {
            kept.save(root, &files);
        }
    }
}

/// The folder in which the file of kept unique-ids is.
fn home(folder: Folder) -> Folder {
    match folder {
        Folder::Mbox => Folder::Mbox,
        _ => Folder::Top,
    }
}

/// What a login needs to find the unique-ids.
struct Login<'a> {
    location: &'a Location,
    rules: &'a UniqueIdRules,
    folder: Folder,
    kept: &'a Kept<'a>,
}

impl Login<'_> {
    /// Chooses the unique-ids of the INBOX's messages, and keeps them.
    fn choose(&self, format: &mut dyn Format, messages: &mut [Message], inbox: usize) -> Vec<Choice> {
        let rule = self.rules.to_string();
        let is_same_rule = self.kept.rule == rule;
        let lists = self.lists();
        let is_current = is_same_rule && self.kept.lists == lists && lists.iter().all(|list| list.identity.inode != 0);
        let before = self.kept_choices(&messages[..inbox], is_same_rule);
        if is_current && self.kept.entries.len() == inbox && before.iter().all(|choice| choice.id.is_some()) {
            return before; // exactly what was kept, in which no two are equal
        }
        let mut choices = before.clone();
        if self.folder == Folder::Mbox || self.rules.source == UniqueIds::XUidl {
            self.look_into_headers(format, messages, &mut choices, is_current, is_same_rule);
        } else if !is_current {
            self.look_into_lists(&messages[..inbox], &mut choices, &lists);
        }
        unique::make(&mut choices, |index| format.unique_id(index, &messages[index]));
        let is_of_use = !self.kept.entries.is_empty() || choices.iter().any(Choice::is_known);
        if is_of_use && (!is_current || choices != before) {
            self.keep(&messages[..inbox], &choices, rule, lists);
        }
        choices
    }

    /// The states of the lists that the rules ask for; of an mbox, its own. A list that has changed so recently that a later
    /// change may have the same time has no inode.
    fn lists(&self) -> Vec<List> {
        let now = nanoseconds_since_1970();
        let path = self.location.path();
        let state = |name: &str| {
            let path = if name.is_empty() { path.to_vec() } else { [path, b"/", name.as_bytes()].concat() };
            let identity = Identity::new(&self.location.root().file_stat(&path).ok()?);
            let is_settled = is_settled(identity.modified, now) && is_settled(identity.changed, now);
            let inode = if is_settled { identity.inode } else { 0 };
            Some(List { name: name.to_owned(), identity: Identity { inode, ..identity } })
        };
        let names: &[&str] = match (self.folder, self.rules.source) {
            (_, UniqueIds::XUidl | UniqueIds::Name) => &[],
            (Folder::Mbox, _) => &[""],
            (_, UniqueIds::Dovecot) => &[DOVECOT],
            (_, UniqueIds::Courier) => &[COURIER],
            (_, UniqueIds::Auto) => &[DOVECOT, COURIER],
        };
        names.iter().filter_map(|name| state(name)).collect()
    }

    /// What is kept about the messages. Under other rules than those now in force nothing is fixed.
    fn kept_choices(&self, messages: &[Message], is_same_rule: bool) -> Vec<Choice> {
        let mut finder = self.kept.finder();
        let choice = |message: &Message| {
            let entry = finder.find(message.path.base()).filter(|_| !message.content.namesake);
            entry.map_or_else(Choice::default, |Entry { id, uid, is_fixed, .. }| Choice {
                id: id.map(<[u8]>::to_vec),
                uid,
                is_fixed: is_fixed && is_same_rule,
            })
        };
        messages.iter().map(choice).collect()
    }

    /// Gives messages the unique-ids of the lists, unless theirs are fixed.
    fn look_into_lists(&self, messages: &[Message], choices: &mut [Choice], lists: &[List]) {
        let mut known = Ids::new();
        // Dovecot's come last, so that they replace Courier's.
        for List { name, .. } in lists.iter().rev() {
            let text = self.read(name).unwrap_or_default();
            known.extend(match name.as_str() {
                COURIER => lists::courier(&text),
                _ => lists::dovecot(&text, &self.rules.dovecot_format),
            });
        }
        let folders = &self.location.root().layouts().maildirs().folders;
        known.retain(|_, id| !folders.iter().any(|folder| folder.has_unique_id(id)));
        for (message, choice) in messages.iter().zip(choices).filter(|(message, _)| !message.content.namesake) {
            if let Some(id) = known.get(message.path.base()).filter(|_| !choice.is_fixed) {
                choice.id = Some(id.clone());
            }
        }
    }

    fn read(&self, list: &str) -> Option<Vec<u8>> {
        let (file, identity) =
            self.location.root().file(&[self.location.path(), b"/", list.as_bytes()].concat()).ok()?;
        let mut text = Vec::new();
        file.take(identity.size.min(MOST_OCTETS)).read_to_end(&mut text).ok()?;
        Some(text)
    }

    /// Gives messages the unique-ids that their headers tell, unless they have one.
    fn look_into_headers(
        &self,
        format: &mut dyn Format,
        messages: &mut [Message],
        choices: &mut [Choice],
        is_current: bool,
        is_same_rule: bool,
    ) {
        let wants_x_uidl = self.rules.source == UniqueIds::XUidl;
        if !wants_x_uidl && (is_current || !self.rules.ask(&[UniqueIds::Dovecot, UniqueIds::Auto])) {
            return;
        }
        let template = &self.rules.dovecot_format;
        let base = if wants_x_uidl { None } else { self.imap_base() };
        if !wants_x_uidl && base.is_none() && template.has_numbers() {
            return; // the mbox is not, or no longer, Dovecot's
        }
        let mut highest = 0;
        for index in 0..choices.len() {
            highest = highest.max(choices[index].uid);
            if (choices[index].is_known() && is_same_rule) || messages[index].content.namesake {
                continue;
            }
            let Ok(opened) = format.open(messages, index) else { continue };
            let Ok(header) = Header::read(opened.source) else { continue };
            let choice = &mut choices[index];
            if wants_x_uidl {
                // A header does not change, so that it is not read again.
                choice.is_fixed = true;
                choice.id = header.x_uidl().or(choice.id.take());
                continue;
            }
            // As in Dovecot, UIDs ascend up to the last one that was given. So no sender of a message can choose one.
            let uid = header.x_uid().filter(|&uid| uid > highest && base.is_some_and(|(_, last)| uid <= last));
            let hash = header.hash();
            let validity = base.map(|(validity, _)| validity);
            let known = Known { uid, validity, header_hash: Some(&hash), ..Known::default() };
            if let Some(id) = template.expand(&known).filter(|id| is_unique_id(id)) {
                *choice = Choice { id: Some(id), uid: uid.unwrap_or(0), is_fixed: false };
                highest = highest.max(choice.uid);
            }
        }
    }

    /// The UIDVALIDITY and the last UID of an mbox.
    fn imap_base(&self) -> Option<(u32, u32)> {
        let (file, _) = self.location.root().file(self.location.path()).ok()?;
        Header::first_of_mbox(file).ok()?.imap_base()
    }

    /// Writes what is known. Messages that are not listed now may only be hidden, so their unique-ids stay as long as these
    /// are not too many.
    fn keep(&self, messages: &[Message], choices: &[Choice], rule: String, lists: Vec<List>) {
        let entry = |(message, choice): (&Message, &Choice)| (message.path.base().to_vec(), choice.clone());
        let listed: Vec<_> = messages.iter().zip(choices).map(entry).collect();
        let mut entries: Vec<Entry<'_>> = Vec::with_capacity(listed.len());
        for (name, Choice { id, uid, is_fixed }) in listed.iter().filter(|(_, choice)| choice.is_known()) {
            entries.push(Entry { name, id: id.as_deref(), uid: *uid, is_fixed: *is_fixed });
        }
        let names: HashSet<&[u8]> = listed.iter().map(|(name, _)| &name[..]).collect();
        let hidden = self.kept.entries.iter().filter(|entry| !names.contains(entry.name));
        if hidden.clone().count() <= HIDDEN + listed.len() {
            entries.extend(hidden);
        }
        Kept { rule, lists, entries }.save(self.location.root(), &self.location.own_files(home(self.folder)));
    }
}

/// How many unique-ids of messages that are not listed are kept beyond the number of those that are listed.
const HIDDEN: usize = 1000;

fn is_unique_id(id: &[u8]) -> bool {
    (1..=70).contains(&id.len()) && id.iter().all(|octet| (0x21..=0x7e).contains(octet))
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
