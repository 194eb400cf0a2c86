//! The backends that are at hand on this machine: what a model may be measured on, and what `push` asks whether it runs there.

use registry::job::Profile;

use crate::{
    sandbox::{BackendOptions, CpuClass, Isolation, ProviderKind, SandboxOptions, find},
    task,
};

/// A backend with what it runs on.
#[derive(Debug, Clone)]
pub struct AtHand {
    /// A word for it, e.g. `tract-avx2`.
    pub name: String,
    /// A sandbox that infers with it, in a process of its own: kernels belong to a process.
    pub options: SandboxOptions,
}

/// Every backend of this machine, the default one first.
pub fn at_hand() -> Vec<AtHand> {
    let mut all = tract();
    all.extend(more());
    all
}

/// tract, which needs nothing, with each class of kernels.
pub(crate) fn tract() -> Vec<AtHand> {
    let with = |class: CpuClass| AtHand {
        name: format!("tract-{}", class.word()),
        options: SandboxOptions { cpu_class: Some(class), ..alone(BackendOptions::Tract) },
    };
    classes().into_iter().map(with).collect()
}

/// Those whose names begin with one of these words; all if there are none.
///
/// # Errors
/// The first word that none begins with.
pub fn named(words: &[String]) -> Result<Vec<AtHand>, String> {
    let all = at_hand();
    if let Some(word) = words.iter().find(|word| !all.iter().any(|one| one.name.starts_with(word.as_str()))) {
        return Err(word.clone());
    }
    let is_named = |one: &AtHand| words.is_empty() || words.iter().any(|word| one.name.starts_with(word.as_str()));
    Ok(all.into_iter().filter(is_named).collect())
}

/// Classes of kernels, the processor's best first.
fn classes() -> Vec<CpuClass> {
    match CpuClass::detect() {
        CpuClass::Generic => vec![CpuClass::Generic],
        best => vec![best, CpuClass::Generic],
    }
}

/// Those that are no kernels of tract's: the libraries that are found, whether they start or not.
fn more() -> Vec<AtHand> {
    let referee = AtHand { name: "tract-wasm".to_owned(), options: alone(BackendOptions::Referee) };
    let found = ProviderKind::ALL.into_iter().filter_map(|kind| Some((kind, find::backend(kind, None, None).ok()?)));
    let found = found.map(|(kind, backend)| AtHand { name: kind.backend().to_owned(), options: alone(backend) });
    std::iter::once(referee).chain(found).collect()
}

/// Options of a sandbox with this backend, which is in a process of its own.
pub(crate) fn alone(backend: BackendOptions) -> SandboxOptions {
    SandboxOptions { profile: Profile::Native, isolation: Isolation::Process, backend, ..task::alone() }
}
