//! Threads that each have a connection to the database and run statements for others. A thread that asks waits for a
//! limited time only, whatever the database does.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::driver::{Connection, Driver, Error, Rows, Value};
use super::statement::Statement;

/// What a statement is run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// The database only checks the statement. The result has no rows.
    Check,
    /// Rows are wanted, at most this many.
    Query(usize),
    /// Something is changed, and running it twice does not matter.
    Note,
    /// Something is changed, once.
    Change,
}

/// What a statement has given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Rows(Rows),
    Changed(u64),
}

/// A number of connections to one database.
#[derive(Debug)]
pub(super) struct Pool {
    driver: Arc<dyn Driver>,
    jobs: Sender<Job>,
    /// The other end of `jobs`, which new threads get.
    waiting: Receiver<Job>,
    size: usize,
    started: Arc<AtomicUsize>,
    /// Asks for a further thread.
    starter: OnceLock<Sender<()>>,
    idle: Arc<AtomicUsize>,
    /// How many statements have failed since the last one that was carried out. Those for which a login waits do not count.
    failed: Arc<AtomicU64>,
    patience: Duration,
}

struct Job {
    statement: Arc<Statement>,
    values: Vec<Value>,
    task: Task,
    answer: Option<Sender<Result<Outcome, Error>>>,
    /// When the caller stops waiting for the answer.
    deadline: Option<Instant>,
}

/// The most statements that wait for a thread.
const WAITING: usize = 1000;

impl Pool {
    /// A pool of up to `size` connections. A caller waits for at most `patience`. No thread is started before the first
    /// statement.
    pub(super) fn new(driver: Arc<dyn Driver>, size: usize, patience: Duration) -> Self {
        let (jobs, waiting) = crossbeam_channel::bounded(WAITING);
        let (started, idle, failed) = Default::default();
        Self { driver, jobs, waiting, size, started, starter: OnceLock::new(), idle, failed, patience }
    }

    /// Runs a statement and waits for its result.
    pub(super) fn run(&self, statement: &Arc<Statement>, values: Vec<Value>, task: Task) -> Result<Outcome, Error> {
        let (answer, answers) = crossbeam_channel::bounded(1);
        let deadline = Instant::now() + self.patience;
        let job =
            Job { statement: Arc::clone(statement), values, task, answer: Some(answer), deadline: Some(deadline) };
        self.grow();
        match self.jobs.send_deadline(job, deadline) {
            Ok(()) => {}
            Err(_) => return Err(self.too_late()),
        }
        match answers.recv_deadline(deadline) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => Err(self.too_late()),
            Err(RecvTimeoutError::Disconnected) => {
                Err(Error::Failed("the thread of a connection has ended".to_owned()))
            }
        }
    }

    /// Returns the result of a query: at most `most` rows.
    pub(super) fn rows(&self, statement: &Arc<Statement>, values: Vec<Value>, most: usize) -> Result<Rows, Error> {
        match self.run(statement, values, Task::Query(most))? {
            Outcome::Rows(rows) => Ok(rows),
            Outcome::Changed(_) => Err(Error::Failed("a query has changed something".to_owned())),
        }
    }

    /// Has a statement run without waiting for it. Returns false if too many are waiting.
    pub(super) fn note(&self, statement: &Arc<Statement>, values: Vec<Value>) -> bool {
        let job = Job { statement: Arc::clone(statement), values, task: Task::Note, answer: None, deadline: None };
        self.grow();
        self.jobs.try_send(job).is_ok()
    }

    fn too_late(&self) -> Error {
        Error::Failed(format!("no answer within {:?}", self.patience))
    }

    /// Makes the thread that starts the others, which then have the rights of the present thread. Sessions may act with
    /// the ids of their users, so the server calls this before there are any.
    pub(super) fn prepare(&self) -> &Sender<()> {
        self.starter.get_or_init(|| {
            let (start, requests) = crossbeam_channel::unbounded::<()>();
            let (driver, jobs) = (Arc::clone(&self.driver), self.waiting.clone());
            let (started, idle, failed) = (Arc::clone(&self.started), Arc::clone(&self.idle), Arc::clone(&self.failed));
            let start_all = move || {
                for () in requests {
                    let (driver, jobs) = (Arc::clone(&driver), jobs.clone());
                    let (idle, failed) = (Arc::clone(&idle), Arc::clone(&failed));
                    let work = move || Worker { driver, connection: None, idle, failed }.work(&jobs);
                    if let Err(error) = thread::Builder::new().name("accounts".to_owned()).spawn(work) {
                        started.fetch_sub(1, Ordering::AcqRel);
                        log::warn!("accounts: cannot start a thread for a connection: {error}");
                    }
                }
            };
            if let Err(error) = thread::Builder::new().name("accounts".to_owned()).spawn(start_all) {
                log::error!("accounts: cannot start a thread: {error}");
            }
            start
        })
    }

    /// Has a further thread started if all are busy and there may be more.
    fn grow(&self) {
        if self.idle.load(Ordering::Acquire) > self.jobs.len() {
            return;
        }
        let more = |started: usize| (started < self.size).then_some(started + 1);
        if self.started.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok() {
            let _ = self.prepare().send(());
        }
    }
}

/// A thread with its connection.
struct Worker {
    driver: Arc<dyn Driver>,
    connection: Option<Box<dyn Connection>>,
    idle: Arc<AtomicUsize>,
    failed: Arc<AtomicU64>,
}

impl Worker {
    /// Works until the pool is dropped.
    fn work(mut self, jobs: &Receiver<Job>) {
        loop {
            self.idle.fetch_add(1, Ordering::AcqRel);
            let job = jobs.recv();
            self.idle.fetch_sub(1, Ordering::AcqRel);
            let Ok(job) = job else { return };
            if job.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                continue;
            }
            let result = self.run(&job);
            match (&job.answer, result) {
                (Some(answer), result) => {
                    let _ = answer.send(result);
                }
                (None, result) => self.tell(result.err()),
            }
        }
    }

    /// Logs that statements for logins fail, and that they are carried out again, once each: a full disk has room for few
    /// lines.
    fn tell(&self, error: Option<Error>) {
        if let Some(error) = error {
            if self.failed.fetch_add(1, Ordering::Relaxed) == 0 {
                log::warn!("accounts: the statement for a login has failed: {error}");
            }
            return;
        }
        match self.failed.swap(0, Ordering::Relaxed) {
            0 => {}
            count => log::info!("accounts: the statement for logins is carried out again; {count} have failed"),
        }
    }

    /// Runs a statement, by a new connection if the present one has broken.
    fn run(&mut self, job: &Job) -> Result<Outcome, Error> {
        if job.task == Task::Change {
            // It may have been carried out although the connection broke, so it is not tried twice; a new connection is
            // not broken.
            self.connection = None;
        }
        let was_connected = self.connection.is_some();
        match self.attempt(job) {
            Err(Error::Broken(_)) if was_connected => self.attempt(job),
            result => result,
        }
    }

    fn attempt(&mut self, job: &Job) -> Result<Outcome, Error> {
        let Job { statement, values, task, .. } = job;
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.driver.connect()?),
        };
        let result = match task {
            Task::Check => connection.columns(statement).map(|names| Outcome::Rows(Rows { names, rows: vec![] })),
            Task::Query(most) => connection.query(statement, values, *most).map(Outcome::Rows),
            Task::Note | Task::Change => connection.execute(statement, values).map(Outcome::Changed),
        };
        if matches!(result, Err(Error::Broken(_))) {
            self.connection = None;
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::super::statement::{Dialect, Parameter};
    use super::*;

    /// A database whose connections do what they are told.
    #[derive(Debug, Default)]
    struct Fake {
        connections: AtomicUsize,
        /// What the next statements do, from the last to the first; then they succeed.
        next: Arc<Mutex<Vec<Act>>>,
    }

    #[derive(Debug)]
    enum Act {
        Break,
        Fail,
        /// Waits until the channel has ended.
        Hang(Receiver<()>),
    }

    impl Driver for Fake {
        fn dialect(&self) -> Dialect {
            Dialect::Sqlite
        }

        fn connect(&self) -> Result<Box<dyn Connection>, Error> {
            self.connections.fetch_add(1, Ordering::Relaxed);
            Ok(Box::new(FakeConnection(Arc::clone(&self.next))))
        }
    }

    struct FakeConnection(Arc<Mutex<Vec<Act>>>);

    impl Connection for FakeConnection {
        fn columns(&mut self, _: &Statement) -> Result<Vec<String>, Error> {
            Ok(vec!["password".to_owned()])
        }

        fn query(&mut self, _: &Statement, _: &[Value], _: usize) -> Result<Rows, Error> {
            let act = self.0.lock().pop();
            match act {
                None => Ok(nothing()),
                Some(Act::Break) => Err(Error::Broken("broken".to_owned())),
                Some(Act::Fail) => Err(Error::Failed("failed".to_owned())),
                Some(Act::Hang(until)) => {
                    let _ = until.recv();
                    Ok(nothing())
                }
            }
        }

        fn execute(&mut self, statement: &Statement, values: &[Value]) -> Result<u64, Error> {
            self.query(statement, values, 0).map(|_| 1)
        }
    }

    fn pool(size: usize, patience: Duration) -> (Pool, Arc<Fake>) {
        let driver = Arc::new(Fake::default());
        (Pool::new(Arc::clone(&driver) as Arc<dyn Driver>, size, patience), driver)
    }

    fn statement() -> Arc<Statement> {
        Arc::new(Statement::parse("SELECT 1", Dialect::Sqlite, Parameter::OF_LOGIN).unwrap())
    }

    fn nothing() -> Rows {
        Rows { names: vec![], rows: vec![] }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_broken_connection_is_replaced() {
        let (pool, fake) = pool(1, LONG);
        let query = || pool.run(&statement(), vec![], Task::Query(1));
        assert_eq!(query(), Ok(Outcome::Rows(nothing())));
        fake.next.lock().push(Act::Break);
        assert_eq!(query(), Ok(Outcome::Rows(nothing())));
        assert_eq!(fake.connections.load(Ordering::Relaxed), 2);
        // The new connection breaks as well.
        fake.next.lock().extend([Act::Break, Act::Break]);
        assert_eq!(query(), Err(Error::Broken("broken".to_owned())));
        fake.next.lock().push(Act::Fail);
        assert_eq!(query(), Err(Error::Failed("failed".to_owned())));
    }

    #[test]
    fn a_change_is_never_made_twice() {
        let (pool, fake) = pool(1, LONG);
        assert_eq!(pool.run(&statement(), vec![], Task::Query(1)), Ok(Outcome::Rows(nothing())));
        fake.next.lock().push(Act::Break);
        assert_eq!(pool.run(&statement(), vec![], Task::Change), Err(Error::Broken("broken".to_owned())));
        assert_eq!(fake.connections.load(Ordering::Relaxed), 2);
        assert_eq!(pool.run(&statement(), vec![], Task::Change), Ok(Outcome::Changed(1)));
    }

    #[test]
    fn nobody_waits_longer_than_the_limit() {
        let (pool, fake) = pool(1, Duration::from_millis(20));
        let (go_on, until) = crossbeam_channel::bounded::<()>(0);
        fake.next.lock().push(Act::Hang(until));
        let query = || pool.run(&statement(), vec![], Task::Query(1));
        let late = || Err(Error::Failed("no answer within 20ms".to_owned()));
        assert_eq!(query(), late(), "the statement hangs");
        assert_eq!(query(), late(), "the connection is in use");
        drop(go_on);
        // Those that were given up in the meantime are not run.
        let answer = std::iter::repeat_with(query).find(Result::is_ok);
        assert_eq!(answer, Some(Ok(Outcome::Rows(nothing()))));
        assert_eq!(fake.connections.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn another_connection_is_made_only_when_all_are_in_use() {
        let (pool, fake) = pool(2, LONG);
        let (go_on, until) = crossbeam_channel::bounded::<()>(0);
        fake.next.lock().push(Act::Hang(until));
        thread::scope(|scope| {
            let first = scope.spawn(|| pool.run(&statement(), vec![], Task::Query(1)));
            while !fake.next.lock().is_empty() {
                thread::yield_now();
            }
            for _ in 0..10 {
                assert_eq!(pool.run(&statement(), vec![], Task::Query(1)), Ok(Outcome::Rows(nothing())));
            }
            drop(go_on);
            assert!(first.join().unwrap().is_ok());
        });
        assert_eq!(fake.connections.load(Ordering::Relaxed), 2);
    }
}
