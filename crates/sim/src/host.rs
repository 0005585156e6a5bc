//! The surroundings of one replica as a model: what arrives for it, the kernel's writer,
//! and a dump under way. The simulator and the scenario tests drive replicas through it.
//!
//! A turn leaves a record of everything that crossed the border, in the order in which
//! it happened. Whoever drives the turn looks at the record; the host itself judges
//! nothing.

use std::collections::VecDeque;
use std::time::Duration;

use flow::{ExpectKey, Expectation, Flow};
use replica::driver::{self, Part, Report};
use replica::{
    DumpEnd, DumpScope, Event, ExpectationEvent, Instant, KernelEvent, KernelRequest, KernelResult,
    LinkId, Outcome, PeerId, Progress, Replica,
};

use crate::check::{Check, check_bound};
use crate::kernel::{Kernel, Place, Reported};
use crate::network::Datagram;
use crate::random::Random;

/// Requests that the writer holds at once, unanswered ones included.
const WRITER_MAX: usize = 256;
/// Most requests that are executed at once.
const FEW: usize = 16;
/// Parts of a dump that the kernel fills before the first of them is read.
const FILLED_MAX: usize = 3;
/// How often a turn leaves reports of the kernel in the socket.
const PARTLY: f64 = 0.2;
/// Datagrams that are sent in one turn.
const SENDS_MAX: usize = 64;

/// How fast the surroundings are.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Entries of a dump that one turn reads.
    pub dump_part: usize,
    /// A part of a dump is read up to this time after the kernel has filled it: what it shows
    /// may have ended meanwhile.
    pub part_lateness: Duration,
    /// Requests are executed now at once, now before, now after the events of the turn are read,
    /// of which now all, now a part is read.
    pub varies: bool,
    /// Results come up to this time late.
    pub lateness: Duration,
    /// The links take nothing.
    pub is_blocked: bool,
}

impl Pace {
    /// Surroundings that keep nobody waiting.
    pub const PROMPT: Pace = Pace {
        dump_part: 1000,
        part_lateness: Duration::ZERO,
        varies: false,
        lateness: Duration::ZERO,
        is_blocked: false,
    };
}

/// Who has sent a datagram, as its receiver counts the others; a forger passes for the first.
fn peer_of(datagram: &Datagram) -> PeerId {
    let node = datagram.sender.map_or(0, |sender| sender.node);
    let before = usize::from(node > datagram.to);
    PeerId(u8::try_from(node - before).unwrap_or(u8::MAX))
}

/// Something that crossed the border of a replica in a turn.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are about flows, and they live for a moment"
)]
pub enum Happened {
    /// The replica read a report of its kernel.
    Reported(Reported),
    /// It read a datagram.
    Received(Datagram),
    /// Its kernel has executed a request.
    Executed(KernelRequest, Outcome),
    /// It sent a datagram.
    Sent(LinkId, Vec<u8>),
    /// It reported something to the operator.
    Announced(Event),
}

#[derive(Debug)]
struct Dump {
    scope: DumpScope,
    flow: Option<Place>,
    expectation: Option<ExpectKey>,
    /// Parts that the kernel has filled, and when the replica can read each.
    filled: VecDeque<(Instant, Dumped)>,
    /// The kernel has shown all.
    is_over: bool,
}

impl Dump {
    fn is_ready(&self, now: Instant) -> bool {
        self.filled.front().is_none_or(|(at, _)| *at <= now)
    }
}

/// What a part of a dump shows.
#[derive(Debug, Default)]
struct Dumped {
    flows: Vec<Flow>,
    expectations: Vec<Expectation>,
}

/// What waits for a replica between its turns.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Datagrams that have arrived.
    pub inbox: VecDeque<Datagram>,
    handed_over: VecDeque<KernelRequest>,
    results: VecDeque<(Instant, KernelResult)>,
    dump: Option<Dump>,
}

impl Sockets {
    fn unanswered(&self) -> usize {
        self.handed_over.len() + self.results.len()
    }

    /// True if neither the writer nor a dump owes the replica anything.
    pub fn is_quiet(&self) -> bool {
        self.unanswered() == 0 && self.dump.is_none()
    }

    /// True if a daemon would wake up for what waits.
    fn is_ready(&self, now: Instant) -> bool {
        let is_due = self.results.front().is_some_and(|(at, _)| *at <= now);
        let has_part = self.dump.as_ref().is_some_and(|d| d.is_ready(now));
        is_due || has_part || !self.handed_over.is_empty()
    }
}

/// The surroundings during one turn.
#[derive(Debug)]
pub struct Host<'a> {
    /// The time of the turn.
    pub now: Instant,
    /// The kernel of the replica's machine.
    pub kernel: &'a mut Kernel,
    /// What waits for it.
    pub sockets: &'a mut Sockets,
    /// How fast they are.
    pub pace: Pace,
    /// Decides what the pace leaves open.
    pub random: &'a mut Random,
    /// What has happened so far.
    pub record: &'a mut Vec<Happened>,
    /// What the present turn has read.
    pub turn: Turn,
}

/// What one turn has read so far.
#[derive(Debug, Default)]
pub struct Turn {
    has_read_kernel: bool,
    reports: VecDeque<Reported>,
    overrun: bool,
    flows: Vec<KernelEvent>,
    expectation: Option<ExpectationEvent>,
    dumped: Dumped,
    sends: usize,
}

impl Host<'_> {
    /// Drives a replica as long as a daemon would not sleep, for at most `most` turns.
    ///
    /// # Errors
    /// If the replica wants to be woken at a time that has passed, after two turns in a row: a
    /// daemon would spin. What is executed at once may make something due in the same turn.
    pub fn wake(mut self, replica: &mut Replica, most: usize) -> Check {
        let mut was_past = false;
        for _ in 0..most {
            self.turn = Turn::default();
            let now = self.now;
            let progress = driver::turn(replica, &mut self, now);
            let has_sent_all = !self.pace.is_blocked && self.turn.sends < SENDS_MAX;
            let is_due = |at| at <= self.now;
            let is_past = has_sent_all && replica.poll_timeout().is_some_and(is_due);
            let times = usize::from(is_past && was_past);
            check_bound("timers that are due after two turns", times, 0)?;
            was_past = is_past;
            let is_ready = is_past || self.kernel.has_reports() || self.sockets.is_ready(self.now);
            let sends_more = self.turn.sends == SENDS_MAX;
            if progress == Progress::Idle && !is_ready && !sends_more {
                break;
            }
        }
        Ok(())
    }

    /// The replica's own thread executes a few requests itself: their results come before
    /// whatever its kernel has reported meanwhile and before.
    fn execute_at_once(&mut self) -> Vec<KernelResult> {
        let requests = std::mem::take(&mut self.sockets.handed_over);
        let execute = |request: KernelRequest| {
            let outcome = self.kernel.execute(self.now, request);
            self.record
                .push(Happened::Executed(request, outcome.clone()));
            KernelResult { request, outcome }
        };
        requests.into_iter().map(execute).collect()
    }

    fn execute_all(&mut self) {
        while let Some(request) = self.sockets.handed_over.pop_front() {
            let outcome = self.kernel.execute(self.now, request);
            let late = match self.pace.lateness {
                Duration::ZERO => Duration::ZERO,
                most => self.random.within(most),
            };
            self.record
                .push(Happened::Executed(request, outcome.clone()));
            // The writer answers in order.
            let results = &mut self.sockets.results;
            let last = results.back().map_or(self.now, |(at, _)| *at);
            let result = KernelResult { request, outcome };
            results.push_back(((self.now + late).max(last), result));
        }
    }
}

impl driver::Host for Host<'_> {
    const ITEMS: usize = 100;
    const BATCH: usize = 64;
    const BATCHES: usize = 4;

    fn report(&mut self) -> Option<Report<'_>> {
        let turn = &mut self.turn;
        if !std::mem::replace(&mut turn.has_read_kernel, true) {
            // A daemon reads a bounded number in a turn: the others are read after the
            // results of what it asks meanwhile, which are newer.
            let waiting = self.kernel.reports() as u64;
            if self.pace.varies && waiting > 0 && self.random.chance(PARTLY) {
                let most = self.random.below(waiting) as usize;
                turn.reports = self.kernel.take_first_reports(most);
            } else {
                (turn.reports, turn.overrun) = self.kernel.take_reports();
            }
        }
        turn.flows.clear();
        while let Some(Reported::Flow(event)) = turn.reports.front() {
            turn.flows.push(*event);
            let reported = turn.reports.pop_front().map(Happened::Reported);
            self.record.extend(reported);
        }
        if !turn.flows.is_empty() {
            return Some(Report::Flows(&turn.flows));
        }
        if let Some(reported) = turn.reports.pop_front() {
            self.record.push(Happened::Reported(reported));
            if let Reported::Expectation(event) = reported {
                let event = turn.expectation.insert(event);
                return Some(Report::Expectation(event));
            }
        }
        std::mem::take(&mut turn.overrun).then_some(Report::Overrun)
    }

    fn datagram(&mut self) -> Option<(PeerId, LinkId, &[u8])> {
        let datagram = self.sockets.inbox.pop_front()?;
        self.record.push(Happened::Received(datagram));
        match self.record.last() {
            Some(Happened::Received(d)) => Some((peer_of(d), LinkId(d.link), &d.bytes)),
            _ => None,
        }
    }

    fn results(&mut self) -> Option<Vec<KernelResult>> {
        self.execute_all();
        let results = &mut self.sockets.results;
        let due = results.iter().take_while(|(at, _)| *at <= self.now).count();
        let due: Vec<_> = results.drain(..due).map(|(_, result)| result).collect();
        (!due.is_empty()).then_some(due)
    }

    fn is_dumping(&self) -> bool {
        self.sockets.dump.is_some()
    }

    fn start_dump(&mut self, scope: DumpScope) -> bool {
        self.sockets.dump = Some(Dump {
            scope,
            flow: None,
            expectation: None,
            filled: VecDeque::new(),
            is_over: false,
        });
        true
    }

    fn dumped(&mut self) -> Option<Part<'_>> {
        let dump = self.sockets.dump.as_mut()?;
        let most = self.pace.dump_part;
        if !dump.is_over && dump.filled.len() < FILLED_MAX {
            let mut part = Dumped::default();
            if dump.scope == DumpScope::Expectations {
                part.expectations =
                    (self.kernel).dump_expectations(self.now, dump.expectation, most);
                dump.expectation = part.expectations.last().map(Expectation::key);
            } else {
                part.flows = self.kernel.dump(self.now, dump.scope, dump.flow, most);
                dump.flow = part.flows.last().map(|flow| self.kernel.behind(flow));
            }
            dump.is_over = part.flows.len() + part.expectations.len() < most;
            let late = match self.pace.part_lateness {
                Duration::ZERO => Duration::ZERO,
                most => self.random.within(most),
            };
            dump.filled.push_back((self.now + late, part));
        }
        let is_due = dump.filled.front().is_some_and(|(at, _)| *at <= self.now);
        let part = is_due.then(|| dump.filled.pop_front()).flatten();
        self.turn.dumped = part.map(|(_, part)| part).unwrap_or_default();
        let has_ended = dump.is_over && dump.filled.is_empty();
        if has_ended {
            self.sockets.dump = None;
        }
        Some(Part {
            flows: &self.turn.dumped.flows,
            expectations: &self.turn.dumped.expectations,
            end: has_ended.then_some(DumpEnd::Complete),
        })
    }

    fn may_send(&mut self, _link: LinkId) -> bool {
        !self.pace.is_blocked && self.turn.sends < SENDS_MAX
    }

    fn send(&mut self, link: LinkId, bytes: &[u8]) {
        self.turn.sends += 1;
        self.record.push(Happened::Sent(link, bytes.to_vec()));
    }

    fn listen_to_new(&mut self, joins: bool) {
        self.kernel.deaf_to_new = !joins;
    }

    fn may_write(&self) -> bool {
        self.sockets.unanswered() < WRITER_MAX
    }

    fn write(&mut self, batch: &mut Vec<KernelRequest>) -> Option<Vec<KernelResult>> {
        let may_do_itself = self.sockets.unanswered() == 0 && batch.len() <= FEW;
        self.sockets.handed_over.extend(batch.drain(..));
        if may_do_itself && self.pace.varies && self.random.chance(0.5) {
            return Some(self.execute_at_once());
        }
        // The events of what is executed now are read before the results, those of what
        // is executed when results are read, after them.
        if !self.pace.varies || self.random.chance(0.5) {
            self.execute_all();
        }
        None
    }

    fn on_event(&mut self, event: Event) {
        self.record.push(Happened::Announced(event));
    }
}
