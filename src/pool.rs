//! The sessions' threads: all made at the start, and none after that.
//!
//! Work goes to the thread that has become idle last on the core where it is to begin. Its stack and memory are still in
//! the caches, and those of a thread that is never needed stay as small as they were at the start. A channel that all
//! threads receive from would wake them in turn, and each would look for more a few times before it sleeps: that took a
//! third of a busy server's time.

use std::collections::VecDeque;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::cores::{self, Core, Cores};
use rustix::process::getpriority_process;
use thread_priority::{
    NormalThreadSchedulePolicy as Policy, ThreadPriority, ThreadPriorityOsValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id, thread_schedule_policy,
};

/// A session needs little; a thread's stack is not resident until it is used.
const STACK: usize = 256 * 1024;

/// The panic hook is the whole process's: one pool at a time may change it.
static HOOK: Mutex<()> = Mutex::new(());

/// Hands out work. When it is dropped, idle threads end, and the others when they have done what was given.
pub struct Pool<T> {
    queue: Arc<Mutex<Queue<T>>>,
}

/// Threads that wait for work, or work that waits for a thread.
struct Queue<T> {
    /// In the order in which they became idle, each with the core that it was on.
    idle: Vec<(Core, Arc<Seat<T>>)>,
    /// A place is free a moment before the thread of who had it is idle.
    waiting: VecDeque<(T, Option<Core>)>,
    cores: Cores,
    closed: bool,
}

impl<T> Queue<T> {
    /// The idle thread for what begins on `core`.
    fn take_idle(&mut self, core: Option<Core>) -> Option<Arc<Seat<T>>> {
        let there = self.idle.iter().rposition(|&(left, _)| Some(left) == core);
        let at = there.or(self.idle.len().checked_sub(1))?;
        Some(self.idle.remove(at).1)
    }
}

/// Where an idle thread sleeps.
struct Seat<T> {
    order: Mutex<Option<Order<T>>>,
    given: Condvar,
}

enum Order<T> {
    /// Beginning on that core.
    Do(T, Option<Core>),
    End,
}

impl<T: Send + 'static> Pool<T> {
    /// Starts `threads`, which do by `work` what they are given.
    ///
    /// # Errors
    /// When so many cannot be had.
    pub fn start(threads: usize, work: impl Fn(T) + Clone + Send + 'static) -> io::Result<Self> {
        let builder =
            threadpool::Builder::new().num_threads(threads).thread_name("session".to_owned()).thread_stack_size(STACK);
        // It panics when a thread cannot be had. That is an error here, and told as one.
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
            let (queue, work) = (Arc::clone(&queue), work.clone());
            pool.execute(move || {
                prefer_throughput();
                let seat = Arc::new(Seat { order: Mutex::new(None), given: Condvar::new() });
                let mut done = None;
                while let Order::Do(it, core) = next(&queue, &seat, done) {
                    if let Some(core) = core {
                        cores::go_to(core);
                    }
                    // A panic is told by the hook, and costs no thread.
                    let _ = panic::catch_unwind(AssertUnwindSafe(|| work(it)));
                    done = core;
                }
            });
        }
        Ok(Self { queue })
    }

    /// Has a thread do it, beginning on the core `near` if there is no reason against it; when none is idle, the first
    /// that will be.
    pub fn give(&self, work: T, near: Option<Core>) {
        let mut queue = self.queue.lock();
        if queue.idle.is_empty() {
            queue.waiting.push_back((work, near));
            return;
        }
        let core = near.and_then(|near| queue.cores.enter(near));
        let seat = queue.take_idle(core);
        drop(queue);
        if let Some(seat) = seat {
            seat.give(Order::Do(work, core));
        }
    }
}

impl<T> Drop for Pool<T> {
    fn drop(&mut self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.idle.drain(..).for_each(|(_, seat)| seat.give(Order::End));
    }
}

impl<T> Seat<T> {
    fn give(&self, order: Order<T>) {
        *self.order.lock() = Some(order);
        self.given.notify_one();
    }

    fn take(&self) -> Order<T> {
        let mut order = self.order.lock();
        loop {
            match order.take() {
                Some(order) => return order,
                None => self.given.wait(&mut order),
            }
        }
    }
}

/// What the thread of this seat has to do next, after what it has `done`; it may have to wait for that.
fn next<T>(queue: &Mutex<Queue<T>>, seat: &Arc<Seat<T>>, done: Option<Core>) -> Order<T> {
    {
        let mut queue = queue.lock();
        if let Some(core) = done {
            queue.cores.leave(core);
        }
        if let Some((work, near)) = queue.waiting.pop_front() {
            let core = near.and_then(|near| queue.cores.enter(near));
            return Order::Do(work, core);
        }
        if queue.closed {
            return Order::End;
        }
        queue.idle.push((cores::current(), Arc::clone(seat)));
    }
    seat.take()
}

/// Lets this thread wait for its turn when it is woken, as one of many that nobody sits before (`SCHED_BATCH`,
/// sched(7)): otherwise sessions interrupt each other, and clients on this machine, at each command. A policy or a
/// niceness that somebody has chosen for the server stays; where this is forbidden, things are as they were.
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
    use std::collections::HashSet;
    use std::sync::Barrier;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;
    use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};
    use rustix::process::setpriority_process;

    /// Only a hang takes so long.
    const LONG: Duration = Duration::from_secs(60);

    /// Waits until so many threads of the pool are idle.
    fn settled<T>(pool: &Pool<T>, idle: usize) {
        let deadline = Instant::now() + LONG;
        while pool.queue.lock().idle.len() < idle {
            assert!(Instant::now() < deadline, "the threads are not idle again");
            thread::yield_now();
        }
    }

    /// All that is told until the last thread has ended.
    fn until_the_end<T>(told: &Receiver<T>) -> Vec<T> {
        let mut all = Vec::new();
        loop {
            match told.recv_timeout(LONG) {
                Ok(it) => all.push(it),
                Err(RecvTimeoutError::Disconnected) => return all,
                Err(RecvTimeoutError::Timeout) => panic!("the threads do not end"),
            }
        }
    }

    #[test]
    fn everything_is_done_also_when_there_is_more_than_there_are_threads() {
        let (sender, done) = unbounded();
        let pool = Pool::start(3, move |number| sender.send(number).unwrap()).unwrap();
        (0..1000).for_each(|number| pool.give(number, None));
        drop(pool);
        assert_eq!(until_the_end(&done).into_iter().collect::<HashSet<i32>>(), (0..1000).collect());
    }

    #[test]
    fn idle_threads_end_with_the_pool() {
        let (sender, told) = unbounded();
        let pool = Pool::start(3, move |()| sender.send(()).unwrap()).unwrap();
        settled(&pool, 3);
        drop(pool);
        assert_eq!(until_the_end(&told), []);
    }

    #[test]
    fn the_thread_that_became_idle_last_comes_first() {
        let (sender, ids) = unbounded();
        let pool = Pool::start(3, move |()| sender.send(thread::current().id()).unwrap()).unwrap();
        let done_by: HashSet<_> = (0..10)
            .map(|_| {
                settled(&pool, 3);
                pool.give((), None);
                ids.recv_timeout(LONG).unwrap()
            })
            .collect();
        assert_eq!(done_by.len(), 1);
    }

    #[test]
    fn of_idle_threads_one_that_was_on_the_core_comes_first() {
        let seats: Vec<_> =
            (0..4).map(|_| Arc::new(Seat { order: Mutex::new(None::<Order<()>>), given: Condvar::new() })).collect();
        let mut queue = Queue {
            idle: [2, 3, 2, 3].into_iter().zip(seats.iter().cloned()).collect(),
            waiting: VecDeque::new(),
            cores: Cores::allowed(),
            closed: false,
        };
        let mut taken = |core| {
            let seat = queue.take_idle(core)?;
            seats.iter().position(|other| Arc::ptr_eq(other, &seat))
        };
        assert_eq!(
            [Some(2), Some(2), Some(2), None, Some(2)].map(&mut taken),
            [Some(2), Some(0), Some(3), Some(1), None]
        );
    }

    #[test]
    fn a_core_counts_what_has_begun_there_until_it_is_done() {
        let (sender, told) = unbounded();
        let pool = Pool::start(1, move |()| sender.send(()).unwrap()).unwrap();
        let near = cores::current();
        // More than the one thread can begin at once, and a thread that is given the next at its end.
        for _ in 0..100 {
            pool.give((), Some(near));
        }
        (0..100).for_each(|_| told.recv_timeout(LONG).unwrap());
        settled(&pool, 1);
        assert!(pool.queue.lock().cores.are_free());
    }

    #[test]
    fn as_many_work_at_once_as_there_are_threads() {
        let (sender, told) = unbounded();
        let all_here = Arc::new(Barrier::new(3));
        let work = move |()| {
            all_here.wait();
            sender.send(()).unwrap();
        };
        let pool = Pool::start(3, work).unwrap();
        (0..3).for_each(|_| pool.give((), None));
        (0..3).for_each(|_| told.recv_timeout(LONG).unwrap());
    }

    #[test]
    fn a_panic_costs_no_thread() {
        let (sender, told) = unbounded();
        let pool = Pool::start(1, move |fault: bool| {
            assert!(!fault, "as the test wants it");
            sender.send(()).unwrap();
        });
        let pool = pool.unwrap();
        pool.give(true, None);
        pool.give(false, None);
        told.recv_timeout(LONG).unwrap();
    }

    #[test]
    fn niceness_and_a_policy_that_somebody_chose_stay() {
        let scheduling = || (getpriority_process(None).unwrap(), thread_schedule_policy().unwrap());
        let of_a_pool = move || {
            let (sender, told) = unbounded();
            let pool = Pool::start(1, move |()| sender.send(scheduling()).unwrap()).unwrap();
            pool.give((), None);
            told.recv_timeout(LONG).unwrap()
        };
        let nice = thread::spawn(move || {
            setpriority_process(None, getpriority_process(None).unwrap() + 1).unwrap();
            (scheduling(), of_a_pool())
        });
        let (chosen, found) = nice.join().unwrap();
        assert_eq!(found, chosen);
        if scheduling() == (0, ThreadSchedulePolicy::Normal(Policy::Other)) {
            assert_eq!(of_a_pool(), (0, ThreadSchedulePolicy::Normal(Policy::Batch)));
        }
    }
}
