//! Hosts whose configuration names more to infer with: what they offer, what runs there, what it costs when it breaks.
//!
//! Skipped where ONNX Runtime is not installed, unless `QUORATE_REQUIRE_ONNXRUNTIME` says that it is.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use host::{
    client::answers::{HostAnswer, ReceiptAnswer},
    gateway::wire::JobRequest,
    sandbox::{
        BackendOptions, HostFault, ProviderKind, Request, Response, Sandbox, find,
        onnx::{FLOAT, Model},
    },
    testing::skipped,
};
use registry::{
    device::DeviceKind,
    id::{ModelHash, ModuleHash},
    job::{Class, Limits, Profile},
};
use serde_json::Value;
use support::{Cluster, Conduct, cli, cli_with_libraries};

use crate::{EXE, digits, sandbox::jailed};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// ONNX Runtime on the processor, if it is installed.
fn onnxruntime() -> Option<BackendOptions> {
    let found = find::backend(ProviderKind::Cpu, None, None).ok();
    if found.is_none() {
        skipped("no ONNX Runtime: run tools/install-onnxruntime", "QUORATE_REQUIRE_ONNXRUNTIME");
    }
    found
}

fn configuration(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("quorate.toml");
    fs::write(&path, text).unwrap();
    path
}

/// A host's sandbox with this backend.
fn started(backend: BackendOptions) -> Sandbox {
    Sandbox::new(jailed(backend)).expect("it starts")
}

#[tokio::test]
async fn a_host_offers_what_its_configuration_names_and_jobs_run_there() {
    if onnxruntime().is_none() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    // tract's kernels for any processor are the slower ones, so that jobs for the fastest engine take the library.
    let config = "[host]\ncpu_class = \"generic\"\n[host.inference]\nonnxruntime = \"auto\"\n";
    let config = configuration(scratch.path(), config);
    let args = ["--slots", "1", "--config", config.to_str().unwrap()];
    let cluster = Cluster::start_with(EXE, &[Conduct::Honest; 2], &[], &args).await;
    let nodes: Vec<HostAnswer> = cluster.client.get("/v1/nodes").await.unwrap();
    let offered = |node: &HostAnswer| -> Vec<_> {
        node.engines.iter().map(|engine| (engine.profile, engine.class, engine.mflops > 0)).collect()
    };
    let expected = [
        (Profile::Native, Class::Exact, true),
        (Profile::Portable, Class::Exact, false),
        (Profile::Native, Class::Homogeneous, true),
    ];
    for node in &nodes {
        assert_eq!(offered(node), expected, "{}", cluster.logs());
        assert!(node.engines[2].mflops > node.engines[0].mflops, "{:?}", node.engines);
    }
    let further = &nodes[0].engines[2];
    let device = further.device.clone().unwrap();
    assert_eq!((device.kind, device.provider.as_str()), (DeviceKind::Cpu, "onnxruntime"));
    assert_eq!(nodes[1].engines[2].fingerprint, further.fingerprint, "one machine, one engine");

    let request = digits::request(&cluster, 300).await;
    for class in [Class::Homogeneous, Class::Tolerant] {
        let job = cluster.submit(&JobRequest { class: Some(class), ..request.clone() }).await;
        assert_eq!(cluster.result(job).await, digits::truth(), "labels are the same on every backend");
        let receipts: Vec<ReceiptAnswer> = cluster.client.get(&format!("/v1/jobs/{job}/receipts")).await.unwrap();
        assert!(!receipts.is_empty());
        assert!(receipts.iter().all(|receipt| receipt.device.as_ref() == Some(&device)), "{receipts:?}");

        let kept = cluster.scratch(class.word());
        let kept = kept.to_string_lossy();
        let get = cluster.cli(&["receipt", "get", &job.to_string(), "--out", &kept, "--content"], b"").await;
        assert!(get.status.success(), "{}", text(&get.stderr));
        let verified = text(&cli(EXE, None, &["receipt", "verify", &kept], b"").await.stdout);
        assert!(verified.contains(&format!("models on {device}")), "{verified}");
        replay(class, &kept).await;
    }
    // What is exact is not for the library.
    let job = cluster.submit(&request).await;
    assert_eq!(cluster.result(job).await, digits::truth());
    let receipts: Vec<ReceiptAnswer> = cluster.client.get(&format!("/v1/jobs/{job}/receipts")).await.unwrap();
    assert!(receipts.iter().all(|receipt| receipt.device.as_ref().unwrap().provider == "tract"), "{receipts:?}");
}

/// In class homogeneous the same engine gives the same bits; in class tolerant any gives answers that are close.
async fn replay(class: Class, kept: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let model = scratch.path().join("digits.onnx");
    fs::write(&model, tasks::data::DIGITS_MODEL).unwrap();
    let tolerance = scratch.path().join("tolerance.json").to_string_lossy().into_owned();
    let calibrate = ["calibrate", &model.to_string_lossy(), "--samples", "64", "--range", "0..16", "--out", &tolerance];
    let mut args = vec!["receipt", "replay", "--json", kept];
    if class == Class::Tolerant {
        let calibrated = cli_with_libraries(EXE, &calibrate).await;
        assert!(calibrated.status.success(), "{}", text(&calibrated.stderr));
        assert!(text(&calibrated.stdout).contains("onnxruntime-cpu"), "{}", text(&calibrated.stdout));
        args.extend(["--tolerance", &tolerance]);
    }
    let replayed = cli_with_libraries(EXE, &args).await;
    let said: Vec<Value> =
        serde_json::from_slice(&replayed.stdout).unwrap_or_else(|_| panic!("{}", text(&replayed.stderr)));
    let verdicts: Vec<&str> = said.iter().filter_map(|record| record["verdict"].as_str()).collect();
    let expected: &[&str] = if class == Class::Tolerant { &["equal", "within"] } else { &["equal"] };
    assert!(!said.is_empty() && verdicts.iter().all(|verdict| expected.contains(verdict)), "{said:#?}");
}

#[tokio::test]
async fn a_library_that_is_missing_costs_a_host_that_engine_and_nothing_else() {
    let scratch = tempfile::tempdir().unwrap();
    let config = "[host.inference]\nonnxruntime = \"/nowhere/libonnxruntime.so\"\nproviders = [\"cpu\", \"cuda\"]\n";
    let config = configuration(scratch.path(), config);
    let args = ["--slots", "1", "--config", config.to_str().unwrap()];
    let cluster = Cluster::start_with(EXE, &[Conduct::Honest; 2], &[], &args).await;
    let nodes: Vec<HostAnswer> = cluster.client.get("/v1/nodes").await.unwrap();
    assert!(nodes.iter().all(|node| node.engines.len() == 2), "{nodes:?}");
    let log = fs::read_to_string(cluster.hosts[0].log()).unwrap();
    assert_eq!(log.matches("is not offered").count(), 2, "{log}");
    assert!(log.contains("/nowhere/libonnxruntime.so: there is no such file"), "{log}");
    let job = digits::submit(&cluster, 300).await;
    assert_eq!(cluster.result(job).await, digits::truth());
}

#[tokio::test]
async fn one_task_runs_here_with_the_backend_that_is_named_and_no_other() {
    let scratch = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = scratch.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_string_lossy().into_owned()
    };
    let (module, pixels) = (file("digits.wasm", tasks::DIGITS.wasm), file("pixels.csv", tasks::data::DIGITS_PIXELS));
    let model = format!("digits={}", file("digits.onnx", tasks::data::DIGITS_MODEL));
    let run = async |more: &[&str]| {
        let args = [&["run", &module, "--stdin", &pixels, "--model", &model, "--json"], more].concat();
        let output = cli_with_libraries(EXE, &args).await;
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
    };
    let said = run(&["--backend", "tract-generic"]).await;
    assert_eq!((&said["outcome"], &said["device"]), (&"ok".into(), &"cpu by tract (generic)".into()), "{said}");
    let said = run(&["--backend", "nonesuch"]).await;
    assert_eq!((&said["outcome"], &said["reason"]), (&"rejected".into(), &"no_backend".into()), "{said}");
    let said = run(&["--backend", "tract", "--device", "gpu", "--class", "tolerant"]).await;
    assert_eq!((&said["outcome"], &said["reason"]), (&"rejected".into(), &"engine_lacks".into()), "{said}");
    assert!(said["detail"].as_str().unwrap().contains("has no GPU"), "{said}");
    if onnxruntime().is_none() {
        return;
    }
    let said = run(&["--backend", "onnxruntime-cpu", "--class", "homogeneous"]).await;
    assert!(said["outcome"] == "ok" && said["device"].as_str().unwrap().starts_with("cpu by onnxruntime"), "{said}");
    let said = run(&["--backend", "onnxruntime-cpu"]).await;
    assert!(said["detail"].as_str().unwrap().contains("class homogeneous"), "exact is more than it gives: {said}");
}

/// Rows of the square matrices that the long model multiplies.
const SIDE: u32 = 2048;

/// A task whose one inference takes a minute or so: it multiplies large matrices a hundred times.
fn long(sandbox: &Sandbox, wall_ms_max: u64) -> Request {
    let dims = [i64::from(SIDE); 2];
    let names: Vec<String> = (0..=100).map(|at| format!("x{at}")).collect();
    let mut model = Model::new().input("x0", FLOAT, &dims);
    for pair in names.windows(2) {
        model = model.node("MatMul", &[&pair[0], "x0"], &[&pair[1]], &[]);
    }
    let model = model.output("x100", FLOAT, &dims).bytes();
    let (module, hash) = (ModuleHash::of(tasks::INFER.wasm), ModelHash::of(&model));
    sandbox.load_module(module, tasks::INFER.wasm).unwrap();
    sandbox.load_model(hash, &model).unwrap();
    // One inference of one input: f32, two dimensions, as long as it is, zeros.
    let elements = SIDE * SIDE;
    let mut stdin: Vec<u8> =
        [1, 1, 2, SIDE, SIDE, 4 * elements].iter().flat_map(|number| number.to_le_bytes()).collect();
    stdin.resize(stdin.len() + 4 * elements as usize, 0);
    Request {
        stdin: stdin.into(),
        models: BTreeMap::from([("model".to_owned(), hash)]),
        limits: Limits { fuel_max: u64::MAX / 2, wall_ms_max, ..Limits::default() },
        ..Request::new(module)
    }
}

/// The next task of a sandbox, after one that did not end well.
fn next_task_runs(sandbox: &Sandbox) {
    let (module, model) = (ModuleHash::of(tasks::DIGITS.wasm), ModelHash::of(tasks::data::DIGITS_MODEL));
    sandbox.load_module(module, tasks::DIGITS.wasm).unwrap();
    sandbox.load_model(model, tasks::data::DIGITS_MODEL).unwrap();
    let stdin = tasks::data::DIGITS_PIXELS.into();
    let request = Request { stdin, models: BTreeMap::from([("digits".to_owned(), model)]), ..Request::new(module) };
    match sandbox.run(request) {
        Response::Done(done) => assert_eq!(done.stdout, digits::truth()),
        Response::Fault(fault) => panic!("{fault}"),
    }
}

/// tract, and ONNX Runtime where it is installed.
fn backends() -> Vec<BackendOptions> {
    [Some(BackendOptions::Tract), onnxruntime()].into_iter().flatten().collect()
}

#[test]
fn an_inference_that_outlives_its_deadline_is_killed_there() {
    for backend in backends() {
        let sandbox = started(backend);
        let request = long(&sandbox, 3_000);
        let Response::Fault(fault) = sandbox.run(request) else { panic!("it ended in time") };
        assert!(matches!(fault, HostFault::Deadline { wall_ms_max: 3_000 }), "{fault}");
        let stats = sandbox.process_stats();
        assert_eq!((stats.deadline, stats.died), (1, 0), "nothing inside stops an inference: {stats:?}");
        next_task_runs(&sandbox);
    }
}

/// Processor time of a process in clock ticks; none when it is gone.
fn ticks(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?)
}

#[test]
fn a_library_that_dies_while_it_infers_is_a_fault_of_that_task_alone() {
    use rustix::process::{Pid, Signal, kill_process};
    for backend in backends() {
        let sandbox = started(backend);
        let request = long(&sandbox, 600_000);
        let fault = std::thread::scope(|threads| {
            let running = threads.spawn(|| sandbox.run(request));
            // Reading its input takes a fraction of this; what takes the rest is the inference.
            let process = loop {
                let busy =
                    sandbox.process_ids().into_iter().find(|process| ticks(*process).is_some_and(|ticks| ticks > 300));
                match busy {
                    Some(process) => break process,
                    None => std::thread::sleep(Duration::from_millis(20)),
                }
            };
            // As a library does that finds itself broken.
            kill_process(Pid::from_raw(process.cast_signed()).unwrap(), Signal::ABORT).unwrap();
            running.join().unwrap()
        });
        let Response::Fault(fault) = fault else { panic!("it ended although it was killed") };
        assert!(matches!(&fault, HostFault::SandboxDied { how } if how.contains("SIGABRT")), "{fault}");
        assert_eq!(sandbox.process_stats().died, 1);
        next_task_runs(&sandbox);
    }
}
