//! `poll_oneoff`: waiting is a jump of the virtual clock, so it returns at once, be it 292 years.

use super::{clock, errno::Errno};
use crate::{
    limits,
    sandbox::state::{Call, Fail},
};

const SUBSCRIPTION_BYTES: u32 = 48;
const EVENT_BYTES: u32 = 32;
const KIND_CLOCK: u8 = 0;
const KIND_READ: u8 = 1;
const KIND_WRITE: u8 = 2;
/// Flag of a clock subscription: its timeout is a moment, not a span.
const ABSTIME: u16 = 1;

/// What a subscription waits for.
enum Wait {
    /// So many nanoseconds from now.
    Span(u64),
    /// Ready, with so many bytes to read.
    Ready(u64),
    Failed(Errno),
}

pub(super) fn poll_oneoff(
    call: &mut Call<'_>,
    subscriptions: u32,
    events: u32,
    count: u32,
    written: u32,
) -> Result<(), Fail> {
    if count == 0 || count > limits::SUBSCRIPTIONS_MAX {
        return Err(Errno::Inval.into());
    }
    call.pay_bytes(u64::from(count) * u64::from(SUBSCRIPTION_BYTES + EVENT_BYTES))?;
    // Both ranges are checked before the clock moves; within them no offset wraps.
    call.memory.slice(subscriptions, count * SUBSCRIPTION_BYTES)?;
    call.memory.slice(events, count * EVENT_BYTES)?;
    call.memory.slice(written, 4)?;
    let mut waits = Vec::new();
    for index in 0..count {
        waits.push(subscription(call, subscriptions + index * SUBSCRIPTION_BYTES)?);
    }
    let ready = waits.iter().any(|(_, _, wait)| !matches!(wait, Wait::Span(_)));
    let spans = waits.iter().filter_map(|(_, _, wait)| if let Wait::Span(span) = wait { Some(*span) } else { None });
    let slept = if ready { 0 } else { spans.min().unwrap_or(0) };
    call.state.slept_ns = call.state.slept_ns.saturating_add(slept);

    let mut out = 0;
    for (userdata, kind, wait) in waits {
        let (errno, bytes) = match wait {
            Wait::Span(span) if span > slept => continue,
            Wait::Span(_) => (0, 0),
            Wait::Ready(bytes) => (0, bytes),
            Wait::Failed(errno) => (errno as u16, 0),
        };
        let mut event = [0; EVENT_BYTES as usize];
        event[0..8].copy_from_slice(&userdata);
        event[8..10].copy_from_slice(&errno.to_le_bytes());
        event[10] = kind;
        event[16..24].copy_from_slice(&bytes.to_le_bytes());
        call.memory.write(events + out * EVENT_BYTES, &event)?;
        out += 1;
    }
    Ok(call.memory.write_u32(written, out)?)
}

fn subscription(call: &Call<'_>, at: u32) -> Result<([u8; 8], u8, Wait), Fail> {
    let userdata = call.memory.read(at, 0)?;
    let kind = call.memory.read_u8(at, 8)?;
    let wait = match kind {
        KIND_CLOCK => {
            let id = call.memory.read_u32(at, 16)?;
            let timeout = call.memory.read_u64(at, 24)?;
            let absolute = call.memory.read_u16(at, 40)? & ABSTIME != 0;
            match clock::now_ns(call, id) {
                Ok(now) if absolute => Wait::Span(timeout.saturating_sub(now)),
                Ok(_) => Wait::Span(timeout),
                Err(errno) => Wait::Failed(errno),
            }
        }
        KIND_READ | KIND_WRITE => match call.state.readable(call.memory.read_u32(at, 16)?) {
            Ok(bytes) => Wait::Ready(if kind == KIND_READ { bytes } else { 0 }),
            Err(errno) => Wait::Failed(errno),
        },
        _ => return Err(Errno::Inval.into()),
    };
    Ok((userdata, kind, wait))
}
