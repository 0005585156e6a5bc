//! The system interface: what `std` and `rustix` do not offer.
//!
//! The only crate with `unsafe`. One function, one system call, no decisions;
//! descriptors are `OwnedFd` and `BorrowedFd` at the edges. [`place`] alone decides: daemon and
//! command line must judge the same way what is at a path.

pub mod filter;
pub mod interface;
pub mod netlink;
pub mod netns;
pub mod place;
pub mod process;
pub mod refused;
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

/// `getsockopt` of a socket's option that is `N` bytes long. One that the kernel knows in another
/// size is an error of the kind `InvalidData`.
fn get_option<const N: usize>(fd: impl AsFd, name: i32) -> io::Result<[u8; N]> {
    let mut value = [0; N];
    let mut len = N as libc::socklen_t;
    // SAFETY: the descriptor is borrowed for the call, and pointer and length describe a live
    // array of bytes.
    let rc = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    match rc {
        0 if len as usize == N => Ok(value),
        0 => Err(io::ErrorKind::InvalidData.into()),
        _ => Err(io::Error::last_os_error()),
    }
}
