//! What we know of the peer: which run of it sends, and what that run has announced.
//!
//! A peer that starts again has lost its memory, and maybe its table: what we learned
//! from its former run may be the only copy. So nothing is removed because of a
//! restart. Entries note the run that last announced them; until the new run does, they
//! are unconfirmed, counted, and committed with a short timeout.
//!
//! A restart is known from the epoch in the trailer of ALIVE, or, with a peer that
//! sends none, from a HELLO whose numbers begin anew.
//!
//! **Repairs.** Each run of the peer is sent once what we have announced, and as offers
//! what we only found in our kernel. Both replicas count: a peer says how many flows we
//! must hold, and a replica that holds fewer asks for all of them. What datagrams cause
//! is bounded: at most one bulk update begun in [`REPAIR_INTERVAL`]; a wish that comes
//! earlier waits.
//!
//! **Absence** from a bulk update removes an entry only if everything supports it:
//!
//! 1. the peer sends trailers, and this run of it has announced the entry before, or a
//!    former run has and the peer's table is still the same: a new table ends nothing;
//! 2. it says that the bulk is complete, in a message before which nothing is missing
//!    (FT-FW: we have acknowledged all of the bulk; NOTRACK: nothing was lost since);
//! 3. the number of flows that it has announced and offered is the number that we have
//!    received since a point before the bulk: `since`, moved on with each ALIVE while no
//!    bulk is open.

use std::time::Duration;

use cache::{Position, Slot};
use wire::v1::{Bulk, BulkState, Control, Epoch, Holdings, Role, Seq, StateKind, TableId, Trailer};

use crate::entry::External;
use crate::protocol::Protocol;
use crate::receive::Received;
use crate::{Event, Instant, Replica};

/// Datagrams cause a bulk update, and a repetition of all that is unacknowledged, at
/// most once in this time: anybody can forge them.
const REPAIR_INTERVAL: Duration = Duration::from_secs(10);

/// The longest pause between two times that the peer is asked for what we lack: what
/// asking does not mend, as a limit here, is not asked for every ten seconds.
const ASK_PAUSE_MAX: Duration = Duration::from_secs(320);

/// A greeting is believed when messages still follow its numbers after this time.
const GREETING_PROVEN: Duration = Duration::from_secs(1);

/// A peer of which nothing has come for this long is lost: five times ALIVE's interval.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// A bulk update that a datagram has caused and that has not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wish {
    /// What was announced, and offers of what was found.
    Repair,
    /// Everything, as announcements: the peer's operator wants it (RESYNC).
    Everything,
}

/// A point in the peer's sequence from which we count what it announces.
#[derive(Clone, Copy, Debug)]
struct Since {
    seq: Seq,
    /// Messages lost by then (NOTRACK).
    lost: u64,
}

/// We hold fewer flows than the peer counts on, or more.
#[derive(Debug, Default)]
struct Lack {
    /// ALIVE messages in a row that showed it.
    seen: u32,
    /// When we asked, and the number of the peer's latest bulk update then.
    asked: Option<(Instant, u32)>,
    /// Pause before asking again.
    pause: Duration,
    /// Our ALIVE asks.
    wants: bool,
}

/// A HELLO that begins the numbers of the peer anew.
///
/// One datagram proves nothing: what it would cost, a repetition of all that is
/// unacknowledged and a bulk update, waits until the numbers have gone on from there.
#[derive(Clone, Copy, Debug)]
struct Greeting {
    at: Instant,
    /// Its sender names no epoch, and had been heard before: it has started again.
    is_restart: bool,
}

/// State towards the peer, whatever the mode.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    role: Role,
    /// Counts its runs as far as we noticed; entries note the one that announced them. It
    /// wraps: an entry that 256 runs in a row did not mention counts as confirmed again.
    run: u8,
    /// The first of its runs with the table that it has now.
    table_since: u8,
    /// That table, and the one of the run before the present one.
    table: TableId,
    former_table: TableId,
    /// Entries of the external cache that its present run has announced or offered.
    mentioned: usize,
    /// Those of them that are offers.
    offers: usize,
    since: Option<Since>,
    /// Those of the mentioned ones that it has sent since then.
    heard_since: usize,
    /// Number of its last bulk update that we have drawn the conclusion from.
    handled: u32,
    /// Walk over the external cache for what that bulk did not mention, and `since` then.
    absent: Option<(Position, Seq)>,
    /// The last end of a flow that it announced.
    last_end: Option<Seq>,
    /// It has sent an ALIVE without trailer.
    plain: bool,
    /// What it last said of holdings.
    holdings: Option<Holdings>,
    /// The run of it that has been sent, or is about to be, what we have.
    greeted: Option<Epoch>,
    lack: Lack,
    wish: Option<Wish>,
    granted_at: Option<Instant>,
    /// A greeting has begun its numbers anew, and no message has followed it for long
    /// enough.
    greeting: Option<Greeting>,
    /// All that is unacknowledged is to be sent again: with or without the control messages.
    repeat: Option<bool>,
    repeated_at: Option<Instant>,
    heard_at: Option<Instant>,
    is_lost: bool,
}

/// True if what datagrams may cause once in a while has been caused lately.
fn is_recent(at: Option<Instant>, now: Instant) -> bool {
    at.is_some_and(|at| now.since(at) < REPAIR_INTERVAL)
}

impl Peer {
    fn restarted(&mut self) {
        // A run that has announced nothing needs no number of its own: the numbers are few,
        // and greetings can be forged.
        if self.mentioned > 0 {
            self.run = self.run.wrapping_add(1);
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

    /// When something is due that waits only for time to pass.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        let after = |waits: bool, at: Option<Instant>| {
            let due = at.filter(|_| waits)? + REPAIR_INTERVAL;
            (due > now).then_some(due)
        };
        let lost = self.heard_at.filter(|_| !self.is_lost);
        [
            after(self.wish.is_some(), self.granted_at),
            after(self.repeat.is_some(), self.repeated_at),
            lost.map(|at| at + LOST_AFTER).filter(|at| *at > now),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

impl Replica {
    /// Number of entries of the external cache that the present run of the peer has announced.
    pub fn confirmed(&self) -> usize {
        self.peer.mentioned.saturating_sub(self.peer.offers)
    }

    /// Number of entries that only a former run of the peer has announced, or that were
    /// only offered.
    pub fn unconfirmed(&self) -> usize {
        let live = self.external.len() - self.external.members(External::ENDED);
        live.saturating_sub(self.confirmed())
    }

    /// The peer's epoch, if it sends trailers, and what it takes itself for.
    pub fn peer(&self) -> (Option<Epoch>, Role) {
        (self.receiver.epoch(), self.peer.role)
    }

    /// How many of our flows the peer says that it holds, and how many it should hold.
    /// `None` if it does not say.
    pub fn held_by_peer(&self) -> Option<(usize, usize)> {
        let holdings = self.peer.holdings?;
        let hears_us = holdings.heard == Some(self.settings.epoch);
        let held = if hears_us { holdings.held as usize } else { 0 };
        Some((held, self.ledger.announced() + self.ledger.offered()))
    }

    /// Time since the last message of the peer; `None` before the first.
    pub fn peer_silence(&self) -> Option<Duration> {
        Some(self.now.since(self.peer.heard_at?))
    }

    pub(crate) fn is_confirmed(&self, slot: Slot) -> bool {
        self.is_mentioned(slot) && !self.external.note(slot).is_offer()
    }

    /// True if the present run of the peer has announced or offered an entry.
    pub(crate) fn is_mentioned(&self, slot: Slot) -> bool {
        self.is_present_run(self.external.note(slot).epoch)
    }

    /// Which of its runs the peer is in, as entries note it.
    pub(crate) fn present_run(&self) -> u8 {
        self.peer.run
    }

    pub(crate) fn is_present_run(&self, run: u8) -> bool {
        run == self.peer.run
    }

    /// The message `seq` has announced or offered an entry of the external cache.
    pub(crate) fn heard_of(&mut self, slot: Slot, seq: Seq, is_new: bool, is_offer: bool) {
        let run = self.peer.run;
        let was_mentioned = !is_new && self.is_mentioned(slot);
        let before = self.external.note(slot);
        let was_offer = was_mentioned && before.is_offer();
        self.external
            .change(slot, |note| note.heard(seq, run, is_offer));
        let counted = was_mentioned && self.is_after_since(before.seq);
        let counts = !counted && self.is_after_since(seq);
        let peer = &mut self.peer;
        peer.mentioned += usize::from(!was_mentioned);
        peer.offers += usize::from(is_offer);
        peer.offers = peer.offers.saturating_sub(usize::from(was_offer));
        peer.heard_since += usize::from(counts);
        self.age(slot);
    }

    /// An entry of the external cache is an offer from here on: the peer has not accepted
    /// that the flow is ours, and our kernel has it no more.
    fn doubt_external(&mut self, slot: Slot) {
        if self.is_confirmed(slot) {
            self.peer.offers += 1;
        }
        let held = !self.settings.external_cache;
        self.external.change(slot, |note| note.doubted(held));
    }

    /// An entry of the external cache ends.
    pub(crate) fn forget(&mut self, slot: Slot) {
        if !self.is_mentioned(slot) {
            return;
        }
        let note = self.external.note(slot);
        // An ended entry may still wait for the kernel.
        let former = self.peer.run.wrapping_sub(1);
        self.external.change(slot, |note| note.epoch = former);
        let peer = &mut self.peer;
        peer.mentioned = peer.mentioned.saturating_sub(1);
        peer.offers = peer.offers.saturating_sub(usize::from(note.is_offer()));
        let counted = usize::from(self.is_after_since(note.seq));
        self.peer.heard_since = self.peer.heard_since.saturating_sub(counted);
    }

    /// True if the message `seq` has come since the point from which we count. A number
    /// ahead of the peer's last one is of a former run, in a late copy.
    fn is_after_since(&self, seq: Seq) -> bool {
        let is_later = self.peer.since.is_some_and(|s| s.seq.before(seq));
        let last = self.receiver.last();
        is_later && last.is_none_or(|last| !last.before(seq))
    }

    /// Removes an entry of the external cache.
    pub(crate) fn remove_external(&mut self, slot: Slot) {
        self.forget(slot);
        self.external.remove(slot);
    }

    /// The peer has received what we sent last of an entry of the internal cache: that it
    /// lives, or that it has ended. What the peer announced of it before is over.
    pub(crate) fn claim_received(&mut self, own: Slot) {
        let is_claim = !self.ledger.note(own).is_found();
        if !is_claim || self.external.members(External::OURS) == 0 {
            return;
        }
        let slot = self.external.find(&self.ledger.key(own));
        let Some(slot) = slot.filter(|s| self.external.note(*s).is_ours()) else {
            return;
        };
        if self.ledger.note(own).has_ended() {
            // Whether it took the flow for ours before, or refused the end of its own
            // flow, nobody knows.
            self.doubt_external(slot);
        } else {
            self.remove_external(slot);
        }
    }

    // ---- life and restarts of the peer ----

    /// A message of the peer has come.
    pub(crate) fn peer_heard(&mut self, received: &Received) {
        if received.begins_anew()
            && let (Some(last), Some(end)) = (self.receiver.last(), self.peer.last_end)
            && last.before(end)
        {
            // It was a number of a former run.
            self.peer.last_end = Some(last);
        }
        let proven = |g: &mut Greeting| self.now.since(g.at) >= GREETING_PROVEN;
        if !received.begins_anew()
            && let Some(greeting) = self.peer.greeting.take_if(proven)
        {
            self.wish_repeat(true);
            if greeting.is_restart {
                self.wish(Wish::Repair);
            }
        }
        let silence = self.peer.heard_at.map(|at| self.now.since(at));
        self.peer.heard_at = Some(self.now);
        if silence.is_none() {
            self.events.push_back(Event::PeerHeard);
        } else if std::mem::take(&mut self.peer.is_lost) {
            let silence = silence.unwrap_or_default();
            self.events.push_back(Event::PeerBack { silence });
        }
    }

    /// Notices that the peer is silent, and grants what waited for time to pass.
    pub(crate) fn peer_due(&mut self) {
        let is_silent = self.peer_silence().is_some_and(|s| s >= LOST_AFTER);
        // ALARM sends nothing while there are no flows.
        if is_silent && !self.peer.is_lost && self.protocol.has_control() {
            self.peer.is_lost = true;
            self.events.push_back(Event::PeerLost);
        }
        self.grant_wish();
        self.grant_repeat();
    }

    /// The peer's numbers have begun anew.
    pub(crate) fn on_new_numbers(&mut self) {
        // With trailers its epoch says whether it has started again.
        if self.receiver.epoch().is_none() {
            self.on_peer_restart();
        }
    }

    /// A HELLO has begun the peer's numbers; `anew`, if they were known before.
    pub(crate) fn peer_greets(&mut self, anew: bool) {
        let is_plain = self.receiver.epoch().is_none();
        let before = self.peer.greeting.is_some_and(|g| g.is_restart);
        self.peer.greeting = Some(Greeting {
            at: self.now,
            is_restart: before || (anew && is_plain),
        });
    }

    fn on_peer_restart(&mut self) {
        self.peer.restarted();
        if let Some(expectations) = &mut self.expectations {
            expectations.on_peer_restart();
        }
        self.stats.peer_restarts += 1;
        self.events.push_back(Event::PeerRestarted {
            unconfirmed: self.unconfirmed(),
        });
        // Whoever is told to be the backup knows that what the peer has is the peer's.
        if self.role == Role::Backup && self.protocol.has_control() {
            self.request_resync();
        }
    }

    /// A datagram wants a bulk update: it begins now, or as soon as it may.
    pub(crate) fn wish(&mut self, wish: Wish) {
        if !self.protocol.has_control() {
            return;
        }
        self.peer.wish = self.peer.wish.max(Some(wish));
        self.grant_wish();
    }

    fn grant_wish(&mut self) {
        if self.is_bulk_under_way() || is_recent(self.peer.granted_at, self.now) {
            return;
        }
        let Some(wish) = self.peer.wish.take() else {
            return;
        };
        // A bulk update of nothing costs nothing.
        if !self.settings.internal_cache || !self.ledger.is_empty() {
            self.peer.granted_at = Some(self.now);
        }
        match wish {
            Wish::Everything => self.start_bulk(),
            Wish::Repair => self.start_repair(),
        }
    }

    /// All that is unacknowledged is to be sent again, because the peer has started
    /// again or greets anew: now, or as soon as it may be.
    pub(crate) fn wish_repeat(&mut self, restarted: bool) {
        let before = self.peer.repeat.unwrap_or(false);
        self.peer.repeat = Some(before || restarted);
        self.grant_repeat();
    }

    fn grant_repeat(&mut self) {
        if is_recent(self.peer.repeated_at, self.now) {
            return;
        }
        if let Some(restarted) = self.peer.repeat.take() {
            self.peer.repeated_at = Some(self.now);
            self.owe_all_sent(restarted);
        }
    }

    /// An ALIVE of the peer, with its trailer if it has one.
    pub(crate) fn on_alive(&mut self, trailer: Option<Trailer>, received: &Received) {
        let was_plain = std::mem::replace(&mut self.peer.plain, trailer.is_none());
        // Also if another program stands in for the one that sent trailers, or the reverse.
        let is_other = received.is_new_epoch || (was_plain && trailer.is_some());
        if is_other || (received.begins_numbers_anew() && trailer.is_some()) {
            self.on_peer_restart();
            if trailer.is_none_or(|t| t.holdings.is_none()) {
                self.peer.greeting = Some(Greeting {
                    at: self.now,
                    is_restart: true,
                });
            }
        }
        let Some(trailer) = trailer else {
            self.peer.role = Role::Unknown;
            self.peer.holdings = None;
            return;
        };
        self.peer.role = trailer.role;
        self.on_holdings(&trailer);
        if trailer.has_bulks {
            self.on_bulk_state(&trailer, received);
        }
        if let Some(holdings) = trailer.holdings {
            self.compare_holdings(&holdings, &trailer.bulk, received);
        }
    }

    /// True if the peer tells offers from announcements, and we say which they are.
    pub(crate) fn takes_offers(&self) -> bool {
        self.settings.trailer && self.peer.holdings.is_some()
    }

    /// What a trailer says of the peer's table, and of what it wants.
    fn on_holdings(&mut self, trailer: &Trailer) {
        let peer = &mut self.peer;
        peer.holdings = trailer.holdings;
        let Some(holdings) = trailer.holdings else {
            return;
        };
        if !self.settings.trailer {
            // To the peer we are an original, which sends nothing unasked.
            return;
        }
        if peer.greeted != Some(trailer.epoch) {
            peer.greeted = Some(trailer.epoch);
            peer.former_table = std::mem::replace(&mut peer.table, holdings.table);
            if peer.former_table != peer.table || peer.table == TableId(0) {
                peer.table_since = peer.run;
            }
            self.wish(Wish::Repair);
        } else if holdings.wants && holdings.heard == Some(self.settings.epoch) {
            self.wish(Wish::Repair);
        }
    }

    /// What a trailer says of a bulk update.
    fn on_bulk_state(&mut self, trailer: &Trailer, received: &Received) {
        let bulk = &trailer.bulk;
        let offered = trailer.holdings.map_or(0, |h| h.offered as usize);
        let seq = received.seq;
        let lost = self.receiver.stats.lost;
        let peer = &mut self.peer;
        let is_open = bulk.number != peer.handled;
        if !is_open || bulk.first == seq {
            peer.since = Some(Since { seq, lost });
            peer.heard_since = 0;
            return;
        }
        let Some(since) = peer.since else { return };
        if bulk.state != BulkState::Complete || bulk.first.before(since.seq) {
            return;
        }
        let nothing_lost = match &self.protocol {
            // What is missing before this very message may be what ended a flow.
            Protocol::Ftfw(_) => received.missed().is_none(),
            Protocol::Notrack | Protocol::Alarm(_) => lost == since.lost,
        };
        if nothing_lost && peer.heard_since == bulk.flows as usize + offered {
            peer.handled = bulk.number;
            if self.external.len() > peer.heard_since {
                peer.absent = Some((Position::default(), since.seq));
            }
        }
    }

    /// Asks for everything if the peer counts on more flows than we hold, or if a complete
    /// bulk update has not told which of those that we hold are gone.
    fn compare_holdings(&mut self, holdings: &Holdings, bulk: &Bulk, received: &Received) {
        let lack = &mut self.peer.lack;
        if lack.asked.is_some_and(|(_, number)| number != bulk.number) {
            lack.wants = false;
        }
        let hears_us = holdings.heard == Some(self.settings.epoch);
        let is_judged =
            hears_us && bulk.state == BulkState::Complete && received.missed().is_none();
        // While we send the peer all that is ours, it may count on what it no longer owns.
        if !is_judged || self.is_bulk_under_way() {
            return;
        }
        let all = bulk.flows as usize + holdings.offered as usize;
        let ours = self.external.members(External::OURS) + self.external.members(External::ENDED);
        let is_open = bulk.number != self.peer.handled;
        let has_more = is_open && self.external.len() > all + ours;
        // Asking does not make room.
        let is_full = self.external.len() >= self.settings.limit;
        let lacks = !is_full && self.peer.mentioned < holdings.kept as usize;
        let (counts_on, holds) = match lacks {
            true => (holdings.kept as usize, self.peer.mentioned),
            false => (all, self.external.len()),
        };
        let lack = &mut self.peer.lack;
        if !lacks && !has_more {
            *lack = Lack::default();
            return;
        }
        lack.seen += 1;
        let may_ask = match lack.asked {
            // What is on its way may explain the first ones.
            None => lack.seen >= if lacks { 2 } else { 4 },
            Some((at, _)) => self.now.since(at) >= lack.pause,
        };
        if may_ask {
            lack.pause = (lack.pause * 2).clamp(REPAIR_INTERVAL, ASK_PAUSE_MAX);
            lack.asked = Some((self.now, bulk.number));
            lack.wants = true;
            self.stats.lacks_found += 1;
            self.events.push_back(if lacks {
                Event::Lacking { counts_on, holds }
            } else {
                Event::HoldsMore { counts_on, holds }
            });
            self.owe_alive();
        }
    }

    /// Moves on through what a complete bulk did not mention. True if there is more.
    pub(crate) fn advance_absent(&mut self, items: usize) -> bool {
        // A commit takes what there is.
        if self.commit.is_some() {
            return false;
        }
        let Some((mut position, since)) = self.peer.absent else {
            return false;
        };
        for _ in 0..items {
            let Some((slot, next)) = self.external.walk(position) else {
                self.peer.absent = None;
                return false;
            };
            position = next;
            let note = self.external.note(slot);
            if note.has_ended() {
                continue;
            }
            let last = self.receiver.last();
            let is_of_former_run = last.is_some_and(|last| last.before(note.seq));
            let is_absent = if self.is_present_run(note.epoch) {
                !since.before(note.seq) || is_of_former_run
            } else {
                self.has_same_table(note.epoch)
            };
            if is_absent {
                self.stats.external_absent += 1;
                let flow = self.external.flow(slot);
                self.deliver(StateKind::Delete, flow, since);
            }
        }
        self.peer.absent = Some((position, since));
        true
    }

    /// True if the peer has had its present table since a former run.
    fn has_same_table(&self, run: u8) -> bool {
        let age = self.peer.run.wrapping_sub(run);
        age <= self.peer.run.wrapping_sub(self.peer.table_since)
    }

    /// True if our kernel has lost its table since our former run, as the peer knows it.
    pub(crate) fn has_new_table(&self) -> bool {
        let hears_us = |h: &Holdings| h.heard == Some(self.settings.epoch);
        let holdings = self.peer.holdings.filter(hears_us);
        let former = holdings.map_or(TableId(0), |h| h.former_table);
        former != TableId(0) && former != self.settings.table
    }

    /// What our own ALIVE carries; `None` if it carries nothing. `offers`: what follows
    /// it in the datagram are offers.
    pub(crate) fn trailer(&self, offers: bool) -> Option<Trailer> {
        if !self.settings.trailer || !self.protocol.has_control() {
            return None;
        }
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Some(Trailer {
            role: self.role,
            has_bulks: true,
            epoch: self.settings.epoch,
            bulk: self.bulk_state(),
            holdings: Some(Holdings {
                offers,
                wants: self.peer.lack.wants,
                table: self.settings.table,
                offered: count(self.ledger.offered()),
                kept: count(self.kept()),
                heard: self.receiver.epoch(),
                former_table: self.peer.former_table,
                held: count(self.peer.mentioned),
            }),
        })
    }

    /// Least number of flows that the present run of the peer must hold.
    fn kept(&self) -> usize {
        let is_greeted = self.peer.greeted.is_some() && self.peer.greeted == self.receiver.epoch();
        let is_behind = self.protocol.has_lost_ends() || self.ledger.has_to_catch_up();
        if !is_greeted || is_behind || self.peer.wish.is_some() || self.is_bulk_under_way() {
            return 0;
        }
        let under_way = self.flows_owed() + self.protocol.under_way();
        (self.ledger.announced() + self.ledger.offered()).saturating_sub(under_way)
    }

    /// Owes the ALIVE that begins or ends a bulk update.
    pub(crate) fn owe_alive(&mut self) {
        self.stream.owe(Control::Alive);
    }
}
