//! The command line. It reaches the daemon only through the control socket.
//!
//! [`own`] is ours, [`compat`] the original's.

pub mod compat;
mod load;
pub mod own;
pub mod print;
mod remains;

use config::Config;

/// What the arguments ask for.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one value, made once")]
pub enum Outcome {
    /// All is done: end with this status.
    Exit(u8),
    /// Run the daemon.
    Daemon {
        /// Configuration.
        config: Config,
        /// Warnings about it, one text each.
        warnings: Vec<String>,
        /// Go to the background.
        background: bool,
    },
}
