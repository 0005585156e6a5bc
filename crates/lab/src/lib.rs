//! A laboratory in network namespaces: the reference scenario, traffic through
//! it, a failover, and what survived. Runs any daemon, never linked into one.
//!
//! A run lives in a mount, PID and network namespace of its own ([`world`]), so
//! nothing of it can outlast its process: no namespace, interface, file or
//! daemon is left after a failure, Ctrl-C or SIGKILL, and runs side by side
//! cannot meet.

pub mod bench;
pub mod daemon;
pub mod dashboard;
pub mod delay;
pub mod demo;
pub mod evaluation;
pub mod faults;
pub mod hostile;
pub mod keepalived;
pub mod kernel;
pub mod limits;
pub mod loss;
pub mod node;
pub mod relay;
pub mod setups;
pub mod soak;
pub mod ssh;
pub mod topology;
pub mod traffic;
pub mod wait;
pub mod world;
