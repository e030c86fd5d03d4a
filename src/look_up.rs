//! Look-ups in the system's accounts.
//!
//! If accounts come from LDAP or a similar service, looking one up may take long or never end. So a separate thread
//! does it, and a login waits at most [`PATIENCE`] for the answer. The thread has a large stack, because the C library
//! may load modules for the look-up.

use std::fmt;
use std::io;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use parking_lot::Mutex;

/// How long a login waits until an account has been looked up.
const PATIENCE: Duration = Duration::from_secs(2);

/// A question, and where its answer goes.
type Asked<Q, A> = (Q, Sender<A>);

/// Answers questions on a thread of its own, which is started when it is first needed and ends when this is dropped.
pub(crate) struct LookUps<Q, A> {
    look_up: fn(&Q) -> A,
    questions: Mutex<Option<Sender<Asked<Q, A>>>>,
}

impl<Q, A> fmt::Debug for LookUps<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LookUps").finish_non_exhaustive()
    }
}

impl<Q: Send + 'static, A: Send + 'static> LookUps<Q, A> {
    pub(crate) fn new(look_up: fn(&Q) -> A) -> Self {
        Self { look_up, questions: Mutex::new(None) }
    }

    /// Starts the thread, unless it runs already.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(&self) -> io::Result<()> {
        self.sender().map(drop)
    }

    /// Returns the answer to a question.
    ///
    /// # Errors
    /// When it takes longer than [`PATIENCE`].
    pub(crate) fn ask(&self, question: Q) -> io::Result<A> {
        let (answer, answered) = bounded(1);
        let sent = self.sender()?.send((question, answer));
        sent.map_err(|_| io::Error::other("the thread that looks accounts up has ended"))?;
        let slow = "the system's accounts could not be looked up in time";
        answered.recv_timeout(PATIENCE).map_err(|_| io::Error::new(io::ErrorKind::TimedOut, slow))
    }

    fn sender(&self) -> io::Result<Sender<Asked<Q, A>>> {
        let mut questions = self.questions.lock();
        if let Some(questions) = &*questions {
            return Ok(questions.clone());
        }
        let (ask, asked) = unbounded();
        let look_up = self.look_up;
        thread::Builder::new().name("accounts".to_owned()).spawn(move || answer(&asked, look_up))?;
        Ok(questions.insert(ask).clone())
    }
}

/// Answers questions until nothing can ask any more.
fn answer<Q, A>(questions: &Receiver<Asked<Q, A>>, look_up: fn(&Q) -> A) {
    for (question, answer) in questions {
        // Sending fails if the login has stopped waiting.
        let _ = answer.send(look_up(&question));
    }
}
