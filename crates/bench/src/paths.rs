//! Paths through the code whose instructions are counted, each as often as one is told to.
//!
//! `tests/instructions.rs` runs a path so often, and twice so often: the difference is what it
//! costs, without start and set-up.

use std::hash::{BuildHasherDefault, DefaultHasher};
use std::hint::black_box;

use cache::{Cache, Note, Slot, Tick};
use ctnetlink::{Message, Request, TcpOptions};
use flow::{Flow, FlowKey};
use wire::v1::{Batch, Flags, FlowOptions, decode_flow, encode_flow};
use wire::{Seq, StateKind};

use crate::events::{Events, Step};
use crate::ledger::Sender;

/// Flows that a path goes through; several datagrams of them.
const FLOWS: u32 = 1000;

/// A path, done for all of 1000 flows by each call of what `prepare` returns.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// What it is called.
    pub name: &'static str,
    prepare: fn() -> Box<dyn FnMut()>,
}

/// All paths.
pub const ALL: [Path; 10] = [
    Path {
        name: "ctnetlink-decode-event",
        prepare: decode_event,
    },
    Path {
        name: "ctnetlink-encode-create",
        prepare: encode_create,
    },
    Path {
        name: "wire-encode-datagram",
        prepare: encode_datagram,
    },
    Path {
        name: "wire-decode-datagram",
        prepare: decode_datagram,
    },
    Path {
        name: "cache-find",
        prepare: find,
    },
    Path {
        name: "cache-insert-remove",
        prepare: insert_remove,
    },
    Path {
        name: "cache-store",
        prepare: store,
    },
    Path {
        name: "cache-read",
        prepare: read,
    },
    Path {
        name: "ledger-announce-acknowledge",
        prepare: announce,
    },
    Path {
        name: "ledger-announce-resend-acknowledge",
        prepare: resend,
    },
];

impl Path {
    /// Flows that one time goes through.
    pub const FLOWS: u32 = FLOWS;

    /// The path of a name.
    pub fn named(name: &str) -> Option<Path> {
        ALL.into_iter().find(|path| path.name == name)
    }

    /// Takes it so often.
    pub fn repeat(self, times: u32) {
        let mut act = (self.prepare)();
        for _ in 0..times {
            act();
        }
    }
}

fn flows() -> Vec<Flow> {
    let events = Events::default();
    (0..FLOWS).map(|n| events.established(n)).collect()
}

fn decode_event() -> Box<dyn FnMut()> {
    let events = Events::default();
    let mut bytes = Vec::new();
    for n in 0..FLOWS {
        events.put(&mut bytes, Step::Established, n);
    }
    Box::new(move || {
        for message in ctnetlink::messages(black_box(&bytes)).flatten() {
            if let Ok(Message::Flow { flow, .. }) = ctnetlink::decode(&message) {
                black_box(flow);
            }
        }
    })
}

fn encode_create() -> Box<dyn FnMut()> {
    let flows = flows();
    let tcp = TcpOptions {
        window_scale: false,
    };
    let mut out = Vec::with_capacity(4096);
    Box::new(move || {
        for flow in &flows {
            out.clear();
            Request::new(&mut out, 1, false).create(black_box(flow), tcp);
            black_box(&out);
        }
    })
}

/// Calls `full` for each datagram that the flows fill.
fn pack(batch: &mut Batch, flows: &[Flow], mut full: impl FnMut(&[u8])) {
    let options = FlowOptions {
        timeout: true,
        window_scale: false,
    };
    batch.clear();
    for flow in black_box(flows) {
        let put = |out: &mut Vec<u8>| {
            encode_flow(out, StateKind::Update, Flags::NONE, Seq(1), flow, options);
        };
        if !batch.push(put) {
            full(batch.bytes());
            batch.clear();
            batch.push(put);
        }
    }
    full(batch.bytes());
}

fn new_batch() -> Batch {
    Batch::new(1500, 28)
}

fn encode_datagram() -> Box<dyn FnMut()> {
    let (flows, mut batch) = (flows(), new_batch());
    Box::new(move || pack(&mut batch, &flows, |bytes| _ = black_box(bytes)))
}

fn decode_datagram() -> Box<dyn FnMut()> {
    let mut datagrams = Vec::new();
    pack(&mut new_batch(), &flows(), |bytes| {
        datagrams.push(bytes.to_vec());
    });
    Box::new(move || {
        for bytes in black_box(&datagrams) {
            for message in wire::v1::messages(bytes).flatten() {
                let _ = black_box(decode_flow(message.body));
            }
        }
    })
}

/// As large as the notes in use.
#[derive(Clone, Copy, Debug, Default)]
struct Blank {
    _bytes: [u32; 3],
}

impl Note for Blank {
    fn classes(&self) -> u16 {
        1
    }
}

/// The hash of the daemon's caches, with one key for all runs.
type Hash = BuildHasherDefault<DefaultHasher>;

fn filled() -> (Cache<Blank, Hash>, Vec<(Slot, Flow)>) {
    let mut cache = Cache::with_hasher(FLOWS as usize, Hash::default());
    let insert = |flow: Flow| {
        let slot = cache.insert(&flow, Tick(1)).expect("there is room");
        (slot, flow)
    };
    let entries = flows().into_iter().map(insert).collect();
    (cache, entries)
}

fn find() -> Box<dyn FnMut()> {
    let (cache, entries) = filled();
    let keys: Vec<FlowKey> = entries.iter().map(|(_, flow)| flow.key()).collect();
    Box::new(move || {
        for key in &keys {
            black_box(cache.find(black_box(key)));
        }
    })
}

fn insert_remove() -> Box<dyn FnMut()> {
    let (mut cache, entries) = filled();
    let mut slots: Vec<Slot> = entries.iter().map(|(slot, _)| *slot).collect();
    Box::new(move || {
        for slot in slots.drain(..) {
            cache.remove(black_box(slot));
        }
        for (_, flow) in &entries {
            slots.extend(cache.insert(black_box(flow), Tick(2)));
        }
    })
}

fn store() -> Box<dyn FnMut()> {
    let (mut cache, entries) = filled();
    Box::new(move || {
        for (slot, flow) in &entries {
            cache.store(*slot, black_box(flow), Tick(2));
        }
    })
}

fn read() -> Box<dyn FnMut()> {
    let (cache, entries) = filled();
    Box::new(move || {
        for (slot, _) in &entries {
            black_box(cache.flow(black_box(*slot)));
        }
    })
}

fn announce() -> Box<dyn FnMut()> {
    let mut sender = Sender::with_flows(FLOWS);
    Box::new(move || {
        sender.announce();
        sender.acknowledge();
    })
}

fn resend() -> Box<dyn FnMut()> {
    let mut sender = Sender::with_flows(FLOWS);
    Box::new(move || {
        sender.announce();
        sender.resend();
        sender.acknowledge();
    })
}
