//! The trailer of ALIVE, by which two `ftfw` recognise each other.
//!
//! The original reads the header of an ALIVE, ignores the bytes behind it, and counts
//! nothing (seen with 1.4.7 for 4 to 1000 bytes). The trailer carries the sender's epoch,
//! and the begin and the end of its latest bulk update. With it a receiver distinguishes a restart
//! from loss, and flows that a bulk update did not contain from flows that were lost on the
//! way. Nothing else is added to version 1.

use thiserror::Error;

use crate::{Epoch, Role, Seq, TableId};

/// How far the latest bulk update has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BulkState {
    /// There was none in this epoch, or its state is unknown (also numbers unknown here).
    #[default]
    None,
    /// Under way: the peer may lack any part of it.
    UnderWay,
    /// Over: all its messages were sent, and in FT-FW acknowledged, before this message.
    Complete,
}

/// The latest bulk update of the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bulk {
    /// Which one of this epoch, from 1; 0 for none.
    pub number: u32,
    /// Sequence number of the message before its first flow.
    pub first: Seq,
    /// Complete: number of flows that the sender has announced and that live, as of this message.
    pub flows: u32,
    /// How far it has come.
    pub state: BulkState,
}

/// What each replica holds of the other's flows, and of which epoch and table they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// The states that follow in the same datagram are offers: the sender has found these
    /// flows in its kernel and does not know whether they are its own.
    pub offers: bool,
    /// The sender lacks flows of the receiver, and asks for all of them.
    pub wants: bool,
    /// The sender's table.
    pub table: TableId,
    /// Number of flows that the sender has offered and that live, as of this message.
    pub offered: u32,
    /// Least number of flows that the receiver must hold: those that were announced or
    /// offered and are not on their way (FT-FW: acknowledged).
    pub kept: u32,
    /// The receiver's epoch, as the sender knows it.
    pub heard: Option<Epoch>,
    /// The receiver's table in its previous epoch, if the sender has received from it then.
    pub former_table: TableId,
    /// Number of flows that the sender holds of the epoch `heard`.
    pub held: u32,
}

/// What follows the 8 bytes of an ALIVE header.
///
/// | Offset | Size | Field        | Order | Meaning                                          |
/// |-------:|-----:|--------------|-------|--------------------------------------------------|
/// |      0 |    4 | magic        |       | `FTFW`                                           |
/// |      4 |    1 | version      |       | 1; another one is passed over and counted        |
/// |      5 |    1 | role         |       | 0 unknown, 1 primary, 2 backup                   |
/// |      6 |    2 | capabilities | big   | bit 0: maintains the bulk fields; 1: [`Holdings`]; others 0 |
/// |      8 |    4 | epoch        | big   | see [`Epoch`]                                    |
/// |     12 |    4 | bulk number  | big   | see [`Bulk`]; the same for the three that follow |
/// |     16 |    4 | bulk first   | big   |                                                  |
/// |     20 |    4 | bulk flows   | big   |                                                  |
/// |     24 |    1 | bulk state   |       | 0 none, 1 under way, 2 complete                  |
/// |     25 |    1 | flags        |       | bit 0 offers, bit 1 wants; others 0              |
/// |     26 |    2 | reserved     |       | sent as 0, not looked at                         |
/// |     28 |    4 | table        | big   | see [`TableId`]; from here on with capability 1  |
/// |     32 |    4 | offered      | big   | see [`Holdings`]; the same for those that follow |
/// |     36 |    4 | kept         | big   |                                                  |
/// |     40 |    4 | heard        | big   | 0 for none                                       |
/// |     44 |    4 | former table | big   |                                                  |
/// |     48 |    4 | held         | big   |                                                  |
/// |     52 |      | more         |       | of later versions (digests), not looked at       |
///
/// Source: `docs/trailer.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// The sender's role.
    pub role: Role,
    /// The sender maintains [`Trailer::bulk`].
    pub has_bulks: bool,
    /// The sender's epoch.
    pub epoch: Epoch,
    /// The sender's latest bulk update.
    pub bulk: Bulk,
    /// `None` from a sender that does not maintain them.
    pub holdings: Option<Holdings>,
}

/// Why a trailer that begins with the magic cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TrailerError {
    /// It ends too early.
    #[error("trailer of {0} bytes")]
    Truncated(usize),
    /// Not version 1.
    #[error("trailer of version {0}")]
    Version(u8),
}

const MAGIC: [u8; 4] = *b"FTFW";
const VERSION: u8 = 1;

impl Trailer {
    /// Its length in bytes without [`Holdings`].
    const SHORT: usize = 28;
    /// Its length in bytes.
    pub const LEN: usize = 52;
    /// Capability: [`Trailer::bulk`] is maintained.
    const BULKS: u16 = 1;
    /// Capability: [`Trailer::holdings`] are maintained.
    const HOLDINGS: u16 = 2;
    const OFFERS: u8 = 1;
    const WANTS: u8 = 2;

    /// Appends it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let role = match self.role {
            Role::Unknown => 0,
            Role::Primary => 1,
            Role::Backup => 2,
        };
        let state = match self.bulk.state {
            BulkState::None => 0,
            BulkState::UnderWay => 1,
            BulkState::Complete => 2,
        };
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, role]);
        let mut capabilities = 0;
        if self.has_bulks {
            capabilities |= Trailer::BULKS;
        }
        if self.holdings.is_some() {
            capabilities |= Trailer::HOLDINGS;
        }
        out.extend_from_slice(&u16::to_be_bytes(capabilities));
        for word in [
            self.epoch.0,
            self.bulk.number,
            self.bulk.first.0,
            self.bulk.flows,
        ] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        let Some(h) = &self.holdings else {
            return out.extend_from_slice(&[state, 0, 0, 0]);
        };
        let mut flags = 0;
        if h.offers {
            flags |= Trailer::OFFERS;
        }
        if h.wants {
            flags |= Trailer::WANTS;
        }
        out.extend_from_slice(&[state, flags, 0, 0]);
        let heard = h.heard.map_or(0, |e| e.0);
        for word in [
            h.table.0,
            h.offered,
            h.kept,
            heard,
            h.former_table.0,
            h.held,
        ] {
            out.extend_from_slice(&word.to_be_bytes());
        }
    }

    /// Reads what follows the header of an ALIVE. `None` if that is no trailer: nothing,
    /// or bytes of somebody else.
    ///
    /// # Errors
    /// [`TrailerError`] if it begins with the magic and cannot be read.
    pub fn decode(body: &[u8]) -> Result<Option<Trailer>, TrailerError> {
        if !body.starts_with(&MAGIC) {
            return Ok(None);
        }
        if let Some(&version) = body.get(4)
            && version != VERSION
        {
            return Err(TrailerError::Version(version));
        }
        let truncated = Err(TrailerError::Truncated(body.len()));
        if body.len() < Trailer::SHORT {
            return truncated;
        }
        let capabilities = u16::from_be_bytes([body[6], body[7]]);
        let has_holdings = capabilities & Trailer::HOLDINGS != 0;
        if has_holdings && body.len() < Trailer::LEN {
            return truncated;
        }
        let word = |at: usize| {
            let bytes = [body[at], body[at + 1], body[at + 2], body[at + 3]];
            u32::from_be_bytes(bytes)
        };
        Ok(Some(Trailer {
            role: match body[5] {
                1 => Role::Primary,
                2 => Role::Backup,
                _ => Role::Unknown,
            },
            has_bulks: capabilities & Trailer::BULKS != 0,
            epoch: Epoch(word(8)),
            bulk: Bulk {
                number: word(12),
                first: Seq(word(16)),
                flows: word(20),
                state: match body[24] {
                    1 => BulkState::UnderWay,
                    2 => BulkState::Complete,
                    _ => BulkState::None,
                },
            },
            holdings: has_holdings.then(|| Holdings {
                offers: body[25] & Trailer::OFFERS != 0,
                wants: body[25] & Trailer::WANTS != 0,
                table: TableId(word(28)),
                offered: word(32),
                kept: word(36),
                heard: Some(Epoch(word(40))).filter(|e| e.0 != 0),
                former_table: TableId(word(44)),
                held: word(48),
            }),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by hand from the table above.
    const BYTES: [u8; 52] = [
        b'F', b'T', b'F', b'W', 1, 2, 0, 3, // magic, version, backup, bulks and holdings
        0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 3, // epoch, third bulk
        0xff, 0xff, 0xff, 0xfe, 0, 1, 0, 0, // first, 65536 flows
        2, 3, 0, 0, 0xab, 0xcd, 0, 1, // complete, offers and wants; table
        0, 0, 0, 7, 0, 1, 0, 5, // 7 offered, 65541 kept
        0xca, 0xfe, 0, 2, 0xab, 0xcd, 0, 2, // epoch heard, its former table
        0, 0, 2, 0, // 512 held
    ];
    const TRAILER: Trailer = Trailer {
        role: Role::Backup,
        has_bulks: true,
        epoch: Epoch(0xdead_beef),
        bulk: Bulk {
            number: 3,
            first: Seq(u32::MAX - 1),
            flows: 65_536,
            state: BulkState::Complete,
        },
        holdings: Some(Holdings {
            offers: true,
            wants: true,
            table: TableId(0xabcd_0001),
            offered: 7,
            kept: 65_541,
            heard: Some(Epoch(0xcafe_0002)),
            former_table: TableId(0xabcd_0002),
            held: 512,
        }),
    };

    #[test]
    fn a_sender_without_holdings_sends_28_bytes() {
        let short = Trailer {
            holdings: None,
            ..TRAILER
        };
        let mut out = Vec::new();
        short.encode(&mut out);
        let mut expected = BYTES[..28].to_vec();
        expected[7] = 1;
        expected[25] = 0;
        assert_eq!(out, expected);
        assert_eq!(Trailer::decode(&out), Ok(Some(short)));
    }

    #[test]
    fn a_trailer_has_the_documented_bytes() {
        let mut out = Vec::new();
        TRAILER.encode(&mut out);
        assert_eq!(out, BYTES);
        assert_eq!(Trailer::decode(&BYTES), Ok(Some(TRAILER)));
    }

    #[test]
    fn what_later_versions_append_is_not_looked_at() {
        let mut long = BYTES.to_vec();
        long.extend_from_slice(&[7; 100]);
        assert_eq!(Trailer::decode(&long), Ok(Some(TRAILER)));
    }

    #[test]
    fn foreign_bytes_are_no_trailer_and_broken_ones_are_named() {
        assert_eq!(Trailer::decode(&[]), Ok(None));
        assert_eq!(Trailer::decode(&[0; 64]), Ok(None));
        for len in [27, 51] {
            let truncated = Err(TrailerError::Truncated(len));
            assert_eq!(Trailer::decode(&BYTES[..len]), truncated);
        }
        let mut other = BYTES;
        other[4] = 2;
        assert_eq!(Trailer::decode(&other), Err(TrailerError::Version(2)));
    }
}
