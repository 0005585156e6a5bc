//! What the original does with expectations: as with flows, but it keeps one only while it
//! knows its master, and a repair after an overrun does not read them.

use std::collections::BTreeMap;

use flow::{ExpectKey, Expectation};
use replica::{Change, ExpectationEvent, Instant, Origin, Seq, Which};
use wire::StateKind;
use wire::v1::encode_expectation;

use super::{Element, Original};

/// An expectation of its own kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Object {
    expectation: Expectation,
    kind: StateKind,
    /// ALARM: when it is sent again.
    refresh_at: Instant,
}

/// Both caches of expectations.
#[derive(Debug, Default)]
pub(super) struct Expectations {
    pub(super) internal: BTreeMap<ExpectKey, Object>,
    pub(super) external: BTreeMap<ExpectKey, (Expectation, Instant)>,
}

impl Expectations {
    /// The message about one is acknowledged, or need not be.
    pub(super) fn free(&mut self, key: &ExpectKey) {
        let object = self.internal.get(key);
        if object.is_some_and(|o| o.kind == StateKind::Delete) {
            self.internal.remove(key);
        }
    }
}

/// An expectation as the original's commit creates it: its library leaves the translation
/// out of the request.
pub fn committed(e: &Expectation) -> Expectation {
    Expectation {
        nat: None,
        class: None,
        function: None,
        ..*e
    }
}

impl Original {
    /// Expectations of a cache that have not ended.
    pub fn expectations(&self, which: Which) -> BTreeMap<ExpectKey, Expectation> {
        match which {
            Which::Internal => {
                let all = self.expectations.internal.iter();
                let live = all.filter(|(_, o)| o.kind != StateKind::Delete);
                live.map(|(k, o)| (*k, o.expectation)).collect()
            }
            Which::External => {
                let all = self.expectations.external.iter();
                all.map(|(k, (e, _))| (*k, *e)).collect()
            }
        }
    }

    /// An event of the kernel about an expectation.
    pub fn handle_expectation(&mut self, now: Instant, event: &ExpectationEvent) {
        self.now = now;
        if !self.options.expectations || event.origin == Origin::Inject {
            return;
        }
        let key = event.expectation.key();
        let element = Element::Expectation(key);
        let send = event.origin == Origin::Traffic;
        if event.change == Change::Destroy {
            let Some(object) = self.expectations.internal.get_mut(&key) else {
                return;
            };
            object.kind = StateKind::Delete;
            if !send {
                self.expectations.internal.remove(&key);
                self.drop_from_queues(element);
            }
        } else {
            if !self.internal.contains_key(&key.master()) {
                return;
            }
            self.drop_from_queues(element);
            let object = Object {
                expectation: event.expectation,
                kind: StateKind::New,
                refresh_at: self.refresh_at(),
            };
            self.expectations.internal.insert(key, object);
        }
        if send {
            self.owe_element(element);
        }
    }

    pub(super) fn owe_all_expectations(&mut self) {
        for key in self
            .expectations
            .internal
            .keys()
            .copied()
            .collect::<Vec<_>>()
        {
            self.owe_element(Element::Expectation(key));
        }
    }

    /// ALARM: sends again what is due, and drops what was not sent again.
    pub(super) fn refresh_expectations(&mut self) {
        let now = self.now;
        let due = self.expectations.internal.iter();
        let due = due.filter(|(_, o)| o.refresh_at <= now);
        for key in due.map(|(k, _)| *k).collect::<Vec<_>>() {
            let at = self.refresh_at();
            if let Some(object) = self.expectations.internal.get_mut(&key) {
                object.refresh_at = at;
            }
            self.owe_element(Element::Expectation(key));
        }
        let limit = self.options.cache_timeout;
        let external = &mut self.expectations.external;
        external.retain(|_, (_, at)| now.since(*at) < limit);
    }

    pub(super) fn encode_expectation(&self, bytes: &mut Vec<u8>, key: ExpectKey, seq: Seq) {
        if let Some(object) = self.expectations.internal.get(&key) {
            let flags = self.object_flags();
            encode_expectation(bytes, object.kind, flags, seq, &object.expectation, true);
        }
    }

    pub(super) fn deliver_expectation(&mut self, kind: StateKind, e: &Expectation) {
        let key = e.key();
        if kind == StateKind::Delete {
            self.expectations.external.remove(&key);
        } else {
            self.expectations.external.insert(key, (*e, self.now));
        }
    }
}
