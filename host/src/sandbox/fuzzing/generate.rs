//! Modules from a fuzzer's bytes: what wasm-smith makes within the features that preflight allows, with an entry.

use arbitrary::Unstructured;
use registry::{
    id::ModuleHash,
    job::{Limits, Profile},
};
use wasm_encoder::{EntityType, ImportSection, TypeSection, ValType};
use wasm_smith::Config;

use super::{
    super::{Request, imports},
    differential::{Case, STUBS},
    entry::{self, EntryError},
};
use crate::limits;

/// How calls of the host are chosen for a module.
enum Imports {
    /// None but [`STUBS`].
    Stubs,
    /// The allow-list.
    All,
}

/// A module with everything about how it is run.
///
/// # Errors
/// When the bytes make none.
pub fn case(u: &mut Unstructured<'_>) -> arbitrary::Result<Case> {
    let profile = if u.arbitrary()? { Profile::Portable } else { Profile::Native };
    let fuel_max = *u.choose(&[2_000, 30_000, 30_000])?;
    let slice_max = *u.choose(&[1, 7, 100, 3_000, limits::FUEL_SLICE])?;
    // In the native profile the bits of a NaN are the compiler's choice, so the module must not look at them.
    let wasm = module(profile, &Imports::Stubs, u)?;
    Ok(Case { wasm, profile, fuel_max, slice_max })
}

/// A module that may call everything that a host offers.
///
/// # Errors
/// When the bytes make none.
pub fn task(profile: Profile, u: &mut Unstructured<'_>) -> arbitrary::Result<Vec<u8>> {
    module(profile, &Imports::All, u)
}

/// What a task gets: little of everything, so that limits are met.
///
/// # Errors
/// When the fuzzer's bytes are too few.
pub fn request(u: &mut Unstructured<'_>) -> arbitrary::Result<impl Fn(ModuleHash) -> Request + use<>> {
    let limits = Limits {
        fuel_max: *u.choose(&[5_000, 60_000])?,
        memory_bytes_max: 4 << 16,
        output_bytes_max: u.int_in_range(0..=4096)?,
        log_bytes_max: u.int_in_range(0..=512)?,
        scratch_bytes_max: u.int_in_range(0..=4096)?,
        wall_ms_max: limits::WALL_MS_MAX,
    };
    let (stdin, file, seed): ([u8; 40], [u8; 20], [u8; 32]) = u.arbitrary()?;
    Ok(move |module| Request {
        args: vec!["--one".into(), "two".into()],
        env: [("LANG".into(), "C".into())].into(),
        stdin: stdin.to_vec().into(),
        files: [("table.csv".into(), file.to_vec().into())].into(),
        limits,
        seed,
        ..Request::new(module)
    })
}

/// A module with a few bytes changed, taken out or put in.
///
/// # Errors
/// When the fuzzer's bytes are too few.
pub fn damaged(mut wasm: Vec<u8>, u: &mut Unstructured<'_>) -> arbitrary::Result<Vec<u8>> {
    for _ in 0..u.int_in_range(1..=2)? {
        let at = u.choose_index(wasm.len() + 1)?;
        // Mostly in place: where lengths no longer fit, the parser looks no further.
        match u.int_in_range(0..=15)? {
            0 => wasm.insert(at, u.arbitrary()?),
            1 => wasm.truncate(at),
            2 if at < wasm.len() => drop(wasm.remove(at)),
            3..=8 if at < wasm.len() => wasm[at] = u.arbitrary()?,
            _ if at < wasm.len() => wasm[at] ^= 1 << u.int_in_range(0..=7)?,
            _ => wasm.push(u.arbitrary()?),
        }
    }
    Ok(wasm)
}

fn module(profile: Profile, imports: &Imports, u: &mut Unstructured<'_>) -> arbitrary::Result<Vec<u8>> {
    let config = config(profile, imports, u)?;
    let module = wasm_smith::Module::new(config, u)?;
    entry::add(&module.to_bytes(), u).map_err(|error| match error {
        EntryError::Arbitrary(error) => error,
        EntryError::Reencode(_) | EntryError::Parse(_) => arbitrary::Error::IncorrectFormat,
    })
}

fn config(profile: Profile, imports: &Imports, u: &mut Unstructured<'_>) -> arbitrary::Result<Config> {
    let mut offered = Vec::new();
    match imports {
        Imports::Stubs if u.ratio(3, 4)? => {}
        Imports::Stubs => offered.extend(STUBS),
        Imports::All => {
            for function in imports::all() {
                if u.ratio(1, 4)? {
                    offered.push(function);
                }
            }
        }
    }
    let max_imports = offered.len();
    Ok(Config {
        available_imports: (max_imports > 0).then(|| importing(&offered)),
        max_imports,
        canonicalize_nans: profile == Profile::Native,
        // What traps soon computes little.
        disallow_traps: !u.ratio(1, 5)?,
        simd_enabled: u.arbitrary()?,
        max_instructions: u.int_in_range(10..=200)?,
        export_everything: true,
        min_types: 1,
        // What is imported counts too.
        max_types: 8 + max_imports,
        min_funcs: 1,
        max_funcs: 6 + max_imports,
        max_globals: 6,
        max_data_segments: 4,
        max_element_segments: 4,
        max_elements: 10,
        min_memories: 1,
        max_memories: 1,
        max_memory32_bytes: 3 << 16,
        max_tables: limits::MODULE_TABLES_MAX as usize,
        max_table_elements: 50,
        exceptions_enabled: false,
        gc_enabled: false,
        memory64_enabled: false,
        relaxed_simd_enabled: false,
        tail_call_enabled: false,
        threads_enabled: false,
        ..Config::default()
    })
}

/// A module that imports these.
fn importing(functions: &[(&str, &str, &str)]) -> Vec<u8> {
    let (mut types, mut imports) = (TypeSection::new(), ImportSection::new());
    for (at, (module, name, signature)) in (0u32..).zip(functions.iter().copied()) {
        let (params, results) = signature.split_once('>').unwrap_or((signature, ""));
        let values = |letters: &str| letters.chars().map(value).collect::<Vec<_>>();
        types.ty().function(values(params), values(results));
        imports.import(module, name, EntityType::Function(at));
    }
    let mut module = wasm_encoder::Module::new();
    module.section(&types).section(&imports);
    module.finish()
}

/// The type that a letter of [`imports`] stands for.
fn value(letter: char) -> ValType {
    if letter == 'I' { ValType::I64 } else { ValType::I32 }
}
