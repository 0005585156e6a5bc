//! Decoders: whatever comes, they neither panic nor grow, and what they have understood is
//! understood again once it is encoded.

use std::fmt::Debug;

use control::call::Call;
use control::{Query, Request};
use wire::v1::{
    Decoded, Flags, FlowOptions, MessageType, PayloadError, Stream, Trailer, check_carried,
    check_expectation_carried, decode_expectation, decode_flow, encode_expectation, encode_flow,
    messages,
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
    let options = FlowOptions {
        timeout: true,
        window_scale: true,
    };
    is_understood_again(
        body,
        decode_flow,
        |flow| check_carried(flow).is_ok(),
        |out, flow| encode_flow(out, kind, Flags::NONE, Seq(1), flow, options),
        400,
    );
}

fn expectation(body: &[u8], kind: StateKind) {
    is_understood_again(
        body,
        decode_expectation,
        |expectation| check_expectation_carried(expectation).is_ok(),
        |out, expectation| encode_expectation(out, kind, Flags::NONE, Seq(1), expectation, true),
        300,
    );
}

/// What a body is decoded to, if that can be carried, is encoded to a message of at most `most`
/// bytes, which is decoded and encoded to the same.
fn is_understood_again<T: Debug>(
    body: &[u8],
    decode: impl Fn(&[u8]) -> Result<Decoded<T>, PayloadError>,
    is_carried: impl Fn(&T) -> bool,
    encode: impl Fn(&mut Vec<u8>, &T),
    most: usize,
) {
    let Some(object) = decode(body).ok().map(|d| d.object).filter(is_carried) else {
        return;
    };
    let (mut once, mut twice) = (Vec::new(), Vec::new());
    encode(&mut once, &object);
    assert!(once.len() <= most, "{} bytes: {object:?}", once.len());
    let message = messages(&once).flatten().next();
    let body = message.expect("what was encoded is a message").body;
    let again = decode(body).expect("what was encoded is understood");
    encode(&mut twice, &again.object);
    assert_eq!(twice, once, "{object:?}");
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
