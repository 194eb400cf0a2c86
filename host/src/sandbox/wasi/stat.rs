//! What a guest may ask about descriptors and nodes. The times of a node are where the clock starts until the guest sets
//! them: reading and writing leave them alone.

use super::{
    clock,
    errno::Errno,
    fds::{Kind, RIGHTS_ALL},
    tree::{Body, Ino, Node, Times, Tree, Zone},
};
use crate::sandbox::state::{Call, Fail};

const TYPE_UNKNOWN: u8 = 0;
const TYPE_DIR: u8 = 3;
const TYPE_FILE: u8 = 4;
const TYPE_LINK: u8 = 7;
/// The flags of a descriptor: append, dsync, nonblock, rsync, sync.
const FLAGS_ALL: u32 = 0x1f;
const ROOT_NAME: &[u8] = b"/";

/// `filetype` of a node.
pub(super) fn file_type(node: &Node) -> u8 {
    match node.body {
        Body::Dir(_) => TYPE_DIR,
        Body::Link(_) => TYPE_LINK,
        Body::Input(_) | Body::File(_) => TYPE_FILE,
    }
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
        Kind::Stdin | Kind::Stdout | Kind::Stderr => {
            let stat = Filestat { ino: 0, kind: TYPE_UNKNOWN, names: 1, size: 0, times: START };
            Ok(call.memory.write(out, &stat.bytes())?)
        }
    }
}

/// The times of what nobody has set any of.
const START: Times = Times { accessed: clock::REALTIME_START_NS, modified: clock::REALTIME_START_NS };

/// `filestat` of the specification.
struct Filestat {
    ino: Ino,
    kind: u8,
    names: u32,
    size: u64,
    times: Times,
}

impl Filestat {
    fn bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        let mut put = |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        // There is one device.
        put(0, 1);
        put(8, self.ino);
        put(16, self.kind.into());
        put(24, self.names.into());
        put(32, self.size);
        put(40, self.times.accessed);
        put(48, self.times.modified);
        put(56, clock::REALTIME_START_NS);
        bytes
    }
}

/// Writes the `filestat` of a node.
pub(super) fn filestat(call: &mut Call<'_>, ino: Ino, out: u32) -> Result<(), Fail> {
    let tree: &Tree = call.tree();
    let node = tree.node(ino)?;
    let (kind, size) = (file_type(node), node.bytes().len() as u64);
    let stat = Filestat { ino, kind, names: node.names(), size, times: node.times };
    Ok(call.memory.write(out, &stat.bytes())?)
}

pub(super) fn fd_filestat_set_times(
    call: &mut Call<'_>,
    fd: u32,
    accessed: u64,
    modified: u64,
    flags: u32,
) -> Result<(), Fail> {
    match call.state.fds.get(fd)?.kind {
        Kind::Dir(ino) | Kind::File(ino) => set_times(call, ino, accessed, modified, flags),
        Kind::Stdin | Kind::Stdout | Kind::Stderr => Err(Errno::BadF.into()),
    }
}

const SET_ACCESSED: u32 = 1;
const ACCESSED_NOW: u32 = 1 << 1;
const SET_MODIFIED: u32 = 1 << 2;
const MODIFIED_NOW: u32 = 1 << 3;

/// Sets the times of a node: each to a value, to the virtual clock's, or not at all.
pub(super) fn set_times(call: &mut Call<'_>, ino: Ino, accessed: u64, modified: u64, flags: u32) -> Result<(), Fail> {
    let both = |pair: u32| flags & pair == pair;
    // Flags that set a time both to a value and to now contradict themselves.
    if flags >> 4 != 0 || both(SET_ACCESSED | ACCESSED_NOW) || both(SET_MODIFIED | MODIFIED_NOW) {
        return Err(Errno::Inval.into());
    }
    let now = clock::now_ns(call, clock::REALTIME)?;
    let node = call.tree().node_mut(ino)?;
    if node.zone == Zone::Fixed {
        return Err(Errno::RoFs.into());
    }
    let chosen = |value: u64, old: u64, set: u32, to_now: u32| match flags {
        _ if flags & set != 0 => value,
        _ if flags & to_now != 0 => now,
        _ => old,
    };
    node.times = Times {
        accessed: chosen(accessed, node.times.accessed, SET_ACCESSED, ACCESSED_NOW),
        modified: chosen(modified, node.times.modified, SET_MODIFIED, MODIFIED_NOW),
    };
    Ok(())
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
