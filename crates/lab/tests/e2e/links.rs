//! Goal: every kind of link carries what changes, and what befalls a link costs a pause, not a
//! flow. Method: flows are made in the kernels of both firewalls; each daemon's external cache
//! must come to hold those of the other one.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use flow::{Addrs, Flow, L4, Proto, Status, Tuple};
use lab::daemon::{Daemon, Kind, Mode, Settings, Transport};
use lab::topology::{Lab, Options};
use lab::world::World;
use lab::{kernel, wait};

use crate::Scenario;

mod interfaces;
mod paths;
mod sources;
mod tcp;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("links/tcp", |w| {
        tcp::carries(w, [Kind::Ftfw; 2], Mode::Ftfw, Transport::Tcp)
    }),
    ("links/tcp_over_ipv6", |w| {
        tcp::carries(w, [Kind::Ftfw; 2], Mode::Notrack, Transport::Tcp6)
    }),
    ("links/tcp_with_conntrackd", |w| {
        let kinds = [Kind::Ftfw, Kind::Conntrackd];
        tcp::carries(w, kinds, Mode::Ftfw, Transport::Tcp)
    }),
    ("links/tcp_with_conntrackd_over_ipv6_notrack", |w| {
        let kinds = [Kind::Conntrackd, Kind::Ftfw];
        tcp::carries(w, kinds, Mode::Notrack, Transport::Tcp6)
    }),
    ("links/failover_when_a_link_goes_down", |w| {
        paths::down(w, [Kind::Ftfw; 2], paths::TWO_UDP)
    }),
    (
        "links/failover_when_a_link_goes_down_with_conntrackd",
        |w| paths::down(w, [Kind::Ftfw, Kind::Conntrackd], paths::TWO_UDP),
    ),
    ("links/failover_of_tcp", |w| {
        paths::down(w, [Kind::Ftfw, Kind::Conntrackd], paths::TWO_TCP)
    }),
    ("links/failover_of_a_silently_broken_path", |w| {
        paths::broken(w, [Kind::Ftfw; 2], 0, &["INPUT", "OUTPUT"], true)
    }),
    ("links/failover_of_a_path_broken_in_one_direction", |w| {
        paths::broken(w, [Kind::Ftfw; 2], 0, &["INPUT"], true)
    }),
    ("links/failover_of_a_path_that_our_own_rules_refuse", |w| {
        let kinds = [Kind::Ftfw, Kind::Conntrackd];
        paths::broken(w, kinds, 0, &["OUTPUT"], true)
    }),
    (
        "links/failover_of_a_path_on_which_conntrackd_hears_nothing",
        |w| paths::broken(w, [Kind::Ftfw, Kind::Conntrackd], 1, &["INPUT"], true),
    ),
    (
        "links/conntrackd_does_not_leave_a_silently_broken_path",
        |w| paths::broken(w, [Kind::Conntrackd; 2], 0, &["INPUT", "OUTPUT"], false),
    ),
    ("links/tcp_in_small_pieces", |w| {
        tcp::in_pieces(w, [Kind::Ftfw, Kind::Conntrackd])
    }),
    ("links/tcp_peer_that_reads_nothing", tcp::stopped_peer),
    ("links/tcp_garbage_and_strangers", tcp::garbage),
    ("links/a_stranger_is_not_obeyed", |w| {
        sources::stranger(w, Kind::Ftfw, 0)
    }),
    ("links/conntrackd_obeys_a_stranger", |w| {
        sources::stranger(w, Kind::Conntrackd, 20)
    }),
    (
        "links/conntrackd_with_two_addresses",
        sources::two_addresses,
    ),
    ("links/an_interface_comes_back", |w| {
        interfaces::comes_back(w, Transport::Udp)
    }),
    ("links/an_interface_comes_back_multicast_ipv6", |w| {
        interfaces::comes_back(w, Transport::Multicast6)
    }),
    ("links/an_interface_comes_back_tcp", |w| {
        interfaces::comes_back(w, Transport::Tcp6)
    }),
    ("links/an_address_comes_late", |w| {
        interfaces::late_address(w, Transport::Udp, "10.77.9.1/24")
    }),
    ("links/an_address_comes_late_tcp", |w| {
        interfaces::late_address(w, Transport::Tcp6, "fd77:9::1/64")
    }),
    ("links/link_local_addresses", interfaces::link_local),
    ("links/multicast_ipv6_with_conntrackd", |w| {
        interfaces::agrees(w, Transport::Multicast6)
    }),
];

/// How long a pair may take to agree: connections are made again once a second, and what was
/// lost is repeated after some seconds.
const SETTLED: Duration = Duration::from_secs(20);

/// Two firewalls, with a daemon on each.
struct Ends {
    lab: Lab,
    kinds: [Kind; 2],
    daemons: [Daemon; 2],
    settings: Settings,
    dir: std::path::PathBuf,
    /// Flows made on each.
    made: [u16; 2],
}

impl Ends {
    fn start(world: &World, lab: Lab, kinds: [Kind; 2], settings: Settings) -> Result<Ends> {
        let start = |n: usize| -> Result<Daemon> {
            let daemon = Daemon::start(kinds[n], &lab.fw[n], n, &settings, world.dir())?;
            daemon.context("no daemon")
        };
        let daemons = [start(0)?, start(1)?];
        let dir = world.dir().to_owned();
        Ok(Ends {
            lab,
            kinds,
            daemons,
            settings,
            dir,
            made: [0; 2],
        })
    }

    fn restart(&mut self, n: usize) -> Result<()> {
        self.daemons[n].kill();
        let daemon = Daemon::start(self.kinds[n], &self.lab.fw[n], n, &self.settings, &self.dir)?;
        self.daemons[n] = daemon.context("no daemon")?;
        Ok(())
    }

    /// Makes `count` more flows in the kernel of firewall `n`.
    fn make(&mut self, n: usize, count: u16) -> Result<()> {
        let first = self.made[n];
        let flows: Vec<Flow> = (first..first + count).map(|port| flow(n, port)).collect();
        self.made[n] += count;
        kernel::create(&self.lab.fw[n], &flows)
    }

    /// Waits until each holds what the other one has made.
    fn agree(&self) -> Result<()> {
        for n in 0..2 {
            self.holds(1 - n)?;
        }
        Ok(())
    }

    /// Waits until daemon `n` holds what the other firewall has made.
    fn holds(&self, n: usize) -> Result<()> {
        let wanted = usize::from(self.made[1 - n]);
        let pattern = format!("src=10.{}.0.1 ", 2 - n);
        let mut last = 0;
        wait::until("the other's flows are known", SETTLED, || {
            let lines = self.daemons[n].external(&pattern);
            last = lines.map_or(usize::MAX, |l| l.len());
            last == wanted
        })
        .with_context(|| {
            let log = self.daemons.each_ref().map(Daemon::log);
            let shown = self.shown(n);
            format!("FW{} holds {last} of {wanted}\n{shown}\n{log:#?}", n + 1)
        })
    }

    fn shown(&self, n: usize) -> String {
        let ask = |which: &[&str]| self.daemons[n].ask(which).unwrap_or_default();
        let log = self.daemons[n].log();
        let changes: String = (log.lines().filter(|l| l.contains("dedicated link")))
            .map(|l| format!("{l}\n"))
            .collect();
        ask(&["-s"]) + &ask(&["-s", "link"]) + &changes
    }
}

/// One of the flows of firewall `n`.
fn flow(n: usize, port: u16) -> Flow {
    let net = n as u8 + 1;
    let mut flow = Flow::new(Tuple {
        addrs: Addrs::V4 {
            src: [10, net, 0, 1].into(),
            dst: [10, net, 0, 2].into(),
        },
        proto: Proto::UDP,
        l4: L4::Ports {
            src: 1000 + port,
            dst: 9,
        },
    });
    flow.timeout = Some(600);
    flow.status = Status::CONFIRMED.with(Status::SEEN_REPLY);
    flow
}
