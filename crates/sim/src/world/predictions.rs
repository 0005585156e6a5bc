//! Helpers predict flows, as the FTP helper does after a PORT command: the server will
//! connect to a port of the translated address, and the flow goes to the client.
//!
//! Some predicted flows come, and keep the translation that was predicted, also where the
//! expectation is a copy that a commit has made. Some never come, and some masters end
//! before.

use flow::{Direction, ExpectKey, ExpectNat, Expectation, L4, Name, ProtoInfo, TcpInfo, TcpState};

use crate::check::Check;
use crate::original;
use crate::random::Random;

use super::traffic::{is_helped, plain_flow, timeout_of_state};
use super::{KEYS, STEP, World};

/// Actions of helpers in a second.
const RATE: f64 = 60.0;
/// Flows that a master may have predicted at once.
const SLOTS: u16 = 2;
/// Most flows that came as predicted, of all masters together.
pub(super) const PREDICTED_MAX: usize = KEYS as usize * SLOTS as usize;
/// The port from which an FTP server connects.
const SERVER_PORT: u16 = 20;
/// The saved port of the first expectation.
const FIRST_SAVED: u16 = 6000;

/// What the helpers of all kernels do.
#[derive(Debug)]
pub(super) struct Predictions {
    random: Random,
    /// The port that the next expectation saves: it tells expectations of one key apart.
    next_saved: u16,
}

impl Predictions {
    pub(super) fn new(seed: u64) -> Predictions {
        Predictions {
            random: Random::new(seed, "predictions"),
            next_saved: FIRST_SAVED,
        }
    }
}

impl World {
    /// What helpers and predicted flows do in this step.
    pub(super) fn predict(&mut self) -> Check {
        let random = &mut self.predictions.random;
        if !self.plan.expectations || !random.chance(RATE * STEP.as_secs_f64()) {
            return Ok(());
        }
        let number = random.below(KEYS) as u16;
        let slot = random.below(SLOTS.into()) as u16;
        let what = random.below(10);
        if !is_helped(number) {
            return Ok(());
        }
        let key = expectation(number, slot, 0).key();
        let met = expected_tuple(&key);
        if let Some(n) = self.lives.get(&met).copied() {
            if what < 4 {
                self.nodes[n].kernel.end(&met);
                self.on_end(n, met);
            }
            return Ok(());
        }
        let master = key.master();
        let Some(n) = self.lives.get(&master).copied() else {
            return Ok(());
        };
        let kernel = &self.nodes[n].kernel;
        let is_established = kernel
            .get(&master)
            .is_some_and(|f| f.tcp_state() == Some(TcpState::ESTABLISHED));
        let is_free = !kernel.is_full && kernel.get(&met).is_none();
        match kernel.expectation(&key) {
            None if is_established && what < 8 => self.predict_flow(n, number, slot),
            Some(_) if is_free && what < 3 => self.meet(n, &key)?,
            Some(_) if what == 9 => self.nodes[n].kernel.end_expectation(&key),
            _ => {}
        }
        Ok(())
    }

    /// The helper at replica `n` predicts a flow.
    fn predict_flow(&mut self, n: usize, number: u16, slot: u16) {
        let Predictions { random, next_saved } = &mut self.predictions;
        let mut e = expectation(number, slot, *next_saved);
        *next_saved += 1;
        e.timeout = Some(*random.pick(&[6, 60, 300]));
        self.truth.note_prediction(&e);
        if !self.plan.is_ours() {
            self.truth.note_prediction(&original::committed(&e));
        }
        self.kept.on_born(&e);
        // The packet that the helper read belongs to the master.
        self.truth.on_traffic(n, &e.key().master());
        self.nodes[n].kernel.predict(self.now, &e);
    }

    /// The flow that an expectation at replica `n` predicts begins there.
    fn meet(&mut self, n: usize, key: &ExpectKey) -> Check {
        let kernel = &mut self.nodes[n].kernel;
        let Some(expectation) = kernel.expectation(key).copied() else {
            return Ok(());
        };
        let Some(mut flow) = kernel.meet(key, SERVER_PORT) else {
            return Ok(());
        };
        flow.proto_info = Some(ProtoInfo::Tcp(TcpInfo {
            state: TcpState::ESTABLISHED,
            window_scale: None,
        }));
        flow.timeout = Some(timeout_of_state(&flow));
        self.begin(n, flow);
        let place = format!("predicted flow at {n}");
        self.truth.check_prediction(&place, &expectation)
    }
}

/// Key of the flow that comes as an expectation predicts.
fn expected_tuple(key: &ExpectKey) -> flow::FlowKey {
    let mut orig = key.tuple;
    if let L4::Ports { dst, .. } = orig.l4 {
        orig.l4 = L4::Ports {
            src: SERVER_PORT,
            dst,
        };
    }
    flow::FlowKey {
        orig,
        zone: key.zone,
    }
}

/// What the helper of a flow predicts: from the server to a port of the translated
/// address, and from there to port `saved` of the client.
fn expectation(number: u16, slot: u16, saved: u16) -> Expectation {
    let master = plain_flow(number);
    let with_ports = |tuple: flow::Tuple, src, dst| flow::Tuple {
        l4: L4::Ports { src, dst },
        ..tuple
    };
    Expectation {
        master: master.orig,
        tuple: with_ports(master.reply, 0, 5000 + SLOTS * number + slot),
        mask: with_ports(master.reply, 0, u16::MAX),
        zone: master.zone,
        timeout: None,
        flags: 0,
        class: Some(1),
        nat: Some(ExpectNat {
            tuple: with_ports(master.orig, saved, 0),
            dir: Direction::Reply,
        }),
        helper: Name::new(b"ftp"),
        function: Name::new(b"nat-follow-master"),
        id: None,
    }
}
