//! The answer to `at`: the reason, and behind it fields that are written as `NAME=VALUE`, because the reason has spaces in it.

use std::fmt;

use serde_json::Value;

use super::fields::Field;

/// The word behind the password with which `at` is asked for more than the reason.
pub const MORE: &str = "sources";

/// The most octets of the answer's text, so that the line has at most 512 with `+` and its end.
const ROOM: usize = 509;

/// Whether a login would succeed, and what has been found out for that.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TestedLogin {
    /// `ok`, or why the login would fail.
    pub reason: String,
    /// How long the whole test took.
    pub seconds: Option<f64>,
    /// The user's maildrop, if the password is right.
    pub maildrop: Option<TestedMaildrop>,
    /// What the account sources have said, in the order in which they were asked. If one has decided, it is the last one.
    pub sources: Vec<SourceSaid>,
}

/// The maildrop that a tested login has opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestedMaildrop {
    /// Where it is.
    pub path: String,
    /// The messages in it and their octets, if it could be opened.
    pub content: Option<(u64, u64)>,
}

/// What an account source has said.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceSaid {
    /// The source, as the log calls it.
    pub source: String,
    /// Its answer in words.
    pub said: String,
    /// How long the answer took.
    pub seconds: f64,
}

impl fmt::Display for SourceSaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "source={} said={} took={:.6}", self.source.write(), self.said.write(), self.seconds)
    }
}

impl fmt::Display for TestedMaildrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "maildrop={}", self.path.write())?;
        self.content.map_or(Ok(()), |(messages, octets)| write!(f, " messages={messages} octets={octets}"))
    }
}

/// The text of the answer. What does not fit into its line is left out: first the sources that were asked first, because the
/// last one has decided.
impl fmt::Display for TestedLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        let mut room = ROOM.saturating_sub(self.reason.len());
        let mut fits = |text: &String| {
            let needed = text.len() + 1;
            let fits = needed <= room;
            room = if fits { room - needed } else { 0 };
            fits
        };
        let seconds = self.seconds.map(|seconds| format!("seconds={seconds:.6}")).filter(&mut fits);
        let maildrop = self.maildrop.as_ref().map(ToString::to_string).filter(&mut fits);
        let mut sources: Vec<_> = self.sources.iter().rev().map(ToString::to_string).take_while(fits).collect();
        sources.reverse();
        seconds.iter().chain(&maildrop).chain(&sources).try_for_each(|field| write!(f, " {field}"))
    }
}

/// The name and the value of a word that is a field.
fn field(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let is_name = !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_lowercase());
    (is_name && !value.is_empty()).then_some((name, value))
}

impl TestedLogin {
    /// Reads the fields at the end of the text; all in front of them is the reason. Fields that are not known are ignored.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let words: Vec<_> = text.split(' ').collect();
        let fields = words.iter().rev().take_while(|word| field(word).is_some()).count();
        let (reason, fields) = words.split_at(words.len() - fields);
        let mut tested = Self { reason: reason.join(" "), ..Self::default() };
        let (mut messages, mut octets) = (None, None);
        for (name, value) in fields.iter().filter_map(|word| field(word)) {
            let text = || String::read(value).unwrap_or_default();
            match (name, tested.sources.last_mut()) {
                ("seconds", _) => tested.seconds = value.parse().ok(),
                ("maildrop", _) => tested.maildrop = Some(TestedMaildrop { path: text(), content: None }),
                ("messages", _) => messages = value.parse().ok(),
                ("octets", _) => octets = value.parse().ok(),
                ("source", _) => {
                    tested.sources.push(SourceSaid { source: text(), said: String::new(), seconds: 0.0 });
                }
                ("said", Some(source)) => source.said = text(),
                ("took", Some(source)) => source.seconds = value.parse().unwrap_or_default(),
                _ => {}
            }
        }
        if let Some(maildrop) = &mut tested.maildrop {
            maildrop.content = messages.zip(octets);
        }
        tested
    }

    /// What there is beside the reason, as members of a JSON object.
    #[must_use]
    pub fn json(&self) -> Vec<(&'static str, Value)> {
        let mut members = Vec::new();
        let mut add = |name, value: Option<Value>| members.extend(value.map(|value| (name, value)));
        add("seconds", self.seconds.map(Value::from));
        add("maildrop", self.maildrop.as_ref().map(|maildrop| maildrop.path.as_str().into()));
        let content = self.maildrop.as_ref().and_then(|maildrop| maildrop.content);
        add("messages", content.map(|(messages, _)| messages.into()));
        add("octets", content.map(|(_, octets)| octets.into()));
        let source = |SourceSaid { source, said, seconds }: &SourceSaid| serde_json::json!({"source": source, "said": said, "seconds": seconds});
        let sources: Vec<_> = self.sources.iter().map(source).collect();
        add("sources", (!sources.is_empty()).then_some(sources.into()));
        members
    }

    /// What there is beside the reason, as lines for a person: what each source has said, and the maildrop.
    #[must_use]
    pub fn details(&self) -> Vec<String> {
        let source =
            |SourceSaid { source, said, seconds }: &SourceSaid| format!("{source}: {said} ({:.1} ms)", seconds * 1e3);
        let mut lines: Vec<_> = self.sources.iter().map(source).collect();
        lines.extend(self.maildrop.as_ref().map(|TestedMaildrop { path, content }| match content {
            Some((messages, octets)) => format!("maildrop {path}: {messages} messages, {octets} octets"),
            None => format!("maildrop {path}"),
        }));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(source: &str, said: &str) -> SourceSaid {
        SourceSaid { source: source.to_owned(), said: said.to_owned(), seconds: 0.00025 }
    }

    fn tested() -> TestedLogin {
        TestedLogin {
            reason: "ok".to_owned(),
            seconds: Some(0.0015),
            maildrop: Some(TestedMaildrop { path: "/mail/a na".to_owned(), content: Some((2, 46)) }),
            sources: vec![said("command line", "unknown user"), said("users file users", "accepted")],
        }
    }

    #[test]
    fn fields_follow_the_reason() {
        let text = "ok seconds=0.001500 maildrop=/mail/a%20na messages=2 octets=46 source=command%20line \
                    said=unknown%20user took=0.000250 source=users%20file%20users said=accepted took=0.000250";
        assert_eq!(tested().to_string(), text);
        assert_eq!(TestedLogin::read(text), tested());
        assert_eq!(
            tested().details(),
            [
                "command line: unknown user (0.2 ms)",
                "users file users: accepted (0.2 ms)",
                "maildrop /mail/a na: 2 messages, 46 octets"
            ]
        );
    }

    #[test]
    fn the_answer_of_an_older_or_a_newer_server_is_understood() {
        for text in ["ok", "wrong password", "the maildrop cannot be opened: x=y is no directory", ""] {
            assert_eq!(TestedLogin::read(text), TestedLogin { reason: text.to_owned(), ..TestedLogin::default() });
        }
        let newer = TestedLogin::read("unknown user seconds=1.5 colour=red source=x said=no took=1 when=now");
        assert_eq!(
            (newer.reason.as_str(), newer.seconds, newer.sources[0].said.as_str()),
            ("unknown user", Some(1.5), "no")
        );
        assert_eq!(
            TestedLogin::read("ok source=%ff said=x").sources,
            [SourceSaid { source: String::new(), said: "x".to_owned(), seconds: 0.0 }]
        );
    }

    #[test]
    fn what_does_not_fit_into_a_line_is_left_out_as_a_whole() {
        let mut many = tested();
        many.sources = (0..9).map(|n| said(&format!("users file {}{n}", "x".repeat(80)), "unknown user")).collect();
        let text = many.to_string();
        let read = TestedLogin::read(&text);
        assert!(text.len() <= ROOM && read.sources.len() == 3 && many.sources.ends_with(&read.sources), "{text}");
        many.maildrop = Some(TestedMaildrop { path: "y".repeat(600), content: None });
        assert_eq!(many.to_string(), "ok seconds=0.001500");
    }
}
