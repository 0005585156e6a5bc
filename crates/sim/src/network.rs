//! The dedicated links between two replicas, and what goes wrong on them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use replica::Instant;

use crate::plan::{Fault, Plan};
use crate::random::Random;

/// A datagram under way. Ordered by arrival, then by insertion.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Datagram {
    /// When it arrives.
    pub at: Instant,
    number: u64,
    /// To which replica.
    pub to: usize,
    /// Over which link.
    pub link: usize,
    /// Which run of the sender sent it; `None` if it is forged.
    pub run: Option<u32>,
    /// Its payload.
    pub bytes: Vec<u8>,
}

/// Both links, in both directions.
#[derive(Debug)]
pub struct Network {
    random: Random,
    under_way: BinaryHeap<Reverse<Datagram>>,
    number: u64,
    /// Directions, by sender, that are cut.
    pub cut: [bool; 2],
    /// Links that are down.
    pub down: [bool; 2],
    /// All links are cut, in both directions.
    pub is_out: bool,
    /// Datagrams by sender that are lost in the present burst.
    burst: [u32; 2],
    /// Sent, delivered and lost; a second copy counts as sent.
    pub sent: u64,
    /// See `sent`.
    pub delivered: u64,
    /// See `sent`.
    pub lost: u64,
}

impl Network {
    /// Links without anything under way.
    pub fn new(seed: u64) -> Network {
        Network {
            random: Random::new(seed, "network"),
            under_way: BinaryHeap::new(),
            number: 0,
            cut: [false; 2],
            down: [false; 2],
            is_out: false,
            burst: [0; 2],
            sent: 0,
            delivered: 0,
            lost: 0,
        }
    }

    /// What is sent from now on in both directions arrives, unless a link is down.
    pub fn heal(&mut self) {
        self.cut = [false; 2];
        self.is_out = false;
        self.burst = [0; 2];
    }

    /// What is under way is lost, and what is sent from now on.
    pub fn lose_all(&mut self) {
        self.lost += self.in_flight();
        self.under_way.clear();
        self.is_out = true;
    }

    /// Number of datagrams under way.
    pub fn in_flight(&self) -> u64 {
        self.under_way.len() as u64
    }

    /// Replica `from` sends a datagram in its run `run`.
    pub fn send(
        &mut self,
        now: Instant,
        plan: Option<&Plan>,
        from: usize,
        run: u32,
        link: usize,
        bytes: &[u8],
    ) {
        let has = |fault| plan.is_some_and(|p| p.has(fault));
        let strength = plan.map_or(0.0, |p| p.strength);
        self.sent += 1;
        if self.is_out || self.cut[from] || self.down[link] {
            self.lost += 1;
            return;
        }
        if has(Fault::BurstLoss) && self.random.chance(0.005 * strength) {
            self.burst[from] = 1 + self.random.below(30) as u32;
        }
        if self.burst[from] > 0 {
            self.burst[from] -= 1;
            self.lost += 1;
            return;
        }
        if has(Fault::Loss) && self.random.chance(0.3 * strength) {
            self.lost += 1;
            return;
        }
        let mut bytes = bytes.to_vec();
        if has(Fault::Truncate) && self.random.chance(0.05 * strength) {
            let len = self.random.below(bytes.len() as u64);
            bytes.truncate(len as usize);
        }
        if has(Fault::Garbage) && self.random.chance(0.05 * strength) && !bytes.is_empty() {
            bytes[0] = 0x20 | bytes[0] & 15;
        }
        let mut delay = Duration::from_micros(100);
        if has(Fault::Delay) && self.random.chance(0.2 * strength) {
            delay += self.random.within(Duration::from_millis(300));
        }
        let mut again = |part, max| {
            let happens = self.random.chance(part);
            happens.then(|| delay + self.random.within(max))
        };
        let mut copies = vec![delay];
        if has(Fault::Duplicate) {
            copies.extend(again(0.2 * strength, Duration::from_millis(5)));
        }
        if has(Fault::Replay) {
            let max = plan.map_or(Duration::ZERO, Plan::replay_max);
            copies.extend(again(0.02 * strength, max));
        }
        self.sent += copies.len() as u64 - 1;
        for delay in copies {
            self.number += 1;
            self.under_way.push(Reverse(Datagram {
                at: now + delay,
                number: self.number,
                to: 1 - from,
                link,
                run: Some(run),
                bytes: bytes.clone(),
            }));
        }
    }

    /// Somebody sends a datagram in the name of the peer of replica `to`.
    pub fn forge(&mut self, now: Instant, to: usize, bytes: Vec<u8>) {
        self.sent += 1;
        self.number += 1;
        self.under_way.push(Reverse(Datagram {
            at: now,
            number: self.number,
            to,
            link: 0,
            run: None,
            bytes,
        }));
    }

    /// The next datagram that has arrived by `now`.
    pub fn receive(&mut self, now: Instant) -> Option<Datagram> {
        if self.under_way.peek()?.0.at > now {
            return None;
        }
        self.delivered += 1;
        self.under_way.pop().map(|d| d.0)
    }
}
