//! Faults on the real kernel, one by one: what is done to a pair under load, what must hold, and
//! the figures of a run.
//!
//! Each fault is a function that is called with a size: the short form is an end-to-end test,
//! the long form a row of a table. A rig (`rig`) is the same for all: real connections and a
//! load through FW1, a relay between the daemons, and in the end FW1's death.

mod course;
mod kills;
mod link;
mod load;
mod local;
mod rig;
mod roles;
mod table;

use std::time::Duration;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::daemon::Kind;
use crate::world::World;

pub use course::{all, one};
pub use table::describe;

/// A fault.
#[derive(Debug)]
pub struct Fault {
    /// Its name, on the command line and as a test.
    pub name: &'static str,
    /// What is done.
    pub done: &'static str,
    /// What must hold of two ftfw, beyond that nothing is lost: every flow lives on with its
    /// translation when FW1 dies, and before that both replicas become equal by themselves.
    pub holds: &'static str,
    /// Where the short form is proven, if not by the test with the fault's name.
    pub test: Option<&'static str>,
    /// What goes through it beside two ftfw in the long form.
    pub beside: &'static [Kind],
    run: fn(&Course<'_>) -> Result<Outcome>,
}

/// How a fault is struck.
#[derive(Clone, Copy, Debug)]
pub struct Course<'w> {
    /// Where it runs.
    pub world: &'w World,
    /// What runs on both firewalls.
    pub kind: Kind,
    /// The long form.
    pub is_long: bool,
}

impl Course<'_> {
    /// A size, by the form.
    fn pick<T>(&self, short: T, long: T) -> T {
        if self.is_long { long } else { short }
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Connections and entries of FW1's kernel in front of its death.
    pub flows: usize,
    /// Those that live on with their translation.
    pub alive: usize,
    /// Events that the load has made in FW1's kernel.
    pub events: u64,
    /// How often the fault was struck.
    pub struck: u64,
    /// Datagrams and others that a daemon should not have got.
    pub bad_inputs: u64,
    /// From the end of the load, or of the fault without one, until FW2 held what FW1's kernel had, and nothing else: the
    /// longest time of all.
    pub equal_after: Option<Duration>,
    /// Once it was not equal within the time that it may take.
    pub never_equal: bool,
    /// What the daemon counts, and what else is worth a word.
    pub notes: Vec<String>,
}

impl Outcome {
    /// # Errors
    /// If it is not what must hold.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.never_equal, "not equal: {self:?}");
        ensure!(self.flows > 0 && self.alive == self.flows, "{self:?}");
        Ok(())
    }
}

/// What is worth comparing with.
const CONNTRACKD: &[Kind] = &[Kind::Conntrackd];

/// All faults, in the order of the table.
pub const FAULTS: &[Fault] = &[
    Fault {
        name: "none",
        done: "no fault: FW1 dies under load, and nothing else",
        holds: "nothing lives without a daemon",
        test: Some("failover/ftfw_keeps_connections_in_ftfw"),
        beside: &[Kind::Conntrackd, Kind::None],
        run: kills::nothing,
    },
    Fault {
        name: "kills_in_bulk",
        done: "kill -9 of FW1's, FW2's, both daemons when a part of a bulk update has passed, and a start",
        holds: "each time",
        test: None,
        beside: CONNTRACKD,
        run: kills::in_bulk,
    },
    Fault {
        name: "kills_in_failover",
        done: "planned failovers there and back; kill -9 of either or both daemons behind each step of the script, a start, the script again",
        holds: "each time",
        test: None,
        beside: CONNTRACKD,
        run: kills::in_failover,
    },
    Fault {
        name: "restart_storm",
        done: "kill -9 of either or both every 500 ms, and a start, under load",
        holds: "",
        test: None,
        beside: CONNTRACKD,
        run: kills::storm,
    },
    Fault {
        name: "stopped_primary",
        done: "SIGSTOP of FW1's daemon under load",
        holds: "",
        test: None,
        beside: CONNTRACKD,
        run: |course| kills::stopped(course, 0),
    },
    Fault {
        name: "stopped_backup",
        done: "SIGSTOP of FW2's daemon under load",
        holds: "",
        test: None,
        beside: CONNTRACKD,
        run: |course| kills::stopped(course, 1),
    },
    Fault {
        name: "cut",
        done: "the dedicated link passes nothing, under load",
        holds: "",
        test: None,
        beside: CONNTRACKD,
        run: |course| link::cut(course, [true, true]),
    },
    Fault {
        name: "cut_from_primary",
        done: "the dedicated link passes nothing from FW1, under load",
        holds: "",
        test: None,
        beside: CONNTRACKD,
        run: |course| link::cut(course, [true, false]),
    },
    Fault {
        name: "cut_from_backup",
        done: "the dedicated link passes nothing from FW2, under load",
        holds: "",
        test: None,
        beside: CONNTRACKD,
        run: |course| link::cut(course, [false, true]),
    },
    Fault {
        name: "loss",
        done: "a fifth of the datagrams is lost, both ways, under load",
        holds: "while it goes on",
        test: Some("loss/ftfw_20_percent_two_ftfw"),
        beside: CONNTRACKD,
        run: link::loss,
    },
    Fault {
        name: "reordering",
        done: "half of the datagrams are late by up to 50 ms, both ways, under load",
        holds: "while it goes on",
        test: None,
        beside: CONNTRACKD,
        run: link::reordering,
    },
    Fault {
        name: "duplication",
        done: "half of the datagrams come twice, both ways, under load",
        holds: "while it goes on",
        test: None,
        beside: CONNTRACKD,
        run: link::duplication,
    },
    Fault {
        name: "corruption",
        done: "a byte of every tenth datagram is another one behind a right checksum, both ways, under load; then FW2 asks for everything (`-n`)",
        holds: "nobody crashes, and what is sent again mends all",
        test: None,
        beside: CONNTRACKD,
        run: link::corruption,
    },
    Fault {
        name: "replay",
        done: "what FW1 sent under load comes again: in its epoch, after its daemon has started again, and after FW2's has",
        holds: "what has ended and comes back is gone again",
        test: None,
        beside: CONNTRACKD,
        run: link::replay,
    },
    Fault {
        name: "overrun",
        done: "an event buffer of 64 KiB, and a daemon that gets no processor for a second at a time, under load",
        holds: "the loss is counted and repaired",
        test: Some("kernel/an_overrun_is_repaired_also_in_a_zone"),
        beside: CONNTRACKD,
        run: local::overrun,
    },
    Fault {
        name: "full_table",
        done: "the table of FW2's kernel, into which FW2 injects, is full; when there is room, FW2 asks for everything (`-n`)",
        holds: "what it could not make is made then",
        test: None,
        beside: CONNTRACKD,
        run: local::full_table,
    },
    Fault {
        name: "memory",
        done: "the daemon of FW1 may not take more memory than it has, and then a start without the limit",
        holds: "it ends, and that costs no flow",
        test: None,
        beside: CONNTRACKD,
        run: local::memory,
    },
    Fault {
        name: "full_disk",
        done: "the disk of FW1's log is full, while FW2's daemon comes and goes under load",
        holds: "commands are answered, and the log goes on when there is room",
        test: None,
        beside: CONNTRACKD,
        run: local::full_disk,
    },
    Fault {
        name: "descriptors",
        done: "FW2's daemon has no descriptor left, FW1 dies",
        holds: "the takeover's commands have a place",
        test: Some("trouble/without_descriptors_it_idles_and_commands_have_a_place"),
        // A client that is silent stops conntrackd.
        beside: &[],
        run: local::descriptors,
    },
    Fault {
        name: "clock",
        done: "FW1's daemon starts again with a clock a day fast, then a day slow: the relay shifts its sequence numbers as such a clock does",
        holds: "",
        test: None,
        beside: CONNTRACKD,
        run: local::clock,
    },
    Fault {
        name: "helper",
        done: "flows of FW1 have a helper that FW2's kernel lacks",
        holds: "they live without it, and FW2 counts that",
        test: None,
        beside: CONNTRACKD,
        run: local::helper,
    },
    Fault {
        name: "two_primaries",
        done: "both firewalls are told that they are primary, at once, under load",
        holds: "",
        test: None,
        beside: CONNTRACKD,
        run: |course| roles::two(course, true),
    },
    Fault {
        name: "two_backups",
        done: "both firewalls are told that they are backup, at once, under load",
        holds: "",
        test: None,
        beside: CONNTRACKD,
        run: |course| roles::two(course, false),
    },
    Fault {
        name: "flapping",
        done: "the firewalls change places every 300 ms while both ends of all connections send",
        holds: "",
        test: None,
        beside: CONNTRACKD,
        run: roles::flapping,
    },
];

/// The fault of a name.
pub fn find(name: &str) -> Option<&'static Fault> {
    FAULTS.iter().find(|fault| fault.name == name)
}

impl Fault {
    /// Strikes it once.
    ///
    /// # Errors
    /// If it could not be struck, or what was there before was not as it should be.
    pub fn strike(&self, course: &Course<'_>) -> Result<Outcome> {
        (self.run)(course)
    }
}
