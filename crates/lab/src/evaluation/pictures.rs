//! Which figures of a subject are drawn, and how a reader takes them.

use super::chart::{Axis, Chart, Limit, Point, Series};
use super::report::Chapter;
use crate::bench::{Row, Spread, Table, cpu, raw, recovery};

const FLOWS: &str = "flows";
const RATE: &str = "connections a second";
const LOWER: &str = "Lower is better.";
const LOG: &str = "The scale is logarithmic.";

/// A chart of which only the curves are missing.
fn chart(name: &str, title: &str, x: Axis, y: Axis, reading: &str) -> Chart {
    Chart {
        name: name.to_owned(),
        title: title.to_owned(),
        reading: reading.to_owned(),
        x,
        y,
        series: Vec::new(),
        limits: Vec::new(),
        base: None,
    }
}

impl Chart {
    /// Adds a curve for each contender that has the figure at several places.
    fn curves(mut self, table: &Table, figure: &str) -> Chart {
        self.add_curves(table, figure, "");
        self
    }

    /// The same, with a word behind the contender's name.
    fn add_curves(&mut self, table: &Table, figure: &str, word: &str) {
        for (n, name) in table.contenders.iter().enumerate() {
            let points = points(table, n, figure);
            if !points.is_empty() {
                let name = format!("{name}{word}");
                self.series.push(Series { name, points });
            }
        }
    }

    /// Adds bars: a group for each figure, a bar for each contender that has one of them.
    fn bars(mut self, table: &Table, figures: &[&str]) -> Chart {
        for (n, name) in table.contenders.iter().enumerate() {
            let of = |(x, figure): (usize, &&str)| {
                let row = table.rows.iter().find(|row| row.name == **figure)?;
                Some(Point::new(x as f64, row.spread(n)?))
            };
            let points: Vec<_> = figures.iter().enumerate().filter_map(of).collect();
            self.push(name, points);
        }
        self
    }

    /// Adds bars: a group for each place at which the figure was measured.
    fn bars_at(mut self, table: &Table, figure: &str, places: &[f64]) -> Chart {
        for (n, name) in table.contenders.iter().enumerate() {
            let of = |(x, at): (usize, &f64)| {
                let is_this = |row: &&Row| row.name == figure && row.at == Some(*at);
                let row = table.rows.iter().find(is_this)?;
                Some(Point::new(x as f64, row.spread(n)?))
            };
            let points: Vec<_> = places.iter().enumerate().filter_map(of).collect();
            self.push(name, points);
        }
        self
    }

    fn push(&mut self, name: &str, points: Vec<Point>) {
        if !points.is_empty() {
            let name = name.to_owned();
            self.series.push(Series { name, points });
        }
    }

    fn limit(mut self, name: &str, value: f64) -> Chart {
        let name = name.to_owned();
        self.limits.push(Limit { name, value });
        self
    }
}

/// What contender number `n` has of a figure, in the order of the places.
fn points(table: &Table, n: usize, figure: &str) -> Vec<Point> {
    let rows = table.rows.iter().filter(|row| row.name == figure);
    let mut points: Vec<_> = rows
        .filter_map(|row| Some(Point::new(row.at?, row.spread(n)?)))
        .collect();
    points.sort_by(|a, b| a.x.total_cmp(&b.x));
    points
}

/// The places at which a figure was measured, in order.
fn places(table: &Table, figure: &str) -> Vec<f64> {
    let rows = table.rows.iter().filter(|row| row.name == figure);
    let mut places: Vec<f64> = rows.filter_map(|row| row.at).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    places
}

/// The charts that have something on them.
fn drawn(charts: impl IntoIterator<Item = Chart>) -> Vec<Chart> {
    let charts = charts.into_iter();
    charts.filter(|chart| !chart.series.is_empty()).collect()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// A figure of the overview.
struct Headline {
    label: &'static str,
    /// Name of the chapter, the figure, and the mode that is compared.
    chapter: &'static str,
    figure: &'static str,
    mode: &'static str,
    /// More of it is better: the ratio is turned over.
    is_gain: bool,
}

const HEADLINES: [Headline; 12] = {
    const fn less(
        label: &'static str,
        chapter: &'static str,
        figure: &'static str,
        mode: &'static str,
    ) -> Headline {
        Headline {
            label,
            chapter,
            figure,
            mode,
            is_gain: false,
        }
    }
    [
        less("sender", "cpu", "sender", "FT-FW"),
        less("receiver", "cpu", "receiver", "FT-FW"),
        less("injecting", "cpu-injection", "receiver", "FT-FW"),
        less("recovery", "recovery", recovery::SILENCE, "commit"),
        less("commit", "commit", "time", ""),
        less("start-up", "start", "start-up", ""),
        less("resync", "start", "resync", ""),
        Headline {
            is_gain: true,
            ..less("bulk", "bulk", "rate", "")
        },
        less("bytes", "events", "sent, bytes per event, update", ""),
        less("memory", "memory", "memory", ""),
        less("lag p99", "lag", "1000/s, p99", ""),
        less("idle", "idle", "sender", ""),
    ]
};

/// The ratio to conntrackd of a figure of each chapter, where both were measured at the most.
pub(super) fn overview(chapters: &[Chapter]) -> Option<Chapter> {
    let mut points = Vec::new();
    let mut labels = Vec::new();
    for headline in &HEADLINES {
        let chapter = chapters.iter().find(|c| c.name == headline.chapter);
        if let Some(ratio) = chapter.and_then(|c| headline.ratio(c.table.as_ref()?)) {
            points.push(Point::new(labels.len() as f64, ratio));
            labels.push(headline.label.to_owned());
        }
    }
    let mut chart = chart(
        "overview",
        "ftfw divided by conntrackd",
        Axis::names("", labels),
        Axis::log("ratio of the medians; the bar goes over those of the rounds"),
        "Below the line ftfw takes less, above it more.",
    )
    .limit("as much as conntrackd", 1.0);
    chart.base = Some(1.0);
    chart.push("ftfw / conntrackd", points);
    (!chart.series.is_empty()).then(|| Chapter {
        name: "overview".to_owned(),
        title: "Overview".to_owned(),
        text: "CPU time of the sender and the receiver (FT-FW), and of a receiver that injects, at the \
               highest rate that both reached; time without traffic after FW1's death (by script, \
               commit); times of a commit, a start, a resync and a bulk update; bytes of an update on \
               the link; memory per flow; lag of 99 of 100 flows at 1000 connections a second; CPU \
               time of an idle sender. With the most flows that were measured."
            .to_owned(),
        against: String::new(),
        table: None,
        charts: vec![chart],
        failed: Vec::new(),
    })
}

impl Headline {
    fn ratio(&self, table: &Table) -> Option<Spread> {
        let rows = table.rows.iter().filter(|row| row.name == self.figure);
        let ratios = rows.filter_map(|row| {
            let all = table.beside(row);
            let (_, ratio) = all.into_iter().find(|(mode, _)| *mode == self.mode)?;
            Some((row.at.unwrap_or(0.0), ratio))
        });
        let (_, ratio) = ratios.max_by(|a, b| a.0.total_cmp(&b.0))?;
        Some(match self.is_gain {
            false => ratio,
            true => Spread {
                median: 1.0 / ratio.median,
                min: 1.0 / ratio.max,
                max: 1.0 / ratio.min,
            },
        })
    }
}

pub(super) fn cpu_cached(table: &Table) -> Vec<Chart> {
    by_rate(table, "cpu", "external cache")
}

pub(super) fn cpu_injected(table: &Table) -> Vec<Chart> {
    by_rate(table, "cpu-injection", "direct injection")
}

fn by_rate(table: &Table, file: &str, keeps: &str) -> Vec<Chart> {
    let mut charts = Vec::new();
    for end in ["sender", "receiver"] {
        let mut shares = chart(
            &format!("{file}-{end}"),
            &format!("CPU consumption of the {end}, {keeps}"),
            Axis::linear(RATE),
            Axis::linear("% of a CPU"),
            &format!("{LOWER} The last mark of a curve is the highest rate that was carried."),
        )
        .curves(table, end);
        add_highest(&mut shares, table, end);
        let figure = format!("{end}, per connection");
        let each = chart(
            &format!("{file}-{end}-each"),
            &format!("CPU time per connection of the {end}, {keeps}"),
            Axis::linear(RATE),
            Axis::log("µs of CPU per connection"),
            &format!("{LOWER} {LOG} A daemon that gathers takes less of each the more there are."),
        )
        .curves(table, &figure);
        charts.extend([shares, each]);
    }
    charts.push(
        chart(
            &format!("{file}-highest"),
            &format!("Highest rate of connections, {keeps}"),
            Axis::names("", vec![String::new()]),
            Axis::linear("connections a second"),
            "Higher is better: what the machine carries beside the daemons. \"none\" is its limit \
             without any.",
        )
        .bars(table, &[cpu::HIGHEST]),
    );
    for part in ["p50", "p99"] {
        charts.push(
            chart(
                &format!("{file}-set-up-{part}"),
                &format!("Time of connection set-up, {part}, {keeps}"),
                Axis::linear(RATE),
                Axis::log("µs from SYN to SYN-ACK"),
                &format!("{LOWER} {LOG} What a daemon adds is its distance from \"none\"."),
            )
            .curves(table, &format!("{}, {part}", cpu::SET_UP)),
        );
    }
    drawn(charts)
}

/// Adds to each curve what was used at the highest rate, where that rate is.
fn add_highest(chart: &mut Chart, table: &Table, figure: &str) {
    let row = |name: &str| table.rows.iter().find(|row| row.name == name);
    let used = format!("{figure}{}", cpu::AT_HIGHEST);
    let (Some(rates), Some(used)) = (row(cpu::HIGHEST), row(&used)) else {
        return;
    };
    for series in &mut chart.series {
        let column = table.contenders.iter().position(|c| *c == series.name);
        let spreads = column.and_then(|n| rates.spread(n).zip(used.spread(n)));
        if let Some((rate, used)) = spreads {
            series.points.push(Point::new(rate.median, used));
            series.points.sort_by(|a, b| a.x.total_cmp(&b.x));
        }
    }
}

pub(super) fn by_script(table: &Table) -> Vec<Chart> {
    let at = places(table, recovery::SURVIVE);
    let labels = at.iter().map(|n| super::text::short(*n)).collect();
    let survive = chart(
        "recovery-survive",
        "Connections that survive the death of FW1",
        Axis::names(FLOWS, labels),
        Axis::linear("% of the connections"),
        "Higher is better. Without a daemon none survives.",
    );
    drawn([
        chart(
            "recovery-silence",
            "No traffic after FW1 has died, by script",
            Axis::log(FLOWS),
            Axis::log("ms without traffic"),
            &format!("{LOWER} {LOG} Without a daemon it never flows again."),
        )
        .curves(table, recovery::SILENCE),
        chart(
            "recovery-takeover",
            "Take-over, by script",
            Axis::log(FLOWS),
            Axis::log("ms until the script has ended"),
            &format!("{LOWER} {LOG} \"none\" takes the addresses and does nothing else."),
        )
        .curves(table, recovery::TAKEOVER),
        survive.bars_at(table, recovery::SURVIVE, &at),
    ])
}

pub(super) fn under_keepalived(table: &Table) -> Vec<Chart> {
    let mut at = places(table, recovery::SURVIVE);
    at.reverse();
    let labels: Vec<_> = at.iter().map(|n| format!("{n} s")).collect();
    let x = || Axis::names("advert_int", labels.clone());
    drawn([
        chart(
            "keepalived-silence",
            "No traffic after FW1 has died, under keepalived",
            x(),
            Axis::log("ms without traffic"),
            &format!("{LOWER} {LOG} Most of it is what keepalived takes to find out."),
        )
        .bars_at(table, recovery::SILENCE, &at),
        chart(
            "keepalived-survive",
            "Connections that survive, under keepalived",
            x(),
            Axis::linear("% of the connections"),
            "Higher is better. Without a daemon none survives.",
        )
        .bars_at(table, recovery::SURVIVE, &at),
    ])
}

pub(super) fn gate(table: &Table) -> Vec<Chart> {
    let figures = ["alive", "reset", "lost otherwise"];
    drawn([chart(
        "gate",
        "Connections after four failovers while their ends send",
        Axis::names("", names(&figures)),
        Axis::linear("connections"),
        "More alive is better; reset are those that FW2 answered before it knew them.",
    )
    .bars(table, &figures)])
}

pub(super) fn commit(table: &Table) -> Vec<Chart> {
    drawn([
        chart(
            "commit",
            "Commit into an empty table",
            Axis::log(FLOWS),
            Axis::log("ms"),
            &format!("{LOWER} {LOG} The dotted lines are what the kernel itself takes."),
        )
        .curves(table, "time"),
        chart(
            "commit-second",
            "Second commit, over the same flows",
            Axis::log(FLOWS),
            Axis::log("ms"),
            &format!("{LOWER} {LOG}"),
        )
        .curves(table, "second commit, time"),
        chart(
            "commit-cpu",
            "CPU time of a commit",
            Axis::log(FLOWS),
            Axis::linear("µs of CPU per flow"),
            &format!("{LOWER} The dotted lines are what the kernel itself takes."),
        )
        .curves(table, "CPU time"),
    ])
}

pub(super) fn start(table: &Table) -> Vec<Chart> {
    let one = |file: &str, title: &str, figure: &str| {
        let reading = format!("{LOWER} {LOG} The dotted line is one dump of the kernel's table.");
        chart(file, title, Axis::log(FLOWS), Axis::log("ms"), &reading).curves(table, figure)
    };
    drawn([
        one("start-up", "Start-up until all flows are known", "start-up"),
        one("resync", "Resync until all flows are known", "resync"),
    ])
}

pub(super) fn bulk(table: &Table) -> Vec<Chart> {
    let cpu = |file: &str, end: &str| {
        let figure = format!("CPU time of the {end}");
        let title = format!("CPU time of the {end} of a bulk update");
        let y = Axis::log("µs of CPU per flow");
        let reading = format!("{LOWER} {LOG}");
        chart(file, &title, Axis::log(FLOWS), y, &reading).curves(table, &figure)
    };
    drawn([
        chart(
            "bulk",
            "Bulk update",
            Axis::log(FLOWS),
            Axis::log("thousand flows a second"),
            &format!("Higher is better. {LOG}"),
        )
        .curves(table, "rate"),
        cpu("bulk-sender", "sender"),
        cpu("bulk-receiver", "receiver"),
    ])
}

pub(super) fn events(table: &Table) -> Vec<Chart> {
    let phases = ["create", "update", "delete"];
    let one = |file: &str, title: &str, what: &str, unit: &str| {
        let figures = phases.map(|phase| format!("{what}, {phase}"));
        let figures = figures.each_ref().map(String::as_str);
        chart(
            file,
            title,
            Axis::names("what happens to a flow", names(&phases)),
            Axis::linear(unit),
            LOWER,
        )
        .bars(table, &figures)
    };
    drawn([
        one(
            "events-bytes",
            "Bytes on the dedicated link",
            "sent, bytes per event",
            "bytes per event, with all headers",
        ),
        one(
            "events-packets",
            "Packets on the dedicated link",
            "sent, packets per event",
            "packets per event",
        ),
        one(
            "events-sender",
            "CPU time of the sender",
            "sender",
            "µs of CPU per event",
        ),
        one(
            "events-receiver",
            "CPU time of the receiver",
            "receiver",
            "µs of CPU per event",
        ),
    ])
}

pub(super) fn memory(table: &Table) -> Vec<Chart> {
    drawn([chart(
        "memory",
        "Memory of the external cache",
        Axis::names("", vec![String::new()]),
        Axis::linear("bytes per flow"),
        LOWER,
    )
    .bars(table, &["memory"])])
}

pub(super) fn lag(table: &Table) -> Vec<Chart> {
    let loads = ["1000/s", "single"];
    let parts = ["p50", "p99", "max"];
    let figures: Vec<_> = loads
        .iter()
        .flat_map(|load| parts.iter().map(move |part| format!("{load}, {part}")))
        .collect();
    let figures: Vec<_> = figures.iter().map(String::as_str).collect();
    let goal = table.goal("1000/s, p99");
    let chart = chart(
        "lag",
        "Replication lag: event in FW1's kernel to entry in FW2's",
        Axis::names("load, and median, 99 of 100, the longest", names(&figures)),
        Axis::log("ms"),
        &format!("{LOWER} {LOG} Single flows come while nothing else happens."),
    )
    .bars(table, &figures);
    drawn([match goal {
        Some(goal) => chart.limit("goal for ftfw, p99 at 1000/s", goal),
        None => chart,
    }])
}

pub(super) fn loss(table: &Table) -> Vec<Chart> {
    let at = places(table, "missing at the end");
    let labels: Vec<_> = at.iter().map(|n| format!("{n} %")).collect();
    let x = || Axis::names("datagrams lost", labels.clone());
    drawn([
        chart(
            "loss-missing",
            "Flows missing at FW2 after 10 s, or when both were equal",
            x(),
            Axis::linear("of 500 flows"),
            "Lower is better; none is no bar.",
        )
        .bars_at(table, "missing at the end", &at),
        chart(
            "loss-equal",
            "Time until both caches are equal",
            x(),
            Axis::log("s"),
            &format!("{LOWER} {LOG} A pair that was not equal within 10 s has no bar."),
        )
        .bars_at(table, "equal after", &at),
    ])
}

pub(super) fn idle(table: &Table) -> Vec<Chart> {
    let one = |end: &str| {
        let figure = format!("{end}, share");
        let at = places(table, &figure);
        let labels = at.iter().map(|n| super::text::short(*n)).collect();
        let chart = chart(
            &format!("idle-{end}"),
            &format!("Idle cost of the {end}"),
            Axis::names(FLOWS, labels),
            Axis::log("% of a CPU"),
            &format!("{LOWER} {LOG}"),
        )
        .bars_at(table, &figure, &at);
        match table.goal(&figure) {
            Some(goal) => chart.limit("goal for ftfw at 60 000 flows", goal),
            None => chart,
        }
    };
    drawn(["sender", "receiver"].map(one))
}

pub(super) fn kernel(table: &Table) -> Vec<Chart> {
    let figures = [raw::CREATES, raw::WITH_EVENTS, raw::DUMPED, raw::RECEIVED];
    let mut chart = chart(
        "kernel",
        "The kernel alone",
        Axis::log(FLOWS),
        Axis::log("thousand a second"),
        &format!("Higher is better. {LOG}"),
    );
    for figure in figures {
        chart.add_curves(table, figure, &format!(": {figure}"));
    }
    drawn([chart])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, at: f64, values: [f64; 2]) -> Row {
        Row {
            name: name.into(),
            at: Some(at),
            unit: "".into(),
            values: values.map(|v| vec![(0, v)]).to_vec(),
        }
    }

    fn table(rows: Vec<Row>) -> Table {
        Table {
            title: "made up".into(),
            circumstances: String::new(),
            load_at_end: String::new(),
            contenders: vec!["conntrackd".into(), "ftfw".into()],
            rounds: 1,
            rows,
            refused: Vec::new(),
            goals: Vec::new(),
            configurations: [].into(),
        }
    }

    /// Goal: the overview has what was measured, at the largest size, and more is less where more is
    /// better.
    #[test]
    fn the_overview_has_the_largest_sizes() {
        let chapter = |name: &str, rows| Chapter {
            name: name.into(),
            title: name.into(),
            text: String::new(),
            against: "flows".into(),
            table: Some(table(rows)),
            charts: Vec::new(),
            failed: Vec::new(),
        };
        let chapters = [
            chapter(
                "commit",
                vec![row("time", 1e6, [8.0, 2.0]), row("time", 10.0, [1.0, 1.0])],
            ),
            chapter("bulk", vec![row("rate", 10.0, [2.0, 4.0])]),
        ];
        let overview = overview(&chapters).unwrap();
        let chart = &overview.charts[0];
        let values: Vec<_> = chart.series[0].points.iter().map(|p| p.median).collect();
        assert_eq!(values, [0.25, 0.5]);
        assert_eq!(chart.x, Axis::names("", names(&["commit", "bulk"])));
        assert!(super::overview(&[]).is_none());
    }

    /// Goal: a curve has its places in order, and a size at which somebody was not measured is left
    /// out of his curve only.
    #[test]
    fn curves_have_what_was_measured() {
        let mut rows = vec![
            row("time", 100.0, [8.0, 2.0]),
            row("time", 10.0, [1.0, 3.0]),
        ];
        rows[0].values[0].clear();
        let charts = commit(&table(rows));
        assert_eq!(charts.len(), 1, "nothing is drawn of what was not measured");
        let of = |n: usize| {
            let points = charts[0].series[n].points.iter();
            points.map(|p| (p.x, p.median)).collect::<Vec<_>>()
        };
        assert_eq!(of(0), [(10.0, 1.0)]);
        assert_eq!(of(1), [(10.0, 3.0), (100.0, 2.0)]);
    }
}
