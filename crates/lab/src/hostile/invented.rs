//! Flows that nobody has, announced in the peer's name: more than the cache may hold.

use anyhow::Result;
use wire::Seq;

use super::datagrams::{BATCH_PAUSE, batches, first_number, send};
use super::{Sent, Stage};
use crate::bench;

/// Each flow once, a hundred thousand a second.
pub(super) fn flows(stage: &Stage<'_>) -> Result<Sent> {
    let flows = (0..stage.invented).map(bench::flow);
    let datagrams = batches(Seq(first_number()?), flows);
    let sent = send(stage.lab, 1, datagrams, BATCH_PAUSE)?;
    Ok(Sent {
        count: stage.invented.into(),
        ..sent
    })
}
