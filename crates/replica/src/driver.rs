//! The contract between a replica and what drives it: what it needs from its
//! surroundings, and the one order in which a turn goes.
//!
//! The same core runs in the daemon, in the scenario tests and in the simulator. Whoever
//! drives it by [`turn`] implements [`Host`], so that what holds in a test holds outside.
//! The rules are:
//!
//! 1. **One clock.** All calls of a turn get the same time. It never goes back.
//! 2. **Commands and link states come between turns**, straight to
//!    [`Replica::handle_command`] and [`Replica::handle_link`].
//! 3. **The kernel's reports are read first**, in the kernel's order, flows and
//!    expectations in one sequence, and a loss after what came before it. They are the
//!    evidence against which the peer's messages are weighed.
//! 4. **Back-pressure.** No datagram is read while [`Replica::is_congested`], no part of
//!    a dump while [`Replica::is_dump_congested`]: datagrams that wait stay in the socket, where
//!    their loss is counted, and parts with their reader. No datagram is polled while the current link takes none, because
//!    what is polled counts as sent. No request is polled while the writer has no room.
//! 5. **Results come in the order of the requests**, in a later turn or, if the host executes
//!    a batch at once, in the same one. An event that a request has caused may be read before
//!    or after its result; so may older events that have not been read yet.
//! 6. **One dump at a time.** It is started when the replica asks, read a part a turn,
//!    and ended with [`Replica::handle_dump_end`], also if it could not be started.
//! 7. **One [`Replica::advance`] a turn**, after all inputs and before all outputs, and one
//!    after each batch of requests, because there is room again where requests wait.
//!    Requests go out before datagrams, so that what they change is sent in the same turn.
//! 8. **Deafness to NEW.** Before requests are handed over, the host leaves the group
//!    of new flows while [`Replica::is_deaf_to_new`], and joins it again afterwards.
//! 9. **Events for the operator are drained** after each datagram and at the end of the
//!    turn: a datagram may hold thousands of messages.
//! 10. **The next turn** begins at once after [`Progress::More`] or if the host left
//!     something unread, otherwise when something arrives, at the latest at
//!     [`Replica::poll_timeout`], which lies after the time of the turn that has ended.
//!
//! A host bounds what one turn reads: each of its methods returns `None` when nothing
//! waits or when the share of this turn is used up.

use flow::{Expectation, Flow};

use super::Replica;
use crate::command::Progress;
use crate::event::Event;
use crate::kernel::{
    DumpEnd, DumpScope, ExpectationEvent, KernelEvent, KernelRequest, KernelResult,
};
use crate::link::LinkId;
use crate::receive::PeerId;
use crate::time::Instant;

/// What the kernel reports by itself.
#[derive(Clone, Copy, Debug)]
pub enum Report<'a> {
    /// Events about flows.
    Flows(&'a [KernelEvent]),
    /// An event about an expectation.
    Expectation(&'a ExpectationEvent),
    /// Events were dropped here, because nobody read them in time.
    Overrun,
}

/// A part of a dump.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// Flows of the dump.
    pub flows: &'a [Flow],
    /// Expectations of the dump.
    pub expectations: &'a [Expectation],
    /// Set if this is the last part.
    pub end: Option<DumpEnd>,
}

/// The surroundings of one replica.
pub trait Host {
    /// Entries by which long work moves on in one turn.
    const ITEMS: usize;
    /// Requests that are handed to the kernel's writer together.
    const BATCH: usize;
    /// Batches in one turn.
    const BATCHES: usize;

    /// The next report of the kernel.
    fn report(&mut self) -> Option<Report<'_>>;

    /// The next datagram that has arrived, who sent it and over which link it came.
    fn datagram(&mut self) -> Option<(PeerId, LinkId, &[u8])>;

    /// Results that the writer has returned.
    fn results(&mut self) -> Option<Vec<KernelResult>>;

    /// True while a dump is under way.
    fn is_dumping(&self) -> bool;

    /// Starts a dump; false if the kernel refuses.
    fn start_dump(&mut self, scope: DumpScope) -> bool;

    /// The next part of the dump that is under way.
    fn dumped(&mut self) -> Option<Part<'_>>;

    /// True if `link`, the current one, takes another datagram.
    fn may_send(&mut self, link: LinkId) -> bool;

    /// Sends a datagram.
    fn send(&mut self, link: LinkId, bytes: &[u8]);

    /// Joins or leaves the group of new flows.
    fn listen_to_new(&mut self, joins: bool);

    /// True if the writer takes another batch.
    fn may_write(&self) -> bool;

    /// Takes a batch that is not empty. Returns the results if it is executed at once, and
    /// otherwise has the writer execute it.
    fn write(&mut self, batch: &mut Vec<KernelRequest>) -> Option<Vec<KernelResult>>;

    /// Something for the operator.
    fn on_event(&mut self, event: Event);
}

/// One turn. Returns whether long work should go on at once.
pub fn turn<H: Host>(replica: &mut Replica, host: &mut H, now: Instant) -> Progress {
    while let Some(report) = host.report() {
        match report {
            Report::Flows(events) => replica.handle_events(now, events),
            Report::Expectation(event) => replica.handle_expectation(now, event),
            Report::Overrun => replica.handle_overrun(now),
        }
    }
    while !replica.is_congested()
        && let Some((from, link, bytes)) = host.datagram()
    {
        replica.handle_datagram(now, from, link, bytes);
        drain_events(replica, host);
    }
    while let Some(results) = host.results() {
        replica.handle_results(now, &results);
    }
    read_dump(replica, host, now);
    replica.handle_timeout(now);
    let mut progress = replica.advance(now, H::ITEMS);
    host.listen_to_new(!replica.is_deaf_to_new());
    if write(replica, host, now) == Progress::More {
        progress = Progress::More;
    }
    while host.may_send(replica.current_link())
        && let Some((link, bytes)) = replica.poll_transmit()
    {
        host.send(link, bytes);
    }
    drain_events(replica, host);
    progress
}

/// Hands over what the kernel shall do; more if there may be.
fn write<H: Host>(replica: &mut Replica, host: &mut H, now: Instant) -> Progress {
    let mut batch = Vec::new();
    for _ in 0..H::BATCHES {
        if host.may_write() {
            replica.poll_kernel(H::BATCH, &mut batch);
        }
        if batch.is_empty() {
            return Progress::Idle;
        }
        if let Some(results) = host.write(&mut batch) {
            replica.handle_results(now, &results);
        }
        batch.clear();
        replica.advance(now, H::BATCH);
    }
    Progress::More
}

fn read_dump<H: Host>(replica: &mut Replica, host: &mut H, now: Instant) {
    if !host.is_dumping() {
        let Some(scope) = replica.poll_dump() else {
            return;
        };
        if !host.start_dump(scope) {
            return replica.handle_dump_end(now, DumpEnd::Failed);
        }
    }
    if replica.is_dump_congested() {
        return;
    }
    if let Some(part) = host.dumped() {
        replica.handle_dump(now, part.flows);
        replica.handle_dumped_expectations(now, part.expectations);
        if let Some(end) = part.end {
            replica.handle_dump_end(now, end);
        }
    }
}

fn drain_events<H: Host>(replica: &mut Replica, host: &mut H) {
    while let Some(event) = replica.poll_event() {
        host.on_event(event);
    }
}
