//! The modes, and what each does with a message by its header.

use wire::v1::{Control, Flags, Header, MessageType};
use wire::{ObjectKind, StateKind};

/// What a replica does: one of three replication protocols, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// There is no peer: our flows are kept, and the end of each is reported.
    Statistics,
    /// Best effort.
    Notrack,
    /// Periodic repetition.
    Alarm,
    /// Acknowledged and repeated.
    Ftfw,
}

/// What a mode does with a message, judged by its header alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A state message to be applied.
    Data(ObjectKind, StateKind),
    /// A control message to be obeyed.
    Control(Control),
    /// Passed over in silence (ALARM: any flag).
    Ignored,
    /// Counted as a malformed header.
    BadHeader,
    /// Counted as a bad type (ALARM).
    BadType,
}

/// Judges a header as the original's mode does (wire protocol specification, section 5).
/// Without a peer there is nothing to judge.
///
/// If several of ACK, NACK, RESYNC and ALIVE are set, the first in that order wins.
pub fn verdict(mode: Mode, header: &Header) -> Verdict {
    if mode == Mode::Statistics {
        return Verdict::Ignored;
    }
    if mode == Mode::Alarm {
        return match header.kind {
            _ if header.flags != Flags::NONE => Verdict::Ignored,
            MessageType::State(object, state) => Verdict::Data(object, state),
            _ => Verdict::BadType,
        };
    }
    match header.kind {
        MessageType::State(object, state)
            if header.flags.without(Flags::GREETING) == Flags::NONE =>
        {
            Verdict::Data(object, state)
        }
        MessageType::Control => {
            let acknowledges = mode == Mode::Ftfw;
            match header.range {
                Some((from, to)) if header.flags.intersects(Flags::ACK) => {
                    if !acknowledges || to.before(from) {
                        Verdict::BadHeader
                    } else {
                        Verdict::Control(Control::Ack(from, to))
                    }
                }
                Some((from, to)) if header.flags.intersects(Flags::NACK) => {
                    if !acknowledges || to.before(from) {
                        Verdict::BadHeader
                    } else {
                        Verdict::Control(Control::Nack(from, to))
                    }
                }
                Some(_) => Verdict::Control(Control::Resync),
                None if header.flags.intersects(Flags::ALIVE) => Verdict::Control(Control::Alive),
                None => Verdict::BadHeader,
            }
        }
        _ => Verdict::BadHeader,
    }
}

#[cfg(test)]
mod tests {
    use wire::v1::messages;

    use super::*;

    /// Every type and every set of flags, with a range and without.
    #[test]
    fn every_header_has_a_verdict_and_only_ftfw_acknowledges() {
        let mut acks = [0; 3];
        let mut judged = 0;
        for (kind, flags, len) in (0..16u8)
            .flat_map(|kind| (0..=255u8).map(move |flags| (kind, flags)))
            .flat_map(|(kind, flags)| [8u8, 16].map(|len| (kind, flags, len)))
        {
            let mut bytes = vec![0; usize::from(len)];
            (bytes[0], bytes[1], bytes[3]) = (1 << 4 | kind, flags, len);
            for message in messages(&bytes).flatten() {
                for (n, mode) in [Mode::Notrack, Mode::Alarm, Mode::Ftfw].iter().enumerate() {
                    judged += 1;
                    let verdict = verdict(*mode, &message.header);
                    let is_ack = matches!(verdict, Verdict::Control(Control::Ack(..)));
                    acks[n] += usize::from(is_ack);
                }
            }
        }
        assert!(judged > 3 * 16 * 256, "only {judged} were judged");
        assert!(acks[0] == 0 && acks[1] == 0 && acks[2] > 0, "{acks:?}");
    }
}
