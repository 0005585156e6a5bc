//! Goal: expectations, flows of all kinds and statistics are read as Debian's `conntrack`
//! reads them, and written so that they read the same.
//! Method: the kernel's own messages; see testdata/README.md.

use ctnetlink::{
    CpuStats, EventKind, Message, Request, TcpFlags, decode, decode_details, decode_expectation,
    error_text, messages,
};
use flow::{Direction, ExpectNat, Expectation, Flow, L4, ProtoInfo};

/// Bytes and what `conntrack` printed, of one kind.
fn captured(kind: &str) -> Vec<(Vec<u8>, &'static str)> {
    let text = include_str!("../testdata/captured.tsv");
    let found = text.lines().filter_map(|line| {
        let mut columns = line.split('\t');
        (columns.next() == Some(kind)).then(|| {
            let hex = columns.next().unwrap();
            let byte = |i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
            let bytes = (0..hex.len()).step_by(2).map(byte).collect();
            (bytes, columns.next().unwrap_or(""))
        })
    });
    found.collect()
}

fn decoded(bytes: &[u8]) -> Message {
    decode(&messages(bytes).next().unwrap().unwrap()).unwrap()
}

fn expectations() -> Vec<(EventKind, Expectation, &'static str)> {
    let all = captured("expectation").into_iter();
    let all = all.map(|(bytes, said)| match decoded(&bytes) {
        Message::Expectation { kind, expectation } => (kind, expectation, said),
        other => panic!("{other:?}"),
    });
    all.collect()
}

fn flows() -> Vec<(Flow, Vec<u8>, &'static str)> {
    let all = captured("flow").into_iter();
    let all = all.map(|(bytes, said)| match decoded(&bytes) {
        Message::Flow { flow, .. } => (flow, bytes, said),
        other => panic!("{other:?}"),
    });
    all.collect()
}

#[test]
fn every_expectation_reads_as_conntrack_printed_it() {
    let all = expectations();
    assert_eq!(all.len(), 6);
    for (kind, expectation, said) in &all {
        let name = match kind {
            EventKind::New => "[NEW]",
            EventKind::Update => "[UPDATE]",
            EventKind::Destroy => "[DESTROY]",
        };
        let timeout = expectation.timeout.unwrap();
        assert_eq!(format!("{name} {timeout} {expectation}"), *said);
        assert_eq!(expectation.function.unwrap().as_str(), "nat-follow-master");
        assert!(expectation.id.is_some());
    }
    // The port that the client had named is saved for the translation.
    let active = all[0].1;
    let Some(ExpectNat { tuple, dir }) = active.nat else {
        panic!("{active:?}");
    };
    assert_eq!((tuple.ports(), dir), ((5001, 0), Direction::Reply));
}

#[test]
fn a_request_says_the_expectation_again() {
    for (_, e, _) in expectations() {
        let mut out = Vec::new();
        Request::new(&mut out, 7, true).create_expectation(&e);
        let message = messages(&out).next().unwrap().unwrap();
        let again = decode_expectation(&message.payload[4..]).unwrap();
        assert_eq!(again, Expectation { id: None, ..e });
    }
}

#[test]
fn flows_of_all_kinds_read_as_conntrack_printed_them() {
    let all = flows();
    assert_eq!(all.len(), 10);
    for (flow, bytes, said) in &all {
        let mut words: Vec<&str> = said.split(' ').collect();
        assert_eq!(words.remove(2), flow.timeout.unwrap().to_string());
        let is_extra = |w: &&str| {
            let extra = ["packets=", "bytes=", "delta-time=", "use="];
            extra.iter().any(|p| w.starts_with(p))
        };
        let extra: Vec<&str> = words.iter().copied().filter(is_extra).collect();
        let id = words.pop().unwrap();
        assert_eq!(id, format!("id={}", flow.id.unwrap()));
        words.retain(|w| !is_extra(w));
        let shown = flow.to_string();
        let mut shown: Vec<&str> = shown.split_whitespace().collect();
        // `conntrack` shows no labels unless asked to.
        shown.retain(|w| !w.starts_with("labels="));
        assert_eq!(shown, words);

        let details = decode_details(&bytes[20..]).unwrap();
        let (to, from) = (details.counters.0.unwrap(), details.counters.1.unwrap());
        let counters = [
            format!("packets={}", to.packets),
            format!("bytes={}", to.bytes),
            format!("packets={}", from.packets),
            format!("bytes={}", from.bytes),
        ];
        assert_eq!(extra[..4], counters);
        let begin = details.timestamps.0.unwrap();
        assert!(begin > 1_700_000_000_000_000_000, "{begin}");
        // A message about a dump's entry has a reference of its own.
        assert!(details.references.unwrap() >= 1);
    }
}

#[test]
fn what_each_kind_of_flow_has_of_its_own() {
    let all = flows();
    let find = |port: u16| {
        let by_port = |f: &&(Flow, Vec<u8>, &str)| f.0.orig.ports().1 == port;
        all.iter().find(by_port).unwrap().clone()
    };
    let zones = |port| {
        let flow = find(port).0;
        (flow.zone.0, flow.reply_zone.map(|z| z.0))
    };
    assert_eq!(zones(5001), (7, Some(0)));
    assert_eq!(zones(5002), (0, Some(8)));
    assert_eq!(zones(5003), (0, None));
    let labels = find(5003).0.labels.unwrap().0;
    assert_eq!(labels, [1 << 3, 0, 0, 1 << (100 - 96)]);
    let Some(ProtoInfo::Sctp(sctp)) = find(2).0.proto_info else {
        panic!("no SCTP");
    };
    // As `conntrack -I` has put 11 and 12 into the request: in host byte order.
    let tags = (sctp.vtag_orig.swap_bytes(), sctp.vtag_reply.swap_bytes());
    assert_eq!(tags, (11, 12));
    assert_eq!(find(5127).0.master.unwrap().ports().1, 21);
    let (control, bytes, _) = find(21);
    let adjusted = control.seq_adj.unwrap().orig;
    // The address in the client's PORT has become longer by one.
    assert_eq!((adjusted.offset_before, adjusted.offset_after), (0, 1));
    let flags = decode_details(&bytes[20..]).unwrap().tcp_flags;
    let scaling = TcpFlags {
        flags: 0x23,
        mask: 0,
    };
    assert_eq!(flags, (Some(scaling), Some(scaling)));
    let gre = all.iter().find(|f| matches!(f.0.orig.l4, L4::Gre { .. }));
    let key = L4::Gre {
        src_key: 0,
        dst_key: 0xbeef,
    };
    assert_eq!(gre.unwrap().0.orig.l4, key);
}

#[test]
fn a_flow_with_a_zone_per_direction_is_written_as_it_was_read() {
    for (flow, _, said) in flows() {
        let mut out = Vec::new();
        let options = ctnetlink::TcpOptions { window_scale: true };
        Request::new(&mut out, 7, true).create(&flow, options);
        let Message::Flow { flow: again, .. } = decoded(&out) else {
            panic!("{said}");
        };
        assert_eq!(
            (again.orig, again.zone, again.reply_zone),
            (flow.orig, flow.zone, flow.reply_zone)
        );
        assert_eq!(
            (again.proto_info.map(|p| p.state_number()), again.labels),
            (flow.proto_info.map(|p| p.state_number()), flow.labels)
        );
    }
}

#[test]
fn statistics_of_cpus_and_of_the_table() {
    let cpus: Vec<_> = captured("cpu")
        .iter()
        .map(|(bytes, _)| match decoded(bytes) {
            Message::CpuStats(stats) => stats,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((cpus.len(), cpus[0].cpu, cpus[1].cpu), (2, 0, 1));
    assert!(
        cpus.iter()
            .all(|c| c.insert_failed == 0 && *c != CpuStats::default() || c.cpu == 0)
    );
    let (bytes, _) = captured("table").remove(0);
    let Message::TableStats(table) = decoded(&bytes) else {
        panic!("no table");
    };
    assert_eq!(table.entries, 10);
    assert!(table.max > Some(1000));
}

#[test]
fn a_refusal_may_come_with_words() {
    let all = captured("error");
    assert_eq!(all.len(), 2);
    for (bytes, _) in &all {
        let message = messages(bytes).next().unwrap().unwrap();
        let Message::Ack { error } = decode(&message).unwrap() else {
            panic!("no error");
        };
        assert!(error < 0);
        for end in 0..bytes.len() {
            for message in messages(&bytes[..end]).flatten() {
                assert_eq!(error_text(&message), None);
            }
        }
    }
    let text = |n: usize| {
        let message = messages(&all[n].0).next().unwrap().unwrap();
        error_text(&message)
    };
    assert_eq!(text(0), Some("Attribute failed policy validation"));
    assert_eq!(text(1), None);
}
