//! A line of the log: a level, a text for people, and fields for programs.

use std::fmt::Display;
use std::net::IpAddr;
use std::time::Duration;

pub(crate) use control::journal::Field;
use replica::{Answer, Event, Shortfall};

/// How important a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// Ordinary.
    Notice,
    /// Something an operator should know.
    Warning,
    /// Something went wrong.
    Error,
}

/// A line, or several of which the first says what happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) level: Level,
    pub(crate) text: String,
    pub(crate) fields: Fields,
}

impl From<(Level, String)> for Line {
    fn from((level, text): (Level, String)) -> Line {
        Line {
            level,
            text,
            fields: Fields::default(),
        }
    }
}

impl Line {
    pub(crate) fn new(level: Level, text: impl Into<String>, fields: Fields) -> Line {
        Line {
            level,
            text: text.into(),
            fields,
        }
    }
}

/// Declares the occasions, each with its name and its `MESSAGE_ID`.
macro_rules! occasions {
    ($($(#[doc = $meaning:literal])+ $variant:ident = $name:literal, $id:literal;)+) => {
        /// What an operator may want to filter by, or be woken by. Names and numbers stay.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Occasion {
            $($(#[doc = $meaning])+ $variant,)+
        }

        impl Occasion {
            /// The value of `FTFW_EVENT`.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Occasion::$variant => $name,)+
                }
            }

            /// The value of `MESSAGE_ID`: 32 hexadecimal digits.
            pub(crate) fn message_id(self) -> &'static str {
                match self {
                    $(Occasion::$variant => $id,)+
                }
            }

            /// The table of docs/journal.md.
            #[cfg(test)]
            fn table() -> Vec<String> {
                vec![$(format!("| `{}` | `{}` |{} |", $name, $id, concat!($($meaning),+)),)+]
            }
        }
    };
}

occasions! {
    /// The daemon has started
    Started = "started", "cce1ab458b5d44adb8b60c6f6f3d38d5";
    /// The daemon ends, because it was told to
    Stopping = "stopping", "ef9914443ac64ebc9cd4a92889fa2087";
    /// This firewall has another role: instance, role
    RoleChanged = "role-changed", "71ebfb60b0b64febb742ce903ed3d8aa";
    /// A step of a change of role was not done, or not whole: instance, role, seconds
    StepFailed = "role-step-failed", "51eb00caa15a4081af8dff4821ffe0c4";
    /// The peer is primary for nothing, and its flows are ours now: instance
    FlowsClaimed = "flows-claimed", "9bb5074b9dbf4705bf52b00f0c1ae0f9";
    /// A gate was opened without a commit, its time was up: instance, seconds
    GateOpenedLate = "gate-opened-late", "7030741d596e4d2f8493c22d67e834b0";
    /// The kernel does not take the sets of the gate
    GateFailed = "gate-failed", "5b5bba790dc74cabb1d9f47501316fe3";
    /// A commit has ended: flows (created), refused, seconds
    CommitEnded = "commit-ended", "55b665af902a48019e4c99cdf8c21b42";
    /// A scheduled flush has ended: flows (deleted)
    FlushEnded = "flush-ended", "6025d6a1ad7c484592b495c0bc06833b";
    /// A flush has left flows in the kernel: refused
    FlushIncomplete = "flush-incomplete", "349ba8a1d2744fac9df6615e2e90f57e";
    /// The kernel does not take a flow or expectation, or not all of it
    FlowRefused = "flow-refused", "89850fce6dc544c0811972c2e101f7cf";
    /// The first message of the peer has come: peer
    PeerHeard = "peer-heard", "44f8612ff77d47f9a8dbee231d0a37ec";
    /// Nothing comes from the peer: peer
    PeerLost = "peer-lost", "644db44a18464098a5c1c52ce43dca30";
    /// The peer is heard again: peer, seconds (of silence)
    PeerBack = "peer-back", "36b362b7f99d4b0abb585f2e917ab69b";
    /// The peer has started again: peer, flows (that it has not confirmed)
    PeerRestarted = "peer-restarted", "1a68bf9dc1c74a64adbad8416ae9e5df";
    /// The peer counts on other flows than are held here: peer, flows (the difference)
    FlowsDiffer = "flows-differ", "50192d00b17445efa13aba57c1346492";
    /// Another dedicated link is used: link
    LinkChosen = "link-chosen", "92ca63ac675a4a4d82164d5bcb866de5";
    /// No dedicated link can be used
    LinkNone = "link-none", "fc98e485e5b54b5fa19e6ccc63c3722c";
    /// A dedicated link cannot be used, or sends nothing: link
    LinkFailed = "link-failed", "f85d919f7379449b98fbcff1ce536d58";
    /// A dedicated link works again: link
    LinkWorks = "link-works", "b3736329e6234770b770841e793331b9";
    /// The kernel has dropped events
    EventsLost = "events-lost", "035caa707a83425ea24c9a2d480800a0";
    /// What was missed with them is repaired: flows (that had been missed)
    EventsRepaired = "events-repaired", "9edb46a6918f4cba826ca32a3a3bda1b";
    /// The kernel's table could not be read
    DumpFailed = "dump-failed", "3505c202600d41dd9d609405a7565c6c";
    /// A cache takes no more flows
    CacheFull = "cache-full", "05bd3b740f2f418bae5a6da9c025835f";
    /// A cache takes flows again: flows (that were not kept), seconds
    CacheHasRoom = "cache-has-room", "08911b3abc59433bb20d5b1b9953b726";
}

/// What a program can read of a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) occasion: Option<Occasion>,
    pub(crate) list: Vec<(Field, String)>,
}

impl From<Occasion> for Fields {
    fn from(occasion: Occasion) -> Fields {
        Fields {
            occasion: Some(occasion),
            list: Vec::new(),
        }
    }
}

impl Fields {
    pub(crate) fn with(mut self, field: Field, value: impl Display) -> Fields {
        self.list.push((field, value.to_string()));
        self
    }

    fn lasting(self, took: Duration) -> Fields {
        self.with(Field::Seconds, format_args!("{:.3}", took.as_secs_f64()))
    }

    /// Those of an event of the replica. `peer`: its address, if it has been heard.
    pub(crate) fn of(event: &Event, peer: Option<IpAddr>) -> Fields {
        let about_peer = |occasion| {
            let fields = Fields::from(occasion);
            match peer {
                Some(address) => fields.with(Field::Peer, address),
                None => fields,
            }
        };
        match event {
            Event::Done(_, answer) => Fields::of_answer(*answer),
            Event::WithoutHelper(_)
            | Event::Clash(_)
            | Event::Refused { .. }
            | Event::ExpectationRefused { .. } => Occasion::FlowRefused.into(),
            Event::Purged { deleted, .. } => {
                Fields::from(Occasion::FlushEnded).with(Field::Flows, deleted)
            }
            Event::PurgeIncomplete(shortfall) => Fields::of_shortfall(*shortfall),
            Event::LinkChosen(name, _) => {
                Fields::from(Occasion::LinkChosen).with(Field::Link, name)
            }
            Event::NoLink => Occasion::LinkNone.into(),
            Event::Overrun(_) => Occasion::EventsLost.into(),
            Event::Repaired { found, .. } => {
                Fields::from(Occasion::EventsRepaired).with(Field::Flows, found)
            }
            Event::DumpFailed => Occasion::DumpFailed.into(),
            Event::PeerHeard => about_peer(Occasion::PeerHeard),
            Event::PeerLost => about_peer(Occasion::PeerLost),
            Event::PeerBack { silence } => about_peer(Occasion::PeerBack).lasting(*silence),
            Event::PeerRestarted { unconfirmed } => {
                about_peer(Occasion::PeerRestarted).with(Field::Flows, unconfirmed)
            }
            Event::Lacking { counts_on, holds } | Event::HoldsMore { counts_on, holds } => {
                about_peer(Occasion::FlowsDiffer).with(Field::Flows, counts_on.abs_diff(*holds))
            }
            Event::CommitStarted
            | Event::FlushingCaches(_)
            | Event::FlushingKernel { .. }
            | Event::FlushScheduled(_)
            | Event::Resync
            | Event::ClaimedBack
            | Event::ResyncRequested
            | Event::ResyncByPeer
            | Event::Bulk
            | Event::Ended(_) => Fields::default(),
        }
    }

    fn of_answer(answer: Answer) -> Fields {
        match answer {
            Answer::Committed {
                created,
                failed,
                took,
                ..
            } => Fields::from(Occasion::CommitEnded)
                .with(Field::Flows, created)
                .with(Field::Refused, failed)
                .lasting(took),
            Answer::FlushIncomplete(shortfall) => Fields::of_shortfall(shortfall),
            _ => Fields::default(),
        }
    }

    fn of_shortfall(shortfall: Shortfall) -> Fields {
        let fields = Fields::from(Occasion::FlushIncomplete);
        match shortfall {
            Shortfall::DumpFailed => fields,
            Shortfall::Refused(deletes) => fields.with(Field::Refused, deletes),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PAGE: &str = include_str!("../../../docs/journal.md");

    /// Rows of the table of a section, without its head.
    fn rows(section: &str) -> Vec<&str> {
        let (_, from) = PAGE.split_once(&format!("\n## {section}\n")).unwrap();
        let section = from.split("\n## ").next().unwrap();
        section.lines().filter(|l| l.starts_with("| `")).collect()
    }

    #[test]
    fn the_page_lists_every_event() {
        let wanted = Occasion::table();
        assert!(
            rows("Events") == wanted,
            "the table in docs/journal.md is to be:\n{}",
            wanted.join("\n")
        );
        let ids: BTreeSet<&str> = wanted
            .iter()
            .map(|r| r.split('`').nth(3).unwrap())
            .collect();
        assert_eq!(ids.len(), wanted.len(), "each has a number of its own");
        let is_id = |id: &&str| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
        assert!(ids.iter().all(is_id), "{ids:?}");
    }

    #[test]
    fn the_page_lists_every_field() {
        let own = [
            Field::Instance,
            Field::Role,
            Field::Peer,
            Field::Link,
            Field::Flows,
            Field::Refused,
            Field::Seconds,
        ];
        let common = [
            "MESSAGE",
            "PRIORITY",
            "SYSLOG_IDENTIFIER",
            "SYSLOG_FACILITY",
            "MESSAGE_ID",
            "FTFW_EVENT",
        ];
        let wanted: Vec<&str> = (common.into_iter()).chain(own.map(Field::name)).collect();
        let listed = rows("Fields");
        let listed: Vec<&str> = (listed.iter().map(|r| r.split('`').nth(1).unwrap())).collect();
        assert_eq!(listed, wanted);
    }
}
