//! Answers for people.

use std::fmt::Write;

use control::call::Tail;
use counters::{Counters, DaemonStats, Shown, Stats};
use serde_json::Value;

/// What a command did, if that is more than `done`.
pub(crate) fn done(tail: &Tail) -> Option<String> {
    let c = tail.commit.as_ref()?;
    let mut text = format!("{} created", c.created);
    if c.updated > 0 {
        let _ = write!(text, ", {} were there already", c.updated);
    }
    if c.failed > 0 {
        let _ = write!(text, ", {} refused by the kernel (see the log)", c.failed);
    }
    let _ = write!(text, ", in {:.3} s", c.seconds);
    Some(text)
}

/// The row of `status`.
pub(crate) fn status(s: &Value) -> String {
    let number = |v: &Value, key: &str| v[key].as_u64().unwrap_or(0);
    let word = |v: &Value, key: &str| v[key].as_str().unwrap_or("?").to_owned();
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        let _ = writeln!(out, "{name:<14} {text}");
    };
    line("fail over", fail_over(s));
    for attention in s["attention"].as_array().into_iter().flatten() {
        line("attention", word(attention, "what"));
        line("", format!("-> {}", word(attention, "help")));
    }
    line(
        "ftfw",
        format!(
            "{}, mode {}, role {}, up {}, pid {}",
            word(s, "version"),
            word(s, "mode"),
            word(s, "role"),
            duration(number(s, "uptime")),
            number(s, "pid"),
        ),
    );
    for instance in s["instances"].as_array().into_iter().flatten() {
        let gate = match instance["gate"].as_str() {
            Some(gate) => format!(", gate {gate}"),
            None => String::new(),
        };
        let took = match instance["took"].as_f64() {
            Some(secs) => format!("; the change took {secs:.3} s"),
            None => String::new(),
        };
        line(
            "instance",
            format!(
                "{}: {} for {}{gate}{took}",
                word(instance, "name"),
                word(instance, "role"),
                duration(number(instance, "since")),
            ),
        );
    }
    let peer = &s["peer"];
    let pair = |v: &Value, key: &str| {
        let [sent, received] = [0, 1].map(|n| v[key][n].as_u64().unwrap_or(0));
        (sent, received)
    };
    let heard = s["links"].as_array().into_iter().flatten();
    let heard: u64 = heard.map(|l| pair(l, "packets").1).sum();
    let who = match (peer["epoch"].as_u64(), heard) {
        (_, 0) => "has not been heard yet".to_owned(),
        (Some(_), _) => format!("ftfw, role {}", word(peer, "role")),
        _ => "without trailer: conntrackd, or ftfw in Mode ALARM".to_owned(),
    };
    line(
        "peer",
        format!(
            "{who}{}; {} restarts seen, {} messages lost, {} malformed",
            match peer["silent"].as_u64() {
                Some(secs) if secs >= 5 => format!(", SILENT FOR {}", duration(secs)),
                _ => String::new(),
            },
            number(peer, "restarts"),
            number(s, "lost"),
            number(s, "malformed"),
        ),
    );
    if let (Some(held), Some(all)) = (peer["held"].as_u64(), peer["should_hold"].as_u64()) {
        line(
            "protected",
            format!("the peer holds {held} of our {all} flows"),
        );
    }
    let unconfirmed = number(peer, "unconfirmed");
    for (key, name, more) in [
        ("internal", "internal", String::new()),
        (
            "external",
            "external",
            if unconfirmed > 0 {
                format!(", {unconfirmed} unconfirmed by the peer's present run")
            } else {
                String::new()
            },
        ),
        ("internal_expectations", "expected here", String::new()),
        ("external_expectations", "expected there", String::new()),
    ] {
        let cache = &s[key];
        if cache.is_null() {
            continue;
        }
        let failed = number(cache, "create_failed");
        let failed = if failed > 0 {
            format!(", {failed} NOT TAKEN")
        } else {
            String::new()
        };
        let off = if cache["enabled"].as_bool() == Some(false) {
            "no cache; "
        } else {
            ""
        };
        line(
            name,
            format!(
                "{off}{} now; {} created, {} updated, {} ended{failed}{more}",
                number(cache, "entries"),
                number(cache, "created"),
                number(cache, "updated"),
                number(cache, "destroyed"),
            ),
        );
    }
    line(
        "to the peer",
        format!(
            "{} owed, {} not acknowledged",
            number(s, "owed"),
            number(s, "unacknowledged")
        ),
    );
    line(
        "kernel",
        format!(
            "{} of {} flows",
            number(s, "kernel_flows"),
            number(s, "kernel_max")
        ),
    );
    for link in s["links"].as_array().into_iter().flatten() {
        let active = if link["active"].as_bool() == Some(true) {
            "active"
        } else {
            "spare"
        };
        line(
            "link",
            format!(
                "{} ({}, {active}) {}; sent {} datagrams, received {}, errors {}",
                word(link, "device"),
                word(link, "transport"),
                word(link, "status"),
                pair(link, "packets").0,
                pair(link, "packets").1,
                pair(link, "errors").0 + pair(link, "errors").1,
            ),
        );
    }
    if s["committing"].as_bool() == Some(true) {
        line("commit", "is running".to_owned());
    }
    for counter in Stats::ALL.iter().chain(DaemonStats::ALL) {
        let count = number(s, counter.name);
        if let Shown::Note(text) = counter.shown
            && count > 0
        {
            line("note", format!("{count} {} {text}", counter.unit));
        }
    }
    if let Some(who) = listeners(s["listeners"].as_array().map_or(&[], Vec::as_slice)) {
        let cost = "the kernel makes an event of each, and a commit takes nearly twice as long";
        line("note", format!("{who} to new flows: {cost}"));
    }
    out
}

/// Who else listens, as subject and verb.
fn listeners(all: &[Value]) -> Option<String> {
    let first = all.first()?;
    let place = if first["here"] == true {
        ""
    } else {
        " in another network namespace"
    };
    let program = first["program"].as_str().unwrap_or("?");
    let who = format!("{program} (process {}){place}", first["pid"]);
    Some(match all.len() - 1 {
        0 => format!("{who} listens"),
        1 => format!("{who} and another program listen"),
        more => format!("{who} and {more} other programs listen"),
    })
}

/// Whether it is safe to fail over now, and why.
pub(super) fn fail_over(s: &Value) -> String {
    let is_safe = s["safe"] == true;
    let is_ready = s["ready"]["is_ready"] != false;
    let reason = match (s["role"] == "primary", s["unprotected"].as_u64()) {
        (true, Some(n @ 1..)) => format!("{n} of our flows would be lost"),
        // It is primary for a part, and the rest is the peer's.
        (true, _) if !is_ready => readiness(&s["ready"], is_safe),
        (true, _) if !is_safe => "no peer is there that would take over".to_owned(),
        (true, Some(0)) => "the peer holds all our flows".to_owned(),
        (true, None) => "the peer does not report what it holds".to_owned(),
        (false, _) => readiness(&s["ready"], is_safe),
    };
    format!("{}: {reason}", if is_safe { "SAFE" } else { "NOT SAFE" })
}

/// What `ftfw ready` prints, as the reason of a line that begins with SAFE or NOT SAFE.
fn readiness(ready: &Value, is_safe: bool) -> String {
    match (ready["verdict"].as_str(), ready["reason"].as_str()) {
        (Some("not"), Some(reason)) => reason.to_owned(),
        // The peer is silent, and nothing was missing when it was last heard: this firewall may
        // become primary, and nobody would take over from it.
        (Some("in sync"), Some(reason)) if !is_safe => format!("the peer is lost: {reason}"),
        _ => super::ready::words(ready),
    }
}

/// Seconds for people: the two largest units.
pub(super) fn duration(secs: u64) -> String {
    match (secs / 86_400, secs / 3600 % 24, secs / 60 % 60, secs % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, ..) => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
mod tests {
    use control::call::{Committed, Outcome};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_commit_says_what_it_did() {
        let tail = Tail {
            status: Outcome::Partial,
            commit: Some(Committed {
                created: 10,
                updated: 0,
                failed: 2,
                seconds: 0.0125,
            }),
            ..Tail::ok(0)
        };
        assert_eq!(
            done(&tail).unwrap(),
            "10 created, 2 refused by the kernel (see the log), in 0.013 s"
        );
        assert_eq!(done(&Tail::ok(0)), None);
    }

    #[test]
    fn whether_it_is_safe_has_a_reason() {
        let of = |role: &str, is_safe: bool, unprotected: Option<u64>, verdict: &str| {
            let is_ready = verdict == "in sync";
            let ready = json!({"verdict": verdict, "is_ready": is_ready, "reason": "why"});
            let status = json!({
                "role": role, "safe": is_safe, "unprotected": unprotected, "ready": ready,
            });
            fail_over(&status)
        };
        let all = "SAFE: the peer holds all our flows";
        assert_eq!(of("primary", true, Some(0), "in sync"), all);
        let some = "NOT SAFE: 7 of our flows would be lost";
        assert_eq!(of("primary", false, Some(7), "in sync"), some);
        let nobody = "NOT SAFE: no peer is there that would take over";
        assert_eq!(of("primary", false, None, "in sync"), nobody);
        assert_eq!(of("primary", false, Some(0), "in sync"), nobody);
        assert_eq!(of("primary", false, Some(0), "not"), "NOT SAFE: why");
        let backup = |is_safe, verdict| of("backup", is_safe, Some(7), verdict);
        assert_eq!(backup(true, "in sync"), "SAFE: in sync: why");
        assert_eq!(backup(false, "in sync"), "NOT SAFE: the peer is lost: why");
        assert_eq!(backup(false, "catching up"), "NOT SAFE: catching up: why");
        assert_eq!(backup(false, "not"), "NOT SAFE: why");
    }

    #[test]
    fn other_listeners_are_named() {
        let one = json!({"pid": 812, "program": "ulogd", "here": true});
        let far = json!({"pid": 7, "program": "conntrackd", "here": false});
        assert_eq!(listeners(&[]), None);
        assert_eq!(
            listeners(std::slice::from_ref(&one)).unwrap(),
            "ulogd (process 812) listens"
        );
        assert_eq!(
            listeners(&[far, one.clone(), one]).unwrap(),
            "conntrackd (process 7) in another network namespace and 2 other programs listen"
        );
    }

    #[test]
    fn a_status_names_what_needs_attention() {
        let status = json!({
            "version": "0.1.0", "mode": "FTFW", "role": "backup", "uptime": 3700, "pid": 7,
            "peer": {"epoch": 9, "role": "primary", "unconfirmed": 5}, "lost": 1,
            "internal": {"enabled": true, "entries": 3, "create_failed": 4},
            "external": {"enabled": false, "entries": 2},
            "links": [{"device": "eth2", "transport": "UDP", "status": "RUNNING",
                       "active": true, "packets": [8, 9]}],
            "overruns": 2, "kernel_flows": 3, "kernel_max": 100,
        });
        let text = super::status(&status);
        for part in [
            "up 1 h 1 min",
            "peer           ftfw, role primary",
            "4 NOT TAKEN",
            "no cache; 2 now",
            "5 unconfirmed",
            "3 of 100 flows",
            "2 times the kernel dropped events",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains("clashes"));
    }
}
