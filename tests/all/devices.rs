//! What models run on: asked for by jobs, offered by hosts, named by receipts.

use std::{collections::BTreeMap, path::Path, sync::atomic::AtomicBool};

use grid::engines::{EngineAsk, EngineOffer, Engines};
use host::{
    client::answers::{HostAnswer, JobAnswer, ReceiptAnswer},
    gateway::wire::{InputRequest, JobRequest},
    net::wire::{Done, Order, ToCoordinator},
    sandbox::{BackendOptions, CpuClass, Request, Response, SandboxOptions, Sandboxes},
    testing::skipped,
};
use registry::{
    device::{Device, DeviceAsk, DeviceKind},
    id::{BlobHash, EngineFingerprint, JobId, ModelHash, ModuleHash, OperatorId},
    job::{Class, JobInput, JobSpec, Policy, Profile, task_id},
    receipt::{Execution, Outcome, Output, Receipt},
    sign::Signed,
};
use support::{Cluster, Conduct};

use crate::{EXE, digits, hostile::Peer, sandbox::jailed};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn why(cluster: &Cluster, job: JobId) -> String {
    text(&cluster.cli(&["why", &job.to_string()], b"").await.stdout)
}

async fn assigned(cluster: &Cluster) -> u64 {
    let nodes: Vec<serde_json::Value> = cluster.client.get("/v1/nodes").await.unwrap();
    nodes.iter().map(|node| node["assigned"].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn a_job_for_a_gpu_is_told_that_nobody_has_one_and_runs_on_nothing() {
    let cluster = Cluster::start(EXE, &[Conduct::Honest; 2]).await;
    let module = cluster.publish(tasks::ECHO.wasm).await;
    let submit = async |more: &[&str]| {
        let args = [&["submit", &module, "--device", "gpu", "--device-memory", "8000000000", "--no-wait"], more];
        cluster.cli(&args.concat(), b"").await
    };
    // At once, with what to do.
    let refused = submit(&[]).await;
    let said = text(&refused.stderr);
    assert!(refused.status.code() == Some(2) && said.contains("ask for class tolerant"), "{said}");
    let refused = submit(&["--class", "tolerant", "--profile", "portable"]).await;
    assert!(text(&refused.stderr).contains("take profile native"), "{}", text(&refused.stderr));

    let taken = submit(&["--class", "tolerant", "--quorum", "1", "--inline", "x"]).await;
    let expected = "none of the 2 connected hosts can run it: each has no GPU, which the job asks for";
    assert!(taken.status.success() && text(&taken.stderr).contains(expected), "{}", text(&taken.stderr));
    let job: JobId = text(&taken.stdout).trim().parse().unwrap();
    let said = why(&cluster, job).await;
    assert!(said.contains(expected) && said.matches("has no GPU").count() == 3, "{said}");
    let shown = text(&cluster.cli(&["job", &job.to_string()], b"").await.stdout);
    assert!(shown.contains("waits") && shown.contains(expected), "{shown}");
    // What others submit is not held up by it, and it is held up by nothing else.
    let input = InputRequest::Text("y".into());
    let request = JobRequest { module, input, policy: Policy::Quorum(1), ..JobRequest::default() };
    let other = cluster.submit(&request).await;
    assert_eq!(cluster.result(other).await, b"y");
    assert_eq!(assigned(&cluster).await, 1, "the job for a GPU was never given to anybody");
    assert_eq!(cluster.client.job(job).await.unwrap().phase, "mapping");
}

#[tokio::test]
async fn a_job_for_the_processor_runs_and_its_receipts_name_it() {
    let cluster = Cluster::start(EXE, &[Conduct::Honest; 2]).await;
    let request = digits::request(&cluster, 300).await;
    let job = cluster.submit(&JobRequest { device: DeviceAsk::Cpu, ..request }).await;
    assert_eq!(cluster.result(job).await, digits::truth());
    let nodes: Vec<HostAnswer> = cluster.client.get("/v1/nodes").await.unwrap();
    let device = nodes[0].engines[0].device.clone().unwrap();
    assert_eq!((device.kind, device.provider.as_str()), (DeviceKind::Cpu, "tract"));
    let listed = text(&cluster.cli(&["nodes"], b"").await.stdout);
    assert!(listed.matches(&device.to_string()).count() == 2, "{listed}");

    let receipts: Vec<ReceiptAnswer> = cluster.client.get(&format!("/v1/jobs/{job}/receipts")).await.unwrap();
    assert!(receipts.iter().all(|receipt| receipt.device.as_ref() == Some(&device)), "{receipts:?}");
    let answer: JobAnswer = cluster.client.job(job).await.unwrap();
    assert_eq!(answer.devices, BTreeMap::from([(device.to_string(), answer.shards)]));
    let said = why(&cluster, job).await;
    assert!(said.matches(&device.to_string()).count() == 2, "{said}");
    let kept = cluster.scratch("kept");
    let kept = kept.to_string_lossy();
    assert!(cluster.cli(&["receipt", "get", &job.to_string(), "--out", &kept], b"").await.status.success());
    let verified = text(&support::cli(EXE, None, &["receipt", "verify", &kept], b"").await.stdout);
    assert!(verified.contains(&format!("models on {device}")), "{verified}");
    let metrics = cluster.client.text("/metrics").await.unwrap();
    assert!(metrics.contains("quorate_hosts_devices{device=\"cpu\"} 2"), "{metrics}");
    let inferred = format!("quorate_receipts_inferred_total{{device=\"cpu\"}} {}", 2 * answer.shards);
    assert!(metrics.contains(&inferred), "{metrics}");
}

/// What a host with a GPU says that it has.
fn claimed() -> (EngineFingerprint, Device, Engines) {
    let fingerprint = EngineFingerprint([77; 32]);
    let device = Device { kind: DeviceKind::Gpu, provider: "cuda".into(), name: "Claimed 9000".into() };
    let gpu = EngineOffer::exact(fingerprint, Profile::Native);
    let gpu = EngineOffer { class: Class::Tolerant, device: Some(device.clone()), mflops: 1_000_000, ..gpu };
    (fingerprint, device, Engines(vec![EngineOffer { device_memory_bytes: 16 << 30, ..gpu }]))
}

/// The job that the peer is asked about; it has one shard and echoes.
fn spec(module: ModuleHash, model: ModelHash) -> JobSpec {
    JobSpec {
        models: [("digits".to_owned(), model)].into(),
        input: JobInput::Inline(b"x".to_vec().into()),
        policy: Policy::Quorum(1),
        class: Class::Tolerant,
        device: DeviceAsk::Gpu,
        device_memory_bytes_min: 8 << 30,
        ..JobSpec::new(module, 5)
    }
}

/// An answer to an order: with inferences on this device, or with none.
fn done(peer: &Peer, spec: &JobSpec, order: &Order, device: Option<Device>) -> ToCoordinator {
    let output = Output { stdout: order.input, stdout_bytes: 1, files: Vec::new() };
    let execution = Execution {
        task: task_id(spec.template().hash(), order.shard, order.input),
        module: spec.module,
        class: spec.class,
        engine: order.engine,
        outcome: Outcome::Ok,
        fuel_used: 1,
        output: output.hash(),
        nn_root: device.as_ref().map(|_| BlobHash([5; 32])),
        segment_root: None,
    };
    let receipt = Receipt {
        job: order.job,
        shard: order.shard,
        execution,
        device,
        nn_record: None,
        segment_record: None,
        node: peer.node(),
        operator: OperatorId(peer.operator.public()),
        nonce: order.id.0,
        price_micro: 0,
    };
    let receipt = Signed::seal(&receipt, &peer.key);
    ToCoordinator::Receipts(vec![Done { receipt, output, stdout: Some("x".into()), task_us: 1 }.into()])
}

#[tokio::test]
async fn a_host_that_signs_the_processor_for_a_gpu_is_not_believed() {
    let cluster = Cluster::start(EXE, &[Conduct::Honest]).await;
    let (module, model) = (cluster.publish(tasks::ECHO.wasm).await, cluster.publish(tasks::data::DIGITS_MODEL).await);
    let spec = spec(module.parse().unwrap(), model.parse().unwrap());
    let request = JobRequest {
        module,
        models: Some(spec.models.clone()),
        input: InputRequest::Text("x".into()),
        policy: spec.policy,
        class: Some(spec.class),
        device: spec.device,
        device_memory_bytes_min: Some(spec.device_memory_bytes_min),
        nonce: Some(spec.nonce),
        ..JobRequest::default()
    };
    let job = cluster.submit(&request).await;
    assert_eq!(job, spec.id(), "what a submitter writes is what the job says");
    let (fingerprint, device, engines) = claimed();
    let peer = Peer::offering(&cluster, 90, "q/1", engines).await;
    let lied = AtomicBool::new(false);
    peer.serve(move |peer, order| {
        assert_eq!(order.engine, fingerprint);
        // First on the processor, although it was a GPU that was ordered; then it infers nothing, which is nobody's fault.
        let downgraded = Device { kind: DeviceKind::Cpu, ..device.clone() };
        let first = !lied.swap(true, std::sync::atomic::Ordering::Relaxed);
        Some(done(peer, &spec, &order, first.then_some(downgraded)))
    });
    assert_eq!(cluster.result(job).await, b"x");
    let why: serde_json::Value = cluster.client.get(&format!("/v1/jobs/{job}/why")).await.unwrap();
    let fault = why["last_fault"]["detail"].as_str().unwrap();
    assert!(fault.contains("the job asks for a GPU, and the receipt's inferences ran on none"), "{why}");
    assert_eq!((why["faults"].as_u64(), why["attempts"].as_u64()), (Some(1), Some(2)));
}

#[test]
fn two_engines_of_one_host_each_run_what_is_theirs() {
    if CpuClass::detect() == CpuClass::Generic {
        return skipped("this processor has one class of kernels only", "QUORATE_REQUIRE_AVX2");
    }
    let isolated = jailed(BackendOptions::Tract);
    let generic = SandboxOptions { cpu_class: Some(CpuClass::Generic), ..isolated.clone() };
    let missing = SandboxOptions { program: Some(Path::new("/nowhere/quorate").into()), ..generic.clone() };
    let sandboxes = Sandboxes::with(isolated, vec![missing, generic]).unwrap();
    let engines = &sandboxes.engines().0;
    assert_eq!(
        engines.iter().map(|engine| engine.profile).collect::<Vec<_>>(),
        [Profile::Native, Profile::Portable, Profile::Native]
    );
    let (module, model) = (ModuleHash::of(tasks::DIGITS.wasm), ModelHash::of(tasks::data::DIGITS_MODEL));
    let ask = EngineAsk { infers: true, ..EngineAsk::default() };
    let rows = tasks::data::DIGITS_PIXELS.split_inclusive(|byte| *byte == b'\n').next().unwrap();
    let mut results = Vec::new();
    for engine in [&engines[0], &engines[2]] {
        let sandbox = sandboxes.of(engine.fingerprint, &ask).unwrap();
        assert_eq!((sandbox.fingerprint(), &sandbox.describe().device), (engine.fingerprint, &engine.device));
        sandbox.load_module(module, tasks::DIGITS.wasm).unwrap();
        sandbox.load_model(model, tasks::data::DIGITS_MODEL).unwrap();
        let models = BTreeMap::from([("digits".to_owned(), model)]);
        let request = Request { stdin: rows.into(), models, ..Request::new(module) };
        let Response::Done(finished) = sandbox.run(request) else { panic!("it does not run") };
        assert!(finished.nn_root.is_some());
        results.push(finished.stdout);
    }
    assert_eq!(results[0], results[1]);
    assert_ne!(engines[0].device, engines[2].device);
}
