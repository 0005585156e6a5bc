//! Each finding from facts that have one thing wrong.

use control::facts::{Fate, InterfaceFacts, LinkFacts, ProcessFacts, SocketsFacts};
use serde_json::json;

use super::*;

/// A node with which nothing is wrong.
fn healthy(n: u8) -> Facts {
    let own = format!("10.0.0.{n}");
    let mut facts = Facts {
        facts: gather::FACTS,
        version: "1".to_owned(),
        hostname: format!("fw{n}"),
        time: 1_000_000,
        root: true,
        ctnetlink: Some(true),
        helpers: Some(vec!["ftp".to_owned(), "sip".to_owned()]),
        status: Some(json!({
            "role": if n == 1 { "primary" } else { "backup" }, "mode": "FTFW", "overruns": 0,
            "links": [{"packets": [5, 5]}], "peer": {"silent": 0, "held": 3, "should_hold": 3},
        })),
        daemons: vec![ProcessFacts {
            pid: 7,
            command: "ftfw run".to_owned(),
        }],
        addresses: vec![own.clone()],
        links: vec![LinkFacts {
            device: "eth2".to_owned(),
            address: Some(own.clone()),
            destination: Some(format!("10.0.0.{}", 3 - n)),
            port: 3780,
            interface: Some(InterfaceFacts {
                exists: true,
                up: true,
                carrier: true,
                mtu: 1500,
                addresses: vec![own],
            }),
        }],
        ..Facts::default()
    };
    facts.config.good = true;
    facts.config.mode = Some("FTFW".to_owned());
    facts.config.transport = Some("UDP".to_owned());
    for (name, value) in [
        ("max", "100000"),
        ("count", "10"),
        ("tcp_loose", "0"),
        ("events", "1"),
    ] {
        let name = format!("net.netfilter.nf_conntrack_{name}");
        facts.sysctls.insert(name, value.to_owned());
    }
    facts
}

fn set(facts: &mut Facts, name: &str, value: &str) {
    let name = format!("net.netfilter.nf_conntrack_{name}");
    facts.sysctls.insert(name, value.to_owned());
}

fn fate(hook: &str, verdict: &str) -> Vec<Fate> {
    vec![Fate {
        device: "eth0".to_owned(),
        hook: hook.to_owned(),
        verdict: verdict.to_owned(),
        rule: "a rule".to_owned(),
    }]
}

/// Breaks something in the facts of this node, or of the peer.
type Break = fn(&mut Facts, &mut Facts);

fn status_of(facts: &mut Facts) -> &mut serde_json::Value {
    facts.status.as_mut().unwrap()
}

const BROKEN: &[(&str, Level, &str, Break)] = &[
    ("config-error", Level::Problem, "here", |a, _| {
        a.config.good = false;
        a.config.messages = vec!["no".to_owned()];
    }),
    ("config", Level::Note, "here", |a, _| {
        a.config.messages = vec!["well".to_owned()]
    }),
    ("config-sync", Level::Problem, "here", |a, _| {
        a.links.clear()
    }),
    ("root", Level::Note, "here", |a, _| a.root = false),
    ("conntrack", Level::Problem, "here", |a, _| {
        a.sysctls.clear()
    }),
    ("ctnetlink", Level::Problem, "here", |a, _| {
        a.ctnetlink = Some(false)
    }),
    ("events-off", Level::Problem, "here", |a, _| {
        set(a, "events", "0")
    }),
    ("acct", Level::Note, "here", |a, _| set(a, "acct", "0")),
    ("tcp-loose", Level::Warning, "here", |a, _| {
        set(a, "tcp_loose", "1")
    }),
    ("tcp-loose", Level::Warning, "peer", |_, b| {
        set(b, "tcp_loose", "1")
    }),
    ("daemon", Level::Problem, "here", |a, _| {
        a.status = None;
        a.daemons.clear();
    }),
    ("daemon-other", Level::Problem, "here", |a, _| {
        a.status = None
    }),
    ("daemon-other", Level::Problem, "here", |a, _| {
        a.daemons.push(ProcessFacts::default());
    }),
    ("peer-silent", Level::Problem, "here", |a, _| {
        status_of(a)["peer"]["silent"] = json!(60)
    }),
    ("peer-silent", Level::Problem, "here", |a, _| {
        status_of(a)["links"] = json!([{"packets": [9, 0]}]);
    }),
    ("not-held", Level::Note, "here", |a, _| {
        status_of(a)["peer"]["held"] = json!(1)
    }),
    ("overruns", Level::Warning, "here", |a, _| {
        status_of(a)["overruns"] = json!(2)
    }),
    ("hash-limit", Level::Warning, "here", |a, _| {
        a.config.hash_limit = Some(10)
    }),
    ("hash-limit", Level::Warning, "pair", |a, b| {
        a.config.hash_limit = Some(100_000);
        set(b, "max", "200000");
    }),
    ("table-full", Level::Warning, "here", |a, _| {
        set(a, "count", "99999")
    }),
    ("event-buffer", Level::Warning, "here", |a, _| {
        a.config.netlink_buffer = Some(100_000)
    }),
    ("rmem", Level::Note, "here", |a, _| {
        a.root = false;
        a.config.netlink_buffer = Some(33_554_432);
        a.sysctls
            .insert("net.core.rmem_max".to_owned(), "212992".to_owned());
    }),
    ("link-down", Level::Problem, "here", |a, _| {
        interface(a).exists = false
    }),
    ("link-down", Level::Problem, "here", |a, _| {
        interface(a).up = false
    }),
    ("link-down", Level::Problem, "here", |a, _| {
        interface(a).carrier = false
    }),
    ("link-unknown", Level::Note, "here", |a, _| {
        a.links[0].interface = None
    }),
    ("link-address", Level::Problem, "here", |a, _| {
        interface(a).addresses.clear()
    }),
    ("rules-unread", Level::Note, "here", |a, _| {
        a.rules.unread = vec!["why".to_owned()]
    }),
    ("invalid-rejected", Level::Problem, "here", |a, _| {
        a.rules.invalid = fate("forward", "rejected");
    }),
    ("invalid-accepted", Level::Problem, "here", |a, _| {
        a.rules.invalid = fate("input", "accepted");
    }),
    ("invalid-behind-gate", Level::Warning, "here", |a, _| {
        a.rules.invalid = fate("input", "accepted");
        a.config.gate = true;
    }),
    ("invalid-forwarded", Level::Warning, "here", |a, _| {
        a.rules.invalid = fate("forward", "accepted");
    }),
    ("invalid-unknown", Level::Note, "here", |a, _| {
        a.rules.invalid = fate("input", "unknown")
    }),
    ("link-dropped", Level::Problem, "here", |a, _| {
        a.rules.link = fate("input", "dropped")
    }),
    ("link-tracked", Level::Note, "here", |a, _| {
        a.link_flows = Some(2)
    }),
    ("local-connections", Level::Note, "here", |a, _| {
        a.local_connections = vec![SocketsFacts::default()];
    }),
    ("facts-version", Level::Note, "pair", |_, b| b.facts = 99),
    ("same-node", Level::Warning, "pair", |a, b| {
        b.hostname = a.hostname.clone();
        b.addresses = a.addresses.clone();
    }),
    ("version", Level::Warning, "pair", |_, b| {
        b.version = "2".to_owned()
    }),
    ("mode", Level::Problem, "pair", |_, b| {
        b.config.mode = Some("ALARM".to_owned())
    }),
    ("mode", Level::Problem, "pair", |_, b| {
        b.config.transport = Some("TCP".to_owned())
    }),
    ("expectations", Level::Warning, "pair", |_, b| {
        b.config.expectations = true
    }),
    ("roles", Level::Problem, "pair", |_, b| {
        status_of(b)["role"] = json!("primary")
    }),
    ("roles", Level::Problem, "pair", |a, _| {
        status_of(a)["role"] = json!("backup")
    }),
    ("sysctl", Level::Warning, "pair", |a, b| {
        set(a, "tcp_timeout_established", "1");
        set(b, "tcp_timeout_established", "2");
    }),
    ("sysctl", Level::Note, "pair", |a, b| {
        set(a, "acct", "1");
        set(b, "acct", "2");
    }),
    ("links", Level::Warning, "pair", |_, b| {
        b.links.push(b.links[0].clone())
    }),
    ("destination", Level::Problem, "pair", |a, _| {
        a.links[0].destination = Some("10.9.9.9".to_owned());
    }),
    ("port", Level::Problem, "pair", |_, b| b.links[0].port = 1),
    ("mtu", Level::Problem, "pair", |_, b| {
        interface(b).mtu = 9000
    }),
    ("helper", Level::Problem, "pair", |_, b| {
        b.helpers_used = vec!["irc".to_owned()]
    }),
    ("nat", Level::Warning, "pair", |_, b| {
        b.rules.nat = vec!["snat".to_owned()]
    }),
    ("clock", Level::Note, "pair", |_, b| b.time += 9000),
    ("facts-old", Level::Note, "pair", |_, b| b.time += 9_000_000),
];

fn interface(facts: &mut Facts) -> &mut InterfaceFacts {
    facts.links[0].interface.as_mut().unwrap()
}

#[test]
fn a_healthy_pair_has_no_findings() {
    let found = findings(&healthy(1), Some(&healthy(2)));
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(status(&found), 0);
    assert!(text(&found, true).starts_with("this pair is fit for a takeover: 0 problems"));
}

#[test]
fn each_thing_that_is_broken_is_found() {
    for (check, level, node, broken) in BROKEN {
        let (mut here, mut peer) = (healthy(1), healthy(2));
        broken(&mut here, &mut peer);
        let found = findings(&here, Some(&peer));
        let is_it = |f: &&Finding| f.check == *check && f.level == *level && f.node == *node;
        let one = found.iter().find(is_it);
        assert!(one.is_some(), "{check} {level:?} {node}: {found:?}");
        assert_eq!(
            status(&found),
            match found[0].level {
                Level::Problem => 1,
                Level::Warning => 4,
                Level::Note => 0,
            }
        );
    }
}

#[test]
fn helpers_with_a_port_in_their_name_are_known() {
    let mut peer = healthy(2);
    peer.helpers_used = vec!["sip-5060".to_owned(), "ftp".to_owned()];
    let found = findings(&healthy(1), Some(&peer));
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn facts_survive_the_way_to_the_peer_and_unknown_fields_are_ignored() {
    let mut text: serde_json::Value = serde_json::from_str(&json(&healthy(1))).unwrap();
    text["new_field"] = json!(1);
    let again: Facts = serde_json::from_value(text).unwrap();
    assert_eq!(json(&again), json(&healthy(1)));
}

#[test]
fn what_the_peer_has_written_reaches_no_terminal() {
    let mut peer = healthy(2);
    peer.config.messages = vec!["\x1b[2J".to_owned()];
    let text = text(&findings(&healthy(1), Some(&peer)), true);
    assert!(!text.contains('\x1b'), "{text}");
}
