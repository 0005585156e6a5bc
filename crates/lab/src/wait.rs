//! Waiting for a condition with a deadline, instead of sleeping.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks `condition` every 10 ms until it holds.
///
/// # Errors
/// After `limit`, naming `what` was waited for.
pub fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + limit;
    while !condition() {
        if Instant::now() >= end {
            bail!("{what}: not within {} s", limit.as_secs_f32());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
