//! Goal: the service manager is told all that it can use. Method: a socket of ours in the place
//! of systemd's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::daemon::{Daemon, Mode, Settings};
use lab::node::Process;
use lab::topology::{Lab, Options};
use lab::world::World;
use lab::{kernel, wait};
use rustix::process::{Pid, Signal, kill_process};

use crate::Scenario;
use crate::pair::SOON;
use crate::{ends, metrics};

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
    ("service/system_calls_are_those_of_the_unit", system_calls),
    ("service/the_sandbox_keeps_what_is_needed", |w| {
        sandbox(w, true)
    }),
    ("service/the_sandbox_is_off_by_name", |w| sandbox(w, false)),
];

/// The unit of the package, and what the package adds to the one of Debian's conntrackd.
const UNITS: [&str; 2] = [
    include_str!("../../../../debian/ftfw.service"),
    include_str!("../../../../packaging/hardening.conf"),
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

/// Goal: after its start the daemon, in each of its threads, has what it needs and no more, unless
/// that is switched off; and says so. Method: what the kernel tells of its threads. Another
/// folder takes the place of the log's: a log there is opened without Landlock alone.
fn sandbox(world: &World, is_on: bool) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let [logs, elsewhere] = ["logs", "elsewhere"].map(|name| world.dir().join(name));
    fs::create_dir(&logs)?;
    fs::create_dir(&elsewhere)?;
    let off = "Sandbox {\nCapabilities off\nFiles off\nSystemCalls off\n}";
    let settings = Settings {
        general_lines: format!(
            "LogFile {}/log\n{}",
            logs.display(),
            if is_on { "" } else { off }
        ),
        sync_lines: "Gate {\nIPv4_address 192.168.0.100\n}".into(),
        ..Settings::new(Mode::Ftfw)
    };
    let (manager, daemon) = Manager::start(world, &lab, &settings)?;
    manager.wait("READY=1")?;
    let pid = daemon.0.id();
    let before = thread_status("self")?;
    let wanted = |key: &str| -> String {
        let with = match key {
            "CapInh" | "CapAmb" => "0000000000000000",
            "NoNewPrivs" => "1",
            "Seccomp" => "2",
            // CAP_NET_ADMIN.
            _ => "0000000000001000",
        };
        match is_on {
            true => with.to_owned(),
            false => before.get(key).cloned().unwrap_or_default(),
        }
    };
    let mut threads = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.file_name();
        let status = thread_status(&format!("{pid}/task/{}", thread.display()))?;
        for key in [
            "CapInh",
            "CapPrm",
            "CapEff",
            "CapBnd",
            "CapAmb",
            "NoNewPrivs",
            "Seccomp",
        ] {
            let found = status.get(key).context(key)?;
            ensure!(*found == wanted(key), "{key} of a thread: {found}");
        }
        threads += 1;
    }
    ensure!(threads >= 3, "{threads} threads");
    let log = fs::read_to_string(logs.join("log"))?;
    let lines = match is_on {
        true => [
            "sandbox: CAP_NET_ADMIN alone",
            "sandbox: files are written in ",
            " system calls, any other is refused",
        ],
        false => [
            "sandbox: `Capabilities off`, as configured",
            "sandbox: `Files off`, as configured",
            "sandbox: `SystemCalls off`, as configured",
        ],
    };
    for line in lines {
        ensure!(log.contains(line), "no `{line}` in {log}");
    }
    // The gate is loaded again by the process that runs nft.
    lab.fw[0].run("nft delete table inet ftfw_gate")?;
    let config = world.dir().join(lab.fw[0].name()).join("conf");
    let mut backup = lab.fw[0].command(&Daemon::program()?);
    let done = backup.arg("-C").arg(config).arg("backup");
    ensure!(done.output()?.status.success());
    lab.fw[0].run("nft list table inet ftfw_gate")?;
    fs::rename(&logs, world.dir().join("logs.old"))?;
    std::os::unix::fs::symlink(&elsewhere, &logs)?;
    let pid = Pid::from_raw(pid.cast_signed()).context("a pid")?;
    kill_process(pid, Signal::HUP)?;
    manager.wait("RELOADING=1")?;
    manager.wait("READY=1")?;
    ensure!(elsewhere.join("log").exists() != is_on);
    kill_process(pid, Signal::TERM)?;
    manager.wait("STOPPING=1")?;
    let mut daemon = daemon;
    ensure!(daemon.0.wait()?.success());
    let gone = lab.fw[0].run("nft list table inet ftfw_gate");
    ensure!(gone.is_err(), "the table of the gate is left behind");
    let log = fs::read_to_string(world.dir().join("logs.old/log"))?;
    let refused = "cannot be opened again: Permission denied";
    ensure!(log.contains(refused) == is_on, "{log}");
    ensure!(!log.contains("was refused"), "{log}");
    Ok(())
}

/// The lines of a thread's `status` in /proc.
fn thread_status(of: &str) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(format!("/proc/{of}/status"))?;
    let pair = |line: &str| {
        let (key, value) = line.split_once(':')?;
        Some((key.to_owned(), value.trim().to_owned()))
    };
    Ok(text.lines().filter_map(pair).collect())
}

/// Goal: the unit's `SystemCallFilter` refuses nothing that the daemon needs. Method: strace lists
/// what the daemon calls from its start to its end; systemd says what its groups hold.
fn system_calls(world: &World) -> Result<()> {
    let [allowed, of_debian] = [allowed_by(UNITS[0])?, allowed_by(UNITS[1])?];
    ensure!(allowed == of_debian, "the two units differ");
    ensure!(!allowed.contains("mount") && allowed.contains("sendto"));
    let lab = Lab::build(Options::default())?;
    let settings = Settings {
        general_lines: format!(
            "Scheduler {{\nType RR\nPriority 1\n}}\nMetrics {{\nIPv4_address 127.0.0.1\nPort 9411\n\
             File {}\nInterval 1\n}}",
            world.dir().join("ftfw.prom").display()
        ),
        ..Settings::new(Mode::Ftfw)
    };
    let config = Daemon::configure(&lab.fw[0], 0, &settings, world.dir())?;
    let program = Daemon::program()?;
    let trace = world.dir().join("trace");
    let mut command = lab.fw[0].command("strace");
    command.args(["-f", "-qq", "-o"]).arg(&trace).arg(&program);
    let mut traced = Process(command.arg("conntrackd").arg("-C").arg(&config).spawn()?);
    let ask = |action: &[&str]| -> Result<bool> {
        let mut client = lab.fw[0].command(&program);
        let output = client.arg("conntrackd").arg("-C").arg(&config).args(action);
        Ok(output.output()?.status.success())
    };
    wait::until("the daemon answers", 2 * SOON, || {
        ask(&["-s"]).is_ok_and(|ok| ok)
    })?;
    let flows: Vec<_> = (1..=100).map(|port| ends::flow(0, port)).collect();
    kernel::create(&lab.fw[0], &flows)?;
    for action in [
        &["-c"] as &[&str],
        &["-i"],
        &["-B"],
        &["-n"],
        &["-R"],
        &["-t"],
        &["-f"],
        &["-s", "network"],
    ] {
        ensure!(ask(action)?, "{action:?}");
    }
    let (status, _) = metrics::get(&lab.fw[0], "/metrics", "")?;
    ensure!(status == 200, "{status}");
    wait::until("the file of metrics is written", SOON, || {
        world.dir().join("ftfw.prom").exists()
    })?;
    // The first line of a trace begins with the number of the process.
    let text = || std::fs::read_to_string(&trace).unwrap_or_default();
    let first = text();
    let pid = first.split_whitespace().next().context("a trace")?;
    let pid = Pid::from_raw(pid.parse()?).context("a pid")?;
    kill_process(pid, Signal::HUP)?;
    std::thread::sleep(Duration::from_secs(1));
    kill_process(pid, Signal::TERM)?;
    ensure!(traced.0.wait()?.success());
    let name = |line: &str| -> Option<String> {
        let (name, _) = line.split_once(' ')?.1.trim_start().split_once('(')?;
        (name.chars().all(|c| c.is_alphanumeric() || c == '_')).then(|| name.to_owned())
    };
    let called: BTreeSet<String> = text().lines().filter_map(name).collect();
    for needed in ["sched_setscheduler", "sendto", "epoll_pwait", "rename"] {
        ensure!(called.contains(needed), "no {needed} in {called:?}");
    }
    let refused: Vec<_> = called.difference(&allowed).collect();
    ensure!(refused.is_empty(), "the unit refuses {refused:?}");
    Ok(())
}

/// What the `SystemCallFilter` lines of a unit allow, in their order.
fn allowed_by(unit: &str) -> Result<BTreeSet<String>> {
    let mut allowed = BTreeSet::new();
    for line in unit
        .lines()
        .filter_map(|l| l.strip_prefix("SystemCallFilter="))
    {
        let (denies, names) = match line.strip_prefix('~') {
            Some(names) => (true, names),
            None => (false, line),
        };
        for name in names.split_whitespace() {
            for call in calls_of(name)? {
                match denies {
                    true => allowed.remove(&call),
                    false => allowed.insert(call),
                };
            }
        }
    }
    Ok(allowed)
}

/// A system call, or all of a group of systemd's, with those of the groups in it.
fn calls_of(name: &str) -> Result<Vec<String>> {
    if !name.starts_with('@') {
        return Ok(vec![name.to_owned()]);
    }
    let mut command = std::process::Command::new("systemd-analyze");
    let output = command
        .args(["syscall-filter", "--no-pager", name])
        .output()?;
    ensure!(output.status.success(), "systemd-analyze knows no {name}");
    let text = String::from_utf8(output.stdout)?;
    let mut calls = Vec::new();
    for line in text.lines().skip(1).map(str::trim) {
        if !line.is_empty() && !line.starts_with('#') {
            calls.extend(calls_of(line)?);
        }
    }
    Ok(calls)
}
