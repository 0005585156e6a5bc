//! The daemons' counters: what is work, and which trouble explains the rest.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::plan::Trouble;
use crate::node::Node;
use crate::wait;

/// Where each daemon serves its metrics.
pub(super) const METRICS: &str = "Metrics {\nIPv4_address 127.0.0.1\nPort 9411\n}";
const ADDRESS: &str = "127.0.0.1:9411";
/// A daemon that has just been started serves them by then.
const SERVED: Duration = Duration::from_secs(10);
/// What a trouble raises is seen by then: the flush of a backup is scheduled for a minute after
/// the failover (`PurgeTimeout`), and the sweep that finds silent flows comes twice a minute.
const EFFECT: Duration = Duration::from_secs(100);

/// Counters of work: they rise while nothing is wrong. Any other one that rises wants an
/// explanation, those of later versions, too.
const WORK: &[&str] = &[
    "ftfw_turns_total",
    "ftfw_link_sent_bytes_total",
    "ftfw_link_received_bytes_total",
    "ftfw_link_sent_datagrams_total",
    "ftfw_link_received_datagrams_total",
    "ftfw_cache_entries_created_total",
    "ftfw_cache_entries_updated_total",
    "ftfw_cache_entries_destroyed_total",
    "ftfw_events_received_total",
    "ftfw_events_filtered_total",
    "ftfw_events_own_total",
    "ftfw_timeouts_refreshed_total",
    "ftfw_ended_flow_packets_total",
    "ftfw_ended_flow_bytes_total",
    "ftfw_messages_sent_total",
    "ftfw_commits_total",
    "ftfw_scrapes_total",
];

/// Messages are missing or come twice, and are asked for and sent again.
const LINK: &[&str] = &[
    "ftfw_messages_lost_total",
    "ftfw_messages_before_total",
    "ftfw_messages_late_used_total",
    "ftfw_lacks_found_total",
    "ftfw_resyncs_total",
    "ftfw_offers_received_total",
    "ftfw_flows_absent_from_bulk_total",
];
/// The peer asks for all, and what has ended meanwhile is missing in it. Until the daemon
/// listens again, what is sent to it is refused.
const RESTART: &[&str] = &[
    "ftfw_peer_restarts_total",
    "ftfw_link_send_errors_total",
    "ftfw_link_receive_errors_total",
    "ftfw_silent_flows_total",
    "ftfw_silent_ends_total",
    "ftfw_ends_not_announced_total",
    "ftfw_events_late_total",
    "ftfw_expectations_masterless_total",
];
/// Another firewall owns the flows, and a scheduled flush follows.
const CHANGE: &[&str] = &[
    "ftfw_kernel_flushes_total",
    "ftfw_flows_spared_total",
    "ftfw_resyncs_total",
    "ftfw_offers_received_total",
    "ftfw_ends_not_announced_total",
    "ftfw_deletes_refused_total",
    "ftfw_flows_absent_from_bulk_total",
    "ftfw_silent_flows_total",
    "ftfw_silent_ends_total",
    "ftfw_events_late_total",
    // Predicted before the take-over has read its master: the dump of expectations finds it.
    "ftfw_expectations_masterless_total",
];
/// The second one comes behind those that follow the first one.
const TWICE: &[&str] = &[
    "ftfw_messages_before_total",
    "ftfw_messages_late_used_total",
];
/// The carrier is gone: nothing can be sent.
const DOWN: &[&str] = &["ftfw_link_send_errors_total"];
/// Events are missing: dumps find what has happened.
const EVENTS: &[&str] = &[
    "ftfw_overruns_total",
    "ftfw_resyncs_total",
    "ftfw_silent_flows_total",
    "ftfw_silent_ends_total",
    "ftfw_events_late_total",
    "ftfw_expectations_masterless_total",
];
/// The kernel's table is emptied, and what the peer has is asked for again.
const FLUSH: &[&str] = &[
    "ftfw_kernel_flushes_total",
    "ftfw_silent_ends_total",
    "ftfw_ends_not_announced_total",
    // Until its master is there again.
    "ftfw_cache_creates_failed_total{cache=\"external\",object=\"expectations\"}",
];

/// What each trouble may raise, on either firewall.
fn raises(trouble: Trouble) -> &'static [&'static [&'static str]] {
    match trouble {
        Trouble::Loss | Trouble::CutFromFw1 | Trouble::CutFromFw2 => &[LINK],
        Trouble::Duplicates => &[TWICE],
        Trouble::LinkDown => &[LINK, DOWN],
        Trouble::PrimaryStopped | Trouble::BackupStopped => &[LINK, EVENTS],
        Trouble::PrimaryRestarted | Trouble::BackupRestarted => &[LINK, RESTART],
        Trouble::BackupFlushed => &[LINK, FLUSH],
        Trouble::Overrun => &[LINK, RESTART, EVENTS],
        // It is loaded again, and no flow is concerned.
        Trouble::GateFlushed => &[],
        Trouble::Planned | Trouble::CarrierLost => &[CHANGE],
        Trouble::DaemonKilled => &[CHANGE, LINK, RESTART],
        Trouble::PowerLost => &[CHANGE, LINK, RESTART, DOWN],
    }
}

type Page = BTreeMap<String, u64>;

/// Follows the counters of both daemons from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Watch {
    last: [Page; 2],
    /// What has happened lately.
    troubles: VecDeque<(Instant, Trouble)>,
    /// What has risen in all, by firewall and counter.
    pub(super) risen: BTreeMap<(usize, String), u64>,
    /// What nothing explains.
    pub(super) unexplained: Vec<String>,
}

impl Watch {
    /// From now on this may explain something.
    pub(super) fn note(&mut self, trouble: Trouble) {
        self.troubles.push_back((Instant::now(), trouble));
    }

    /// The daemon of firewall `n` begins with all counters at 0.
    pub(super) fn forget(&mut self, n: usize) {
        self.last[n].clear();
    }

    /// Reads the counters of firewall `n`, and takes them as what was before.
    pub(super) fn begin(&mut self, n: usize, node: &Node) -> Result<()> {
        self.last[n] = read(node)?;
        Ok(())
    }

    /// Reads them, and looks for an explanation of what has risen.
    pub(super) fn look(&mut self, n: usize, node: &Node) -> Result<()> {
        let page = read(node)?;
        let old = |(at, _): &(Instant, Trouble)| at.elapsed() > EFFECT;
        while self.troubles.front().is_some_and(old) {
            self.troubles.pop_front();
        }
        for (series, now) in &page {
            let before = self.last[n].get(series).copied().unwrap_or(0);
            let by = now.saturating_sub(before);
            if by == 0 || WORK.contains(&family(series)) {
                continue;
            }
            *self.risen.entry((n, series.clone())).or_default() += by;
            let explains = |(_, t): &(Instant, Trouble)| {
                raises(*t).iter().any(|group| {
                    group
                        .iter()
                        .any(|name| [family(series), series].contains(name))
                })
            };
            if !self.troubles.iter().any(explains) {
                let lately: Vec<_> = self.troubles.iter().map(|(_, t)| t.to_string()).collect();
                self.unexplained.push(format!(
                    "FW{}: {series} rose by {by}; lately: {}",
                    n + 1,
                    lately.join(", ")
                ));
            }
        }
        self.last[n] = page;
        Ok(())
    }

    /// A counter as it was last read.
    pub(super) fn value(&self, n: usize, series: &str) -> u64 {
        self.last[n].get(series).copied().unwrap_or(0)
    }
}

fn family(series: &str) -> &str {
    series.split('{').next().unwrap_or(series)
}

/// All counters that the daemon of a firewall exports.
fn read(node: &Node) -> Result<Page> {
    let mut page = Ok(Page::new());
    let what = format!("the metrics of {}", node.name());
    wait::until(&what, SERVED, || {
        page = fetch(node);
        page.is_ok()
    })
    .or_else(|_| {
        page.as_ref()
            .map(|_| ())
            .map_err(|e| anyhow::anyhow!("{e:#}"))
    })?;
    page
}

fn fetch(node: &Node) -> Result<Page> {
    let mut stream = node.inside(|| TcpStream::connect(ADDRESS))??;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: firewall\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    ensure!(text.starts_with("HTTP/1.1 200"), "no page: {text}");
    let (_, body) = text.split_once("\r\n\r\n").context("no body")?;
    parse(body)
}

fn parse(body: &str) -> Result<Page> {
    let mut page = Page::new();
    for line in body.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').context("no value")?;
        if family(series).ends_with("_total") {
            page.insert(series.to_owned(), value.parse::<f64>()? as u64);
        }
    }
    Ok(page)
}
