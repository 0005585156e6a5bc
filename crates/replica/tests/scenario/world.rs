//! Two or more replicas with model kernels and a model link, on virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use flow::{Flow, FlowKey};
use replica::{
    Answer, Command, CommandId, Epoch, Event, Instant, LinkId, Replica, Settings, Which,
};
use sim::host::{Happened, Host, Pace, Sockets, Turn};
use sim::kernel::Kernel;
use sim::network::{Datagram, Sender};
use sim::random::Random;
use wire::v1::{Message, MessageType, messages};

use crate::pairs::settings;

/// Step of the virtual clock.
const STEP: Duration = Duration::from_millis(10);
/// Turns of a daemon that has more to do, in one step.
const TURNS_MAX: usize = 20;

/// One replica with its kernel.
pub(crate) struct Node {
    pub(crate) replica: Replica,
    pub(crate) kernel: Kernel,
    pub(crate) sockets: Sockets,
    /// How fast its surroundings are.
    pub(crate) pace: Pace,
    /// Everything the operator heard.
    pub(crate) heard: Vec<Event>,
    /// Datagrams sent.
    pub(crate) datagrams: usize,
    /// State messages sent.
    pub(crate) sent: usize,
    /// What it sends is lost.
    pub(crate) mute: bool,
    /// Part of what it sends that is lost, and that comes late, from 0 to 1.
    pub(crate) loss: f64,
    pub(crate) late: f64,
}

impl Node {
    fn new(settings: Settings) -> Node {
        Node {
            replica: Replica::new(settings),
            kernel: Kernel::default(),
            sockets: Sockets::default(),
            pace: Pace::PROMPT,
            heard: Vec::new(),
            datagrams: 0,
            sent: 0,
            mute: false,
            loss: 0.0,
            late: 0.0,
        }
    }

    /// How a command has ended, if it has.
    pub(crate) fn answer(&self, command: CommandId) -> Option<Answer> {
        self.heard.iter().find_map(|event| match event {
            Event::Done(id, answer) if *id == command => Some(*answer),
            _ => None,
        })
    }

    /// Flows of a cache, by key.
    pub(crate) fn flows(&self, which: Which) -> BTreeMap<FlowKey, Flow> {
        let mut found = BTreeMap::new();
        let mut position = cache::Position::default();
        let mut see = |flow: &Flow, _: replica::Age| {
            found.insert(flow.key(), *flow);
        };
        while let Some(next) = self.replica.walk(which, position, 100, &mut see) {
            position = next;
        }
        found
    }

    /// Number of flows of its internal cache that it announces.
    pub(crate) fn announced(&self) -> usize {
        let mut count = 0;
        let mut position = cache::Position::default();
        let mut see = |_: &Flow, age: replica::Age| count += usize::from(age.is_announced);
        while let Some(next) = self.replica.walk(Which::Internal, position, 100, &mut see) {
            position = next;
        }
        count
    }

    /// Number of flows that caches and kernel together hold, of some.
    pub(crate) fn held(&self, flows: &[Flow]) -> usize {
        let (internal, external) = (self.flows(Which::Internal), self.flows(Which::External));
        let holds = |f: &&Flow| {
            let key = f.key();
            let cached = internal.contains_key(&key) || external.contains_key(&key);
            cached || self.kernel.get(&key).is_some()
        };
        flows.iter().filter(holds).count()
    }

    pub(crate) fn has(&self, which: Which, flow: &Flow) -> bool {
        self.flows(which).contains_key(&flow.key())
    }
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) nodes: Vec<Node>,
    commands: u64,
    restarts: u32,
    random: Random,
    under_way: Vec<(Instant, Datagram)>,
}

impl World {
    pub(crate) fn new() -> World {
        World::with(settings(), settings())
    }

    pub(crate) fn with(first: Settings, second: Settings) -> World {
        World::of(vec![first, second])
    }

    /// Replicas that all receive each other, as on one multicast group.
    pub(crate) fn of(all: Vec<Settings>) -> World {
        let mut world = World {
            now: Instant::START,
            nodes: all.into_iter().map(Node::new).collect(),
            commands: 0,
            restarts: 0,
            random: Random::new(0, "scenario"),
            under_way: Vec::new(),
        };
        world.run(0.1);
        world
    }

    /// Packets of a flow pass through node `n`.
    pub(crate) fn traffic(&mut self, n: usize, flow: &Flow) {
        self.nodes[n].kernel.traffic(self.now, flow);
    }

    pub(crate) fn command(&mut self, n: usize, command: Command) -> CommandId {
        self.commands += 1;
        let id = CommandId(self.commands);
        self.nodes[n].replica.handle_command(self.now, id, command);
        id
    }

    /// Replica `n` starts again, in a new epoch.
    pub(crate) fn restart(&mut self, n: usize, settings: Settings) {
        self.restarts += 1;
        let epoch = Epoch(settings.epoch.0 + 1000 * self.restarts);
        let node = &mut self.nodes[n];
        node.replica = Replica::new(Settings { epoch, ..settings });
        node.sockets = Sockets::default();
        node.kernel.take_reports();
    }

    pub(crate) fn run(&mut self, seconds: f64) {
        let end = self.now + Duration::from_secs_f64(seconds);
        while self.now < end {
            self.now = self.now + STEP;
            for n in 0..self.nodes.len() {
                self.step(n);
            }
        }
    }

    /// What node `n` does in a step of the clock: a turn, and more while it has more to do.
    fn step(&mut self, n: usize) {
        let now = self.now;
        let due = self
            .under_way
            .extract_if(.., |(at, datagram)| *at <= now && datagram.to == n);
        let node = &mut self.nodes[n];
        for (_, datagram) in due {
            node.sockets.inbox.push_back(datagram);
        }
        node.kernel.expire(now);
        let mut record = Vec::new();
        let host = Host {
            now,
            kernel: &mut node.kernel,
            sockets: &mut node.sockets,
            pace: node.pace,
            random: &mut self.random,
            record: &mut record,
            turn: Turn::default(),
        };
        host.wake(&mut node.replica, TURNS_MAX)
            .expect("a driver would spin");
        for happened in record {
            match happened {
                Happened::Sent(link, bytes) => self.send(n, link, bytes),
                Happened::Announced(event) => self.nodes[n].heard.push(event),
                _ => {}
            }
        }
    }

    fn send(&mut self, n: usize, link: LinkId, bytes: Vec<u8>) {
        assert!(bytes.len() < 1472, "a datagram of {} bytes", bytes.len());
        let is_state = |m: &Message<'_>| m.header.kind != MessageType::Control;
        let node = &mut self.nodes[n];
        node.datagrams += 1;
        node.sent += messages(&bytes).flatten().filter(is_state).count();
        let (mute, loss, late) = (node.mute, node.loss, node.late);
        if mute || self.chance(loss) {
            return;
        }
        let others = (0..self.nodes.len()).filter(|to| *to != n);
        let sender = Some(Sender { node: n, run: 0 });
        let copies: Vec<Datagram> = others
            .map(|to| {
                let mut copy = Datagram::arrived(self.now, to, link.0, bytes.clone());
                copy.sender = sender;
                copy
            })
            .collect();
        if self.chance(late) {
            let at = self.now + Duration::from_millis(self.next_random() % 300);
            let late = copies.iter().map(|copy| (at, copy.clone()));
            self.under_way.extend(late);
            if self.chance(0.5) {
                return;
            }
            // Otherwise it comes twice.
        }
        for copy in copies {
            self.nodes[copy.to].sockets.inbox.push_back(copy);
        }
    }

    pub(crate) fn seed(&mut self, seed: u64) {
        self.random = Random::new(seed, "scenario");
    }

    pub(crate) fn next_random(&mut self) -> u64 {
        self.random.next_u64()
    }

    fn chance(&mut self, part: f64) -> bool {
        self.random.chance(part)
    }

    /// Says what system tells node `n` about a link.
    pub(crate) fn link(&mut self, n: usize, link: usize, usable: bool) {
        let replica = &mut self.nodes[n].replica;
        replica.handle_link(self.now, LinkId(link), usable);
    }
}
