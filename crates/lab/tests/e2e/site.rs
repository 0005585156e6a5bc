//! Two firewalls with Debian's keepalived and the original's script, and traffic through them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::daemon::{Daemon, Kind, Settings};
use lab::keepalived::{Keepalived, State};
use lab::topology::{Lab, Options, SERVER};
use lab::traffic::numbered::{self, Connections};
use lab::world::World;

use crate::pair::{PORT, SOON, address};

/// Two firewalls with keepalived, and a daemon unless there is to be none.
pub(crate) struct Site {
    pub(crate) lab: Lab,
    pub(crate) daemons: Vec<Daemon>,
    pub(crate) keepalived: [Keepalived; 2],
    settings: Settings,
}

impl Site {
    pub(crate) fn start(world: &World, kind: Kind, settings: &Settings) -> Result<Site> {
        let lab = Lab::build(Options::default())?;
        lab.drop_addresses(0)?;
        numbered::serve(&lab.b, address(SERVER, PORT))?;
        let mut daemons = Vec::new();
        for (n, fw) in lab.fw.iter().enumerate() {
            daemons.extend(Daemon::start(kind, fw, n, settings, world.dir())?);
        }
        let start = |n, state| Keepalived::start(&lab, n, daemons.get(n), state);
        // One wins while it is alone.
        let fw1 = start(0, State::Primary)?;
        let keepalived = [fw1, start(1, State::Backup)?];
        Ok(Site {
            lab,
            daemons,
            keepalived,
            settings: settings.clone(),
        })
    }

    /// FW1 gives the addresses up, or takes them back.
    pub(crate) fn fw1_loses(&mut self, loses: bool) -> Result<()> {
        self.keepalived[1].expect_change()?;
        self.keepalived[0].lose(loses)?;
        let states = [State::Primary, State::Backup];
        self.keepalived[0].wait(states[usize::from(loses)])?;
        self.keepalived[1].wait(states[usize::from(!loses)])
    }

    /// Opens connections, which work.
    pub(crate) fn connect(&self, count: usize) -> Result<Connections> {
        let server = address(SERVER, PORT);
        let mut connections = Connections::open(&self.lab.a, server, count)?;
        pass_messages(&mut connections, Duration::from_millis(500))?;
        Ok(connections)
    }

    /// Ends the daemon of firewall `n` with `-k` and starts another program with the same file,
    /// as `/usr/sbin/conntrackd` for the script, too.
    pub(crate) fn replace(&mut self, n: usize, world: &World, kind: Kind) -> Result<()> {
        self.daemons.remove(n).stop()?;
        let daemon = Daemon::start(kind, &self.lab.fw[n], n, &self.settings, world.dir())?;
        let daemon = daemon.context("a daemon")?;
        self.keepalived[n].use_program(&daemon)?;
        self.daemons.insert(n, daemon);
        Ok(())
    }
}

/// Sends numbered messages for some time; all must be answered.
pub(crate) fn pass_messages(connections: &mut Connections, during: Duration) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < during {
        let works = connections.round(2 * SOON);
        let count = connections.count();
        ensure!(works == count, "{works} of {count} connections work");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
