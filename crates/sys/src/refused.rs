//! System calls that a filter of seccomp has refused (`SECCOMP_RET_TRAP`).
//!
//! The kernel sends SIGSYS in place of the call. The handler makes the call fail with `EPERM`,
//! and notes its number for whoever asks.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Calls have numbers below; others are noted as the last one.
const CALLS: usize = 1024;

/// `si_code` of a SIGSYS of seccomp (`asm-generic/siginfo.h`).
const SYS_SECCOMP: libc::c_int = 1;

/// A bit for each call.
type Calls = [AtomicU64; CALLS / 64];
static REFUSED: Calls = [const { AtomicU64::new(0) }; CALLS / 64];
static TOLD: Calls = [const { AtomicU64::new(0) }; CALLS / 64];

/// Lets refused calls fail with `EPERM` from now on, in all threads.
///
/// # Errors
/// The system's error; `Unsupported` on a kind of processor that is not known here.
pub fn watch() -> io::Result<()> {
    if cfg!(not(any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64"
    ))) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: `sigaction` is plain data, for which zeros are a value; the handler has the
    // signature that SA_SIGINFO wants, and does nothing that a handler must not do.
    let rc = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_refused as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_RESTART;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut())
    };
    match rc {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The number of a call that was refused. Each is told once.
pub fn next() -> Option<libc::c_long> {
    let (n, bits) = untold().find(|(_, bits)| *bits != 0)?;
    let bit = bits.trailing_zeros();
    TOLD[n].fetch_or(1 << bit, Ordering::Relaxed);
    libc::c_long::try_from(n * 64 + bit as usize).ok()
}

/// True if [`next`] has one to tell.
pub fn is_any_untold() -> bool {
    untold().any(|(_, bits)| bits != 0)
}

/// What is to be told, 64 calls at a time.
fn untold() -> impl Iterator<Item = (usize, u64)> {
    let words = REFUSED.iter().zip(&TOLD);
    let left = |(refused, told): (&AtomicU64, &AtomicU64)| {
        refused.load(Ordering::Relaxed) & !told.load(Ordering::Relaxed)
    };
    words.map(left).enumerate()
}

fn note(call: u64) {
    let call = usize::try_from(call).map_or(CALLS - 1, |call| call.min(CALLS - 1));
    REFUSED[call / 64].fetch_or(1 << (call % 64), Ordering::Relaxed);
}

/// Notes the call, and makes `EPERM` its result. Somebody's SIGSYS kills, as it does without us.
extern "C" fn on_refused(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    let result = -i64::from(libc::EPERM);
    // SAFETY: the kernel hands a live `siginfo_t` and `ucontext_t` to a handler with SA_SIGINFO,
    // and nobody else has them. If the signal stands in place of a call, the registers are those
    // with which the thread goes on behind it. `signal` and `raise` may be called in a handler.
    unsafe {
        if (*info).si_code != SYS_SECCOMP {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
            return;
        }
        let machine = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext;
        #[cfg(target_arch = "x86_64")]
        {
            let register = &mut machine.gregs[libc::REG_RAX as usize];
            note(register.cast_unsigned());
            *register = result;
        }
        #[cfg(target_arch = "aarch64")]
        {
            note(machine.regs[8]);
            machine.regs[0] = result.cast_unsigned();
        }
        #[cfg(target_arch = "riscv64")]
        {
            note(machine.__gregs[17]);
            machine.__gregs[10] = result.cast_unsigned();
        }
    }
}
