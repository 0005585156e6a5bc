//! CPU consumption: what sender and receiver cost at rising rates of connections, by protocol;
//! the highest rate that the machine carries; what replication adds to setting a connection up.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Chart, Part, Point, Progress, Series, Table, cell, ratio};
use crate::bench::pair::{Pair, Place};
use crate::bench::table::Table as Figures;
use crate::bench::{CONNTRACKD, FTFW, Figure, Program, both, collect};
use crate::daemon::{Mode, Settings};
use crate::topology::Lab;
use crate::traffic::http::{Load, get, get_fast};
use crate::world::World;

/// Without any daemon.
const NONE: &str = "no daemon";
/// After the last connection: whoever gathers or acknowledges has done so by then.
const SETTLE: Duration = Duration::from_millis(500);
/// Connections of a measurement as fast as the machine goes.
const FAST: u32 = 30_000;

/// A protocol, and what becomes of the peer's flows.
struct Way {
    name: &'static str,
    mode: Mode,
    injects: bool,
}

/// Those that people use most stand last.
const WAYS: &[Way] = &[
    Way {
        name: "NOTRACK",
        mode: Mode::Notrack,
        injects: false,
    },
    Way {
        name: "ALARM",
        mode: Mode::Alarm,
        injects: false,
    },
    Way {
        name: "FT-FW",
        mode: Mode::Ftfw,
        injects: false,
    },
    Way {
        name: "FT-FW, direct injection",
        mode: Mode::Ftfw,
        injects: true,
    },
];

/// How much is measured.
struct Extent {
    rates: &'static [u32],
    secs: u32,
    rounds: usize,
    ways: &'static [Way],
}

const QUICK: Extent = Extent {
    rates: &[500, 1000, 2500],
    secs: 2,
    rounds: 1,
    ways: WAYS.split_at(2).1,
};
const WHOLE: Extent = Extent {
    rates: &[500, 1000, 2500, 5000],
    secs: 8,
    rounds: 3,
    ways: WAYS,
};

impl Way {
    fn settings(&self) -> Settings {
        Settings {
            mode_lines: match (self.mode, self.injects) {
                (_, true) => "DisableExternalCache on".to_owned(),
                _ => Settings::new(self.mode).mode_lines,
            },
            ..Settings::new(self.mode)
        }
    }

    /// Where the backup holds the flows.
    fn backup(&self) -> Place {
        if self.injects {
            Place::KernelOf(1)
        } else {
            Place::ExternalCache
        }
    }
}

/// Measures all of it.
pub(super) fn measure(world: &World, lab: &Lab, server: SocketAddr, quick: bool) -> Result<Part> {
    let extent = if quick { QUICK } else { WHOLE };
    let mut part = Part {
        title: "CPU consumption".to_owned(),
        text: "HTTP: a GET of 4 KB for each new connection from A to B through FW1, with source \
               NAT. CPU time of all threads of a daemon, as percent of one processor. Median of \
               the rounds, and the least and the greatest."
            .to_owned(),
        ..Part::default()
    };
    let mut each = Table::new(
        "Microseconds of CPU a connection",
        &["protocol", "connections/s", "of", CONNTRACKD, FTFW, "ratio"],
    );
    let mut set_up = Table::new(
        "Setting a connection up, ms",
        &["protocol", "connections/s", "", NONE, CONNTRACKD, FTFW],
    );
    let mut highest = Table::new(
        "The highest rate, connections/s",
        &["protocol", NONE, CONNTRACKD, FTFW],
    );
    let mut progress = Progress::new("CPU consumption", extent.ways.len());
    for way in extent.ways {
        progress.next(way.name);
        let figures = of_way(world, lab, server, &extent, way, &mut part.left_out);
        part.charts.push(chart(way, &extent, &figures));
        for rate in extent.rates {
            for end in ENDS {
                let of = |who| figures.spread(who, &name(end, *rate));
                each.rows.push(vec![
                    way.name.to_owned(),
                    rate.to_string(),
                    end.to_owned(),
                    cell(of(CONNTRACKD)),
                    cell(of(FTFW)),
                    ratio(of(FTFW), of(CONNTRACKD)),
                ]);
            }
            for percentile in PERCENTILES {
                let of = |who| cell(figures.spread(who, &name(percentile.0, *rate)));
                set_up.rows.push(vec![
                    way.name.to_owned(),
                    rate.to_string(),
                    percentile.0.to_owned(),
                    of(NONE),
                    of(CONNTRACKD),
                    of(FTFW),
                ]);
            }
        }
        let of = |who| cell(figures.spread(who, HIGHEST));
        highest.rows.push(vec![
            way.name.to_owned(),
            of(NONE),
            of(CONNTRACKD),
            of(FTFW),
        ]);
    }
    part.tables = vec![each, highest, set_up];
    Ok(part)
}

const ENDS: [&str; 2] = ["sender", "receiver"];
const PERCENTILES: [(&str, usize); 2] = [("p50", 50), ("p99", 99)];
const HIGHEST: &str = "highest rate";

fn name(what: &str, rate: u32) -> String {
    format!("{what}, {rate}/s")
}

fn of_way(
    world: &World,
    lab: &Lab,
    server: SocketAddr,
    extent: &Extent,
    way: &Way,
    left_out: &mut Vec<String>,
) -> Figures {
    let mut contenders = vec![(NONE, None)];
    contenders.extend(both(None).into_iter().map(|(name, p)| (name, Some(p))));
    let settings = way.settings();
    let measure = |program: &Option<Program>, _| {
        let mut figures = Vec::new();
        let Some(program) = program else {
            for rate in extent.rates {
                lab.fw[0].run("conntrack -F")?;
                let load = get(&lab.a, server, rate * extent.secs, *rate)?;
                figures.extend(set_ups(load, *rate)?);
            }
            lab.fw[0].run("conntrack -F")?;
            let load = get_fast(&lab.a, server, FAST)?;
            figures.push(Figure::new(HIGHEST, "connections/s", load.rate));
            return Ok(figures);
        };
        for rate in extent.rates {
            let count = rate * extent.secs;
            let pair = Pair::start(world, lab, program, &settings)?;
            let before = pair.cpu_ns()?;
            let load = get(&lab.a, server, count, *rate)?;
            thread::sleep(SETTLE);
            pair.wait_for(Place::InternalCache, count)?;
            pair.wait_for(way.backup(), count)?;
            let used = pair.cpu_us_since(before, count)?;
            pair.stop()?;
            for (end, used) in ENDS.iter().zip(used) {
                figures.push(Figure::new(name(end, *rate), "µs", used));
            }
            figures.extend(set_ups(load, *rate)?);
        }
        let pair = Pair::start(world, lab, program, &settings)?;
        let load = get_fast(&lab.a, server, FAST)?;
        pair.wait_for(Place::InternalCache, FAST)?;
        pair.wait_for(way.backup(), FAST)?;
        pair.stop()?;
        figures.push(Figure::new(HIGHEST, "connections/s", load.rate));
        Ok(figures)
    };
    let say = |reason: String| {
        eprintln!("  {reason}");
        left_out.push(format!("{}: {reason}", way.name));
    };
    collect(extent.rounds, &contenders, measure, say)
}

fn set_ups(load: Load, rate: u32) -> Result<Vec<Figure>> {
    let mut times = load.set_ups;
    times.sort_unstable();
    let figure = |(what, percent): (&str, usize)| {
        let at = times
            .get(times.len() * percent / 100)
            .context("no request")?;
        Ok(Figure::new(name(what, rate), "ms", at.as_secs_f64() * 1e3))
    };
    PERCENTILES.into_iter().map(figure).collect()
}

/// Percent of a processor over the rate, of both ends and programs.
fn chart(way: &Way, extent: &Extent, figures: &Figures) -> Chart {
    let mut series = Vec::new();
    for who in [CONNTRACKD, FTFW] {
        for end in ENDS {
            let point = |rate: &u32| {
                let each = figures.spread(who, &name(end, *rate))?;
                // Microseconds a connection, times connections a second.
                let percent = f64::from(*rate) / 1e4;
                Some(Point {
                    x: f64::from(*rate),
                    y: each.times(percent),
                })
            };
            series.push(Series {
                name: format!("{who}, {end}"),
                original: who == CONNTRACKD,
                points: extent.rates.iter().filter_map(point).collect(),
            });
        }
    }
    Chart {
        name: format!("cpu-{}", way.name.replace(", ", "-").replace(' ', "-")),
        title: format!("CPU consumption, {}", way.name),
        x: "connections/s".to_owned(),
        y: "% of a processor".to_owned(),
        series,
    }
}
