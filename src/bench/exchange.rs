//! The exchanges with the server that sessions are made of: scan listings, unique-ids, messages.

use std::hash::Hasher;
use std::time::Instant;

use siphasher::sip::SipHasher13;

use super::client::Connection;
use super::failure::{self, Failure, quoted};
use super::line::Line;
use super::options::Plan;
use super::security::Tls;
use super::tally::{Record, Step};

/// The most messages that a maildrop may have. Larger numbers are taken for an error, so that a hostile server cannot
/// keep a client busy for ever with its listings.
const MOST_MESSAGES: u64 = 10_000_000;

/// Without --verify, the last octets of each message that are looked at. A server may list this many octets more than
/// it sends.
const TAIL_OCTETS: u64 = 1024;

/// A message that exceeds twice its listed octets by more than this has no end: no server miscounts that much.
const ENDLESS: u64 = 64 * 1024;

/// A message of the scan listing. `octets` is `None` if LIST was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) number: u32,
    pub(super) octets: Option<u64>,
}

type Pop<'a, 'i> = Connection<'a, 'i, Line<'i>>;

/// Performs the TLS handshake.
pub(super) async fn secure(pop: &mut Pop<'_, '_>, tls: &Tls, record: &mut Record) -> Result<(), Failure> {
    let began = Instant::now();
    record.agreed = pop.start_tls(tls).await?;
    record.lap(Step::Tls, began);
    Ok(())
}

/// Asks for the octets of one message: `LIST n`.
pub(super) async fn listed_octets(pop: &mut Pop<'_, '_>, number: u32) -> Result<u64, Failure> {
    let answer = match pop.command_with("LIST", number).await {
        // A response code would give another reason. Without one, RFC 1939 has only one reason for -ERR here.
        Err(Failure::Refusal { text, .. }) if failure::response_code(&text).is_none() => {
            return Err(Failure::NothingToRetrieve(format!("there is no message {number}")));
        }
        answer => answer?,
    };
    match two_numbers(answer)? {
        (listed, octets) if listed == u64::from(number) => Ok(octets),
        (listed, _) => Err(Failure::Violation(format!("LIST {number} told of message {listed}"))),
    }
}

/// A maildrop as reported by STAT and LIST.
pub(super) struct Scan {
    /// The number of messages.
    pub(super) messages: u64,
    /// The first messages, as many as the caller wanted.
    pub(super) first: Vec<Listed>,
}

/// Sends STAT and LIST for the whole maildrop. With `verify` their totals must be equal. Only the first `wanted`
/// messages are kept, so that the memory does not depend on what the server claims.
pub(super) async fn scan(
    pop: &mut Pop<'_, '_>,
    verify: bool,
    wanted: usize,
    record: &mut Record,
) -> Result<Scan, Failure> {
    let sent = Instant::now();
    let drop_listing = two_numbers(pop.command("STAT").await?)?;
    record.lap(Step::Stat, sent);
    if drop_listing.0 > MOST_MESSAGES {
        let absurd = format!("STAT told of {} messages, which is more than {MOST_MESSAGES}", drop_listing.0);
        return Err(Failure::Violation(absurd));
    }

    let sent = Instant::now();
    pop.command("LIST").await?;
    let (mut messages, mut total, mut first) = (0, 0u64, Vec::new());
    pop.listing(|line| {
        let (number, octets) = two_numbers(line)?;
        let number = u32::try_from(number).map_err(|_| Failure::Violation(format!("LIST: {}", quoted(line))))?;
        if messages == drop_listing.0 {
            return Err(Failure::Violation(format!("STAT told of {} messages, LIST of more", drop_listing.0)));
        }
        messages += 1;
        total = total.saturating_add(octets);
        if first.len() < wanted {
            first.push(Listed { number, octets: Some(octets) });
        }
        Ok(())
    })
    .await?;
    record.lap(Step::List, sent);

    let listed = (messages, total);
    if verify && drop_listing != listed {
        return Err(Failure::Violation(format!("STAT told {drop_listing:?} (messages, octets), LIST {listed:?}")));
    }
    Ok(Scan { messages, first })
}

/// Sends UIDL for the whole maildrop. The listing must have as many lines as that of LIST.
pub(super) async fn unique_ids(pop: &mut Pop<'_, '_>, messages: u64, record: &mut Record) -> Result<(), Failure> {
    let sent = Instant::now();
    pop.command("UIDL").await?;
    let mut count = 0;
    pop.listing(|line| match line.split_once(' ') {
        _ if count == messages => Err(Failure::Violation(format!("LIST told of {messages} messages, UIDL of more"))),
        Some((_, id)) if !id.is_empty() => {
            count += 1;
            Ok(())
        }
        _ => Err(Failure::Violation(format!("UIDL: {}", quoted(line)))),
    })
    .await?;
    record.lap(Step::Uidl, sent);
    if count == messages {
        Ok(())
    } else {
        Err(Failure::Violation(format!("LIST told of {messages} messages, UIDL of {count}")))
    }
}

/// Retrieves these messages. The plan says how many RETR are sent at once.
pub(super) async fn retrieve(
    pop: &mut Pop<'_, '_>,
    plan: &Plan,
    account_index: usize,
    messages: &[Listed],
    record: &mut Record,
) -> Result<(), Failure> {
    for batch in messages.chunks(plan.pipeline) {
        let sent = Instant::now();
        for message in batch {
            pop.queue("RETR", message.number);
        }
        pop.send()?;
        for &Listed { number, octets: listed } in batch {
            pop.status("RETR").await?;
            let unseen = if plan.looks_inside() { 0 } else { listed.unwrap_or(0).saturating_sub(TAIL_OCTETS) };
            let mut received = unseen;
            let mut hasher = SipHasher13::new();
            pop.body(unseen, |piece| {
                received += piece.len() as u64;
                if plan.hash {
                    hasher.write(piece);
                }
                match listed {
                    Some(listed) if received > listed.saturating_mul(2).saturating_add(ENDLESS) => {
                        Err(Failure::Octets { message: number, listed, received })
                    }
                    _ => Ok(()),
                }
            })
            .await?;
            if plan.hash {
                record.hashes.push(((account_index, number), hasher.finish()));
            }
            record.lap(Step::Retr, sent);
            record.messages += 1;
            record.octets += received;
            if let Some(listed) = listed.filter(|&listed| plan.verify && listed != received) {
                return Err(Failure::Octets { message: number, listed, received });
            }
        }
    }
    Ok(())
}

/// Parses the two numbers of a drop listing, or of a line of a scan listing. RFC 1939 allows further text behind them.
fn two_numbers(text: &str) -> Result<(u64, u64), Failure> {
    let mut words = text.split_ascii_whitespace().map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(first)), Some(Ok(second))) => Ok((first, second)),
        _ => Err(Failure::Violation(format!("two numbers were expected in {}", quoted(text)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_after_the_two_numbers_is_ignored() {
        assert_eq!(two_numbers(" 2 320").unwrap(), (2, 320));
        assert_eq!(two_numbers("2 320 octets").unwrap(), (2, 320));
        for bad in ["", "2", "two 320", "2 -1", "2 99999999999999999999"] {
            assert_eq!(two_numbers(bad).unwrap_err().kind(), "protocol violation", "{bad}");
        }
    }

    #[test]
    fn a_hash_does_not_depend_on_the_pieces() {
        let octets = b"a message that arrives in two pieces, cut anywhere";
        let hash = |pieces: &[&[u8]]| {
            let mut hasher = SipHasher13::new();
            pieces.iter().for_each(|piece| hasher.write(piece));
            hasher.finish()
        };
        for cut in 0..=octets.len() {
            assert_eq!(hash(&[&octets[..cut], &octets[cut..]]), hash(&[octets]));
        }
    }
}
