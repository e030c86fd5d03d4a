//! Accounts, named by a pattern or read from a file. As long as there are enough of them, no two clients use the same
//! maildrop at the same time.

use std::fs;
use std::path::Path;

/// A pattern with more accounts than this is taken for a typing error.
const MAX_ACCOUNTS: u64 = 10_000_000;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) password: String,
}

/// At least one account, in the order given.
#[derive(Debug)]
pub(super) struct Users(Vec<Account>);

impl Users {
    /// Parses `name`, or `u{0..999}` for a thousand accounts. Leading zeros of the lower bound are kept in all names.
    pub(super) fn from_pattern(pattern: &str, password: &str) -> Result<Users, String> {
        let names = expand(pattern).ok_or_else(|| {
            format!("'{pattern}' is no pattern: a name with at most one range such as {{0..999}} is wanted")
        })?;
        let account = |name| Account { name, password: password.to_owned() };
        Ok(Users(names.into_iter().map(account).collect()))
    }

    /// Reads lines of `name:password`. The password may contain colons. Empty lines and `#` comments are skipped.
    pub(super) fn from_file(path: &Path) -> Result<Users, String> {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        parse(&text).map_err(|problem| format!("{}: {problem}", path.display()))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The account for the `turn`-th session of `client`, and its index. Each client has every `clients`-th account to
    /// itself and uses them in turn. If there are fewer accounts than clients, clients share accounts.
    pub(super) fn deal(&self, client: usize, clients: usize, turn: usize) -> (usize, &Account) {
        let first = client % self.len();
        let share = (self.len() - first).div_ceil(clients);
        let index = first + (turn % share) * clients;
        (index, &self.0[index])
    }
}

fn parse(text: &str) -> Result<Users, String> {
    let mut accounts = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, password) = line.split_once(':').ok_or_else(|| format!("line {number} is not name:password"))?;
        accounts.push(Account { name: name.to_owned(), password: password.to_owned() });
    }
    if accounts.is_empty() { Err("no account in it".to_owned()) } else { Ok(Users(accounts)) }
}

fn expand(pattern: &str) -> Option<Vec<String>> {
    let Some((head, rest)) = pattern.split_once('{') else {
        return (!pattern.is_empty() && !pattern.contains('}')).then(|| vec![pattern.to_owned()]);
    };
    let (range, tail) = rest.split_once('}')?;
    let (low, high) = range.split_once("..")?;
    let (first, last): (u64, u64) = (low.parse().ok()?, high.parse().ok()?);
    let one_range = !tail.contains(['{', '}']);
    if !one_range || last < first || last - first >= MAX_ACCOUNTS {
        return None;
    }
    let width = if low.starts_with('0') { low.len() } else { 0 };
    Some((first..=last).map(|n| format!("{head}{n:0width$}{tail}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_pattern_without_a_range_is_one_name() {
        assert_eq!(expand("user"), Some(vec!["user".to_owned()]));
    }

    #[test]
    fn a_range_counts_both_ends_and_keeps_its_width() {
        assert_eq!(expand("u{8..11}@x").unwrap(), ["u8@x", "u9@x", "u10@x", "u11@x"]);
        assert_eq!(expand("u{08..11}").unwrap(), ["u08", "u09", "u10", "u11"]);
        assert_eq!(expand("u{0..2}").unwrap(), ["u0", "u1", "u2"]);
    }

    #[test]
    fn anything_else_is_refused() {
        for pattern in
            ["", "u{", "u}", "u{3}", "u{1..}", "u{..1}", "u{2..1}", "u{1..2}{1..2}", "u{-1..2}", "u{0..99999999}"]
        {
            assert_eq!(expand(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn a_password_in_a_file_may_hold_colons_and_spaces() {
        let users = parse("# two of them\na:b:c d\n\nb:\n").unwrap();
        assert_eq!(users.0[0], Account { name: "a".into(), password: "b:c d".into() });
        assert_eq!(users.0[1], Account { name: "b".into(), password: String::new() });
        assert!(parse("no colon").is_err());
        assert!(parse("# nothing\n").is_err());
    }

    #[test]
    fn no_two_clients_share_a_maildrop_if_there_are_enough() {
        for (accounts, clients) in [(5, 5), (7, 3), (1000, 16), (17, 16)] {
            let users = Users::from_pattern(&format!("u{{1..{accounts}}}"), "").unwrap();
            let share = |client| (0..2 * accounts).map(move |turn| (client, turn));
            let mut owner = vec![None; accounts];
            for (client, turn) in (0..clients).flat_map(share) {
                let (index, _) = users.deal(client, clients, turn);
                assert_eq!(*owner[index].get_or_insert(client), client, "{accounts} accounts, {clients} clients");
            }
            assert!(owner.iter().all(Option::is_some), "every account is used");
        }
    }

    #[test]
    fn fewer_accounts_than_clients_are_shared_evenly() {
        let users = Users::from_pattern("u{1..3}", "").unwrap();
        let used: HashSet<usize> = (0..7).map(|client| users.deal(client, 7, 0).0).collect();
        assert_eq!(used.len(), 3);
        assert_eq!(users.deal(4, 7, 0).0, users.deal(4, 7, 9).0);
    }
}
