//! The replica: which object takes which input, and which output comes from where.
//!
//! The objects below it know nothing of each other but what they are given; the files in this
//! folder take them by the hand, one for each way that something goes.

mod acknowledge;
mod bulk;
mod commit;
mod deliver;
mod expect;
mod flush;
mod holdings;
mod ingest;
mod inject;
mod peers;
mod refresh;
mod repair;
mod send;
mod sweep;

use std::collections::VecDeque;

use cache::{Cache, List, Note, Position, Slot};
use counters::Counters;
use flow::Flow;
use wire::v1::{Control, messages};
use wire::{Role, StateKind};

use crate::bulk::BulkUpdate;
use crate::command::{Age, Command, CommandId, Objects, Progress, Which};
use crate::commit::{Commit, Late};
use crate::entry::{External, Internal};
use crate::event::{Answer, Caches, Event};
use crate::expectations::Expectations;
use crate::flush::KernelFlush;
use crate::kernel::{
    DumpEnd, DumpScope, KernelEvent, KernelRequest, KernelResult, Op, Outcome, Purpose, Subject,
};
use crate::ledger::Ledger;
use crate::link::{LinkId, Links};
use crate::peer::Peer;
use crate::protocol::Protocol;
use crate::receive::{Accepted as A, PeerId};
use crate::repairs::{Repairs, Wish};
use crate::settings::Settings;
use crate::stats::Stats;
use crate::stream::Stream;
use crate::sweep::{Heard, Sweeps};
use crate::time::Instant;

/// Kernel requests kept ready for the driver; no cursor runs on above this.
const REQUESTS_MAX: usize = 4096;

/// One replica.
///
/// Invariant: with injection, an entry of the external cache stands in the list
/// `Unwritten` exactly while the kernel must be given it and no request about it is under
/// way; but what stands in `Lacking` waits there for its next try.
#[derive(Debug)]
pub struct Replica {
    settings: Settings,
    now: Instant,
    ledger: Ledger,
    external: Cache<External>,
    stream: Stream,
    links: Links,
    sweeps: Sweeps,
    protocol: Protocol,
    expectations: Expectations,
    commit: Option<Commit>,
    /// A command that waits for the commit of what was late.
    commit_next: Option<(CommandId, Objects)>,
    /// Where what the last commit has not seen is to be looked for.
    late: Late,
    /// While what our kernel lacks is tried once more: how many may be tried now.
    retries: Option<usize>,
    /// When the HA manager last made us primary.
    took_over_at: Option<Instant>,
    /// Since when the operator of a primary claims all that is in its kernel: when a resync was
    /// last asked for, or has ended, or the bulk update behind it was asked for.
    claimed_at: Option<Instant>,
    /// When the last commit began, if the external cache has not been emptied since.
    commit_opened_at: Option<Instant>,
    bulk: BulkUpdate,
    /// One for each sender; never empty.
    peers: Vec<Peer>,
    /// The one that the trailer of our next ALIVE answers.
    answers: PeerId,
    repairs: Repairs,
    /// What the HA manager's commands make us.
    role: Role,
    /// Requests ready to be polled.
    requests: VecDeque<KernelRequest>,
    /// Flushes of the kernel table, scheduled and under way.
    flush: KernelFlush,
    events: VecDeque<Event>,
    stats: Stats,
}

impl Replica {
    /// A replica that knows nothing yet: a first dump is owed at once.
    pub fn new(settings: Settings) -> Replica {
        let mut replica = Replica {
            now: Instant::START,
            ledger: Ledger::new(settings.limit),
            external: Cache::new(settings.limit),
            stream: Stream::new(&settings),
            links: Links::new(&settings),
            sweeps: Sweeps::new(&settings),
            protocol: Protocol::new(&settings),
            expectations: Expectations::new(&settings),
            commit: None,
            commit_next: None,
            late: Late::default(),
            retries: None,
            took_over_at: None,
            claimed_at: None,
            commit_opened_at: None,
            bulk: BulkUpdate::default(),
            peers: vec![Peer::new(&settings)],
            answers: PeerId::FIRST,
            repairs: Repairs::default(),
            role: Role::Unknown,
            requests: VecDeque::new(),
            flush: KernelFlush::default(),
            events: VecDeque::new(),
            stats: Stats::default(),
            settings,
        };
        if replica.trailer(false).is_some() {
            // The first datagram carries our epoch.
            replica.owe_alive();
        }
        if replica.settings.startup_resync {
            replica.request_resync();
        }
        replica
    }

    /// The same, for a driver that never hands events over: sweeps then tell of all flows.
    pub fn without_events(mut self) -> Replica {
        self.sweeps.expect_no_events();
        self
    }

    // ---- what the driver asks ----

    /// Counters.
    pub fn stats(&self) -> Stats {
        let mut stats = self.stats;
        for peer in &self.peers {
            stats.receive.add(&peer.receiver.stats);
        }
        stats
    }

    /// Settings that it was given.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What the HA manager's commands make of this replica.
    pub fn role(&self) -> Role {
        self.role
    }

    /// True while a commit is under way.
    pub fn is_committing(&self) -> bool {
        self.commit.is_some()
    }

    /// Number of flows in a cache that have not ended.
    pub fn len(&self, which: Which) -> usize {
        match which {
            Which::Internal => self.ledger.len() - self.ledger.members(Internal::ENDED),
            Which::External => self.external.len() - self.external.members(External::ENDED),
        }
    }

    /// True if the internal cache holds what the kernel holds, as far as we know: not from an
    /// overrun until its repair.
    pub fn is_whole(&self) -> bool {
        self.sweeps.is_whole()
    }

    /// The link used for sending.
    pub fn current_link(&self) -> LinkId {
        self.links.current()
    }

    /// True while new flows are no news: a commit makes many, and each event costs
    /// the kernel more than the flow. The driver then leaves the group of NEW events.
    pub fn is_deaf_to_new(&self) -> bool {
        self.commit.as_ref().is_some_and(Commit::is_large)
    }

    /// Calls `see` for up to `items` entries from `position` on. `None` at the end of the cache.
    pub fn walk(
        &self,
        which: Which,
        position: Position,
        items: usize,
        see: impl FnMut(&Flow, Age),
    ) -> Option<Position> {
        match which {
            Which::Internal => {
                let age = |slot| {
                    let note = self.ledger.note(slot);
                    let is_announced = note.is_ours();
                    (!note.has_ended()).then_some((None, is_announced))
                };
                self.walk_cache(&self.ledger, position, items, age, see)
            }
            Which::External => {
                let keeps = self.settings.cache_timeout.as_secs() as u32;
                let expires = self.protocol.expires();
                let age = |slot| {
                    let updated = self.external.times(slot).updated;
                    let left = keeps.saturating_sub(self.now.tick().seconds_since(updated));
                    let is_announced = self.is_confirmed(slot);
                    let lives = !self.external.note(slot).has_ended();
                    lives.then_some((expires.then_some(left), is_announced))
                };
                self.walk_cache(&self.external, position, items, age, see)
            }
        }
    }

    /// `age`: until when an entry lives and whether it is announced; `None` if it has ended.
    fn walk_cache<N: Note>(
        &self,
        cache: &Cache<N>,
        mut position: Position,
        items: usize,
        age: impl Fn(Slot) -> Option<(Option<u32>, bool)>,
        mut see: impl FnMut(&Flow, Age),
    ) -> Option<Position> {
        for _ in 0..items {
            let (slot, next) = cache.walk(position)?;
            position = next;
            if let Some((expires_secs, is_announced)) = age(slot) {
                let created = cache.times(slot).created;
                let age = Age {
                    active_secs: self.now.tick().seconds_since(created),
                    expires_secs,
                    is_announced,
                };
                see(&cache.flow(slot), age);
            }
        }
        Some(position)
    }

    // ---- inputs ----

    /// Events of the kernel, in the order in which it sent them.
    pub fn handle_events(&mut self, now: Instant, events: &[KernelEvent]) {
        self.now = now;
        for event in events {
            self.on_kernel_event(event);
        }
    }

    /// The kernel dropped events.
    pub fn handle_overrun(&mut self, now: Instant) {
        self.now = now;
        self.on_overrun();
    }

    /// Entries of the dump that [`Replica::poll_dump`] asked for.
    pub fn handle_dump(&mut self, now: Instant, flows: &[Flow]) {
        self.now = now;
        for flow in flows {
            self.on_dumped(flow);
        }
    }

    /// That dump is over.
    pub fn handle_dump_end(&mut self, now: Instant, end: DumpEnd) {
        self.now = now;
        self.on_dump_end(end);
    }

    /// Results of requests, in the order in which they were polled.
    pub fn handle_results(&mut self, now: Instant, results: &[KernelResult]) {
        self.now = now;
        for result in results {
            if result.outcome == Outcome::Done {
                self.hear_result(&result.request.op);
            }
            match (result.request.purpose, result.request.subject) {
                (Purpose::Flush, _) => self.on_flush_result(result),
                (Purpose::ReadAgain, _) => self.on_read_again(result),
                (_, Subject::Expectation) => self.on_expectation_result(result),
                (Purpose::Verify, Subject::Internal(ticket)) => {
                    self.on_verify_result(ticket, result);
                }
                (Purpose::Commit, Subject::External(ticket)) => {
                    self.on_commit_result(ticket, result);
                }
                (Purpose::Inject, Subject::External(ticket)) => {
                    self.on_inject_result(ticket, result);
                }
                // No other requests are made.
                (Purpose::Verify | Purpose::Commit | Purpose::Inject, _) => {}
            }
        }
    }

    /// Events about injections may be left out: their results tell the same.
    fn hear_result(&mut self, op: &Op) {
        match op {
            Op::Create(flow) | Op::Update(flow) => self.sweeps.hear(flow.key(), Heard::Written),
            Op::Delete(flow, _) => self.sweeps.hear(*flow, Heard::Ended),
            _ => {}
        }
    }

    /// A datagram, or a row of whole messages of a stream, from a peer.
    pub fn handle_datagram(&mut self, now: Instant, from: PeerId, link: LinkId, bytes: &[u8]) {
        self.now = now;
        if !self.has_peer(from) {
            return;
        }
        self.peer_mut(from).receiver.begin_datagram();
        for message in messages(bytes) {
            let own_next = self.stream.next_seq();
            let receiver = &mut self.peer_mut(from).receiver;
            let Some(received) = receiver.accept(now, own_next, message) else {
                continue;
            };
            if !received.is_late() {
                self.peer_heard(from, &received);
                self.on_received(from, &received);
            }
            let (seq, late) = (received.seq, received.is_late());
            let Some(accepted) = received.carries else {
                continue;
            };
            if let Some(event) = self.links.on_heard(now, link) {
                self.events.push_back(event);
            }
            match accepted {
                A::Flow(_, flow) if self.settings.filter.is_of_a_link(&flow.orig) => {
                    self.peer_mut(from).receiver.stats.links_ignored += 1;
                }
                A::Flow(state, flow)
                    if state != StateKind::Delete && self.peer(from).receiver.is_offer() =>
                {
                    self.deliver_offer(from, flow, seq, late);
                }
                A::Flow(state, flow) if late => self.deliver_late(from, state, flow, seq),
                A::Flow(state, flow) => self.deliver(from, state, flow, seq),
                A::Alive(trailer) => self.on_alive(from, trailer, &received),
                A::Control(Control::Resync) => {
                    self.events.push_back(Event::ResyncByPeer);
                    // The bulk update of a claim that still reads the kernel is the answer.
                    if !self.is_claim_under_way() {
                        self.wish(Wish::Everything);
                    }
                }
                A::Control(Control::Ack(from, to)) => self.on_ack(from, to),
                A::Control(Control::Nack(from, to)) => self.on_nack(from, to),
                A::Expectation(state, e) => self.deliver_expectation(from, state, &e, seq, late),
                A::Control(Control::Alive) => {}
            }
        }
    }

    /// The system reports whether a link is usable.
    pub fn handle_link(&mut self, now: Instant, link: LinkId, usable: bool) {
        self.now = now;
        self.events.extend(self.links.on_state(now, link, usable));
    }

    /// A command; [`Event::Done`] carries its answer once its client may go on.
    pub fn handle_command(&mut self, now: Instant, id: CommandId, command: Command) {
        self.now = now;
        let answer = match command {
            // These end later, and answer then.
            Command::Commit(objects) => return self.start_commit(id, objects),
            Command::FlushKernel(objects) => return self.start_kernel_flush(id, objects),
            Command::FlushInternal => self.flush_caches(Caches::Internal),
            Command::FlushExternal => self.flush_caches(Caches::External),
            Command::FlushCaches => self.flush_caches(Caches::Both),
            Command::ScheduleFlush => self.schedule_flush(),
            Command::Resync(objects) => self.start_resync(objects),
            Command::Bulk | Command::RequestResync if !self.protocol.has_control() => {
                Answer::NoControl
            }
            Command::Bulk => {
                if self.is_claiming() {
                    self.claimed_at = Some(now);
                }
                self.start_bulk();
                Answer::Done
            }
            Command::RequestResync => {
                self.request_resync();
                Answer::Done
            }
        };
        self.events.push_back(Event::Done(id, answer));
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.purge_due();
        self.sweeps_due();
        self.protocol_due();
        self.peers_due();
        self.repairs_due();
    }

    /// Moves long work on by about `items` entries.
    pub fn advance(&mut self, now: Instant, items: usize) -> Progress {
        self.now = now;
        let more = [
            self.advance_commit(items),
            self.advance_bulk(items),
            self.advance_absent(items),
            self.advance_lacking(items),
            self.advance_gone(items),
            self.advance_copies(items),
            self.settle_alone(items),
            self.external.tidy(),
            self.ledger.tidy(),
        ];
        if more.contains(&true) {
            Progress::More
        } else {
            Progress::Idle
        }
    }

    // ---- outputs ----

    /// The next datagram for the current link, if one is owed.
    ///
    /// It stays valid until the next call. The driver must not poll while the
    /// link's socket cannot take more: what is polled is taken as sent.
    pub fn poll_transmit(&mut self) -> Option<(LinkId, &[u8])> {
        if self.protocol.is_alone() {
            return None;
        }
        self.fill_datagram();
        let bytes = self.stream.datagram();
        (!bytes.is_empty()).then_some((self.links.current(), bytes))
    }

    /// Appends up to `max` kernel requests to `out`.
    pub fn poll_kernel(&mut self, max: usize, out: &mut Vec<KernelRequest>) {
        while out.len() < max {
            if let Some(request) = self.requests.pop_front() {
                out.push(request);
            } else if let Some(request) = self.next_injection() {
                out.push(request);
            } else if let Some(request) = self.next_expectation_injection() {
                out.push(request);
            } else {
                break;
            }
        }
    }

    /// The dump to start now; only one is under way at a time.
    pub fn poll_dump(&mut self) -> Option<DumpScope> {
        self.next_dump()
    }

    /// The next thing for the operator.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Replica::handle_timeout`] and the outputs must be looked at again.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.purge_at(),
            Some(self.sweeps.next_due()),
            self.stream.alive_at(),
            self.protocol.next_due(),
            self.peers.iter().filter_map(|p| p.next_due(self.now)).min(),
            self.peers.iter().filter_map(|p| p.hearing.next_due()).min(),
            self.repairs.next_due(self.now),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// True while received states should be left in the socket: the kernel cannot
    /// take injections as fast as they come.
    pub fn is_congested(&self) -> bool {
        !self.settings.external_cache && self.external.listed(List::Unwritten) > REQUESTS_MAX
    }

    /// True while parts of a dump should be left with their reader: what they feed, the
    /// queue of kernel requests or of direct messages, is full enough.
    pub fn is_dump_congested(&self) -> bool {
        self.requests.len() >= REQUESTS_MAX || self.stream.is_direct_half_full()
    }

    fn request_resync(&mut self) {
        if !self.protocol.has_control() {
            return;
        }
        self.events.push_back(Event::ResyncRequested);
        self.stream.owe(Control::Resync);
    }

    /// A flow of a cache with what is left of its timeout, at least 1 s.
    fn aged_flow<N: Note>(cache: &Cache<N>, slot: Slot, now: Instant) -> Flow {
        let mut flow = cache.flow(slot);
        let age = now.tick().seconds_since(cache.times(slot).updated);
        flow.timeout = flow.timeout.map(|t| t.saturating_sub(age).max(1));
        flow
    }
}
