//! Connections that die in failovers under keepalived, with and without the gate.
//!
//! The firewalls have rules as most people have them: nothing is refused, and nothing is
//! dropped because it is INVALID. Both ends of all connections send. The backup's copies are
//! flushed after a second, so each failover is one into an empty table.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use super::{Figure, Plan, alternate};
use crate::daemon::{Daemon, Kind, Mode, Settings};
use crate::keepalived::{Calls, Keepalived, State, Way};
use crate::topology::{Lab, Options, SERVER};
use crate::traffic::push::{Pushes, Survey};
use crate::world::{self, World};

/// Both ends are in one process, which often may have 20 000 descriptors.
const CONNECTIONS: u32 = 9500;
/// Failovers of one measurement, there and back.
const FAILOVERS: usize = 4;
const EVERY: Duration = Duration::from_secs(1);
const PORT: u16 = 5007;
pub(super) const GATE: &str = "Gate {
IPv4_address 192.168.0.100
IPv4_address 192.168.1.100
}";

/// A way to fail over.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Contender {
    /// Debian's, with its script.
    Conntrackd,
    /// Ours, with `ftfw primary`.
    NoGate,
    /// The same with a gate.
    Gate,
    /// Ours with direct injection.
    Injected,
    /// The same with a gate.
    InjectedGate,
}

impl Contender {
    fn kind(self) -> Kind {
        match self {
            Contender::Conntrackd => Kind::Conntrackd,
            _ => Kind::Ftfw,
        }
    }

    fn injects(self) -> bool {
        matches!(self, Contender::Injected | Contender::InjectedGate)
    }

    fn gate(self) -> &'static str {
        match self {
            Contender::Gate | Contender::InjectedGate => GATE,
            _ => "",
        }
    }
}

/// Both ends send once a second; keepalived advertises every 0.1 s. Each measurement has
/// namespaces of its own: this is called outside of any.
pub fn gate(plan: &Plan) -> Result<()> {
    let count = plan.flows(CONNECTIONS);
    let contenders = [
        ("conntrackd", "conntrackd"),
        ("ftfw, no gate", "no-gate"),
        ("ftfw, gate", "gate"),
        ("ftfw injection", "injected"),
        ("ftfw injection, gate", "injected-gate"),
    ];
    let title = format!(
        "{count} connections whose ends send, {FAILOVERS} failovers under keepalived, \
         nothing refused by rules, tcp_loose 1"
    );
    let table = alternate(&title, plan, &contenders, &[], |name, _| {
        let words = format!("failovers {name} --connections {count}");
        let out = world::command(words.split(' ').map(Into::into))?.output()?;
        let text = String::from_utf8_lossy(&out.stdout);
        let error = || format!("{text}{}", String::from_utf8_lossy(&out.stderr));
        let value = |name: &str| -> Result<f64> {
            let word = text.split_whitespace().find_map(|w| w.strip_prefix(name));
            Ok(word.with_context(error)?.parse()?)
        };
        Ok(vec![
            Figure::new("alive", "connections", value("alive=")?),
            Figure::new("reset", "connections", value("reset=")?),
            Figure::new("lost otherwise", "connections", value("lost=")?),
        ])
    })?;
    plan.show(table)
}

/// Runs one of them; `count` connections.
///
/// # Errors
/// If copies are left at the backup: it would take over into a table that is not empty.
pub fn failovers(world: &World, contender: Contender, count: usize) -> Result<Survey> {
    let lab = Lab::build(Options::default())?;
    lab.open_rules()?;
    lab.drop_addresses(0)?;
    let mut settings = Settings::new(Mode::Ftfw);
    // The new primary's flows must be there before the flush: what nobody else holds, it spares.
    settings.mode_lines = "PurgeTimeout 3".to_owned();
    if contender.injects() {
        settings.mode_lines += "\nDisableExternalCache on";
    }
    settings.sync_lines = contender.gate().to_owned();
    let start = |n: usize| -> Result<Daemon> {
        let daemon = Daemon::start(contender.kind(), &lab.fw[n], n, &settings, world.dir())?;
        daemon.context("no daemon")
    };
    let daemons = [start(0)?, start(1)?];
    let way = Way {
        calls: match contender {
            Contender::Conntrackd => Calls::Script,
            _ => Calls::Roles,
        },
        advert: "0.1",
    };
    let keepalived =
        |n: usize, state| Keepalived::start_with(&lab, n, Some(&daemons[n]), state, way);
    let mut first = keepalived(0, State::Primary)?;
    let mut second = keepalived(1, State::Backup)?;
    let address = SocketAddr::new(SERVER.parse()?, PORT);
    let pushes = Pushes::start(&lab.a, &lab.b, address, count, EVERY)?;
    let filter = format!("-p tcp --orig-port-dst {PORT}");
    for n in 0..FAILOVERS {
        let from = n % 2;
        // Long enough for the copies to be flushed and for everything to be sent again.
        thread::sleep(Duration::from_secs(6));
        if !contender.injects() {
            let left = lab.count_flows(1 - from, &filter)?;
            ensure!(left <= count / 100, "{left} copies are left at the backup");
        }
        second.expect_change()?;
        first.lose(from == 0)?;
        let [mine, other] = match from {
            0 => [State::Backup, State::Primary],
            _ => [State::Primary, State::Backup],
        };
        first.wait(mine)?;
        second.wait(other)?;
    }
    // TCP repeats after up to some seconds.
    thread::sleep(Duration::from_secs(8));
    pushes.finish(Duration::from_secs(5))
}
