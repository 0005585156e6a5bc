//! The end: the primary's cache, its kernel, and what the backup has, every flow and every field.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};

use crate::setups::primary_backup::{CLIENTS, SERVER6};
use crate::setups::{Machine, Site};
use crate::topology::SERVER;

/// Flows that end meanwhile need so long until they have ended on both.
const EQUAL: Duration = Duration::from_secs(30);
/// Fields of a flow beside its tuple that a replica has as the primary has them. The timeout is
/// none: each kernel counts it down by itself. Window scales go with `TCPWindowTracking` alone.
/// The master is counted apart: a copy that the kernel has made while it lacked the master stays
/// without.
const FIELDS: [&str; 7] = [
    "reply",
    "reply_zone",
    "state",
    "mark",
    "labels",
    "helper",
    "seq_adj",
];
/// Of the status the bits that two kernels have alike; the others say how far a kernel has come
/// with its own entry, or follow from these.
const STATUS: [&str; 5] = [
    "SEEN_REPLY",
    "ASSURED",
    "SRC_NAT",
    "DST_NAT",
    "FIXED_TIMEOUT",
];
/// A flow with so few seconds left may have ended on one of them already.
const ENDS_SECS: u64 = 3;
/// Most differences that are described.
const EXAMPLES: usize = 10;

/// What was found.
#[derive(Debug)]
pub(super) struct Comparison {
    /// Flows of the primary's kernel.
    pub(super) flows: usize,
    /// Flows whose master the primary knows and the backup does not.
    pub(super) masterless: usize,
    /// What differs between the two firewalls, at most some of it.
    pub(super) differences: Vec<String>,
    /// What `ftfw diff` prints on the primary.
    pub(super) diff: Value,
}

impl Comparison {
    pub(super) fn is_equal(&self) -> bool {
        self.differences.is_empty() && self.diff["equal"] == true
    }
}

/// Compares until all is equal or the time is over. `held` is where the backup has the flows of
/// its peer.
pub(super) fn compare(site: &Site, held: &str) -> Result<Comparison> {
    let (primary, backup) = (site.fw(0)?, site.fw(1)?);
    let end = Instant::now() + EQUAL;
    loop {
        let (here, there) = (table(primary, "kernel")?, table(backup, held)?);
        let differences = differences(&here, &there);
        if !differences.is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_secs(1));
            continue;
        }
        let text = primary.sh("ftfw diff -o json || [ $? = 1 ]")?;
        return Ok(Comparison {
            flows: here.len(),
            masterless: masterless(&here, &there),
            differences,
            diff: serde_json::from_str(&text)?,
        });
    }
}

/// What is known of a flow.
#[derive(Clone, Debug)]
struct Entry {
    /// What is compared.
    fields: Map<String, Value>,
    has_master: bool,
    /// Seconds until it ends.
    timeout: u64,
}

type Table = BTreeMap<String, Entry>;

/// The flows through the firewall, by original tuple and zone.
fn table(fw: &Machine, place: &str) -> Result<Table> {
    let text = fw.sh(&format!("ftfw flows {place} -o json"))?;
    let mut table = Table::new();
    for line in text.lines() {
        let row: Value = serde_json::from_str(line)?;
        let orig = row["orig"].as_object().context("no tuple")?;
        if !["src", "dst"].iter().any(|end| is_host(&orig[*end])) {
            continue;
        }
        let key = format!("{} {} {}", row["proto"], row["orig"], row["zone"]);
        let old = table.insert(key, Entry::of(&row));
        ensure!(
            old.is_none(),
            "{place} of {} has one twice: {line}",
            fw.node().name()
        );
    }
    Ok(table)
}

/// True for an address of the client or the server: all else is the firewalls' own.
fn is_host(address: &Value) -> bool {
    let hosts = CLIENTS.iter().chain([&SERVER, &SERVER6]);
    hosts.into_iter().any(|host| address == host)
}

impl Entry {
    fn of(row: &Value) -> Entry {
        let mut fields = Map::new();
        for name in FIELDS {
            // Mark 0 is no mark.
            if !row[name].is_null() && row[name] != 0 {
                fields.insert(name.to_owned(), row[name].clone());
            }
        }
        let bits = row["status"].as_array().into_iter().flatten();
        let bits = bits.filter(|bit| STATUS.iter().any(|name| *bit == name));
        fields.insert("status".to_owned(), bits.cloned().collect());
        Entry {
            fields,
            has_master: row["master"].is_object(),
            timeout: row["timeout"].as_u64().unwrap_or(u64::MAX),
        }
    }

    fn is_ending(&self) -> bool {
        self.timeout < ENDS_SECS
    }

    /// How it is described where the other side lacks it.
    fn text(&self) -> String {
        let state = self.fields.get("state").unwrap_or(&Value::Null);
        let status = &self.fields["status"];
        format!("state {state}, status {status}, {} s left", self.timeout)
    }
}

fn masterless(here: &Table, there: &Table) -> usize {
    let lacks = |key: &String| there.get(key).is_some_and(|entry| !entry.has_master);
    here.iter()
        .filter(|(key, entry)| entry.has_master && lacks(key))
        .count()
}

fn differences(here: &Table, there: &Table) -> Vec<String> {
    let mut all = Vec::new();
    for (key, entry) in here {
        let Some(other) = there.get(key) else {
            if entry.is_ending() {
                continue;
            }
            all.push(format!("{key} is on the primary alone: {}", entry.text()));
            continue;
        };
        let (ours, theirs) = (&entry.fields, &other.fields);
        let names: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
        let different = names
            .into_iter()
            .filter(|name| ours.get(*name) != theirs.get(*name));
        let words: Vec<_> = different
            .map(|name| format!("{name} {:?} and {:?}", ours.get(name), theirs.get(name)))
            .collect();
        if !words.is_empty() {
            all.push(format!("{key}: {}", words.join("; ")));
        }
    }
    let only_there = there.iter();
    let only_there = only_there.filter(|(key, e)| !here.contains_key(*key) && !e.is_ending());
    all.extend(
        only_there.map(|(key, entry)| format!("{key} is on the backup alone: {}", entry.text())),
    );
    let more = all.len().saturating_sub(EXAMPLES);
    all.truncate(EXAMPLES);
    if more > 0 {
        all.push(format!("and {more} more"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(state: &str) -> Value {
        serde_json::json!({
            "state": state, "mark": 0, "timeout": 30,
            "status": ["SEEN_REPLY", "CONFIRMED"],
        })
    }

    fn table_of(row: &Value) -> Table {
        [("6 a".to_owned(), Entry::of(row))].into()
    }

    fn of(state: &str) -> Table {
        table_of(&row(state))
    }

    /// The table of a row with one more field.
    fn with(name: &str, value: Value) -> Table {
        let mut row = row("ESTABLISHED");
        row[name] = value;
        table_of(&row)
    }

    #[test]
    fn only_what_is_replicated_counts() {
        let row = of("ESTABLISHED").remove("6 a").unwrap();
        let json = serde_json::json!({"state": "ESTABLISHED", "status": ["SEEN_REPLY"]});
        assert_eq!(Value::Object(row.fields), json);
    }

    #[test]
    fn each_kind_of_difference_is_found() {
        let (here, there) = (of("ESTABLISHED"), of("TIME_WAIT"));
        assert!(differences(&here, &here).is_empty());
        assert_eq!(differences(&here, &Table::new()).len(), 1);
        assert_eq!(differences(&Table::new(), &here).len(), 1);
        let found = differences(&here, &there);
        assert!(found[0].contains("state"), "{found:?}");
        for name in FIELDS {
            let found = differences(&here, &with(name, "another".into()));
            assert!(found[0].contains(name), "{found:?}");
        }
        let other_status = with("status", serde_json::json!(["SEEN_REPLY", "ASSURED"]));
        assert_eq!(differences(&here, &other_status).len(), 1);
    }

    #[test]
    fn what_ends_now_may_be_on_one_side_alone() {
        let ending = with("timeout", 2.into());
        assert!(differences(&ending, &Table::new()).is_empty());
        assert!(differences(&Table::new(), &ending).is_empty());
        let without_end = with("timeout", Value::Null);
        assert_eq!(differences(&without_end, &Table::new()).len(), 1);
    }

    #[test]
    fn a_master_that_the_backup_does_not_know_is_counted() {
        let (with_master, without) = (with("master", serde_json::json!({})), of("ESTABLISHED"));
        assert_eq!(masterless(&with_master, &without), 1);
        assert_eq!(masterless(&with_master, &with_master), 0);
        assert_eq!(masterless(&without, &with_master), 0);
    }
}
