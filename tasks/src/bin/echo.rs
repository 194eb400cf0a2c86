//! Copies stdin to stdout: the cheapest task there is, so that a benchmark of it measures the grid.
//!
//! On wasm it is two WASI calls and a buffer, without the standard library's start-up, streams or heap.

#![cfg_attr(target_arch = "wasm32", no_main)]

#[cfg(target_arch = "wasm32")]
mod guest {
    #![allow(unsafe_code, reason = "calling WASI without the standard library is a foreign call")]

    use std::mem::MaybeUninit;

    const BUFFER_BYTES: usize = 16 << 10;
    const STDIN: u32 = 0;
    const STDOUT: u32 = 1;
    const FAILED: i32 = guest_sdk::abi::EXIT_FAILED as i32;

    /// `iovec` of WASI.
    #[repr(C)]
    struct Slice {
        start: *mut u8,
        len: usize,
    }

    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        fn fd_read(fd: u32, slices: *const Slice, slices_len: usize, read: *mut usize) -> u32;
        fn fd_write(fd: u32, slices: *const Slice, slices_len: usize, written: *mut usize) -> u32;
    }

    /// What the C start file calls; its result is the exit code.
    #[unsafe(no_mangle)]
    extern "C" fn __main_void() -> i32 {
        // Never read before the host has written to it. Clearing it would be most of the fuel of a short echo.
        let mut buffer = MaybeUninit::<[u8; BUFFER_BYTES]>::uninit();
        loop {
            let mut slice = Slice { start: buffer.as_mut_ptr().cast(), len: BUFFER_BYTES };
            let mut len = 0;
            // SAFETY: `slice` points to `buffer`; both outlive the call.
            match unsafe { fd_read(STDIN, &slice, 1, &mut len) } {
                0 if len == 0 => return 0,
                0 => slice.len = len,
                _ => return FAILED,
            }
            while slice.len > 0 {
                let mut written = 0;
                // SAFETY: `slice` is what remains of the bytes just read into `buffer`.
                let errno = unsafe { fd_write(STDOUT, &slice, 1, &mut written) };
                if errno != 0 || written == 0 || written > slice.len {
                    return FAILED;
                }
                slice = Slice { start: slice.start.wrapping_add(written), len: slice.len - written };
            }
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn main() -> std::io::Result<()> {
    std::io::copy(&mut std::io::stdin().lock(), &mut std::io::stdout().lock()).map(|_| ())
}
