//! Acknowledged means kept: a replica that was acknowledged for a flow may rely on it until
//! it sends the flow's end, or another replica owns the flow.
//!
//! The simulator reads along. A flow counts as acknowledged from the moment when the
//! owner has received the acknowledgement of a message that told of the flow's present
//! life. It counts no more
//!
//! - when the owner has sent its end, or another replica has taken over;
//! - when the peer's daemon or machine has died, or an operator has emptied its external cache;
//! - when a script of the HA manager has emptied the peer's caches while the peer's kernel
//!   did not have the flow;
//! - when a late copy of what the owner sent in a former run, or before somebody forged a
//!   greeting in its name, has come to the peer;
//! - while an operator has said at the peer that the flow is the peer's own;
//! - while the peer's kernel has refused it, because the table is full;
//! - when the timeout in the acknowledged message has run down, counted from its arrival.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use flow::{Flow, FlowKey};
use replica::Instant;
use wire::v1::{Seq, StateKind};

use crate::check::version;

/// Timeouts are whole seconds, and replicas round them, too.
const SLACK: Duration = Duration::from_secs(2);

/// A message about a flow that its owner has sent, and what became of it.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    key: FlowKey,
    seq: Seq,
    version: u32,
    timeout: Option<u32>,
    sent_at: Instant,
    received_at: Option<Instant>,
    acknowledged_at: Option<Instant>,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |at: Instant| at.since(Instant::START).as_millis();
        write!(
            f,
            "version {} sent as {} at {} ms, ",
            self.version,
            self.seq,
            ms(self.sent_at)
        )?;
        match self.received_at {
            Some(at) => write!(f, "received at {} ms, ", ms(at))?,
            None => f.write_str("never received, ")?,
        }
        match self.acknowledged_at {
            Some(at) => write!(f, "acknowledged at {} ms", ms(at)),
            None => f.write_str("not acknowledged"),
        }
    }
}

/// What the replicas have acknowledged of each other's flows.
#[derive(Debug, Default)]
pub struct Kept {
    /// Messages of each replica's present run that are not acknowledged.
    sent: [BTreeMap<u32, Told>; 2],
    /// The last acknowledged message about each flow, by owner.
    acknowledged: [BTreeMap<FlowKey, Told>; 2],
    /// Version with which the present life of a flow began.
    born: BTreeMap<FlowKey, u32>,
    /// Flows that the kernel of each replica has refused.
    refused: [BTreeSet<FlowKey>; 2],
    /// Flows that have ended in the kernel of each replica while it owned them.
    ended: [BTreeSet<FlowKey>; 2],
    /// The machine of each replica has started again, and its daemon is not back.
    has_new_table: [bool; 2],
    /// Acknowledged flows that a full table or a script of the HA manager has exempted.
    pub exempted: u64,
}

impl Kept {
    /// A flow begins, or lives on in another kernel.
    pub fn on_born(&mut self, flow: &Flow) {
        self.born.insert(flow.key(), version(flow));
        for ended in &mut self.ended {
            ended.remove(&flow.key());
        }
    }

    /// A flow that replica `n` owned has ended in its kernel.
    pub fn on_ended(&mut self, n: usize, key: FlowKey) {
        // Of a flow that began and ended in a new table before the daemon was back, nobody
        // knows; what the peer holds under its key is of the table before.
        if !self.has_new_table[n] {
            self.ended[n].insert(key);
        }
    }

    /// Replica `n` has sent a message about a flow; `is_own` if it owns the flow.
    pub fn on_sent(
        &mut self,
        now: Instant,
        n: usize,
        kind: StateKind,
        flow: &Flow,
        seq: Seq,
        is_own: bool,
    ) {
        let key = flow.key();
        if kind == StateKind::Delete {
            self.acknowledged[n].remove(&key);
            self.sent[n].retain(|_, told| told.key != key);
        } else if is_own {
            let told = Told {
                key,
                seq,
                version: version(flow),
                timeout: flow.timeout,
                sent_at: now,
                received_at: None,
                acknowledged_at: None,
            };
            self.sent[n].insert(seq.0, told);
        }
    }

    /// A message of the present run of replica `n` has come to its peer.
    pub fn on_received(&mut self, now: Instant, n: usize, seq: Seq) {
        if let Some(told) = self.sent[n].get_mut(&seq.0) {
            told.received_at = told.received_at.or(Some(now));
        }
    }

    /// Replica `n` has received an acknowledgement of its peer's present run.
    pub fn on_acknowledged(&mut self, now: Instant, n: usize, from: Seq, to: Seq) {
        let is_covered = |told: &Told| !told.seq.before(from) && !to.before(told.seq);
        let acknowledged = &mut self.acknowledged[n];
        self.sent[n].retain(|_, told| {
            if !is_covered(told) {
                return true;
            }
            told.acknowledged_at = Some(now);
            let last = acknowledged.entry(told.key).or_insert(*told);
            if last.seq.before(told.seq) {
                *last = *told;
            }
            false
        });
    }

    /// The daemon of replica `n` has died, and with `table` its kernel's table, too.
    pub fn on_death(&mut self, n: usize, table: bool) {
        self.sent[n].clear();
        self.on_flush(n);
        if table {
            self.ended[n].clear();
            self.has_new_table[n] = true;
        }
    }

    /// The daemon of replica `n` is back.
    pub fn on_back(&mut self, n: usize) {
        self.has_new_table[n] = false;
    }

    /// A late copy of a message about a flow that a former run of replica `n` has sent came
    /// to its peer, or, in the middle of forged greetings, one of this run: version 1 does
    /// not tell them from new ones.
    pub fn on_stale(&mut self, n: usize, key: &FlowKey) {
        self.acknowledged[n].remove(key);
        self.sent[n].retain(|_, told| told.key != *key);
        self.ended[n].remove(key);
    }

    /// True if replica `n` has been acknowledged for a later version of a flow.
    pub fn is_behind(&self, n: usize, key: &FlowKey, version: u32) -> bool {
        let told = self.acknowledged[n].get(key);
        told.is_some_and(|told| version < told.version)
    }

    /// An operator has emptied the external cache of replica `n`. Acknowledgements of what it
    /// held may still be under way.
    pub fn on_flush(&mut self, n: usize) {
        self.acknowledged[1 - n].clear();
        self.sent[1 - n].retain(|_, told| told.received_at.is_none());
    }

    /// A script of the HA manager has emptied the caches of replica `n`, whose external
    /// cache alone held these flows.
    pub fn on_scripted_flush(&mut self, n: usize, lost: impl Iterator<Item = FlowKey>) {
        for key in lost {
            let was_acknowledged = self.acknowledged[1 - n].remove(&key).is_some();
            self.exempted += u64::from(was_acknowledged);
            self.sent[1 - n].retain(|_, told| told.key != key || told.received_at.is_none());
        }
    }

    /// Another replica owns the flows from now on.
    pub fn on_takeover(&mut self) {
        self.sent = Default::default();
        self.acknowledged = Default::default();
        self.ended = Default::default();
    }

    /// The kernel of replica `n` has taken a flow, or refused it because the table is full.
    pub fn on_created(&mut self, n: usize, key: FlowKey, refused: bool) {
        if !refused {
            self.refused[n].remove(&key);
        } else if self.refused[n].insert(key) {
            let was_acknowledged = self.acknowledged[1 - n].contains_key(&key);
            self.exempted += u64::from(was_acknowledged);
        }
    }

    /// The acknowledged message on which replica `n`, which owns a flow, may rely now.
    pub fn promise(&self, now: Instant, n: usize, key: &FlowKey) -> Option<&Told> {
        let told = self.acknowledged[n].get(key)?;
        let is_of_this_life = self.born.get(key).is_some_and(|v| told.version >= *v);
        let since = told.received_at.or(told.acknowledged_at)?;
        let run_down = |secs: u32| now + SLACK >= since + Duration::from_secs(secs.into());
        let is_exempt = self.refused[1 - n].contains(key) || told.timeout.is_some_and(run_down);
        (is_of_this_life && !is_exempt).then_some(told)
    }

    /// Flows of replica `n` that have ended, and not begun again, since it is their owner.
    pub fn ended(&self, n: usize) -> impl Iterator<Item = &FlowKey> {
        self.ended[n].iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::{Addrs, L4, Mark, Proto, Tuple};

    /// A flow that replica 0 has sent as 1, and that replica 1 has acknowledged.
    fn acknowledged() -> (Kept, Flow) {
        let mut flow = Flow::new(Tuple {
            addrs: Addrs::V4 {
                src: [10, 0, 0, 1].into(),
                dst: [10, 0, 0, 2].into(),
            },
            proto: Proto::UDP,
            l4: L4::Ports { src: 1, dst: 2 },
        });
        flow.mark = Some(Mark(1));
        flow.timeout = Some(10);
        let mut kept = Kept::default();
        kept.on_born(&flow);
        kept.on_sent(Instant::START, 0, StateKind::New, &flow, Seq(1), true);
        kept.on_received(Instant::START, 0, Seq(1));
        kept.on_acknowledged(Instant::START, 0, Seq(0), Seq(5));
        (kept, flow)
    }

    fn is_promised(kept: &Kept, secs: u64, flow: &Flow) -> bool {
        let now = Instant::START + Duration::from_secs(secs);
        kept.promise(now, 0, &flow.key()).is_some()
    }

    #[test]
    fn a_promise_holds_until_the_timeout_runs_down() {
        let (kept, flow) = acknowledged();
        assert!(is_promised(&kept, 7, &flow));
        assert!(!is_promised(&kept, 8, &flow));
    }

    #[test]
    fn an_end_and_a_new_life_end_a_promise() {
        let (mut kept, flow) = acknowledged();
        kept.on_sent(Instant::START, 0, StateKind::Delete, &flow, Seq(2), true);
        assert!(!is_promised(&kept, 0, &flow));
        let (mut kept, mut flow) = acknowledged();
        flow.mark = Some(Mark(2));
        kept.on_born(&flow);
        assert!(!is_promised(&kept, 0, &flow));
    }

    #[test]
    fn what_a_flush_has_emptied_is_not_promised_by_a_late_acknowledgement() {
        let (mut kept, flow) = acknowledged();
        kept.on_sent(Instant::START, 0, StateKind::Update, &flow, Seq(6), true);
        kept.on_received(Instant::START, 0, Seq(6));
        kept.on_flush(1);
        kept.on_acknowledged(Instant::START, 0, Seq(6), Seq(6));
        assert!(!is_promised(&kept, 0, &flow));
    }
}
