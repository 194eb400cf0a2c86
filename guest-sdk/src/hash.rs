//! Hashes by the host: BLAKE3 and SHA-256 at the speed of the processor's own instructions.
//!
//! WebAssembly has no instructions for hashing, so the same work done inside a guest takes several times as long, and
//! burns fuel for each operation of it. These functions hand the bytes to the host instead, at a price a block.
//!
//! ```
//! let digest = guest_sdk::hash::sha256(b"abc");
//! assert_eq!(digest[..4], [0xba, 0x78, 0x16, 0xbf]);
//! ```
//!
//! Each call hashes one whole message. There is no hasher to feed piece by piece: it would be state of the task's that
//! lives in the host, with a handle, a quota and an end of its own, while a task's input is in its memory anyway. Whoever
//! has more than fits there hashes the pieces, and then the list of their hashes.
//!
//! On wasm the calls are imports of the host ([`crate::abi::hash`]), so a module that uses them runs on Quorate alone.
//! Elsewhere they are computed in place, so that a task's own unit tests run its real source.

use crate::abi::hash::DIGEST_BYTES;

/// The BLAKE3 hash of a message.
pub fn blake3(message: &[u8]) -> [u8; DIGEST_BYTES] {
    backend::blake3(message)
}

/// The SHA-256 hash of a message.
pub fn sha256(message: &[u8]) -> [u8; DIGEST_BYTES] {
    backend::sha256(message)
}

#[cfg(target_arch = "wasm32")]
mod backend {
    #![allow(unsafe_code, reason = "calling the host is a foreign call")]

    use crate::abi::hash::{DIGEST_BYTES, DONE};

    mod host {
        // A link attribute takes no constant; the name is `abi::hash::MODULE`.
        #[link(wasm_import_module = "quorate_hash")]
        unsafe extern "C" {
            pub(super) fn blake3(message: *const u8, len: usize, digest: *mut u8) -> u32;
            pub(super) fn sha256(message: *const u8, len: usize, digest: *mut u8) -> u32;
        }
    }

    pub(super) fn blake3(message: &[u8]) -> [u8; DIGEST_BYTES] {
        let mut digest = [0; DIGEST_BYTES];
        // SAFETY: both pointers are made here from live references, with their true lengths; the host keeps neither.
        done(unsafe { host::blake3(message.as_ptr(), message.len(), digest.as_mut_ptr()) });
        digest
    }

    pub(super) fn sha256(message: &[u8]) -> [u8; DIGEST_BYTES] {
        let mut digest = [0; DIGEST_BYTES];
        // SAFETY: as above.
        done(unsafe { host::sha256(message.as_ptr(), message.len(), digest.as_mut_ptr()) });
        digest
    }

    /// The one error that the host has is a pointer outside of memory, and no slice is.
    fn done(code: u32) {
        assert_eq!(code, DONE, "the host refuses to hash what is in the guest's memory");
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod backend {
    use sha2::Digest as _;

    use crate::abi::hash::DIGEST_BYTES;

    pub(super) fn blake3(message: &[u8]) -> [u8; DIGEST_BYTES] {
        blake3::hash(message).into()
    }

    pub(super) fn sha256(message: &[u8]) -> [u8; DIGEST_BYTES] {
        sha2::Sha256::digest(message).into()
    }
}
