//! What one seed decides before a run: who the replicas are, and which faults exist.
//!
//! Some behaviours hide when every fault is on at once, so each seed has its own set.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use replica::Mode;

use crate::network::Edges;
use crate::random::Random;

/// Which program a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The real core.
    Ours,
    /// The model of the original's rules.
    Original,
}

macro_rules! faults {
    ($($variant:ident $name:literal $doc:literal,)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault { $(#[doc = $doc] $variant,)* }

        impl Fault {
            /// All of them.
            pub const ALL: &[Fault] = &[$(Fault::$variant,)*];

            /// Its name on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Fault::$variant => $name,)* }
            }
        }
    };
}

faults! {
    Loss "loss" "A part of the datagrams is lost.",
    BurstLoss "burst-loss" "Many datagrams in a row are lost.",
    Duplicate "duplicate" "Datagrams come twice.",
    Delay "delay" "Datagrams are late, and so out of order.",
    Replay "replay" "Datagrams come again seconds later.",
    Truncate "truncate" "Datagrams are cut short.",
    Garbage "garbage" "Datagrams begin with another version.",
    OneWay "one-way" "One direction is cut for a while.",
    Flap "flap" "The first link goes down for a while.",
    Overrun "overrun" "Bursts of events, and the kernel drops some.",
    Full "full" "The kernel's table is full for a while.",
    SlowKernel "slow-kernel" "Requests are answered late.",
    Silence "silence" "Packets refresh timers, of which no event tells.",
    Crash "crash" "A daemon dies and starts again; its kernel's table stays.",
    Reboot "reboot" "A machine starts again, with an empty table.",
    Pause "pause" "A daemon does nothing for a while.",
    Operator "operator" "Commands at any moment, also twice.",
    Failover "failover" "The backup takes over.",
    Failback "failback" "The backup takes over for a while, and the former primary takes back.",
    Beside "beside" "The backup becomes primary for a moment, and nobody tells the primary.",
    Outage "outage" "Nothing arrives for longer than a scheduled flush waits.",
    Forged "forged" "Somebody sends control messages in the name of the peer.",
    Blocked "blocked" "The links of one replica take no datagrams for a while.",
}

/// Faults that came later, and how often a run has each. They are drawn last, so that a
/// seed keeps the choices that it had without them.
const LATER: &[(Fault, f64)] = &[
    (Fault::Failback, 0.4),
    (Fault::Outage, 0.3),
    (Fault::Forged, 0.15),
];

/// How often a run has blocked links, and with a manager a second primary; drawn after everything
/// else.
const BLOCKED: f64 = 0.2;
const BESIDE: f64 = 0.3;

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(name: &str) -> Result<Fault, String> {
        let found = Fault::ALL.iter().find(|f| f.name() == name);
        found.copied().ok_or_else(|| {
            let names: Vec<_> = Fault::ALL.iter().map(|f| f.name()).collect();
            format!("no such fault; there are {}", names.join(", "))
        })
    }
}

/// The choices of one run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Mode of all replicas.
    pub mode: Mode,
    /// What they are: a pair, and behind it the cold spares.
    pub programs: Vec<Program>,
    /// They inject instead of keeping an external cache.
    pub injects: Vec<bool>,
    /// They replicate expectations.
    pub expectations: bool,
    /// They send trailers.
    pub trailer: bool,
    /// Both see traffic, each of its own flows.
    pub spread: bool,
    /// The faults of this run.
    pub faults: Vec<Fault>,
    /// How strong they are, from 0 to 1.
    pub strength: f64,
    /// Actions of the workload in a second.
    pub rate: u64,
    /// How long faults and traffic last.
    pub safety: Duration,
    /// The primary dies in the end, if there is one.
    pub kills: bool,
    /// Committed flows get a fixed timeout, and messages carry none.
    pub no_timeouts: bool,
}

impl Plan {
    /// What a seed decides.
    pub fn new(seed: u64) -> Plan {
        let mut random = Random::new(seed, "plan");
        let mode = match random.below(10) {
            0..=5 => Mode::Ftfw,
            6..=7 => Mode::Notrack,
            _ => Mode::Alarm,
        };
        let programs = match random.below(10) {
            0..=5 => [Program::Ours; 2],
            6..=7 => [Program::Ours, Program::Original],
            _ => [Program::Original, Program::Ours],
        };
        let injects = programs.map(|p| p == Program::Ours && random.chance(0.25));
        let (programs, injects) = (programs.to_vec(), injects.to_vec());
        let trailer = random.chance(0.85);
        let spread = random.chance(0.3);
        let often = 0.1 + 0.4 * (random.below(100) as f64 / 100.0);
        let mut faults: Vec<Fault> = Fault::ALL.to_vec();
        faults.retain(|f| {
            !matches!(f, Fault::Blocked | Fault::Beside)
                && !LATER.iter().any(|(later, _)| later == f)
        });
        faults.retain(|_| random.chance(often));
        let is_mixed = programs.contains(&Program::Original);
        let restarts = faults.contains(&Fault::Crash) || faults.contains(&Fault::Reboot);
        if is_mixed && restarts {
            // A late message of a former epoch makes the original drop all that the new one
            // sends, until its numbers have caught up: two originals fare no better.
            faults.retain(|f| !matches!(f, Fault::Replay | Fault::Delay));
        }
        if spread {
            faults.retain(|f| *f != Fault::Failover);
        }
        let mut plan = Plan {
            seed,
            mode,
            programs,
            injects,
            expectations: false,
            trailer,
            spread,
            faults,
            strength: 0.2 + 0.8 * (random.below(100) as f64 / 100.0),
            rate: 20 + random.below(400),
            safety: Duration::from_secs(6 + random.below(10)),
            kills: false,
            no_timeouts: false,
        };
        for (fault, part) in LATER {
            let may = match fault {
                Fault::Failback => !spread,
                // ALARM has no control messages, and the original is not ours to mend.
                Fault::Forged => !is_mixed && mode != Mode::Alarm,
                _ => true,
            };
            if random.chance(*part) && may {
                plan.faults.push(*fault);
            }
        }
        if plan.has(Fault::Forged) {
            // A forged greeting begins the numbers anew: late copies are news again.
            plan.faults
                .retain(|f| !matches!(f, Fault::Replay | Fault::Delay));
        }
        plan.kills = random.chance(0.33);
        plan.no_timeouts = random.chance(0.15) && !is_mixed;
        plan.expectations = random.chance(0.4);
        // Version 1 acknowledges to one peer, gives a listener no order between two senders,
        // and a complete bulk update of a named epoch ends what it leaves out, also what
        // another sender has announced. ALARM sends all again and again.
        let has_one_sender = mode == Mode::Notrack && !trailer && !plan.has_manager();
        let may_have_spare = mode == Mode::Alarm || has_one_sender;
        if random.chance(0.5) && may_have_spare {
            plan.programs.push(Program::Ours);
            plan.injects.push(false);
        }
        if random.chance(BLOCKED) {
            plan.faults.push(Fault::Blocked);
        }
        if random.chance(BESIDE) && plan.has_manager() {
            plan.faults.push(Fault::Beside);
        }
        plan
    }

    /// Number of replicas.
    pub fn nodes(&self) -> usize {
        self.programs.len()
    }

    /// Who receives what whom sends.
    pub fn edges(&self) -> Edges {
        Edges::pair(self.nodes() - 2)
    }

    /// True without the original's program.
    pub fn is_ours(&self) -> bool {
        !self.programs.contains(&Program::Original)
    }

    /// How late a second copy of a datagram may come. A HELLO of a peer that names no epoch
    /// is taken for a restart if it is half a second late: they look the same.
    pub fn replay_max(&self) -> Duration {
        if self.trailer && self.is_ours() {
            Duration::from_secs(3)
        } else {
            Duration::from_millis(400)
        }
    }

    /// True if this run has the fault.
    pub fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    /// True if an HA manager acts: there is one primary, and the backup takes over.
    pub fn has_manager(&self) -> bool {
        self.has(Fault::Failover) || self.has(Fault::Failback)
    }

    /// True if both replicas send their epochs.
    pub fn has_trailers(&self) -> bool {
        self.trailer && self.is_ours() && self.mode != Mode::Alarm
    }

    /// True if what a replica has acknowledged of a live flow, it must keep.
    pub fn must_keep(&self) -> bool {
        self.mode == Mode::Ftfw && self.has_trailers()
    }

    /// True if the replicas must repair without a command what a restart has left wrong.
    pub fn must_restore(&self) -> bool {
        self.mode == Mode::Ftfw && self.has_trailers()
    }

    /// True if the run ends with the death of the primary.
    pub fn ends_with_death(&self) -> bool {
        self.kills && self.has_manager() && self.must_keep()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let programs = self.programs.iter().map(|p| match p {
            Program::Ours => "ftfw",
            Program::Original => "original",
        });
        write!(
            f,
            "{:?} {}{}{}{}{}{}{}{} rate={} safety={:?} strength={:.2}",
            self.mode,
            programs.collect::<Vec<_>>().join("/"),
            if self.injects[0] { " injects0" } else { "" },
            if self.injects[1] { " injects1" } else { "" },
            if self.expectations {
                " expectations"
            } else {
                ""
            },
            if self.trailer { "" } else { " no-trailer" },
            if self.spread { " spread" } else { "" },
            if self.no_timeouts { " no-timeouts" } else { "" },
            if self.ends_with_death() { " kills" } else { "" },
            self.rate,
            self.safety,
            self.strength
        )?;
        for fault in &self.faults {
            write!(f, " {fault}")?;
        }
        Ok(())
    }
}
