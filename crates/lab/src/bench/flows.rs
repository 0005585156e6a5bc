//! Flows with source NAT that no traffic made, as IPv4 and IPv6, and a synthetic peer that sends
//! them to FW2's daemon as a primary would.

use std::time::Duration;

use anyhow::{Context, Result};
use flow::{Addrs, Flow, L4, Proto, ProtoInfo, Status, TcpInfo, TcpState, Tuple};
use wire::Seq;

use super::{Program, external_flows};
use crate::daemon::{Daemon, Mode, Settings};
use crate::hostile;
use crate::topology::Lab;
use crate::wait;
use crate::world::World;

/// Which family the flows of a measurement have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The same as IPv6 flow, with the same ports.
fn flow6(n: u32) -> Flow {
    let v4 = flow(n);
    let [_, a, b, c] = n.to_be_bytes();
    let mut flow = v4;
    flow.orig.addrs = Addrs::V6 {
        src: [0xfd00, 0, 0, 1, 0, 0, a.into(), u16::from_be_bytes([b, c])].into(),
        dst: [0xfd00, 0, 0, 2, 0, 0, 0, 2].into(),
    };
    let outside = [0xfd00, 0, 0, 2, 0, 0, 0, 0x100];
    flow.reply.addrs = Addrs::V6 {
        src: [0xfd00, 0, 0, 2, 0, 0, 0, 2].into(),
        dst: outside.into(),
    };
    flow
}

/// Flow number `n`: established TCP, translated to 192.168.1.100 and another port.
pub fn flow(n: u32) -> Flow {
    let src = [10, (n >> 16) as u8, (n >> 8) as u8, n as u8];
    let mut flow = Flow::new(Tuple {
        addrs: Addrs::V4 {
            src: src.into(),
            dst: [192, 168, 1, 2].into(),
        },
        proto: Proto::TCP,
        l4: L4::Ports {
            src: 1024 + (n % 60_000) as u16,
            dst: 80 + (n / 60_000) as u16,
        },
    });
    let nat = [192, 168, 1, 100];
    flow.reply.addrs = Addrs::V4 {
        src: [192, 168, 1, 2].into(),
        dst: nat.into(),
    };
    flow.reply.l4 = L4::Ports {
        src: 80 + (n / 60_000) as u16,
        dst: 1025 + (n % 60_000) as u16,
    };
    flow.status = [
        Status::SEEN_REPLY,
        Status::ASSURED,
        Status::CONFIRMED,
        Status::SRC_NAT,
        Status::SRC_NAT_DONE,
        Status::DST_NAT_DONE,
    ]
    .into_iter()
    .fold(Status(0), Status::with);
    flow.timeout = Some(432_000);
    flow.proto_info = Some(ProtoInfo::Tcp(TcpInfo {
        state: TcpState::ESTABLISHED,
        window_scale: None,
    }));
    flow
}

/// Sends `count` flows to FW2, slowly enough that its receive buffer holds them.
fn send_flows(lab: &Lab, count: u32, family: Family) -> Result<()> {
    let flow = move |n| match family {
        Family::V4 => flow(n),
        Family::V6 => flow6(n),
    };
    let datagrams = hostile::batches(Seq(1), (0..count).map(flow));
    hostile::send(lab, 0, datagrams, hostile::BATCH_PAUSE)?;
    Ok(())
}

/// The same over UDP, with a timeout that outlasts a measurement.
pub(super) fn udp_flow(n: u32) -> Flow {
    let mut flow = flow(n);
    for tuple in [&mut flow.orig, &mut flow.reply] {
        tuple.proto = Proto::UDP;
    }
    flow.proto_info = None;
    flow.timeout = Some(600);
    flow
}

/// A daemon on FW2 that knows `count` flows.
pub(super) fn loaded(
    world: &World,
    lab: &Lab,
    program: &Program,
    count: u32,
    family: Family,
) -> Result<(Daemon, u64)> {
    let settings = program.with(&Settings::new(Mode::Notrack).for_flows(count));
    let daemon = Daemon::start(program.kind, &lab.fw[1], 1, &settings, world.dir())?;
    let daemon = daemon.context("no daemon")?;
    let before = daemon.resident_bytes()?;
    send_flows(lab, count, family)?;
    let mut known = 0;
    wait::until(
        "the daemon knows the flows",
        Duration::from_secs(60),
        || {
            known = external_flows(&daemon).unwrap_or(0);
            known == u64::from(count)
        },
    )
    .with_context(|| format!("it knows {known} of {count}"))?;
    Ok((daemon, before))
}
