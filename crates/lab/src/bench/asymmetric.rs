//! How connections come up whose requests pass FW1 and whose answers pass FW2, by round-trip time
//! and by load. The peer's kernel must know a flow before the answer passes it.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Figure, Plan, alternate};
use crate::setups::Setup;
use crate::setups::asymmetric::Openings;
use crate::world;

const CONNECTIONS: u32 = 500;
/// Milliseconds; 0 adds nothing to what the machine itself takes, about 0.1 ms.
const ROUND_TRIPS_MS: [f64; 6] = [0.0, 0.2, 0.5, 1.0, 10.0, 50.0];
const RATE: u32 = 100;
const RATES: [u32; 3] = [500, 1000, 2000];

/// At several round-trip times, and at several rates. Each measurement has namespaces of its
/// own: this is called outside of any.
pub fn asymmetric(plan: &Plan) -> Result<()> {
    let count = plan.flows(CONNECTIONS);
    let contenders = [
        ("symmetric", (Setup::Asymmetric, true)),
        ("FT-FW", (Setup::Asymmetric, false)),
        ("NOTRACK", (Setup::AsymmetricNotrack, false)),
    ];
    let mut courses: Vec<(f64, u32)> = ROUND_TRIPS_MS.iter().map(|ms| (*ms, RATE)).collect();
    courses.extend(RATES.map(|rate| (1.0, rate)));
    courses.extend(RATES.map(|rate| (10.0, rate)));
    for (ms, rate) in courses {
        let title = format!("{count} connections, {rate}/s, round trip {ms} ms and the machine's");
        let table = alternate(&title, plan, &contenders, &[], |(setup, symmetric), _| {
            // As fast as the rate for a second at least.
            let count = count.max(rate);
            let mut words = format!(
                "openings {} --round-trip {ms} --rate {rate} --count {count}",
                setup.name()
            );
            if *symmetric {
                words += " --symmetric";
            }
            let out = world::command(words.split(' ').map(Into::into))?.output()?;
            let text = String::from_utf8_lossy(&out.stdout);
            let mut figures = Vec::new();
            for (name, unit) in [
                ("at_once", "%"),
                ("answered", "%"),
                ("retransmitted", "segments per 100 connections"),
                ("p50", "ms"),
                ("p99", "ms"),
                ("max", "ms"),
            ] {
                let prefix = format!("{name}=");
                let word = text
                    .split_whitespace()
                    .find_map(|w| w.strip_prefix(&*prefix));
                let error = || format!("{text}{}", String::from_utf8_lossy(&out.stderr));
                figures.push(Figure::new(name, unit, word.with_context(error)?.parse()?));
            }
            Ok(figures)
        })?;
        plan.show(table)?;
    }
    Ok(())
}

/// One line of figures.
pub fn line(o: &Openings, count: usize) -> String {
    let at = |part: f64| {
        let n = o.connected.len().saturating_sub(1) as f64 * part;
        let time = o.connected.get(n as usize).copied();
        time.unwrap_or(Duration::ZERO).as_secs_f64() * 1e3
    };
    format!(
        "at_once={:.1} answered={:.1} retransmitted={:.1} p50={:.2} p99={:.2} max={:.2}",
        o.at_once * 100.0,
        o.answered * 100.0,
        o.retransmitted as f64 / count as f64 * 100.0,
        at(0.5),
        at(0.99),
        at(1.0)
    )
}
