//! What is done to an open descriptor beside reading, writing and asking: moving, closing, sizing, listing.

use super::{
    errno::Errno,
    fds::{Fd, Kind, RIGHTS_WRITE},
    io,
    tree::Ino,
};
use crate::sandbox::state::{Call, Fail};

pub(super) fn fd_seek(call: &mut Call<'_>, fd: u32, delta: i64, whence: u32, out: u32) -> Result<(), Fail> {
    let (open, ino) = file(call, fd)?;
    let base = match whence {
        0 => 0,
        1 => open.at,
        2 => call.tree().node(ino)?.bytes().len() as u64,
        _ => return Err(Errno::Inval.into()),
    };
    let at = base.checked_add_signed(delta).filter(|at| i64::try_from(*at).is_ok()).ok_or(Errno::Inval)?;
    call.memory.write_u64(out, at)?;
    call.state.fds.get_mut(fd)?.at = at;
    Ok(())
}

pub(super) fn fd_tell(call: &mut Call<'_>, fd: u32, out: u32) -> Result<(), Fail> {
    let (open, _) = file(call, fd)?;
    Ok(call.memory.write_u64(out, open.at)?)
}

pub(super) fn fd_close(call: &mut Call<'_>, fd: u32) -> Result<(), Fail> {
    let open = call.state.fds.remove(fd)?;
    release(call, &open);
    Ok(())
}

/// Moves `from` over `to`, which is closed.
pub(super) fn fd_renumber(call: &mut Call<'_>, from: u32, to: u32) -> Result<(), Fail> {
    let moved = *call.state.fds.get(from)?;
    let replaced = *call.state.fds.get(to)?;
    if from != to {
        call.state.fds.remove(from)?;
        call.state.fds.put(to, moved);
        release(call, &replaced);
    }
    Ok(())
}

fn release(call: &mut Call<'_>, open: &Fd) {
    if let Kind::Dir(ino) | Kind::File(ino) = open.kind
        && !open.preopened
        && let Some((zone, bytes)) = call.tree().release(ino)
    {
        call.state.quota.give(zone, bytes);
    }
}

pub(super) fn fd_advise(call: &mut Call<'_>, fd: u32, offset: u64, len: u64, advice: u32) -> Result<(), Fail> {
    file(call, fd)?;
    if advice > 5 || offset.checked_add(len).is_none() {
        return Err(Errno::Inval.into());
    }
    Ok(())
}

pub(super) fn fd_allocate(call: &mut Call<'_>, fd: u32, offset: u64, len: u64) -> Result<(), Fail> {
    let ino = written(call, fd)?;
    let end = offset.checked_add(len).ok_or(Errno::Inval)?;
    if end > call.tree().node(ino)?.bytes().len() as u64 {
        io::resize(call, ino, end)?;
    }
    Ok(())
}

pub(super) fn fd_filestat_set_size(call: &mut Call<'_>, fd: u32, size: u64) -> Result<(), Fail> {
    let ino = written(call, fd)?;
    io::resize(call, ino, size)
}

/// Memory is always in sync.
pub(super) fn fd_sync(call: &mut Call<'_>, fd: u32) -> Result<(), Fail> {
    call.state.fds.get(fd)?;
    Ok(())
}

fn file(call: &Call<'_>, fd: u32) -> Result<(Fd, Ino), Errno> {
    let open = *call.state.fds.get(fd)?;
    match open.kind {
        Kind::File(ino) => Ok((open, ino)),
        Kind::Dir(_) => Err(Errno::IsDir),
        Kind::Stdin | Kind::Stdout | Kind::Stderr => Err(Errno::SPipe),
    }
}

fn written(call: &Call<'_>, fd: u32) -> Result<Ino, Errno> {
    let (open, ino) = file(call, fd)?;
    if open.rights & RIGHTS_WRITE == 0 { Err(Errno::BadF) } else { Ok(ino) }
}

/// Lists a directory: `.`, `..`, then the names in the order they came into being. A cookie follows from the name's
/// number, so that removing what was listed does not skip what was not.
pub(super) fn fd_readdir(
    call: &mut Call<'_>,
    fd: u32,
    buffer: u32,
    len: u32,
    cookie: u64,
    used: u32,
) -> Result<(), Fail> {
    let Kind::Dir(dir) = call.state.fds.get(fd)?.kind else { return Err(Errno::NotDir.into()) };
    call.memory.slice(buffer, len)?;
    let parent = call.tree().parent(dir)?;
    let mut list = vec![(0, dir, 3, ".".to_owned()), (1, parent, 3, "..".to_owned())];
    for (serial, ino, name) in call.tree().list(dir)? {
        list.push((serial.saturating_add(2), ino, 0, name.to_owned()));
    }
    call.pay(list.len() as u64)?;
    let mut bytes = Vec::new();
    for (at, ino, kind, name) in list.into_iter().filter(|(at, ..)| *at >= cookie) {
        let kind = if kind == 0 { super::stat::file_type(call.tree().node(ino)?) } else { kind };
        bytes.extend_from_slice(&at.saturating_add(1).to_le_bytes());
        bytes.extend_from_slice(&ino.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(name.len()).map_err(|_| Errno::Overflow)?.to_le_bytes());
        bytes.extend_from_slice(&[kind, 0, 0, 0]);
        bytes.extend_from_slice(name.as_bytes());
        if bytes.len() >= len as usize {
            break;
        }
    }
    // A buffer that is filled to its end tells the guest that there is more.
    bytes.truncate(len as usize);
    call.pay_bytes(bytes.len() as u64)?;
    call.memory.write(buffer, &bytes)?;
    Ok(call.memory.write_u32(used, u32::try_from(bytes.len()).map_err(|_| Errno::Overflow)?)?)
}
