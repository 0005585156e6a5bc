//! The gate as rules of nftables: the table whose sets the daemon fills and empties.

use std::fmt::Write;

/// Name of the table, of the family `inet`.
pub const TABLE: &str = "ftfw_gate";
/// Its only chain.
pub const CHAIN: &str = "prerouting";
/// Sets of the table: networks whose packets are not forwarded, and virtual addresses; of IPv4
/// and of IPv6 in turn.
pub const SETS: [&str; 4] = ["forwarded4", "forwarded6", "virtual4", "virtual6"];

/// The table with empty sets, which `nft -f` loads, also over an older one.
pub fn rules() -> String {
    let mut text = format!(
        "# Keeps out what has no state here, until the state has been committed.
# The daemon fills the sets while this firewall is a backup. What is in them expires, so the
# gate opens by itself if the daemon dies.
table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
"
    );
    let kinds = ["ipv4_addr", "ipv6_addr"];
    for (name, kind) in SETS.iter().zip(kinds.iter().cycle()) {
        let _ = writeln!(
            text,
            "\tset {name} {{ type {kind}; flags interval, timeout; }}"
        );
    }
    let _ = writeln!(text, "\tchain {CHAIN} {{");
    text += "\t\t# Behind connection tracking (-200) and before translation (-100): what is dropped here
\t\t# leaves no flow, and nothing answers it.
\t\ttype filter hook prerouting priority -190; policy accept;
\t\t# Neighbour discovery is untracked.
\t\tct state { established, related, untracked } accept
\t\t# Packets that would be forwarded.
\t\tfib daddr type unicast ip saddr @forwarded4 counter drop
\t\tfib daddr type unicast ip daddr @forwarded4 counter drop
\t\tfib daddr type unicast ip6 saddr @forwarded6 counter drop
\t\tfib daddr type unicast ip6 daddr @forwarded6 counter drop
\t\t# Packets for a virtual address. What is for an address of this firewall alone passes:
\t\t# management, VRRP, the dedicated links.
\t\tip daddr @virtual4 counter drop
\t\tip6 daddr @virtual6 counter drop
\t}
}
";
    text
}
