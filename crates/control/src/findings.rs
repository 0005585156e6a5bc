//! What commands find that compare or foretell: `diff` and `rehearse`, as JSON. The meaning of
//! the fields is in docs/json.md.

use serde::Serialize;

use crate::rows::FlowRow;

/// What `ftfw diff` has found.
#[derive(Debug, Serialize)]
pub struct DiffRow {
    /// No flow differs.
    pub equal: bool,
    /// `kernel` or `peer`.
    pub with: &'static str,
    /// One in so many flows was compared.
    pub sample: u64,
    /// Flows that are the same.
    pub same: u64,
    /// Flows that only the internal cache has.
    pub only_here: u64,
    /// Flows that only the kernel, or only the peer, has.
    pub only_there: u64,
    /// Flows that both have, with another field.
    pub different: u64,
    /// Flows that differed, and were the same, or gone, when they were looked at again.
    pub settled: u64,
    /// Flows that were another way different each time.
    pub changing: u64,
    /// Flows that are not replicated, or not announced.
    pub left_out: u64,
    /// Some of those that differ.
    pub examples: Vec<DifferenceRow>,
}

/// A flow that differs.
#[derive(Debug, Serialize)]
pub struct DifferenceRow {
    /// `only here`, `only there` or `different`.
    pub found: &'static str,
    /// The flow, as the internal cache has it if it does.
    pub flow: FlowRow,
    /// The fields that differ.
    pub fields: Vec<FieldRow>,
}

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldRow {
    /// Its name, that of the column of `ftfw flows`.
    pub field: &'static str,
    /// Its value in the internal cache.
    pub here: String,
    /// Its value in the kernel, or at the peer.
    pub there: String,
}
