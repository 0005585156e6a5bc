//! Which events of a TCP connection the kernel reports (`ct event set`).
//!
//! What the kernel does (`nft_ct_set_eval`, `nf_ct_deliver_cached_events`): the mask belongs to
//! the flow, and a rule may replace it with any packet. The changes that a packet has caused are
//! reported when the packet leaves, in one message, if one of them is in the mask; a message
//! carries everything that this packet has changed, and always status, timeout, and a mark that
//! is not 0. Changes that are not reported are forgotten: a later message does not repeat
//! labels, the master, sequence adjustments or SYNPROXY's numbers.

use super::{Rule, Ruleset};

// `enum ip_conntrack_events`, include/uapi/linux/netfilter/nf_conntrack_common.h. nft 1.0.6
// cannot parse `helper`, `mark` and `secmark` here, and has no name for the last one.
const IPCT_NEW: u32 = 1 << 0;
const IPCT_RELATED: u32 = 1 << 1;
const IPCT_DESTROY: u32 = 1 << 2;
const IPCT_ASSURED: u32 = 1 << 4;
const IPCT_PROTOINFO: u32 = 1 << 5;
const IPCT_HELPER: u32 = 1 << 6;
const IPCT_MARK: u32 = 1 << 7;
const IPCT_SEQADJ: u32 = 1 << 8;
const IPCT_SECMARK: u32 = 1 << 9;
const IPCT_LABEL: u32 = 1 << 10;
const IPCT_SYNPROXY: u32 = 1 << 11;

/// What no later message would repeat.
const NEVER_REPEATED: u32 = IPCT_SEQADJ | IPCT_LABEL | IPCT_SYNPROXY;
/// A connection whose handshake is not complete.
const OPENING: u32 = IPCT_ASSURED | NEVER_REPEATED;
/// A connection that carries data.
const OPEN: u32 =
    OPENING | IPCT_NEW | IPCT_RELATED | IPCT_DESTROY | IPCT_HELPER | IPCT_MARK | IPCT_SECMARK;
/// A connection that ends.
const CLOSING: u32 = OPEN | IPCT_PROTOINFO;

/// Writes the part `events`.
pub(super) fn write(out: &mut Ruleset) {
    let why = [
        "events: the kernel reports a TCP connection when its handshake is complete, when a FIN or",
        "RST passes, and when it ends; mark, helper, labels and sequence adjustment whenever they",
        "change. It does not report the handshake. A SYN without an answer is not reported at all.",
        "Other protocols are reported as before.",
        "",
        "What is lost: a connection whose handshake is under way at a takeover is unknown to the",
        "peer, and its client must send the SYN again. The peer knows of a closing connection only",
        "what the last FIN or RST showed: LAST_ACK where this kernel has TIME_WAIT. The daemon",
        "still finds half-open connections when it reads the table, and then announces them: with",
        "Filter { State Accept { ESTABLISHED for TCP } } in General it does not. conntrackd does not look: it",
        "knows nothing of a connection until it is assured.",
        "",
        "The numbers are those of the kernel (1 new, 2 related, 4 destroy, 16 assured, 32 protoinfo,",
        "64 helper, 128 mark, 256 seqadj, 512 secmark, 1024 label, 2048 synproxy).",
        "Load this after the start of the daemon, or with nf_conntrack_events=1: otherwise these",
        "rules make the flow report events, but never those of its expectations.",
    ];
    out.table("ftfw_events", &why, |out| {
        let all = [Rule::new(
            "meta l4proto tcp jump masks",
            "Only TCP has more changes than a replica needs.",
        )];
        let hooks = [
            ("prerouting", "What arrives, when connection tracking has seen it."),
            ("output", "What this machine sends, when connection tracking has seen it."),
        ];
        for (hook, why) in hooks {
            out.chain(hook, Some(&format!("{hook} priority mangle")), why, &all);
        }
        let rules = [
            Rule::new(
                format!("ct status & (expected | assured) == 0 ct event set {OPENING} return"),
                "A handshake is not reported, unless a label or a sequence adjustment is set in it.",
            ),
            Rule::new(
                format!("tcp flags & (fin | rst) != 0 ct event set {CLOSING} return"),
                "The state that a FIN or RST leads to is reported: its timeout is short.",
            ),
            Rule::new(
                format!("ct event set {OPEN}"),
                "Everything but replies and TCP states is reported; the first report has the state.",
            ),
        ];
        out.chain("masks", None, "One mask for each stage of a connection.", &rules);
    });
}
