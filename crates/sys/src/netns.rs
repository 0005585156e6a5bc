//! Which network namespace this is, and so which table of flows the kernel keeps for it; and
//! a new one, with an empty table.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};

use rustix::thread::UnshareFlags;

use crate::get_option;

/// A number that names this namespace in this boot of this machine, never 0: equal for
/// two processes exactly if they read and write the same table of flows. `None` if the
/// kernel does not report it (before 5.14).
pub fn table_id() -> Option<u32> {
    let boot = fs::read("/proc/sys/kernel/random/boot_id").ok()?;
    Some(fnv1a(&[boot.as_slice(), &cookie()?.to_ne_bytes()].concat()).max(1))
}

/// Moves the calling thread into a new network namespace, which ends with it and with the
/// sockets that it opens. Sockets that are open stay where they are.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`, `ENOSPC` if there may be no more namespaces.
pub fn enter_new() -> io::Result<()> {
    // SAFETY: only the network namespace is unshared; the thread goes on sharing the table of
    // descriptors with the others.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}

/// FNV-1a of 32 bits (Fowler, Noll, Vo): the same in every build, as two versions of the
/// program must agree on it.
fn fnv1a(bytes: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    bytes.iter().fold(0x811c_9dc5, step)
}

/// `SO_NETNS_COOKIE` (`include/uapi/asm-generic/socket.h`): unique per boot. The
/// number of the namespace's file would not do: the next namespace gets it when one ends.
fn cookie() -> Option<u64> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    let cookie = get_option(&socket, SO_NETNS_COOKIE).ok()?;
    Some(u64::from_ne_bytes(cookie))
}

const SO_NETNS_COOKIE: libc::c_int = 71;

#[cfg(test)]
mod tests {
    /// From the authors' table of test vectors.
    #[test]
    fn the_hash_is_fnv1a() {
        assert_eq!(super::fnv1a(b""), 0x811c_9dc5);
        assert_eq!(super::fnv1a(b"foobar"), 0xbf9c_f968);
    }

    #[test]
    fn one_namespace_has_one_number() {
        assert_eq!(super::table_id(), super::table_id());
    }
}
