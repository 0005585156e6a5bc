//! `ftfw rehearse` foretells a commit: each prediction is held against the commit that follows.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use flow::{Flow, Name, Status, Tuple};
use lab::daemon::{Daemon, Kind, Mode, Settings};
use lab::topology::{Lab, Options};
use lab::world::World;
use lab::{bench, hostile, kernel, wait};
use serde_json::Value;
use wire::v1::FlowOptions;

use crate::Scenario;
use crate::pair::SOON;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("rehearse/a_commit_does_what_was_foretold", foretold),
    ("rehearse/a_table_that_is_too_full", full),
];

/// Flows that nothing is in the way of.
const GOOD: u32 = 20;

/// A backup, to which a peer announces `flows`.
fn backup(world: &World, lab: &Lab, flows: &[Flow]) -> Result<Daemon> {
    let settings = Settings::new(Mode::Notrack);
    let daemon = Daemon::start(Kind::Ftfw, &lab.fw[1], 1, &settings, world.dir())?;
    let daemon = daemon.context("no daemon")?;
    let options = FlowOptions {
        timeout: true,
        window_scale: false,
    };
    let datagrams = hostile::announcements(flows.iter().copied(), options)?;
    hostile::send(lab, 0, datagrams, Duration::from_micros(200))?;
    wait::until("the backup knows the flows", SOON, || {
        daemon
            .external("src=")
            .is_ok_and(|l| l.len() == flows.len())
    })?;
    Ok(daemon)
}

/// Exit status, and the row of a command with `-o json`.
fn row(daemon: &Daemon, words: &[&str]) -> Result<(i32, Value)> {
    let out = daemon
        .own_command(&[words, &["-o", "json"]].concat())?
        .output()?;
    let code = out.status.code().context("a status")?;
    let text = String::from_utf8([out.stdout, out.stderr].concat())?;
    let row = serde_json::from_str(&text).with_context(|| format!("{words:?}: {code} {text}"))?;
    Ok((code, row))
}

fn number(row: &Value, field: &str) -> Result<u64> {
    row[field]
        .as_u64()
        .with_context(|| format!("{field} of {row}"))
}

/// Commits, and holds the numbers against those that a rehearsal has printed.
fn hold_against(daemon: &Daemon, foretold: &Value) -> Result<()> {
    let (code, done) = row(daemon, &["commit", "--only", "flows"])?;
    for (said, was) in [
        ("created", "created"),
        ("updated", "updated"),
        ("refused", "failed"),
    ] {
        ensure!(
            number(foretold, said)? == number(&done, was)?,
            "foretold {foretold}, done {done}"
        );
    }
    ensure!(code == if number(&done, "failed")? > 0 { 3 } else { 0 });
    Ok(())
}

/// Names and numbers of the reasons.
fn reasons(row: &Value) -> Vec<(String, u64)> {
    let all = row["reasons"].as_array().into_iter().flatten();
    let pair = |r: &Value| {
        let name = r["reason"].as_str().unwrap_or_default();
        (name.to_owned(), r["count"].as_u64().unwrap_or(0))
    };
    let mut all: Vec<_> = all.map(pair).collect();
    all.sort();
    all
}

/// A flow of this kernel that nothing translates, with this original tuple.
fn plain(orig: Tuple) -> Flow {
    let mut flow = bench::flow(0);
    (flow.orig, flow.reply) = (orig, orig.inverted());
    flow.status = Status(0)
        .with(Status::SEEN_REPLY)
        .with(Status::ASSURED)
        .with(Status::CONFIRMED);
    flow
}

/// Goal: whatever can be in the way of a flow is foretold, and the table does not change.
fn foretold(world: &World) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let mut flows: Vec<_> = (0..GOOD).map(bench::flow).collect();
    let mut next = {
        let mut n = GOOD;
        move || {
            n += 1;
            bench::flow(n)
        }
    };
    let mut live = Vec::new();
    // A flow of this kernel has the translated tuple, or the original one the other way.
    let by_reply = next();
    live.push(plain(by_reply.reply.inverted()));
    let by_orig = next();
    live.push(plain(by_orig.orig.inverted()));
    // It is there already: with the same reply tuple, and without the translation.
    let same = next();
    live.push(same);
    let replaced = next();
    live.push(plain(replaced.orig));
    // Two flows of the peer are translated to one tuple.
    let (twin, mut other) = (next(), next());
    other.reply = twin.reply;
    let mut helped = [next(), next()];
    for flow in &mut helped {
        flow.helper = Name::new(b"none-such");
    }
    // The master is here and not at the peer; another one is nowhere.
    let master = plain(next().orig);
    live.push(master);
    let mut children = [next(), next()];
    children[0].master = Some(master.orig);
    children[1].master = Some(next().orig);
    flows.extend([by_reply, by_orig, same, replaced, twin, other]);
    flows.extend(helped);
    flows.extend(children);

    kernel::create(&lab.fw[1], &live)?;
    let daemon = backup(world, &lab, &flows)?;
    let before: Vec<_> = kernel::dump(&lab.fw[1])?.iter().map(Flow::key).collect();
    let (code, row) = row(&daemon, &["rehearse"])?;
    let after: Vec<_> = kernel::dump(&lab.fw[1])?.iter().map(Flow::key).collect();
    ensure!(before == after, "the kernel's table has changed");

    ensure!(code == 3 && row["good"] == false, "{code} {row}");
    let numbers = ["flows", "created", "updated", "refused", "lessened"].map(|n| row[n].as_u64());
    let (all, refused, lessened) = (flows.len() as u64, 3, 3);
    let wanted = [all, all - refused - 1, 1, refused, lessened];
    ensure!(numbers == wanted.map(Some), "{wanted:?}: {row}");
    let wanted = [
        ("no-helper", 2),
        ("no-master", 1),
        ("taken-here", 2),
        ("taken-there", 1),
    ];
    ensure!(
        reasons(&row) == wanted.map(|(name, n)| (name.to_owned(), n)),
        "{row}"
    );
    let holders = row["reasons"].as_array().into_iter().flatten();
    let mut holders = holders.filter(|r| r["reason"] == "taken-here");
    let examples = &holders.next().context("a reason")?["examples"];
    ensure!(examples[0]["holder"]["orig"].is_object(), "{examples}");

    let text = daemon.own_command(&["rehearse"])?.output()?;
    let said = String::from_utf8(text.stdout)?;
    let first = format!("not all {all} flows: {refused} would be refused");
    ensure!(said.starts_with(&first), "{said}");
    ensure!(said.contains("helper=none-such"), "{said}");

    let mut command = lab.fw[1].command("setpriv");
    command.args(["--bounding-set=-sys_admin", "--"]);
    command.arg(Daemon::program()?).arg("-C");
    command.arg(daemon.config()).arg("rehearse");
    let out = command.output()?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.code() == Some(1), "{}: {said}", out.status);
    ensure!(said.contains("CAP_SYS_ADMIN"), "{said}");

    hold_against(&daemon, &row)?;
    let (_, status) = self::row(&daemon, &["status"])?;
    ensure!(number(&status, "without_helper")? == 2 && number(&status, "clashes")? == refused);
    // What a commit has done is there, and what it could not do it still cannot.
    let (_, again) = self::row(&daemon, &["rehearse"])?;
    ensure!(number(&again, "created")? == 0, "{again}");
    hold_against(&daemon, &again)
}

/// Goal: what the kernel's table has no room for is foretold.
/// Method: it is filled but for a few entries, with flows that the kernel does not drop.
fn full(world: &World) -> Result<()> {
    const FREE: usize = 8;
    let max = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max")?;
    let max: usize = max.trim().parse()?;
    let lab = Lab::build(Options::default())?;
    let fw2 = &lab.fw[1];
    // The daemon's own datagrams make no flow that could be dropped.
    for chain in ["OUTPUT", "PREROUTING"] {
        fw2.run(&format!(
            "iptables -t raw -I {chain} -p udp -j CT --notrack"
        ))?;
    }
    fw2.run("conntrack -F")?;
    let fill = max - FREE;
    let flow = |n: usize| bench::flow(GOOD + n as u32);
    for first in (0..fill).step_by(4096) {
        let part: Vec<_> = (first..fill.min(first + 4096)).map(flow).collect();
        kernel::create(fw2, &part)?;
    }
    let flows: Vec<_> = (0..GOOD).map(bench::flow).collect();
    let daemon = backup(world, &lab, &flows)?;
    let (code, row) = row(&daemon, &["rehearse"])?;
    let refused = u64::from(GOOD) - FREE as u64;
    ensure!(code == 3 && number(&row, "room")? == FREE as u64, "{row}");
    ensure!(reasons(&row) == [("full".to_owned(), refused)], "{row}");
    hold_against(&daemon, &row)
}
