//! `ftfw top`: rows of JSON, and a terminal that is left as it was found.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use lab::daemon::{Daemon, Mode, Settings};
use lab::topology::{Options, SERVER};
use lab::wait;
use lab::world::World;
use serde_json::Value;

use crate::Scenario;
use crate::pair::{Pair, SOON};

pub(crate) const SCENARIOS: &[Scenario] = &[("top/what_goes_on_is_shown", top)];

/// What enters and leaves the terminal's other screen.
const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";

/// Goal: rates and talkers are those of the traffic; a key and a signal restore the terminal.
fn top(world: &World) -> Result<()> {
    let mut pair = Pair::start(world, Settings::new(Mode::Ftfw), Options::default())?;
    pair.lab.fw[0].sysctl("net/netfilter/nf_conntrack_acct", "0")?;
    rows(&pair)?;
    let out = pair
        .fw1
        .own_command(&["top"])?
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(
        out.status.code() == Some(1) && said.contains("no terminal"),
        "{said}"
    );
    terminal(&mut pair, false)?;
    terminal(&mut pair, true)
}

/// Connections are opened until the rows tell of them.
fn rows(pair: &Pair) -> Result<()> {
    let mut child = (pair.fw1)
        .own_command(&["top", "-o", "json", "--interval", "0.2"])?
        .stdout(Stdio::piped())
        .spawn()?;
    let rows = lines(child.stdout.take().context("its output")?);
    let seen = until_told(pair, &rows);
    child.kill()?;
    child.wait()?;
    seen?;
    let few = pair.fw1.own(&[
        "top",
        "-o",
        "json",
        "-i",
        "0.1",
        "-n",
        "2",
        "--talkers",
        "0",
    ])?;
    let few: Vec<Value> = few
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    ensure!(few.len() == 2 && few[1]["rates"].is_object(), "{few:?}");
    ensure!(few.iter().all(|row| row["talkers"].is_null()), "{few:?}");
    Ok(())
}

fn until_told(pair: &Pair, rows: &Receiver<String>) -> Result<()> {
    let next = || -> Result<Value> {
        let row = rows.recv_timeout(SOON).context("the next row")?;
        Ok(serde_json::from_str(&row)?)
    };
    let first = next()?;
    ensure!(
        first["rates"].is_null() && first["talkers"]["by"] == "flows",
        "{first}"
    );
    let mut open = vec![pair.connect(SERVER, 20)?];
    let mut row = next()?;
    let rate = |row: &Value, name: &str| row["rates"][name].as_f64().unwrap_or(0.0);
    while ["created", "events", "bytes_sent"]
        .iter()
        .any(|name| rate(&row, name) <= 0.0)
    {
        ensure!(open.len() < 50, "no rates of 50 connections: {row}");
        open.push(pair.connect(SERVER, 1)?);
        row = next()?;
    }
    // Only flows that begin from now on are accounted.
    pair.lab.fw[0].sysctl("net/netfilter/nf_conntrack_acct", "1")?;
    open.push(pair.connect(SERVER, 5)?);
    // A reading may have begun while they were opened.
    let client_flows = |row: &Value| {
        let list = row["talkers"]["list"].as_array().into_iter().flatten();
        let client = list.clone().find(|t| t["address"] == "192.168.0.3")?;
        (client["bytes"].as_u64()? > 0).then(|| client["flows"].as_u64())?
    };
    let begun = Instant::now();
    while row["talkers"]["by"] != "bytes" || client_flows(&row) < Some(25) {
        ensure!(begun.elapsed() < SOON, "no client of 25 flows: {row}");
        row = next()?;
    }
    ensure!(
        row["peer"]["epoch"].is_u64() && row["verdict"].is_string(),
        "{row}"
    );
    Ok(())
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (tx, rx) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if tx.send(line).is_err() {
                return;
            }
        }
    });
    rx
}

/// In a terminal, which `script` makes. The daemon ends and is started again meanwhile. By a key,
/// or by a signal, `top` ends, and then the shell reports how the terminal is set.
fn terminal(pair: &mut Pair, by_signal: bool) -> Result<()> {
    let name = if by_signal { "by-signal" } else { "by-key" };
    let typescript = pair.dir.join(name);
    let mut child = in_terminal(&pair.fw1, &typescript)?;
    let shown = || fs::read_to_string(&typescript).unwrap_or_default();
    let ended = (|| -> Result<()> {
        wait::until("it is shown", SOON, || shown().contains("unacknowledged"))?;
        ensure!(shown().contains(ENTER), "{:?}", shown());
        pair.kill(0);
        wait::until("the daemon is missed", SOON, || {
            shown().contains("no daemon at")
        })?;
        pair.restart(0)?;
        wait::until("it is found again", SOON, || shown().contains("restarted"))?;
        if by_signal {
            let pid = grandchild(child.id())?;
            let kill = Command::new("kill").args(["-TERM", &pid]).status()?;
            ensure!(kill.success(), "{kill}");
        } else {
            child.stdin.as_mut().context("its input")?.write_all(b"q")?;
        }
        wait::until("it ends", SOON, || shown().contains("status 0"))
    })();
    child.kill()?;
    child.wait()?;
    ended.with_context(|| format!("{:?}", shown()))?;
    let shown = shown();
    let (_, after) = shown.rsplit_once(LEAVE).context("the screen is not left")?;
    ensure!(
        after.contains(" icanon") && after.contains(" echo"),
        "{after:?}"
    );
    Ok(())
}

fn in_terminal(daemon: &Daemon, typescript: &std::path::Path) -> Result<Child> {
    let top = daemon.own_command(&["top", "--interval", "0.2"])?;
    let words = std::iter::once(top.get_program()).chain(top.get_args());
    let words: Vec<_> = words.map(|w| w.to_string_lossy().into_owned()).collect();
    let size = "stty rows 24 cols 100";
    // The status comes last: what waits for it may then read how the terminal is set.
    let line = format!(
        "{size}; {}; status=$?; stty -a; echo status $status",
        words.join(" ")
    );
    let mut script = Command::new("script");
    script
        .args(["--quiet", "--flush", "--command", &line])
        .arg(typescript);
    script.env("TERM", "xterm").env("SHELL", "/bin/sh");
    let child = script.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    Ok(child)
}

/// The program that the shell of `script` runs.
fn grandchild(script: u32) -> Result<String> {
    let child_of = |pid: &str| -> Result<String> {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let first = children.split_whitespace().next();
        Ok(first
            .with_context(|| format!("{pid} has no child"))?
            .to_owned())
    };
    child_of(&child_of(&script.to_string())?)
}
