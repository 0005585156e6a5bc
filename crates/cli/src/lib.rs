//! The command line. It reaches the daemon only through the control socket.

pub mod compat;
