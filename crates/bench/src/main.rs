//! `ftfw-bench`: measures the core without a kernel.

use std::io;

use bench::paths::{self, Path};
use bench::scale::{self, Scale};
use clap::{Parser, Subcommand};

/// Measures what the core costs without a kernel.
#[derive(Debug, Parser)]
#[command(name = "ftfw-bench")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Let a pair of replicas grow, and print what an event and a flow cost at each decade, and
    /// the longest turns.
    Scale {
        /// Flows at the end: 1 to 10000000.
        #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        flows: u32,
        /// Events in a second: 1 to 1000000.
        #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        events: u32,
    },
    /// Take a path through the code again and again, for a program that counts instructions.
    Repeat {
        /// Which path.
        #[arg(value_parser = paths::ALL.map(|path| path.name))]
        path: String,
        /// How often 1000 flows go through it.
        times: u32,
    },
}

fn main() -> io::Result<()> {
    match Arguments::parse().what {
        What::Scale { flows, events } => scale::run(Scale { flows, events }),
        What::Repeat { path, times } => {
            if let Some(path) = Path::named(&path) {
                path.repeat(times);
            }
            Ok(())
        }
    }
}
