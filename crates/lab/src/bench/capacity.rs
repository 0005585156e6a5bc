//! How many connections a second a pair carries that keeps no cache and repeats nothing: NOTRACK
//! without caches, whose every lost message is a lost flow.

use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::http;
use super::pair::{Pair, numbers};
use super::{Figure, Goal, Measurement, Plan, Table, alternate};
use crate::daemon::{Mode, Settings};
use crate::traffic::http::Requests;
use crate::world::World;

/// Connections of each load, unless the user asks for another number.
const CONNECTIONS: u32 = 20_000;
/// After the last connection the receiver has taken in what has come.
const SETTLE: Duration = Duration::from_secs(2);
/// This part of the highest rate must be carried without a loss.
const SHARE: f64 = 0.8;

const LOST: &str = "flows lost at 80 % of the highest rate";
const UNCOUNTED: &str = "flows lost at the highest rate without being counted";

/// As fast as clients go, and at a part of that.
pub fn capacity(world: &World, plan: &Plan) -> Result<Table> {
    let count = plan.flows(CONNECTIONS);
    let title =
        format!("NOTRACK, no caches: {count} connections, and as many at 80 % of their rate");
    let (lab, server) = http::lab()?;
    let settings = Settings {
        mode_lines: "DisableInternalCache on\nDisableExternalCache on".into(),
        ..Settings::new(Mode::Notrack)
    };
    let goals = [Goal::absolute(LOST, 0.0), Goal::absolute(UNCOUNTED, 0.0)];
    alternate(&title, plan, &plan.programs(), &goals, |program, _| {
        let pair = Pair::start(world, &lab, program, &settings)?;
        let carry = |after: u32, rate: Option<u32>| -> Result<(f64, usize)> {
            let before = pair.lacking()?;
            let load = Requests { after, count, rate };
            let served = load.run(&lab.a, server)?;
            thread::sleep(SETTLE);
            load.check(&served)?;
            Ok((served.rate, pair.lacking()?.saturating_sub(before)))
        };
        let (highest, lost) = carry(0, None)?;
        let counted = counted(&pair)?;
        let (_, lost_below) = carry(count, Some((highest * SHARE) as u32))?;
        let configurations = pair.configurations("NOTRACK, no caches")?;
        pair.stop()?;
        let uncounted = if counted > 0 { 0 } else { lost };
        let figures = vec![
            Figure::new("highest rate", "connections/s", highest),
            Figure::new(LOST, "flows", lost_below as f64),
            Figure::new("flows lost at the highest rate", "flows", lost as f64),
            Figure::new("losses counted meanwhile", "times", counted as f64),
            Figure::new(UNCOUNTED, "flows", uncounted as f64),
        ];
        Ok(Measurement {
            configurations,
            ..figures.into()
        })
    })
}

/// Losses that the daemons have counted: messages that have not come, and times that the buffer
/// for the kernel's events was full.
fn counted(pair: &Pair) -> Result<u64> {
    let [sender, receiver] = &pair.daemons;
    let messages = numbers(&receiver.ask(&["-s", "network"])?, "Packets lost:", 0)?;
    let overruns = numbers(&sender.ask(&["-s", "runtime"])?, "netlink overrun:", 0)?;
    Ok(messages[0] + overruns[0])
}
