//! The conversation with the kernel about one flow, for commit and injection alike: what is
//! asked next after each outcome. It knows no cache and counts nothing.
//!
//! ```text
//!  Create ──done──▶ written        (Get first, if the kernel is known to have the flow)
//!    │ ▲ └─refused─▶ once more without helper or master, then failed
//!    │ │
//!    │ └──────────────────────────────────────────────┐
//!    └─exists─▶ Get ─┬─ same flow ──▶ Update ─done─▶ written
//!                    │                  └─refused──▶ failed (the first one: Get)
//!                    ├─ other reply tuple, or a former life ──▶ Delete ─▶ Create
//!                    ├─ the kernel has seen more ──▶ kept
//!                    ├─ nothing ──▶ Create, once
//!                    └─ another flow, or nothing twice ──▶ clash
//!
//!  end: Get ─┬─ at rest as injected ──▶ Delete ──▶ gone
//!            └─ seen traffic since, or not ours ──▶ spared
//! ```
//!
//! `EEXIST` is a question, not an order: the kernel's entry is read, and brought up to date
//! if it is the same flow, so that a second commit changes nothing.

use flow::{Flow, FlowKey, Status};

use crate::kernel::{Found, KernelError, Op, Outcome};
use crate::sweep::SLACK_SECS;

/// Most requests about one entry: create, get, delete, create and two lesser creates.
pub(crate) const STEPS_MAX: u8 = 8;

/// What the kernel is to hold, and what is known beside.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// The flow as the peer announced it, with the timeout that it is to get.
    pub wanted: Flow,
    /// Requests about it before the one that has been answered.
    pub step: u8,
    /// The peer has announced the flow since our kernel last saw traffic of it.
    pub is_taken: bool,
    /// What the kernel has under this tuple is what we once wrote there.
    pub is_our_copy: bool,
}

/// What follows an outcome.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "lives for one call")]
pub enum Next {
    /// Another request about the same flow.
    Ask(Op),
    /// The same, without what made the kernel refuse it.
    AskForLess(Op),
    /// The kernel has the flow, which is new to it.
    Created(Flow),
    /// The kernel has the flow, which it had before.
    Updated(Flow),
    /// The kernel has seen more than the peer: its entry stays as it is.
    Kept(Flow),
    /// One of its tuples belongs to another flow.
    Clash,
    /// The kernel does not take it.
    Refused(KernelError),
    /// It was asked too often.
    GivenUp,
}

/// What follows the outcome of a request that was to write a flow.
pub fn next(attempt: &Attempt, asked: &Op, outcome: &Outcome) -> Next {
    let wanted = attempt.wanted;
    let key = wanted.key();
    let next = match (asked, outcome) {
        (Op::Create(flow), Outcome::Done) => return Next::Created(*flow),
        (Op::Update(flow), Outcome::Done) => return Next::Updated(*flow),
        (Op::Create(_), Outcome::Failed(KernelError::Exists)) => Next::Ask(Op::Get(key)),
        (Op::Create(tried), Outcome::Failed(error)) => {
            return match without_what_fails(*tried, *error) {
                Some(lesser) => Next::AskForLess(Op::Create(lesser)),
                None => Next::Refused(*error),
            };
        }
        (Op::Get(_), Outcome::Found(found)) if found.flow.key() != key => Next::Clash,
        (Op::Get(_), Outcome::Found(found)) => {
            let held = &found.flow;
            match reconcile(held, &wanted, attempt.is_taken) {
                Reconciled::Update(update) if is_written(found, &update) => Next::Updated(*held),
                Reconciled::Update(update) => Next::Ask(Op::Update(update)),
                Reconciled::Replace => Next::Ask(Op::Delete(key, held.id)),
                // It is what we wrote of a former life of the flow.
                Reconciled::Keep if attempt.is_our_copy => Next::Ask(Op::Delete(key, held.id)),
                Reconciled::Keep => Next::Kept(*held),
            }
        }
        // It may have gone between the two requests. If it goes twice, the other tuple is
        // the one that is taken.
        (Op::Get(_), Outcome::Failed(KernelError::NotFound)) if attempt.step <= 1 => {
            Next::Ask(Op::Create(wanted))
        }
        (Op::Get(_), Outcome::Failed(KernelError::NotFound)) => Next::Clash,
        (Op::Delete(..), _) => Next::Ask(Op::Create(wanted)),
        (Op::Update(_), Outcome::Failed(KernelError::NotFound)) => Next::Ask(Op::Create(wanted)),
        (Op::Update(_), Outcome::Failed(_)) if attempt.step == 0 => Next::Ask(Op::Get(key)),
        (_, Outcome::Failed(error)) => Next::Refused(*error),
        _ => Next::GivenUp,
    };
    match next {
        Next::Ask(_) if attempt.step + 1 >= STEPS_MAX => Next::GivenUp,
        next => next,
    }
}

/// What follows the outcome of a request about a flow that is to go.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "lives for one call")]
pub(crate) enum NextOfEnd {
    Ask(Op),
    /// The kernel has just written it: the end came meanwhile. The request is the one that
    /// reads it.
    WrittenThenAsk(Op),
    /// We have deleted it.
    Deleted,
    /// The kernel has it no more, or it is another one.
    Gone,
    /// Our kernel has seen traffic of it: it stays.
    Spared,
    Refused,
}

/// The same for the end of a flow. `has_seen_traffic` judges the kernel's entry.
pub(crate) fn next_of_end(
    flow: &Flow,
    asked: &Op,
    outcome: &Outcome,
    has_seen_traffic: impl FnOnce(&Flow) -> bool,
) -> NextOfEnd {
    let key: FlowKey = flow.key();
    match (asked, outcome) {
        (Op::Get(_), Outcome::Found(found)) => {
            let held = &found.flow;
            if held.key() != key || held.reply != flow.reply {
                NextOfEnd::Gone
            } else if has_seen_traffic(held) {
                NextOfEnd::Spared
            } else {
                NextOfEnd::Ask(Op::Delete(key, held.id))
            }
        }
        (Op::Delete(..), Outcome::Done) => NextOfEnd::Deleted,
        (Op::Delete(..), Outcome::Failed(error)) if *error != KernelError::NotFound => {
            NextOfEnd::Refused
        }
        (Op::Create(_) | Op::Update(_), Outcome::Done) => NextOfEnd::WrittenThenAsk(Op::Get(key)),
        (Op::Create(_) | Op::Update(_), _) => NextOfEnd::Ask(Op::Get(key)),
        _ => NextOfEnd::Gone,
    }
}

/// The flow without the part that made the kernel refuse it; `None` if nothing is left to try.
fn without_what_fails(tried: Flow, error: KernelError) -> Option<Flow> {
    match error {
        KernelError::Unsupported if tried.helper.is_some() => Some(Flow {
            helper: None,
            ..tried
        }),
        // Its master has gone; the flow itself lives.
        KernelError::NotFound if tried.master.is_some() => Some(Flow {
            master: None,
            ..tried
        }),
        _ => None,
    }
}

/// What is to be done with an entry of the kernel for which the peer sent something else.
#[allow(clippy::large_enum_variant, reason = "lives for one call")]
enum Reconciled {
    /// It is brought up to date.
    Update(Flow),
    /// It is another flow, or a former life of this one.
    Replace,
    /// The kernel has seen more.
    Keep,
}

/// Status bits that only packets set, and that nothing can take back.
const STEPS: u32 = Status::SEEN_REPLY.0 | Status::ASSURED.0;

/// Compares an entry of the kernel with what the peer sent of the same original tuple.
///
/// What packets have done here is never taken back. But an entry whose flow the peer has
/// announced since is a copy, or a former life of the flow: the peer knows better.
fn reconcile(held: &Flow, sent: &Flow, is_taken: bool) -> Reconciled {
    if held.reply != sent.reply {
        return Reconciled::Replace;
    }
    let progress = |f: &Flow| f.tcp_state().map(flow::TcpState::progress);
    let has_more_steps = held.status.0 & !sent.status.0 & STEPS != 0;
    if progress(held) > progress(sent) || has_more_steps {
        if is_taken {
            return Reconciled::Replace;
        }
        if progress(held) > progress(sent) || held.timeout >= sent.timeout {
            return Reconciled::Keep;
        }
        // It may be a former life of the flow: at least it does not end before this one.
        return Reconciled::Update(Flow {
            reply: sent.reply,
            zone: sent.zone,
            status: held.status,
            timeout: sent.timeout,
            ..Flow::new(sent.orig)
        });
    }
    let mut update = *sent;
    update.status = Status(held.status.0 | sent.status.0 & STEPS);
    // The kernel refuses the name of any other one.
    update.helper = held.helper;
    // Both are rounded.
    let lasts = |held: u32, sent: u32| held.saturating_add(SLACK_SECS) >= sent;
    let is_long_enough = match (held.timeout, sent.timeout) {
        (Some(held), Some(sent)) => lasts(held, sent),
        (held, sent) => held >= sent,
    };
    if progress(held) == progress(sent) && is_long_enough {
        update.timeout = None;
    }
    Reconciled::Update(update)
}

/// True if an update would change nothing. One of a flow with a helper does more than its fields
/// say: the helper takes up the connection where it is.
fn is_written(found: &Found, update: &Flow) -> bool {
    let held = &found.flow;
    let has_windows = held.tcp().is_some();
    update.timeout.is_none()
        && update.helper.is_none()
        && (found.is_liberal || !has_windows)
        && held.is_unchanged_by(update)
}

#[cfg(test)]
mod tests {
    use flow::{Addrs, L4, Name, Proto, ProtoInfo, TcpInfo, TcpState, Tuple};

    use super::*;

    fn tcp(state: TcpState, timeout: u32) -> Flow {
        let orig = Tuple {
            addrs: Addrs::V4 {
                src: [10, 0, 0, 1].into(),
                dst: [10, 0, 0, 2].into(),
            },
            proto: Proto::TCP,
            l4: L4::Ports { src: 1000, dst: 80 },
        };
        Flow {
            timeout: Some(timeout),
            proto_info: Some(ProtoInfo::Tcp(TcpInfo {
                state,
                window_scale: None,
            })),
            ..Flow::new(orig)
        }
    }

    fn attempt(wanted: Flow, step: u8) -> Attempt {
        Attempt {
            wanted,
            step,
            is_taken: false,
            is_our_copy: false,
        }
    }

    fn found(flow: Flow) -> Outcome {
        found_with(flow, false)
    }

    fn found_with(flow: Flow, is_liberal: bool) -> Outcome {
        Outcome::Found(Box::new(Found { flow, is_liberal }))
    }

    /// Goal: what the kernel has as it is to be is written once: a second commit asks and no more.
    #[test]
    fn an_update_that_would_change_nothing_is_left_out() {
        let wanted = tcp(TcpState::ESTABLISHED, 100);
        let get = Op::Get(wanted.key());
        let next_of = |held: Flow, is_liberal, wanted: Flow| {
            next(&attempt(wanted, 0), &get, &found_with(held, is_liberal))
        };
        let held = tcp(TcpState::ESTABLISHED, 99);
        assert_eq!(next_of(held, true, wanted), Next::Updated(held));
        let is_asked = |next| matches!(next, Next::Ask(Op::Update(_)));
        assert!(is_asked(next_of(held, false, wanted)), "strict windows");
        let marked = Flow {
            mark: Some(flow::Mark(1)),
            ..wanted
        };
        assert!(is_asked(next_of(held, true, marked)));
        let longer = tcp(TcpState::ESTABLISHED, 200);
        assert!(is_asked(next_of(held, true, longer)));
        let helped = Flow {
            helper: Name::new(b"ftp"),
            ..held
        };
        assert!(
            is_asked(next_of(helped, true, wanted)),
            "it takes up the connection"
        );
    }

    #[test]
    fn a_new_flow_is_created_and_one_that_is_there_is_brought_up_to_date() {
        let wanted = tcp(TcpState::ESTABLISHED, 100);
        let create = Op::Create(wanted);
        assert_eq!(
            next(&attempt(wanted, 0), &create, &Outcome::Done),
            Next::Created(wanted)
        );
        let exists = Outcome::Failed(KernelError::Exists);
        let get = Op::Get(wanted.key());
        assert_eq!(
            next(&attempt(wanted, 0), &create, &exists),
            Next::Ask(Op::Get(wanted.key()))
        );
        let held = tcp(TcpState::ESTABLISHED, 50);
        let Next::Ask(Op::Update(update)) = next(&attempt(wanted, 1), &get, &found(held)) else {
            panic!("an update");
        };
        assert_eq!(update.timeout, Some(100));
        // A second time nothing is left to be changed: not even the timeout.
        let Next::Ask(Op::Update(update)) = next(&attempt(wanted, 1), &get, &found(wanted)) else {
            panic!("an update");
        };
        assert_eq!(update.timeout, None);
    }

    #[test]
    fn what_packets_have_done_here_is_kept_but_a_copy_is_not() {
        let wanted = tcp(TcpState::ESTABLISHED, 100);
        let ahead = tcp(TcpState::TIME_WAIT, 100);
        let get = Op::Get(wanted.key());
        let mut attempt = attempt(wanted, 1);
        assert_eq!(
            next(&attempt, &get, &found(ahead)),
            Next::Kept(ahead),
            "the kernel has seen more"
        );
        let delete = Next::Ask(Op::Delete(wanted.key(), None));
        attempt.is_our_copy = true;
        assert_eq!(next(&attempt, &get, &found(ahead)), delete);
        attempt.is_our_copy = false;
        attempt.is_taken = true;
        assert_eq!(next(&attempt, &get, &found(ahead)), delete);
        let asked = Op::Delete(wanted.key(), None);
        let create = Next::Ask(Op::Create(wanted));
        assert_eq!(next(&attempt, &asked, &Outcome::Done), create);
    }

    #[test]
    fn a_tuple_that_is_taken_twice_is_a_clash() {
        let wanted = tcp(TcpState::ESTABLISHED, 100);
        let get = Op::Get(wanted.key());
        let nothing = Outcome::Failed(KernelError::NotFound);
        let create = Next::Ask(Op::Create(wanted));
        assert_eq!(next(&attempt(wanted, 1), &get, &nothing), create);
        assert_eq!(next(&attempt(wanted, 3), &get, &nothing), Next::Clash);
        let mut other = wanted;
        other.orig = wanted.orig.inverted();
        assert_eq!(
            next(&attempt(wanted, 1), &get, &found(other)),
            Next::Clash,
            "the kernel finds a tuple in both directions"
        );
    }

    #[test]
    fn less_is_tried_when_the_kernel_lacks_something_and_no_exchange_is_endless() {
        let mut wanted = tcp(TcpState::ESTABLISHED, 100);
        wanted.helper = Name::new(b"ftp");
        let unsupported = Outcome::Failed(KernelError::Unsupported);
        let lesser = Flow {
            helper: None,
            ..wanted
        };
        assert_eq!(
            next(&attempt(wanted, 0), &Op::Create(wanted), &unsupported),
            Next::AskForLess(Op::Create(lesser))
        );
        assert_eq!(
            next(&attempt(wanted, 1), &Op::Create(lesser), &unsupported),
            Next::Refused(KernelError::Unsupported)
        );
        let exists = Outcome::Failed(KernelError::Exists);
        let last = attempt(wanted, STEPS_MAX - 1);
        assert_eq!(next(&last, &Op::Create(wanted), &exists), Next::GivenUp);
    }

    /// Goal: an entry that was made without its helper is brought up to date all the same.
    #[test]
    fn an_update_names_the_helper_that_the_entry_has() {
        let mut wanted = tcp(TcpState::ESTABLISHED, 100);
        wanted.helper = Name::new(b"ftp");
        let refused = Outcome::Failed(KernelError::Unsupported);
        let get = Op::Get(wanted.key());
        assert_eq!(
            next(&attempt(wanted, 0), &Op::Update(wanted), &refused),
            Next::Ask(get)
        );
        let held = tcp(TcpState::SYN_RECV, 50);
        let Next::Ask(Op::Update(update)) = next(&attempt(wanted, 1), &get, &found(held)) else {
            panic!("no update");
        };
        assert_eq!(update.helper, None);
    }

    #[test]
    fn an_end_is_obeyed_unless_our_kernel_has_seen_traffic() {
        let flow = tcp(TcpState::ESTABLISHED, 100);
        let get = Op::Get(flow.key());
        let held = found(flow);
        let spared = next_of_end(&flow, &get, &held, |_| true);
        assert_eq!(spared, NextOfEnd::Spared);
        let delete = Op::Delete(flow.key(), None);
        let asked = next_of_end(&flow, &get, &held, |_| false);
        assert_eq!(asked, NextOfEnd::Ask(delete));
        let over = |outcome| next_of_end(&flow, &delete, &outcome, |_| false);
        assert_eq!(over(Outcome::Done), NextOfEnd::Deleted);
        let error = |e| Outcome::Failed(e);
        assert_eq!(over(error(KernelError::NotFound)), NextOfEnd::Gone);
        assert_eq!(over(error(KernelError::Busy)), NextOfEnd::Refused);
        let create = Op::Create(flow);
        assert_eq!(
            next_of_end(&flow, &create, &Outcome::Done, |_| false),
            NextOfEnd::WrittenThenAsk(Op::Get(flow.key()))
        );
    }
}
