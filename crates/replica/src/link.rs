//! Which of the dedicated links is used for sending.
//!
//! Receive on all; send on the current one, which changes
//!
//! 1. away from a link that is not usable, or takes nothing, to the first usable one in
//!    configuration order;
//! 2. to a link on which the peer is heard for a second while it is not heard on the current
//!    one. One stray datagram changes nothing;
//! 3. to the next usable link, if a peer that sends every second is not heard on any link, or
//!    hears nothing of what we send: the path may be broken without a lost carrier.
//!
//! It does not return by itself. Rule 2 has more patience with a link that stands later in the
//! configuration: so of two replicas that hear each other on each other's link only one moves.

use std::mem;
use std::time::Duration;

use crate::event::{Event, LinkReason};
use crate::settings::Settings;
use crate::time::Instant;

/// Silence on the current link before one that stands earlier, or later, is chosen.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(1500), Duration::from_secs(3));
/// For how long the peer must have been heard on a link that is chosen.
const HEARD_FOR: Duration = Duration::from_secs(1);
/// Silence on all links before the next one is tried. It doubles with each attempt.
const SILENCE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(80));
/// So long after a change the peer may still send over the link that was left, which is not
/// heard: that it acknowledges nothing says nothing. It follows by rule 2.
const FOLLOWS: Duration = Duration::from_secs(8);

/// Index of a link in the configuration's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkId(pub usize);

#[derive(Debug)]
struct Link {
    name: String,
    usable: bool,
    /// When the peer was heard here since it was last heard on the current link.
    heard_since: Option<Instant>,
}

/// Choice of the link.
#[derive(Debug)]
pub(crate) struct Links {
    list: Vec<Link>,
    current: usize,
    /// When the peer was last heard on the current link, or the link was chosen.
    heard_at: Instant,
    /// When the peer was last heard on any link; `None` before the first time.
    heard_anywhere: Option<Instant>,
    /// When the link was chosen.
    chosen_at: Instant,
    silence: Duration,
    /// It has been reported that the peer acknowledges nothing, and nothing has been since.
    is_unanswered: bool,
}

impl Links {
    pub(crate) fn new(settings: &Settings) -> Links {
        let link = |name: &String| Link {
            name: name.clone(),
            usable: true,
            heard_since: None,
        };
        Links {
            list: settings.links.iter().map(|l| link(&l.name)).collect(),
            current: settings.first_link,
            heard_at: Instant::START,
            heard_anywhere: None,
            chosen_at: Instant::START,
            silence: SILENCE.0,
            is_unanswered: false,
        }
    }

    pub(crate) fn current(&self) -> LinkId {
        LinkId(self.current)
    }

    /// A valid message came over `link`.
    pub(crate) fn on_heard(&mut self, now: Instant, link: LinkId) -> Option<Event> {
        self.heard_anywhere = Some(now);
        let LinkId(n) = link;
        if n == self.current {
            self.heard_at = now;
            self.silence = SILENCE.0;
            self.list.iter_mut().for_each(|l| l.heard_since = None);
            return None;
        }
        let heard = self.list.get_mut(n)?;
        let since = *heard.heard_since.get_or_insert(now);
        let patience = if n < self.current {
            PATIENCE.0
        } else {
            PATIENCE.1
        };
        let is_better = now.since(self.heard_at) >= patience && now.since(since) >= HEARD_FOR;
        (heard.usable && is_better).then(|| self.choose(now, n, LinkReason::PeerHeard))
    }

    /// The system reports whether `link` is usable (switched on and with a carrier).
    pub(crate) fn on_state(&mut self, now: Instant, link: LinkId, usable: bool) -> Option<Event> {
        self.list.get_mut(link.0)?.usable = usable;
        if self.list.get(self.current).is_some_and(|l| l.usable) {
            return None;
        }
        match self.list.iter().position(|l| l.usable) {
            Some(n) => Some(self.choose(now, n, LinkReason::NotUsable)),
            None if usable || link.0 != self.current => None,
            None => Some(Event::NoLink),
        }
    }

    /// Time has passed. The peer sends every second.
    pub(crate) fn on_time(&mut self, now: Instant) -> Option<Event> {
        let since = self.heard_anywhere?.max(self.chosen_at);
        if now.since(since) < self.silence {
            return None;
        }
        let chosen = self.choose_next(now, LinkReason::Silence)?;
        self.silence = (self.silence * 2).min(SILENCE.1);
        Some(chosen)
    }

    /// The peer has acknowledged something.
    pub(crate) fn on_answered(&mut self) {
        self.is_unanswered = false;
    }

    /// The peer is heard and acknowledges nothing of what was sent seconds ago. The second
    /// such report without an acknowledgement between them changes the link.
    pub(crate) fn on_unanswered(&mut self, now: Instant) -> Option<Event> {
        let is_new = self.chosen_at > Instant::START && now.since(self.chosen_at) < FOLLOWS;
        if is_new || !mem::replace(&mut self.is_unanswered, true) {
            return None;
        }
        self.choose_next(now, LinkReason::Unanswered)
    }

    fn choose_next(&mut self, now: Instant, reason: LinkReason) -> Option<Event> {
        let count = self.list.len();
        let others = (1..count).map(|n| (self.current + n) % count);
        let next = others.into_iter().find(|n| self.list[*n].usable)?;
        Some(self.choose(now, next, reason))
    }

    fn choose(&mut self, now: Instant, n: usize, reason: LinkReason) -> Event {
        self.current = n;
        self.chosen_at = now;
        self.heard_at = now;
        self.is_unanswered = false;
        self.list.iter_mut().for_each(|l| l.heard_since = None);
        Event::LinkChosen(self.list[n].name.clone(), reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(first: usize) -> Links {
        let link = |name: &str| Link {
            name: name.to_owned(),
            usable: true,
            heard_since: None,
        };
        Links {
            list: vec![link("sync0"), link("sync1")],
            current: first,
            heard_at: Instant::START,
            heard_anywhere: None,
            chosen_at: Instant::START,
            silence: SILENCE.0,
            is_unanswered: false,
        }
    }

    fn at(tenths: u64) -> Instant {
        Instant::START + Duration::from_millis(100 * tenths)
    }

    #[test]
    fn a_stray_message_changes_nothing_however_silent_the_current_link_was() {
        let mut links = links(0);
        links.on_heard(at(0), LinkId(0));
        assert_eq!(links.on_heard(at(90), LinkId(1)), None);
        links.on_heard(at(95), LinkId(0));
        assert_eq!(links.on_heard(at(150), LinkId(1)), None);
        assert_eq!(links.current(), LinkId(0));
    }

    #[test]
    fn of_two_that_hear_each_other_on_each_others_link_one_moves() {
        let (mut a, mut b) = (links(0), links(1));
        for tenth in (0..300).step_by(10) {
            let (from_a, from_b) = (a.current(), b.current());
            a.on_heard(at(tenth), from_b);
            b.on_heard(at(tenth), from_a);
        }
        assert_eq!((a.current(), b.current()), (LinkId(0), LinkId(0)));
    }

    /// Each sends every second over its current link; link 0 carries nothing from A to B.
    #[test]
    fn both_leave_a_link_that_is_broken_in_one_direction_and_stay_together() {
        let (mut a, mut b) = (links(0), links(0));
        a.on_heard(at(0), LinkId(0));
        b.on_heard(at(0), LinkId(0));
        let mut changes = 0;
        for tenth in (10..600).step_by(10) {
            let now = at(tenth);
            let (from_a, from_b) = (a.current(), b.current());
            changes += usize::from(a.on_heard(now, from_b).is_some());
            if from_a != LinkId(0) {
                changes += usize::from(b.on_heard(now, from_a).is_some());
            }
            changes += usize::from(a.on_time(now).is_some());
            changes += usize::from(b.on_time(now).is_some());
            if tenth >= 120 {
                assert_eq!((a.current(), b.current()), (LinkId(1), LinkId(1)));
            }
        }
        assert_eq!(changes, 2);
    }

    #[test]
    fn with_an_absent_peer_the_links_are_tried_more_and_more_rarely() {
        let mut links = links(0);
        links.on_heard(at(0), LinkId(0));
        let tried = (0..10_000).filter(|t| links.on_time(at(*t)).is_some());
        assert_eq!(tried.collect::<Vec<_>>()[..4], [50, 150, 350, 750]);
    }

    #[test]
    fn a_peer_that_is_heard_and_hears_nothing_is_reached_over_the_next_link() {
        let mut links = links(0);
        assert_eq!(links.on_unanswered(at(20)), None);
        assert!(links.on_unanswered(at(60)).is_some());
        assert_eq!(links.current(), LinkId(1));
        // The peer may not have followed.
        assert_eq!(links.on_unanswered(at(80)), None);
        assert_eq!(links.on_unanswered(at(120)), None);
        // What was sent over the former link is acknowledged late.
        assert_eq!(links.on_unanswered(at(150)), None);
        links.on_answered();
        assert_eq!(links.on_unanswered(at(310)), None);
        assert!(links.on_unanswered(at(630)).is_some());
        assert_eq!(links.current(), LinkId(0));
    }

    #[test]
    fn a_link_that_is_down_is_left_at_once_and_the_first_that_comes_back_is_used() {
        let mut links = links(0);
        let down = |links: &mut Links, n| links.on_state(at(1), LinkId(n), false);
        assert_eq!(
            down(&mut links, 0),
            Some(Event::LinkChosen("sync1".into(), LinkReason::NotUsable))
        );
        assert_eq!(down(&mut links, 1), Some(Event::NoLink));
        let back = links.on_state(at(2), LinkId(0), true);
        assert_eq!(
            back,
            Some(Event::LinkChosen("sync0".into(), LinkReason::NotUsable))
        );
    }
}
