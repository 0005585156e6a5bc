//! Datagrams that are no messages, and messages that have been changed on their way, from the
//! peer's address.

use std::time::Duration;

use anyhow::Result;
use fastrand::Rng;
use wire::Seq;
use wire::v1::{Control, Flags, FlowOptions, encode_control};

use super::datagrams::{announcements, first_number, send};
use super::{Sent, Stage};
use crate::bench;

/// The longest payload that the link carries in one piece.
const LONGEST: usize = 1472;
/// Messages that are changed, again and again.
const ORIGINALS: u32 = 64;
/// 5000 datagrams a second.
const PAUSE: Duration = Duration::from_micros(200);

/// How many datagrams: two seconds of them, or eight.
fn count(stage: &Stage<'_>) -> usize {
    stage.extent.pick(10_000, 40_000)
}

/// Bytes by chance.
pub(super) fn random(stage: &Stage<'_>) -> Result<Sent> {
    let mut random = Rng::with_seed(11);
    let datagram = move |_| {
        let mut bytes = vec![0; random.usize(..=LONGEST)];
        random.fill(&mut bytes);
        bytes
    };
    send(stage.lab, 1, (0..count(stage)).map(datagram), PAUSE)
}

/// Messages of version 1 with up to eight other bytes, a third of them cut or made longer.
pub(super) fn mutated(stage: &Stage<'_>) -> Result<Sent> {
    let originals = originals()?;
    let mut random = Rng::with_seed(13);
    let datagram = move |_| {
        let mut bytes = originals[random.usize(..originals.len())].clone();
        for _ in 0..random.usize(1..=8) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        if random.u8(..3) == 0 {
            bytes.resize(random.usize(..2 * bytes.len()), 0xff);
        }
        bytes
    };
    send(stage.lab, 1, (0..count(stage)).map(datagram), PAUSE)
}

/// Good messages: flows, and each kind of control message.
fn originals() -> Result<Vec<Vec<u8>>> {
    let options = FlowOptions {
        timeout: true,
        window_scale: true,
    };
    let mut originals = announcements((0..ORIGINALS).map(bench::flow), options)?;
    let number = Seq(first_number()?);
    for control in [
        Control::Ack(number, number),
        Control::Nack(number, number),
        Control::Resync,
        Control::Alive,
    ] {
        let mut out = Vec::new();
        encode_control(&mut out, control, Flags::NONE, number);
        originals.push(out);
    }
    Ok(originals)
}
