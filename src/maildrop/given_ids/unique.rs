//! Sees to it that no two messages have the same unique-id.

use std::borrow::Cow;
use std::collections::HashMap;

use super::Choice;

/// Takes unique-ids that two messages would have away from one of them, which then has this server's own for good. `own` is
/// a message's own unique-id; no two messages have the same.
pub(super) fn make<'a>(choices: &mut [Choice], own: impl Fn(usize) -> Cow<'a, [u8]>) {
    let mut holders: HashMap<Vec<u8>, usize> = HashMap::with_capacity(choices.len());
    for (index, _) in choices.iter().enumerate().filter(|(_, choice)| choice.id.is_none()) {
        holders.insert(own(index).into_owned(), index);
    }
    let mut losers = Vec::new();
    // A unique-id that is fixed, or was there first, stays.
    for fixed in [true, false] {
        for (index, choice) in choices.iter().enumerate().filter(|(_, choice)| choice.is_fixed == fixed) {
            if let Some(id) = &choice.id
                && *holders.entry(id.clone()).or_insert(index) != index
            {
                losers.push(index);
            }
        }
    }
    while let Some(index) = losers.pop() {
        choices[index] = Choice { id: None, uid: choices[index].uid, is_fixed: true };
        // Another message may have been given what is this one's own.
        let other = holders.insert(own(index).into_owned(), index);
        losers.extend(other.filter(|&other| other != index && choices[other].id.is_some()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The unique-ids of messages that were given these (an empty one: none), and whose own are `own0`, `own1` and so on.
    fn made(given: &[&str]) -> Vec<String> {
        let choice = |id: &&str| Choice { id: (!id.is_empty()).then(|| id.as_bytes().to_vec()), ..Choice::default() };
        let mut choices: Vec<Choice> = given.iter().map(choice).collect();
        let own = |index: usize| Cow::Owned(format!("own{index}").into_bytes());
        make(&mut choices, own);
        let id = |(index, choice): (usize, Choice)| choice.id.unwrap_or_else(|| own(index).into_owned());
        choices.into_iter().enumerate().map(id).map(|id| String::from_utf8(id).unwrap()).collect()
    }

    #[test]
    fn the_later_of_two_equal_ones_gets_its_own() {
        assert_eq!(made(&["a", "a", "", "b"]), ["a", "own1", "own2", "b"]);
        assert_eq!(made(&["own1", ""]), ["own0", "own1"]);
        // The second message falls back to its own, which the third was given.
        assert_eq!(made(&["a", "a", "own1"]), ["a", "own1", "own2"]);
        assert_eq!(made(&["own1", "own0"]), ["own1", "own0"]);
    }

    proptest! {
        #[test]
        fn no_two_are_equal(given in proptest::collection::vec("|a|b|own[0-7]", 0..8)) {
            let given: Vec<&str> = given.iter().map(String::as_str).collect();
            let mut made = made(&given);
            made.sort();
            made.dedup();
            prop_assert_eq!(made.len(), given.len());
        }
    }
}
