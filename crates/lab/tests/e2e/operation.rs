//! What an operator does to a daemon: start, stop, kill, command, misuse.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::daemon::{Daemon, Kind, Mode, Settings};
use lab::topology::{Lab, Options, SERVER};
use lab::wait;
use lab::world::World;
use rustix::process::{Pid, Signal, kill_process};

use crate::Scenario;
use crate::pair::{PORT, Pair, SOON, notrack};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("operation/signals_end_it_cleanly_or_not_at_all", signals),
    ("operation/a_dead_daemon_never_blocks_a_start", dead_daemon),
    ("operation/a_second_daemon_is_refused", second_daemon),
    (
        "operation/a_bad_configuration_is_explained",
        bad_configuration,
    ),
    (
        "operation/what_is_not_the_daemons_stays_as_it_is",
        foreign_files,
    ),
    (
        "operation/it_answers_as_soon_as_the_parent_returns",
        background,
    ),
    (
        "operation/a_failed_start_in_the_background_says_why",
        failed_background,
    ),
    ("operation/slow_clients_delay_nobody", slow_clients),
    ("operation/garbage_on_the_link_is_counted", garbage),
    (
        "operation/bulk_and_resync_bring_everything",
        bulk_and_resync,
    ),
    ("operation/startup_resync_asks_the_peer", startup_resync),
    (
        "operation/a_scheduled_flush_spares_what_the_filter_ignores",
        scheduled_flush,
    ),
    ("operation/filters_keep_flows_out", filters),
    (
        "operation/statistics_have_the_forms_of_the_original",
        statistics,
    ),
    ("operation/dumps_have_the_forms_of_the_original", dumps),
    ("operation/a_large_kernel_flush_spares_memory", large_flush),
];

fn pid(daemon: &Daemon) -> Pid {
    Pid::from_raw(daemon.pid().cast_signed()).expect("a pid")
}

fn one(world: &World) -> Result<(Lab, Daemon)> {
    let lab = Lab::build(Options::default())?;
    let daemon = start(world, &lab)?;
    Ok((lab, daemon))
}

fn start(world: &World, lab: &Lab) -> Result<Daemon> {
    Daemon::start(Kind::Ftfw, &lab.fw[0], 0, &notrack(), world.dir())?.context("no daemon")
}

fn events_setting(lab: &Lab) -> Result<String> {
    let text = lab.fw[0].run("cat /proc/sys/net/netfilter/nf_conntrack_events")?;
    Ok(text.trim().to_owned())
}

fn signals(world: &World) -> Result<()> {
    let (lab, daemon) = one(world)?;
    ensure!(events_setting(&lab)? == "1");
    for signal in [Signal::HUP, Signal::USR1, Signal::USR2, Signal::PIPE] {
        kill_process(pid(&daemon), signal)?;
    }
    daemon.ask(&["-s"])?;
    ensure!(daemon.log().contains("log file opened again"));
    let (socket, lock) = (daemon.dir().join("control"), daemon.dir().join("lock"));
    let mut daemon = Some(daemon);
    for signal in [Signal::TERM, Signal::INT] {
        let d = match daemon.take() {
            Some(d) => d,
            None => start(world, &lab)?,
        };
        ensure!(socket.exists() && lock.exists());
        let status = d.end(signal)?;
        ensure!(status.code() == Some(0), "{signal:?}: {status}");
        ensure!(
            !socket.exists() && !lock.exists(),
            "left behind after {signal:?}"
        );
        ensure!(
            events_setting(&lab)? == "2",
            "nf_conntrack_events is not restored"
        );
    }
    let d = start(world, &lab)?;
    let status = d.stop()?;
    ensure!(status.code() == Some(0) && !socket.exists() && !lock.exists());
    Ok(())
}

fn dead_daemon(world: &World) -> Result<()> {
    let (lab, mut daemon) = one(world)?;
    let (socket, lock) = (daemon.dir().join("control"), daemon.dir().join("lock"));
    daemon.kill();
    ensure!(
        socket.exists() && lock.exists(),
        "a killed daemon leaves its files"
    );
    start(world, &lab)?.ask(&["-s"])?;
    Ok(())
}

fn second_daemon(world: &World) -> Result<()> {
    let (lab, daemon) = one(world)?;
    // In the foreground it would run on: an end within the limit is the refusal.
    let mut second = lab.fw[0].command("timeout");
    second.arg("5").arg(Daemon::program()?);
    let out = second
        .args(["conntrackd", "-C"])
        .arg(daemon.config())
        .output()?;
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    ensure!(out.status.code() == Some(1), "{out:?}");
    ensure!(
        text.contains("perhaps conntrackd already running?"),
        "{text}"
    );
    daemon.ask(&["-s"])?;
    ensure!(
        daemon.dir().join("lock").exists(),
        "the refused one took the files away"
    );
    Ok(())
}

fn bad_configuration(world: &World) -> Result<()> {
    let file = world.dir().join("bad.conf");
    let run = |text: &str| -> Result<(Option<i32>, String)> {
        std::fs::write(&file, text)?;
        let mut c = Command::new("timeout");
        c.arg("5")
            .arg(Daemon::program()?)
            .args(["conntrackd", "-C"])
            .arg(&file);
        let out = c.output()?;
        Ok((
            out.status.code(),
            String::from_utf8_lossy(&out.stderr).into_owned(),
        ))
    };
    let (status, text) = run("General {\n  HashLimt 10\n}\nSync { Mode NOTRAK { } }\n")?;
    ensure!(status == Some(1));
    for part in [
        &format!("{}:2:3", file.display()),
        "  HashLimt 10",
        "did you mean `HashLimit`?",
        "`NOTRAK` is no value of `Mode`",
        "accepted: NOTRACK, ALARM, FTFW",
    ] {
        ensure!(text.contains(part), "no `{part}` in\n{text}");
    }
    let link =
        "UDP { IPv4_address 127.0.0.1 IPv4_Destination_Address 127.0.0.1 Port 9 Interface lo }";
    let link = link.replace("Interface lo", "Interface nosuch0");
    let lock = world.dir().join("lock");
    let general = format!("General {{ LockFile {} }}", lock.display());
    let (status, text) = run(&format!("{general} Sync {{ Mode NOTRACK {{ }} {link} }}"))?;
    ensure!(status == Some(1) && text.contains("nosuch0"), "{text}");
    ensure!(!lock.exists(), "a failed start leaves its lock file");
    Ok(())
}

/// Goal: a mistaken path costs nobody a file: the daemon does not start and says why, and a stop
/// leaves the file where it is.
/// Method: each path of a file in turn leads to something else. (The kinds and places in full
/// are held by a test of `sys::place`.)
fn foreign_files(world: &World) -> Result<()> {
    let dir = world.dir();
    let at = |name: &str| dir.join(name).display().to_string();
    let (file, mistaken) = (dir.join("conf"), dir.join("mistaken"));
    let run = |arguments: &[&str]| -> Result<(Option<i32>, String)> {
        let mut c = Command::new("unshare");
        c.args(["-n", "timeout", "5"]).arg(Daemon::program()?);
        let out = c.args(arguments).arg("-C").arg(&file).output()?;
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        Ok((out.status.code(), said))
    };
    let paths = [at("lock"), at("control"), at("log"), at("statistics")];
    let [lock, control, log, statistics] = &paths;
    let good = format!(
        "General {{ LockFile {lock} UNIX {{ Path {control} }} LogFile {log} }}\n\
         Stats {{ LogFile {statistics} }}\n"
    );
    let a_file = |path: &Path| std::fs::write(path, "mine").map_err(Into::into);
    let a_folder = |path: &Path| std::fs::create_dir(path).map_err(Into::into);
    type Make<'a> = &'a dyn Fn(&Path) -> Result<()>;
    let kinds: [(Make<'_>, &str, &[&String]); 2] = [
        (&a_file, "a file with content is there", &[lock, control]),
        (
            &a_folder,
            "a directory is there",
            &[lock, control, log, statistics],
        ),
    ];
    for (make, found, places) in kinds {
        for place in places {
            make(&mistaken)?;
            let there = std::fs::symlink_metadata(&mistaken)?.ino();
            std::fs::write(&file, good.replace(place.as_str(), &at("mistaken")))?;
            let (status, said) = run(&["conntrackd"])?;
            ensure!(status == Some(1), "{place}, {found}: {status:?} {said}");
            for part in [&at("mistaken"), found, "accepted: a path where nothing is"] {
                ensure!(said.contains(part), "{place}: no `{part}` in\n{said}");
            }
            for stop in [&["conntrackd", "-k"][..], &["stop"]] {
                let (status, said) = run(stop)?;
                ensure!(status == Some(1), "{place}: {stop:?}: {status:?} {said}");
                let is_named = said.contains(found);
                ensure!(is_named == (*place == control), "{place}: {stop:?}: {said}");
            }
            ensure!(
                std::fs::symlink_metadata(&mistaken)?.ino() == there,
                "{place}: {found}, and was replaced"
            );
            if mistaken.is_dir() {
                std::fs::remove_dir(&mistaken)?;
            } else {
                ensure!(std::fs::read(&mistaken)? == b"mine");
                std::fs::remove_file(&mistaken)?;
            }
        }
    }
    Ok(())
}

fn background(world: &World) -> Result<()> {
    let (_lab, daemon) = one(world)?;
    let dir = daemon.dir().to_owned();
    daemon.stop()?;
    let run = |arguments: &[&str]| -> Result<std::process::Output> {
        let mut c = Command::new("nsenter");
        c.arg("--net=/run/netns/fw1").arg("--");
        c.arg(Daemon::program()?)
            .arg("conntrackd")
            .arg("-C")
            .arg(dir.join("conf"));
        Ok(c.args(arguments).output()?)
    };
    let started = run(&["-d"])?;
    ensure!(started.status.code() == Some(0), "{started:?}");
    let asked = run(&["-s"])?;
    ensure!(asked.status.code() == Some(0), "{asked:?}");
    ensure!(
        run(&["-d"])?.status.code() == Some(1),
        "a second start must fail"
    );
    ensure!(run(&["-k"])?.status.code() == Some(0));
    wait::until("it is gone", SOON, || !dir.join("control").exists())?;
    ensure!(run(&["-s"])?.status.code() == Some(1));
    Ok(())
}

/// Goal: `-d` fails with status 1, and whoever called it and whoever reads the log learn why.
/// Method: a file that starts well, and one change to it for each reason.
fn failed_background(world: &World) -> Result<()> {
    let (lab, first) = one(world)?;
    let dir = world.dir().join("second");
    std::fs::create_dir(&dir)?;
    let (file, log) = (dir.join("conf"), dir.join("log"));
    let (first_dir, dir) = (first.dir().display().to_string(), dir.display().to_string());
    let text = std::fs::read_to_string(first.config())?;
    let good = (text.replace(&first_dir, &dir)).replace("Port 3780", "Port 3781");
    let run = |arguments: &[&str]| -> Result<std::process::Output> {
        let mut c = lab.fw[0].command(Daemon::program()?);
        c.arg("conntrackd").arg("-C").arg(&file).args(arguments);
        Ok(c.output()?)
    };
    std::fs::write(&file, &good)?;
    let started = run(&["-d"])?;
    ensure!(
        started.status.success() && started.stderr.is_empty(),
        "{started:?}"
    );
    ensure!(run(&["-k"])?.status.success());
    let control = dir.clone() + "/control";
    wait::until("it has gone", SOON, || {
        !std::path::Path::new(&control).exists()
    })?;

    let own = |name: &str| format!("{dir}/{name}");
    let theirs = |name: &str| format!("{first_dir}/{name}");
    for (from, to, reason) in [
        (
            own("lock"),
            theirs("lock"),
            "perhaps conntrackd already running?",
        ),
        (own("control"), theirs("control"), "another daemon answers"),
        (
            own("control"),
            "/run/nowhere/control".into(),
            "/run/nowhere/control",
        ),
        (own("lock"), "/run/nowhere/lock".into(), "/run/nowhere/lock"),
        (own("log"), "/run/nowhere/log".into(), "/run/nowhere/log"),
        (
            "Interface eth2".into(),
            "Interface eth9".into(),
            "interface eth9",
        ),
        (
            "Port 3781".into(),
            "Port 3780".into(),
            "10.77.9.1 port 3780",
        ),
    ] {
        ensure!(good.contains(&from), "no `{from}` in the file");
        std::fs::write(&file, good.replace(&from, &to))?;
        let _ = std::fs::remove_file(&log);
        let out = run(&["-d"])?;
        let said = String::from_utf8_lossy(&out.stderr);
        ensure!(out.status.code() == Some(1), "{to}: {}", out.status);
        ensure!(
            said.starts_with("conntrackd: ") && said.contains(reason),
            "{to}: said `{said}`, not `{reason}`"
        );
        ensure!(said.lines().count() == 1, "{said}");
        // A log that cannot be opened cannot hold the reason.
        if !to.ends_with("log") {
            let log = std::fs::read_to_string(&log)?;
            let line = log.lines().last().unwrap_or_default();
            ensure!(
                line.contains("[ERROR]") && line.contains(reason),
                "{to}: logged\n{log}"
            );
        }
    }
    first.ask(&["-s"])?;
    Ok(())
}

/// Clients that say nothing, that ask for a dump and do not read it, that say half a request.
fn slow_clients(world: &World) -> Result<()> {
    let pair = Pair::start(world, notrack(), Options::default())?;
    let _open = pair.connect(SERVER, 2000)?;
    let control = pair.fw1.dir().join("control");
    let mut clients = Vec::new();
    for n in 0..30 {
        let mut client = UnixStream::connect(&control)?;
        match n % 3 {
            0 => {}
            1 => client.write_all(&[16])?,
            _ => client.write_all(&16i32.to_ne_bytes())?,
        }
        clients.push(client);
    }
    let begun = Instant::now();
    for _ in 0..10 {
        pair.fw1.ask(&["-s"])?;
    }
    ensure!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    let lines = pair.fw1.internal(&format!("dport={PORT} "))?.len();
    ensure!(lines == 2000, "{lines} lines beside slow clients");
    let mut text = String::new();
    clients[2].set_read_timeout(Some(SOON))?;
    clients[2].read_to_string(&mut text)?;
    ensure!(text.matches(&format!("dport={PORT} ")).count() == 2000);
    Ok(())
}

fn garbage(world: &World) -> Result<()> {
    let pair = Pair::start(world, notrack(), Options::default())?;
    let socket = pair.lab.fw[1].inside(|| UdpSocket::bind("10.77.9.2:0"))??;
    let mut state = 1u64;
    for n in 0..3000usize {
        let bytes: Vec<u8> = (0..n % 200)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        socket.send_to(&bytes, "10.77.9.1:3780")?;
    }
    let malformed = || Pair::counter(&pair.fw1, &["-s", "network"], "Malformed messages:");
    wait::until("malformed messages are counted", SOON, || {
        malformed().is_ok_and(|n| n > 2000)
    })?;
    let _open = pair.connect(SERVER, 10)?;
    pair.wait_external(&format!("dport={PORT} "), 10)
}

fn bulk_and_resync(world: &World) -> Result<()> {
    // Otherwise the peer sees the restart and sends everything unasked.
    let settings = Settings {
        sync_lines: "Options { AliveTrailer off }".into(),
        ..notrack()
    };
    let mut pair = Pair::start(world, settings, Options::default())?;
    let _open = pair.connect(SERVER, 3000)?;
    let pattern = format!("dport={PORT} ");
    pair.wait_external(&pattern, 3000)?;
    for command in ["-B", "-n"] {
        pair.restart(1)?;
        let known = pair.fw2.external(&pattern)?.len();
        ensure!(known == 0, "{known} flows known after a restart");
        let daemon = if command == "-B" {
            &pair.fw1
        } else {
            &pair.fw2
        };
        daemon.ask(&[command])?;
        pair.wait_external(&pattern, 3000)
            .with_context(|| format!("after {command}"))?;
    }
    Ok(())
}

fn startup_resync(world: &World) -> Result<()> {
    let settings = Settings {
        mode_lines: "StartupResync on".into(),
        ..notrack()
    };
    let mut pair = Pair::start(world, settings, Options::default())?;
    let _open = pair.connect(SERVER, 500)?;
    let pattern = format!("dport={PORT} ");
    pair.wait_external(&pattern, 500)?;
    pair.restart(1)?;
    // NOTRACK repeats nothing. If the answer to the first request is lost, the next may begin
    // 10 s later.
    pair.wait_external_for(&pattern, 500, Duration::from_secs(15))
}

fn scheduled_flush(world: &World) -> Result<()> {
    let settings = Settings {
        mode_lines: "PurgeTimeout 2".into(),
        filter_lines: "Protocol Ignore {\nUDP\n}".into(),
        ..notrack()
    };
    let options = Options {
        datagrams: true,
        ..Options::default()
    };
    let pair = Pair::start(world, settings, options)?;
    let _open = pair.connect(SERVER, 50)?;
    let socket = pair.lab.a.inside(|| UdpSocket::bind("0.0.0.0:0"))??;
    socket.send_to(b"x", (SERVER, 9))?;
    let tcp = || pair.lab.count_flows(0, &format!("-p tcp --dport {PORT}"));
    ensure!(tcp()? == 50);
    // A commit calls a scheduled flush off.
    pair.fw1.ask(&["-t"])?;
    pair.fw1.ask(&["-c"])?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(tcp()? == 50, "the flush was not called off");
    pair.wait_external(&format!("dport={PORT} "), 50)?;
    // Nothing else here holds the flows: the flush spares them.
    pair.fw1.ask(&["-t"])?;
    wait::until("the flush spares them", SOON, || {
        pair.fw1.log().contains("0 copies deleted, 50 flows spared")
    })
    .with_context(|| pair.fw1.log())?;
    ensure!(tcp()? == 50, "the only copies were flushed");
    // The peer takes over and announces them: what is left here are copies.
    pair.fw2.become_primary()?;
    wait::until("FW1 knows that they are FW2's", SOON, || {
        let known = pair.fw1.external(&format!("dport={PORT} "));
        known.is_ok_and(|l| l.len() == 50)
    })?;
    pair.fw1.ask(&["-t"])?;
    wait::until("the kernel table is flushed", SOON, || {
        tcp().is_ok_and(|n| n == 0)
    })?;
    ensure!(
        pair.lab.count_flows(0, "-p udp --dport 9")? == 1,
        "UDP is to be spared"
    );
    std::thread::sleep(Duration::from_millis(500));
    // The flush is this replica's matter: the peer keeps what it knows.
    let known = pair.fw2.internal(&format!("dport={PORT} "))?.len();
    ensure!(known == 50, "the peer was told of a flush: it has {known}");
    Ok(())
}

fn filters(world: &World) -> Result<()> {
    let settings = Settings {
        filter_lines: "Protocol Accept {\nTCP\n}\nState Accept {\nESTABLISHED for TCP\n}".into(),
        ..notrack()
    };
    let options = Options {
        datagrams: true,
        ..Options::default()
    };
    let pair = Pair::start(world, settings, options)?;
    let socket = pair.lab.a.inside(|| UdpSocket::bind("0.0.0.0:0"))??;
    socket.send_to(b"x", (SERVER, 9))?;
    let open = pair.connect(SERVER, 20)?;
    let pattern = format!("dport={PORT} ");
    pair.wait_external(&pattern, 20)?;
    ensure!(pair.fw2.external("udp")?.is_empty(), "UDP is filtered");
    ensure!(
        pair.fw2.external("SYN_SENT")?.is_empty(),
        "states are filtered"
    );
    // The end of a flow is told although its last state is filtered.
    pair.lab.forget_ended_soon(0)?;
    open.close();
    pair.wait_ended(0)
}

/// The same questions to ours and to the original: the same words in the same lines.
fn statistics(world: &World) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    for mode in [Mode::Notrack, Mode::Alarm, Mode::Ftfw] {
        same_statistics(world, &lab, &Settings::new(mode))
            .with_context(|| format!("Mode {mode}"))?;
    }
    Ok(())
}

fn same_statistics(world: &World, lab: &Lab, settings: &Settings) -> Result<()> {
    let mut shapes = Vec::new();
    for kind in [Kind::Conntrackd, Kind::Ftfw] {
        let daemon = Daemon::start(kind, &lab.fw[0], 0, settings, world.dir())?;
        let daemon = daemon.context("no daemon")?;
        let mut shape = String::new();
        for which in [
            "ct", "network", "cache", "runtime", "link", "queue", "rsqueue", "expect", "process",
        ] {
            let text = daemon.ask(&["-s", which])?;
            let plain = |c: char| if c.is_ascii_digit() { '0' } else { c };
            // What we know of the peer stands behind the original's lines.
            for line in text.lines().take_while(|l| !l.starts_with("peer: ")) {
                // Numbers are right-aligned: their last column is what counts.
                let words: Vec<String> = line
                    .split(' ')
                    .filter(|w| !w.is_empty())
                    .map(|w| w.chars().map(plain).collect::<String>())
                    .map(|w| w.trim_start_matches('0').to_owned())
                    .collect();
                shape += &format!("{which} {} {}\n", line.len(), words.join(" "));
            }
        }
        shapes.push(shape);
        daemon.stop()?;
    }
    let differing = shapes[0]
        .lines()
        .zip(shapes[1].lines())
        .find(|(a, b)| a != b);
    ensure!(differing.is_none(), "theirs and ours: {differing:?}");
    ensure!(shapes[0].lines().count() == shapes[1].lines().count());
    Ok(())
}

/// The same kernel table, and then the same messages, listed by theirs and by ours.
fn dumps(world: &World) -> Result<()> {
    let options = Options {
        datagrams: true,
        mark: Some(7),
        zone: Some(5),
        ..Options::default()
    };
    let lab = Lab::build(options)?;
    let server = |ip: &str| crate::pair::address(ip, PORT);
    let mut open = Vec::new();
    for ip in [SERVER, lab::topology::SERVER6] {
        lab::traffic::numbered::serve(&lab.b, server(ip))?;
        open.push(lab::traffic::numbered::Connections::open(
            &lab.a,
            server(ip),
            3,
        )?);
        lab.a.run(&format!("ping -c 1 {ip}"))?;
    }
    let socket = lab.a.inside(|| UdpSocket::bind("0.0.0.0:0"))??;
    socket.send_to(b"x", (SERVER, 9))?;
    let mut listings = Vec::new();
    for kind in [Kind::Conntrackd, Kind::Ftfw] {
        let start = |n: usize, kind: Kind| -> Result<Daemon> {
            let daemon = Daemon::start(kind, &lab.fw[n], n, &notrack(), world.dir())?;
            daemon.context("no daemon")
        };
        let (fw1, fw2) = (start(0, Kind::Conntrackd)?, start(1, kind)?);
        fw1.ask(&["-B"])?;
        wait::until("FW2 knows the flows", SOON, || {
            fw2.external("src=").is_ok_and(|l| l.len() >= 9)
        })?;
        let external = [fw2.ask(&["-e"])?, fw2.ask(&["-e", "-x"])?];
        fw1.stop()?;
        fw2.stop()?;
        let fw1 = start(0, kind)?;
        let internal = [fw1.ask(&["-i"])?, fw1.ask(&["-i", "-x"])?];
        fw1.stop()?;
        let mut lines: Vec<String> = (external.iter().chain(&internal))
            .flat_map(|text| text.lines())
            // The age, and what a neighbour discovery of the moment left behind.
            .map(|l| {
                l.split(" [active")
                    .next()
                    .unwrap_or(l)
                    .trim_end()
                    .to_owned()
            })
            .filter(|l| !l.contains("type=13") && !l.contains("icmpv6"))
            .collect();
        lines.sort();
        ensure!(lines.len() >= 32, "{kind} lists {} lines", lines.len());
        listings.push(lines);
    }
    for (theirs, ours) in listings[0].iter().zip(&listings[1]) {
        ensure!(theirs == ours, "theirs: {theirs}\nours:   {ours}");
    }
    ensure!(listings[0].len() == listings[1].len());
    Ok(())
}

/// A flush of many flows goes through a bounded queue.
fn large_flush(world: &World) -> Result<()> {
    let (lab, daemon) = one(world)?;
    lab::traffic::datagrams::create(&lab.fw[0], world.dir(), 40_000)?;
    let count = || lab.count_flows(0, "-p udp --dport 9");
    ensure!(count()? == 40_000);
    let before = daemon.resident_bytes()?;
    daemon.ask(&["-F"])?;
    wait::until("the kernel table is empty", Duration::from_secs(20), || {
        count().is_ok_and(|n| n == 0)
    })?;
    let grown = daemon.resident_bytes()?.saturating_sub(before);
    // The queue of requests is bounded at 4096 of them, some hundred bytes each.
    ensure!(grown < 8 << 20, "memory grew by {grown} bytes");
    Ok(())
}
