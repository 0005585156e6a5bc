//! Requests about sets of nftables: the networks that a set holds from now on.
//!
//! All requests between the two ends of a batch take effect at once or not at all.
//!
//! Source: `include/uapi/linux/netfilter/nf_tables.h` (`enum nft_set_elem_attributes`),
//! `include/uapi/linux/netfilter/nfnetlink.h` (`NFNL_MSG_BATCH_BEGIN`).

use std::net::IpAddr;
use std::time::Duration;

use flow::Prefix;

use crate::attr::{put, put_be32, put_nest, put_text};
use crate::header::{NLM_F_ACK, NLM_F_CREATE, put_request_about};
use crate::request::AF_UNSPEC;

pub(crate) const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_DELSETELEM: u16 = 14;
pub(crate) const NFPROTO_INET: u8 = 1;

const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_FLAGS: u16 = 3;
const NFTA_SET_ELEM_TIMEOUT: u16 = 4;
const NFTA_DATA_VALUE: u16 = 1;
const NFT_SET_ELEM_INTERVAL_END: u32 = 1;

/// What a set of networks (`flags interval, timeout`) is to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetOfNetworks<'a> {
    /// Its name.
    pub name: &'a str,
    /// Of its family, in any order; they may overlap.
    pub networks: Vec<Prefix>,
}

/// Appends a batch that makes sets of one table of the family `inet` hold these networks and
/// nothing else, for `timeout`. Each request carries `seq`, and the last one is answered.
pub fn put_sets(
    out: &mut Vec<u8>,
    seq: u32,
    table: &str,
    sets: &[SetOfNetworks<'_>],
    timeout: Duration,
) {
    put_batch_end(out, NFNL_MSG_BATCH_BEGIN, seq);
    let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let name_of = |out: &mut Vec<u8>, set: &SetOfNetworks<'_>| {
        put_text(out, NFTA_SET_ELEM_LIST_TABLE, table.as_bytes());
        put_text(out, NFTA_SET_ELEM_LIST_SET, set.name.as_bytes());
    };
    for (n, set) in sets.iter().enumerate() {
        let networks = without_overlap(&set.networks);
        // Without elements it empties the set.
        let is_last = n + 1 == sets.len() && networks.is_empty();
        let ack = if is_last { NLM_F_ACK } else { 0 };
        put_about(out, NFT_MSG_DELSETELEM, ack, seq, |out| name_of(out, set));
        if networks.is_empty() {
            continue;
        }
        let ack = if n + 1 == sets.len() { NLM_F_ACK } else { 0 };
        put_about(out, NFT_MSG_NEWSETELEM, NLM_F_CREATE | ack, seq, |out| {
            name_of(out, set);
            put_nest(out, NFTA_SET_ELEM_LIST_ELEMENTS, |out| {
                for network in &networks {
                    let (first, behind) = interval(network);
                    put_nest(out, NFTA_LIST_ELEM, |out| {
                        put_key(out, &first);
                        put(out, NFTA_SET_ELEM_TIMEOUT, &millis.to_be_bytes());
                    });
                    if let Some(behind) = behind {
                        put_nest(out, NFTA_LIST_ELEM, |out| {
                            put_be32(out, NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
                            put_key(out, &behind);
                        });
                    }
                }
            });
        });
    }
    put_batch_end(out, NFNL_MSG_BATCH_END, seq);
}

/// Begin or end of a batch; `res_id` names the subsystem.
fn put_batch_end(out: &mut Vec<u8>, kind: u16, seq: u32) {
    put_request_about(out, kind, 0, seq, AF_UNSPEC, NFNL_SUBSYS_NFTABLES, |_| {});
}

fn put_about(out: &mut Vec<u8>, op: u16, flags: u16, seq: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let kind = NFNL_SUBSYS_NFTABLES << 8 | op;
    put_request_about(out, kind, flags, seq, NFPROTO_INET, 0, fill);
}

fn put_key(out: &mut Vec<u8>, key: &[u8]) {
    put_nest(out, NFTA_SET_ELEM_KEY, |out| put(out, NFTA_DATA_VALUE, key));
}

/// The first address of a network, and the one behind its last, if there is one, in network
/// byte order.
fn interval(network: &Prefix) -> (Vec<u8>, Option<Vec<u8>>) {
    match network.addr() {
        IpAddr::V4(addr) => {
            let host = u32::MAX.checked_shr(network.len().into()).unwrap_or(0);
            let first = u32::from(addr) & !host;
            let behind = (first | host).checked_add(1);
            (
                first.to_be_bytes().to_vec(),
                behind.map(|b| b.to_be_bytes().to_vec()),
            )
        }
        IpAddr::V6(addr) => {
            let host = u128::MAX.checked_shr(network.len().into()).unwrap_or(0);
            let first = u128::from(addr) & !host;
            let behind = (first | host).checked_add(1);
            (
                first.to_be_bytes().to_vec(),
                behind.map(|b| b.to_be_bytes().to_vec()),
            )
        }
    }
}

/// The networks that lie in no other one, each once.
fn without_overlap(networks: &[Prefix]) -> Vec<Prefix> {
    let mut sorted = networks.to_vec();
    sorted.sort_by_key(Prefix::len);
    let mut kept: Vec<Prefix> = Vec::new();
    for network in sorted {
        if !kept.iter().any(|wider| wider.contains(network.addr())) {
            kept.push(network);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(addr: &str, len: u8) -> Prefix {
        Prefix::new(addr.parse().unwrap(), len).unwrap()
    }

    #[test]
    fn an_interval_ends_behind_the_last_address() {
        let bytes = |n: u32| n.to_be_bytes().to_vec();
        let (first, behind) = interval(&network("10.0.0.77", 24));
        assert_eq!(first, bytes(0x0a00_0000));
        assert_eq!(behind, Some(bytes(0x0a00_0100)));
        assert_eq!(interval(&network("0.0.0.0", 0)), (bytes(0), None));
        assert_eq!(interval(&network("255.255.255.255", 32)).1, None);
        let (first, behind) = interval(&network("fd00::1", 128));
        assert_eq!((first[15], behind.unwrap()[15]), (1, 2));
        assert_eq!(interval(&network("::", 0)).1, None);
    }

    #[test]
    fn a_network_inside_another_is_left_out() {
        let networks = [
            network("10.0.0.1", 32),
            network("10.0.0.0", 24),
            network("10.0.0.0", 24),
            network("fd00::1", 128),
            network("10.1.0.1", 32),
        ];
        let kept = without_overlap(&networks);
        let all = [networks[1], networks[4], networks[3]];
        assert_eq!(kept.len(), 3, "{kept:?}");
        assert!(all.iter().all(|n| kept.contains(n)));
    }

    #[test]
    fn the_bytes_are_those_of_nft() {
        let mut out = Vec::new();
        let set = SetOfNetworks {
            name: "v",
            networks: vec![network("10.0.0.0", 24)],
        };
        put_sets(&mut out, 7, "t", &[set], Duration::from_secs(5));
        let kinds: Vec<u16> = crate::messages(&out).map(|m| m.unwrap().kind).collect();
        assert_eq!(kinds, [0x10, 0x0a0e, 0x0a0c, 0x11]);
        let add = crate::messages(&out).nth(2).unwrap().unwrap();
        // As `nft add element inet t v { 10.0.0.0/24 timeout 5s }` sends it, without the end of
        // what lies before the first network, and without user data.
        let payload = [
            &[1, 0, 0, 0][..],
            &[6, 0, 1, 0, b't', 0, 0, 0],
            &[6, 0, 2, 0, b'v', 0, 0, 0],
            &[56, 0, 3, 0x80],
            &[28, 0, 1, 0x80, 12, 0, 1, 0x80, 8, 0, 1, 0, 10, 0, 0, 0],
            &[12, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0x13, 0x88],
            &[24, 0, 1, 0x80, 8, 0, 3, 0, 0, 0, 0, 1],
            &[12, 0, 1, 0x80, 8, 0, 1, 0, 10, 0, 1, 0],
        ]
        .concat();
        assert_eq!(add.payload, payload);
    }
}
