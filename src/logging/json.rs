//! A line of the log as a JSON object: the time, the level, the message, and the fields of an event.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use log::Record;
use log::kv::{Error, Key, Value, VisitSource, VisitValue};
use time::OffsetDateTime;

use super::line::TIME;

/// Writes records as JSON. It keeps its buffers, so that a record needs no allocation.
#[derive(Debug, Default)]
pub(super) struct JsonLine {
    line: Vec<u8>,
    /// The text of a value, before its characters are escaped.
    text: String,
}

impl JsonLine {
    /// Returns the record's line, with its line end.
    pub(super) fn of(&mut self, record: &Record<'_>) -> &[u8] {
        self.line.clear();
        self.line.extend_from_slice(b"{\"time\":\"");
        // The format has no character that JSON escapes.
        let _ = OffsetDateTime::now_utc().format_into(&mut self.line, TIME);
        self.line.push(b'"');
        self.name("level");
        let level = record.level().as_str();
        self.string(|text| level.chars().try_for_each(|c| text.write_char(c.to_ascii_lowercase())));
        self.name("message");
        self.string(|text| write!(text, "{}", record.args()));
        let _ = record.key_values().visit(self);
        self.line.extend_from_slice(b"}\n");
        &self.line
    }

    /// Begins the next member of the object. The names are the server's own and have nothing that JSON escapes.
    fn name(&mut self, name: &str) {
        let _ = write!(self.line, ",\"{name}\":");
    }

    fn string(&mut self, write: impl FnOnce(&mut String) -> fmt::Result) {
        self.text.clear();
        let _ = write(&mut self.text); // an error would be one of the value's Display; what it has written stays
        let _ = serde_json::to_writer(&mut self.line, &self.text);
    }
}

impl<'kvs> VisitSource<'kvs> for JsonLine {
    fn visit_pair(&mut self, name: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        self.name(name.as_str());
        value.visit(self)
    }
}

impl<'v> VisitValue<'v> for &mut JsonLine {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        self.string(|text| write!(text, "{value}"));
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        let _ = write!(self.line, "{value}");
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), Error> {
        let _ = serde_json::to_writer(&mut self.line, &value); // null for what is no number
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::Level;
    use proptest::prelude::*;

    /// The object that a record becomes.
    fn object(message: &str, fields: &[(&str, Value<'_>)]) -> serde_json::Map<String, serde_json::Value> {
        let mut json = JsonLine::default();
        json.text.push_str("left over");
        json.line.push(b'x');
        let mut record = Record::builder();
        record.level(Level::Warn).key_values(&fields);
        let line = json.of(&record.args(format_args!("{message}")).build()).to_vec();
        assert_eq!(line.iter().filter(|&&octet| octet == b'\n').count(), 1);
        serde_json::from_slice(&line).unwrap()
    }

    #[test]
    fn a_record_is_an_object_with_its_fields() {
        let object = object(
            "a \"b\"\n\u{7f}é",
            &[
                ("session", 17_u64.into()),
                ("seconds", 0.25.into()),
                ("user", "a\\\u{0}".into()),
                ("none", f64::NAN.into()),
            ],
        );
        let names: Vec<&str> = object.keys().map(String::as_str).collect();
        assert_eq!(names, ["level", "message", "none", "seconds", "session", "time", "user"]);
        assert_eq!(object["level"], "warn");
        assert_eq!(object["message"], "a \"b\"\n\u{7f}é");
        assert_eq!((&object["session"], &object["seconds"]), (&17.into(), &0.25.into()));
        assert_eq!((&object["user"], &object["none"]), (&"a\\\u{0}".into(), &serde_json::Value::Null));
        assert!(object["time"].as_str().unwrap().ends_with('Z'));
    }

    proptest! {
        #[test]
        fn any_text_is_valid_json(message in any::<String>(), value in any::<String>()) {
            let object = object(&message, &[("user", value.as_str().into())]);
            prop_assert_eq!(&object["message"], &message);
            prop_assert_eq!(&object["user"], &value);
        }
    }
}
