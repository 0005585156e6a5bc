//! The system interface: what `std` and `rustix` do not offer.
//!
//! The only crate with `unsafe`. One function, one system call, no decisions;
//! descriptors are `OwnedFd` and `BorrowedFd` at the edges.

pub mod filter;
pub mod interface;
pub mod netlink;
pub mod netns;
pub mod process;
pub mod signal;
pub mod tcp;
pub mod time;
pub mod udp;

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// `setsockopt` with a C `int`, for the options that `rustix` does not name.
fn set_option(fd: impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed for the call, and the pointer and length
    // describe one live `c_int`.
    let rc = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
