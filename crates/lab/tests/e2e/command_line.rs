//! Our own command line, and files that conntrackd accepts.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use control::call::{CALL_MAX_BYTES, CODE};
use lab::daemon::{Daemon, Kind, Mode, Settings};
use lab::topology::{Lab, Options, SERVER};
use lab::wait;
use lab::world::World;
use serde_json::Value;

use crate::Scenario;
use crate::pair::{PORT, Pair, SOON};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("command_line/a_takeover_by_our_own_commands", takeover),
    ("command_line/events_are_shown_as_they_happen", events),
    ("command_line/what_cannot_be_done_is_explained", refusals),
    ("command_line/conntrackd_is_recognised", other_daemon),
    ("command_line/a_damaged_call_is_answered", damaged_calls),
    (
        "command_line/a_commit_of_nothing_prints_zeros",
        commit_of_nothing,
    ),
    ("command_line/check_touches_nothing", check),
    (
        "command_line/the_status_is_right_if_nobody_reads",
        closed_output,
    ),
    (
        "command_line/what_conntrackd_accepts_is_accepted",
        accepted_files,
    ),
];

const COUNT: usize = 40;

fn ftfw_pair(world: &World) -> Result<Pair> {
    Pair::start(world, Settings::new(Mode::Ftfw), Options::default())
}

/// The rows of a reading command.
fn rows(daemon: &Daemon, arguments: &[&str]) -> Result<Vec<Value>> {
    let arguments = [arguments, &["-o", "json"]].concat();
    let text = daemon.own(&arguments)?;
    let rows = text.lines().map(serde_json::from_str);
    Ok(rows.collect::<Result<_, _>>()?)
}

fn status(daemon: &Daemon) -> Result<Value> {
    let mut rows = rows(daemon, &["status"])?;
    ensure!(rows.len() == 1, "{} rows of status", rows.len());
    Ok(rows.remove(0))
}

/// Goal: the commands of a failover script, in our own words.
fn takeover(world: &World) -> Result<()> {
    let mut pair = ftfw_pair(world)?;
    let mut open = pair.connect(SERVER, COUNT)?;
    pair.wait_external(&format!("dport={PORT} "), COUNT)?;
    pair.fw2.own(&["flush", "kernel-later"])?;
    let backup = status(&pair.fw2)?;
    ensure!(backup["role"] == "backup" && backup["peer"]["epoch"].is_u64());
    ensure!(backup["external"]["entries"] == COUNT, "{backup}");

    let port = format!("dport={PORT}");
    let external = rows(&pair.fw2, &["flows", "external", &port])?;
    ensure!(external.len() == COUNT);
    ensure!(
        external
            .iter()
            .all(|f| f["confirmed"] == true && f["state"] == "ESTABLISHED")
    );
    let translated = |f: &Value| f["reply"]["dst"] == "192.168.1.100";
    ensure!(external.iter().all(translated), "the reply tuple is known");
    let one = external[0]["orig"]["sport"].to_string();
    let found = rows(&pair.fw2, &["flows", "external", &format!("sport={one}")])?;
    ensure!(found.len() == 1 && found[0] == external[0]);
    ensure!(rows(&pair.fw2, &["flows", "external", "nat=none"])?.is_empty());
    // The same as text: a line each.
    let text = pair.fw2.own(&["flows", "external", "proto=tcp"])?;
    ensure!(text.lines().count() == COUNT && text.contains("dst=192.168.1.100"));
    let counted = pair
        .fw2
        .own(&["flows", "external", "proto=tcp", "--count"])?;
    ensure!(counted == format!("{COUNT}\n"), "{counted}");
    let counted = rows(&pair.fw2, &["flows", "external", "nat=none", "--count"])?;
    ensure!(
        counted == [serde_json::json!({ "count": 0 })],
        "{counted:?}"
    );

    pair.lab.cut(0)?;
    pair.fw1.kill();
    pair.lab.take_addresses(1)?;
    let said = pair.fw2.own(&["commit"])?;
    ensure!(said.starts_with(&format!("{COUNT} created, in ")), "{said}");
    let said = pair.fw2.own(&["commit"])?;
    let again = format!("0 created, {COUNT} were there already");
    ensure!(said.starts_with(&again), "{said}");
    let said = &rows(&pair.fw2, &["commit"])?[0];
    let numbers = ["created", "updated", "failed"].map(|name| said[name].as_u64());
    ensure!(numbers == [Some(0), Some(COUNT as u64), Some(0)], "{said}");
    pair.fw2.own(&["flush", "external"])?;
    pair.fw2.own(&["resync", "kernel"])?;
    pair.fw2.own(&["bulk"])?;
    ensure!(open.round(SOON) == COUNT, "a connection is lost");

    let kernel = rows(&pair.fw2, &["flows", "kernel", &port, "nat=src"])?;
    ensure!(kernel.len() == COUNT, "{} in the kernel", kernel.len());
    let primary = status(&pair.fw2)?;
    ensure!(primary["role"] == "primary" && primary["external"]["entries"] == 0);
    let text = pair.fw2.own(&["status"])?;
    ensure!(text.contains("role primary"), "{text}");
    Ok(())
}

fn events(world: &World) -> Result<()> {
    let pair = ftfw_pair(world)?;
    let port = format!("dport={PORT}");
    let mut follower = (pair.fw1)
        .own_command(&["events", &port, "-o", "json"])?
        .stdout(Stdio::piped())
        .spawn()?;
    let out = follower.stdout.take().context("its output")?;
    let (tx, rows) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let row: Value = serde_json::from_str(&line).unwrap_or_default();
            if tx.send(row).is_err() {
                return;
            }
        }
    });
    // Nothing says when the daemon has begun to serve it: connections until one is new to it.
    let mut open = Vec::new();
    let first = loop {
        ensure!(open.len() < 50, "no event of 50 connections");
        open.push(pair.connect(SERVER, 1)?);
        let row = rows.recv_timeout(Duration::from_millis(200));
        if let Ok(row) = row
            && row["event"] == "new"
        {
            break row;
        }
    };
    let port = &first["flow"]["orig"]["sport"];
    let mut seen = vec![first.clone()];
    while seen
        .last()
        .is_none_or(|r| r["flow"]["state"] != "ESTABLISHED")
    {
        let row = rows.recv_timeout(SOON).context("the next event")?;
        ensure!(row["flow"]["orig"]["dport"] == PORT && row["origin"] == "traffic");
        if row["flow"]["orig"]["sport"] == *port {
            seen.push(row);
        }
    }
    let states: Vec<_> = seen.iter().map(|r| r["flow"]["state"].as_str()).collect();
    let wanted = ["SYN_SENT", "SYN_RECV", "ESTABLISHED"].map(Some);
    ensure!(states == wanted, "{states:?}");
    pair.fw1.own(&["stop"])?;
    let status = follower.wait()?;
    ensure!(status.code() == Some(1), "the end of the daemon: {status}");
    Ok(())
}

/// Runs our command line, which must fail with status 1 and print `words`.
fn refused(daemon: &Daemon, arguments: &[&str], words: &[&str]) -> Result<()> {
    refused_with(1, daemon, arguments, words)
}

fn refused_with(status: i32, daemon: &Daemon, arguments: &[&str], words: &[&str]) -> Result<()> {
    let out = daemon.own_command(arguments)?.output()?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(
        out.status.code() == Some(status),
        "{arguments:?}: {}",
        out.status
    );
    for word in words {
        ensure!(said.contains(word), "{arguments:?}: {said}");
    }
    Ok(())
}

fn refusals(world: &World) -> Result<()> {
    let settings = Settings {
        mode_lines: "DisableInternalCache on".into(),
        ..Settings::new(Mode::Notrack)
    };
    let lab = Lab::build(Options::default())?;
    let start = |n: usize, settings: &Settings| -> Result<Daemon> {
        let daemon = Daemon::start(Kind::Ftfw, &lab.fw[n], n, settings, world.dir())?;
        daemon.context("no daemon")
    };
    let bypass = start(0, &settings)?;
    refused(
        &bypass,
        &["flows", "internal"],
        &["DisableInternalCache", "read the kernel"],
    )?;
    refused(&bypass, &["resync", "kernel"], &["no internal cache"])?;
    refused(&bypass, &["expectations", "external"], &["ExpectationSync"])?;
    bypass.own(&["expectations", "kernel"])?;
    let alarm = start(1, &Settings::new(Mode::Alarm))?;
    refused(&alarm, &["bulk"], &["ALARM", "RefreshTime"])?;
    refused(&alarm, &["resync", "peer"], &["ALARM"])?;
    let wrong = &["flows", "kernel", "port=5"];
    refused_with(2, &alarm, wrong, &["is no filter", "dport"])?;
    refused_with(2, &alarm, &["flows", "kernel", "state=FOO"], &["FIN_WAIT"])?;
    refused_with(2, &alarm, &["statu"], &["'status'"])?;
    alarm.own(&["stop"])?;
    wait::until("it has ended", SOON, || {
        alarm.output(&["-s"]).is_ok_and(|o| !o.status.success())
    })?;
    refused(&alarm, &["status"], &["no daemon at", "`ftfw run`"])
}

/// Goal: whoever asks the wrong daemon is told so.
fn other_daemon(world: &World) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let settings = Settings::new(Mode::Notrack);
    let daemon = Daemon::start(Kind::Conntrackd, &lab.fw[0], 0, &settings, world.dir())?;
    let daemon = daemon.context("no daemon")?;
    refused(&daemon, &["status"], &["does not speak", "conntrackd"])?;
    daemon.ask(&["-s"])?;
    Ok(())
}

fn damaged_calls(world: &World) -> Result<()> {
    let pair = ftfw_pair(world)?;
    let say = |line: &[u8]| -> Result<String> {
        let mut stream = UnixStream::connect(pair.fw1.dir().join("control"))?;
        stream.write_all(&CODE.to_ne_bytes())?;
        // It may hang up in the middle of what is too long.
        let _ = stream.write_all(line);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        Ok(answer)
    };
    let good = br#"{"protocol":2,"version":"x","json":true,"task":{"name":"status"}}"#;
    ensure!(say(&[good, &b"\n"[..]].concat())?.lines().count() == 4);
    for bad in [
        &b"\n"[..],
        b"{}\n",
        b"\xff\xfe\n",
        // Of the version before, and of one to come.
        br#"{"protocol":1,"version":"0.1.0","json":true,"task":{"name":"status"}}"#,
        br#"{"protocol":3,"version":"9","json":true,"task":{"name":"status"}}"#,
        br#"{"protocol":2,"version":"9","json":true,"task":{"name":"flows"}}"#,
    ] {
        let answer = say(&[bad, &b"\n"[..]].concat())?;
        let head: Value = serde_json::from_str(&answer)?;
        ensure!(
            head["status"] == "error" && head["help"].is_string(),
            "{head}"
        );
    }
    say(&vec![b'x'; CALL_MAX_BYTES + 100])?;
    // One that says nothing more delays nobody.
    let mut silent = UnixStream::connect(pair.fw1.dir().join("control"))?;
    silent.write_all(&CODE.to_ne_bytes())?;
    silent.write_all(b"{\"protocol\":")?;
    pair.fw1.own(&["status"])?;
    Ok(())
}

/// With injection there is nothing to be committed, and a script still reads an object.
fn commit_of_nothing(world: &World) -> Result<()> {
    let settings = Settings {
        mode_lines: "DisableExternalCache on".into(),
        ..Settings::new(Mode::Ftfw)
    };
    let pair = Pair::start(world, settings, Options::default())?;
    let said = rows(&pair.fw2, &["commit"])?;
    ensure!(said.len() == 1, "{said:?}");
    let numbers = ["created", "updated", "failed"].map(|name| said[0][name].as_u64());
    ensure!(
        numbers == [Some(0); 3] && said[0]["seconds"].is_number(),
        "{said:?}"
    );
    Ok(())
}

fn run_check(text: &str, world: &World) -> Result<(bool, String)> {
    let file = world.dir().join("checked.conf");
    std::fs::write(&file, text)?;
    let out = Command::new(Daemon::program()?)
        .arg("check")
        .arg(&file)
        .output()?;
    let said = [out.stdout, out.stderr].concat();
    Ok((out.status.code() == Some(0), String::from_utf8(said)?))
}

fn check(world: &World) -> Result<()> {
    let dir = world.dir().join("none");
    let file = |extra: &str| {
        let dir = dir.display();
        format!(
            "General {{ LogFile {dir}/log\nLockFile {dir}/lock\nUNIX {{\nPath {dir}/ctl\n}} {extra} }}\n\
             Sync {{ Mode FTFW {{ }} UDP {{ IPv4_address 10.0.0.1 \
             IPv4_Destination_Address 10.0.0.2 Port 3780 Interface lo }} }}\n"
        )
    };
    // What the file names is not there.
    let elsewhere = file("").replace("Interface lo", "Interface nowhere0");
    let (good, said) = run_check(&elsewhere, world)?;
    ensure!(good && !said.contains("good"), "{said}");
    for part in [
        "no interface `nowhere0`",
        "no folder",
        "does not start here",
    ] {
        ensure!(said.contains(part), "{part}: {said}");
    }
    let here = |text: String| text.replace(&dir.display().to_string(), "/tmp");
    let (good, said) = run_check(&here(file("")), world)?;
    ensure!(good && said.contains("good, no warnings"), "{said}");
    let (good, said) = run_check(&here(file("Nice -20")), world)?;
    ensure!(
        good && said.contains("good, 1 warning") && said.contains("nice(1)"),
        "{said}"
    );
    let (good, said) = run_check(&file("HashLimt 5 Sistemd on"), world)?;
    ensure!(!good, "{said}");
    for part in [
        "did you mean `HashLimit`?",
        "did you mean `Systemd`?",
        "checked.conf:5:14",
        "2 errors",
    ] {
        ensure!(said.contains(part), "{part}: {said}");
    }
    ensure!(!dir.exists(), "something was made");
    Ok(())
}

/// Goal: no file of conntrackd's is refused. What it accepts and we refuse has a reason
/// in docs/compatibility.md, and is not in this list.
fn accepted_files(world: &World) -> Result<()> {
    let udp =
        "UDP { IPv4_address 10.0.0.1 IPv4_Destination_Address 10.0.0.2 Port 3780 Interface eth9 }";
    let with = |general: &str, sync: &str| {
        let path = world.dir().join("ctl");
        let path = path.display();
        format!("General {{ UNIX {{ Path {path} \n }} {general} }}\nSync {{ {sync} }}\n")
    };
    let general = |text: &str| with(text, &format!("Mode NOTRACK {{ }} {udp}"));
    let sync = |text: &str| with("", &format!("{text} {udp}"));
    let files = [
        general("HashSize 0 HashLimit 010"),
        general("LogFile yes Syslog ON LogFile off"),
        general("Syslog local7"),
        general("SocketBufferSize 1 SocketBufferSizeMaxGrown 2 SocketBufferSizeMaxGrowth 3"),
        general("NetlinkBufferSize 1000 NetlinkBufferSizeMaxGrowth 10"),
        general("NetlinkOverrunResync 0 NetlinkEventsReliable Yes EventIterationLimit 0"),
        general("NetlinkOverrunResync off PollSecs 3"),
        general("Nice +5 Nice -20"),
        general("Scheduler { Type fifo Priority 99 } Scheduler { Priority 5 }"),
        general("Systemd no"),
        general("Filter { }"),
        general("Filter From Kernelspace { Protocol Accept { tcp UDP IPv6-ICMP esp ip nothing } }"),
        general(
            "Filter{Address Ignore{IPv4_address 10.0.0.0/8 IPv6_address ::1 IPv4_address 1.2.3.4/33}}",
        ),
        general("Filter { State Ignore { for TCP SYN_SENT CLOSE CLOSED LISTEN for TCP } }"),
        general("Filter { Address Accept { } Address Ignore { IPv4_address 1.1.1.1 } }"),
        sync("Mode PersistenT { }"),
        sync("Mode nack { ResendQueueSize 10 ACKWindowSize 20 StartupResync on }"),
        sync("Mode ALARM { RefreshTime 1 CacheTimeout 2 CommitTimeout 3 PurgeTimeout 4 }"),
        sync("RefreshTime 1 CacheTimeout 2 CommitTimeout 3 PurgeTimeout 4 Mode FTFW { }"),
        sync("Mode NOTRACK { DisableInternalCache on DisableExternalCache on CommitTimeout 5 }"),
        sync("Mode NOTRACK { } Mode FTFW { } Mode ALARM { }"),
        sync(""),
        sync("Options { TCPWindowTracking on ExpectationSync { ftp sip-5060 q.931 netbios-ns } }"),
        sync("Options { ExpectationSync on } Options { ExpectationSync { } }"),
        with(
            "",
            "Multicast Default { IPv4_address 225.0.0.50 Group 3780 IPv4_interface 10.0.0.1 Interface br-lan SndSocketBuffer 1 RcvSocketBuffer 2 Checksum off } Multicast { IPv4_address 225.0.0.51 Group 3781 Interface ens3f0np0 }",
        ),
        with(
            "",
            "Multicast { IPv6_address ff02::1 IPv6_interface ::1 Group 3780 Interface eth0.100 }",
        ),
        with(
            "",
            "UDP { IPv6_address ABCD::1 IPv6_Destination_Address abcd::2 Port 1 Interface wg-uplink }",
        ),
        "General{HashSize 10}#\n".to_owned(),
        String::new(),
        "# only a comment\n".to_owned(),
        "Stats { LogFile on Syslog local0 }\n".to_owned(),
        general("\r\nHashSize 5\r\n"),
    ];
    let mut wrong = Vec::new();
    let mut accepted = 0;
    for text in &files {
        let file = world.dir().join("theirs.conf");
        std::fs::write(&file, text)?;
        let out = Command::new("conntrackd")
            .arg("-C")
            .arg(&file)
            .arg("-s")
            .output()?;
        let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        // With a good file it goes on to the control socket, where nobody listens.
        if !said.contains("can't connect") {
            wrong.push(format!("conntrackd refuses: {text}\n{said}"));
            continue;
        }
        accepted += 1;
        let (good, said) = run_check(text, world)?;
        if !good {
            wrong.push(format!("ftfw refuses: {text}\n{said}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(accepted == files.len());
    Ok(())
}

/// Goal: the status is what it would be if the output had a reader.
/// Method: pipes whose reading end is closed.
fn closed_output(_world: &World) -> Result<()> {
    for (arguments, wanted) in [
        ("conntrackd -h", 0),
        ("conntrackd -v", 0),
        ("conntrackd -x", 1),
        ("conntrackd -C /nowhere -c", 1),
        ("conntrackd -C /nowhere", 1),
        ("--help", 0),
        ("check /nowhere", 1),
        ("-C /nowhere status", 1),
    ] {
        let closed = || -> Result<Stdio> {
            let (reader, writer) = std::io::pipe()?;
            drop(reader);
            Ok(writer.into())
        };
        let mut command = Command::new(Daemon::program()?);
        command.args(arguments.split(' '));
        let status = command.stdout(closed()?).stderr(closed()?).status()?;
        ensure!(status.code() == Some(wanted), "{arguments}: {status}");
    }
    Ok(())
}
