//! Layer 2: the kernel's limits on what a process may use.
//!
//! Memory is bounded by `RLIMIT_DATA`: the engine reserves far more address space than it ever uses. `RLIMIT_NPROC` counts
//! for a whole user, and not at all for root: processes are `seccomp`'s to stop.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Jail, JailError, Layer, refused};

pub(super) fn enter(jail: &Jail) -> Result<(), JailError> {
    let limits = [
        (Resource::Core, "RLIMIT_CORE", Some(0)),
        (Resource::Memlock, "RLIMIT_MEMLOCK", Some(0)),
        (Resource::Msgqueue, "RLIMIT_MSGQUEUE", Some(0)),
        (Resource::Cpu, "RLIMIT_CPU", jail.cpu_s_max),
        (Resource::Fsize, "RLIMIT_FSIZE", Some(jail.file_bytes_max)),
        (Resource::Nofile, "RLIMIT_NOFILE", Some(jail.descriptors_max)),
        (Resource::Data, "RLIMIT_DATA", jail.data_bytes_max),
        (Resource::As, "RLIMIT_AS", jail.address_bytes_max),
    ];
    for (resource, call, bound) in limits {
        let Some(bound) = bound.map(|bound| if resource == Resource::Cpu { bound.saturating_add(1) } else { bound })
        else {
            continue;
        };
        // Who started the host may have been stricter, and that is not ours to raise.
        let bound = getrlimit(resource).maximum.map_or(bound, |maximum| maximum.min(bound));
        // At the soft limit of time the signal is one of its own, which tells it from being killed by anybody else.
        let soft = if resource == Resource::Cpu { bound.saturating_sub(1).max(1) } else { bound };
        let limit = Rlimit { current: Some(soft), maximum: Some(bound) };
        setrlimit(resource, limit).map_err(refused(Layer::Rlimits, call))?;
    }
    Ok(())
}
