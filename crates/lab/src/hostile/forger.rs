//! Control messages that somebody on the dedicated link forges: requests, greetings, epochs and
//! acknowledgements. What takes four seconds takes one in the short form, unless its case has a
//! window.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use wire::v1::{Bulk, BulkState, Control, Flags, Trailer, encode_alive, encode_control};
use wire::{Epoch, Role, Seq};

use super::datagrams::{first_number, flows_without_timeout, send, send_as};
use super::{Sent, Stage};
use crate::daemon::Daemon;

/// An address of the link that belongs to nobody.
const STRANGER: &str = "10.77.9.77";
/// Flows that the stranger announces.
const ANNOUNCED: u32 = 20;
/// How long a daemon may take to obey what it obeys.
const OBEYED: Duration = Duration::from_secs(1);

/// Datagrams of one message each, whose numbers follow one another.
fn numbered(count: u32, encode: impl Fn(&mut Vec<u8>, u32, Seq)) -> Result<Vec<Vec<u8>>> {
    let first = first_number()?;
    let datagram = |n: u32| {
        let mut out = Vec::new();
        encode(&mut out, n, Seq(first.wrapping_add(n)));
        out
    };
    Ok((0..count).map(datagram).collect())
}

/// FW2 sends those in its own name.
fn in_the_peers_name(stage: &Stage<'_>, datagrams: Vec<Vec<u8>>, pause_ms: u64) -> Result<Sent> {
    send(stage.lab, 1, datagrams, Duration::from_millis(pause_ms))
}

/// 80 requests for everything in 4 s.
pub(super) fn resync(stage: &Stage<'_>) -> Result<Sent> {
    let resync = numbered(80, |out, _, seq| {
        encode_control(out, Control::Resync, Flags::NONE, seq);
    })?;
    in_the_peers_name(stage, resync, 50)
}

/// For 4 s, 200 a second, HELLO with numbers that look like another start each.
pub(super) fn hello(stage: &Stage<'_>) -> Result<Sent> {
    let hello = numbered(800, |out, n, seq| {
        // Further ahead than a peer that has not heard our answer.
        let seq = Seq(seq.0.wrapping_add(n.wrapping_mul(1 << 20)));
        encode_control(out, Control::Alive, Flags::HELLO, seq);
    })?;
    in_the_peers_name(stage, hello, 5)
}

/// 1000 ALIVE in 5 s, each in another epoch.
pub(super) fn epochs(stage: &Stage<'_>) -> Result<Sent> {
    let alive = numbered(1000, |out, n, seq| {
        encode_alive(out, &trailer(Epoch(n)), Flags::NONE, seq);
    })?;
    in_the_peers_name(stage, alive, 5)
}

/// NACK of everything that is not acknowledged.
pub(super) fn nack(stage: &Stage<'_>) -> Result<Sent> {
    of_half(stage, Control::Nack)
}

/// ACK of everything sent and of what is still to be sent.
pub(super) fn ack(stage: &Stage<'_>) -> Result<Sent> {
    of_half(stage, Control::Ack)
}

/// Messages, 100 a second for 4 s, each of half of all numbers, from first to last.
fn of_half(stage: &Stage<'_>, control: fn(Seq, Seq) -> Control) -> Result<Sent> {
    let count = stage.extent.pick(100, 400);
    let datagrams = numbered(count, |out, _, seq| {
        let last = seq.0.wrapping_add(1 << 20);
        let first = last.wrapping_sub(1 << 31).wrapping_add(1);
        encode_control(out, control(Seq(first), Seq(last)), Flags::NONE, seq);
    })?;
    in_the_peers_name(stage, datagrams, 10)
}

/// ALIVE, 1000 a second for 4 s, without an epoch.
pub(super) fn alive(stage: &Stage<'_>) -> Result<Sent> {
    let count = stage.extent.pick(1000, 4000);
    let alive = numbered(count, |out, _, seq| {
        encode_control(out, Control::Alive, Flags::NONE, seq);
    })?;
    in_the_peers_name(stage, alive, 1)
}

/// Messages, 100 a second for 4 s, of any kind, with any numbers.
pub(super) fn anything(stage: &Stage<'_>) -> Result<Sent> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut datagrams = Vec::new();
    for _ in 0..stage.extent.pick(100, 400) {
        let mut number = || Seq(random.u32(..));
        let (seq, from, to) = (number(), number(), number());
        let (control, flags) = match random.u8(..5) {
            0 => (Control::Resync, Flags::NONE),
            1 => (Control::Alive, Flags::HELLO),
            2 => (Control::Nack(from, to), Flags::NONE),
            3 => (Control::Ack(from, to), Flags::HELLO_BACK),
            _ => (Control::Alive, Flags::NONE),
        };
        let mut out = Vec::new();
        encode_control(&mut out, control, flags, seq);
        datagrams.push(out);
    }
    in_the_peers_name(stage, datagrams, 10)
}

/// 20 flows, and RESYNC, 100 a second for 4 s, from an address that is not the peer's. What the
/// daemon takes of the flows has been obeyed.
pub(super) fn stranger(stage: &Stage<'_>) -> Result<Sent> {
    stage.lab.fw[1].run(&format!("ip addr add {STRANGER}/24 dev eth2"))?;
    let mut datagrams = flows_without_timeout(ANNOUNCED)?;
    datagrams.extend(numbered(stage.extent.pick(100, 400), |out, n, seq| {
        let seq = Seq(seq.0.wrapping_add(ANNOUNCED + n));
        encode_control(out, Control::Resync, Flags::NONE, seq);
    })?);
    let sent = send_as(stage.lab, 1, STRANGER, datagrams, Duration::from_millis(10));
    stage.lab.fw[1].run(&format!("ip addr del {STRANGER}/24 dev eth2"))?;
    thread::sleep(OBEYED);
    let obeyed = stage.victim().external("src=10.0.0.")?.len();
    Ok(Sent {
        obeyed: Some(obeyed as u64),
        ..sent?
    })
}

/// A peer that is killed and started eight times in 8 s.
pub(super) fn restarts(stage: &Stage<'_>) -> Result<Sent> {
    let before = stage.lab.link_bytes(0)?[0];
    let mut sent = Sent::default();
    for _ in 0..8 {
        let started = std::time::Instant::now();
        let peer = Daemon::start(
            stage.victim().kind(),
            &stage.lab.fw[1],
            1,
            &stage.settings,
            stage.dir,
        )?;
        let mut peer = peer.context("no daemon")?;
        thread::sleep(Duration::from_secs(1).saturating_sub(started.elapsed()));
        peer.kill();
        sent.count += 1;
    }
    sent.bytes = stage.lab.link_bytes(0)?[0] - before;
    Ok(sent)
}

fn trailer(epoch: Epoch) -> Trailer {
    Trailer {
        role: Role::Primary,
        has_bulks: true,
        epoch,
        bulk: Bulk {
            number: 0,
            first: Seq(0),
            flows: 0,
            state: BulkState::None,
        },
        holdings: None,
    }
}
