//! The threads that run sessions. All are started with the server. None is started later, except in place of a thread that
//! has become unfit (see [`Pool::replacing`]).
//!
//! [`Pool::submit`] gives a session to the thread that became idle last on the core where the session is to begin. The
//! stack and the memory of that thread are still in the processor's caches, and a thread that is never needed keeps the
//! small stack that it started with. A channel shared by all threads would wake them in turn, and each would poll it a
//! few times before it sleeps; that took a third of a busy server's time.

use std::collections::VecDeque;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Sender, unbounded};
use parking_lot::{Condvar, Mutex};

use crate::cores::{self, Core, Cores};
use rustix::process::getpriority_process;
use thread_priority::{
    NormalThreadSchedulePolicy as Policy, ThreadPriority, ThreadPriorityOsValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id, thread_schedule_policy,
};

/// The stack size of a session's thread, in octets. A session needs little, and unused stack takes no memory.
const STACK: usize = 256 * 1024;

/// Held while the panic hook is replaced, because the hook belongs to the whole process.
static HOOK: Mutex<()> = Mutex::new(());

/// A fixed number of threads. When the pool is dropped, idle threads end at once, the others after all submitted work.
pub struct Pool<T> {
    queue: Arc<Mutex<Queue<T>>>,
}

/// Idle threads, or work that waits for a thread. At most one of the two exists at a time.
struct Queue<T> {
    /// The idle threads in the order in which they became idle, each with the core that it ran on.
    idle: Vec<(Core, Arc<IdleThread<T>>)>,
    /// Work without a thread yet. A connection slot is released slightly before its thread becomes idle, so there can
    /// be work for which no thread is idle.
    waiting: VecDeque<(T, Option<Core>)>,
    cores: Cores,
    closed: bool,
}

impl<T> Queue<T> {
    /// Takes the thread that became idle last on `core`, or on any core if there is none.
    fn take_idle(&mut self, core: Option<Core>) -> Option<Arc<IdleThread<T>>> {
        let there = self.idle.iter().rposition(|&(left, _)| Some(left) == core);
        let at = there.or(self.idle.len().checked_sub(1))?;
        Some(self.idle.remove(at).1)
    }
}

/// What an idle thread waits on until it gets a task.
struct IdleThread<T> {
    task: Mutex<Option<Task<T>>>,
    given: Condvar,
}

enum Task<T> {
    /// Run this work, beginning on that core.
    Run(T, Option<Core>),
    End,
}

impl<T: Send + 'static> Pool<T> {
    /// Starts this many threads, which call `work` with each value that is submitted.
    ///
    /// # Errors
    /// When the system does not allow so many threads.
    pub fn start(threads: usize, work: impl Fn(T) + Clone + Send + 'static) -> io::Result<Self> {
        Self::start_with(threads, work, None)
    }

    /// The same, but a thread for which `is_fit` is false after its work ends, and another one takes its place. A new thread
    /// inherits the ids and rights of the one that starts it, so an additional thread starts it.
    ///
    /// # Errors
    /// As of [`Pool::start`].
    pub fn replacing(
        threads: usize,
        work: impl Fn(T) + Clone + Send + 'static,
        is_fit: fn() -> bool,
    ) -> io::Result<Self> {
        let (ended, replace) = unbounded();
        let pool = Self::start_with(threads, work.clone(), Some(Fitness { is_fit, ended }))?;
        let queue = Arc::downgrade(&pool.queue);
        let keep = move || {
            for fitness in replace {
                let Some(queue) = queue.upgrade() else { return };
                let work = work.clone();
                let run = move || run(&queue, &work, Some(&fitness));
                let started = thread::Builder::new().name("session".to_owned()).stack_size(STACK).spawn(run);
                if let Err(error) = started {
                    log::error!("a thread for sessions has ended and cannot be replaced: {error}");
                }
            }
        };
        thread::Builder::new().name("sessions".to_owned()).spawn(keep)?;
        Ok(pool)
    }

    fn start_with(
        threads: usize,
        work: impl Fn(T) + Clone + Send + 'static,
        fitness: Option<Fitness>,
    ) -> io::Result<Self> {
        let builder =
            threadpool::Builder::new().num_threads(threads).thread_name("session".to_owned()).thread_stack_size(STACK);
        // `build` panics if a thread cannot be started. Here that is an error, so the panic is not printed.
        let pool = {
            let _alone = HOOK.lock();
            let hook = panic::take_hook();
            panic::set_hook(Box::new(|_| {}));
            let pool = panic::catch_unwind(|| builder.build());
            panic::set_hook(hook);
            pool
        };
        let pool = pool.map_err(|_| io::Error::other(format!("cannot start {threads} threads")))?;

        let queue = Arc::new(Mutex::new(Queue {
            idle: Vec::with_capacity(threads),
            waiting: VecDeque::new(),
            cores: Cores::allowed(),
            closed: false,
        }));
        for _ in 0..threads {
            let (queue, work, fitness) = (Arc::clone(&queue), work.clone(), fitness.clone());
            // The pool of the crate is dropped below, so each of its threads ends when this returns.
            pool.execute(move || run(&queue, &work, fitness.as_ref()));
        }
        Ok(Self { queue })
    }

    /// Gives work to an idle thread, or to the first thread that becomes idle. The work begins on the core `near`
    /// unless that core is overloaded (see [`Cores::enter`]).
    pub fn submit(&self, work: T, near: Option<Core>) {
        let mut queue = self.queue.lock();
        if queue.idle.is_empty() {
            queue.waiting.push_back((work, near));
            return;
        }
        let core = near.and_then(|near| queue.cores.enter(near));
        let thread = queue.take_idle(core);
        drop(queue);
        if let Some(thread) = thread {
            thread.give(Task::Run(work, core));
        }
    }
}

impl<T> Drop for Pool<T> {
    fn drop(&mut self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.idle.drain(..).for_each(|(_, thread)| thread.give(Task::End));
    }
}

impl<T> IdleThread<T> {
    fn give(&self, task: Task<T>) {
        *self.task.lock() = Some(task);
        self.given.notify_one();
    }

    fn take(&self) -> Task<T> {
        let mut task = self.task.lock();
        loop {
            match task.take() {
                Some(task) => return task,
                None => self.given.wait(&mut task),
            }
        }
    }
}

/// Whether a thread may go on.
#[derive(Clone)]
struct Fitness {
    is_fit: fn() -> bool,
    /// A thread that ends sends this to the one that replaces it.
    ended: Sender<Fitness>,
}

/// What a thread of the pool does.
fn run<T>(queue: &Mutex<Queue<T>>, work: &impl Fn(T), fitness: Option<&Fitness>) {
    prefer_throughput();
    let thread = Arc::new(IdleThread { task: Mutex::new(None), given: Condvar::new() });
    let mut done = None;
    while let Task::Run(it, core) = next(queue, &thread, done) {
        if let Some(core) = core {
            cores::go_to(core);
        }
        // The panic hook logs a panic, and the thread goes on.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| work(it)));
        done = core;
        if let Some(fitness) = fitness.filter(|fitness| !(fitness.is_fit)()) {
            if let Some(core) = core {
                queue.lock().cores.leave(core);
            }
            let _ = fitness.ended.send(fitness.clone()); // fails only when the server ends
            return;
        }
    }
}

/// Returns the next task of a thread, waiting for one if necessary. `done` is the core of the task that it has
/// finished.
fn next<T>(queue: &Mutex<Queue<T>>, thread: &Arc<IdleThread<T>>, done: Option<Core>) -> Task<T> {
    {
        let mut queue = queue.lock();
        if let Some(core) = done {
            queue.cores.leave(core);
        }
        if let Some((work, near)) = queue.waiting.pop_front() {
            let core = near.and_then(|near| queue.cores.enter(near));
            return Task::Run(work, core);
        }
        if queue.closed {
            return Task::End;
        }
        queue.idle.push((cores::current(), Arc::clone(thread)));
    }
    thread.take()
}

/// Gives this thread the scheduling policy `SCHED_BATCH` (sched(7)), so that it does not interrupt the running thread
/// when it is woken. Otherwise sessions interrupt each other, and clients on this machine, at each command. A policy or
/// a niceness that the operator chose stays. If the system forbids the change, nothing changes.
fn prefer_throughput() {
    let unchosen = matches!(thread_schedule_policy(), Ok(ThreadSchedulePolicy::Normal(Policy::Other)))
        && getpriority_process(None) == Ok(0);
    if unchosen {
        let nice = ThreadPriority::Os(ThreadPriorityOsValue::default()); // 0
        let batch = ThreadSchedulePolicy::Normal(Policy::Batch);
        let _ = set_thread_priority_and_policy(thread_native_id(), nice, batch);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::HashSet;
    use std::sync::Barrier;
    use std::time::{Duration, Instant};

    use super::*;
    use crossbeam_channel::{Receiver, RecvTimeoutError};
    use rustix::process::setpriority_process;

    /// The longest that a test waits.
    const LIMIT: Duration = Duration::from_secs(60);

    /// Waits until this many threads of the pool are idle.
    fn wait_until_idle<T>(pool: &Pool<T>, idle: usize) {
        let deadline = Instant::now() + LIMIT;
        while pool.queue.lock().idle.len() < idle {
            assert!(Instant::now() < deadline, "the threads are not idle again");
            thread::yield_now();
        }
    }

    /// Receives everything that is sent until the last thread has ended.
    fn receive_all<T>(receiver: &Receiver<T>) -> Vec<T> {
        let mut all = Vec::new();
        loop {
            match receiver.recv_timeout(LIMIT) {
                Ok(it) => all.push(it),
                Err(RecvTimeoutError::Disconnected) => return all,
                Err(RecvTimeoutError::Timeout) => panic!("the threads do not end"),
            }
        }
    }

    #[test]
    fn more_work_than_threads_is_all_done() {
        let (sender, done) = unbounded();
        let pool = Pool::start(3, move |number| sender.send(number).unwrap()).unwrap();
        (0..1000).for_each(|number| pool.submit(number, None));
        drop(pool);
        assert_eq!(receive_all(&done).into_iter().collect::<HashSet<i32>>(), (0..1000).collect());
    }

    #[test]
    fn idle_threads_end_with_the_pool() {
        let (sender, receiver) = unbounded();
        let pool = Pool::start(3, move |()| sender.send(()).unwrap()).unwrap();
        wait_until_idle(&pool, 3);
        drop(pool);
        assert_eq!(receive_all(&receiver), []);
    }

    #[test]
    fn the_thread_that_became_idle_last_is_preferred() {
        let (sender, ids) = unbounded();
        let pool = Pool::start(3, move |()| sender.send(thread::current().id()).unwrap()).unwrap();
        let done_by: HashSet<_> = (0..10)
            .map(|_| {
                wait_until_idle(&pool, 3);
                pool.submit((), None);
                ids.recv_timeout(LIMIT).unwrap()
            })
            .collect();
        assert_eq!(done_by.len(), 1);
    }

    #[test]
    fn an_idle_thread_of_the_same_core_is_preferred() {
        let threads: Vec<_> = (0..4)
            .map(|_| Arc::new(IdleThread { task: Mutex::new(None::<Task<()>>), given: Condvar::new() }))
            .collect();
        let mut queue = Queue {
            idle: [2, 3, 2, 3].into_iter().zip(threads.iter().cloned()).collect(),
            waiting: VecDeque::new(),
            cores: Cores::allowed(),
            closed: false,
        };
        let mut taken = |core| {
            let thread = queue.take_idle(core)?;
            threads.iter().position(|other| Arc::ptr_eq(other, &thread))
        };
        assert_eq!(
            [Some(2), Some(2), Some(2), None, Some(2)].map(&mut taken),
            [Some(2), Some(0), Some(3), Some(1), None]
        );
    }

    #[test]
    fn a_core_counts_sessions_until_they_end() {
        let (sender, receiver) = unbounded();
        let pool = Pool::start(1, move |()| sender.send(()).unwrap()).unwrap();
        let near = cores::current();
        // There is more work than the one thread can begin at once, so it takes its next task when it has finished one.
        for _ in 0..100 {
            pool.submit((), Some(near));
        }
        (0..100).for_each(|_| receiver.recv_timeout(LIMIT).unwrap());
        wait_until_idle(&pool, 1);
        assert!(pool.queue.lock().cores.are_free());
    }

    #[test]
    fn all_threads_work_at_once() {
        let (sender, receiver) = unbounded();
        let all_here = Arc::new(Barrier::new(3));
        let work = move |()| {
            all_here.wait();
            sender.send(()).unwrap();
        };
        let pool = Pool::start(3, work).unwrap();
        (0..3).for_each(|_| pool.submit((), None));
        (0..3).for_each(|_| receiver.recv_timeout(LIMIT).unwrap());
    }

    #[test]
    fn a_panic_does_not_end_a_thread() {
        let (sender, receiver) = unbounded();
        let pool = Pool::start(1, move |fault: bool| {
            assert!(!fault, "as the test intends");
            sender.send(()).unwrap();
        });
        let pool = pool.unwrap();
        pool.submit(true, None);
        pool.submit(false, None);
        receiver.recv_timeout(LIMIT).unwrap();
    }

    #[test]
    fn an_unfit_thread_ends_and_another_takes_its_place() {
        thread_local! {
            static IS_FIT: Cell<bool> = const { Cell::new(true) };
        }
        let (sender, receiver) = unbounded();
        let work = move |is_last: bool| {
            assert!(IS_FIT.get(), "the thread should have ended");
            IS_FIT.set(!is_last);
            sender.send(thread::current().id()).unwrap();
            assert!(!is_last, "a fault does not keep it from ending");
        };
        let pool = Pool::replacing(2, work, || IS_FIT.get()).unwrap();
        let mut ended = HashSet::new();
        for _ in 0..20 {
            wait_until_idle(&pool, 2);
            pool.submit(true, Some(cores::current()));
            assert!(ended.insert(receiver.recv_timeout(LIMIT).unwrap()));
        }
        wait_until_idle(&pool, 2);
        assert!(pool.queue.lock().cores.are_free());
        pool.submit(false, None);
        assert!(!ended.contains(&receiver.recv_timeout(LIMIT).unwrap()));
        drop(pool);
        assert_eq!(receive_all(&receiver), [], "a thread goes on after the pool");
    }

    #[test]
    fn a_chosen_niceness_or_policy_stays() {
        let scheduling = || (getpriority_process(None).unwrap(), thread_schedule_policy().unwrap());
        let of_a_pool_thread = move || {
            let (sender, receiver) = unbounded();
            let pool = Pool::start(1, move |()| sender.send(scheduling()).unwrap()).unwrap();
            pool.submit((), None);
            receiver.recv_timeout(LIMIT).unwrap()
        };
        let nice = thread::spawn(move || {
            setpriority_process(None, getpriority_process(None).unwrap() + 1).unwrap();
            (scheduling(), of_a_pool_thread())
        });
        let (chosen, found) = nice.join().unwrap();
        assert_eq!(found, chosen);
        if scheduling() == (0, ThreadSchedulePolicy::Normal(Policy::Other)) {
            assert_eq!(of_a_pool_thread(), (0, ThreadSchedulePolicy::Normal(Policy::Batch)));
        }
    }
}
