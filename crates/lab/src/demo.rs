//! The demonstration: a session, a transfer and many connections through FW1;
//! FW1 dies; what of them lives on through FW2.

use std::io::Write;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::daemon::{Daemon, Kind, Mode, Settings};
use crate::ssh::{Session, TICK};
use crate::topology::{Lab, Options, SERVER};
use crate::traffic::{bulk, numbered};
use crate::world::World;

/// Number of idle connections.
pub const CONNECTIONS: usize = 1000;
const NUMBERED_PORT: u16 = 7;
const BULK_PORT: u16 = 5001;
/// 16 KiB each, one every 5 ms: outlasts the failover.
const BULK_CHUNKS: usize = 800;
const BULK_PACE: Duration = Duration::from_millis(5);
/// A session that has printed nothing for this long hangs. TCP repeats after
/// 0.2, 0.6, 1.4 and 3 s, so a living one has had four chances.
const HANG: Duration = Duration::from_secs(4);

/// What a run showed.
#[derive(Debug)]
pub struct Outcome {
    /// Daemons on FW1 and FW2.
    pub kinds: [Kind; 2],
    /// Protocol.
    pub mode: Mode,
    /// Longest silence of the session since FW1 died; `None` if it hangs.
    pub interruption: Option<Duration>,
    /// Longest silence of the transfer; `None` if it did not finish or a byte was wrong.
    pub bulk: Option<Duration>,
    /// Idle connections on which numbered messages still pass both ways.
    pub survived: usize,
    /// Time from the first command on FW2 to the end of the failover script.
    pub takeover: Duration,
    /// False if a stand-in took sshd's place.
    pub real_ssh: bool,
}

impl Outcome {
    /// True if everything lived on or, without a daemon, nothing.
    pub fn as_expected(&self) -> bool {
        if self.kinds.contains(&Kind::None) {
            self.interruption.is_none() && self.bulk.is_none() && self.survived == 0
        } else {
            self.interruption.is_some() && self.bulk.is_some() && self.survived == CONNECTIONS
        }
    }
}

/// The timeline on standard output, seconds since the start.
struct Timeline {
    start: Instant,
    quiet: bool,
}

impl Timeline {
    fn say(&self, text: &str) {
        if !self.quiet {
            println!("  {:7.3} s  {text}", self.start.elapsed().as_secs_f64());
            let _ = std::io::stdout().flush();
        }
    }
}

/// Runs the demonstration once.
pub fn run(
    world: &World,
    kinds: [Kind; 2],
    settings: &Settings,
    options: Options,
    quiet: bool,
) -> Result<Outcome> {
    let mode = settings.mode;
    let t = Timeline {
        start: Instant::now(),
        quiet,
    };
    t.say("building A, FW1, FW2, B");
    let lab = Lab::build(options)?;
    let mut daemons = Vec::new();
    for (n, kind) in kinds.into_iter().enumerate() {
        if kind != Kind::None {
            t.say(&format!("starting {kind} ({mode}) on FW{}", n + 1));
        }
        daemons.push(Daemon::start(kind, &lab.fw[n], n, settings, world.dir())?);
    }
    let fw2 = daemons.pop().flatten();
    let fw1 = daemons.pop().flatten();

    let address = |port| SocketAddr::new(SERVER.parse().expect("an address"), port);
    numbered::serve(&lab.b, address(NUMBERED_PORT))?;
    let mut connections = numbered::Connections::open(&lab.a, address(NUMBERED_PORT), CONNECTIONS)?;
    let before = connections.round(Duration::from_secs(10));
    anyhow::ensure!(
        before == CONNECTIONS,
        "only {before} connections work through FW1"
    );
    t.say(&format!(
        "{CONNECTIONS} TCP connections from A to B through FW1"
    ));

    let session = Session::start(&lab.a, &lab.b, world.dir())?;
    let name = if session.is_real_ssh() {
        "an SSH session"
    } else {
        "a counter session (sshd does not run in this user namespace)"
    };
    t.say(&format!(
        "{name} from A to B prints a counter every {} ms",
        TICK.as_millis()
    ));
    let transfer =
        bulk::Transfer::start(&lab.a, &lab.b, address(BULK_PORT), BULK_CHUNKS, BULK_PACE)?;
    t.say("a bulk transfer from B to A runs");
    thread::sleep(Duration::from_secs(2));
    if let Some(fw2) = &fw2 {
        let known = fw2.external(&format!("dport={NUMBERED_PORT} "))?.len();
        t.say(&format!(
            "FW2 knows {known} of the {CONNECTIONS} connections"
        ));
    }

    let died = Instant::now();
    let counter = session.with(|seen| {
        seen.longest_gap = Duration::ZERO;
        seen.last
    });
    lab.cut(0)?;
    if let Some(mut fw1) = fw1 {
        fw1.kill();
    }
    t.say(&format!("FW1 dies; the session has counted to {counter}"));
    let takeover = Instant::now();
    lab.take_addresses(1)?;
    t.say("FW2 has the virtual addresses");
    if let Some(fw2) = &fw2 {
        fw2.become_primary()?;
    }
    let takeover = takeover.elapsed();
    t.say(&format!(
        "FW2 has run its failover script, {} ms after FW1 died",
        died.elapsed().as_millis()
    ));

    let mut said = Duration::ZERO;
    while died.elapsed() < HANG {
        thread::sleep(Duration::from_millis(100));
        if died.elapsed() - said >= Duration::from_secs(1) {
            said = died.elapsed();
            t.say(&format!("the session has counted to {}", session.last()));
        }
    }
    let interruption = session.with(|seen| {
        let lives = seen
            .at
            .is_some_and(|at| at.elapsed() < Duration::from_secs(1));
        (lives && seen.last > counter + 10 && !seen.out_of_order).then_some(seen.longest_gap)
    });
    let limit = if fw2.is_some() { 10 } else { 2 };
    let mut survived = connections.round(Duration::from_secs(limit));
    if survived > 0 {
        survived = connections.round(Duration::from_secs(limit));
    }
    t.say(&format!(
        "{survived} of {CONNECTIONS} connections pass numbered messages both ways"
    ));
    let gap = transfer.progress().longest_gap;
    let bulk = transfer.finish(Duration::from_secs(limit)).then_some(gap);
    t.say(if bulk.is_some() {
        "the bulk transfer is complete, its checksum right"
    } else {
        "the bulk transfer hangs"
    });
    Ok(Outcome {
        kinds,
        mode,
        interruption,
        bulk,
        survived,
        takeover,
        real_ssh: session.is_real_ssh(),
    })
}

/// The table at the end of a run.
pub fn print_table(outcomes: &[Outcome]) {
    let ms = |d: Option<Duration>| match d {
        Some(d) => format!("{} ms", d.as_millis()),
        None => "hangs".to_owned(),
    };
    println!();
    println!(
        "  {:<12} {:<12} {:<8} {:>12} {:>12} {:>12} {:>10}  as expected",
        "on FW1", "on FW2", "protocol", "SSH session", "bulk", "survived", "take-over"
    );
    for o in outcomes {
        let mode = if o.kinds == [Kind::None; 2] {
            "-".to_owned()
        } else {
            o.mode.to_string()
        };
        println!(
            "  {:<12} {:<12} {:<8} {:>12} {:>12} {:>12} {:>7} ms  {}",
            o.kinds[0].to_string(),
            o.kinds[1].to_string(),
            mode,
            ms(o.interruption),
            ms(o.bulk),
            format!("{}/{CONNECTIONS}", o.survived),
            o.takeover.as_millis(),
            if o.as_expected() { "yes" } else { "NO" },
        );
    }
    println!();
    println!(
        "  SSH session, bulk: longest silence after FW1 died. survived: connections that pass"
    );
    println!("  numbered messages both ways. take-over: FW2's addresses and failover script.");
    if outcomes.iter().any(|o| !o.real_ssh) {
        println!("  sshd does not run in this user namespace: a counter server stood in for it.");
    }
}
