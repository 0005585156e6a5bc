//! Classic BPF programs on sockets (`include/uapi/linux/filter.h`): which datagrams the
//! kernel does not deliver.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::{
    BPF_ABS, BPF_B, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter, sock_fprog,
};

/// One instruction: `struct sock_filter`.
pub type Instruction = sock_filter;

/// An instruction of its four fields.
pub fn instruction_of(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    sock_filter { code, jt, jf, k }
}

/// Loads the four bytes at `offset`, in network byte order.
pub(crate) fn load_word(offset: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, offset, 0)
}

/// Loads the byte at `offset`.
pub(crate) fn load_byte(offset: u32) -> sock_filter {
    instruction(BPF_LD | BPF_B | BPF_ABS, offset, 0)
}

/// Skips `count` instructions unless what was loaded is `value`.
pub(crate) fn skip_unless(value: u32, count: u8) -> sock_filter {
    instruction(BPF_JMP | BPF_JEQ | BPF_K, value, count)
}

/// Ends, and delivers the first `bytes` of the datagram; none of it drops the datagram.
pub(crate) fn take(bytes: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, bytes, 0)
}

fn instruction(code: u32, k: u32, jf: u8) -> sock_filter {
    sock_filter {
        // The field is 16 bits wide, and so are all codes.
        code: code as u16,
        jt: 0,
        jf,
        k,
    }
}

/// Attaches a program to a socket, in place of the one that it had.
///
/// # Errors
/// The system's error, for a program that it refuses, too.
pub fn attach(socket: impl AsFd, program: &[sock_filter]) -> io::Result<()> {
    let program = sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the descriptor is borrowed for the call; pointer and length describe one live
    // `sock_fprog`, which does the same for the program. The kernel copies it and writes
    // nothing.
    let rc = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<sock_fprog>() as libc::socklen_t,
        )
    };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
