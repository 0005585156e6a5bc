//! The figures of a run as a table in Markdown.

use std::time::Duration;

use super::{Fault, Outcome};
use crate::bench;
use crate::daemon::Kind;

/// What came of one fault with one program.
pub(super) struct Row {
    pub(super) fault: &'static Fault,
    pub(super) kind: Kind,
    /// Or why there is none.
    pub(super) outcome: Result<Outcome, String>,
}

impl Row {
    /// Whether something of ours does not hold, or a flow lives in the control, where none can.
    pub(super) fn breaks(&self) -> bool {
        let is_so = |holds: fn(&Outcome) -> bool| self.outcome.as_ref().is_ok_and(holds);
        match self.kind {
            Kind::Ftfw => !is_so(|o| o.check().is_ok()),
            Kind::None => !is_so(|o| o.flows > 0 && o.alive == 0),
            Kind::Conntrackd => false,
        }
    }

    fn cells(&self) -> Vec<String> {
        let fault = match self.kind {
            Kind::Ftfw => format!("`{}`: {}", self.fault.name, self.fault.done),
            _ => String::new(),
        };
        let mut cells = vec![fault, self.kind.to_string()];
        match &self.outcome {
            Ok(outcome) => cells.extend(figures(outcome, self.kind)),
            Err(e) => {
                cells.extend(vec![String::new(); 6]);
                // A cell is one line.
                cells.push(e.lines().next().unwrap_or_default().replace('|', "/"));
            }
        }
        cells
    }
}

/// The figures of an outcome, in the order of the heads.
fn figures(outcome: &Outcome, kind: Kind) -> Vec<String> {
    let equal = match outcome.equal_after {
        _ if outcome.never_equal => "never".to_owned(),
        Some(time) => format!("{:.1} s", time.as_secs_f64()),
        None => String::new(),
    };
    let lost = match outcome.check() {
        Ok(()) => "nothing lost".to_owned(),
        Err(_) if kind == Kind::Ftfw => "DOES NOT HOLD".to_owned(),
        Err(_) => format!("{} flows lost", outcome.flows - outcome.alive),
    };
    let mut notes = vec![lost];
    notes.extend(outcome.notes.iter().map(|n| n.replace('|', "/")));
    vec![
        outcome.flows.to_string(),
        outcome.events.to_string(),
        outcome.struck.to_string(),
        outcome.bad_inputs.to_string(),
        format!("{}/{}", outcome.alive, outcome.flows),
        equal,
        notes.join("; "),
    ]
}

const HEADS: [&str; 9] = [
    "fault",
    "with",
    "flows",
    "load (events)",
    "faults",
    "bad inputs",
    "alive",
    "equal after",
    "what came of it",
];

/// Prints rows, what they add up to, and how they came about.
pub(super) fn print(rows: &[Row], took: Duration, name: Option<&str>) {
    println!("| {} |", HEADS.join(" | "));
    println!("|{}", "---|".repeat(HEADS.len()));
    for row in rows {
        println!("| {} |", row.cells().join(" | "));
    }
    let ours = rows.iter().filter(|row| row.kind == Kind::Ftfw);
    let ours: Vec<_> = ours.filter_map(|row| row.outcome.as_ref().ok()).collect();
    let sum = |of: fn(&Outcome) -> u64| ours.iter().map(|o| of(o)).sum::<u64>();
    println!(
        "\nTwo ftfw: {} events of load held, {} faults survived, {} bad inputs tried, {} of {} flows lost.",
        sum(|o| o.events),
        sum(|o| o.struck),
        sum(|o| o.bad_inputs),
        sum(|o| (o.flows - o.alive) as u64),
        sum(|o| o.flows as u64),
    );
    let name = name.map_or(String::new(), |name| format!(" {name}"));
    println!(
        "`ftfw-lab faults{name}`, {:.0} s, {}.",
        took.as_secs_f64(),
        bench::processor()
    );
}

/// All faults: what is done, what must hold, and where the short form is proven.
pub fn describe() {
    for fault in super::FAULTS {
        println!("{}", fault.name);
        println!("    {}", fault.done);
        if !fault.holds.is_empty() {
            println!("    {}", fault.holds);
        }
        let own = format!("faults/{}", fault.name);
        println!("    {}", fault.test.unwrap_or(&own));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: ours must hold, in the control nothing may live, and the original may do either.
    #[test]
    fn each_program_has_its_own_demand() {
        let breaks = |kind, flows, alive| {
            let row = Row {
                fault: &super::super::FAULTS[0],
                kind,
                outcome: Ok(Outcome {
                    flows,
                    alive,
                    ..Outcome::default()
                }),
            };
            row.breaks()
        };
        let of = |kind| [breaks(kind, 5, 5), breaks(kind, 5, 4), breaks(kind, 5, 0)];
        assert_eq!(of(Kind::Ftfw), [false, true, true]);
        assert_eq!(of(Kind::None), [true, true, false]);
        assert_eq!(of(Kind::Conntrackd), [false; 3]);
        assert!(breaks(Kind::None, 0, 0), "no flow, so nothing is shown");
    }

    #[test]
    fn what_could_not_be_struck_breaks_for_ours_and_for_the_control() {
        let breaks = |kind| {
            let row = Row {
                fault: &super::super::FAULTS[0],
                kind,
                outcome: Err("no namespace".to_owned()),
            };
            row.breaks()
        };
        let kinds = [Kind::Ftfw, Kind::None, Kind::Conntrackd];
        assert_eq!(kinds.map(breaks), [true, true, false]);
    }
}
