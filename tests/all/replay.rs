//! Records of receipts, run again with nothing else running.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use host::{
    client::answers::HostAnswer,
    gateway::wire::{InputRequest, JobRequest},
};
use registry::{
    id::{BlobHash, JobId, ModelHash},
    job::{Reduce, Split},
    receipt::Record,
};
use serde_json::Value;
use support::{Cluster, Conduct, cli};

use crate::EXE;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Publishes the digits with a file beside them, and runs them on a cluster.
async fn digits(cluster: &Cluster) -> JobId {
    let request = JobRequest {
        module: cluster.publish(tasks::DIGITS.wasm).await,
        models: Some(BTreeMap::from([(
            "digits".to_owned(),
            cluster.publish(tasks::data::DIGITS_MODEL).await.parse().unwrap(),
        )])),
        files: BTreeMap::from([("note".to_owned(), cluster.publish(&b"beside"[..]).await.parse().unwrap())]),
        input: InputRequest::Blob(cluster.publish(tasks::data::DIGITS_PIXELS).await.parse().unwrap()),
        split: Split::Lines(200),
        ..JobRequest::default()
    };
    let job = cluster.submit(&request).await;
    cluster.result(job).await;
    job
}

/// Gets the records of a job, with further arguments.
async fn get(cluster: &Cluster, job: JobId, out: &Path, args: &[&str]) {
    let (job, out) = (job.to_string(), out.to_string_lossy());
    let output = cluster.cli(&[&["receipt", "get", &job, "--out", &out], args].concat(), b"").await;
    assert!(output.status.success(), "{}\n{}", text(&output.stderr), cluster.logs());
}

/// Replays; gives the exit code and what is said of each record.
async fn replay(args: &[&str]) -> (Option<i32>, Vec<Value>) {
    let output = cli(EXE, None, &[&["receipt", "replay", "--json"], args].concat(), b"").await;
    let said = serde_json::from_slice(&output.stdout);
    (output.status.code(), said.unwrap_or_else(|_| panic!("no JSON: {}", text(&output.stderr))))
}

fn content(dir: &Path, hash: BlobHash) -> PathBuf {
    dir.join("content").join(hash.to_string())
}

#[tokio::test]
async fn with_everything_stopped_the_records_replay_and_the_liar_is_named() {
    let kept = tempfile::tempdir().unwrap();
    let dir = kept.path();
    let cluster = Cluster::start(EXE, &[Conduct::Liar, Conduct::Honest, Conduct::Honest, Conduct::Honest]).await;
    let job = digits(&cluster).await;
    get(&cluster, job, dir, &["--content"]).await;
    let nodes: Vec<HostAnswer> = cluster.client.get("/v1/nodes").await.unwrap();
    let liar = nodes.iter().find(|node| node.suspended.is_some()).expect("the liar was caught").node;
    drop(cluster);

    let here = dir.to_string_lossy().into_owned();
    let (code, records) = replay(&[&here]).await;
    assert_eq!(code, Some(0), "{records:#?}");
    assert!(records.len() > 9 && records.iter().all(|record| record["verdict"] == "equal"), "{records:#?}");
    let accused: Vec<&Value> =
        records.iter().map(|record| &record["replayed"]["accused"]).filter(|accused| !accused.is_null()).collect();
    assert!(!accused.is_empty(), "no evidence was replayed");
    for accused in accused {
        assert_eq!((&accused["node"], &accused["difference"]["what"]), (&liar.to_string().into(), &"output".into()));
    }
    let (kept_dir, keep) = (dir.join("kept"), dir.join("kept").to_string_lossy().into_owned());
    let people = cli(EXE, None, &["receipt", "replay", &here, "--keep", &keep], b"").await;
    let said = text(&people.stdout);
    assert!(
        people.status.success() && said.contains(&format!("node {} signed something else", liar.short())),
        "{said}"
    );

    let accepted = Record::from_bytes(&std::fs::read(dir.join("map-000000.cbor")).unwrap()).unwrap().check().unwrap();
    let inferred = accepted.execution.nn_root.expect("nothing was inferred");
    for name in [inferred, accepted.execution.output, BlobHash(accepted.execution.engine.0)] {
        assert!(kept_dir.join(name.to_string()).is_file(), "the replay did not keep {name}");
    }

    // One changed byte of the model, and another module under the module's name.
    let record = dir.join("map-000000.cbor").to_string_lossy().into_owned();
    let refused = async |hash: BlobHash, bytes: &[u8], what: &str| {
        let path = content(dir, hash);
        let before = std::fs::read(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
        let (code, records) = replay(&[&record]).await;
        assert_eq!((code, &records[0]["verdict"], &records[0]["reason"]), (Some(1), &"refused".into(), &"hash".into()));
        assert!(records[0]["error"].as_str().unwrap().contains(&format!("{what} has hash")), "{records:#?}");
        std::fs::write(&path, before).unwrap();
    };
    let mut model = tasks::data::DIGITS_MODEL.to_vec();
    *model.last_mut().unwrap() ^= 1;
    refused(BlobHash::of(tasks::data::DIGITS_MODEL), &model, "model").await;
    refused(BlobHash::of(tasks::DIGITS.wasm), tasks::ECHO.wasm, "module").await;
    refused(BlobHash::of(b"beside"), b"besides", "file").await;
    assert_eq!(replay(&[&record]).await.0, Some(0));

    // A record with another task's module in it is no record.
    let mut bytes = std::fs::read(&record).unwrap();
    let module = *BlobHash::of(tasks::DIGITS.wasm).as_bytes();
    let at = bytes.windows(module.len()).position(|window| window == module).unwrap();
    bytes[at..at + module.len()].copy_from_slice(BlobHash::of(tasks::ECHO.wasm).as_bytes());
    std::fs::write(&record, bytes).unwrap();
    let (code, records) = replay(&[&record]).await;
    assert_eq!((code, &records[0]["reason"]), (Some(1), &"record".into()), "{records:#?}");
}

#[tokio::test]
async fn content_comes_from_a_running_coordinator_or_from_the_data_of_one_that_stopped() {
    let kept = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(EXE, &[Conduct::Honest; 2]).await;
    let request = JobRequest {
        module: cluster.publish(tasks::WORDCOUNT.wasm).await,
        input: InputRequest::Blob(cluster.publish(tasks::data::HAMLET).await.parse().unwrap()),
        split: Split::Records { bytes: 60_000, delimiter: b'\n' },
        reduce: Reduce::Task,
        ..JobRequest::default()
    };
    let job = cluster.submit(&request).await;
    cluster.result(job).await;
    get(&cluster, job, kept.path(), &[]).await;
    let here = kept.path().to_string_lossy().into_owned();
    let (code, records) = replay(&[&here]).await;
    assert_eq!((code, &records[0]["reason"]), (Some(1), &"content_missing".into()), "{records:#?}");

    let data_dir = cluster.data_dir().to_string_lossy().into_owned();
    let (code, records) = replay(&[&here, "--fetch", "--data-dir", &data_dir]).await;
    assert_eq!(code, Some(0), "{records:#?}");
    let reduced = records.iter().filter(|record| record["replayed"]["shard"]["stage"] == "reduce").count();
    assert_eq!(reduced, 1, "{records:#?}");

    // The module and the inputs are in the coordinator's store as well, which nobody else may read while it runs.
    std::fs::remove_file(content(kept.path(), BlobHash::of(tasks::WORDCOUNT.wasm))).unwrap();
    let busy = cli(EXE, None, &["receipt", "replay", &here, "--blobs", &data_dir], b"").await;
    let log = text(&busy.stderr);
    assert!(busy.status.code() == Some(2) && log.contains("a node runs on this store"), "{log}");
    cluster.kill_coordinator();
    let (code, records) = replay(&[&here, "--blobs", &data_dir]).await;
    assert_eq!(code, Some(0), "{records:#?}");
}

#[tokio::test]
async fn a_model_that_a_task_brought_stands_in_its_receipt_and_replays() {
    let kept = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(EXE, &[Conduct::Honest; 2]).await;
    let model = cluster.publish(tasks::data::DIGITS_MODEL).await.parse().unwrap();
    let script = "bytes digits.onnx\ncontext 0\ninput 0 0 f32 1x64 zeros:64\ncompute 0\noutput 0 0 f32 10\n";
    let request = JobRequest {
        module: cluster.publish(tasks::NN_SCRIPT.wasm).await,
        files: BTreeMap::from([("digits.onnx".to_owned(), model)]),
        input: InputRequest::Text(script.to_owned()),
        ..JobRequest::default()
    };
    let job = cluster.submit(&request).await;
    let result = text(&cluster.result(job).await);
    assert!(result.starts_with("ok\nok\nok\nok\nok "), "{result}");
    get(&cluster, job, kept.path(), &["--content"]).await;
    drop(cluster);

    let record = std::fs::read(kept.path().join("map-000000.cbor")).unwrap();
    let accepted = Record::from_bytes(&record).unwrap().check().unwrap();
    // The root is of what it inferred; nothing of that is recorded, since it comes out again.
    let root = accepted.execution.nn_root.expect("nothing was inferred");
    assert_eq!(accepted.nn_record, None);
    let (here, keep) = (kept.path().to_string_lossy().into_owned(), kept.path().join("kept"));
    let (code, records) = replay(&[&here, "--keep", &keep.to_string_lossy()]).await;
    assert_eq!((code, &records[0]["verdict"]), (Some(0), &"equal".into()), "{records:#?}");
    let inferences = std::fs::read(keep.join(root.to_string())).unwrap();
    let hash = ModelHash::of(tasks::data::DIGITS_MODEL);
    assert!(inferences.windows(32).any(|window| window == hash.as_bytes()), "the model is not named");
}
