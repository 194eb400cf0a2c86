//! Memory that is a file: it can be mapped, handed to another process, and made unchangeable.

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

/// A file in memory with this content, which stays as it is.
pub(super) fn memory_file(name: &str, content: &[u8]) -> io::Result<File> {
    let mut file = empty(name)?;
    file.write_all(content)?;
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

/// Makes a file of [`empty`] unchangeable, by anybody.
#[cfg(target_os = "linux")]
pub(super) fn seal(file: &File) -> io::Result<()> {
    use rustix::fs::{SealFlags, fcntl_add_seals};
    Ok(fcntl_add_seals(file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn seal(_file: &File) -> io::Result<()> {
    Ok(())
}

/// Whether code of files there can be run: some file systems are mounted so that it cannot.
#[cfg(target_os = "linux")]
pub(super) fn allows_code(dir: &File) -> io::Result<bool> {
    Ok(!rustix::fs::fstatvfs(dir)?.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn allows_code(_dir: &File) -> io::Result<bool> {
    Ok(true)
}
