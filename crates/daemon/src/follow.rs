//! A client that follows the kernel's events, as they happen.

use control::Query;
use control::rows::{Beside, EventRow, ExpectationRow, FlowRow, LostRow};
use flow::{Expectation, Flow};
use replica::{Change, Origin};

use crate::kernel::{Events, Run};
use crate::listing::json_line;

/// A follower that has this many bytes unread misses what comes then.
const UNREAD_MAX_BYTES: usize = 1 << 20;

/// A client that follows events.
#[derive(Debug)]
pub(crate) struct Follow {
    query: Query,
    /// It has no query: expectations are shown, too.
    everything: bool,
    json: bool,
    /// Events that it was too slow for, since the last line about such.
    lost: u64,
}

/// What an event is about.
#[derive(Clone, Copy)]
enum What<'a> {
    Flow(&'a Flow),
    Expectation(&'a Expectation),
}

impl Follow {
    pub(crate) fn new(query: Query, everything: bool, json: bool) -> Follow {
        Follow {
            query,
            everything,
            json,
            lost: 0,
        }
    }

    /// Appends those of the events that the client wants to what it has not read yet.
    pub(crate) fn show(&mut self, events: &Events, unread: &mut Vec<u8>) {
        for run in events.runs() {
            match run {
                Run::Flows(events) => {
                    for event in events {
                        if self.query.holds(&event.flow) {
                            let what = What::Flow(&event.flow);
                            self.show_one(event.change, event.origin, what, unread);
                        }
                    }
                }
                Run::Expectation(event) if self.everything => {
                    let what = What::Expectation(&event.expectation);
                    self.show_one(event.change, event.origin, what, unread);
                }
                Run::Expectation(_) => {}
            }
        }
    }

    /// Appends an event, or counts it if the client is too slow.
    fn show_one(&mut self, change: Change, origin: Origin, what: What<'_>, unread: &mut Vec<u8>) {
        if unread.len() > UNREAD_MAX_BYTES {
            self.lost += 1;
            return;
        }
        let lost = std::mem::take(&mut self.lost);
        let (change, origin) = (change_name(change), origin_name(origin));
        if self.json {
            if lost > 0 {
                json_line(unread, &LostRow { lost });
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
            return json_line(unread, &row);
        }
        if lost > 0 {
            unread.extend_from_slice(format!("[LOST] {lost} events\n").as_bytes());
        }
        let what = match what {
            What::Flow(f) => f.to_string(),
            What::Expectation(e) => format!("expectation {e}"),
        };
        let text = format!("[{}] {what} ({origin})\n", change.to_uppercase());
        unread.extend_from_slice(text.as_bytes());
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Events {
        let tuple = flow::Tuple {
            addrs: flow::Addrs::V4 {
                src: [10, 0, 0, 1].into(),
                dst: [10, 0, 0, 2].into(),
            },
            proto: flow::Proto::TCP,
            l4: flow::L4::Ports { src: 1, dst: 21 },
        };
        Events::of(replica::KernelEvent {
            change: Change::New,
            origin: Origin::Traffic,
            flow: Flow::new(tuple),
        })
    }

    #[test]
    fn a_follower_that_is_too_slow_learns_how_many_events_it_has_missed() {
        let mut follow = Follow::new(Query::default(), true, false);
        let mut unread = vec![b'x'; UNREAD_MAX_BYTES + 1];
        follow.show(&event(), &mut unread);
        follow.show(&event(), &mut unread);
        assert_eq!(unread.len(), UNREAD_MAX_BYTES + 1);
        unread.clear();
        follow.show(&event(), &mut unread);
        let text = String::from_utf8(unread).unwrap();
        assert!(text.starts_with("[LOST] 2 events\n[NEW] "), "{text}");
        assert!(text.ends_with(" (traffic)\n"), "{text}");
    }

    #[test]
    fn a_query_chooses_what_a_follower_sees() {
        let query = Query::parse(&["dport=22".to_owned()]).unwrap();
        let mut follow = Follow::new(query, false, true);
        let mut unread = Vec::new();
        follow.show(&event(), &mut unread);
        assert_eq!(unread, b"");
    }
}
