//! Two replicas with model kernels and a model link, on virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use flow::{
    Addrs, Filter, Flow, FlowKey, L4, Proto, ProtoInfo, Status, TcpInfo, TcpState, Tuple, Zone,
};
use replica::{
    Change, Command, CommandId, DumpEnd, DumpScope, Event, Instant, KernelError, KernelEvent,
    KernelRequest, KernelResult, LinkId, LinkSettings, Op, Origin, Outcome, Purpose, Replica,
    Settings, Which,
};
use wire::v1::{Mode, Seq, messages};

/// Step of the virtual clock.
const STEP: Duration = Duration::from_millis(10);

pub(crate) fn settings() -> Settings {
    let link = |name: &str| LinkSettings {
        name: name.into(),
        mtu: 1500,
        allowance: 28,
    };
    Settings {
        mode: Mode::Notrack,
        internal_cache: true,
        external_cache: true,
        limit: 10_000,
        ack_window: 300,
        resend_queue: 1000,
        refresh_time: Duration::from_secs(10),
        cache_timeout: Duration::from_secs(30),
        commit_timeout: None,
        purge_timeout: Duration::from_secs(60),
        window_tracking: false,
        startup_resync: false,
        overrun_resync: Some(Duration::from_secs(2)),
        filter: Filter::default(),
        links: vec![link("sync0"), link("sync1")],
        first_link: 0,
        sweep_short: Duration::from_secs(5),
        sweep_full: Duration::from_secs(15),
        first_seq: Seq(u32::MAX - 3),
    }
}

pub(crate) fn tuple(proto: Proto, n: u16) -> Tuple {
    Tuple {
        addrs: Addrs::V4 {
            src: [192, 168, 0, 3].into(),
            dst: [192, 168, 1, 2].into(),
        },
        proto,
        l4: L4::Ports { src: n, dst: 80 },
    }
}

/// An established TCP flow with source NAT.
pub(crate) fn tcp(n: u16) -> Flow {
    let mut flow = Flow::new(tuple(Proto::TCP, n));
    flow.reply.addrs = flow
        .reply
        .addrs
        .with_dst("192.168.1.100".parse().unwrap())
        .unwrap();
    flow.reply.l4 = L4::Ports {
        src: 80,
        dst: 40_000 + n,
    };
    flow.status = [
        Status::CONFIRMED,
        Status::SEEN_REPLY,
        Status::SRC_NAT,
        Status::SRC_NAT_DONE,
        Status::DST_NAT_DONE,
    ]
    .into_iter()
    .fold(Status(0), Status::with);
    flow.timeout = Some(432_000);
    flow.proto_info = Some(ProtoInfo::Tcp(TcpInfo {
        state: TcpState::ESTABLISHED,
        window_scale: None,
    }));
    flow
}

pub(crate) fn udp(n: u16, timeout: u32) -> Flow {
    let mut flow = Flow::new(tuple(Proto::UDP, n));
    flow.status = Status::CONFIRMED.with(Status::SEEN_REPLY);
    flow.timeout = Some(timeout);
    flow
}

pub(crate) fn in_state(flow: &Flow, state: TcpState) -> Flow {
    Flow {
        proto_info: Some(ProtoInfo::Tcp(TcpInfo {
            state,
            window_scale: None,
        })),
        ..*flow
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    flow: Flow,
    expires: Instant,
}

/// A table that does what the kernel does with requests and time.
#[derive(Default)]
pub(crate) struct Kernel {
    table: BTreeMap<FlowKey, Entry>,
    events: VecDeque<KernelEvent>,
    next_id: u32,
    /// Helpers that it has.
    pub(crate) helpers: Vec<&'static str>,
    /// Drops every event, as after an overrun.
    pub(crate) deaf: bool,
    /// Every request in the order it came.
    pub(crate) requests: Vec<KernelRequest>,
}

impl Kernel {
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn get(&self, key: &FlowKey) -> Option<&Flow> {
        self.table.get(key).map(|e| &e.flow)
    }

    fn emit(&mut self, change: Change, origin: Origin, flow: Flow) {
        if !self.deaf {
            self.events.push_back(KernelEvent {
                change,
                origin,
                flow,
            });
        }
    }

    /// Packets make a flow, or change it.
    pub(crate) fn traffic(&mut self, now: Instant, flow: &Flow) {
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
    pub(crate) fn refresh(&mut self, now: Instant, key: &FlowKey, timeout: u32) {
        let entry = self.table.get_mut(key).expect("the flow is there");
        entry.expires = now + Duration::from_secs(timeout.into());
    }

    /// A flow that no event tells of.
    pub(crate) fn silently(&mut self, now: Instant, flow: &Flow) {
        let deaf = std::mem::replace(&mut self.deaf, true);
        self.traffic(now, flow);
        self.deaf = deaf;
    }

    pub(crate) fn end(&mut self, key: &FlowKey) {
        if let Some(entry) = self.table.remove(key) {
            self.emit(Change::Destroy, Origin::Traffic, entry.flow);
        }
    }

    fn put(&mut self, now: Instant, flow: Flow) {
        let expires = now + Duration::from_secs(flow.timeout.unwrap_or(30).into());
        self.table.insert(flow.key(), Entry { flow, expires });
    }

    fn expire(&mut self, now: Instant) {
        let over = self.table.iter().filter(|(_, e)| e.expires <= now);
        for key in over.map(|(k, _)| *k).collect::<Vec<_>>() {
            self.end(&key);
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

    fn execute(&mut self, now: Instant, request: KernelRequest) -> Outcome {
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
        }
        Outcome::Done
    }
}

/// One replica with its kernel.
pub(crate) struct Node {
    pub(crate) replica: Replica,
    pub(crate) kernel: Kernel,
    /// Everything the operator heard.
    pub(crate) heard: Vec<Event>,
    /// Datagrams sent.
    pub(crate) datagrams: usize,
    /// Messages sent, ALIVE left out.
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

    pub(crate) fn has(&self, which: Which, flow: &Flow) -> bool {
        self.flows(which).contains_key(&flow.key())
    }
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) nodes: [Node; 2],
    commands: u64,
    random: u64,
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
            random: 1,
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

    pub(crate) fn restart(&mut self, n: usize, settings: Settings) {
        self.nodes[n].replica = Replica::new(settings);
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
        let events: Vec<_> = kernel.events.drain(..).collect();
        replica.handle_events(now, &events);
        replica.handle_timeout(now);
        for _ in 0..20 {
            while let Some(scope) = replica.poll_dump() {
                let covered = kernel.table.values().filter(|e| match scope {
                    DumpScope::All => true,
                    DumpScope::Protocol { v6, proto } => {
                        e.flow.orig.proto == proto && e.flow.orig.addrs.is_v4() != v6
                    }
                });
                let flows: Vec<_> = covered.map(|e| Kernel::shown(e, now)).collect();
                replica.handle_dump(now, &flows);
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
                .filter(|m| !m.body.is_empty())
                .count();
            datagrams.push((link, bytes.to_vec()));
        }
        while let Some(event) = replica.poll_event() {
            node.heard.push(event);
        }
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
        self.random = seed * 2 + 1;
    }

    pub(crate) fn next_random(&mut self) -> u64 {
        // Steele and others, "Fast splittable pseudorandom number generators", SplitMix64.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn chance(&mut self, part: f64) -> bool {
        (self.next_random() % 10_000) as f64 / 10_000.0 < part
    }

    /// Says what system tells node `n` about a link.
    pub(crate) fn link(&mut self, n: usize, link: usize, usable: bool) {
        let replica = &mut self.nodes[n].replica;
        replica.handle_link(self.now, LinkId(link), usable);
    }
}

pub(crate) fn in_zone(flow: &Flow, zone: u16) -> Flow {
    Flow {
        zone: Zone(zone),
        ..*flow
    }
}
