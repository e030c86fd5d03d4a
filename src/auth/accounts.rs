//! The accounts of a users file.
//!
//! Hundreds of thousands of them have to fit into memory. So only the text of the file is kept, with the places of the
//! accounts' lines in it, and a line is parsed each time that its account is asked for.

use std::collections::{BTreeMap, HashMap};
use std::str;
use std::sync::Arc;

use super::hidden::Hidden;
use super::location::MailLocation;
use super::name::{InvalidName, UserName};
use super::own_expiry::OwnExpiry;
use super::source::Totals;
use super::text::{self, Account, Fault};

/// The accounts of a users file.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    text: Hidden<Box<[u8]>>,
    /// Where the line of each account begins in the text, in the order of the names.
    lines: Box<[usize]>,
    totals: Totals,
    /// How many accounts have their passwords in a scheme that makes guessing quick.
    pub(super) weak: usize,
    /// True if the file begins with a byte order mark, which some editors write.
    pub(super) has_mark: bool,
    /// What is wrong with lines, and their numbers, which count from 1.
    pub(super) faults: Vec<(usize, Fault)>,
    /// The line of each name that has only a wrong line.
    pub(super) wrong_lines: BTreeMap<UserName, usize>,
}

impl Accounts {
    /// Parses the text of a users file.
    pub(super) fn read(text: impl Into<Box<[u8]>>) -> Self {
        let text = text.into();
        let mut accounts = Self { has_mark: text.starts_with(text::MARK), ..Self::default() };
        let mut by_name = HashMap::new();
        let mut end = if accounts.has_mark { text::MARK.len() } else { 0 };
        for (line, number) in text::lines(&text).zip(1..) {
            let begin = end;
            end += line.len();
            let Some(mut fields) = text::fields(line) else { continue };
            let name = fields.next().and_then(|name| str::from_utf8(name).ok());
            let user: Option<UserName> = name.and_then(|name| name.parse().ok());
            let account = match name.filter(|_| user.is_some()) {
                None => Err(Fault::Name(InvalidName)),
                Some(name) if by_name.contains_key(name) => Err(Fault::Twice),
                Some(name) => text::account(fields).inspect(|_| {
                    by_name.insert(name, begin);
                }),
            };
            match account {
                Ok(account) => accounts.note(account, number),
                Err(fault) => {
                    accounts.faults.push((number, fault));
                    if let Some(user) = user {
                        accounts.wrong_lines.entry(user).or_insert(number);
                    }
                }
            }
        }
        let mut lines: Vec<_> = by_name.into_iter().collect();
        lines.sort_unstable();
        accounts.lines = lines.into_iter().map(|(_, begin)| begin).collect();
        Self { text: Hidden(text), ..accounts }
    }

    /// Takes into account what is true of all accounts together, and what is wrong with one whose user can log in.
    fn note(&mut self, account: Account, number: usize) {
        if let Some(why) = account.mailbox.location.as_ref().and_then(MailLocation::unsupported) {
            self.faults.push((number, Fault::Location(why)));
        }
        let Account { secret, mailbox, .. } = &account;
        let (is_readable, keys) = (secret.readable().is_some(), secret.scram_keys());
        self.weak += usize::from(secret.is_weak());
        let totals = &mut self.totals;
        totals.some = true;
        totals.some_readable |= is_readable;
        totals.some_unreadable |= !is_readable;
        totals.some_without_scram |= !is_readable && keys.is_none();
        totals.scram_iterations = totals.scram_iterations.or(keys.map(|keys| keys.iterations));
        if mailbox.expiry != OwnExpiry::default() {
            totals.expiries.insert(mailbox.expiry);
        }
        if totals.costliest.as_ref().is_none_or(|other| other.secret.cost() < secret.cost()) {
            totals.costliest = Some(Arc::new(account));
        }
    }

    /// Returns these accounts together with those of `others` that have other names.
    pub(super) fn with_those_of(&self, others: &Self) -> Self {
        let end = if self.text.0.last().is_none_or(|octet| *octet == b'\n') { &b""[..] } else { b"\n" };
        let mut text = [&self.text.0, end].concat();
        for begin in others.lines.iter().filter(|begin| self.find(others.name_at(**begin)).is_err()) {
            text.extend_from_slice(others.line_at(*begin));
            text.push(b'\n');
        }
        let (faults, wrong_lines) = (self.faults.clone(), self.wrong_lines.clone());
        Self { faults, wrong_lines, ..Self::read(text) }
    }

    /// What is true of all accounts together.
    pub(super) fn totals(&self) -> Totals {
        self.totals.clone()
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The account of a user. For an unknown name another line is parsed, so that the time does not tell which names there
    /// are.
    pub(super) fn get(&self, user: &UserName) -> Option<Account> {
        let found = self.find(user.as_str().as_bytes());
        let (Ok(at) | Err(at)) = found;
        let begin = self.lines.get(at).or(self.lines.last())?;
        let account = text::fields(self.line_at(*begin)).and_then(|fields| text::account(fields.skip(1)).ok());
        found.ok().and(account)
    }

    /// The names behind this one in their order, or all names.
    pub(super) fn names(&self, after: Option<&UserName>) -> impl Iterator<Item = UserName> {
        let is_before = |begin: &usize, after: &UserName| self.name_at(*begin) <= after.as_str().as_bytes();
        let from = after.map_or(0, |after| self.lines.partition_point(|begin| is_before(begin, after)));
        self.lines[from..].iter().filter_map(|begin| str::from_utf8(self.name_at(*begin)).ok()?.parse().ok())
    }

    /// How many of these accounts have names that none of `others` has.
    pub(super) fn missing_in(&self, others: &Self) -> usize {
        self.lines.iter().filter(|begin| others.find(self.name_at(**begin)).is_err()).count()
    }

    /// Where an account is among `lines`, or would be.
    fn find(&self, name: &[u8]) -> Result<usize, usize> {
        self.lines.binary_search_by(|begin| self.name_at(*begin).cmp(name))
    }

    /// The line that begins there, without its end.
    fn line_at(&self, begin: usize) -> &[u8] {
        until(b'\n', &self.text.0[begin..])
    }

    fn name_at(&self, begin: usize) -> &[u8] {
        until(b':', &self.text.0[begin..])
    }
}

/// The octets in front of the first such octet.
fn until(octet: u8, octets: &[u8]) -> &[u8] {
    &octets[..memchr::memchr(octet, octets).unwrap_or(octets.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserName {
        name.parse().unwrap()
    }

    fn names(accounts: &Accounts, after: Option<&str>) -> Vec<String> {
        accounts.names(after.map(user).as_ref()).map(|name| name.to_string()).collect()
    }

    #[test]
    fn names_are_in_order_and_found() {
        let accounts = Accounts::read(*b"bob:{PLAIN}b\nana:{PLAIN}a\nbobby:{PLAIN}y\nzoe:bad\nbob:{PLAIN}x");
        assert_eq!(names(&accounts, None), ["ana", "bob", "bobby"]);
        assert_eq!(names(&accounts, Some("bob")), ["bobby"]);
        assert_eq!(names(&accounts, Some("b")), ["bob", "bobby"]);
        assert_eq!(names(&accounts, Some("bobby")), [""; 0]);
        for (name, password) in [("ana", "a"), ("bob", "b"), ("bobby", "y")] {
            assert_eq!(accounts.get(&user(name)).unwrap().secret.readable(), Some(password.as_bytes()));
        }
        for name in ["a", "anas", "bo", "bobb", "zoe"] {
            assert!(accounts.get(&user(name)).is_none(), "{name}");
        }
        assert!(Accounts::default().get(&user("ana")).is_none());
    }

    #[test]
    fn accounts_of_another_version_are_added() {
        let known = Accounts::read(*b"ana:{PLAIN}a\nbad\nbob:{PLAIN}b");
        let others =
            Accounts::read(*b"bob:{PLAIN}x\ncarl:{MD5}x\neve:{PLAIN}e::::::userdb_mail=sdbox:/x\nana:{PLAIN}x");
        assert_eq!((known.missing_in(&others), others.missing_in(&known)), (0, 1));
        let all = known.with_those_of(&others);
        let password = |name: &str| all.get(&user(name)).unwrap().secret.readable().unwrap().to_vec();
        assert_eq!(names(&all, None), ["ana", "bob", "eve"]);
        assert_eq!(["ana", "bob", "eve"].map(password), [b"a", b"b", b"e"]);
        assert_eq!((&all.faults, &all.wrong_lines), (&known.faults, &known.wrong_lines));
    }

    #[test]
    fn totals_are_those_of_all_accounts() {
        let totals = |text: &str| Accounts::read(text.as_bytes()).totals();
        let sha = "{SSHA}0000000000000000000000000000AAAA";
        let is =
            |totals: Totals| [totals.some, totals.some_readable, totals.some_unreadable, totals.some_without_scram];
        assert_eq!(is(totals("# nobody\n")), [false; 4]);
        assert_eq!(is(totals("ana:{PLAIN}a\n")), [true, true, false, false]);
        assert_eq!(is(totals(&format!("ana:{sha}\n"))), [true, false, true, true]);
        let both = totals(&format!("ana:{sha}::::::userdb_expire_all=3\nbob:{{PLAIN}}b::::::userdb_expire_all=3\n"));
        assert_eq!(both.expiries.len(), 1);
        assert_eq!(is(both), [true; 4]);
    }

    /// 100,000 accounts take the octets of the file, and no more than 8 octets each besides.
    #[test]
    fn an_account_takes_little_more_memory_than_its_line() {
        let text: String = (0..1000).map(|n| format!("user{n}:{{PLAIN}}secret:1:1::/home/user{n}::\n")).collect();
        let accounts = Accounts::read(text.as_bytes());
        let kept = size_of_val(&*accounts.text.0) + size_of_val(&*accounts.lines);
        assert_eq!((accounts.len(), kept), (1000, text.len() + 8 * 1000));
    }
}
