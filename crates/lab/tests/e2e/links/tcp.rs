//! Links over TCP.

use std::io::Write;
use std::net::SocketAddr;
use std::thread;

use flow::Flow;
use lab::{kernel, relay};
use rustix::process::{Pid, Signal, kill_process};

use super::sources::status;
use super::*;
use crate::ends::flow;

fn is_connected(daemon: &Daemon) -> bool {
    let line = "TCP traffic (active device=eth2) server=connected client=connected:";
    daemon.ask(&["-s"]).is_ok_and(|text| text.contains(line))
}

fn wait_connected(ends: &Ends) -> Result<()> {
    for n in 0..2 {
        wait::until("both connections are there", SETTLED, || {
            is_connected(&ends.daemons[n])
        })
        .with_context(|| ends.shown(n))?;
    }
    Ok(())
}

/// Goal: what changes on either side is known on the other one, also after either was killed
/// and has started again.
pub(super) fn carries(
    world: &World,
    kinds: [Kind; 2],
    mode: Mode,
    transport: Transport,
) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let settings = Settings {
        transport,
        ..Settings::new(mode)
    };
    let mut ends = Ends::start(world, lab, kinds, settings)?;
    wait_connected(&ends)?;
    for n in 0..2 {
        ends.make(n, 200)?;
    }
    ends.agree()?;
    for n in 0..2 {
        ends.restart(n)?;
        wait_connected(&ends)?;
        // The original asks for nothing by itself, and forgets what was sent before.
        ends.daemons[n].ask(&["-n"])?;
        ends.daemons[n].ask(&["-B"])?;
        ends.agree()?;
        ends.make(n, 50)?;
        ends.make(1 - n, 50)?;
        ends.agree()?;
    }
    let malformed = |n: usize| ends.daemons[n].ask(&["-s", "network"]);
    for n in 0..2 {
        let text = malformed(n)?;
        let line = text.lines().find(|l| l.contains("Malformed messages"));
        ensure!(line.is_some_and(|l| l.ends_with(" 0")), "{text}");
    }
    Ok(())
}

/// Goal: messages survive any split of the stream. Method: a relay that passes both streams on
/// in pieces of one to seven bytes.
pub(super) fn in_pieces(world: &World, kinds: [Kind; 2]) -> Result<()> {
    const BLOCKS: &str = "
TCP {
    IPv4_address 10.77.9.OWN
    IPv4_Destination_Address 10.77.9.10OWN
    Port 3780
    Interface eth2
}";
    let lab = Lab::build(Options::default())?;
    relay::in_pieces(&lab)?;
    let settings = Settings {
        transport: Transport::Blocks(BLOCKS),
        ..Settings::new(Mode::Ftfw)
    };
    let mut ends = Ends::start(world, lab, kinds, settings)?;
    for n in 0..2 {
        ends.make(n, 300)?;
    }
    ends.agree()?;
    ensure!(status(&ends.daemons[0], "malformed")? == 0);
    ensure!(status(&ends.daemons[0], "streams_broken")? == 0);
    Ok(())
}

/// Goal: a peer that does not read for ten seconds blocks nothing and takes no memory, and
/// knows everything when it reads again.
pub(super) fn stopped_peer(world: &World) -> Result<()> {
    // Small buffers, which are soon full.
    const BLOCKS: &str = "
TCP {
    IPv4_address 10.77.9.OWN
    IPv4_Destination_Address 10.77.9.PEER
    Port 3780
    Interface eth2
    SndSocketBuffer 65536
    RcvSocketBuffer 65536
}";
    let lab = Lab::build(Options::default())?;
    let settings = Settings {
        transport: Transport::Blocks(BLOCKS),
        ..Settings::new(Mode::Ftfw)
    };
    let mut ends = Ends::start(world, lab, [Kind::Ftfw; 2], settings)?;
    wait_connected(&ends)?;
    ends.make(0, 10_000)?;
    ends.agree()?;
    let before = ends.daemons[0].resident_bytes()?;
    let pid = Pid::from_raw(ends.daemons[1].pid().cast_signed()).context("a process id")?;
    kill_process(pid, Signal::STOP)?;
    for _ in 0..10 {
        let flows: Vec<Flow> = (0..10_000).map(|port| flow(0, port)).collect();
        // Each is an event about each flow.
        for mark in [1, 2] {
            let marked = flows.iter().map(|f| Flow {
                mark: Some(flow::Mark(mark)),
                ..*f
            });
            kernel::update(&ends.lab.fw[0], &marked.collect::<Vec<_>>())?;
        }
        ends.make(0, 500)?;
        ends.daemons[0].ask(&["-s"]).context("FW1 answers")?;
        thread::sleep(Duration::from_secs(1));
    }
    let queues = ends.daemons[0].ask(&["-s", "queue"])?;
    let waits = "queue errorq:\ncurrent elements:\t\t           1\n";
    ensure!(queues.contains(waits), "the connection is full: {queues}");
    let grown = ends.daemons[0].resident_bytes()?.saturating_sub(before);
    ensure!(grown < 32 << 20, "FW1 has grown by {grown} bytes");
    kill_process(pid, Signal::CONT)?;
    ends.holds(1)?;
    wait::until("the last marks are known", SETTLED, || {
        let marked = ends.daemons[1].external("mark=2");
        marked.is_ok_and(|l| l.len() == 10_000)
    })
}

/// Goal: a stream that holds no messages costs a connection; one of a stranger is not accepted.
pub(super) fn garbage(world: &World) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    lab.fw[1].run("ip addr add 10.77.9.77/24 dev eth2")?;
    let settings = Settings {
        transport: Transport::Tcp,
        ..Settings::new(Mode::Ftfw)
    };
    let mut ends = Ends::start(world, lab, [Kind::Ftfw; 2], settings)?;
    wait_connected(&ends)?;
    for (from, counter) in [
        ("10.77.9.77:0", "sources_unknown"),
        ("10.77.9.2:0", "streams_broken"),
    ] {
        let from: SocketAddr = from.parse()?;
        ends.lab.fw[1].inside(move || -> Result<()> {
            let mut stream = relay::connect(from, "10.77.9.1:3780".parse()?)?;
            // It may be closed before everything is written.
            let _ = stream.write_all(&[0xff; 5000]);
            Ok(())
        })??;
        wait::until("it is counted", SETTLED, || {
            status(&ends.daemons[0], counter).is_ok_and(|n| n == 1)
        })
        .with_context(|| format!("{counter}: {}", ends.daemons[0].log()))?;
    }
    wait_connected(&ends)?;
    for n in 0..2 {
        ends.make(n, 100)?;
    }
    ends.agree()
}
