//! Network interfaces: index, MTU and state by name.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Operational state of an interface, from its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceState {
    /// `IFF_UP`: switched on.
    pub up: bool,
    /// `IFF_RUNNING`: has a carrier.
    pub running: bool,
}

/// Asks the kernel about interfaces.
#[derive(Debug)]
pub struct Interfaces(OwnedFd);

impl Interfaces {
    /// Opens the socket over which the kernel is asked.
    ///
    /// # Errors
    /// The system's error.
    pub fn open() -> io::Result<Interfaces> {
        Ok(Interfaces(socket_with(
            AddressFamily::INET,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        )?))
    }

    /// Index of an interface.
    ///
    /// # Errors
    /// `ENODEV` if there is none of that name.
    pub fn index(&self, name: &str) -> io::Result<u32> {
        Ok(rustix::net::netdevice::name_to_index(&self.0, name)?)
    }

    /// MTU in bytes.
    ///
    /// # Errors
    /// `ENODEV` if there is none of that name.
    pub fn mtu(&self, name: &str) -> io::Result<usize> {
        let request = self.ask(name, libc::SIOCGIFMTU)?;
        // SAFETY: SIOCGIFMTU filled in this member of the union.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        usize::try_from(mtu).map_err(io::Error::other)
    }

    /// State of an interface.
    ///
    /// # Errors
    /// `ENODEV` if there is none of that name.
    pub fn state(&self, name: &str) -> io::Result<InterfaceState> {
        let request = self.ask(name, libc::SIOCGIFFLAGS)?;
        // SAFETY: SIOCGIFFLAGS filled in this member of the union.
        let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
        Ok(InterfaceState {
            up: flags & libc::IFF_UP != 0,
            running: flags & libc::IFF_RUNNING != 0,
        })
    }

    fn ask(&self, name: &str, what: libc::Ioctl) -> io::Result<libc::ifreq> {
        // SAFETY: `ifreq` is plain data for which all zeros are a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if name.len() >= request.ifr_name.len() {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        // SAFETY: both requests take a pointer to an `ifreq`, which lives through the call.
        let rc = unsafe { libc::ioctl(self.0.as_fd().as_raw_fd(), what, &raw mut request) };
        if rc == 0 {
            Ok(request)
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

/// The addresses of all interfaces of this network namespace, of both families.
///
/// # Errors
/// The error that the system reports.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the pointer lives through the call, which stores a list or fails.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut addresses = Vec::new();
    let mut at = first;
    while !at.is_null() {
        // SAFETY: `at` is an entry of the list, which is not freed yet.
        let entry = unsafe { *at };
        at = entry.ifa_next;
        if entry.ifa_addr.is_null() {
            continue;
        }
        // SAFETY: an address has at least a family, and of these two families that size.
        let address = unsafe {
            match i32::from((*entry.ifa_addr).sa_family) {
                libc::AF_INET => {
                    let address = entry.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned();
                    IpAddr::from(address.sin_addr.s_addr.to_ne_bytes())
                }
                libc::AF_INET6 => {
                    let address = entry.ifa_addr.cast::<libc::sockaddr_in6>().read_unaligned();
                    IpAddr::from(address.sin6_addr.s6_addr)
                }
                _ => continue,
            }
        };
        addresses.push(address);
    }
    // SAFETY: `getifaddrs` has made the list, and nothing refers to it any more.
    unsafe { libc::freeifaddrs(first) };
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_address_is_among_the_addresses() {
        let all = addresses().unwrap();
        assert!(all.contains(&IpAddr::from([127, 0, 0, 1])), "{all:?}");
    }

    #[test]
    fn the_loopback_interface_is_known_and_others_do_not_exist() {
        let interfaces = Interfaces::open().unwrap();
        assert!(interfaces.index("lo").unwrap() > 0);
        assert!(interfaces.mtu("lo").unwrap() >= 1500);
        interfaces.state("lo").unwrap();
        // The second name is longer than any may be.
        for name in ["no-such-one", "a-name-of-at-least-16-bytes"] {
            let error = interfaces.state(name).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{name}");
        }
    }
}
