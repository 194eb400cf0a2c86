//! Reading and writing: streams and files, at the descriptor's position or at an offset.

use super::{
    errno::Errno,
    fds::{FLAG_APPEND, Fd, Kind, RIGHT_READ, RIGHT_WRITE},
    tree::{Ino, Zone},
};
use crate::{
    limits,
    sandbox::state::{BadPointer, Call, Fail, Guest, State},
};

pub(super) fn fd_read(call: &mut Call<'_>, fd: u32, iovs: u32, iovs_len: u32, out: u32) -> Result<(), Fail> {
    read(call, fd, iovs, iovs_len, None, out)
}

pub(super) fn fd_pread(
    call: &mut Call<'_>,
    fd: u32,
    iovs: u32,
    iovs_len: u32,
    offset: u64,
    out: u32,
) -> Result<(), Fail> {
    read(call, fd, iovs, iovs_len, Some(offset), out)
}

pub(super) fn fd_write(call: &mut Call<'_>, fd: u32, iovs: u32, iovs_len: u32, out: u32) -> Result<(), Fail> {
    write(call, fd, iovs, iovs_len, None, out)
}

pub(super) fn fd_pwrite(
    call: &mut Call<'_>,
    fd: u32,
    iovs: u32,
    iovs_len: u32,
    offset: u64,
    out: u32,
) -> Result<(), Fail> {
    write(call, fd, iovs, iovs_len, Some(offset), out)
}

fn read(call: &mut Call<'_>, fd: u32, iovs: u32, iovs_len: u32, offset: Option<u64>, out: u32) -> Result<(), Fail> {
    let open = *call.state.fds.get(fd)?;
    let at = position(&open, offset, RIGHT_READ)?;
    let wanted = total(call, iovs, iovs_len)?;
    call.memory.slice(out, 4)?;
    let available = match open.kind {
        Kind::Stdin => call.state.readable(fd)?,
        Kind::File(ino) => (call.tree().node(ino)?.bytes().len() as u64).saturating_sub(at),
        _ => return Err(Errno::BadF.into()),
    };
    let len = wanted.min(available);
    call.pay_bytes(len)?;
    let State { tree, stdin, stdin_at, .. } = &mut *call.state;
    let source = match open.kind {
        Kind::Stdin => stdin.get(*stdin_at..).unwrap_or_default(),
        Kind::File(ino) => {
            let bytes = tree.as_ref().ok_or(Errno::BadF)?.node(ino)?.bytes();
            usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default()
        }
        _ => &[],
    };
    scatter(&mut call.memory, iovs, iovs_len, source)?;
    match open.kind {
        Kind::Stdin => *stdin_at = stdin_at.saturating_add(len as usize),
        _ if offset.is_none() => call.state.fds.get_mut(fd)?.at = at.saturating_add(len),
        _ => {}
    }
    // The buffers may overlap the place of the answer, so it is written last.
    Ok(call.memory.write_u32(out, u32::try_from(len).map_err(|_| Errno::Inval)?)?)
}

fn write(call: &mut Call<'_>, fd: u32, iovs: u32, iovs_len: u32, offset: Option<u64>, out: u32) -> Result<(), Fail> {
    let open = *call.state.fds.get(fd)?;
    let at = position(&open, offset, RIGHT_WRITE)?;
    let len = total(call, iovs, iovs_len)?;
    call.memory.slice(out, 4)?;
    call.pay_bytes(len)?;
    match open.kind {
        Kind::Stdout => {
            call.state.quota.take(Zone::Out, len)?;
            gather(&call.memory, iovs, iovs_len, |part| call.state.stdout.extend_from_slice(part))?;
        }
        Kind::Stderr => {
            let kept = usize::try_from(call.state.limits.log_bytes_max).unwrap_or(usize::MAX);
            let stderr = &mut call.state.stderr;
            gather(&call.memory, iovs, iovs_len, |part| {
                let room = kept.saturating_sub(stderr.len()).min(part.len());
                stderr.extend_from_slice(&part[..room]);
            })?;
        }
        Kind::File(ino) => {
            let appends = open.flags & FLAG_APPEND != 0 && offset.is_none();
            let at = if appends { call.tree().node(ino)?.bytes().len() as u64 } else { at };
            let end = write_file(call, ino, at, len, iovs, iovs_len)?;
            if offset.is_none() {
                call.state.fds.get_mut(fd)?.at = end;
            }
        }
        _ => return Err(Errno::BadF.into()),
    }
    Ok(call.memory.write_u32(out, u32::try_from(len).map_err(|_| Errno::Inval)?)?)
}

fn write_file(call: &mut Call<'_>, ino: Ino, at: u64, len: u64, iovs: u32, iovs_len: u32) -> Result<u64, Fail> {
    let end = at.checked_add(len).ok_or(Errno::FBig)?;
    if len == 0 {
        return Ok(end);
    }
    let size = call.tree().node(ino)?.bytes().len() as u64;
    if end > size {
        resize(call, ino, end)?;
    }
    let mut to = usize::try_from(at).map_err(|_| Errno::FBig)?;
    let bytes = call.state.tree.as_mut().ok_or(Errno::BadF)?.writable(ino)?;
    gather(&call.memory, iovs, iovs_len, |part| {
        if let Some(place) = bytes.get_mut(to..to.saturating_add(part.len())) {
            place.copy_from_slice(part);
        }
        to = to.saturating_add(part.len());
    })?;
    Ok(end)
}

/// Makes a file `size` bytes long, new bytes being zero: takes or gives room, and charges for the zeros.
pub(super) fn resize(call: &mut Call<'_>, ino: Ino, size: u64) -> Result<(), Fail> {
    let node = call.tree().node(ino)?;
    let (zone, copies, old) = (node.zone, node.copies(), node.bytes().len() as u64);
    call.tree().writable(ino)?;
    if size > old {
        // Room first: a refused size costs nothing. Zeros are work.
        call.state.quota.take(zone, (size - old).saturating_mul(copies))?;
        call.pay_bytes(size - old)?;
    } else {
        call.state.quota.give(zone, (old - size).saturating_mul(copies));
    }
    let size = usize::try_from(size).map_err(|_| Errno::FBig)?;
    call.tree().writable(ino)?.resize(size, 0);
    Ok(())
}

/// Where a read or write starts, if the descriptor allows it.
fn position(open: &Fd, offset: Option<u64>, right: u64) -> Result<u64, Errno> {
    match open.kind {
        Kind::Dir(_) => return Err(if right == RIGHT_WRITE { Errno::BadF } else { Errno::IsDir }),
        Kind::File(_) => {}
        _ if offset.is_some() => return Err(Errno::SPipe),
        _ => {}
    }
    if open.rights & right == 0 {
        return Err(Errno::BadF);
    }
    Ok(offset.unwrap_or(open.at))
}

/// Bytes that all buffers hold together; checks that each lies in memory.
fn total(call: &mut Call<'_>, iovs: u32, iovs_len: u32) -> Result<u64, Fail> {
    if iovs_len > limits::IOVECS_MAX {
        return Err(Errno::Inval.into());
    }
    call.pay_bytes(u64::from(iovs_len) * 8)?;
    let mut sum = 0u64;
    for index in 0..iovs_len {
        let (ptr, len) = iovec(&call.memory, iovs, index)?;
        call.memory.slice(ptr, len)?;
        sum += u64::from(len);
    }
    if sum > u64::from(u32::MAX) { Err(Errno::Inval.into()) } else { Ok(sum) }
}

fn iovec(memory: &Guest<'_>, iovs: u32, index: u32) -> Result<(u32, u32), BadPointer> {
    // At most `IOVECS_MAX` times 8: no overflow.
    Ok((memory.read_u32(iovs, index * 8)?, memory.read_u32(iovs, index * 8 + 4)?))
}

fn gather(memory: &Guest<'_>, iovs: u32, iovs_len: u32, mut take: impl FnMut(&[u8])) -> Result<(), BadPointer> {
    for index in 0..iovs_len {
        let (ptr, len) = iovec(memory, iovs, index)?;
        take(memory.slice(ptr, len)?);
    }
    Ok(())
}

fn scatter(memory: &mut Guest<'_>, iovs: u32, iovs_len: u32, mut source: &[u8]) -> Result<(), BadPointer> {
    for index in 0..iovs_len {
        // Read anew each time: an earlier buffer may have been laid over the list itself.
        let (ptr, len) = iovec(memory, iovs, index)?;
        let (part, rest) = source.split_at(source.len().min(len as usize));
        memory.write(ptr, part)?;
        source = rest;
    }
    Ok(())
}
