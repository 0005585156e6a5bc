//! Traffic between A and B: many numbered connections, and one bulk transfer.

pub mod bulk;
pub mod numbered;
