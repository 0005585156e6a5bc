//! Named stories between two replicas on virtual time. They assert on caches, on
//! the model kernels and on what was sent, never on private fields.

mod alarm;
mod announce;
mod answers;
mod commit;
mod driver;
mod epochs;
mod expectations;
mod failback;
mod flows;
mod forged;
mod ftfw;
mod inject;
mod neighbour;
mod numbers;
mod pairs;
mod restarts;
mod sessions;
mod silence;
mod statistics;
mod world;

const FW1: usize = 0;
const FW2: usize = 1;
