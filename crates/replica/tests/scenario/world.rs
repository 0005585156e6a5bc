//! Two replicas with model kernels and a model link, on virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use flow::{Flow, FlowKey};
use replica::{
    Command, CommandId, DumpEnd, DumpScope, Event, Instant, KernelResult, LinkId, Replica,
    Settings, Which,
};
use sim::kernel::Kernel;
use sim::random::Random;
use wire::v1::{Epoch, MessageType, messages};

use crate::pairs::settings;

/// Step of the virtual clock.
const STEP: Duration = Duration::from_millis(10);

/// One replica with its kernel.
pub(crate) struct Node {
    pub(crate) replica: Replica,
    pub(crate) kernel: Kernel,
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
            heard: Vec::new(),
            datagrams: 0,
            sent: 0,
            mute: false,
            loss: 0.0,
            late: 0.0,
        }
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
    pub(crate) nodes: [Node; 2],
    commands: u64,
    restarts: u32,
    random: Random,
    under_way: Vec<(Instant, usize, LinkId, Vec<u8>)>,
}

impl World {
    pub(crate) fn new() -> World {
        World::with(settings(), settings())
    }

    pub(crate) fn with(first: Settings, second: Settings) -> World {
        let mut world = World {
            now: Instant::START,
            nodes: [Node::new(first), Node::new(second)],
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
        self.nodes[n].replica = Replica::new(Settings { epoch, ..settings });
    }

    pub(crate) fn run(&mut self, seconds: f64) {
        let end = self.now + Duration::from_secs_f64(seconds);
        while self.now < end {
            self.now = self.now + STEP;
            for n in 0..2 {
                self.step(n);
            }
        }
    }

    fn step(&mut self, n: usize) {
        let now = self.now;
        let node = &mut self.nodes[n];
        let (replica, kernel) = (&mut node.replica, &mut node.kernel);
        kernel.expire(now);
        let (events, _) = kernel.take_events();
        replica.handle_events(now, &events);
        replica.handle_timeout(now);
        for _ in 0..20 {
            while let Some(scope) = replica.poll_dump() {
                let flows = kernel.dump(now, scope, None, usize::MAX);
                replica.handle_dump(now, &flows);
                if scope == DumpScope::Expectations {
                    let all: Vec<_> = kernel.expectations.values().copied().collect();
                    replica.handle_dumped_expectations(now, &all);
                }
                replica.handle_dump_end(now, DumpEnd::Complete);
            }
            replica.advance(now, 100);
            let mut requests = Vec::new();
            replica.poll_kernel(64, &mut requests);
            let results: Vec<_> = requests
                .into_iter()
                .map(|request| KernelResult {
                    outcome: kernel.execute(now, request),
                    request,
                })
                .collect();
            replica.handle_results(now, &results);
        }
        let mut datagrams = Vec::new();
        while let Some((link, bytes)) = replica.poll_transmit() {
            node.datagrams += 1;
            assert!(bytes.len() < 1472, "a datagram of {} bytes", bytes.len());
            node.sent += messages(bytes)
                .flatten()
                .filter(|m| m.header.kind != MessageType::Control)
                .count();
            datagrams.push((link, bytes.to_vec()));
        }
        while let Some(event) = replica.poll_event() {
            node.heard.push(event);
        }
        let due = replica.poll_timeout();
        assert!(due.is_none_or(|at| at > now), "a driver would spin");
        let (mute, loss, late) = (node.mute, node.loss, node.late);
        for (link, bytes) in datagrams {
            if mute || self.chance(loss) {
                continue;
            }
            if self.chance(late) {
                let at = now + Duration::from_millis(self.next_random() % 300);
                self.under_way.push((at, 1 - n, link, bytes.clone()));
                if self.chance(0.5) {
                    continue;
                }
                // Otherwise it comes twice.
            }
            self.nodes[1 - n].replica.handle_datagram(now, link, &bytes);
        }
        let due = self
            .under_way
            .extract_if(.., |(at, to, ..)| *at <= now && *to == n);
        for (_, to, link, bytes) in due.collect::<Vec<_>>() {
            self.nodes[to].replica.handle_datagram(now, link, &bytes);
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
