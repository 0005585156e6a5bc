//! A session per peer: its numbers, which epoch it is in, and what it has announced.
//!
//! Version 1 has one stream for everybody who listens, so the sending half of the replica
//! is the stream's; the receiving half is here, one for each sender.
//!
//! A peer that starts again has lost its memory, and maybe its table: what we learned
//! of its former epoch may be the only copy. So nothing is removed because of a restart.
//! Entries note the epoch in which they were last announced; until the new epoch
//! announces them, they are unconfirmed, counted, and committed with a short timeout.
//!
//! A restart is known from the epoch in the trailer of ALIVE, or, with a peer that
//! sends none, from a HELLO whose numbers begin anew.

use std::time::Duration;

use cache::Position;
use wire::v1::{Bulk, BulkState, Holdings};
use wire::{Epoch, Role, Seq, TableId};

use crate::entry::External;
use crate::ftfw::Hearing;
use crate::receive::Receiver;
use crate::settings::Settings;
use crate::time::Instant;

/// A greeting is believed when messages still follow its numbers after this time.
pub(crate) const GREETING_PROVEN: Duration = Duration::from_secs(1);

/// A peer of which nothing has come for this long is lost: five times ALIVE's interval.
pub const LOST_AFTER: Duration = Duration::from_secs(5);

/// A point in the peer's sequence from which we count what it announces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since {
    pub(crate) seq: Seq,
    /// Messages lost by then (NOTRACK).
    pub(crate) lost: u64,
}

/// What a peer has of flows, as of its last ALIVE, and how many of them we held when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported {
    /// Flows that it has announced or offered, and that live.
    pub flows: usize,
    /// Those of them that we held: what would survive the peer. At most `flows`.
    pub held: usize,
    /// The peer is in the middle of sending everything.
    pub is_in_bulk: bool,
}

/// We hold fewer flows than the peer counts on, or more.
#[derive(Debug, Default)]
pub(crate) struct Lack {
    /// ALIVE messages in a row that showed it.
    pub(crate) seen: u32,
    /// When we asked, and the number of the peer's latest bulk update then.
    pub(crate) asked: Option<(Instant, u32)>,
    /// Pause before asking again.
    pub(crate) pause: Duration,
    /// Our ALIVE asks.
    pub(crate) wants: bool,
}

/// A HELLO that begins the numbers of the peer anew.
///
/// One datagram proves nothing: what it would cost, a repetition of all that is
/// unacknowledged and a bulk update, waits until the numbers have gone on from there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Greeting {
    pub(crate) at: Instant,
    /// Its sender names no epoch, and had been heard before: it has started again.
    pub(crate) is_restart: bool,
}

/// Most peers: whoever drives the replica must not make up any number of them. Entries of the
/// external cache are counted for each of them.
pub(crate) const PEERS_MAX: usize = 8;

/// State of one peer, whatever the protocol.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) receiver: Receiver,
    /// What it is owed for what has come from it (FT-FW).
    pub(crate) hearing: Hearing,
    pub(crate) role: Role,
    /// It was primary when we took over, or beside us, and has not become primary again since, nor
    /// sent an ALIVE without a role: our claim is the later one.
    pub(crate) was_primary: bool,
    /// It has become primary while we are, and nobody has told us anything since.
    pub(crate) is_beside: bool,
    /// Counts its epochs as far as we noticed; entries note the one that announced them. It
    /// wraps: an entry that 256 epochs in a row did not mention counts as confirmed again.
    pub(crate) epoch: u8,
    /// The first of its epochs with the table that it has now.
    pub(crate) table_since: u8,
    /// That table, and the one of the epoch before the present one.
    pub(crate) table: TableId,
    pub(crate) former_table: TableId,
    /// Entries of the external cache that it has announced or offered in its present epoch.
    pub(crate) mentioned: usize,
    /// Those of them that are offers.
    pub(crate) offers: usize,
    pub(crate) since: Option<Since>,
    /// Those of the mentioned ones that it has sent since then.
    pub(crate) heard_since: usize,
    /// Number of its last bulk update that we have drawn the conclusion from.
    pub(crate) handled: u32,
    /// Walk over the external cache for what that bulk did not mention, and `since` then.
    pub(crate) absent: Option<(Position, Seq)>,
    /// The last end of a flow that it announced.
    pub(crate) last_end: Option<Seq>,
    /// It has sent an ALIVE without trailer.
    pub(crate) plain: bool,
    /// What it last reported of holdings.
    pub(crate) holdings: Option<Holdings>,
    /// What it last reported of its own flows.
    pub(crate) reported: Option<Reported>,
    /// The epoch in which it has been sent, or is about to be, what we have.
    pub(crate) greeted: Option<Epoch>,
    pub(crate) lack: Lack,
    /// A greeting has begun its numbers anew, and no message has followed it for long
    /// enough.
    pub(crate) greeting: Option<Greeting>,
    pub(crate) heard_at: Option<Instant>,
    pub(crate) is_lost: bool,
}

impl Peer {
    pub(crate) fn new(settings: &Settings) -> Peer {
        Peer {
            receiver: Receiver::new(settings.mode),
            hearing: Hearing::new(settings),
            role: Role::Unknown,
            was_primary: false,
            is_beside: false,
            epoch: 0,
            table_since: 0,
            table: TableId(0),
            former_table: TableId(0),
            mentioned: 0,
            offers: 0,
            since: None,
            heard_since: 0,
            handled: 0,
            absent: None,
            last_end: None,
            plain: false,
            holdings: None,
            reported: None,
            greeted: None,
            lack: Lack::default(),
            greeting: None,
            heard_at: None,
            is_lost: false,
        }
    }

    /// What it reports of its own flows, in a message before which nothing is missing or is
    /// missing for good.
    /// `lacking`: how many of them are not where they are to be.
    pub(crate) fn report(&mut self, holdings: &Holdings, bulk: &Bulk, lacking: usize) {
        let flows = bulk.flows as usize + holdings.offered as usize;
        self.reported = Some(Reported {
            flows,
            held: self.mentioned.saturating_sub(lacking).min(flows),
            is_in_bulk: bulk.state == BulkState::UnderWay,
        });
    }

    pub(crate) fn restarted(&mut self) {
        // An epoch in which nothing was announced needs no number of its own: the numbers
        // are few, and greetings can be forged.
        if self.mentioned > 0 {
            self.epoch = self.epoch.wrapping_add(1);
        }
        self.handled = 0;
        self.last_end = None;
        self.holdings = None;
        self.lack = Lack::default();
        self.forget_all();
    }

    /// The external cache has been emptied, or nothing in it is confirmed any more.
    pub(crate) fn forget_all(&mut self) {
        self.mentioned = 0;
        self.offers = 0;
        self.heard_since = 0;
        self.since = None;
        self.absent = None;
        if let Some(reported) = &mut self.reported {
            reported.held = 0;
        }
    }

    pub(crate) fn on_ended(&mut self, seq: Seq) {
        if self.last_end.is_none_or(|last| last.before(seq)) {
            self.last_end = Some(seq);
        }
    }

    /// True if no end of a flow has been announced since `seq`.
    pub(crate) fn ended_before(&self, seq: Seq) -> bool {
        self.last_end.is_none_or(|last| last.before(seq))
    }

    /// When it is lost unless something comes from it.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        let lost = self.heard_at.filter(|_| !self.is_lost)? + LOST_AFTER;
        (lost > now).then_some(lost)
    }
}

impl Peer {
    /// True if the message `seq` has come since the point from which we count. A number
    /// ahead of the peer's last one is of a former epoch, in a late copy.
    fn is_after_since(&self, seq: Seq) -> bool {
        let is_later = self.since.is_some_and(|s| s.seq.before(seq));
        let last = self.receiver.last();
        is_later && last.is_none_or(|last| !last.before(seq))
    }

    /// Counts an entry that it has announced or offered. `before`: the note of the entry, if
    /// this peer has mentioned it in this epoch.
    pub(crate) fn count(&mut self, before: Option<External>, seq: Seq, is_offer: bool) {
        let counted = before.is_some_and(|note| self.is_after_since(note.seq));
        self.mentioned += usize::from(before.is_none());
        self.offers += usize::from(is_offer);
        let was_offer = before.is_some_and(External::is_offer);
        self.offers = self.offers.saturating_sub(usize::from(was_offer));
        self.heard_since += usize::from(!counted && self.is_after_since(seq));
    }

    /// An entry that it has mentioned in this epoch has ended.
    pub(crate) fn discount(&mut self, note: External) {
        self.mentioned = self.mentioned.saturating_sub(1);
        let was_offer = usize::from(note.is_offer());
        self.offers = self.offers.saturating_sub(was_offer);
        let counted = usize::from(self.is_after_since(note.seq));
        self.heard_since = self.heard_since.saturating_sub(counted);
    }

    /// True if it has had its present table since an epoch.
    pub(crate) fn has_same_table(&self, epoch: u8) -> bool {
        let age = self.epoch.wrapping_sub(epoch);
        age <= self.epoch.wrapping_sub(self.table_since)
    }
}
