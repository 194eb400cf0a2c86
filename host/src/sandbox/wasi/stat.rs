//! What a guest may ask about descriptors and nodes. Times never change and setting them is accepted and forgotten.

use super::{
    clock,
    errno::Errno,
    fds::{Kind, RIGHTS_ALL},
    tree::{Ino, Node, Tree},
};
use crate::sandbox::state::{Call, Fail, Guest};

const TYPE_UNKNOWN: u8 = 0;
const TYPE_DIR: u8 = 3;
const TYPE_FILE: u8 = 4;
/// The flags of a descriptor: append, dsync, nonblock, rsync, sync.
const FLAGS_ALL: u32 = 0x1f;
const ROOT_NAME: &[u8] = b"/";

/// `filetype` of a node.
pub(super) fn file_type(node: &Node) -> u8 {
    if node.is_dir() { TYPE_DIR } else { TYPE_FILE }
}

pub(super) fn fd_fdstat_get(call: &mut Call<'_>, fd: u32, out: u32) -> Result<(), Fail> {
    let open = *call.state.fds.get(fd)?;
    let mut stat = [0; 24];
    stat[0] = match open.kind {
        Kind::Dir(_) => TYPE_DIR,
        Kind::File(_) => TYPE_FILE,
        Kind::Stdin | Kind::Stdout | Kind::Stderr => TYPE_UNKNOWN,
    };
    stat[2..4].copy_from_slice(&open.flags.to_le_bytes());
    stat[8..16].copy_from_slice(&open.rights.to_le_bytes());
    stat[16..24].copy_from_slice(&open.inheriting.to_le_bytes());
    Ok(call.memory.write(out, &stat)?)
}

pub(super) fn fd_fdstat_set_flags(call: &mut Call<'_>, fd: u32, flags: u32) -> Result<(), Fail> {
    let open = call.state.fds.get_mut(fd)?;
    open.flags = checked_flags(flags)?;
    Ok(())
}

/// Flags as stored; only append means anything here.
pub(super) fn checked_flags(flags: u32) -> Result<u16, Errno> {
    if flags & !FLAGS_ALL == 0 { u16::try_from(flags).map_err(|_| Errno::Inval) } else { Err(Errno::Inval) }
}

/// Rights can be given up, never taken.
pub(super) fn fd_fdstat_set_rights(call: &mut Call<'_>, fd: u32, rights: u64, inheriting: u64) -> Result<(), Fail> {
    let open = call.state.fds.get_mut(fd)?;
    if rights & !open.rights != 0 || inheriting & !open.inheriting != 0 || (rights | inheriting) & !RIGHTS_ALL != 0 {
        return Err(Errno::NotCapable.into());
    }
    (open.rights, open.inheriting) = (rights, inheriting);
    Ok(())
}

pub(super) fn fd_filestat_get(call: &mut Call<'_>, fd: u32, out: u32) -> Result<(), Fail> {
    match call.state.fds.get(fd)?.kind {
        Kind::Dir(ino) | Kind::File(ino) => filestat(call, ino, out),
        Kind::Stdin | Kind::Stdout | Kind::Stderr => write_filestat(&mut call.memory, out, 0, TYPE_UNKNOWN, 0),
    }
}

/// Writes the `filestat` of a node.
pub(super) fn filestat(call: &mut Call<'_>, ino: Ino, out: u32) -> Result<(), Fail> {
    let tree: &Tree = call.tree();
    let node = tree.node(ino)?;
    let (kind, size) = (file_type(node), node.bytes().len() as u64);
    write_filestat(&mut call.memory, out, ino, kind, size)
}

fn write_filestat(memory: &mut Guest<'_>, out: u32, ino: Ino, kind: u8, size: u64) -> Result<(), Fail> {
    let mut stat = [0; 64];
    stat[0..8].copy_from_slice(&1u64.to_le_bytes());
    stat[8..16].copy_from_slice(&ino.to_le_bytes());
    stat[16] = kind;
    stat[24..32].copy_from_slice(&1u64.to_le_bytes());
    stat[32..40].copy_from_slice(&size.to_le_bytes());
    for time in [40, 48, 56] {
        stat[time..time + 8].copy_from_slice(&clock::REALTIME_START_NS.to_le_bytes());
    }
    Ok(memory.write(out, &stat)?)
}

pub(super) fn fd_filestat_set_times(call: &mut Call<'_>, fd: u32, _: u64, _: u64, flags: u32) -> Result<(), Fail> {
    call.state.fds.get(fd)?;
    Ok(check_times(flags)?)
}

/// Flags that set a time both to a value and to now contradict themselves.
pub(super) fn check_times(flags: u32) -> Result<(), Errno> {
    let both = |pair: u32| flags & pair == pair;
    if flags & !0xf != 0 || both(0b0011) || both(0b1100) { Err(Errno::Inval) } else { Ok(()) }
}

pub(super) fn fd_prestat_get(call: &mut Call<'_>, fd: u32, out: u32) -> Result<(), Fail> {
    if !call.state.fds.get(fd)?.preopened {
        return Err(Errno::BadF.into());
    }
    let len = u32::try_from(ROOT_NAME.len()).map_err(|_| Errno::Overflow)?;
    call.memory.slice(out, 8)?;
    call.memory.write_u32(out, 0)?;
    // Inside the eight bytes that were checked.
    Ok(call.memory.write_u32(out + 4, len)?)
}

pub(super) fn fd_prestat_dir_name(call: &mut Call<'_>, fd: u32, path: u32, len: u32) -> Result<(), Fail> {
    if !call.state.fds.get(fd)?.preopened {
        return Err(Errno::BadF.into());
    }
    if (len as usize) < ROOT_NAME.len() {
        return Err(Errno::NameTooLong.into());
    }
    Ok(call.memory.write(path, ROOT_NAME)?)
}
