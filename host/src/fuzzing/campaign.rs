//! A run from seeds, on any compiler: each seed is one subject, and the seed that fails is all it takes to see it again.
//!
//! ```text
//! QUORATE_FUZZ_MODULES=20000 QUORATE_FUZZ_FRAMES=200000 cargo test --workspace --lib fuzzing -- --nocapture
//! QUORATE_FUZZ_SEED=17 QUORATE_FUZZ_MODULES=1 ...      one subject again; it is kept in QUORATE_FUZZ_KEEP, a folder
//! ```

use std::{
    collections::BTreeMap,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use arbitrary::Unstructured;
use registry::job::Profile;

use super::{
    frames,
    modules::{differential::Differential, generate, whole::Ways},
};
use crate::limits;

/// How often subjects ended how.
pub type Counts = BTreeMap<String, u64>;

/// How a subject ended, or what is wrong with it; neither, if a fuzzer's bytes made none.
pub type Judged = arbitrary::Result<Result<String, String>>;

/// Failures that end a run.
const FAILURES_MAX: usize = 10;

/// Bytes that say what is damaged in a module.
const DAMAGE_BYTES: usize = 64;

/// Bytes that the subject of a seed is made of.
fn dna(seed: u64) -> Vec<u8> {
    let mut reader = blake3::Hasher::new_derive_key("quorate fuzzing 1").update(&seed.to_le_bytes()).finalize_xof();
    let mut length = [0; 2];
    reader.fill(&mut length);
    let mut bytes = vec![0; 200 + usize::from(u16::from_le_bytes(length)) % 6000];
    reader.fill(&mut bytes);
    bytes
}

/// Judges the subjects of these seeds on all cores. `judge` says how one ended, or what is wrong with it.
///
/// # Errors
/// All that failed, with their seeds.
pub fn run(seeds: Range<u64>, judge: impl Fn(&mut Unstructured<'_>) -> Judged + Sync) -> Result<Counts, String> {
    let (next, failures, counts) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()), Mutex::new(Counts::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || locked(&failures).len() >= FAILURES_MAX {
                return;
            }
            match one(seed, &judge) {
                Ok(end) => *locked(&counts).entry(end).or_insert(0) += 1,
                Err(wrong) => locked(&failures).push(format!("QUORATE_FUZZ_SEED={seed}: {wrong}")),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            // Threads that run tasks have the stack for it.
            let started = thread::Builder::new().stack_size(limits::EXECUTOR_STACK_BYTES).spawn_scoped(scope, work);
            started.expect("the system starts a few threads");
        }
    });
    let failures = std::mem::take(&mut *locked(&failures));
    if failures.is_empty() { Ok(std::mem::take(&mut *locked(&counts))) } else { Err(failures.join("\n")) }
}

/// The subject of one seed.
fn one(seed: u64, judge: &impl Fn(&mut Unstructured<'_>) -> Judged) -> Result<String, String> {
    let dna = dna(seed);
    match catch_unwind(AssertUnwindSafe(|| judge(&mut Unstructured::new(&dna)))) {
        Ok(Ok(judged)) => judged,
        Ok(Err(_)) => Ok("no subject".to_owned()),
        Err(_) => Err("panics, as said above".to_owned()),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All oracles for modules.
pub struct Oracles {
    differential: Differential,
    native: Ways,
    portable: Ways,
}

impl Oracles {
    /// Builds the engines.
    ///
    /// # Errors
    /// When one does not start.
    pub fn new() -> Result<Self, String> {
        let (native, portable) = (Ways::new(Profile::Native)?, Ways::new(Profile::Portable)?);
        Ok(Self { differential: Differential::new()?, native, portable })
    }

    /// Tasks run in processes of their own too, which execute `program`.
    ///
    /// # Errors
    /// When one does not start.
    #[cfg(target_os = "linux")]
    pub fn and_processes(self, program: &std::path::Path) -> Result<Self, String> {
        let (native, portable) = (self.native.and_processes(program)?, self.portable.and_processes(program)?);
        Ok(Self { native, portable, ..self })
    }

    /// A rewritten module against wasmtime's own switches; says how it ended.
    ///
    /// # Errors
    /// When the bytes make no module.
    pub fn admitted(&self, u: &mut Unstructured<'_>) -> Judged {
        let case = generate::case(u)?;
        keep(&case.wasm);
        let judged = self.differential.judge(&case);
        Ok(judged.map(|end| format!("admitted: {end:?}")).map_err(|rule| format!("{case:?}: {rule}")))
    }

    /// A task in all ways to run it; says how it ended.
    ///
    /// # Errors
    /// When the bytes make no module.
    pub fn task(&self, u: &mut Unstructured<'_>) -> Judged {
        let (profile, ways) =
            if u.arbitrary()? { (Profile::Native, &self.native) } else { (Profile::Portable, &self.portable) };
        let request = generate::request(u)?;
        let wasm = generate::task(profile, u)?;
        keep(&wasm);
        Ok(ways.agree(&wasm, request).map(|done| format!("task: {}", done.outcome.word())))
    }

    /// A damaged module, or bytes that are none; says whether preflight takes it.
    ///
    /// # Errors
    /// When the fuzzer's bytes are too few.
    pub fn damaged(&self, u: &mut Unstructured<'_>) -> Judged {
        let mut damage = Unstructured::new(u.bytes(DAMAGE_BYTES)?);
        let wasm = generate::damaged(generate::task(Profile::Portable, u)?, &mut damage)?;
        keep(&wasm);
        self.loads(&wasm)
    }

    /// Bytes as they are; says whether preflight takes them.
    ///
    /// # Errors
    /// None, as the others.
    pub fn loads(&self, wasm: &[u8]) -> Judged {
        let said = |taken| if taken { "damaged: taken" } else { "damaged: refused" };
        Ok(self.portable.loads(wasm).map(|taken| said(taken).to_owned()))
    }
}

/// Generated modules: each against wasmtime's own switches; one of eight in all ways to run it, and one of eight damaged.
///
/// # Errors
/// All that failed, with their seeds.
pub fn modules(seeds: Range<u64>) -> Result<Counts, String> {
    let oracles = Oracles::new()?;
    run(seeds, |u| match u.int_in_range(0..=7)? {
        0 => oracles.task(u),
        1 => oracles.damaged(u),
        _ => oracles.admitted(u),
    })
}

/// Damaged and random values and streams.
///
/// # Errors
/// All that failed, with their seeds.
pub fn frames(seeds: Range<u64>) -> Result<Counts, String> {
    let samples = frames::samples();
    run(seeds, |u| {
        let bytes = if u.ratio(1, 10)? { u.arbitrary::<&[u8]>()?.to_vec() } else { frames::damaged(u, &samples)? };
        keep(&bytes);
        let found = frames::canonical(&bytes).and_then(|values| Ok(values + frames::stream(&bytes)?));
        Ok(found.map(|found| if found > 0 { "read".to_owned() } else { "refused".to_owned() }))
    })
}

/// Writes a subject down where `QUORATE_FUZZ_KEEP` says, for a look at one that failed.
fn keep(bytes: &[u8]) {
    if let Some(folder) = std::env::var_os("QUORATE_FUZZ_KEEP") {
        let path = PathBuf::from(folder).join(blake3::hash(bytes).to_hex().as_str());
        std::fs::write(path, bytes).expect("QUORATE_FUZZ_KEEP names a folder that can be written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(name: &str, default: u64) -> u64 {
        std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
    }

    #[allow(clippy::print_stderr, reason = "a run says what it reached")]
    fn report(what: &str, seeds: Range<u64>, run: impl Fn(Range<u64>) -> Result<Counts, String>) {
        let reached = run(seeds.clone()).unwrap_or_else(|failures| panic!("{what} of seeds {seeds:?}:\n{failures}"));
        eprintln!("{what} of seeds {seeds:?}: {reached:?}");
        assert_eq!(reached.values().sum::<u64>(), seeds.end - seeds.start);
    }

    #[test]
    fn modules_of_many_seeds() {
        let first = number("QUORATE_FUZZ_SEED", 1);
        report("modules", first..first + number("QUORATE_FUZZ_MODULES", 300), modules);
    }

    #[test]
    fn frames_of_many_seeds() {
        let first = number("QUORATE_FUZZ_SEED", 1);
        report("frames", first..first + number("QUORATE_FUZZ_FRAMES", 5_000), frames);
    }
}
