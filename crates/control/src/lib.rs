//! What crosses the control socket: the original's request codes and reply forms.
//!
//! A client sends one native-endian `i32`; the daemon answers with text until it
//! closes the connection. There is no status in the reply. The forms of the texts
//! are a contract: scripts and monitoring read them by column and by word.

pub mod reply;
mod request;

pub use request::{CacheKind, Object, Request, StatsKind};
