//! Small programs that are all work: what the sandbox costs is measured on them.
//!
//! One file is one kernel is one line of [`ALL`]. The same source is compiled twice, natively into whoever compares and
//! to wasm into the task `kernel`, so that both sides do the same operations: no processor's special instructions, no
//! library that has them. A kernel takes its size, makes its own input from it, and gives a checksum that depends on
//! all of its work; the checksum is the same on every machine. Making the input is a small part of the time.
//!
//! They differ in what a sandbox makes expensive: tight loops and long straight code, floats and integers, calls,
//! tables of jumps, and memory.

mod branchy;
mod collatz;
mod crc32;
mod fib;
mod interpreter;
mod json;
mod mandelbrot;
mod matmul_scalar;
mod matmul_simd;
mod nbody;
mod sha256;
mod sort;
mod string_search;

/// One kernel.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// The name of its file, without `.rs`.
    pub name: &'static str,
    /// What it stands for.
    pub about: &'static str,
    /// The size that takes some tens of milliseconds natively.
    pub size: u32,
    /// Does the work of a size and gives the checksum.
    pub run: fn(size: u32) -> u64,
}

macro_rules! kernels {
    ($($name:ident, $size:literal, $about:literal;)*) => {
        [$(Kernel { name: stringify!($name), about: $about, size: $size, run: $name::run }),*]
    };
}

/// Every kernel, sorted by name. A position here is what the task `kernel` calls a kernel by.
pub static ALL: [Kernel; 13] = kernels! {
    branchy, 150, "tokens of a text, byte by byte: branches that depend on data";
    collatz, 200_000, "integer loop of four operations: nothing but its back edge";
    crc32, 16, "checksum of 1 MiB by a table: a chain of loads";
    fib, 35, "recursion: nothing but calls";
    interpreter, 1_000_000, "a stack machine: a table of jumps";
    json, 60, "parsing JSON to a tree: calls, allocation, strings";
    mandelbrot, 560, "f64 in registers with an exit from the loop";
    matmul_scalar, 2, "f32 matrices, one sum after another: a tight loop of floats";
    matmul_simd, 24, "f32 matrices, four lanes: a tight loop of vectors";
    nbody, 700_000, "f64 with square roots and divisions, in small arrays";
    sha256, 8, "long straight integer code in a loop";
    sort, 1_500_000, "64-bit integers, by the standard library";
    string_search, 8, "words in 1 MiB of text by Horspool's rule: skips through memory";
};

/// The kernel of this name and its position in [`ALL`].
pub fn by_name(name: &str) -> Option<(u32, &'static Kernel)> {
    (0..).zip(&ALL).find(|(_, kernel)| kernel.name == name)
}

/// A sequence of numbers that look random and are the same everywhere: the kernels' inputs.
struct Numbers(u64);

impl Numbers {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number: SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number below `bound`, which is small.
    fn below(&mut self, bound: u32) -> u32 {
        // The upper half times the bound keeps below it without a division.
        (((self.next() >> 32) * u64::from(bound)) >> 32) as u32
    }

    /// The next number from 0 to 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Adds a part to a checksum: FNV-1a over 64 bits at a time.
fn mix(sum: u64, part: u64) -> u64 {
    (sum ^ part).wrapping_mul(0x0000_0100_0000_01b3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_sorted_and_found_by_name() {
        assert!(ALL.is_sorted_by_key(|kernel| kernel.name));
        for (at, kernel) in (0..).zip(&ALL) {
            let (found, same) = by_name(kernel.name).unwrap();
            assert_eq!((found, same.name), (at, kernel.name));
        }
        assert!(by_name("no such kernel").is_none());
    }

    #[test]
    fn a_checksum_is_of_the_size_and_nothing_else() {
        for kernel in &ALL {
            let (one, two) = ((kernel.run)(1), (kernel.run)(2));
            assert_eq!((kernel.run)(2), two, "{}", kernel.name);
            // The first two Fibonacci numbers are equal.
            assert!(one != two || kernel.name == "fib", "{} ignores its size", kernel.name);
        }
    }
}
