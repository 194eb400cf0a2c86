//! Virtual time: it starts at a fixed moment, passes one nanosecond for each unit of fuel, and jumps when the guest sleeps.

use super::errno::Errno;
use crate::sandbox::state::{Call, Fail};

/// Where the real-time clock starts: 2020-01-01, in nanoseconds since 1970.
pub(in crate::sandbox) const REALTIME_START_NS: u64 = 1_577_836_800_000_000_000;
/// Where the monotonic clock starts: one hour, so that a guest may subtract a little from its first instant.
const MONOTONIC_START_NS: u64 = 3_600_000_000_000;

/// The clocks of the specification.
pub(super) const REALTIME: u32 = 0;
pub(super) const MONOTONIC: u32 = 1;
const PROCESS_CPU: u32 = 2;
const THREAD_CPU: u32 = 3;

/// The time on a clock, in nanoseconds.
pub(super) fn now_ns(call: &Call<'_>, id: u32) -> Result<u64, Errno> {
    let ran = call.ran_ns();
    let passed = ran.saturating_add(call.state.slept_ns);
    match id {
        REALTIME => Ok(REALTIME_START_NS.saturating_add(passed)),
        MONOTONIC => Ok(MONOTONIC_START_NS.saturating_add(passed)),
        PROCESS_CPU | THREAD_CPU => Ok(ran),
        _ => Err(Errno::Inval),
    }
}

pub(super) fn clock_res_get(call: &mut Call<'_>, id: u32, out: u32) -> Result<(), Fail> {
    now_ns(call, id)?;
    Ok(call.memory.write_u64(out, 1)?)
}

pub(super) fn clock_time_get(call: &mut Call<'_>, id: u32, _precision: u64, out: u32) -> Result<(), Fail> {
    let now = now_ns(call, id)?;
    Ok(call.memory.write_u64(out, now)?)
}
