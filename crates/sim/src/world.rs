//! Replicas with their kernels, the links between them, traffic and operators, on one
//! virtual clock. The seed decides everything.
//!
//! | file | what it does |
//! |---|---|
//! | `node` | one replica, its kernel and what waits for it |
//! | `turn` | a turn of one replica, and what is checked of it |
//! | `traffic`, `predictions` | flows, packets, and what helpers predict |
//! | `faults` | what breaks, and how it comes back |
//! | `operator`, `ha` | commands, and the scripts of the HA manager |
//! | `forge` | somebody who forges datagrams |
//! | `holds` | what the peer must hold of live flows |
//! | `ghosts` | entries that outlive their flows |
//! | `equal` | when the caches are equal |
//!
//! A run has two phases. First, safety: traffic and faults, and the invariants of
//! [`crate::check`] and [`crate::kept`] at every step. Then, liveness: no traffic, no
//! fault, the dead started again, and within a stated time the caches are equal. Some
//! runs end instead with the death of the primary, and a takeover.

mod equal;
mod faults;
mod forge;
mod ghosts;
mod ha;
mod holds;
mod node;
mod operator;
mod predictions;
mod traffic;
mod turn;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flow::FlowKey;
use replica::{Instant, Mode};

use crate::check::{Check, Truth, Violation};
use crate::kept::Kept;
use crate::network::{Edges, Network, Sender};
use crate::plan::Plan;
use crate::random::Random;
use crate::trace::Trace;

use forge::{Forger, Load};
use ha::Manager;
use node::Node;
use predictions::Predictions;

/// Step of the virtual clock.
const STEP: Duration = Duration::from_millis(5);
const REFRESH: Duration = Duration::from_secs(3);
const CACHE_TIMEOUT: Duration = Duration::from_secs(8);
const PURGE_TIMEOUT: Duration = Duration::from_secs(2);
/// Keys of flows: few, so that they come again.
const KEYS: u64 = 300;

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
    /// Announcements that looked like an echo and were none, and flows whose end was lost because
    /// somebody had forged its acknowledgement.
    pub excepted: u64,
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An invariant did not hold.
    Safety(Violation),
    /// The caches did not become equal.
    Liveness(String),
    /// It panicked.
    Panic(String),
}

/// The simulated world.
#[derive(Debug)]
pub struct World {
    plan: Plan,
    now: Instant,
    nodes: Vec<Node>,
    edges: Edges,
    network: Network,
    truth: Truth,
    kept: Kept,
    /// Which replica sees the packets of each flow that lives.
    lives: BTreeMap<FlowKey, usize>,
    /// Removals of all kernels when `lives` was last compared with their tables.
    removals: u64,
    /// Flows that have ended where they lived, and that have not begun again.
    over: BTreeSet<FlowKey>,
    primary: usize,
    manager: Manager,
    forger: Forger,
    loads: Vec<Load>,
    /// To which replica the name of which sender's epoch has come.
    named: BTreeSet<(usize, Sender)>,
    predictions: Predictions,
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
        let (count, edges) = (plan.nodes(), plan.edges());
        World {
            nodes: (0..count).map(|n| Node::new(&plan, n, now)).collect(),
            now,
            network: Network::new(seed, edges.clone()),
            truth: Truth::new(count, edges.clone()),
            named: BTreeSet::new(),
            kept: Kept::new(count, &edges),
            edges,
            lives: BTreeMap::new(),
            removals: 0,
            over: BTreeSet::new(),
            primary: 0,
            manager: Manager::new(seed),
            forger: Forger::new(seed),
            loads: vec![Load::default(); count],
            predictions: Predictions::new(seed),
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
        self.tell_roles();
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
            Mode::Alarm | Mode::Statistics => false,
            // Whoever has emptied a cache asks for it again, but first all that lives must
            // be there without a command. Elsewhere it is the original's means.
            Mode::Ftfw => self.was_emptied || !self.plan.must_restore(),
            Mode::Notrack => true,
        };
        let limit = self.limit();
        let mut remarked = self.now;
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
                        excepted: self.truth.excepted + self.ends_lost(),
                    });
                }
                Err(difference) => difference,
            };
            if self.now.since(remarked) >= Duration::from_secs(1) {
                self.trace.remark(self.now, format_args!("{difference}"));
                remarked = self.now;
            }
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
            self.predict()?;
            self.operate();
            self.manage();
            self.forge()?;
        }
        self.bring_back();
        while let Some(datagram) = self.network.receive(self.now) {
            self.arrive(datagram);
        }
        for n in 0..self.nodes.len() {
            if self.nodes[n].back_at.is_none() {
                self.turn(n)?;
            }
        }
        self.check()
    }
}
