//! The conditions that a record was signed under, and whether this machine has them.

use registry::{id::EngineFingerprint, job::Profile};
use serde_json::Value;

use super::{Sources, content::ContentError};
use crate::{
    sandbox::{BackendOptions, CpuClass, EngineDescription, Sandbox, SandboxOptions},
    task,
};

/// Options for the engine with this fingerprint, if this machine has it.
pub(super) fn options(signed: EngineFingerprint) -> Option<SandboxOptions> {
    options_like(|description| description.fingerprint() == signed)
}

/// Options for the first engine of this machine whose description will do.
pub(super) fn options_like(will_do: impl Fn(&EngineDescription) -> bool) -> Option<SandboxOptions> {
    let has =
        |options: &SandboxOptions| Sandbox::description_of(options).is_ok_and(|description| will_do(&description));
    candidates().into_iter().find(has)
}

/// Every engine that this machine may have.
fn candidates() -> Vec<SandboxOptions> {
    let classes = [Some(CpuClass::detect()), Some(CpuClass::Generic)];
    let native = classes.map(|cpu_class| SandboxOptions { cpu_class, ..task::alone() });
    let referee = native.clone().map(|native| SandboxOptions { backend: BackendOptions::Referee, ..native });
    let portable = SandboxOptions { profile: Profile::Portable, ..task::alone() };
    native.into_iter().chain(referee).chain([portable]).collect()
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
        assert_eq!(Sandbox::description_of(&options(signed).unwrap()).unwrap().fingerprint(), signed);
        assert_eq!(options(EngineFingerprint([0; 32])), None);
    }
}
