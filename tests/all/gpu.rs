//! The GPU suite: the example tasks on every way to a GPU that this machine has, in jailed processes as on a host.
//!
//! - CUDA where there are an NVIDIA GPU and its driver; elsewhere `skipped: no CUDA device`.
//! - WebGPU where its plug-in finds a Vulkan driver. Without a GPU one in software will do, for tests alone: see docs/gpu.md.
//!
//! On each way: digits come out as on the processor; the real models say what their own packages say, or are refused in words
//! because an operator of theirs would stay on the processor; and a grid gives a job that asks for a GPU to the host that has
//! one, whose receipts name it, and whose answers are close to the processor's when they are replayed there.

use std::{collections::BTreeMap, fs, path::Path};

use host::{
    client::answers::{HostAnswer, ReceiptAnswer},
    gateway::wire::JobRequest,
    sandbox::{ProviderKind, Request, Response, Sandbox, find},
    testing::skipped,
};
use registry::{
    device::{DeviceAsk, DeviceKind},
    id::{ModelHash, ModuleHash},
    job::{Class, Policy},
};
use serde_json::Value;
use support::{Cluster, Conduct, cli, cli_with_libraries, models::Models};

use crate::{
    EXE, digits,
    models::{self, Extent, Terms},
    sandbox::jailed,
};

/// A model of `tools/install-models` with the suite that holds a sandbox against the model's own package.
type Suite = (&'static str, &'static str, fn(&Models, &str, &Sandbox, Terms));

const SUITES: [Suite; 3] = [
    ("identify", "magika.onnx", models::identify),
    ("orient", "orient.onnx", models::orient),
    ("speech", "silero.onnx", models::speech),
];

/// What a provider is known to answer wrongly, in its makers' own Python too: see docs/gpu.md.
const WRONG: [(ProviderKind, &str, &str); 1] =
    [(ProviderKind::Webgpu, "speech", "version 0.4.0 of the plug-in answers wrongly on this model")];

/// How far a score may be from the package's, which ran on a processor: kernels of GPUs add in another order.
const SCORE_MAX: f64 = 1e-3;

/// A jailed sandbox that infers by this provider, or why there is none.
fn start(kind: ProviderKind) -> Result<Sandbox, String> {
    let backend = find::backend(kind, None, None).map_err(|absent| absent.to_string())?;
    Sandbox::new(jailed(backend)).map_err(|error| error.to_string())
}

/// The same for a test that cannot do without.
fn gpu(kind: ProviderKind) -> Option<Sandbox> {
    let (there, required) = match kind {
        ProviderKind::Cuda => (has_cuda(), "QUORATE_REQUIRE_CUDA"),
        ProviderKind::Cpu | ProviderKind::Webgpu => (Ok(()), "QUORATE_REQUIRE_WEBGPU"),
    };
    match there.and_then(|()| start(kind)) {
        Ok(sandbox) => Some(sandbox),
        Err(why) => {
            skipped(&why, required);
            None
        }
    }
}

fn has_cuda() -> Result<(), String> {
    let driver = ["/dev/nvidiactl", "/dev/dxg"].iter().any(|path| Path::new(path).exists());
    if driver { Ok(()) } else { Err("no CUDA device".to_owned()) }
}

fn tasks_run_on(kind: ProviderKind) {
    let Some(sandbox) = gpu(kind) else { return };
    let device = sandbox.describe().device.clone().unwrap();
    let measured = sandbox.measure().unwrap();
    println!("{device}: {} bytes of memory, {} MFLOPS", measured.memory_bytes, measured.mflops);
    assert_eq!((device.kind, device.provider.as_str()), (DeviceKind::Gpu, kind.word()));
    assert_eq!(sandbox.describe().class, Class::Tolerant);

    let (module, model) = (ModuleHash::of(tasks::DIGITS.wasm), ModelHash::of(tasks::data::DIGITS_MODEL));
    sandbox.load_module(module, tasks::DIGITS.wasm).unwrap();
    sandbox.load_model(model, tasks::data::DIGITS_MODEL).unwrap();
    let stdin = tasks::data::DIGITS_PIXELS.into();
    let models = BTreeMap::from([("digits".to_owned(), model)]);
    let Response::Done(done) = sandbox.run(Request { stdin, models, ..Request::new(module) }) else {
        panic!("digits do not run")
    };
    assert_eq!(done.stdout, digits::truth());
    println!("digits on {}: the labels of the processor", kind.word());

    let Some(models) = Models::or_skip() else { return };
    let extent = if device.name.starts_with("software") { Extent::Few(4) } else { Extent::All };
    for (name, file, suite) in SUITES {
        if let Some((_, _, why)) = WRONG.iter().find(|(wrong, task, _)| (*wrong, *task) == (kind, name)) {
            println!("{name} on {}: left out: {why}", kind.word());
            continue;
        }
        let bytes = models.read(file);
        match sandbox.load_model(ModelHash::of(&bytes), &bytes) {
            Ok(_) => suite(&models, kind.word(), &sandbox, Terms { extent, score_max: SCORE_MAX }),
            // Never quietly on the processor.
            Err(error) => {
                let said = error.to_string();
                assert!(said.contains("would run it on the processor"), "{name}: {said}");
                println!("{name} on {}: refused: {said}", kind.word());
            }
        }
    }
}

#[test]
fn the_tasks_run_on_cuda() {
    tasks_run_on(ProviderKind::Cuda);
}

#[test]
fn the_tasks_run_on_webgpu() {
    tasks_run_on(ProviderKind::Webgpu);
}

async fn a_grid_uses(kind: ProviderKind) {
    if gpu(kind).is_none() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let config = scratch.path().join("quorate.toml");
    let providers = format!("[host.inference]\nonnxruntime = \"auto\"\nproviders = [\"{}\"]\n", kind.word());
    fs::write(&config, providers).unwrap();
    let mut cluster = Cluster::start(EXE, &[Conduct::Honest]).await;
    cluster.add_host(Conduct::Honest, &["--slots", "1", "--config", config.to_str().unwrap()]);
    cluster.joined(2).await;
    let nodes: Vec<HostAnswer> = cluster.client.get("/v1/nodes").await.unwrap();
    let is_gpu = |engine: &&host::client::answers::EngineAnswer| {
        engine.device.as_ref().is_some_and(|device| device.kind == DeviceKind::Gpu)
    };
    let gpus: Vec<_> = nodes.iter().flat_map(|node| &node.engines).filter(is_gpu).collect();
    assert_eq!(gpus.len(), 1, "{}", cluster.logs());
    let device = gpus[0].device.clone().unwrap();

    let request = digits::request(&cluster, 600).await;
    let request =
        JobRequest { class: Some(Class::Tolerant), policy: Policy::Quorum(1), device: DeviceAsk::Gpu, ..request };
    let job = cluster.submit(&request).await;
    assert_eq!(cluster.result(job).await, digits::truth());
    let receipts: Vec<ReceiptAnswer> = cluster.client.get(&format!("/v1/jobs/{job}/receipts")).await.unwrap();
    assert!(!receipts.is_empty() && receipts.iter().all(|receipt| receipt.device.as_ref() == Some(&device)));
    println!("a grid on {}: {} receipts name {device}", kind.word(), receipts.len());

    // Whoever audits it needs no GPU.
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let kept = cluster.scratch("kept").to_string_lossy().into_owned();
    let got = cluster.cli(&["receipt", "get", &job.to_string(), "--out", &kept, "--content"], b"").await;
    assert!(got.status.success(), "{}", text(&got.stderr));
    let model = scratch.path().join("digits.onnx");
    fs::write(&model, tasks::data::DIGITS_MODEL).unwrap();
    let (model, tolerance) = (model.to_string_lossy(), scratch.path().join("tolerance.json"));
    let tolerance = tolerance.to_string_lossy();
    let backends = format!("tract,{}", kind.backend());
    let args =
        ["calibrate", &model, "--samples", "64", "--range", "0..16", "--backend", &backends, "--out", &tolerance];
    let calibrated = cli_with_libraries(EXE, &args).await;
    assert!(calibrated.status.success(), "{}", text(&calibrated.stderr));
    println!("{}", text(&calibrated.stdout).trim());
    let replayed = cli(EXE, None, &["receipt", "replay", "--json", &kept, "--tolerance", &tolerance], b"").await;
    let said: Vec<Value> =
        serde_json::from_slice(&replayed.stdout).unwrap_or_else(|_| panic!("{}", text(&replayed.stderr)));
    let holds = |record: &Value| record["verdict"] == "within" || record["verdict"] == "equal";
    assert!(!said.is_empty() && said.iter().all(holds), "{said:#?}");
    println!(
        "replayed on the processor: {}",
        said.iter().filter_map(|record| record["verdict"].as_str()).collect::<Vec<_>>().join(" ")
    );
}

#[tokio::test]
async fn a_grid_uses_cuda() {
    a_grid_uses(ProviderKind::Cuda).await;
}

#[tokio::test]
async fn a_grid_uses_webgpu() {
    a_grid_uses(ProviderKind::Webgpu).await;
}
