//! Counters in JSON: those that an object shows, under their names, in their order.

use counters::{Counter, Counters, Shown};
use serde::Serializer;
use serde::ser::SerializeMap;

/// Writes the counters for which `name` gives a name.
fn write<C: Counters, S: Serializer>(
    group: &C,
    serializer: S,
    name: impl Fn(&Counter) -> Option<&'static str>,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    for (counter, value) in group.each() {
        if let Some(name) = name(counter) {
            map.serialize_entry(name, &value)?;
        }
    }
    map.end()
}

/// Every counter of a group.
pub(crate) fn all<C: Counters, S: Serializer>(group: &C, to: S) -> Result<S::Ok, S::Error> {
    write(group, to, |counter| Some(counter.name))
}

/// What the status shows.
pub(crate) fn of_status<C: Counters, S: Serializer>(group: &C, to: S) -> Result<S::Ok, S::Error> {
    write(group, to, |counter| match counter.shown {
        Shown::Status | Shown::Note(_) => Some(counter.name),
        Shown::Peer(_) | Shown::Statistics => None,
    })
}

/// What the object of the peer shows.
pub(crate) fn of_peer<C: Counters, S: Serializer>(group: &C, to: S) -> Result<S::Ok, S::Error> {
    write(group, to, |counter| match counter.shown {
        Shown::Peer(name) => Some(name),
        Shown::Status | Shown::Note(_) | Shown::Statistics => None,
    })
}
