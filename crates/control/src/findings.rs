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

/// What a commit would come to, as `ftfw rehearse` foretells it.
#[derive(Debug, Serialize)]
pub struct RehearsalRow {
    /// The kernel would refuse no flow.
    pub good: bool,
    /// Flows that a commit would put into the kernel.
    pub flows: u64,
    /// Those that would be created.
    pub created: u64,
    /// Those that are there already.
    pub updated: u64,
    /// Those that the kernel would refuse.
    pub refused: u64,
    /// Of those created: without their helper or their master.
    pub lessened: u64,
    /// Entries that the kernel's table can take; `None` if that is not known.
    pub room: Option<u64>,
    /// Expectations of the external cache, which are not rehearsed.
    pub expectations: u64,
    /// Flows of this kernel that could not be considered.
    pub not_considered: u64,
    /// Why flows would be refused, or created without a part.
    pub reasons: Vec<ReasonRow>,
    /// How long the rehearsal took.
    pub seconds: f64,
}

/// Why some flows would be refused, or created without a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WhyRow {
    /// A name that does not change.
    pub reason: &'static str,
    /// False if they are created.
    pub refused: bool,
    /// How many.
    pub count: u64,
    /// The reason in words.
    pub why: String,
    /// What to do.
    pub help: String,
}

/// A reason with some of its flows.
#[derive(Debug, Serialize)]
pub struct ReasonRow {
    /// The reason.
    #[serde(flatten)]
    pub why: WhyRow,
    /// Some of the flows.
    pub examples: Vec<RefusedRow>,
}

/// A flow that would be refused, or created without a part.
#[derive(Debug, Serialize)]
pub struct RefusedRow {
    /// The flow, as a commit would ask for it.
    pub flow: FlowRow,
    /// The flow that has one of its tuples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<FlowRow>,
}
