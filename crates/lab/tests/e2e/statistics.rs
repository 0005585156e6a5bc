//! Daemons that do not replicate: statistics mode beside the original's, and files that
//! configure nothing.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::daemon::{Daemon, Kind, Mode, Settings};
use lab::topology::{Lab, Options};
use lab::wait;
use lab::world::World;
use rustix::process::{Pid, Signal, kill_process};

use crate::Scenario;
use crate::pair::{Pair, SOON};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("statistics/like_the_original_with_counters", |w| {
        beside(w, "1")
    }),
    ("statistics/like_the_original_without_counters", |w| {
        beside(w, "0")
    }),
    ("statistics/what_the_cache_refuses_is_not_logged", refused),
    ("statistics/the_log_is_opened_again", reopened),
    ("statistics/the_default_file_of_debian_starts", debian),
    ("statistics/the_end_of_a_silent_flow_is_logged", silent),
    (
        "idle/a_file_without_sections_starts_and_does_nothing",
        |w| idle(w, ""),
    ),
    ("idle/helpers_alone_start_with_a_warning", |w| {
        idle(w, "Helper { Type ftp inet tcp { QueueNum 1 } }")
    }),
    (
        "idle/helpers_beside_sync_leave_it_alone",
        helpers_beside_sync,
    ),
];

fn settings(section: &str) -> Settings {
    Settings {
        instead_of_sync: Some(section.into()),
        ..Settings::new(Mode::Notrack)
    }
}

fn start(world: &World, lab: &Lab, kind: Kind, n: usize, settings: &Settings) -> Result<Daemon> {
    Daemon::start(kind, &lab.fw[n], n, settings, world.dir())?.context("no daemon")
}

const STATS: &str = "Stats {\nLogFile DIR/stats\n}";

/// What ended, without its time, in alphabetical order; ids of ICMP are the program's.
fn logged(daemon: &Daemon) -> Vec<String> {
    let text = fs::read_to_string(daemon.dir().join("stats")).unwrap_or_default();
    let line = |l: &str| l.split_once('\t').map(|(_, flow)| without_ids(flow));
    let mut lines: Vec<String> = text.lines().filter_map(line).collect();
    lines.sort();
    lines
}

/// Without what the kernel chooses.
fn without_ids(text: &str) -> String {
    let word = |w: &str| match w.split_once("id=") {
        Some(("", _)) => "id=".to_owned(),
        _ if w.starts_with("delta-time=") => "delta-time=".to_owned(),
        _ => match w.split_once("<id>") {
            Some((before, rest)) => {
                format!("{before}{}", rest.trim_start_matches(char::is_numeric))
            }
            None => w.to_owned(),
        },
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// An answer with its lines in alphabetical order, without what differs by time and buffer.
fn answer(daemon: &Daemon, arguments: &[&str]) -> Result<Vec<String>> {
    let text = daemon.ask(arguments)?;
    let differs = |l: &&str| !l.contains("buffer size") && !l.contains("resync with");
    let line = |l: &str| match l.split_once(" [active since") {
        Some((flow, _)) => without_ids(flow),
        None => without_ids(l),
    };
    let mut lines: Vec<String> = text.lines().filter(differs).map(line).collect();
    lines.sort();
    Ok(lines)
}

/// Flows of several kinds.
const FLOWS: &str = "\
-I -p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 2 --state ESTABLISHED -t 100 -u ASSURED -m 5 -w 3
-I -p tcp -s 10.0.0.1 -d 10.0.0.3 --sport 1 --dport 2 --state TIME_WAIT -t 100 -u ASSURED,SEEN_REPLY
-I -p udp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 2 -t 100 -g 1.2.3.4
-I -p udp -s fd00::1 -d fd00::2 --sport 1 --dport 2 -t 100 -u SEEN_REPLY
-I -p icmp -s 10.0.0.1 -d 10.0.0.2 --icmp-type 8 --icmp-code 0 --icmp-id 77 -t 100
-I -p 50 -s 10.0.0.1 -d 10.0.0.2 -t 100
";

/// Goal: for the same flows every answer and every line of the log is the original's, but for
/// their order. Method: the original on FW1, ours on FW2.
fn beside(world: &World, counters: &str) -> Result<()> {
    const COUNT: usize = 6;
    let lab = Lab::build(Options::default())?;
    for fw in &lab.fw {
        fw.sysctl("net/netfilter/nf_conntrack_acct", counters)?;
        fw.sysctl("net/netfilter/nf_conntrack_timestamp", counters)?;
    }
    let settings = settings(STATS);
    let theirs = start(world, &lab, Kind::Conntrackd, 0, &settings)?;
    let ours = start(world, &lab, Kind::Ftfw, 1, &settings)?;
    let file = world.dir().join("flows");
    fs::write(&file, FLOWS)?;
    for fw in &lab.fw {
        fw.run(&format!("conntrack -R {}", file.display()))?;
    }
    for daemon in [&theirs, &ours] {
        wait::until("the flows are known", SOON, || {
            daemon.internal("src=").is_ok_and(|l| l.len() == COUNT)
        })?;
    }
    let all: &[&[&str]] = &[
        &["-s"],
        &["-i"],
        &["-i", "ct"],
        &["-i", "-x"],
        &["-e"],
        &["-e", "-x"],
        &["-s", "ct"],
        &["-s", "cache"],
        &["-s", "network"],
        &["-s", "link"],
        &["-s", "queue"],
        &["-s", "rsqueue"],
        &["-s", "process"],
        &["-s", "expect"],
        &["-i", "expect"],
        &["-c"],
        &["-f"],
        &["-f", "external"],
        &["-t"],
        &["-B"],
        &["-n"],
    ];
    let compare = |what: &str| -> Result<()> {
        for arguments in all {
            let (first, second) = (answer(&theirs, arguments)?, answer(&ours, arguments)?);
            ensure!(
                first == second,
                "{what}, {arguments:?}:\n{first:#?}\n{second:#?}"
            );
        }
        Ok(())
    };
    compare("with flows")?;
    ensure!(logged(&ours).is_empty(), "nothing has ended");
    for fw in &lab.fw {
        fw.run("conntrack -D -p tcp")?;
        fw.run("conntrack -D -p icmp")?;
        fw.run("conntrack -D -f ipv6 -p udp")?;
        fw.run("conntrack -D -p 50")?;
    }
    for daemon in [&theirs, &ours] {
        wait::until("five ends are logged", SOON, || {
            logged(daemon).len() == COUNT - 1
        })?;
    }
    let (first, second) = (logged(&theirs), logged(&ours));
    ensure!(first == second, "{first:#?}\n{second:#?}");
    let counts = first.iter().filter(|l| l.contains("packets=")).count();
    ensure!(
        counts == if counters == "1" { COUNT - 1 } else { 0 },
        "{first:#?}"
    );
    compare("after their end")?;
    // What it is asked to flush, and what it flushes from the kernel.
    for daemon in [&theirs, &ours] {
        daemon.ask(&["-F"])?;
        wait::until("the last end is logged", SOON, || {
            logged(daemon).len() == COUNT
        })?;
    }
    ensure!(logged(&theirs) == logged(&ours));
    for (n, daemon) in [&theirs, &ours].into_iter().enumerate() {
        lab.fw[n].run(&format!("conntrack -R {}", file.display()))?;
        wait::until("the flows are known again", SOON, || {
            daemon.internal("src=").is_ok_and(|l| l.len() == COUNT)
        })?;
        daemon.ask(&["-f", "internal"])?;
        ensure!(
            daemon.internal("src=")?.is_empty(),
            "the cache is not flushed"
        );
    }
    let status = ours.own(&["status"])?;
    ensure!(status.contains("statistics"), "{status}");
    for daemon in [theirs, ours] {
        let kind = daemon.kind();
        let status = daemon.stop()?;
        ensure!(status.success(), "{kind}: {status}");
    }
    Ok(())
}

/// Only flows of the cache are logged.
fn refused(world: &World) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let settings = Settings {
        general_lines: "HashLimit 3".into(),
        ..settings(STATS)
    };
    let daemon = start(world, &lab, Kind::Ftfw, 0, &settings)?;
    let file = world.dir().join("flows");
    fs::write(&file, FLOWS)?;
    lab.fw[0].run(&format!("conntrack -R {}", file.display()))?;
    wait::until("three flows are known", SOON, || {
        daemon.internal("src=").is_ok_and(|l| l.len() == 3)
            && Pair::counter(&daemon, &["-s"], "connections created:").is_ok_and(|n| n == 3)
    })?;
    lab.fw[0].run("conntrack -F")?;
    wait::until("three ends are logged", SOON, || logged(&daemon).len() == 3)?;
    std::thread::sleep(Duration::from_millis(300));
    ensure!(logged(&daemon).len() == 3, "{:#?}", logged(&daemon));
    Ok(())
}

/// SIGHUP after a rotation; the control: without it lines go on into the old file.
fn reopened(world: &World) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let daemon = start(world, &lab, Kind::Ftfw, 0, &settings(STATS))?;
    let (log, old) = (daemon.dir().join("stats"), daemon.dir().join("stats.1"));
    let one = |port: u16| -> Result<()> {
        let words = format!("-p udp -s 10.0.0.1 -d 10.0.0.2 --sport {port} --dport 2");
        lab.fw[0].run(&format!("conntrack -I {words} -t 100"))?;
        lab.fw[0].run(&format!("conntrack -D {words}"))?;
        Ok(())
    };
    let lines =
        |path: &std::path::Path| fs::read_to_string(path).map_or(0, |text| text.lines().count());
    one(1)?;
    wait::until("an end is logged", SOON, || lines(&log) == 1)?;
    fs::rename(&log, &old)?;
    one(2)?;
    wait::until("it is logged in the old file", SOON, || lines(&old) == 2)?;
    ensure!(!log.exists(), "nothing has opened the new file");
    let pid = Pid::from_raw(daemon.pid().cast_signed()).context("a process id")?;
    kill_process(pid, Signal::HUP)?;
    wait::until("the file is there", SOON, || log.exists())?;
    one(3)?;
    wait::until("it is logged in the new file", SOON, || lines(&log) == 1)?;
    ensure!(lines(&old) == 2);
    Ok(())
}

/// The file that Debian's package installs, with paths of this test.
fn debian(world: &World) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let path = "/etc/conntrackd/conntrackd.conf";
    let text =
        fs::read_to_string(path).with_context(|| format!("{path}: of the package conntrackd"))?;
    ensure!(text.contains("\nStats {"), "{path} is not Debian's");
    let dir = world.dir().display();
    let text = text
        .replace("/var/lock/conntrackd.lock", &format!("{dir}/lock"))
        .replace("/var/run/conntrackd.sock", &format!("{dir}/control"))
        .replace("LogFile on", &format!("LogFile {dir}/stats"));
    let config = world.dir().join("debian.conf");
    fs::write(&config, text)?;
    let run = |arguments: &[&str]| -> Result<std::process::Output> {
        let mut command = lab.fw[0].command(Daemon::program()?);
        command
            .arg("conntrackd")
            .arg("-C")
            .arg(&config)
            .args(arguments);
        Ok(command.output()?)
    };
    let started = run(&["-d"])?;
    ensure!(started.status.success(), "{started:?}");
    lab.fw[0].run("conntrack -I -p udp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 2 -t 100")?;
    wait::until("the flow is known", SOON, || {
        run(&["-i"]).is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains("sport=1 "))
    })?;
    let stopped = run(&["-k"])?;
    ensure!(stopped.status.success(), "{stopped:?}");
    Ok(())
}

/// Goal: a flow whose end no event reports is logged when the table is next looked at.
/// Method: the daemon is stopped with a tiny event buffer while flows end.
fn silent(world: &World) -> Result<()> {
    const COUNT: usize = 3000;
    let lab = Lab::build(Options::default())?;
    let settings = Settings {
        general_lines:
            "NetlinkBufferSize 65536\nNetlinkBufferSizeMaxGrowth 65536\nNetlinkOverrunResync 1"
                .into(),
        ..settings(STATS)
    };
    let daemon = start(world, &lab, Kind::Ftfw, 0, &settings)?;
    lab::traffic::datagrams::create(&lab.fw[0], world.dir(), COUNT)?;
    wait::until("the flows are known", Duration::from_secs(20), || {
        daemon.internal("dport=9 ").is_ok_and(|l| l.len() == COUNT)
    })?;
    let pid = Pid::from_raw(daemon.pid().cast_signed()).context("a process id")?;
    kill_process(pid, Signal::STOP)?;
    lab.fw[0].run("conntrack -F")?;
    kill_process(pid, Signal::CONT)?;
    wait::until("every end is logged", Duration::from_secs(20), || {
        logged(&daemon).len() == COUNT
    })
    .with_context(|| format!("{} of {COUNT}", logged(&daemon).len()))?;
    let overruns = Pair::counter(&daemon, &["-s", "runtime"], "netlink overrun:")?;
    ensure!(overruns > 0, "no event was lost");
    Ok(())
}

/// Goal: such a file starts as with the original: it answers, every command ends well and
/// prints nothing, and no socket of the kernel is open.
fn idle(world: &World, section: &str) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let daemon = start(world, &lab, Kind::Ftfw, 0, &settings(section))?;
    for arguments in [
        &["-s"][..],
        &["-i"],
        &["-e"],
        &["-c"],
        &["-f"],
        &["-F"],
        &["-R"],
        &["-B"],
        &["-n"],
        &["-t"],
        &["-s", "network"],
    ] {
        let text = daemon.ask(arguments)?;
        ensure!(text.is_empty(), "{arguments:?}: {text}");
    }
    let out = daemon.own_command(&["status"])?.output()?;
    let error = String::from_utf8_lossy(&out.stderr);
    ensure!(
        !out.status.success() && error.contains("neither `Sync` nor `Stats`"),
        "{error}"
    );
    let sockets = fs::read_to_string(format!("/proc/{}/net/netlink", daemon.pid()))?;
    let own = sockets.lines().filter(|l| {
        l.split_whitespace().nth(2).and_then(|pid| pid.parse().ok()) == Some(daemon.pid())
    });
    ensure!(own.count() == 0, "{sockets}");
    if section.contains("Helper") {
        ensure!(
            daemon.log().contains("user-space helpers are not run"),
            "{}",
            daemon.log()
        );
    }
    ensure!(daemon.stop()?.success());
    Ok(())
}

/// VyOS always has both.
fn helpers_beside_sync(world: &World) -> Result<()> {
    let settings = Settings {
        sync_lines: "}\nHelper { Type ftp inet tcp { QueueNum 3\nPolicy ftp { ExpectMax 8\nExpectTimeout 300\n} }".into(),
        ..Settings::new(Mode::Ftfw)
    };
    let pair = Pair::start(world, settings, Options::default())?;
    let _open = pair.connect(lab::topology::SERVER, 3)?;
    pair.wait_external(&format!("dport={} ", crate::pair::PORT), 3)?;
    let warnings = pair
        .fw1
        .log()
        .matches("user-space helpers are not run")
        .count();
    ensure!(warnings == 1, "{}", pair.fw1.log());
    Ok(())
}
