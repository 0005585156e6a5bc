//! A model of the kernel's tables: what packets, requests and time do to flows.
//!
//! Expectations are in `expectations`. A dump is in the order of a hash whose key the
//! seed decides, so that nothing can rely on an order.

mod expectations;

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::ops::Bound;
use std::time::Duration;

use flow::{ExpectKey, Expectation, Flow, FlowKey, Status};
use replica::{
    Change, DumpScope, ExpectationEvent, Found, Instant, KernelError, KernelEvent, KernelRequest,
    Op, Origin, Outcome, Purpose,
};

use crate::trace::Digest;

#[derive(Clone, Copy, Debug)]
struct Entry {
    flow: Flow,
    expires: Instant,
    /// A request has written it.
    is_liberal: bool,
}

#[derive(Clone, Copy, Debug)]
struct Prediction {
    expectation: Expectation,
    expires: Instant,
}

/// What the kernel reports by itself.
#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are about flows, and they live for a moment"
)]
pub enum Reported {
    /// About a flow.
    Flow(KernelEvent),
    /// About an expectation.
    Expectation(ExpectationEvent),
}

/// Where an entry stands in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u64, FlowKey);

/// A table of flows, and one of expectations.
#[derive(Debug)]
pub struct Kernel {
    hash_key: u64,
    table: BTreeMap<Place, Entry>,
    predictions: BTreeMap<ExpectKey, Prediction>,
    /// No flow expires before.
    first_expiry: Instant,
    reports: VecDeque<Reported>,
    next_id: u32,
    /// Helpers that it has.
    pub helpers: Vec<&'static str>,
    /// Drops every event, as after an overrun.
    pub deaf: bool,
    /// Nobody is in the group of new flows.
    pub deaf_to_new: bool,
    /// Every request in the order it came.
    pub requests: Vec<KernelRequest>,
    /// Most events that wait to be read; beyond it they are dropped. 0: no bound.
    pub events_max: usize,
    overrun: bool,
    /// The table is full: nothing is created any more.
    pub is_full: bool,
    /// Counts the flows that were removed, and the losses of the whole table.
    pub removals: u64,
    /// Identifies the table: another one after the machine has started again.
    pub table_id: u32,
}

impl Default for Kernel {
    fn default() -> Kernel {
        Kernel {
            hash_key: 0,
            table: BTreeMap::new(),
            predictions: BTreeMap::new(),
            first_expiry: Instant::START,
            table_id: 1,
            reports: VecDeque::new(),
            next_id: 0,
            helpers: Vec::new(),
            deaf: false,
            deaf_to_new: false,
            requests: Vec::new(),
            events_max: 0,
            overrun: false,
            is_full: false,
            removals: 0,
        }
    }
}

impl Kernel {
    /// Empty tables, dumped in an order that `hash_key` decides.
    pub fn new(hash_key: u64) -> Kernel {
        Kernel {
            hash_key,
            ..Kernel::default()
        }
    }

    fn place(&self, key: &FlowKey) -> Place {
        let mut digest = Digest::default();
        digest.add(&self.hash_key.to_le_bytes());
        key.hash(&mut digest);
        Place(digest.finish(), *key)
    }

    /// Number of flows.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// True without any flow.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The flow of a key, with the timeout that it last got.
    pub fn get(&self, key: &FlowKey) -> Option<&Flow> {
        self.table.get(&self.place(key)).map(|e| &e.flow)
    }

    fn report(&mut self, report: Reported) {
        let is_full = self.events_max > 0 && self.reports.len() >= self.events_max;
        self.overrun |= is_full;
        if !self.deaf && !is_full {
            self.reports.push_back(report);
        }
    }

    fn emit(&mut self, change: Change, origin: Origin, flow: Flow) {
        if self.deaf_to_new && change == Change::New {
            return;
        }
        self.report(Reported::Flow(KernelEvent {
            change,
            origin,
            flow,
        }));
    }

    /// Packets make a flow, or change it.
    pub fn traffic(&mut self, now: Instant, flow: &Flow) {
        let known = self.get(&flow.key()).and_then(|known| known.id);
        let change = if known.is_some() {
            Change::Update
        } else {
            self.next_id += 1;
            Change::New
        };
        let flow = Flow {
            id: known.or(Some(self.next_id)),
            ..*flow
        };
        self.put(now, flow, false);
        self.emit(change, Origin::Traffic, flow);
    }

    /// Packets refresh a timer: no event.
    pub fn refresh(&mut self, now: Instant, key: &FlowKey, timeout: u32) {
        let place = self.place(key);
        let entry = self.table.get_mut(&place).expect("the flow is there");
        entry.expires = now + Duration::from_secs(timeout.into());
        self.first_expiry = self.first_expiry.min(entry.expires);
    }

    /// Packets make a flow, and no event reports it.
    pub fn silently(&mut self, now: Instant, flow: &Flow) {
        let deaf = std::mem::replace(&mut self.deaf, true);
        self.traffic(now, flow);
        self.deaf = deaf;
    }

    /// A flow ends, and then what it has predicted.
    pub fn end(&mut self, key: &FlowKey) {
        self.remove(key, Origin::Traffic);
    }

    fn remove(&mut self, key: &FlowKey, origin: Origin) {
        let place = self.place(key);
        if let Some(entry) = self.table.remove(&place) {
            self.removals += 1;
            self.emit(Change::Destroy, origin, entry.flow);
            self.end_predictions_of(key);
        }
    }

    /// Enters a flow. Packets leave an entry as liberal as it is.
    fn put(&mut self, now: Instant, flow: Flow, by_request: bool) {
        let expires = now + Duration::from_secs(flow.timeout.unwrap_or(30).into());
        self.first_expiry = self.first_expiry.min(expires);
        let place = self.place(&flow.key());
        let before = self.table.get(&place).filter(|e| e.flow.id == flow.id);
        let entry = Entry {
            flow,
            expires,
            is_liberal: by_request || before.is_some_and(|e| e.is_liberal),
        };
        self.table.insert(place, entry);
    }

    /// Ends what has run down. Returns the flows among it.
    pub fn expire(&mut self, now: Instant) -> Vec<FlowKey> {
        let over = self.expire_flows(now);
        self.expire_predictions(now);
        over
    }

    fn expire_flows(&mut self, now: Instant) -> Vec<FlowKey> {
        if now < self.first_expiry {
            return Vec::new();
        }
        let over = self.table.iter().filter(|(_, e)| e.expires <= now);
        let over: Vec<_> = over.map(|(place, _)| place.1).collect();
        for key in &over {
            self.end(key);
        }
        let expiries = self.table.values().map(|e| e.expires);
        self.first_expiry = expiries.min().unwrap_or(Instant::from_nanos(u64::MAX));
        over
    }

    /// True if reports wait.
    pub fn has_reports(&self) -> bool {
        self.overrun || !self.reports.is_empty()
    }

    /// Number of reports that wait.
    pub fn reports(&self) -> usize {
        self.reports.len()
    }

    /// The first `most` of the reports that wait; the others stay, with what follows them.
    pub fn take_first_reports(&mut self, most: usize) -> VecDeque<Reported> {
        let most = most.min(self.reports.len());
        self.reports.drain(..most).collect()
    }

    /// The reports that wait, and whether some were dropped behind them.
    pub fn take_reports(&mut self) -> (VecDeque<Reported>, bool) {
        let overrun = std::mem::take(&mut self.overrun);
        (std::mem::take(&mut self.reports), overrun)
    }

    /// All flows, with what is left of their timeouts.
    pub fn flows(&self, now: Instant) -> Vec<Flow> {
        self.dump(now, DumpScope::All, None, usize::MAX)
    }

    /// The key behind which a dump goes on after a flow.
    pub fn behind(&self, flow: &Flow) -> Place {
        self.place(&flow.key())
    }

    /// Up to `max` flows of a dump, behind the place where it stands.
    pub fn dump(
        &self,
        now: Instant,
        scope: DumpScope,
        behind: Option<Place>,
        max: usize,
    ) -> Vec<Flow> {
        let from = behind.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.table.range((from, Bound::Unbounded));
        let covered = rest.filter(|(_, e)| match scope {
            DumpScope::All => true,
            DumpScope::Expectations => false,
            DumpScope::Protocol { v6, proto } => {
                e.flow.orig.proto == proto && e.flow.orig.addrs.is_v4() != v6
            }
        });
        covered
            .take(max)
            .map(|(_, e)| Self::shown(e, now))
            .collect()
    }

    /// The kernel of the same machine after it has started again: an empty table.
    pub fn rebooted(self) -> Kernel {
        Kernel {
            hash_key: self.hash_key,
            helpers: self.helpers,
            next_id: self.next_id,
            table_id: self.table_id + 1,
            events_max: self.events_max,
            removals: self.removals + 1,
            ..Kernel::default()
        }
    }

    /// The entry as a get or dump shows it: with what is left of its timeout.
    fn shown(entry: &Entry, now: Instant) -> Flow {
        Flow {
            timeout: Some(entry.expires.since(now).as_secs() as u32),
            ..entry.flow
        }
    }

    fn find(&self, key: &FlowKey) -> Option<&Entry> {
        let reply = |e: &&Entry| e.flow.reply == key.orig && e.flow.zone == key.zone;
        self.table
            .get(&self.place(key))
            .or_else(|| self.table.values().find(reply))
    }

    /// What a request does.
    ///
    /// # Panics
    /// If a flow is to be created without a timeout, which the kernel refuses.
    pub fn execute(&mut self, now: Instant, request: KernelRequest) -> Outcome {
        self.requests.push(request);
        let origin = match request.purpose {
            Purpose::Inject => Origin::Inject,
            _ => Origin::Commit,
        };
        let failed = Outcome::Failed;
        match request.op {
            Op::Create(flow) => {
                let reply = FlowKey {
                    orig: flow.reply,
                    zone: flow.zone,
                };
                if self.is_full {
                    return failed(KernelError::TableFull);
                }
                if self.find(&flow.key()).is_some() || self.find(&reply).is_some() {
                    return failed(KernelError::Exists);
                }
                if flow
                    .helper
                    .is_some_and(|h| !self.helpers.contains(&h.as_str()))
                {
                    return failed(KernelError::Unsupported);
                }
                let master = flow.master.map(|orig| FlowKey {
                    orig,
                    zone: flow.zone,
                });
                if master.is_some_and(|m| self.find(&m).is_none()) {
                    return failed(KernelError::NotFound);
                }
                assert!(flow.timeout.is_some(), "the kernel wants a timeout");
                self.next_id += 1;
                let mut flow = Flow {
                    id: Some(self.next_id),
                    ..flow
                };
                // The kernel sets the bit from the master.
                flow.status = flow.status.without(Status::EXPECTED);
                if flow.master.is_some() {
                    flow.status = flow.status.with(Status::EXPECTED);
                }
                self.put(now, flow, true);
                self.emit(Change::New, origin, flow);
            }
            Op::Update(flow) => {
                let place = self.place(&flow.key());
                let Some(entry) = self.table.get_mut(&place) else {
                    return failed(KernelError::NotFound);
                };
                let lost = entry.flow.status.0 & !flow.status.0;
                if lost & (Status::SEEN_REPLY.0 | Status::ASSURED.0) != 0 {
                    return failed(KernelError::Busy);
                }
                if let Some(timeout) = flow.timeout {
                    entry.expires = now + Duration::from_secs(timeout.into());
                    self.first_expiry = self.first_expiry.min(entry.expires);
                }
                entry.is_liberal = true;
                let reply = entry.flow.reply;
                entry.flow.merge(&Flow { id: None, ..flow });
                entry.flow.reply = reply;
                let flow = entry.flow;
                self.emit(Change::Update, origin, flow);
            }
            Op::Delete(key, id) => {
                let Some(entry) = self.find(&key) else {
                    return failed(KernelError::NotFound);
                };
                if id.is_some() && id != entry.flow.id {
                    return failed(KernelError::NotFound);
                }
                let key = entry.flow.key();
                self.remove(&key, origin);
            }
            Op::Get(key) => {
                return match self.find(&key) {
                    Some(entry) => Outcome::Found(Box::new(Found {
                        flow: Self::shown(entry, now),
                        is_liberal: entry.is_liberal,
                    })),
                    None => failed(KernelError::NotFound),
                };
            }
            Op::CreateExpectation(_)
            | Op::UpdateExpectation(_)
            | Op::DeleteExpectation(_)
            | Op::FlushExpectations => {
                return self.execute_about_expectations(now, origin, &request.op);
            }
        }
        Outcome::Done
    }
}
