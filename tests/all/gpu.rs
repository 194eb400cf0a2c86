use crate::EXE;
use host::sandbox::{BackendOptions, Isolation, Provider, Sandbox, SandboxOptions, find};

#[test]
fn try_process() {
    let library = find::find(find::Wanted::Library)[0].path.clone();
    let backend = BackendOptions::Onnxruntime { library, provider: Provider::Cpu };
    let options = SandboxOptions {
        backend,
        isolation: Isolation::Process,
        program: Some(EXE.into()),
        slots_max: 2,
        ..SandboxOptions::default()
    };
    let sandbox = Sandbox::new(options).unwrap();
    println!("{}", sandbox.describe());
    println!("{:?}", sandbox.measure());
    let model = tasks::data::DIGITS_MODEL;
    println!("{:?}", sandbox.load_model(registry::id::ModelHash::of(model), model));
}
