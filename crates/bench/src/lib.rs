//! What the core costs without a kernel: synthetic events through the real decoder and the real
//! replicas. `ftfw-bench scale` prints what an event and a flow cost as the table grows.

pub mod clock;
pub mod events;
pub mod kernel;
pub mod ledger;
pub mod pair;
pub mod paths;
pub mod scale;
