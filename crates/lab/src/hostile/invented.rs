//! Flows that nobody has, announced in the peer's name: more than the cache may hold.

use std::time::Duration;

use anyhow::Result;
use wire::Seq;

use super::datagrams::{batches, first_number, send};
use super::{Sent, Stage};
use crate::bench;

/// About 6000 datagrams a second: a hundred thousand flows.
const PAUSE: Duration = Duration::from_micros(167);

/// Each flow once.
pub(super) fn flows(stage: &Stage<'_>) -> Result<Sent> {
    let flows = (0..stage.invented).map(bench::flow);
    let datagrams = batches(Seq(first_number()?), flows);
    let sent = send(stage.lab, 1, datagrams, PAUSE)?;
    Ok(Sent {
        count: stage.invented.into(),
        ..sent
    })
}
