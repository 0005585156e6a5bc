//! ALARM on the real kernel, in every pair: loss, restarts, expiry.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::daemon::{Daemon, Kind, Mode, Settings};
use lab::topology::{Lab, Options, SERVER};
use lab::traffic::numbered::{self, Connections};
use lab::wait;
use lab::world::World;

use crate::Scenario;
use crate::pair::{PORT, SOON, address};

const COUNT: usize = 500;
const REFRESH_SECS: u64 = 1;
/// The original repeats at most 2 s apart here: seven repetitions must be lost
/// before an entry expires that lives, which a tenth of loss does to one flow in ten million.
const EXPIRY_SECS: u64 = 14;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("alarm/two_ftfw", |w| story(w, [Kind::Ftfw; 2])),
    ("alarm/conntrackd_to_ftfw", |w| {
        story(w, [Kind::Conntrackd, Kind::Ftfw])
    }),
    ("alarm/ftfw_to_conntrackd", |w| {
        story(w, [Kind::Ftfw, Kind::Conntrackd])
    }),
];

/// Goal: whatever is lost, the backup knows every flow after a few rounds, and
/// none that has ended for longer than `CacheTimeout`.
/// Method: a tenth of all datagrams is dropped; the backup is killed and started
/// again; flows end while the link is cut.
fn story(world: &World, kinds: [Kind; 2]) -> Result<()> {
    let settings = Settings {
        mode_lines: format!("RefreshTime {REFRESH_SECS}\nCacheTimeout {EXPIRY_SECS}"),
        ..Settings::new(Mode::Alarm)
    };
    let lab = Lab::build(Options::default())?;
    let start = |n: usize| -> Result<Daemon> {
        let daemon = Daemon::start(kinds[n], &lab.fw[n], n, &settings, world.dir())?;
        daemon.context("no daemon")
    };
    let (_fw1, mut fw2) = (start(0)?, start(1)?);
    let drop_rule = "INPUT -i eth2 -m statistic --mode random --probability 0.1 -j DROP";
    lab.fw[1].run(&format!("iptables -I {drop_rule}"))?;
    let server = address(SERVER, PORT);
    numbered::serve(&lab.b, server)?;
    let mut first = Connections::open(&lab.a, server, COUNT)?;
    let second = Connections::open(&lab.a, server, COUNT)?;
    ensure!(first.round(SOON) == COUNT);

    let pattern = format!("dport={PORT} ");
    let known = |fw2: &Daemon| fw2.external(&pattern).map_or(0, |l| l.len());
    let rounds = Duration::from_secs(20);
    wait::until("the backup knows every flow", rounds, || {
        known(&fw2) == 2 * COUNT
    })
    .with_context(|| format!("it knows {}", known(&fw2)))?;
    fw2.kill();
    let fw2 = start(1)?;
    wait::until("a new backup knows every flow", rounds, || {
        known(&fw2) == 2 * COUNT
    })
    .with_context(|| format!("it knows {}", known(&fw2)))?;

    // The ends of half of them are lost altogether.
    lab.fw[1].run("iptables -I INPUT -i eth2 -j DROP")?;
    lab.forget_ended_soon(0)?;
    second.close();
    let filter = format!("-p tcp --dport {PORT}");
    wait::until("they have ended on FW1", Duration::from_secs(10), || {
        lab.count_flows(0, &filter).is_ok_and(|n| n == COUNT)
    })?;
    lab.fw[1].run("iptables -D INPUT -i eth2 -j DROP")?;
    lab.fw[1].run(&format!("iptables -D {drop_rule}"))?;
    let limit = Duration::from_secs(EXPIRY_SECS + 4 * REFRESH_SECS);
    wait::until("what has ended expires, and only that", limit, || {
        known(&fw2) == COUNT
    })
    .with_context(|| format!("the backup knows {}", known(&fw2)))?;
    ensure!(first.round(SOON) == COUNT);
    Ok(())
}
