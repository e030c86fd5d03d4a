//! The lists in which Dovecot and Courier keep the unique-ids of a Maildir's messages: `dovecot-uidlist` and
//! `courierpop3dsizelist`.

use std::collections::HashMap;

use super::template::{Format, Known};
use super::{is_unique_id, number};
use crate::maildrop::name;

/// A unique-id by the message's base name.
pub(super) type Ids = HashMap<Vec<u8>, Vec<u8>>;

/// The unique-ids of a `dovecot-uidlist`, of format 3 or 1.
pub(super) fn dovecot(text: &[u8], format: &Format) -> Ids {
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
            None => {
                let (uid, validity) = (Some(uid), Some(validity));
                format.expand(&Known { uid, validity, base: Some(base), guid, header_hash: None })?
            }
        };
        is_unique_id(&id).then(|| (base.to_vec(), id))
    };
    lines.filter_map(entry).collect()
}

/// The unique-ids of a `courierpop3dsizelist`.
pub(super) fn courier(text: &[u8]) -> Ids {
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
    }

    #[test]
    fn couriers_list_is_read() {
        let list = b"/3 13 1795680363\n1795680242.M636022P8141.vm:2,S 30374 1:1795680363:0\nold 5 0:0:0\nold 5\n";
        assert_eq!(text(courier(list)), pairs(&[("1795680242.M636022P8141.vm", "UID1-1795680363")]));
        assert!(courier(b"x\na 1 1:2:0\n").is_empty());
    }
}
