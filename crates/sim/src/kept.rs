//! Acknowledged means kept: a replica that was acknowledged for a flow may rely on it until
//! it sends the flow's end, or another replica owns the flow.
//!
//! The simulator reads all messages. A flow counts as acknowledged from the moment when the
//! owner has received the acknowledgement of a message about the flow's present life. The
//! same holds for expectations. A flow counts no more
//!
//! - when the owner has sent its end, or another replica has taken over;
//! - when the peer's daemon or machine has died, or an operator has emptied its external cache;
//! - when a script of the HA manager has emptied the peer's caches while the peer's kernel
//!   did not have the flow;
//! - when a late copy of what the owner sent in a former run, or before somebody forged a
//!   greeting in its name, has come to the peer;
//! - when the HA manager has made the peer primary beside the owner, and it announces the flow;
//! - while an operator has said at the peer that the flow is the peer's own;
//! - while the peer's kernel has refused it, because the table is full;
//! - when the timeout in the acknowledged message has run down, counted from its arrival.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use flow::{ExpectKey, Expectation, Flow, FlowKey};
use replica::{Instant, Seq};
use wire::StateKind;

use crate::check::{expectation_version, version};
use crate::network::{Edge, Edges};

/// Timeouts are whole seconds, and replicas round them, too.
const SLACK: Duration = Duration::from_secs(2);

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A flow.
    Flow(FlowKey),
    /// An expectation.
    Expectation(ExpectKey),
}

/// A state of a subject, as its owner sends it.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// Of what.
    pub of: Subject,
    /// Its version.
    pub version: u32,
    /// Its timeout in seconds.
    pub timeout: Option<u32>,
}

impl From<&Flow> for State {
    fn from(flow: &Flow) -> State {
        State {
            of: Subject::Flow(flow.key()),
            version: version(flow),
            timeout: flow.timeout,
        }
    }
}

impl From<&Expectation> for State {
    fn from(e: &Expectation) -> State {
        State {
            of: Subject::Expectation(e.key()),
            version: expectation_version(e),
            timeout: e.timeout,
        }
    }
}

/// A message about a flow or an expectation that its owner has sent, and what became of it.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    of: Subject,
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

/// What has become of the messages along one edge.
#[derive(Debug, Default)]
struct Messages {
    /// Those of the sender's present epoch that are not acknowledged.
    sent: BTreeMap<u32, Told>,
    /// The last acknowledged message about each subject.
    acknowledged: BTreeMap<Subject, Told>,
    /// Ends of flows that the sender has announced and that have not come.
    ends: BTreeMap<u32, FlowKey>,
    /// Those that a forged message has acknowledged: the sender announces them no more.
    ends_lost: BTreeSet<FlowKey>,
}

impl Messages {
    /// The receiver has lost what it held. Acknowledgements may still be under way.
    fn on_flush(&mut self) {
        self.acknowledged.clear();
        self.sent.retain(|_, told| told.received_at.is_none());
    }

    /// What was said of the end of a flow before is over.
    fn forget_end(&mut self, key: &FlowKey) {
        self.ends.retain(|_, ended| ended != key);
        self.ends_lost.remove(key);
    }

    fn forget(&mut self, of: Subject) {
        self.acknowledged.remove(&of);
        self.sent.retain(|_, told| told.of != of);
    }
}

/// What the replicas have acknowledged of each other's flows and expectations.
#[derive(Debug)]
pub struct Kept {
    edges: BTreeMap<Edge, Messages>,
    /// Version with which the present life of a subject began.
    born: BTreeMap<Subject, u32>,
    /// Flows that the kernel of each replica has refused.
    refused: Vec<BTreeSet<FlowKey>>,
    /// Flows that have ended in the kernel of each replica while it owned them.
    ended: Vec<BTreeSet<FlowKey>>,
    /// Flows that each replica has announced in its present table; `None` if that is its first.
    announced: Vec<Option<BTreeSet<FlowKey>>>,
    /// Acknowledged flows that a full table or a script of the HA manager has exempted.
    pub exempted: u64,
}

impl Kept {
    /// Nothing is acknowledged yet among `nodes` replicas.
    pub fn new(nodes: usize, edges: &Edges) -> Kept {
        let edges = edges.all().iter().map(|e| (*e, Messages::default()));
        Kept {
            edges: edges.collect(),
            born: BTreeMap::new(),
            refused: vec![BTreeSet::new(); nodes],
            ended: vec![BTreeSet::new(); nodes],
            announced: vec![None; nodes],
            exempted: 0,
        }
    }

    fn out_of(&mut self, n: usize) -> impl Iterator<Item = &mut Messages> {
        let edges = self.edges.iter_mut();
        edges.filter(move |(e, _)| e.from == n).map(|(_, m)| m)
    }

    fn toward(&mut self, n: usize) -> impl Iterator<Item = &mut Messages> {
        let edges = self.edges.iter_mut();
        edges.filter(move |(e, _)| e.to == n).map(|(_, m)| m)
    }

    /// A flow or an expectation begins, or lives on in another kernel.
    pub fn on_born(&mut self, state: impl Into<State>) {
        let state = state.into();
        self.born.insert(state.of, state.version);
        if let Subject::Flow(key) = state.of {
            for ended in &mut self.ended {
                ended.remove(&key);
            }
        }
    }

    /// A flow that replica `n` owned has ended in its kernel.
    pub fn on_ended(&mut self, n: usize, key: FlowKey) {
        // What the peer holds under the key of a flow that was never announced in a new table
        // is of the table before.
        let announced = &self.announced[n];
        if announced.as_ref().is_none_or(|all| all.contains(&key)) {
            self.ended[n].insert(key);
        }
    }

    /// Replica `n` has sent a message about a flow or an expectation; `is_own` if it owns it.
    pub fn on_sent(
        &mut self,
        now: Instant,
        n: usize,
        kind: StateKind,
        state: impl Into<State>,
        seq: Seq,
        is_own: bool,
    ) {
        let state = state.into();
        if is_own
            && let Some(announced) = &mut self.announced[n]
            && let Subject::Flow(key) = state.of
        {
            announced.insert(key);
        }
        for messages in self.out_of(n) {
            if let Subject::Flow(key) = state.of {
                messages.forget_end(&key);
                if kind == StateKind::Delete {
                    messages.ends.insert(seq.0, key);
                }
            }
            if kind == StateKind::Delete {
                messages.forget(state.of);
            } else if is_own {
                let told = Told {
                    of: state.of,
                    seq,
                    version: state.version,
                    timeout: state.timeout,
                    sent_at: now,
                    received_at: None,
                    acknowledged_at: None,
                };
                messages.sent.insert(seq.0, told);
            }
        }
    }

    /// A message of the sender's present epoch has come along an edge.
    pub fn on_received(&mut self, now: Instant, edge: Edge, seq: Seq) {
        let Some(messages) = self.edges.get_mut(&edge) else {
            return;
        };
        if let Some(told) = messages.sent.get_mut(&seq.0) {
            told.received_at = told.received_at.or(Some(now));
        }
        messages.ends.remove(&seq.0);
    }

    /// A forged acknowledgement has come to replica `n`.
    pub fn on_forged_ack(&mut self, n: usize, from: Seq, to: Seq) {
        for messages in self.out_of(n) {
            let is_covered = |seq: &Seq| !seq.before(from) && !to.before(*seq);
            let numbers = messages.ends.keys().map(|seq| Seq(*seq));
            let covered: Vec<Seq> = numbers.filter(is_covered).collect();
            let keys = covered
                .iter()
                .filter_map(|seq| messages.ends.remove(&seq.0));
            messages.ends_lost.extend(keys);
        }
    }

    /// True if an edge's sender believes, by a forged acknowledgement, that the end of a flow has
    /// come.
    pub fn is_end_lost(&self, edge: Edge, key: &FlowKey) -> bool {
        let messages = self.edges.get(&edge);
        messages.is_some_and(|m| m.ends_lost.contains(key))
    }

    /// The sender of an edge has received an acknowledgement of the receiver's present epoch.
    pub fn on_acknowledged(&mut self, now: Instant, edge: Edge, from: Seq, to: Seq) {
        let Some(Messages {
            sent, acknowledged, ..
        }) = self.edges.get_mut(&edge)
        else {
            return;
        };
        // Numbers wrap.
        let ranges = if from.0 <= to.0 {
            [Some(from.0..=to.0), None]
        } else {
            [Some(from.0..=u32::MAX), Some(0..=to.0)]
        };
        for range in ranges.into_iter().flatten() {
            let covered: Vec<_> = sent.range(range).map(|(seq, _)| *seq).collect();
            for mut told in covered.iter().filter_map(|seq| sent.remove(seq)) {
                told.acknowledged_at = Some(now);
                let last = acknowledged.entry(told.of).or_insert(told);
                if last.seq.before(told.seq) {
                    *last = told;
                }
            }
        }
    }

    /// The daemon of replica `n` has died, and with `table` its kernel's table, too.
    pub fn on_death(&mut self, n: usize, table: bool) {
        for messages in self.out_of(n) {
            messages.sent.clear();
            messages.ends.clear();
        }
        self.on_flush(n);
        if table {
            self.ended[n].clear();
            self.announced[n] = Some(BTreeSet::new());
        }
    }

    /// A late copy of a message that the sender of an edge has sent in a former epoch came
    /// along it, or, in the middle of forged greetings, one of this epoch: version 1 does
    /// not tell them from new ones.
    pub fn on_stale(&mut self, edge: Edge, of: Subject) {
        if let Some(messages) = self.edges.get_mut(&edge) {
            messages.forget(of);
        }
        if let Subject::Flow(key) = of {
            self.ended[edge.from].remove(&key);
        }
    }

    /// Replica `n` announces a flow or an expectation that it has been told to claim.
    pub fn on_claimed(&mut self, n: usize, of: Subject) {
        let claimed = self.toward(n).filter(|m| m.acknowledged.contains_key(&of));
        let exempted = claimed.count() as u64;
        self.toward(n).for_each(|messages| messages.forget(of));
        self.exempted += exempted;
    }

    /// True if the sender of an edge has been acknowledged for a later version.
    pub fn is_behind(&self, edge: Edge, of: Subject, version: u32) -> bool {
        let messages = self.edges.get(&edge);
        let told = messages.and_then(|m| m.acknowledged.get(&of));
        told.is_some_and(|told| version < told.version)
    }

    /// An operator has emptied the external cache of replica `n`.
    pub fn on_flush(&mut self, n: usize) {
        for messages in self.toward(n) {
            messages.on_flush();
        }
    }

    /// A script of the HA manager has emptied the caches of replica `n`, whose external
    /// cache alone held these.
    pub fn on_scripted_flush(&mut self, n: usize, lost: &[Subject]) {
        let mut exempted = 0;
        for Messages {
            sent, acknowledged, ..
        } in self.toward(n)
        {
            for of in lost {
                exempted += u64::from(acknowledged.remove(of).is_some());
                sent.retain(|_, told| told.of != *of || told.received_at.is_none());
            }
        }
        self.exempted += exempted;
    }

    /// Another replica owns the flows from now on.
    pub fn on_takeover(&mut self) {
        for messages in self.edges.values_mut() {
            *messages = Messages::default();
        }
        for ended in &mut self.ended {
            ended.clear();
        }
    }

    /// The kernel of replica `n` has taken a flow, or refused it because the table is full.
    pub fn on_created(&mut self, n: usize, key: FlowKey, refused: bool) {
        if !refused {
            self.refused[n].remove(&key);
        } else if self.refused[n].insert(key) {
            let of = Subject::Flow(key);
            let all = self.toward(n);
            let were_acknowledged = all.filter(|m| m.acknowledged.contains_key(&of)).count();
            self.exempted += were_acknowledged as u64;
        }
    }

    /// The acknowledged message on which the sender of an edge may rely now.
    pub fn promise(&self, now: Instant, edge: Edge, of: Subject) -> Option<&Told> {
        let told = self.edges.get(&edge)?.acknowledged.get(&of)?;
        let is_of_this_life = self.born.get(&of).is_some_and(|v| told.version >= *v);
        let since = told.received_at.or(told.acknowledged_at)?;
        let run_down = |secs: u32| now + SLACK >= since + Duration::from_secs(secs.into());
        let is_refused = matches!(of, Subject::Flow(key) if self.refused[edge.to].contains(&key));
        let is_exempt = is_refused || told.timeout.is_some_and(run_down);
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

    const EDGE: Edge = Edge { from: 0, to: 1 };

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
        let mut kept = Kept::new(2, &Edges::pair(0));
        kept.on_born(&flow);
        kept.on_sent(Instant::START, 0, StateKind::New, &flow, Seq(1), true);
        kept.on_received(Instant::START, EDGE, Seq(1));
        kept.on_acknowledged(Instant::START, EDGE, Seq(0), Seq(5));
        (kept, flow)
    }

    fn is_promised(kept: &Kept, secs: u64, flow: &Flow) -> bool {
        let now = Instant::START + Duration::from_secs(secs);
        let of = Subject::Flow(flow.key());
        kept.promise(now, EDGE, of).is_some()
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
    fn a_forged_acknowledgement_loses_an_end_until_it_is_sent_again_or_comes() {
        let (mut kept, flow) = acknowledged();
        let key = flow.key();
        let send = |kept: &mut Kept, seq| {
            kept.on_sent(Instant::START, 0, StateKind::Delete, &flow, Seq(seq), true);
        };
        send(&mut kept, 2);
        kept.on_forged_ack(0, Seq(3), Seq(9));
        assert!(!kept.is_end_lost(EDGE, &key), "another range");
        kept.on_forged_ack(0, Seq(1), Seq(2));
        assert!(kept.is_end_lost(EDGE, &key));
        send(&mut kept, 3);
        assert!(!kept.is_end_lost(EDGE, &key), "sent again");
        kept.on_received(Instant::START, EDGE, Seq(3));
        kept.on_forged_ack(0, Seq(1), Seq(9));
        assert!(!kept.is_end_lost(EDGE, &key), "it has come");
    }

    #[test]
    fn what_a_flush_has_emptied_is_not_promised_by_a_late_acknowledgement() {
        let (mut kept, flow) = acknowledged();
        kept.on_sent(Instant::START, 0, StateKind::Update, &flow, Seq(6), true);
        kept.on_received(Instant::START, EDGE, Seq(6));
        kept.on_flush(1);
        kept.on_acknowledged(Instant::START, EDGE, Seq(6), Seq(6));
        assert!(!is_promised(&kept, 0, &flow));
    }
}
