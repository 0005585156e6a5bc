//! What clients of the control socket ask for, and what they are owed for it.
//!
//! Two protocols share the socket: the original's (a code, then text until the end) and
//! ours (`control::call`). Reading never waits for a client; long answers are cursors.

use control::call::{Call, Committed, Flush, Head, Outcome, Table, Tail, Task};
use control::{BadTerm, CacheKind, Object, Query, Request, StatsKind};
use replica::{Answer, Command, DumpScope, Instant, Mode, Objects, Which};

use crate::app::statistics_serves;
use crate::clients::ClientId;
use crate::dump::{Dump, Form};
use crate::follow::Follow;
use crate::host::Cause;
use crate::kernel::DumpSocket;
use crate::listing::{self, Listing, Rows};
use crate::session::{Asked, State};
use crate::turn::Loop;

/// What is wrong and what helps: nothing can be resynchronized with the kernel.
const NO_INTERNAL_CACHE: (&str, &str) = (
    "there is no internal cache (DisableInternalCache)",
    "nothing has to be read again: events go straight to the peer",
);
/// The same: the peer can neither be sent nor asked for everything.
const NO_CONTROL: (&str, &str) = (
    "Mode ALARM has no bulk update",
    "every flow is sent again within RefreshTime",
);

impl Loop<'_> {
    pub(crate) fn serve(&mut self, id: ClientId, now: Instant) {
        let Some(session) = self.host.clients.get(id) else {
            return;
        };
        match session.read() {
            Asked::Nothing => {}
            Asked::Cut => self.local_read_failed += 1,
            Asked::Unknown => self.local_unknown += 1,
            Asked::Request(request) => self.answer(id, now, request),
            Asked::Call(line) => match Call::parse(&line) {
                Ok(call) => self.answer_call(id, now, call),
                Err(head) => {
                    self.local_unknown += 1;
                    self.refuse(id, &head);
                }
            },
        }
    }

    // ---- the original's protocol ----

    fn answer(&mut self, id: ClientId, now: Instant, request: Request) {
        if self.host.statistics.is_some() && !statistics_serves(request) {
            return;
        }
        let command = match request {
            // What is not replicated has nothing to be done with.
            Request::Commit(Object::Expectations)
            | Request::FlushKernel(Object::Expectations)
            | Request::Resync(Object::Expectations)
            | Request::Dump {
                object: Object::Expectations,
                ..
            } if self.replica.settings().expectations.is_none() => return,
            Request::Stats(StatsKind::Process) => return,
            Request::Commit(object) => Command::Commit(to_objects(object)),
            Request::FlushCache(None) => Command::FlushCaches,
            Request::FlushCache(Some(CacheKind::Internal)) => Command::FlushInternal,
            Request::FlushCache(Some(CacheKind::External)) => Command::FlushExternal,
            Request::FlushKernel(object) => Command::FlushKernel(to_objects(object)),
            Request::ScheduleFlush => Command::ScheduleFlush,
            Request::Resync(object) => Command::Resync(to_objects(object)),
            Request::Bulk => Command::Bulk,
            Request::RequestResync => Command::RequestResync,
            Request::Stop => {
                self.stopping = true;
                return;
            }
            Request::Stats(kind) => {
                let text = self.stats(kind);
                if let Some(session) = self.host.clients.get(id) {
                    session.reply(text.as_bytes());
                }
                return;
            }
            Request::Dump { cache, object, xml } => {
                return self.start_dump(id, now, cache, object, xml);
            }
        };
        self.start_command(id, now, command, false);
    }

    fn start_command(&mut self, id: ClientId, now: Instant, command: Command, is_call: bool) {
        let command_id = self.new_command_id();
        self.note_command(command_id, command, now);
        if let Some(session) = self.host.clients.get(id) {
            session.state = State::Waiting {
                id: command_id,
                is_call,
            };
        }
        // What was reported before is not about the command.
        self.report_events(Cause::Anybody);
        self.replica.handle_command(now, command_id, command);
        self.report_events(Cause::Command);
    }

    fn start_dump(
        &mut self,
        id: ClientId,
        now: Instant,
        cache: CacheKind,
        object: Object,
        xml: bool,
    ) {
        let settings = self.replica.settings();
        let is_expectations = object == Object::Expectations;
        let which = match cache {
            CacheKind::Internal if settings.internal_cache => Which::Internal,
            CacheKind::External if settings.external_cache => Which::External,
            CacheKind::Internal => {
                let scope = if is_expectations {
                    DumpScope::Expectations
                } else {
                    DumpScope::All
                };
                return self.list_as_the_original(id, now, scope);
            }
            CacheKind::External => return,
        };
        // The client's protocol has no word for a refusal: the connection is closed.
        if self.host.clients.admit_reader(id, now).is_ok() {
            let form = if xml { Form::Xml } else { Form::Line };
            self.dump(id, which, is_expectations, form);
        }
    }

    /// Its own conversation with the kernel, so it gets its own thread.
    fn list_as_the_original(&mut self, id: ClientId, now: Instant, scope: DumpScope) {
        let Ok(reserved) = self.host.clients.admit_listing(id, now) else {
            return;
        };
        match DumpSocket::open() {
            Ok(socket) => {
                if let Some(session) = self.host.clients.take(id) {
                    reserved
                        .start(move || listing::as_the_original(&session.stream, socket, scope));
                }
            }
            Err(e) => drop(self.host.clients.refuse_reader(&format!("{e:#}"))),
        }
    }

    fn dump(&mut self, id: ClientId, which: Which, is_expectations: bool, form: Form) {
        if let Some(session) = self.host.clients.get(id) {
            session.state = State::Dumping(Dump::new(which, is_expectations, form));
        }
    }

    // ---- our own protocol ----

    fn refuse(&mut self, id: ClientId, head: &Head) {
        if let Some(session) = self.host.clients.get(id) {
            session.reply_json(head);
        }
    }

    fn answer_call(&mut self, id: ClientId, now: Instant, call: Call) {
        if let Err(head) = self.try_call(id, now, call) {
            self.refuse(id, &head);
        }
    }

    /// Begins an answer; an error is all there is to say.
    fn try_call(&mut self, id: ClientId, now: Instant, call: Call) -> Result<(), Head> {
        let json = call.json;
        self.check_call(&call.task)?;
        let bad_filter = |e: BadTerm| Head::error(e.to_string(), "correct the filter");
        let query = |filter: &[String]| Query::parse(filter).map_err(bad_filter);
        let command = match call.task {
            Task::Status => {
                let status = self.status();
                if let Some(session) = self.host.clients.get(id) {
                    session.reply_json(&Head::ok());
                    session.reply_json(&status);
                    session.reply_tail(&Tail::ok(1));
                }
                return Ok(());
            }
            Task::Flows {
                table,
                filter,
                count,
            } => {
                let list = Listing {
                    is_expectations: false,
                    rows: Rows::new(json, count),
                    query: query(&filter)?,
                };
                return self.list(id, now, table, list);
            }
            Task::Expectations {
                table,
                filter,
                count,
            } => {
                let query = Query::parse_for_expectations(&filter);
                let list = Listing {
                    is_expectations: true,
                    rows: Rows::new(json, count),
                    query: query.map_err(bad_filter)?,
                };
                return self.list(id, now, table, list);
            }
            Task::Rehearse => {
                let query = query(&[])?;
                self.host.clients.admit_reader(id, now)?;
                self.greet(id);
                if let Some(session) = self.host.clients.get(id) {
                    let dump = Dump::to_commit(Rows::new(json, false), query);
                    session.state = State::Dumping(dump);
                }
                return Ok(());
            }
            Task::Events { filter } => {
                let query = query(&filter)?;
                let everything = filter.is_empty();
                self.host.clients.admit_reader(id, now)?;
                self.greet(id);
                if let Some(session) = self.host.clients.get(id) {
                    session.state = State::Following(Follow::new(query, everything, json));
                }
                return Ok(());
            }
            Task::Commit { objects } => Command::Commit(to_objects(objects)),
            Task::Flush { what, objects } => match what {
                Flush::Internal => Command::FlushInternal,
                Flush::External => Command::FlushExternal,
                Flush::Caches => Command::FlushCaches,
                Flush::Kernel => Command::FlushKernel(to_objects(objects)),
                Flush::KernelLater => Command::ScheduleFlush,
            },
            Task::ResyncKernel { objects } => Command::Resync(to_objects(objects)),
            Task::ResyncPeer => Command::RequestResync,
            Task::Role { role, instance } => {
                return self.ask_role(id, role, instance.as_deref(), json);
            }
            Task::Bulk => Command::Bulk,
            Task::Forget { instance } => {
                let forgotten = self.changes.roles.forget(&instance);
                forgotten.map_err(|(error, help)| Head::error(error, help))?;
                self.greet(id);
                if let Some(session) = self.host.clients.get(id) {
                    session.reply_tail(&Tail::ok(0));
                }
                return Ok(());
            }
            Task::Stop => {
                self.greet(id);
                if let Some(session) = self.host.clients.get(id) {
                    session.reply_tail(&Tail::ok(0));
                    session.write(now);
                }
                self.stopping = true;
                return Ok(());
            }
        };
        self.greet(id);
        self.start_command(id, now, command, true);
        Ok(())
    }

    /// What cannot be done as the daemon is configured.
    fn check_call(&self, task: &Task) -> Result<(), Head> {
        let settings = self.replica.settings();
        let no = |error: &str, help: &str| Err(Head::error(error, help));
        match task {
            Task::Commit { .. }
            | Task::Rehearse
            | Task::Flush {
                what: Flush::External | Flush::KernelLater,
                ..
            }
            | Task::Flows {
                table: Table::External,
                ..
            }
            | Task::Expectations {
                table: Table::External,
                ..
            }
            | Task::Bulk
            | Task::ResyncPeer
            | Task::Role { .. }
                if self.host.statistics.is_some() =>
            {
                no(
                    "the daemon keeps statistics and has no peer",
                    "it replicates if its file has a `Sync` instead of a `Stats` section",
                )
            }
            Task::Flows { table, .. } | Task::Expectations { table, .. }
                if *table == Table::Internal && !settings.internal_cache =>
            {
                no(
                    "there is no internal cache (DisableInternalCache)",
                    "read the kernel's table",
                )
            }
            Task::ResyncKernel { .. } if !settings.internal_cache => {
                no(NO_INTERNAL_CACHE.0, NO_INTERNAL_CACHE.1)
            }
            Task::Expectations { table, .. }
                if *table != Table::Kernel && settings.expectations.is_none() =>
            {
                no(
                    "expectations are not replicated",
                    "set ExpectationSync in Sync { Options }, or read the kernel's table",
                )
            }
            Task::Commit { objects }
            | Task::Flush { objects, .. }
            | Task::ResyncKernel { objects }
                if *objects == Object::Expectations && settings.expectations.is_none() =>
            {
                no(
                    "expectations are not replicated",
                    "set ExpectationSync in Sync { Options }",
                )
            }
            Task::Events { .. } if self.host.events.is_none() => no(
                "the daemon polls the kernel's table and hears no events (PollSecs)",
                "leave PollSecs out",
            ),
            Task::Bulk | Task::ResyncPeer if settings.mode == Mode::Alarm => {
                no(NO_CONTROL.0, NO_CONTROL.1)
            }
            _ => Ok(()),
        }
    }

    fn greet(&mut self, id: ClientId) {
        if let Some(session) = self.host.clients.get(id) {
            session.reply_json(&Head::ok());
        }
    }

    fn list(
        &mut self,
        id: ClientId,
        now: Instant,
        table: Table,
        list: Listing,
    ) -> Result<(), Head> {
        let which = match table {
            Table::Internal => Which::Internal,
            Table::External => Which::External,
            Table::Kernel => {
                let reserved = self.host.clients.admit_listing(id, now)?;
                self.greet(id);
                if let Some(mut session) = self.host.clients.take(id) {
                    session.write(now);
                    reserved.start(move || list.write_to(&session.stream));
                }
                return Ok(());
            }
        };
        self.host.clients.admit_reader(id, now)?;
        self.greet(id);
        let Listing {
            is_expectations,
            rows,
            query,
        } = list;
        self.dump(id, which, is_expectations, Form::Ours { rows, query });
        Ok(())
    }
}

/// What a call's client gets for the answer to its command.
pub(crate) fn tail_of(answer: Answer) -> Tail {
    match answer {
        Answer::Done => Tail::ok(0),
        Answer::NothingToCommit => Tail {
            commit: Some(Committed {
                created: 0,
                updated: 0,
                failed: 0,
                seconds: 0.0,
            }),
            ..Tail::ok(0)
        },
        Answer::Committed {
            created,
            updated,
            failed,
            took,
        } => Tail {
            status: if failed > 0 {
                Outcome::Partial
            } else {
                Outcome::Ok
            },
            commit: Some(Committed {
                created,
                updated,
                failed,
                seconds: took.as_secs_f64(),
            }),
            ..Tail::ok(0)
        },
        Answer::CommitRunning => Tail::error(
            "a commit is running",
            "wait for its end: `ftfw status` shows it",
        ),
        Answer::FlushIncomplete(_) => Tail::error(
            "the kernel's table is not flushed to its end",
            "look at the log, and flush again",
        ),
        Answer::CommitReadsCache => Tail::error(
            "a commit is reading the external cache",
            "flush after its end",
        ),
        Answer::NoInternalCache => Tail::error(NO_INTERNAL_CACHE.0, NO_INTERNAL_CACHE.1),
        Answer::NoControl => Tail::error(NO_CONTROL.0, NO_CONTROL.1),
    }
}

fn to_objects(object: Object) -> Objects {
    match object {
        Object::Flows => Objects::Flows,
        Object::Expectations => Objects::Expectations,
        Object::All => Objects::All,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use replica::Shortfall;

    use super::*;

    fn committed(failed: u64) -> Tail {
        tail_of(Answer::Committed {
            created: 5,
            updated: 2,
            failed,
            took: Duration::from_millis(250),
        })
    }

    #[test]
    fn a_commit_is_answered_with_its_numbers_and_is_partial_if_any_flow_failed() {
        let tail = committed(0);
        assert_eq!(tail.status, Outcome::Ok);
        let numbers = Committed {
            created: 5,
            updated: 2,
            failed: 0,
            seconds: 0.25,
        };
        assert_eq!(tail.commit, Some(numbers));
        assert_eq!(committed(1).status, Outcome::Partial);
    }

    #[test]
    fn what_was_refused_or_not_ended_is_an_error_with_help() {
        let errors = [
            Answer::CommitRunning,
            Answer::CommitReadsCache,
            Answer::FlushIncomplete(Shortfall::DumpFailed),
            Answer::NoInternalCache,
            Answer::NoControl,
        ];
        for tail in errors.map(tail_of) {
            assert_eq!(tail.status, Outcome::Error);
            assert!(tail.error.is_some() && tail.help.is_some());
        }
        assert_eq!(tail_of(Answer::Done), Tail::ok(0));
        let tail = tail_of(Answer::NothingToCommit);
        assert_eq!(tail.status, Outcome::Ok);
        assert_eq!(tail.commit.map(|c| c.created), Some(0));
    }
}
