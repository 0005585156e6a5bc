//! How many rules a chain of nftables has.
//!
//! Source: `include/uapi/linux/netfilter/nf_tables.h` (`enum nft_chain_attributes`).

use crate::DecodeError;
use crate::attr::{Attrs, put_text};
use crate::header::{NLM_F_ACK, NlMessage, put_request_about};
use crate::sets::{NFNL_SUBSYS_NFTABLES, NFPROTO_INET};

const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_USE: u16 = 6;
/// `struct nfgenmsg`, which comes before the attributes.
const NFGENMSG: usize = 4;

/// Appends a request for a chain of the family `inet`. The kernel sends it, and then an
/// acknowledgement; without such a chain only that, with ENOENT.
pub fn put_chain_request(out: &mut Vec<u8>, seq: u32, table: &str, chain: &str) {
    let kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN;
    put_request_about(out, kind, NLM_F_ACK, seq, NFPROTO_INET, 0, |out| {
        put_text(out, NFTA_CHAIN_TABLE, table.as_bytes());
        put_text(out, NFTA_CHAIN_NAME, chain.as_bytes());
    });
}

/// Number of rules of a chain to which none jumps; `None` if the message is about something
/// else.
///
/// # Errors
/// The message is malformed.
pub fn chain_rules(message: &NlMessage<'_>) -> Result<Option<u32>, DecodeError> {
    if message.kind != NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWCHAIN {
        return Ok(None);
    }
    let attributes = message.payload.get(NFGENMSG..).unwrap_or_default();
    let mut attributes = Attrs::new("chain", attributes);
    while let Some(attribute) = attributes.next()? {
        if attribute.number == NFTA_CHAIN_USE {
            return attribute.be32().map(Some);
        }
    }
    Ok(None)
}
