//! One look at the daemon: its status, and the counters of which rates are made.

use std::time::{Duration, Instant};

use control::top::{LinkRates, Rates};
use serde_json::Value;

/// The status at some time.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) status: Value,
}

/// Counters since the daemon's start.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    events: u64,
    created: u64,
    updated: u64,
    destroyed: u64,
    links: LinkCounts,
}

/// The same of one link, or of all.
#[derive(Clone, Copy, Debug, Default)]
struct LinkCounts {
    datagrams: [u64; 2],
    bytes: [u64; 2],
}

impl Sample {
    /// A look just now.
    pub(super) fn new(status: Value) -> Sample {
        Sample {
            at: Instant::now(),
            status,
        }
    }

    /// The time since an earlier look.
    pub(super) fn since(&self, before: &Sample) -> Duration {
        self.at.duration_since(before.at)
    }

    /// What has happened since an earlier look, a second; of all, and of each link in file order.
    /// `None` if the daemon has started again in between, so that its counters began anew.
    pub(super) fn rates(&self, before: &Sample) -> Option<(Rates, Vec<LinkRates>)> {
        if self.status["pid"] != before.status["pid"] {
            return None;
        }
        let secs = self.since(before).as_secs_f64();
        let rate = |now: u64, then: u64| Some(now.checked_sub(then)? as f64 / secs);
        let of_link = |now: LinkCounts, then: LinkCounts| {
            Some(LinkRates {
                datagrams_sent: rate(now.datagrams[0], then.datagrams[0])?,
                datagrams_received: rate(now.datagrams[1], then.datagrams[1])?,
                bytes_sent: rate(now.bytes[0], then.bytes[0])?,
                bytes_received: rate(now.bytes[1], then.bytes[1])?,
            })
        };
        let (now, then) = (self.counts(), before.counts());
        let rates = Rates {
            events: rate(now.events, then.events)?,
            created: rate(now.created, then.created)?,
            updated: rate(now.updated, then.updated)?,
            destroyed: rate(now.destroyed, then.destroyed)?,
            links: of_link(now.links, then.links)?,
        };
        let links = self.links().zip(before.links());
        let links: Option<_> = links.map(|(now, then)| of_link(now, then)).collect();
        Some((rates, links?))
    }

    fn counts(&self) -> Counts {
        let number = |v: &Value| v.as_u64().unwrap_or(0);
        let internal = &self.status["internal"];
        let mut links = LinkCounts::default();
        for link in self.links() {
            for n in [0, 1] {
                links.datagrams[n] += link.datagrams[n];
                links.bytes[n] += link.bytes[n];
            }
        }
        Counts {
            events: number(&self.status["events_received"]),
            created: number(&internal["created"]),
            updated: number(&internal["updated"]),
            destroyed: number(&internal["destroyed"]),
            links,
        }
    }

    fn links(&self) -> impl Iterator<Item = LinkCounts> {
        let both = |v: &Value| [0, 1].map(|n| v[n].as_u64().unwrap_or(0));
        let links = self.status["links"].as_array().into_iter().flatten();
        links.map(move |link| LinkCounts {
            datagrams: both(&link["packets"]),
            bytes: both(&link["bytes"]),
        })
    }
}
