//! Listings of our daemon, read back into flows.

use std::path::Path;

use control::call::{Call, Table, Task};
use flow::Flow;

use super::client::{self, Failure};
use super::row::{self, Notes};

/// Reads a table of our daemon.
pub(super) fn list(
    config: &Path,
    table: Table,
    see: impl FnMut(Flow, Notes),
) -> Result<(), Failure> {
    let task = Task::Flows {
        table,
        filter: Vec::new(),
        count: false,
    };
    flows_of(config, task, see)
}

/// Reads the flows that answer a task.
pub(super) fn flows_of(
    config: &Path,
    task: Task,
    mut see: impl FnMut(Flow, Notes),
) -> Result<(), Failure> {
    let mut unreadable = None;
    client::ask(config, &Call::new(task, true), |line| {
        match row::read(line) {
            Ok((flow, notes)) => see(flow, notes),
            Err(e) => unreadable = Some(e),
        }
        unreadable.is_none()
    })?;
    match unreadable {
        None => Ok(()),
        Some(e) => Err(Failure::plain(format!("unreadable answer: {e}"))),
    }
}
