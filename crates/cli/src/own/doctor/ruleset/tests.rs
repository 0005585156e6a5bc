use serde_json::json;

use super::super::{iptables, nft};
use super::*;

fn invalid(hook: &'static str) -> (Packet, [&'static str; 2]) {
    let packet = Packet {
        iif: Some("eth0".to_owned()),
        protocol: Some("tcp"),
        destination_port: Some(41_234),
        state: "invalid",
        kind: Some(if hook == "input" { "local" } else { "unicast" }),
        ..Packet::default()
    };
    (packet, ["prerouting", hook])
}

fn fate_of(ruleset: &Ruleset, hook: &'static str) -> String {
    let (packet, hooks) = invalid(hook);
    ruleset.fate(packet, "eth0", &hooks).verdict
}

fn saved(text: &str) -> Ruleset {
    let mut ruleset = Ruleset::default();
    iptables::read(text, "ip", &mut ruleset);
    ruleset
}

#[test]
fn the_rules_of_iptables_decide_about_invalid_segments() {
    for (rules, wanted) in [
        ("", "accepted"),
        ("-A INPUT -m state --state INVALID -j DROP", "dropped"),
        (
            "-A INPUT -m conntrack --ctstate INVALID -j REJECT --reject-with tcp-reset",
            "rejected",
        ),
        ("-A INPUT ! -i lo -p tcp -j REJECT", "rejected"),
        ("-A INPUT -i eth1 -j REJECT", "accepted"),
        (
            "-A INPUT -m conntrack --ctstate NEW,ESTABLISHED -j REJECT",
            "accepted",
        ),
        ("-A INPUT -s 10.0.0.0/8 -j REJECT", "unknown"),
        (
            "-A INPUT -m comment --comment \"a -j DROP b\" -j OWN\n-A OWN -p tcp -j REJECT",
            "rejected",
        ),
        (
            "-A INPUT -j LOG --log-prefix x\n-A INPUT -j DROP",
            "dropped",
        ),
    ] {
        let text = format!("*filter\n:INPUT ACCEPT [0:0]\n:OWN - [0:0]\n{rules}\nCOMMIT\n");
        assert_eq!(fate_of(&saved(&text), "input"), wanted, "{rules}");
    }
    let dropped =
        saved("*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m state --state NEW -j ACCEPT\n");
    assert_eq!(fate_of(&dropped, "forward"), "dropped");
    assert_eq!(fate_of(&dropped, "input"), "accepted");
}

fn listed(rules: serde_json::Value) -> Ruleset {
    let mut all = vec![
        json!({"chain": {"family": "inet", "table": "f", "name": "in",
        "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}}),
    ];
    for expr in rules.as_array().unwrap() {
        all.push(json!({"rule": {"family": "inet", "table": "f", "chain": "in", "expr": expr}}));
    }
    let mut ruleset = Ruleset::default();
    nft::read(&json!({ "nftables": all }), |_| false, &mut ruleset);
    ruleset
}

#[test]
fn the_rules_of_nftables_decide_about_invalid_segments() {
    let state =
        |word| json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": word}});
    let map = |pairs: &[(&str, &str)]| {
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| json!([k, {*v: null}])).collect();
        json!({"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": pairs}}})
    };
    let port = |protocol| {
        json!({"match": {"op": "==", "left": {"payload": {"protocol": protocol,
            "field": "dport"}}, "right": {"range": [41_000, 42_000]}}})
    };
    let source = json!({"match": {"op": "==", "left": {"payload": {"protocol": "ip",
        "field": "saddr"}}, "right": "@blocked"}});
    for (expr, wanted) in [
        (
            json!([state("invalid"), {"reject": {"type": "tcp reset"}}]),
            "rejected",
        ),
        (json!([state("new"), {"accept": null}]), "dropped"),
        (json!([{"limit": {"rate": 1}}, {"accept": null}]), "unknown"),
        (json!([{"vmap": {}}]), "unknown"),
        (
            json!([map(&[("established", "accept"), ("invalid", "drop")])]),
            "dropped",
        ),
        (
            json!([map(&[("established", "drop"), ("invalid", "accept")])]),
            "accepted",
        ),
        (json!([port("udp"), {"accept": null}]), "dropped"),
        (json!([port("tcp"), {"accept": null}]), "accepted"),
        // A list of addresses to drop, and the policy drops, too.
        (json!([source, {"drop": null}]), "dropped"),
        (json!([source, {"accept": null}]), "unknown"),
        (json!([{"xt": null}, {"accept": null}]), "unknown"),
        (json!([{"counter": {}}, {"accept": null}]), "accepted"),
    ] {
        let ruleset = listed(json!([expr]));
        let fate = fate_of(&ruleset, "input");
        assert_eq!(fate, wanted, "{expr}");
    }
}

#[test]
fn the_traffic_of_a_link_passes_if_a_rule_names_it() {
    let link = |port| Packet {
        iif: Some("eth2".to_owned()),
        protocol: Some("udp"),
        source: Some("10.0.0.2".to_owned()),
        destination: Some("10.0.0.1".to_owned()),
        destination_port: Some(port),
        state: "new",
        kind: Some("local"),
        ..Packet::default()
    };
    for (rule, port, wanted) in [
        ("-A INPUT -i eth2 -j ACCEPT", 3780, "accepted"),
        (
            "-A INPUT -i eth+ -p udp -m udp --dport 3780 -j ACCEPT",
            3780,
            "accepted",
        ),
        (
            "-A INPUT -p udp -m udp --dport 3000:4000 -j ACCEPT",
            3780,
            "accepted",
        ),
        (
            "-A INPUT -p udp -m multiport --dports 53,3780 -j ACCEPT",
            3780,
            "accepted",
        ),
        ("-A INPUT -p tcp --dport 3780 -j ACCEPT", 3780, "dropped"),
        ("-A INPUT -s 10.0.0.0/30 -j ACCEPT", 1, "accepted"),
        ("-A INPUT -s 10.0.1.0/24 -j ACCEPT", 1, "dropped"),
        (
            "-A INPUT -m state --state ESTABLISHED -j ACCEPT",
            1,
            "dropped",
        ),
        ("-A INPUT -m set --match-set x src -j ACCEPT", 1, "unknown"),
    ] {
        let ruleset = saved(&format!("*filter\n:INPUT DROP [0:0]\n{rule}\nCOMMIT\n"));
        let fate = ruleset.fate(link(port), "eth2", &["prerouting", "input"]);
        assert_eq!(fate.verdict, wanted, "{rule}");
    }
}

#[test]
fn an_address_is_in_a_prefix() {
    for (prefix, address, wanted) in [
        ("10.0.0.0/8", "10.9.8.7", true),
        ("10.0.0.0/8", "11.9.8.7", false),
        ("0.0.0.0/0", "11.9.8.7", true),
        ("10.1.1.1", "10.1.1.1", true),
        ("fd00::/16", "fd00::1", true),
        ("fd00::/16", "fd01::1", false),
        ("fd00::/16", "10.1.1.1", false),
    ] {
        assert_eq!(within(prefix, address), wanted, "{prefix} {address}");
    }
}
