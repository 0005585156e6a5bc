//! What is wrong between two nodes, from the facts of both.

use control::facts::{Facts, Level};

use super::Findings;
use super::gather::FACTS;

/// Settings that differ by themselves, or that are the daemon's business.
const MAY_DIFFER: [&str; 4] = ["count", "log_invalid", "events", "buckets"];
/// Clocks that are farther apart are worth a note.
const SKEW_MILLIS: u64 = 5000;
/// Facts that are farther apart are old.
const OLD_MILLIS: u64 = 600_000;

/// Finds it.
pub(super) fn check(here: &Facts, peer: &Facts, found: &mut Findings) {
    if peer.facts != FACTS {
        found.add(
            Level::Note,
            "facts-version",
            format!("the peer's facts have version {}, ours {FACTS}", peer.facts),
            "What only one of the programs knows is not compared.",
            None,
        );
    }
    if here.hostname == peer.hostname && here.addresses == peer.addresses {
        found.add(
            Level::Warning,
            "same-node",
            "both facts are of the same node".to_owned(),
            "A pair needs the facts of the other one.",
            Some("ssh PEER ftfw doctor --facts | ftfw doctor --peer -".to_owned()),
        );
    }
    programs(here, peer, found);
    settings(here, peer, found);
    if here.config.good && peer.config.good {
        links(here, peer, found);
    }
    helpers(here, peer, found);
    nat(here, peer, found);
    clocks(here, peer, found);
}

fn programs(here: &Facts, peer: &Facts, found: &mut Findings) {
    let differ = |what: &str, a: &str, b: &str| format!("{what} differs: {a} here, {b} there");
    if here.version != peer.version {
        found.add(
            Level::Warning,
            "version",
            differ("the version of ftfw", &here.version, &peer.version),
            "Replicas of two versions understand each other, but each lacks what the other one \
             has mended.",
            None,
        );
    }
    let (a, b) = (&here.config, &peer.config);
    for (what, ours, theirs) in [
        ("the mode", &a.mode, &b.mode),
        ("the transport", &a.transport, &b.transport),
    ] {
        if let (Some(ours), Some(theirs)) = (ours, theirs)
            && ours != theirs
        {
            found.add(
                Level::Problem,
                "mode",
                differ(what, ours, theirs),
                "The replicas do not understand each other.",
                Some("make the section Sync of both files the same".to_owned()),
            );
        }
    }
    if a.good && b.good && a.expectations != b.expectations {
        found.add(
            Level::Warning,
            "expectations",
            "ExpectationSync is on at one node only".to_owned(),
            "What helpers predict is replicated in one direction only.",
            Some("ExpectationSync on in Sync { Options } of both".to_owned()),
        );
    }
    let role = |facts: &Facts| {
        let status = facts.status.as_ref();
        status.and_then(|s| Some(s["role"].as_str()?.to_owned()))
    };
    match (role(here).as_deref(), role(peer).as_deref()) {
        (Some("primary"), Some("primary")) => found.add(
            Level::Problem,
            "roles",
            "both nodes are primary".to_owned(),
            "Both hold the virtual addresses, or one was not told that it has lost them.",
            Some("on the node without the virtual addresses: ftfw flush kernel-later".to_owned()),
        ),
        (Some("backup"), Some("backup")) => found.add(
            Level::Problem,
            "roles",
            "both nodes are backup".to_owned(),
            "The one that holds the virtual addresses has not committed the flows, and may have \
             scheduled the end of its own.",
            Some("on the node with the virtual addresses: ftfw commit".to_owned()),
        ),
        _ => {}
    }
}

fn settings(here: &Facts, peer: &Facts, found: &mut Findings) {
    for (name, ours) in &here.sysctls {
        let Some(short) = name.strip_prefix("net.netfilter.nf_conntrack_") else {
            continue;
        };
        let Some(theirs) = peer.sysctls.get(name).filter(|theirs| *theirs != ours) else {
            continue;
        };
        if MAY_DIFFER.contains(&short) {
            continue;
        }
        let (level, why) = match short {
            "max" => (
                Level::Warning,
                "The node with the smaller table cannot take all flows of the other one.",
            ),
            "tcp_loose" | "tcp_be_liberal" | "checksum" | "helper" | "tcp_ignore_invalid_rst" => (
                Level::Warning,
                "After a takeover the same packets are judged differently.",
            ),
            _ if short.contains("timeout") => (
                Level::Warning,
                "After a takeover flows end earlier or later than before.",
            ),
            _ => (Level::Note, "The nodes of a pair should be alike."),
        };
        found.add(
            level,
            "sysctl",
            format!("{name} is {ours} here and {theirs} there"),
            why,
            Some(format!("sysctl -w {name}=VALUE on one of them")),
        );
    }
    if let (Some(limit), Some(max)) = (
        here.config.hash_limit,
        (peer.sysctls.get("net.netfilter.nf_conntrack_max")).and_then(|n| n.parse::<u64>().ok()),
    ) && limit < max
    {
        found.add(
            Level::Warning,
            "hash-limit",
            format!("HashLimit is {limit} here, and the peer may have {max} flows"),
            "Flows of the peer beyond the limit are not kept.",
            Some(format!("HashLimit {max} in General, or leave it out")),
        );
    }
}

fn links(here: &Facts, peer: &Facts, found: &mut Findings) {
    if here.links.len() != peer.links.len() {
        found.add(
            Level::Warning,
            "links",
            format!(
                "{} links here, {} there",
                here.links.len(),
                peer.links.len()
            ),
            "A link that only one node has carries nothing.",
            None,
        );
    }
    let is_group = here.config.transport.as_deref() == Some("multicast");
    for link in &here.links {
        let Some(to) = &link.destination else {
            continue;
        };
        let other = peer.links.iter().find(|other| match is_group {
            true => other.destination == link.destination,
            false => other.address.as_ref() == Some(to),
        });
        let other = match other {
            Some(other) => other,
            // It may listen on any of its addresses.
            None => match peer.links.iter().find(|l| l.address.is_none()) {
                Some(any) if peer.addresses.contains(to) => any,
                _ => {
                    found.add(
                        Level::Problem,
                        "destination",
                        format!(
                            "the link {} sends to {to}, where the peer does not listen",
                            link.device
                        ),
                        "What is sent over this link does not arrive.",
                        Some("let each file name the other node's address".to_owned()),
                    );
                    continue;
                }
            },
        };
        if other.port != link.port {
            found.add(
                Level::Problem,
                "port",
                format!(
                    "the link {} has port {} here and {} there",
                    link.device, link.port, other.port
                ),
                "What is sent over this link does not arrive.",
                None,
            );
        }
        if let (Some(ours), Some(theirs)) = (&link.interface, &other.interface)
            && ours.exists
            && theirs.exists
            && ours.mtu != theirs.mtu
        {
            found.add(
                Level::Problem,
                "mtu",
                format!(
                    "the link {} has MTU {} here and {} there",
                    link.device, ours.mtu, theirs.mtu
                ),
                "Datagrams are as large as the sender's MTU; the other end may drop them.",
                Some(format!(
                    "ip link set {} mtu {}",
                    link.device,
                    ours.mtu.min(theirs.mtu)
                )),
            );
        }
    }
}

fn helpers(here: &Facts, peer: &Facts, found: &mut Findings) {
    let Some(ours) = &here.helpers else {
        return;
    };
    // A helper's name may carry a port, `sip-5060`.
    let has = |name: &String| {
        let plain = name
            .rsplit_once('-')
            .map_or(name.as_str(), |(first, _)| first);
        ours.iter().any(|h| h == name || h == plain)
    };
    for name in peer.helpers_used.iter().filter(|name| !has(name)) {
        found.add(
            Level::Problem,
            "helper",
            format!("the peer has expectations of the helper {name}, which this kernel lacks"),
            "After a takeover what this helper predicts is not RELATED, and not translated.",
            Some(format!("modprobe nf_conntrack_{}", name.replace('-', "_"))),
        );
    }
}

fn nat(here: &Facts, peer: &Facts, found: &mut Findings) {
    let (ours, theirs) = (&here.rules.nat, &peer.rules.nat);
    let only = |a: &Vec<String>, b: &[String]| a.iter().find(|r| !b.contains(r)).cloned();
    let what = match (only(ours, theirs), only(theirs, ours)) {
        (Some(rule), _) => format!("only this node has the NAT rule `{rule}`"),
        (None, Some(rule)) => format!("only the peer has the NAT rule `{rule}`"),
        (None, None) if ours != theirs => "the NAT rules have another order".to_owned(),
        (None, None) => return,
    };
    found.add(
        Level::Warning,
        "nat",
        what,
        "Known flows keep their translation. New ones get another one after a takeover, and \
         connections to a translated address may not be possible.",
        Some("make the rules of both nodes the same".to_owned()),
    );
}

fn clocks(here: &Facts, peer: &Facts, found: &mut Findings) {
    let apart = here.time.abs_diff(peer.time);
    if apart >= OLD_MILLIS {
        found.add(
            Level::Note,
            "facts-old",
            format!("the facts are {} s apart", apart / 1000),
            "The peer's facts are old, or a clock is wrong. Roles may have changed since.",
            None,
        );
    } else if apart >= SKEW_MILLIS {
        found.add(
            Level::Note,
            "clock",
            format!("the clocks differ by about {} s", apart / 1000),
            "Replication needs no clock, but two logs are hard to compare.",
            Some("timedatectl set-ntp true".to_owned()),
        );
    }
}
