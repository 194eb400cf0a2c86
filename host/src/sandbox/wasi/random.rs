//! Seeded randomness: one BLAKE3 stream under the task's seed, read on from call to call.

use super::errno::Errno;
use crate::{
    limits,
    sandbox::state::{Call, Fail},
};

/// The stream of one task, started on first use.
pub(in crate::sandbox) struct Random {
    seed: [u8; 32],
    stream: Option<Box<blake3::OutputReader>>,
}

impl Random {
    pub(in crate::sandbox) fn new(seed: [u8; 32]) -> Self {
        Self { seed, stream: None }
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        self.stream().fill(bytes);
    }

    fn stream(&mut self) -> &mut blake3::OutputReader {
        let seed = &self.seed;
        self.stream
            .get_or_insert_with(|| Box::new(blake3::Hasher::new_keyed(seed).update(b"quorate/random/1").finalize_xof()))
    }

    /// Bytes drawn so far.
    pub(in crate::sandbox) fn drawn(&self) -> u64 {
        self.stream.as_ref().map_or(0, |stream| stream.position())
    }

    /// Goes on where so many were drawn.
    pub(in crate::sandbox) fn skip_to(&mut self, drawn: u64) {
        self.stream().set_position(drawn);
    }
}

pub(super) fn random_get(call: &mut Call<'_>, buffer: u32, len: u32) -> Result<(), Fail> {
    call.memory.slice(buffer, len)?;
    if len > limits::RANDOM_BYTES_MAX {
        return Err(Errno::Inval.into());
    }
    call.pay(len.into())?;
    call.state.random.fill(call.memory.slice_mut(buffer, len)?);
    Ok(())
}
