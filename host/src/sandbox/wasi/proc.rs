//! Arguments, variables, signals. The program's name is always `task`.

use super::errno::Errno;
use crate::sandbox::state::{Call, Fail, State, Stop};

const NAME: &str = "task";

pub(super) fn args_sizes_get(call: &mut Call<'_>, count: u32, bytes: u32) -> Result<(), Fail> {
    sizes(call, count, bytes, args)
}

pub(super) fn args_get(call: &mut Call<'_>, argv: u32, buffer: u32) -> Result<(), Fail> {
    strings(call, argv, buffer, args)
}

pub(super) fn environ_sizes_get(call: &mut Call<'_>, count: u32, bytes: u32) -> Result<(), Fail> {
    sizes(call, count, bytes, env)
}

pub(super) fn environ_get(call: &mut Call<'_>, environ: u32, buffer: u32) -> Result<(), Fail> {
    strings(call, environ, buffer, env)
}

/// A guest that raises a signal wants to die: it traps as if it had aborted.
pub(super) fn proc_raise(_: &mut Call<'_>, _signal: u32) -> Result<(), Fail> {
    Err(Stop::Abort.into())
}

pub(super) fn sched_yield(_: &mut Call<'_>) -> Result<(), Fail> {
    Ok(())
}

/// Each string ends with a NUL.
fn args(state: &State) -> Vec<Vec<u8>> {
    [NAME]
        .into_iter()
        .chain(state.args.iter().map(String::as_str))
        .map(|arg| [arg.as_bytes(), b"\0"].concat())
        .collect()
}

fn env(state: &State) -> Vec<Vec<u8>> {
    state.env.iter().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes(), b"\0"].concat()).collect()
}

fn sizes(call: &mut Call<'_>, count: u32, bytes: u32, list: fn(&State) -> Vec<Vec<u8>>) -> Result<(), Fail> {
    let list = list(call.state);
    let len = list.iter().fold(0usize, |sum, item| sum.saturating_add(item.len()));
    call.pay_bytes(len as u64)?;
    call.memory.write_u32(count, u32::try_from(list.len()).map_err(|_| Errno::Overflow)?)?;
    Ok(call.memory.write_u32(bytes, u32::try_from(len).map_err(|_| Errno::Overflow)?)?)
}

fn strings(call: &mut Call<'_>, pointers: u32, buffer: u32, list: fn(&State) -> Vec<Vec<u8>>) -> Result<(), Fail> {
    let (mut pointer, mut at) = (pointers, buffer);
    for item in list(call.state) {
        call.pay_bytes(item.len() as u64)?;
        call.memory.write(at, &item)?;
        call.memory.write_u32(pointer, at)?;
        // Both writes were inside memory, so neither sum wraps except exactly at its end.
        pointer = pointer.wrapping_add(4);
        at = at.wrapping_add(u32::try_from(item.len()).map_err(|_| Errno::Overflow)?);
    }
    Ok(())
}
