//! Goal: the invariants hold, and the caches become equal, under faults nobody thought of.
//! Method: a few hundred seeds; each decides who takes part, what goes wrong, and when.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use sim::plan::Plan;
use sim::world::World;

const SEEDS: u64 = 300;

/// Seeds beyond those that have found a bug, with what it was.
const FOUND: &[(u64, &str)] = &[
    (
        625,
        "a peer that restarted before its first ALIVE was heard went unnoticed",
    ),
    (652, "what an operator had claimed was injected over"),
    (
        507,
        "a bulk update of which a part was given up was complete for the peer",
    ),
    (
        564,
        "a repair before the peer's first trailer was complete without what it had left out",
    ),
    (
        756,
        "a late acknowledgement of a former epoch's messages took the peer's numbers back",
    ),
    (
        2063,
        "a flow of a former epoch's late message stayed, as the bulk update had come before it",
    ),
];

fn run(seed: u64) -> Result<u64, String> {
    let plan = Plan::new(seed);
    let again = format!("{plan}\nagain: target/release/ftfw-sim --seed {seed} --trace");
    match World::new(plan).run() {
        Ok(finished) => Ok(finished.digest),
        Err(failure) => Err(format!("seed {seed}: {failure:?}\n{again}")),
    }
}

#[test]
fn every_seed_holds() {
    let next = AtomicU64::new(0);
    let failed = Mutex::new(Vec::new());
    let work = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let more = (n.checked_sub(SEEDS)).map(|n| FOUND.get(n as usize).map(|f| f.0));
            let seed = match more {
                None => n,
                Some(Some(seed)) => seed,
                Some(None) => break,
            };
            if let Err(failure) = run(seed) {
                failed.lock().unwrap().push(failure);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn a_seed_gives_the_same_trace_each_time() {
    // A seed that fails must also fail the same way each time.
    let digests: Vec<_> = (0..10).map(run).collect();
    let again: Vec<_> = (0..10).map(run).collect();
    assert_eq!(digests, again);
    let mut different = digests.clone();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), digests.len(), "digests that tell nothing");
}
