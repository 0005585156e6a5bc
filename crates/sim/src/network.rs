//! The dedicated links between the replicas, and what goes wrong on them.
//!
//! Who receives what whom sends is a set of [`Edges`]. Each edge has its own faults.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use replica::Instant;

use crate::plan::{Fault, Plan};
use crate::random::Random;

/// From one replica to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// Who sends.
    pub from: usize,
    /// Who receives.
    pub to: usize,
}

/// Who receives what whom sends.
#[derive(Clone, Debug)]
pub struct Edges(Vec<Edge>);

impl Edges {
    /// Two replicas that receive each other; each of `spares` further ones receives both,
    /// and nobody receives it.
    pub fn pair(spares: usize) -> Edges {
        let edge = |(from, to)| Edge { from, to };
        let pair = [(0, 1), (1, 0)].map(edge);
        let to_spares = (2..2 + spares).flat_map(|to| [(0, to), (1, to)].map(edge));
        Edges(pair.into_iter().chain(to_spares).collect())
    }

    /// All of them.
    pub fn all(&self) -> &[Edge] {
        &self.0
    }

    /// Those on which replica `n` sends.
    pub fn out_of(&self, n: usize) -> impl Iterator<Item = Edge> {
        self.0.iter().copied().filter(move |e| e.from == n)
    }

    /// Those on which replica `n` receives.
    pub fn toward(&self, n: usize) -> impl Iterator<Item = Edge> {
        self.0.iter().copied().filter(move |e| e.to == n)
    }

    /// The replica that replica `n` receives and that receives it: version 1 has one.
    pub fn peer(&self, n: usize) -> Option<usize> {
        let has = |from, to| self.0.contains(&Edge { from, to });
        self.out_of(n).map(|e| e.to).find(|peer| has(*peer, n))
    }
}

/// Who has sent a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sender {
    /// Which replica.
    pub node: usize,
    /// In which of its epochs, counted from 0.
    pub run: u32,
}

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
    /// Who has sent it; `None` if it is forged.
    pub sender: Option<Sender>,
    /// Its payload.
    pub bytes: Vec<u8>,
}

/// Both links, along all edges.
#[derive(Debug)]
pub struct Network {
    random: Random,
    edges: Edges,
    under_way: BinaryHeap<Reverse<Datagram>>,
    number: u64,
    /// Edges that are cut.
    pub cut: BTreeSet<Edge>,
    /// Links that are down.
    pub down: [bool; 2],
    /// All links are cut, along all edges.
    pub is_out: bool,
    /// Datagrams that are lost in the present burst.
    burst: BTreeMap<Edge, u32>,
    /// Sent, delivered and lost; a second copy counts as sent, and so does each edge.
    pub sent: u64,
    /// See `sent`.
    pub delivered: u64,
    /// See `sent`.
    pub lost: u64,
}

impl Network {
    /// Links without anything under way.
    pub fn new(seed: u64, edges: Edges) -> Network {
        Network {
            random: Random::new(seed, "network"),
            edges,
            under_way: BinaryHeap::new(),
            number: 0,
            cut: BTreeSet::new(),
            down: [false; 2],
            is_out: false,
            burst: BTreeMap::new(),
            sent: 0,
            delivered: 0,
            lost: 0,
        }
    }

    /// What is sent from now on arrives, unless a link is down.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.is_out = false;
        self.burst.clear();
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

    /// A replica sends a datagram. Faults are those of `plan`, none without.
    pub fn send(
        &mut self,
        now: Instant,
        plan: Option<&Plan>,
        sender: Sender,
        link: usize,
        bytes: &[u8],
    ) {
        for edge in self.edges.out_of(sender.node).collect::<Vec<_>>() {
            self.send_along(now, plan, sender, edge, link, bytes);
        }
    }

    fn send_along(
        &mut self,
        now: Instant,
        plan: Option<&Plan>,
        sender: Sender,
        edge: Edge,
        link: usize,
        bytes: &[u8],
    ) {
        let has = |fault| plan.is_some_and(|p| p.has(fault));
        let strength = plan.map_or(0.0, |p| p.strength);
        self.sent += 1;
        if self.is_out || self.cut.contains(&edge) || self.down[link] {
            self.lost += 1;
            return;
        }
        if has(Fault::BurstLoss) && self.random.chance(0.005 * strength) {
            let length = 1 + self.random.below(30) as u32;
            self.burst.insert(edge, length);
        }
        if let Some(left) = self.burst.get_mut(&edge).filter(|left| **left > 0) {
            *left -= 1;
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
                to: edge.to,
                link,
                sender: Some(sender),
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
            sender: None,
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

impl Datagram {
    /// A datagram that has just arrived at a replica, and that did not cross the network.
    pub fn arrived(now: Instant, to: usize, link: usize, bytes: Vec<u8>) -> Datagram {
        Datagram {
            at: now,
            number: 0,
            to,
            link,
            sender: None,
            bytes,
        }
    }
}
