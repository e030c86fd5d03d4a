//! Writes the results: as text, or as one JSON object. The names in the object never change.

use std::fmt;
use std::io::{self, Write};

use nix::unistd::{Uid, User};
use serde_json::{Value, json};

use super::Examined;
use super::against::{Comparison, Difference, Differences};
use crate::maildrop::{Fault, Finding, Held};
use crate::printable::{is_unsafe, printable};

/// A report, written maildrop by maildrop.
pub(super) struct Report<'a, W> {
    output: &'a mut W,
    is_json: bool,
    maildrops: u64,
    messages: u64,
    octets: u64,
    need_a_hand: u64,
    against: Option<Against>,
}

/// What the comparisons with the other server come to.
#[derive(Default)]
struct Against {
    compared: u64,
    failed: u64,
    ids: Stay,
    sizes: Stay,
}

/// How many stay the same, and how many do not.
#[derive(Default)]
struct Stay {
    same: u64,
    other: u64,
}

impl Against {
    fn add(&mut self, comparison: &Result<Comparison, String>) {
        match comparison {
            Err(_) => self.failed += 1,
            Ok(Comparison { same_ids, lost_ids, same_sizes, other_sizes, .. }) => {
                self.compared += 1;
                self.ids.same += same_ids;
                self.ids.other += lost_ids.count;
                self.sizes.same += same_sizes;
                self.sizes.other += other_sizes.count;
            }
        }
    }
}

impl<'a, W: Write> Report<'a, W> {
    pub(super) fn begin(output: &'a mut W, is_json: bool) -> io::Result<Self> {
        if is_json {
            write!(output, "{{\"maildrops\":[")?;
        }
        Ok(Self { output, is_json, maildrops: 0, messages: 0, octets: 0, need_a_hand: 0, against: None })
    }

    pub(super) fn add(&mut self, examined: &Examined) -> io::Result<()> {
        if self.is_json {
            let separator = if self.maildrops == 0 { "" } else { "," };
            write!(self.output, "{separator}\n{}", safe(&object(examined)))?;
        } else {
            write!(self.output, "{}", Text(examined))?;
        }
        self.output.flush()?;
        self.maildrops += 1;
        self.messages += examined.inspection.messages;
        self.octets = self.octets.saturating_add(examined.inspection.octets);
        self.need_a_hand += u64::from(examined.needs_a_hand());
        if let Some(comparison) = &examined.comparison {
            self.against.get_or_insert_default().add(comparison);
        }
        Ok(())
    }

    /// Writes the summary. Returns true if no maildrop needs a hand.
    pub(super) fn end(self) -> io::Result<bool> {
        let Self { output, is_json, maildrops, messages, octets, need_a_hand, against } = self;
        if is_json {
            let against = against.map(|Against { compared, failed, ids, sizes }| {
                json!({"compared": compared, "failed": failed, "same_ids": ids.same, "lost_ids": ids.other,
                    "same_sizes": sizes.same, "other_sizes": sizes.other})
            });
            let summary = json!({"maildrops": maildrops, "messages": messages, "octets": octets,
                "need_a_hand": need_a_hand, "against": against});
            writeln!(output, "\n],\"summary\":{summary}}}")?;
        } else {
            let [maildrops, messages, octets] = [(maildrops, "maildrop"), (messages, "message"), (octets, "octet")]
                .map(|(count, what)| counted(count, what));
            writeln!(output, "{maildrops}, {messages}, {octets}; {}", verdict(need_a_hand))?;
            if let Some(Against { compared, failed, ids, sizes }) = against {
                let (compared, failed) = (
                    counted(compared, "maildrop"),
                    if failed > 0 { format!(", {failed} failed") } else { String::new() },
                );
                let stay = |Stay { same, other }: Stay| format!("{same} of {} stay", same + other);
                writeln!(
                    output,
                    "old server: {compared} compared{failed}; unique-ids: {}; sizes: {}",
                    stay(ids),
                    stay(sizes)
                )?;
            }
        }
        output.flush()?;
        Ok(need_a_hand == 0)
    }
}

fn verdict(need_a_hand: u64) -> String {
    match need_a_hand {
        0 => "none needs a hand".to_owned(),
        1 => "1 needs a hand".to_owned(),
        count => format!("{count} need a hand"),
    }
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The name of the account that owns a maildrop, or its uid.
fn account(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Text

/// A maildrop's lines.
struct Text<'a>(&'a Examined);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Examined { user, inspection, comparison } = self.0;
        write!(f, "{}: ", printable(user.as_str()))?;
        match inspection.layout {
            Some(layout) => write!(f, "{layout}")?,
            None => f.write_str("no maildrop")?,
        }
        if let Some(uid) = inspection.owner {
            write!(f, " of {}", printable(&account(uid)))?;
        }
        write!(f, ", {}, {}", counted(inspection.messages, "message"), counted(inspection.octets, "octet"))?;
        for held in &inspection.locks {
            write!(f, ", locked ({})", lock(held))?;
        }
        writeln!(f)?;
        for (fault, finding) in inspection.findings.iter() {
            line(f, fault, finding)?;
        }
        match comparison {
            None => Ok(()),
            Some(Err(why)) => writeln!(f, "  fix: old server: not compared: {}", printable(why)),
            Some(Ok(comparison)) => compared(f, comparison),
        }
    }
}

/// A lock, for example `session: pop3d 4711`, or as the lock file tells it.
fn lock(held: &Held) -> String {
    let programs: Vec<_> = held.programs.iter().map(|(name, id)| format!("{} {id}", printable(name))).collect();
    match &held.session {
        Some(session) => session.to_string(),
        None if programs.is_empty() => format!("{}: unknown program", held.by),
        None => format!("{}: {}", held.by, programs.join(", ")),
    }
}

fn line(f: &mut fmt::Formatter<'_>, fault: Fault, finding: &Finding) -> fmt::Result {
    let level = if fault.needs_a_hand() { "fix" } else { "note" };
    write!(f, "  {level}: {}: {}", fault.title(), finding.count)?;
    for (index, example) in finding.examples.iter().enumerate() {
        write!(f, "{} {}", if index == 0 { ":" } else { "," }, printable(example))?;
    }
    if finding.count > finding.examples.len() as u64 {
        f.write_str(", …")?;
    }
    if let Some(detail) = &finding.detail {
        write!(f, " ({})", printable(detail))?;
    }
    writeln!(f)
}

/// The lines of a comparison.
fn compared(f: &mut fmt::Formatter<'_>, comparison: &Comparison) -> fmt::Result {
    let Comparison { messages, same_ids, lost_ids, new_ids, same_sizes, other_sizes } = comparison;
    let (messages, ids) = (counted(*messages, "message"), same_ids + lost_ids.count);
    writeln!(f, "  old server: {messages}; {same_ids} of {ids} unique-ids and {same_sizes} of {same_ids} sizes stay")?;
    for (title, differences) in [
        ("unique-ids that only the old server has", lost_ids),
        ("messages that clients fetch because their unique-id is new", new_ids),
        ("sizes that differ", other_sizes),
    ] {
        if differences.count == 0 {
            continue;
        }
        let examples: Vec<_> = differences.examples.iter().map(difference).collect();
        let more = if differences.count > examples.len() as u64 { ", …" } else { "" };
        writeln!(f, "  fix: {title}: {}: {}{more}", differences.count, examples.join(", "))?;
    }
    Ok(())
}

fn difference(Difference { number, old, here }: &Difference) -> String {
    let part = |name, value: &Option<String>| value.as_ref().map(|value| format!("{name} {}", printable(value)));
    let parts: Vec<_> = [part("old", old), part("here", here)].into_iter().flatten().collect();
    format!("{number} ({})", parts.join(", "))
}

// ---------------------------------------------------------------------------------------------------------------------
// JSON

fn object(examined: &Examined) -> Value {
    let Examined { user, inspection, comparison } = examined;
    let locks: Vec<_> = inspection.locks.iter().map(lock_object).collect();
    let findings: Vec<_> = inspection.findings.iter().map(|(fault, finding)| finding_object(fault, finding)).collect();
    json!({
        "user": user.as_str(),
        "layout": inspection.layout.map(|layout| layout.to_string()),
        "uid": inspection.owner,
        "owner": inspection.owner.map(account),
        "messages": inspection.messages,
        "octets": inspection.octets,
        "locks": locks,
        "findings": findings,
        "against": comparison.as_ref().map(comparison_object),
        "needs_a_hand": examined.needs_a_hand(),
    })
}

fn comparison_object(comparison: &Result<Comparison, String>) -> Value {
    let Comparison { messages, same_ids, lost_ids, new_ids, same_sizes, other_sizes } = match comparison {
        Err(why) => return json!({"error": why}),
        Ok(comparison) => comparison,
    };
    let list = |differences: &Differences| {
        let one = |it: &Difference| json!({"number": it.number, "old": it.old, "here": it.here});
        let examples: Vec<_> = differences.examples.iter().map(one).collect();
        json!({"count": differences.count, "examples": examples})
    };
    json!({
        "error": null,
        "messages": messages,
        "same_ids": same_ids,
        "lost_ids": list(lost_ids),
        "new_ids": list(new_ids),
        "same_sizes": same_sizes,
        "other_sizes": list(other_sizes),
    })
}

/// The text of a value, in which characters that are unsafe for a terminal are escaped. They are in strings only.
fn safe(value: &Value) -> String {
    let mut text = String::new();
    for c in value.to_string().chars() {
        match is_unsafe(c) {
            true => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text += &format!("\\u{unit:04x}")),
            false => text.push(c),
        }
    }
    text
}

fn lock_object(held: &Held) -> Value {
    let programs: Vec<_> = held.programs.iter().map(|(name, id)| json!({"name": name, "process": id})).collect();
    let session = held.session.as_ref();
    json!({
        "lock": held.by.to_string(),
        "programs": programs,
        "host": session.map(|it| &it.host),
        "process": session.map(|it| it.process),
        "session": session.and_then(|it| it.session),
        "seconds": session.map(|it| it.age().as_secs()),
    })
}

fn finding_object(fault: Fault, finding: &Finding) -> Value {
    json!({
        "finding": fault.name(),
        "needs_a_hand": fault.needs_a_hand(),
        "count": finding.count,
        "examples": finding.examples,
        "detail": finding.detail,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_no_control_characters_and_stays_the_same() {
        let value = json!({"a": "\u{1b}[2J\u{9b}\u{202e}\u{e0001}\u{7f}é"});
        let text = safe(&value);
        assert!(!text.contains(is_unsafe), "{text}");
        assert!(text.contains('é'));
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
