//! The sessions' threads: all made at the start, and none after that.
//!
//! Work goes to the thread that has become idle last. Its stack and memory are still in the caches, and those of a thread
//! that is never needed are never touched. A channel that all threads receive from would wake them in turn, and each
//! would look for more a few times before it sleeps: that took a third of a busy server's time.

use std::collections::VecDeque;
use std::io;
use std::panic;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use rustix::process::getpriority_process;
use thread_priority::{
    NormalThreadSchedulePolicy as Policy, ThreadPriority, ThreadPriorityOsValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id, thread_schedule_policy,
};

/// A session needs little; a thread's stack is not resident until it is used.
const STACK: usize = 256 * 1024;

/// Hands out work. When it is dropped, idle threads end, and the others when they have done what was given.
pub struct Pool<T> {
    queue: Arc<Mutex<Queue<T>>>,
}

/// Threads that wait for work, or work that waits for a thread.
struct Queue<T> {
    idle: Vec<Arc<Seat<T>>>,
    waiting: VecDeque<T>,
    closed: bool,
}

/// Where an idle thread sleeps.
struct Seat<T> {
    order: Mutex<Option<Order<T>>>,
    given: Condvar,
}

enum Order<T> {
    Do(T),
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
        let hook = panic::take_hook();
        panic::set_hook(Box::new(|_| {}));
        let pool = panic::catch_unwind(|| builder.build());
        panic::set_hook(hook);
        let pool = pool.map_err(|_| io::Error::other(format!("cannot start {threads} threads")))?;

        let queue =
            Arc::new(Mutex::new(Queue { idle: Vec::with_capacity(threads), waiting: VecDeque::new(), closed: false }));
        for _ in 0..threads {
            let (queue, work) = (Arc::clone(&queue), work.clone());
            pool.execute(move || {
                prefer_throughput();
                let seat = Arc::new(Seat { order: Mutex::new(None), given: Condvar::new() });
                while let Order::Do(it) = next(&queue, &seat) {
                    work(it);
                }
            });
        }
        Ok(Self { queue })
    }

    /// Has a thread do it; when none is idle, the first that will be.
    pub fn give(&self, work: T) {
        let mut queue = self.queue.lock();
        match queue.idle.pop() {
            Some(seat) => {
                drop(queue);
                seat.give(Order::Do(work));
            }
            None => queue.waiting.push_back(work),
        }
    }
}

impl<T> Drop for Pool<T> {
    fn drop(&mut self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.idle.drain(..).for_each(|seat| seat.give(Order::End));
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

/// What the thread of this seat has to do next; it may have to wait for that.
fn next<T>(queue: &Mutex<Queue<T>>, seat: &Arc<Seat<T>>) -> Order<T> {
    {
        let mut queue = queue.lock();
        if let Some(work) = queue.waiting.pop_front() {
            return Order::Do(work);
        }
        if queue.closed {
            return Order::End;
        }
        queue.idle.push(Arc::clone(seat));
    }
    seat.take()
}

/// Lets this thread wait for its turn when it is woken, as one of many that nobody sits before (`SCHED_BATCH`, sched(7)):
/// otherwise sessions interrupt each other, and clients on this machine, at each command. A policy or a niceness that
/// somebody has chosen for the server stays; where this is forbidden, things are as they were.
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
    use std::thread;

    use super::*;
    use crossbeam_channel::unbounded;

    /// Waits until so many threads of the pool are idle.
    fn settled<T>(pool: &Pool<T>, idle: usize) {
        while pool.queue.lock().idle.len() < idle {
            thread::yield_now();
        }
    }

    #[test]
    fn everything_is_done_also_when_there_is_more_than_there_are_threads() {
        let (sender, done) = unbounded();
        let pool = Pool::start(3, move |number| sender.send(number).unwrap()).unwrap();
        (0..1000).for_each(|number| pool.give(number));
        drop(pool);
        // It ends as all threads do.
        let done: HashSet<i32> = done.iter().collect();
        assert_eq!(done, (0..1000).collect());
    }

    #[test]
    fn the_thread_that_became_idle_last_comes_first() {
        let (sender, ids) = unbounded();
        let pool = Pool::start(3, move |()| sender.send(thread::current().id()).unwrap()).unwrap();
        let done_by: HashSet<_> = (0..10)
            .map(|_| {
                settled(&pool, 3);
                pool.give(());
                ids.recv().unwrap()
            })
            .collect();
        assert_eq!(done_by.len(), 1);
    }

    #[test]
    fn as_many_work_at_once_as_there_are_threads() {
        let (meet, met) = (Arc::new(std::sync::Barrier::new(3)), unbounded());
        let (barrier, sender) = (Arc::clone(&meet), met.0);
        let work = move |()| {
            barrier.wait();
            sender.send(()).unwrap();
        };
        let pool = Pool::start(3, work).unwrap();
        (0..3).for_each(|_| pool.give(()));
        (0..3).for_each(|_| met.1.recv().unwrap());
    }

    #[test]
    fn a_thread_keeps_its_niceness_and_becomes_a_batch_unless_it_is_nice() {
        let (sender, told) = unbounded();
        let tell = move |()| {
            sender.send((getpriority_process(None).unwrap(), thread_schedule_policy().unwrap())).unwrap();
        };
        let pool = Pool::start(1, tell).unwrap();
        pool.give(());
        let before = (getpriority_process(None).unwrap(), thread_schedule_policy().unwrap());
        let expected = match before {
            (0, ThreadSchedulePolicy::Normal(Policy::Other)) => (0, ThreadSchedulePolicy::Normal(Policy::Batch)),
            chosen => chosen,
        };
        assert_eq!(told.recv().unwrap(), expected);
    }
}
