//! A turn of one replica, and what is checked of everything that crosses its border.

use std::time::Duration;

use replica::{
    Change, Event, KernelError, KernelRequest, LinkId, Op, Origin, Outcome, Purpose, Verdict,
    Which, verdict,
};
use wire::v1::{Control, Decoded, Trailer, decode_expectation, decode_flow, messages};
use wire::{ObjectKind, StateKind};

use crate::check::{Check, check_bound, expectation_version, version};
use crate::host::{Happened, Host, Pace, Turn};
use crate::kept::Subject;
use crate::kernel::Reported;
use crate::network::{Datagram, Edge, Sender};
use crate::plan::Fault;

use super::node::{Core, Node};
use super::predictions::PREDICTED_MAX;
use super::{KEYS, World};

/// Datagrams that wait for a paused daemon.
const INBOX_MAX: usize = 500;
/// Entries of a dump that one turn reads.
const DUMP_PART: usize = 40;
/// A kernel with few flows walks this long until it has found the next part.
const PART_LATENESS: Duration = Duration::from_millis(50);
/// Turns of a daemon that has more to do, in one step of the clock.
const TURNS_MAX: usize = 4;
/// The latest that the writer of a slow kernel answers.
const LATENESS: Duration = Duration::from_millis(200);

impl World {
    pub(super) fn arrive(&mut self, datagram: Datagram) {
        let to = datagram.to;
        self.loads[to].bytes_in += datagram.bytes.len() as u64;
        let node = &mut self.nodes[to];
        if node.is_dead || node.sockets.inbox.len() >= INBOX_MAX {
            return;
        }
        node.sockets.inbox.push_back(datagram);
    }

    /// What replica `n` does in a step of the clock.
    pub(super) fn turn(&mut self, n: usize) -> Check {
        let now = self.now;
        self.next_command(n);
        let is_slow = self.is_safety && self.plan.has(Fault::SlowKernel);
        let node = &mut self.nodes[n];
        // What has happened is looked at when the turn is over, and maybe the dump, too.
        node.was_claiming = node.is_claiming();
        node.kernel.expire(now);
        let mut record = Vec::new();
        match &mut node.core {
            Core::Ours(replica) => {
                let pace = Pace {
                    dump_part: DUMP_PART,
                    part_lateness: PART_LATENESS,
                    varies: true,
                    lateness: if is_slow { LATENESS } else { Duration::ZERO },
                    is_blocked: now < node.blocked_until,
                };
                let host = Host {
                    now,
                    kernel: &mut node.kernel,
                    sockets: &mut node.sockets,
                    pace,
                    random: &mut self.kernels,
                    record: &mut record,
                    turn: Turn::default(),
                };
                host.wake(replica, TURNS_MAX)?;
                // Without sending, no more come under way.
                if record.iter().any(|h| matches!(h, Happened::Sent(..))) {
                    let owed = replica.unacknowledged().1.len();
                    check_bound("control messages", owed, 1024)?;
                }
                let most = KEYS as usize + PREDICTED_MAX;
                check_bound("internal cache", replica.len(Which::Internal), most)?;
            }
            Core::Original(_) => turn_of_original(node, now, &mut record),
        }
        for happened in record {
            self.on_happened(n, happened)?;
        }
        Ok(())
    }

    fn on_happened(&mut self, n: usize, happened: Happened) -> Check {
        let now = self.now;
        match happened {
            Happened::Reported(reported) => {
                self.on_reported(n, &reported);
                Ok(())
            }
            Happened::Received(datagram) => {
                self.on_received(n, &datagram);
                Ok(())
            }
            Happened::Executed(request, outcome) => self.on_executed(n, &request, &outcome),
            Happened::Sent(link, bytes) => self.on_sent(n, link, &bytes),
            Happened::Announced(event) => {
                let node = &mut self.nodes[n];
                match event {
                    Event::Done(id, _) => {
                        node.waits_for.take_if(|waited| *waited == id);
                    }
                    Event::ClaimedBack => {
                        node.on_resync();
                        self.claims(n);
                    }
                    _ => {}
                }
                self.trace.line(now, format_args!("{n}: {event:?}"));
                Ok(())
            }
        }
    }

    /// Replica `n` has read a report of its kernel.
    fn on_reported(&mut self, n: usize, reported: &Reported) {
        self.loads[n].events += 1;
        match reported {
            Reported::Flow(event) => {
                let (change, origin) = (event.change, event.origin);
                let what = format_args!("kernel of {n}: {change:?} by {origin:?}");
                self.trace.flow(self.now, &event.flow, what);
                match change {
                    Change::Destroy => self.truth.on_traffic(n, &event.flow.key()),
                    _ if origin == Origin::Traffic => self.truth.on_shown(n, &event.flow),
                    _ => {}
                }
            }
            Reported::Expectation(event) => {
                let (change, origin) = (event.change, event.origin);
                let what = format_args!("kernel of {n}: {change:?} by {origin:?}");
                self.trace.expectation(self.now, &event.expectation, what);
            }
        }
    }

    /// Replica `n` has read a datagram.
    fn on_received(&mut self, n: usize, datagram: &Datagram) {
        let now = self.now;
        let edge = datagram.sender.map(|s| Edge {
            from: s.node,
            to: n,
        });
        let is_stale = datagram
            .sender
            .is_some_and(|s| s.run != self.nodes[s.node].run);
        for message in messages(&datagram.bytes).flatten() {
            let seq = message.header.seq;
            let (mut flow, mut about) = (None, None);
            match verdict(self.plan.mode, &message.header) {
                Verdict::Control(Control::Alive) => {
                    if let (Some(sender), Ok(Some(_))) =
                        (datagram.sender, Trailer::decode(message.body))
                    {
                        self.named.insert((n, sender));
                    }
                }
                Verdict::Control(Control::Ack(from, to)) if datagram.sender.is_none() => {
                    self.kept.on_forged_ack(n, from, to);
                }
                Verdict::Data(ObjectKind::Flow, kind) => {
                    if let Ok(Decoded { object: f, .. }) = decode_flow(message.body) {
                        let what =
                            format_args!("{n} receives {kind:?} as {seq}, stale: {is_stale}");
                        self.trace.flow(now, &f, what);
                        about = Some((Subject::Flow(f.key()), version(&f)));
                        flow = Some((kind, f));
                    }
                }
                Verdict::Data(ObjectKind::Expectation, kind) => {
                    if let Ok(Decoded { object: e, .. }) = decode_expectation(message.body) {
                        let what =
                            format_args!("{n} receives {kind:?} as {seq}, stale: {is_stale}");
                        self.trace.expectation(now, &e, what);
                        about = Some((Subject::Expectation(e.key()), expectation_version(&e)));
                    }
                }
                _ => {}
            }
            if let (Some(edge), Some((of, version))) = (edge, about)
                && (is_stale
                    || self.plan.has(Fault::Forged) && self.kept.is_behind(edge, of, version))
            {
                self.kept.on_stale(edge, of);
            }
            // Before the name of the sender's epoch its order is not known: it comes again.
            let is_named = !self.plan.has_trailers()
                || datagram.sender.is_none_or(|s| self.named.contains(&(n, s)));
            let ended = (flow.as_ref()).filter(|(kind, _)| *kind == StateKind::Delete && is_named);
            let (ended, key) = (ended.map(|(_, f)| f), flow.as_ref().map(|(_, f)| f.key()));
            self.truth.on_delivered(n, seq, is_stale, ended, key);
        }
        if let Some(edge) = edge.filter(|_| !is_stale) {
            self.note_received(edge, datagram);
        }
    }

    /// The kernel of replica `n` has executed a request of it.
    fn on_executed(&mut self, n: usize, request: &KernelRequest, outcome: &Outcome) -> Check {
        let why = request.purpose;
        if let Op::CreateExpectation(e) = &request.op {
            let what = format_args!("{n} writes for {why:?}, {outcome:?}");
            self.trace.expectation(self.now, e, what);
            return self.truth.check_prediction(&format!("create at {n}"), e);
        }
        let (Op::Create(flow) | Op::Update(flow)) = &request.op else {
            return Ok(());
        };
        let creates = matches!(request.op, Op::Create(_));
        let what = format_args!("{n} writes for {why:?}, create: {creates}, {outcome:?}");
        self.trace.flow(self.now, flow, what);
        if creates {
            self.truth.check_true(|| format!("create at {n}"), flow)?;
            if let Outcome::Done | Outcome::Failed(KernelError::TableFull) = outcome {
                let is_refused = *outcome != Outcome::Done;
                self.kept.on_created(n, flow.key(), is_refused);
            }
        }
        if *outcome == Outcome::Done {
            match why {
                Purpose::Inject if self.nodes[n].was_claiming => {
                    self.truth.on_injected_late(n, flow.key());
                }
                Purpose::Inject => self.truth.on_injected(n, flow.key()),
                _ => self.truth.on_traffic(n, &flow.key()),
            }
            if creates && why == Purpose::Commit {
                // Also what came after the command: a copy of what has ended elsewhere.
                self.truth.on_claim(n, std::iter::once(flow.key()));
            }
        }
        Ok(())
    }

    /// Replica `n` has sent a datagram.
    fn on_sent(&mut self, n: usize, link: LinkId, bytes: &[u8]) -> Check {
        if let Core::Ours(_) = self.nodes[n].core {
            self.check_datagram(n, bytes)?;
        }
        let link = if self.network.down[link.0] { 1 } else { link.0 };
        self.trace.datagram(n, bytes);
        self.note_sent(n, bytes);
        self.loads[n].bytes_out += bytes.len() as u64;
        let plan = self.is_safety.then_some(&self.plan);
        let run = self.nodes[n].run;
        let sender = Sender { node: n, run };
        self.network.send(self.now, plan, sender, link, bytes);
        Ok(())
    }

    /// What a replica sends must be true, and its own.
    fn check_datagram(&mut self, n: usize, bytes: &[u8]) -> Check {
        check_bound("bytes of a datagram", bytes.len(), 1471)?;
        let place = || format!("message of {n}");
        for message in messages(bytes).flatten() {
            let seq = message.header.seq;
            match verdict(self.plan.mode, &message.header) {
                Verdict::Data(ObjectKind::Flow, kind) => {
                    let Ok(Decoded { object: flow, .. }) = decode_flow(message.body) else {
                        check_bound("messages that cannot be read", 1, 0)?;
                        continue;
                    };
                    let what = format_args!("{n} sends {kind:?} as {seq}");
                    self.trace.flow(self.now, &flow, what);
                    // The end of a flow counts by its key alone.
                    if kind != StateKind::Delete {
                        self.truth.check_true(place, &flow)?;
                        self.truth.check_announced(n, &flow)?;
                    }
                }
                Verdict::Data(ObjectKind::Expectation, kind) => {
                    let Ok(Decoded { object: e, .. }) = decode_expectation(message.body) else {
                        check_bound("messages that cannot be read", 1, 0)?;
                        continue;
                    };
                    let what = format_args!("{n} sends {kind:?} as {seq}");
                    self.trace.expectation(self.now, &e, what);
                    self.truth.check_prediction(&place(), &e)?;
                }
                Verdict::Control(Control::Ack(from, to)) => self.truth.check_ack(n, from, to)?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// The original reads all that waits, and its order within a turn is its own.
fn turn_of_original(node: &mut Node, now: replica::Instant, record: &mut Vec<Happened>) {
    let Core::Original(original) = &mut node.core else {
        return;
    };
    for datagram in node.sockets.inbox.drain(..) {
        original.handle_datagram(now, &datagram.bytes);
        record.push(Happened::Received(datagram));
    }
    let (reports, overrun) = node.kernel.take_reports();
    for reported in reports {
        match &reported {
            Reported::Flow(event) => original.handle_event(now, event),
            Reported::Expectation(event) => original.handle_expectation(now, event),
        }
        record.push(Happened::Reported(reported));
    }
    if overrun {
        original.handle_overrun(now);
    }
    original.handle_timeout(now, &node.kernel);
    if node.blocked_until <= now {
        let datagrams = original.poll_transmit().into_iter();
        record.extend(datagrams.map(|bytes| Happened::Sent(LinkId(0), bytes)));
    }
}
