//! Reads the names of messages' files: the order of messages in the maildrop and their unique-ids.

use std::borrow::Cow;
use std::cmp::Ordering;

use siphasher::sip128::SipHasher13;

/// The base of a Maildir name: without the `:2,` and flags that a mail program adds in `cur/`. On file systems that
/// allow no colon in a name, such as FAT and SMB, mail programs write `;2,` or `!2,` instead.
pub(super) fn base(name: &[u8]) -> &[u8] {
    &name[..mark(name).unwrap_or(name.len())]
}

/// Where the mark that ends the base begins: `:2,` or what is written instead.
fn mark(name: &[u8]) -> Option<usize> {
    memchr::memchr3_iter(b':', b';', b'!', name).find(|&at| name[at + 1..].starts_with(b"2,"))
}

/// The flags of a message in a Maildir, such as `FS`.
pub(super) fn flags(name: &[u8]) -> &[u8] {
    mark(name).map_or(b"", |at| &name[at + 3..])
}

/// Returns true if a mail program has marked the message as deleted.
pub(super) fn is_trashed(name: &[u8]) -> bool {
    flags(name).contains(&b'T')
}

/// The name with one more flag. The flags stay in the order of ASCII.
pub(super) fn with_flag(name: &[u8], flag: u8) -> Vec<u8> {
    let flags = flags(name);
    let start = name.len() - flags.len();
    match mark(name) {
        None => [name, b":2,", &[flag]].concat(),
        Some(_) if flags.contains(&flag) => name.to_vec(),
        Some(_) => {
            let at = start + flags.iter().take_while(|&&other| other < flag).count();
            [&name[..at], &[flag], &name[at..]].concat()
        }
    }
}

/// The stored size and the size on the wire that a Maildir name gives: `,S=` and `,W=` of Maildir++.
pub(super) fn sizes(name: &[u8]) -> Option<(u64, u64)> {
    Some((told_size(name)?, told_wire_size(name)?))
}

/// The stored size that a Maildir name gives: of a compressed message, the size that it had before.
pub(super) fn told_size(name: &[u8]) -> Option<u64> {
    told(name, b",S=")
}

/// The size on the wire that a Maildir name gives.
pub(super) fn told_wire_size(name: &[u8]) -> Option<u64> {
    told(name, b",W=")
}

fn told(name: &[u8], key: &[u8]) -> Option<u64> {
    let value = &base(name)[memchr::memmem::find(base(name), key)? + key.len()..];
    std::str::from_utf8(digits(value).0).ok()?.parse().ok()
}

/// The order of a Maildir: by delivery time, which is the number at the beginning of the name, then by name.
pub(super) fn maildir_order(a: &[u8], b: &[u8]) -> Ordering {
    let time = |name| digits(name).0;
    compare_numbers(time(a), time(b)).then_with(|| base(a).cmp(base(b))).then_with(|| a.cmp(b))
}

/// The delivery time at the beginning of a Maildir name, at most `u64::MAX`.
pub(super) fn delivery_time(name: &[u8]) -> u64 {
    digits(name).0.iter().fold(0, |time: u64, digit| time.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
}

/// The order of a flat maildrop: by name, with digits compared as numbers (`9.eml` comes before `10.eml`).
pub(super) fn flat_order(a: &[u8], b: &[u8]) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let order = match (left.first(), right.first()) {
            (Some(l), Some(r)) if l.is_ascii_digit() && r.is_ascii_digit() => {
                let ((l, l_rest), (r, r_rest)) = (digits(left), digits(right));
                (left, right) = (l_rest, r_rest);
                compare_numbers(l, r)
            }
            (Some(l), Some(r)) => {
                let order = l.cmp(r);
                (left, right) = (&left[1..], &right[1..]);
                order
            }
            // Names that differ only in leading zeros are compared octet by octet.
            (l, r) => return l.cmp(&r).then_with(|| a.cmp(b)),
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// The leading digits and the rest.
fn digits(name: &[u8]) -> (&[u8], &[u8]) {
    let end = name.iter().position(|octet| !octet.is_ascii_digit()).unwrap_or(name.len());
    name.split_at(end)
}

/// Compares digits of any length as numbers.
fn compare_numbers(a: &[u8], b: &[u8]) -> Ordering {
    let significant = |digits: &[u8]| digits.iter().position(|&digit| digit != b'0').unwrap_or(digits.len());
    let (a, b) = (&a[significant(a)..], &b[significant(b)..]);
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// A Maildir message's unique-id: its base name if that has 1 to 70 printable octets, as RFC 1939 section 7 demands,
/// else a hash of the base name.
pub(super) fn maildir_unique_id(name: &[u8]) -> Cow<'_, [u8]> {
    let base = base(name);
    if is_unique_id(base) { Cow::Borrowed(base) } else { Cow::Owned(hash(base)) }
}

/// Returns true if a text can be a unique-id: 1 to 70 octets of 0x21–0x7E (RFC 1939 section 7).
pub(super) fn is_unique_id(text: &[u8]) -> bool {
    (1..=70).contains(&text.len()) && text.iter().all(|octet| (0x21..=0x7e).contains(octet))
}

/// The unique-id of a message in a flat maildrop. A later message may have the same name, so its size and modification
/// time count too. The time is in whole seconds, because programs such as GNU tar restore no fractions.
pub(super) fn flat_unique_id(name: &[u8], size: u64, seconds: i64) -> Vec<u8> {
    hash(&[name, &size.to_le_bytes(), &seconds.to_le_bytes()].concat())
}

/// The unique-id of a Maildir message whose base name another message had first. The inode distinguishes messages with
/// the same base name and modification time.
pub(super) fn namesake_unique_id(base: &[u8], modified: i64, inode: u64) -> Vec<u8> {
    hash(&[base, &modified.to_le_bytes(), &inode.to_le_bytes()].concat())
}

/// The unique-id of a message in a folder of a Maildir, which has this unique-id within the folder. The slash is in no
/// name of a file, so it distinguishes the message from those of the INBOX.
pub(super) fn folder_unique_id(folder: &[u8], id: &[u8]) -> Vec<u8> {
    let whole = [folder, b"/", id].concat();
    if whole.len() <= 70 && folder.iter().all(|octet| (0x21..=0x7e).contains(octet)) { whole } else { hash(&whole) }
}

/// A hash of 128 bits in hexadecimal. Its keys are fixed, so that unique-ids are the same after a restart.
fn hash(octets: &[u8]) -> Vec<u8> {
    let hash = SipHasher13::new_with_keys(0x706f_7033_6420_6e61, 0x6d65_2074_6f20_6964).hash(octets).as_u128();
    format!("{hash:032x}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sorted(mut names: Vec<&str>, order: fn(&[u8], &[u8]) -> Ordering) -> Vec<&str> {
        names.sort_by(|a, b| order(a.as_bytes(), b.as_bytes()));
        names
    }

    #[test]
    fn digits_in_flat_names_are_compared_as_numbers() {
        assert_eq!(
            sorted(vec!["mail10", "mail9", "mail", "1", "010", "9", "a2b10", "a2b9"], flat_order),
            ["1", "9", "010", "a2b9", "a2b10", "mail", "mail9", "mail10"]
        );
        assert_ne!(flat_order(b"01", b"1"), Ordering::Equal);
    }

    #[test]
    fn maildir_names_are_ordered_by_delivery_time() {
        assert_eq!(
            sorted(vec!["1000000000.b.h:2,S", "999999999.z.h", "1000000000.a.h", "odd"], maildir_order),
            ["odd", "999999999.z.h", "1000000000.a.h", "1000000000.b.h:2,S"]
        );
    }

    #[test]
    fn flags_do_not_change_the_unique_id() {
        assert_eq!(&*maildir_unique_id(b"1.2.h:2,RS"), b"1.2.h");
        assert_eq!(&*maildir_unique_id(b"1.2.h,S=3:2,"), b"1.2.h,S=3");
        for name in ["1.2.h;2,RS", "1.2.h!2,", "1.2.h!2,S:2,S", "1.2.h;2,:2,S", "1.2.h:2,!2,S"] {
            assert_eq!(&*maildir_unique_id(name.as_bytes()), b"1.2.h", "{name}");
        }
        for name in ["1.2.h!3,S", "1.2.h;S", "1.2.h!", "1.2.h,2,S"] {
            assert_eq!(&*maildir_unique_id(name.as_bytes()), name.as_bytes());
        }
    }

    #[test]
    fn a_flag_is_added_in_order_and_once() {
        for (name, expected) in [
            ("1.a.h", "1.a.h:2,S"),
            ("1.a.h:2,", "1.a.h:2,S"),
            ("1.a.h:2,FRTa", "1.a.h:2,FRSTa"),
            ("1.a.h,S=3;2,R", "1.a.h,S=3;2,RS"),
            ("1.a.h!2,Z", "1.a.h!2,SZ"),
            ("1.a.h:2,FS", "1.a.h:2,FS"),
        ] {
            assert_eq!(with_flag(name.as_bytes(), b'S'), expected.as_bytes(), "{name}");
            assert_eq!(base(expected.as_bytes()), base(name.as_bytes()));
        }
        assert!(is_trashed(b"1.T.h:2,ST") && !is_trashed(b"1.T.h:2,S") && !is_trashed(b"1.T.h"));
    }

    #[test]
    fn sizes_are_read_from_the_base_name() {
        assert_eq!(sizes(b"1.M2P3.h,S=100,W=104:2,S"), Some((100, 104)));
        for name in [
            "1.M2P3.h,S=100",
            "1.M2P3.h,W=104",
            "1.h:2,S=1,W=2",
            "1.h,S=,W=1",
            "1.h,S=x,W=1",
            "1,S=1,W=99999999999999999999",
        ] {
            assert_eq!(sizes(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn names_that_are_not_valid_unique_ids_are_hashed() {
        for name in ["a b", "caf\u{e9}", &"x".repeat(71), "a\tb"] {
            let id = maildir_unique_id(name.as_bytes()).into_owned();
            assert_eq!(id.len(), 32, "{name}");
            assert!(id.iter().all(u8::is_ascii_hexdigit));
            assert_eq!(id, *maildir_unique_id(format!("{name}:2,S").as_bytes()));
        }
        assert_eq!(maildir_unique_id(&[b'x'; 70]).len(), 70);
    }

    #[test]
    fn unique_ids_in_folders_have_the_name_of_the_folder() {
        assert_eq!(folder_unique_id(b"Junk", b"1.a.h"), b"Junk/1.a.h");
        assert_eq!(folder_unique_id(b"Junk", &[b'x'; 65]).len(), 70);
        for (folder, id) in [(&b"Junk"[..], &[b'x'; 66][..]), (b"Junk Mail", b"1.a.h"), (b"\xfc", b"1.a.h")] {
            let hashed = folder_unique_id(folder, id);
            assert!(hashed.len() == 32 && hashed.iter().all(u8::is_ascii_hexdigit));
            assert_ne!(hashed, folder_unique_id(b"Other folder", id));
        }
    }

    #[test]
    fn the_hash_never_changes_between_releases() {
        assert_eq!(flat_unique_id(b"mail1", 2000, 1_600_000_000), b"7c0eba70753959b99ac06806e1f4a132");
        assert_eq!(namesake_unique_id(b"mail1", 1_600_000_000, 0), b"e1967a05be3a996362ce435fd085ca5a");
        assert_eq!(&*maildir_unique_id(b"a b"), b"60f07cd54db345517fb72163c3edd8a4");
    }

    proptest! {
        #[test]
        fn earlier_messages_come_first(names in proptest::array::uniform2("[0-9]{0,25}[.a]{0,2}")) {
            let [a, b] = [&names[0], &names[1]].map(|name| name.as_bytes());
            let by_time = delivery_time(a).cmp(&delivery_time(b));
            prop_assert!(by_time.is_eq() || by_time == maildir_order(a, b));
        }

        #[test]
        fn the_base_ends_at_the_first_mark(name in "[a:;!2,]{0,12}") {
            let end = [":2,", ";2,", "!2,"].iter().filter_map(|mark| name.find(mark)).min().unwrap_or(name.len());
            prop_assert_eq!(base(name.as_bytes()), &name.as_bytes()[..end]);
        }

        #[test]
        fn both_orders_are_total(names in proptest::collection::vec("[0-2a.:]{0,6}", 3)) {
            for order in [flat_order, maildir_order] {
                let [a, b, c] = [&names[0], &names[1], &names[2]].map(|name| name.as_bytes());
                prop_assert_eq!(order(a, b), order(b, a).reverse());
                prop_assert_eq!(order(a, b) == Ordering::Equal, a == b);
                if order(a, b).is_le() && order(b, c).is_le() {
                    prop_assert!(order(a, c).is_le());
                }
            }
        }
    }
}
