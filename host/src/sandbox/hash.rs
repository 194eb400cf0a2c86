//! Hashing for guests: two functions, each over one whole message in the guest's memory.
//!
//! There are no handles and nothing is kept between calls, so there is nothing to limit but the message, which the guest's
//! memory bounds. A message is charged before it is read, by the blocks that it takes, and hashed in pieces with a look at
//! the deadline between them: the longest message takes seconds. The digests are the same on every host; only their time
//! follows the processor's instructions.

use guest_sdk::abi::hash::{DIGEST_BYTES, MODULE, OUTSIDE_MEMORY};
use sha2::{Digest as _, Sha256};
use wasmtime::{Caller, Linker};

use super::state::{Call, Fail, State, call};
use crate::limits;

/// A hash function with what it costs.
trait Function {
    /// Fuel for each begun block of 64 bytes.
    const FUEL_PER_BLOCK: u64;

    /// Takes the next piece of the message.
    fn update(&mut self, piece: &[u8]);

    /// The hash of all pieces.
    fn digest(self) -> [u8; DIGEST_BYTES];
}

impl Function for blake3::Hasher {
    const FUEL_PER_BLOCK: u64 = limits::HASH_BLAKE3_FUEL_PER_BLOCK;

    fn update(&mut self, piece: &[u8]) {
        self.update(piece);
    }

    fn digest(self) -> [u8; DIGEST_BYTES] {
        self.finalize().into()
    }
}

impl Function for Sha256 {
    const FUEL_PER_BLOCK: u64 = limits::HASH_SHA256_FUEL_PER_BLOCK;

    fn update(&mut self, piece: &[u8]) {
        sha2::Digest::update(self, piece);
    }

    fn digest(self) -> [u8; DIGEST_BYTES] {
        self.finalize().into()
    }
}

/// Adds both functions.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(MODULE, "blake3", |caller: Caller<'_, State>, message: u32, len: u32, out: u32| {
        call(caller, OUTSIDE_MEMORY, |call| hash(call, blake3::Hasher::new(), message, len, out))
    })?;
    linker.func_wrap(MODULE, "sha256", |caller: Caller<'_, State>, message: u32, len: u32, out: u32| {
        call(caller, OUTSIDE_MEMORY, |call| hash(call, Sha256::new(), message, len, out))
    })?;
    Ok(())
}

/// Writes the digest of `len` bytes at `message` to `out`, which may overlap them.
fn hash<F: Function>(call: &mut Call<'_>, mut function: F, message: u32, len: u32, out: u32) -> Result<(), Fail> {
    call.memory.slice(message, len)?;
    call.memory.slice(out, DIGEST_BYTES as u32)?;
    call.pay(fuel::<F>(len))?;
    for piece in call.memory.slice(message, len)?.chunks(limits::HASH_PIECE_BYTES) {
        if let Some(stop) = call.state.interrupted() {
            return Err(stop.into());
        }
        function.update(piece);
    }
    Ok(call.memory.write(out, &function.digest())?)
}

/// What a message costs: its blocks, the last one with its padding.
fn fuel<F: Function>(len: u32) -> u64 {
    const BLOCK_BYTES: u64 = 64;
    (u64::from(len) / BLOCK_BYTES + 1) * F::FUEL_PER_BLOCK
}
