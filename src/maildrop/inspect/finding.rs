//! What can be wrong with a maildrop.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// How many files are named for each finding.
const EXAMPLES: usize = 3;

/// Something that is wrong or unusual in a maildrop. Findings are shown in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The maildrop cannot be opened, or is refused as one.
    Refused,
    /// Messages cannot be read.
    Unreadable,
    /// Several messages have the same base name.
    Duplicate,
    /// The stored size in the name (`S=`) is wrong.
    WrongStoredSize,
    /// The size on the wire in the name (`W=`) is wrong.
    WrongWireSize,
    /// Files in `tmp/` that their programs have left there.
    LeftOver,
    /// The quota file counts other messages than there are.
    Quota,
    /// A dot-lock that no program holds any more.
    StaleLock,
    /// The maildrop does not exist.
    Missing,
    /// LIST would tell another size than RETR sends.
    WrongListedSize,
    /// Names that cannot be unique-ids.
    InvalidName,
    /// Messages of an mbox that are equal.
    EqualMessages,
    /// Files that belong to another user than the maildrop.
    OtherOwner,
    /// Messages that another server has compressed.
    Compressed,
    /// Messages whose last line has no end.
    NoLineEnd,
    /// Messages with NULs.
    Nul,
    /// Messages with lines of more than 998 octets.
    LongLine,
    /// A removal of messages from an mbox that was interrupted.
    InterruptedRemoval,
}

impl Fault {
    /// The fault's name for programs. It never changes.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// Returns true if the operator should do something about it.
    #[must_use]
    pub fn needs_a_hand(self) -> bool {
        self <= Self::StaleLock
    }

    /// The fault in English, as the title of a list.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.row().1
    }

    fn row(self) -> (&'static str, &'static str) {
        match self {
            Self::Refused => ("refused", "maildrop that cannot be opened"),
            Self::Unreadable => ("unreadable", "messages that cannot be read"),
            Self::Duplicate => ("duplicate", "messages with the name of another one"),
            Self::WrongStoredSize => ("wrong_stored_size", "names with a wrong stored size (S=)"),
            Self::WrongWireSize => ("wrong_wire_size", "names with a wrong size on the wire (W=)"),
            Self::LeftOver => ("left_over", "files in tmp older than 36 hours"),
            Self::Quota => ("quota", "quota file that does not agree with the messages"),
            Self::StaleLock => ("stale_lock", "dot-lock that no program holds"),
            Self::Missing => ("missing", "maildrop that does not exist and counts as empty"),
            Self::WrongListedSize => {
                ("wrong_listed_size", "messages that LIST gives a wrong size until they are retrieved")
            }
            Self::InvalidName => ("invalid_name", "names that cannot be unique-ids, so clients get a hash of them"),
            Self::EqualMessages => ("equal_messages", "messages that are equal to an earlier one"),
            Self::OtherOwner => ("other_owner", "files of another owner than the maildrop"),
            Self::Compressed => ("compressed", "compressed messages, which are sent plain"),
            Self::NoLineEnd => ("no_line_end", "messages without a line end at the end"),
            Self::Nul => ("nul", "messages with NULs"),
            Self::LongLine => ("long_line", "messages with lines of more than 998 octets"),
            Self::InterruptedRemoval => ("interrupted_removal", "removal of messages that the next login finishes"),
        }
    }
}

/// A fault and where it is.
#[derive(Debug, Default)]
pub struct Finding {
    /// How many files or messages have it.
    pub count: u64,
    /// The first few of them.
    pub examples: Vec<String>,
    /// More about the first one.
    pub detail: Option<String>,
}

/// The findings of one maildrop.
#[derive(Debug, Default)]
pub struct Findings(BTreeMap<Fault, Finding>);

impl Findings {
    /// Counts a file that has a fault.
    pub(super) fn add(&mut self, fault: Fault, file: Cow<'_, [u8]>) {
        let finding = self.0.entry(fault).or_default();
        finding.count += 1;
        if finding.examples.len() < EXAMPLES {
            finding.examples.push(String::from_utf8_lossy(&file).into_owned());
        }
    }

    /// Notes a fault of the maildrop as a whole.
    pub(super) fn say(&mut self, fault: Fault, detail: String) {
        self.0.insert(fault, Finding { count: 1, examples: Vec::new(), detail: Some(detail) });
    }

    /// Says more about a fault, unless that has been said already.
    pub(super) fn explain(&mut self, fault: Fault, detail: String) {
        self.0.entry(fault).or_default().detail.get_or_insert(detail);
    }

    /// The findings in order.
    pub fn iter(&self) -> impl Iterator<Item = (Fault, &Finding)> {
        self.0.iter().map(|(&fault, finding)| (fault, finding))
    }

    /// Returns true if the operator should do something about one of them.
    #[must_use]
    pub fn need_a_hand(&self) -> bool {
        self.0.keys().any(|fault| fault.needs_a_hand())
    }
}
