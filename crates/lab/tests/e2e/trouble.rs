//! A daemon in local trouble: no descriptors, no threads, clients that do not read.

use std::fs;
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use control::call::CODE;
use lab::daemon::{Daemon, Kind, Mode, Settings, Transport};
use lab::topology::{Lab, Options, SERVER};
use lab::wait;
use lab::world::World;
use wire::Seq;
use wire::v1::{Control, Flags, encode_control};

use crate::Scenario;
use crate::pair::{Pair, SOON, notrack};

pub(crate) const SCENARIOS: &[Scenario] = &[
    (
        "trouble/without_descriptors_it_idles_and_commands_have_a_place",
        no_descriptors,
    ),
    (
        "trouble/clients_that_do_not_read_lock_nobody_out",
        clients_that_hang,
    ),
    ("trouble/listings_of_the_kernel_are_bounded", many_listings),
    ("trouble/a_refused_thread_is_answered", no_threads),
    (
        "trouble/a_flood_of_datagrams_writes_few_lines",
        forged_datagrams,
    ),
    ("trouble/two_daemons_do_not_share_a_port", taken_port),
    (
        "trouble/a_link_without_a_route_is_said_twice",
        unreachable_link,
    ),
    (
        "trouble/a_link_without_a_carrier_is_said_once",
        lost_carrier,
    ),
    ("trouble/a_full_cache_is_said_once", full_cache),
];

const EVENTS: &str =
    r#"{"protocol":2,"version":"x","json":true,"task":{"name":"events","filter":[]}}"#;
const KERNEL_FLOWS: &str = r#"{"protocol":2,"version":"x","json":false,"task":{"name":"flows","table":"kernel","filter":[]}}"#;
/// `-i` of the original.
const INTERNAL: i32 = 16;

fn start(world: &World, settings: &Settings) -> Result<(Lab, Daemon)> {
    let lab = Lab::build(Options::default())?;
    let daemon = Daemon::start(Kind::Ftfw, &lab.fw[0], 0, settings, world.dir())?;
    Ok((lab, daemon.context("no daemon")?))
}

fn connect(daemon: &Daemon) -> Result<UnixStream> {
    Ok(UnixStream::connect(daemon.dir().join("control"))?)
}

/// A client that has sent a code of the original's protocol.
fn ask(daemon: &Daemon, code: i32) -> Result<UnixStream> {
    let mut stream = connect(daemon)?;
    stream.write_all(&code.to_ne_bytes())?;
    Ok(stream)
}

/// A client that has sent a call of our own protocol.
fn call(daemon: &Daemon, line: &str) -> Result<UnixStream> {
    let mut stream = ask(daemon, CODE)?;
    stream.write_all(line.as_bytes())?;
    stream.write_all(b"\n")?;
    stream.set_read_timeout(Some(SOON))?;
    Ok(stream)
}

/// The first line of the answer, read byte by byte so that nothing more is taken.
fn head(stream: &mut UnixStream) -> Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    Ok(String::from_utf8(line)?)
}

fn threads(daemon: &Daemon) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{}/task", daemon.pid()))?.count())
}

/// A counter of `ftfw status`.
fn counter(daemon: &Daemon, name: &str) -> Result<u64> {
    let text = daemon.own(&["status", "-o", "json"])?;
    let status: serde_json::Value = serde_json::from_str(&text)?;
    status[name]
        .as_u64()
        .with_context(|| format!("{name} in {text}"))
}

/// Puts flows into the kernel's table: more than a socket's buffer holds when listed.
fn fill_kernel(world: &World, lab: &Lab, count: u32) -> Result<()> {
    let mut text = String::new();
    for n in 0..count {
        text += &format!(
            "-I -p udp -s 10.9.{}.{} -d 10.8.0.1 --sport {} --dport 9 -t 600 -u SEEN_REPLY\n",
            n >> 8 & 255,
            n & 255,
            1000 + n % 30_000
        );
    }
    let file = world.dir().join("flows");
    fs::write(&file, text)?;
    lab.fw[0].run(&format!("conntrack -R {}", file.display()))?;
    Ok(())
}

/// `-c` with a limit, which must have run a commit.
fn commit(daemon: &Daemon) -> Result<()> {
    let commits = |d: &Daemon| d.log().matches("committing all external caches").count();
    let before = commits(daemon);
    let mut command = daemon.command(&["-c"])?;
    let mut child = command.stdout(Stdio::null()).spawn()?;
    let mut status = None;
    let ended = wait::until("-c ends", SOON, || {
        status = child.try_wait().unwrap_or(None);
        status.is_some()
    });
    if ended.is_err() {
        let _ = child.kill();
    }
    ended?;
    ensure!(status.is_some_and(|s| s.success()), "{status:?}");
    ensure!(
        commits(daemon) == before + 1,
        "-c succeeded without a commit"
    );
    Ok(())
}

/// Goal: a daemon without descriptors logs that, idles, and works again afterwards.
/// Method: followers that read well take all descriptors but the one for commands.
fn no_descriptors(world: &World) -> Result<()> {
    let (_lab, daemon) = start(world, &notrack())?;
    daemon.limit(&format!("--nofile={}", daemon.descriptors(3)?))?;
    let mut followers = Vec::new();
    for _ in 0..3 {
        let mut stream = call(&daemon, EVENTS)?;
        ensure!(head(&mut stream)?.contains(r#""status":"ok""#));
        followers.push(stream);
    }
    // A descriptor is held back for commands.
    commit(&daemon).context("with the descriptor held back")?;
    // No reader gets that one.
    let mut last = call(&daemon, EVENTS)?;
    let answer = head(&mut last)?;
    ensure!(answer.contains("no descriptor left"), "{answer}");
    drop(last);
    commit(&daemon).context("after a reader was refused")?;

    // Clients that ask nothing make room one after the other. It used to take a whole CPU.
    let path = daemon.dir().join("control");
    let silent: Vec<_> = (0..20)
        .map(|_| UnixStream::connect(&path))
        .collect::<Result<_, _>>()?;
    let (cpu, begun) = (daemon.cpu_ns()?, Instant::now());
    thread::sleep(Duration::from_secs(1));
    let share = (daemon.cpu_ns()? - cpu) as f64 / begun.elapsed().as_nanos() as f64;
    ensure!(share < 0.2, "it takes {share:.2} of a CPU");
    ensure!(daemon.log().contains("a client cannot be accepted"));
    let lines = daemon.log().lines().count();
    ensure!(lines < 60, "{lines} lines of log");
    commit(&daemon).context("beside clients that ask nothing")?;

    drop(silent);
    followers.clear();
    commit(&daemon)?;
    ensure!(counter(&daemon, "accept_failed")? > 0);
    Ok(())
}

/// Goal: readers that hang keep neither commands nor other readers out.
/// Method: as many of every kind as there are places, none of which reads more than a line.
fn clients_that_hang(world: &World) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    fill_kernel(world, &lab, 6000)?;
    let daemon = Daemon::start(Kind::Ftfw, &lab.fw[0], 0, &notrack(), world.dir())?;
    let daemon = daemon.context("no daemon")?;
    let pattern = "dport=9 ";
    wait::until("it knows the flows", SOON, || {
        daemon.internal(pattern).is_ok_and(|l| l.len() == 6000)
    })?;
    let (mut clients, mut refused) = (Vec::new(), 0);
    for n in 0..64 {
        let mut client = match n % 3 {
            0 => ask(&daemon, INTERNAL)?,
            1 => call(&daemon, EVENTS)?,
            _ => call(&daemon, &KERNEL_FLOWS.replace("kernel", "internal"))?,
        };
        // Who has its first line has its place.
        if n % 3 > 0 && head(&mut client)?.contains("48 clients are reading") {
            refused += 1;
        }
        clients.push(client);
    }
    commit(&daemon).context("beside 64 clients that do not read")?;
    ensure!(refused > 0, "nobody was refused");
    // The longest stalled one makes room for a reader that reads.
    wait::until("a listing is served", SOON, || {
        daemon.internal(pattern).is_ok_and(|l| l.len() == 6000)
    })?;
    ensure!(counter(&daemon, "clients_dropped")? > 0);
    drop(clients);
    Ok(())
}

/// Goal: listings of the kernel's table take a bounded number of threads.
/// Method: clients of both protocols that do not read, more than are allowed.
fn many_listings(world: &World) -> Result<()> {
    let settings = Settings {
        mode_lines: "DisableInternalCache on".into(),
        ..Settings::new(Mode::Notrack)
    };
    let (lab, daemon) = start(world, &settings)?;
    fill_kernel(world, &lab, 6000)?;
    let before = threads(&daemon)?;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(ask(&daemon, INTERNAL)?);
        clients.push(call(&daemon, KERNEL_FLOWS)?);
    }
    let mut answer = call(&daemon, KERNEL_FLOWS)?;
    let head = head(&mut answer)?;
    ensure!(head.contains("4 clients are listing"), "{head}");
    let more = threads(&daemon)? - before;
    ensure!(more == 4, "{more} threads");
    let log = daemon.log();
    ensure!(log.contains("a reader is refused: 4 clients are listing"));
    commit(&daemon)?;
    clients.clear();
    wait::until("a listing is served", SOON, || {
        daemon.internal("dport=9 ").is_ok_and(|l| l.len() == 6000)
    })?;
    wait::until("their threads end", SOON, || {
        threads(&daemon).is_ok_and(|n| n == before)
    })
}

/// Goal: a thread that the system refuses ends the request, not the daemon.
/// Method: so little address space that the stack of a thread does not fit.
fn no_threads(world: &World) -> Result<()> {
    let settings = Settings {
        mode_lines: "DisableInternalCache on".into(),
        ..Settings::new(Mode::Notrack)
    };
    let (_lab, daemon) = start(world, &settings)?;
    daemon.limit_memory(1 << 20)?;
    let mut answer = call(&daemon, KERNEL_FLOWS)?;
    let head = head(&mut answer)?;
    ensure!(head.contains("no thread for a listing"), "{head}");
    let mut text = String::new();
    ask(&daemon, INTERNAL)?.read_to_string(&mut text)?;
    ensure!(text.is_empty(), "{text}");
    commit(&daemon)?;
    daemon.limit("--as=unlimited:")?;
    let text = daemon.own(&["flows", "kernel"]);
    ensure!(text.is_ok(), "{text:?}");
    Ok(())
}

/// Goal: who can send datagrams cannot fill the disk, nor hide what an operator asks for.
/// Method: 600 datagrams, each of which asks 3000 times for everything.
fn forged_datagrams(world: &World) -> Result<()> {
    let (lab, daemon) = start(world, &notrack())?;
    let mut datagram = Vec::new();
    for n in 0..3000 {
        encode_control(&mut datagram, Control::Resync, Flags::NONE, Seq(n));
    }
    lab.fw[1].inside(move || -> std::io::Result<()> {
        let socket = UdpSocket::bind("10.77.9.2:0")?;
        for _ in 0..600 {
            socket.send_to(&datagram, "10.77.9.1:3780")?;
        }
        Ok(())
    })??;
    let said = "resync requested by other node";
    wait::until("the first are logged", SOON, || daemon.log().contains(said))?;
    daemon.ask(&["-n"])?;
    let log = daemon.log();
    let asked = log.lines().filter(|l| l.ends_with("resync requested"));
    ensure!(asked.count() == 1, "the operator's command: {log}");
    wait::until("what was left out is counted", SOON * 3, || {
        daemon.log().contains("about bulk updates")
    })?;
    let bytes = daemon.log().len();
    ensure!(bytes < 10_000, "{bytes} bytes of log");
    Ok(())
}

/// Goal: of two daemons with the same own address and port the second one does not start;
/// a group is shared, as conntrackd does.
fn taken_port(world: &World) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    // Each with a lock and a control socket of its own.
    let start = |kind: Kind, name: &str, settings: &Settings| -> Result<Daemon> {
        let dir = world.dir().join(name);
        Daemon::start(kind, &lab.fw[0], 0, settings, &dir)?.context("no daemon")
    };
    for (transport, address) in [
        (Transport::Udp, "10.77.9.1"),
        (Transport::Udp6, "fd77:9::1"),
    ] {
        let settings = Settings {
            transport,
            ..notrack()
        };
        for first in [Kind::Ftfw, Kind::Conntrackd] {
            let first = start(first, "first", &settings)?;
            let Err(error) = start(Kind::Ftfw, "second", &settings) else {
                bail!("a second daemon on {address}");
            };
            let text = format!("{error:#}");
            for part in [address, "port 3780", "Address already in use"] {
                ensure!(text.contains(part), "no `{part}` in {text}");
            }
            first.stop()?;
        }
    }
    for transport in [Transport::Multicast, Transport::Multicast6] {
        let settings = Settings {
            transport,
            ..notrack()
        };
        for first in [Kind::Ftfw, Kind::Conntrackd] {
            let first = start(first, "first", &settings)?;
            let second = start(Kind::Ftfw, "second", &settings)?;
            second.stop()?;
            first.stop()?;
        }
    }
    Ok(())
}

fn lines_with(daemon: &Daemon, words: &str) -> usize {
    daemon.log().lines().filter(|l| l.contains(words)).count()
}

/// Goal: one line when a link begins to refuse what is sent, one when it does no more.
/// Method: the dedicated link loses its address, until ten datagrams have been refused.
fn unreachable_link(world: &World) -> Result<()> {
    let (lab, daemon) = start(world, &notrack())?;
    lab.fw[0].run("ip addr del 10.77.9.1/24 dev eth2")?;
    wait::until("ten datagrams are refused", SOON, || {
        let text = daemon.ask(&["-s", "link"]).unwrap_or_default();
        let errors = text.lines().find(|l| l.contains("Error send"));
        let count = errors.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
        count.is_some_and(|n| n >= 10)
    })?;
    let said = "link eth2: cannot send: Network is unreachable";
    ensure!(lines_with(&daemon, said) == 1, "{}", daemon.log());
    lab.fw[0].run("ip addr add 10.77.9.1/24 dev eth2")?;
    wait::until("its end is said", SOON, || {
        lines_with(&daemon, "link eth2: sends again, after") == 1
    })?;
    ensure!(lines_with(&daemon, "link eth2") == 2, "{}", daemon.log());
    ensure!(lines_with(&daemon, "no dedicated links") == 0);
    Ok(())
}

/// Goal: a carrier that is late at the start is not worth a line; one that goes and comes
/// back is worth one line each, whatever happens to other interfaces.
fn lost_carrier(world: &World) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    lab.fw[1].run("ip link set eth2 down")?;
    wait::until("the carrier is gone", SOON, || {
        lab.fw[0]
            .run("ip link show dev eth2")
            .is_ok_and(|text| text.contains("NO-CARRIER"))
    })?;
    let daemon = Daemon::start(Kind::Ftfw, &lab.fw[0], 0, &notrack(), world.dir())?;
    let daemon = daemon.context("no daemon")?;
    let link = |state: &str| {
        daemon
            .ask(&["-s", "link"])
            .is_ok_and(|text| text.contains(&format!("status={state} ")))
    };
    ensure!(link("NO-CARRIER"));
    lab.fw[1].run("ip link set eth2 up")?;
    wait::until("the carrier is there", SOON, || link("RUNNING"))?;
    wait::until("the start is long over", SOON * 2, || {
        counter(&daemon, "uptime").is_ok_and(|secs| secs >= 6)
    })?;
    let none = "no dedicated links available!";
    let said = lines_with(&daemon, none) + lines_with(&daemon, "link eth2");
    ensure!(said == 0, "{}", daemon.log());

    lab.fw[1].run("ip link set eth2 down")?;
    wait::until("it is said", SOON, || lines_with(&daemon, none) == 1)?;
    for _ in 0..3 {
        lab.fw[0].run("ip link add other0 type veth peer name other1")?;
        lab.fw[0].run("ip link set other0 up")?;
        lab.fw[0].run("ip link del other0")?;
    }
    lab.fw[1].run("ip link set eth2 up")?;
    wait::until("its end is said", SOON, || {
        lines_with(&daemon, "link eth2: usable again after") == 1
    })?;
    ensure!(lines_with(&daemon, "link eth2: no carrier") == 1);
    ensure!(lines_with(&daemon, none) == 1, "{}", daemon.log());
    Ok(())
}

/// Goal: a cache that is full is logged when that begins and when it is over.
fn full_cache(world: &World) -> Result<()> {
    let settings = Settings {
        general_lines: "HashLimit 20".into(),
        ..notrack()
    };
    let pair = Pair::start(world, settings, Options::default())?;
    let full = "internal cache is full: new flows are not kept (20 are its limit";
    let _open = pair.connect(SERVER, 40)?;
    wait::until("it is said", SOON, || lines_with(&pair.fw1, full) == 1)?;
    let failed = || -> Result<u64> {
        let status: serde_json::Value =
            serde_json::from_str(&pair.fw1.own(&["status", "-o", "json"])?)?;
        status["internal"]["create_failed"]
            .as_u64()
            .context("a counter")
    };
    let before = failed()?;
    let _more = pair.connect(SERVER, 10)?;
    ensure!(failed()? >= before + 10);
    pair.fw1.ask(&["-f", "internal"])?;
    wait::until("its end is said", SOON, || {
        lines_with(&pair.fw1, "internal cache has room again after") == 1
    })?;
    ensure!(lines_with(&pair.fw1, full) == 1, "{}", pair.fw1.log());
    ensure!(lines_with(&pair.fw2, "cache is full") == 0);
    Ok(())
}
