//! Goal: every kind of link carries what changes, and what befalls a link costs a pause, not a
//! flow. Method: flows are made in the kernels of both firewalls; each daemon's external cache
//! must come to hold those of the other one.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::daemon::{Daemon, Kind, Mode, Settings, Transport};
use lab::topology::{Lab, Options};
use lab::wait;
use lab::world::World;

use crate::Scenario;
use crate::ends::{Ends, SETTLED};

mod interfaces;
mod paths;
mod sources;
mod tcp;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("links/tcp", |w| {
        tcp::carries(w, [Kind::Ftfw; 2], Mode::Ftfw, Transport::Tcp)
    }),
    ("links/tcp_over_ipv6", |w| {
        tcp::carries(w, [Kind::Ftfw; 2], Mode::Notrack, Transport::Tcp6)
    }),
    ("links/tcp_with_conntrackd", |w| {
        let kinds = [Kind::Ftfw, Kind::Conntrackd];
        tcp::carries(w, kinds, Mode::Ftfw, Transport::Tcp)
    }),
    ("links/tcp_with_conntrackd_over_ipv6_notrack", |w| {
        let kinds = [Kind::Conntrackd, Kind::Ftfw];
        tcp::carries(w, kinds, Mode::Notrack, Transport::Tcp6)
    }),
    ("links/failover_when_a_link_goes_down", |w| {
        paths::down(w, [Kind::Ftfw; 2], paths::TWO_UDP)
    }),
    (
        "links/failover_when_a_link_goes_down_with_conntrackd",
        |w| paths::down(w, [Kind::Ftfw, Kind::Conntrackd], paths::TWO_UDP),
    ),
    ("links/failover_of_tcp", |w| {
        paths::down(w, [Kind::Ftfw, Kind::Conntrackd], paths::TWO_TCP)
    }),
    ("links/four", |w| paths::four(w, [Kind::Ftfw; 2])),
    ("links/four_with_conntrackd", |w| {
        paths::four(w, [Kind::Ftfw, Kind::Conntrackd])
    }),
    ("links/failover_of_a_silently_broken_path", |w| {
        paths::broken(w, [Kind::Ftfw; 2], 0, &["INPUT", "OUTPUT"], true)
    }),
    ("links/failover_of_a_path_broken_in_one_direction", |w| {
        paths::broken(w, [Kind::Ftfw; 2], 0, &["INPUT"], true)
    }),
    ("links/failover_of_a_path_that_our_own_rules_refuse", |w| {
        let kinds = [Kind::Ftfw, Kind::Conntrackd];
        paths::broken(w, kinds, 0, &["OUTPUT"], true)
    }),
    ("links/failover_of_two_of_ours_that_a_rule_refuses", |w| {
        paths::refused(w, paths::TWO_UDP)
    }),
    ("links/what_a_rule_refuses_on_the_only_link_waits", |w| {
        paths::refused(w, paths::ONE_UDP)
    }),
    (
        "links/failover_of_a_path_on_which_conntrackd_hears_nothing",
        |w| paths::broken(w, [Kind::Ftfw, Kind::Conntrackd], 1, &["INPUT"], true),
    ),
    (
        "links/conntrackd_does_not_leave_a_silently_broken_path",
        |w| paths::broken(w, [Kind::Conntrackd; 2], 0, &["INPUT", "OUTPUT"], false),
    ),
    ("links/tcp_in_small_pieces", |w| {
        tcp::in_pieces(w, [Kind::Ftfw, Kind::Conntrackd])
    }),
    ("links/tcp_peer_that_reads_nothing", tcp::stopped_peer),
    ("links/tcp_garbage_and_strangers", tcp::garbage),
    ("links/a_stranger_is_not_obeyed", |w| {
        sources::stranger(w, Kind::Ftfw, 0)
    }),
    ("links/conntrackd_obeys_a_stranger", |w| {
        sources::stranger(w, Kind::Conntrackd, 20)
    }),
    (
        "links/conntrackd_with_two_addresses",
        sources::two_addresses,
    ),
    ("links/an_interface_comes_back", |w| {
        interfaces::comes_back(w, Transport::Udp)
    }),
    ("links/an_interface_comes_back_multicast_ipv6", |w| {
        interfaces::comes_back(w, Transport::Multicast6)
    }),
    ("links/an_interface_comes_back_tcp", |w| {
        interfaces::comes_back(w, Transport::Tcp6)
    }),
    ("links/an_address_comes_late", |w| {
        interfaces::late_address(w, Transport::Udp, "10.77.9.1/24")
    }),
    ("links/an_address_comes_late_tcp", |w| {
        interfaces::late_address(w, Transport::Tcp6, "fd77:9::1/64")
    }),
    ("links/link_local_addresses", interfaces::link_local),
    ("links/udp_with_checksums", |w| {
        interfaces::checksums(w, true)
    }),
    ("links/udp_without_checksums", |w| {
        interfaces::checksums(w, false)
    }),
    ("links/multicast_ipv6_with_conntrackd", |w| {
        interfaces::agrees(w, Transport::Multicast6)
    }),
];
