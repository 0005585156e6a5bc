//! `ftfw ready` and the first lines of `ftfw status`: may this firewall be primary, is it safe
//! to fail over, and what needs attention.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::daemon::{Daemon, Kind, Mode, Settings};
use lab::keepalived::{Calls, Keepalived, State};
use lab::topology::{Lab, Options, SERVER};
use lab::traffic::datagrams;
use lab::traffic::numbered::{self, Connections};
use lab::wait;
use lab::world::World;
use serde_json::Value;

use crate::Scenario;
use crate::pair::{PORT, Pair, SOON, address};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("ready/a_backup_that_starts_again_catches_up", catches_up),
    ("ready/a_full_cache_is_not_ready", full),
    (
        "ready/a_backup_of_conntrackd_is_ready_when_it_has_asked",
        original,
    ),
    ("ready/a_file_for_keepalived_follows", follows),
    ("ready/who_is_alone_takes_over_without_being_ready", alone),
    ("ready/a_rebooted_firewall_waits_until_it_is_ready", |w| {
        let works = reboot(w, Calls::RolesAndReady)?;
        ensure!(works == CONNECTIONS, "{works} of {CONNECTIONS}");
        Ok(())
    }),
    (
        "ready/without_it_a_rebooted_firewall_ends_connections",
        |w| {
            let works = reboot(w, Calls::Roles)?;
            ensure!(works < CONNECTIONS, "all {works} live on");
            Ok(())
        },
    ),
    ("status/a_healthy_pair_is_safe", healthy),
    ("status/what_needs_attention_is_named", attention),
];

const CONNECTIONS: usize = 50;

fn settings() -> Settings {
    Settings::new(Mode::Ftfw)
}

/// Exit status and line of `ftfw ready`.
fn ready(daemon: &Daemon, more: &[&str]) -> Result<(i32, String)> {
    let words = [&["ready"], more].concat();
    let out = daemon.own_command(&words)?.output()?;
    let line = String::from_utf8(out.stdout)?;
    Ok((out.status.code().context("a status")?, line))
}

/// Exit status and text of `ftfw status`.
fn status(daemon: &Daemon) -> Result<(i32, String)> {
    let out = daemon.own_command(&["status"])?.output()?;
    let text = String::from_utf8(out.stdout)?;
    Ok((out.status.code().context("a status")?, text))
}

fn catches_up(world: &World) -> Result<()> {
    let lab = datagrams::lab()?;
    let start = |n: usize| -> Result<Daemon> {
        let daemon = Daemon::start(Kind::Ftfw, &lab.fw[n], n, &settings(), world.dir())?;
        daemon.context("no daemon")
    };
    let (fw1, mut fw2) = (start(0)?, start(1)?);
    datagrams::create(&lab.fw[0], world.dir(), 20_000)?;
    fw1.own(&["primary"])?;
    // FW1 counts its flows once a second.
    let mut line = String::new();
    wait::until("FW2 has all", Duration::from_secs(20), || {
        line = ready(&fw2, &[]).map_or_else(|e| e.to_string(), |r| r.1);
        line.starts_with("in sync: 20000 flows")
    })
    .with_context(|| line.clone())?;
    fw2.kill();
    fw2 = start(1)?;
    // Whichever is first: it is in sync only once it has all.
    let (code, line) = ready(&fw2, &[])?;
    let has_all = line.starts_with("in sync: 20000 flows");
    ensure!(
        if code == 0 {
            has_all
        } else {
            !line.starts_with("in sync")
        },
        "{line}"
    );
    let (code, line) = ready(&fw2, &["--wait", "20"])?;
    ensure!(code == 0 && line.contains("none would be lost"), "{line}");
    let row: Value = serde_json::from_str(&ready(&fw2, &["-o", "json"])?.1)?;
    ensure!(row["lost"] == 0 && row["percent"] == 100, "{row}");
    // The primary dies: the backup stays ready, or nobody would take over. It is not safe.
    drop(fw1);
    let mut text = String::new();
    wait::until("it is lost", Duration::from_secs(10), || {
        text = status(&fw2).map_or_else(|e| e.to_string(), |s| s.1);
        text.contains("the peer is lost")
    })?;
    let held =
        "NOT SAFE: the peer is lost: 20000 flows of the peer were held when it was last heard";
    ensure!(text.contains(held), "{text}");
    let (code, line) = ready(&fw2, &[])?;
    ensure!(code == 0, "{line}");
    // What was held goes: then nothing could be taken over.
    fw2.own(&["flush", "external"])?;
    let (code, line) = ready(&fw2, &[])?;
    let missing = "not: 20000 of 20000 flows of the peer were missing";
    ensure!(code == 1 && line.starts_with(missing), "{line}");
    Ok(())
}

fn full(world: &World) -> Result<()> {
    let lab = datagrams::lab()?;
    let small = Settings {
        general_lines: "HashLimit 600".into(),
        ..settings()
    };
    let fw1 = Daemon::start(Kind::Ftfw, &lab.fw[0], 0, &settings(), world.dir())?;
    let fw2 = Daemon::start(Kind::Ftfw, &lab.fw[1], 1, &small, world.dir())?;
    let (_fw1, fw2) = (fw1.context("FW1")?, fw2.context("FW2")?);
    datagrams::create(&lab.fw[0], world.dir(), 1000)?;
    let mut line = String::new();
    // It is not ready at once; how many are missing is known after some seconds.
    wait::until("FW2 is full", SOON, || {
        line = ready(&fw2, &[]).map_or_else(|e| e.to_string(), |r| r.1);
        line.starts_with("not: the external cache is full")
    })
    .with_context(|| line.clone())?;
    wait::until("what is missing is counted", SOON * 2, || {
        line = ready(&fw2, &[]).map_or_else(|e| e.to_string(), |r| r.1);
        line.starts_with("not: ") && line.contains("400 of 1000")
    })
    .with_context(|| line.clone())?;
    let (code, text) = status(&fw2)?;
    ensure!(code == 4 && text.contains("HashLimit"), "{text}");
    Ok(())
}

fn original(world: &World) -> Result<()> {
    let kinds = [Kind::Conntrackd, Kind::Ftfw];
    let pair = Pair::mixed(world, kinds, settings(), Options::default())?;
    let _open = pair.connect(SERVER, 5)?;
    pair.wait_external(&format!("dport={PORT} "), 5)?;
    let (code, line) = ready(&pair.fw2, &[])?;
    ensure!(code == 1 && line.contains("not been asked"), "{line}");
    pair.fw2.own(&["backup"])?;
    let (code, line) = ready(&pair.fw2, &["--wait", "10"])?;
    ensure!(code == 0 && line.contains("reports no counts"), "{line}");
    // After a silence it asks again: until the answer has come, nothing is known.
    let link = |state: &str| pair.lab.fw[1].run(&format!("ip link set eth2 {state}"));
    let says = |what: &str| {
        let mut last = String::new();
        let said = wait::until(what, Duration::from_secs(10), || {
            last = status(&pair.fw2).map_or_else(|e| e.to_string(), |s| s.1);
            last.contains(what)
        });
        said.with_context(|| last)
    };
    link("down")?;
    says("the peer is lost")?;
    let (code, line) = ready(&pair.fw2, &[])?;
    ensure!(code == 0, "it may have died: {line}");
    link("up")?;
    says("its answer may not be complete")?;
    let (code, line) = ready(&pair.fw2, &["--wait", "10"])?;
    ensure!(code == 0, "{line}");
    Ok(())
}

fn follows(world: &World) -> Result<()> {
    let pair = Pair::start(world, settings(), Options::default())?;
    let file = world.dir().join("not-ready");
    let name = file.display().to_string();
    // Of an earlier one that was killed.
    std::fs::write(&file, "1\n")?;
    let mut follower = pair.fw2.own_command(&["ready", "--track-file", &name])?;
    let follower = lab::node::Process(follower.spawn()?);
    let is = |text: &str| std::fs::read_to_string(&file).is_ok_and(|t| t == text);
    wait::until("it is ready", SOON, || is("0\n"))?;
    // The daemon hangs: nobody waits for it for long.
    let now: Value = serde_json::from_str(&pair.fw2.own(&["status", "-o", "json"])?)?;
    let daemon = now["pid"].as_u64().context("its pid")?;
    signal(daemon, "STOP")?;
    let answer = pair.fw2.own_command(&["ready"])?.output()?;
    let error = String::from_utf8_lossy(&answer.stderr);
    ensure!(error.contains("does not answer"), "{error}");
    ensure!(answer.status.code() == Some(1), "{answer:?}");
    wait::until("it is not, as far as is known", SOON, || is("1\n"))?;
    signal(daemon, "CONT")?;
    wait::until("it is again", SOON, || is("0\n"))?;
    pair.fw2.own(&["stop"])?;
    wait::until("it is not", SOON, || is("1\n"))?;
    signal(follower.0.id().into(), "TERM")?;
    wait::until("nothing is left", SOON, || !file.exists())
}

fn signal(pid: u64, name: &str) -> Result<()> {
    let mut kill = std::process::Command::new("kill");
    let status = kill.args(["-s", name, &pid.to_string()]).status()?;
    ensure!(status.success(), "kill -s {name} {pid}: {status}");
    Ok(())
}

/// FW2 has never heard a peer, so it is not ready; nobody else is there, so it takes over.
fn alone(world: &World) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    lab.drop_addresses(0)?;
    let daemon = Daemon::start(Kind::Ftfw, &lab.fw[1], 1, &settings(), world.dir())?;
    let daemon = daemon.context("no daemon")?;
    let (code, line) = ready(&daemon, &[])?;
    ensure!(code == 1, "{line}");
    let calls = Calls::RolesAndReady;
    let _keepalived = Keepalived::start_with(&lab, 1, Some(&daemon), State::Primary, calls)?;
    let (code, line) = ready(&daemon, &[])?;
    ensure!(code == 0 && line.contains("is primary"), "{line}");
    Ok(())
}

/// FW1, whose priority is the higher one, reboots while the dedicated link is out. Returns how
/// many connections live on when the link is back.
fn reboot(world: &World, calls: Calls) -> Result<usize> {
    let mut lab = Lab::build(Options::default())?;
    lab.drop_addresses(0)?;
    let start = |lab: &Lab, n: usize| -> Result<Daemon> {
        let daemon = Daemon::start(Kind::Ftfw, &lab.fw[n], n, &settings(), world.dir())?;
        daemon.context("no daemon")
    };
    let (mut fw1, fw2) = (start(&lab, 0)?, start(&lab, 1)?);
    let mut first = Keepalived::start_with(&lab, 0, Some(&fw1), State::Primary, Calls::Roles)?;
    let second = Keepalived::start_with(&lab, 1, Some(&fw2), State::Backup, calls)?;
    numbered::serve(&lab.b, address(SERVER, PORT))?;
    let mut open = Connections::open(&lab.a, address(SERVER, PORT), CONNECTIONS)?;
    ensure!(open.round(SOON) == CONNECTIONS, "they work through FW1");
    wait::until("FW2 knows them", SOON, || {
        fw2.external(&format!("dport={PORT} "))
            .is_ok_and(|l| l.len() == CONNECTIONS)
    })?;
    first.kill();
    fw1.kill();
    lab.cut(0)?;
    let limit = Duration::from_secs(10);
    wait::until("they work through FW2", limit, || {
        open.round(SOON) == CONNECTIONS
    })?;
    // Back, with an empty table.
    lab.reboot(0)?;
    lab.fw[0].run("ip link set eth2 down")?;
    fw1 = start(&lab, 0)?;
    let state = match calls {
        Calls::RolesAndReady => State::Backup,
        _ => State::Primary,
    };
    let _first = Keepalived::start_with(&lab, 0, Some(&fw1), state, calls)?;
    std::thread::sleep(Duration::from_secs(3));
    let _ = open.round(Duration::from_secs(2));
    lab.fw[0].run("ip link set eth2 up")?;
    let (code, line) = ready(&fw1, &["--wait", "20"])?;
    ensure!(code == 0, "{line}");
    // It takes over now, if it has not before.
    let mut works = 0;
    let has_address = || {
        lab.fw[0]
            .run("ip addr show dev eth1")
            .is_ok_and(|t| t.contains("0.100/"))
    };
    wait::until(
        "FW1 has the addresses",
        Duration::from_secs(20),
        has_address,
    )?;
    let _ = wait::until("they work", Duration::from_secs(8), || {
        works = open.round(Duration::from_secs(2));
        works == CONNECTIONS
    });
    drop(second);
    Ok(works)
}

fn healthy(world: &World) -> Result<()> {
    let pair = Pair::start(world, settings(), Options::default())?;
    pair.fw1.own(&["primary"])?;
    pair.fw2.own(&["backup"])?;
    let _open = pair.connect(SERVER, 20)?;
    pair.wait_external(&format!("dport={PORT} "), 20)?;
    wait::until("both are safe", Duration::from_secs(10), || {
        [&pair.fw1, &pair.fw2]
            .iter()
            .all(|d| status(d).is_ok_and(|s| s.0 == 0))
    })?;
    let lines = [
        (&pair.fw1, "SAFE: the peer holds all our flows"),
        (&pair.fw2, "SAFE: in sync: 20 flows"),
    ];
    for (daemon, words) in lines {
        let mut text = String::new();
        let says = || {
            text = status(daemon).map_or_else(|e| e.to_string(), |s| s.1);
            text.lines().next().is_some_and(|l| l.contains(words))
        };
        let said = wait::until(words, Duration::from_secs(10), says);
        said.with_context(|| text.clone())?;
    }
    let text = status(&pair.fw1)?.1;
    ensure!(!text.contains("attention"), "{text}");
    Ok(())
}

fn attention(world: &World) -> Result<()> {
    let mut pair = Pair::start(world, settings(), Options::default())?;
    pair.fw1.own(&["primary"])?;
    pair.fw2.own(&["backup"])?;
    let named = |pair: &Pair, what: &str| {
        let mut last = String::new();
        let named = wait::until(what, Duration::from_secs(12), || {
            let Ok((code, text)) = status(&pair.fw1) else {
                return false;
            };
            last = text;
            last.contains(&format!("attention      {what}")) && last.contains("-> ") && code <= 4
        });
        named.with_context(|| last)
    };
    pair.fw2.own(&["primary"])?;
    named(&pair, "both firewalls are primary")?;
    pair.fw1.own(&["backup"])?;
    pair.fw2.own(&["backup"])?;
    named(&pair, "both firewalls are backup")?;
    pair.fw1.own(&["primary"])?;
    pair.lab.fw[1].run("ip link set eth2 down")?;
    named(&pair, "link eth2: no carrier")?;
    pair.lab.fw[1].run("ip link set eth2 up")?;
    pair.kill(1);
    named(&pair, "the peer is lost")?;
    let (code, text) = status(&pair.fw1)?;
    ensure!(
        code == 4 && text.starts_with("fail over      NOT SAFE"),
        "{text}"
    );
    Ok(())
}
