//! Layer 1: descriptors. Those of this program close themselves when another program is executed; a library's may not.

use super::{Gap, JailError, Layer};

/// First descriptor after the standard three.
const FIRST: libc::c_uint = 3;

/// Closes every descriptor but the standard three.
#[allow(unsafe_code, reason = "there is no safe way to close descriptors that one does not own")]
pub(super) fn enter() -> Result<Option<Gap>, JailError> {
    // By number: C libraries have a function for it only since 2021.
    // SAFETY: the call reads no memory. Nobody in this process owns a descriptor above the standard ones: it has one thread,
    // which has opened nothing before it entered the jail, as `enter` asks.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, 0) };
    if closed == 0 {
        return Ok(None);
    }
    let source = std::io::Error::last_os_error();
    match source.raw_os_error() {
        Some(libc::ENOSYS | libc::EPERM) => {
            Ok(Some(Gap { layer: Layer::Descriptors, detail: "kernel is older than 5.9".to_owned() }))
        }
        _ => Err(JailError::Refused { layer: Layer::Descriptors, call: "close_range", source }),
    }
}
