//! Goal: the service manager is told all that it can use. Method: a socket of ours in the place
//! of systemd's.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::daemon::{Daemon, Mode, Settings};
use lab::node::Process;
use lab::topology::{Lab, Options};
use lab::world::World;
use rustix::process::{Pid, Signal, kill_process};

use crate::Scenario;
use crate::pair::SOON;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("service/manager_is_told", |w| {
        told(w, Settings::new(Mode::Ftfw))
    }),
    ("service/manager_is_told_by_an_idle_daemon", |w| {
        told(
            w,
            Settings {
                instead_of_sync: Some(String::new()),
                ..Settings::new(Mode::Ftfw)
            },
        )
    }),
    ("service/nothing_is_told_with_systemd_off", not_told),
];

/// The lines that the daemon has sent, one message after the other.
struct Manager(UnixDatagram);

impl Manager {
    /// Starts a daemon on FW1 under it, which wants to be fed once a second.
    fn start(world: &World, lab: &Lab, settings: &Settings) -> Result<(Manager, Process)> {
        let path = world.dir().join("notify");
        let manager = Manager(UnixDatagram::bind(&path)?);
        manager
            .0
            .set_read_timeout(Some(Duration::from_millis(100)))?;
        let config = Daemon::configure(&lab.fw[0], 0, settings, world.dir())?;
        let mut command = lab.fw[0].command(&Daemon::program()?);
        command
            .arg("conntrackd")
            .arg("-C")
            .arg(config)
            .env("NOTIFY_SOCKET", path)
            .env("WATCHDOG_USEC", "1000000");
        Ok((manager, Process(command.spawn()?)))
    }

    /// The next message that contains `words`, with those before it passed over.
    fn wait(&self, words: &str) -> Result<String> {
        let begun = Instant::now();
        let mut passed = Vec::new();
        let mut buffer = [0; 1024];
        while begun.elapsed() < 2 * SOON {
            if let Ok(n) = self.0.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
                if text.contains(words) {
                    return Ok(text);
                }
                passed.push(text);
            }
        }
        bail!("the manager is never told `{words}`, but {passed:?}")
    }
}

fn told(world: &World, settings: Settings) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let is_idle = settings.instead_of_sync.is_some();
    let (manager, mut daemon) = Manager::start(world, &lab, &settings)?;
    let pid = daemon.0.id();
    let ready = manager.wait("READY=1")?;
    ensure!(ready.contains(&format!("MAINPID={pid}\n")), "{ready}");
    let status = manager.wait("STATUS=")?;
    let wanted = match is_idle {
        true => "STATUS=idle: ",
        false => {
            "STATUS=FTFW, no role yet; peer never heard; 0 flows here, 0 of the peer; link eth2"
        }
    };
    ensure!(status.starts_with(wanted), "{status}");
    for _ in 0..3 {
        manager.wait("WATCHDOG=1")?;
    }
    if !is_idle {
        let config = world.dir().join(lab.fw[0].name()).join("conf");
        let mut command = lab.fw[0].command(&Daemon::program()?);
        let done = command.arg("conntrackd").arg("-C").arg(config).arg("-c");
        ensure!(done.status()?.success());
        manager.wait("STATUS=FTFW, primary; ")?;
    }
    let pid = Pid::from_raw(pid.cast_signed()).context("a pid")?;
    kill_process(pid, Signal::HUP)?;
    let reloading = manager.wait("RELOADING=1")?;
    ensure!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.wait("READY=1")?;
    kill_process(pid, Signal::TERM)?;
    manager.wait("STOPPING=1")?;
    let status = daemon.0.wait()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

fn not_told(world: &World) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let settings = Settings {
        general_lines: "Systemd off".into(),
        ..Settings::new(Mode::Ftfw)
    };
    let (manager, _daemon) = Manager::start(world, &lab, &settings)?;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        let told = manager.0.recv(&mut [0; 1024]);
        ensure!(told.is_err(), "the manager is told something");
    }
    let control = world.dir().join(lab.fw[0].name()).join("control");
    ensure!(control.exists(), "the daemon runs");
    Ok(())
}
