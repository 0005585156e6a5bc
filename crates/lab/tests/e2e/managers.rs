//! HA managers' own scripts, unmodified, and their files and calls: Pacemaker's agent, how OpenStack
//! Neutron finds and stops its daemon, VyOS, CloudStack. keepalived is in `failback`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::daemon::{Daemon, Kind, Mode, Settings};
use lab::node::{Node, Process};
use lab::setups;
use lab::topology::{Lab, Options, SERVER};
use lab::traffic::numbered::{self, Connections};
use lab::wait;
use lab::world::World;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

use crate::Scenario;
use crate::documents;
use crate::pair::{PORT, SOON, address};

const COUNT: usize = 50;
/// Where Debian's package `resource-agents` puts the agent.
const AGENT: &str = "/usr/lib/ocf/resource.d/heartbeat/conntrackd";
/// Statuses of the OCF resource agent API.
const SUCCESS: i32 = 0;
const ERR_GENERIC: i32 = 1;
const ERR_INSTALLED: i32 = 5;
const ERR_CONFIGURED: i32 = 6;
const NOT_RUNNING: i32 = 7;
const RUNNING_PROMOTED: i32 = 8;
/// Of timeout(1): it had to end the command.
const TIMED_OUT: i32 = 124;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("managers/pacemakers_agent_fails_over", fails_over),
    ("managers/pacemakers_agent_ends_after_kill_9", |w| {
        let (monitored, stopped) = killed(w, Kind::Ftfw)?;
        ensure!(monitored == ERR_GENERIC, "monitor: {monitored}");
        ensure!(stopped == SUCCESS, "stop: {stopped}");
        Ok(())
    }),
    ("managers/pacemakers_agent_with_conntrackd_does_not", |w| {
        let (_, stopped) = killed(w, Kind::Conntrackd)?;
        ensure!(stopped == TIMED_OUT, "stop: {stopped}");
        Ok(())
    }),
    ("managers/our_agent_reports_true_roles", our_agent),
    ("managers/keepalived_takes_our_examples", examples),
    ("managers/neutron_finds_and_stops_it", neutron),
    ("managers/vyos_calls_are_answered_as_by_conntrackd", vyos),
    ("managers/cloudstack_file_starts_with_a_warning", |w| {
        let (starts, said) = cloudstack(w, Kind::Ftfw)?;
        ensure!(starts, "it does not start: {said}");
        ensure!(said.contains("`Stats` belongs outside General"), "{said}");
        Ok(())
    }),
    ("managers/cloudstack_file_is_refused_by_conntrackd", |w| {
        let (starts, said) = cloudstack(w, Kind::Conntrackd)?;
        ensure!(!starts && said.contains("syntax error"), "{said}");
        Ok(())
    }),
];

/// A firewall under Pacemaker's agent. What the agent asks of a cluster is answered by a stub
/// that notes the score.
struct Managed {
    node: Node,
    dir: PathBuf,
    config: PathBuf,
    program: PathBuf,
    agent: PathBuf,
}

impl Managed {
    /// Under our own agent.
    fn ours(world: &World, lab: &Lab, n: usize) -> Result<Managed> {
        let mut managed = Managed::new(world, lab, n, Kind::Ftfw)?;
        managed.program = managed.dir.join("ftfw");
        symlink(Daemon::program()?, &managed.program)?;
        managed.agent = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/ocf/ftfw");
        Ok(managed)
    }

    fn new(world: &World, lab: &Lab, n: usize, kind: Kind) -> Result<Managed> {
        let node = lab.fw[n].clone();
        let settings = Settings::new(Mode::Ftfw);
        let config = Daemon::configure(&node, n, &settings, world.dir())?;
        let dir = config.parent().context("a folder")?.to_owned();
        let program = dir.join("conntrackd");
        match kind {
            Kind::Ftfw => symlink(Daemon::program()?, &program)?,
            _ => symlink("/usr/sbin/conntrackd", &program)?,
        }
        fs::create_dir(dir.join("sbin"))?;
        for stub in ["sbin/crm_master", "sbin/crm_attribute"] {
            let stub = dir.join(stub);
            let text = format!("#!/bin/sh\necho \"$@\" >> {}/scores\n", dir.display());
            fs::write(&stub, text)?;
            lab.fw[n].run(&format!("chmod 755 {}", stub.display()))?;
        }
        Ok(Managed {
            node,
            dir,
            config,
            program,
            agent: AGENT.into(),
        })
    }

    /// Runs an action of the agent, for at most 15 s; yields its status.
    fn act(&self, action: &str) -> Result<i32> {
        self.act_with(action, &[])
    }

    fn act_with(&self, action: &str, variables: &[(&str, &str)]) -> Result<i32> {
        let mut c = self.node.command("timeout");
        c.arg("15")
            .arg(&self.agent)
            .arg(action)
            .env("OCF_ROOT", "/usr/lib/ocf")
            .env("OCF_RESOURCE_INSTANCE", "conntrackd:0")
            .env("OCF_RESOURCE_TYPE", "conntrackd")
            .env("OCF_RESKEY_binary", &self.program)
            .env("OCF_RESKEY_config", &self.config)
            .env("OCF_RESKEY_CRM_meta_master_node_max", "1")
            .env("OCF_RESKEY_CRM_meta_master_max", "1")
            .env("OCF_RESKEY_CRM_meta_clone_node_max", "1")
            .env("OCF_RESKEY_CRM_meta_interval", "0")
            .env("HA_SBIN_DIR", self.dir.join("sbin"))
            .env("HA_RSCTMP", &self.dir)
            .env("HA_LOGFILE", self.dir.join("agent.log"))
            .envs(variables.iter().copied());
        let out = c.output()?;
        out.status
            .code()
            .with_context(|| format!("{action}: {out:?}"))
    }

    fn must(&self, action: &str, wanted: i32) -> Result<()> {
        let status = self.act(action)?;
        ensure!(
            status == wanted,
            "{action}: {status}, wanted {wanted}\n{}",
            self.log()
        );
        Ok(())
    }

    fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        format!("{}{}", read("log"), read("agent.log"))
    }

    fn ask(&self, arguments: &[&str]) -> Result<Output> {
        let mut c = self.node.command(&self.program);
        Ok(c.arg("-C").arg(&self.config).args(arguments).output()?)
    }

    /// What our command line prints; its status may be that of an unsafe pair.
    fn own(&self, words: &[&str]) -> Result<String> {
        let out = self.ask(words)?;
        ensure!(
            matches!(out.status.code(), Some(0 | 4)),
            "{words:?}: {out:?}"
        );
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Ends the daemon with SIGKILL.
    fn kill(&self) -> Result<()> {
        let daemon = find(|words| words.iter().any(|w| Path::new(w) == self.config));
        let pid = daemon.context("no daemon runs")?;
        kill_process(pid, Signal::KILL)?;
        wait::until("the daemon is gone", SOON, || {
            !Path::new(&format!("/proc/{}/cmdline", pid.as_raw_nonzero())).exists()
                || fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()))
                    .is_ok_and(|c| c.is_empty())
        })
    }
}

/// The process in whose command line `holds`.
fn find(holds: impl Fn(&[String]) -> bool) -> Option<Pid> {
    let entries = fs::read_dir("/proc").ok()?.flatten();
    entries.into_iter().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let bytes = fs::read(entry.path().join("cmdline")).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let words: Vec<String> = text.split_terminator('\0').map(str::to_owned).collect();
        let is_own = pid == std::process::id().cast_signed();
        (!is_own && holds(&words))
            .then(|| Pid::from_raw(pid))
            .flatten()
    })
}

/// Goal: start, monitor, promote, notify, demote and stop have the agent's statuses, and
/// connections survive the failover that it makes.
fn fails_over(world: &World) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let [fw1, fw2] = [0, 1].map(|n| Managed::new(world, &lab, n, Kind::Ftfw));
    let (fw1, fw2) = (fw1?, fw2?);
    let out = Command::new(AGENT)
        .arg("meta-data")
        .env("OCF_ROOT", "/usr/lib/ocf")
        .output()?;
    ensure!(out.status.success(), "{out:?}");
    fw1.must("validate-all", SUCCESS)?;
    let status = fw1.act_with("validate-all", &[("OCF_RESKEY_CRM_meta_master_max", "2")])?;
    ensure!(status == ERR_CONFIGURED, "{status}");
    let status = fw1.act_with("validate-all", &[("OCF_RESKEY_config", "/nowhere")])?;
    ensure!(status == ERR_INSTALLED, "{status}");
    for fw in [&fw1, &fw2] {
        fw.must("monitor", NOT_RUNNING)?;
        fw.must("start", SUCCESS)?;
        fw.must("monitor", SUCCESS)?;
    }
    fw1.must("promote", SUCCESS)?;
    fw1.must("monitor", RUNNING_PROMOTED)?;
    let scores = fs::read_to_string(fw1.dir.join("scores"))?;
    ensure!(
        scores.lines().last() == Some("-Q -l reboot -v 1000"),
        "{scores}"
    );

    numbered::serve(&lab.b, address(SERVER, PORT))?;
    let mut open = Connections::open(&lab.a, address(SERVER, PORT), COUNT)?;
    ensure!(open.round(SOON) == COUNT);
    let held = || {
        let text = fw2
            .ask(&["-e"])
            .map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
        text.is_ok_and(|t| t.matches(&format!("dport={PORT} ")).count() == COUNT)
    };
    wait::until("FW2 holds the connections", SOON, held)?;
    // FW1 reports that FW2 has just started: it sends a bulk update.
    let host = lab.fw[0].run("hostname")?;
    let bulks = fw1.log().matches("sending bulk update").count();
    let status = fw1.act_with(
        "notify",
        &[
            ("OCF_RESKEY_CRM_meta_notify_master_uname", host.trim()),
            ("OCF_RESKEY_CRM_meta_notify_type", "post"),
            ("OCF_RESKEY_CRM_meta_notify_operation", "start"),
            ("OCF_RESKEY_CRM_meta_notify_start_uname", "another"),
        ],
    )?;
    ensure!(status == SUCCESS, "notify: {status}");
    wait::until("a bulk update is sent", SOON, || {
        fw1.log().matches("sending bulk update").count() > bulks
    })?;

    lab.cut(0)?;
    fw1.kill()?;
    lab.take_addresses(1)?;
    fw2.must("promote", SUCCESS)?;
    fw2.must("monitor", RUNNING_PROMOTED)?;
    let alive = open.round(Duration::from_secs(10));
    ensure!(alive == COUNT, "{alive} of {COUNT} connections live on");
    fw2.must("demote", SUCCESS)?;
    fw2.must("monitor", SUCCESS)?;
    fw2.must("stop", SUCCESS)?;
    fw2.must("monitor", NOT_RUNNING)?;
    // Stopping what does not run is no failure.
    fw2.must("stop", SUCCESS)
}

/// Goal: our agent starts, promotes, demotes and stops, and its monitor reports the role that
/// the daemon has, whoever changed it; connections survive the failover that it makes.
fn our_agent(world: &World) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let (fw1, fw2) = (
        Managed::ours(world, &lab, 0)?,
        Managed::ours(world, &lab, 1)?,
    );
    let status = fw1.act_with("validate-all", &[("OCF_RESKEY_config", "/nowhere")])?;
    ensure!(status == ERR_CONFIGURED, "{status}");
    let meta = Command::new(&fw1.agent)
        .arg("meta-data")
        .env("OCF_ROOT", "/usr/lib/ocf")
        .output()?;
    ensure!(String::from_utf8_lossy(&meta.stdout).contains("<resource-agent name=\"ftfw\""));
    fw1.must("monitor", NOT_RUNNING)?;
    // A process has the lock, and does not answer.
    let lock = fs::File::create(fw1.dir.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    fw1.must("monitor", ERR_GENERIC)?;
    fw1.must("start", ERR_GENERIC)?;
    drop(lock);
    // One that somebody else has started knows no role.
    let said = fw1.own(&["run", "-d"])?;
    ensure!(!fw1.own(&["status"])?.contains("instance "), "{said}");
    for fw in [&fw1, &fw2] {
        fw.must("start", SUCCESS)?;
        fw.must("start", SUCCESS)?;
        fw.must("monitor", SUCCESS)?;
        let status = fw.own(&["status"])?;
        ensure!(status.contains("default: backup for"), "{status}");
    }
    fw1.must("promote", SUCCESS)?;
    fw1.must("start", SUCCESS)?;
    fw1.must("monitor", RUNNING_PROMOTED)?;
    // An operator changes the role by hand, and monitor tells.
    fw1.own(&["backup"])?;
    fw1.must("monitor", SUCCESS)?;
    fw1.own(&["primary"])?;
    fw1.must("monitor", RUNNING_PROMOTED)?;
    // A name is no pattern.
    fw2.own(&["backup", "--instance", "VX1"])?;
    fw2.own(&["primary", "--instance", "V.1"])?;
    for (name, wanted) in [("V.1", RUNNING_PROMOTED), ("VX1", SUCCESS), ("", SUCCESS)] {
        let status = fw2.act_with("monitor", &[("OCF_RESKEY_instance", name)])?;
        ensure!(status == wanted, "`{name}`: {status}");
    }
    for slip in ["VX1", "V.1"] {
        fw2.own(&["forget", "--instance", slip])?;
    }

    numbered::serve(&lab.b, address(SERVER, PORT))?;
    let mut open = Connections::open(&lab.a, address(SERVER, PORT), COUNT)?;
    ensure!(open.round(SOON) == COUNT);
    let held = || {
        let mut c = fw2.node.command(&fw2.program);
        let text = c
            .arg("conntrackd")
            .arg("-C")
            .arg(&fw2.config)
            .arg("-e")
            .output();
        let text = text.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
        text.is_ok_and(|t| t.matches(&format!("dport={PORT} ")).count() == COUNT)
    };
    wait::until("FW2 holds the connections", SOON, held)?;
    lab.cut(0)?;
    fw1.kill()?;
    // The dead daemon's socket deceives nobody.
    fw1.must("monitor", NOT_RUNNING)?;
    fw1.must("demote", NOT_RUNNING)?;
    fw1.must("stop", SUCCESS)?;
    lab.take_addresses(1)?;
    fw2.must("promote", SUCCESS)?;
    fw2.must("monitor", RUNNING_PROMOTED)?;
    let alive = open.round(Duration::from_secs(10));
    ensure!(alive == COUNT, "{alive} of {COUNT} connections live on");
    fw2.must("demote", SUCCESS)?;
    fw2.must("monitor", SUCCESS)?;
    // A configuration that cannot be read hides no daemon, and keeps none from being stopped.
    let text = fs::read_to_string(&fw2.config)?;
    fs::write(&fw2.config, format!("{text}\nSlip {{"))?;
    fw2.must("monitor", ERR_GENERIC)?;
    fw2.must("stop", SUCCESS)?;
    fw2.must("monitor", NOT_RUNNING)?;
    fw2.must("stop", SUCCESS)?;
    // The same of one that systemd has started.
    fs::write(&fw2.config, &text)?;
    let mut c = fw2.node.command(fw2.dir.join("conntrackd"));
    let mut by_systemd = Process(c.arg("-C").arg(&fw2.config).stdout(Stdio::null()).spawn()?);
    wait::until("it runs", SOON, || {
        fw2.ask(&["status"])
            .is_ok_and(|o| o.status.code() != Some(1))
    })?;
    fs::write(&fw2.config, format!("{text}\nSlip {{"))?;
    fw2.must("monitor", ERR_GENERIC)?;
    fw2.must("stop", SUCCESS)?;
    ensure!(by_systemd.0.wait()?.success(), "it ends");
    let scores = fs::read_to_string(fw2.dir.join("scores"))?;
    // How a score is written depends on whether Pacemaker is installed.
    ensure!(scores.contains("-v 1000"), "{scores}");
    ensure!(scores.trim_end().ends_with(" -D"), "{scores}");
    Ok(())
}

/// Goal: keepalived has nothing to say about any example of ours, and each one makes a backup
/// of a firewall whose keepalived stops.
fn examples(world: &World) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let is_keepalived = |file: &PathBuf| {
        let name = file.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("keepalived"))
    };
    let files = documents::files(&setups::folder())?;
    let files: Vec<_> = files.into_iter().filter(is_keepalived).collect();
    ensure!(files.len() >= 9, "{files:?}");
    for file in files {
        // The programs are not where the package installs them.
        let text = fs::read_to_string(&file)?
            .replace("/usr/sbin/ftfw", "/bin/true")
            .replace("/etc/conntrackd/notify", "/bin/true");
        let count = |word: &str| text.matches(word).count();
        let is_told = match count("vrrp_notify_fifo_script") {
            0 => count("notify_stop") == count("notify_backup"),
            _ => count("notify_stop") > 0,
        };
        ensure!(is_told, "{}: no `notify_stop`", file.display());
        let copy = world.dir().join("keepalived.conf");
        fs::write(&copy, &text)?;
        let mut c = lab.fw[0].command("keepalived");
        let out = c.arg("-t").arg("-f").arg(&copy).output()?;
        let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        ensure!(
            out.status.success() && said.is_empty(),
            "{}: {said}",
            file.display()
        );
    }
    Ok(())
}

/// Statuses of monitor and stop after `kill -9`; a start must work afterwards if the agent has
/// ended.
fn killed(world: &World, kind: Kind) -> Result<(i32, i32)> {
    let lab = Lab::build(Options::default())?;
    let fw = Managed::new(world, &lab, 0, kind)?;
    fw.must("start", SUCCESS)?;
    fw.kill()?;
    let monitored = fw.act("monitor")?;
    let stopped = fw.act("stop")?;
    if stopped == SUCCESS {
        fw.must("monitor", NOT_RUNNING)?;
        fw.must("start", SUCCESS)?;
        fw.must("monitor", SUCCESS)?;
        fw.must("stop", SUCCESS)?;
    }
    Ok((monitored, stopped))
}

/// Neutron deletes lock and socket, starts the daemon in the background, finds it by its exact
/// command line, and asks it to stop.
fn neutron(world: &World) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let fw = Managed::new(world, &lab, 0, Kind::Ftfw)?;
    let path = fw.config.display().to_string();
    let _ = fs::remove_file(fw.dir.join("lock"));
    let _ = fs::remove_file(fw.dir.join("control"));
    let mut c = fw.node.command("env");
    let out = c
        .arg(format!(
            "PATH={}:/usr/sbin:/usr/bin:/sbin:/bin",
            fw.dir.display()
        ))
        .args(["conntrackd", "-d", "-C", &path])
        .output()?;
    ensure!(out.status.success(), "{out:?}");
    let line = ["conntrackd", "-d", "-C", &path].map(str::to_owned);
    let pid = find(|words| words == line).context("no process has that command line")?;
    let name = fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero()))?;
    ensure!(name.trim() == "conntrackd", "{name}");
    ensure!(fw.ask(&["-n"])?.status.success());
    ensure!(fw.ask(&["-k"])?.status.success());
    wait::until("it is gone", SOON, || find(|words| words == line).is_none())
}

/// As VyOS writes it: each address on a line of its own and repeated, expectations by helper,
/// and helpers beside `Sync`. FW2 names no address of its own.
const VYOS: &str = "
Sync {
    Mode FTFW {
        StartupResync on
    }
    UDP {
        OWN
        IPv4_Destination_Address PEER
        Port 3780
        Interface eth2
        Checksum on
    }
    Options {
        ExpectationSync {
            ftp
            h.323
        }
    }
}
";

/// This kernel cannot give it, so the original does not start with it.
const VYOS_HELPER: &str = "
Helper {
    Type rpc inet tcp {
        QueueNum 3
        QueueLen 10240
        Policy rpc {
            ExpectMax 1
            ExpectTimeout 300
        }
    }
}
";

/// What VyOS calls: its commands for operators, then its script on a new primary and a new backup.
const VYOS_CALLS: &[(usize, &[&str])] = &[
    (0, &["-i", "ct", "-x"]),
    (0, &["-i", "expect", "-x"]),
    (1, &["-e", "ct", "-x"]),
    (1, &["-e", "expect", "-x"]),
    (0, &["-s"]),
    (0, &["-s", "exp"]),
    (0, &["-B"]),
    (1, &["-n"]),
    (0, &["-R"]),
    (1, &["-c"]),
    (1, &["-c", "exp"]),
    (1, &["-f"]),
    (1, &["-R"]),
    (1, &["-B"]),
    (1, &["-i", "ct", "-x"]),
    (0, &["-s"]),
    (0, &["-t"]),
    (0, &["-n"]),
    (1, &["-f", "internal"]),
    (1, &["-f", "external"]),
    (1, &["-e", "ct", "-x"]),
];

/// Goal: each call has the status and the lines that it has with two conntrackd.
fn vyos(world: &World) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    numbered::serve(&lab.b, address(SERVER, PORT))?;
    let mut open = Connections::open(&lab.a, address(SERVER, PORT), 5)?;
    let mut answers = Vec::new();
    for kind in [Kind::Conntrackd, Kind::Ftfw] {
        ensure!(open.round(SOON) == 5);
        answers.push(vyos_answers(world, &lab, kind).with_context(|| kind.to_string())?);
    }
    for ((call, theirs), ours) in VYOS_CALLS.iter().zip(&answers[0]).zip(&answers[1]) {
        ensure!(theirs == ours, "{call:?}: {theirs:#?}, and ours {ours:#?}");
    }
    let listed = &answers[1][0].1;
    ensure!(
        listed.len() == 5 && listed[0].starts_with("<flow>"),
        "{listed:?}"
    );
    Ok(())
}

/// Statuses and lines, without numbers, which differ from run to run.
fn vyos_answers(world: &World, lab: &Lab, kind: Kind) -> Result<Vec<(Option<i32>, Vec<String>)>> {
    let start = |n: usize| -> Result<Daemon> {
        let own = ["IPv4_address 10.77.9.1\nIPv4_address 10.77.9.1", ""][n];
        let peer = format!("10.77.9.{}", 2 - n);
        let helper = if kind == Kind::Ftfw { VYOS_HELPER } else { "" };
        let sync = VYOS.replace("OWN", own).replace("PEER", &peer);
        let settings = Settings {
            instead_of_sync: Some(sync + helper),
            ..Settings::new(Mode::Ftfw)
        };
        Daemon::start(kind, &lab.fw[n], n, &settings, world.dir())?.context("no daemon")
    };
    let daemons = [start(0)?, start(1)?];
    wait::until("FW2 knows the flows", 2 * SOON, || {
        let _ = daemons[0].ask(&["-B"]);
        daemons[1]
            .external(&format!("dport={PORT} "))
            .is_ok_and(|l| l.len() == 5)
    })?;
    let mut answers = Vec::new();
    for (n, arguments) in VYOS_CALLS {
        let out = daemons[*n].output(arguments)?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        // What we know of the peer stands behind the original's lines.
        let lines = text.lines().take_while(|l| !l.starts_with("peer: "));
        let mut lines: Vec<String> = lines.map(without_numbers).collect();
        lines.sort();
        answers.push((out.status.code(), lines));
        // The original answers before it is done.
        std::thread::sleep(Duration::from_millis(200));
    }
    for daemon in daemons {
        daemon.stop()?;
    }
    Ok(answers)
}

fn without_numbers(line: &str) -> String {
    let mut plain = String::new();
    for c in line.chars() {
        match c {
            '0'..='9' if plain.ends_with('N') => {}
            '0'..='9' => {
                // Numbers are right-aligned.
                plain.truncate(plain.trim_end_matches(' ').len());
                plain.push('N');
            }
            _ => plain.push(c),
        }
    }
    plain
}

/// CloudStack's virtual router has `Stats` inside `General`. Yields whether the daemon starts, and
/// what it says.
fn cloudstack(world: &World, kind: Kind) -> Result<(bool, String)> {
    let lab = Lab::build(Options::default())?;
    let settings = Settings {
        general_lines: "Stats {\n    LogFile on\n}".into(),
        ..Settings::new(Mode::Ftfw)
    };
    match Daemon::start(kind, &lab.fw[0], 0, &settings, world.dir()) {
        Ok(daemon) => Ok((true, daemon.context("a daemon")?.log())),
        Err(e) => Ok((false, format!("{e:#}"))),
    }
}
