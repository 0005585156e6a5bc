//! A commit by the number of flows, beside the kernel's limit, and a second one over flows that
//! are there.

use anyhow::Result;

use super::{Chart, Part, Point, Progress, Series, Table, cell, ratio};
use crate::bench::commit::{AGAIN, CPU, TIME, contenders, measure as commit};
use crate::bench::{CONNTRACKD, FTFW, KERNEL, KERNEL_EVENTS, both, collect};
use crate::topology::Lab;
use crate::world::World;

const QUICK: &[u32] = &[1000, 10_000];
const WHOLE: &[u32] = &[1000, 10_000, 50_000, 100_000];
const ROUNDS: [usize; 2] = [1, 5];

/// Measures all of it.
pub(super) fn measure(world: &World, lab: &Lab, quick: bool) -> Result<Part> {
    let (sizes, rounds) = match quick {
        true => (QUICK, ROUNDS[0]),
        false => (WHOLE, ROUNDS[1]),
    };
    let mut part = Part {
        title: "Commit".to_owned(),
        text: "Time of `-c` on a backup whose external cache has that many established TCP flows \
               with source NAT and whose kernel has none; then of another `-c`. Beside it the same \
               requests in batches by a program that does nothing else: while nobody listens to \
               new flows, and while the kernel makes an event of each."
            .to_owned(),
        ..Part::default()
    };
    let whose = [CONNTRACKD, FTFW, KERNEL, KERNEL_EVENTS];
    let mut series: Vec<Series> = whose.map(line).into();
    let mut again: Vec<Series> = [CONNTRACKD, FTFW].map(line).into();
    let mut table = Table::new(
        "Commit",
        &[
            "",
            "flows",
            CONNTRACKD,
            FTFW,
            KERNEL,
            "ftfw / conntrackd",
            "ftfw / kernel",
        ],
    );
    let mut progress = Progress::new("commit", sizes.len());
    for count in sizes {
        progress.next(&format!("{count} flows"));
        let say = |reason: String| {
            eprintln!("  {reason}");
            part.left_out.push(format!("{count} flows: {reason}"));
        };
        let contenders = contenders(both(None));
        let once = |contender: &_, _| commit(world, lab, contender, *count);
        let figures = collect(rounds, &contenders, once, say);
        for (what, lines) in [(TIME, &mut series), (AGAIN, &mut again)] {
            for (who, line) in whose.iter().zip(lines) {
                let y = figures.spread(who, what);
                let x = f64::from(*count);
                line.points.extend(y.map(|y| Point { x, y }));
            }
        }
        for (what, unit) in [(TIME, "ms"), (AGAIN, "ms"), (CPU, "µs a flow")] {
            let of = |who| figures.spread(who, what);
            table.rows.push(vec![
                format!("{what}, {unit}"),
                count.to_string(),
                cell(of(CONNTRACKD)),
                cell(of(FTFW)),
                cell(of(KERNEL)),
                ratio(of(FTFW), of(CONNTRACKD)),
                ratio(of(FTFW), of(KERNEL)),
            ]);
        }
    }
    for (name, title, series) in [
        ("commit", "Commit into an empty table", series),
        ("commit-again", "Commit over flows that are there", again),
    ] {
        part.charts.push(Chart {
            name: name.to_owned(),
            title: title.to_owned(),
            x: "flows".to_owned(),
            y: "ms".to_owned(),
            series,
        });
    }
    part.tables.push(table);
    Ok(part)
}

fn line(who: &str) -> Series {
    Series {
        name: who.to_owned(),
        original: who == CONNTRACKD,
        points: Vec::new(),
    }
}
