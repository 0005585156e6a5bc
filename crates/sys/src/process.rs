//! The process itself: going to the background, scheduling.

use std::io;

/// Which of the two processes a call to [`fork`] returned in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// The one that was there before; the child's process id.
    Parent(i32),
    /// The new one.
    Child,
}

/// Splits the process in two. Call it before any thread is started.
///
/// # Errors
/// The system's error.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: the program has one thread when this is called, as the contract
    // above demands, so the child may go on like any program.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// A real-time class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RealTime {
    /// `SCHED_RR`
    RoundRobin,
    /// `SCHED_FIFO`
    Fifo,
}

/// Puts the calling thread into a real-time class, and none of the threads and processes that
/// it starts. Priority 1 to 99.
///
/// # Errors
/// `EPERM` without `CAP_SYS_NICE`; `EINVAL` for another priority.
pub fn set_real_time(class: RealTime, priority: i32) -> io::Result<()> {
    let policy = match class {
        RealTime::RoundRobin => libc::SCHED_RR,
        RealTime::Fifo => libc::SCHED_FIFO,
    };
    let parameter = libc::sched_param {
        sched_priority: priority,
    };
    let policy = policy | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the pointer is to a live structure; 0 names the calling thread.
    let rc = unsafe { libc::sched_setscheduler(0, policy, &raw const parameter) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
