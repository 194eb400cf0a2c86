//! Bad input: one clear line that names what to do, the right status and exit code, and nothing lost.

use std::path::Path;

use bytes::Bytes;
use host::{
    client::{Client, ClientError, TOKEN_FILE},
    gateway::{token::Token, wire::JobRequest},
};
use registry::{
    id::{BlobHash, NodeId},
    membership::Ticket,
    sign::SecretKey,
};
use support::{Cluster, Conduct, cli};

use crate::{
    EXE,
    bombs::{self, Bomb},
};

const UNKNOWN_IMPORT: &str =
    r#"(module (import "env" "launch" (func)) (memory (export "memory") 1) (func (export "_start")))"#;
const NO_ENTRY: &str = r#"(module (memory (export "memory") 1) (func (export "main")))"#;
const WRONG_ENTRY: &str = r#"(module (memory (export "memory") 1) (func (export "_start") (param i32)))"#;
const NO_MEMORY: &str = r#"(module (func (export "_start")))"#;
const TOO_MUCH_MEMORY: &str = r#"(module (memory (export "memory") 65536) (func (export "_start")))"#;

/// Status, word and text of a refusal.
fn refusal<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> (u16, String, String) {
    match answer.expect_err("it was taken") {
        ClientError::Refused { status, error } => (status.as_u16(), error.word, error.message),
        other => panic!("no refusal: {other}"),
    }
}

#[tokio::test]
async fn a_module_that_cannot_run_is_refused_before_anything_runs() {
    let cluster = Cluster::start(EXE, &[Conduct::Honest]).await;
    let cases: [(&str, Vec<u8>, &str); 8] = [
        ("garbage", b"not wasm at all".to_vec(), "not"),
        ("cut short", tasks::ECHO.wasm[..200].to_vec(), ""),
        ("unknown import", wat::parse_str(UNKNOWN_IMPORT).unwrap(), "env"),
        ("no entry", wat::parse_str(NO_ENTRY).unwrap(), "_start"),
        ("wrong entry", wat::parse_str(WRONG_ENTRY).unwrap(), "_start"),
        ("no memory", wat::parse_str(NO_MEMORY).unwrap(), "memory"),
        ("too much memory", wat::parse_str(TOO_MUCH_MEMORY).unwrap(), "over limits.memory_bytes_max"),
        ("compile bomb", Bomb::new().functions(1, 0, &bombs::blocks(250_000)).build(), "work of compiling"),
    ];
    for (what, wasm, expected) in cases {
        let module = cluster.publish(wasm).await;
        let request = JobRequest { module, ..JobRequest::default() };
        let (status, word, message) = refusal(cluster.client.submit(&request).await);
        assert_eq!(status, 422, "{what}: {message}");
        assert!(!word.is_empty() && message.contains(expected) && !message.contains('\n'), "{what}: {word}: {message}");
    }
    let request = JobRequest { module: BlobHash::of(b"never pushed").to_string(), ..JobRequest::default() };
    assert_eq!(refusal(cluster.client.submit(&request).await).0, 404);
    let request = JobRequest { module: "alice/nothing@1".into(), ..JobRequest::default() };
    assert_eq!(refusal(cluster.client.submit(&request).await).0, 404);
    let jobs: Vec<host::client::answers::JobAnswer> = cluster.client.get("/v1/jobs").await.unwrap();
    assert!(jobs.is_empty(), "a refused job is listed");
}

#[tokio::test]
async fn a_missing_or_broken_model_is_refused_when_the_job_is_submitted() {
    let cluster = Cluster::start(EXE, &[Conduct::Honest]).await;
    let module = cluster.publish(tasks::DIGITS.wasm).await;
    let with_model = |hash: BlobHash| JobRequest {
        module: module.clone(),
        models: Some([("digits".to_owned(), hash.into())].into()),
        ..JobRequest::default()
    };
    let missing = cluster.client.submit(&with_model(BlobHash::of(b"never pushed"))).await;
    assert_eq!(refusal(missing).0, 404);
    let broken: BlobHash = cluster.publish(&b"no onnx"[..]).await.parse().unwrap();
    assert_eq!(refusal(cluster.client.submit(&with_model(broken)).await).0, 422);
}

#[tokio::test]
async fn malformed_jobs_are_refused_with_the_key_and_the_bound() {
    let cluster = Cluster::start(EXE, &[Conduct::Honest]).await;
    let module = cluster.publish(tasks::ECHO.wasm).await;
    let cases = [
        (serde_json::json!({"module": module, "colour": "red"}), 400, "colour"),
        (serde_json::json!({"module": 7}), 400, "expected a string at line 1"),
        (
            serde_json::json!({"module": module, "policy": {"quorum": 9}}),
            400,
            "quorum is 9, outside the bounds of 1 to 5",
        ),
        (
            serde_json::json!({"module": module, "input": {"text": "x".repeat(70_000)}}),
            400,
            "inline input in bytes is 70000",
        ),
        (
            serde_json::json!({"module": module, "split": {"lines": 0}, "input": {"text": "a"}}),
            400,
            "lines per shard is 0",
        ),
        (serde_json::json!({"module": module, "limits": {"fuel_max": 0}}), 400, "fuel_max is 0"),
    ];
    for (body, status, expected) in cases {
        let (found, _, message) = refusal(cluster.client.post::<serde_json::Value>("/v1/jobs", &body).await);
        assert_eq!(found, status, "{body}: {message}");
        assert!(message.contains(expected) && !message.contains('\n'), "{body}: {message}");
    }
    let (status, _, message) = refusal(cluster.client.job(registry::id::JobId([7; 32])).await);
    assert_eq!(status, 404, "{message}");
    let (status, ..) = refusal(cluster.client.get::<serde_json::Value>("/v1/jobs/xyz").await);
    assert_eq!(status, 400);
}

#[tokio::test]
async fn a_wrong_token_opens_nothing_and_a_mangled_blob_is_not_kept() {
    let cluster = Cluster::start(EXE, &[]).await;
    let wrong = Token::from_text(&"0".repeat(64)).expect("a token's form");
    let stranger = Client::new(cluster.client.url(), &wrong).unwrap();
    assert_eq!(refusal(stranger.get::<serde_json::Value>("/v1/jobs").await).0, 401);
    assert_eq!(refusal(stranger.publish_bytes(Bytes::from_static(b"x")).await).0, 401);
    let token = Token::load(&cluster.data_dir().join(TOKEN_FILE)).unwrap();
    let claimed = BlobHash::of(b"what was meant");
    let answer = raw(
        cluster.client.url(),
        &format!("POST /v1/blobs?hash={claimed} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: {}\r\ncontent-length: 5\r\nconnection: close\r\n\r\nother", token.authorization()),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 422"), "{answer}");
    assert!(
        !cluster.client.has_blob(claimed).await.unwrap()
            && !cluster.client.has_blob(BlobHash::of(b"other")).await.unwrap()
    );
}

async fn raw(url: &str, request: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let mut stream = tokio::net::TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_name_for_this_machine_from_elsewhere_is_refused() {
    let cluster = Cluster::start(EXE, &[]).await;
    let answer =
        raw(cluster.client.url(), "GET /metrics HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
}

/// Runs the program; gives its exit code and the last line that it says of its error.
async fn fails(data_dir: Option<&Path>, args: &[&str]) -> (i32, String) {
    let output = cli(EXE, data_dir, args, b"").await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().expect("it exited"), said)
}

#[tokio::test]
async fn exit_codes_say_what_kind_of_no_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (code, said) = fails(None, &["frobnicate"]).await;
    assert_eq!(code, 2, "{said}");
    let cluster = Cluster::start(EXE, &[Conduct::Honest]).await;
    let (code, said) = fails(Some(cluster.data_dir()), &["submit", "alice/nothing@1", "--inline", "x"]).await;
    assert!(code != 0 && said.contains("alice/nothing@1 is not published"), "{code}: {said}");
    std::fs::copy(cluster.data_dir().join(TOKEN_FILE), dir.path().join(TOKEN_FILE)).unwrap();
    std::fs::write(dir.path().join("url"), "http://127.0.0.1:1").unwrap();
    let (code, said) = fails(Some(dir.path()), &["jobs"]).await;
    assert!(code == 3 && said.contains("no coordinator answers"), "{code}: {said}");
    let receipt = dir.path().join("receipt.cbor");
    std::fs::write(&receipt, b"no receipt").unwrap();
    let (code, said) = fails(None, &["receipt", "verify", &receipt.to_string_lossy()]).await;
    assert_eq!(code, 1, "{said}");
}

#[tokio::test]
async fn a_stale_or_mangled_ticket_ends_a_host_with_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let key = SecretKey::from_bytes(&[1; 32]);
    let stale =
        Ticket { coordinator: NodeId(key.public()), addrs: vec!["127.0.0.1:1".parse().unwrap()], expires_ms: 1 };
    for (ticket, expected) in [(stale.to_string(), "ticket is stale"), ("quorate1nonsense".into(), "not a ticket")] {
        let (code, said) = fails(Some(dir.path()), &["node", "--join", &ticket, "--net-listen", "127.0.0.1:0"]).await;
        assert!(code == 2 && said.contains(expected), "{code}: {said}");
    }
}
