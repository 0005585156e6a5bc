//! What came of a hostile neighbour, and what must hold.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::watch::{Honest, LATEST};
use super::{Case, Extent, Sent};
use crate::bench::{self, numbers};
use crate::daemon::{Daemon, Kind};

/// Bytes that a byte may cause, beside bulk updates.
const FACTOR: u64 = 10;
/// What two daemons send each other anyway while a case is measured, in bytes.
const ANYWAY: u64 = 64 << 10;
/// Bytes of log that an attack may cause.
const LOG_MAX: u64 = 64 << 10;
/// Memory of a daemon without a flow, and of a flow, in bytes.
const RESIDENT_MAX: [u64; 2] = [64 << 20, 200];
/// How long `status` may take.
const STATUS_MAX: Duration = Duration::from_millis(100);
/// How long an honest flow may take to the peer.
const HONEST_MAX: Duration = Duration::from_secs(2);

/// What was counted, by name.
pub(super) type Counted = Vec<(&'static str, u64)>;

/// What came of a case. Bytes of the link are with all headers.
#[derive(Clone, Debug)]
pub struct Measured {
    /// What the neighbour has sent.
    pub sent: Sent,
    /// From its first byte to the end of the measurement.
    pub took: Duration,
    /// Bytes that FW1 sent over the link.
    pub answered: u64,
    /// Bytes of all of FW1's flows sent once.
    pub copy: u64,
    /// Bytes that FW1's daemon wrote to its log.
    pub log: u64,
    /// CPU time of FW1's daemon, all threads.
    pub cpu: Duration,
    /// Greatest resident memory of FW1's daemon, in bytes.
    pub resident: u64,
    /// Entries of its larger cache at the end.
    pub entries: u64,
    /// `HashLimit`.
    pub limit: u32,
    /// The longest that `status` took, five seconds if it was not answered; and the longest that
    /// a command of the same program took that asks nobody.
    pub status: [Duration; 2],
    /// Flows that both firewalls have made meanwhile; `None` without a peer.
    pub(super) honest: Option<Honest>,
    /// What was counted meanwhile, and is not 0.
    pub counted: Counted,
    /// FW1's daemon answers at the end.
    pub answers: bool,
    /// What `ftfw ready` says at the end; `None` of conntrackd.
    pub ready: Option<String>,
    /// How many connections live at the end, of how many.
    pub lives_on: (usize, usize),
}

impl Measured {
    /// What did not hold of what must, one sentence each. A time is a bound only in the long
    /// form: the machine of a test may be busy.
    pub fn broken(&self, case: &Case, extent: Extent) -> Vec<String> {
        let mut broken = Vec::new();
        let mut must = |holds: bool, what: String| {
            if !holds {
                broken.push(what);
            }
        };
        must(self.answers, "the daemon does not answer".into());
        // A fifth for what keeps the peers alive.
        let copies = case.copies * (self.copy + self.copy / 5);
        let limit = copies + FACTOR * self.sent.bytes + ANYWAY;
        let answered = self.answered;
        must(
            answered <= limit,
            format!("{answered} bytes are sent, at most {limit} may be"),
        );
        must(
            self.log <= LOG_MAX,
            format!("{} bytes are logged", self.log),
        );
        let [empty, flow] = RESIDENT_MAX;
        let resident = empty + flow * u64::from(self.limit);
        must(
            self.resident <= resident,
            format!("{} bytes are resident", self.resident),
        );
        let (entries, limit) = (self.entries, u64::from(self.limit));
        must(
            entries <= limit,
            format!("{entries} entries, the limit is {limit}"),
        );
        let [took, control] = self.status;
        let longest = extent.pick(LATEST, (STATUS_MAX + control).min(LATEST));
        must(
            took < longest,
            format!("`status` takes {} ms", took.as_millis()),
        );
        if let Some(honest) = self.honest {
            must(honest.made > 0, "no honest flow was made".into());
            let (missing, made) = (honest.missing, honest.made);
            must(
                missing == 0,
                format!("{missing} of {made} honest flows are missing"),
            );
            let latest = extent.pick(LATEST, HONEST_MAX);
            must(
                honest.took <= latest,
                format!("an honest flow takes {} ms", honest.took.as_millis()),
            );
        }
        let obeyed = self.sent.obeyed.unwrap_or(0);
        must(obeyed == 0, format!("{obeyed} are obeyed"));
        if let Some(name) = case.counts {
            let is_counted = self.counted.iter().any(|(n, _)| *n == name);
            must(is_counted, format!("nothing is counted as {name}"));
        }
        if case.fills_cache {
            let is_not = self.ready.as_ref().is_some_and(|r| r.starts_with("not"));
            let says = match &self.ready {
                Some(ready) => format!("ready says: {ready}"),
                None => "nothing says so".to_owned(),
            };
            must(is_not, format!("full, and {says}"));
        }
        let (live, of) = self.lives_on;
        must(live == of, format!("{live} of {of} connections live"));
        broken
    }

    /// The row of a table in Markdown, of which [`HEAD`] is the head.
    pub fn row(&self, case: &Case, kind: Kind) -> String {
        let honest = match self.honest {
            None => String::new(),
            Some(h) if h.missing > 0 => format!("{} of {} missing", h.missing, h.made),
            Some(h) => format!("{} ms", h.took.as_millis()),
        };
        let [took, control] = self.status.map(|time| time.as_millis());
        let status = match self.status {
            [took, _] if took >= LATEST => "no answer".to_owned(),
            _ => format!("{took} ({control}) ms"),
        };
        let counted: Vec<_> = (self.counted.iter())
            .map(|(name, count)| format!("{name} {}", scaled(*count, "")))
            .collect();
        let broken = self.broken(case, Extent::Long);
        let holds = match broken.is_empty() {
            true => "yes".to_owned(),
            false => broken.join("; "),
        };
        let cells = [
            case.name.to_owned(),
            kind.to_string(),
            format!(
                "{} {}, {}",
                self.sent.count,
                case.what,
                bytes(self.sent.bytes)
            ),
            bytes(self.answered),
            bytes(self.log),
            format!(
                "{:.0} %",
                100.0 * self.cpu.as_secs_f64() / self.took.as_secs_f64()
            ),
            bytes(self.resident),
            self.entries.to_string(),
            honest,
            status,
            counted.join(", "),
            holds,
        ];
        format!("| {} |", cells.join(" | "))
    }
}

/// Head of the table whose rows [`Measured::row`] makes.
pub const HEAD: &str = "\
| neighbour | daemon | sent | FW1 sends | logs | CPU | memory | entries | honest flow at the peer | `status` | counted | holds |
|---|---|---|---|---|---|---|---|---|---|---|---|";

/// In the unit that leaves two or three digits.
fn bytes(count: u64) -> String {
    scaled(count, "B")
}

/// The same with thousands, millions and so on of any unit.
fn scaled(count: u64, unit: &str) -> String {
    let mut value = count as f64;
    let mut prefixes = ["", "k", "M", "G", "T"].into_iter();
    let mut prefix = prefixes.next().unwrap_or_default();
    while value >= 1000.0
        && let Some(next) = prefixes.next()
    {
        value /= 1000.0;
        prefix = next;
    }
    let digits = usize::from(value < 10.0 && !prefix.is_empty());
    format!("{value:.digits$} {prefix}{unit}")
        .trim_end()
        .to_owned()
}

/// Entries of the larger cache.
pub(super) fn entries(daemon: &Daemon) -> Result<u64> {
    Ok(bench::internal_flows(daemon)?.max(bench::external_flows(daemon)?))
}

/// What a daemon has counted of what a neighbour can do to it.
pub(super) fn counted(daemon: &Daemon) -> Result<Counted> {
    let network = daemon.ask(&["-s", "network"])?;
    let first = |text: &str, line: &str| -> Result<u64> {
        numbers(text, line, 0)?.first().copied().context("a number")
    };
    let caches = daemon.ask(&["-s"])?;
    // If a cache is switched off it has no line.
    let created = numbers(&caches, "connections created:", 1).unwrap_or_default();
    let mut counted = vec![
        ("malformed", first(&network, "Malformed messages:")?),
        ("lost", first(&network, "Packets lost:")?),
        ("late", first(&network, "Packets before:")?),
        ("not kept", created.last().copied().unwrap_or(0)),
    ];
    if daemon.kind() == Kind::Ftfw {
        let status: Value = serde_json::from_str(&daemon.own(&["status", "-o", "json"])?)?;
        for (name, field) in [
            ("strangers", "sources_unknown"),
            ("no descriptor", "accept_failed"),
            ("readers refused", "clients_refused"),
            ("readers dropped", "clients_dropped"),
        ] {
            counted.push((name, status[field].as_u64().context(field)?));
        }
    }
    Ok(counted)
}

/// What has been counted since then, and is not 0.
pub(super) fn counted_since(daemon: &Daemon, before: &Counted) -> Result<Counted> {
    let pairs = counted(daemon)?.into_iter().zip(before);
    let since = pairs.map(|((name, now), (_, before))| (name, now.saturating_sub(*before)));
    Ok(since.filter(|(_, count)| *count > 0).collect())
}

#[cfg(test)]
mod tests {
    use super::super::CASES;
    use super::*;

    /// A neighbour who breaks nothing.
    fn good() -> Measured {
        Measured {
            sent: Sent {
                count: 100,
                bytes: 10_000,
                obeyed: Some(0),
            },
            took: Duration::from_secs(9),
            answered: 150_000,
            copy: 0,
            log: 1000,
            cpu: Duration::from_millis(100),
            resident: 80 << 20,
            entries: 1000,
            limit: 1_000_000,
            status: [Duration::from_millis(130), Duration::from_millis(40)],
            honest: Some(Honest {
                took: Duration::from_millis(1500),
                made: 4,
                missing: 0,
            }),
            counted: vec![("not kept", 1)],
            answers: true,
            ready: Some("not: the external cache is full".to_owned()),
            lives_on: (50, 50),
        }
    }

    /// Goal: whatever is exceeded is named, and nothing else.
    #[test]
    fn each_bound_can_be_broken() {
        let case = CASES.iter().find(|case| case.fills_cache).unwrap();
        assert_eq!(good().broken(case, Extent::Long), Vec::<String>::new());
        let breaks: [fn(&mut Measured); 13] = [
            |m| m.answers = false,
            |m| m.answered = 200_000,
            |m| m.log = 70_000,
            |m| m.resident = 300 << 20,
            |m| m.entries = 1_000_001,
            |m| m.status[0] = Duration::from_millis(140),
            |m| m.honest.as_mut().unwrap().made = 0,
            |m| m.honest.as_mut().unwrap().missing = 1,
            |m| m.honest.as_mut().unwrap().took = Duration::from_millis(2001),
            |m| m.sent.obeyed = Some(1),
            |m| m.counted = vec![("late", 1)],
            |m| m.ready = Some("in sync: 4 flows of the peer are held".to_owned()),
            |m| m.lives_on = (49, 50),
        ];
        for (n, breaks) in breaks.into_iter().enumerate() {
            let mut measured = good();
            breaks(&mut measured);
            let broken = measured.broken(case, Extent::Long);
            assert_eq!(broken.len(), 1, "{n}: {broken:?}");
        }
    }

    #[test]
    fn amounts_have_two_or_three_digits() {
        let texts = [7, 999, 1234, 45_678, 123_691_111_859].map(|n| scaled(n, "B"));
        assert_eq!(texts, ["7 B", "999 B", "1.2 kB", "46 kB", "124 GB"]);
        assert_eq!(scaled(20, ""), "20");
    }
}
