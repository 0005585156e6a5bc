//! Decoders: whatever comes, they neither panic nor grow, and what they have understood is
//! understood again once it is encoded.

use control::call::Call;
use control::{Query, Request};
use wire::v1::{
    Flags, FlowOptions, MessageType, Stream, Trailer, check_carried, check_expectation_carried,
    decode_expectation, decode_flow, encode_expectation, encode_flow, messages,
};
use wire::{ObjectKind, Seq, StateKind};

use crate::bytes::Bytes;

/// A datagram of version 1.
pub(crate) fn datagram(bytes: &[u8]) {
    for message in messages(bytes).flatten() {
        match message.header.kind {
            MessageType::State(ObjectKind::Flow, kind) => flow(message.body, kind),
            MessageType::State(ObjectKind::Expectation, kind) => expectation(message.body, kind),
            _ => _ = Trailer::decode(message.body),
        }
    }
}

fn flow(body: &[u8], kind: StateKind) {
    let Ok(flow) = decode_flow(body).map(|decoded| decoded.object) else {
        return;
    };
    if check_carried(&flow).is_err() {
        return;
    }
    let options = FlowOptions {
        timeout: true,
        window_scale: true,
    };
    let encode = |flow: &flow::Flow| {
        let mut out = Vec::new();
        encode_flow(&mut out, kind, Flags::NONE, Seq(1), flow, options);
        assert!(out.len() <= 400, "{} bytes: {flow:?}", out.len());
        out
    };
    let once = encode(&flow);
    let again = messages(&once).flatten().next();
    let body = again.expect("what was encoded is a message").body;
    let back = decode_flow(body).expect("what was encoded is understood");
    assert_eq!(encode(&back.object), once, "{flow:?}");
}

fn expectation(body: &[u8], kind: StateKind) {
    let Ok(expectation) = decode_expectation(body).map(|decoded| decoded.object) else {
        return;
    };
    if check_expectation_carried(&expectation).is_err() {
        return;
    }
    let encode = |expectation: &flow::Expectation| {
        let mut out = Vec::new();
        encode_expectation(&mut out, kind, Flags::NONE, Seq(1), expectation, true);
        assert!(out.len() <= 300, "{} bytes: {expectation:?}", out.len());
        out
    };
    let once = encode(&expectation);
    let again = messages(&once).flatten().next();
    let body = again.expect("what was encoded is a message").body;
    let back = decode_expectation(body).expect("what was encoded is understood");
    assert_eq!(encode(&back.object), once, "{expectation:?}");
}

/// A connection over TCP: in pieces it gives the same messages as at once.
pub(crate) fn stream(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let piece = 1 + bytes.below(64);
    let all = bytes.0;
    let mut pieces = Stream::new();
    let mut rows = Vec::new();
    for part in all.chunks(piece) {
        match pieces.push(part) {
            Ok(true) => rows.extend_from_slice(pieces.row()),
            Ok(false) => assert!(pieces.row().is_empty()),
            Err(_) => break,
        }
    }
    assert!(all.starts_with(&rows), "messages that were not sent");
    let mut whole = Stream::new();
    if let Ok(true) = whole.push(all) {
        assert!(whole.row().starts_with(&rows), "pieces give more");
    }
    for message in messages(&rows) {
        let _ = message;
    }
}

/// A trailer of ALIVE.
pub(crate) fn trailer(bytes: &[u8]) {
    let Ok(Some(trailer)) = Trailer::decode(bytes) else {
        return;
    };
    let mut out = Vec::new();
    trailer.encode(&mut out);
    let again = Trailer::decode(&out).expect("what was encoded is understood");
    assert_eq!(again, Some(trailer));
}

/// What the kernel sends: events, dumps, answers.
pub(crate) fn netlink(bytes: &[u8]) {
    let tcp = ctnetlink::TcpOptions { window_scale: true };
    let mut out = Vec::new();
    for message in ctnetlink::messages(bytes).flatten() {
        let _ = ctnetlink::error_text(&message);
        match ctnetlink::decode(&message) {
            Ok(ctnetlink::Message::Flow { flow, .. }) => {
                ctnetlink::Request::new(&mut out, 1, false).create(&flow, tcp);
                ctnetlink::Request::new(&mut out, 1, false).update(&flow, tcp);
            }
            Ok(ctnetlink::Message::Expectation { expectation, .. }) => {
                ctnetlink::Request::new(&mut out, 1, false).create_expectation(&expectation);
            }
            _ => {}
        }
    }
    // Requests are messages, too.
    for message in ctnetlink::messages(&out) {
        message.expect("what was encoded is a message");
    }
}

/// The control socket: a code of the original's, or a line of ours with a query.
pub(crate) fn control(bytes: &[u8]) {
    if let Some((code, line)) = bytes.split_first_chunk() {
        let _ = Request::from_code(i32::from_ne_bytes(*code));
        let _ = Call::parse(line);
    }
    if let Ok(text) = str::from_utf8(bytes) {
        let words: Vec<&str> = text.split_whitespace().collect();
        let _ = Query::parse(&words);
        let _ = Query::parse_for_expectations(&words);
    }
}

/// A configuration file.
pub(crate) fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let parsed = config::parse(&text);
    assert_eq!(parsed.config.is_none(), parsed.errors > 0);
    let shown = parsed.render("conf", &text, false);
    assert_eq!(shown.is_empty(), parsed.errors + parsed.warnings == 0);
}
