//! A flood of SYN with random tuples through FW1, from the client's machine.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with,
};

use super::{Sent, Stage};
use crate::topology::SERVER;

/// An IPv4 header without options, and a TCP header without options.
const PACKET_BYTES: usize = 40;
/// Ethernet.
const HEADER_BYTES: u64 = 14;
const TCP: u8 = 6;
const SYN: u8 = 2;
/// Packets that go between two looks at the clock.
const BURST: u32 = 20;

/// So many a second, for so many seconds.
pub(super) fn syn(stage: &Stage<'_>) -> Result<Sent> {
    let rate: u32 = stage.extent.pick(5_000, 20_000);
    let count = rate * stage.extent.pick(2, 20);
    let server: Ipv4Addr = SERVER.parse()?;
    stage.lab.a.inside(move || -> Result<Sent> {
        let kind = SocketFlags::CLOEXEC;
        let protocol = Some(ipproto::RAW);
        let socket = socket_with(AddressFamily::INET, SocketType::RAW, kind, protocol)?;
        let to = SocketAddrV4::new(server, 0);
        let (mut random, begun) = (Rng::with_seed(17), Instant::now());
        let mut sent = Sent::default();
        for n in 0..count {
            if n % BURST == 0 {
                let due = Duration::from_secs_f64(f64::from(n) / f64::from(rate));
                thread::sleep(due.saturating_sub(begun.elapsed()));
            }
            // The machines' own addresses are left out, and so is the port that is served.
            let from = Ipv4Addr::new(192, 168, 0, random.u8(128..=254));
            let ports = [random.u16(1024..), random.u16(1024..)];
            let packet = packet(from, server, ports, random.u32(..));
            sendto(&socket, &packet, SendFlags::empty(), &to)?;
            sent.bytes += PACKET_BYTES as u64 + HEADER_BYTES;
            sent.count += 1;
        }
        Ok(sent)
    })?
}

/// A SYN as the kernel takes it from a raw socket: it fills in the checksum of the IPv4 header
/// and its identification.
fn packet(from: Ipv4Addr, to: Ipv4Addr, ports: [u16; 2], seq: u32) -> [u8; PACKET_BYTES] {
    let mut bytes = [0; PACKET_BYTES];
    bytes[0] = 0x45;
    bytes[2..4].copy_from_slice(&(PACKET_BYTES as u16).to_be_bytes());
    // Hops that it may take, and what it carries.
    bytes[8] = 64;
    bytes[9] = TCP;
    bytes[12..16].copy_from_slice(&from.octets());
    bytes[16..20].copy_from_slice(&to.octets());
    let tcp = &mut bytes[20..];
    tcp[0..2].copy_from_slice(&ports[0].to_be_bytes());
    tcp[2..4].copy_from_slice(&ports[1].to_be_bytes());
    tcp[4..8].copy_from_slice(&seq.to_be_bytes());
    // Its length in words of 32 bits, the flags, the window.
    tcp[12] = 5 << 4;
    tcp[13] = SYN;
    tcp[14..16].copy_from_slice(&64_240_u16.to_be_bytes());
    let sum = checksum(from, to, &bytes[20..]);
    bytes[36..38].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// Of a TCP segment whose own is 0, with the pseudo-header of RFC 9293.
fn checksum(from: Ipv4Addr, to: Ipv4Addr, segment: &[u8]) -> u16 {
    let addresses = [from.octets(), to.octets()].concat();
    let words = addresses.chunks(2).chain(segment.chunks(2));
    let sum = words.map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
    let mut sum = sum.sum::<u32>() + u32::from(TCP) + segment.len() as u32;
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: whoever adds all words of a good segment, its checksum included, gets 0.
    #[test]
    fn a_packet_has_a_good_checksum() {
        let [from, to] = ["192.168.0.200", "192.168.1.2"].map(|a| a.parse().unwrap());
        let packet = packet(from, to, [40_000, 443], 0x1234_5678);
        assert_eq!(checksum(from, to, &packet[20..]), 0);
        let mut broken = packet;
        broken[25] ^= 1;
        assert_ne!(checksum(from, to, &broken[20..]), 0);
    }
}
