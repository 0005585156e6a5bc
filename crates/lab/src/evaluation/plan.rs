//! What is measured: the subjects of an evaluation in their order, and the measurements of each.

use anyhow::{Result, ensure};

use super::chart::Chart;
use super::pictures as draw;
use crate::bench::Table;

/// A measurement, as `ftfw-lab bench` makes it.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Its kind.
    pub(super) bench: &'static str,
    /// How many flows or connections, if not its default.
    pub(super) flows: Option<u32>,
    /// The number of flows is what it is measured against.
    pub(super) is_at_flows: bool,
    /// It puts its flows into a kernel's table.
    pub(super) fills_kernel: bool,
    pub(super) rounds: usize,
    /// Contenders, if not all.
    pub(super) only: &'static [&'static str],
    /// How many contenders it measures in a round, and how often.
    pub(super) steps: usize,
    /// What one of them takes, about.
    pub(super) seconds: f64,
}

impl Part {
    fn new(bench: &'static str, steps: usize, seconds: f64) -> Part {
        Part {
            bench,
            flows: None,
            is_at_flows: false,
            fills_kernel: true,
            rounds: 1,
            only: &[],
            steps,
            seconds,
        }
    }

    fn flows(self, flows: u32) -> Part {
        Part {
            flows: Some(flows),
            ..self
        }
    }

    /// The same, and the number is what it is measured against.
    fn at(self, flows: u32) -> Part {
        Part {
            is_at_flows: true,
            ..self.flows(flows)
        }
    }

    fn rounds(self, rounds: usize) -> Part {
        Part { rounds, ..self }
    }

    fn only(self, only: &'static [&'static str]) -> Part {
        Part { only, ..self }
    }

    fn in_cache(self) -> Part {
        Part {
            fills_kernel: false,
            ..self
        }
    }

    /// Seconds that it takes, about.
    pub(super) fn takes(&self) -> f64 {
        (self.steps * self.rounds) as f64 * self.seconds
    }
}

/// What its table looks like as charts.
type Draw = fn(&Table) -> Vec<Chart>;

/// One subject.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// As the user asks for it.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) text: &'static str,
    /// What rows are measured against.
    pub(super) against: &'static str,
    pub(super) parts: Vec<Part>,
    pub(super) draw: Draw,
}

/// The subjects that the user wants, without the measurements that want more flows than allowed.
///
/// # Errors
/// If nothing is left.
pub(super) fn chosen(
    all: Vec<Subject>,
    only: &[String],
    flows_max: Option<u32>,
) -> Result<Vec<Subject>> {
    let names: Vec<_> = all.iter().map(|s| s.name).collect();
    for name in only {
        ensure!(
            names.contains(&name.as_str()),
            "--only {name}: this run has {}",
            names.join(", ")
        );
    }
    let is_wanted = |s: &Subject| only.is_empty() || only.iter().any(|name| name == s.name);
    let mut chosen: Vec<_> = all.into_iter().filter(is_wanted).collect();
    for subject in &mut chosen {
        let most = flows_max.unwrap_or(u32::MAX);
        subject.parts.retain(|p| p.flows.is_none_or(|n| n <= most));
    }
    chosen.retain(|subject| !subject.parts.is_empty());
    ensure!(
        !chosen.is_empty(),
        "--flows-max: everything chosen wants more flows"
    );
    Ok(chosen)
}

/// Everything: about 50 minutes.
pub(super) fn full() -> Vec<Subject> {
    let recovery = [(1, 3), (1000, 3), (10_000, 3), (50_000, 2), (100_000, 2)];
    let seconds = |flows: u32| 4.5 + f64::from(flows) / 7_000.0;
    let sizes = [1000, 10_000, 100_000, 1_000_000];
    let each = |part: fn(u32) -> Part| sizes.map(part).to_vec();
    vec![
        cpu_cached(vec![Part::new("cpu", 7, 19.0).flows(3000).rounds(3)]),
        cpu_injected(vec![Part::new("cpu-inject", 5, 19.0).flows(3000).rounds(3)]),
        by_script(
            recovery
                .map(|(flows, rounds)| {
                    let part = Part::new("recovery", 5, seconds(flows));
                    part.at(flows).rounds(rounds)
                })
                .to_vec(),
        ),
        under_keepalived(vec![Part::new("keepalived", 21, 7.0).rounds(2)]),
        gate(vec![Part::new("gate", 5, 48.0)]),
        commit(each(|n| {
            let rounds = if n > 100_000 { 2 } else { 3 };
            Part::new("commit", 4, 3.0 + f64::from(n) / 60_000.0)
                .at(n)
                .rounds(rounds)
        })),
        start(each(|n| {
            let rounds = if n > 100_000 { 2 } else { 3 };
            Part::new("start", 3, 1.0 + f64::from(n) / 100_000.0)
                .at(n)
                .rounds(rounds)
        })),
        bulk(each(|n| {
            let rounds = if n > 100_000 { 1 } else { 2 };
            Part::new("bulk", 3, 11.0 + f64::from(n) / 60_000.0)
                .at(n)
                .rounds(rounds)
        })),
        events(vec![Part::new("events", 2, 11.0).flows(20_000).rounds(3)]),
        memory(vec![
            Part::new("memory", 2, 13.0)
                .flows(1_000_000)
                .rounds(2)
                .in_cache(),
        ]),
        lag(vec![Part::new("lag", 2, 20.0).rounds(3)]),
        loss(vec![Part::new("loss", 8, 12.0).rounds(2)]),
        idle(
            [0, 10_000, 100_000, 1_000_000]
                .map(|n| Part::new("idle-tcp", 2, 42.0 + f64::from(n) / 25_000.0).at(n))
                .to_vec(),
        ),
        kernel(each(|n| {
            Part::new("kernel", 1, 1.0 + f64::from(n) / 50_000.0)
                .at(n)
                .rounds(3)
        })),
    ]
}

/// A look whether all of it works: below three minutes.
pub(super) fn quick() -> Vec<Subject> {
    const FTFW: &[&str] = &["none", "conntrackd FT-FW", "ftfw FT-FW"];
    const COMMIT: &[&str] = &["none", "conntrackd commit", "ftfw commit"];
    let sizes = [1000, 10_000];
    vec![
        cpu_cached(vec![Part::new("cpu", 3, 7.5).flows(500).only(FTFW)]),
        by_script(
            [1, 1000]
                .map(|n| Part::new("recovery", 3, 4.5).at(n).only(COMMIT))
                .to_vec(),
        ),
        commit(sizes.map(|n| Part::new("commit", 4, 1.0).at(n)).to_vec()),
        start(sizes.map(|n| Part::new("start", 3, 0.7).at(n)).to_vec()),
        events(vec![Part::new("events", 2, 6.0).flows(3000)]),
        memory(vec![Part::new("memory", 2, 2.0).flows(100_000).in_cache()]),
        lag(vec![Part::new("lag", 2, 15.0).flows(1000)]),
        kernel(sizes.map(|n| Part::new("kernel", 1, 1.0).at(n)).to_vec()),
    ]
}

fn cpu_cached(parts: Vec<Part>) -> Subject {
    Subject {
        name: "cpu",
        title: "CPU consumption, external cache",
        text: "GET requests of 4 KB from A to B through FW1, a new connection each, evenly at rising \
               rates, and last as fast as four clients go that wait for each answer. CPU time of all \
               threads of the daemon on FW1, the sender, and on FW2, the receiver. \"none\" is the \
               firewall without a daemon. A figure counts if both caches held the flows of all \
               rates until then, in the same states, and the rate was reached.",
        against: "connections/s",
        parts,
        draw: draw::cpu_cached,
    }
}

fn cpu_injected(parts: Vec<Part>) -> Subject {
    Subject {
        name: "cpu-injection",
        title: "CPU consumption, direct injection",
        text: "The same with DisableExternalCache: the receiver puts each flow into its kernel at \
               once. ALARM has no such mode. Both kernels held the same flows in the same states.",
        against: "connections/s",
        parts,
        draw: draw::cpu_injected,
    }
}

fn by_script(parts: Vec<Part>) -> Subject {
    Subject {
        name: "recovery",
        title: "Recovery by script",
        text: "FW1 loses its wires and its daemon, and FW2 takes the addresses and runs the original's \
               failover script at once: no detection is part of it. FT-FW. Traffic is ten UDP flows on \
               which the server sends every 2 ms: the longest silence of any. Up to 1000 \
               connections are real, and survive if numbered messages pass both ways; the others are \
               entries of FW1's kernel, and survive if FW2's kernel has them, established. \"none\" \
               is the control: its traffic never flows again.",
        against: "flows",
        parts,
        draw: draw::by_script,
    }
}

fn under_keepalived(parts: Vec<Part>) -> Subject {
    Subject {
        name: "keepalived",
        title: "Recovery under keepalived",
        text: "The same with 1000 connections, and FW2 finds out by itself, by Debian's keepalived: \
               conntrackd with its own script, ftfw with `ftfw primary`. Most of the time is \
               three advertisements that do not come. The gate is ours alone: conntrackd's file is \
               that of the pairs without it.",
        against: "s between advertisements",
        parts,
        draw: draw::under_keepalived,
    }
}

fn gate(parts: Vec<Part>) -> Subject {
    Subject {
        name: "gate",
        title: "Survival while the ends send, with rules that refuse nothing",
        text: "9500 connections whose ends send once a second all the time, and four failovers there \
               and back under keepalived (advert_int 0.1). No rule drops what is INVALID, so FW2 \
               answers with a reset what comes before it knows the flow. The gate drops it instead \
               until the flows are there.",
        against: "",
        parts,
        draw: draw::gate,
    }
}

fn commit(parts: Vec<Part>) -> Subject {
    Subject {
        name: "commit",
        title: "Commit",
        text: "Time of `-c` with flows with source NAT in the external cache: into an empty kernel \
               table, and once more over the same flows. The kernel's own time is that of the same \
               creates in batches by a program that does nothing else.",
        against: "flows",
        parts,
        draw: draw::commit,
    }
}

fn start(parts: Vec<Part>) -> Subject {
    Subject {
        name: "start",
        title: "Start-up and resync",
        text: "From the start of the daemon until its internal cache holds all flows that the kernel \
               has; and from `-R`, after the internal cache has been flushed, until it holds them \
               again. \"kernel\" is a dump by a program that does nothing else.",
        against: "flows",
        parts,
        draw: draw::start,
    }
}

fn bulk(parts: Vec<Part>) -> Subject {
    Subject {
        name: "bulk",
        title: "Bulk update",
        text: "From `-n` on FW2, whose external cache is empty, until it holds all of FW1's UDP flows. \
               FT-FW, external cache. Beside it the CPU time of as many creates by the kernel.",
        against: "flows",
        parts,
        draw: draw::bulk,
    }
}

fn events(parts: Vec<Part>) -> Subject {
    Subject {
        name: "events",
        title: "Events: CPU time, bytes and packets",
        text: "TCP flows with source NAT begin, are established and end in FW1's kernel, 15 000 events \
               a second in groups of 16. FT-FW, external cache. Bytes and packets are those that FW1 \
               sends on the dedicated link, with all headers.",
        against: "",
        parts,
        draw: draw::events,
    }
}

fn memory(parts: Vec<Part>) -> Subject {
    Subject {
        name: "memory",
        title: "Memory",
        text: "Growth of the daemon's resident memory while its external cache takes flows with \
               source NAT, a flow.",
        against: "",
        parts,
        draw: draw::memory,
    }
}

fn lag(parts: Vec<Part>) -> Subject {
    Subject {
        name: "lag",
        title: "Replication lag",
        text: "From a flow's begin in FW1's kernel until FW2's kernel has the entry, as both kernels \
               note it; FT-FW, direct injection. At 1000 connections a second, and of single \
               flows while nothing else happens.",
        against: "",
        parts,
        draw: draw::lag,
    }
}

fn loss(parts: Vec<Part>) -> Subject {
    Subject {
        name: "loss",
        title: "Equality on a lossy link",
        text: "1000 connections, half of them closed, while a part of the datagrams is lost in both \
               directions; where any is, a tenth comes late by up to 20 ms and a twentieth twice. \
               FT-FW. From the last end of a flow until both caches are equal, for 10 s at most: \
               a pair that is not equal by then has no such time.",
        against: "% lost",
        parts,
        draw: draw::loss,
    }
}

fn idle(parts: Vec<Part>) -> Subject {
    Subject {
        name: "idle",
        title: "Idle cost",
        text: "CPU time of both daemons while nothing happens for 30 s, with TCP flows in both kernels; \
               FT-FW, direct injection. Ours looks through the whole table once in that time.",
        against: "flows",
        parts,
        draw: draw::idle,
    }
}

fn kernel(parts: Vec<Part>) -> Subject {
    Subject {
        name: "kernel",
        title: "The kernel alone",
        text: "What the kernel itself takes, by a program that does nothing else: flows created in \
               batches of 64, with and without an event of each, read in a dump, and events received \
               (20 000 that wait). No daemon is faster.",
        against: "flows",
        parts,
        draw: draw::kernel,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(subjects: &[Subject]) -> f64 {
        let parts = subjects.iter().flat_map(|s| &s.parts);
        parts.map(Part::takes).sum::<f64>() / 60.0
    }

    /// Goal: the user gets what he has asked for, and reads what there is.
    #[test]
    fn subjects_are_chosen() {
        let only = |names: &[&str], most| {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            chosen(full(), &names, most)
        };
        let subjects = only(&["commit", "lag"], Some(10_000)).unwrap();
        let names: Vec<_> = subjects.iter().map(|s| (s.name, s.parts.len())).collect();
        assert_eq!(names, [("commit", 2), ("lag", 1)]);
        let refused = only(&["speed"], None).unwrap_err().to_string();
        assert!(
            refused.contains("cpu, cpu-injection, recovery"),
            "{refused}"
        );
        assert!(only(&["memory"], Some(10)).is_err());
    }

    /// Goal: the plan keeps to its time.
    #[test]
    fn the_plan_is_short_enough() {
        let [full, quick] = [full(), quick()].map(|subjects| minutes(&subjects));
        assert!((30.0..57.0).contains(&full), "{full} minutes");
        assert!((1.0..2.7).contains(&quick), "{quick} minutes");
    }
}
