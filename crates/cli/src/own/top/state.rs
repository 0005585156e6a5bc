//! What is known from the looks so far.

use std::time::SystemTime;

use control::top::{Lag, LinkRates, LinkRow, Queues, Rates, Tables, Talkers, TopRow};
use serde_json::Value;

use super::sample::Sample;
use crate::own::client::Failure;
use crate::own::text;

/// The last look, what has changed since the one before, and the last reading of the table.
#[derive(Debug, Default)]
pub(super) struct State {
    last: Option<Sample>,
    /// Seconds between the last two looks, and what has happened in between.
    rates: Option<(f64, Rates, Vec<LinkRates>)>,
    restarted: bool,
    talkers: Option<Talkers>,
    /// Why the kernel's table could not be read.
    no_talkers: Option<String>,
    /// Why the last look was none.
    error: Option<String>,
}

impl State {
    /// A look.
    pub(super) fn take(&mut self, sample: Sample) {
        let rates = self.last.as_ref().map(|before| sample.rates(before));
        self.restarted = rates == Some(None);
        let secs = |before: &Sample| sample.since(before).as_secs_f64();
        self.rates = match (rates, &self.last) {
            (Some(Some((rates, links))), Some(before)) => Some((secs(before), rates, links)),
            _ => None,
        };
        self.last = Some(sample);
        self.error = None;
    }

    /// A reading of the kernel's table, or why it could not be read.
    pub(super) fn take_reading(&mut self, reading: Result<Talkers, Failure>) {
        (self.talkers, self.no_talkers) = match reading {
            Ok(talkers) => (Some(talkers), None),
            Err(failure) => (None, Some(failure.error)),
        };
    }

    /// Why there are none.
    pub(super) fn no_talkers(&self) -> Option<&str> {
        self.no_talkers.as_deref()
    }

    /// A look that was none. What was seen before stays.
    pub(super) fn fail(&mut self, why: String) {
        self.error = Some(why);
        self.rates = None;
    }

    /// Why the last look was none.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// What is shown; `None` before the first look.
    pub(super) fn row(&self) -> Option<TopRow> {
        let status = &self.last.as_ref()?.status;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Some(TopRow {
            time: now.map_or(0, |t| t.as_millis() as u64),
            verdict: text::fail_over(status),
            safe: status["safe"] == true,
            restarted: self.restarted,
            uptime: number(status, "uptime").unwrap_or(0),
            role: word(status, "role"),
            seconds: self.rates.as_ref().map(|(secs, ..)| *secs),
            rates: self.rates.as_ref().map(|(_, rates, _)| *rates),
            queues: queues(status),
            lag: lag(status),
            tables: Tables {
                kernel: number(status, "kernel_flows"),
                kernel_max: number(status, "kernel_max"),
                internal: number(&status["internal"], "entries").unwrap_or(0),
                external: number(&status["external"], "entries").unwrap_or(0),
            },
            peer: status["peer"].clone(),
            links: self.links(status),
            talkers: self.talkers.clone(),
            no_talkers: self.no_talkers.clone(),
        })
    }

    fn links(&self, status: &Value) -> Vec<LinkRow> {
        let rates = |n: usize| self.rates.as_ref().and_then(|(.., links)| links.get(n));
        let links = status["links"].as_array().into_iter().flatten().enumerate();
        links
            .map(|(n, link)| LinkRow {
                device: word(link, "device"),
                transport: word(link, "transport"),
                status: word(link, "status"),
                active: link["active"] == true,
                rates: rates(n).copied(),
            })
            .collect()
    }
}

fn number(of: &Value, key: &str) -> Option<u64> {
    of[key].as_u64()
}

fn word(of: &Value, key: &str) -> String {
    of[key].as_str().unwrap_or("?").to_owned()
}

fn queues(status: &Value) -> Queues {
    let count = |key| number(status, key).unwrap_or(0);
    let buffer = &status["event_buffer"];
    Queues {
        owed: count("owed"),
        unacknowledged: count("unacknowledged"),
        unsent: count("unsent"),
        event_buffer: buffer[0].as_u64().zip(buffer[1].as_u64()),
    }
}

fn lag(status: &Value) -> Lag {
    let (peer, ready) = (&status["peer"], &status["ready"]);
    let held = number(peer, "should_hold").zip(number(peer, "held"));
    Lag {
        peer_lacks: held.map(|(all, held)| all.saturating_sub(held)),
        unprotected: number(status, "unprotected"),
        we_lack: number(ready, "lost"),
        seconds_left: number(ready, "seconds_left"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::*;

    /// A status after `n` thousand events.
    fn status(pid: u64, n: u64) -> Value {
        json!({
            "pid": pid, "uptime": 3 * 3600 + n, "role": "primary", "safe": true, "unprotected": 0,
            "ready": { "lost": null, "seconds_left": null },
            "owed": 3, "unacknowledged": 40, "unsent": 0, "event_buffer": [1280, 65_536_000],
            "events_received": 1000 * n,
            "kernel_flows": 12_000, "kernel_max": 262_144,
            "internal": { "entries": 11_990, "created": 100 * n, "updated": 300 * n,
                          "destroyed": 90 * n },
            "external": { "entries": 7 },
            "peer": { "epoch": 77, "role": "backup", "restarts": 1, "held": 11_980,
                      "should_hold": 11_990, "silent": 0 },
            "links": [
                { "device": "eth2", "transport": "UDP", "status": "RUNNING", "active": true,
                  "packets": [50 * n, 10 * n], "bytes": [60_000 * n, 400 * n] },
                { "device": "eth3", "transport": "UDP", "status": "DOWN", "active": false,
                  "packets": [0, 0], "bytes": [0, 0] },
            ],
        })
    }

    fn at(begun: Instant, secs: u64, pid: u64, n: u64) -> Sample {
        Sample {
            at: begun + Duration::from_secs(secs),
            status: status(pid, n),
        }
    }

    /// After two looks, two seconds apart.
    pub(in crate::own::top) fn two_looks() -> State {
        let begun = Instant::now();
        let mut state = State::default();
        state.take(at(begun, 0, 1, 10));
        state.take(at(begun, 2, 1, 14));
        state
    }

    #[test]
    fn rates_are_what_has_happened_in_between() {
        let row = two_looks().row().unwrap();
        assert_eq!((row.seconds, row.restarted), (Some(2.0), false));
        let rates = row.rates.unwrap();
        assert_eq!((rates.events, rates.created), (2000.0, 200.0));
        assert_eq!((rates.updated, rates.destroyed), (600.0, 180.0));
        let links = LinkRates {
            datagrams_sent: 100.0,
            datagrams_received: 20.0,
            bytes_sent: 120_000.0,
            bytes_received: 800.0,
        };
        assert_eq!(rates.links, links, "of both links");
        assert_eq!(row.links[0].rates, Some(links));
        assert_eq!(row.links[1].rates, Some(LinkRates::default()));
        assert_eq!((row.lag.peer_lacks, row.lag.we_lack), (Some(10), None));
        assert_eq!(row.verdict, "SAFE: the peer holds all our flows");
    }

    #[test]
    fn the_first_look_has_no_rates() {
        let mut state = State::default();
        assert!(state.row().is_none());
        state.take(at(Instant::now(), 0, 1, 10));
        let row = state.row().unwrap();
        assert_eq!((row.seconds, row.rates, row.restarted), (None, None, false));
        assert_eq!(row.links[0].rates, None);
    }

    #[test]
    fn counters_that_went_back_make_no_rates() {
        let begun = Instant::now();
        // Another process; and one that has got the same number.
        for pid in [2, 1] {
            let mut state = State::default();
            state.take(at(begun, 0, 1, 10));
            state.take(at(begun, 1, 1, 11));
            state.take(at(begun, 2, pid, 3));
            let row = state.row().unwrap();
            assert_eq!((row.rates, row.restarted), (None, true));
            state.take(at(begun, 3, pid, 4));
            let row = state.row().unwrap();
            assert_eq!(row.rates.map(|r| r.events), Some(1000.0));
            assert!(!row.restarted);
        }
    }

    #[test]
    fn after_a_look_that_was_none_the_rates_are_over_the_whole_time() {
        let begun = Instant::now();
        let mut state = State::default();
        state.take(at(begun, 0, 1, 10));
        state.fail("no daemon".to_owned());
        assert_eq!(state.error(), Some("no daemon"));
        assert_eq!(state.row().unwrap().rates, None);
        state.take(at(begun, 4, 1, 12));
        assert_eq!(state.error(), None);
        let row = state.row().unwrap();
        assert_eq!(
            (row.seconds, row.rates.map(|r| r.events)),
            (Some(4.0), Some(500.0))
        );
    }
}
