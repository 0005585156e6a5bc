//! Traffic between A and B: many numbered connections, many datagrams, one bulk transfer.

pub mod bulk;
pub mod datagrams;
pub mod ftp;
pub mod numbered;
