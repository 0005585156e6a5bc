//! What a rehearsal has found, in words.

use std::fmt::Write;
use std::io;

use control::findings::{RehearsalRow, WhyRow};
use exchange::rehearsal::{Example, Foreseen, Group, Reason};
use replica::KernelError;
use serde_json::Value;

/// The verdict; then each reason with examples and what to do. `status` is that of the daemon.
pub(super) fn text(row: &RehearsalRow, foreseen: &Foreseen, status: &Value) -> String {
    let mut out = match row.flows {
        0 => nothing(&status["external"]),
        _ => verdict(row),
    };
    out.push('\n');
    for group in &foreseen.groups {
        let why = why(group);
        let what = if why.refused { "refused" } else { "created" };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{} {what}: {}", why.count, why.why);
        for example in &group.examples {
            let _ = writeln!(out, "  {}", flow(example));
        }
        let more = group.count - group.examples.len() as u64;
        if more > 0 {
            let _ = writeln!(out, "  ... and {more} more");
        }
        let _ = writeln!(out, "  {}", why.help);
    }
    for (number, note) in [
        (row.expectations, "expectations are not rehearsed"),
        (
            row.not_considered,
            "flows of this kernel could not be considered",
        ),
    ] {
        if number > 0 {
            let _ = writeln!(out, "{number} {note}");
        }
    }
    if row.room.is_none() {
        out += "whether the kernel's table has room is not known\n";
    }
    out
}

/// Why there is nothing to commit.
fn nothing(external: &Value) -> String {
    let why = match (external["enabled"] == false, external["entries"].as_u64()) {
        (true, _) => "direct injection puts the peer's flows into the kernel as they come".to_owned(),
        (false, None | Some(0)) => {
            "the external cache is empty: no flow has come from the peer. `ftfw ready` says whether \
             it is heard"
                .to_owned()
        }
        (false, Some(n)) => format!("the {n} flows of the external cache live in this kernel"),
    };
    format!("nothing to commit: {why}")
}

/// One line, about at least one flow.
fn verdict(row: &RehearsalRow) -> String {
    let mut out = match (row.flows, row.refused, row.updated) {
        (all, 0, 0) => format!("all {all} flows would be created; 0 refused"),
        (all, 0, there) => {
            let created = row.created;
            format!("all {all} flows: {created} would be created, {there} are there; 0 refused")
        }
        (all, refused, there) => format!(
            "not all {all} flows: {refused} would be refused, {} created, {there} are there",
            row.created
        ),
    };
    if row.lessened > 0 {
        out += &format!("; {} without their helper or master", row.lessened);
    }
    out
}

fn flow(example: &Example) -> String {
    let mut out = example.flow.key().to_string();
    if let Some(helper) = example.flow.helper {
        out += &format!(" helper={helper}");
    }
    if let Some(holder) = example.holder {
        out += &format!(": has {}", holder.key());
    }
    out
}

/// Why, and what to do.
pub(super) fn why(group: &Group) -> WhyRow {
    let (reason, why, help) = of_reason(group.reason);
    WhyRow {
        reason,
        refused: group.reason.refuses(),
        count: group.count,
        why,
        help,
    }
}

/// Name, why, and what to do.
fn of_reason(reason: Reason) -> (&'static str, String, String) {
    let (name, why, help) = match reason {
        Reason::ClashHere => (
            "taken-here",
            "a flow of this kernel has one of their tuples",
            "an old one goes with `conntrack -D`; if both firewalls translate addresses at the \
             same time, give each its own addresses or ports",
        ),
        Reason::ClashThere => (
            "taken-there",
            "another flow of the peer has one of their tuples",
            "one of the two is out of date: `ftfw resync peer`, then rehearse again",
        ),
        Reason::Full => (
            "full",
            "the kernel's table has no room for them",
            "raise net.netfilter.nf_conntrack_max; without that the kernel drops flows that are \
             not ASSURED, so that fewer are refused and others are lost",
        ),
        Reason::Changing => (
            "changing",
            "what the kernel has of them changes all the time",
            "rehearse again",
        ),
        Reason::NoHelper => (
            "no-helper",
            "without their helper, which this kernel lacks",
            "load its module, as on the peer: `modprobe nf_conntrack_NAME`; without it their data \
             connections are not recognised",
        ),
        Reason::NoMaster => (
            "no-master",
            "without the flow that predicted them, which is not there",
            "if that one is still alive: `ftfw resync peer`, then rehearse again",
        ),
        Reason::Kernel(error) => {
            return (
                "kernel",
                format!("the kernel answers: {}", of_error(error)),
                "this kernel lacks what the peer's has: compare their versions and modules"
                    .to_owned(),
            );
        }
    };
    (name, why.to_owned(), help.to_owned())
}

fn of_error(error: KernelError) -> String {
    match error {
        KernelError::Exists => "it exists".to_owned(),
        KernelError::NotFound => "something that it names is not there".to_owned(),
        KernelError::Unsupported => "not supported".to_owned(),
        KernelError::Busy => "a status bit cannot change".to_owned(),
        KernelError::TableFull => "the table is full".to_owned(),
        KernelError::Os(number) => io::Error::from_raw_os_error(number).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use flow::{Addrs, Flow, L4, Name, Proto, Tuple};
    use serde_json::json;

    use super::*;

    fn row(created: u64, updated: u64, refused: u64) -> RehearsalRow {
        RehearsalRow {
            good: refused == 0,
            flows: created + updated + refused,
            created,
            updated,
            refused,
            lessened: 0,
            room: Some(9),
            expectations: 0,
            not_considered: 0,
            reasons: Vec::new(),
            seconds: 0.0,
        }
    }

    #[test]
    fn the_first_line_is_the_verdict() {
        let line = |created, updated, refused| verdict(&row(created, updated, refused));
        assert_eq!(
            line(12000, 0, 0),
            "all 12000 flows would be created; 0 refused"
        );
        assert_eq!(
            line(9, 1, 0),
            "all 10 flows: 9 would be created, 1 are there; 0 refused"
        );
        assert!(line(7, 1, 2).starts_with("not all 10 flows: 2 would be refused, 7 created"));
        let mut lessened = row(3, 0, 0);
        lessened.lessened = 2;
        assert!(verdict(&lessened).ends_with("; 2 without their helper or master"));
    }

    #[test]
    fn nothing_to_commit_has_its_reason() {
        let of = |external: Value| {
            let status = json!({ "external": external });
            let text = text(&row(0, 0, 0), &Foreseen::default(), &status);
            text.strip_prefix("nothing to commit: ").unwrap().to_owned()
        };
        // With direct injection the entries are what was injected.
        let injected = of(json!({ "enabled": false, "entries": 7 }));
        assert!(injected.starts_with("direct injection puts"), "{injected}");
        let empty = of(json!({ "enabled": true, "entries": 0 }));
        assert!(empty.starts_with("the external cache is empty"), "{empty}");
        let here = of(json!({ "enabled": true, "entries": 7 }));
        assert!(here.starts_with("the 7 flows of"), "{here}");
    }

    #[test]
    fn each_reason_has_examples_and_what_to_do() {
        let orig = Tuple {
            addrs: Addrs::V4 {
                src: [10, 0, 0, 1].into(),
                dst: [10, 0, 0, 2].into(),
            },
            proto: Proto::TCP,
            l4: L4::Ports { src: 1, dst: 21 },
        };
        let mut flow = Flow::new(orig);
        flow.helper = Name::new(b"ftp");
        let holder = Some(Flow::new(orig.inverted()));
        let group = |reason, count| Group {
            reason,
            count,
            examples: vec![Example { flow, holder }],
        };
        let foreseen = Foreseen {
            groups: vec![group(Reason::ClashHere, 3), group(Reason::NoHelper, 1)],
            ..Foreseen::default()
        };
        let mut row = row(1, 0, 3);
        row.expectations = 4;
        row.room = None;
        let text = text(&row, &foreseen, &Value::Null);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[1],
            "3 refused: a flow of this kernel has one of their tuples"
        );
        assert!(lines[2].contains("helper=ftp: has tcp"), "{text}");
        assert_eq!(lines[3], "  ... and 2 more");
        assert!(lines[4].contains("conntrack -D"), "{text}");
        assert!(
            lines[5].starts_with("1 created: without their helper"),
            "{text}"
        );
        let end = "4 expectations are not rehearsed\nwhether the kernel's table has room is not \
                   known\n";
        assert!(text.ends_with(end), "{text}");
    }
}
