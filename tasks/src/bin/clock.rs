//! Prints whatever a machine may leak: clocks, a sleep, random bytes, hash order, environment, directories.
//!
//! Two runs of it must print the same bytes; where they do not, the sandbox is not virtual there.

#![allow(clippy::print_stdout, reason = "stdout is the task's output")]
#![allow(clippy::disallowed_methods, reason = "reading the clock is the point of this task")]

use std::{
    collections::HashSet,
    env, fs,
    hash::{BuildHasher, RandomState},
    thread,
    time::{Duration, Instant, SystemTime},
};

use guest_sdk::abi::{DIR_IN, DIR_OUT, DIR_TMP};

fn main() {
    println!("wall {:?}", SystemTime::now().duration_since(SystemTime::UNIX_EPOCH));

    let start = Instant::now();
    // The monotonic clock's own zero point is the machine's start: print the reading, not only differences.
    println!("monotonic {start:?}");
    println!("work {:?} in {:?}", (0..100_000u64).fold(0, |a, b| std::hint::black_box(a ^ b)), start.elapsed());

    let start = Instant::now();
    thread::sleep(Duration::from_millis(5));
    println!("sleep {:?}", start.elapsed());

    println!("random {:x}", RandomState::new().hash_one("seed"));
    #[cfg(target_arch = "wasm32")]
    println!("random {:x?}", random::bytes());
    println!("order {:?}", (0..16).collect::<HashSet<u32>>());

    println!("arguments {:?}", env::args_os().collect::<Vec<_>>());
    println!("environment {:?}", env::vars_os().collect::<Vec<_>>());
    for dir in ["/", DIR_IN, DIR_TMP, DIR_OUT] {
        println!("directory {dir} {:?}", list(dir));
    }
    println!("address {:p}", Box::new(1u64));
}

/// Names, in the order the host gives them, with the time each was changed.
fn list(dir: &str) -> Result<Vec<(String, Option<SystemTime>)>, String> {
    let entries = fs::read_dir(dir).map_err(|error| error.to_string())?;
    Ok(entries
        .flatten()
        .map(|entry| {
            let changed = entry.metadata().and_then(|metadata| metadata.modified()).ok();
            (entry.file_name().to_string_lossy().into_owned(), changed)
        })
        .collect())
}

#[cfg(target_arch = "wasm32")]
mod random {
    #![allow(unsafe_code, reason = "the standard library offers no random bytes: this is WASI's own function")]

    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        fn random_get(buffer: *mut u8, len: usize) -> u32;
    }

    pub(super) fn bytes() -> [u8; 16] {
        let mut buffer = [0; 16];
        // SAFETY: `buffer` has the length given and outlives the call.
        let errno = unsafe { random_get(buffer.as_mut_ptr(), buffer.len()) };
        assert_eq!(errno, 0, "random_get");
        buffer
    }
}
