//! The conditions that a record was signed under, and whether this machine has them.

use registry::{
    id::EngineFingerprint,
    job::{Class, Profile},
};
use serde_json::Value;

use super::{Sources, content::ContentError};
use crate::{
    calibrate::backends,
    sandbox::{BackendOptions, CpuClass, EngineDescription, Sandbox, SandboxOptions},
    task,
};

/// Options for the first engine of this machine whose description will do, for a record of this class.
pub(super) fn options_like(class: Class, will_do: impl Fn(&EngineDescription) -> bool) -> Option<SandboxOptions> {
    candidates(class).find(|options| describe(options).is_some_and(|description| will_do(&description)))
}

/// What an engine would say of itself. A native library is asked in a process of its own.
fn describe(options: &SandboxOptions) -> Option<EngineDescription> {
    if options.infers_with().is_native() {
        return Sandbox::new(options.clone()).ok().map(|sandbox| sandbox.describe().clone());
    }
    Sandbox::description_of(options).ok()
}

/// Every engine that this machine may have: tract in this process; then native libraries, unless bits have to be pinned, which
/// are looked for last.
fn candidates(class: Class) -> impl Iterator<Item = SandboxOptions> {
    let classes = [Some(CpuClass::detect()), Some(CpuClass::Generic)];
    let tract = classes.map(|cpu_class| SandboxOptions { cpu_class, ..task::alone() });
    let referee = tract.clone().map(|tract| SandboxOptions { backend: BackendOptions::Referee, ..tract });
    let portable = SandboxOptions { profile: Profile::Portable, ..task::alone() };
    let native = move || {
        let found = if class == Class::Exact { Vec::new() } else { backends::at_hand() };
        let found = found.into_iter().map(|one| one.options).filter(|options| options.backend.is_native());
        found.flat_map(move |options| classes.map(|cpu_class| SandboxOptions { cpu_class, ..options.clone() }))
    };
    tract.into_iter().chain(referee).chain([portable]).chain(std::iter::once_with(native).flatten())
}

/// In what an engine differs from the one with this fingerprint, as far as that can be known.
pub(super) fn difference(
    sources: &Sources,
    signed: EngineFingerprint,
    own: &EngineDescription,
) -> Result<String, ContentError> {
    let Some(signed) = sources.preimage::<EngineDescription>(signed.0)? else {
        return Ok("the other's description is not at hand".to_owned());
    };
    Ok(parts(&signed, own))
}

/// The parts of two descriptions that differ, in their order.
pub(super) fn parts(signed: &EngineDescription, own: &EngineDescription) -> String {
    let fields = |description| match serde_json::to_value(description) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (signed, own) = (fields(signed), fields(own));
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let differing = signed.iter().filter_map(|(name, there)| {
        let here = own.get(name).unwrap_or(&Value::Null);
        (there != here).then(|| format!("{name} {} there, {} here", text(there), text(here)))
    });
    differing.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use registry::preimage::Preimage;

    use super::*;

    #[test]
    fn a_description_is_what_a_fingerprint_is_of_and_each_differing_part_is_named() {
        let own = Sandbox::description_of(&SandboxOptions::default()).unwrap();
        assert_eq!(own.name(), own.fingerprint().0);
        let signed = EngineDescription { wasmtime: "1.0.0".into(), host_abi: own.host_abi + 1, ..own.clone() };
        let said = parts(&signed, &own);
        let expected = [
            format!("wasmtime 1.0.0 there, {} here", own.wasmtime),
            format!("host_abi {} there, {} here", own.host_abi + 1, own.host_abi),
        ];
        assert!(expected.iter().all(|part| said.contains(part)) && !said.contains("backend"), "{said}");
    }

    #[test]
    fn a_class_below_the_machines_best_is_found_by_its_fingerprint() {
        let generic = SandboxOptions { cpu_class: Some(CpuClass::Generic), ..task::alone() };
        let signed = Sandbox::description_of(&generic).unwrap().fingerprint();
        let of = |signed| options_like(Class::Exact, |own| own.fingerprint() == signed);
        assert_eq!(Sandbox::description_of(&of(signed).unwrap()).unwrap().fingerprint(), signed);
        assert_eq!(of(EngineFingerprint([0; 32])), None);
    }
}
