//! Two replicas with their kernels, the links between them, traffic and operators, on
//! one virtual clock. The seed decides everything.
//!
//! The HA manager is in `ha`, what the peer must hold of live flows in `holds`, and
//! somebody who forges datagrams in `forge`.
//!
//! A run has two phases. First, safety: traffic and faults, and the invariants of
//! [`crate::check`] and [`crate::kept`] at every step. Then, liveness: no traffic, no
//! fault, the dead started again, and within a stated time the caches are equal. Some
//! runs end instead with the death of the primary, and a takeover.

mod forge;
mod ha;
mod holds;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use flow::{Addrs, Filter, Flow, FlowKey, L4, Proto, ProtoInfo, Status, TcpInfo, TcpState, Tuple};
use replica::{
    Age, Change, Command, CommandId, DumpEnd, DumpScope, Event, Instant, KernelError,
    KernelRequest, KernelResult, LinkId, LinkSettings, Objects, Op, Outcome, Purpose, Replica,
    Settings, Which,
};
use wire::v1::{
    Control, Epoch, Mode, ObjectKind, Seq, StateKind, TableId, Verdict, decode_flow, messages,
    verdict,
};

use crate::check::{Check, Truth, Violation, check_bound, content, version};
use crate::kept::Kept;
use crate::kernel::Kernel;
use crate::network::{Datagram, Network};
use crate::original::{self, Original};
use crate::plan::{Fault, Plan, Program};
use crate::random::Random;
use crate::trace::Trace;

use forge::{Forger, Load};
use ha::Manager;

/// Step of the virtual clock.
const STEP: Duration = Duration::from_millis(5);
const REFRESH: Duration = Duration::from_secs(3);
const CACHE_TIMEOUT: Duration = Duration::from_secs(8);
const PURGE_TIMEOUT: Duration = Duration::from_secs(2);
/// Keys of flows: few, so that they come again.
const KEYS: u64 = 300;
/// A fixed timeout of committed flows, with which messages carry none.
const COMMIT_TIMEOUT_SECS: u32 = 90;
/// Packets in a step that only refresh a timer.
const PACKETS: usize = 2;
/// Datagrams that wait for a paused daemon.
const INBOX_MAX: usize = 500;
/// Entries of a dump that one turn reads.
const DUMP_CHUNK: usize = 40;

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Digest of the whole trace.
    pub digest: u64,
    /// Time from the end of all faults until the caches were equal, or the takeover was over.
    pub converged: Duration,
    /// Flows that were then compared, both directions together.
    pub compared: usize,
    /// Acknowledged flows that a full table or a script of the HA manager has exempted.
    pub exempted: u64,
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An invariant did not hold.
    Safety(Violation),
    /// The caches did not become equal.
    Liveness(String),
}

#[derive(Debug)]
enum Core {
    Ours(Box<Replica>),
    Original(Box<Original>),
}

#[derive(Debug)]
struct Node {
    core: Core,
    kernel: Kernel,
    /// Which of its runs this is.
    run: u32,
    is_dead: bool,
    back_at: Option<Instant>,
    inbox: VecDeque<Datagram>,
    dump: Option<(DumpScope, Option<FlowKey>)>,
    results: VecDeque<(Instant, KernelResult)>,
    /// Commands of a script that follow when the one before is done.
    script: VecDeque<Command>,
    waits_for: Option<CommandId>,
}

/// The simulated world.
#[derive(Debug)]
pub struct World {
    plan: Plan,
    now: Instant,
    nodes: [Node; 2],
    network: Network,
    truth: Truth,
    kept: Kept,
    /// Which replica sees the packets of each flow that lives.
    lives: BTreeMap<FlowKey, usize>,
    primary: usize,
    manager: Manager,
    forger: Forger,
    loads: [Load; 2],
    workload: Random,
    packets: Random,
    faults: Random,
    operator: Random,
    kernels: Random,
    commands: u64,
    is_safety: bool,
    /// Something happened after which one side may hold more than it can know to be gone.
    may_hold_more: bool,
    /// An operator has emptied a cache.
    was_emptied: bool,
    /// What happened.
    pub trace: Trace,
}

impl World {
    /// The world of a plan, before anything happened.
    pub fn new(plan: Plan) -> World {
        let seed = plan.seed;
        let now = Instant::START;
        let node = |n: usize| {
            let kernel = Kernel::default();
            Node {
                core: core(&plan, n, 0, now, &kernel),
                kernel,
                run: 0,
                is_dead: false,
                back_at: None,
                inbox: VecDeque::new(),
                dump: None,
                results: VecDeque::new(),
                script: VecDeque::new(),
                waits_for: None,
            }
        };
        World {
            nodes: [node(0), node(1)],
            now,
            network: Network::new(seed),
            truth: Truth::default(),
            kept: Kept::default(),
            lives: BTreeMap::new(),
            primary: 0,
            manager: Manager::new(seed),
            forger: Forger::new(seed),
            loads: Default::default(),
            workload: Random::new(seed, "workload"),
            packets: Random::new(seed, "packets"),
            faults: Random::new(seed, "faults"),
            operator: Random::new(seed, "operator"),
            kernels: Random::new(seed, "kernels"),
            commands: 0,
            is_safety: true,
            may_hold_more: false,
            was_emptied: false,
            trace: Trace::default(),
            plan,
        }
    }

    /// Runs both phases.
    ///
    /// # Errors
    /// What did not hold.
    pub fn run(&mut self) -> Result<Finished, Failure> {
        let end = self.now + self.plan.safety;
        while self.now < end {
            self.step().map_err(Failure::Safety)?;
        }
        if self.plan.ends_with_death() {
            return self.kill_primary();
        }
        self.heal();
        let mut begun = self.now;
        let mut must_ask = match self.plan.mode {
            // Repairs itself.
            Mode::Alarm => false,
            // Whoever has emptied a cache asks for it again, but first all that lives must
            // be there without a command. Elsewhere it is the original's means.
            Mode::Ftfw => self.was_emptied || !self.plan.must_restore(),
            Mode::Notrack => true,
        };
        let limit = self.limit();
        loop {
            self.step().map_err(Failure::Safety)?;
            let restored = if self.plan.must_restore() {
                self.check_restored()
            } else {
                Ok(())
            };
            if must_ask && restored.is_ok() && self.nodes.iter().all(Node::is_idle) {
                self.ask_for_all();
                must_ask = false;
                begun = self.now;
                continue;
            }
            let difference = match restored.and_then(|()| self.difference()) {
                Ok(_) if must_ask => "a script does not end".into(),
                Ok(compared) => {
                    let converged = self.now.since(begun);
                    self.trace
                        .line(self.now, format_args!("equal, {compared} flows"));
                    return Ok(Finished {
                        digest: self.trace.digest(),
                        converged,
                        compared,
                        exempted: self.kept.exempted,
                    });
                }
                Err(difference) => difference,
            };
            if self.now.since(begun) > limit {
                return Err(Failure::Liveness(difference));
            }
        }
    }

    fn step(&mut self) -> Check {
        self.now = self.now + STEP;
        if self.is_safety {
            self.break_things();
            self.make_traffic();
            self.operate();
            self.manage();
            self.forge()?;
        }
        self.bring_back();
        while let Some(datagram) = self.network.receive(self.now) {
            self.arrive(datagram);
        }
        for n in 0..2 {
            if self.nodes[n].back_at.is_none() {
                self.turn(n)?;
            }
        }
        self.check()
    }

    // ---- traffic ----

    fn make_traffic(&mut self) {
        let mut actions = 0;
        let part = self.plan.rate as f64 * STEP.as_secs_f64();
        if self.workload.chance(part.fract()) {
            actions += 1;
        }
        actions += part as u64;
        if self.plan.has(Fault::Overrun) && self.workload.chance(0.002) {
            actions += 400;
        }
        for _ in 0..actions {
            self.act();
        }
        if self.plan.has(Fault::Silence) && self.workload.chance(0.05) {
            self.refresh_silently();
        }
        if self.plan.has_manager() {
            self.pass_packets();
        }
        for n in 0..2 {
            // What has expired lives no more.
            for key in self.nodes[n].kernel.expire(self.now) {
                if self.lives.get(&key) == Some(&n) {
                    self.kept.on_ended(n, key);
                }
            }
        }
        let nodes = &self.nodes;
        self.lives
            .retain(|key, n| nodes[*n].kernel.get(key).is_some());
    }

    fn act(&mut self) {
        let number = self.workload.below(KEYS);
        let flow = plain_flow(number as u16);
        let key = flow.key();
        let home = if self.plan.spread {
            number as usize % 2
        } else {
            self.primary
        };
        let n = self.lives.get(&key).copied().unwrap_or(home);
        let what = self.workload.below(10);
        let known = self.nodes[n].kernel.get(&key).copied();
        match known {
            Some(_) if !self.lives.contains_key(&key) => {
                // A copy, or what a failed takeover left: packets of it would hang.
            }
            Some(_) if what < 3 => {
                self.nodes[n].kernel.end(&key);
                self.lives.remove(&key);
                self.kept.on_ended(n, key);
            }
            Some(flow) => {
                let flow = self.truth.note(advanced(&flow, &mut self.workload));
                self.truth.on_traffic(n, &key);
                self.nodes[n].kernel.traffic(self.now, &flow);
            }
            None if !self.nodes[n].kernel.is_full => {
                let flow = self.truth.note(flow);
                self.kept.on_born(&flow);
                self.truth.on_traffic(n, &key);
                self.nodes[n].kernel.traffic(self.now, &flow);
                self.lives.insert(key, n);
            }
            None => {}
        }
    }

    fn refresh_silently(&mut self) {
        let all: Vec<_> = self.lives.iter().map(|(k, n)| (*k, *n)).collect();
        if all.is_empty() {
            return;
        }
        let (key, n) = *self.workload.pick(&all);
        let held = self.nodes[n].kernel.get(&key).and_then(|f| f.timeout);
        if let Some(timeout) = held {
            self.truth.on_traffic(n, &key);
            self.nodes[n].kernel.refresh(self.now, &key, timeout);
        }
    }

    /// Ordinary packets: each gives its flow the timeout of its state, and no event tells of it.
    fn pass_packets(&mut self) {
        for _ in 0..PACKETS {
            let number = self.packets.below(KEYS);
            let key = plain_flow(number as u16).key();
            let Some(&n) = self.lives.get(&key) else {
                continue;
            };
            if let Some(flow) = self.nodes[n].kernel.get(&key) {
                let timeout = timeout_of_state(flow);
                self.truth.on_traffic(n, &key);
                self.nodes[n].kernel.refresh(self.now, &key, timeout);
            }
        }
    }

    // ---- faults ----

    fn break_things(&mut self) {
        let strength = self.plan.strength;
        let now = self.now;
        let long = |random: &mut Random, secs| random.within(Duration::from_secs(secs));
        if self.plan.has(Fault::OneWay) && self.faults.chance(0.002 * strength) {
            let from = self.faults.below(2) as usize;
            self.network.cut[from] = !self.network.cut[from];
            self.trace.line(
                now,
                format_args!("direction from {from} cut: {}", self.network.cut[from]),
            );
        }
        if self.plan.has(Fault::Flap) && self.faults.chance(0.002 * strength) {
            let down = !self.network.down[0];
            self.network.down[0] = down;
            self.link_state(0, !down);
        }
        if self.plan.has(Fault::Full) && self.faults.chance(0.002 * strength) {
            let n = self.faults.below(2) as usize;
            let is_full = !self.nodes[n].kernel.is_full;
            self.nodes[n].kernel.is_full = is_full;
            self.trace
                .line(now, format_args!("table of {n} full: {is_full}"));
        }
        if self.plan.has(Fault::Overrun) {
            for node in &mut self.nodes {
                node.kernel.events_max = 200;
            }
        }
        for (fault, part) in [
            (Fault::Pause, 0.002),
            (Fault::Crash, 0.0007),
            (Fault::Reboot, 0.0003),
        ] {
            if !self.plan.has(fault) || !self.faults.chance(part * strength) {
                continue;
            }
            let n = self.faults.below(2) as usize;
            if self.nodes[n].back_at.is_some() {
                continue;
            }
            let back = now + long(&mut self.faults, 3);
            self.nodes[n].back_at = Some(back);
            self.trace.line(now, format_args!("{n}: {fault}"));
            if fault != Fault::Pause {
                self.kill(n, fault == Fault::Reboot);
            }
        }
    }

    fn link_state(&mut self, link: usize, usable: bool) {
        let now = self.now;
        self.trace
            .line(now, format_args!("link {link} usable: {usable}"));
        for node in &mut self.nodes {
            if let Core::Ours(replica) = &mut node.core {
                replica.handle_link(now, LinkId(link), usable);
            }
        }
    }

    fn kill(&mut self, n: usize, reboot: bool) {
        self.may_hold_more = true;
        self.kept.on_death(n, reboot);
        let node = &mut self.nodes[n];
        node.is_dead = true;
        node.kernel.deaf = true;
        node.inbox.clear();
        node.results.clear();
        node.dump = None;
        node.script.clear();
        node.waits_for = None;
        if reboot {
            let next_id = std::mem::take(&mut node.kernel);
            node.kernel = next_id.rebooted();
            node.kernel.deaf = true;
            self.lives.retain(|_, owner| *owner != n);
        }
    }

    fn bring_back(&mut self) {
        for n in 0..2 {
            if self.nodes[n].back_at.is_none_or(|at| at > self.now) {
                continue;
            }
            self.nodes[n].back_at = None;
            if !std::mem::take(&mut self.nodes[n].is_dead) {
                continue;
            }
            let node = &mut self.nodes[n];
            node.run += 1;
            self.kept.on_back(n);
            node.kernel.deaf = false;
            node.kernel.take_events();
            node.core = core(&self.plan, n, node.run, self.now, &node.kernel);
            self.truth.on_restart(n);
            self.trace.line(
                self.now,
                format_args!("{n}: back, run {}", self.nodes[n].run),
            );
            if self.network.down[0]
                && let Core::Ours(replica) = &mut self.nodes[n].core
            {
                replica.handle_link(self.now, LinkId(0), false);
            }
        }
    }

    /// Everything that was broken is whole again, and nothing more is broken.
    fn heal(&mut self) {
        self.is_safety = false;
        self.trace.line(self.now, format_args!("healed"));
        self.network.heal();
        if std::mem::take(&mut self.network.down[0]) {
            self.link_state(0, true);
        }
        for n in 0..2 {
            self.nodes[n].kernel.is_full = false;
            self.nodes[n].kernel.events_max = 0;
            if let Some(at) = &mut self.nodes[n].back_at {
                *at = self.now;
            }
        }
        self.bring_back();
    }

    /// Both replicas get everything from each other.
    fn ask_for_all(&mut self) {
        let command = match self.plan.mode {
            Mode::Ftfw => Command::RequestResync,
            _ => Command::Bulk,
        };
        for n in 0..2 {
            self.script(n, &[command]);
        }
    }

    // ---- operators ----

    fn operate(&mut self) {
        if self.plan.has(Fault::Operator) && self.operator.chance(0.003) {
            let n = self.operator.below(2) as usize;
            let scripts: [&[Command]; 6] = [
                &[Command::Commit(Objects::All)],
                &[Command::Commit(Objects::All), Command::Commit(Objects::All)],
                // Whoever empties the external cache asks for it again.
                &[Command::FlushExternal, Command::RequestResync],
                &[Command::Resync(Objects::All)],
                &[Command::Bulk, Command::Bulk],
                &[Command::RequestResync],
            ];
            let script = *self.operator.pick(&scripts);
            self.script(n, script);
        }
    }

    fn script(&mut self, n: usize, commands: &[Command]) {
        self.trace.line(self.now, format_args!("{n}: {commands:?}"));
        self.may_hold_more |= self.is_safety;
        if !self.nodes[n].is_dead {
            self.nodes[n].script.extend(commands);
        }
    }

    fn next_command(&mut self, n: usize) {
        while self.nodes[n].waits_for.is_none()
            && let Some(command) = self.nodes[n].script.pop_front()
        {
            self.commands += 1;
            for load in &mut self.loads {
                load.commands += 1;
            }
            let id = CommandId(self.commands);
            if matches!(
                command,
                Command::Resync(_) | Command::Commit(_) | Command::Bulk
            ) {
                let node = &self.nodes[n];
                let held = node.kernel.dump(self.now, DumpScope::All, None, usize::MAX);
                let held = held.iter().map(Flow::key);
                let keys = held.chain(node.external(|_| true).into_keys());
                self.truth.on_claim(n, keys);
            }
            if matches!(command, Command::FlushCaches | Command::FlushExternal) {
                self.truth.on_flush(n);
                self.was_emptied = true;
            }
            match command {
                Command::FlushExternal => self.kept.on_flush(n),
                Command::FlushCaches => {
                    let node = &self.nodes[n];
                    let external = node.external(|_| true).into_keys();
                    let lost = external.filter(|key| node.kernel.get(key).is_none());
                    self.kept.on_scripted_flush(n, lost);
                }
                _ => {}
            }
            if matches!(command, Command::FlushCaches | Command::FlushInternal) {
                self.may_hold_more = true;
            }
            let node = &mut self.nodes[n];
            match &mut node.core {
                Core::Ours(replica) => {
                    replica.handle_command(self.now, id, command);
                    node.waits_for = Some(id);
                }
                Core::Original(original) => {
                    original.handle_command(self.now, command, &mut node.kernel);
                }
            }
            // A committed flow sees packets again where it now is.
            if command == Command::FlushCaches && self.primary == n && !self.plan.spread {
                let all = node.kernel.dump(self.now, DumpScope::All, None, usize::MAX);
                for flow in &all {
                    self.kept.on_born(flow);
                    self.lives.insert(flow.key(), n);
                }
            }
        }
    }

    // ---- replicas ----

    fn arrive(&mut self, datagram: Datagram) {
        let to = datagram.to;
        self.loads[to].bytes_in += datagram.bytes.len() as u64;
        let node = &mut self.nodes[to];
        if node.is_dead || node.inbox.len() >= INBOX_MAX {
            return;
        }
        node.inbox.push_back(datagram);
    }

    fn read(&mut self, n: usize, datagram: &Datagram) {
        let stale = datagram.run.is_some_and(|run| run != self.nodes[1 - n].run);
        for message in messages(&datagram.bytes).flatten() {
            let flow = match verdict(self.plan.mode, &message.header) {
                Verdict::Data(ObjectKind::Flow, kind) => {
                    let flow = decode_flow(message.body).ok().map(|d| d.object);
                    flow.map(|f| (kind, f))
                }
                _ => None,
            };
            if let Some((kind, f)) = &flow {
                let seq = message.header.seq;
                let what = format_args!("{n} hears {kind:?} as {seq}, stale: {stale}");
                self.trace.flow(self.now, f, what);
            }
            let key = flow.as_ref().map(|(_, f)| f.key());
            let ended = flow.as_ref().filter(|(kind, _)| *kind == StateKind::Delete);
            let ended = ended.map(|(_, f)| f);
            if let Some(key) = key.filter(|_| stale || self.plan.has(Fault::Forged)) {
                let version = flow.as_ref().map_or(0, |(_, f)| version(f));
                if stale || self.kept.is_behind(1 - n, &key, version) {
                    self.kept.on_stale(1 - n, &key);
                }
            }
            self.truth
                .on_delivered(n, message.header.seq, stale, ended, key);
        }
        if !stale && datagram.run.is_some() {
            self.note_received(n, datagram);
        }
        match &mut self.nodes[n].core {
            Core::Ours(replica) => {
                replica.handle_datagram(self.now, LinkId(datagram.link), &datagram.bytes);
            }
            Core::Original(original) => original.handle_datagram(self.now, &datagram.bytes),
        }
    }

    fn turn(&mut self, n: usize) -> Check {
        let now = self.now;
        self.next_command(n);
        while let Some(datagram) = self.nodes[n].inbox.pop_front() {
            self.read(n, &datagram);
        }
        let node = &mut self.nodes[n];
        node.kernel.expire(now);
        let (events, overrun) = node.kernel.take_events();
        self.loads[n].events += events.len() as u64;
        for event in &events {
            let what = format_args!("kernel of {n}: {:?} by {:?}", event.change, event.origin);
            self.trace.flow(now, &event.flow, what);
            if event.change == Change::Destroy {
                self.truth.on_traffic(n, &event.flow.key());
            }
        }
        let datagrams = match &mut node.core {
            Core::Ours(replica) => {
                replica.handle_events(now, &events);
                if overrun {
                    replica.handle_overrun(now);
                }
                replica.handle_timeout(now);
                self.turn_of_ours(n)?
            }
            Core::Original(original) => {
                original.handle_events(now, &events);
                if overrun {
                    original.handle_overrun(now);
                }
                original.handle_timeout(now, &node.kernel);
                let out = original.poll_transmit();
                out.into_iter().map(|bytes| (0, bytes)).collect()
            }
        };
        for (link, bytes) in datagrams {
            let link = if self.network.down[link] { 1 } else { link };
            self.trace.datagram(n, &bytes);
            self.note_sent(n, &bytes);
            self.loads[n].bytes_out += bytes.len() as u64;
            let plan = self.is_safety.then_some(&self.plan);
            let run = self.nodes[n].run;
            self.network.send(now, plan, n, run, link, &bytes);
        }
        Ok(())
    }

    fn turn_of_ours(&mut self, n: usize) -> Result<Vec<(usize, Vec<u8>)>, Violation> {
        let now = self.now;
        let slow = self.is_safety && self.plan.has(Fault::SlowKernel);
        for _ in 0..4 {
            self.read_dump(n);
            let mut requests = Vec::new();
            let Node {
                core: Core::Ours(replica),
                ..
            } = &mut self.nodes[n]
            else {
                return Ok(Vec::new());
            };
            replica.advance(now, 100);
            replica.poll_kernel(64, &mut requests);
            for request in requests {
                let outcome = self.execute(n, request)?;
                let delay = if slow {
                    self.kernels.within(Duration::from_millis(200))
                } else {
                    Duration::ZERO
                };
                // The writer answers in order.
                let results = &mut self.nodes[n].results;
                let last = results.back().map_or(now, |(at, _)| *at);
                let result = KernelResult { request, outcome };
                results.push_back(((now + delay).max(last), result));
            }
            let node = &mut self.nodes[n];
            let due = node.results.iter().take_while(|(at, _)| *at <= now).count();
            let due: Vec<_> = node.results.drain(..due).map(|(_, r)| r).collect();
            if let Core::Ours(replica) = &mut node.core {
                replica.handle_results(now, &due);
            }
        }
        let node = &mut self.nodes[n];
        let Core::Ours(replica) = &mut node.core else {
            return Ok(Vec::new());
        };
        let mut out = Vec::new();
        while let Some((link, bytes)) = replica.poll_transmit() {
            check_bound("bytes of a datagram", bytes.len(), 1471)?;
            out.push((link.0, bytes.to_vec()));
        }
        while let Some(event) = replica.poll_event() {
            match event {
                Event::Done(id) if node.waits_for == Some(id) => node.waits_for = None,
                Event::Done(_) => {}
                event => self.trace.line(now, format_args!("{n}: {event}")),
            }
        }
        let is_past = replica.poll_timeout().is_some_and(|at| at <= now);
        check_bound("timers that are due after a turn", is_past.into(), 0)?;
        check_bound("control messages", replica.unacknowledged().1.len(), 1024)?;
        check_bound(
            "internal cache",
            replica.len(Which::Internal),
            KEYS as usize,
        )?;
        for (_, bytes) in &out {
            self.check_datagram(n, bytes)?;
        }
        Ok(out)
    }

    /// What a replica says must be true, and its own.
    fn check_datagram(&self, n: usize, bytes: &[u8]) -> Check {
        for message in messages(bytes).flatten() {
            match verdict(self.plan.mode, &message.header) {
                Verdict::Data(ObjectKind::Flow, kind) => {
                    let Ok(decoded) = decode_flow(message.body) else {
                        check_bound("messages that cannot be read", 1, 0)?;
                        continue;
                    };
                    let what = format_args!("{n} says {kind:?} as {}", message.header.seq);
                    self.trace.flow(self.now, &decoded.object, what);
                    self.truth
                        .check_true(&format!("message of {n}"), &decoded.object)?;
                    if kind != StateKind::Delete {
                        self.truth.check_said(n, &decoded.object)?;
                    }
                }
                Verdict::Control(Control::Ack(from, to)) => self.truth.check_ack(n, from, to)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn execute(&mut self, n: usize, request: KernelRequest) -> Result<Outcome, Violation> {
        if let Op::Create(flow) = &request.op {
            let whole = flow.helper.is_none() && flow.master.is_none();
            if whole {
                self.truth.check_true(&format!("create at {n}"), flow)?;
            }
        }
        let outcome = self.nodes[n].kernel.execute(self.now, request);
        if let Op::Create(flow) | Op::Update(flow) = &request.op {
            let (op, failed) = (matches!(request.op, Op::Create(_)), &outcome);
            let why = request.purpose;
            let what = format_args!("{n} writes for {why:?}, create: {op}, {failed:?}");
            self.trace.flow(self.now, flow, what);
        }
        if let Op::Create(flow) = &request.op
            && let Outcome::Done | Outcome::Failed(KernelError::TableFull) = outcome
        {
            let refused = outcome != Outcome::Done;
            self.kept.on_created(n, flow.key(), refused);
        }
        if outcome == Outcome::Done
            && let Op::Create(flow) | Op::Update(flow) = &request.op
        {
            match request.purpose {
                Purpose::Inject => self.truth.on_injected(n, flow.key()),
                _ => self.truth.on_traffic(n, &flow.key()),
            }
        }
        Ok(outcome)
    }

    fn read_dump(&mut self, n: usize) {
        let now = self.now;
        let node = &mut self.nodes[n];
        let Core::Ours(replica) = &mut node.core else {
            return;
        };
        if node.dump.is_none() {
            node.dump = replica.poll_dump().map(|scope| (scope, None));
        }
        let Some((scope, behind)) = node.dump else {
            return;
        };
        if replica.is_dump_congested() {
            return;
        }
        let flows = node.kernel.dump(now, scope, behind, DUMP_CHUNK);
        replica.handle_dump(now, &flows);
        match flows.last() {
            Some(last) if flows.len() == DUMP_CHUNK => {
                node.dump = Some((scope, Some(last.key())));
            }
            _ => {
                node.dump = None;
                replica.handle_dump_end(now, DumpEnd::Complete);
            }
        }
    }

    // ---- what holds ----

    fn check(&mut self) -> Check {
        let network = &self.network;
        let accounted = network.delivered + network.lost + network.in_flight();
        if network.sent != accounted {
            check_bound("datagrams", network.sent as usize, accounted as usize)?;
        }
        let steps = self.now.since(Instant::START).as_millis() / STEP.as_millis();
        if !steps.is_multiple_of(4) {
            return Ok(());
        }
        let ordered = self.plan.mode == Mode::Ftfw;
        let external = [0, 1].map(|n| self.nodes[n].external(|_| true));
        for (n, flows) in external.iter().enumerate() {
            if matches!(self.nodes[n].core, Core::Ours(_)) {
                self.truth.check_external(n, flows, ordered)?;
            }
        }
        if self.plan.must_keep() {
            self.check_kept(&external)?;
        }
        Ok(())
    }

    /// Time in which the caches must have become equal.
    fn limit(&self) -> Duration {
        match self.plan.mode {
            // After an attack the replicas must first agree on numbers and runs again.
            Mode::Ftfw if self.plan.has(Fault::Forged) => Duration::from_secs(40),
            Mode::Ftfw => Duration::from_secs(20),
            Mode::Alarm => REFRESH + CACHE_TIMEOUT + Duration::from_secs(4),
            Mode::Notrack => Duration::from_secs(5),
        }
    }

    /// How many flows are equal in both directions, or what is not.
    fn difference(&self) -> Result<usize, String> {
        let mut compared = 0;
        for from in 0..2 {
            let to = 1 - from;
            let own = self.nodes[to].announced();
            let is_others = |key: &FlowKey| !own.contains(key) && self.lives.get(key) != Some(&to);
            let said = self.nodes[from].internal(|age| age.is_announced);
            let known = self.nodes[to].external(|_| true);
            for (key, flow) in said.iter().filter(|(k, _)| is_others(k)) {
                match known.get(key) {
                    // With injection the kernel is what counts: it may know better.
                    None if self.plan.injects[to] && self.nodes[to].kernel.get(key).is_some() => {}
                    None => return Err(format!("{key} of {from} is missing at {to}")),
                    Some(held) if content(held) != content(flow) => {
                        let (a, b) = (version(held), version(flow));
                        return Err(format!("{key} at {to} is {a} and should be {b}"));
                    }
                    Some(_) => compared += 1,
                }
            }
            if !self.is_exact(to) {
                continue;
            }
            let confirmed = self.nodes[to].external(|age| age.is_announced);
            // Also what the other one has since taken over.
            let held = self.nodes[from].internal(|_| true);
            for key in confirmed.keys().filter(|k| is_others(k)) {
                if !held.contains_key(key) {
                    return Err(format!("{key} at {to} is gone at {from}"));
                }
            }
        }
        Ok(compared)
    }

    /// True if nothing may be left of flows that have ended.
    fn is_exact(&self, at: usize) -> bool {
        match self.plan.mode {
            // What was injected runs down in the kernel.
            Mode::Alarm => !self.plan.injects[at],
            // What an operator claims for both can be refused by a kernel that knows better:
            // the numbers then differ, and nothing is removed.
            Mode::Ftfw if self.plan.has_trailers() && !self.plan.injects[at] => true,
            Mode::Ftfw => !self.may_hold_more,
            Mode::Notrack => self.plan.has_trailers() && !self.may_hold_more,
        }
    }
}

impl Node {
    /// True if no script is under way.
    fn is_idle(&self) -> bool {
        self.script.is_empty() && self.waits_for.is_none()
    }

    fn walk(&self, which: Which, wanted: impl Fn(&Age) -> bool) -> BTreeMap<FlowKey, Flow> {
        let mut found = BTreeMap::new();
        let mut see = |flow: &Flow, age: Age| {
            if wanted(&age) {
                found.insert(flow.key(), *flow);
            }
        };
        if let Core::Ours(replica) = &self.core {
            let mut position = cache::Position::default();
            while let Some(next) = replica.walk(which, position, 100, &mut see) {
                position = next;
            }
        }
        found
    }

    fn internal(&self, wanted: impl Fn(&Age) -> bool) -> BTreeMap<FlowKey, Flow> {
        match &self.core {
            Core::Original(original) => original.internal(),
            Core::Ours(_) => self.walk(Which::Internal, wanted),
        }
    }

    /// Keys of the flows that are its own.
    fn announced(&self) -> BTreeSet<FlowKey> {
        match &self.core {
            Core::Ours(_) => {
                let own = self.internal(|age| age.is_announced);
                own.into_keys().collect()
            }
            Core::Original(_) => BTreeSet::new(),
        }
    }

    fn external(&self, wanted: impl Fn(&Age) -> bool) -> BTreeMap<FlowKey, Flow> {
        match &self.core {
            Core::Original(original) => original.external(),
            Core::Ours(_) => self.walk(Which::External, wanted),
        }
    }
}

fn core(plan: &Plan, n: usize, run: u32, now: Instant, kernel: &Kernel) -> Core {
    // As the Unix time: a new run begins where the clock is.
    let elapsed = now.since(Instant::START).as_secs() as u32;
    let base = if plan.seed.is_multiple_of(4) {
        u32::MAX - 200
    } else {
        1_700_000_000
    };
    let first_seq = Seq(base.wrapping_add(elapsed));
    if plan.programs[n] == Program::Original {
        let options = original::Options {
            mode: plan.mode,
            window: 20,
            resend_max: 131_072,
            refresh: REFRESH,
            cache_timeout: CACHE_TIMEOUT,
            first_seq,
        };
        let seed = plan.seed.wrapping_add(u64::from(run) << 32);
        return Core::Original(Box::new(Original::new(options, now, kernel, seed)));
    }
    let link = |name: &str| LinkSettings {
        name: name.into(),
        mtu: 1500,
        allowance: 28,
    };
    Core::Ours(Box::new(Replica::new(Settings {
        mode: plan.mode,
        internal_cache: true,
        external_cache: !plan.injects[n],
        limit: 1000,
        ack_window: 20,
        // What is given up, only the trailer makes good.
        resend_queue: if plan.has_trailers() { 100 } else { 131_072 },
        refresh_time: REFRESH,
        cache_timeout: CACHE_TIMEOUT,
        commit_timeout: plan.no_timeouts.then_some(COMMIT_TIMEOUT_SECS),
        purge_timeout: PURGE_TIMEOUT,
        window_tracking: false,
        startup_resync: false,
        overrun_resync: Some(Duration::from_secs(1)),
        expectations: None,
        filter: Filter::default(),
        links: vec![link("sync0"), link("sync1")],
        first_link: 0,
        sweep_short: Duration::from_secs(2),
        sweep_full: Duration::from_secs(4),
        first_seq,
        epoch: Epoch((plan.seed as u32) << 8 | (n as u32) << 7 | run),
        table: TableId(kernel.table_id),
        trailer: plan.trailer,
    })))
}

/// The flow of a key as it begins: UDP for some, TCP with source NAT for the others.
fn plain_flow(number: u16) -> Flow {
    let is_udp = number.is_multiple_of(5);
    let proto = if is_udp { Proto::UDP } else { Proto::TCP };
    let mut flow = Flow::new(Tuple {
        addrs: Addrs::V4 {
            src: [192, 168, 0, 3].into(),
            dst: [192, 168, 1, 2].into(),
        },
        proto,
        l4: L4::Ports {
            src: 1000 + number,
            dst: 80,
        },
    });
    flow.status = Status::CONFIRMED;
    if is_udp {
        flow.timeout = Some(timeout_of_state(&flow));
        return flow;
    }
    let outside = "192.168.1.100".parse().expect("an address");
    flow.reply.addrs = flow.reply.addrs.with_dst(outside).expect("IPv4");
    flow.reply.l4 = L4::Ports {
        src: 80,
        dst: 40_000 + number,
    };
    let nat = [Status::SRC_NAT, Status::SRC_NAT_DONE, Status::DST_NAT_DONE];
    flow.status = nat.into_iter().fold(flow.status, Status::with);
    flow.proto_info = Some(ProtoInfo::Tcp(TcpInfo {
        state: TcpState::SYN_SENT,
        window_scale: None,
    }));
    flow.timeout = Some(timeout_of_state(&flow));
    flow
}

/// Seconds that a packet gives a flow, by its state.
fn timeout_of_state(flow: &Flow) -> u32 {
    match flow.tcp_state() {
        None => 6,
        Some(TcpState::ESTABLISHED) => 432_000,
        Some(_) => 120,
    }
}

/// The flow after some packets.
fn advanced(flow: &Flow, random: &mut Random) -> Flow {
    let mut next = *flow;
    next.status = next.status.with(Status::SEEN_REPLY);
    if let Some(state) = flow.tcp_state() {
        let state = TcpState((state.0 + 1 + random.below(2) as u8).min(TcpState::TIME_WAIT.0));
        next.proto_info = Some(ProtoInfo::Tcp(TcpInfo {
            state,
            window_scale: None,
        }));
        next.timeout = Some(timeout_of_state(&next));
    }
    next
}
