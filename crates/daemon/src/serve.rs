//! Control clients: who asks what, and what each is still owed.
//!
//! Two protocols share the socket: the original's (a code, then text until the end) and
//! ours (`control::call`). Reading never waits for a client; long answers are cursors.

use control::call::{Call, Committed, Flush, Head, Outcome, Table, Tail, Task};
use control::reply;
use control::rows::{Beside, EventRow, ExpectationRow, FlowRow, LostRow};
use control::{CacheKind, Object, Query, Request, StatsKind};
use replica::{
    Age, Change, Command, CommandId, DumpScope, Event, Instant, Objects, Origin, Replica, Which,
};
use wire::v1::Mode;

use crate::kernel::{DumpSocket, Run};
use crate::listing;
use crate::session::{Asked, At, Backlog, Dump, Follow, Form, HIGH_MARK, Session, State};
use crate::turn::{Cause, Loop};

/// Entries in one part of a dump, and parts for a client in one turn.
const ENTRIES_PER_PART: usize = 64;
const PARTS_PER_TURN: usize = 16;
/// A follower that has this many bytes unread misses what comes then.
const FOLLOW_MAX_BYTES: usize = 1 << 20;

impl Loop {
    pub(crate) fn serve(&mut self, token: u64, now: Instant) {
        let Some(session) = self.sessions.get_mut(&token) else {
            return;
        };
        match session.read() {
            Asked::Nothing => {}
            Asked::Cut => self.local_read_failed += 1,
            Asked::Unknown => self.local_unknown += 1,
            Asked::Request(request) => self.answer(token, now, request),
            Asked::Call(line) => match Call::parse(&line) {
                Ok(call) => self.answer_call(token, now, call),
                Err(head) => {
                    self.local_unknown += 1;
                    self.refuse(token, &head);
                }
            },
        }
    }

    // ---- the original's protocol ----

    fn answer(&mut self, token: u64, now: Instant, request: Request) {
        let command = match request {
            // What is not replicated has nothing to be done with.
            Request::Commit(Object::Expectations)
            | Request::FlushKernel(Object::Expectations)
            | Request::Resync(Object::Expectations)
            | Request::Dump {
                object: Object::Expectations,
                ..
            } if self.core.replica.settings().expectations.is_none() => return,
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
                if let Some(session) = self.sessions.get_mut(&token) {
                    session.reply(text.as_bytes());
                }
                return;
            }
            Request::Dump { cache, object, xml } => {
                return self.start_dump(token, cache, object, xml);
            }
        };
        self.start_command(token, now, command, false);
    }

    fn start_command(&mut self, token: u64, now: Instant, command: Command, is_call: bool) {
        let id = CommandId(self.next_command);
        self.next_command += 1;
        if let Some(session) = self.sessions.get_mut(&token) {
            session.state = State::Waiting { id, is_call };
        }
        // What has been said before is not about the command.
        self.hear(Cause::Anybody);
        self.core.replica.handle_command(now, id, command);
        self.hear(Cause::Command);
    }

    fn start_dump(&mut self, token: u64, cache: CacheKind, object: Object, xml: bool) {
        let settings = self.core.replica.settings();
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
                return self.list_as_the_original(token, scope);
            }
            CacheKind::External => return,
        };
        // The client's protocol has no word for a refusal: the connection is closed.
        if self.admit_reader(token).is_ok() {
            let form = if xml { Form::Xml } else { Form::Line };
            self.dump(token, which, is_expectations, form);
        }
    }

    /// Its own conversation with the kernel, so it gets its own thread.
    fn list_as_the_original(&mut self, token: u64, scope: DumpScope) {
        let Ok(reserved) = self.admit_listing(token) else {
            return;
        };
        match DumpSocket::open() {
            Ok(socket) => {
                if let Some(session) = self.sessions.remove(&token) {
                    reserved
                        .start(move || listing::as_the_original(&session.stream, socket, scope));
                }
            }
            Err(e) => drop(self.refuse_reader(&format!("{e:#}"))),
        }
    }

    fn dump(&mut self, token: u64, which: Which, is_expectations: bool, form: Form) {
        if let Some(session) = self.sessions.get_mut(&token) {
            session.state = State::Dumping(Dump {
                which,
                form,
                at: if is_expectations {
                    At::Expectations(None)
                } else {
                    At::Flows(cache::Position::default())
                },
                rows: 0,
            });
        }
    }

    // ---- our own protocol ----

    fn refuse(&mut self, token: u64, head: &Head) {
        if let Some(session) = self.sessions.get_mut(&token) {
            session.reply_json(head);
        }
    }

    fn answer_call(&mut self, token: u64, now: Instant, call: Call) {
        if let Err(head) = self.try_call(token, now, call) {
            self.refuse(token, &head);
        }
    }

    /// Begins an answer; an error is all there is to say.
    fn try_call(&mut self, token: u64, now: Instant, call: Call) -> Result<(), Head> {
        let json = call.json;
        self.check_call(&call.task)?;
        let query = |filter: &[String]| {
            Query::parse(filter).map_err(|e| Head::error(e.to_string(), "correct the filter"))
        };
        let command = match call.task {
            Task::Status => {
                let status = self.status();
                if let Some(session) = self.sessions.get_mut(&token) {
                    session.reply_json(&Head::ok());
                    session.reply_json(&status);
                    session.reply_tail(&Tail::ok(1));
                }
                return Ok(());
            }
            Task::Flows { table, filter } => {
                let query = query(&filter)?;
                return self.list(token, table, false, json, query);
            }
            Task::Expectations { table } => {
                return self.list(token, table, true, json, Query::default());
            }
            Task::Events { filter } => {
                let query = query(&filter)?;
                let everything = filter.is_empty();
                self.admit_reader(token)?;
                self.greet(token);
                if let Some(session) = self.sessions.get_mut(&token) {
                    session.state = State::Following(Follow {
                        query,
                        everything,
                        backlog: Backlog { json, lost: 0 },
                    });
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
            Task::Bulk => Command::Bulk,
            Task::Stop => {
                self.greet(token);
                if let Some(session) = self.sessions.get_mut(&token) {
                    session.reply_tail(&Tail::ok(0));
                    session.write();
                }
                self.stopping = true;
                return Ok(());
            }
        };
        self.greet(token);
        self.start_command(token, now, command, true);
        Ok(())
    }

    /// What cannot be done as the daemon is configured.
    fn check_call(&self, task: &Task) -> Result<(), Head> {
        let settings = self.core.replica.settings();
        let no = |error: &str, help: &str| Err(Head::error(error, help));
        match task {
            Task::Flows { table, .. } | Task::Expectations { table }
                if *table == Table::Internal && !settings.internal_cache =>
            {
                no(
                    "there is no internal cache (DisableInternalCache)",
                    "read the kernel's table",
                )
            }
            Task::ResyncKernel { .. } if !settings.internal_cache => no(
                "there is no internal cache (DisableInternalCache)",
                "nothing has to be read again: events go straight to the peer",
            ),
            Task::Expectations { table }
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
            Task::Events { .. } if self.core.events.is_none() => no(
                "the daemon polls the kernel's table and hears no events (PollSecs)",
                "leave PollSecs out",
            ),
            Task::Bulk | Task::ResyncPeer if settings.mode == Mode::Alarm => no(
                "Mode ALARM has no bulk update",
                "every flow is sent again within RefreshTime",
            ),
            _ => Ok(()),
        }
    }

    fn greet(&mut self, token: u64) {
        if let Some(session) = self.sessions.get_mut(&token) {
            session.reply_json(&Head::ok());
        }
    }

    fn list(
        &mut self,
        token: u64,
        table: Table,
        is_expectations: bool,
        json: bool,
        query: Query,
    ) -> Result<(), Head> {
        let which = match table {
            Table::Internal => Which::Internal,
            Table::External => Which::External,
            Table::Kernel => {
                let reserved = self.admit_listing(token)?;
                self.greet(token);
                if let Some(mut session) = self.sessions.remove(&token) {
                    session.write();
                    let list = listing::Listing {
                        is_expectations,
                        json,
                        query,
                    };
                    reserved.start(move || list.write_to(&session.stream));
                }
                return Ok(());
            }
        };
        self.admit_reader(token)?;
        self.greet(token);
        self.dump(token, which, is_expectations, Form::Ours { json, query });
        Ok(())
    }

    /// A command is over; `last` is what was said before it.
    pub(crate) fn command_done(&mut self, id: CommandId, last: Option<&Event>) {
        for session in self.sessions.values_mut() {
            let State::Waiting {
                id: waits_for,
                is_call,
            } = session.state
            else {
                continue;
            };
            if waits_for != id {
                continue;
            }
            session.state = State::Replying;
            if is_call {
                session.reply_tail(&tail_of(last));
            }
        }
    }

    /// Shows followers the events that have just been read.
    pub(crate) fn show_events(&mut self) {
        let Loop {
            sessions, events, ..
        } = self;
        let follows = |s: &&mut Session| matches!(s.state, State::Following(_));
        for session in sessions.values_mut().filter(follows) {
            let State::Following(mut follow) =
                std::mem::replace(&mut session.state, State::Replying)
            else {
                continue;
            };
            for run in events.runs() {
                match run {
                    Run::Flows(events) => {
                        for event in events.iter().filter(|e| follow.query.holds(&e.flow)) {
                            let what = What::Flow(&event.flow);
                            let (change, origin) = (event.change, event.origin);
                            show(session, &mut follow.backlog, change, origin, what);
                        }
                    }
                    Run::Expectation(event) if follow.everything => {
                        let what = What::Expectation(&event.expectation);
                        let (change, origin) = (event.change, event.origin);
                        show(session, &mut follow.backlog, change, origin, what);
                    }
                    Run::Expectation(_) => {}
                }
            }
            session.state = State::Following(follow);
        }
    }

    /// Fills the buffers of clients that read a dump.
    pub(crate) fn dump_to_clients(&mut self) {
        for session in self.sessions.values_mut() {
            if !session.wants_more() {
                continue;
            }
            let State::Dumping(mut dump) = std::mem::replace(&mut session.state, State::Replying)
            else {
                continue;
            };
            let mut text = Vec::with_capacity(HIGH_MARK);
            let mut is_over = false;
            // A query may choose nothing of millions: the walk has a bound, too.
            for _ in 0..PARTS_PER_TURN {
                if text.len() >= HIGH_MARK || is_over {
                    break;
                }
                match next_part(&self.core.replica, &mut dump, &mut text) {
                    Some(at) => dump.at = at,
                    None => is_over = true,
                }
            }
            session.reply(&text);
            if !is_over {
                session.state = State::Dumping(dump);
            } else if matches!(dump.form, Form::Ours { .. }) {
                session.reply_tail(&Tail::ok(dump.rows));
            }
        }
    }
}

/// What an event is about.
#[derive(Clone, Copy)]
enum What<'a> {
    Flow(&'a flow::Flow),
    Expectation(&'a flow::Expectation),
}

/// Appends an event, or counts it if the client is too slow.
fn show(
    session: &mut Session,
    backlog: &mut Backlog,
    change: Change,
    origin: Origin,
    what: What<'_>,
) {
    if session.unread() > FOLLOW_MAX_BYTES {
        backlog.lost += 1;
        return;
    }
    let lost = std::mem::take(&mut backlog.lost);
    let (change, origin) = (change_name(change), origin_name(origin));
    if backlog.json {
        if lost > 0 {
            session.reply_json(&LostRow { lost });
        }
        let mut row = EventRow {
            event: change,
            origin,
            flow: None,
            expectation: None,
        };
        match what {
            What::Flow(f) => row.flow = Some(FlowRow::new(f, Beside::default())),
            What::Expectation(e) => {
                row.expectation = Some(ExpectationRow::new(e, Beside::default()));
            }
        }
        return session.reply_json(&row);
    }
    if lost > 0 {
        session.reply(format!("[LOST] {lost} events\n").as_bytes());
    }
    let what = match what {
        What::Flow(f) => f.to_string(),
        What::Expectation(e) => format!("expectation {e}"),
    };
    let text = format!("[{}] {what} ({origin})\n", change.to_uppercase());
    session.reply(text.as_bytes());
}

fn change_name(change: Change) -> &'static str {
    match change {
        Change::New => "new",
        Change::Update => "update",
        Change::Destroy => "destroy",
    }
}

fn origin_name(origin: Origin) -> &'static str {
    match origin {
        Origin::Traffic => "traffic",
        Origin::Commit => "commit",
        Origin::Inject => "inject",
    }
}

/// How a command has gone, by what was said last before its end.
fn tail_of(last: Option<&Event>) -> Tail {
    match last {
        Some(Event::Committed {
            created,
            updated,
            failed,
            took,
        }) => Tail {
            status: if *failed > 0 {
                Outcome::Partial
            } else {
                Outcome::Ok
            },
            commit: Some(Committed {
                created: *created,
                updated: *updated,
                failed: *failed,
                seconds: took.as_secs_f64(),
            }),
            ..Tail::ok(0)
        },
        Some(Event::CommitRunning) => Tail::error(
            "a commit is running",
            "wait for its end: `ftfw status` shows it",
        ),
        Some(Event::FlushIncomplete { .. }) => Tail::error(
            "the kernel's table is not flushed to its end",
            "look at the log, and flush again",
        ),
        Some(Event::FlushRefused) => Tail::error(
            "a commit is reading the external cache",
            "flush after its end",
        ),
        _ => Tail::ok(0),
    }
}

fn to_objects(object: Object) -> Objects {
    match object {
        Object::Flows => Objects::Flows,
        Object::Expectations => Objects::Expectations,
        Object::All => Objects::All,
    }
}

/// What a cache knows beside a flow or an expectation.
fn beside(which: Which, age: Age) -> Beside {
    let known = Some(age.is_announced);
    Beside {
        age: Some(age.active_secs),
        expires: age.expires_secs,
        announced: known.filter(|_| which == Which::Internal),
        confirmed: known.filter(|_| which == Which::External),
        ..Beside::default()
    }
}

/// Appends the next entries of a dump; `None` at its end.
fn next_part(replica: &Replica, dump: &mut Dump, out: &mut Vec<u8>) -> Option<At> {
    let which = dump.which;
    let mut text = String::new();
    let next = match dump.at {
        At::Flows(position) => {
            let line = |flow: &flow::Flow, age: Age| match (&dump.form, which) {
                (Form::Xml, _) => reply::flow_element(&mut text, flow, which == Which::Internal),
                (Form::Line, Which::Internal) => {
                    reply::internal_line(&mut text, flow, age.active_secs);
                }
                (Form::Line, Which::External) => {
                    reply::external_line(&mut text, flow, age.active_secs, age.expires_secs);
                }
                (Form::Ours { json, query }, _) => {
                    if query.holds(flow) {
                        dump.rows += 1;
                        listing::flow_row(out, *json, flow, beside(which, age));
                    }
                }
            };
            let next = replica.walk(which, position, ENTRIES_PER_PART, line);
            next.map(At::Flows)
        }
        At::Expectations(behind) => {
            let line = |e: &flow::Expectation, age: Age| match &dump.form {
                Form::Xml => reply::expectation_element(&mut text, e),
                Form::Line => reply::expectation_line(&mut text, e, age.active_secs),
                Form::Ours { json, .. } => {
                    dump.rows += 1;
                    listing::expectation_row(out, *json, e, beside(which, age));
                }
            };
            let next = replica.walk_expectations(which, behind, ENTRIES_PER_PART, line);
            next.map(|key| At::Expectations(Some(key)))
        }
    };
    out.extend_from_slice(text.as_bytes());
    next
}
