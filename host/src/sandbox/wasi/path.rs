//! What is done by path. Links do not exist: making or reading one is not supported.

use super::{
    errno::Errno,
    fds::{Fd, Kind, RIGHT_READ, RIGHTS_ALL, RIGHTS_WRITE},
    io, stat,
    tree::{Ino, Zone},
};
use crate::{
    limits,
    sandbox::state::{Call, Fail},
};

const CREATE: u32 = 1;
const DIRECTORY: u32 = 2;
const EXCLUSIVE: u32 = 4;
const TRUNCATE: u32 = 8;

/// The directory that a path starts at, and the path.
fn path(call: &mut Call<'_>, fd: u32, ptr: u32, len: u32) -> Result<(Ino, String), Fail> {
    let Kind::Dir(start) = call.state.fds.get(fd)?.kind else { return Err(Errno::NotDir.into()) };
    let bytes = call.memory.slice(ptr, len)?;
    if bytes.len() > limits::PATH_BYTES_MAX {
        return Err(Errno::NameTooLong.into());
    }
    let path = std::str::from_utf8(bytes).map_err(|_| Errno::IlSeq)?.to_owned();
    // Each byte may be a step through a directory.
    call.pay(len.into())?;
    match path.as_bytes() {
        [] => Err(Errno::NoEnt.into()),
        [b'/', ..] => Err(Errno::NotCapable.into()),
        bytes if bytes.contains(&0) => Err(Errno::IlSeq.into()),
        _ => Ok((start, path)),
    }
}

#[expect(clippy::too_many_arguments, reason = "the specification has this many")]
pub(super) fn path_open(
    call: &mut Call<'_>,
    fd: u32,
    _lookup: u32,
    ptr: u32,
    len: u32,
    oflags: u32,
    rights: u64,
    inheriting: u64,
    flags: u32,
    out: u32,
) -> Result<(), Fail> {
    let flags = stat::checked_flags(flags)?;
    let (start, path) = path(call, fd, ptr, len)?;
    call.memory.slice(out, 4)?;
    call.state.fds.free()?;
    let writes = rights & RIGHTS_WRITE != 0;
    let place = call.tree().locate(start, &path)?;
    let ino = match (place.found, place.name) {
        (Some(_), _) if oflags & (CREATE | EXCLUSIVE) == CREATE | EXCLUSIVE => return Err(Errno::Exist.into()),
        (Some(ino), _) => ino,
        (None, Some(name)) if oflags & CREATE != 0 => {
            if place.slash || oflags & DIRECTORY != 0 {
                return Err(Errno::IsDir.into());
            }
            call.tree().create_file(place.parent, name)?
        }
        _ => return Err(Errno::NoEnt.into()),
    };
    let node = call.tree().node(ino)?;
    let is_dir = node.is_dir();
    if is_dir && (writes || oflags & TRUNCATE != 0) {
        return Err(Errno::IsDir.into());
    }
    if !is_dir && oflags & DIRECTORY != 0 {
        return Err(Errno::NotDir.into());
    }
    if node.zone == Zone::Fixed && (writes || oflags & TRUNCATE != 0) {
        return Err(Errno::RoFs.into());
    }
    if oflags & TRUNCATE != 0 {
        io::resize(call, ino, 0)?;
    }
    let (kind, rights) = if is_dir {
        (Kind::Dir(ino), rights & RIGHTS_ALL & !(RIGHT_READ | RIGHTS_WRITE))
    } else {
        (Kind::File(ino), rights & RIGHTS_ALL)
    };
    let open = Fd { kind, at: 0, flags, rights, inheriting: inheriting & RIGHTS_ALL, preopened: false };
    let opened = call.state.fds.insert(open)?;
    call.tree().open(ino);
    Ok(call.memory.write_u32(out, opened)?)
}

pub(super) fn path_create_directory(call: &mut Call<'_>, fd: u32, ptr: u32, len: u32) -> Result<(), Fail> {
    let (start, path) = path(call, fd, ptr, len)?;
    let tree = call.tree();
    let place = tree.locate(start, &path)?;
    match (place.found, place.name) {
        (None, Some(name)) => tree.create_dir(place.parent, name).map(drop)?,
        _ => return Err(Errno::Exist.into()),
    }
    Ok(())
}

pub(super) fn path_remove_directory(call: &mut Call<'_>, fd: u32, ptr: u32, len: u32) -> Result<(), Fail> {
    let (start, path) = path(call, fd, ptr, len)?;
    let tree = call.tree();
    let place = tree.locate(start, &path)?;
    // An empty directory has no bytes to give back.
    tree.remove_dir(&place)?;
    Ok(())
}

pub(super) fn path_unlink_file(call: &mut Call<'_>, fd: u32, ptr: u32, len: u32) -> Result<(), Fail> {
    let (start, path) = path(call, fd, ptr, len)?;
    let tree = call.tree();
    let place = tree.locate(start, &path)?;
    if let Some((zone, bytes)) = tree.remove_file(&place)? {
        call.state.quota.give(zone, bytes);
    }
    Ok(())
}

pub(super) fn path_rename(
    call: &mut Call<'_>,
    fd: u32,
    ptr: u32,
    len: u32,
    new_fd: u32,
    new_ptr: u32,
    new_len: u32,
) -> Result<(), Fail> {
    let (start, from) = path(call, fd, ptr, len)?;
    let (new_start, to) = path(call, new_fd, new_ptr, new_len)?;
    // A subtree may have to be measured.
    call.pay(limits::NODES_MAX as u64)?;
    let tree = call.tree();
    let (from, to) = (tree.locate(start, &from)?, tree.locate(new_start, &to)?);
    let (ino, replaced) = tree.check_rename(&from, &to)?;
    let node = tree.node(ino)?;
    let (old_zone, size) = (node.zone, node.bytes().len() as u64);
    let zone = tree.node(to.parent)?.zone;
    if zone != old_zone {
        call.state.quota.take(zone, size)?;
        call.state.quota.give(old_zone, size);
    }
    let Some(name) = to.name else { return Err(Errno::Inval.into()) };
    if let Some((zone, bytes)) = call.tree().rename(ino, replaced, to.parent, name)? {
        call.state.quota.give(zone, bytes);
    }
    Ok(())
}

pub(super) fn path_filestat_get(
    call: &mut Call<'_>,
    fd: u32,
    _flags: u32,
    ptr: u32,
    len: u32,
    out: u32,
) -> Result<(), Fail> {
    let (start, path) = path(call, fd, ptr, len)?;
    let found = call.tree().locate(start, &path)?.found.ok_or(Errno::NoEnt)?;
    stat::filestat(call, found, out)
}

#[expect(clippy::too_many_arguments, reason = "the specification has this many")]
pub(super) fn path_filestat_set_times(
    call: &mut Call<'_>,
    fd: u32,
    _flags: u32,
    ptr: u32,
    len: u32,
    _accessed: u64,
    _modified: u64,
    times: u32,
) -> Result<(), Fail> {
    stat::check_times(times)?;
    let (start, path) = path(call, fd, ptr, len)?;
    call.tree().locate(start, &path)?.found.ok_or(Errno::NoEnt)?;
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the specification has this many")]
pub(super) fn path_link(
    call: &mut Call<'_>,
    fd: u32,
    _flags: u32,
    ptr: u32,
    len: u32,
    new_fd: u32,
    new_ptr: u32,
    new_len: u32,
) -> Result<(), Fail> {
    path(call, fd, ptr, len)?;
    path(call, new_fd, new_ptr, new_len)?;
    Err(Errno::NotSup.into())
}

pub(super) fn path_symlink(
    call: &mut Call<'_>,
    target: u32,
    target_len: u32,
    fd: u32,
    ptr: u32,
    len: u32,
) -> Result<(), Fail> {
    call.memory.slice(target, target_len)?;
    path(call, fd, ptr, len)?;
    Err(Errno::NotSup.into())
}

/// Nothing is a link, so there is nothing to read: what exists is an invalid argument, as POSIX has it.
pub(super) fn path_readlink(
    call: &mut Call<'_>,
    fd: u32,
    ptr: u32,
    len: u32,
    buffer: u32,
    buffer_len: u32,
    used: u32,
) -> Result<(), Fail> {
    let (start, path) = path(call, fd, ptr, len)?;
    call.memory.slice(buffer, buffer_len)?;
    call.memory.slice(used, 4)?;
    call.tree().locate(start, &path)?.found.ok_or(Errno::NoEnt)?;
    Err(Errno::Inval.into())
}
