//! `ftfw rehearse`: what would a commit come to? Which flows would the kernel refuse, and why?
//!
//! The daemon lists what a commit would ask for; this program asks for it in a network namespace
//! of its own, which ends with it. Of the kernel's table it copies there what could be in the way.

mod words;

use std::io::ErrorKind;
use std::path::Path;
use std::time::Instant;

use control::call::{Table, Task};
use control::findings::{ReasonRow, RefusedRow, RehearsalRow};
use control::rows::{Beside, FlowRow};
use ctnetlink::TcpOptions;
use exchange::rehearsal::{Example, Foreseen, Rehearsal, Touched, Wanted};
use flow::Flow;
use serde_json::Value;

use super::arguments::{Form, Output};
use super::client::Failure;
use super::listing::{flows_of, list};
use super::{PARTIAL, ask_status, load_replicating};
use crate::{Outcome, print};

/// Flows of the kernel that are copied at once.
const COPIED_AT_ONCE: usize = 256;

/// Rehearses, and prints what would come of it.
pub(super) fn run(config: &Path, form: Output) -> Result<Outcome, Failure> {
    let begun = Instant::now();
    let (_, sync) = load_replicating(config)?;
    let status = ask_status(config)?;
    if status["committing"] == true {
        return Err(Failure {
            help: Some("wait for its end: `ftfw status` shows it".to_owned()),
            ..Failure::plain("a commit is running")
        });
    }
    let tcp = TcpOptions {
        window_scale: sync.window_tracking,
    };
    let mut rehearsal = Rehearsal::enter(tcp).map_err(|e| no_namespace(&e))?;
    let wanted = read_wanted(config)?;
    copy_what_matters(config, &wanted, &mut rehearsal)?;
    let room = room(&status);
    let foreseen = rehearsal.commit(&wanted, room.unwrap_or(u64::MAX));
    let row = RehearsalRow {
        good: foreseen.refused == 0,
        flows: wanted.len() as u64,
        created: foreseen.created,
        updated: foreseen.updated,
        refused: foreseen.refused,
        lessened: foreseen.lessened,
        room,
        expectations: status["external_expectations"]["entries"]
            .as_u64()
            .unwrap_or(0),
        not_considered: rehearsal.not_copied(),
        reasons: reasons(&foreseen),
        seconds: begun.elapsed().as_secs_f64(),
    };
    match form.output {
        Form::Text => print::out(words::text(&row, &foreseen, &status)),
        Form::Json => {
            let line = serde_json::to_string(&row).map_err(|e| Failure::plain(e.to_string()))?;
            print::out(format_args!("{line}\n"));
        }
    }
    Ok(Outcome::Exit(if row.good { 0 } else { PARTIAL }))
}

fn no_namespace(e: &std::io::Error) -> Failure {
    let help = match e.kind() {
        ErrorKind::PermissionDenied => "be root, outside a container: it needs CAP_SYS_ADMIN",
        _ => "the kernel must have network namespaces and ctnetlink, and allow one more of them",
    };
    Failure {
        help: Some(help.to_owned()),
        ..Failure::plain(format!("no network namespace to rehearse in: {e}"))
    }
}

/// What a commit would put into the kernel.
fn read_wanted(config: &Path) -> Result<Vec<Wanted>, Failure> {
    let mut wanted = Vec::new();
    flows_of(config, Task::Rehearse, |flow, notes| {
        let is_taken = notes.taken == Some(true);
        wanted.push(Wanted { flow, is_taken });
    })?;
    Ok(wanted)
}

/// Copies the flows of the kernel that have a tuple of `wanted`, or are a master of one.
fn copy_what_matters(
    config: &Path,
    wanted: &[Wanted],
    rehearsal: &mut Rehearsal,
) -> Result<(), Failure> {
    let mut touched = Touched::default();
    for w in wanted {
        touched.add(&w.flow);
    }
    let mut live: Vec<Flow> = Vec::with_capacity(COPIED_AT_ONCE);
    list(config, Table::Kernel, |flow, _| {
        if touched.has(&flow) {
            live.push(flow);
        }
        if live.len() == COPIED_AT_ONCE {
            rehearsal.copy(&live);
            live.clear();
        }
    })?;
    rehearsal.copy(&live);
    Ok(())
}

/// Entries that the kernel's table can take.
fn room(status: &Value) -> Option<u64> {
    let number = |name: &str| status[name].as_u64();
    Some(number("kernel_max")?.saturating_sub(number("kernel_flows")?))
}

fn reasons(foreseen: &Foreseen) -> Vec<ReasonRow> {
    let row = |flow: &Flow| FlowRow::new(flow, Beside::default());
    let example = |e: &Example| RefusedRow {
        flow: row(&e.flow),
        holder: e.holder.as_ref().map(row),
    };
    let reason = |group| ReasonRow {
        why: words::why(group),
        examples: group.examples.iter().map(example).collect(),
    };
    foreseen.groups.iter().map(reason).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_room_is_what_the_table_has_left_if_that_is_known() {
        let mut status = json!({ "kernel_max": 100, "kernel_flows": 40 });
        assert_eq!(room(&status), Some(60));
        status["kernel_flows"] = 140.into();
        assert_eq!(room(&status), Some(0), "the limit was lowered");
        status["kernel_max"] = Value::Null;
        assert_eq!(room(&status), None);
    }
}
