//! Goal: after a takeover the backup's kernel holds the same flows as the
//! primary's, field by field, for every kind of flow.
//! Method: real traffic through FW1; commit on FW2, or direct injection; the two
//! kernel tables are compared as `conntrack -L` shows them, translation included,
//! after both are known to hold the expected number of flows.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::daemon::Settings;
use lab::topology::{DNAT_PORT, OUTSIDE, Options, SERVER, SERVER6};
use lab::world::World;

use crate::Scenario;
use crate::pair::{PORT, Pair, address, notrack};

const COUNT: usize = 40;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("tables/tcp_with_source_nat_committed", |w| {
        tcp(w, COMMIT, SERVER)
    }),
    ("tables/tcp_with_source_nat_injected", |w| {
        tcp(w, INJECT, SERVER)
    }),
    ("tables/tcp_over_ipv6_with_source_nat_committed", |w| {
        tcp(w, COMMIT, SERVER6)
    }),
    ("tables/tcp_over_ipv6_with_source_nat_injected", |w| {
        tcp(w, INJECT, SERVER6)
    }),
    ("tables/tcp_without_internal_cache_committed", |w| {
        tcp(w, "DisableInternalCache on", SERVER)
    }),
    ("tables/translated_ports_committed", |w| {
        translated_ports(w, COMMIT)
    }),
    ("tables/translated_ports_injected", |w| {
        translated_ports(w, INJECT)
    }),
    ("tables/destination_nat_committed", |w| {
        destination_nat(w, COMMIT, false)
    }),
    ("tables/destination_nat_injected", |w| {
        destination_nat(w, INJECT, false)
    }),
    ("tables/destination_nat_over_ipv6_committed", |w| {
        destination_nat(w, COMMIT, true)
    }),
    ("tables/destination_nat_over_ipv6_injected", |w| {
        destination_nat(w, INJECT, true)
    }),
    ("tables/udp_committed", |w| udp(w, COMMIT)),
    ("tables/udp_injected", |w| udp(w, INJECT)),
    ("tables/icmp_and_icmpv6_committed", |w| icmp(w, COMMIT)),
    ("tables/icmp_and_icmpv6_injected", |w| icmp(w, INJECT)),
    ("tables/marks_and_zones_committed", |w| {
        marks_and_zones(w, COMMIT)
    }),
    ("tables/marks_and_zones_injected", |w| {
        marks_and_zones(w, INJECT)
    }),
    ("tables/a_second_commit_changes_nothing", second_commit),
    (
        "tables/committed_flows_get_their_remaining_timeout",
        remaining_timeout,
    ),
    (
        "tables/commit_timeout_is_given_to_committed_flows",
        commit_timeout,
    ),
];

const COMMIT: &str = "";
const INJECT: &str = "DisableExternalCache on";

fn settings(mode_lines: &str) -> Settings {
    Settings {
        mode_lines: mode_lines.into(),
        ..notrack()
    }
}

/// Brings the flows of `filter` into FW2's kernel and compares the tables.
fn compare(pair: &Pair, filter: &str, count: usize) -> Result<()> {
    if pair.settings.mode_lines.contains("DisableExternalCache") {
        pair.wait_kernel(filter, count)?;
    } else {
        // ICMP, and flows of the other family, are not distinguished here: ask for all.
        let known = || pair.fw2.external("src=").map_or(0, |l| l.len());
        lab::wait::until("FW2 knows the flows", crate::pair::SOON, || {
            known() >= count
        })?;
        let before = pair.lab.count_flows(1, filter)?;
        ensure!(before == 0, "FW2 has {before} flows before the commit");
        pair.fw2.ask(&["-c"])?;
    }
    let same = || -> Result<bool> { Ok(pair.lab.table(0, filter)? == pair.lab.table(1, filter)?) };
    // A late event of FW1 may still be on its way.
    let _ = lab::wait::until("equal tables", Duration::from_secs(2), || {
        same().unwrap_or(false)
    });
    let (first, second) = (pair.lab.table(0, filter)?, pair.lab.table(1, filter)?);
    ensure!(
        first.len() == count,
        "FW1 has {} flows:\n{}",
        first.len(),
        first.join("\n")
    );
    ensure!(
        second.len() == count,
        "FW2 has {} flows:\n{}",
        second.len(),
        second.join("\n")
    );
    for (a, b) in first.iter().zip(&second) {
        ensure!(a == b, "FW1: {a}\nFW2: {b}");
    }
    Ok(())
}

fn tcp(world: &World, mode_lines: &str, server: &str) -> Result<()> {
    let pair = Pair::start(world, settings(mode_lines), Options::default())?;
    let _open = pair.connect(server, COUNT)?;
    let family = if server.contains(':') { "-f ipv6" } else { "" };
    let filter = format!("-p tcp --dport {PORT} {family}");
    compare(&pair, &filter, COUNT)?;
    let table = pair.lab.table(1, &filter)?.join("\n");
    let outside = if server.contains(':') {
        "fd00:1::100"
    } else {
        OUTSIDE
    };
    ensure!(
        table.matches(&format!("dst={outside} ")).count() == COUNT,
        "{table}"
    );
    ensure!(table.matches("ESTABLISHED").count() == COUNT, "{table}");
    Ok(())
}

fn translated_ports(world: &World, mode_lines: &str) -> Result<()> {
    let options = Options {
        translate_ports: true,
        ..Options::default()
    };
    let pair = Pair::start(world, settings(mode_lines), options)?;
    // Source ports below the range must become others.
    pair.lab
        .a
        .sysctl("net/ipv4/ip_local_port_range", "20000 30000")?;
    let streams = pair.lab.a.inside(|| -> Result<Vec<TcpStream>> {
        (0..COUNT)
            .map(|_| Ok(TcpStream::connect((SERVER, PORT))?))
            .collect()
    })??;
    let filter = format!("-p tcp --dport {PORT}");
    compare(&pair, &filter, COUNT)?;
    let table = pair.lab.table(1, &filter)?;
    let changed = table.iter().filter(|line| {
        let port = |key: &str, nth: usize| {
            let found = line.split_whitespace().filter_map(|w| w.strip_prefix(key));
            found.map(str::to_owned).nth(nth)
        };
        port("sport=", 0) != port("dport=", 1)
    });
    let changed = changed.count();
    ensure!(changed == COUNT, "{changed} ports were translated");
    drop(streams);
    Ok(())
}

fn destination_nat(world: &World, mode_lines: &str, v6: bool) -> Result<()> {
    let options = Options {
        dnat: true,
        ..Options::default()
    };
    let pair = Pair::start(world, settings(mode_lines), options)?;
    let listener = pair.lab.a.inside(|| TcpListener::bind("[::]:80"))??;
    let (virtual_address, server, family) = if v6 {
        ("fd00:1::100", "fd00::3", "-f ipv6")
    } else {
        (OUTSIDE, "192.168.0.3", "")
    };
    let to = address(virtual_address, DNAT_PORT);
    let streams = pair.lab.b.inside(move || -> Result<Vec<TcpStream>> {
        let limit = Duration::from_secs(3);
        (0..COUNT)
            .map(|_| Ok(TcpStream::connect_timeout(&to, limit)?))
            .collect()
    })??;
    let filter = format!("-p tcp --dport {DNAT_PORT} {family}");
    compare(&pair, &filter, COUNT)?;
    let table = pair.lab.table(1, &filter)?.join("\n");
    ensure!(
        table.matches(&format!("src={server} ")).count() == COUNT,
        "{table}"
    );
    drop((listener, streams));
    Ok(())
}

fn udp(world: &World, mode_lines: &str) -> Result<()> {
    let options = Options {
        datagrams: true,
        ..Options::default()
    };
    let pair = Pair::start(world, settings(mode_lines), options)?;
    let echo = pair.lab.b.inside(|| UdpSocket::bind((SERVER, 9)))??;
    let sockets = pair.lab.a.inside(|| -> Result<Vec<UdpSocket>> {
        (0..COUNT)
            .map(|_| {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.send_to(b"x", (SERVER, 9))?;
                Ok(socket)
            })
            .collect()
    })??;
    let mut buffer = [0; 8];
    for _ in 0..COUNT {
        let (_, from) = echo.recv_from(&mut buffer)?;
        echo.send_to(b"y", from)?;
    }
    compare(&pair, "-p udp --dport 9", COUNT)?;
    drop(sockets);
    Ok(())
}

fn icmp(world: &World, mode_lines: &str) -> Result<()> {
    let options = Options {
        datagrams: true,
        ..Options::default()
    };
    let pair = Pair::start(world, settings(mode_lines), options)?;
    for _ in 0..3 {
        pair.lab.a.run(&format!("ping -c 1 -W 2 {SERVER}"))?;
        pair.lab.a.run(&format!("ping -c 1 -W 2 {SERVER6}"))?;
    }
    compare(&pair, "-p icmp", 3)?;
    if !mode_lines.is_empty() {
        compare(&pair, "-p icmpv6 -f ipv6 -s fd00:0::3 -d fd00:1::2", 3)?;
    }
    Ok(())
}

fn marks_and_zones(world: &World, mode_lines: &str) -> Result<()> {
    let options = Options {
        mark: Some(0x1234_5678),
        zone: Some(5),
        ..Options::default()
    };
    let pair = Pair::start(world, settings(mode_lines), options)?;
    let _open = pair.connect(SERVER, COUNT)?;
    compare(&pair, &format!("-p tcp --dport {PORT} -w 5"), COUNT)?;
    let table = pair
        .lab
        .table(1, &format!("-p tcp --dport {PORT}"))?
        .join("\n");
    ensure!(table.matches("zone=5").count() == COUNT, "{table}");
    ensure!(
        table.matches(&format!("mark={}", 0x1234_5678)).count() == COUNT,
        "{table}"
    );
    Ok(())
}

/// The kernel's ids show that no flow was deleted and made again.
fn second_commit(world: &World) -> Result<()> {
    let pair = Pair::start(world, notrack(), Options::default())?;
    let _open = pair.connect(SERVER, COUNT)?;
    pair.wait_external(&format!("dport={PORT} "), COUNT)?;
    let ids = || -> Result<Vec<String>> {
        let lines = pair.lab.flows(1, &format!("-p tcp --dport {PORT} -o id"))?;
        let id = |l: &String| {
            l.split_whitespace()
                .find(|w| w.starts_with("id="))
                .map(str::to_owned)
        };
        let mut ids: Vec<String> = lines.iter().filter_map(id).collect();
        ids.sort();
        Ok(ids)
    };
    pair.fw2.ask(&["-c"])?;
    let first = ids()?;
    pair.fw2.ask(&["-c"])?;
    ensure!(first.len() == COUNT);
    ensure!(ids()? == first, "a second commit made flows again");
    ensure!(
        pair.fw2
            .log()
            .contains(&format!("{COUNT} entries were there already"))
    );
    Ok(())
}

fn timeouts(pair: &Pair) -> Result<Vec<u32>> {
    let lines = pair.lab.flows(1, "-p udp --dport 9")?;
    let timeout = |l: &String| l.split_whitespace().nth(2).and_then(|w| w.parse().ok());
    Ok(lines.iter().filter_map(timeout).collect())
}

fn one_udp_flow(pair: &Pair) -> Result<UdpSocket> {
    let socket = pair.lab.a.inside(|| UdpSocket::bind("0.0.0.0:0"))??;
    socket.send_to(b"x", (SERVER, 9))?;
    pair.wait_external("dport=9 ", 1)?;
    Ok(socket)
}

fn remaining_timeout(world: &World) -> Result<()> {
    let options = Options {
        datagrams: true,
        ..Options::default()
    };
    let pair = Pair::start(world, notrack(), options)?;
    let _socket = one_udp_flow(&pair)?;
    std::thread::sleep(Duration::from_secs(4));
    pair.fw2.ask(&["-c"])?;
    // The kernel's timeout of an unanswered flow is 30 s; 4 s have passed.
    let found = timeouts(&pair)?;
    ensure!(
        found.len() == 1 && (23..=27).contains(&found[0]),
        "{found:?}"
    );
    Ok(())
}

fn commit_timeout(world: &World) -> Result<()> {
    let options = Options {
        datagrams: true,
        ..Options::default()
    };
    let pair = Pair::start(world, settings("CommitTimeout 500"), options)?;
    let _socket = one_udp_flow(&pair)?;
    pair.fw2.ask(&["-c"])?;
    let found = timeouts(&pair)?;
    ensure!(
        found.len() == 1 && (497..=500).contains(&found[0]),
        "{found:?}"
    );
    Ok(())
}
