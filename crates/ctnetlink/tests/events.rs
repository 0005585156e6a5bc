//! Goal: read the kernel's bytes as Debian's `conntrack` does.
//! Method: captured events with the line that `conntrack -E` printed for each.

use ctnetlink::{
    EventKind, Message, Request, TcpOptions, decode, decode_details, decode_expectation,
    decode_flow, error_text, messages,
};
use flow::Flow;
use proptest::prelude::*;

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

fn events() -> Vec<(Vec<u8>, &'static str)> {
    let text = include_str!("../testdata/events.tsv");
    let list = text.lines().map(|line| {
        let (hex, said) = line.split_once('\t').unwrap();
        (unhex(hex), said)
    });
    list.collect()
}

fn decoded(bytes: &[u8]) -> (EventKind, Flow, u32) {
    let message = messages(bytes).next().unwrap().unwrap();
    match decode(&message).unwrap() {
        Message::Flow { kind, flow, .. } => (kind, flow, message.port),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_event_reads_as_conntrack_printed_it() {
    let all = events();
    assert_eq!(all.len(), 10);
    for (bytes, said) in all {
        let (kind, flow, port) = decoded(&bytes);
        let mut words: Vec<&str> = said.split_whitespace().collect();
        let wanted = match words.remove(0) {
            "[NEW]" => EventKind::New,
            "[UPDATE]" => EventKind::Update,
            "[DESTROY]" => EventKind::Destroy,
            other => panic!("{other}"),
        };
        assert_eq!(kind, wanted, "{said}");
        assert_eq!(port, 0, "traffic has no port id");
        // The last word is the entry's id; in between ICMP has one of its own.
        let id = words.pop().unwrap().strip_prefix("id=").unwrap();
        assert_eq!(flow.id, Some(id.parse().unwrap()), "{said}");
        if kind == EventKind::Destroy {
            assert_eq!(flow.timeout, None);
            assert_eq!(flow.traffic, Some((7, 217 + 164)));
        } else {
            assert_eq!(
                flow.timeout,
                Some(words.remove(2).parse().unwrap()),
                "{said}"
            );
        }
        words.retain(|w| !w.starts_with("packets=") && !w.starts_with("bytes="));
        let shown = flow.to_string();
        assert_eq!(shown.split_whitespace().collect::<Vec<_>>(), words);
    }
}

#[test]
fn a_create_request_says_the_flow_again() {
    for (bytes, said) in events() {
        let (_, flow, _) = decoded(&bytes);
        let mut out = Vec::new();
        Request::new(&mut out, 7, true).create(&flow, TcpOptions { window_scale: true });
        let message = messages(&out).next().unwrap().unwrap();
        assert_eq!(message.seq, 7);
        let again = decode_flow(&message.payload[4..]).unwrap();
        assert_eq!(again.orig, flow.orig, "{said}");
        // Translation is asked for, not described.
        assert_eq!(again.reply, flow.orig.inverted(), "{said}");
        assert_eq!(again.zone, flow.zone, "{said}");
        assert_eq!(again.mark, flow.mark, "{said}");
        assert_eq!(again.proto_info, flow.proto_info, "{said}");
        assert_eq!(again.timeout, flow.timeout, "{said}");
    }
}

#[test]
fn a_cut_message_is_an_error_or_less_but_never_a_panic() {
    for (bytes, _) in events() {
        for end in 0..bytes.len() {
            for message in messages(&bytes[..end]).flatten() {
                let _ = decode(&message);
            }
            let _ = decode_flow(&bytes[end..]);
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for message in messages(&bytes).flatten() {
            let _ = decode(&message);
            let _ = error_text(&message);
        }
        let _ = decode_flow(&bytes);
        let _ = decode_expectation(&bytes);
        let _ = decode_details(&bytes);
    }

    #[test]
    fn no_damage_to_an_event_makes_the_decoder_panic(
        which in 0usize..10, at in any::<prop::sample::Index>(), value in any::<u8>(),
    ) {
        let (mut bytes, _) = events().swap_remove(which);
        let at = at.index(bytes.len());
        bytes[at] = value;
        for message in messages(&bytes).flatten() {
            let _ = decode(&message);
        }
    }
}
