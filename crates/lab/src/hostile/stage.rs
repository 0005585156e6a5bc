//! A pair at which a neighbour is hostile, and one measurement of it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::measured::{self, Measured};
use super::{Case, Extent, PORT, Peer, watch};
use crate::bench;
use crate::daemon::{Daemon, Kind, Settings};
use crate::topology::{Lab, SERVER};
use crate::traffic::{datagrams, numbered};
use crate::wait;
use crate::world::World;

/// After an attack its last datagrams have been read.
const SETTLE: Duration = Duration::from_secs(1);
/// `HashLimit`, unless a case is about it.
const LIMIT: u32 = 1 << 20;
/// Rule of FW2 that keeps its kernel from answering for a dead daemon.
const SILENCE: &str = "INPUT -i eth2 -p udp --dport 3780 -j DROP";

/// A pair at which a neighbour is hostile. FW1's daemon is the victim.
pub(super) struct Stage<'a> {
    case: Case,
    pub(super) lab: &'a Lab,
    pub(super) dir: &'a Path,
    pub(super) settings: Settings,
    pub(super) extent: Extent,
    /// How many flows are invented.
    pub(super) invented: u32,
    /// `HashLimit`.
    limit: u32,
    /// Bytes of all of FW1's flows sent once.
    copy: u64,
    victim: Daemon,
    peer: Option<Daemon>,
}

impl<'a> Stage<'a> {
    pub(super) fn set(
        case: Case,
        world: &'a World,
        lab: &'a Lab,
        kind: Kind,
        extent: Extent,
        invented: u32,
    ) -> Result<Stage<'a>> {
        let limit = if case.fills_cache {
            invented / 2
        } else {
            LIMIT
        };
        let settings = Settings {
            mode_lines: case.mode_lines.into(),
            general_lines: format!("HashLimit {limit}"),
            ..Settings::new(case.mode).for_flows(limit)
        };
        let start = |n: usize| -> Result<Daemon> {
            let daemon = Daemon::start(kind, &lab.fw[n], n, &settings, world.dir())?;
            daemon.context("no daemon")
        };
        let (victim, peer) = (start(0)?, start(1)?);
        let mut stage = Stage {
            case,
            lab,
            dir: world.dir(),
            settings,
            extent,
            invented,
            limit,
            copy: 0,
            victim,
            peer: Some(peer),
        };
        lab.wait_quiet()?;
        if case.peer == Peer::Silent {
            stage.peer = None;
            lab.fw[1].run(&format!("iptables -I {SILENCE}"))?;
        }
        if case.flows > 0 {
            stage.copy = stage.fill()?;
        }
        if case.peer == Peer::Gone {
            stage.peer = None;
        }
        Ok(stage)
    }

    pub(super) fn victim(&self) -> &Daemon {
        &self.victim
    }

    /// Puts the flows into FW1's kernel, and waits until both daemons know them. Returns the
    /// bytes of all of them sent once.
    fn fill(&self) -> Result<u64> {
        let (lab, flows) = (self.lab, self.case.flows);
        let mut before = self.answered()?;
        datagrams::create(&lab.fw[0], self.dir, flows)?;
        let held = lab.count_flows(0, "-p udp --orig-port-dst 9")?;
        ensure!(held == flows, "FW1's kernel holds {held} flows");
        // On a busy machine the kernel may drop events, which are made good later.
        wait::until("FW1 knows the flows", Duration::from_secs(60), || {
            bench::internal_flows(&self.victim).is_ok_and(|n| n >= flows as u64)
        })?;
        lab.wait_quiet()?;
        if let Some(peer) = &self.peer {
            wait::until("FW2 knows the flows", Duration::from_secs(30), || {
                bench::external_flows(peer).is_ok_and(|n| n >= flows as u64)
            })?;
            before = self.answered()?;
            peer.ask(&["-n"])?;
            lab.wait_quiet()?;
        }
        let copy = self.answered()? - before;
        ensure!(copy > 40 * flows as u64, "FW1 has sent {copy} bytes only");
        Ok(copy)
    }

    /// Bytes that FW1 has sent over the link.
    fn answered(&self) -> Result<u64> {
        Ok(self.lab.link_bytes(0)?[1])
    }

    /// The cache of the peer's flows is not full.
    pub(super) fn has_room(&self, daemon: &Daemon) -> Result<bool> {
        // If one of its caches is switched off, no flows are invented.
        let held = bench::external_flows(daemon).unwrap_or(0);
        Ok(held < u64::from(self.limit))
    }

    /// The attack, and what comes of it.
    pub(super) fn run(&self) -> Result<Measured> {
        let server = SocketAddr::new(SERVER.parse()?, PORT);
        let connections = self.case.connections;
        let mut open = numbered::Connections::open(&self.lab.a, server, connections)?;
        let (log, before) = (self.victim.log().len(), self.answered()?);
        let (cpu, counted) = (self.victim.cpu_ns()?, measured::counted(&self.victim)?);
        let (begun, is_over) = (Instant::now(), AtomicBool::new(false));
        let (sent, status, honest) = thread::scope(|scope| {
            let status = scope.spawn(|| watch::status(&self.victim, &is_over));
            let honest = scope.spawn(|| match &self.peer {
                Some(peer) => watch::honest(self, peer, &is_over).map(Some),
                None => Ok(None),
            });
            let sent = (self.case.attack)(self);
            // What is begun by then counts until the end of the window.
            thread::sleep(self.case.window.saturating_sub(begun.elapsed()).max(SETTLE));
            is_over.store(true, Ordering::Relaxed);
            let status = status.join().expect("the watch of status does not panic");
            let honest = honest.join().expect("the watch of flows does not panic");
            (sent, status, honest)
        });
        let (sent, status, honest) = (sent?, status?, honest?);
        let took = begun.elapsed();
        let cpu = Duration::from_nanos(self.victim.cpu_ns().unwrap_or(cpu) - cpu);
        Ok(Measured {
            sent,
            took,
            answered: self.answered()? - before,
            copy: self.copy,
            log: (self.victim.log().len() - log) as u64,
            cpu,
            resident: status.resident,
            entries: measured::entries(&self.victim).unwrap_or(0),
            limit: self.limit,
            status: [status.took, status.control],
            honest,
            counted: measured::counted_since(&self.victim, &counted).unwrap_or_default(),
            answers: self.answers()?,
            ready: self.ready()?,
            lives_on: (open.round(watch::LATEST), connections),
        })
    }

    /// Whether the victim answers. A command to a dead daemon is quick, too, but fails.
    fn answers(&self) -> Result<bool> {
        let is_quick = watch::ask(&self.victim)? < watch::LATEST;
        Ok(is_quick && self.victim.ask(&["-s"]).is_ok())
    }

    /// What `ftfw ready` prints.
    fn ready(&self) -> Result<Option<String>> {
        if self.victim.kind() != Kind::Ftfw {
            return Ok(None);
        }
        let out = self.victim.own_command(&["ready"])?.output()?;
        Ok(Some(String::from_utf8(out.stdout)?.trim().to_owned()))
    }

    /// Ends both daemons, and empties the tables.
    pub(super) fn clear(mut self) -> Result<()> {
        self.victim.kill();
        if let Some(peer) = &mut self.peer {
            peer.kill();
        }
        if self.case.peer == Peer::Silent {
            self.lab.fw[1].run(&format!("iptables -D {SILENCE}"))?;
        }
        for fw in &self.lab.fw {
            fw.run("conntrack -F")?;
        }
        Ok(())
    }
}
