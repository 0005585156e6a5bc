//! Which network namespace this is, and so which table of flows the kernel keeps for it.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;

/// A number that names this namespace in this boot of this machine, never 0: equal for
/// two processes exactly if they read and write the same table of flows. `None` if the
/// kernel does not say (before 5.14).
pub fn table_id() -> Option<u32> {
    let boot = fs::read("/proc/sys/kernel/random/boot_id").ok()?;
    let mut hasher = DefaultHasher::new();
    (boot, cookie()?).hash(&mut hasher);
    Some((hasher.finish() as u32).max(1))
}

/// `SO_NETNS_COOKIE` (`include/uapi/asm-generic/socket.h`): unique per boot. The number
/// of the namespace's file is given to the next one when a namespace ends.
fn cookie() -> Option<u64> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    let mut cookie = 0u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the descriptor is open for the call, and pointer and length describe one
    // live `u64`, which is what the option writes.
    let rc = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    (rc == 0 && len as usize == size_of::<u64>()).then_some(cookie)
}

const SO_NETNS_COOKIE: libc::c_int = 71;

#[cfg(test)]
mod tests {
    #[test]
    fn one_namespace_has_one_number() {
        assert_eq!(super::table_id(), super::table_id());
    }
}
