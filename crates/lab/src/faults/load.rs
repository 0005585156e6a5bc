//! A load on a firewall that no machine of the laboratory has to carry: flows begin, are
//! established and end in its kernel at a given rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use flow::{Addrs, Flow};

use crate::bench;
use crate::bench::load::{Action, Load};
use crate::node::Node;

/// Flows that begin, and flows that end, at a time.
const BATCH: u32 = 50;
/// Events of a flow's life: it begins, is established, ends.
const EVENTS: u32 = 3;

/// A load that runs.
#[derive(Debug)]
pub(super) struct Running {
    stop: Arc<AtomicBool>,
    events: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

impl Running {
    /// So many events a second in the kernel of `node`, from which at most `living` flows are
    /// there at a time.
    pub(super) fn start(node: &Node, rate: u32, living: u32) -> Running {
        let (stop, events) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let work = Work {
            node: node.clone(),
            pause: Duration::from_secs(1) * BATCH * EVENTS / rate,
            living,
            stop: Arc::clone(&stop),
            events: Arc::clone(&events),
        };
        Running {
            stop,
            events,
            thread: thread::spawn(move || work.run()),
        }
    }

    /// Ends it, and yields how many events it has made. Its last flows stay.
    ///
    /// # Errors
    /// If the kernel has refused one of them.
    pub(super) fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("the load panicked")??;
        Ok(self.events.load(Ordering::Relaxed))
    }
}

struct Work {
    node: Node,
    pause: Duration,
    living: u32,
    stop: Arc<AtomicBool>,
    events: Arc<AtomicU64>,
}

impl Work {
    fn run(self) -> Result<()> {
        let (mut first, mut next) = (0, 0);
        let mut due = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            self.batch(next, Action::Create)?;
            self.batch(next, Action::Update)?;
            next += BATCH;
            if next - first > self.living {
                self.batch(first, Action::Delete)?;
                first += BATCH;
            }
            due += self.pause;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    fn batch(&self, first: u32, action: Action) -> Result<()> {
        let load = Load {
            first,
            ..Load::of_first(BATCH)
        };
        load.run(&self.node, action)?;
        self.events.fetch_add(BATCH.into(), Ordering::Relaxed);
        Ok(())
    }
}

/// Puts as many established flows, which do not end, into the kernel of `node`. They are others
/// than those of a load.
pub(super) fn fill(node: &Node, count: u32) -> Result<()> {
    for action in [Action::Create, Action::Update] {
        let load = Load {
            first: FILLED,
            ..Load::of_first(count)
        };
        load.run(node, action)?;
    }
    Ok(())
}

/// The first of those: the numbers below it suffice a load of a day.
const FILLED: u32 = 100_000_000;

/// Puts as many flows into the kernel of `node` that it may not drop, and that no daemon
/// replicates, or ends them.
pub(super) fn occupy(node: &Node, count: u32, action: Action) -> Result<()> {
    let load = Load {
        flow: occupant,
        ..Load::of_first(count)
    };
    load.run(node, action)?;
    Ok(())
}

/// Its addresses are in a network that the daemons leave out.
fn occupant(n: u32) -> Flow {
    let mut flow = bench::flow(n);
    let left_out = [10, 77, 8, 9].into();
    if let Addrs::V4 { dst, .. } = &mut flow.orig.addrs {
        *dst = left_out;
    }
    if let Addrs::V4 { src, .. } = &mut flow.reply.addrs {
        *src = left_out;
    }
    flow
}
