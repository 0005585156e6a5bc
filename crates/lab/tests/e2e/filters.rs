//! Filters in the kernel: the same flows as in user space, and no wake-up for the others.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::daemon::{Kind, Settings, Transport};
use lab::topology::{Options, SERVER, SERVER6};
use lab::traffic::datagrams;
use lab::wait;
use lab::world::World;
use serde_json::Value;

use crate::Scenario;
use crate::pair::{PORT, Pair, SOON, notrack};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("filters/the_kernel_delivers_no_ignored_event", |w| {
        let (events, _) = ignored_events(w, "Kernelspace")?;
        ensure!(events < 200, "{events} events were delivered");
        Ok(())
    }),
    ("filters/in_user_space_every_event_is_delivered", |w| {
        let (events, filtered) = ignored_events(w, "Userspace")?;
        ensure!(events > 2000 && filtered > 2000, "{events}, {filtered}");
        Ok(())
    }),
    ("filters/an_end_in_an_ignored_state_is_announced", ends),
    ("filters/one_end_inside_is_enough", |w| {
        let known = one_end_inside(w, Kind::Ftfw, SERVER)?;
        ensure!(known == 3, "{known} of 3 flows");
        Ok(())
    }),
    ("filters/one_end_inside_is_not_enough_for_conntrackd", |w| {
        let known = one_end_inside(w, Kind::Conntrackd, SERVER)?;
        ensure!(
            known == 0,
            "{known} flows: the original's program has been mended"
        );
        Ok(())
    }),
    ("filters/networks_of_ipv4_judge_no_flow_of_ipv6", |w| {
        let known = one_end_inside(w, Kind::Ftfw, SERVER6)?;
        ensure!(known == 0, "{known} flows are inside no network");
        Ok(())
    }),
    ("filters/messages_of_a_udp_link_are_never_replicated", |w| {
        never_replicated(w, Transport::Udp)
    }),
    (
        "filters/messages_of_a_udp_ipv6_link_are_never_replicated",
        |w| never_replicated(w, Transport::Udp6),
    ),
    (
        "filters/messages_of_a_multicast_link_are_never_replicated",
        |w| never_replicated(w, Transport::Multicast),
    ),
    (
        "filters/messages_of_a_link_without_own_address_are_never_replicated",
        |w| never_replicated(w, Transport::Blocks(NO_OWN_ADDRESS)),
    ),
    ("filters/messages_of_a_tcp_link_are_never_replicated", |w| {
        never_replicated(w, Transport::Tcp)
    }),
    (
        "filters/conntrackd_replicates_the_messages_of_its_link",
        |w| {
            let known = own_traffic(w, [Kind::Conntrackd; 2], Transport::Udp)?;
            ensure!(!known.is_empty(), "the original has been mended");
            Ok(())
        },
    ),
    (
        "filters/messages_of_conntrackds_link_are_not_taken_over",
        |w| {
            let kinds = [Kind::Conntrackd, Kind::Ftfw];
            let known = own_traffic(w, kinds, Transport::Udp)?;
            ensure!(known.is_empty(), "{known:?}");
            Ok(())
        },
    ),
    ("filters/many_addresses_are_honoured", many),
    ("filters/too_many_for_the_kernel_are_honoured", |w| {
        let pair = ignoring(w, 2000)?;
        ensure!(
            pair.fw1.log().contains("too long for the kernel"),
            "{}",
            pair.fw1.log()
        );
        Ok(())
    }),
];

/// A filter in a place, which comes after that of the laboratory and so decides.
fn filter(place: &str, sets: &str) -> Settings {
    Settings {
        sync_lines: format!("}}\nGeneral {{\nFilter From {place} {{\n{sets}\n}}"),
        ..notrack()
    }
}

/// Events that a daemon gets, and filters itself, while 2000 flows begin that it ignores.
fn ignored_events(world: &World, place: &str) -> Result<(u64, u64)> {
    let settings = filter(place, "Protocol Accept {\nTCP\n}");
    let pair = Pair::start(world, settings, Options::default())?;
    let line = format!(
        "using {}-space event filtering",
        place.replace("space", "").to_lowercase()
    );
    ensure!(pair.fw1.log().contains(&line), "{line}: {}", pair.fw1.log());
    datagrams::create(&pair.lab.fw[0], world.dir(), 2000)?;
    let _open = pair.connect(SERVER, 5)?;
    pair.wait_external(&format!("dport={PORT} "), 5)?;
    ensure!(
        pair.fw2.external("udp ")?.is_empty(),
        "an ignored flow was sent"
    );
    let counter = |line| Pair::counter(&pair.fw1, &["-s", "runtime"], line);
    Ok((counter("events received:")?, counter("events filtered:")?))
}

/// TIME_WAIT is ignored, and a flow ends in it.
fn ends(world: &World) -> Result<()> {
    let settings = filter("Kernelspace", "State Accept {\nESTABLISHED for TCP\n}");
    let pair = Pair::start(world, settings, Options::default())?;
    pair.lab.forget_ended_soon(0)?;
    let ends = pair.connect(SERVER, 2)?;
    let _open = pair.connect(SERVER, 3)?;
    pair.wait_external(&format!("dport={PORT} "), 5)?;
    drop(ends);
    pair.wait_ended(3)
}

/// Flows that the peer knows if only the network of A is accepted. B is outside.
fn one_end_inside(world: &World, kind: Kind, server: &str) -> Result<usize> {
    let settings = filter(
        "Kernelspace",
        "Address Accept {\nIPv4_address 192.168.0.0/24\n}",
    );
    let pair = Pair::of(world, kind, settings, Options::default())?;
    let _open = pair.connect(server, 3)?;
    let known = || pair.fw2.external(&format!("dport={PORT} "));
    let _ = wait::until("FW2 knows them", Duration::from_secs(3), || {
        known().is_ok_and(|l| l.len() == 3)
    });
    Ok(known()?.len())
}

/// Flows of the dedicated link that the peer knows when no filter leaves them out.
fn own_traffic(world: &World, kinds: [Kind; 2], transport: Transport) -> Result<Vec<String>> {
    let settings = Settings {
        transport,
        ignores_own_traffic: false,
        ..notrack()
    };
    let pair = Pair::mixed(world, kinds, settings, Options::default())?;
    let _open = pair.connect(SERVER, 3)?;
    pair.wait_external(&format!("dport={PORT} "), 3)?;
    let family = if transport == Transport::Udp6 {
        "ipv6"
    } else {
        "ipv4"
    };
    let tracked = pair.lab.flows(0, &format!("-f {family}"))?;
    let is_tracked = tracked.iter().any(|line| line.contains("dport=3780 "));
    ensure!(is_tracked, "FW1's kernel tracks the link: {tracked:?}");
    // Its flows are announced with the first ones, if at all.
    std::thread::sleep(Duration::from_secs(1));
    if kinds == [Kind::Conntrackd, Kind::Ftfw] {
        let status: Value = serde_json::from_str(&pair.fw2.own(&["status", "-o", "json"])?)?;
        let ignored = status["links_ignored"].as_u64();
        ensure!(ignored.is_some_and(|n| n > 0), "none came: {status}");
    }
    pair.fw2.external("dport=3780 ")
}

/// As VyOS writes it.
const NO_OWN_ADDRESS: &str = "
UDP {
    IPv4_Destination_Address 10.77.9.PEER
    Port 3780
    Interface eth2
}";

fn never_replicated(world: &World, transport: Transport) -> Result<()> {
    let known = own_traffic(world, [Kind::Ftfw; 2], transport)?;
    ensure!(known.is_empty(), "{known:?}");
    Ok(())
}

/// A pair whose first addresses, and the server's behind them, are ignored.
fn ignoring(world: &World, count: u32) -> Result<Pair> {
    let address = |n: u32| {
        let [_, _, a, b] = n.to_be_bytes();
        format!("IPv4_address 10.200.{a}.{b}\n")
    };
    let addresses: String = (0..count).map(address).collect();
    let sets = format!("Address Ignore {{\n{addresses}IPv4_address {SERVER}\n}}");
    let pair = Pair::start(world, filter("Kernelspace", &sets), Options::default())?;
    let line = |n: u32| {
        let [_, _, a, b] = n.to_be_bytes();
        format!(
            "-I -p udp -s 10.200.{a}.{b} -d 10.8.0.1 --sport 1 --dport 9 -t 600 -u SEEN_REPLY\n"
        )
    };
    let file = world.dir().join("flows");
    // One more than is ignored: it comes last.
    let flows: String = (0..=count).map(line).collect();
    fs::write(&file, flows)?;
    pair.lab.fw[0].run(&format!("conntrack -R {}", file.display()))?;
    let _open = pair.connect(SERVER, 3)?;
    wait::until("FW2 knows the flow that is not ignored", SOON, || {
        pair.fw2.external("dport=9 ").is_ok_and(|l| !l.is_empty())
    })?;
    let known = pair.fw2.external("src=10.200.")?;
    ensure!(known.len() == 1, "{} flows were sent", known.len());
    let behind = pair.fw2.external(&format!("dport={PORT} "))?;
    ensure!(behind.is_empty(), "the last address is not honoured");
    Ok(pair)
}

/// The original honours 127.
fn many(world: &World) -> Result<()> {
    let pair = ignoring(world, 500)?;
    let events = Pair::counter(&pair.fw1, &["-s", "runtime"], "events received:")?;
    ensure!(events < 100, "{events} events were delivered");
    Ok(())
}
