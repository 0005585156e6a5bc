//! What a netlink message of the kernel means: an event, a dump's entry, an answer.

use flow::{Expectation, Flow};

use crate::DecodeError;
use crate::attr::Attrs;
use crate::conntrack::decode_flow;
use crate::expect::{IPCTNL_MSG_EXP_DELETE, IPCTNL_MSG_EXP_NEW, decode_expectation};
use crate::header::{
    NFGENMSG_LEN, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_CREATE, NLM_F_DUMP_INTR, NLM_F_EXCL,
    NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN, NlMessage, ct, exp,
};
use crate::request::{
    IPCTNL_MSG_CT_DELETE, IPCTNL_MSG_CT_GET_STATS, IPCTNL_MSG_CT_GET_STATS_CPU, IPCTNL_MSG_CT_NEW,
};
use crate::stats::{self, CpuStats, TableStats};

/// What happened to a flow or an expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Created: `IPCTNL_MSG_*_NEW` with `NLM_F_CREATE` or `NLM_F_EXCL`.
    New,
    /// Changed, or an entry of a dump: `IPCTNL_MSG_*_NEW` without them.
    Update,
    /// Ended: `IPCTNL_MSG_*_DELETE`.
    Destroy,
}

/// A message of the kernel, understood.
#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "lives on the stack for one event; boxing it would allocate"
)]
pub enum Message {
    /// A flow: an event, or the answer to a get or dump.
    Flow {
        /// What happened.
        kind: EventKind,
        /// The flow.
        flow: Flow,
        /// The dump that this is part of was disturbed (`NLM_F_DUMP_INTR`).
        interrupted: bool,
    },
    /// An expectation: an event, or an entry of a dump.
    Expectation {
        /// What happened.
        kind: EventKind,
        /// The expectation.
        expectation: Expectation,
    },
    /// Counters of one CPU.
    CpuStats(CpuStats),
    /// How full the table is.
    TableStats(TableStats),
    /// The answer to a request: 0, or a negative error number.
    Ack {
        /// Negative error number, 0 for success.
        error: i32,
    },
    /// End of a dump.
    Done {
        /// Negative error number, 0 for success.
        error: i32,
        /// The dump was disturbed: entries may be missing.
        interrupted: bool,
    },
    /// Data were lost (`NLMSG_OVERRUN`).
    Overrun,
    /// Something of another subsystem or a newer kernel.
    Other,
}

/// Understands one message.
///
/// # Errors
/// What is wrong with the flow that it holds.
#[inline]
pub fn decode(message: &NlMessage<'_>) -> Result<Message, DecodeError> {
    const NEW: u16 = ct(IPCTNL_MSG_CT_NEW);
    const DELETE: u16 = ct(IPCTNL_MSG_CT_DELETE);
    const EXP_NEW: u16 = exp(IPCTNL_MSG_EXP_NEW);
    const EXP_DELETE: u16 = exp(IPCTNL_MSG_EXP_DELETE);
    const CPU_STATS: u16 = ct(IPCTNL_MSG_CT_GET_STATS_CPU);
    const TABLE_STATS: u16 = ct(IPCTNL_MSG_CT_GET_STATS);
    let interrupted = message.flags & NLM_F_DUMP_INTR != 0;
    let kind = match message.kind {
        NEW | EXP_NEW if message.flags & (NLM_F_CREATE | NLM_F_EXCL) != 0 => EventKind::New,
        NEW | EXP_NEW => EventKind::Update,
        DELETE | EXP_DELETE => EventKind::Destroy,
        CPU_STATS | TABLE_STATS => EventKind::Update,
        NLMSG_ERROR => {
            return Ok(Message::Ack {
                error: error_number(message.payload)?,
            });
        }
        NLMSG_DONE => {
            return Ok(Message::Done {
                error: error_number(message.payload).unwrap_or(0),
                interrupted,
            });
        }
        NLMSG_OVERRUN => return Ok(Message::Overrun),
        _ => return Ok(Message::Other),
    };
    let Some((general, attributes)) = message.payload.split_first_chunk::<NFGENMSG_LEN>() else {
        return Err(DecodeError::Truncated {
            what: "nfgenmsg",
            need: NFGENMSG_LEN,
            have: message.payload.len(),
        });
    };
    match message.kind {
        EXP_NEW | EXP_DELETE => {
            return Ok(Message::Expectation {
                kind,
                expectation: decode_expectation(attributes)?,
            });
        }
        CPU_STATS => {
            let cpu = u16::from_be_bytes([general[2], general[3]]);
            return Ok(Message::CpuStats(stats::decode_cpu(cpu, attributes)?));
        }
        TABLE_STATS => return Ok(Message::TableStats(stats::decode_table(attributes)?)),
        _ => {}
    }
    Ok(Message::Flow {
        kind,
        flow: decode_flow(attributes)?,
        interrupted,
    })
}

/// The text that the kernel adds to an error number (`NETLINK_EXT_ACK`), if the message is
/// an answer and has one.
///
/// Source: `include/uapi/linux/netlink.h`, `enum nlmsgerr_attrs`.
pub fn error_text<'a>(message: &NlMessage<'a>) -> Option<&'a str> {
    const NLMSGERR_ATTR_MSG: u16 = 1;
    const NLMSG_HDRLEN: usize = 16;
    if message.kind != NLMSG_ERROR || message.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    // An error number and the request's header; the whole request unless it is capped.
    let request = message.payload.get(4..)?;
    let len = u32::from_ne_bytes(request.get(..4)?.try_into().ok()?) as usize;
    let skip = if message.flags & NLM_F_CAPPED != 0 {
        NLMSG_HDRLEN
    } else {
        len.max(NLMSG_HDRLEN).next_multiple_of(4)
    };
    let mut attrs = Attrs::new("nlmsgerr", request.get(skip..)?);
    while let Ok(Some(a)) = attrs.next() {
        if a.number == NLMSGERR_ATTR_MSG {
            return std::str::from_utf8(a.text()).ok();
        }
    }
    None
}

fn error_number(payload: &[u8]) -> Result<i32, DecodeError> {
    match payload.split_first_chunk::<4>() {
        Some((bytes, _)) => Ok(i32::from_ne_bytes(*bytes)),
        None => Err(DecodeError::Truncated {
            what: "nlmsgerr",
            need: 4,
            have: payload.len(),
        }),
    }
}
