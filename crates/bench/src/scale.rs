//! What the core costs as the table grows: a table of events, and one of long work.
//!
//! CPU time is that of the turns of one replica's thread. What is 0.1 ms on the virtual clock may
//! be more or less outside: the clock sets how many events gather between two turns, and when
//! timers are due.

use std::fs;
use std::io;
use std::time::Duration;

use replica::{Command, Event, Objects, Which};

use crate::clock::{Reading, Turns};
use crate::events::Step;
use crate::pair::Pair;

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Flows at the end.
    pub flows: u32,
    /// Events in a second of the virtual clock.
    pub events: u32,
}

/// So long events gather in the daemon when they come fast.
const GATHER: Duration = Duration::from_micros(2500);
/// Events of each kind that are measured at one size of the table.
const SAMPLE: u32 = 120_000;
/// A turn that is longer is worth a line.
const LONG: Duration = Duration::from_millis(5);
/// Entries of a listing in one turn, as in the daemon.
const LISTED_PER_TURN: usize = 1024;
/// Long work that is not over after this time on the virtual clock is given up.
const PATIENCE: Duration = Duration::from_secs(600);

/// A table that grows, and its random choices.
struct Run {
    pair: Pair,
    burst: u32,
    /// The number of the next flow that begins.
    next: u32,
    random: u64,
    before_bytes: u64,
}

/// Measures, and prints tables.
///
/// # Errors
/// What the system says about the memory of this process.
pub fn run(scale: Scale) -> io::Result<()> {
    let per_gather = f64::from(scale.events) * GATHER.as_secs_f64();
    let limit = scale.flows as usize * 5 / 4 + SAMPLE as usize;
    let before_bytes = resident()?;
    let mut run = Run {
        pair: Pair::new(limit),
        burst: (per_gather as u32).max(1),
        next: 0,
        random: 1,
        before_bytes,
    };
    println!(
        "{} events a second, {} between two turns; longest turns: CPU time, and on the wall",
        scale.events, run.burst
    );
    run.grow_by_decades(scale.flows)?;
    println!("\nlong work with {} flows", scale.flows);
    run.long_work();
    Ok(())
}

/// Resident memory of this process in bytes.
fn resident() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib = line.and_then(|l| l.split_whitespace().next());
    let kib = kib.and_then(|n| n.parse::<u64>().ok());
    Ok(kib.ok_or_else(|| io::Error::other("no VmRSS in /proc/self/status"))? * 1024)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl Run {
    fn grow_by_decades(&mut self, flows: u32) -> io::Result<()> {
        println!(
            "{:>10} | {:^17} | {:^17} | {:^17} | {:^17} | {:^24} | {:^24} | {:>6}",
            "",
            "growth, ns/event",
            "create, ns/event",
            "update, ns/event",
            "destroy, ns/event",
            "longest turn growing, ms",
            "longest other turn, ms",
            "bytes"
        );
        println!(
            "{:>10} | {pair} | {pair} | {pair} | {pair} | {wide} | {wide} | {:>6}",
            "flows",
            "a flow",
            pair = "  sender receiver",
            wide = "     sender     receiver",
        );
        let mut size = 10_000.min(flows);
        loop {
            let grown = self.grow(size);
            let bytes = self.bytes_a_flow()?;
            let kinds = self.churn(size);
            let mut rest = [Turns::default(); 2];
            for (_, kind) in &kinds {
                rest[0] += kind[0];
                rest[1] += kind[1];
            }
            let mut row = format!("{size:>10} |");
            for (count, [sender, receiver]) in [grown].iter().chain(&kinds) {
                let (sender, receiver) = (sender.nanos_each(*count), receiver.nanos_each(*count));
                row += &format!(" {sender:>8}{receiver:>9} |");
            }
            for turns in [grown.1, rest] {
                for Turns {
                    longest_cpu,
                    longest_wall,
                    ..
                } in turns
                {
                    let (cpu, wall) = (millis(longest_cpu), millis(longest_wall));
                    row += &format!(" {cpu:>5.1}/{wall:<6.1}");
                }
                row += " |";
            }
            println!("{row} {bytes:>6.1}");
            if size == flows {
                return Ok(());
            }
            size = size.saturating_mul(10).min(flows);
        }
    }

    /// What a flow takes of memory in one cache.
    fn bytes_a_flow(&self) -> io::Result<f64> {
        let kernels = self.pair.sender.around.kernel.bytes();
        let grown = resident()?.saturating_sub(self.before_bytes + kernels as u64);
        let held = self.pair.sender.replica.len(Which::Internal)
            + self.pair.receiver.replica.len(Which::External);
        Ok(grown as f64 / held as f64)
    }

    fn step(&mut self, step: Step, n: u32) {
        self.pair.sender.around.kernel.step(step, n);
    }

    fn begin(&mut self, count: u32) {
        for n in self.next..self.next + count {
            self.step(Step::New, n);
        }
        self.next += count;
    }

    /// Flows begin, and are established in the burst after, until there are `size`.
    fn grow(&mut self, size: u32) -> (u64, [Turns; 2]) {
        self.pair.take_turns();
        let mut events = 0;
        let mut begun = self.next..self.next;
        loop {
            let living = self.pair.sender.around.kernel.len() as u32;
            let count = (size - living).min(self.burst / 2);
            events += u64::from(count) + begun.len() as u64;
            for n in std::mem::replace(&mut begun, self.next..self.next + count) {
                self.step(Step::Established, n);
            }
            self.begin(count);
            self.pair.run(GATHER);
            if begun.is_empty() {
                return (events, self.pair.take_turns());
            }
        }
    }

    /// Creates, updates and destroys flows of a table that keeps its size, in turn. What each
    /// kind has cost, with its number of events.
    fn churn(&mut self, size: u32) -> [(u64, [Turns; 2]); 3] {
        let mut kinds = [(0, [Turns::default(); 2]); 3];
        let round = (size / 10).min(SAMPLE / 4);
        for _ in 0..SAMPLE / round {
            for (kind, step) in [Step::New, Step::Established, Step::Destroy]
                .iter()
                .enumerate()
            {
                self.happens(*step, round);
                let [sender, receiver] = self.pair.take_turns();
                let (count, turns) = &mut kinds[kind];
                *count += u64::from(round);
                turns[0] += sender;
                turns[1] += receiver;
            }
        }
        kinds
    }

    /// `count` events of one kind: of new flows, or of any.
    fn happens(&mut self, step: Step, count: u32) {
        let mut left = count;
        while left > 0 {
            let burst = left.min(self.burst);
            left -= burst;
            if step == Step::New {
                self.begin(burst);
            } else {
                for _ in 0..burst {
                    let chosen = self.random();
                    if let Some(n) = self.pair.sender.around.kernel.any(chosen) {
                        self.step(step, n);
                    }
                }
            }
            self.pair.run(GATHER);
        }
    }

    fn random(&mut self) -> u64 {
        // Marsaglia, "Xorshift RNGs".
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    // ---- long work ----

    fn long_work(&mut self) {
        println!(
            "{:<44} | {:>8} | {:^24} | {:^24}",
            "", "turns", "CPU, ns/flow", "longest turn, ms"
        );
        println!(
            "{:<44} | {:>8} | {:>12}{:>12} | {:>12}{:>12}",
            "", "", "sender", "receiver", "sender", "receiver"
        );
        self.work("bulk update", |pair| {
            pair.command_sender(Command::Bulk);
            let complete = pair.sender.replica.stats().messages_sent;
            let flows = pair.sender.replica.len(Which::Internal) as u64;
            settle(pair, move |p| {
                p.sender.replica.stats().messages_sent >= complete + flows
                    && p.sender.replica.owed() == 0
            });
        });
        self.work("look through the sender's table", |pair| {
            let before = pair.sender.around.dumped;
            pair.command_sender(Command::Resync(Objects::Flows));
            let flows = pair.sender.around.kernel.len() as u64;
            settle(pair, move |p| p.sender.around.dumped >= before + flows);
        });
        self.list();
        self.work("flush of the external cache", |pair| {
            pair.command_receiver(Command::FlushExternal);
        });
        self.work("bulk update into an empty cache", |pair| {
            pair.command_receiver(Command::RequestResync);
            settle(pair, holds_all);
        });
        self.work("restart of the receiver", |pair| {
            pair.restart_receiver();
            settle(pair, holds_all);
        });
        self.work("restart of the sender", |pair| {
            pair.restart_sender();
            let flows = pair.sender.around.kernel.len();
            settle(pair, move |p| {
                p.sender.replica.len(Which::Internal) >= flows
            });
        });
        self.work("commit, changes, flush of the external cache", |pair| {
            pair.command_receiver(Command::Commit(Objects::All));
            settle(pair, |p| !p.receiver.replica.is_committing());
            // What the peer announces between a commit and the flush behind it is late.
            for n in 0..1000 {
                if let Some(n) = pair.sender.around.kernel.any(n * 1009) {
                    pair.sender.around.kernel.step(Step::Established, n);
                }
            }
            pair.run(GATHER);
            pair.command_receiver(Command::FlushExternal);
            settle(pair, |p| !p.receiver.replica.is_committing());
        });
        self.work("flush of the receiver's kernel", |pair| {
            pair.command_receiver(Command::FlushKernel(Objects::All));
            settle(pair, |p| p.receiver.around.kernel.is_empty());
        });
        self.work("flush of the sender's internal cache", |pair| {
            pair.command_sender(Command::FlushInternal);
        });
    }

    /// Prints what `work` takes, both until it is over and in the ten seconds behind it.
    fn work(&mut self, name: &str, work: impl FnOnce(&mut Pair)) {
        let flows = self.pair.sender.around.kernel.len() as u64;
        self.pair.take_turns();
        work(&mut self.pair);
        for _ in 0..100 {
            self.pair.run(Duration::from_millis(100));
        }
        let turns = self.pair.take_turns();
        print_work(name, flows, turns);
        for node in [&mut self.pair.sender, &mut self.pair.receiver] {
            node.around
                .events
                .retain(|event| matches!(event, Event::Done(..)));
        }
    }

    /// A client lists the receiver's external cache.
    fn list(&mut self) {
        let replica = &self.pair.receiver.replica;
        let mut turns = Turns::default();
        let (mut position, mut rows) = (Some(cache::Position::default()), 0);
        while let Some(from) = position {
            let begun = Reading::now();
            let see = |flow: &flow::Flow, _| rows += u64::from(flow.timeout.is_some());
            position = replica.walk(Which::External, from, LISTED_PER_TURN, see);
            turns.end(begun);
        }
        print_work(
            "listing of the external cache, without text",
            rows,
            [Turns::default(), turns],
        );
    }
}

fn print_work(name: &str, flows: u64, [sender, receiver]: [Turns; 2]) {
    let count = sender.count.max(receiver.count);
    let mut row = format!("{name:<44} | {count:>8} |");
    for turns in [sender, receiver] {
        row += &format!(" {:>11}", turns.nanos_each(flows));
    }
    row += " |";
    for turns in [sender, receiver] {
        let (cpu, wall) = (millis(turns.longest_cpu), millis(turns.longest_wall));
        row += &format!("  {cpu:>5.1}/{wall:<5.1}");
    }
    if [sender, receiver].iter().any(|t| t.longest_cpu > LONG) {
        row += "  LONG";
    }
    println!("{row}");
}

/// True if the receiver's external cache has all that the sender's internal cache has.
fn holds_all(pair: &Pair) -> bool {
    pair.receiver.replica.len(Which::External) >= pair.sender.replica.len(Which::Internal)
}

/// Lets the pair go on until `is_over`, but not for ever.
fn settle(pair: &mut Pair, is_over: impl Fn(&Pair) -> bool) {
    let begun = pair.now();
    loop {
        pair.run(Duration::from_millis(1));
        if is_over(pair) {
            return;
        }
        if pair.now().since(begun) > PATIENCE {
            println!("not over after {PATIENCE:?} of the virtual clock:");
            return;
        }
    }
}
