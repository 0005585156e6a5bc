//! Flows missing and time to equality while datagrams are lost, and the bytes that it took.

use anyhow::{Context, Result};

use super::{Figure, Plan, alternate};
use crate::world;

const CONNECTIONS: u32 = 1000;

/// At several losses. Each measurement has namespaces of its own: this is called outside of any.
pub fn loss(plan: &Plan) -> Result<()> {
    let count = plan.flows(CONNECTIONS);
    let programs = plan.installed_programs()?;
    for loss in ["0", "0.01", "0.05", "0.2"] {
        let title = format!("{count} connections, half of them closed, FT-FW, loss {loss}");
        let table = alternate(&title, plan, &programs, &[], |program, seed| {
            let words = format!(
                "loss --daemon {} --mode ftfw --loss {loss} --connections {count} --seed {seed}",
                program.kind
            );
            let out = world::command(words.split(' ').map(Into::into))?.output()?;
            let text = String::from_utf8_lossy(&out.stdout);
            let value = |name: &str| -> Result<f64> {
                let word = text.split_whitespace().find_map(|w| w.strip_prefix(name));
                let error = || format!("{text}{}", String::from_utf8_lossy(&out.stderr));
                Ok(word.with_context(error)?.parse()?)
            };
            let mut figures = vec![
                Figure::new("missing at the end", "flows", value("missing=")?),
                Figure::new("stale at the end", "flows", value("stale=")?),
                Figure::new("sent", "bytes an event", value("bytes_per_event=")?),
            ];
            // A run that does not end in equality has no such time.
            if let Ok(after) = value("equal_after=") {
                figures.push(Figure::new("equal after", "s", after));
            }
            Ok(figures)
        })?;
        plan.show(table.at(100.0 * loss.parse::<f64>()?))?;
    }
    Ok(())
}
