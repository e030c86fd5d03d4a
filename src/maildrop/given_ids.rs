//! Unique-ids that another POP3 server gave to the messages of a Maildir before: Dovecot's `dovecot-uidlist` and Courier's
//! `courierpop3dsizelist`. A message that they know keeps its unique-id, so that clients do not fetch it again.

use std::collections::{HashMap, HashSet};
use std::io::Read;

use clap::ValueEnum;

use super::location::Location;
use super::message::{Folder, Message};
use super::name;

/// The largest list that is read: enough for 2 million messages.
const MOST_OCTETS: u64 = 256 << 20;

/// Which unique-ids the messages of a Maildir have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum UniqueIds {
    /// This server's own, from the file names
    #[default]
    Name,
    /// Those of Dovecot's dovecot-uidlist, where it has them
    Dovecot,
    /// Those of Courier's courierpop3dsizelist, where it has them
    Courier,
    /// Those of Dovecot or else of Courier, where one of them has them
    Auto,
}

/// How unique-ids are chosen.
#[derive(Debug, Clone, Default)]
pub struct UniqueIdRules {
    /// Where they come from.
    pub source: UniqueIds,
    /// Dovecot's `pop3_uidl_format`.
    pub dovecot_format: Format,
}

/// A unique-id by the message's base name.
type Ids = HashMap<Vec<u8>, Vec<u8>>;

/// The unique-ids that other servers have given to messages, by the messages' ascending index. Other messages have their
/// own.
pub(super) fn of(location: &Location, rules: &UniqueIdRules, messages: &[Message]) -> Box<[(usize, Vec<u8>)]> {
    let is_maildir = messages.first().is_some_and(|it| matches!(it.path.folder, Folder::New | Folder::Cur));
    if !is_maildir || rules.source == UniqueIds::Name {
        return Box::default();
    }
    let mut known = Ids::new();
    if matches!(rules.source, UniqueIds::Courier | UniqueIds::Auto) {
        known.extend(read(location, b"courierpop3dsizelist").map(|text| courier(&text)).unwrap_or_default());
    }
    if matches!(rules.source, UniqueIds::Dovecot | UniqueIds::Auto) {
        let text = read(location, b"dovecot-uidlist");
        known.extend(text.map(|text| dovecot(&text, &rules.dovecot_format)).unwrap_or_default());
    }
    let folders = &location.root().layouts().maildirs().folders;
    known.retain(|_, id| !folders.iter().any(|folder| folder.has_unique_id(id)));
    assign(&known, messages)
}

/// Gives each message its unique-id, and none to two of them.
fn assign(known: &Ids, messages: &[Message]) -> Box<[(usize, Vec<u8>)]> {
    let given = |message: &Message| known.get(message.path.base()).filter(|_| !message.content.namesake);
    let own = messages.iter().filter(|message| given(message).is_none());
    let mut taken: HashSet<Vec<u8>> = own.map(|message| message.unique_id().into_owned()).collect();
    let mut ids = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        if let Some(id) = given(message).filter(|&id| taken.insert(id.clone())) {
            ids.push((index, id.clone()));
        }
    }
    ids.into()
}

fn read(location: &Location, name: &[u8]) -> Option<Vec<u8>> {
    let (file, identity) = location.root().file(&[location.path(), b"/", name].concat()).ok()?;
    let mut text = Vec::new();
    file.take(identity.size.min(MOST_OCTETS)).read_to_end(&mut text).ok()?;
    Some(text)
}

fn is_unique_id(id: &[u8]) -> bool {
    (1..=70).contains(&id.len()) && id.iter().all(|octet| (0x21..=0x7e).contains(octet))
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The unique-ids of a `dovecot-uidlist`, of format 3 or 1.
fn dovecot(text: &[u8], format: &Format) -> Ids {
    let mut lines = text.split(|&octet| octet == b'\n');
    let header: Vec<&[u8]> = lines.next().unwrap_or_default().split(|&octet| octet == b' ').collect();
    let validity = match header.first() {
        Some(&b"3") => header.iter().find_map(|field| number(field.strip_prefix(b"V")?)),
        Some(&b"1") => header.get(1).and_then(|field| number(field)),
        _ => None,
    };
    let Some(validity) = validity else { return Ids::new() };
    let is_old = header.first() == Some(&&b"1"[..]);
    let entry = |line: &[u8]| {
        let space = memchr::memchr(b' ', line)?;
        let (uid, rest) = (number(&line[..space])?, &line[space..]);
        let (fields, file) = if is_old {
            (&b""[..], &rest[1..])
        } else {
            let colon = memchr::memmem::find(rest, b" :")?;
            (&rest[..colon], &rest[colon + 2..])
        };
        let fields = || fields.split(|&octet| octet == b' ');
        let base = name::base(file);
        let guid = fields().find_map(|field| field.strip_prefix(b"G"));
        let id = match fields().find_map(|field| field.strip_prefix(b"P")) {
            Some(id) => id.to_vec(),
            None => format.expand(uid, validity, base, guid)?,
        };
        is_unique_id(&id).then(|| (base.to_vec(), id))
    };
    lines.filter_map(entry).collect()
}

/// The unique-ids of a `courierpop3dsizelist`.
fn courier(text: &[u8]) -> Ids {
    let mut lines = text.split(|&octet| octet == b'\n');
    if !lines.next().unwrap_or_default().starts_with(b"/") {
        return Ids::new();
    }
    let entry = |line: &[u8]| {
        let mut fields = line.rsplitn(3, |&octet| octet == b' ');
        let (ids, _size, file) = (fields.next()?, fields.next()?, fields.next()?);
        let mut ids = ids.split(|&octet| octet == b':');
        let (uid, validity): (u64, u64) = (number(ids.next()?)?, number(ids.next()?)?);
        // A message of an older format has its name as unique-id, which is this server's own.
        (uid > 0).then(|| (name::base(file).to_vec(), format!("UID{uid}-{validity}").into_bytes()))
    };
    lines.filter_map(entry).collect()
}

/// Dovecot's `pop3_uidl_format`, such as `%08Xu%08Xv`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Variable {
        /// `u` UID, `v` UIDVALIDITY, `f` base name, `g` GUID.
        name: u8,
        width: usize,
        is_hex: bool,
    },
}

impl Default for Format {
    /// Dovecot's own default.
    fn default() -> Self {
        let number = |name| Part::Variable { name, width: 8, is_hex: true };
        Self(vec![number(b'u'), number(b'v')])
    }
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut octets = text.bytes().peekable();
        while let Some(octet) = octets.next() {
            if octet != b'%' {
                parts.push(Part::Text(vec![octet]));
                continue;
            }
            let mut width = 0;
            while let Some(digit) = octets.next_if(u8::is_ascii_digit) {
                width = (10 * width + usize::from(digit - b'0')).min(70);
            }
            let is_hex = octets.next_if(|&octet| matches!(octet, b'X' | b'x')).is_some();
            match octets.next() {
                Some(b'%') => parts.push(Part::Text(vec![b'%'])),
                Some(name @ (b'u' | b'v' | b'f' | b'g')) => parts.push(Part::Variable { name, width, is_hex }),
                _ => return Err("it has the variables %u, %v, %f and %g, with X and a width, as %08Xu".to_owned()),
            }
        }
        if parts.is_empty() { Err("it is empty".to_owned()) } else { Ok(Self(parts)) }
    }
}

impl Format {
    fn expand(&self, uid: u32, validity: u32, base: &[u8], guid: Option<&[u8]>) -> Option<Vec<u8>> {
        let mut id = Vec::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => id.extend_from_slice(text),
                Part::Variable { name: b'f', .. } => id.extend_from_slice(base),
                Part::Variable { name: b'g', .. } => id.extend_from_slice(guid?),
                Part::Variable { name, width, is_hex } => {
                    let number = if *name == b'u' { uid } else { validity };
                    // Dovecot writes small letters, whichever way X is written.
                    let text = if *is_hex { format!("{number:0width$x}") } else { format!("{number:0width$}") };
                    id.extend_from_slice(text.as_bytes());
                }
            }
        }
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(ids: Ids) -> Vec<(String, String)> {
        let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
        let mut ids: Vec<_> = ids.into_iter().map(|(base, id)| (text(base), text(id))).collect();
        ids.sort();
        ids
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(base, id)| (base.to_string(), id.to_string())).collect()
    }

    /// The first line and the first message are those of a real file.
    #[test]
    fn dovecots_list_is_read() {
        let list = b"3 V1795679507 N21 Gc002222a0fe5076ba528000083ecc375\n1 W20758 :1700000000.M000000P1.host\n\
            2 W61539 Pkept-id G1a2b :1700000001.M000001P1.host:2,S\nx :bad\n3 no mark\n";
        let expected = [("1700000000.M000000P1.host", "000000016b07e513"), ("1700000001.M000001P1.host", "kept-id")];
        assert_eq!(text(dovecot(list, &Format::default())), pairs(&expected));
        let format = |format: &str| text(dovecot(b"3 N9 V77\n5 Gab :1.a.h\n6 :2.a.h\n", &format.parse().unwrap()));
        assert_eq!(format("%v.%u"), pairs(&[("1.a.h", "77.5"), ("2.a.h", "77.6")]));
        assert_eq!(format("UID%u-%v"), pairs(&[("1.a.h", "UID5-77"), ("2.a.h", "UID6-77")]));
        assert_eq!(format("%05u%%%f"), pairs(&[("1.a.h", "00005%1.a.h"), ("2.a.h", "00006%2.a.h")]));
        assert_eq!(format("%g"), pairs(&[("1.a.h", "ab")]));
        assert_eq!(text(dovecot(b"1 77 9\n5 1.a.h:2,S\n", &"%u".parse().unwrap())), pairs(&[("1.a.h", "5")]));
        for wrong in [&b""[..], b"4 V1\n1 :a", b"3 N1\n1 :a"] {
            assert!(dovecot(wrong, &Format::default()).is_empty());
        }
        for wrong in ["", "%", "%z", "%08X"] {
            assert!(wrong.parse::<Format>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn couriers_list_is_read() {
        let list = b"/3 13 1795680363\n1795680242.M636022P8141.vm:2,S 30374 1:1795680363:0\nold 5 0:0:0\nold 5\n";
        assert_eq!(text(courier(list)), pairs(&[("1795680242.M636022P8141.vm", "UID1-1795680363")]));
        assert!(courier(b"x\na 1 1:2:0\n").is_empty());
    }
}
