//! Determines the sizes of transformed messages (`--transform-sizes exact`), each of which is transformed once for that.
//!
//! A login that needs sizes starts a job for its maildrop, or joins the one that runs, and waits for it at most for
//! `PATIENCE`. Then the client is told to come again later, and the job goes on. The sizes are kept beside the index
//! ([`Maildrop::note_transformed`]), so the next login continues where the job has come to.
//!
//! All jobs together run as many transforms at once as there are processors. A job of many messages and another one take
//! turns. A thread that was started by the server's own threads does the work, as one of a session has the ids of a user.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, unbounded};
use parking_lot::{Condvar, Mutex};

use crate::auth::{Login, UserName};
use crate::events::Reason;
use crate::maildrop::{Fingerprint, Maildrop, MessageNumber, SizeKey, TransformedSize};
use crate::shared::Shared;
use crate::transform::{Failure, Subject, Transform};
use crate::wire::Meter;

/// How long a login waits. Clients wait for at least 30 s, and [`crate::shared::LOGIN_LIMIT`] is longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often a waiting login looks whether its session was ended from outside.
const LOOK: Duration = Duration::from_millis(100);

/// How many maildrops have a job at most.
const MOST_JOBS: usize = 16;

/// How long a job works at most. The next login starts another one.
const LONGEST_JOB: Duration = Duration::from_secs(30 * 60);

/// How many messages make it worth to start a thread.
const PER_THREAD: usize = 4;

/// How long the end of the server waits for the jobs.
const GRACE: Duration = Duration::from_secs(1);

/// The jobs of a server.
#[derive(Debug)]
pub struct Counting {
    state: Mutex<State>,
    /// A job has ended, or a transform.
    changed: Condvar,
    /// How many transforms may run at once.
    most: usize,
}

#[derive(Debug, Default)]
struct State {
    jobs: HashMap<(UserName, Fingerprint), Arc<Job>>,
    /// How many transforms run.
    running: usize,
    /// `None` before the start and after the end.
    started: Option<Started>,
}

#[derive(Debug)]
struct Started {
    /// Asks for a thread for a job.
    threads: Sender<Arc<Job>>,
    /// All transforms are given up when this is closed.
    _end: PipeWriter,
}

/// The work on one maildrop.
#[derive(Debug)]
struct Job {
    login: Login,
    transform: Arc<Transform>,
    fingerprint: Fingerprint,
    since: Instant,
    progress: Mutex<Progress>,
    /// A thread has ended.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Progress {
    /// The messages that were begun with, and the sizes of those that are done.
    sizes: HashMap<SizeKey, Option<TransformedSize>>,
    /// How many threads work.
    threads: usize,
    is_given_up: bool,
}

/// Sizes that are not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uncounted {
    /// How many are not known.
    pub unknown: usize,
    /// How many messages there are.
    pub messages: usize,
}

impl fmt::Display for Uncounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the transformed sizes of {} of {} messages are not known yet", self.unknown, self.messages)
    }
}

impl Default for Counting {
    fn default() -> Self {
        let most = thread::available_parallelism().map_or(1, Into::into);
        Self { state: Mutex::default(), changed: Condvar::new(), most }
    }
}

/// Starts the thread that starts those of the jobs.
///
/// # Errors
/// If it cannot be started.
pub fn start(shared: &Arc<Shared>) -> io::Result<()> {
    let (ended, end) = io::pipe()?;
    let (threads, asked) = unbounded::<Arc<Job>>();
    shared.counting.state.lock().started = Some(Started { threads, _end: end });
    let ended = Arc::new(ended);
    let shared = Arc::clone(shared);
    thread::Builder::new().name("counting".to_owned()).spawn(move || {
        for job in asked {
            let counting = &shared.counting;
            let work = {
                let (job, shared, ended) = (Arc::clone(&job), Arc::clone(&shared), Arc::clone(&ended));
                move || Working { job: &job, shared: &shared, ended: &ended, is_done: false }.work()
            };
            if let Err(error) = thread::Builder::new().name("counting".to_owned()).spawn(work) {
                log::error!("sizes of transformed messages cannot be determined: no thread: {error}");
                counting.leave(&job, false);
            }
        }
    })?;
    Ok(())
}

/// Has the sizes of a maildrop's transformed messages determined, which it tells from then on. `goes_on` says whether the
/// session still wants that.
///
/// # Errors
/// [`Uncounted`] if some are not known in time.
pub fn complete(
    shared: &Shared,
    maildrop: &mut Maildrop,
    login: &Login,
    transform: &Arc<Transform>,
    goes_on: impl Fn() -> bool,
) -> Result<(), Uncounted> {
    let deadline = Instant::now() + PATIENCE;
    let fingerprint = transform.fingerprint();
    maildrop.tell_transformed(&fingerprint);
    let uncounted =
        |maildrop: &Maildrop| Uncounted { unknown: maildrop.unknown_sizes().len(), messages: maildrop.count() };
    // A job that another login has started may not know the newest messages.
    for _ in 0..2 {
        let unknown = maildrop.unknown_sizes().len();
        if unknown == 0 {
            return Ok(());
        }
        let job = shared.counting.job(login, transform, fingerprint, unknown, deadline);
        let is_complete = job.as_ref().is_some_and(|job| job.wait(deadline, &goes_on));
        if let Some(job) = &job {
            let progress = job.progress.lock();
            maildrop.learn(|key| progress.sizes.get(&key).copied().flatten());
        }
        if !is_complete {
            return if maildrop.unknown_sizes().is_empty() { Ok(()) } else { Err(uncounted(maildrop)) };
        }
    }
    // These cannot be opened any more.
    maildrop.tell_stored_for_the_rest();
    Ok(())
}

impl Counting {
    /// The job for a maildrop: the one that runs, or a new one. Returns `None` if there are too many until the deadline.
    fn job(
        &self,
        login: &Login,
        transform: &Arc<Transform>,
        fingerprint: Fingerprint,
        unknown: usize,
        deadline: Instant,
    ) -> Option<Arc<Job>> {
        let key = (login.user.clone(), fingerprint);
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.get(&key) {
                return Some(Arc::clone(job));
            }
            if state.jobs.len() < MOST_JOBS {
                break;
            }
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return None;
            }
        }
        let threads = unknown.div_ceil(PER_THREAD).min(self.most);
        let job = Arc::new(Job {
            login: login.clone(),
            transform: Arc::clone(transform),
            fingerprint,
            since: Instant::now(),
            progress: Mutex::new(Progress { threads, ..Progress::default() }),
            changed: Condvar::new(),
        });
        for _ in 0..threads {
            state.started.as_ref()?.threads.send(Arc::clone(&job)).ok()?;
        }
        state.jobs.insert(key, Arc::clone(&job));
        Some(job)
    }

    /// Notes that a thread has ended, and whether it has left nothing to do.
    fn leave(&self, job: &Job, is_done: bool) {
        let mut progress = job.progress.lock();
        progress.is_given_up |= !is_done;
        progress.threads -= 1;
        if progress.threads == 0 {
            self.state.lock().jobs.remove(&(job.login.user.clone(), job.fingerprint));
            self.changed.notify_all();
        }
        job.changed.notify_all();
    }

    /// Waits until another transform may run.
    fn turn(&self) -> Turn<'_> {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |state| state.running >= self.most);
        state.running += 1;
        Turn(self)
    }

    fn is_stopped(&self) -> bool {
        self.state.lock().started.is_none()
    }

    /// Ends all jobs and their transforms.
    pub fn stop(&self) {
        let mut state = self.state.lock();
        state.started = None;
        self.changed.wait_while_for(&mut state, |state| !state.jobs.is_empty(), GRACE);
    }
}

/// As long as this exists, one more transform may run.
struct Turn<'a>(&'a Counting);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state.lock().running -= 1;
        // Those that wait for the end of a job are woken, too.
        self.0.changed.notify_all();
    }
}

impl Job {
    /// Waits until all threads have ended. Returns false if that was not in time, or if they have not done everything.
    fn wait(&self, deadline: Instant, goes_on: impl Fn() -> bool) -> bool {
        let mut progress = self.progress.lock();
        while progress.threads > 0 {
            let now = Instant::now();
            if now >= deadline || !goes_on() {
                return false;
            }
            self.changed.wait_until(&mut progress, deadline.min(now + LOOK));
        }
        !progress.is_given_up
    }

    /// Returns true if no other thread has begun with a message.
    fn take(&self, key: SizeKey) -> bool {
        let mut progress = self.progress.lock();
        let is_new = !progress.sizes.contains_key(&key);
        progress.sizes.entry(key).or_insert(None);
        is_new
    }
}

/// A thread that works on a job.
struct Working<'a> {
    job: &'a Job,
    shared: &'a Shared,
    ended: &'a PipeReader,
    is_done: bool,
}

impl Working<'_> {
    fn work(mut self) {
        match self.count() {
            Ok(is_done) => self.is_done = is_done,
            Err(reason) => {
                log::warn!("{}: the transformed sizes of messages are not known: {reason}", self.job.login.user);
            }
        }
    }

    /// Counts what no other thread counts. Returns false if something is left.
    fn count(&self) -> Result<bool, Reason> {
        let Job { login, transform, fingerprint, since, .. } = self.job;
        let (_acting, location) = self.shared.act_for_login(login).map_err(Reason::Maildrop)?;
        let mut maildrop = Maildrop::open_without_lock(location).map_err(Reason::Maildrop)?;
        maildrop.tell_transformed(fingerprint);
        for (number, key) in maildrop.unknown_sizes() {
            if !self.job.take(key) {
                continue;
            }
            let _turn = self.shared.counting.turn();
            if since.elapsed() > LONGEST_JOB || self.shared.counting.is_stopped() {
                return Ok(false);
            }
            let size = match self.size(&mut maildrop, transform, number) {
                Some(Ok(octets)) => TransformedSize::Octets(octets),
                Some(Err(Failure::ClientLeft)) => return Ok(false),
                Some(Err(failure)) => {
                    log::warn!("{}: the transform failed on message {number}: {failure}", login.user);
                    TransformedSize::failed_now()
                }
                None => continue,
            };
            let mut progress = self.job.progress.lock(); // so that one thread at a time creates the file or writes to it
            maildrop.note_transformed(key, size);
            progress.sizes.insert(key, Some(size));
        }
        Ok(true)
    }

    /// Transforms a message. Returns `None` if it cannot be opened.
    fn size(
        &self,
        maildrop: &mut Maildrop,
        transform: &Transform,
        number: MessageNumber,
    ) -> Option<Result<u64, Failure>> {
        let message = maildrop.open_message(number).ok()?;
        let unique_id = maildrop.unique_id(number)?;
        let unique_id = String::from_utf8_lossy(&unique_id);
        let subject = Subject { user: self.job.login.user.as_str(), unique_id: &unique_id, number };
        let mut meter = Meter::default();
        let run = transform.run(message, subject, self.ended.as_fd(), |piece| meter.push(piece));
        Some(run.map(|()| meter.finish().octets))
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.shared.counting.leave(self.job, self.is_done);
    }
}
