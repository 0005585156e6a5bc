//! How two daemons agree while their link loses, doubles and delays datagrams.
//!
//! Connections open and close through FW1; then nothing happens any more but on the
//! link, whose faults go on. What FW2's external cache holds is compared with FW1's
//! internal cache until they are equal or the time is over.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::daemon::{Daemon, Kind, Mode, Settings, Transport};
use crate::relay::{Faults, Relay};
use crate::topology::{Lab, Options, SERVER};
use crate::traffic::numbered::{self, Connections};
use crate::wait;
use crate::world::World;

/// Port of the server on B.
const PORT: u16 = 7;

/// One measurement.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Daemons of FW1 and FW2.
    pub kinds: [Kind; 2],
    /// Replication protocol.
    pub mode: Mode,
    /// Part of the datagrams that is lost, in both directions. If any is, a tenth is late
    /// by up to 20 ms and a twentieth comes twice.
    pub loss: f64,
    /// Connections; half of them stay open.
    pub connections: usize,
    /// How long the caches may take to become equal.
    pub limit: Duration,
    /// Chooses what is lost.
    pub seed: u64,
    /// FW1's sequence numbers wrap soon.
    pub wraps: bool,
    /// Lines inside `Sync`, and inside the mode's block.
    pub sync_lines: String,
    /// See `sync_lines`.
    pub mode_lines: String,
}

impl Setup {
    /// A thousand connections, nothing lost, 15 s to agree.
    pub fn new(kinds: [Kind; 2], mode: Mode) -> Setup {
        Setup {
            kinds,
            mode,
            loss: 0.0,
            connections: 1000,
            limit: Duration::from_secs(15),
            seed: 1,
            wraps: false,
            sync_lines: String::new(),
            mode_lines: String::new(),
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Agreement {
    /// Flows in FW1's internal cache.
    pub flows: usize,
    /// Those that FW2 lacks, or has in another state.
    pub missing: usize,
    /// Flows that FW2 has and FW1 has not.
    pub stale: usize,
    /// Time from the last end of a flow on FW1 until the caches were equal.
    pub equal_after: Option<Duration>,
    /// Payload that FW1 sent, by events of its kernel.
    pub bytes_per_event: f64,
    /// Datagrams that the relay lost.
    pub lost: u64,
}

/// A pair over a relay, its connections opened and half of them closed.
#[derive(Debug)]
pub struct LossyPair {
    /// The machines.
    pub lab: Lab,
    /// The link.
    pub relay: Relay,
    /// On FW1 and FW2.
    pub daemons: [Daemon; 2],
    /// What is still open.
    pub open: Connections,
    settings: Settings,
}

impl LossyPair {
    /// Builds it all and lets connections come and go.
    pub fn start(world: &World, setup: &Setup) -> Result<LossyPair> {
        let lab = Lab::build(Options::default())?;
        let relay = Relay::start(&lab, setup.seed)?;
        relay.set(faults(setup.loss));
        if setup.wraps {
            relay.wrap_soon();
        }
        let settings = Settings {
            transport: Transport::Relayed,
            sync_lines: setup.sync_lines.clone(),
            mode_lines: setup.mode_lines.clone(),
            ..Settings::new(setup.mode)
        };
        let start = |n: usize| -> Result<Daemon> {
            let kind = setup.kinds[n];
            Daemon::start(kind, &lab.fw[n], n, &settings, world.dir())?.context("no daemon")
        };
        let daemons = [start(0)?, start(1)?];
        lab.forget_ended_soon(0)?;
        let server = SocketAddr::new(SERVER.parse()?, PORT);
        numbered::serve(&lab.b, server)?;
        let half = setup.connections / 2;
        let mut open = Connections::open(&lab.a, server, half)?;
        let closed = Connections::open(&lab.a, server, half)?;
        let works = open.round(Duration::from_secs(5));
        ensure!(works == half, "{works} of {half} connections work");
        closed.close();
        let filter = format!("-p tcp --dport {PORT}");
        wait::until("half have ended on FW1", Duration::from_secs(20), || {
            lab.count_flows(0, &filter).is_ok_and(|n| n == half)
        })?;
        Ok(LossyPair {
            lab,
            relay,
            daemons,
            open,
            settings,
        })
    }

    /// Kills the daemon of firewall `n` and starts it again.
    pub fn restart(&mut self, world: &World, kind: Kind, n: usize) -> Result<()> {
        self.daemons[n].kill();
        let daemon = Daemon::start(kind, &self.lab.fw[n], n, &self.settings, world.dir())?;
        self.daemons[n] = daemon.context("no daemon")?;
        Ok(())
    }

    /// Compares once: flows, missing, stale.
    pub fn compare(&self) -> Result<(usize, usize, usize)> {
        let ours = lines(self.daemons[0].internal(&pattern())?);
        let theirs = lines(self.daemons[1].external(&pattern())?);
        let missing = ours.difference(&theirs).count();
        // By tuple: a flow in another state is not stale.
        let tuple = |line: &String| -> String {
            let words = line.split(' ').filter(|w| w.contains('='));
            words.collect::<Vec<_>>().join(" ")
        };
        let known: BTreeSet<_> = ours.iter().map(tuple).collect();
        let stale = theirs.iter().filter(|l| !known.contains(&tuple(l)));
        Ok((ours.len(), missing, stale.count()))
    }

    /// Compares until the caches are equal or the time is over.
    pub fn settle(&self, limit: Duration) -> Result<Agreement> {
        let begun = Instant::now();
        loop {
            let (flows, missing, stale) = self.compare()?;
            let waited = begun.elapsed();
            let equal = missing + stale == 0;
            if !equal && waited < limit {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            let passed = &self.relay.passed[0];
            let bytes = passed.bytes.load(Ordering::Relaxed) as f64;
            return Ok(Agreement {
                flows,
                missing,
                stale,
                equal_after: equal.then_some(waited),
                bytes_per_event: bytes / self.events()?,
                lost: passed.lost.load(Ordering::Relaxed),
            });
        }
    }

    /// Events that FW1's daemon has received.
    fn events(&self) -> Result<f64> {
        let text = self.daemons[0].ask(&["-s", "runtime"])?;
        let line = text.lines().find(|l| l.contains("events received"));
        let number = line.and_then(|l| l.split_whitespace().next_back());
        Ok(number.context("no count of events")?.parse()?)
    }
}

/// One measurement from start to end.
pub fn measure(world: &World, setup: &Setup) -> Result<Agreement> {
    let pair = LossyPair::start(world, setup)?;
    let agreement = pair.settle(setup.limit)?;
    ensure!(
        agreement.flows == setup.connections / 2,
        "FW1 holds {} flows, not {}",
        agreement.flows,
        setup.connections / 2
    );
    for daemon in pair.daemons {
        daemon.stop()?;
    }
    Ok(agreement)
}

fn faults(loss: f64) -> Faults {
    if loss == 0.0 {
        return Faults::default();
    }
    Faults {
        loss,
        duplicate: 0.05,
        late: 0.1,
        late_max: Duration::from_millis(20),
        ..Faults::default()
    }
}

fn pattern() -> String {
    format!("dport={PORT} ")
}

/// Protocol, state and original tuple, which both caches show.
pub(crate) fn lines(dump: Vec<String>) -> BTreeSet<String> {
    let short = |line: String| {
        let words = line.split_whitespace().take(7);
        words.collect::<Vec<_>>().join(" ")
    };
    dump.into_iter().map(short).collect()
}
