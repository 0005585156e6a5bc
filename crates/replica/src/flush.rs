//! Flushes: of the caches, and of the kernel table by filter, now or scheduled.

use flow::Flow;
use wire::v1::Role;

use crate::kernel::{KernelRequest, Op, Purpose};
use crate::{CommandId, Event, Objects, Replica, Which};

impl Replica {
    /// Empties caches; nothing is sent. Refused while a commit reads the external cache.
    ///
    /// The original flushes the kernel table here if there is no internal cache;
    /// the command says caches, so this does not.
    pub(crate) fn flush_caches(&mut self, internal: bool, external: bool) {
        if external && self.commit.is_some() {
            self.events.push_back(Event::FlushRefused);
            return;
        }
        self.events
            .push_back(Event::FlushingCaches(match (internal, external) {
                (true, true) => "flushing caches",
                (true, false) => "flushing internal cache",
                _ => "flushing external cache",
            }));
        if internal {
            self.purge_at = None;
            self.clear_internal();
        }
        if external
            && self.settings.external_cache
            && let Some(expectations) = &mut self.expectations
        {
            expectations.clear(Which::External);
        }
        // With injection the external cache is the ledger of what the kernel has from us.
        if external && self.settings.external_cache {
            self.external.clear();
            self.peer.forget_all();
            // A late message must not bring back what was known better.
            if let Some(last) = self.receiver.last() {
                self.peer.on_ended(last);
            }
        }
    }

    /// Arms the scheduled flush; a second time while armed does nothing.
    pub(crate) fn schedule_flush(&mut self) {
        self.role = Role::Backup;
        if self.purge_at.is_none() {
            let after = self.settings.purge_timeout;
            self.purge_at = Some(self.now + after);
            self.events.push_back(Event::FlushScheduled(after));
        }
    }

    /// The scheduled flush is due: the kernel table, and then the internal cache.
    pub(crate) fn on_purge_due(&mut self) {
        self.purge_at = None;
        self.stats.kernel_flushes += 1;
        self.events
            .push_back(Event::FlushingKernel { scheduled: true });
        self.clear_internal();
        self.sweeps.owe_flush(None);
    }

    fn clear_internal(&mut self) {
        self.give_up_bulk();
        self.internal.clear();
        if let Some(expectations) = &mut self.expectations {
            expectations.clear(Which::Internal);
        }
        self.sweeps.set_whole(false);
    }

    /// Deletes from the kernel what the filter covers, and all expectations: their
    /// masters may be flows that it spares.
    pub(crate) fn start_kernel_flush(&mut self, id: CommandId, objects: Objects) {
        self.stats.kernel_flushes += 1;
        self.events
            .push_back(Event::FlushingKernel { scheduled: false });
        if objects.has_expectations() && self.expectations.is_some() {
            self.requests.push_back(KernelRequest {
                purpose: Purpose::Flush,
                ticket: None,
                step: 0,
                op: Op::FlushExpectations,
            });
        }
        if objects.has_flows() {
            self.sweeps.owe_flush(Some(id));
        } else {
            self.events.push_back(Event::Done(id));
        }
    }

    /// An entry of the dump that a flush reads. What the filter ignores is spared.
    pub(crate) fn flush_dumped(&mut self, flow: &Flow) {
        if self.settings.filter.keeps(flow) {
            self.requests.push_back(KernelRequest {
                purpose: Purpose::Flush,
                ticket: None,
                step: 0,
                op: Op::Delete(flow.key(), flow.id),
            });
        }
    }
}
