//! What a guest may grow: its memory up to the task's limit, tables up to the host's.

use wasmtime::ResourceLimiter;

use crate::limits;

/// Keeps count for one task.
///
/// Growth past the limit answers -1, as WebAssembly has it, and is remembered: a task that then fails ran out of memory,
/// one that copes did not.
#[derive(Debug)]
pub(super) struct Limiter {
    bytes_max: u64,
    /// The most that it had.
    pub(super) peak_bytes: u64,
    /// Whether it ever asked for more than its limit.
    pub(super) refused: bool,
    /// Whether the host failed to give what the limit allows: a fault, since other hosts would not.
    pub(super) host_failed: bool,
}

impl Limiter {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, peak_bytes: 0, refused: false, host_failed: false }
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let desired = desired as u64;
        if desired > self.bytes_max {
            self.refused = true;
            return Ok(false);
        }
        if maximum.is_some_and(|maximum| desired > maximum as u64) {
            return Ok(false);
        }
        self.peak_bytes = self.peak_bytes.max(desired);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        // Growth past what 32 bits address never reaches `memory_growing`; all else that fails after it is the host's.
        if error.to_string().contains("memory type's limits") {
            self.refused = true;
            return Ok(());
        }
        self.host_failed = true;
        Err(error)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= limits::TABLE_ELEMENTS_MAX as usize)
    }
}
