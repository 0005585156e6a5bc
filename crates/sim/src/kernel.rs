//! A model of the kernel's table: what it does with packets, requests and time.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use flow::{ExpectKey, Expectation, Flow, FlowKey, Status};
use replica::{
    Change, DumpScope, Instant, KernelError, KernelEvent, KernelRequest, Op, Origin, Outcome,
    Purpose,
};

#[derive(Clone, Copy, Debug)]
struct Entry {
    flow: Flow,
    expires: Instant,
}

/// A table of flows.
#[derive(Debug)]
pub struct Kernel {
    table: BTreeMap<FlowKey, Entry>,
    events: VecDeque<KernelEvent>,
    next_id: u32,
    /// Expectations; their events and their time are the test's.
    pub expectations: BTreeMap<ExpectKey, Expectation>,
    /// Helpers that it has.
    pub helpers: Vec<&'static str>,
    /// Drops every event, as after an overrun.
    pub deaf: bool,
    /// Every request in the order it came.
    pub requests: Vec<KernelRequest>,
    /// Most events that wait to be read; beyond it they are dropped. 0: no bound.
    pub events_max: usize,
    overrun: bool,
    /// The table is full: nothing is created any more.
    pub is_full: bool,
    /// Identifies the table: another one after the machine has started again.
    pub table_id: u32,
}

impl Default for Kernel {
    fn default() -> Kernel {
        Kernel {
            table: BTreeMap::new(),
            table_id: 1,
            events: VecDeque::new(),
            next_id: 0,
            expectations: BTreeMap::new(),
            helpers: Vec::new(),
            deaf: false,
            requests: Vec::new(),
            events_max: 0,
            overrun: false,
            is_full: false,
        }
    }
}

impl Kernel {
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
        self.table.get(key).map(|e| &e.flow)
    }

    fn emit(&mut self, change: Change, origin: Origin, flow: Flow) {
        let is_full = self.events_max > 0 && self.events.len() >= self.events_max;
        self.overrun |= is_full;
        if !self.deaf && !is_full {
            self.events.push_back(KernelEvent {
                change,
                origin,
                flow,
            });
        }
    }

    /// Packets make a flow, or change it.
    pub fn traffic(&mut self, now: Instant, flow: &Flow) {
        let known = self.table.get(&flow.key()).and_then(|e| e.flow.id);
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
        self.put(now, flow);
        self.emit(change, Origin::Traffic, flow);
    }

    /// Packets refresh a timer: no event.
    pub fn refresh(&mut self, now: Instant, key: &FlowKey, timeout: u32) {
        let entry = self.table.get_mut(key).expect("the flow is there");
        entry.expires = now + Duration::from_secs(timeout.into());
    }

    /// A flow that no event tells of.
    pub fn silently(&mut self, now: Instant, flow: &Flow) {
        let deaf = std::mem::replace(&mut self.deaf, true);
        self.traffic(now, flow);
        self.deaf = deaf;
    }

    /// A flow ends.
    pub fn end(&mut self, key: &FlowKey) {
        if let Some(entry) = self.table.remove(key) {
            self.emit(Change::Destroy, Origin::Traffic, entry.flow);
        }
    }

    fn put(&mut self, now: Instant, flow: Flow) {
        let expires = now + Duration::from_secs(flow.timeout.unwrap_or(30).into());
        self.table.insert(flow.key(), Entry { flow, expires });
    }

    /// Ends what has run down, and says what that is.
    pub fn expire(&mut self, now: Instant) -> Vec<FlowKey> {
        let over = self.table.iter().filter(|(_, e)| e.expires <= now);
        let over: Vec<_> = over.map(|(k, _)| *k).collect();
        for key in &over {
            self.end(key);
        }
        over
    }

    /// The events that wait, and whether some were dropped before them.
    pub fn take_events(&mut self) -> (Vec<KernelEvent>, bool) {
        let overrun = std::mem::take(&mut self.overrun);
        (self.events.drain(..).collect(), overrun)
    }

    /// Up to `max` entries of a dump behind the key where it stands.
    pub fn dump(
        &self,
        now: Instant,
        scope: DumpScope,
        behind: Option<FlowKey>,
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
            helpers: self.helpers,
            next_id: self.next_id,
            table_id: self.table_id + 1,
            events_max: self.events_max,
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
            .get(key)
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
                let flow = Flow {
                    id: Some(self.next_id),
                    ..flow
                };
                self.put(now, flow);
                self.emit(Change::New, origin, flow);
            }
            Op::Update(flow) => {
                let Some(entry) = self.table.get_mut(&flow.key()) else {
                    return failed(KernelError::NotFound);
                };
                let lost = entry.flow.status.0 & !flow.status.0;
                if lost & (Status::SEEN_REPLY.0 | Status::ASSURED.0) != 0 {
                    return failed(KernelError::Busy);
                }
                if let Some(timeout) = flow.timeout {
                    entry.expires = now + Duration::from_secs(timeout.into());
                }
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
                let flow = entry.flow;
                self.table.remove(&flow.key());
                self.emit(Change::Destroy, origin, flow);
            }
            Op::Get(key) => {
                return match self.find(&key) {
                    Some(entry) => Outcome::Found(Box::new(Self::shown(entry, now))),
                    None => failed(KernelError::NotFound),
                };
            }
            Op::CreateExpectation(e) => {
                if self.find(&e.key().master()).is_none() {
                    return failed(KernelError::NotFound);
                }
                if self.expectations.contains_key(&e.key()) {
                    return failed(KernelError::Exists);
                }
                self.expectations.insert(e.key(), e);
            }
            Op::UpdateExpectation(e) => match self.expectations.get_mut(&e.key()) {
                Some(held) => held.timeout = e.timeout.or(held.timeout),
                None => return failed(KernelError::NotFound),
            },
            Op::DeleteExpectation(key) => {
                if self.expectations.remove(&key).is_none() {
                    return failed(KernelError::NotFound);
                }
            }
            Op::FlushExpectations => self.expectations.clear(),
        }
        Outcome::Done
    }
}
