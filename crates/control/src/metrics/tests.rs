use super::*;
use crate::reply::{Connected, PeerReport};
use crate::rows::{InstanceRow, Readiness};

/// A state in which every metric has a value.
fn full() -> State {
    let link = |device: &str| LinkReport {
        device: device.to_owned(),
        connected: Some(Connected::default()),
        bytes: (7, 8),
        ..LinkReport::default()
    };
    let cache = |active| CacheReport {
        enabled: true,
        active,
        ..CacheReport::default()
    };
    State {
        status: StatusRow {
            version: "0.1",
            mode: "FTFW",
            role: "primary",
            ready: Readiness {
                lost: Some(1),
                ..Readiness::default()
            },
            unprotected: Some(1),
            instances: vec![InstanceRow {
                name: "VI_1".to_owned(),
                role: "fault",
                since: 1,
                took: Some(0.5),
                gate: Some("closed"),
            }],
            kernel_flows: Some(1),
            kernel_max: Some(2),
            internal: cache(3),
            external: cache(4),
            internal_expectations: Some(cache(5)),
            external_expectations: Some(cache(6)),
            peer: PeerReport {
                epoch: Some(1),
                role: "backup",
                held: Some(1),
                should_hold: Some(1),
                silent: Some(1),
                ..PeerReport::default()
            },
            links: vec![link("eth2"), link("e\"3\\"), link("eth2")],
            ..StatusRow::default()
        },
        cache_limit: 9,
        is_whole: true,
        peer_up: Some(true),
        usable: vec![true, false, true],
        last_commit: Some(0.25),
        event_buffer: Some(1),
        turns: vec![("0", 2), ("0.001", 1)],
        longest_turn: 0.002,
        longest_turn_cpu: 0.001,
    }
}

/// The samples of a page, and the families that its comments name.
fn parsed(page: &str) -> (Vec<&str>, Vec<&str>) {
    let families = page.lines().filter_map(|l| l.strip_prefix("# TYPE "));
    let families = families.filter_map(|l| l.split(' ').next()).collect();
    let samples = page.lines().filter(|l| !l.starts_with('#'));
    (samples.collect(), families)
}

#[test]
fn every_metric_is_on_the_page_of_a_full_state() {
    let page = page(&full(), Format::Text);
    let (samples, families) = parsed(&page);
    let described = described();
    let names: Vec<_> = described.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(families, names);
    for metric in &described {
        let labels: Vec<_> = (metric.labels.iter()).map(|l| format!("{l}=\"")).collect();
        let is_sample = |s: &&&str| {
            s.strip_prefix(metric.name.as_str())
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        let own: Vec<_> = samples.iter().filter(is_sample).collect();
        assert!(!own.is_empty(), "no sample of {}", metric.name);
        for sample in own {
            assert_eq!(sample.matches("=\"").count(), labels.len(), "{sample}");
            assert!(labels.iter().all(|l| sample.contains(l)), "{sample}");
        }
    }
}

#[test]
fn every_declared_counter_is_exported() {
    use counters::{CacheStats, DaemonStats, ReceiveStats, Stats};
    let page = page(&full(), Format::Text);
    let (samples, _) = parsed(&page);
    let once = [ReceiveStats::ALL, Stats::ALL, DaemonStats::ALL].concat();
    let cases = once.iter().map(|c| (c, 1));
    for (counter, count) in cases.chain(CacheStats::ALL.iter().map(|c| (c, 4))) {
        let counters::Metric { name, label } = counter.metric;
        let label = label.map_or(String::new(), |(l, v)| format!("{{{l}=\"{v}\"}}"));
        let series = format!("ftfw_{name}_total{label}");
        let is_it = |s: &&&str| s.starts_with(&series) && s[series.len()..].starts_with([' ', '{']);
        assert_eq!(samples.iter().filter(is_it).count(), count, "{series}");
    }
}

#[test]
fn a_series_comes_once_and_its_family_stands_together() {
    for format in [Format::Text, Format::OpenMetrics] {
        let page = page(&full(), format);
        let (mut samples, families) = parsed(&page);
        let count = samples.len();
        samples.sort_unstable();
        samples.dedup_by_key(|s| s.rsplit_once(' ').map(|(series, _)| series));
        assert_eq!(samples.len(), count);
        let mut unique = families.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), families.len());
    }
}

#[test]
fn links_are_told_apart_and_their_names_are_escaped() {
    let page = page(&full(), Format::Text);
    for line in [
        "ftfw_link_usable{link=\"eth2\"} 1\n",
        "ftfw_link_usable{link=\"e\\\"3\\\\\"} 0\n",
        "ftfw_link_usable{link=\"eth2#2\"} 1\n",
        "ftfw_link_sent_bytes_total{link=\"eth2#2\"} 7\n",
    ] {
        assert!(page.contains(line), "{line}{page}");
    }
}

#[test]
fn the_forms_differ_in_names_of_families_units_and_the_end() {
    let (text, open) = (
        page(&full(), Format::Text),
        page(&full(), Format::OpenMetrics),
    );
    assert!(text.contains("# TYPE ftfw_link_sent_bytes_total counter\n"));
    assert!(
        open.contains("# TYPE ftfw_link_sent_bytes counter\n# UNIT ftfw_link_sent_bytes bytes\n")
    );
    assert!(open.contains("# UNIT ftfw_uptime_seconds seconds\n"));
    assert!(open.ends_with("\n# EOF\n") && !text.contains("# EOF"));
    let samples =
        |page: &str| -> Vec<String> { parsed(page).0.into_iter().map(str::to_owned).collect() };
    assert_eq!(samples(&text), samples(&open));
}

#[test]
fn an_instance_has_one_role() {
    let page = page(&full(), Format::Text);
    for (role, value) in [("fault", 1), ("primary", 0), ("unknown", 0)] {
        let line = format!("ftfw_instance_role{{name=\"VI_1\",role=\"{role}\"}} {value}\n");
        assert!(page.contains(&line), "{line}{page}");
    }
    assert!(page.contains("ftfw_instance_gate_open{name=\"VI_1\"} 0\n"));
}

#[test]
fn what_has_no_value_is_left_out() {
    let page = page(&State::default(), Format::Text);
    for name in [
        "peer_up",
        "peer_role",
        "link_usable",
        "kernel_flows",
        "cache_entries",
    ] {
        assert!(!page.contains(&format!("ftfw_{name} ")), "{name}");
        assert!(!page.contains(&format!("ftfw_{name}{{")), "{name}");
    }
}
