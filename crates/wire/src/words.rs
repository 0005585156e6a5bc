//! What every version of the protocol carries: numbers, epochs, roles, tables, states.

use std::fmt;

/// Sequence number of a message. It wraps, and only this type compares them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seq(pub u32);

impl Seq {
    /// The one that follows.
    pub fn next(self) -> Seq {
        Seq(self.0.wrapping_add(1))
    }

    /// How far `self` is ahead of `other`; negative if behind (RFC 1982 arithmetic).
    pub fn ahead_of(self, other: Seq) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }

    /// True if `self` comes before `other`.
    pub fn before(self, other: Seq) -> bool {
        self.ahead_of(other) < 0
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A replica's life from start to end: a random number that is drawn at the start. A new
/// epoch means that the replica has lost its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(pub u32);

/// The role that the HA manager last gave a replica, as far as its commands show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// None yet, or a number unknown here.
    #[default]
    Unknown,
    /// It was asked to commit.
    Primary,
    /// It was asked to schedule a kernel flush.
    Backup,
}

/// Identifies a kernel's table of flows: the same number as long as the machine has not
/// started again and the network namespace is the same. 0: not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableId(pub u32);

/// Whether a state message is about a flow or an expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// Types 0 to 2.
    Flow,
    /// Types 3 to 5.
    Expectation,
}

/// What happened to the object of a state message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateKind {
    /// First announcement. A receiver may miss it and see an update first.
    New,
    /// Its present state.
    Update,
    /// The sender's kernel has destroyed it.
    Delete,
}
