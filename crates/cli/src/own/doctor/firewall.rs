//! Reads the firewall's rules, and asks them about the packets that matter.

use std::collections::BTreeMap;
use std::net::IpAddr;

use config::{Link, Transport};
use control::facts::{Fate, InterfaceFacts, RulesFacts};

use super::gather::output;
use super::ruleset::{Packet, Ruleset};
use super::{iptables, nft};

/// Addresses for documentation: a server somewhere, and a host behind the firewall.
const FAR: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const BEHIND: [&str; 2] = ["198.51.100.1", "2001:db8:1::1"];

/// What the rules do here.
pub(super) fn rules(
    interfaces: &BTreeMap<String, InterfaceFacts>,
    links: &[Link],
    transport: Transport,
) -> RulesFacts {
    let mut facts = RulesFacts::default();
    let ruleset = read(&mut facts.unread);
    let Some(ruleset) = ruleset else {
        return facts;
    };
    let is_link = |name: &String| links.iter().any(|l| l.interface.as_ref() == Some(name));
    for (name, interface) in interfaces {
        if name != "lo" && interface.up && !is_link(name) {
            invalid(&ruleset, name, interface, &mut facts.invalid);
        }
    }
    for link in links {
        facts.link.extend(traffic(&ruleset, link, transport));
    }
    facts.nat = ruleset.nat();
    facts
}

/// All rules; `None` if nothing could be read.
fn read(unread: &mut Vec<String>) -> Option<Ruleset> {
    let mut ruleset = Ruleset::default();
    let mut known = Vec::new();
    let mut is_read = false;
    for (program, family) in [("iptables-save", "ip"), ("ip6tables-save", "ip6")] {
        // Without this program its tables are read from nft, in less detail.
        if let Ok(text) = output(program, &[]) {
            let tables = iptables::read(&text, family, &mut ruleset);
            known.extend(tables.iter().map(|t| format!("{family} {t}")));
            is_read = true;
        }
    }
    match output("nft", &["-j", "list", "ruleset"]) {
        Ok(text) => match serde_json::from_str(&text) {
            Ok(json) => {
                nft::read(
                    &json,
                    |table| known.iter().any(|k| k == table),
                    &mut ruleset,
                );
                is_read = true;
            }
            Err(e) => unread.push(format!("nft: its JSON cannot be read: {e}")),
        },
        Err(reason) => unread.push(reason),
    }
    is_read.then_some(ruleset)
}

/// INVALID segments from an interface: to the firewall itself, and to be forwarded.
fn invalid(ruleset: &Ruleset, name: &str, interface: &InterfaceFacts, to: &mut Vec<Fate>) {
    for (is_v6, n) in [(false, 0), (true, 1)] {
        let is_meant = |a: &&String| {
            let ip = a.parse::<IpAddr>();
            ip.is_ok_and(|ip| ip.is_ipv6() == is_v6 && !a.starts_with("fe80"))
        };
        let own: Vec<&String> = interface.addresses.iter().filter(is_meant).collect();
        let Some(first) = own.first() else {
            continue;
        };
        let packet = |destination: &str, kind| Packet {
            is_v6,
            iif: Some(name.to_owned()),
            protocol: Some("tcp"),
            source: Some(FAR[n].to_owned()),
            destination: Some(destination.to_owned()),
            source_port: Some(443),
            destination_port: Some(41_234),
            state: "invalid",
            kind: Some(kind),
            ..Packet::default()
        };
        // Only addresses that move, or that connections are translated to, need to be silent. Which
        // they are is not known; so rules that drop for some address are taken to be for those.
        let named = ruleset.named_destinations();
        let fate_of =
            |to: &String| ruleset.fate(packet(to, "local"), name, &["prerouting", "input"]);
        let mut others = own.iter().copied().chain(named.iter().filter(is_meant));
        let input = match fate_of(first) {
            fate if fate.verdict == "accepted" => {
                let dropped =
                    others.find_map(|to| Some(fate_of(to)).filter(|f| f.verdict == "dropped"));
                dropped.unwrap_or(fate)
            }
            fate => fate,
        };
        let routed = packet(BEHIND[n], "unicast");
        let forward = ruleset.fate(routed, name, &["prerouting", "forward"]);
        for mut fate in [input, forward] {
            if fate.hook == "prerouting" {
                // Dropped before it is known where it goes.
                fate.hook = "input".to_owned();
            }
            if !to.contains(&fate) {
                to.push(fate);
            }
        }
    }
}

/// What the peer sends over a link, and what we send.
fn traffic(ruleset: &Ruleset, link: &Link, transport: Transport) -> Vec<Fate> {
    let Some(peer) = link.destination.or(link.address) else {
        return Vec::new();
    };
    let device = link.interface.clone().unwrap_or_default();
    let is_group = transport == Transport::Multicast;
    let own = match is_group {
        true => None,
        false => link.address.map(|a| a.to_string()),
    };
    let group = is_group.then(|| peer.to_string());
    let packet = Packet {
        is_v6: peer.is_ipv6(),
        protocol: Some(if transport == Transport::Tcp {
            "tcp"
        } else {
            "udp"
        }),
        destination_port: Some(link.port),
        state: "new",
        ..Packet::default()
    };
    let incoming = Packet {
        iif: Some(device.clone()),
        source: (!is_group).then(|| peer.to_string()),
        destination: group.clone().or_else(|| own.clone()),
        kind: Some(if is_group { "multicast" } else { "local" }),
        ..packet.clone()
    };
    let outgoing = Packet {
        oif: Some(device.clone()),
        source: own,
        destination: Some(peer.to_string()),
        kind: Some(if is_group { "multicast" } else { "unicast" }),
        ..packet
    };
    vec![
        ruleset.fate(incoming, &device, &["prerouting", "input"]),
        ruleset.fate(outgoing, &device, &["output", "postrouting"]),
    ]
}
