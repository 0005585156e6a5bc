//! Datagrams of version 1 that nobody in the pair has sent, and the socket that sends them.

use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use flow::{Flow, Proto};
use wire::v1::{Batch, Flags, FlowOptions, encode_flow};
use wire::{Seq, StateKind};

use super::Sent;
use crate::bench;
use crate::topology::Lab;

/// Ethernet, IPv4 and UDP headers, as interfaces count them.
const HEADERS: u64 = 14 + 20 + 8;
/// Daemons number their messages from the Unix time of their start: this much ahead of it is
/// ahead of what they have sent, and not so far that it looks like another start.
const AHEAD: u32 = 10_000;

/// Between two of [`batches`]: six in a millisecond, which are a hundred flows.
pub const BATCH_PAUSE: Duration = Duration::from_micros(167);

/// A number of a message that is ahead of what a daemon started just now has sent.
pub fn first_number() -> Result<u32> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok((now.as_secs() as u32).wrapping_add(AHEAD))
}

/// Sends datagrams from firewall `n`, whose daemon need not run, to the other's daemon, with a
/// pause after each. Counts bytes with headers.
pub fn send<D>(lab: &Lab, n: usize, datagrams: D, pause: Duration) -> Result<Sent>
where
    D: IntoIterator<Item = Vec<u8>> + Send + 'static,
{
    send_as(lab, n, &format!("10.77.9.{}", n + 1), datagrams, pause)
}

/// The same from an address that the firewall has.
pub(super) fn send_as<D>(
    lab: &Lab,
    n: usize,
    from: &str,
    datagrams: D,
    pause: Duration,
) -> Result<Sent>
where
    D: IntoIterator<Item = Vec<u8>> + Send + 'static,
{
    let (from, to) = (format!("{from}:0"), format!("10.77.9.{}:3780", 2 - n));
    lab.fw[n].inside(move || -> Result<Sent> {
        let socket = UdpSocket::bind(from)?;
        let (begun, mut sent) = (Instant::now(), Sent::default());
        for datagram in datagrams {
            sent.bytes += socket.send_to(&datagram, &to)? as u64 + HEADERS;
            sent.count += 1;
            let due = pause * u32::try_from(sent.count)?;
            thread::sleep(due.saturating_sub(begun.elapsed()));
        }
        Ok(sent)
    })?
}

/// State messages about `count` new flows, half of them TCP, without their timeouts, as a peer
/// with a `CommitTimeout` sends them: one a datagram.
pub fn flows_without_timeout(count: u32) -> Result<Vec<Vec<u8>>> {
    let flow = |n: u32| {
        let mut flow = bench::flow(n);
        if n.is_multiple_of(2) {
            for tuple in [&mut flow.orig, &mut flow.reply] {
                tuple.proto = Proto::UDP;
            }
            flow.proto_info = None;
        }
        flow
    };
    let options = FlowOptions {
        timeout: false,
        window_scale: false,
    };
    announcements((0..count).map(flow), options)
}

/// State messages about new flows: one a datagram.
pub fn announcements(
    flows: impl IntoIterator<Item = Flow>,
    options: FlowOptions,
) -> Result<Vec<Vec<u8>>> {
    let first = first_number()?;
    let datagram = |(n, flow)| {
        let mut out = Vec::new();
        let seq = Seq(first.wrapping_add(n));
        encode_flow(&mut out, StateKind::New, Flags::NONE, seq, &flow, options);
        out
    };
    Ok((0..).zip(flows).map(datagram).collect())
}

/// State messages about new flows, as many in a datagram as fit. The first has the number `seq`.
pub fn batches(
    mut seq: Seq,
    flows: impl IntoIterator<Item = Flow>,
) -> impl Iterator<Item = Vec<u8>> {
    let options = FlowOptions {
        timeout: true,
        window_scale: false,
    };
    let mut flows = flows.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut batch = Batch::new(1500, 28);
        while let Some(flow) = flows.peek() {
            let encode = |out: &mut Vec<u8>| {
                encode_flow(out, StateKind::New, Flags::NONE, seq, flow, options);
            };
            if !batch.push(encode) {
                break;
            }
            flows.next();
            seq = seq.next();
        }
        (!batch.bytes().is_empty()).then(|| batch.bytes().to_vec())
    })
}
