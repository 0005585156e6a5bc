//! A dump of a cache: a cursor that a client moves on by reading.

use control::Query;
use control::call::Tail;
use control::reply;
use control::rows::Beside;
use replica::{Age, Replica, Which};

use crate::listing::{self, Rows};

/// Entries in one part of a dump, and parts for a client in one turn.
const ENTRIES_PER_PART: usize = 64;
const PARTS_PER_TURN: usize = 16;

/// A dump under way.
#[derive(Debug)]
pub(crate) struct Dump {
    which: Which,
    form: Form,
    at: At,
    rows: u64,
}

/// Form of a dump's entries.
#[derive(Debug)]
pub(crate) enum Form {
    /// The original's lines.
    Line,
    /// The original's XML.
    Xml,
    /// Our rows, of what the query chooses.
    Ours { rows: Rows, query: Query },
}

/// How far a dump has come.
#[derive(Clone, Copy, Debug)]
enum At {
    Flows(cache::Position),
    /// Flows that a commit would put into the kernel.
    ToCommit(cache::Position),
    /// Behind this one.
    Expectations(Option<flow::ExpectKey>),
}

impl Dump {
    pub(crate) fn new(which: Which, is_expectations: bool, form: Form) -> Dump {
        let at = if is_expectations {
            At::Expectations(None)
        } else {
            At::Flows(cache::Position::default())
        };
        Dump {
            which,
            form,
            at,
            rows: 0,
        }
    }

    /// Rows of what a commit would put into the kernel, as it would ask for it.
    pub(crate) fn to_commit(rows: Rows, query: Query) -> Dump {
        Dump {
            at: At::ToCommit(cache::Position::default()),
            ..Dump::new(Which::External, false, Form::Ours { rows, query })
        }
    }

    /// Appends entries until `out` has about `mark` bytes; true at the end of the dump.
    pub(crate) fn fill(&mut self, replica: &Replica, mark: usize, out: &mut Vec<u8>) -> bool {
        // A query may choose nothing of millions: the walk has a bound, too.
        for _ in 0..PARTS_PER_TURN {
            if out.len() >= mark {
                return false;
            }
            match self.next_part(replica, out) {
                Some(at) => self.at = at,
                None => return true,
            }
        }
        false
    }

    /// What ends it; only our own protocol has that.
    pub(crate) fn tail(&self) -> Option<Tail> {
        matches!(self.form, Form::Ours { .. }).then(|| Tail::ok(self.rows))
    }

    /// Appends the next entries; `None` at the end.
    fn next_part(&mut self, replica: &Replica, out: &mut Vec<u8>) -> Option<At> {
        let Dump {
            which, form, rows, ..
        } = self;
        let which = *which;
        let mut text = String::new();
        let next = match self.at {
            At::Flows(position) => {
                let line = |flow: &flow::Flow, age: Age| match (&*form, which) {
                    (Form::Xml, _) => {
                        reply::flow_element(&mut text, flow, which == Which::Internal);
                    }
                    (Form::Line, Which::Internal) => {
                        reply::internal_line(&mut text, flow, age.active_secs);
                    }
                    (Form::Line, Which::External) => {
                        reply::external_line(&mut text, flow, age.active_secs, age.expires_secs);
                    }
                    (Form::Ours { rows: form, query }, _) => {
                        if query.holds(flow) {
                            *rows += 1;
                            listing::flow_row(out, *form, flow, || beside(which, age));
                        }
                    }
                };
                let next = replica.walk(which, position, ENTRIES_PER_PART, line);
                next.map(At::Flows)
            }
            At::ToCommit(position) => {
                let line = |flow: &flow::Flow, is_taken| match &*form {
                    Form::Ours { rows: form, query } if query.holds(flow) => {
                        *rows += 1;
                        let beside = || Beside {
                            taken: Some(is_taken),
                            ..Beside::default()
                        };
                        listing::flow_row(out, *form, flow, beside);
                    }
                    _ => {}
                };
                let next = replica.walk_to_commit(position, ENTRIES_PER_PART, line);
                next.map(At::ToCommit)
            }
            At::Expectations(behind) => {
                let line = |e: &flow::Expectation, age: Age| match &*form {
                    Form::Xml => reply::expectation_element(&mut text, e),
                    Form::Line => reply::expectation_line(&mut text, e, age.active_secs),
                    Form::Ours { rows: form, query } => {
                        if query.holds_expectation(e) {
                            *rows += 1;
                            listing::expectation_row(out, *form, e, beside(which, age));
                        }
                    }
                };
                let next = replica.walk_expectations(which, behind, ENTRIES_PER_PART, line);
                next.map(|key| At::Expectations(Some(key)))
            }
        };
        out.extend_from_slice(text.as_bytes());
        next
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
