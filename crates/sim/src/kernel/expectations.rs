//! The model kernel's expectations: helpers predict flows, flows come as predicted, and
//! what nobody came for ends with its time or with its master.

use std::ops::Bound;
use std::time::Duration;

use flow::{ExpectKey, Expectation, Flow, FlowKey, L4, Status, Tuple};
use replica::{Change, ExpectationEvent, Instant, KernelError, Op, Origin, Outcome};

use super::{Kernel, Prediction, Reported};

/// Seconds that the helper's policy gives what a request creates.
const POLICY_SECS: u32 = 300;

impl Kernel {
    /// Number of expectations.
    pub fn expectations_len(&self) -> usize {
        self.predictions.len()
    }

    /// The expectation of a key, with the timeout that it last got.
    pub fn expectation(&self, key: &ExpectKey) -> Option<&Expectation> {
        self.predictions.get(key).map(|p| &p.expectation)
    }

    /// All expectations, with what is left of their timeouts.
    pub fn expectations(&self, now: Instant) -> Vec<Expectation> {
        self.dump_expectations(now, None, usize::MAX)
    }

    /// Up to `max` expectations of a dump, with what is left of their timeouts.
    pub fn dump_expectations(
        &self,
        now: Instant,
        behind: Option<ExpectKey>,
        max: usize,
    ) -> Vec<Expectation> {
        let from = behind.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.predictions.range((from, Bound::Unbounded));
        let shown = rest.map(|(_, p)| Expectation {
            timeout: Some(p.expires.since(now).as_secs() as u32),
            ..p.expectation
        });
        shown.take(max).collect()
    }

    /// A helper predicts a flow.
    pub fn predict(&mut self, now: Instant, expectation: &Expectation) {
        self.put_expectation(now, *expectation, Origin::Traffic);
    }

    /// A helper takes a prediction back.
    pub fn end_expectation(&mut self, key: &ExpectKey) {
        self.remove_expectation(key, Origin::Traffic);
    }

    /// The predicted flow comes, from port `source`: the expectation ends, and the flow
    /// gets its translation. `None` if nobody expects it.
    pub fn meet(&mut self, key: &ExpectKey, source: u16) -> Option<Flow> {
        let expectation = *self.expectation(key)?;
        self.end_expectation(key);
        let mut orig = expectation.tuple;
        if let L4::Ports { dst, .. } = orig.l4 {
            orig.l4 = L4::Ports { src: source, dst };
        }
        let mut flow = Flow::new(orig);
        flow.zone = expectation.zone;
        flow.master = Some(expectation.master);
        flow.status = Status::CONFIRMED.with(Status::EXPECTED);
        if let Some(nat) = expectation.nat {
            flow.reply = translated(&flow.reply, &nat.tuple);
            let bits = [Status::DST_NAT, Status::DST_NAT_DONE, Status::SRC_NAT_DONE];
            flow.status = bits.into_iter().fold(flow.status, Status::with);
        }
        Some(flow)
    }

    pub(super) fn end_predictions_of(&mut self, master: &FlowKey) {
        let all = self.predictions.keys().filter(|k| k.master() == *master);
        for key in all.copied().collect::<Vec<_>>() {
            self.end_expectation(&key);
        }
    }

    pub(super) fn expire_predictions(&mut self, now: Instant) {
        let over = self.predictions.iter().filter(|(_, p)| p.expires <= now);
        for key in over.map(|(k, _)| *k).collect::<Vec<_>>() {
            self.end_expectation(&key);
        }
    }

    fn put_expectation(&mut self, now: Instant, expectation: Expectation, origin: Origin) {
        let secs = expectation.timeout.unwrap_or(POLICY_SECS);
        let expires = now + Duration::from_secs(secs.into());
        let prediction = Prediction {
            expectation,
            expires,
        };
        self.predictions.insert(expectation.key(), prediction);
        self.emit_expectation(Change::New, origin, expectation);
    }

    fn remove_expectation(&mut self, key: &ExpectKey, origin: Origin) -> bool {
        let removed = self.predictions.remove(key);
        if let Some(prediction) = &removed {
            self.emit_expectation(Change::Destroy, origin, prediction.expectation);
        }
        removed.is_some()
    }

    fn emit_expectation(&mut self, change: Change, origin: Origin, expectation: Expectation) {
        self.report(Reported::Expectation(ExpectationEvent {
            change,
            origin,
            expectation,
        }));
    }

    /// What a request about expectations does. One that changes a timeout causes no event.
    pub(super) fn execute_about_expectations(
        &mut self,
        now: Instant,
        origin: Origin,
        op: &Op,
    ) -> Outcome {
        match op {
            Op::CreateExpectation(e) => {
                if self.find(&e.key().master()).is_none() {
                    return Outcome::Failed(KernelError::NotFound);
                }
                if self.predictions.contains_key(&e.key()) {
                    return Outcome::Failed(KernelError::Exists);
                }
                let created = Expectation {
                    timeout: Some(POLICY_SECS),
                    ..*e
                };
                self.put_expectation(now, created, origin);
            }
            Op::UpdateExpectation(e) => {
                let Some(held) = self.predictions.get_mut(&e.key()) else {
                    return Outcome::Failed(KernelError::NotFound);
                };
                if let Some(secs) = e.timeout {
                    held.expectation.timeout = Some(secs);
                    held.expires = now + Duration::from_secs(secs.into());
                }
            }
            Op::DeleteExpectation(key) => {
                if !self.remove_expectation(key, origin) {
                    return Outcome::Failed(KernelError::NotFound);
                }
            }
            _ => {
                for key in self.predictions.keys().copied().collect::<Vec<_>>() {
                    self.remove_expectation(&key, origin);
                }
            }
        }
        Outcome::Done
    }
}

/// The reply tuple of a flow whose destination becomes the source of a saved tuple.
fn translated(reply: &Tuple, saved: &Tuple) -> Tuple {
    let mut out = *reply;
    if let Some(addrs) = reply.addrs.with_src(saved.addrs.src()) {
        out.addrs = addrs;
    }
    if let (L4::Ports { dst, .. }, L4::Ports { src, .. }) = (reply.l4, saved.l4) {
        out.l4 = L4::Ports { src, dst };
    }
    out
}
