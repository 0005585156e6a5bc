//! What forged datagrams make the daemons send and log.

use anyhow::Result;

use super::{Figure, Plan, alternate};
use crate::hostile::{self, Attack};
use crate::topology::{Lab, Options};
use crate::world::World;

/// One attack after the other.
pub fn hostile(world: &World, plan: &Plan) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let flows = hostile::FLOWS;
    let programs = plan.installed_programs()?;
    for attack in [Attack::Resync, Attack::Hello, Attack::Epochs] {
        let title =
            format!("{attack:?} forged, {flows} flows; with all headers, 9 s from the first");
        let table = alternate(&title, plan, &programs, &[], |program, _| {
            let m = hostile::measure(world, &lab, program.kind, attack)?;
            Ok(vec![
                Figure::new("forged", "bytes", m.forged as f64),
                Figure::new("sent", "bytes", m.answered as f64),
                Figure::new(
                    "sent of all flows once",
                    "",
                    m.answered as f64 / m.copy as f64,
                ),
                Figure::new("logged", "bytes", m.log as f64),
            ])
        })?;
        plan.show(table)?;
    }
    Ok(())
}
