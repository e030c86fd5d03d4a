//! The lines of answers of version 1.1: the server writes them and the client reads them. `fields` says how fields are written.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde_json::Value;

use super::fields::{Field, Malformed, line, words};

words! {
    /// What is spoken on a connection.
    Spoken { Pop3 = "pop3", Pop3s = "pop3s", Peep = "peep", }
}

words! {
    /// The state of a connection's session.
    State {
        Authorization = "authorization",
        Transaction = "transaction",
        Update = "update",
        Admin = "admin",
        Viewer = "viewer",
    }
}

line! {
    /// A line of `w?`: one connection.
    SessionLine {
        /// The number that `k=` takes.
        id: u64,
        /// What is spoken.
        protocol: Spoken,
        /// The client's address; none on a UNIX socket.
        address: Option<IpAddr>,
        /// The session's state.
        state: State,
        /// The user who is logged in.
        user: Option<String>,
        /// Seconds since the connection was accepted.
        age: u64,
        /// Seconds since the last command.
        idle: u64,
        /// Messages retrieved.
        retrieved: u64,
        /// Octets sent.
        octets: u64,
        /// Messages that are marked as deleted.
        marked: u64,
        /// The version of TLS.
        tls: Option<String>,
    }
}

line! {
    /// A line of `b?`: one ban or penalty.
    BanLine {
        /// Who is kept out.
        network: IpNet,
        /// How long it still lasts; none for one that lasts until `b-` or the server's end.
        seconds_left: Option<u64>,
        /// Why.
        reason: String,
    }
}

words! {
    /// What became of a user's expired messages.
    Expiration { Done = "done", Due = "due", Busy = "busy", Failed = "failed", }
}

line! {
    /// A line of `ex` and `ex?`: a user who has expired messages, or whose maildrop could not be looked into.
    ExpiryLine {
        /// The user.
        user: String,
        /// How many messages were removed, or would be.
        messages: u64,
        /// Their octets.
        octets: u64,
        /// What became of them.
        result: Expiration,
    }
}

line! {
    /// A line of `dl?`: what one session has deleted and is still kept.
    DeletionLine {
        /// What `ud` takes.
        session: String,
        /// When it was deleted.
        time: String,
        /// Where the client came from.
        address: String,
        /// How many messages are kept.
        messages: u64,
        /// Their octets as they are stored.
        octets: u64,
    }
}

line! {
    /// A line of `rp?`: what one user has fetched.
    ReportLine {
        /// The user.
        user: String,
        /// When the user's last login was.
        last_login: Option<String>,
        /// Where it came from.
        address: Option<IpAddr>,
        /// When the last session ended that left nothing behind that was never retrieved.
        last_complete_fetch: Option<String>,
        /// How many messages are there that no session has ever retrieved as a whole, if that is known.
        never_retrieved: Option<u64>,
        /// The octets of the messages retrieved today (UTC).
        octets_today: u64,
        /// The same of the last 30 days, today included.
        octets_30_days: u64,
        /// The first commands of the last session.
        client: Option<String>,
    }
}

line! {
    /// A line of `rd?`: what one user has fetched on one day.
    DayLine {
        /// The user.
        user: String,
        /// The day (UTC).
        day: String,
        /// The octets of the messages retrieved.
        octets: u64,
    }
}

line! {
    /// A line of `ft?`: a fault that was ordered.
    FaultLine {
        /// What `ft-` takes.
        id: u64,
        /// Whom it is for: `*`, a network or a user.
        who: String,
        /// The fault.
        what: String,
        /// How many sessions or logins still get it; none for any number.
        left: Option<u64>,
        /// How long they get it; none until it is cleared.
        seconds_left: Option<u64>,
        /// How many have got it.
        given: u64,
    }
}

line! {
    /// A line of `s?` and `i?`.
    NameValue {
        /// What it is.
        name: String,
        /// Its value, if it has one.
        value: Option<String>,
    }
}

impl NameValue {
    /// A name with a value.
    pub fn new(name: &str, value: impl fmt::Display) -> Self {
        Self { name: name.to_owned(), value: Some(value.to_string()) }
    }
}

/// A line of `f`: an event, which is `TIME NAME KEY=VALUE…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLine {
    /// When it was, as RFC 3339 has it.
    pub time: String,
    /// What it was.
    pub name: String,
    /// What is known of it. Each event has the fields that it needs.
    pub fields: Vec<(String, Option<String>)>,
}

impl fmt::Display for EventLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.time.write(), self.name.write())?;
        self.fields
            .iter()
            .try_for_each(|(key, value)| write!(f, " {}={}", key.write().replace('=', "%3D"), value.write()))
    }
}

impl FromStr for EventLine {
    type Err = Malformed;

    fn from_str(line: &str) -> Result<Self, Malformed> {
        let mut words = line.split(' ');
        let mut next = || words.next().and_then(String::read).ok_or(Malformed);
        let (time, name) = (next()?, next()?);
        let field = |word: &str| {
            let (key, value) = word.split_once('=')?;
            Some((String::read(key)?, Option::read(value)?))
        };
        let fields = words.map(|word| field(word).ok_or(Malformed)).collect::<Result<_, _>>()?;
        Ok(Self { time, name, fields })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_session_is_a_line_of_eleven_fields() {
        let line = "17 pop3s 192.0.2.4 transaction ana 312 4 3 10240 1 TLSv1.3";
        let session: SessionLine = line.parse().unwrap();
        assert_eq!((session.id, session.octets, session.user.as_deref()), (17, 10_240, Some("ana")));
        assert_eq!((&session.protocol, &session.state), (&Spoken::Pop3s, &State::Transaction));
        assert_eq!(session.to_string(), line);
        assert_eq!(SessionLine::NAMES.len(), session.values().len());
    }

    #[test]
    fn a_field_may_have_no_value() {
        let line = "2 peep - admin - 0 0 0 0 0 -";
        let session: SessionLine = line.parse().unwrap();
        assert_eq!((session.address, &session.user, &session.tls), (None, &None, &None));
        assert_eq!(session.to_string(), line);
        assert_eq!(BanLine::from_str("192.0.2.0/24 - admin").unwrap().seconds_left, None);
    }

    #[test]
    fn further_fields_and_new_words_are_no_fault() {
        let newer: SessionLine = "1 pop4 ::1 asleep zo%C3%AB 1 1 1 1 1 - more fields".parse().unwrap();
        assert_eq!(newer.user.as_deref(), Some("zoë"));
        assert_eq!((newer.protocol.to_string(), newer.state.to_string()), ("pop4".into(), "asleep".into()));
    }

    #[test]
    fn an_event_has_the_fields_that_it_needs() {
        let line = "2026-11-28T02:00:00.000Z login-refused session=17 user=a%20b reason=no%20TLS mechanism=-";
        let event: EventLine = line.parse().unwrap();
        assert_eq!((event.name.as_str(), event.fields.len()), ("login-refused", 4));
        assert_eq!(event.fields[2], ("reason".to_owned(), Some("no TLS".to_owned())));
        assert_eq!((&event.fields[3].1, event.to_string().as_str()), (&None, line));
        for line in ["", "now", "now  a=b", "now login a", "now login =b", "now login a="] {
            assert_eq!(line.parse::<EventLine>(), Err(Malformed), "{line}");
        }
    }

    #[test]
    fn a_malformed_line_is_refused() {
        for line in ["", "x", "1 pop3", "1 pop3 here transaction ana 1 1 1 1 1 -", "1  ::1 admin - 0 0 0 0 0 -"] {
            assert_eq!(line.parse::<SessionLine>(), Err(Malformed), "{line}");
        }
        assert_eq!(BanLine::from_str("192.0.2.0/33 1 x"), Err(Malformed));
    }

    #[test]
    fn a_ban_of_one_address_has_no_prefix() {
        for line in ["192.0.2.4 60 failed%20logins", "2001:db8::/48 - admin"] {
            assert_eq!(BanLine::from_str(line).unwrap().to_string(), line);
        }
        assert_eq!(BanLine::from_str("192.0.2.4/32 60 x").unwrap().to_string(), "192.0.2.4 60 x");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            id: u64, address: Option<IpAddr>, user in proptest::option::of(".{1,40}"), count: u64,
            tls in proptest::option::of("TLSv1\\.[23]"),
        ) {
            let session = SessionLine {
                id, protocol: Spoken::Pop3, address, state: State::Update, user, age: count, idle: 0,
                retrieved: count, octets: count, marked: 7, tls,
            };
            let line = session.to_string();
            prop_assert_eq!(line.split(' ').count(), SessionLine::NAMES.len());
            prop_assert_eq!(line.parse(), Ok(session));
        }

        #[test]
        fn names_and_values_are_read_back(name in "[a-z_]{1,30}", value in ".{1,60}") {
            let pair = NameValue::new(&name, &value);
            prop_assert_eq!(pair.to_string().parse(), Ok(pair));
        }
    }
}
