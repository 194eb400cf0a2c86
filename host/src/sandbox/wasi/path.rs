//! What is done by path, links included. Where a path leads is in [`super::tree`].

use super::{
    errno::Errno,
    fds::{Fd, Kind, RIGHT_PATH_SET_SIZE, RIGHTS_ALL, RIGHTS_DIR, RIGHTS_WRITE},
    io, stat,
    tree::{Body, Ino, Last, Place, Zone},
};
use crate::{
    limits,
    sandbox::state::{Call, Fail},
};

const CREATE: u32 = 1;
const DIRECTORY: u32 = 2;
const EXCLUSIVE: u32 = 4;
const TRUNCATE: u32 = 8;
/// Flag of a lookup: a link at the end of the path is followed.
const FOLLOW: u32 = 1;

/// The directory that a path starts at, and the path.
fn path(call: &mut Call<'_>, fd: u32, ptr: u32, len: u32) -> Result<(Ino, String), Fail> {
    let Kind::Dir(start) = call.state.fds.get(fd)?.kind else { return Err(Errno::NotDir.into()) };
    let bytes = call.memory.slice(ptr, len)?;
    let path = checked(bytes)?.to_owned();
    // Each byte may be a step through a directory.
    call.pay(len.into())?;
    Ok((start, path))
}

/// A path as it may be: relative, of text.
fn checked(bytes: &[u8]) -> Result<&str, Errno> {
    if bytes.len() > limits::PATH_BYTES_MAX {
        return Err(Errno::NameTooLong);
    }
    let path = std::str::from_utf8(bytes).map_err(|_| Errno::IlSeq)?;
    match bytes {
        [] => Err(Errno::NoEnt),
        [b'/', ..] => Err(Errno::NotCapable),
        _ if bytes.contains(&0) => Err(Errno::IlSeq),
        _ => Ok(path),
    }
}

/// Where a path leads from an open directory.
fn locate(call: &mut Call<'_>, fd: u32, ptr: u32, len: u32, last: Last) -> Result<Place, Fail> {
    let (start, path) = path(call, fd, ptr, len)?;
    let mut followed_bytes = 0;
    let place = call.tree().locate(start, &path, last, &mut followed_bytes);
    // The path of a link costs what it would if the guest had given it.
    call.pay(followed_bytes)?;
    Ok(place?)
}

/// As [`locate`], by the flags of a lookup. A slash at the end wants what a link leads to, as POSIX has it.
fn look_up(call: &mut Call<'_>, fd: u32, flags: u32, ptr: u32, len: u32) -> Result<Place, Fail> {
    if flags & !FOLLOW != 0 {
        return Err(Errno::Inval.into());
    }
    let slash = call.memory.slice(ptr, len)?.ends_with(b"/");
    locate(call, fd, ptr, len, if flags & FOLLOW != 0 || slash { Last::Follow } else { Last::Keep })
}

#[expect(clippy::too_many_arguments, reason = "the specification has this many")]
pub(super) fn path_open(
    call: &mut Call<'_>,
    fd: u32,
    lookup: u32,
    ptr: u32,
    len: u32,
    oflags: u32,
    rights: u64,
    inheriting: u64,
    flags: u32,
    out: u32,
) -> Result<(), Fail> {
    let flags = stat::checked_flags(flags)?;
    let place = look_up(call, fd, lookup, ptr, len)?;
    call.memory.slice(out, 4)?;
    call.state.fds.free()?;
    if oflags & TRUNCATE != 0 && call.state.fds.get(fd)?.rights & RIGHT_PATH_SET_SIZE == 0 {
        return Err(Errno::NotCapable.into());
    }
    let writes = rights & RIGHTS_WRITE != 0;
    let ino = match (place.found, &place.name) {
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
    if matches!(node.body, Body::Link(_)) {
        return Err(Errno::Loop.into());
    }
    if node.zone == Zone::Fixed && (writes || oflags & TRUNCATE != 0) {
        return Err(Errno::RoFs.into());
    }
    if oflags & TRUNCATE != 0 {
        io::resize(call, ino, 0)?;
    }
    let (kind, rights) =
        if is_dir { (Kind::Dir(ino), rights & RIGHTS_DIR) } else { (Kind::File(ino), rights & RIGHTS_ALL) };
    let open = Fd { kind, at: 0, flags, rights, inheriting: inheriting & RIGHTS_ALL, preopened: false };
    let opened = call.state.fds.insert(open)?;
    call.tree().open(ino);
    Ok(call.memory.write_u32(out, opened)?)
}

pub(super) fn path_create_directory(call: &mut Call<'_>, fd: u32, ptr: u32, len: u32) -> Result<(), Fail> {
    let place = locate(call, fd, ptr, len, Last::Keep)?;
    match (place.found, &place.name) {
        (None, Some(name)) => call.tree().create_dir(place.parent, name).map(drop)?,
        _ => return Err(Errno::Exist.into()),
    }
    Ok(())
}

pub(super) fn path_remove_directory(call: &mut Call<'_>, fd: u32, ptr: u32, len: u32) -> Result<(), Fail> {
    let place = locate(call, fd, ptr, len, Last::Keep)?;
    // An empty directory has no bytes to give back.
    call.tree().remove_dir(&place)?;
    Ok(())
}

pub(super) fn path_unlink_file(call: &mut Call<'_>, fd: u32, ptr: u32, len: u32) -> Result<(), Fail> {
    let place = locate(call, fd, ptr, len, Last::Keep)?;
    if let Some((zone, bytes)) = call.tree().remove_file(&place)? {
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
    let from = locate(call, fd, ptr, len, Last::Keep)?;
    let to = locate(call, new_fd, new_ptr, new_len, Last::Keep)?;
    // A subtree may have to be measured.
    call.pay(limits::NODES_MAX as u64)?;
    let tree = call.tree();
    let Some((ino, _)) = tree.check_rename(&from, &to)? else { return Ok(()) };
    let node = tree.node(ino)?;
    let (old_zone, size) = (node.zone, node.bytes().len() as u64);
    let zone = tree.node(to.parent)?.zone;
    if zone != old_zone {
        call.state.quota.take(zone, size)?;
        call.state.quota.give(old_zone, size);
    }
    if let Some((zone, bytes)) = call.tree().rename(&from, &to)? {
        call.state.quota.give(zone, bytes);
    }
    Ok(())
}

pub(super) fn path_filestat_get(
    call: &mut Call<'_>,
    fd: u32,
    flags: u32,
    ptr: u32,
    len: u32,
    out: u32,
) -> Result<(), Fail> {
    let found = look_up(call, fd, flags, ptr, len)?.found.ok_or(Errno::NoEnt)?;
    stat::filestat(call, found, out)
}

#[expect(clippy::too_many_arguments, reason = "the specification has this many")]
pub(super) fn path_filestat_set_times(
    call: &mut Call<'_>,
    fd: u32,
    flags: u32,
    ptr: u32,
    len: u32,
    accessed: u64,
    modified: u64,
    times: u32,
) -> Result<(), Fail> {
    let found = look_up(call, fd, flags, ptr, len)?.found.ok_or(Errno::NoEnt)?;
    stat::set_times(call, found, accessed, modified, times)
}

/// Gives a file, or a symbolic link itself, another name.
#[expect(clippy::too_many_arguments, reason = "the specification has this many")]
pub(super) fn path_link(
    call: &mut Call<'_>,
    fd: u32,
    flags: u32,
    ptr: u32,
    len: u32,
    new_fd: u32,
    new_ptr: u32,
    new_len: u32,
) -> Result<(), Fail> {
    if flags != 0 {
        return Err(Errno::Inval.into());
    }
    let ino = locate(call, fd, ptr, len, Last::Keep)?.found.ok_or(Errno::NoEnt)?;
    let to = locate(call, new_fd, new_ptr, new_len, Last::Keep)?;
    let name = new_name(&to)?;
    let (zone, bytes) = call.tree().check_hard_link(ino, to.parent, name)?;
    call.state.quota.take(zone, bytes)?;
    Ok(call.tree().hard_link(ino, to.parent, name)?)
}

/// Makes a symbolic link. Where it leads need not exist, but has to be a relative path.
pub(super) fn path_symlink(
    call: &mut Call<'_>,
    target: u32,
    target_len: u32,
    fd: u32,
    ptr: u32,
    len: u32,
) -> Result<(), Fail> {
    let target = checked(call.memory.slice(target, target_len)?)?.to_owned();
    call.pay_bytes(target_len.into())?;
    let place = locate(call, fd, ptr, len, Last::Keep)?;
    let name = new_name(&place)?;
    let zone = call.tree().check_room(place.parent, name, false)?;
    call.state.quota.take(zone, target.len() as u64)?;
    call.tree().create_link(place.parent, name, target)?;
    Ok(())
}

/// The name of something new that is no directory.
fn new_name(place: &Place) -> Result<&str, Errno> {
    match (place.found, &place.name) {
        (Some(_), _) | (_, None) => Err(Errno::Exist),
        (None, Some(_)) if place.slash => Err(Errno::NoEnt),
        (None, Some(name)) => Ok(name),
    }
}

pub(super) fn path_readlink(
    call: &mut Call<'_>,
    fd: u32,
    ptr: u32,
    len: u32,
    buffer: u32,
    buffer_len: u32,
    used: u32,
) -> Result<(), Fail> {
    let found = locate(call, fd, ptr, len, Last::Keep)?.found.ok_or(Errno::NoEnt)?;
    call.memory.slice(buffer, buffer_len)?;
    call.memory.slice(used, 4)?;
    // What is no link is an invalid argument, as POSIX has it.
    let Body::Link(target) = &call.tree().node(found)?.body else { return Err(Errno::Inval.into()) };
    let mut target = target.clone().into_bytes();
    // A buffer that is too short gets the beginning.
    target.truncate(buffer_len as usize);
    call.pay_bytes(target.len() as u64)?;
    call.memory.write(buffer, &target)?;
    Ok(call.memory.write_u32(used, u32::try_from(target.len()).map_err(|_| Errno::Overflow)?)?)
}
