//! System calls, by seccomp: those that the daemon uses, from its start on.
//!
//! The list is held by the end-to-end tests, whose daemons are killed by any other call.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use libc::{AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, CLONE_THREAD, ENOSYS, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};

/// Calls that are allowed whatever their arguments are.
#[rustfmt::skip]
const ALLOWED: &[c_long] = &[
    // Descriptors and files.
    libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev, libc::SYS_pread64,
    libc::SYS_pwrite64, libc::SYS_close, libc::SYS_openat, libc::SYS_lseek, libc::SYS_fstat,
    libc::SYS_newfstatat, libc::SYS_statx, libc::SYS_fcntl, libc::SYS_ioctl, libc::SYS_dup,
    libc::SYS_dup3, libc::SYS_ftruncate, libc::SYS_fchmod, libc::SYS_flock, libc::SYS_unlinkat,
    libc::SYS_renameat2, libc::SYS_readlinkat, libc::SYS_getcwd, libc::SYS_chdir,
    libc::SYS_fsync,
    // Waiting.
    libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_ppoll,
    libc::SYS_eventfd2, libc::SYS_nanosleep, libc::SYS_clock_nanosleep, libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    // Sockets; `socket` itself only of some families.
    libc::SYS_socketpair, libc::SYS_bind, libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4,
    libc::SYS_connect, libc::SYS_shutdown, libc::SYS_getsockname, libc::SYS_getpeername,
    libc::SYS_getsockopt, libc::SYS_setsockopt, libc::SYS_sendto, libc::SYS_sendmsg,
    libc::SYS_recvfrom, libc::SYS_recvmsg,
    // Memory.
    libc::SYS_brk, libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mprotect, libc::SYS_mremap,
    libc::SYS_madvise,
    // Threads; `clone` only for these, `tgkill`, by which a process aborts, only for itself.
    libc::SYS_futex, libc::SYS_set_robust_list, libc::SYS_rseq, libc::SYS_prctl,
    libc::SYS_sched_getaffinity, libc::SYS_sched_getscheduler, libc::SYS_gettid, libc::SYS_getpid,
    libc::SYS_exit, libc::SYS_exit_group, libc::SYS_prlimit64,
    // Signals.
    libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // Time, randomness, identity.
    libc::SYS_clock_gettime, libc::SYS_gettimeofday, libc::SYS_getrandom, libc::SYS_getuid,
    libc::SYS_geteuid, libc::SYS_uname, libc::SYS_umask,
];

/// The same of older names, which younger kinds of processors lack.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const OLDER: &[c_long] = &[
    libc::SYS_open, libc::SYS_stat, libc::SYS_lstat, libc::SYS_unlink, libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_dup2, libc::SYS_poll, libc::SYS_epoll_wait, libc::SYS_time, libc::SYS_readlink,
];
#[cfg(target_arch = "aarch64")]
const OLDER: &[c_long] = &[libc::SYS_renameat];
#[cfg(target_arch = "riscv64")]
const OLDER: &[c_long] = &[];

/// Families of sockets.
const FAMILIES: [i32; 4] = [AF_UNIX, AF_INET, AF_INET6, AF_NETLINK];

/// Refuses all other calls, or is killed by one. Holds for all threads.
pub(super) fn restrict(kill: bool) -> Result<String, String> {
    let failed = |e: &dyn std::fmt::Display| format!("system calls cannot be restricted: {e}");
    let refused = match kill {
        true => SeccompAction::KillProcess,
        false => {
            sys::refused::watch().map_err(|e| failed(&e))?;
            SeccompAction::Trap
        }
    };
    let main = program(rules(), refused, SeccompAction::Allow).map_err(|e| failed(&e))?;
    // What `clone3` is to make is not to be seen by a filter. Told that there is no such call,
    // the C library takes `clone`.
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let no_clone3 = program(
        clone3,
        SeccompAction::Allow,
        SeccompAction::Errno(ENOSYS.cast_unsigned()),
    )
    .map_err(|e| failed(&e))?;
    // The main one comes last: it does not have `seccomp`.
    for filter in [no_clone3, main] {
        apply_filter_all_threads(&filter).map_err(|e| failed(&e))?;
    }
    Ok(format!(
        "{} system calls, any other {}",
        rules().len() - 1,
        match kill {
            true => "kills it",
            false => "is refused",
        }
    ))
}

/// The rules of each call; without one it is allowed with any arguments.
fn rules() -> BTreeMap<i64, Vec<SeccompRule>> {
    let any = [ALLOWED, OLDER].concat().into_iter();
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = any.map(|call| (call, Vec::new())).collect();
    let families = FAMILIES.into_iter();
    let families = families.filter_map(|f| rule(0, SeccompCmpOp::Eq, f.cast_unsigned().into()));
    rules.insert(libc::SYS_socket, families.collect());
    let own = u64::from(std::process::id());
    rules.insert(
        libc::SYS_tgkill,
        rule(0, SeccompCmpOp::Eq, own).into_iter().collect(),
    );
    let thread = u64::from(CLONE_THREAD.cast_unsigned());
    let thread = rule(0, SeccompCmpOp::MaskedEq(thread), thread);
    rules.insert(libc::SYS_clone, thread.into_iter().collect());
    // The other filter answers: of two the stricter one is heard.
    rules.insert(libc::SYS_clone3, Vec::new());
    rules
}

/// One argument compared.
fn rule(argument: u8, how: SeccompCmpOp, value: u64) -> Option<SeccompRule> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, how, value);
    SeccompRule::new(vec![condition.ok()?]).ok()
}

fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    then: SeccompAction,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let arch = TargetArch::try_from(ARCH)?;
    SeccompFilter::new(rules, otherwise, then, arch)?.try_into()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_call_of_no_use_is_refused_and_told_of() {
        // The filter of a thread is for ever.
        let tried = thread::spawn(|| {
            sys::refused::watch().unwrap();
            let filter = program(rules(), SeccompAction::Trap, SeccompAction::Allow).unwrap();
            seccompiler::apply_filter(&filter).unwrap();
            let refused = rustix::process::getpgid(None).unwrap_err();
            let socket = |family| rustix::net::socket(family, rustix::net::SocketType::DGRAM, None);
            let packet = socket(rustix::net::AddressFamily::PACKET).unwrap_err();
            (
                refused,
                packet,
                socket(rustix::net::AddressFamily::UNIX).is_ok(),
            )
        });
        let (refused, packet, unix) = tried.join().unwrap();
        assert_eq!(refused, rustix::io::Errno::PERM);
        assert_eq!(packet, rustix::io::Errno::PERM);
        assert!(unix);
        let told: Vec<_> = std::iter::from_fn(sys::refused::next).collect();
        assert!(told.contains(&libc::SYS_getpgid), "{told:?}");
        assert!(told.contains(&libc::SYS_socket), "{told:?}");
    }
}
