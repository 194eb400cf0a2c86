//! Runs one kernel of [`tasks::kernels`]: what a task costs here is measured on it.
//!
//! Arguments: the kernel's name, and its size. Out: the checksum in hexadecimal, and a line's end.
//!
//! The module also exports `run_kernel(position, size) -> checksum`, so that an engine without our sandbox can time the
//! work alone. A position that no kernel has gives 0.

use std::io::{self, Write as _};

use guest_sdk::Exit;

/// The work alone.
#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code, reason = "an export needs its name unmangled; no other symbol of the module has it")]
#[unsafe(no_mangle)]
pub extern "C" fn run_kernel(position: u32, size: u32) -> u64 {
    tasks::kernels::ALL.get(position as usize).map_or(0, |kernel| (kernel.run)(size))
}

fn main() -> Exit {
    let mut args = std::env::args().skip(1);
    let kernel = args.next().and_then(|name| tasks::kernels::by_name(&name));
    let size = args.next().and_then(|size| size.parse().ok());
    let (Some((_, kernel)), Some(size), None) = (kernel, size, args.next()) else { return Exit::BadInput };
    match writeln!(io::stdout(), "{:016x}", (kernel.run)(size)) {
        Ok(()) => Exit::Done,
        Err(_) => Exit::Failed,
    }
}
