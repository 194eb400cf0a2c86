//! Memory that is a file: it can be mapped, handed to another process, and made constant.

use std::{
    fs::File,
    io::{self, Write},
};

/// A file in memory.
#[cfg(target_os = "linux")]
pub(super) fn empty(name: &str) -> io::Result<File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    Ok(File::from(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?))
}

/// A file without a name, where there is none in memory.
#[cfg(not(target_os = "linux"))]
pub(super) fn empty(name: &str) -> io::Result<File> {
    let mut own = [0; 16];
    getrandom::fill(&mut own).map_err(io::Error::other)?;
    let path = std::env::temp_dir().join(format!("quorate-{name}-{}", data_encoding::HEXLOWER.encode(&own)));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

/// A file in memory of these pieces, one after the other, which stays as it is.
pub(super) fn constant(name: &str, pieces: &[&[u8]]) -> io::Result<File> {
    let mut file = empty(name)?;
    for piece in pieces {
        file.write_all(piece)?;
    }
    seal(&file)?;
    Ok(file)
}

/// A copy in memory, which stays as it is.
pub(super) fn copy(name: &str, mut from: &File) -> io::Result<File> {
    io::Seek::rewind(&mut from)?;
    let mut file = empty(name)?;
    io::copy(&mut from, &mut file)?;
    seal(&file)?;
    Ok(file)
}

/// What makes a memory file constant. Nobody maps one to write, so that the seal on future writes is one on all; the seal on
/// present ones would wait for pages that the kernel still has in hand, and give up.
#[cfg(target_os = "linux")]
const SEALS: rustix::fs::SealFlags = rustix::fs::SealFlags::FUTURE_WRITE
    .union(rustix::fs::SealFlags::SHRINK)
    .union(rustix::fs::SealFlags::GROW)
    .union(rustix::fs::SealFlags::SEAL);

/// Makes a file of [`empty`] constant, for everybody.
#[cfg(target_os = "linux")]
pub(super) fn seal(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fcntl_add_seals(file, SEALS)?)
}

/// Whether nobody can change a file any more.
#[cfg(target_os = "linux")]
pub(super) fn is_constant(file: impl std::os::fd::AsFd) -> io::Result<bool> {
    Ok(rustix::fs::fcntl_get_seals(file)?.contains(SEALS))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn seal(_file: &File) -> io::Result<()> {
    Ok(())
}
