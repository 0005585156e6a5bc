//! Goal: whatever a flow can be, the backup's kernel gets it as it is, or not at all.
//! Method: flows of all kinds are made in FW1's kernel through ctnetlink; what FW2's
//! kernel has after a commit, or by injection, is compared field by field.

use anyhow::{Context, Result, ensure};
use flow::{
    Addrs, Flow, L4, Labels, Mark, Proto, ProtoInfo, SctpInfo, SeqAdj, SeqAdjPair, Status,
    SynProxy, TcpInfo, TcpState, Tuple, Zone,
};
use lab::daemon::{Daemon, Kind, Settings};
use lab::topology::{Lab, Options};
use lab::world::World;
use lab::{kernel, wait};

use crate::Scenario;
use crate::pair::{Pair, SOON, notrack};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("kinds/all_that_can_be_carried_committed", |w| {
        carried(w, "")
    }),
    ("kinds/all_that_can_be_carried_injected", |w| {
        carried(w, "DisableExternalCache on")
    }),
    ("kinds/what_cannot_be_carried_is_left_out", not_carried),
    ("kinds/requests_with_masks_and_ranges", masks_and_ranges),
    (
        "kinds/conntrackd_takes_labels_that_are_cleared",
        cleared_at_the_originals,
    ),
    ("kinds/labels_and_marks_are_cleared_committed", |w| {
        cleared(w, "")
    }),
    ("kinds/labels_and_marks_are_cleared_injected", |w| {
        cleared(w, "DisableExternalCache on")
    }),
];

fn flow(proto: Proto, l4: L4, n: u8) -> Flow {
    let mut flow = Flow::new(Tuple {
        addrs: Addrs::V4 {
            src: [10, 1, 0, n].into(),
            dst: [10, 2, 0, n].into(),
        },
        proto,
        l4,
    });
    flow.timeout = Some(600);
    flow.status = Status::CONFIRMED.with(Status::SEEN_REPLY);
    flow
}

fn ports(src: u16, dst: u16) -> L4 {
    L4::Ports { src, dst }
}

/// Source NAT to 192.168.1.100, with another port where there are ports.
fn translated(mut flow: Flow, l4: L4) -> Flow {
    let outside = "192.168.1.100".parse().expect("an address");
    flow.reply.addrs = flow.reply.addrs.with_dst(outside).expect("of one family");
    flow.reply.l4 = l4;
    flow
}

fn tcp(n: u8) -> Flow {
    let mut tcp = flow(Proto::TCP, ports(1000, 80), n);
    tcp.proto_info = Some(ProtoInfo::Tcp(TcpInfo {
        state: TcpState::ESTABLISHED,
        window_scale: Some((0, 0)),
    }));
    tcp
}

fn all_carried() -> Vec<Flow> {
    let mut sctp = flow(Proto::SCTP, ports(1000, 2000), 1);
    sctp.proto_info = Some(ProtoInfo::Sctp(SctpInfo {
        state: 4,
        vtag_orig: 0x1122_3344,
        vtag_reply: 0x5566_7788,
    }));
    let mut adjusted = translated(tcp(2), ports(80, 4000));
    let adj = |n: u32| SeqAdj {
        correction_pos: n,
        offset_before: 2,
        offset_after: (-3i32).cast_unsigned(),
    };
    adjusted.seq_adj = Some(SeqAdjPair {
        orig: adj(1000),
        reply: adj(2000),
    });
    let mut proxied = tcp(3);
    proxied.synproxy = Some(SynProxy {
        isn: 1,
        its: 2,
        tsoff: 3,
    });
    let mut labelled = flow(Proto::UDP, ports(5, 6), 4);
    labelled.labels = Some(Labels([1 << 3, 0, 0, 1 << 31]));
    labelled.mark = Some(Mark(0xffff_ffff));
    let mut zoned = flow(Proto::UDP, ports(5, 6), 4);
    zoned.zone = Zone(9);
    let query = L4::Icmp {
        id: 77,
        kind: 8,
        code: 0,
    };
    let answer = L4::Icmp {
        id: 77,
        kind: 0,
        code: 0,
    };
    let no_keys = L4::Gre {
        src_key: 0,
        dst_key: 0,
    };
    vec![
        translated(sctp, ports(2000, 3000)),
        sctp_over_ipv6(),
        adjusted,
        proxied,
        labelled,
        zoned,
        translated(flow(Proto::ICMP, query, 5), answer),
        flow(Proto::GRE, no_keys, 6),
        translated(flow(Proto(50), L4::None, 7), L4::None),
    ]
}

fn sctp_over_ipv6() -> Flow {
    let mut sctp = Flow::new(Tuple {
        addrs: Addrs::V6 {
            src: "fd00::5".parse().expect("an address"),
            dst: "fd00:1::5".parse().expect("an address"),
        },
        proto: Proto::SCTP,
        l4: ports(7, 8),
    });
    sctp.timeout = Some(600);
    sctp.status = Status::CONFIRMED.with(Status::SEEN_REPLY);
    sctp.proto_info = Some(ProtoInfo::Sctp(SctpInfo {
        state: 3,
        vtag_orig: 9,
        vtag_reply: 0,
    }));
    sctp
}

/// What two kernels must agree on.
fn comparable(flows: &[Flow]) -> Vec<Flow> {
    let ours = flows.iter().filter(|f| {
        let src = f.orig.addrs.src().to_string();
        src.starts_with("10.1.") || src == "fd00::5"
    });
    let plain = ours.map(|f| Flow {
        timeout: None,
        id: None,
        traffic: None,
        mark: f.mark.filter(|m| *m != Mark(0)),
        labels: f.labels.filter(|l| !l.is_empty()),
        // Every flow made through ctnetlink has one.
        seq_adj: f.seq_adj.filter(|s| *s != SeqAdjPair::default()),
        ..*f
    });
    plain.collect()
}

/// The kernel gives flows room for labels only if a rule looks at them.
fn make_room_for_labels(lab: &Lab) -> Result<()> {
    for fw in &lab.fw {
        fw.run("iptables -A FORWARD -m connlabel --label 1")?;
    }
    Ok(())
}

fn pair(world: &World, mode_lines: &str) -> Result<Pair> {
    let settings = Settings {
        mode_lines: mode_lines.into(),
        ..notrack()
    };
    let pair = Pair::start(world, settings, Options::default())?;
    make_room_for_labels(&pair.lab)?;
    Ok(pair)
}

/// Waits until FW2 knows as many flows, and commits them unless they are injected.
fn bring_over(pair: &Pair, count: usize) -> Result<()> {
    if pair.settings.mode_lines.is_empty() {
        let mut last = 0;
        let known = wait::until("FW2 knows the flows", SOON, || {
            last = pair.fw2.external("src=").map_or(0, |l| l.len());
            last == count
        });
        known.with_context(|| format!("it knows {last} of {count}"))?;
        pair.fw2.ask(&["-c"])?;
    }
    Ok(())
}

/// Compares until both are equal, or returns how they differ.
fn compare(pair: &Pair, count: usize) -> Result<Vec<Flow>> {
    let [fw1, fw2] = &pair.lab.fw;
    let tables = || -> Result<[Vec<Flow>; 2]> {
        Ok([
            comparable(&kernel::dump(fw1)?),
            comparable(&kernel::dump(fw2)?),
        ])
    };
    let _ = wait::until("equal tables", SOON, || {
        tables().is_ok_and(|[a, b]| a.len() == count && a == b)
    });
    let [a, b] = tables()?;
    ensure!(
        a.len() == count && b.len() == count,
        "{} and {} flows instead of {count}: {b:#?}",
        a.len(),
        b.len()
    );
    for (a, b) in a.iter().zip(&b) {
        ensure!(a == b, "FW1: {a:#?}\nFW2: {b:#?}");
    }
    Ok(b)
}

fn carried(world: &World, mode_lines: &str) -> Result<()> {
    let pair = pair(world, mode_lines)?;
    let wanted = all_carried();
    kernel::create(&pair.lab.fw[0], &wanted)?;
    bring_over(&pair, wanted.len())?;
    let got = compare(&pair, wanted.len())?;
    // And these are no accident of two empty hands.
    for wanted in &wanted {
        let got = got.iter().find(|g| g.key() == wanted.key());
        let got = got.with_context(|| format!("{wanted} is missing"))?;
        ensure!(got.reply == wanted.reply, "{got}: not translated");
        ensure!(got.labels == wanted.labels, "{got}: labels");
        ensure!(got.proto_info == wanted.proto_info, "{got:#?}: state");
        ensure!(got.seq_adj == wanted.seq_adj, "{got:#?}: adjustment");
        ensure!(got.synproxy == wanted.synproxy, "{got:#?}: SYNPROXY");
    }
    Ok(())
}

fn not_carried(world: &World) -> Result<()> {
    let pair = pair(world, "")?;
    let query = |id| L4::Icmp {
        id,
        kind: 8,
        code: 0,
    };
    let answer = |id| L4::Icmp {
        id,
        kind: 0,
        code: 0,
    };
    let key = L4::Gre {
        src_key: 0,
        dst_key: 0xbeef,
    };
    let mut two_zones = flow(Proto::UDP, ports(1, 2), 1);
    two_zones.zone = Zone(4);
    two_zones.reply_zone = Some(Zone(0));
    let others = [
        two_zones,
        flow(Proto::UDPLITE, ports(1, 2), 2),
        flow(Proto::GRE, key, 3),
        translated(flow(Proto::ICMP, query(5), 4), answer(6)),
    ];
    kernel::create(&pair.lab.fw[0], &others)?;
    kernel::create(&pair.lab.fw[0], &[tcp(9)])?;
    bring_over(&pair, 1)?;
    let [first, second] = [0, 1].map(|n| kernel::dump(&pair.lab.fw[n]));
    let (first, second) = (comparable(&first?), comparable(&second?));
    ensure!(first.len() == 5, "{first:#?}");
    ensure!(second.len() == 1 && second[0].key() == tcp(9).key());
    let status = pair.fw1.own(&["status"])?;
    let note = "4 events about what the protocol cannot carry";
    ensure!(status.contains(note), "{status}");
    Ok(())
}

/// Goal: a request changes the bits of its mask alone, and the kernel chooses from ranges.
fn masks_and_ranges(world: &World) -> Result<()> {
    let pair = pair(world, "")?;
    let fw = &pair.lab.fw[0];
    let mut marked = tcp(1);
    marked.mark = Some(Mark(0xff00));
    marked.labels = Some(Labels([5, 0, 0, 0]));
    kernel::create(fw, &[marked])?;
    kernel::each(fw, &[marked], |request, flow| {
        request.set_mark(&flow.key(), Mark(0x1234), 0xff);
    })?;
    kernel::each(fw, &[marked], |request, flow| {
        let (labels, mask) = (Labels([2, 0, 0, 0]), Labels([3, 0, 0, 0]));
        request.set_labels(&flow.key(), labels, mask);
    })?;
    kernel::each(fw, &[tcp(2)], |request, flow| {
        let range = ctnetlink::NatRange {
            addrs: ([192, 168, 1, 100].into(), [192, 168, 1, 103].into()),
            ports: Some((5000, 5001)),
        };
        let options = ctnetlink::TcpOptions {
            window_scale: false,
        };
        request.create_in_ranges(flow, Some(range), None, options);
    })?;
    let mut v6 = sctp_over_ipv6();
    v6.orig.l4 = ports(70, 80);
    kernel::each(fw, &[v6], |request, flow| {
        let first = "fd00:1::100".parse().expect("an address");
        let last = "fd00:1::1ff".parse().expect("an address");
        let range = ctnetlink::NatRange {
            addrs: (first, last),
            ports: Some((6000, 6003)),
        };
        let options = ctnetlink::TcpOptions {
            window_scale: false,
        };
        request.create_in_ranges(flow, Some(range), None, options);
    })?;
    let table = kernel::dump(fw)?;
    let find = |key| table.iter().find(|f| f.key() == key).context("no flow");
    let got = find(marked.key())?;
    ensure!(got.mark == Some(Mark(0xff34)), "{:?}", got.mark);
    ensure!(got.labels == Some(Labels([6, 0, 0, 0])), "{:?}", got.labels);
    let got = find(tcp(2).key())?;
    let outside = got.reply.addrs.dst().to_string();
    ensure!(
        ("192.168.1.100"..="192.168.1.103").contains(&outside.as_str()),
        "{got}"
    );
    ensure!((5000..=5001).contains(&got.reply.ports().1), "{got}");
    let got = find(v6.key())?;
    let outside = got.reply.addrs.dst().to_string();
    ensure!(outside.starts_with("fd00:1::1"), "{got}");
    ensure!((6000..=6003).contains(&got.reply.ports().1), "{got}");
    Ok(())
}

/// Goal: the original understands a message that no label is left, though it never sends one.
/// No event reports that the last label has been cleared. The next look through the table finds
/// it; these commands do not wait for that.
fn look(daemon: &Daemon) -> Result<()> {
    daemon.ask(&["-R"])?;
    wait::until("the internal cache has no labels", SOON, || {
        let known = daemon.own(&["flows", "internal"]);
        known.is_ok_and(|text| !text.is_empty() && !text.contains("labels="))
    })?;
    daemon.ask(&["-B"]).map(drop)
}

fn cleared_at_the_originals(world: &World) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    make_room_for_labels(&lab)?;
    let start = |n: usize, kind| -> Result<Daemon> {
        let daemon = Daemon::start(kind, &lab.fw[n], n, &notrack(), world.dir())?;
        daemon.context("no daemon")
    };
    let (fw1, fw2) = (start(0, Kind::Ftfw)?, start(1, Kind::Conntrackd)?);
    let mut set = tcp(1);
    set.labels = Some(Labels([7, 0, 0, 1]));
    kernel::create(&lab.fw[0], &[set])?;
    let labels = || -> Result<Vec<Option<Labels>>> {
        fw2.ask(&["-c"])?;
        let table = kernel::dump(&lab.fw[1])?;
        Ok(comparable(&table).iter().map(|f| f.labels).collect())
    };
    wait::until("the labels in FW2's kernel", SOON, || {
        labels().is_ok_and(|l| l == [set.labels])
    })?;
    let clear = Flow {
        labels: Some(Labels::default()),
        ..set
    };
    kernel::update(&lab.fw[0], &[clear])?;
    look(&fw1)?;
    wait::until("no labels in FW2's kernel", SOON, || {
        labels().is_ok_and(|l| l == [None])
    })?;
    let malformed = Pair::counter(&fw2, &["-s", "network"], "Malformed messages:")?;
    ensure!(malformed == 0, "{malformed} malformed");
    Ok(())
}

fn cleared(world: &World, mode_lines: &str) -> Result<()> {
    let pair = pair(world, mode_lines)?;
    let mut set = tcp(1);
    set.labels = Some(Labels([7, 0, 0, 1]));
    set.mark = Some(Mark(7));
    kernel::create(&pair.lab.fw[0], &[set])?;
    bring_over(&pair, 1)?;
    let got = compare(&pair, 1)?;
    ensure!((got[0].labels, got[0].mark) == (set.labels, set.mark));
    let clear = Flow {
        labels: Some(Labels::default()),
        mark: Some(Mark(0)),
        ..set
    };
    kernel::update(&pair.lab.fw[0], &[clear])?;
    look(&pair.fw1)?;
    if mode_lines.is_empty() {
        let without = |l: Vec<String>| l.len() == 1 && !l[0].contains("labels=");
        wait::until("FW2 has heard of it", SOON, || {
            pair.fw2.external("mark=0").is_ok_and(without)
        })?;
        pair.fw2.ask(&["-c"])?;
    } else {
        wait::until("FW2's kernel has it", SOON, || {
            let table = kernel::dump(&pair.lab.fw[1]);
            table.is_ok_and(|t| comparable(&t).iter().all(|f| f.labels.is_none()))
        })?;
    }
    let got = compare(&pair, 1)?;
    ensure!((got[0].labels, got[0].mark) == (None, None));
    Ok(())
}
