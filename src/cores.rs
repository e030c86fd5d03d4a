//! Chooses the core on which a session begins.
//!
//! Each command wakes the session's thread, from the core that received the packet. Waking a thread on another core
//! costs several times as much as on the same core, even more on a virtual machine. A session therefore begins on the
//! core where its client's packets arrive; for a client on this machine that is the client's own core. The scheduler
//! may move the thread later like any other.

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use socket2::Socket;

/// How many sessions one core may have beyond the least loaded core. Without this limit the other cores would have no
/// work where all packets arrive on the same core.
const SLACK: usize = 4;

/// A core, by the kernel's number.
pub type Core = usize;

/// The cores, each with the number of open sessions that began there.
#[derive(Debug)]
pub struct Cores(Vec<(Core, usize)>);

impl Cores {
    /// The cores in this thread's affinity mask; empty if the mask cannot be read, and then the scheduler alone
    /// decides.
    #[must_use]
    pub fn allowed() -> Self {
        let allowed = sched_getaffinity(None).unwrap_or_default();
        Self((0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).map(|core| (core, 0)).collect())
    }

    /// Counts a session whose client's packets arrive on `near`, and returns the core where it is to begin.
    /// [`Cores::leave`] has to be called when it ends.
    pub fn enter(&mut self, near: Core) -> Option<Core> {
        let least = self.0.iter().map(|&(_, sessions)| sessions).min()?;
        let at_client = self.0.iter().position(|&(core, sessions)| core == near && sessions <= least + SLACK);
        let at = at_client.or_else(|| self.0.iter().position(|&(_, sessions)| sessions == least))?;
        let (core, sessions) = &mut self.0[at];
        *sessions += 1;
        Some(*core)
    }

    #[cfg(test)]
    pub(crate) fn are_free(&self) -> bool {
        self.0.iter().all(|&(_, sessions)| sessions == 0)
    }

    /// Counts the end of a session that began on `core`.
    pub fn leave(&mut self, core: Core) {
        if let Some((_, sessions)) = self.0.iter_mut().find(|(other, _)| *other == core) {
            *sessions -= 1;
        }
    }
}

/// The core that a connection's packets arrive on (socket(7), `SO_INCOMING_CPU`), if the kernel knows it.
#[must_use]
pub fn of_packets(stream: &Socket) -> Option<Core> {
    stream.cpu_affinity().ok()
}

/// The core that this thread runs on.
#[must_use]
pub fn current() -> Core {
    sched_getcpu()
}

/// Moves this thread to a core of its affinity mask. The scheduler may move it away again.
pub fn go_to(core: Core) {
    if current() == core {
        return;
    }
    // Read each time, because the operator may have changed it (taskset(1)).
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let mut only = CpuSet::new();
    only.set(core);
    if allowed.is_set(core) && sched_setaffinity(None, &only).is_ok() {
        // Restoring the mask that was in force cannot fail.
        let _ = sched_setaffinity(None, &allowed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    fn allowed() -> Vec<Core> {
        Cores::allowed().0.into_iter().map(|(core, _)| core).collect()
    }

    /// Pins this thread to one core.
    fn stay_on(core: Core) -> CpuSet {
        let mut only = CpuSet::new();
        only.set(core);
        sched_setaffinity(None, &only).unwrap();
        only
    }

    #[test]
    fn a_session_begins_on_its_clients_core_unless_that_is_overloaded() {
        let mut cores = Cores(vec![(0, 0), (1, 0), (5, 0)]);
        let begun: Vec<_> = (0..9).map(|_| cores.enter(1).unwrap()).collect();
        assert_eq!(begun, [1, 1, 1, 1, 1, 0, 5, 1, 0]);
        cores.leave(1);
        assert_eq!(cores.enter(1), Some(1));
        assert_eq!(cores.0, [(0, 2), (1, 6), (5, 1)]);
    }

    #[test]
    fn packets_on_a_core_outside_the_mask_are_ignored() {
        let mut cores = Cores(vec![(2, 0), (3, 0)]);
        assert_eq!([cores.enter(0), cores.enter(0), cores.enter(7)], [Some(2), Some(3), Some(2)]);
        assert_eq!(Cores(Vec::new()).enter(0), None);
    }

    #[test]
    fn packets_of_this_machine_arrive_on_the_clients_core() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        for core in allowed() {
            let client = thread::spawn(move || {
                stay_on(core);
                std::net::TcpStream::connect(address).unwrap()
            });
            let (accepted, _) = listener.accept().unwrap();
            let _open = client.join().unwrap();
            assert_eq!(of_packets(&accepted.into()), Some(core));
        }
    }

    #[test]
    fn a_thread_goes_to_a_core_and_may_leave_it() {
        let before = sched_getaffinity(None).unwrap();
        for core in allowed() {
            // The scheduler may move the thread away at once, so several attempts are made.
            assert!((0..1000).any(|_| {
                go_to(core);
                current() == core
            }));
            assert_eq!(sched_getaffinity(None).unwrap(), before);
        }
    }

    #[test]
    fn a_thread_stays_within_its_affinity_mask() {
        let cores = allowed();
        let only = stay_on(cores[0]);
        for core in cores.into_iter().chain([CpuSet::MAX_CPU - 1]) {
            go_to(core);
            assert_eq!(sched_getaffinity(None).unwrap(), only);
        }
    }
}
