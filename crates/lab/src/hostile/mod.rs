//! Hostile neighbours: what somebody on the dedicated link, a local user, or a flood through the
//! firewall makes a daemon do. Version 1 has no authentication, so whoever can write to the link
//! can send in the peer's name: what that costs must be bounded by what is sent, and counted.
//!
//! A [`Case`] is one kind of neighbour. It is measured beside honest flows, which both firewalls
//! go on making, and beside `status`, which is asked all the time; [`Measured::broken`] says what
//! did not hold.

mod client;
mod datagrams;
mod flood;
mod forger;
mod garbage;
mod invented;
mod measured;
mod stage;
mod watch;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use crate::daemon::{Kind, Mode};
use crate::topology::{Lab, SERVER};
use crate::traffic::{datagrams as udp, numbered};
use crate::world::World;

use stage::Stage;

pub use datagrams::{
    BATCH_PAUSE, announcements, batches, first_number, flows_without_timeout, send,
};
pub use measured::{HEAD, Measured};

/// From the first forged datagram to the end of the measurement of a case with flows to repeat:
/// shorter than the 10 s in which forged datagrams may begin one bulk update.
const WINDOW: Duration = Duration::from_secs(9);
/// Port of the numbered server on B.
const PORT: u16 = 7;

/// In which form a case is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Some seconds, as a regression test.
    Short,
    /// As a real neighbour would.
    Long,
}

impl Extent {
    fn pick<T>(self, short: T, long: T) -> T {
        match self {
            Extent::Short => short,
            Extent::Long => long,
        }
    }
}

/// What becomes of FW2's daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    /// It runs.
    Lives,
    /// It is killed before FW1 has any flow, and FW2 answers nothing.
    Silent,
    /// It is killed before the attack, which starts it itself.
    Gone,
}

/// What a neighbour has sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Datagrams, packets, flows or requests.
    pub count: u64,
    /// All bytes, on a link with headers.
    pub bytes: u64,
    /// How much of it the daemon has obeyed, where it shall obey nothing.
    pub obeyed: Option<u64>,
}

/// One kind of neighbour, and what must hold besides what must always.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// What [`Sent::count`] counts.
    pub what: &'static str,
    /// The end-to-end test of its short form.
    pub test: &'static str,
    mode: Mode,
    mode_lines: &'static str,
    /// Flows that FW1 holds: what a bulk update sends.
    flows: usize,
    peer: Peer,
    /// From the first datagram to the end of the measurement, at the least.
    window: Duration,
    /// Bulk updates that it may cause.
    copies: u64,
    /// What must be counted, by its name in [`Measured::counted`].
    counts: Option<&'static str>,
    /// More flows are invented than the cache may hold.
    fills_cache: bool,
    /// Connections through FW1 that must live on.
    connections: usize,
    attack: fn(&Stage<'_>) -> Result<Sent>,
}

const CASE: Case = Case {
    name: "",
    what: "datagrams",
    test: "",
    mode: Mode::Ftfw,
    mode_lines: "",
    flows: 0,
    peer: Peer::Lives,
    window: Duration::ZERO,
    copies: 0,
    counts: None,
    fills_cache: false,
    connections: 0,
    attack: |_| Ok(Sent::default()),
};

/// All of them, those on the dedicated link first.
pub const CASES: &[Case] = &[
    Case {
        name: "RESYNC in the peer's name",
        test: "hostile/resync_begins_one_bulk_update",
        flows: 50_000,
        window: WINDOW,
        copies: 1,
        attack: forger::resync,
        ..CASE
    },
    Case {
        name: "HELLO in the name of a peer that is down",
        test: "hostile/hello_repeats_what_is_unacknowledged_once",
        flows: 50_000,
        window: WINDOW,
        peer: Peer::Silent,
        copies: 1,
        attack: forger::hello,
        ..CASE
    },
    Case {
        name: "another epoch each, NOTRACK",
        test: "hostile/new_epochs_begin_one_bulk_update",
        mode: Mode::Notrack,
        flows: 50_000,
        window: WINDOW,
        copies: 1,
        attack: forger::epochs,
        ..CASE
    },
    Case {
        name: "NACK of half of all numbers",
        test: "hostile/forged_control_messages",
        flows: 1000,
        copies: 1,
        attack: forger::nack,
        ..CASE
    },
    Case {
        name: "ACK of half of all numbers",
        test: "hostile/forged_control_messages",
        flows: 1000,
        copies: 1,
        attack: forger::ack,
        ..CASE
    },
    Case {
        name: "ALIVE without an epoch",
        test: "hostile/forged_control_messages",
        flows: 1000,
        copies: 1,
        attack: forger::alive,
        ..CASE
    },
    Case {
        name: "any control message with any numbers",
        test: "hostile/forged_control_messages",
        flows: 1000,
        copies: 1,
        attack: forger::anything,
        ..CASE
    },
    Case {
        name: "flows and RESYNC from another address",
        test: "hostile/a_stranger_on_the_link",
        flows: 1000,
        counts: Some("strangers"),
        attack: forger::stranger,
        ..CASE
    },
    Case {
        name: "a peer that is killed and started again",
        what: "starts",
        test: "restart/ten_times_under_traffic",
        flows: 1000,
        peer: Peer::Gone,
        copies: 8,
        attack: forger::restarts,
        ..CASE
    },
    Case {
        name: "bytes by chance",
        test: "hostile/garbage",
        flows: 1000,
        copies: 1,
        counts: Some("malformed"),
        attack: garbage::random,
        ..CASE
    },
    Case {
        name: "messages with bytes changed, cut, made longer",
        test: "hostile/garbage",
        flows: 1000,
        copies: 1,
        counts: Some("malformed"),
        attack: garbage::mutated,
        ..CASE
    },
    Case {
        name: "invented flows",
        what: "flows",
        test: "hostile/invented_flows_fill_the_cache_and_no_more",
        counts: Some("not kept"),
        fills_cache: true,
        attack: invented::flows,
        ..CASE
    },
    Case {
        name: "another user at the control socket",
        what: "connections",
        test: "hostile/another_user",
        attack: client::another_user,
        ..CASE
    },
    Case {
        name: "bytes by chance at the control socket",
        what: "requests",
        test: "hostile/local_users",
        attack: client::nonsense,
        ..CASE
    },
    Case {
        name: "readers that hang",
        what: "listings",
        test: "trouble/clients_that_do_not_read_lock_nobody_out",
        flows: 10_000,
        attack: client::hanging,
        ..CASE
    },
    Case {
        name: "idle clients, three descriptors left",
        what: "clients",
        test: "trouble/without_descriptors_it_idles_and_commands_have_a_place",
        attack: client::descriptors,
        ..CASE
    },
    Case {
        name: "listings, 1 MB of address space left: no thread",
        what: "listings",
        test: "trouble/a_refused_thread_is_answered",
        mode: Mode::Notrack,
        mode_lines: "DisableInternalCache on",
        attack: client::address_space,
        ..CASE
    },
    Case {
        name: "SYN with random tuples through FW1",
        what: "SYN",
        test: "hostile/a_flood_of_syn",
        connections: 50,
        attack: flood::syn,
        ..CASE
    },
];

impl Case {
    /// Runs it on a pair of such daemons, started anew, in [`lab()`]. `invented`: how many flows
    /// are invented, if any.
    ///
    /// # Errors
    /// If the pair cannot be brought to where the attack begins.
    pub fn measure(
        self,
        world: &World,
        lab: &Lab,
        kind: Kind,
        extent: Extent,
        invented: u32,
    ) -> Result<Measured> {
        let stage = Stage::set(self, world, lab, kind, extent, invented)?;
        let measured = stage.run();
        stage.clear()?;
        measured
    }
}

/// The laboratory of all cases: B answers on the port of the numbered server alone, and what a
/// firewall forwards is not logged.
pub fn lab() -> Result<Lab> {
    let lab = udp::lab()?;
    lab.b.run(&format!(
        "iptables -A INPUT -p tcp --dport {PORT} -j ACCEPT"
    ))?;
    numbered::serve(&lab.b, SocketAddr::new(SERVER.parse()?, PORT))?;
    Ok(lab)
}
