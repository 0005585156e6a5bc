//! Commands that look and compare: `ftfw diff`, and who else listens in `ftfw status`.

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::daemon::{Daemon, Kind, Mode, Settings};
use lab::node::Process;
use lab::topology::{Lab, Options, SERVER};
use lab::traffic::datagrams;
use lab::wait;
use lab::world::World;
use serde_json::Value;

use crate::Scenario;
use crate::pair::{PORT, Pair, SOON};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("view/diff_finds_what_the_daemon_lacks", kernel),
    ("view/diff_finds_what_the_peer_lacks", peer),
    ("view/diff_is_not_fooled_by_flows_that_change", churn),
    ("view/status_names_other_listeners", listeners),
];

const COUNT: usize = 40;

fn settings() -> Settings {
    Settings::new(Mode::Ftfw)
}

/// Exit status and standard output of one of our commands, with a text on its standard input.
fn ask(daemon: &Daemon, words: &[&str], input: &str) -> Result<(i32, String)> {
    let mut command = daemon.own_command(words)?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("its input")?;
    // It may not read to the end.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let out = child.wait_with_output()?;
    let said = String::from_utf8([out.stdout, out.stderr].concat())?;
    Ok((out.status.code().context("a status")?, said))
}

/// Goal: what the internal cache lacks is found, and named.
/// Method: the cache is emptied, and the kernel goes on.
fn kernel(world: &World) -> Result<()> {
    let pair = Pair::start(world, settings(), Options::default())?;
    let _open = pair.connect(SERVER, COUNT)?;
    let (code, said) = ask(&pair.fw1, &["diff"], "")?;
    ensure!(code == 0, "{said}");
    let equal = format!("equal: {COUNT} flows are the same here and in the kernel");
    ensure!(said.starts_with(&equal), "{said}");
    pair.fw1.own(&["flush", "internal"])?;
    let (code, said) = ask(&pair.fw1, &["diff"], "")?;
    ensure!(code == 1, "{said}");
    let verdict = format!("not equal: 0 same, 0 only here, {COUNT} only in the kernel");
    ensure!(said.starts_with(&verdict), "{said}");
    let examples = said
        .lines()
        .filter(|l| l.contains(&format!("dport={PORT}")));
    ensure!(
        examples.count() == 20 && said.contains("... and 20 more"),
        "{said}"
    );
    let (_, said) = ask(&pair.fw1, &["diff", "-o", "json"], "")?;
    let row: Value = serde_json::from_str(&said)?;
    ensure!(row["only_there"] == COUNT && row["equal"] == false, "{row}");
    ensure!(
        row["examples"][0]["flow"]["state"] == "ESTABLISHED",
        "{row}"
    );
    Ok(())
}

/// Goal: a program that makes the kernel send events is named, wherever it listens.
/// Method: FW1 alone; then `conntrack -E` beside it, and beside B.
fn listeners(world: &World) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let fw1 = Daemon::start(Kind::Ftfw, &lab.fw[0], 0, &settings(), world.dir())?;
    let fw1 = fw1.context("no daemon")?;
    let seen = || -> Result<Value> {
        let (_, said) = ask(&fw1, &["status", "-o", "json"], "")?;
        Ok(serde_json::from_str::<Value>(&said)?["listeners"].take())
    };
    ensure!(seen()?.is_null(), "FW1's own daemon does not count");
    for (node, is_here) in [(&lab.fw[0], true), (&lab.b, false)] {
        let mut c = node.command("conntrack");
        let c = c.arg("-E").stdout(Stdio::null()).stderr(Stdio::null());
        let _listener = Process(c.spawn()?);
        wait::until("it listens", SOON, || seen().is_ok_and(|l| !l.is_null()))?;
        let found = seen()?;
        let [one] = found.as_array().map_or(&[][..], Vec::as_slice) else {
            bail!("one listener: {found}");
        };
        ensure!(
            one["program"] == "conntrack" && one["here"] == is_here,
            "{one}"
        );
        let (_, said) = ask(&fw1, &["status"], "")?;
        ensure!(said.contains("listens to new flows"), "{said}");
    }
    Ok(())
}

/// Goal: what the peer holds is compared field by field.
/// Method: its listing as it is, and with a line too few, one too many, and a changed one.
fn peer(world: &World) -> Result<()> {
    let options = Options {
        mark: Some(7),
        ..Options::default()
    };
    let pair = Pair::start(world, settings(), options)?;
    let _open = pair.connect(SERVER, COUNT)?;
    pair.wait_external(&format!("dport={PORT} "), COUNT)?;
    let listing = || pair.fw2.own(&["flows", "external", "-o", "json"]);
    let compare = |text: &str| ask(&pair.fw1, &["diff", "--peer", "-"], text);
    // The last state of a flow may still be on its way.
    let mut said = String::new();
    wait::until("they are equal", SOON, || {
        let answer = listing().and_then(|text| compare(&text));
        said = answer
            .as_ref()
            .map_or_else(|e| e.to_string(), |a| a.1.clone());
        answer.is_ok_and(|(code, _)| code == 0)
    })
    .with_context(|| said.clone())?;
    let equal = format!("equal: {COUNT} flows are the same here and at the peer");
    ensure!(said.starts_with(&equal), "{said}");

    let text = listing()?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    ensure!(lines.len() == COUNT, "{text}");
    lines.remove(0);
    lines[0] = lines[0].replace("\"mark\":7", "\"mark\":8");
    let mut more: Value = serde_json::from_str(&lines[1])?;
    more["orig"]["sport"] = Value::from(1);
    lines.push(more.to_string());
    let damaged = lines.join("\n") + "\n";
    // Young flows may have come too late for a listing.
    let mut answer = (0, String::new());
    wait::until("all are old enough", Duration::from_secs(15), || {
        answer = compare(&damaged).unwrap_or_default();
        answer.1.contains("1 only here")
    })
    .with_context(|| answer.1.clone())?;
    let (code, said) = answer;
    let verdict = format!(
        "not equal: {} same, 1 only here, 1 only at the peer, 1 different",
        COUNT - 2
    );
    ensure!(code == 1 && said.starts_with(&verdict), "{said}");
    ensure!(said.contains(": mark 7 here, 8 there\n"), "{said}");
    let lone = said.lines().find(|l| l.starts_with("only at the peer"));
    ensure!(lone.is_some_and(|l| l.contains("sport=1 ")), "{said}");

    // A file, and what is none of an external cache.
    let file = world.dir().join("listing");
    fs::write(&file, listing()?)?;
    let name = file.display().to_string();
    let (code, said) = ask(&pair.fw1, &["diff", "--peer", &name], "")?;
    ensure!(code == 0, "{said}");
    for (wrong, error) in [
        ("x\n".to_owned(), "line 1"),
        (
            pair.fw1.own(&["flows", "internal", "-o", "json"])?,
            "no flows of an external",
        ),
        (String::new(), "it is empty"),
    ] {
        let (code, said) = compare(&wrong)?;
        ensure!(code == 1 && said.contains(error), "{error}: {said}");
    }
    Ok(())
}

/// Goal: flows that come and go while it looks are no difference.
/// Method: 3000 new flows a second that live for a second or two, and ten comparisons.
fn churn(world: &World) -> Result<()> {
    let lab = datagrams::lab()?;
    lab.fw[0].sysctl("net/netfilter/nf_conntrack_udp_timeout", "1")?;
    let start = |n: usize| -> Result<Daemon> {
        let daemon = Daemon::start(Kind::Ftfw, &lab.fw[n], n, &settings(), world.dir())?;
        daemon.context("no daemon")
    };
    let (fw1, _fw2) = (start(0)?, start(1)?);
    let stop = Arc::new(AtomicBool::new(false));
    let (until, node) = (Arc::clone(&stop), lab.a.clone());
    let sender = thread::spawn(move || -> Result<()> {
        while !until.load(Ordering::Relaxed) {
            datagrams::send(&node, SERVER, 300)?;
            thread::sleep(Duration::from_millis(90));
        }
        Ok(())
    });
    thread::sleep(Duration::from_secs(1));
    let mut looked_again = 0;
    let mut wrong = Vec::new();
    for _ in 0..10 {
        let (code, said) = ask(&fw1, &["diff"], "")?;
        looked_again += usize::from(said.contains("settled") || said.contains("changing"));
        if code != 0 {
            wrong.push(said);
        }
    }
    stop.store(true, Ordering::Relaxed);
    sender
        .join()
        .map_err(|_| anyhow::anyhow!("it panicked"))??;
    // On a busy machine one of thousands of flows of a second may be caught twice in a row. Without
    // the second look hundreds are, each time.
    ensure!(wrong.len() <= 2, "{}", wrong.join("\n"));
    let is_small = |said: &String| said.lines().count() <= 4;
    ensure!(wrong.iter().all(is_small), "{}", wrong.join("\n"));
    // Otherwise nothing has been shown.
    ensure!(looked_again > 0, "nothing changed while it looked");
    Ok(())
}
