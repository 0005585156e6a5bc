//! What a commit would come to: numbers, and examples by reason.

use flow::Flow;
use replica::KernelError;

/// Most examples of a reason.
pub const EXAMPLES_MAX: usize = 5;

/// Why a flow would be refused, or made without a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Refused: a flow of this kernel has one of its tuples.
    ClashHere,
    /// Refused: another flow of the peer has one of its tuples.
    ClashThere,
    /// Refused: the table has no room left.
    Full,
    /// Refused: the kernel's own reason.
    Kernel(KernelError),
    /// Refused: what the kernel held changed with each look.
    Changing,
    /// Made without its helper, which this kernel lacks.
    NoHelper,
    /// Made without its master, which has gone.
    NoMaster,
}

impl Reason {
    /// A clash with a flow of this kernel, or of the peer.
    pub(super) fn clash(is_here: bool) -> Reason {
        if is_here {
            Reason::ClashHere
        } else {
            Reason::ClashThere
        }
    }

    /// False if the flow is made, but without a part.
    pub fn refuses(self) -> bool {
        !matches!(self, Reason::NoHelper | Reason::NoMaster)
    }
}

/// A flow, and who is in its way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Example {
    /// The flow as the peer announced it.
    pub flow: Flow,
    /// After a clash: the flow that has its tuple.
    pub holder: Option<Flow>,
}

/// The flows of one reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Why.
    pub reason: Reason,
    /// How many.
    pub count: u64,
    /// The first [`EXAMPLES_MAX`] of them.
    pub examples: Vec<Example>,
}

/// What a commit would come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Foreseen {
    /// Flows created.
    pub created: u64,
    /// Flows that are there already.
    pub updated: u64,
    /// Flows that the kernel would refuse.
    pub refused: u64,
    /// Of those created: without a part.
    pub lessened: u64,
    /// By reason, in the order in which they were met. The kernel's error numbers bound how
    /// many there are.
    pub groups: Vec<Group>,
}

impl Foreseen {
    pub(super) fn note(&mut self, reason: Reason, example: Example) {
        let at = self.groups.iter().position(|g| g.reason == reason);
        let at = at.unwrap_or_else(|| {
            self.groups.push(Group {
                reason,
                count: 0,
                examples: Vec::new(),
            });
            self.groups.len() - 1
        });
        let group = &mut self.groups[at];
        group.count += 1;
        if group.examples.len() < EXAMPLES_MAX {
            group.examples.push(example);
        }
    }
}
