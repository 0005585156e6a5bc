//! Counters of the kernel's tables.
//!
//! Source: `enum ctattr_stats_cpu`, `enum ctattr_stats_global`.

use crate::DecodeError;
use crate::attr::Attrs;

const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;
const CTA_STATS_GLOBAL_MAX_ENTRIES: u16 = 2;

/// Counters of one CPU since the start of the namespace. They wrap at 32 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuStats {
    /// Which CPU.
    pub cpu: u16,
    /// Entries found.
    pub found: u32,
    /// Packets that belong to no flow and cannot begin one.
    pub invalid: u32,
    /// Entries inserted.
    pub insert: u32,
    /// Entries not inserted.
    pub insert_failed: u32,
    /// Packets dropped because the table was full or memory short.
    pub drop: u32,
    /// Entries ended early to make room.
    pub early_drop: u32,
    /// ICMP errors that could not be placed.
    pub error: u32,
    /// Searches begun anew because the table changed.
    pub search_restart: u32,
    /// Clashes resolved.
    pub clash_resolve: u32,
    /// Inserts given up because a chain was too long.
    pub chain_too_long: u32,
}

/// How full the table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Entries now.
    pub entries: u32,
    /// The most that there may be; `None` before Linux 4.19.
    pub max: Option<u32>,
}

/// Decodes an `IPCTNL_MSG_CT_GET_STATS_CPU`; `cpu` is `res_id` of `nfgenmsg`.
pub(crate) fn decode_cpu(cpu: u16, attributes: &[u8]) -> Result<CpuStats, DecodeError> {
    let mut out = CpuStats {
        cpu,
        ..CpuStats::default()
    };
    let mut attrs = Attrs::new("statistics", attributes);
    while let Some(a) = attrs.next()? {
        let field = match a.number {
            2 => &mut out.found,
            4 => &mut out.invalid,
            8 => &mut out.insert,
            9 => &mut out.insert_failed,
            10 => &mut out.drop,
            11 => &mut out.early_drop,
            12 => &mut out.error,
            13 => &mut out.search_restart,
            14 => &mut out.clash_resolve,
            15 => &mut out.chain_too_long,
            _ => continue,
        };
        *field = a.be32()?;
    }
    Ok(out)
}

/// Decodes an `IPCTNL_MSG_CT_GET_STATS`.
pub(crate) fn decode_table(attributes: &[u8]) -> Result<TableStats, DecodeError> {
    let mut out = TableStats::default();
    let mut attrs = Attrs::new("statistics", attributes);
    while let Some(a) = attrs.next()? {
        match a.number {
            CTA_STATS_GLOBAL_ENTRIES => out.entries = a.be32()?,
            CTA_STATS_GLOBAL_MAX_ENTRIES => out.max = Some(a.be32()?),
            _ => {}
        }
    }
    Ok(out)
}
