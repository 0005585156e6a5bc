//! Who sent what arrives: from source addresses to peers.
//!
//! On a link to one host there is one peer, whatever its address: the configured one, or,
//! until that is heard and while it is silent, another one that sends messages. conntrackd
//! sends unbound, so a host with several addresses may use another one than the configured. On a link to a group the
//! peers are told apart by address; a peer over two links has two, and its epoch joins them.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use replica::{Epoch, PeerId};
use wire::v1::{MessageType, Trailer, messages};

/// Silence of a peer's known address after which another one may be its.
const SILENT: Duration = Duration::from_secs(3);
/// Most peers.
const PEERS_MAX: usize = 8;

/// An address, and when something came from it.
#[derive(Clone, Copy, Debug)]
struct Heard {
    from: IpAddr,
    at: Instant,
}

fn is_long_ago(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) >= SILENT
}

/// A link to one host.
#[derive(Clone, Copy, Debug)]
struct Host {
    configured: IpAddr,
    /// When something came from the configured address.
    heard_at: Option<Instant>,
    learned: Option<Heard>,
}

/// A peer of the links to groups.
#[derive(Debug)]
struct Member {
    epoch: Option<Epoch>,
    /// By link.
    places: Vec<Option<Heard>>,
}

/// The sources of all links.
#[derive(Debug)]
pub(crate) struct Sources {
    /// By link; `None` for a group.
    hosts: Vec<Option<Host>>,
    /// In the order of their [`PeerId`].
    members: Vec<Member>,
    /// What came from sources that nothing explains.
    pub(crate) unknown: u64,
    /// What came from more peers than there may be.
    pub(crate) refused: u64,
}

impl Sources {
    /// `to`: where each link goes.
    pub(crate) fn new(to: impl IntoIterator<Item = IpAddr>) -> Sources {
        let host = |to: IpAddr| {
            (!to.is_multicast()).then_some(Host {
                configured: to,
                heard_at: None,
                learned: None,
            })
        };
        Sources {
            hosts: to.into_iter().map(host).collect(),
            members: Vec::new(),
            unknown: 0,
            refused: 0,
        }
    }

    /// The peer that sent these bytes over link `n`; `None`, counted, if it is unknown.
    pub(crate) fn peer(
        &mut self,
        n: usize,
        from: IpAddr,
        bytes: &[u8],
        now: Instant,
    ) -> Option<PeerId> {
        if self.hosts[n].is_none() {
            return self.member(n, from, bytes, now);
        }
        let is_message = || messages(bytes).next().is_some_and(|m| m.is_ok());
        let is_known = self.is_host(n, from, is_message, now);
        self.unknown += u64::from(!is_known);
        is_known.then_some(PeerId::FIRST)
    }

    /// True if a connection from this address is the peer's. `is_served`: there is another one.
    pub(crate) fn admits(&mut self, n: usize, from: IpAddr, is_served: bool, now: Instant) -> bool {
        // Nothing has been sent yet: that it could connect is evidence enough of an address.
        let is_known = self.is_host(n, from, || !is_served, now);
        self.unknown += u64::from(!is_known);
        is_known
    }

    fn is_host(
        &mut self,
        n: usize,
        from: IpAddr,
        is_message: impl Fn() -> bool,
        now: Instant,
    ) -> bool {
        let is_configured = |host: &Host| host.configured == from;
        let elsewhere = self.hosts.iter().flatten().any(is_configured);
        let Some(host) = &mut self.hosts[n] else {
            return false;
        };
        if elsewhere {
            if host.configured == from {
                host.heard_at = Some(now);
                host.learned = None;
            }
            return true;
        }
        let is_heard = host.heard_at.is_some_and(|at| !is_long_ago(at, now));
        let is_other = |l: Heard| l.from != from && !is_long_ago(l.at, now);
        if is_heard || host.learned.is_some_and(is_other) || !is_message() {
            return false;
        }
        host.learned = Some(Heard { from, at: now });
        true
    }

    /// The peer of a group. Its epoch counts most, then the address on this link; an address
    /// that is new here belongs to a peer that is silent on this link, or to a new one.
    fn member(&mut self, n: usize, from: IpAddr, bytes: &[u8], now: Instant) -> Option<PeerId> {
        let epoch = epoch_in(bytes);
        let is_here = |m: &Member| m.places[n].is_some_and(|heard| heard.from == from);
        let of_epoch = |m: &Member| epoch.is_some() && m.epoch == epoch;
        let is_free = |m: &Member| m.places[n].is_none_or(|heard| is_long_ago(heard.at, now));
        let known = self
            .members
            .iter()
            .position(of_epoch)
            .or_else(|| self.members.iter().position(is_here))
            .or_else(|| self.members.iter().position(is_free));
        let number = match known {
            Some(number) => number,
            None if self.members.len() < PEERS_MAX => {
                self.members.push(Member {
                    epoch: None,
                    places: vec![None; self.hosts.len()],
                });
                self.members.len() - 1
            }
            None => {
                self.refused += 1;
                return None;
            }
        };
        for (other, member) in self.members.iter_mut().enumerate() {
            if other != number {
                member.places[n].take_if(|heard| heard.from == from);
            }
        }
        let member = &mut self.members[number];
        member.places[n] = Some(Heard { from, at: now });
        member.epoch = epoch.or(member.epoch);
        u8::try_from(number).ok().map(PeerId)
    }
}

/// The sender's epoch, if a trailer names it.
fn epoch_in(bytes: &[u8]) -> Option<Epoch> {
    messages(bytes).flatten().find_map(|message| {
        if !matches!(message.header.kind, MessageType::Control) {
            return None;
        }
        Trailer::decode(message.body).ok()?.map(|t| t.epoch)
    })
}

#[cfg(test)]
mod tests {
    use wire::v1::{Bulk, BulkState, Control, Flags, encode_alive, encode_control};
    use wire::{Role, Seq};

    use super::*;

    fn ip(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    fn alive(epoch: Option<u32>) -> Vec<u8> {
        let mut out = Vec::new();
        let Some(epoch) = epoch else {
            encode_control(&mut out, Control::Alive, Flags::NONE, Seq(1));
            return out;
        };
        let trailer = Trailer {
            role: Role::Unknown,
            has_bulks: false,
            epoch: Epoch(epoch),
            bulk: Bulk {
                number: 0,
                first: Seq(0),
                flows: 0,
                state: BulkState::None,
            },
            holdings: None,
        };
        encode_alive(&mut out, &trailer, Flags::NONE, Seq(1));
        out
    }

    const SECOND: Duration = Duration::from_secs(1);
    const FIRST: Option<PeerId> = Some(PeerId::FIRST);

    #[test]
    fn a_stranger_is_learned_only_while_the_configured_address_is_silent() {
        let start = Instant::now();
        let mut sources = Sources::new([ip(2)]);
        let alive = alive(None);
        assert_eq!(sources.peer(0, ip(2), &alive, start + SECOND), FIRST);
        assert_eq!(sources.peer(0, ip(9), &alive, start + 3 * SECOND), None);
        assert_eq!(sources.unknown, 1);
        // A second address of the peer's host; not what sends no messages, and no third one.
        assert_eq!(sources.peer(0, ip(9), b"hello", start + 4 * SECOND), None);
        assert_eq!(sources.peer(0, ip(9), &alive, start + 4 * SECOND), FIRST);
        assert_eq!(sources.peer(0, ip(8), &alive, start + 5 * SECOND), None);
        assert_eq!(sources.peer(0, ip(2), &alive, start + 5 * SECOND), FIRST);
        assert_eq!(sources.peer(0, ip(9), &alive, start + 6 * SECOND), None);
    }

    #[test]
    fn the_address_of_another_link_is_the_peers_too() {
        let start = Instant::now();
        let mut sources = Sources::new([ip(2), ip(3)]);
        assert_eq!(sources.peer(0, ip(3), &alive(None), start), FIRST);
    }

    #[test]
    fn a_pair_in_a_group_stays_one_peer_over_links_restarts_and_new_addresses() {
        let group: IpAddr = [225, 0, 0, 50].into();
        let start = Instant::now();
        let mut sources = Sources::new([group, group]);
        for (link, from, epoch, secs) in [
            (0, 2, None, 0),
            (1, 3, None, 0),
            (0, 2, Some(1), 1),
            (0, 2, Some(2), 2),
            (0, 4, Some(2), 3),
            (1, 5, Some(3), 20),
        ] {
            let at = start + secs * SECOND;
            let got = sources.peer(link, ip(from), &alive(epoch), at);
            assert_eq!(got, FIRST, "{link} {from}");
        }
    }

    #[test]
    fn peers_in_a_group_are_told_apart_and_are_no_more_than_eight() {
        let start = Instant::now();
        let mut sources = Sources::new([[225, 0, 0, 50].into()]);
        for n in 0..8 {
            let got = sources.peer(0, ip(n), &alive(None), start);
            assert_eq!(got, Some(PeerId(n)));
        }
        assert_eq!(sources.peer(0, ip(9), &alive(None), start), None);
        assert_eq!(sources.refused, 1);
        assert_eq!(sources.peer(0, ip(5), &alive(None), start), Some(PeerId(5)));
    }
}
