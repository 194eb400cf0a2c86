//! The routes, over a socket, on a real coordinator.

mod served;

use bytes::Bytes;
use registry::{
    id::BlobHash,
    job::{Class, Limits, Policy, Split},
    log::{Heads, JobLog, Kind},
    manifest::{Manifest, TaskManifest},
    name::NameStatement,
    receipt::Record,
    sign::{SecretKey, Signed},
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::served::{Served, TOKEN, served};
use super::wire::{InputRequest, JobRequest};
use crate::{
    client::{
        ClientError,
        answers::{JobAnswer, ReceiptAnswer, WhyAnswer},
    },
    replay::{self, FetchError, Folder},
};

async fn push_echo(served: &Served) -> String {
    served.client.publish_bytes(Bytes::from_static(tasks::ECHO.wasm)).await.unwrap().hash.to_string()
}

fn job(module: &str, text: &str) -> JobRequest {
    JobRequest {
        module: module.to_owned(),
        input: InputRequest::Text(text.to_owned()),
        split: Split::Lines(1),
        ..JobRequest::default()
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> (u16, String, String) {
    match answer.unwrap_err() {
        ClientError::Refused { status, error } => (status.as_u16(), error.word, error.message),
        error => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_submitted_watched_and_its_results_and_receipts_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let served = served(dir.path()).await.with_hosts(2).await;
    let module = push_echo(&served).await;
    let request = job(&module, "one\ntwo\nthree\n");

    let ended = served.client.submit_and_wait(&request).await.unwrap();
    assert_eq!((ended.phase.as_str(), ended.shards, ended.accepted), ("done", 3, 3));
    assert_eq!(ended.stdout.as_deref(), Some("one\ntwo\nthree\n"));
    assert_eq!(ended.outcomes.unwrap()["ok"], 3);

    let results = served.client.download(&format!("/v1/jobs/{}/results", ended.id)).await.unwrap();
    assert_eq!(results.bytes, Some(14));
    assert_eq!(results.collect().await.unwrap(), b"one\ntwo\nthree\n");
    let shard = served.client.download(&format!("/v1/jobs/{}/results?shard=1", ended.id)).await.unwrap();
    assert_eq!(shard.collect().await.unwrap(), b"two\n");

    let receipts: Vec<ReceiptAnswer> = served.client.get(&format!("/v1/jobs/{}/receipts", ended.id)).await.unwrap();
    assert_eq!(receipts.len(), 3);
    let log = served.client.download(&format!("/v1/jobs/{}/log", ended.id)).await.unwrap().collect().await.unwrap();
    let entries = log.strip_prefix(Kind::Job.line()).unwrap();
    let said = JobLog::check(entries, &mut Heads::default()).unwrap();
    assert_eq!((said.job, said.records, said.accepted, said.shards), (ended.id, 3, 3, 3));
    let last = receipts.iter().max_by_key(|receipt| receipt.seq).unwrap();
    assert_eq!((last.seq, last.link), (2, said.head));
    let record = served.client.download(&format!("/v1/jobs/{}/receipts/0", ended.id)).await.unwrap();
    let record = Record::from_bytes(&record.collect().await.unwrap()).unwrap();
    assert_eq!(record.check().unwrap().operators.len(), 2);

    let mut events = served.client.events(ended.id).await.unwrap();
    let mut names = Vec::new();
    while let Some(event) = events.next().await.unwrap() {
        names.push(event.name);
    }
    assert_eq!(names, ["state", "ended"]);
    served.coordinator.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_job_sent_again_is_the_same_job() {
    let dir = tempfile::tempdir().unwrap();
    let served = served(dir.path()).await.with_hosts(2).await;
    let module = push_echo(&served).await;
    let request = JobRequest { nonce: Some(7), ..job(&module, "x") };
    let first = served.client.submit(&request).await.unwrap();
    assert_eq!(served.client.submit(&request).await.unwrap(), first);
    assert_ne!(served.client.submit(&job(&module, "x")).await.unwrap().id, first.id);
    let jobs: Vec<JobAnswer> = served.client.get("/v1/jobs").await.unwrap();
    assert_eq!(jobs.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_hosts_says_why_it_waits_and_can_be_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let served = served(dir.path()).await;
    let module = push_echo(&served).await;
    let id = served.client.submit(&job(&module, "x")).await.unwrap().id;
    let why: WhyAnswer = served.client.get(&format!("/v1/jobs/{id}/why")).await.unwrap();
    assert!(why.summary.contains("no host has joined"), "{why:?}");
    let (status, word, _) = refused(served.client.download(&format!("/v1/jobs/{id}/results")).await);
    assert_eq!((status, word.as_str()), (409, "not_ended"));

    let mut events = served.client.events(id).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().name, "state");
    let cancelled: Value = served.client.delete(&format!("/v1/jobs/{id}")).await.unwrap();
    assert_eq!(cancelled["cancelled"], true);
    loop {
        let event = events.next().await.unwrap().expect("the end of the job is told before the stream ends");
        if event.name == "ended" {
            break;
        }
    }
    assert_eq!(events.next().await.unwrap(), None);
    let again: Value = served.client.delete(&format!("/v1/jobs/{id}")).await.unwrap();
    assert_eq!(again["cancelled"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_never_run_is_refused_before_it_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let served = served(dir.path()).await;
    let module = push_echo(&served).await;
    let blob = served.client.publish_bytes(Bytes::from_static(b"no module")).await.unwrap().hash;
    let absent = BlobHash::of(b"absent");
    let model = |hash: BlobHash| Some([("m".to_owned(), hash.into())].into());
    let cases = [
        (job(&blob.to_string(), ""), 422, "not_wasm"),
        (job(&absent.to_string(), ""), 404, "unknown_blob"),
        (job("digits", ""), 400, "malformed"),
        (job("alice/digits@1", ""), 404, "unknown_name"),
        (JobRequest { models: model(blob), ..job(&module, "") }, 422, "model_malformed"),
        (JobRequest { models: model(absent), ..job(&module, "") }, 404, "unknown_blob"),
        (JobRequest { input: InputRequest::Blob(absent), ..job(&module, "") }, 404, "unknown_blob"),
        (JobRequest { policy: Policy::Quorum(9), ..job(&module, "") }, 400, "job"),
        (JobRequest { split: Split::Ranges(vec![(0, 9)]), ..job(&module, "") }, 422, "plan"),
    ];
    for (request, status, word) in cases {
        let (found, found_word, message) = refused(served.client.submit(&request).await);
        assert_eq!((found, found_word.as_str()), (status, word), "{message}");
    }
    let unknown = served.client.post::<Value>("/v1/jobs", &json!({ "module": module, "colour": 1 })).await;
    let (status, _, message) = refused(unknown);
    assert!(status == 400 && message.contains("colour"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replay_needs_is_fetched_and_held_against_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let served = served(dir.path()).await.with_hosts(2).await;
    let module = push_echo(&served).await;
    let job = served.client.submit_and_wait(&job(&module, "one\ntwo\n")).await.unwrap().id;
    let bytes = served.client.download(&format!("/v1/jobs/{job}/receipts/1")).await.unwrap().collect().await.unwrap();
    let checked = Record::from_bytes(&bytes).unwrap().check().unwrap();
    let folder = Folder::new(dir.path().join("content"));
    let fetched = replay::fetch(&served.client, &checked, &folder).await.unwrap();
    // The job, the module, the input (which is the output as well), the task and the output's tree.
    assert_eq!(fetched.files, 5);
    let names = [job.0, BlobHash::of(b"two\n").0, checked.execution.task.0, checked.execution.output.0];
    assert!(names.into_iter().all(|name| folder.has(name)));
    assert_eq!(replay::fetch(&served.client, &checked, &folder).await.unwrap().files, 0, "fetched twice");

    // A record of other work than the coordinator's gets nothing under its names.
    let mut other = checked.clone();
    other.execution.task.0[0] ^= 1;
    let refused = replay::fetch(&served.client, &other, &folder).await.unwrap_err();
    assert!(matches!(refused, FetchError::Task { .. }) && !folder.has(other.execution.task.0), "{refused}");
    let mut other = checked;
    other.execution.output.0[0] ^= 1;
    let refused = replay::fetch(&served.client, &other, &folder).await.unwrap_err();
    assert!(matches!(refused, FetchError::Preimage(_)) && !folder.has(other.execution.output.0), "{refused}");

    let route = |rest: &str| format!("/v1/jobs/{job}/shards/{rest}");
    for (rest, status, word) in [
        ("shuffle/0/input", 400, "malformed"),
        ("map/x/input", 400, "malformed"),
        ("map/2/input", 404, "unknown_shard"),
        ("reduce/0/output", 404, "unknown_shard"),
    ] {
        let (found, found_word, message) = refused_download(&served, &route(rest)).await;
        assert_eq!((found, found_word.as_str()), (status, word), "{message}");
    }
    let unknown = format!("/v1/jobs/{}/spec", registry::id::JobId([0; 32]));
    assert_eq!(refused_download(&served, &unknown).await.0, 404);
}

async fn refused_download(served: &Served, route: &str) -> (u16, String, String) {
    refused(served.client.download(route).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_published_used_and_yanked() {
    let dir = tempfile::tempdir().unwrap();
    let served = served(dir.path()).await.with_hosts(2).await;
    push_echo(&served).await;
    let key = SecretKey::from_bytes(&[9; 32]);
    let manifest = Manifest::Task(TaskManifest {
        description: String::new(),
        module: registry::id::ModuleHash::of(tasks::ECHO.wasm),
        module_bytes: tasks::ECHO.wasm.len() as u64,
        models: [].into(),
        class: Class::Exact,
        limits: Limits::default(),
        sample: None,
        lint: None,
    });
    let name = "alice/echo@1".parse::<registry::name::Name>().unwrap();
    let publish = NameStatement::Publish { name: name.clone(), manifest: manifest.hash() };
    let publish = Signed::seal(&publish, &key);
    assert_eq!(refused(served.client.name(&publish).await).1, "unknown_blob");
    served.client.publish_bytes(manifest.to_bytes().into()).await.unwrap();
    assert_eq!(served.client.name(&publish).await.unwrap(), name);
    assert!(served.store.is_pinned(BlobHash::of(tasks::ECHO.wasm)));
    let shown: Value = served.client.get("/v1/names/alice/echo/1").await.unwrap();
    assert_eq!(shown["name"], "alice/echo@1");
    assert_eq!(served.client.submit_and_wait(&job("alice/echo@1", "a")).await.unwrap().stdout.as_deref(), Some("a"));

    let yank = NameStatement::Yank { name, reason: "wrong".into() };
    served.client.name(&Signed::seal(&yank, &key)).await.unwrap();
    let (status, word, message) = refused(served.client.submit(&job("alice/echo@1", "a")).await);
    assert_eq!((status, word.as_str()), (410, "yanked"), "{message}");
    // Saying it again is no error, and does not bring it back.
    served.client.name(&publish).await.unwrap();
    assert_eq!(refused(served.client.submit(&job("alice/echo@1", "a")).await).0, 410);
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_go_in_and_out_as_streams_and_a_false_hash_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let served = served(dir.path()).await;
    let content: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
    let path = dir.path().join("content");
    std::fs::write(&path, &content).unwrap();
    let blob = served.client.publish_file(&path, |_| {}).await.unwrap();
    assert_eq!((blob.hash, blob.bytes), (BlobHash::of(&content), 12_000_000));
    assert!(served.client.has_blob(blob.hash).await.unwrap());
    assert!(!served.client.has_blob(BlobHash::of(b"absent")).await.unwrap());
    let back = served.client.download(&format!("/v1/blobs/{}", blob.hash)).await.unwrap();
    assert_eq!(back.collect().await.unwrap(), content);
    let wrong = served.client.post::<Value>(&format!("/v1/blobs?hash={}", blob.hash), &json!("other")).await;
    assert_eq!(refused(wrong).1, "hash_mismatch");
}

/// Sends bytes as they are; gives the status.
async fn raw(served: &Served, request: &str) -> u16 {
    let mut stream = tokio::net::TcpStream::connect(served.url.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.unwrap();
    let head = String::from_utf8_lossy(&answer[..read]).into_owned();
    head.split(' ').nth(1).expect("an answer has a status").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_web_pages_of_others_are_turned_away() {
    let dir = tempfile::tempdir().unwrap();
    let served = served(dir.path()).await;
    let get = |path: &str, head: &str| format!("GET {path} HTTP/1.1\r\n{head}\r\n");
    let local = "Host: 127.0.0.1\r\n";
    let token = format!("{local}Authorization: Bearer {TOKEN}\r\n");
    let cases = [
        (get("/v1/jobs", &token), 200),
        (get("/healthz", local), 200),
        (get("/metrics", local), 200),
        (get("/v1/jobs", local), 401),
        (get("/v1/jobs", &format!("{local}Authorization: Bearer wrong\r\n")), 401),
        (get("/v1/jobs", &token.replace("127.0.0.1", "evil.example")), 421),
        (get("/metrics", "Host: evil.example\r\n"), 421),
        (get("/v1/jobs", &format!("{token}Origin: https://evil.example\r\n")), 403),
        (get("/v1/nothing", &token), 404),
        (get("/v1/nodes", &token).replace("GET", "DELETE"), 405),
        (get("/v1/jobs/zzz", &token), 400),
        (get("/v1/jobs", &format!("{token}{}", "X: y\r\n".repeat(100))), 431),
        (get("/v1/jobs", &format!("{token}X: {}\r\n", "y".repeat(40_000))), 431),
    ];
    for (request, status) in cases {
        assert_eq!(raw(&served, &request).await, status, "{}", request.chars().take(120).collect::<String>());
    }
}
