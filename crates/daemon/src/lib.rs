//! The daemon: everything that touches the system around a `replica`.
//!
//! ```text
//!  event socket ─┐                              ┌─▶ link sockets
//!  dumper       ─┤   core thread: owns all      ├─▶ kernel writer (thread) ─▶ kernel
//!  (thread)      │                              │
//!  link sockets ─┼─▶ state, one `turn` after ───┼─▶ control clients
//!  control      ─┤   the other                  └─▶ log
//!  signals      ─┘
//! ```
//!
//! [`run()`] starts and ends it; `turn` is the loop, which waits and serves clients; `host` is
//! what the core is driven with (`replica::driver`), the same way as in the simulator; `writer`
//! and `dumper` have the other lasting threads, which wait for the kernel and own no state.
//! `sandbox` is what all threads give up when everything is open.

mod app;
mod change;
mod channel;
mod clients;
mod door;
mod dump;
mod dumper;
mod follow;
mod fullness;
mod gate;
mod health;
mod host;
mod idle;
mod journal;
mod kernel;
mod limit;
mod line;
mod links;
mod listing;
mod log;
mod metrics;
mod nft;
mod pace;
mod report;
mod roles;
mod run;
mod sandbox;
mod serve;
mod service;
mod session;
mod settings;
mod statistics;
mod sysctl;
mod syslog;
mod turn;
mod turns;
mod wording;
mod writer;

pub use nft::{is_meant as is_to_run_nft, serve as run_nft};
pub use run::{Ended, run};
