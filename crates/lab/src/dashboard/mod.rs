//! The dashboard for Grafana with real numbers: a pair with traffic and a takeover, Prometheus that
//! scrapes it, and a drawing of what each panel shows.

mod board;
mod draw;
mod prometheus;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};

pub use board::Board;
pub use draw::svg;

use self::board::Panel;
use self::prometheus::{Prometheus, Range};
use crate::daemon::{Daemon, Kind, Mode, Settings};
use crate::topology::{Lab, Options, SERVER};
use crate::traffic::numbered::{self, Connections};
use crate::wait;
use crate::world::World;

/// The range that Grafana puts in place of `$__rate_interval`, in steps.
const RATE_STEPS: u32 = 4;
/// Points of a curve.
const POINTS: u32 = 60;
const PORT: u16 = 7;
/// Connections that begin at each step of a watch, and steps after which they end.
const OPENED: usize = 20;
const LIVES: usize = 30;
const STEPS: u32 = 100;

/// How long a pair is watched, and how often it is scraped.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// From the first scrape to the last. The firewalls change roles in the middle.
    pub length: Duration,
    /// Between two scrapes of a firewall.
    pub scrape: Duration,
}

/// What a panel shows.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The panel.
    pub panel: Panel,
    /// Its series. Values are by seconds since the watch began.
    pub series: Vec<Line>,
}

/// A series as a panel names it.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The text of the legend.
    pub legend: String,
    /// Seconds since the watch began, and the value then.
    pub points: Vec<(f64, f64)>,
}

/// Runs a pair for a while, and asks Prometheus what each panel shows.
///
/// # Errors
/// The laboratory or Prometheus fails, or an expression is none.
pub fn watch(world: &World, board: &Board, watch: Watch) -> Result<Vec<Shown>> {
    let lab = Lab::build(Options::default())?;
    let settings = Settings {
        general_lines: "Metrics {\nIPv4_address 0.0.0.0\nPort 9411\n}".to_owned(),
        ..Settings::new(Mode::Ftfw)
    };
    let start = |n: usize| -> Result<Daemon> {
        let daemon = Daemon::start(Kind::Ftfw, &lab.fw[n], n, &settings, world.dir())?;
        daemon.context("no daemon")
    };
    let pair = [start(0)?, start(1)?];
    pair[0].own(&["primary"])?;
    pair[1].own(&["backup"])?;
    // What asks for the figures is no part of them.
    for chain in ["OUTPUT -o", "PREROUTING -i"] {
        lab.fw[1].run(&format!("iptables -t raw -I {chain} lo -j CT --notrack"))?;
    }
    let places = [("fw1", "10.77.9.1:9411"), ("fw2", "127.0.0.1:9411")];
    let prometheus = Prometheus::start(&lab.fw[1], world.dir(), &places, watch.scrape)?;
    wait::until("the first scrape", Duration::from_secs(20), || {
        let now = Range::at(SystemTime::now(), watch.scrape);
        let found = prometheus.query("ftfw_build_info", &now);
        found.is_ok_and(|series| series.len() == 2)
    })?;

    let began = SystemTime::now();
    traffic(&lab, &pair, watch.length)?;
    let range = Range {
        from: began,
        to: SystemTime::now(),
        step: watch.scrape.max(watch.length / POINTS),
    };
    let panels = board.panels.iter();
    panels
        .map(|panel| show(&prometheus, panel, range))
        .collect()
}

/// Connections begin and end all the time; in the middle FW2 takes over.
fn traffic(lab: &Lab, pair: &[Daemon; 2], length: Duration) -> Result<()> {
    let server = SocketAddr::new(SERVER.parse()?, PORT);
    numbered::serve(&lab.b, server)?;
    (0..2).try_for_each(|n| lab.forget_ended_soon(n))?;
    let mut open = VecDeque::new();
    let began = Instant::now();
    for step in 1..=STEPS {
        if step == STEPS / 2 {
            lab.drop_addresses(0)?;
            lab.take_addresses(1)?;
            pair[1].own(&["primary"])?;
            pair[0].own(&["backup"])?;
        }
        open.push_back(Connections::open(&lab.a, server, OPENED)?);
        if open.len() > LIVES {
            open.pop_front();
        }
        let end = length * step / STEPS;
        thread::sleep(end.saturating_sub(began.elapsed()));
    }
    let alive: usize = (open.iter_mut().map(|c| c.round(Duration::from_secs(5)))).sum();
    ensure!(alive == LIVES * OPENED, "{alive} connections live on");
    Ok(())
}

fn show(prometheus: &Prometheus, panel: &Panel, range: Range) -> Result<Shown> {
    let range = match panel.is_of_now() {
        true => Range::at(range.to, range.step),
        false => range,
    };
    let mut series = Vec::new();
    for query in &panel.queries {
        let found = prometheus.query(&query.expression(RATE_STEPS * range.step), &range);
        let found = found.with_context(|| format!("{}: {}", panel.title, query.expr))?;
        series.extend(found.into_iter().map(|s| Line {
            legend: query.legend_of(&s.labels),
            points: s.points,
        }));
    }
    Ok(Shown {
        panel: panel.clone(),
        series,
    })
}
