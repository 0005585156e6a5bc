//! A deterministic simulator: real `replica` cores, model kernels, a faulty network.
//!
//! One seed decides everything; the same seed gives the same trace. `ftfw-sim` runs
//! seeds from the command line, `tests/` a few hundred in every run of the tests.

pub mod check;
pub mod host;
pub mod kept;
pub mod kernel;
pub mod minimise;
pub mod network;
pub mod original;
pub mod plan;
pub mod random;
pub mod trace;
pub mod world;
