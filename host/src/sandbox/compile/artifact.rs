//! A file of machine code that this host made.
//!
//! ```text
//! machine code (ELF) ‖ statement: canonical CBOR ‖ its length: u32, little endian ‖ magic: 8 bytes ‖ MAC: 32 bytes
//! ```
//! The MAC is keyed BLAKE3 over everything before it. The statement says for which module and settings the code is, so that
//! a file under another's name is not taken for it, and what preflight found, so that a hit needs no look at the module.
//! The code is first because the engine maps the file: it reads sections by their offsets and ignores what follows them.
//!
//! Only the file on disk has the end; code that was never there has none.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    thread,
};

use blake3::hazmat::{self, HasherExt as _};
use memmap2::MmapOptions;
use registry::canon;
use serde::{Deserialize, Serialize};
use wasmtime::{Engine, Module};

use crate::{
    limits,
    sandbox::{LoadError, memory_file, preflight::ModuleInfo},
};

const MAGIC: &[u8; 8] = b"QRTcode1";
const MAC_BYTES: usize = 32;
/// Length of what follows the statement.
const END_BYTES: usize = 4 + MAGIC.len() + MAC_BYTES;
/// Bytes from which on a second thread hashes a part of them: it takes as long to begin as a hundred kilobytes.
const HASH_SPLIT_BYTES: usize = 1 << 20;
/// Bytes read at a time: they are still in the processor's cache when they are hashed.
const READ_BYTES: usize = 256 << 10;

/// Machine code of one module, checked to be our own.
#[derive(Debug)]
pub(in crate::sandbox) struct Artifact {
    /// Read-only, or unchangeable.
    file: File,
    info: ModuleInfo,
    /// Length of the file in bytes.
    code_bytes: u64,
}

/// What a file is about.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    #[serde(with = "serde_bytes")]
    key: Vec<u8>,
    info: ModuleInfo,
}

/// Why a file is not loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum Damage {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is not one of ours, or not as it was written.
    #[error("is not as this host wrote it: {0}")]
    Form(&'static str),
}

impl Artifact {
    /// Code in a file that nobody changes any more: compiled just now, or handed over by the process of this host that has
    /// checked it. Anything else must come through [`Artifact::read`].
    pub(in crate::sandbox) fn made(file: File, info: ModuleInfo) -> Result<Self, LoadError> {
        let about = file.metadata().map_err(|error| LoadError::failed("length of the code", &error))?;
        Ok(Self { file, info, code_bytes: about.len() })
    }

    /// The code, to map or to hand to another process of this host: read-only, or sealed.
    pub(in crate::sandbox) fn file(&self) -> &File {
        &self.file
    }

    /// What preflight found.
    pub(in crate::sandbox) fn info(&self) -> ModuleInfo {
        self.info
    }

    /// The file as it is, in memory and constant: to be handed to other processes.
    pub(in crate::sandbox) fn copy(&self) -> io::Result<File> {
        memory_file::copy("module", &self.file)
    }

    /// Memory in bytes that the loaded module may take.
    pub(in crate::sandbox) fn code_bytes(&self) -> u64 {
        self.code_bytes
    }

    /// Maps the code into an engine of the settings that it was compiled for.
    ///
    /// # Errors
    /// When the engine has other settings, or there is no memory for the mapping: faults of the host.
    #[allow(
        unsafe_code,
        reason = "machine code is run as it is: an Artifact is only made of code that this host's compiler wrote, or that \
                  carries the host's MAC, and nobody changes its file: sealed memory, or a file which is only ever replaced"
    )]
    pub(in crate::sandbox) fn load(&self, engine: &Engine) -> Result<Module, LoadError> {
        let file = self.file().try_clone().map_err(|error| LoadError::failed("another handle on the code", &error))?;
        // SAFETY: see the reason above.
        let module = unsafe { Module::deserialize_open_file(engine, file) };
        module.map_err(|error| LoadError::failed("loading the code", &format_args!("{error:#}")))
    }

    /// Copies code that the host handed over into an engine.
    ///
    /// # Errors
    /// When the engine has other settings, or there is no memory: faults of the host.
    #[allow(
        unsafe_code,
        reason = "machine code is run as it is: this is for a process that its host hands an Artifact, which the host has \
                  checked; a process that runs code of others trusts its host and nobody else"
    )]
    pub(in crate::sandbox) fn load_bytes(engine: &Engine, code: &[u8]) -> Result<Module, LoadError> {
        // SAFETY: see the reason above.
        let module = unsafe { Module::deserialize(engine, code) };
        module.map_err(|error| LoadError::failed("loading the code", &format_args!("{error:#}")))
    }

    /// Writes the code with its statement and MAC.
    pub(super) fn write(&self, key: &[u8; 32], mac_key: &[u8; 32], into: &mut File) -> io::Result<()> {
        let mut hasher = blake3::Hasher::new_keyed(mac_key);
        let mut from = &self.file;
        from.rewind()?;
        each_chunk(from.take(self.code_bytes), |chunk| {
            hasher.update(chunk);
            into.write_all(chunk)
        })?;
        let mut end = canon::encode(&Statement { key: key.to_vec(), info: self.info });
        let length = u32::try_from(end.len()).map_err(io::Error::other)?;
        end.extend_from_slice(&length.to_le_bytes());
        end.extend_from_slice(MAGIC);
        end.extend_from_slice(hasher.update(&end).finalize().as_bytes());
        into.write_all(&end)
    }

    /// Reads all of a file, and believes it when it carries the MAC and is about `key`.
    pub(super) fn read(mut file: File, key: &[u8; 32], mac_key: &[u8; 32]) -> Result<Self, Damage> {
        let code_bytes = file.metadata()?.len();
        let bytes_max = limits::ARTIFACT_BYTES_MAX + (limits::ARTIFACT_STATEMENT_BYTES_MAX + END_BYTES) as u64;
        if !(END_BYTES as u64..=bytes_max).contains(&code_bytes) {
            return Err(Damage::Form("length"));
        }
        let hashed = code_bytes - MAC_BYTES as u64;
        let found = mac(&file, hashed, mac_key)?;
        let mut mac = [0; MAC_BYTES];
        file.seek(SeekFrom::Start(hashed))?;
        file.read_exact(&mut mac)?;
        // Compares in constant time.
        if found != mac {
            return Err(Damage::Form("MAC"));
        }
        let info = statement(&mut file, hashed, key)?;
        Ok(Self { file, info, code_bytes })
    }

    /// The same in memory, for where code cannot be mapped from.
    pub(super) fn copied(self) -> io::Result<Self> {
        Ok(Self { file: self.copy()?, ..self })
    }
}

/// The MAC over the beginning of a file: over a mapping of it, since reading four megabytes takes longer than hashing them.
#[allow(
    unsafe_code,
    reason = "a mapping has no safe form, since files change; nobody changes this one, which is only ever replaced, and the engine \
              maps it right afterwards for the same reason"
)]
fn mac(file: &File, bytes: u64, mac_key: &[u8; 32]) -> io::Result<blake3::Hash> {
    let length = usize::try_from(bytes).map_err(io::Error::other)?;
    if length == 0 {
        return Ok(blake3::keyed_hash(mac_key, &[]));
    }
    // SAFETY: see the reason above.
    let map = unsafe { MmapOptions::new().len(length).populate().map_copy_read_only(file) }?;
    Ok(keyed_hash(mac_key, &map))
}

/// The keyed hash of all of it, its two subtrees at once where that is worth a thread: a module waits for nothing as long as for this
/// when it starts.
fn keyed_hash(key: &[u8; 32], bytes: &[u8]) -> blake3::Hash {
    if bytes.len() < HASH_SPLIT_BYTES {
        return blake3::keyed_hash(key, bytes);
    }
    let (left, right) = bytes.split_at(hazmat::left_subtree_len(bytes.len() as u64) as usize);
    let subtree = |bytes: &[u8], offset: usize| {
        blake3::Hasher::new_keyed(key).set_input_offset(offset as u64).update(bytes).finalize_non_root()
    };
    thread::scope(|scope| {
        let helper = thread::Builder::new().name("hash".into()).spawn_scoped(scope, || subtree(right, left.len()));
        let first = subtree(left, 0);
        // A thread that could not be had is done without.
        let second = helper.ok().and_then(|helper| helper.join().ok()).unwrap_or_else(|| subtree(right, left.len()));
        hazmat::merge_subtrees_root(&first, &second, hazmat::Mode::KeyedHash(key))
    })
}

/// What the file, whose MAC holds, is about.
fn statement(file: &mut File, hashed: u64, key: &[u8; 32]) -> Result<ModuleInfo, Damage> {
    let mut end = [0; END_BYTES - MAC_BYTES];
    file.seek(SeekFrom::Start(hashed - end.len() as u64))?;
    file.read_exact(&mut end)?;
    let (length, magic) = end.split_at(4);
    if magic != MAGIC {
        return Err(Damage::Form("magic"));
    }
    let length = length.iter().rev().fold(0u64, |length, byte| length << 8 | u64::from(*byte));
    let start = (hashed - end.len() as u64).checked_sub(length).ok_or(Damage::Form("statement"))?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(length.min(limits::ARTIFACT_STATEMENT_BYTES_MAX as u64)).read_to_end(&mut bytes)?;
    let statement: Statement =
        canon::decode(&bytes, limits::ARTIFACT_STATEMENT_BYTES_MAX).map_err(|_| Damage::Form("statement"))?;
    if statement.key != key { Err(Damage::Form("module or settings")) } else { Ok(statement.info) }
}

fn each_chunk(mut from: impl Read, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => each(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_two_subtrees_at_once_is_the_hash() {
        let bytes: Vec<u8> = (0..3 * HASH_SPLIT_BYTES + 77).map(|index| (index % 251) as u8).collect();
        let key = [7; 32];
        for length in [0, 1, HASH_SPLIT_BYTES - 1, HASH_SPLIT_BYTES, HASH_SPLIT_BYTES + 1, 2 << 20, bytes.len()] {
            assert_eq!(keyed_hash(&key, &bytes[..length]), blake3::keyed_hash(&key, &bytes[..length]), "{length}");
        }
    }
}
