//! What is wrong with one node, from its facts alone.

use control::facts::{Facts, Fate, Level};

use super::Findings;

/// Bytes that an event takes of the socket's buffer.
const EVENT_BYTES: u64 = 1280;
/// Fewer events than this fit into a small buffer.
const EVENTS_MIN: u64 = 4096;
/// Silence after which the daemon, too, takes the peer for lost.
const SILENT_SECS: u64 = 5;

/// Finds it; `node` is `here` or `peer`.
pub(super) fn check(facts: &Facts, found: &mut Findings) {
    configuration(facts, found);
    kernel(facts, found);
    if !facts.config.good {
        // Without a configuration neither the links nor the control socket are known.
        return;
    }
    daemon(facts, found);
    sizes(facts, found);
    links(facts, found);
    rules(facts, found);
    own_traffic(facts, found);
    local_connections(facts, found);
}

fn configuration(facts: &Facts, found: &mut Findings) {
    let config = &facts.config;
    // What the parser warns about is mostly a word of old files that does nothing.
    let (level, check) = match config.good {
        true => (Level::Note, "config"),
        false => (Level::Problem, "config-error"),
    };
    for message in &config.messages {
        found.add(
            level,
            check,
            message.clone(),
            "The daemon does what its file says, or does not start.",
            Some(format!(
                "edit {}, then: ftfw -C {} check",
                config.file, config.file
            )),
        );
    }
    if config.good && facts.links.is_empty() {
        found.add(
            Level::Problem,
            "config-sync",
            format!("{} has no `Sync`", config.file),
            "Nothing is replicated.",
            None,
        );
    }
}

fn number(facts: &Facts, name: &str) -> Option<u64> {
    facts.sysctls.get(name)?.parse().ok()
}

/// A setting of connection tracking.
fn setting(facts: &Facts, name: &str) -> Option<u64> {
    number(facts, &format!("net.netfilter.nf_conntrack_{name}"))
}

fn kernel(facts: &Facts, found: &mut Findings) {
    if !facts.root {
        found.add(
            Level::Note,
            "root",
            "ftfw doctor does not run as root".to_owned(),
            "Rules, other processes and the control socket may be out of reach.",
            Some("sudo ftfw doctor".to_owned()),
        );
    }
    if setting(facts, "max").is_none() {
        found.add(
            Level::Problem,
            "conntrack",
            "connection tracking is not there".to_owned(),
            "There are no flows to replicate.",
            Some("modprobe nf_conntrack".to_owned()),
        );
        return;
    }
    if facts.ctnetlink == Some(false) {
        found.add(
            Level::Problem,
            "ctnetlink",
            "the kernel has no ctnetlink".to_owned(),
            "The daemon can neither read nor write flows.",
            Some("modprobe nf_conntrack_netlink".to_owned()),
        );
    }
    if setting(facts, "events") == Some(0) {
        found.add(
            Level::Problem,
            "events-off",
            "nf_conntrack_events is 0".to_owned(),
            "The kernel reports no flows: only a look at the whole table finds them.",
            Some("sysctl -w net.netfilter.nf_conntrack_events=1".to_owned()),
        );
    }
    if setting(facts, "acct") == Some(0) {
        found.add(
            Level::Note,
            "acct",
            "nf_conntrack_acct is 0".to_owned(),
            "Flows have no counters. Replication needs none.",
            None,
        );
    }
    if setting(facts, "tcp_loose") == Some(1) {
        found.add(
            Level::Warning,
            "tcp-loose",
            "nf_conntrack_tcp_loose is 1".to_owned(),
            "After a takeover a segment of a connection that is not known yet makes a new flow, \
             which may get another translated port. At 0 it is INVALID, and must be dropped.",
            Some("sysctl -w net.netfilter.nf_conntrack_tcp_loose=0".to_owned()),
        );
    }
}

fn daemon(facts: &Facts, found: &mut Findings) {
    match (&facts.status, facts.daemons.as_slice()) {
        (None, []) => found.add(
            Level::Problem,
            "daemon",
            "no daemon runs".to_owned(),
            "Nothing is replicated.",
            Some(format!("ftfw -C {} run --background", facts.config.file)),
        ),
        (None, [one, ..]) => found.add(
            Level::Problem,
            "daemon-other",
            format!(
                "process {} ({}) does not answer as ours",
                one.pid, one.command
            ),
            "It is conntrackd, or ours with another configuration. Two replicas of one kernel \
             announce the same flows twice, and cannot share an address and port.",
            Some(format!("if it should not run: kill {}", one.pid)),
        ),
        (Some(_), [_, _, ..]) => {
            let all: Vec<String> = (facts.daemons.iter())
                .map(|p| format!("{} ({})", p.pid, p.command))
                .collect();
            found.add(
                Level::Problem,
                "daemon-other",
                format!("more than one daemon runs: {}", all.join(", ")),
                "Each of them reads and writes the same kernel table.",
                Some("stop all but one".to_owned()),
            );
        }
        _ => {}
    }
    let Some(status) = &facts.status else {
        return;
    };
    let peer = &status["peer"];
    let links = status["links"].as_array().into_iter().flatten();
    let received: u64 = links.filter_map(|l| l["packets"][1].as_u64()).sum();
    let silent = peer["silent"].as_u64().unwrap_or(0);
    let is_quiet_mode = status["mode"] == "ALARM";
    if received == 0 || (silent > SILENT_SECS && !is_quiet_mode) {
        found.add(
            Level::Problem,
            "peer-silent",
            match received {
                0 => "nothing has come from the peer".to_owned(),
                _ => format!("nothing has come from the peer for {silent} s"),
            },
            "What happens now will not survive a takeover.",
            Some("look at the links and rules below, and run ftfw doctor on the peer".to_owned()),
        );
    }
    if let (Some(held), Some(all)) = (peer["held"].as_u64(), peer["should_hold"].as_u64())
        && held < all
    {
        found.add(
            Level::Note,
            "not-held",
            format!("the peer holds {held} of our {all} flows"),
            "The others would be lost now. The number falls behind for a moment under load.",
            Some("if it stays so: ftfw bulk".to_owned()),
        );
    }
    if let Some(lost) = status["overruns"].as_u64().filter(|n| *n > 0) {
        found.add(
            Level::Warning,
            "overruns",
            format!("{lost} times the kernel dropped events"),
            "Flows are replicated late, when the daemon has read the table.",
            Some("raise NetlinkBufferSize in General".to_owned()),
        );
    }
}

fn sizes(facts: &Facts, found: &mut Findings) {
    let Some(max) = setting(facts, "max") else {
        return;
    };
    if let Some(limit) = facts.config.hash_limit.filter(|limit| *limit < max) {
        found.add(
            Level::Warning,
            "hash-limit",
            format!("HashLimit is {limit}, and the kernel's table may have {max} flows"),
            "Flows beyond the limit are not replicated.",
            Some(format!("HashLimit {max} in General, or leave it out")),
        );
    }
    if let Some(count) = setting(facts, "count").filter(|n| *n > max / 10 * 9) {
        found.add(
            Level::Warning,
            "table-full",
            format!("the kernel's table has {count} of {max} flows"),
            "New connections are dropped when it is full, and a commit creates no flows.",
            Some(format!(
                "sysctl -w net.netfilter.nf_conntrack_max={}",
                max * 2
            )),
        );
    }
    if let Some(bytes) = facts.config.netlink_buffer {
        if bytes / EVENT_BYTES < EVENTS_MIN {
            found.add(
                Level::Warning,
                "event-buffer",
                format!(
                    "NetlinkBufferSize {bytes} holds {} events",
                    bytes / EVENT_BYTES
                ),
                "A short burst fills it, and the kernel drops events.",
                Some("NetlinkBufferSize 33554432 in General".to_owned()),
            );
        }
        let limit = number(facts, "net.core.rmem_max").filter(|limit| *limit < bytes);
        if let Some(limit) = limit.filter(|_| !facts.root) {
            found.add(
                Level::Note,
                "rmem",
                format!("net.core.rmem_max is {limit}, less than NetlinkBufferSize"),
                "Only a daemon of root gets the buffer that it asks for.",
                Some(format!("sysctl -w net.core.rmem_max={bytes}")),
            );
        }
    }
}

fn links(facts: &Facts, found: &mut Findings) {
    for link in &facts.links {
        let device = &link.device;
        let Some(interface) = &link.interface else {
            found.add(
                Level::Note,
                "link-unknown",
                format!("the interface {device} could not be looked at"),
                "`ip -j addr show` gives no answer: iproute2 is missing or old.",
                None,
            );
            continue;
        };
        let bad = |what: String, mend: Option<String>| (what, mend);
        let trouble = if !interface.exists {
            Some(bad(format!("there is no interface {device}"), None))
        } else if !interface.up {
            let mend = format!("ip link set {device} up");
            Some(bad(format!("the interface {device} is down"), Some(mend)))
        } else if !interface.carrier {
            Some(bad(format!("the interface {device} has no carrier"), None))
        } else {
            None
        };
        if let Some((what, mend)) = trouble {
            found.add(
                Level::Problem,
                "link-down",
                what,
                "Nothing is replicated over this link.",
                mend,
            );
        }
        let is_group = facts.config.transport.as_deref() == Some("multicast");
        if let Some(address) = link
            .address
            .as_ref()
            .filter(|_| !is_group && interface.exists)
            && !interface.addresses.contains(address)
        {
            let elsewhere = match facts.addresses.contains(address) {
                true => ", but on another interface",
                false => "",
            };
            found.add(
                Level::Problem,
                "link-address",
                format!("the address {address} is not on {device}{elsewhere}"),
                "The daemon cannot open the link, or sends over another network.",
                Some(format!("ip addr add {address}/PREFIX dev {device}")),
            );
        }
    }
}

fn rules(facts: &Facts, found: &mut Findings) {
    for reason in &facts.rules.unread {
        found.add(
            Level::Note,
            "rules-unread",
            format!("not all rules could be read: {reason}"),
            "What follows about rules may miss some of them.",
            None,
        );
    }
    for fate in &facts.rules.invalid {
        let Fate {
            device,
            hook,
            verdict,
            rule,
        } = fate;
        let what = |text: &str| format!("{hook}, {device}: {text} ({rule})");
        let mend = || Some("ftfw rules static-gate --virtual ADDRESS... | nft -f -".to_owned());
        let why = "A takeover may be faster than its flows. Segments of flows that are not known \
                   yet are INVALID; a RST ends their connections.";
        match (verdict.as_str(), hook.as_str()) {
            ("accepted", _) if facts.config.gate => found.add(
                Level::Warning,
                "invalid-behind-gate",
                what("INVALID segments are not dropped"),
                "Until a takeover is complete the gate drops them. Afterwards a late segment of a \
                 live connection may be answered by a RST, or forwarded untranslated.",
                Some("in this chain, before other rules: ct state invalid drop".to_owned()),
            ),
            ("rejected", _) => found.add(
                Level::Problem,
                "invalid-rejected",
                what("INVALID segments are answered"),
                why,
                mend(),
            ),
            ("accepted", "input") => found.add(
                Level::Problem,
                "invalid-accepted",
                what("nothing drops INVALID segments, so this machine's TCP answers them"),
                why,
                mend(),
            ),
            ("accepted", _) => found.add(
                Level::Warning,
                "invalid-forwarded",
                what("INVALID segments are forwarded"),
                "They are forwarded with addresses that are not translated.",
                mend(),
            ),
            ("unknown", _) => found.add(
                Level::Note,
                "invalid-unknown",
                what("what happens to INVALID segments could not be found out"),
                "They must be dropped without an answer.",
                None,
            ),
            _ => {}
        }
    }
    for fate in &facts.rules.link {
        let Fate {
            device,
            hook,
            verdict,
            rule,
        } = fate;
        if matches!(verdict.as_str(), "dropped" | "rejected") {
            found.add(
                Level::Problem,
                "link-dropped",
                format!("{hook}: the traffic of the link {device} is {verdict} ({rule})"),
                "Nothing is replicated over this link.",
                Some(format!(
                    "ftfw rules link  # prints the rules to insert into {}",
                    rule.split(':').next().unwrap_or("your chain")
                )),
            );
        }
    }
}

fn own_traffic(facts: &Facts, found: &mut Findings) {
    if let Some(count) = facts.link_flows.filter(|n| *n > 0) {
        found.add(
            Level::Note,
            "link-tracked",
            format!("{count} flows of the dedicated links are tracked"),
            "They cost a place in the table and an event each, and are never replicated.",
            Some("ftfw rules link | nft -f -".to_owned()),
        );
    }
}

fn local_connections(facts: &Facts, found: &mut Findings) {
    let sockets = &facts.local_connections;
    if sockets.is_empty() {
        return;
    }
    let shown = sockets.iter().take(5);
    let shown: Vec<String> = shown
        .map(|s| format!("{} port {} ({})", s.address, s.port, s.count))
        .collect();
    let more = match sockets.len() {
        0..=5 => "",
        _ => ", and others",
    };
    found.add(
        Level::Note,
        "local-connections",
        format!(
            "connections end on this machine: {}{more}",
            shown.join(", ")
        ),
        "A socket cannot be replicated: if its address moves to the other node, the connection \
         is lost. Proxies and tunnels on a firewall are of this kind.",
        None,
    );
}
