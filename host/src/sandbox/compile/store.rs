//! The directory of compiled modules.
//!
//! A file appears complete or not at all, under the hex digits of its key. Its time of modification is when it was last
//! used. Whoever compiles holds a lock on `KEY.lock` and writes `KEY.part`; both are gone when it is done. Deleting a file
//! that a process has mapped harms nobody.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::{Artifact, CompileCache, artifact::Damage};
use crate::{
    clock::{self, Stopwatch},
    keys::{self, KeyError},
    limits,
};

const PART: &str = "part";
const LOCK: &str = "lock";

/// Why a directory is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// It cannot be made or looked at.
    #[error("{stage} failed: {source}")]
    Dir {
        /// What was tried.
        stage: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Others may put files there.
    #[error("directory can be written by others (mode {mode:03o}): run `chmod 700` on it")]
    Mode {
        /// Its permission bits.
        mode: u32,
    },
    /// There is no key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// An open directory.
pub(super) struct Store {
    dir: PathBuf,
    bytes_max: u64,
    mac_key: [u8; 32],
    /// Whether files there can be mapped as code.
    allows_code: bool,
}

/// The right to compile one module.
pub(super) struct Lock<'a> {
    key: [u8; 32],
    path: PathBuf,
    /// Locked as long as it is open.
    _file: File,
    store: &'a Store,
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // Before the lock is given up: whoever waits for it sees that the file has gone, and makes another.
        let _ = fs::remove_file(&self.path);
    }
}

impl Store {
    pub(super) fn open(cache: &CompileCache) -> Result<Self, OpenError> {
        let failed = |stage| move |source| OpenError::Dir { stage, source };
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&cache.dir).map_err(failed("making it"))?;
        let dir = File::open(&cache.dir).map_err(failed("opening it"))?;
        check_mode(&dir.metadata().map_err(failed("looking at it"))?)?;
        let allows_code = allows_code(&dir).map_err(failed("looking at it"))?;
        let key = keys::load_or_create(&cache.key_file)?;
        let mac_key = blake3::derive_key("quorate 2026 compiled modules", &key.to_bytes());
        Ok(Self { dir: cache.dir.clone(), bytes_max: cache.bytes_max, mac_key, allows_code })
    }

    fn path(&self, key: &[u8; 32]) -> PathBuf {
        self.dir.join(data_encoding::HEXLOWER.encode(key))
    }

    /// What is there under the key; what is not as this host wrote it is deleted.
    pub(super) fn find(&self, key: &[u8; 32]) -> Option<Artifact> {
        let path = self.path(key);
        let read = File::open(&path).map_err(Damage::from).and_then(|file| {
            // How recently it was used is a hint: not to know it loses no module.
            let _ = file.set_modified(clock::file_time());
            Artifact::read(file, key, &self.mac_key)
        });
        match read {
            Ok(artifact) if self.allows_code => Some(artifact),
            Ok(artifact) => artifact.copied().inspect_err(|error| warn(&path, error)).ok(),
            Err(Damage::Read(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(damage) => {
                warn(&path, &damage);
                let _ = fs::remove_file(&path);
                None
            }
        }
    }

    /// Waits for the right to compile a module; not for ever, and not where no lock can be had.
    pub(super) fn lock(&self, key: &[u8; 32], wall_ms_max: u64) -> Option<Lock<'_>> {
        let path = self.path(key).with_extension(LOCK);
        let watch = Stopwatch::start();
        loop {
            match self.try_lock(key, &path) {
                Ok(Some(lock)) => return Some(lock),
                Ok(None) if watch.elapsed_ms() < wall_ms_max => {
                    thread::sleep(Duration::from_millis(limits::COMPILE_LOCK_POLL_MS));
                }
                Ok(None) => return None,
                Err(error) => {
                    warn(&path, &error);
                    return None;
                }
            }
        }
    }

    fn try_lock(&self, key: &[u8; 32], path: &Path) -> io::Result<Option<Lock<'_>>> {
        let file = private(OpenOptions::new().read(true).write(true).create(true).truncate(false)).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        // Whoever had it may have deleted it since it was opened here: then it locks nothing.
        let there = fs::metadata(path).is_ok_and(|there| file.metadata().is_ok_and(|own| same_file(&own, &there)));
        Ok(there.then(|| Lock { key: *key, path: path.to_owned(), _file: file, store: self }))
    }

    /// Keeps what was compiled, and gives it back from disk. Nothing when it cannot be kept.
    pub(super) fn put(&self, lock: &Lock<'_>, made: &Artifact) -> Option<Artifact> {
        debug_assert!(std::ptr::eq(lock.store, self), "a lock of another directory");
        let path = self.path(&lock.key);
        let part = path.with_extension(PART);
        match self.write(lock, made, &part, &path) {
            Ok(()) => self.find(&lock.key),
            Err(error) => {
                warn(&path, &error);
                let _ = fs::remove_file(&part);
                None
            }
        }
    }

    fn write(&self, lock: &Lock<'_>, made: &Artifact, part: &Path, path: &Path) -> io::Result<()> {
        let bytes = made.code_bytes() + limits::ARTIFACT_STATEMENT_BYTES_MAX as u64;
        if bytes > self.bytes_max {
            return Err(io::Error::other("longer than all files together may be"));
        }
        self.make_room(self.bytes_max - bytes)?;
        let mut file = private(OpenOptions::new().write(true).create(true).truncate(true)).open(part)?;
        made.write(&lock.key, &self.mac_key, &mut file)?;
        file.sync_all()?;
        fs::rename(part, path)?;
        File::open(&self.dir)?.sync_all()
    }

    /// Deletes what was not used for longest until all files have at most so many bytes.
    fn make_room(&self, bytes_max: u64) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            // Another process may have deleted it meanwhile.
            let Ok(about) = entry.metadata() else { continue };
            if about.is_file() && entry.path().extension().is_none_or(|extension| extension != LOCK) {
                files.push((about.modified()?, about.len(), entry.path()));
            }
        }
        files.sort();
        let mut sum: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in files {
            if sum <= bytes_max {
                break;
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => sum -= bytes,
            }
        }
        Ok(())
    }
}

fn warn(path: &Path, error: &dyn std::fmt::Display) {
    tracing::warn!(%error, file = %path.display(), "a compiled module is not kept on disk");
}

/// Readable by its owner alone.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

#[cfg(unix)]
fn check_mode(about: &fs::Metadata) -> Result<(), OpenError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o022 == 0 { Ok(()) } else { Err(OpenError::Mode { mode }) }
}

#[cfg(not(unix))]
fn check_mode(_about: &fs::Metadata) -> Result<(), OpenError> {
    Ok(())
}

#[cfg(unix)]
fn same_file(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(not(unix))]
fn same_file(_one: &fs::Metadata, _other: &fs::Metadata) -> bool {
    true
}

/// Whether code of files there can be run: some file systems are mounted so that it cannot.
#[cfg(target_os = "linux")]
fn allows_code(dir: &File) -> io::Result<bool> {
    Ok(!rustix::fs::fstatvfs(dir)?.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC))
}

#[cfg(not(target_os = "linux"))]
fn allows_code(_dir: &File) -> io::Result<bool> {
    Ok(true)
}
