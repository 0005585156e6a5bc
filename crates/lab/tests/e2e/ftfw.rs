//! FT-FW on the real kernel, in every pair: loss, restart, resync.

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
/// Far above what repair takes: the model's test measures how fast it is.
const LIMIT: Duration = Duration::from_secs(15);

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("ftfw/two_ftfw_with_a_fifth_of_datagrams_lost", |w| {
        story(w, [Kind::Ftfw; 2], true)
    }),
    ("ftfw/conntrackd_to_ftfw", |w| {
        story(w, [Kind::Conntrackd, Kind::Ftfw], false)
    }),
    ("ftfw/ftfw_to_conntrackd", |w| {
        story(w, [Kind::Ftfw, Kind::Conntrackd], false)
    }),
];

/// Goal: the backup knows exactly the flows that live, also after its own restart.
/// Method: connections open and close, with loss in both directions where both ends
/// repair it (two conntrackd do not converge then); the backup is killed, started
/// again, and asks for everything.
fn story(world: &World, kinds: [Kind; 2], lossy: bool) -> Result<()> {
    let settings = Settings::new(Mode::Ftfw);
    let lab = Lab::build(Options::default())?;
    let start = |n: usize| -> Result<Daemon> {
        let daemon = Daemon::start(kinds[n], &lab.fw[n], n, &settings, world.dir())?;
        daemon.context("no daemon")
    };
    let (fw1, mut fw2) = (start(0)?, start(1)?);
    if lossy {
        for fw in &lab.fw {
            fw.run(
                "iptables -I INPUT -i eth2 -m statistic --mode random --probability 0.2 -j DROP",
            )?;
        }
    }
    lab.forget_ended_soon(0)?;
    let server = address(SERVER, PORT);
    numbered::serve(&lab.b, server)?;
    let mut first = Connections::open(&lab.a, server, COUNT)?;
    let second = Connections::open(&lab.a, server, COUNT)?;
    ensure!(first.round(SOON) == COUNT);
    let pattern = format!("dport={PORT} ");
    let sorted = |daemon: &Daemon, which: fn(&Daemon, &str) -> Result<Vec<String>>| {
        let mut lines = which(daemon, &pattern).unwrap_or_default();
        for line in &mut lines {
            // Both tuples stand in one, the original in the other: compare that, and the state.
            let words = line.split_whitespace().take(7).map(str::to_owned);
            *line = words.collect::<Vec<_>>().join(" ");
        }
        lines.sort();
        lines
    };
    let equal = |fw2: &Daemon, count: usize| {
        let ours = sorted(&fw1, Daemon::internal);
        ours.len() == count && ours == sorted(fw2, Daemon::external)
    };
    let numbers = |fw2: &Daemon| {
        let ours = sorted(&fw1, Daemon::internal).len();
        format!("{ours} and {}", sorted(fw2, Daemon::external).len())
    };
    wait::until("equal caches", LIMIT, || equal(&fw2, 2 * COUNT)).with_context(|| numbers(&fw2))?;
    second.close();
    let filter = format!("-p tcp --dport {PORT}");
    wait::until("half have ended on FW1", Duration::from_secs(10), || {
        lab.count_flows(0, &filter).is_ok_and(|n| n == COUNT)
    })?;
    wait::until("equal caches after the ends", LIMIT, || equal(&fw2, COUNT))
        .with_context(|| numbers(&fw2))?;

    fw2.kill();
    let fw2 = start(1)?;
    fw2.ask(&["-n"])?;
    wait::until("equal caches after a restart and -n", LIMIT, || {
        equal(&fw2, COUNT)
    })
    .with_context(|| numbers(&fw2))?;
    if kinds[0] == Kind::Ftfw {
        wait::until("everything is acknowledged", LIMIT, || {
            let text = fw1.ask(&["-s", "rsqueue"]).unwrap_or_default();
            let len = text
                .split(['=', ')'])
                .nth(1)
                .and_then(|n| n.parse::<usize>().ok());
            // Acknowledgements acknowledge each other, one a second.
            len.is_some_and(|len| len <= 3)
        })?;
    }
    ensure!(first.round(SOON) == COUNT);
    Ok(())
}
