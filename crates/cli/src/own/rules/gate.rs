//! The static gate: packets of connections that this kernel does not know are dropped without
//! an answer.
//!
//! A replica may take over before it knows a flow. If the new primary answers a segment of that
//! flow with a RST, or makes a flow of it with another translated port, the connection is lost,
//! although the flow arrives a moment later.

use std::fmt::Display;
use std::net::IpAddr;

use config::Sync;

use super::link::Traffic;
use super::{Rule, Ruleset};

/// Writes the part `static-gate`.
pub(super) fn write(out: &mut Ruleset, sync: &Sync, addresses: &[IpAddr]) {
    let why = [
        "static-gate: what belongs to a connection that this kernel does not know is dropped without",
        "an answer, so that the other end sends it again until the connection is known. A RST",
        "would end it. This concerns what is routed and what is sent to a virtual address; an",
        "address that connections are translated to must be among them. It does not concern the",
        "other addresses of this machine.",
        "",
        "What is lost: a connection that has really gone is noticed by timeouts only; it gets no RST.",
        "Asymmetric routing, where only one direction passes here, does not work with this.",
    ];
    out.table("ftfw_static_gate", &why, |out| {
        let (v4, v6): (Vec<&IpAddr>, _) = addresses.iter().partition(|a| a.is_ipv4());
        for (name, kind, members) in [("virtual4", "ipv4_addr", v4), ("virtual6", "ipv6_addr", v6)]
        {
            set(out, name, kind, &members);
        }
        let mut rules = vec![
            Rule::new("iifname \"lo\" accept", "This machine may talk to itself."),
            Rule::new(
                "meta l4proto vrrp accept",
                "The HA managers talk to each other with this.",
            ),
        ];
        if let Some(transport) = sync.transport {
            for link in &sync.links {
                let traffic = Traffic::of(link, transport);
                rules.extend(traffic.incoming.iter().map(|rule| rule.then("accept")));
            }
        }
        rules.extend([
            Rule::new(
                "fib daddr type unicast jump unknown",
                "What is routed through this machine.",
            ),
            Rule::new(
                "ip daddr @virtual4 jump unknown",
                "What is sent to a virtual address of IPv4, before it is translated back.",
            ),
            Rule::new(
                "ip6 daddr @virtual6 jump unknown",
                "What is sent to a virtual address of IPv6, before it is translated back.",
            ),
        ]);
        out.chain(
            "prerouting",
            Some("prerouting priority -190"),
            "Behind connection tracking (-200), before translation (-100).",
            &rules,
        );
        let rules = [
            Rule::new(
                "ct state invalid counter drop",
                "Connection tracking cannot place it: the flow is not known (yet).",
            ),
            Rule::new(
                "meta l4proto tcp ct state new tcp flags & (fin | syn | rst | ack) != syn counter drop",
                "With nf_conntrack_tcp_loose=1 a segment in mid-stream would make a new flow.",
            ),
        ];
        out.chain("unknown", None, "Drops, and never answers.", &rules);
    });
}

fn set(out: &mut Ruleset, name: &str, kind: &str, members: &[&impl Display]) {
    out.line(
        1,
        "# Virtual addresses of this pair; nft add element adds one.",
    );
    out.line(1, format_args!("set {name} {{"));
    out.line(2, format_args!("type {kind};"));
    if !members.is_empty() {
        let members: Vec<String> = members.iter().map(ToString::to_string).collect();
        out.line(2, format_args!("elements = {{ {} }}", members.join(", ")));
    }
    out.line(1, "}");
}
