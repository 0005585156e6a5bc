//! The traffic of the dedicated links: what it looks like, where it may be seen, and that it is
//! not tracked.
//!
//! The table cannot accept anything for others: a packet that one base chain accepts still
//! passes the other base chains of the hook, and any of them may drop it. So what an operator's
//! own chains must accept is printed as commands, in comments.

use std::net::IpAddr;

use config::{Link, Sync, Transport};

use super::{Rule, Ruleset};

const MLD: &str = "icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, \
                   mld2-listener-report }";
const NEIGHBOURS: &str = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }";

/// What a link sends and receives, as matches without verdicts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// From the peer.
    pub(crate) incoming: Vec<Rule>,
    /// To the peer.
    pub(crate) outgoing: Vec<Rule>,
    /// What an IPv6 link needs beside it in both directions; the kernel never tracks it.
    pub(crate) beside: Vec<Rule>,
    /// What looks like it and is not among `incoming`.
    pub(crate) elsewhere: Vec<Rule>,
}

impl Traffic {
    /// Traffic of a link; nothing if it has no destination.
    pub(crate) fn of(link: &Link, transport: Transport) -> Traffic {
        let Some(peer) = link.destination.or(link.address) else {
            return Traffic::default();
        };
        match transport {
            Transport::Udp => unicast(link, peer, &["dport"], "udp"),
            Transport::Tcp => unicast(link, peer, &["dport", "sport"], "tcp"),
            Transport::Multicast => multicast(link, peer),
        }
    }
}

/// How messages and comments name a link.
pub(crate) fn name(link: &Link) -> String {
    let place = link.interface.clone();
    place.unwrap_or_else(|| format!("of line {}", link.line))
}

fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "ip",
        IpAddr::V6(_) => "ip6",
    }
}

/// `iifname "eth2" ` or nothing, if the link names no interface. The configuration's language has
/// neither quotes nor stars in names, which nft would read otherwise.
fn device(link: &Link, which: &str) -> String {
    let quoted = |name: &String| format!("{which} \"{name}\" ");
    link.interface.as_ref().map(quoted).unwrap_or_default()
}

/// A link to one peer. `ports` are those of an incoming packet that are the link's: TCP has a
/// connection for each direction.
fn unicast(link: &Link, peer: IpAddr, ports: &[&str], protocol: &str) -> Traffic {
    let (ip, port, name) = (family(peer), link.port, name(link));
    let (iif, oif) = (device(link, "iifname"), device(link, "oifname"));
    let own = |side: &str| match link.address {
        Some(own) => format!("{ip} {side} {own} "),
        None => String::new(),
    };
    let mut traffic = Traffic::default();
    for side in ports {
        let other = if *side == "dport" { "sport" } else { "dport" };
        // The port of an answer is the peer's where ours is any, and the other way round.
        let (incoming, outgoing) = match *side {
            "dport" => ("What the peer sends", "The answers to it"),
            _ => ("The peer's answers", "What we send"),
        };
        traffic.incoming.push(Rule::new(
            format!(
                "{iif}{ip} saddr {peer} {}{protocol} {side} {port}",
                own("daddr")
            ),
            format!("{incoming} over the link {name}."),
        ));
        if protocol == "tcp" {
            traffic.outgoing.push(Rule::new(
                format!(
                    "{oif}{}{ip} daddr {peer} {protocol} {other} {port}",
                    own("saddr")
                ),
                format!("{outgoing} over the link {name}."),
            ));
        }
        let (to_us, whose) = match (link.address, *side) {
            (Some(_), _) => (own("daddr"), "to our address"),
            (None, _) => (
                format!("meta nfproto {} fib daddr type local ", nfproto(peer)),
                "to us",
            ),
        };
        let from = match *side {
            "dport" => String::new(),
            _ => format!("{ip} saddr {peer} "),
        };
        traffic.elsewhere.push(Rule::new(
            format!("{from}{to_us}{protocol} {side} {port}"),
            format!("Anything else {whose} with the port of the link {name} is forged or lost."),
        ));
    }
    if protocol == "udp" {
        traffic.outgoing.push(Rule::new(
            format!("{oif}{ip} daddr {peer} udp dport {port}"),
            format!("What we send over the link {name}. Its source port is any."),
        ));
    }
    if peer.is_ipv6() {
        traffic.beside = vec![Rule::new(
            format!("%{NEIGHBOURS}"),
            format!("The link {name} finds the peer's hardware address with this."),
        )];
    }
    traffic
}

fn nfproto(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "ipv4",
        IpAddr::V6(_) => "ipv6",
    }
}

/// A link to a group. The group does not say who its members are, so the interface must.
fn multicast(link: &Link, group: IpAddr) -> Traffic {
    let (ip, port, name) = (family(group), link.port, name(link));
    let to_group = format!("{ip} daddr {group} udp dport {port}");
    let mut traffic = Traffic {
        incoming: vec![Rule::new(
            format!("{}{to_group}", device(link, "iifname")),
            format!("What the peers send to the group of the link {name}."),
        )],
        outgoing: vec![Rule::new(
            format!("{}{to_group}", device(link, "oifname")),
            format!("What we send to the group of the link {name}."),
        )],
        ..Traffic::default()
    };
    traffic.elsewhere.push(Rule::new(
        to_group,
        format!("Anything else to the group of the link {name} is forged or lost."),
    ));
    match group {
        IpAddr::V4(_) => {
            let why = format!("The link {name} joins its group with this.");
            let igmp = |side| Rule::new(format!("{}ip protocol igmp", device(link, side)), &why);
            traffic.incoming.push(igmp("iifname"));
            traffic.outgoing.push(igmp("oifname"));
        }
        IpAddr::V6(_) => {
            traffic.beside = vec![Rule::new(
                format!("%{MLD}"),
                format!("The link {name} joins its group with this."),
            )];
        }
    }
    traffic
}

/// What an operator's input and output chains must accept: `%` in `beside` is where the
/// interface of the direction goes.
pub(crate) fn accepted(link: &Link, transport: Transport) -> [Vec<Rule>; 2] {
    let Traffic {
        incoming,
        outgoing,
        beside,
        ..
    } = Traffic::of(link, transport);
    let with = |mut rules: Vec<Rule>, side| {
        rules.extend(
            beside
                .iter()
                .map(|rule| Rule::new(rule.text.replace('%', &device(link, side)), &rule.why)),
        );
        rules
    };
    [with(incoming, "iifname"), with(outgoing, "oifname")]
}

/// Writes the part `link`.
pub(super) fn write(out: &mut Ruleset, sync: &Sync) {
    let Some(transport) = sync.transport else {
        return;
    };
    let all: Vec<Traffic> = (sync.links.iter())
        .map(|link| Traffic::of(link, transport))
        .collect();
    let why = [
        "link: the traffic of the dedicated links is not tracked, so it costs no flow. What only",
        "looks like it is dropped before it is tracked. The protocol has no authentication.",
        "",
        "No table can accept for another one: a packet must pass all chains of a hook. If your own",
        "input or output chain drops by default, insert these rules into it; the names of its",
        "table and chains (inet filter, input, output) may differ. A rule that accepts what is",
        "established does not match here, because untracked packets have no state.",
    ];
    let mut why: Vec<String> = why.map(str::to_owned).into();
    for link in &sync.links {
        let [incoming, outgoing] = accepted(link, transport);
        for (chain, rules) in [("input", incoming), ("output", outgoing)] {
            for rule in rules {
                let rule = rule.then("accept");
                why.push(format!("  {}", rule.why));
                why.push(format!(
                    "    nft 'insert rule inet filter {chain} {}'",
                    rule.text
                ));
            }
        }
    }
    let why: Vec<&str> = why.iter().map(String::as_str).collect();
    out.table("ftfw_link", &why, |out| {
        let untracked = |rule: &Rule| rule.then("notrack accept");
        let mut incoming: Vec<Rule> = all
            .iter()
            .flat_map(|t| &t.incoming)
            .map(untracked)
            .collect();
        let elsewhere = all.iter().flat_map(|t| &t.elsewhere);
        incoming.extend(elsewhere.map(|rule| rule.then("counter drop")));
        out.chain(
            "incoming",
            Some("prerouting priority raw"),
            "What arrives, before connection tracking sees it.",
            &incoming,
        );
        let outgoing: Vec<Rule> = all
            .iter()
            .flat_map(|t| &t.outgoing)
            .map(untracked)
            .collect();
        out.chain(
            "outgoing",
            Some("output priority raw"),
            "What this machine sends, before connection tracking sees it.",
            &outgoing,
        );
    });
}
