//! Three facts of the kernel that decide correctness: a flow has an owner, some
//! flows are silent, events can be lost.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::daemon::{Kind, Settings};
use lab::topology::{Lab, Options, SERVER};
use lab::wait;
use lab::world::World;

use crate::Scenario;
use crate::pair::{PORT, Pair, SOON, notrack};

pub(crate) const SCENARIOS: &[Scenario] = &[
    (
        "kernel/a_flow_that_moved_outlives_the_former_owners_copy",
        moved_flow,
    ),
    (
        "kernel/a_live_udp_flow_survives_after_three_timeouts_committed",
        |w| live_udp(w, Kind::Ftfw, ""),
    ),
    (
        "kernel/a_live_udp_flow_survives_after_three_timeouts_injected",
        |w| live_udp(w, Kind::Ftfw, "DisableExternalCache on"),
    ),
    (
        "kernel/a_live_udp_flow_survives_without_internal_cache",
        |w| live_udp(w, Kind::Ftfw, "DisableInternalCache on"),
    ),
    ("kernel/a_live_udp_flow_dies_without_a_daemon", |w| {
        live_udp(w, Kind::None, "")
    }),
    (
        "kernel/flows_made_while_the_daemon_was_dead_leave_nothing",
        dead_daemon,
    ),
    ("kernel/an_overrun_is_repaired_also_in_a_zone", overrun),
];

const UDP_TIMEOUT_SECS: u64 = 6;
const UDP_PORT: u16 = 9;

fn datagrams() -> Options {
    Options {
        datagrams: true,
        ..Options::default()
    }
}

fn short_udp_timeouts(lab: &Lab) -> Result<()> {
    for fw in &lab.fw {
        for key in ["udp_timeout", "udp_timeout_stream"] {
            let key = format!("net/netfilter/nf_conntrack_{key}");
            fw.sysctl(&key, &UDP_TIMEOUT_SECS.to_string())?;
        }
    }
    Ok(())
}

/// A UDP flow from A to B that is answered four times a second until stopped.
struct Talk {
    a: UdpSocket,
    b: Arc<UdpSocket>,
    seen_from: SocketAddr,
    quiet: Arc<AtomicBool>,
}

impl Talk {
    fn start(lab: &Lab) -> Result<Talk> {
        let b = Arc::new(lab.b.inside(|| UdpSocket::bind((SERVER, UDP_PORT)))??);
        let a = lab.a.inside(|| UdpSocket::bind("192.168.0.3:5000"))??;
        a.set_nonblocking(true)?;
        b.set_read_timeout(Some(Duration::from_secs(2)))?;
        a.send_to(b"x", (SERVER, UDP_PORT))?;
        let (_, seen_from) = b.recv_from(&mut [0; 8])?;
        let quiet = Arc::new(AtomicBool::new(false));
        let (sender, echo, stop) = (a.try_clone()?, Arc::clone(&b), Arc::clone(&quiet));
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let _ = sender.send_to(b"x", (SERVER, UDP_PORT));
                if let Ok((_, from)) = echo.recv_from(&mut [0; 8]) {
                    let _ = echo.send_to(b"y", from);
                }
                thread::sleep(Duration::from_millis(250));
            }
        });
        Ok(Talk {
            a,
            b,
            seen_from,
            quiet,
        })
    }

    /// A sends nothing more; true if B, which sends first, still reaches it.
    fn b_reaches_a(&self) -> bool {
        self.quiet.store(true, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(600));
        let mut buffer = [0; 8];
        while self.a.recv(&mut buffer).is_ok() {}
        wait::until("B reaches A", Duration::from_secs(3), || {
            let _ = self.b.send_to(b"push", self.seen_from);
            thread::sleep(Duration::from_millis(50));
            self.a.recv(&mut buffer).is_ok_and(|n| n == 4)
        })
        .is_ok()
    }
}

/// Goal: the end of FW1's copy must not end the flow that lives on FW2.
/// Method: with direct injection, move the addresses without any command, wait
/// until FW1's copy has expired, and let B send first through FW2. FW1 is deaf
/// on the link meanwhile: else FW2, which sees the traffic, keeps its copy young.
fn moved_flow(world: &World) -> Result<()> {
    let settings = Settings {
        mode_lines: "DisableExternalCache on".into(),
        ..notrack()
    };
    let lab = Lab::build(datagrams())?;
    short_udp_timeouts(&lab)?;
    let start =
        |n: usize| lab::daemon::Daemon::start(Kind::Ftfw, &lab.fw[n], n, &settings, world.dir());
    let (_fw1, fw2) = (start(0)?, start(1)?);
    let talk = Talk::start(&lab)?;
    let filter = format!("-p udp --dport {UDP_PORT}");
    wait::until("FW2's kernel has the flow", SOON, || {
        lab.count_flows(1, &filter).is_ok_and(|n| n == 1)
    })?;
    lab.fw[0].run("iptables -I INPUT -i eth2 -j DROP")?;
    lab.drop_addresses(0)?;
    lab.take_addresses(1)?;
    wait::until("FW1's copy expires", Duration::from_secs(20), || {
        lab.count_flows(0, &filter).is_ok_and(|n| n == 0)
    })?;
    thread::sleep(Duration::from_secs(1));
    ensure!(
        lab.count_flows(1, &filter)? == 1,
        "the live flow was deleted"
    );
    ensure!(talk.b_reaches_a(), "B does not reach A");
    drop(fw2);
    Ok(())
}

/// Goal: a backup's copy of a UDP flow stays young, though packets refresh the
/// flow without events.
/// Method: talk for three timeouts, kill FW1, let B send first through FW2.
fn live_udp(world: &World, kind: Kind, mode_lines: &str) -> Result<()> {
    let settings = Settings {
        mode_lines: mode_lines.into(),
        ..notrack()
    };
    let lab = Lab::build(datagrams())?;
    short_udp_timeouts(&lab)?;
    let start = |n: usize| lab::daemon::Daemon::start(kind, &lab.fw[n], n, &settings, world.dir());
    let (fw1, fw2) = (start(0)?, start(1)?);
    let talk = Talk::start(&lab)?;
    thread::sleep(Duration::from_secs(3 * UDP_TIMEOUT_SECS));
    talk.quiet.store(true, Ordering::Relaxed);
    lab.cut(0)?;
    drop(fw1);
    lab.take_addresses(1)?;
    if let Some(fw2) = &fw2 {
        fw2.become_primary()?;
    }
    let reached = talk.b_reaches_a();
    ensure!(reached == (kind != Kind::None), "B reaches A: {reached}");
    Ok(())
}

/// Goal: flows that began while the daemon was dead leave no entry behind.
/// Method: SIGKILL on FW1, the kernel's own setting for events back (so that the
/// new flows never emit one), 1000 connections, start again, close them all.
fn dead_daemon(world: &World) -> Result<()> {
    let mut pair = Pair::start(world, notrack(), Options::default())?;
    for key in ["time_wait", "close", "last_ack", "fin_wait", "close_wait"] {
        let key = format!("net/netfilter/nf_conntrack_tcp_timeout_{key}");
        pair.lab.fw[0].sysctl(&key, "2")?;
    }
    let before = pair.connect(SERVER, 200)?;
    pair.wait_external(&format!("dport={PORT} "), 200)?;
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pair.fw1.pid().cast_signed()).expect("a pid"),
        rustix::process::Signal::KILL,
    )?;
    pair.lab.fw[0].sysctl("net/netfilter/nf_conntrack_events", "2")?;
    let new = pair.connect(SERVER, 1000)?;
    pair.restart(0)?;
    // Other namespaces share the kernel's table: a dump that meets their changes can pass over
    // flows, and the next sweep, 15 s later, finds them.
    let mut internal = 0;
    wait::until("FW1's cache is whole", Duration::from_secs(20), || {
        let listed = pair.fw1.internal(&format!("dport={PORT} "));
        internal = listed.map_or(usize::MAX, |l| l.len());
        internal == 1200
    })
    .with_context(|| format!("{internal} flows after the restart"))?;
    before.close();
    new.close();
    let filter = format!("-p tcp --dport {PORT}");
    wait::until(
        "FW1's kernel has forgotten them",
        Duration::from_secs(20),
        || pair.lab.count_flows(0, &filter).is_ok_and(|n| n == 0),
    )?;
    let pattern = format!("dport={PORT} ");
    let left = || -> Result<(usize, usize)> {
        Ok((
            pair.fw1.internal(&pattern)?.len(),
            pair.fw2.external(&pattern)?.len(),
        ))
    };
    wait::until("both caches are empty", Duration::from_secs(40), || {
        left().is_ok_and(|l| l == (0, 0))
    })
    .map_err(|e| e.context(format!("left: {:?}", left())))
}

/// Goal: what was lost in an overrun is found, and what ended meanwhile removed,
/// with zones kept apart.
/// Method: a small event buffer, the daemon stopped while flows come and go.
fn overrun(world: &World) -> Result<()> {
    let settings = Settings {
        general_lines:
            "NetlinkBufferSize 65536\nNetlinkBufferSizeMaxGrowth 65536\nNetlinkOverrunResync 1"
                .into(),
        ..notrack()
    };
    let options = Options {
        zone: Some(5),
        ..Options::default()
    };
    let pair = Pair::start(world, settings, options)?;
    let old = pair.connect(SERVER, 300)?;
    let pattern = format!("dport={PORT} ");
    pair.wait_external(&pattern, 300)?;
    let pid = rustix::process::Pid::from_raw(pair.fw1.pid().cast_signed()).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::STOP)?;
    let stopped = Instant::now();
    let new = pair.connect(SERVER, 1000)?;
    pair.lab.fw[0]
        .run(&format!(
            "conntrack -D -p tcp --dport {PORT} -w 5 --reply-port-dst 1:1"
        ))
        .ok();
    // The first 300 end without the daemon hearing of it.
    drop(old);
    for line in pair.lab.flows(0, &format!("-p tcp --dport {PORT} -w 5"))? {
        if !line.contains("ESTABLISHED") {
            let port = line
                .split_whitespace()
                .find_map(|w| w.strip_prefix("sport="));
            let port = port.unwrap_or("0");
            pair.lab.fw[0].run(&format!(
                "conntrack -D -p tcp -s 192.168.0.3 --sport {port} --dport {PORT} -w 5"
            ))?;
        }
    }
    let live = pair
        .lab
        .count_flows(0, &format!("-p tcp --dport {PORT} -w 5"))?;
    ensure!(live == 1000, "{live} flows live on FW1");
    rustix::process::kill_process(pid, rustix::process::Signal::CONT)?;
    ensure!(stopped.elapsed() < Duration::from_secs(60));
    wait::until("the overrun is counted", SOON, || {
        Pair::counter(&pair.fw1, &["-s", "runtime"], "netlink overrun:").is_ok_and(|n| n > 0)
    })?;
    let equal = || -> Result<(usize, usize)> {
        Ok((
            pair.fw1.internal(&pattern)?.len(),
            pair.fw2.external(&pattern)?.len(),
        ))
    };
    wait::until(
        "both caches hold what lives",
        Duration::from_secs(10),
        || equal().is_ok_and(|e| e == (1000, 1000)),
    )
    .map_err(|e| e.context(format!("internal and external: {:?}", equal())))?;
    drop(new);
    Ok(())
}
