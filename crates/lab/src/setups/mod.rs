//! Set-ups of the original's design: each is a folder of `packaging/examples`, a chapter of
//! `docs/setups`, a demonstration and an end-to-end test. All of them use the same files.
//!
//! ```text
//!            in                             out
//!   A1 ------+                               +------ B
//!            +------ eth1  FW1  eth0 --------+
//!   A2 ------+             eth2              |
//!            |              | sync           |
//!            |             eth2              |
//!            +------ eth1  FW2  eth0 --------+
//! ```

pub mod asymmetric;
mod by_client;
mod by_hash;
mod cluster;
mod machine;
mod manager;
pub mod primary_backup;
mod third_node;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

pub use machine::Machine;

use manager::Manager;

use crate::node::Node;
use crate::topology::{SERVER, address, hub, wire};
use crate::traffic::numbered::{self, Connections};
use crate::wait;
use crate::world::World;

/// Connections of each half of the clients.
pub const CONNECTIONS: usize = 100;
/// Port of the numbered server on B.
const PORT: u16 = 7;
/// Longest change of a role, of injection, of a retransmission.
const SOON: Duration = Duration::from_secs(10);

/// Interfaces of a firewall, and the bridge to which each is wired.
const WIRES: [(&str, &str); 3] = [("eth1", "in"), ("eth0", "out"), ("eth2", "sync")];

/// A set-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Setup {
    /// One works, the other one waits with all flows in its kernel; IPv4 and IPv6
    PrimaryBackup,
    /// The same with the flows in the external cache, from where a takeover commits them
    PrimaryBackupCached,
    /// Two gateways, the clients divided over them by their configuration
    Static,
    /// Both firewalls receive every packet, and take their shares by a hash; nftables
    Hash,
    /// The same with the match `cluster` of iptables
    HashIptables,
    /// Requests go through one firewall, answers through the other one; FT-FW
    Asymmetric,
    /// The same with NOTRACK and without caches
    AsymmetricNotrack,
    /// A third firewall on the dedicated link, a spare that is started when one has failed
    ThirdNode,
    /// Pacemaker and Corosync move the addresses, and ftfw is a promotable clone
    Pacemaker,
    /// heartbeat 3 moves the addresses
    Heartbeat,
}

impl Setup {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Setup::PrimaryBackup => "primary-backup",
            Setup::PrimaryBackupCached => "primary-backup-cached",
            Setup::Static => "static",
            Setup::Hash => "hash",
            Setup::HashIptables => "hash-iptables",
            Setup::Asymmetric => "asymmetric",
            Setup::AsymmetricNotrack => "asymmetric-notrack",
            Setup::ThirdNode => "third-node",
            Setup::Pacemaker => "pacemaker",
            Setup::Heartbeat => "heartbeat",
        }
    }

    /// Its folders in `packaging/examples`; a later one's files take the place of those of an
    /// earlier one. The first one's name is that of the chapter.
    fn folders(self) -> &'static [&'static str] {
        match self {
            Setup::PrimaryBackup => &["primary-backup"],
            Setup::PrimaryBackupCached => &["primary-backup", "primary-backup/cached"],
            Setup::Static => &["static"],
            Setup::Hash => &["hash"],
            Setup::HashIptables => &["hash", "hash/iptables"],
            Setup::Asymmetric => &["asymmetric"],
            Setup::AsymmetricNotrack => &["asymmetric", "asymmetric/notrack"],
            Setup::ThirdNode => &["third-node"],
            Setup::Pacemaker => &["pacemaker"],
            Setup::Heartbeat => &["heartbeat"],
        }
    }

    fn manager(self) -> Manager {
        match self {
            Setup::Pacemaker => Manager::Pacemaker,
            Setup::Heartbeat => Manager::Heartbeat,
            _ => Manager::Keepalived,
        }
    }

    /// Runs it, with the daemon or as a control experiment without.
    ///
    /// # Errors
    /// If something does not come to its place at all.
    pub fn run(self, world: &World, with_daemon: bool) -> Result<Report> {
        match self {
            Setup::PrimaryBackup | Setup::PrimaryBackupCached => {
                primary_backup::run(self, with_daemon, &primary_backup::Part::ALL)
            }
            Setup::Static => by_client::run(world, with_daemon),
            Setup::Hash | Setup::HashIptables => by_hash::run(world, self, with_daemon),
            Setup::Asymmetric | Setup::AsymmetricNotrack => {
                asymmetric::run(world, self, with_daemon)
            }
            Setup::ThirdNode => third_node::run(world, with_daemon),
            Setup::Pacemaker | Setup::Heartbeat => cluster::run(world, self, with_daemon),
        }
    }
}

/// The files of set-ups.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/examples")
}

/// Firewalls with the files of a set-up, and the wires between the machines.
#[derive(Debug)]
pub struct Site {
    folders: Vec<PathBuf>,
    manager: Manager,
    with_daemon: bool,
    /// Lines of the shell that each firewall executes before its daemon is started.
    lines: String,
    /// Clients inside.
    pub clients: Vec<Node>,
    /// The server outside.
    pub server: Node,
    machines: Vec<Option<Machine>>,
}

impl Site {
    /// The wires, the clients with address and gateway, and the server, whose default route
    /// goes through `back`, if given. No firewall is there yet.
    pub fn build(
        setup: Setup,
        with_daemon: bool,
        clients: &[(&str, &str)],
        back: Option<&str>,
    ) -> Result<Site> {
        for bridge in ["in", "out", "sync"] {
            // Without snooping a group's frames reach every port, as with a plain switch.
            hub(&format!("link add {bridge} type bridge mcast_snooping 0"))?;
            hub(&format!("link set {bridge} up"))?;
        }
        let host = |name: &str, bridge: &str, at: &str, gateway: Option<&str>| -> Result<Node> {
            let node = Node::new(name)?;
            wire(&node, "eth0", bridge)?;
            address(&node, "eth0", &[at])?;
            if let Some(gateway) = gateway {
                node.run(&format!("ip route add default via {gateway}"))?;
            }
            Ok(node)
        };
        let mut inside = Vec::new();
        for (n, (at, gateway)) in (1..).zip(clients) {
            inside.push(host(&format!("a{n}"), "in", at, Some(gateway))?);
        }
        let server = host("b", "out", &format!("{SERVER}/24"), back)?;
        numbered::serve(&server, SocketAddr::new(SERVER.parse()?, PORT))?;
        Ok(Site {
            folders: setup.folders().iter().map(|f| folder().join(f)).collect(),
            manager: setup.manager(),
            with_daemon,
            lines: String::new(),
            clients: inside,
            server,
            machines: Vec::new(),
        })
    }

    /// Lines of the shell that each firewall executes in `/etc/conntrackd` before its daemon is
    /// started, whenever it is switched on from now on: what a run has beyond the chapter's files.
    pub(crate) fn set_lines(&mut self, lines: &str) {
        lines.clone_into(&mut self.lines);
    }

    /// Firewall `n` (0 is FW1) is switched on: its rules, its network, the daemon, the manager.
    pub fn power_on(&mut self, n: usize) -> Result<()> {
        let name = format!("fw{}", n + 1);
        let node = Node::new(&name)?;
        for (dev, bridge) in WIRES {
            wire(&node, dev, bridge)?;
            // The same after each start, as those of a real one: neighbours remember it.
            let port = &dev[dev.len() - 1..];
            node.run(&format!(
                "ip link set {dev} address 02:00:00:00:0{}:0{port}",
                n + 1
            ))?;
        }
        let own = self.folders.iter().map(|folder| folder.join(&name));
        let own = own.filter(|folder| folder.is_dir());
        let folders: Vec<_> = self.folders.iter().cloned().chain(own).collect();
        let machine = Machine::new(node, &folders, self.manager)?;
        machine.sh("set -e; cd /etc/conntrackd; nft -f rules.nft; \
             [ ! -f rules.v4 ] || iptables-restore rules.v4; ./network")?;
        machine.sh(&format!("set -e; cd /etc/conntrackd\n{}", self.lines))?;
        if self.with_daemon {
            machine.sh(self.manager.start_daemon())?;
        } else {
            machine.sh(self.manager.without_ftfw())?;
        }
        machine.sh(self.manager.start())?;
        if self.machines.len() <= n {
            self.machines.resize_with(n + 1, || None);
        }
        self.machines[n] = Some(machine);
        Ok(())
    }

    /// Firewall `n` loses its power: wires, programs and the kernel's table are gone at once.
    pub fn power_off(&mut self, n: usize) -> Result<()> {
        let mut machine = self.machines[n].take().context("it is off already")?;
        let name = machine.node().name().to_owned();
        for (_, bridge) in WIRES {
            hub(&format!("link del {name}-{bridge}"))?;
        }
        machine.kill();
        hub(&format!("netns del {name}"))
    }

    /// A firewall that is on.
    pub fn fw(&self, n: usize) -> Result<&Machine> {
        let machine = self.machines.get(n).and_then(Option::as_ref);
        machine.with_context(|| format!("FW{} is off", n + 1))
    }

    /// Waits for something; if it does not come, the error has the logs of all firewalls.
    pub fn wait(&self, what: &str, limit: Duration, condition: impl FnMut() -> bool) -> Result<()> {
        wait::until(what, limit, condition).with_context(|| {
            let machines = self.machines.iter().flatten();
            machines
                .map(|m| format!("{}:\n{}{}\n", m.node().name(), m.logs(), m.figures()))
                .collect::<String>()
        })
    }

    /// Waits until firewall `n` has an address.
    pub fn wait_address(&self, n: usize, address: &str) -> Result<()> {
        let machine = self.fw(n)?;
        let what = format!("FW{} has {address}", n + 1);
        self.wait(&what, SOON, || machine.holds(address))
    }

    /// Waits until firewall `n` has that many flows of the numbered server in its kernel.
    pub fn wait_flows(&self, n: usize, count: usize) -> Result<()> {
        let machine = self.fw(n)?;
        let mut has = 0;
        let what = format!("FW{} has {count} flows in its kernel", n + 1);
        self.wait(&what, SOON, || {
            has = flows(machine).unwrap_or(usize::MAX);
            has == count
        })
        .with_context(|| format!("it has {has}"))
    }

    /// Opens connections from a client, and sees that they work.
    pub fn connect(&self, client: usize) -> Result<Connections> {
        let server = SocketAddr::new(SERVER.parse()?, PORT);
        let mut all = Connections::open(&self.clients[client], server, CONNECTIONS)?;
        let works = all.round(SOON);
        ensure!(works == CONNECTIONS, "{works} of {CONNECTIONS} work");
        Ok(all)
    }
}

/// Flows of the numbered server in a kernel.
fn flows(machine: &Machine) -> Result<usize> {
    machine.flows(&format!("-p tcp --orig-port-dst {PORT}"))
}

/// A row of a report: what happened, and what became of each group of connections.
#[derive(Debug)]
pub struct Row {
    what: String,
    alive: Vec<usize>,
    /// Connections of each group.
    of: usize,
    /// How many of them are to live on.
    expected: usize,
    after: Duration,
}

/// What a run showed.
#[derive(Debug)]
pub struct Report {
    groups: Vec<&'static str>,
    /// What the time of a row is.
    time: &'static str,
    rows: Vec<Row>,
}

impl Report {
    /// An empty one, with the names of groups of connections.
    fn new(groups: &[&'static str]) -> Report {
        Report {
            groups: groups.to_vec(),
            time: "answered after",
            rows: Vec::new(),
        }
    }

    /// Passes a message on every connection of each group, for at most `limit`.
    fn look(
        &mut self,
        what: &str,
        since: Instant,
        limit: Duration,
        groups: &mut [Connections],
    ) -> Result<()> {
        let mut alive = vec![0; groups.len()];
        std::thread::scope(|scope| {
            for (group, alive) in groups.iter_mut().zip(&mut alive) {
                scope.spawn(|| *alive = group.round(limit));
            }
        });
        self.add(what, alive, since.elapsed());
        Ok(())
    }

    fn add(&mut self, what: &str, alive: Vec<usize>, after: Duration) {
        self.rows.push(Row {
            what: what.to_owned(),
            alive,
            of: CONNECTIONS,
            expected: CONNECTIONS,
            after,
        });
    }

    /// Connections that nobody could save: `of` in each group.
    fn add_lost(&mut self, what: &str, alive: Vec<usize>, of: usize, after: Duration) {
        self.rows.push(Row {
            what: what.to_owned(),
            alive,
            of,
            expected: 0,
            after,
        });
    }

    /// Connections that were alive, of each group, row by row.
    pub fn alive(&self) -> impl Iterator<Item = &[usize]> {
        self.rows.iter().map(|row| &row.alive[..])
    }

    /// Connections that were alive at the end, of each group.
    pub fn survived(&self) -> &[usize] {
        self.rows.last().map_or(&[], |row| &row.alive)
    }

    /// True if all connections were alive in every row that could be saved.
    pub fn all_lived(&self) -> bool {
        let all = |row: &Row| row.alive.iter().all(|n| *n == row.expected);
        self.rows.iter().all(all)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {:<46}", "what happened")?;
        for group in &self.groups {
            write!(f, " {group:>16}")?;
        }
        writeln!(f, "  {}", self.time)?;
        for row in &self.rows {
            write!(f, "  {:<46}", row.what)?;
            for alive in &row.alive {
                write!(f, " {:>16}", format!("{alive}/{}", row.of))?;
            }
            writeln!(f, " {:>12.1} s", row.after.as_secs_f64())?;
        }
        Ok(())
    }
}
