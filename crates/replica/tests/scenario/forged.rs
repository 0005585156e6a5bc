//! Datagrams of one message, as the peer or somebody in its place sends them.

use flow::Flow;
use replica::{LinkId, PeerId, Seq};
use wire::StateKind;
use wire::v1::{Control, Flags, FlowOptions, Trailer, encode_alive, encode_control, encode_flow};

use crate::world::World;

/// A control message.
pub(crate) fn control(control: Control, flags: Flags, seq: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_control(&mut bytes, control, flags, Seq(seq));
    bytes
}

/// An ALIVE that names the sender's epoch.
pub(crate) fn alive(trailer: &Trailer, seq: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_alive(&mut bytes, trailer, Flags::NONE, Seq(seq));
    bytes
}

/// A message about a flow, with its timeout.
pub(crate) fn flow(kind: StateKind, flags: Flags, seq: u32, flow: &Flow) -> Vec<u8> {
    message(kind, flags, seq, flow, true)
}

/// A message about a flow of a peer that sends no timeouts.
pub(crate) fn flow_without_timeout(kind: StateKind, seq: u32, flow: &Flow) -> Vec<u8> {
    message(kind, Flags::NONE, seq, flow, false)
}

fn message(kind: StateKind, flags: Flags, seq: u32, flow: &Flow, timeout: bool) -> Vec<u8> {
    let options = FlowOptions {
        timeout,
        window_scale: false,
    };
    let mut bytes = Vec::new();
    encode_flow(&mut bytes, kind, flags, Seq(seq), flow, options);
    bytes
}

impl World {
    /// A datagram that the peer did not send comes to node `n`.
    pub(crate) fn forge(&mut self, n: usize, bytes: &[u8]) {
        let replica = &mut self.nodes[n].replica;
        replica.handle_datagram(self.now, PeerId::FIRST, LinkId(0), bytes);
    }
}
