//! When which part of the kernel's table is looked at again.
//!
//! Packets refresh a timeout without an event, so a flow must be looked at again before its
//! copy at the peer has run down: within a quarter of its timeout ([`Rounds::note`]). That is
//! all that makes a look urgent, and it makes the protocols with short timeouts urgent only
//! while they have flows. Apart from it the whole table is looked at for flows that no event
//! has reported, the more rarely the less there was to find, and as its size allows.

use std::time::Duration;

use flow::{Flow, FlowKey, Proto};

use crate::kernel::DumpScope;
use crate::time::Instant;

/// Protocols whose timeouts are short and refreshed without events.
const SHORT_LIVED: [(bool, Proto); 6] = [
    (false, Proto::UDP),
    (true, Proto::UDP),
    (false, Proto::ICMP),
    (true, Proto::ICMPV6),
    (false, Proto::GRE),
    (true, Proto::GRE),
];

/// A look at the whole table costs 3 to 5 µs a flow. With this much time a flow between two
/// they take one percent of a core.
const URGENT_PER_FLOW: Duration = Duration::from_micros(500);
/// The same if nothing is urgent: half a thousandth of a core.
const LEISURELY_PER_FLOW: Duration = Duration::from_millis(10);
/// How often the interval is doubled at most.
const DOUBLED_MAX: u32 = 16;

/// The parts, and when they are due.
#[derive(Debug)]
pub(crate) struct Rounds {
    short: Duration,
    full: Duration,
    leisurely: Duration,
    /// When flows of these protocols need a look; `None` if there are none.
    short_lived: [Option<Instant>; SHORT_LIVED.len()],
    /// The same for the others, for which the whole table is looked at.
    others: Option<Instant>,
    /// When the last look at the whole table began, or a dump of it ended.
    looked: Instant,
    /// Flows of the last dump of the whole table, and of the caches at the last turn.
    table: usize,
    held: usize,
    /// False if flows are found by looks alone: then they come as often as they may.
    has_events: bool,
    /// Looks at the whole table in a row that found nothing new.
    fruitless: u32,
    /// The look under way has found something.
    has_found: bool,
}

impl Rounds {
    /// `short` and `full`: the least time between two looks at a part, and at the whole;
    /// `leisurely`: at the whole, if nothing is urgent.
    pub(crate) fn new(short: Duration, full: Duration, leisurely: Duration) -> Rounds {
        Rounds {
            short,
            full,
            leisurely,
            short_lived: [Some(Instant::START + short); SHORT_LIVED.len()],
            others: None,
            looked: Instant::START,
            table: 0,
            held: 0,
            has_events: true,
            fruitless: 0,
            has_found: false,
        }
    }

    /// Events will not tell of all flows: every look is needed.
    pub(crate) fn expect_no_events(&mut self) {
        self.has_events = false;
    }

    /// The kernel has this flow, with this timeout, and the peer has or will have a copy.
    pub(crate) fn note(&mut self, now: Instant, flow: &Flow) {
        let Some(secs) = flow.timeout else { return };
        let within = Duration::from_secs(secs.into()) / 4;
        let (part, at) = match part_of(&flow.key()) {
            Some(n) => (&mut self.short_lived[n], now + within.max(self.short)),
            None => (&mut self.others, now + within),
        };
        *part = Some(part.map_or(at, |due| due.min(at)));
    }

    /// The look under way has found what no event has reported: such things come in numbers.
    pub(crate) fn found(&mut self, flow: &FlowKey) {
        // Of the short-lived ones timeouts are found refreshed all the time.
        self.has_found |= part_of(flow).is_none();
    }

    /// A dump of the whole table has ended, with so many flows.
    pub(crate) fn dumped(&mut self, now: Instant, flows: usize) {
        self.table = flows;
        self.looked = now;
    }

    /// Events tell of all flows that there are: none is older than we are.
    pub(crate) fn trust_events(&mut self) {
        self.fruitless = DOUBLED_MAX;
    }

    /// A look at the whole table is over.
    pub(crate) fn compared(&mut self) {
        let has_found = std::mem::take(&mut self.has_found);
        self.fruitless = if has_found { 0 } else { self.fruitless + 1 };
    }

    /// Something is not known that events would have reported.
    pub(crate) fn doubt(&mut self) {
        self.fruitless = 0;
    }

    /// Events were left out on purpose: what they would have reported is looked for.
    pub(crate) fn events_left_out(&mut self, now: Instant) {
        self.doubt();
        self.failed(now, DumpScope::All);
    }

    /// A look at this part has failed.
    pub(crate) fn failed(&mut self, now: Instant, scope: DumpScope) {
        match SHORT_LIVED.iter().position(|part| scope_of(part) == scope) {
            Some(n) => self.short_lived[n] = Some(now + self.short),
            None if scope == DumpScope::All => {
                self.others = Some(now);
                self.short_lived = [Some(now + self.short); SHORT_LIVED.len()];
            }
            None => {}
        }
    }

    /// When a look is due.
    pub(crate) fn next_due(&self) -> Instant {
        let short_lived = self.short_lived.iter().flatten().copied();
        short_lived.fold(self.whole_due(), Instant::min)
    }

    fn whole_due(&self) -> Instant {
        let flows = u32::try_from(self.held.max(self.table)).unwrap_or(u32::MAX);
        let urgent = self.full.max(URGENT_PER_FLOW.saturating_mul(flows));
        let leisurely = self.leisurely.max(LEISURELY_PER_FLOW.saturating_mul(flows));
        let earliest = self.looked + urgent;
        if !self.has_events {
            return earliest;
        }
        let doubled = urgent.saturating_mul(1 << self.fruitless.min(DOUBLED_MAX));
        let latest = self.looked + doubled.min(leisurely);
        let due = self.others.map_or(latest, |due| due.min(latest));
        due.max(earliest)
    }

    /// The parts that are due now, with so many flows in the caches; the looks at them begin.
    pub(crate) fn take_due(&mut self, now: Instant, held: usize) -> Vec<DumpScope> {
        self.held = held;
        let mut due = Vec::new();
        if self.whole_due() <= now {
            self.begin_whole(now);
            due.push(DumpScope::All);
        }
        for (part, at) in SHORT_LIVED.iter().zip(&mut self.short_lived) {
            if at.take_if(|at| *at <= now).is_some() {
                due.push(scope_of(part));
            }
        }
        due
    }

    /// A look at the whole table begins: it is one at each part.
    pub(crate) fn begin_whole(&mut self, now: Instant) {
        self.looked = now;
        self.others = None;
        self.short_lived = [None; SHORT_LIVED.len()];
        self.has_found = false;
    }
}

fn scope_of(&(v6, proto): &(bool, Proto)) -> DumpScope {
    DumpScope::Protocol { v6, proto }
}

/// The part of the short-lived protocols that a flow belongs to.
fn part_of(flow: &FlowKey) -> Option<usize> {
    // Most flows are neither of these.
    if flow.orig.proto == Proto::TCP {
        return None;
    }
    let part = (!flow.orig.addrs.is_v4(), flow.orig.proto);
    SHORT_LIVED.iter().position(|p| *p == part)
}

#[cfg(test)]
mod tests;
