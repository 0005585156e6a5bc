//! What every fault has: a pair over a relay, real connections through FW1, a load beside them,
//! the comparison of both replicas, and the death of FW1 at the end.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::load::{self, Running};
use super::{Course, Outcome};
use crate::daemon::{Daemon, Kind, Mode, Settings, Transport};
use crate::relay::Relay;
use crate::topology::{Lab, Options, SERVER};
use crate::traffic::numbered::{self, Connections};
use crate::wait;

/// Longest time in which a pair becomes equal once the fault is over. A sweep comes every 15 s,
/// and a second one must confirm what the first one has found.
pub(super) const EQUAL: Duration = Duration::from_secs(40);
/// The same in front of the fault.
const READY: Duration = Duration::from_secs(20);
/// A connection answers by then, or never does: TCP repeats after 0.2, 0.6, 1.4, 3 and 6 s.
const ANSWER: Duration = Duration::from_secs(10);
/// The same where nothing is to answer.
const DEAD: Duration = Duration::from_secs(4);
/// The port of the server on B.
const PORT: u16 = 7;
/// What both firewalls replicate, in a listing of the kernel.
const FLOWS: &str = "-p tcp --orig-dst 192.168.1.2";

/// How a rig is built.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Real connections.
    pub(super) connections: usize,
    /// Flows in FW1's kernel that no traffic made.
    pub(super) filled: u32,
    /// FW2 injects instead of keeping an external cache.
    pub(super) injects: bool,
    /// Lines inside General, and inside the mode's block.
    pub(super) general_lines: String,
    /// See `general_lines`.
    pub(super) mode_lines: String,
    /// The laboratory's rules.
    pub(super) options: Options,
    /// The port of the server.
    pub(super) port: u16,
}

impl Plan {
    /// The plan of most faults.
    pub(super) fn new(course: &Course<'_>) -> Plan {
        Plan {
            connections: course.pick(100, 500),
            filled: 0,
            injects: false,
            general_lines: String::new(),
            mode_lines: String::new(),
            options: Options {
                translate_ports: true,
                ..Options::default()
            },
            port: PORT,
        }
    }
}

/// A pair under a fault.
#[derive(Debug)]
pub(super) struct Rig {
    pub(super) lab: Lab,
    pub(super) relay: Relay,
    pub(super) kind: Kind,
    /// On FW1 and FW2; none without a program.
    pub(super) daemons: [Option<Daemon>; 2],
    connections: Connections,
    settings: Settings,
    dir: PathBuf,
    load: Option<Running>,
    outcome: Outcome,
}

impl Rig {
    /// Builds it, and waits until FW2 holds what FW1's kernel has.
    pub(super) fn start(course: &Course<'_>, plan: &Plan) -> Result<Rig> {
        let lab = Lab::build(plan.options)?;
        for fw in &lab.fw {
            // Logging every packet would take longer than forwarding it.
            fw.run("iptables -D FORWARD -j LOG")?;
        }
        let relay = Relay::start(&lab, 1)?;
        let mut mode_lines = plan.mode_lines.clone();
        if plan.injects {
            mode_lines += "\nDisableExternalCache on";
        }
        let settings = Settings {
            transport: Transport::Relayed,
            general_lines: plan.general_lines.clone(),
            mode_lines,
            ..Settings::new(Mode::Ftfw)
        };
        let dir = course.world.dir().to_owned();
        let server = SocketAddr::new(SERVER.parse()?, plan.port);
        numbered::serve(&lab.b, server)?;
        let start = |n: usize| Daemon::start(course.kind, &lab.fw[n], n, &settings, &dir);
        let daemons = [start(0)?, start(1)?];
        let mut connections = Connections::open(&lab.a, server, plan.connections)?;
        let works = connections.round(ANSWER);
        ensure!(
            works == plan.connections,
            "{works} of {} connections work",
            plan.connections
        );
        if plan.filled > 0 {
            load::fill(&lab.fw[0], plan.filled)?;
        }
        let rig = Rig {
            lab,
            relay,
            kind: course.kind,
            daemons,
            connections,
            settings,
            dir,
            load: None,
            outcome: Outcome::default(),
        };
        if course.kind != Kind::None {
            rig.settle(READY, false).context("before the fault")?;
        }
        Ok(rig)
    }

    /// So many events a second from now on in FW1's kernel.
    pub(super) fn load(&mut self, rate: u32) {
        self.load = Some(Running::start(&self.lab.fw[0], rate, 1000));
    }

    /// Ends the load.
    pub(super) fn unload(&mut self) -> Result<()> {
        if let Some(load) = self.load.take() {
            self.outcome.events += load.stop()?;
        }
        Ok(())
    }

    /// As many faults have been survived more.
    pub(super) fn struck(&mut self, count: u64) {
        self.outcome.struck += count;
    }

    /// As many bad inputs have been tried more.
    pub(super) fn tried(&mut self, count: u64) {
        self.outcome.bad_inputs += count;
    }

    /// Kills the daemon of firewall `n`, and starts it again.
    pub(super) fn restart(&mut self, n: usize) -> Result<()> {
        self.kill(n);
        self.revive(n)
    }

    /// Kills the daemon of firewall `n`.
    pub(super) fn kill(&mut self, n: usize) {
        if let Some(daemon) = &mut self.daemons[n] {
            daemon.kill();
        }
    }

    /// Starts the daemon of firewall `n`, which is dead, as a service manager does. Nobody tells
    /// conntrackd by itself what it has missed: both are told to ask, as an operator would.
    pub(super) fn revive(&mut self, n: usize) -> Result<()> {
        let fw = &self.lab.fw[n];
        self.daemons[n] = Daemon::start(self.kind, fw, n, &self.settings, &self.dir)?;
        if self.kind == Kind::Conntrackd {
            for n in 0..2 {
                // The other one may be dead just now. It asks when it is started.
                let _ = self.ask(n, &["-n"]);
            }
        }
        Ok(())
    }

    /// Sends a signal to the daemon of firewall `n`.
    pub(super) fn signal(&self, n: usize, signal: Signal) -> Result<()> {
        match &self.daemons[n] {
            Some(daemon) => daemon.signal(signal),
            None => Ok(()),
        }
    }

    /// Runs a command of the original's, unless there is no daemon.
    pub(super) fn ask(&self, n: usize, arguments: &[&str]) -> Result<()> {
        if let Some(daemon) = &self.daemons[n] {
            daemon.ask(arguments)?;
        }
        Ok(())
    }

    /// The commands of the original's script for a new primary or backup.
    pub(super) fn role(&self, n: usize, primary: bool) -> Result<()> {
        match &self.daemons[n] {
            Some(daemon) if primary => daemon.become_primary(),
            Some(daemon) => daemon.become_backup(),
            None => Ok(()),
        }
    }

    /// A number of `ftfw status -o json`, e.g. `/peer/restarts`. `None` for other programs.
    pub(super) fn status(&self, n: usize, pointer: &str) -> Result<Option<u64>> {
        let Some(daemon) = self.daemons[n].as_ref().filter(|_| self.kind == Kind::Ftfw) else {
            return Ok(None);
        };
        let text = daemon.own(&["status", "-o", "json"])?;
        let status: Value = serde_json::from_str(&text)?;
        Ok(status.pointer(pointer).and_then(Value::as_u64))
    }

    /// Notes what a counter of FW`n`'s daemon says.
    pub(super) fn note(&mut self, n: usize, what: &str, pointer: &str) -> Result<()> {
        if let Some(value) = self.status(n, pointer)? {
            let note = format!("{what} {value}");
            self.outcome.notes.push(note);
        }
        Ok(())
    }

    /// Notes something else.
    pub(super) fn say(&mut self, text: String) {
        self.outcome.notes.push(text);
    }

    /// Flows of firewall `n`'s kernel, and those that the other firewall holds, in a cache or, if
    /// it may, in its kernel: state, original tuple.
    fn both(&self, n: usize, may_be_in_kernel: bool) -> Result<[BTreeSet<String>; 2]> {
        let owned = self.lab.flows(n, FLOWS)?;
        let other = 1 - n;
        let mut held = match &self.daemons[other] {
            Some(daemon) => daemon.external(&format!("dst={SERVER} "))?,
            None => Vec::new(),
        };
        if may_be_in_kernel {
            held.extend(self.lab.flows(other, FLOWS)?);
        }
        Ok([owned, held].map(|lines| lines.iter().map(|l| identity(l)).collect()))
    }

    /// How many flows FW2 lacks of FW1's kernel, and how many it holds that are not there.
    pub(super) fn gap(&self) -> Result<[usize; 2]> {
        let injects = self.settings.mode_lines.contains("DisableExternalCache");
        let [owned, held] = self.both(0, injects)?;
        Ok([
            owned.difference(&held).count(),
            held.difference(&owned).count(),
        ])
    }

    /// Waits until firewall `1 - n` holds all that the kernel of firewall `n` has, be it that its
    /// kernel has it from a time as primary.
    pub(super) fn wait_held(&self, n: usize, limit: Duration) -> Result<()> {
        let mut missing = usize::MAX;
        wait::until("the other firewall holds the flows", limit, || {
            let Ok([owned, held]) = self.both(n, true) else {
                return false;
            };
            missing = owned.difference(&held).count();
            missing == 0
        })
        .with_context(|| format!("it lacks {missing}"))
    }

    /// Waits until the kernel of firewall `n`, a backup, has no flow any more.
    pub(super) fn wait_emptied(&self, n: usize) -> Result<()> {
        wait::until("the backup's kernel has no flows", EQUAL, || {
            self.lab.count_flows(n, FLOWS).is_ok_and(|count| count == 0)
        })
    }

    /// Waits until FW2 holds what FW1's kernel has, and, if `exactly`, nothing else.
    fn settle(&self, limit: Duration, exactly: bool) -> Result<()> {
        let mut last = [0; 2];
        wait::until("both replicas are equal", limit, || {
            last = self.gap().unwrap_or([usize::MAX; 2]);
            last[0] == 0 && (last[1] == 0 || !exactly)
        })
        .with_context(|| format!("FW2 lacks {} and has {} others", last[0], last[1]))
    }

    /// The fault is over: how long until both replicas are equal, FW1 being the primary.
    pub(super) fn equal(&mut self) -> Result<()> {
        self.unload()?;
        let begun = Instant::now();
        if self.kind == Kind::None {
            return Ok(());
        }
        let equal = self.settle(EQUAL, true);
        if equal.is_ok() {
            self.equal_in(begun.elapsed());
        }
        self.expect(equal);
        Ok(())
    }

    /// Another time until both replicas were equal.
    pub(super) fn equal_in(&mut self, time: Duration) {
        let before = self.outcome.equal_after.unwrap_or_default();
        self.outcome.equal_after = Some(before.max(time));
    }

    /// What does not hold is a part of the outcome.
    pub(super) fn expect(&mut self, result: Result<()>) {
        if let Err(e) = result {
            self.outcome.never_equal = true;
            self.say(format!("{e:#}"));
        }
    }

    /// Other connections, and those of them that live on.
    pub(super) fn beside(&mut self, flows: usize, alive: usize) {
        self.outcome.flows += flows;
        self.outcome.alive += alive;
    }

    /// Flows in the kernel of firewall `n` that no traffic made, with both tuples: their
    /// translation is in them.
    fn entries(&self, n: usize) -> Result<BTreeSet<String>> {
        let lines = self.lab.flows(n, FLOWS)?;
        let lines = lines.iter().filter(|line| line.contains(" src=10."));
        Ok(lines.map(|line| tuples(line, 8)).collect())
    }

    /// FW1 dies, and FW2 takes over. What lives then.
    pub(super) fn die(mut self) -> Result<Outcome> {
        self.take_over(0)?;
        Ok(self.outcome)
    }

    /// The same of FW2, where it is primary.
    pub(super) fn die_as_fw2(mut self) -> Result<Outcome> {
        self.take_over(1)?;
        Ok(self.outcome)
    }

    /// The same; yields also a counter of FW2's daemon, see [`Rig::status`].
    pub(super) fn die_and_ask(mut self, pointer: &str) -> Result<(Outcome, Option<u64>)> {
        self.take_over(0)?;
        let counter = self.status(1, pointer)?;
        Ok((self.outcome, counter))
    }

    /// Firewall `dead` dies.
    fn take_over(&mut self, dead: usize) -> Result<()> {
        self.unload()?;
        let lives = 1 - dead;
        let entries = self.entries(dead)?;
        self.lab.cut(dead)?;
        self.kill(dead);
        self.lab.take_addresses(lives)?;
        self.role(lives, true)?;
        let here = self.entries(lives)?;
        self.beside(entries.len(), entries.intersection(&here).count());
        self.look();
        Ok(())
    }

    /// What has come of it until now, while nobody has died.
    pub(super) fn outcome(self) -> Outcome {
        self.outcome
    }

    /// Which of the connections answer, through whoever is primary.
    pub(super) fn look(&mut self) {
        let limit = match self.kind {
            Kind::None => DEAD,
            _ => ANSWER,
        };
        // A second round proves that the first was no accident of buffers.
        let mut alive = self.connections.round(limit);
        if alive > 0 {
            thread::sleep(Duration::from_millis(100));
            alive = self.connections.round(limit);
        }
        self.beside(self.connections.count(), alive);
    }
}

/// Protocol, state, and original tuple of a line of the kernel's table or of a cache.
fn identity(line: &str) -> String {
    let is_state =
        |word: &&str| word.len() > 3 && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    let state = line.split_whitespace().find(is_state).unwrap_or("");
    format!("{state} {}", tuples(line, 4))
}

/// The first so many addresses and ports of a line.
fn tuples(line: &str, count: usize) -> String {
    let is_part = |word: &&str| {
        ["src=", "dst=", "sport=", "dport="]
            .iter()
            .any(|p| word.starts_with(p))
    };
    let words = line.split_whitespace().filter(is_part).take(count);
    words.collect::<Vec<_>>().join(" ")
}
