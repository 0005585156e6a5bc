//! The gate, and the command that changes a role.
//!
//! Goal: packets that reach the new primary before the state is in its kernel are dropped, and
//! nothing answers them. Method: both ends of many connections send all the time through
//! firewalls without a rule against what is INVALID; the addresses move half a second before
//! the state is committed, as with a slow script. Without the gate connections are reset.

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::daemon::{Daemon, Mode, Settings};
use lab::keepalived::{Calls, Keepalived, State};
use lab::node::Process;
use lab::topology::{Lab, Options, SERVER};
use lab::traffic::datagrams;
use lab::traffic::push::{Pushes, Survey};
use lab::wait;
use lab::world::World;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::Scenario;
use crate::pair::{Pair, SOON, address};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("gate/nothing_is_reset_before_the_commit_ends", |w| {
        let (survey, early) = late_commit(w, GATE)?;
        let all = Survey {
            alive: CONNECTIONS,
            ..Survey::default()
        };
        ensure!(survey == all, "{survey:?}");
        ensure!(early == 0, "{early} flows were made before the commit");
        Ok(())
    }),
    ("gate/without_it_connections_are_reset", |w| {
        let (survey, _) = late_commit(w, "")?;
        ensure!(survey.reset > 0, "{survey:?}");
        Ok(())
    }),
    ("gate/it_comes_back_when_the_rules_are_flushed", flushed),
    ("gate/an_nft_that_hangs_holds_up_nothing_else", hangs),
    ("gate/it_opens_by_itself_when_nobody_commits", opens_late),
    ("gate/it_opens_by_itself_when_the_daemon_dies", daemon_dies),
    ("gate/what_is_for_the_firewall_itself_passes", management),
    ("gate/it_goes_with_the_daemon", goes),
    ("roles/primary_and_backup_do_the_ritual", ritual),
    ("roles/the_original_commands_move_the_gate", original),
    ("roles/instances_are_kept_apart", instances),
    ("roles/a_wrong_instance_is_refused", wrong),
    ("roles/a_primary_claims_back_what_one_beside_it_has", beside),
    ("roles/the_fifo_of_keepalived_is_followed", fifo),
    ("roles/a_stopped_keepalived_leaves_a_backup", stopped),
    (
        "roles/primary_waits_for_a_commit_that_runs",
        beside_a_commit,
    ),
    (
        "roles/a_commit_that_ends_behind_t_makes_no_primary",
        backup_beside_a_commit,
    ),
    ("roles/a_reader_that_ends_teaches_nothing_old", reader_ends),
];

const CONNECTIONS: usize = 200;
/// A commit of these takes a few tenths of a second.
const FLOWS: usize = 50_000;
const PORT: u16 = 5007;

/// The addresses of the laboratory, of both families.
const GATE: &str = "Gate {
Timeout 3
IPv4_address 192.168.0.100
IPv4_address 192.168.1.100
IPv6_address fd00:0::100
IPv6_address fd00:1::100
}";

/// Each half of the addresses moves on its own.
const TWO: &str = "Gate {
Timeout 3
Instance IN {
IPv4_address 192.168.0.100
IPv4_address 192.168.7.0/24
}
Instance OUT {
IPv4_address 192.168.1.100
}
}";

fn settings(gate: &str) -> Settings {
    Settings {
        sync_lines: gate.to_owned(),
        ..Settings::new(Mode::Ftfw)
    }
}

fn status(pair: &Pair) -> Result<Value> {
    let text = pair.fw2.own(&["status", "-o", "json"])?;
    Ok(serde_json::from_str(&text)?)
}

/// Role and gate of an instance of FW2.
fn standing(pair: &Pair, name: &str) -> Result<(String, String)> {
    let status = status(pair)?;
    let list = status["instances"].as_array().context("instances")?;
    let of = list.iter().find(|i| i["name"] == name).context("it")?;
    let word = |key: &str| of[key].as_str().unwrap_or("none").to_owned();
    Ok((word("role"), word("gate")))
}

fn flows(lab: &Lab) -> Result<usize> {
    lab.count_flows(1, &format!("-p tcp --orig-port-dst {PORT}"))
}

/// FW1 dies, FW2 has the addresses, and half a second later it commits. Returns what has become
/// of the connections, and how many flows FW2's kernel had before the commit.
fn late_commit(world: &World, gate: &str) -> Result<(Survey, usize)> {
    let mut pair = Pair::start(world, settings(gate), Options::default())?;
    pair.lab.open_rules()?;
    pair.fw1.own(&["primary"])?;
    pair.fw2.own(&["backup"])?;
    let every = Duration::from_millis(100);
    let pushes = Pushes::start(
        &pair.lab.a,
        &pair.lab.b,
        address(SERVER, PORT),
        CONNECTIONS,
        every,
    )?;
    pair.wait_external(&format!("dport={PORT} "), CONNECTIONS)?;
    pair.lab.cut(0)?;
    pair.kill(0);
    pair.lab.take_addresses(1)?;
    std::thread::sleep(Duration::from_millis(500));
    let early = flows(&pair.lab)?;
    let said = pair.fw2.own(&["primary"])?;
    ensure!(said.contains("commit: "), "{said}");
    std::thread::sleep(Duration::from_secs(4));
    let survey = pushes.finish(Duration::from_secs(2))?;
    ensure!(flows(&pair.lab)? >= survey.alive, "they go through FW2");
    Ok((survey, early))
}

/// An administrator flushes the rules, while the gate is closed and while it is open.
fn flushed(world: &World) -> Result<()> {
    let pair = Pair::start(world, settings(GATE), Options::default())?;
    let fw2 = &pair.lab.fw[1];
    let is_closed = || {
        fw2.run("nft list table inet ftfw_gate")
            .is_ok_and(|table| table.contains("0.0.0.0/0"))
    };
    pair.fw2.own(&["backup"])?;
    ensure!(is_closed(), "{:?}", standing(&pair, "default")?);
    fw2.run("nft flush ruleset")?;
    ensure!(!is_closed(), "it is gone");
    wait::until("it is closed again", SOON, is_closed)?;
    ensure!(standing(&pair, "default")? == ("backup".into(), "closed".into()));
    let log = pair.fw2.log();
    ensure!(log.contains("has been loaded again"), "{log}");
    // Or the rules alone, which leaves the sets.
    let drops = || {
        fw2.run("nft list table inet ftfw_gate")
            .is_ok_and(|table| table.matches("counter").count() == 6)
    };
    ensure!(drops(), "six rules count and drop");
    fw2.run("nft flush table inet ftfw_gate")?;
    ensure!(!drops() && is_closed(), "the sets are left");
    wait::until("the rules are there again", SOON, drops)?;
    ensure!(is_closed());
    // While it is open nobody looks; the next change loads it.
    pair.fw2.own(&["primary"])?;
    fw2.run("nft flush ruleset")?;
    let said = pair.fw2.own(&["backup"])?;
    ensure!(!said.contains("NOT DONE") && is_closed(), "{said}");
    // Another's table of this name has no such sets: the rules replace it.
    fw2.run("nft flush ruleset")?;
    fw2.run("nft add table inet ftfw_gate")?;
    wait::until("it is closed again", SOON, is_closed)
}

/// Goal: while `nft` does not end, the daemon goes on with everything else, and says that the gate
/// is open. Method: the process that runs `nft` is stopped, and the rules are flushed.
fn hangs(world: &World) -> Result<()> {
    let pair = Pair::start(world, settings(GATE), Options::default())?;
    let (fw2, pid) = (&pair.lab.fw[1], pair.fw2.pid());
    let is_closed = || {
        fw2.run("nft list table inet ftfw_gate")
            .is_ok_and(|table| table.contains("0.0.0.0/0"))
    };
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let helper = Pid::from_raw(children.trim().parse()?).context("a process id")?;
    pair.fw2.own(&["backup"])?;
    ensure!(is_closed());
    kill_process(helper, Signal::STOP)?;
    fw2.run("nft flush ruleset")?;
    let status = || -> Result<String> {
        let out = pair.fw2.own_command(&["status"])?.output()?;
        Ok(String::from_utf8(out.stdout)?)
    };
    let trouble = || {
        let status = status().unwrap_or_default();
        status.contains("the gate is not closed") && status.contains("nft has not ended yet")
    };
    wait::until("status says so", SOON, trouble)?;
    let mut longest = Duration::ZERO;
    for _ in 0..30 {
        let asked = Instant::now();
        ensure!(!status()?.is_empty(), "status answers");
        longest = longest.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    ensure!(longest < Duration::from_secs(1), "status took {longest:?}");
    ensure!(!is_closed(), "nobody has loaded it");
    kill_process(helper, Signal::CONT)?;
    wait::until("it is closed again", SOON, is_closed)?;
    wait::until("status says nothing of it", SOON, || !trouble())
}

/// The HA manager moves the addresses and calls nothing.
fn opens_late(world: &World) -> Result<()> {
    let mut pair = Pair::start(world, settings(GATE), Options::default())?;
    pair.fw2.own(&["backup"])?;
    // While it has no virtual address it stays closed, however long.
    std::thread::sleep(Duration::from_secs(5));
    ensure!(standing(&pair, "default")? == ("backup".into(), "closed".into()));
    pair.lab.cut(0)?;
    pair.kill(0);
    pair.lab.take_addresses(1)?;
    let took = connecting(&pair)?;
    ensure!(took > Duration::from_secs(2), "closed for 3 s: {took:?}");
    wait::until("the gate is open", Duration::from_secs(10), || {
        standing(&pair, "default").is_ok_and(|(_, gate)| gate == "open")
    })?;
    let took = connecting(&pair)?;
    ensure!(took < Duration::from_millis(900), "it is open: {took:?}");
    let log = pair.fw2.log();
    ensure!(
        log.contains("ftfw primary"),
        "the log says what to do: {log}"
    );
    Ok(())
}

fn daemon_dies(world: &World) -> Result<()> {
    let mut pair = Pair::start(world, settings(GATE), Options::default())?;
    pair.fw2.own(&["backup"])?;
    pair.lab.cut(0)?;
    pair.kill(1);
    pair.lab.take_addresses(1)?;
    let took = connecting(&pair)?;
    ensure!(took > Duration::from_millis(900), "it was closed: {took:?}");
    let took = connecting(&pair)?;
    ensure!(took < Duration::from_millis(900), "it is open: {took:?}");
    Ok(())
}

/// How long a new connection takes: a dropped SYN is sent again after 1 s and 3 s.
fn connecting(pair: &Pair) -> Result<Duration> {
    let began = Instant::now();
    let _open = pair.connect(SERVER, 1)?;
    Ok(began.elapsed())
}

/// Management and the dedicated link, of both families.
fn management(world: &World) -> Result<()> {
    let pair = Pair::start(world, settings(GATE), Options::default())?;
    pair.fw2.own(&["backup"])?;
    let a = &pair.lab.a;
    // The laboratory's rules accept pings alone. The first IPv6 ping finds the neighbour.
    a.run("ping -c 1 -W 2 192.168.0.12")?;
    a.run("ping -c 2 -W 2 fd00:0::12")?;
    let _open = pair.connect(SERVER, 5)?;
    pair.wait_external("dport=7 ", 5)
}

fn goes(world: &World) -> Result<()> {
    let mut pair = Pair::start(world, settings(GATE), Options::default())?;
    let table = |pair: &Pair| pair.lab.fw[1].run("nft list tables").unwrap_or_default();
    ensure!(table(&pair).contains("ftfw_gate"), "{}", table(&pair));
    pair.fw2.own(&["stop"])?;
    wait::until("the table is gone", SOON, || {
        !table(&pair).contains("ftfw_gate")
    })?;
    // After a kill the next start replaces what is left.
    pair.restart(0)?;
    pair.restart(0)?;
    let text = pair.lab.fw[0].run("nft list table inet ftfw_gate")?;
    ensure!(text.matches("hook prerouting").count() == 1, "{text}");
    Ok(())
}

fn rows(text: &str) -> Result<Vec<Value>> {
    let rows = text.lines().map(serde_json::from_str);
    Ok(rows.collect::<Result<_, _>>()?)
}

/// FW2's manager misses FW1's advertisements for a moment; no packets come meanwhile.
fn beside(world: &World) -> Result<()> {
    let pair = Pair::start(world, settings(""), Options::default())?;
    let mut open = pair.connect(SERVER, 20)?;
    pair.fw1.own(&["primary"])?;
    pair.fw2.own(&["backup"])?;
    pair.wait_external("dport=7 ", 20)?;
    pair.fw2.own(&["primary"])?;
    let taken = || pair.fw1.external("dport=7 ").is_ok_and(|f| f.len() == 20);
    wait::until("FW2 claims the flows", SOON, taken)?;
    pair.fw2.own(&["backup"])?;
    // Datagrams cause one bulk update in ten seconds.
    pair.wait_external_for("dport=7 ", 20, Duration::from_secs(15))?;
    wait::until("FW1 holds nothing of FW2's", SOON, || {
        pair.fw1.external("dport=7 ").is_ok_and(|f| f.is_empty())
    })?;
    let log = pair.fw1.log();
    ensure!(log.contains("was primary beside this firewall"), "{log}");
    ensure!(open.round(SOON) == 20, "all work");
    Ok(())
}

fn ritual(world: &World) -> Result<()> {
    let pair = Pair::start(world, settings(""), Options::default())?;
    let steps = |text: &str| -> Result<Vec<String>> {
        let rows = rows(text)?;
        let step = |row: &Value| row["step"].as_str().unwrap_or_default().to_owned();
        ensure!(
            rows.iter()
                .all(|r| r["status"] == "ok" && r["seconds"].is_f64()),
            "{text}"
        );
        Ok(rows.iter().map(step).collect())
    };
    let _open = pair.connect(SERVER, 20)?;
    pair.wait_external("dport=7 ", 20)?;
    let backup = pair.fw2.own(&["backup", "-o", "json"])?;
    ensure!(
        steps(&backup)? == ["schedule-flush", "ask-peer"],
        "{backup}"
    );
    let primary = pair.fw2.own(&["primary", "-o", "json"])?;
    let all = ["commit", "flush-caches", "read-kernel", "bulk"];
    ensure!(steps(&primary)? == all, "{primary}");
    ensure!(rows(&primary)?[0]["commit"]["created"] == 20, "{primary}");
    ensure!(standing(&pair, "default")?.0 == "primary");
    let again = pair.fw2.own(&["primary"])?;
    ensure!(again.contains("nothing to do"), "{again}");
    let fault = pair.fw2.own(&["fault"])?;
    ensure!(
        fault.contains("flush scheduled") && !fault.contains("peer asked"),
        "{fault}"
    );
    // The flush that `backup` has scheduled is called off by `primary`, as by `-c`.
    pair.fw2.own(&["primary"])?;
    ensure!(pair.lab.count_flows(1, "-p tcp --orig-port-dst 7")? == 20);
    // A slip does not make calls without a name ambiguous.
    pair.fw2.own(&["backup", "--instance", "SLIP"])?;
    let again = pair.fw2.own(&["primary"])?;
    ensure!(
        again.contains("`default` has been primary before"),
        "{again}"
    );
    pair.fw2.own(&["forget", "--instance", "SLIP"])?;
    ensure!(standing(&pair, "SLIP").is_err(), "it is forgotten");
    let error = pair.fw2.own(&["forget", "--instance", "SLIP"]).unwrap_err();
    ensure!(format!("{error:#}").contains("one of default"), "{error:#}");
    Ok(())
}

/// An operator commits, and the HA manager calls in the middle of it.
fn beside_a_commit(world: &World) -> Result<()> {
    let pair = Pair::start(world, settings(GATE), Options::default())?;
    pair.fw2.own(&["backup"])?;
    datagrams::create(&pair.lab.fw[0], world.dir(), FLOWS)?;
    wait::until("FW2 has them", 4 * SOON, || {
        let held = pair.fw2.own(&["flows", "external", "--count"]);
        held.is_ok_and(|n| n.trim().parse() == Ok(FLOWS))
    })?;
    let mut by_hand = pair.fw2.own_command(&["commit"])?;
    let mut by_hand = Process(by_hand.stdout(Stdio::null()).spawn()?);
    let committed = || -> Result<usize> { Ok(pair.lab.fw[1].run("conntrack -C")?.trim().parse()?) };
    wait::until("the commit runs", SOON, || {
        committed().is_ok_and(|n| n > FLOWS / 100)
    })?;
    let mut primary = pair.fw2.own_command(&["primary"])?;
    let mut primary = Process(primary.stdout(Stdio::piped()).spawn()?);
    // Proof that it has waited: it is primary and the gate is closed, and the operator's commit
    // has not ended behind that look.
    let mut waits = false;
    while by_hand.0.try_wait()?.is_none() {
        let is_closed = standing(&pair, "default")? == ("primary".into(), "closed".into());
        waits |= is_closed && by_hand.0.try_wait()?.is_none();
    }
    ensure!(
        waits,
        "the gate has opened, or the operator's commit was over too soon"
    );
    ensure!(by_hand.0.wait()?.success(), "the operator's commit");
    ensure!(primary.0.wait()?.success(), "`ftfw primary`");
    ensure!(committed()? >= FLOWS, "all are in the kernel");
    let again = pair.fw2.own(&["primary"])?;
    ensure!(again.contains("nothing to do"), "{again}");
    Ok(())
}

/// What an operator, or the original's script, says last counts: a commit that ends behind `-t`
/// makes no primary.
fn backup_beside_a_commit(world: &World) -> Result<()> {
    let pair = Pair::start(world, settings(GATE), Options::default())?;
    datagrams::create(&pair.lab.fw[0], world.dir(), FLOWS)?;
    wait::until("FW2 has them", 4 * SOON, || {
        let held = pair.fw2.own(&["flows", "external", "--count"]);
        held.is_ok_and(|n| n.trim().parse() == Ok(FLOWS))
    })?;
    let mut by_hand = pair.fw2.own_command(&["commit"])?;
    let mut by_hand = Process(by_hand.stdout(Stdio::null()).spawn()?);
    let is_committing = || status(&pair).is_ok_and(|status| status["committing"] == true);
    wait::until("the commit runs", SOON, is_committing)?;
    pair.fw2.ask(&["-t"])?;
    ensure!(
        by_hand.0.try_wait()?.is_none(),
        "the commit was over too soon"
    );
    ensure!(by_hand.0.wait()?.success(), "the commit");
    wait::until("its end is noted", SOON, || !is_committing())?;
    ensure!(standing(&pair, "default")? == ("backup".into(), "closed".into()));
    Ok(())
}

/// keepalived's FIFO has a next reader after a reload: the one that ends teaches nothing old.
fn reader_ends(world: &World) -> Result<()> {
    let pair = Pair::start(world, settings(GATE), Options::default())?;
    let path = world.dir().join("fifo");
    let path = path.to_str().context("a path")?;
    pair.lab.fw[1].run(&format!("mkfifo {path}"))?;
    let mut reader = pair.fw2.own_command(&["keepalived", path])?;
    let mut reader = Process(reader.stdout(Stdio::null()).spawn()?);
    let write = fs::OpenOptions::new().write(true).open(path);
    write?.write_all(b"INSTANCE \"VI_1\" MASTER 100\n")?;
    let role = || standing(&pair, "default").map(|s| s.0).unwrap_or_default();
    wait::until("FW2 is primary", SOON, || role() == "primary")?;
    let pid = Pid::from_raw(reader.0.id().cast_signed()).context("a process id")?;
    kill_process(pid, Signal::TERM)?;
    // The next reader's doing.
    pair.fw2.own(&["backup"])?;
    ensure!(reader.0.wait()?.success(), "the reader ends");
    ensure!(role() == "backup", "{}", role());
    Ok(())
}

fn original(world: &World) -> Result<()> {
    let pair = Pair::start(world, settings(GATE), Options::default())?;
    ensure!(standing(&pair, "default")? == ("unknown".into(), "open".into()));
    pair.fw2.ask(&["-t"])?;
    ensure!(standing(&pair, "default")? == ("backup".into(), "closed".into()));
    pair.fw2.ask(&["-c"])?;
    ensure!(standing(&pair, "default")? == ("primary".into(), "open".into()));
    Ok(())
}

/// FW2 is primary for one instance and backup for the other.
fn instances(world: &World) -> Result<()> {
    let settings = Settings {
        mode_lines: "PurgeTimeout 1".into(),
        ..settings(TWO)
    };
    let pair = Pair::start(world, settings, Options::default())?;
    let sets = || pair.lab.fw[1].run("nft list table inet ftfw_gate");
    pair.fw2.own(&["backup", "--instance", "IN"])?;
    pair.fw2.own(&["backup", "--instance", "OUT"])?;
    ensure!(
        sets()?.contains("0.0.0.0/0"),
        "it forwards nothing: {}",
        sets()?
    );
    let said = pair.fw2.own(&["primary", "--instance", "OUT"])?;
    ensure!(said.contains("instance `OUT` is primary"), "{said}");
    let text = sets()?;
    ensure!(
        !text.contains("0.0.0.0/0") && !text.contains("192.168.1.100"),
        "{text}"
    );
    ensure!(
        text.contains("192.168.0.100") && text.contains("192.168.7.0/24"),
        "{text}"
    );
    // A second change of the other one schedules no flush: FW2 is primary.
    pair.fw2.own(&["primary", "--instance", "IN"])?;
    let _flow = pair.lab.fw[1].run(
        "conntrack -I -p udp -s 10.9.0.1 -d 10.9.0.2 --sport 1 --dport 2 -t 600 -u SEEN_REPLY",
    )?;
    let backup = pair.fw2.own(&["backup", "--instance", "IN"])?;
    ensure!(!backup.contains("flush scheduled"), "{backup}");
    std::thread::sleep(Duration::from_secs(3));
    ensure!(pair.lab.count_flows(1, "-p udp -s 10.9.0.1")? == 1);
    ensure!(standing(&pair, "OUT")? == ("primary".into(), "open".into()));
    ensure!(standing(&pair, "IN")? == ("backup".into(), "closed".into()));
    Ok(())
}

fn wrong(world: &World) -> Result<()> {
    let pair = Pair::start(world, settings(TWO), Options::default())?;
    for words in [&["primary"][..], &["primary", "--instance", "ELSE"]] {
        let error = format!("{:#}", pair.fw2.own(words).unwrap_err());
        ensure!(error.contains("one of IN, OUT"), "{error}");
    }
    Ok(())
}

/// keepalived runs no notify_backup when it stops.
fn stopped(world: &World) -> Result<()> {
    let pair = Pair::start(world, settings(GATE), Options::default())?;
    pair.lab.drop_addresses(0)?;
    for calls in [Calls::Roles, Calls::Fifo] {
        let first = Keepalived::start_with(&pair.lab, 1, Some(&pair.fw2), State::Primary, calls)?;
        let role = || standing(&pair, "default").unwrap_or_default();
        wait::until("FW2 is primary", SOON, || role().0 == "primary")?;
        first.stop()?;
        wait::until("FW2 is a backup", SOON, || {
            role() == ("backup".into(), "closed".into())
        })
        .with_context(|| format!("{calls:?}"))?;
    }
    Ok(())
}

/// Roles come by keepalived's FIFO, also to a daemon that is started again, and the last one
/// counts after changes in quick succession.
fn fifo(world: &World) -> Result<()> {
    let mut pair = Pair::start(world, settings(""), Options::default())?;
    pair.lab.drop_addresses(0)?;
    let start =
        |n, daemon, state| Keepalived::start_with(&pair.lab, n, Some(daemon), state, Calls::Fifo);
    let mut first = start(0, &pair.fw1, State::Primary)?;
    let _second = start(1, &pair.fw2, State::Backup)?;
    let is = |daemon: &Daemon, role: &str| {
        let status = daemon.own(&["status", "-o", "json"]).unwrap_or_default();
        let status: Value = serde_json::from_str(&status).unwrap_or_default();
        status["instances"][0]["role"] == role
    };
    let both = |pair: &Pair, roles: [&str; 2]| {
        let what = format!("they are {roles:?}");
        wait::until(&what, Duration::from_secs(15), || {
            is(&pair.fw1, roles[0]) && is(&pair.fw2, roles[1])
        })
    };
    both(&pair, ["primary", "backup"])?;
    first.lose(true)?;
    both(&pair, ["backup", "primary"])?;
    // A new daemon knows no role.
    pair.restart(1)?;
    both(&pair, ["backup", "primary"])?;
    // The reader that a reload starts knows what the one before knew.
    first.reload()?;
    std::thread::sleep(Duration::from_secs(2));
    pair.restart(0)?;
    both(&pair, ["backup", "primary"])?;
    for loses in [false, true, false, true, false] {
        first.lose(loses)?;
        std::thread::sleep(Duration::from_millis(400));
    }
    both(&pair, ["primary", "backup"])
}
