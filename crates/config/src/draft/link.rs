//! The effects of the words in a link's block, and what is checked when the block ends.

use std::net::IpAddr;

use super::Draft;
use crate::lexer::Token;
use crate::{Link, Transport};

const LINKS_MAX: usize = 4;
/// `IFNAMSIZ - 1`
const INTERFACE_MAX: usize = 15;

/// A link of which nothing is known.
pub(super) fn empty() -> Link {
    Link {
        address: None,
        destination: None,
        interface_address: None,
        interface: None,
        port: 0,
        send_buffer: None,
        receive_buffer: None,
        checksum: true,
        default: false,
        line: 0,
    }
}

impl Draft {
    pub(crate) fn begin_link(&mut self, transport: Transport) {
        if self.sync.transport.is_some_and(|t| t != transport) {
            let word = self.path.last().map_or("", |item| item.word);
            self.error_here(
                format_args!("`{word}` beside links of another transport"),
                "all links of a file have the same transport",
            );
        }
        self.sync.transport = Some(transport);
        self.link = empty();
    }

    pub(crate) fn group(&mut self, address: IpAddr) {
        let other = |a: IpAddr| a.is_ipv4() != address.is_ipv4();
        if self.link.address.is_some_and(other) {
            self.warn_here("IPv4 and IPv6 in one `Multicast`: the later one is ignored");
        } else {
            self.link.address = Some(address);
            self.link.destination = Some(address);
        }
    }

    pub(crate) fn interface_address(&mut self, address: IpAddr) {
        if let IpAddr::V4(address) = address {
            self.link.interface_address = Some(address);
        }
    }

    pub(crate) fn interface(&mut self, token: &Token<'_>) {
        self.check_length("interface name", token, INTERFACE_MAX);
        self.link.interface = Some(token.text.to_owned());
    }

    pub(crate) fn port(&mut self, n: u32) {
        match u16::try_from(n) {
            Ok(port) => self.link.port = port,
            Err(_) => self.error_here(format_args!("port {n}"), "accepted: 1 to 65535"),
        }
    }

    pub(crate) fn end_link(&mut self) {
        self.check_link();
        let mut link = std::mem::replace(&mut self.link, empty());
        if self.sync.links.len() == LINKS_MAX {
            let help = format_args!("at most {LINKS_MAX}");
            self.error_here("too many dedicated links", help);
            return;
        }
        if link.default {
            self.sync.links.iter_mut().for_each(|l| l.default = false);
        }
        // The place for now; `finish` makes a line of it.
        link.line = self.here().start;
        self.sync.links.push(link);
    }

    fn check_link(&mut self) {
        let link = &self.link;
        let is_multicast = self.sync.transport == Some(Transport::Multicast);
        let (port, destination) = if is_multicast {
            ("Group", "IPv4_address or IPv6_address")
        } else {
            let either = "IPv4_Destination_Address or IPv6_Destination_Address";
            ("Port", either)
        };
        let missing: Vec<_> = [
            ("Interface", link.interface.is_none()),
            (port, link.port == 0),
            (destination, link.destination.is_none()),
        ]
        .into_iter()
        .filter_map(|(word, is_missing)| is_missing.then_some(word))
        .collect();
        let (address, destination) = (link.address, link.destination);
        // What is missing may be what was just found to be bad.
        let begin = self.here().start;
        if !missing.is_empty() && !self.diagnostics.has_error_behind(begin) {
            let word = self.path.last().map_or("", |item| item.word);
            self.error_here(
                format_args!("`{word}` lacks {}", missing.join(", ")),
                "a link needs its interface, its port and where it goes to",
            );
        }
        if let (Some(own), Some(peer)) = (address, destination)
            && own.is_ipv4() != peer.is_ipv4()
        {
            self.error_here(
                "own address and peer are of two families",
                "give both as IPv4 or both as IPv6",
            );
        }
        if let Some(group) = address.filter(|a| is_multicast && !a.is_multicast()) {
            self.error_here(
                format_args!("{group} is no multicast group"),
                "224.0.0.0/4 or ff00::/8",
            );
        }
    }
}
