//! The workloads: what a session does after its login, and the clients that run sessions side by side.

use std::hash::Hasher;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use siphasher::sip::SipHasher13;

use super::client::{self, Buffers, Connection, Failure, Intake};
use super::line::Line;
use super::options::{Extent, Plan, Target, Workload};
use super::progress;
use super::reactor::Reactor;
use super::report::Report;
use super::security::Tls;
use super::system;
use super::tally::{Record, Step, Tally};
use super::users::Account;

/// A client whose connect failed waits this long, so as not to hammer a server that is down.
const PAUSE_AFTER_FAILED_CONNECT: Duration = Duration::from_millis(10);

/// What is looked at of each message: a server that lists a few octets more than it sends is borne unless verified.
const TAIL_OCTETS: u64 = 1024;

/// So many octets more than twice as many as were listed are no mistake in counting them: the message has no end.
const ENDLESS: u64 = 64 * 1024;

/// A run in progress, shared by its threads.
pub(super) struct Run<'a> {
    pub(super) plan: &'a Plan,
    pub(super) began: Instant,
    pub(super) tally: Mutex<Tally>,
    /// Octets off the wire, counted as they come.
    pub(super) received: AtomicU64,
    target: &'a Target,
    tickets: AtomicU64,
    /// Tells idle sessions that they may leave.
    released: AtomicBool,
}

/// Runs the plan's workload against one server; `label` tells the runs of a comparison apart.
pub(super) fn run(plan: &Plan, target: &Target, label: &str) -> Report {
    let began = Instant::now();
    let run = Run {
        plan,
        began,
        tally: Mutex::new(Tally::new()),
        received: AtomicU64::new(0),
        target,
        tickets: AtomicU64::new(0),
        released: AtomicBool::new(false),
    };
    let cpu_before = system::cpu_time();
    // Nothing is ever sent here: the receivers learn that the last sender is gone.
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

    let tally = run.tally.into_inner();
    Report {
        workload: plan.workload,
        address: target.address.to_string(),
        clients: plan.clients,
        pipeline: plan.pipeline,
        elapsed: tally.ended.map_or(Duration::ZERO, |ended| ended - began),
        cpu: system::cpu_time() - cpu_before,
        pss,
        hashed: plan.hash,
        tally,
    }
}

impl Run<'_> {
    /// Runs every client that falls to this thread.
    fn clients(&self, thread: usize, arriving: Sender<()>) -> std::io::Result<()> {
        let numbers: Vec<usize> = (thread..self.plan.clients).step_by(self.plan.threads).collect();
        let (buffers, reactor) = (&Buffers::new(), &Reactor::new(numbers.len())?);
        // The closure takes the sender along, so that only clients hold it from here on.
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

    /// Holds the idle sessions for the plan's time, counted from when the last has arrived, and takes the
    /// server's memory before they leave.
    fn hold(&self, arrived: &Receiver<()>) -> Option<u64> {
        let _ = arrived.recv();
        thread::sleep(self.plan.hold);
        let pss = self.target.pid.map(system::tree_pss);
        self.released.store(true, Ordering::Relaxed);
        pss?.inspect_err(|error| self.tally.lock().fail("memory unknown", || error.to_string())).ok()
    }

    /// Adds a session to the tally; false as long as nobody has ever connected.
    fn add(&self, record: &Record, result: Result<(), Failure>) -> bool {
        let mut tally = self.tally.lock();
        tally.add(record, result);
        tally.connections > 0
    }

    fn released(&self) -> bool {
        self.released.load(Ordering::Relaxed)
    }
}

/// A message as the scan listing tells it; without `octets` nobody asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listed {
    number: u32,
    octets: Option<u64>,
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
    /// Dropped when this client is logged in, or never will be.
    arriving: Option<Sender<()>>,
}

impl<'a> Client<'a> {
    /// Runs session after session until the plan's extent is used up.
    async fn sessions(mut self) {
        let plan = self.run.plan;
        for turn in 0.. {
            let another = match plan.extent {
                Extent::Once => turn == 0,
                Extent::Count(count) => self.run.tickets.fetch_add(1, Ordering::Relaxed) < count,
                Extent::For(duration) => self.run.began.elapsed() < duration,
            };
            if !another {
                return;
            }
            let (index, account) = plan.users.deal(self.number, plan.clients, turn);
            self.record.clear();
            let result = self.session(index, account).await;
            self.arriving = None;

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
        let line = Line::connect(self.run.target.address)?;
        self.reactor.watch(line.socket(), self.slot)?;
        let at_once = self.tls.as_ref().filter(|tls| !tls.by_stls);
        if at_once.is_some() && !self.reactor.connected(line.socket(), self.slot, plan.timeout).await? {
            return Err(client::no_answer());
        }
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
                // One more reply is nothing to the large messages retr is for, but much to a storm.
                if plan.verify || plan.workload == Workload::Retr {
                    message.octets = Some(listed_octets(&mut pop, plan.message).await?);
                }
                retrieve(&mut pop, plan, account_index, &[message], record).await?;
            }
            Workload::Sessions => {
                let messages = scan(&mut pop, plan.verify, record).await?;
                if messages.is_empty() {
                    return Err(Failure::EmptyMaildrop);
                }
                let wanted: Vec<Listed> = messages.iter().copied().cycle().take(plan.retr).collect();
                retrieve(&mut pop, plan, account_index, &wanted, record).await?;
            }
            Workload::Logins => {}
            Workload::Maildrop => {
                let messages = scan(&mut pop, plan.verify, record).await?.len();
                unique_ids(&mut pop, messages, record).await?;
                record.messages = messages as u64;
            }
            Workload::Idle => {
                self.arriving = None;
                let readiness = self.reactor.readiness(self.slot);
                while !self.run.released() {
                    // What a server says here unasked, or its hang-up, is then taken for the answer to NOOP.
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

type Pop<'a, 'i> = Connection<'a, 'i, Line<'i>>;

/// The TLS handshake.
async fn secure(pop: &mut Pop<'_, '_>, tls: &Tls, record: &mut Record) -> Result<(), Failure> {
    let began = Instant::now();
    record.agreed = pop.start_tls(tls).await?;
    record.lap(Step::Tls, began);
    Ok(())
}

/// The octets of one message: `LIST n`.
async fn listed_octets(pop: &mut Pop<'_, '_>, number: u32) -> Result<u64, Failure> {
    match two_numbers(pop.command_with("LIST", number).await?)? {
        (listed, octets) if listed == u64::from(number) => Ok(octets),
        (listed, _) => Err(Failure::Violation(format!("LIST {number} told of message {listed}"))),
    }
}

/// STAT and LIST of the whole maildrop, which must agree when `verify` asks for it.
async fn scan(pop: &mut Pop<'_, '_>, verify: bool, record: &mut Record) -> Result<Vec<Listed>, Failure> {
    let sent = Instant::now();
    let drop_listing = two_numbers(pop.command("STAT").await?)?;
    record.lap(Step::Stat, sent);

    let sent = Instant::now();
    pop.command("LIST").await?;
    let (mut messages, mut total) = (Vec::new(), 0u64);
    pop.listing(|line| {
        let (number, octets) = two_numbers(line)?;
        let number = u32::try_from(number).map_err(|_| Failure::Violation(format!("LIST: '{line}'")))?;
        if messages.len() as u64 == drop_listing.0 {
            return Err(Failure::Violation(format!("STAT told of {} messages, LIST of more", drop_listing.0)));
        }
        total = total.saturating_add(octets);
        messages.push(Listed { number, octets: Some(octets) });
        Ok(())
    })
    .await?;
    record.lap(Step::List, sent);

    let listed = (messages.len() as u64, total);
    if verify && drop_listing != listed {
        return Err(Failure::Violation(format!("STAT told {drop_listing:?} (messages, octets), LIST {listed:?}")));
    }
    Ok(messages)
}

/// UIDL of the whole maildrop, which must have as many lines as LIST had.
async fn unique_ids(pop: &mut Pop<'_, '_>, messages: usize, record: &mut Record) -> Result<(), Failure> {
    let sent = Instant::now();
    pop.command("UIDL").await?;
    let mut count = 0;
    pop.listing(|line| match line.split_once(' ') {
        _ if count == messages => Err(Failure::Violation(format!("LIST told of {messages} messages, UIDL of more"))),
        Some((_, id)) if !id.is_empty() => {
            count += 1;
            Ok(())
        }
        _ => Err(Failure::Violation(format!("UIDL: '{}'", line.escape_debug()))),
    })
    .await?;
    record.lap(Step::Uidl, sent);
    if count == messages {
        Ok(())
    } else {
        Err(Failure::Violation(format!("LIST told of {messages} messages, UIDL of {count}")))
    }
}

/// RETR of these messages, as many at a time as the plan says.
async fn retrieve(
    pop: &mut Pop<'_, '_>,
    plan: &Plan,
    account_index: usize,
    messages: &[Listed],
    record: &mut Record,
) -> Result<(), Failure> {
    for batch in messages.chunks(plan.pipeline) {
        let sent = Instant::now();
        for message in batch {
            pop.queue("RETR", message.number);
        }
        pop.send()?;
        for &Listed { number, octets: listed } in batch {
            pop.status("RETR").await?;
            let unseen = if plan.looks_inside() { 0 } else { listed.unwrap_or(0).saturating_sub(TAIL_OCTETS) };
            let mut received = unseen;
            let mut hasher = SipHasher13::new();
            pop.body(unseen, |piece| {
                received += piece.len() as u64;
                if plan.hash {
                    hasher.write(piece);
                }
                match listed {
                    Some(listed) if received > listed.saturating_mul(2).saturating_add(ENDLESS) => {
                        Err(Failure::Octets { message: number, listed, received })
                    }
                    _ => Ok(()),
                }
            })
            .await?;
            if plan.hash {
                record.hashes.push(((account_index, number), hasher.finish()));
            }
            record.lap(Step::Retr, sent);
            record.messages += 1;
            record.octets += received;
            if let Some(listed) = listed.filter(|&listed| plan.verify && listed != received) {
                return Err(Failure::Octets { message: number, listed, received });
            }
        }
    }
    Ok(())
}

/// `n octets`, as in a drop listing or a line of a scan listing; RFC 1939 allows more behind it.
fn two_numbers(text: &str) -> Result<(u64, u64), Failure> {
    let mut words = text.split_ascii_whitespace().map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(first)), Some(Ok(second))) => Ok((first, second)),
        _ => Err(Failure::Violation(format!("two numbers were expected in '{}'", text.escape_debug()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_may_say_more_than_two_numbers() {
        assert_eq!(two_numbers(" 2 320").unwrap(), (2, 320));
        assert_eq!(two_numbers("2 320 octets").unwrap(), (2, 320));
        for bad in ["", "2", "two 320", "2 -1", "2 99999999999999999999"] {
            assert_eq!(two_numbers(bad).unwrap_err().kind(), "protocol violation", "{bad}");
        }
    }

    #[test]
    fn a_hash_does_not_depend_on_how_the_pieces_fall() {
        let octets = b"a message that arrives in two pieces, cut anywhere";
        let hash = |pieces: &[&[u8]]| {
            let mut hasher = SipHasher13::new();
            pieces.iter().for_each(|piece| hasher.write(piece));
            hasher.finish()
        };
        for cut in 0..=octets.len() {
            assert_eq!(hash(&[&octets[..cut], &octets[cut..]]), hash(&[octets]));
        }
    }
}
