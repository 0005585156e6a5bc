//! Control messages that somebody forges in the name of the peer: RESYNC, HELLO, NACK
//! and ACK with random numbers, up to 50 a second for a while.
//!
//! Version 1 authenticates nothing, so the state of the session is lost for the while. Two
//! things must hold: a replica does not become an amplifier, and all is well afterwards.

use std::ops::Sub;
use std::time::Duration;

use replica::{Instant, Seq};
use wire::v1::{Control, Flags, encode_control};

use crate::check::{Check, check_bound};
use crate::plan::Fault;
use crate::random::Random;

use super::{KEYS, STEP, World};

/// Forged datagrams in a second.
const RATE: f64 = 50.0;
/// Bytes that a message about a flow takes, at most.
const MESSAGE_BYTES: u64 = 150;
/// Bytes that a replica may send for each that it receives.
const AMPLIFICATION: u64 = 10;
/// Time in which a replica may send all its flows once, unasked by a command.
const BULK_INTERVAL: Duration = Duration::from_secs(10);

/// What a replica has received and sent, and what made it send more.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    /// Bytes from the link, forged ones included.
    pub(super) bytes_in: u64,
    /// Bytes to the link.
    pub(super) bytes_out: u64,
    /// Events of its kernel.
    pub(super) events: u64,
    /// Commands that it, or its peer, was given.
    pub(super) commands: u64,
}

impl Sub for Load {
    type Output = Load;

    fn sub(self, before: Load) -> Load {
        Load {
            bytes_in: self.bytes_in - before.bytes_in,
            bytes_out: self.bytes_out - before.bytes_out,
            events: self.events - before.events,
            commands: self.commands - before.commands,
        }
    }
}

/// An attack on one replica.
#[derive(Clone, Copy, Debug)]
struct Attack {
    to: usize,
    began: Instant,
    until: Instant,
    before: Load,
}

/// Whoever forges.
#[derive(Debug)]
pub(super) struct Forger {
    random: Random,
    attack: Option<Attack>,
}

impl Forger {
    pub(super) fn new(seed: u64) -> Forger {
        Forger {
            random: Random::new(seed, "forger"),
            attack: None,
        }
    }

    /// A forged datagram.
    fn forge(&mut self) -> Vec<u8> {
        let mut number = || Seq(self.random.next_u64() as u32);
        let (seq, from, to) = (number(), number(), number());
        // A range that ends before it begins would not even be looked at.
        let (from, to) = if to.before(from) {
            (to, from)
        } else {
            (from, to)
        };
        let (control, flags) = match self.random.below(4) {
            0 => (Control::Resync, Flags::NONE),
            1 => (Control::Alive, Flags::HELLO),
            2 => (Control::Nack(from, to), Flags::NONE),
            _ => (Control::Ack(from, to), Flags::NONE),
        };
        let mut bytes = Vec::new();
        encode_control(&mut bytes, control, flags, seq);
        bytes
    }
}

impl World {
    /// What the forger does in this step.
    pub(super) fn forge(&mut self) -> Check {
        if !self.plan.has(Fault::Forged) {
            return Ok(());
        }
        let now = self.now;
        let Some(attack) = self.forger.attack else {
            let random = &mut self.forger.random;
            if random.chance(0.001) {
                let to = random.below(self.nodes.len() as u64) as usize;
                let until = now + random.within(Duration::from_secs(4));
                self.forger.attack = Some(Attack {
                    to,
                    began: now,
                    until,
                    before: self.loads[to],
                });
                self.trace
                    .line(now, format_args!("somebody forges datagrams to {to}"));
            }
            return Ok(());
        };
        if self.forger.random.chance(RATE * STEP.as_secs_f64()) {
            let bytes = self.forger.forge();
            self.network.forge(now, attack.to, bytes);
        }
        if attack.until <= now {
            self.forger.attack = None;
            self.trace.line(now, format_args!("nobody forges any more"));
        }
        self.check_amplification(&attack)
    }

    /// A replica under attack sends what its kernel and its operators make it send, some
    /// times what it receives, and everything once in a while.
    fn check_amplification(&self, attack: &Attack) -> Check {
        let load = self.loads[attack.to] - attack.before;
        let bulk = KEYS * MESSAGE_BYTES;
        let elapsed = self.now.since(attack.began);
        // One may have been under way when the attack began.
        let bulks = 2 + elapsed.as_secs() / BULK_INTERVAL.as_secs() + load.commands;
        let most = AMPLIFICATION * load.bytes_in
            + bulks * bulk
            + load.events * MESSAGE_BYTES
            // ALIVE and acknowledgements.
            + (1 + elapsed.as_secs()) * 1000;
        let what = format!(
            "bytes sent by {} to a forger's {}",
            attack.to, load.bytes_in
        );
        check_bound(&what, load.bytes_out as usize, most as usize)
    }
}
