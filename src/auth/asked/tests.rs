use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

const HOUR: Duration = Duration::from_secs(3600);

/// A source whose answer can be changed, and which counts how often it is asked.
#[derive(Debug)]
struct Told {
    answer: Mutex<Answer>,
    asked: AtomicUsize,
}

impl Source for Arc<Told> {
    fn name(&self) -> Cow<'_, str> {
        "told".into()
    }

    fn find(&self, _: &UserName) -> Found {
        Found::Unknown
    }

    fn verify(&self, _: &Attempt<'_>, _: &Verifier) -> Result<Answer, Busy> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(self.answer.lock().clone())
    }

    fn totals(&self) -> Totals {
        Totals::default()
    }

    fn names(&self) -> Vec<UserName> {
        Vec::new()
    }
}

struct Test {
    told: Arc<Told>,
    asked: Arc<Asked>,
    verifier: Verifier,
}

impl Test {
    fn new(cache: Duration, grace: Duration) -> Self {
        let told = Arc::new(Told { answer: Mutex::new(right()), asked: AtomicUsize::new(0) });
        let asked = Asked::new(Arc::clone(&told), AskRules { timeout: HOUR, at_once: 1, cache, grace });
        Self { told, asked, verifier: Verifier::new() }
    }

    /// As if the time in which a source that has failed is not asked about remembered passwords had passed.
    fn pause_is_over(&self) {
        let mut failure = self.asked.failure.lock();
        let failure = failure.as_mut().expect("the source has failed");
        failure.tried = failure.tried.checked_sub(PAUSE).expect("the clock has run for longer");
    }

    fn tell(&self, answer: Answer) {
        *self.told.answer.lock() = answer;
    }

    /// The answer to a password, and how often the source was asked for it.
    fn log_in(&self, password: &str) -> (Answer, usize) {
        let attempt = Attempt { user: &"ana".parse().unwrap(), password: password.as_bytes(), address: None };
        let answer = self.asked.verify(&attempt, &self.verifier).unwrap();
        (answer, self.told.asked.swap(0, Ordering::Relaxed))
    }
}

fn right() -> Answer {
    Answer::Accepted(Arc::new(Mailbox { home: Some("/home/ana".into()), ..Mailbox::default() }))
}

#[test]
fn a_right_password_is_remembered_with_what_the_source_said() {
    let test = Test::new(HOUR, Duration::ZERO);
    assert_eq!(test.log_in("x"), (right(), 1));
    test.tell(Answer::NotAccepted);
    assert_eq!(test.log_in("x"), (right(), 0));
    assert_eq!(test.log_in("y"), (Answer::NotAccepted, 1));
    test.asked.forget(Some(&"bob".parse().unwrap()));
    assert_eq!(test.log_in("x"), (right(), 0));
    test.asked.forget(Some(&"ana".parse().unwrap()));
    assert_eq!(test.log_in("x"), (Answer::NotAccepted, 1));
    test.tell(right());
    test.asked.forget(None);
    assert_eq!(test.log_in("x"), (right(), 1));
}

/// The accounts of a large host are remembered in a few megabytes.
#[test]
fn what_is_remembered_of_an_account_is_small() {
    let test = Test::new(HOUR, Duration::ZERO);
    let (home, ids) = ("/var/vmail/example.org/ana".into(), Some("5000".to_owned()));
    let mailbox = Mailbox { home: Some(home), uid: ids.clone(), gid: ids, ..Mailbox::default() };
    test.tell(Answer::Accepted(Arc::new(mailbox)));
    test.log_in("x");
    let kept = test.asked.right.recall(&test.asked.right.mark(&"ana".parse().unwrap(), b"", b"x"));
    let (octets, _) = kept.expect("the password is remembered");
    assert!(octets.len() <= 64, "{octets:?}");
}

/// The source may know the user by another name than the client.
#[test]
fn a_user_is_forgotten_by_the_name_that_the_source_has_told() {
    let test = Test::new(HOUR, Duration::ZERO);
    test.tell(Answer::Accepted(Arc::new(Mailbox { user: Some("eve".parse().unwrap()), ..Mailbox::default() })));
    test.log_in("x");
    test.asked.forget(Some(&"bob".parse().unwrap()));
    assert_eq!(test.log_in("x").1, 0);
    test.asked.forget(Some(&"eve".parse().unwrap()));
    assert_eq!(test.log_in("x").1, 1);
}

#[test]
fn without_a_cache_the_source_is_always_asked() {
    let test = Test::new(Duration::ZERO, Duration::ZERO);
    assert_eq!([test.log_in("x"), test.log_in("x")], [(right(), 1), (right(), 1)]);
    test.tell(Answer::Unavailable);
    assert_eq!(test.log_in("x"), (Answer::Unavailable, 1));
}

#[test]
fn a_wrong_password_is_remembered_for_a_moment() {
    let test = Test::new(HOUR, Duration::ZERO);
    for (answer, remembered) in [
        (Answer::Unknown, Answer::Unknown),
        (Answer::NotAccepted, Answer::NotAccepted),
        (Answer::Refused { costly: true }, Answer::Refused { costly: false }),
    ] {
        test.asked.forget(None);
        test.tell(answer.clone());
        assert_eq!(test.log_in("x"), (answer, 1));
        assert_eq!(test.log_in("x"), (remembered, 0));
    }
    test.asked.wrong.forget(None);
    test.tell(Answer::Unavailable);
    assert_eq!([test.log_in("z"), test.log_in("z")], [(Answer::Unavailable, 1), (Answer::Unavailable, 1)]);
}

#[test]
fn a_remembered_password_covers_a_source_that_is_unavailable() {
    let test = Test::new(Duration::ZERO, HOUR);
    assert_eq!(test.log_in("x"), (right(), 1));
    test.tell(Answer::Unavailable);
    assert_eq!(test.log_in("x"), (right(), 1));
    // It is not asked again at once, so that the user does not wait for it.
    assert_eq!(test.log_in("x"), (right(), 0));
    assert_eq!(test.log_in("y"), (Answer::Unavailable, 1));
    test.tell(Answer::NotAccepted);
    assert_eq!(test.log_in("x"), (right(), 0));
    test.pause_is_over();
    assert_eq!(test.log_in("x"), (Answer::NotAccepted, 1));
    test.tell(Answer::Unavailable);
    test.asked.wrong.forget(None);
    assert_eq!(test.log_in("x"), (Answer::Unavailable, 1));
}

#[test]
fn one_login_at_a_time_finds_out_whether_the_source_answers_again() {
    let test = Test::new(Duration::ZERO, HOUR);
    assert_eq!(test.log_in("x"), (right(), 1));
    test.tell(Answer::Unavailable);
    assert_eq!(test.log_in("x"), (right(), 1));
    test.pause_is_over();
    assert!(!test.asked.is_paused(), "this login asks");
    // The others do not wait until it has its answer, nor after that.
    assert_eq!(test.log_in("x"), (right(), 0));
    assert_eq!(test.log_in("y"), (Answer::Unavailable, 1));
    assert_eq!(test.log_in("x"), (right(), 0));
    test.tell(right());
    assert_eq!(test.log_in("y"), (right(), 1));
    assert_eq!(test.log_in("x"), (right(), 1));
}

#[test]
fn a_login_that_has_waited_for_others_in_vain_does_not_wait_again() {
    let test = Test::new(Duration::ZERO, Duration::ZERO);
    let before = Instant::now();
    test.tell(Answer::Unavailable);
    assert_eq!(test.log_in("x"), (Answer::Unavailable, 1));
    let name = "ana".parse().unwrap();
    let attempt = Attempt { user: &name, password: b"x", address: None };
    let ask = |since| test.asked.ask_unless_failed(since, &attempt, &test.verifier).unwrap();
    assert_eq!((ask(before), test.told.asked.load(Ordering::Relaxed)), (Answer::Unavailable, 0));
    // A login that has come later asks.
    test.tell(right());
    assert_eq!(ask(Instant::now()), right());
    assert_eq!(ask(before), right());
}
