//! Layer 5: seccomp. A jailed process computes, talks over the descriptors that it has, and can do nothing else.
//!
//! Three answers, from three filters; the kernel takes the strictest:
//! - **Killed**: what no library of ours tries and only escaped code asks for: sockets, other processes and programs, mounts,
//!   tracing, the kernel's programmable corners. Its parent sees `SIGSYS`.
//! - **No such call**: what libraries fall back from when it is missing. Of `clone3` a filter cannot see the flags, and `clone`
//!   is what threads are then made with.
//! - **Not permitted**: everything else that is not on the list of what is allowed. Libraries probe files and settings, and
//!   get along without.
//!
//! Memory files are allowed, since the engine keeps the initial memory of a module in one, and a module that is initialised in
//! another way would use other fuel. They are no data to the kernel: their length and number are what `rlimits` bounds.
//!
//! A driver of a GPU gets more, and its threads are there already: the filters are then put on all threads of the process.
//!
//! Numbers of system calls are those of the architecture that this is compiled for; calls in another one's numbers kill.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter, apply_filter_all_threads,
};

use super::{Gap, JailError, Layer};

/// What kills.
const KILLED: &[c_long] = &[
    // Network.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    // Other programs and processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    // The system's shape.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_open_by_handle_at,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    // The kernel's programmable corners.
    libc::SYS_bpf,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // Who one is.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
];

/// What does not exist.
const MISSING: &[c_long] = &[libc::SYS_clone3, libc::SYS_memfd_secret, libc::SYS_statx];

/// What is allowed whatever its arguments.
const ALLOWED: &[c_long] = &[
    // Descriptors that are there.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvmsg,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_ppoll,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_close,
    // Memory.
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    libc::SYS_pwrite64,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_membarrier,
    // Threads.
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Signals of its own.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // Time and chance.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    // What was answered above all filters.
    libc::SYS_clone3,
    libc::SYS_memfd_secret,
    libc::SYS_statx,
];

/// What is allowed besides where a driver of a GPU works inside: landlock says which files these reach.
const DRIVERS: &[c_long] = &[
    // Devices and libraries: some are opened with the first model that needs them.
    libc::SYS_ioctl,
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_dup,
    libc::SYS_fadvise64,
    // What its threads wait with.
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    // Memory that a device shares, and where it lies.
    libc::SYS_mincore,
    libc::SYS_mlock,
    libc::SYS_munlock,
    libc::SYS_msync,
    libc::SYS_get_mempolicy,
    // What machine this is, and who asks.
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getppid,
    libc::SYS_getrusage,
    libc::SYS_getcpu,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_getparam,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
];

/// Those of old architectures, which newer ones have no number for.
#[cfg(target_arch = "x86_64")]
mod old {
    pub(super) const KILLED: &[libc::c_long] = &[libc::SYS_fork, libc::SYS_vfork, libc::SYS_iopl, libc::SYS_ioperm];
    pub(super) const ALLOWED: &[libc::c_long] = &[libc::SYS_poll];
    pub(super) const DRIVERS: &[libc::c_long] =
        &[libc::SYS_open, libc::SYS_stat, libc::SYS_lstat, libc::SYS_access, libc::SYS_readlink, libc::SYS_epoll_wait];
}
#[cfg(not(target_arch = "x86_64"))]
mod old {
    pub(super) const KILLED: &[libc::c_long] = &[];
    pub(super) const ALLOWED: &[libc::c_long] = &[];
    pub(super) const DRIVERS: &[libc::c_long] = &[];
}

/// Bits of `mmap`'s flags that say how it is shared, and that it grows as a stack does, which is counted as no data.
const MAP_KIND: u64 = (libc::MAP_SHARED | libc::MAP_PRIVATE | libc::MAP_GROWSDOWN) as u64;

pub(super) fn enter(has_drivers: bool) -> Result<Option<Gap>, JailError> {
    let Some(programs) = programs(has_drivers)? else {
        let detail = format!("there are no filters for {}", std::env::consts::ARCH);
        return Ok(Some(Gap { layer: Layer::Seccomp, detail }));
    };
    for program in &programs {
        match if has_drivers { apply_filter_all_threads(program) } else { apply_filter(program) } {
            Ok(()) => {}
            Err(seccompiler::Error::Seccomp(source) | seccompiler::Error::Prctl(source))
                if matches!(source.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) =>
            {
                return Ok(Some(Gap { layer: Layer::Seccomp, detail: format!("kernel has no filters: {source}") }));
            }
            Err(error) => return Err(rules(error)),
        }
    }
    Ok(None)
}

/// The filters in the order in which they are installed; none on an architecture that the library does not know. The list of
/// what is allowed comes last: it lets no further filter be installed.
pub(super) fn programs(has_drivers: bool) -> Result<Option<[BpfProgram; 3]>, JailError> {
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else { return Ok(None) };
    let program = |rules, otherwise, found| -> Result<BpfProgram, seccompiler::BackendError> {
        SeccompFilter::new(rules, otherwise, found, arch)?.try_into()
    };
    let killed = program(killed(has_drivers).map_err(rules)?, SeccompAction::Allow, SeccompAction::KillProcess);
    let missing = program(plain(MISSING), SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32));
    let allowed = allowed(has_drivers).map_err(rules)?;
    let allowed = program(allowed, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow);
    Ok(Some([killed.map_err(rules)?, missing.map_err(rules)?, allowed.map_err(rules)?]))
}

fn rules(error: impl std::fmt::Display) -> JailError {
    JailError::Rules { layer: Layer::Seccomp, detail: error.to_string() }
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Calls that match whatever their arguments are.
fn plain(calls: &[c_long]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

fn killed(has_drivers: bool) -> Result<Rules, seccompiler::BackendError> {
    let mut rules = plain(KILLED);
    rules.extend(plain(old::KILLED));
    if has_drivers {
        // It asks whether two descriptors are one file, and gets along without an answer.
        rules.remove(&libc::SYS_kcmp);
    }
    // A new process, where threads share everything.
    rules.insert(libc::SYS_clone, vec![flags(0, libc::CLONE_THREAD as u64, 0)?]);
    Ok(rules)
}

fn allowed(has_drivers: bool) -> Result<Rules, seccompiler::BackendError> {
    let mut rules = plain(ALLOWED);
    rules.extend(plain(old::ALLOWED));
    let thread = libc::CLONE_THREAD as u64;
    rules.insert(libc::SYS_clone, vec![flags(0, thread, thread)?]);
    // Shared mappings and stacks are counted as no data.
    rules.insert(libc::SYS_mmap, vec![flags(3, MAP_KIND, libc::MAP_PRIVATE as u64)?]);
    if has_drivers {
        rules.extend(plain(DRIVERS));
        rules.extend(plain(old::DRIVERS));
        // Memory of the device is shared with it.
        let shared = flags(3, libc::MAP_SHARED as u64, libc::MAP_SHARED as u64)?;
        rules.entry(libc::SYS_mmap).or_default().push(shared);
        // Limits may be read: nothing new is given.
        rules.insert(libc::SYS_prlimit64, vec![nothing(2)?]);
    }
    rules.insert(libc::SYS_prctl, vec![equal(0, libc::PR_SET_NAME as u64)?]);
    // To raise a signal in itself, as an abort does.
    rules.insert(libc::SYS_tgkill, vec![equal(0, std::process::id().into())?]);
    let asks = [libc::F_GETFD, libc::F_GETFL, libc::F_GET_SEALS, libc::F_ADD_SEALS];
    let asks = asks.into_iter().map(|ask| equal(1, ask as u64)).collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_fcntl, asks);
    Ok(rules)
}

/// A pointer that is null.
fn nothing(argument: u8) -> Result<SeccompRule, seccompiler::BackendError> {
    let null = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?;
    SeccompRule::new(vec![null])
}

fn equal(argument: u8, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    rule(argument, SeccompCmpOp::Eq, value)
}

fn flags(argument: u8, mask: u64, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    rule(argument, SeccompCmpOp::MaskedEq(mask), value)
}

fn rule(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)?])
}
