//! What is counted. Each counter is declared once: name, help, unit, metric, and where it is shown.
//!
//! The crates that count (`replica`, `daemon`) add to the fields. The crates that show
//! (`control`, `cli`) visit the counters and know none of them by name, but for the lines of
//! the original's statistics, whose columns are fixed.

/// A counter, apart from its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Name of the field, also in JSON.
    pub name: &'static str,
    /// What is counted: a sentence without a verb.
    pub help: &'static str,
    /// What one of them is, in the plural.
    pub unit: &'static str,
    /// How it is exported to Prometheus.
    pub metric: Metric,
    /// Where it is shown beside the statistics.
    pub shown: Shown,
}

/// A counter as Prometheus knows it: `ftfw_NAME_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The name without `ftfw_` and `_total`. Several counters have the same if a label tells them
    /// apart; [`SHARED`] then has the help.
    pub name: &'static str,
    /// Name and value of that label.
    pub label: Option<(&'static str, &'static str)>,
}

/// Metrics that several counters share: name and help.
pub const SHARED: &[(&str, &str)] = &[(
    "messages_refused",
    "Messages of the peer that were refused, by reason.",
)];

/// Where a counter is shown beside the statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Nowhere.
    Statistics,
    /// In the object of the peer, under this name.
    Peer(&'static str),
    /// In the status.
    Status,
    /// In the status; and an operator reads number, unit and this text if there are any.
    Note(&'static str),
}

/// A group of counters.
pub trait Counters {
    /// All of them, in the order in which they are shown.
    const ALL: &'static [Counter];

    /// Their values, in the same order.
    fn values(&self) -> impl Iterator<Item = u64>;

    /// Adds the counters of another group of the same kind.
    fn add(&mut self, other: &Self);

    /// Each with its value.
    fn each(&self) -> impl Iterator<Item = (&'static Counter, u64)> {
        Self::ALL.iter().zip(self.values())
    }
}

/// Declares groups of counters. The comment of a field is its help. The metric has the name of the
/// field unless `as` gives another one.
macro_rules! counters {
    ($(
        $(#[doc = $doc:literal])+
        pub struct $group:ident {
            $(#[doc = $help:literal]
            $name:ident: $unit:literal
                $(as $metric:literal $([$label:literal = $value:literal])?)?
                $(in $shown:expr)?;)+
        }
        $(beside { $($(#[doc = $other_doc:literal])+ $other:ident: $kind:ty;)+ })?
    )+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $group {
            $(#[doc = $help] pub $name: u64,)+
            $($($(#[doc = $other_doc])+ pub $other: $kind,)+)?
        }

        impl Counters for $group {
            const ALL: &'static [Counter] = &[$(Counter {
                name: stringify!($name),
                help: $help.trim_ascii(),
                unit: $unit,
                metric: Metric {
                    name: counters!(@metric $name $($metric)?),
                    label: counters!(@label $($($label = $value)?)?),
                },
                shown: counters!(@shown $($shown)?),
            }),+];

            fn values(&self) -> impl Iterator<Item = u64> {
                [$(self.$name),+].into_iter()
            }

            fn add(&mut self, other: &$group) {
                $(self.$name += other.$name;)+
            }
        }
    )+};
    (@metric $name:ident) => { stringify!($name) };
    (@metric $name:ident $metric:literal) => { $metric };
    (@label) => { None };
    (@label $label:literal = $value:literal) => { Some(($label, $value)) };
    (@shown) => { Shown::Statistics };
    (@shown $shown:expr) => { $shown };
}

use Shown::{Note, Peer, Status};

counters! {
    /// Counters of a cache, or of the kernel requests that stand in its place.
    pub struct CacheStats {
        /// Entries created.
        created: "entries" as "cache_entries_created";
        /// Entries not created: the cache is full, or the kernel refused.
        create_failed: "entries" as "cache_creates_failed";
        /// Updates.
        updated: "updates" as "cache_entries_updated";
        /// Updates that failed.
        update_failed: "updates" as "cache_updates_failed";
        /// Entries ended.
        destroyed: "entries" as "cache_entries_destroyed";
        /// Ends that failed.
        destroy_failed: "ends" as "cache_destroys_failed";
    }

    /// Counters of the receive path. Those of rejected messages are by reason.
    pub struct ReceiveStats {
        /// Messages of the peer that never came.
        lost: "messages" as "messages_lost" in Status;
        /// Messages of the peer that were refused.
        malformed: "messages" as "messages_malformed" in Status;
        /// Messages that are not of version 1.
        wrong_version: "messages" as "messages_refused" ["reason" = "wrong_version"];
        /// Messages with flags or a type that the mode does not allow.
        bad_header: "messages" as "messages_refused" ["reason" = "bad_header"];
        /// Messages with attributes that were rejected.
        bad_payload: "messages" as "messages_refused" ["reason" = "bad_payload"];
        /// Messages of a type that the mode does not know.
        bad_type: "messages" as "messages_refused" ["reason" = "bad_type"];
        /// Messages shorter than a header.
        truncated: "messages" as "messages_refused" ["reason" = "truncated"];
        /// Messages with a length that cannot be.
        bad_size: "messages" as "messages_refused" ["reason" = "bad_size"];
        /// Messages older than one received before.
        before: "messages" as "messages_before";
        /// Late messages that were still news.
        late_used: "messages" as "messages_late_used" in Peer("late_used");
        /// Trailers that could not be read.
        bad_trailers: "trailers" in Peer("bad_trailers");
        /// Unknown attributes passed over.
        unknown_attrs: "attributes" as "attributes_unknown";
        /// Messages with a flag, which ALARM passes over.
        ignored: "messages" as "messages_ignored";
        /// Expectations passed over, because they are not to be replicated.
        expectations_ignored: "expectations";
        /// Messages passed over, because their flow is of a dedicated link.
        links_ignored: "messages" as "messages_of_links_ignored" in Status;
    }

    /// All counters of a replica.
    pub struct Stats {
        /// Events of the kernel.
        events_received: "events" in Status;
        /// Events that the filter kept out.
        events_filtered: "events";
        /// Events that our own requests caused.
        events_own: "events";
        /// Events that came too late: the end of an entry that had been followed by another, a change that a later one had overtaken.
        events_late: "events";
        /// Times that the kernel dropped events; each is repaired.
        overruns: "times" in Note("the kernel dropped events");
        /// Dumps that refilled or compared the internal cache.
        resyncs: "dumps";
        /// Flushes of the kernel's table.
        kernel_flushes: "flushes";
        /// Events and entries of dumps that the protocol cannot carry and that are not replicated.
        not_carried: "events" in Note("about what the protocol cannot carry: not replicated");
        /// Expectations whose master is not replicated.
        masterless: "expectations" as "expectations_masterless" in Note("whose master is not replicated");
        /// Flows made without the helper that this kernel lacks.
        without_helper: "flows" as "flows_without_helper" in Note("made without the helper that this kernel lacks");
        /// Flows not made because a foreign flow holds the reply tuple.
        clashes: "flows" as "flows_clashed" in Note("not made: another flow holds the reply tuple");
        /// Deletes of the peer not obeyed because the flow lives here.
        deletes_refused: "deletes" in Note("of the peer not obeyed: the flow lives here");
        /// Flows that a sweep found though no event had reported them.
        silent_flows: "flows";
        /// Flows that a sweep found gone though no event had reported it.
        silent_ends: "flows";
        /// Timeouts sent again because packets had silently refreshed them.
        timeouts_refreshed: "timeouts";
        /// Ends not announced, because the peer owns the flow now.
        ends_not_announced: "ends";
        /// Times that the peer has lost its memory.
        peer_restarts: "times";
        /// Datagrams of senders beyond the most peers that a replica has sessions for.
        sessions_refused: "datagrams";
        /// Flows that the peer offered: found in its kernel, and perhaps not its own.
        offers_received: "flows";
        /// Times that the peer counted on more flows than we held, or fewer, and we asked for all.
        lacks_found: "times" in Peer("asked");
        /// Flows that scheduled flushes spared: our own, injected, or held by nothing else here.
        purge_spared: "flows" as "flows_spared" in Peer("spared");
        /// Flows removed because a complete bulk update did not mention them.
        external_absent: "flows" as "flows_absent_from_bulk" in Peer("absent");
        /// Entries of the peer that were not sent again in time (ALARM).
        external_expired: "entries" as "entries_expired";
        /// Ends never acknowledged and forgotten, because the peer is absent too long (FT-FW).
        ends_given_up: "ends";
        /// Messages dropped because the direct queue was full.
        direct_dropped: "messages" as "messages_dropped";
        /// Packets of ended flows, if the kernel accounts.
        traffic_packets: "packets" as "ended_flow_packets";
        /// Bytes of ended flows, if the kernel accounts.
        traffic_bytes: "bytes" as "ended_flow_bytes";
        /// Messages sent.
        messages_sent: "messages";
    }
    beside {
        /// Internal cache, or what went past it when it is off.
        internal: CacheStats;
        /// External cache, or what was injected when it is off.
        external: CacheStats;
        /// Receive path.
        receive: ReceiveStats;
    }

    /// Counters of the daemon around the replica.
    pub struct DaemonStats {
        /// Messages of the kernel of an unknown type.
        events_unknown: "messages";
        /// Messages of the kernel that could not be read.
        events_failed: "messages";
        /// Datagrams and connections of unicast links dropped, because their source is not the peer.
        sources_unknown: "datagrams or connections" in Note("dropped: their source is not the peer");
        /// Datagrams dropped because they came from more peers than there may be.
        peers_refused: "datagrams" as "datagrams_of_peers_refused" in Note("dropped: there are eight other peers");
        /// Connections of a TCP link closed, because the boundaries of the messages were lost.
        streams_broken: "connections" in Note("of TCP links closed: what came were no messages");
        /// Control requests cut short.
        local_read_failed: "requests" as "control_requests_cut";
        /// Control requests not known.
        local_unknown: "requests" as "control_requests_unknown";
        /// Connections to the control socket that could not be accepted, for want of descriptors.
        accept_failed: "times" as "control_accepts_failed" in Note("no descriptor was left for a control client");
        /// Control clients that were refused because too many were reading.
        clients_refused: "control clients" as "control_clients_refused" in Note("refused: too many were reading");
        /// Control clients that were disconnected because they read nothing.
        clients_dropped: "control clients" as "control_clients_dropped" in Note("disconnected: they read nothing");
        /// Commits that have ended.
        commits: "commits";
        /// Flows and expectations that the kernel refused in commits.
        commit_refused: "flows and expectations";
        /// Pages of metrics served over HTTP.
        scrapes: "pages";
        /// HTTP requests that were not for the page of metrics, or were none.
        scrapes_refused: "requests";
        /// HTTP clients that were disconnected, because others came or they were too slow.
        scrapers_dropped: "clients";
        /// Times that the file of metrics could not be written.
        metrics_file_failed: "times";
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_counter_comes_with_its_own_value() {
        let stats = DaemonStats {
            events_unknown: 1,
            metrics_file_failed: 7,
            ..DaemonStats::default()
        };
        let all: Vec<_> = stats.each().map(|(c, n)| (c.name, n)).collect();
        assert_eq!(all.len(), DaemonStats::ALL.len());
        assert_eq!(all.first(), Some(&("events_unknown", 1)));
        assert_eq!(all.last(), Some(&("metrics_file_failed", 7)));
    }

    #[test]
    fn a_metric_is_one_counter_or_has_labels_that_tell_them_apart() {
        let all = [
            CacheStats::ALL,
            ReceiveStats::ALL,
            Stats::ALL,
            DaemonStats::ALL,
        ]
        .concat();
        let series: BTreeSet<_> = all
            .iter()
            .map(|c| (c.metric.name, c.metric.label))
            .collect();
        assert_eq!(series.len(), all.len());
        for metric in all.iter().map(|c| c.metric) {
            let is_shared = SHARED.iter().any(|(name, _)| *name == metric.name);
            assert_eq!(metric.label.is_some(), is_shared, "{}", metric.name);
            let is_good = |b: u8| b.is_ascii_lowercase() || b == b'_';
            assert!(metric.name.bytes().all(is_good), "{}", metric.name);
        }
    }

    #[test]
    fn a_name_means_one_counter() {
        let all = [ReceiveStats::ALL, Stats::ALL, DaemonStats::ALL].concat();
        let unique: BTreeSet<_> = all.iter().map(|c| c.name).collect();
        assert_eq!(unique.len(), all.len());
    }
}
