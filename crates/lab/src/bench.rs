//! Measurements beside conntrackd: the same work, alternating, in one run.
//!
//! A synthetic peer on FW1 sends flows with source NAT, as a primary would, to the
//! daemon on FW2. The machine may be shared: read the figures as ratios, and see
//! the spread.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use flow::{Addrs, Flow, L4, Proto, ProtoInfo, Status, TcpInfo, TcpState, Tuple};
use wire::v1::{Batch, Flags, FlowOptions, Seq, StateKind, encode_flow};

use crate::daemon::{Daemon, Kind, Mode, Settings};
use crate::hostile::{self, Attack};
use crate::topology::{Lab, Options, SERVER};
use crate::traffic::datagrams;
use crate::wait;
use crate::world::World;

const KINDS: [Kind; 2] = [Kind::Conntrackd, Kind::Ftfw];

/// Which family the flows of a measurement have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The same as IPv6 flow, with the same ports.
fn flow6(n: u32) -> Flow {
    let v4 = flow(n);
    let [_, a, b, c] = n.to_be_bytes();
    let mut flow = v4;
    flow.orig.addrs = Addrs::V6 {
        src: [0xfd00, 0, 0, 1, 0, 0, a.into(), u16::from_be_bytes([b, c])].into(),
        dst: [0xfd00, 0, 0, 2, 0, 0, 0, 2].into(),
    };
    let outside = [0xfd00, 0, 0, 2, 0, 0, 0, 0x100];
    flow.reply.addrs = Addrs::V6 {
        src: [0xfd00, 0, 0, 2, 0, 0, 0, 2].into(),
        dst: outside.into(),
    };
    flow
}

/// Flow number `n`: established TCP, translated to 192.168.1.100 and another port.
pub(crate) fn flow(n: u32) -> Flow {
    let src = [10, (n >> 16) as u8, (n >> 8) as u8, n as u8];
    let mut flow = Flow::new(Tuple {
        addrs: Addrs::V4 {
            src: src.into(),
            dst: [192, 168, 1, 2].into(),
        },
        proto: Proto::TCP,
        l4: L4::Ports {
            src: 1024 + (n % 60_000) as u16,
            dst: 80 + (n / 60_000) as u16,
        },
    });
    let nat = [192, 168, 1, 100];
    flow.reply.addrs = Addrs::V4 {
        src: [192, 168, 1, 2].into(),
        dst: nat.into(),
    };
    flow.reply.l4 = L4::Ports {
        src: 80 + (n / 60_000) as u16,
        dst: 1025 + (n % 60_000) as u16,
    };
    flow.status = [
        Status::SEEN_REPLY,
        Status::ASSURED,
        Status::CONFIRMED,
        Status::SRC_NAT,
        Status::SRC_NAT_DONE,
        Status::DST_NAT_DONE,
    ]
    .into_iter()
    .fold(Status(0), Status::with);
    flow.timeout = Some(432_000);
    flow.proto_info = Some(ProtoInfo::Tcp(TcpInfo {
        state: TcpState::ESTABLISHED,
        window_scale: None,
    }));
    flow
}

/// Sends `count` flows to FW2, slowly enough that its receive buffer holds them.
fn send_flows(lab: &Lab, count: u32, family: Family) -> Result<()> {
    let socket = lab.fw[0].inside(|| UdpSocket::bind("10.77.9.1:0"))??;
    let to = "10.77.9.2:3780";
    let options = FlowOptions {
        timeout: true,
        window_scale: false,
    };
    let mut batch = Batch::new(1500, 28);
    let (mut seq, mut datagrams) = (Seq(1), 0u32);
    for n in 0..count {
        let flow = match family {
            Family::V4 => flow(n),
            Family::V6 => flow6(n),
        };
        let push = |batch: &mut Batch| {
            batch.push(|out| {
                encode_flow(out, StateKind::New, Flags::NONE, seq, &flow, options);
            })
        };
        if !push(&mut batch) {
            socket.send_to(batch.bytes(), to)?;
            datagrams += 1;
            if datagrams.is_multiple_of(6) {
                thread::sleep(Duration::from_millis(1));
            }
            batch.clear();
            push(&mut batch);
        }
        seq = seq.next();
    }
    socket.send_to(batch.bytes(), to)?;
    Ok(())
}

/// A daemon on FW2 that knows `count` flows.
fn loaded(
    world: &World,
    lab: &Lab,
    kind: Kind,
    count: u32,
    family: Family,
) -> Result<(Daemon, u64)> {
    let settings = Settings::new(Mode::Notrack);
    let daemon = Daemon::start(kind, &lab.fw[1], 1, &settings, world.dir())?;
    let daemon = daemon.context("no daemon")?;
    let before = daemon.resident_bytes()?;
    send_flows(lab, count, family)?;
    let mut known = 0;
    wait::until(
        "the daemon knows the flows",
        Duration::from_secs(60),
        || {
            known = external_flows(&daemon).unwrap_or(0);
            known == u64::from(count)
        },
    )
    .with_context(|| format!("{kind} knows {known} of {count}"))?;
    Ok((daemon, before))
}

pub(crate) fn external_flows(daemon: &Daemon) -> Result<u64> {
    let text = daemon.ask(&["-s"])?;
    let line = text
        .lines()
        .filter(|l| l.starts_with("current active connections:"))
        .nth(1)
        .context("no external cache in the statistics")?;
    Ok(line
        .split_whitespace()
        .next_back()
        .context("no number")?
        .parse()?)
}

/// Median and spread of some numbers.
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

fn spread(mut values: Vec<f64>) -> Spread {
    values.sort_by(f64::total_cmp);
    Spread {
        median: values[values.len() / 2],
        min: values[0],
        max: values[values.len() - 1],
    }
}

fn print(title: &str, unit: &str, results: &[(String, Vec<f64>)]) {
    println!("{title}");
    if results.iter().any(|(_, values)| values.is_empty()) {
        println!("  no result of one of them");
        return;
    }
    let mut medians = Vec::new();
    for (name, values) in results {
        let s = spread(values.clone());
        medians.push(s.median);
        println!(
            "  {name:<24} median {:>10.2} {unit}   min {:>10.2}   max {:>10.2}   ({} runs)",
            s.median,
            s.min,
            s.max,
            values.len()
        );
    }
    let mut ratio = String::new();
    if let [theirs, ours] = medians[..]
        && theirs > 0.0
    {
        let _ = write!(ratio, "{:.2}", ours / theirs);
    }
    if !ratio.is_empty() {
        println!("  ftfw / conntrackd: {ratio}");
    }
}

/// Time and CPU time of a commit of `count` flows into an empty kernel table.
pub fn commit(world: &World, count: u32, rounds: usize) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let mut wall: Vec<(String, Vec<f64>)> = Vec::new();
    let mut cpu: Vec<(String, Vec<f64>)> = Vec::new();
    for kind in KINDS {
        wall.push((kind.to_string(), Vec::new()));
        cpu.push((kind.to_string(), Vec::new()));
    }
    for _ in 0..rounds {
        for (n, kind) in KINDS.into_iter().enumerate() {
            let (daemon, _) = loaded(world, &lab, kind, count, Family::V4)?;
            let cpu_before = daemon.cpu_ns()?;
            let begun = Instant::now();
            daemon.ask(&["-c"])?;
            wall[n].1.push(begun.elapsed().as_secs_f64() * 1000.0);
            let used = daemon.cpu_ns()? - cpu_before;
            cpu[n].1.push(used as f64 / 1000.0 / f64::from(count));
            let text = lab.fw[1].run("cat /proc/sys/net/netfilter/nf_conntrack_count")?;
            let there: u32 = text.trim().parse()?;
            ensure!(there >= count, "{kind} committed {there} of {count} flows");
            daemon.stop()?;
            lab.fw[1].run("conntrack -F")?;
        }
    }
    print(
        &format!("commit of {count} flows with source NAT, time of -c"),
        "ms",
        &wall,
    );
    print("CPU time of the daemon", "µs per flow", &cpu);
    Ok(())
}

/// Growth of resident memory while the external cache takes `count` flows.
pub fn memory(world: &World, count: u32, rounds: usize, family: Family) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let mut results: Vec<(String, Vec<f64>)> = Vec::new();
    for kind in KINDS {
        results.push((kind.to_string(), Vec::new()));
    }
    for _ in 0..rounds {
        for (n, kind) in KINDS.into_iter().enumerate() {
            let (daemon, before) = loaded(world, &lab, kind, count, family)?;
            let grown = daemon.resident_bytes()?.saturating_sub(before);
            results[n].1.push(grown as f64 / f64::from(count));
            daemon.stop()?;
        }
    }
    print(
        &format!("external cache, growth of resident memory by {count} flows ({family:?})"),
        "bytes per flow",
        &results,
    );
    Ok(())
}

/// Time and CPU time of the daemon for a listing of the external cache: ours as JSON, the
/// original's as XML, and how much memory it takes meanwhile.
pub fn listing(world: &World, count: u32, rounds: usize) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let none = || KINDS.map(|kind| (kind.to_string(), Vec::new()));
    let (mut wall, mut grown) = (none(), none());
    let mut cpu = Vec::new();
    for (k, kind) in KINDS.into_iter().enumerate() {
        let (daemon, _) = loaded(world, &lab, kind, count, Family::V4)?;
        for _ in 0..rounds {
            let (before, cpu_before) = (daemon.resident_bytes()?, daemon.cpu_ns()?);
            let mut command = match kind {
                Kind::Ftfw => daemon.own_command(&["flows", "external", "-o", "json"])?,
                _ => daemon.command(&["-e", "-x"])?,
            };
            let begun = Instant::now();
            let mut child = command.stdout(Stdio::piped()).spawn()?;
            let out = child.stdout.take().context("its output")?;
            let rows = BufReader::with_capacity(1 << 16, out).split(b'\n').count();
            child.wait()?;
            wall[k].1.push(begun.elapsed().as_secs_f64());
            ensure!(rows == count as usize, "{kind} lists {rows} of {count}");
            let growth = daemon.resident_bytes()?.saturating_sub(before);
            grown[k].1.push(growth as f64 / f64::from(1 << 20));
            if kind == Kind::Ftfw {
                let used = daemon.cpu_ns()? - cpu_before;
                cpu.push(used as f64 / 1000.0 / f64::from(count));
            }
        }
        daemon.stop()?;
    }
    print(
        &format!("listing of {count} flows, JSON and XML"),
        "s",
        &wall,
    );
    print("growth of the daemon's memory by it", "MiB", &grown);
    // The original's child process does that work: its CPU time is not the daemon's.
    let cpu = spread(cpu);
    println!(
        "CPU time of ftfw's daemon: {:.2} µs per flow ({:.2} to {:.2})",
        cpu.median, cpu.min, cpu.max
    );
    Ok(())
}

/// Time from `-n` until the backup knows `count` flows that it had not been told of, and
/// CPU time of both daemons meanwhile.
pub fn bulk(world: &World, count: u32, rounds: usize) -> Result<()> {
    let lab = datagrams::lab()?;
    let none = || KINDS.map(|kind| (kind.to_string(), Vec::new()));
    let (mut rate, mut cpu) = (none(), [none(), none()]);
    datagrams::send(&lab.a, SERVER, count as usize)?;
    let held = lab.count_flows(0, "-p udp -s 192.168.0.3")?;
    ensure!(held == count as usize, "FW1's kernel holds {held} flows");
    for _ in 0..rounds {
        for (k, kind) in KINDS.into_iter().enumerate() {
            let settings = Settings::new(Mode::Ftfw);
            let start = |n: usize| -> Result<Daemon> {
                let daemon = Daemon::start(kind, &lab.fw[n], n, &settings, world.dir())?;
                daemon.context("no daemon")
            };
            let daemons = [start(0)?, start(1)?];
            // They are to have greeted each other.
            thread::sleep(Duration::from_millis(2500));
            let before = external_flows(&daemons[1])?;
            ensure!(before < 100, "{kind}: {before} flows known before");
            let cpu_before = [daemons[0].cpu_ns()?, daemons[1].cpu_ns()?];
            let begun = Instant::now();
            daemons[1].ask(&["-n"])?;
            let mut known = 0;
            let all = wait::until("the backup knows all", Duration::from_secs(30), || {
                known = external_flows(&daemons[1]).unwrap_or(0);
                known >= u64::from(count)
            });
            let took = begun.elapsed().as_secs_f64();
            if all.is_err() {
                println!("  {kind}: the backup knows {known} of {count} after {took:.0} s");
            } else {
                rate[k].1.push(f64::from(count) / took / 1000.0);
            }
            for n in 0..2 {
                let used = daemons[n].cpu_ns()? - cpu_before[n];
                cpu[n][k].1.push(used as f64 / 1000.0 / f64::from(count));
            }
            let text = daemons[1].ask(&["-s", "network"])?;
            let lost = text.lines().find(|l| l.contains("Packets lost"));
            println!("  {kind}: {:.2} s, {}", took, lost.unwrap_or("").trim());
            for daemon in daemons {
                daemon.stop()?;
            }
        }
    }
    print("bulk update in FT-FW", "thousand flows/s", &rate);
    print("CPU time of the sender", "µs per flow", &cpu[0]);
    print("CPU time of the receiver", "µs per flow", &cpu[1]);
    Ok(())
}

/// Flows missing and time to equality at several losses, and the bytes that it took.
/// Each run has namespaces of its own: this is called outside of any.
pub fn loss(connections: u32, rounds: usize) -> Result<()> {
    println!("{connections} connections, half of them closed, FT-FW; {rounds} runs each");
    for loss in ["0", "0.01", "0.05", "0.2"] {
        for kind in KINDS {
            let mut times = Vec::new();
            let mut bytes = Vec::new();
            let (mut missing, mut stale) = (0.0, 0.0);
            for seed in 0..rounds {
                let words = format!(
                    "loss --daemon {kind} --mode ftfw --loss {loss} --connections {connections} \
                     --seed {seed}"
                );
                let out = crate::world::command(words.split(' ').map(Into::into))?.output()?;
                let text = String::from_utf8_lossy(&out.stdout);
                let value = |name: &str| -> Result<f64> {
                    let word = text.split_whitespace().find_map(|w| w.strip_prefix(name));
                    let error = || format!("{text}{}", String::from_utf8_lossy(&out.stderr));
                    Ok(word.with_context(error)?.parse()?)
                };
                missing += value("missing=")?;
                stale += value("stale=")?;
                bytes.push(value("bytes_per_event=")?);
                times.extend(value("equal_after="));
            }
            let equal = times.len();
            let time = if times.is_empty() {
                String::new()
            } else {
                let t = spread(times);
                format!(", after {:.2} s ({:.2} to {:.2})", t.median, t.min, t.max)
            };
            println!(
                "  loss {loss:<4} {kind:<10} equal in {equal} of {rounds}{time}; {missing} flows \
                 missing and {stale} stale at the end; {:.0} bytes an event",
                spread(bytes).median
            );
        }
    }
    Ok(())
}

/// CPU time of both daemons while `count` TCP connections are opened and closed
/// through FW1, one after the other.
pub fn connections(world: &World, count: u32, rounds: usize) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let server = SocketAddr::new(SERVER.parse()?, 7);
    let listener = lab.b.inside(move || TcpListener::bind(server))??;
    thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream);
        }
    });
    // Closed connections must not use up the client's ports.
    lab.a.sysctl("net/ipv4/tcp_tw_reuse", "1")?;
    lab.a.sysctl("net/ipv4/ip_local_port_range", "1025 65000")?;
    for fw in &lab.fw {
        for key in ["time_wait", "close", "last_ack", "fin_wait", "close_wait"] {
            fw.sysctl(
                &format!("net/netfilter/nf_conntrack_tcp_timeout_{key}"),
                "5",
            )?;
        }
    }
    let mut cpu = [Vec::new(), Vec::new()];
    for kind in KINDS {
        for list in &mut cpu {
            list.push((kind.to_string(), Vec::new()));
        }
    }
    for _ in 0..rounds {
        for (k, kind) in KINDS.into_iter().enumerate() {
            let settings = Settings::new(Mode::Notrack);
            let start = |n: usize| Daemon::start(kind, &lab.fw[n], n, &settings, world.dir());
            let daemons = [
                start(0)?.context("no daemon")?,
                start(1)?.context("no daemon")?,
            ];
            let before = [daemons[0].cpu_ns()?, daemons[1].cpu_ns()?];
            let begun = Instant::now();
            lab.a.inside(move || -> Result<()> {
                for _ in 0..count {
                    let mut stream = TcpStream::connect(server)?;
                    // The server closes first: the client's ports are free at once.
                    let _ = stream.read(&mut [0; 1]);
                }
                Ok(())
            })??;
            let rate = f64::from(count) / begun.elapsed().as_secs_f64();
            for n in 0..2 {
                let used = daemons[n].cpu_ns()? - before[n];
                cpu[n][k].1.push(used as f64 / 1000.0 / f64::from(count));
            }
            let known = daemons[1].external("dport=7 ")?.len();
            println!("  {kind}: {rate:.0} connections/s, the backup knows {known}");
            for daemon in daemons {
                daemon.stop()?;
            }
            lab.fw[0].run("conntrack -F")?;
        }
    }
    print("CPU time of the sender", "µs per connection", &cpu[0]);
    print("CPU time of the receiver", "µs per connection", &cpu[1]);
    Ok(())
}

/// What forged datagrams make the daemons send and log, one run each.
pub fn hostile(world: &World) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    println!(
        "{} flows; bytes with all headers, 9 s from the first",
        hostile::FLOWS
    );
    for attack in [Attack::Resync, Attack::Hello, Attack::Epochs] {
        for kind in KINDS {
            let m = hostile::measure(world, &lab, kind, attack)?;
            println!(
                "  {:<7} {:<10} forged {:>6}, sent {:>10} ({:>6.1} a byte, {:>5.2} of all \
                 flows once), logged {:>7}",
                format!("{attack:?}"),
                kind.to_string(),
                m.forged,
                m.answered,
                m.answered as f64 / m.forged as f64,
                m.answered as f64 / m.copy as f64,
                m.log
            );
        }
    }
    Ok(())
}
