//! The trailer of ALIVE, by which two `ftfw` recognise each other.
//!
//! The original takes an ALIVE for what its header says, whatever follows, and
//! counts nothing (seen with 1.4.7 for 4 to 1000 bytes). What follows here tells a
//! peer which run of which program speaks, and where a bulk update began and ended:
//! enough to tell a restart from loss, and what a bulk did not mention from what it
//! lost. Nothing else is added to version 1.

use thiserror::Error;

use super::Seq;

/// One run of one replica: a random number that is drawn at the start. A new epoch
/// means that its memory is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(pub u32);

/// What the HA manager last told a replica to be, as far as its commands show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Nothing yet, or a number unknown here.
    #[default]
    Unknown,
    /// It was told to commit.
    Primary,
    /// It was told to schedule a kernel flush.
    Backup,
}

/// How far the latest bulk update has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BulkState {
    /// There was none in this epoch, or nothing is claimed of it (also numbers unknown here).
    #[default]
    None,
    /// Under way: the peer may lack any part of it.
    UnderWay,
    /// Over: everything said in it was sent, and in FT-FW acknowledged, before this message.
    Complete,
}

/// The latest bulk update of the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bulk {
    /// Which one of this epoch, from 1; 0 for none.
    pub number: u32,
    /// Sequence number of the message before its first flow.
    pub first: Seq,
    /// Complete: number of flows that the sender has told of and that live, as of this message.
    pub flows: u32,
    /// How far it has come.
    pub state: BulkState,
}

/// What follows the 8 bytes of an ALIVE header.
///
/// | Offset | Size | Field        | Order | Meaning                                          |
/// |-------:|-----:|--------------|-------|--------------------------------------------------|
/// |      0 |    4 | magic        |       | `FTFW`                                           |
/// |      4 |    1 | version      |       | 1; another one is passed over and counted        |
/// |      5 |    1 | role         |       | 0 unknown, 1 primary, 2 backup                   |
/// |      6 |    2 | capabilities | big   | bit 0: speaks of its bulk updates; others 0      |
/// |      8 |    4 | epoch        | big   | see [`Epoch`]                                    |
/// |     12 |    4 | bulk number  | big   | see [`Bulk`]; the same for the three that follow |
/// |     16 |    4 | bulk first   | big   |                                                  |
/// |     20 |    4 | bulk flows   | big   |                                                  |
/// |     24 |    1 | bulk state   |       | 0 none, 1 under way, 2 complete                  |
/// |     25 |    3 | reserved     |       | sent as 0, not looked at                         |
/// |     28 |      | more         |       | of later versions (digests), not looked at       |
///
/// Source: `docs/trailer.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// What the sender is.
    pub role: Role,
    /// What the sender can do, bit by bit, see [`Trailer::BULKS`].
    pub capabilities: u16,
    /// Its present run.
    pub epoch: Epoch,
    /// Its latest bulk update.
    pub bulk: Bulk,
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
    /// Its length in bytes.
    pub const LEN: usize = 28;
    /// Capability: [`Trailer::bulk`] is maintained.
    pub const BULKS: u16 = 1;

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
        out.extend_from_slice(&self.capabilities.to_be_bytes());
        for word in [
            self.epoch.0,
            self.bulk.number,
            self.bulk.first.0,
            self.bulk.flows,
        ] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(&[state, 0, 0, 0]);
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
        let Some(body) = body.first_chunk::<{ Trailer::LEN }>() else {
            return Err(TrailerError::Truncated(body.len()));
        };
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
            capabilities: u16::from_be_bytes([body[6], body[7]]),
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
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by hand from the table above.
    const BYTES: [u8; 28] = [
        b'F', b'T', b'F', b'W', 1, 2, 0, 1, // magic, version, backup, bulks
        0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 3, // epoch, third bulk
        0xff, 0xff, 0xff, 0xfe, 0, 1, 0, 0, // first, 65536 flows
        2, 0, 0, 0, // complete
    ];
    const TRAILER: Trailer = Trailer {
        role: Role::Backup,
        capabilities: Trailer::BULKS,
        epoch: Epoch(0xdead_beef),
        bulk: Bulk {
            number: 3,
            first: Seq(u32::MAX - 1),
            flows: 65_536,
            state: BulkState::Complete,
        },
    };

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
        assert_eq!(
            Trailer::decode(&BYTES[..27]),
            Err(TrailerError::Truncated(27))
        );
        let mut other = BYTES;
        other[4] = 2;
        assert_eq!(Trailer::decode(&other), Err(TrailerError::Version(2)));
    }
}
