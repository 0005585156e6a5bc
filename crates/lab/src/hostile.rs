//! What forged datagrams make a daemon do: version 1 has no authentication, so whoever can
//! write to the dedicated link can send in the peer's name. What that costs must be bounded
//! by what the forger sends.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use flow::{Flow, Proto};
use wire::v1::{
    Bulk, BulkState, Control, Flags, FlowOptions, Trailer, encode_alive, encode_control,
    encode_flow,
};
use wire::{Epoch, Role, Seq, StateKind};

use crate::bench;
use crate::daemon::{Daemon, Kind, Mode, Settings};
use crate::topology::Lab;
use crate::traffic::datagrams;
use crate::wait;
use crate::world::World;

/// Flows that FW1 holds.
pub const FLOWS: usize = 50_000;
/// From the first forged datagram to the end of the measurement: shorter than the 10 s in which
/// forged datagrams may begin one bulk update.
const WINDOW: Duration = Duration::from_secs(9);
/// Ethernet, IPv4 and UDP headers, as interfaces count them.
const HEADERS: u64 = 14 + 20 + 8;
/// Daemons number their messages from the Unix time of their start: this much ahead of it is
/// ahead of what they have sent, and not so far that it looks like another start.
const AHEAD: u32 = 10_000;

/// What is forged, in the name of FW2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// FT-FW: 80 requests for everything in 4 s.
    Resync,
    /// FT-FW: for 4 s, 200 a second, HELLO with numbers that look like another start each. The
    /// peer is silent, and FW1 has sent it all flows since.
    Hello,
    /// NOTRACK: 1000 ALIVE in 5 s, each in another epoch.
    Epochs,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Bytes forged, with headers.
    pub forged: u64,
    /// Bytes that FW1 sent over the link, with headers.
    pub answered: u64,
    /// Bytes of all flows sent once, with headers.
    pub copy: u64,
    /// Bytes that FW1's daemon wrote to its log.
    pub log: u64,
}

/// Runs one attack on a pair of such daemons. Both are started anew.
pub fn measure(world: &World, lab: &Lab, kind: Kind, attack: Attack) -> Result<Measured> {
    let mode = match attack {
        Attack::Resync | Attack::Hello => Mode::Ftfw,
        Attack::Epochs => Mode::Notrack,
    };
    let start = |n: usize| -> Result<Daemon> {
        let daemon = Daemon::start(kind, &lab.fw[n], n, &Settings::new(mode), world.dir())?;
        daemon.context("no daemon")
    };
    let (fw1, mut fw2) = (start(0)?, start(1)?);
    lab.wait_quiet()?;
    let silence = "INPUT -i eth2 -p udp --dport 3780 -j DROP";
    if attack == Attack::Hello {
        fw2.kill();
        lab.fw[1].run(&format!("iptables -I {silence}"))?;
    }
    let sent = || Ok::<_, anyhow::Error>(lab.link_bytes(0)?[1]);
    let mut before = sent()?;
    datagrams::create(&lab.fw[0], world.dir(), FLOWS)?;
    let held = lab.count_flows(0, "-p udp --orig-port-dst 9")?;
    ensure!(held == FLOWS, "FW1's kernel holds {held} flows");
    // On a busy machine the kernel may drop events, which are made good later.
    wait::until("FW1 knows the flows", Duration::from_secs(60), || {
        fw1.internal("dport=9 ").is_ok_and(|l| l.len() == FLOWS)
    })?;
    lab.wait_quiet()?;
    if attack != Attack::Hello {
        wait::until("FW2 knows the flows", Duration::from_secs(30), || {
            bench::external_flows(&fw2).is_ok_and(|n| n >= FLOWS as u64)
        })?;
        before = sent()?;
        fw2.ask(&["-n"])?;
        lab.wait_quiet()?;
    }
    let copy = sent()? - before;
    ensure!(copy > 40 * FLOWS as u64, "FW1 has sent {copy} bytes only");

    let (log, before) = (fw1.log().len(), sent()?);
    let begun = Instant::now();
    let forged = forge(lab, attack)?;
    // What is begun by then counts until the end of the window.
    thread::sleep(WINDOW.saturating_sub(begun.elapsed()));
    let measured = Measured {
        forged,
        answered: sent()? - before,
        copy,
        log: (fw1.log().len() - log) as u64,
    };
    fw1.ask(&["-s"]).context("FW1's daemon after the attack")?;
    fw1.stop()?;
    if attack == Attack::Hello {
        lab.fw[1].run(&format!("iptables -D {silence}"))?;
    } else {
        fw2.stop()?;
    }
    lab.fw[0].run("conntrack -F")?;
    Ok(measured)
}

/// Sends the datagrams of an attack in FW2's name. Returns their bytes.
fn forge(lab: &Lab, attack: Attack) -> Result<u64> {
    let first = first_number()?;
    let (count, pause) = match attack {
        Attack::Resync => (80, Duration::from_millis(50)),
        Attack::Hello => (800, Duration::from_millis(5)),
        Attack::Epochs => (1000, Duration::from_millis(5)),
    };
    let datagrams = (0..count).map(|n| {
        let mut out = Vec::new();
        let seq = Seq(first.wrapping_add(n));
        match attack {
            Attack::Resync => encode_control(&mut out, Control::Resync, Flags::NONE, seq),
            Attack::Hello => {
                // Further ahead than a peer that has not heard our answer.
                let seq = Seq(first.wrapping_add(n.wrapping_mul(1 << 20)));
                encode_control(&mut out, Control::Alive, Flags::HELLO, seq);
            }
            Attack::Epochs => encode_alive(&mut out, &trailer(Epoch(n)), Flags::NONE, seq),
        }
        out
    });
    send(lab, 1, datagrams.collect(), pause)
}

/// A number of a message that is ahead of what a daemon started just now has sent.
pub fn first_number() -> Result<u32> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok((now.as_secs() as u32).wrapping_add(AHEAD))
}

/// Sends datagrams from firewall `n`, whose daemon need not run, to the other's daemon, with a
/// pause after each. Returns their bytes, headers included.
pub fn send(lab: &Lab, n: usize, datagrams: Vec<Vec<u8>>, pause: Duration) -> Result<u64> {
    let (from, to) = (
        format!("10.77.9.{}:0", n + 1),
        format!("10.77.9.{}:3780", 2 - n),
    );
    lab.fw[n].inside(move || -> Result<u64> {
        let socket = std::net::UdpSocket::bind(from)?;
        let (begun, mut bytes) = (Instant::now(), 0);
        for (number, datagram) in (1..).zip(datagrams) {
            bytes += socket.send_to(&datagram, &to)? as u64 + HEADERS;
            thread::sleep((pause * number).saturating_sub(begun.elapsed()));
        }
        Ok(bytes)
    })?
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
