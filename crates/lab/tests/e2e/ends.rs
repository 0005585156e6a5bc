//! Two firewalls without traffic through them: flows are made in their kernels, and each daemon
//! must come to know those of the other firewall.

use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use flow::{Addrs, Flow, L4, Proto, Status, Tuple};
use lab::daemon::{Daemon, Kind, Settings};
use lab::topology::Lab;
use lab::world::World;
use lab::{kernel, wait};

/// How long a pair may take to agree: connections are made again once a second, and what was
/// lost is repeated after some seconds.
pub(crate) const SETTLED: Duration = Duration::from_secs(20);

/// Two firewalls, with a daemon on each.
pub(crate) struct Ends {
    pub(crate) lab: Lab,
    kinds: [Kind; 2],
    pub(crate) daemons: [Daemon; 2],
    settings: Settings,
    dir: PathBuf,
    /// Flows made on each, and how many of them have ended.
    made: [u16; 2],
    ended: [u16; 2],
}

impl Ends {
    pub(crate) fn start(
        world: &World,
        lab: Lab,
        kinds: [Kind; 2],
        settings: Settings,
    ) -> Result<Ends> {
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
            ended: [0; 2],
        })
    }

    /// Another program takes the place of the daemon of firewall `n`, which has been killed.
    pub(crate) fn begin_as(&mut self, n: usize, kind: Kind) -> Result<()> {
        self.kinds[n] = kind;
        self.begin(n)
    }

    pub(crate) fn restart(&mut self, n: usize) -> Result<()> {
        self.daemons[n].kill();
        self.begin(n)
    }

    /// Starts the daemon of firewall `n` anew, which has been killed.
    pub(crate) fn begin(&mut self, n: usize) -> Result<()> {
        let daemon = Daemon::start(self.kinds[n], &self.lab.fw[n], n, &self.settings, &self.dir)?;
        self.daemons[n] = daemon.context("no daemon")?;
        Ok(())
    }

    /// Makes `count` more flows in the kernel of firewall `n`.
    pub(crate) fn make(&mut self, n: usize, count: u16) -> Result<()> {
        let first = self.made[n];
        let flows: Vec<Flow> = (first..first + count).map(|port| flow(n, port)).collect();
        self.made[n] += count;
        kernel::create(&self.lab.fw[n], &flows)
    }

    /// Ends flows in the kernel of firewall `n`: those of these numbers, from 0 in the order in
    /// which they were made.
    pub(crate) fn end(&mut self, n: usize, which: Range<u16>) -> Result<()> {
        self.ended[n] += which.len() as u16;
        let flows: Vec<Flow> = which.map(|port| flow(n, port)).collect();
        kernel::each(&self.lab.fw[n], &flows, |request, flow| {
            request.delete(&flow.key(), None);
        })
    }

    /// Makes those flows again that firewall `n` has made, and that its kernel has lost.
    pub(crate) fn make_again(&self, n: usize) -> Result<()> {
        let flows: Vec<Flow> = (self.ended[n]..self.made[n])
            .map(|port| flow(n, port))
            .collect();
        kernel::create(&self.lab.fw[n], &flows)
    }

    /// Deletes the flows of the other firewall in the kernel of firewall `n`.
    pub(crate) fn delete_copies(&self, n: usize) -> Result<()> {
        let client = client(1 - n);
        let mut copies = kernel::dump(&self.lab.fw[n])?;
        copies.retain(|flow| flow.orig.addrs.src() == client);
        kernel::each(&self.lab.fw[n], &copies, |request, flow| {
            request.delete(&flow.key(), None);
        })
    }

    /// Flows of firewall `n` that have ended.
    pub(crate) fn ended(&self, n: usize) -> u16 {
        self.ended[n]
    }

    /// Flows of firewall `n` that live.
    pub(crate) fn live(&self, n: usize) -> usize {
        usize::from(self.made[n] - self.ended[n])
    }

    /// Waits until each holds what the other one has made.
    pub(crate) fn agree(&self) -> Result<()> {
        for n in 0..2 {
            self.holds(1 - n)?;
        }
        Ok(())
    }

    /// Waits until daemon `n` holds what the other firewall has made.
    pub(crate) fn holds(&self, n: usize) -> Result<()> {
        let wanted = self.live(1 - n);
        let mut last = 0;
        wait::until("the other's flows are known", SETTLED, || {
            last = self.known(n, 1 - n).unwrap_or(usize::MAX);
            last == wanted
        })
        .with_context(|| {
            let log = self.daemons.each_ref().map(Daemon::log);
            let shown = self.shown(n);
            format!("FW{} holds {last} of {wanted}\n{shown}\n{log:#?}", n + 1)
        })
    }

    /// Flows of firewall `of` that daemon `n` holds: in its external cache, or in its kernel
    /// if it has none.
    fn known(&self, n: usize, of: usize) -> Result<usize> {
        if self.settings.mode_lines.contains("DisableExternalCache on") {
            return self.in_kernel(n, of);
        }
        let lines = self.daemons[n].external(&format!("src=10.{}.0.1 ", of + 1))?;
        Ok(lines.len())
    }

    /// Flows of firewall `of` in the kernel of firewall `n`.
    pub(crate) fn in_kernel(&self, n: usize, of: usize) -> Result<usize> {
        let client = client(of);
        let table = kernel::dump(&self.lab.fw[n])?;
        Ok(table
            .iter()
            .filter(|f| f.orig.addrs.src() == client)
            .count())
    }

    pub(crate) fn shown(&self, n: usize) -> String {
        let ask = |which: &[&str]| self.daemons[n].ask(which).unwrap_or_default();
        let log = self.daemons[n].log();
        let changes: String = (log.lines().filter(|l| l.contains("dedicated link")))
            .map(|l| format!("{l}\n"))
            .collect();
        ask(&["-s"]) + &ask(&["-s", "link"]) + &changes
    }
}

/// The address from which the flows of firewall `n` come.
fn client(n: usize) -> IpAddr {
    IpAddr::from([10, n as u8 + 1, 0, 1])
}

/// One of the flows of firewall `n`.
pub(crate) fn flow(n: usize, port: u16) -> Flow {
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
