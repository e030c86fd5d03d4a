//! The line of an event as followers read it, without its time.

use std::fmt::{self, Write};

use log::kv::{Error, Key, Source, Value, VisitSource, VisitValue};

use super::event::Event;

/// The longest line: PEEP allows 510 octets without the line end, and the time and a space take 25 of them.
pub(super) const LIMIT: usize = 510 - 25;

/// The most octets of a value. Names and reasons that a client has chosen must not crowd out the rest of the line.
const VALUE_LIMIT: usize = 150;

/// The event's name, and `name=value` for each of its fields. All of it is printable ASCII.
pub(super) fn line(event: &Event<'_>) -> String {
    let mut line = String::with_capacity(LIMIT / 2);
    line.push_str(event.name());
    let _ = event.visit(&mut Fields(&mut line));
    line.truncate(LIMIT);
    line
}

struct Fields<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, name: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        if name.as_str() == "event" {
            return Ok(()); // it stands in front
        }
        self.0.push(' ');
        self.0.push_str(name.as_str());
        self.0.push('=');
        value.visit(Encoded { line: self.0, room: VALUE_LIMIT })
    }
}

/// Writes a value with all octets percent-encoded that could end it.
struct Encoded<'a> {
    line: &'a mut String,
    room: usize,
}

fn is_plain(octet: u8) -> bool {
    octet.is_ascii_graphic() && octet != b'%'
}

impl Write for Encoded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.len() <= self.room && text.bytes().all(is_plain) {
            self.room -= text.len();
            self.line.push_str(text);
            return Ok(());
        }
        for octet in text.bytes() {
            let length = if is_plain(octet) { 1 } else { 3 };
            if self.room < length {
                self.room = 0;
                return Ok(());
            }
            self.room -= length;
            if is_plain(octet) { self.line.push(char::from(octet)) } else { write!(self.line, "%{octet:02X}")? }
        }
        Ok(())
    }
}

impl<'v> VisitValue<'v> for Encoded<'_> {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        let start = self.line.len();
        let _ = write!(self, "{value}");
        if self.line.len() == start {
            self.line.push('-');
        }
        Ok(())
    }

    // Numbers and text are the most frequent values, and need less than the general case.

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        let _ = write!(self.line, "{value}");
        Ok(())
    }

    fn visit_str(&mut self, value: &str) -> Result<(), Error> {
        let _ = self.write_str(if value.is_empty() { "-" } else { value });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::{Client, EndResult, Ended, Lossy, Method, Reason, Service, What};
    use super::*;

    fn client(session: u64) -> Client {
        Client::new(session, "192.0.2.4:5555".parse::<SocketAddr>().unwrap().into(), Service::Pop3s)
    }

    #[test]
    fn a_line_has_the_name_and_the_fields() {
        let client = client(17);
        let (user, reason) = (Some(Lossy(b"a b%\r\n\xff\xc3\xa9")), &Reason::NoTls);
        let what = What::LoginRefused { user, method: Method::Pass, reason, took: Default::default() };
        assert_eq!(
            line(&Event { client: &client, what }),
            "login-refused session=17 address=192.0.2.4:5555 protocol=pop3s \
             user=a%20b%25%0D%0A%EF%BF%BD%C3%A9 mechanism=pass reason=no%20TLS seconds=0"
        );
        let what = What::Ended(Ended { result: EndResult::Quit, reason: Some(format_args!("")), counts: None });
        let line = line(&Event { client: &client, what });
        assert!(line.starts_with("end session=17 ") && line.contains(" result=quit reason=- seconds="), "{line}");
    }

    #[test]
    fn an_empty_name_has_a_dash() {
        let what = What::AdminLogin { name: "" };
        let line = line(&Event { client: &client(1), what });
        assert!(line.ends_with(" user=-"), "{line}");
    }

    #[test]
    fn no_value_makes_a_line_too_long() {
        let (user, reason) = ([b'\x01'; 500], "é".repeat(500));
        let client = client(u64::MAX);
        let reason = Reason::Maildrop(std::io::Error::other(reason));
        let what = What::LoginRefused {
            user: Some(Lossy(&user)),
            method: Method::Pass,
            reason: &reason,
            took: std::time::Duration::MAX,
        };
        let line = line(&Event { client: &client, what });
        assert!(line.is_ascii() && line.len() <= LIMIT && line.contains(" seconds="), "{}: {line}", line.len());
    }
}
