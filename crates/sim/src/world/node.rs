//! One replica of the world: its program, its kernel, and what waits for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use flow::{ExpectKey, Expectation, Filter, Flow, FlowKey};
use replica::{
    Age, Command, CommandId, Epoch, Instant, LinkSettings, Replica, Role, Seq, Settings, TableId,
    Which,
};

use crate::host::Sockets;
use crate::kernel::Kernel;
use crate::original::{self, Original};
use crate::plan::{Plan, Program};
use crate::random::Random;

use super::{CACHE_TIMEOUT, PURGE_TIMEOUT, REFRESH};

/// A fixed timeout of committed flows, with which messages carry none.
const COMMIT_TIMEOUT_SECS: u32 = 90;

/// The program of a replica.
#[derive(Debug)]
pub(super) enum Core {
    Ours(Box<Replica>),
    Original(Box<Original>),
}

/// One replica with its machine.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) core: Core,
    pub(super) kernel: Kernel,
    pub(super) sockets: Sockets,
    /// Which of its epochs this is, counted from 0.
    pub(super) run: u32,
    /// Its daemon has died and is not back.
    pub(super) is_dead: bool,
    /// When a dead or paused daemon goes on.
    pub(super) back_at: Option<Instant>,
    /// Until then its links take no datagrams.
    pub(super) blocked_until: Instant,
    /// Commands of a script that follow when the one before is done.
    pub(super) script: VecDeque<Command>,
    pub(super) waits_for: Option<CommandId>,
    /// How many resyncs will be over when that of a take-over is.
    pub(super) claimed_at: Option<u64>,
    /// The kernel was still to be read for it when the present turn began.
    pub(super) was_claiming: bool,
    /// Entries of its internal cache that the last look did not find in its kernel.
    pub(super) ghosts: BTreeSet<FlowKey>,
}

impl Node {
    /// Replica `n` of a plan in its first epoch.
    pub(super) fn new(plan: &Plan, n: usize, now: Instant) -> Node {
        let mut kernel = Kernel::new(Random::new(plan.seed, "hashes").next_u64());
        kernel.helpers = vec!["ftp"];
        Node {
            core: Core::new(plan, n, 0, now, &kernel),
            kernel,
            sockets: Sockets::default(),
            run: 0,
            is_dead: false,
            back_at: None,
            blocked_until: now,
            script: VecDeque::new(),
            waits_for: None,
            claimed_at: None,
            was_claiming: false,
            ghosts: BTreeSet::new(),
        }
    }

    /// True if no script is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.script.is_empty() && self.waits_for.is_none()
    }

    /// Notes that a resync is asked for: that of a primary claims what it finds.
    pub(super) fn on_resync(&mut self) {
        if let Core::Ours(replica) = &self.core
            && replica.role() == Role::Primary
        {
            // The first dump, if it is not over, counts as one.
            let first = u64::from(!replica.is_whole());
            self.claimed_at = Some(replica.stats().resyncs + first + 1);
        }
    }

    /// True until the resync of a take-over has read the kernel.
    pub(super) fn is_claiming(&self) -> bool {
        match (&self.core, self.claimed_at) {
            (Core::Ours(replica), Some(then)) => replica.stats().resyncs < then,
            _ => false,
        }
    }

    /// Shows the entries of a cache of the real core; the original's model has none.
    pub(super) fn for_each_own(&self, which: Which, mut see: impl FnMut(&Flow, Age)) {
        if let Core::Ours(replica) = &self.core {
            let mut position = cache::Position::default();
            while let Some(next) = replica.walk(which, position, 100, &mut see) {
                position = next;
            }
        }
    }

    fn walk(&self, which: Which, wanted: impl Fn(&Age) -> bool) -> BTreeMap<FlowKey, Flow> {
        let mut found = BTreeMap::new();
        self.for_each_own(which, |flow, age| {
            if wanted(&age) {
                found.insert(flow.key(), *flow);
            }
        });
        found
    }

    /// Flows of its internal cache.
    pub(super) fn internal(&self, wanted: impl Fn(&Age) -> bool) -> BTreeMap<FlowKey, Flow> {
        match &self.core {
            Core::Original(original) => original.internal(),
            Core::Ours(_) => self.walk(Which::Internal, wanted),
        }
    }

    /// Keys of the flows that are its own.
    pub(super) fn announced(&self) -> BTreeSet<FlowKey> {
        match &self.core {
            Core::Ours(_) => {
                let own = self.internal(|age| age.is_announced);
                own.into_keys().collect()
            }
            Core::Original(_) => BTreeSet::new(),
        }
    }

    /// Flows of its external cache.
    pub(super) fn external(&self, wanted: impl Fn(&Age) -> bool) -> BTreeMap<FlowKey, Flow> {
        match &self.core {
            Core::Original(original) => original.external(),
            Core::Ours(_) => self.walk(Which::External, wanted),
        }
    }

    /// Expectations of a cache.
    pub(super) fn expectations(
        &self,
        which: Which,
        wanted: impl Fn(&Age) -> bool,
    ) -> BTreeMap<ExpectKey, Expectation> {
        let replica = match &self.core {
            Core::Original(original) => return original.expectations(which),
            Core::Ours(replica) => replica,
        };
        let mut found = BTreeMap::new();
        let see = |e: &Expectation, age: Age| {
            if wanted(&age) {
                found.insert(e.key(), *e);
            }
        };
        replica.walk_expectations(which, None, usize::MAX, see);
        found
    }
}

impl Core {
    /// The program of replica `n` in one of its epochs.
    pub(super) fn new(plan: &Plan, n: usize, run: u32, now: Instant, kernel: &Kernel) -> Core {
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
                expectations: plan.expectations,
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
            expectations: plan.expectations.then(Vec::new),
            filter: Filter::default(),
            links: vec![link("sync0"), link("sync1")],
            first_link: 0,
            sweep_short: Duration::from_secs(2),
            sweep_full: Duration::from_secs(4),
            sweep_leisurely: Duration::from_secs(4),
            first_seq,
            epoch: Epoch((plan.seed as u32) << 8 | (n as u32) << 6 | run),
            table: TableId(kernel.table_id),
            trailer: plan.trailer,
        })))
    }
}
