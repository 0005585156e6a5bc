//! Which of the dedicated links is used for sending.
//!
//! Receive on all; send on the current one. It changes to the link on which a
//! valid message came, and away from a link that is down, to the first usable
//! one in configuration order. It does not return by itself.

use crate::event::Event;
use crate::settings::Settings;

/// Index of a link in the configuration's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkId(pub usize);

/// Choice of the link.
#[derive(Debug)]
pub(crate) struct Links {
    names: Vec<String>,
    usable: Vec<bool>,
    current: LinkId,
}

impl Links {
    pub(crate) fn new(settings: &Settings) -> Links {
        Links {
            names: settings.links.iter().map(|l| l.name.clone()).collect(),
            usable: vec![true; settings.links.len()],
            current: LinkId(settings.first_link),
        }
    }

    pub(crate) fn current(&self) -> LinkId {
        self.current
    }

    /// A valid message came over `link`.
    pub(crate) fn on_heard(&mut self, link: LinkId) -> Option<Event> {
        (link != self.current && link.0 < self.names.len()).then(|| self.choose(link))
    }

    /// The system reports whether `link` is usable (switched on and with a carrier).
    pub(crate) fn on_state(&mut self, link: LinkId, usable: bool) -> Option<Event> {
        *self.usable.get_mut(link.0)? = usable;
        if usable || link != self.current {
            return None;
        }
        match self.usable.iter().position(|&u| u) {
            Some(n) => Some(self.choose(LinkId(n))),
            None => Some(Event::NoLink),
        }
    }

    fn choose(&mut self, link: LinkId) -> Event {
        self.current = link;
        Event::LinkChosen(self.names[link.0].clone())
    }
}
