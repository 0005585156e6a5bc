//! Flushes of the caches and of the kernel's table: what is deleted, and what is spared.

use cache::{Position, Slot};
use flow::Flow;
use wire::Role;

use super::Replica;
use crate::command::{CommandId, Objects, Which};
use crate::entry::External;
use crate::event::{Answer, Caches, Event, Shortfall};
use crate::flush::{AFTER_COMMIT, Purged};
use crate::kernel::{
    DumpEnd, KernelError, KernelRequest, KernelResult, Op, Outcome, Purpose, Subject,
};
use crate::time::Instant;

impl Replica {
    /// Empties caches; nothing is sent. Refused while a commit reads the external cache.
    ///
    /// The original flushes the kernel table here if there is no internal cache;
    /// the command names caches, so this does not.
    pub(crate) fn flush_caches(&mut self, asked: Caches) -> Answer {
        let internal = asked != Caches::External;
        // What was late leaves the external cache by itself as it is committed.
        let external = asked != Caches::Internal && !self.is_committing_late();
        if external && self.commit.is_some() {
            return Answer::CommitReadsCache;
        }
        let caches = match asked {
            Caches::Both if !external => Caches::Internal,
            asked => asked,
        };
        self.events.push_back(Event::FlushingCaches(caches));
        if internal {
            self.flush.purge_at = None;
            self.clear_internal();
        }
        // With injection the external cache is the ledger of what the kernel has from us.
        if external && self.settings.external_cache {
            self.expectations.clear(Which::External);
            self.clear_external();
            // A late message must not bring back what was known better.
            for peer in &mut self.peers {
                if let Some(last) = peer.receiver.last() {
                    peer.on_ended(last);
                }
            }
        }
        Answer::Done
    }

    /// Empties the external cache, but for what the commit before has not seen.
    fn clear_external(&mut self) {
        let mut late = Vec::new();
        let is_open = self.is_commit_open();
        self.commit_opened_at = None;
        let found = self.late.take(|ticket| self.external.redeem(ticket));
        if is_open && self.external.members(External::LATE) > 0 {
            for slot in found.unwrap_or_else(|| self.late_slots()) {
                let note = self.external.note(slot);
                if note.is_late() {
                    late.push((self.external.flow(slot), note, self.external.times(slot)));
                }
            }
            debug_assert_eq!(late.len(), self.external.members(External::LATE));
        }
        self.external.clear();
        for peer in &mut self.peers {
            peer.forget_all();
        }
        for (flow, note, times) in &late {
            if let Ok(slot) = self.external.insert(flow, times.updated) {
                self.external.set_times(slot, *times);
                self.external.change(slot, External::kept_as_late);
                self.late.note(self.external.ticket(slot));
                self.heard_of(slot, note.peer, note.seq, true, false);
            }
        }
        if !late.is_empty() {
            self.commit_late();
        }
    }

    /// Late entries of the external cache, found by a walk through it: with millions of entries that
    /// takes tens of milliseconds.
    fn late_slots(&self) -> Vec<Slot> {
        let mut position = Position::default();
        let mut late = Vec::new();
        while let Some((slot, next)) = self.external.walk(position) {
            position = next;
            if self.external.note(slot).is_late() {
                late.push(slot);
            }
        }
        late
    }

    /// Arms the scheduled flush; a second time while armed does nothing.
    pub(crate) fn schedule_flush(&mut self) -> Answer {
        if self.role == Role::Primary {
            self.claim_no_more();
        }
        self.role = Role::Backup;
        // A take-over of the peer that comes now is the later one, and crosses nothing.
        self.took_over_at = None;
        self.claimed_at = None;
        for peer in &mut self.peers {
            peer.is_beside = false;
        }
        // Before the request for everything that follows. A take-over is told by the ALIVE that
        // begins its bulk update: until then its caches are empty.
        if self.settings.trailer {
            self.owe_alive();
        }
        self.commit_opened_at = None;
        if self.flush.purge_at.is_none() {
            let after = self.settings.purge_timeout;
            self.flush.purge_at = Some(self.now + after);
            self.events.push_back(Event::FlushScheduled(after));
        }
        Answer::Done
    }

    /// Disarms the scheduled flush, and calls off one that is under way.
    pub(crate) fn call_purge_off(&mut self) {
        self.flush.purge_at = None;
        self.flush.purged = None;
        self.sweeps.call_purge_off();
    }

    /// When the scheduled flush is due.
    pub(crate) fn purge_at(&self) -> Option<Instant> {
        self.flush.purge_at
    }

    /// Begins the scheduled flush if it is due.
    pub(crate) fn purge_due(&mut self) {
        if self.flush.purge_at.is_none_or(|at| at > self.now) {
            return;
        }
        if self.commit.is_some() {
            // It would delete what the commit is writing.
            self.flush.purge_at = Some(self.now + AFTER_COMMIT);
            return;
        }
        self.flush.purge_at = None;
        self.flush.purged = Some(Purged::default());
        self.stats.kernel_flushes += 1;
        self.events
            .push_back(Event::FlushingKernel { scheduled: true });
        self.sweeps.owe_purge();
    }

    /// An entry of the dump that a purge reads.
    pub(crate) fn purge_dumped(&mut self, flow: &Flow) {
        if !self.settings.filter.keeps(flow) {
            return;
        }
        let own = self.ledger.find(&flow.key());
        let has_ended = own.is_some_and(|slot| self.ledger.note(slot).has_owner_ended());
        let is_held = self.settings.external_cache && {
            let held = self.external.find(&flow.key());
            held.is_some_and(|slot| !self.external.note(slot).is_ours())
        };
        let purged = self.flush.purged.get_or_insert_default();
        if !is_held && !has_ended {
            purged.spared += 1;
            self.stats.purge_spared += 1;
            return;
        }
        purged.deleted += 1;
        if let Some(slot) = own {
            self.remove_internal(slot);
        }
        self.flush_request(Op::Delete(flow.key(), flow.id));
    }

    pub(crate) fn purge_dump_over(&mut self, end: DumpEnd) {
        if let Some(purged) = &mut self.flush.purged {
            purged.over = Some(end == DumpEnd::Failed);
        }
        self.end_flushes();
    }

    fn clear_internal(&mut self) {
        self.give_up_bulk();
        self.ledger.clear();
        self.expectations.clear(Which::Internal);
        self.sweeps.set_whole(false);
    }

    /// Deletes from the kernel what the filter covers, and all expectations: their
    /// masters may be flows that it spares.
    pub(crate) fn start_kernel_flush(&mut self, id: CommandId, objects: Objects) {
        self.stats.kernel_flushes += 1;
        self.events
            .push_back(Event::FlushingKernel { scheduled: false });
        if objects.has_expectations() && self.settings.expectations.is_some() {
            self.flush_request(Op::FlushExpectations);
        }
        if objects.has_flows() {
            self.sweeps.owe_flush(id);
        } else {
            self.flush_dump_over(id, DumpEnd::Complete);
        }
    }

    /// An entry of the dump that a flush reads. What the filter ignores is spared.
    pub(crate) fn flush_dumped(&mut self, flow: &Flow) {
        if self.settings.filter.keeps(flow) {
            self.flush_request(Op::Delete(flow.key(), flow.id));
        }
    }

    fn flush_request(&mut self, op: Op) {
        self.flush.in_flight += 1;
        self.requests.push_back(KernelRequest {
            purpose: Purpose::Flush,
            subject: Subject::Table,
            step: 0,
            op,
        });
    }

    /// A command's dump is over; the command is, when the deletes are.
    pub(crate) fn flush_dump_over(&mut self, id: CommandId, end: DumpEnd) {
        self.flush.waiting.push((id, end == DumpEnd::Failed));
        self.end_flushes();
    }

    pub(crate) fn on_flush_result(&mut self, result: &KernelResult) {
        self.flush.in_flight -= 1;
        if let (Op::Delete(flow, _), Outcome::Done) = (&result.request.op, &result.outcome) {
            self.injected_ended(flow);
        }
        // What has gone by itself, or has a new life, was not to be deleted.
        if let Outcome::Failed(error) = &result.outcome
            && *error != KernelError::NotFound
        {
            self.flush.refused += 1;
        }
        self.end_flushes();
    }

    fn end_flushes(&mut self) {
        if self.flush.in_flight > 0 {
            return;
        }
        let is_over = |purged: &mut Purged| purged.over.is_some();
        let purged = self.flush.purged.take_if(is_over);
        if purged.is_none() && self.flush.waiting.is_empty() {
            return;
        }
        let refused = std::mem::take(&mut self.flush.refused);
        if let Some(purged) = purged {
            let (deleted, spared) = (purged.deleted.saturating_sub(refused), purged.spared);
            self.events.push_back(Event::Purged { deleted, spared });
            let shortfall = Shortfall::of(purged.over == Some(true), refused);
            self.events.extend(shortfall.map(Event::PurgeIncomplete));
        }
        for (id, dump_failed) in std::mem::take(&mut self.flush.waiting) {
            let shortfall = Shortfall::of(dump_failed, refused);
            let answer = shortfall.map_or(Answer::Done, Answer::FlushIncomplete);
            self.events.push_back(Event::Done(id, answer));
        }
    }
}
