//! The workloads: what a session does after its login, and the clients that run sessions concurrently.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use super::buffers::Buffers;
use super::client::Connection;
use super::exchange::{Listed, listed_octets, retrieve, scan, secure, unique_ids};
use super::failure::{self, Failure};
use super::intake::Intake;
use super::line::Line;
use super::options::{Extent, Plan, Target, Workload};
use super::progress;
use super::reactor::Reactor;
use super::report::Report;
use super::run::Run;
use super::security::Tls;
use super::system;
use super::tally::{Record, Step, Tally};
use super::users::Account;

/// How long a client waits after a failed connect, so that it does not flood a server that is down.
const PAUSE_AFTER_FAILED_CONNECT: Duration = Duration::from_millis(10);

/// Runs the plan's workload against one server. `label` distinguishes the runs of a comparison. If the run was stopped,
/// there is no report, and the error says why.
pub(super) fn run(plan: &Plan, target: &Target, label: &str) -> Result<Report, String> {
    let began = Instant::now();
    let run = Run {
        plan,
        began,
        tally: Mutex::new(Tally::new()),
        received: AtomicU64::new(0),
        target,
        tickets: AtomicU64::new(0),
        released: AtomicBool::new(false),
        given_up: OnceLock::new(),
    };
    let cpu_before = system::cpu_time();
    // Nothing is sent through these channels: a receiver wakes when the last sender is dropped.
    let (arriving, arrived) = bounded(0);
    let (running, finished) = bounded::<()>(0);

    let pss = thread::scope(|scope| {
        for thread in 0..plan.threads {
            let (run, arriving, running) = (&run, arriving.clone(), running.clone());
            scope.spawn(move || {
                if let Err(error) = run.clients(thread, arriving) {
                    run.tally.lock().fail("event loop", || error.to_string());
                }
                drop(running);
            });
        }
        drop((arriving, running));
        if progress::wanted(plan) {
            let run = &run;
            scope.spawn(move || progress::show(run, label, &finished));
        }
        (plan.workload == Workload::Idle).then(|| run.hold(&arrived)).flatten()
    });

    if let Some(reason) = run.given_up.into_inner() {
        return Err(format!("{}: {reason}; the run was stopped", target.address));
    }
    let tally = run.tally.into_inner();
    Ok(Report {
        workload: plan.workload,
        address: target.address.to_string(),
        clients: plan.clients,
        pipeline: plan.pipeline,
        elapsed: tally.ended.map_or(Duration::ZERO, |ended| ended - began),
        cpu: system::cpu_time() - cpu_before,
        pss,
        hashed: plan.hash,
        tally,
    })
}

impl Run<'_> {
    /// Runs the clients of this thread.
    fn clients(&self, thread: usize, arriving: Sender<()>) -> std::io::Result<()> {
        let numbers: Vec<usize> = (thread..self.plan.clients).step_by(self.plan.threads).collect();
        let (buffers, reactor) = (&Buffers::new(), &Reactor::new(numbers.len())?);
        // The closure owns the sender, so that from now on only clients hold it.
        let client = move |(slot, &number)| self.client(number, slot, reactor, buffers, arriving.clone());
        reactor.drive(numbers.iter().enumerate().map(client).map(Client::sessions))
    }

    fn client<'a>(
        &'a self,
        number: usize,
        slot: usize,
        reactor: &'a Reactor,
        buffers: &'a Buffers,
        arriving: Sender<()>,
    ) -> Client<'a> {
        let deadline = match self.plan.extent {
            Extent::For(duration) => Some(self.began + duration + self.plan.timeout),
            Extent::Once | Extent::Count(_) => None,
        };
        let intake = Intake::new(buffers, reactor.readiness(slot), self.plan.timeout, deadline, &self.received);
        let intake = if self.plan.looks_inside() { intake } else { intake.glancing() };
        let tls = self.target.tls.as_ref().map(Tls::of_a_client);
        Client { run: self, reactor, slot, number, intake, tls, record: Record::default(), arriving: Some(arriving) }
    }

    /// Holds the idle sessions for the plan's time, counted from the last login, and measures the server's memory
    /// before they end.
    fn hold(&self, arrived: &Receiver<()>) -> Option<u64> {
        let _ = arrived.recv();
        thread::sleep(self.plan.hold);
        let pss = self.target.pid.map(system::tree_pss);
        self.released.store(true, Ordering::Relaxed);
        pss?.inspect_err(|error| self.tally.lock().fail("memory unknown", || error.to_string())).ok()
    }
}

/// One of the run's clients.
struct Client<'a> {
    run: &'a Run<'a>,
    reactor: &'a Reactor,
    slot: usize,
    number: usize,
    intake: Intake<'a>,
    tls: Option<Tls>,
    record: Record,
    /// Dropped when this client has logged in or has failed to.
    arriving: Option<Sender<()>>,
}

impl<'a> Client<'a> {
    /// Runs one session after the other until the plan's extent is reached.
    async fn sessions(mut self) {
        let plan = self.run.plan;
        for turn in 0.. {
            let another = match plan.extent {
                Extent::Once => turn == 0,
                Extent::Count(count) => self.run.tickets.fetch_add(1, Ordering::Relaxed) < count,
                Extent::For(duration) => self.run.began.elapsed() < duration,
            };
            if !another || self.run.given_up.get().is_some() {
                return;
            }
            let (index, account) = plan.users.deal(self.number, plan.clients, turn);
            self.record.clear();
            let result = self.session(index, account).await;
            self.arriving = None;
            self.intake.clear();

            if let Err(Failure::NothingToRetrieve(why)) = &result {
                self.run.give_up(format!("nothing can be retrieved from the maildrop of {:?}: {why}", account.name));
            }
            if !self.run.add(&self.record, result) {
                return;
            }
            if !self.record.connected {
                self.pause().await;
            }
        }
    }

    async fn pause(&self) {
        let no_socket = self.reactor.readiness(self.slot);
        no_socket.set(false);
        no_socket.within(PAUSE_AFTER_FAILED_CONNECT).await;
    }

    async fn session(&mut self, account_index: usize, account: &Account) -> Result<(), Failure> {
        let plan = self.run.plan;
        let record = &mut self.record;
        let began = Instant::now();
        let mut line = Line::connect(self.run.target.address)?;
        self.reactor.watch(line.socket(), self.slot)?;
        let at_once = self.tls.as_ref().filter(|tls| !tls.by_stls);
        let header = self.run.target.header.as_slice();
        let is_first = at_once.is_some() || !header.is_empty();
        if is_first && !self.reactor.connected(line.socket(), self.slot, plan.timeout).await? {
            return Err(failure::no_answer());
        }
        line.write_all(header)?; // it fits into an empty buffer
        let mut pop = Connection::new(line, &mut self.intake);
        if let Some(tls) = at_once {
            secure(&mut pop, tls, record).await?;
        }
        pop.opened().await?;
        record.connected = true;
        pop.status("connect").await?;
        if let Some(tls) = self.tls.as_ref().filter(|tls| tls.by_stls) {
            pop.command("STLS").await?;
            secure(&mut pop, tls, record).await?;
        }
        pop.command_with("USER", &account.name).await?;
        pop.command_with("PASS", &account.password).await?;
        record.lap(Step::Login, began);

        match plan.workload {
            Workload::Retr | Workload::Storm => {
                let mut message = Listed { number: plan.message, octets: None };
                // LIST costs little compared with the large messages of retr, but much in a storm.
                if plan.verify || plan.workload == Workload::Retr {
                    message.octets = Some(listed_octets(&mut pop, plan.message).await?);
                }
                retrieve(&mut pop, plan, account_index, &[message], record).await?;
            }
            Workload::Sessions => {
                let maildrop = scan(&mut pop, plan.verify, plan.retr, record).await?;
                if maildrop.messages == 0 {
                    return Err(Failure::NothingToRetrieve("it has no messages".to_owned()));
                }
                let wanted: Vec<Listed> = maildrop.first.iter().copied().cycle().take(plan.retr).collect();
                retrieve(&mut pop, plan, account_index, &wanted, record).await?;
            }
            Workload::Logins => {}
            Workload::Maildrop => {
                let messages = scan(&mut pop, plan.verify, 0, record).await?.messages;
                unique_ids(&mut pop, messages, record).await?;
                record.messages = messages;
            }
            Workload::Delete => {
                for number in 1..=plan.delete {
                    pop.command_with("DELE", number).await?;
                    record.messages += 1;
                }
            }
            Workload::Idle => {
                self.arriving = None;
                let readiness = self.reactor.readiness(self.slot);
                while !self.run.released() {
                    // If the server has sent something unasked or hung up, the NOOP fails.
                    readiness.before(Instant::now() + plan.interval, || self.run.released()).await;
                    pop.command("NOOP").await?;
                }
            }
        }
        pop.quit().await?;
        record.lap(Step::Session, began);
        Ok(())
    }
}
