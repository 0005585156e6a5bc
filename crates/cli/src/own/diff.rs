//! `ftfw diff`: is the internal cache what the kernel has; is the peer's external cache what
//! we have announced?
//!
//! The peer's cache comes as a listing, from a file or standard input: this program reaches
//! its own daemon alone. That listing cannot be read again, so only our side is looked at
//! again. Our side is read first: what the peer's listing lacks has then been announced
//! before, unless the flow is younger than the listing.

mod compare;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use config::{Config, Sync};
use control::call::Table;
use control::findings::{DiffRow, DifferenceRow};
use control::rows::{Beside, FlowRow};
use flow::{Filter, Flow};

use super::arguments::{Diff, Form};
use super::client::Failure;
use super::listing::list;
use super::row;
use super::{FAILED, ask_status, load_replicating};
use crate::{Outcome, print};
use compare::{Comparison, Counts, Difference, Side, fields};

/// Between two looks: events and messages on their way arrive meanwhile.
const PAUSE: Duration = Duration::from_secs(1);
/// Most looks at what differs.
const LOOKS_MAX: usize = 5;
/// Most examples that are shown.
const EXAMPLES_MAX: usize = 20;
/// A flow that is not that much older than the peer's listing may have come too late for it.
const YOUNG_SECS: u64 = 2;

/// Compares, and prints what it has found.
pub(super) fn run(config: &Path, wanted: &Diff) -> Result<Outcome, Failure> {
    let begun = Instant::now();
    let (loaded, sync) = load_replicating(config)?;
    let status = ask_status(config)?;
    if status["internal"]["enabled"] == false {
        return Err(Failure {
            help: Some("without `DisableInternalCache` it has one".to_owned()),
            ..Failure::plain("the daemon has no internal cache")
        });
    }
    let mut comparison = Comparison::new(wanted.sample.into(), EXAMPLES_MAX);
    match &wanted.peer {
        None => with_kernel(config, &loaded, &sync, &mut comparison)?,
        Some(peer) => with_peer(config, peer, begun, &mut comparison)?,
    }
    let (counts, changing, examples) = comparison.finish();
    let row = DiffRow {
        equal: counts.only_here + counts.only_there + counts.different == 0,
        with: if wanted.peer.is_some() {
            "peer"
        } else {
            "kernel"
        },
        sample: wanted.sample.into(),
        same: counts.same,
        only_here: counts.only_here,
        only_there: counts.only_there,
        different: counts.different,
        settled: counts.settled,
        changing,
        left_out: counts.left_out,
        examples: examples.iter().filter_map(difference).collect(),
    };
    match wanted.form.output {
        Form::Text => print::out(text(&row, &counts, &examples)),
        Form::Json => {
            let line = serde_json::to_string(&row).map_err(|e| Failure::plain(e.to_string()))?;
            print::out(format_args!("{line}\n"));
        }
    }
    Ok(Outcome::Exit(if row.equal { 0 } else { FAILED }))
}

/// The internal cache beside the kernel's table.
fn with_kernel(
    config: &Path,
    loaded: &Config,
    sync: &Sync,
    comparison: &mut Comparison,
) -> Result<(), Failure> {
    let filter = loaded.replicated(sync);
    list(config, Table::Internal, |flow, _| {
        comparison.first_here(&flow);
    })?;
    list(config, Table::Kernel, |flow, _| {
        if is_replicated(&filter, &flow) {
            comparison.first_there(&flow);
        } else {
            comparison.leave_out(&flow);
        }
    })?;
    comparison.end_first();
    for _ in 0..LOOKS_MAX {
        if !comparison.is_open() {
            break;
        }
        thread::sleep(PAUSE);
        comparison.begin(Side::Here);
        list(config, Table::Internal, |flow, _| {
            comparison.see(Side::Here, &flow);
        })?;
        comparison.begin(Side::There);
        list(config, Table::Kernel, |flow, _| {
            if is_replicated(&filter, &flow) {
                comparison.see(Side::There, &flow);
            } else {
                comparison.drop(&flow);
            }
        })?;
        comparison.end();
    }
    Ok(())
}

/// True for a flow that the daemon takes into its internal cache.
fn is_replicated(filter: &Filter, flow: &Flow) -> bool {
    filter.keeps(flow) && wire::v1::check_carried(flow).is_ok()
}

/// The internal cache beside a listing of the peer's external cache.
fn with_peer(
    config: &Path,
    peer: &Path,
    begun: Instant,
    comparison: &mut Comparison,
) -> Result<(), Failure> {
    // A flow that is not announced may be the peer's own, and then it is not held there.
    list(config, Table::Internal, |flow, notes| {
        if notes.announced == Some(false) {
            comparison.leave_out(&flow);
        } else {
            comparison.first_here(&flow);
        }
    })?;
    let name = peer.display();
    let failed = |e: io::Error| Failure::plain(format!("{name}: {e}"));
    let (mut lines, listed): (Box<dyn BufRead>, _) = if peer == Path::new("-") {
        (Box::new(io::stdin().lock()), None)
    } else {
        let file = File::open(peer).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        let written = meta.modified().ok().filter(|_| meta.is_file());
        (Box::new(BufReader::new(file)), written)
    };
    // Through a pipe the peer lists while we run.
    let listed_before = |now: Instant| match listed {
        Some(at) => SystemTime::now().duration_since(at).unwrap_or_default(),
        None => now.duration_since(begun),
    };
    let mut line = String::new();
    for number in 1.. {
        line.clear();
        if lines.read_line(&mut line).map_err(failed)? == 0 {
            if number == 1 {
                return Err(of_peer("it is empty"));
            }
            break;
        }
        let (flow, notes) =
            row::read(&line).map_err(|e| of_peer(&format!("line {number}: {e}")))?;
        if notes.confirmed.is_none() {
            return Err(of_peer("these are no flows of an external cache"));
        }
        comparison.first_there(&flow);
    }
    comparison.end_first();
    for _ in 0..2 {
        if !comparison.is_open() {
            break;
        }
        thread::sleep(PAUSE);
        comparison.begin(Side::Here);
        let youngest = listed_before(Instant::now()).as_secs() + YOUNG_SECS;
        list(config, Table::Internal, |flow, notes| {
            let is_young = notes.age.is_some_and(|age| u64::from(age) <= youngest);
            match notes.announced {
                Some(false) => comparison.drop(&flow),
                _ => comparison.see_here(&flow, is_young),
            }
        })?;
        comparison.end();
    }
    Ok(())
}

fn of_peer(what: &str) -> Failure {
    Failure {
        help: Some("the listing is that of `ftfw flows external -o json` on the peer".to_owned()),
        ..Failure::plain(format!("the peer's listing: {what}"))
    }
}

fn difference(d: &Difference) -> Option<DifferenceRow> {
    let (found, flow, fields) = match (&d.here, &d.there) {
        (Some(here), Some(there)) => ("different", here, fields(here, there)),
        (Some(here), None) => ("only here", here, Vec::new()),
        (None, Some(there)) => ("only there", there, Vec::new()),
        (None, None) => return None,
    };
    Some(DifferenceRow {
        found,
        flow: FlowRow::new(flow, Beside::default()),
        fields,
    })
}

/// The verdict, and a line for each example.
fn text(row: &DiffRow, counts: &Counts, examples: &[Difference]) -> String {
    let there = match row.with {
        "peer" => "at the peer",
        _ => "in the kernel",
    };
    let mut out = match row.equal {
        true => format!("equal: {} flows are the same here and {there}", row.same),
        false => format!(
            "not equal: {} same, {} only here, {} only {there}, {} different",
            row.same, row.only_here, row.only_there, row.different
        ),
    };
    for (number, what) in [
        (row.settled, "settled when looked at again"),
        (row.changing, "changing all the time"),
        (row.left_out, "left out"),
    ] {
        if number > 0 {
            out += &format!("; {number} {what}");
        }
    }
    if row.sample > 1 {
        out += &format!("; a sample, 1 of {}", row.sample);
    }
    out.push('\n');
    for example in examples {
        let (what, flow) = match (&example.here, &example.there) {
            (Some(here), Some(_)) => ("different".to_owned(), here),
            (Some(here), None) => ("only here".to_owned(), here),
            (None, Some(there_)) => (format!("only {there}"), there_),
            (None, None) => continue,
        };
        out += &format!("{what:<18} {}", flow.key());
        if let (Some(here), Some(there)) = (&example.here, &example.there) {
            for (n, f) in fields(here, there).iter().enumerate() {
                let lead = if n == 0 { ":" } else { ";" };
                out += &format!("{lead} {} {} here, {} there", f.field, f.here, f.there);
            }
        }
        out.push('\n');
    }
    let all = counts.only_here + counts.only_there + counts.different;
    if all > examples.len() as u64 {
        out += &format!("... and {} more\n", all - examples.len() as u64);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_verdict() {
        let mut row = DiffRow {
            equal: true,
            with: "kernel",
            sample: 1,
            same: 12,
            only_here: 0,
            only_there: 0,
            different: 0,
            settled: 3,
            changing: 0,
            left_out: 4,
            examples: Vec::new(),
        };
        assert_eq!(
            text(&row, &Counts::default(), &[]),
            "equal: 12 flows are the same here and in the kernel; 3 settled when looked at again; \
             4 left out\n"
        );
        row.equal = false;
        row.with = "peer";
        row.only_there = 30;
        row.sample = 4;
        let counts = Counts {
            only_there: 30,
            ..Counts::default()
        };
        let text = text(&row, &counts, &[]);
        assert!(text.starts_with("not equal: 12 same, 0 only here, 30 only at the peer, 0 diff"));
        assert!(
            text.contains("a sample, 1 of 4\n... and 30 more\n"),
            "{text}"
        );
    }
}
