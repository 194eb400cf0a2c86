//! `quorate run`: one task on this machine does what a host would do with it, and says so.

use std::{path::PathBuf, process::Output};

use host::{
    client::answers::ReceiptAnswer,
    gateway::wire::{InputRequest, JobRequest, LimitsRequest},
};
use registry::receipt::{Checked, Record};
use serde_json::Value;
use support::{Cluster, Conduct, cli};

use crate::EXE;

/// A scratch directory with the files of one test.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    /// Writes a file; gives its path.
    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        self.text(name)
    }
}

async fn run(args: &[&str], stdin: &[u8]) -> Output {
    cli(EXE, None, &[&["run"], args].concat(), stdin).await
}

/// Runs with `--json`; gives the exit code and the object.
async fn json(args: &[&str], stdin: &[u8]) -> (i32, Value) {
    let output = run(&[args, &["--json"]].concat(), stdin).await;
    let said = serde_json::from_slice(&output.stdout);
    (output.status.code().unwrap(), said.unwrap_or_else(|_| panic!("no JSON: {}", text(&output.stderr))))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Writes `hi` to `/out/b`.
const WRITER: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "out/b")
  (data (i32.const 16) "hi")
  (data (i32.const 32) "\10\00\00\00\02\00\00\00")
  (func (export "_start")
    (if (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 5) (i32.const 1)
        (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 64)) (then unreachable))
    (if (call $write (i32.load (i32.const 64)) (i32.const 32) (i32.const 1) (i32.const 68)) (then unreachable))))"#;

#[tokio::test]
async fn stdin_stdout_and_exit_code_are_the_tasks_own() {
    let desk = Desk::new();
    let echo = desk.file("echo.wasm", tasks::ECHO.wasm);
    let bytes: Vec<u8> = (0..=255).collect();
    let input = desk.file("input", &bytes);
    for (args, stdin) in [([echo.as_str(), "--stdin", &input], &b""[..]), ([&echo, "--stdin", "-"], &bytes)] {
        let output = run(&args, stdin).await;
        let log = text(&output.stderr);
        assert_eq!((output.status.code(), &output.stdout), (Some(0), &bytes), "{log}");
        assert!(log.starts_with("task ok; fuel ") && log.lines().count() == 1, "{log}");
    }
    let unread = run(&[&echo], b"not asked for").await;
    assert!(unread.status.success() && unread.stdout.is_empty(), "standard input is read without --stdin");

    let exit = desk.file("exit.wasm", tasks::EXIT.wasm);
    for code in [0, 3, 255] {
        let output = run(&[&exit, "--arg", &code.to_string()], b"").await;
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
    }
    let (code, said) = json(&[&exit, "--arg=7"], b"").await;
    assert_eq!((code, &said["outcome"], &said["exit_code"]), (7, &"exit".into(), &7.into()));
}

#[tokio::test]
async fn arguments_variables_files_and_models_arrive() {
    let desk = Desk::new();
    let clock = desk.file("clock.wasm", tasks::CLOCK.wasm);
    let file = desk.file("whatever", "x");
    let args = [&clock, "--arg=--flag", "--env", "COLOUR=a=b", "--in", &format!("words={file}"), "--reduce"];
    let said = text(&run(&args, b"").await.stdout);
    for expected in [r#""--flag""#, r#"("COLOUR", "a=b")"#, r#"("QUORATE_STAGE", "reduce")"#, r#""words""#] {
        assert!(said.contains(expected), "{expected} is not in {said}");
    }
    let digits = desk.file("digits.wasm", tasks::DIGITS.wasm);
    let model = desk.file("digits.onnx", tasks::data::DIGITS_MODEL);
    let pixels = desk.file("pixels.csv", tasks::data::DIGITS_PIXELS);
    let output = run(&[&digits, "--stdin", &pixels, "--model", &format!("digits={model}")], b"").await;
    assert_eq!(output.stdout, crate::digits::truth(), "{}", text(&output.stderr));
}

#[tokio::test]
async fn files_of_the_task_go_to_a_directory_and_replace_nothing() {
    let desk = Desk::new();
    let writer = desk.file("writer.wasm", wat::parse_str(WRITER).unwrap());
    let out = desk.text("made/by/run");
    let (code, said) = json(&[&writer, "--out", &out], b"").await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(said["output_files"], serde_json::json!({"b": registry::id::BlobHash::of(b"hi")}));
    assert_eq!(std::fs::read(desk.path("made/by/run/b")).unwrap(), b"hi");
    let again = run(&[&writer, "--out", &out], b"").await;
    let log = text(&again.stderr);
    assert!(again.status.code() == Some(2) && log.contains("made/by/run/b"), "{log}");
}

#[tokio::test]
async fn each_way_to_end_has_its_word_and_one_line() {
    let desk = Desk::new();
    type Case<'a> = (&'a [u8], &'a [&'a str], &'a str, Value, &'a str);
    let cases: [Case<'_>; 6] = [
        (tasks::TRAP.wasm, &[], "trap", "unreachable".into(), "stopped by a trap, unreachable"),
        (tasks::SPIN.wasm, &["--fuel", "1000000"], "fuel_out", Value::Null, "1000000 units of fuel"),
        (tasks::HOG.wasm, &["--memory-max", "16777216"], "memory_out", Value::Null, "16777216 bytes of memory"),
        (tasks::FLOOD.wasm, &["--output-bytes-max", "65536"], "output_out", Value::Null, "65536 bytes of output"),
        (
            tasks::SPIN.wasm,
            &["--wall-max", "200", "--fuel", "1000000000000000"],
            "host_fault",
            "deadline".into(),
            "longer than its 200 ms",
        ),
        (tasks::DEEP.wasm, &[], "trap", "stack_overflow".into(), "stopped by a trap, stack_overflow"),
    ];
    for (wasm, args, outcome, reason, line) in cases {
        let module = desk.file("task.wasm", wasm);
        let args = [&[module.as_str()], args].concat();
        let (code, said) = json(&args, b"").await;
        assert_eq!((code, &said["outcome"], &said["reason"]), (1, &outcome.into(), &reason), "{said}");
        assert!(said["detail"].as_str().unwrap().contains(line), "{said}");
        assert_eq!(said["commitment"].is_string(), outcome != "host_fault", "{said}");
        let log = text(&run(&args, b"").await.stderr);
        let last = log.lines().last().unwrap();
        assert!(last.starts_with("error: ") && last.contains(line), "{log}");
    }
}

#[tokio::test]
async fn bad_input_is_refused_with_one_line_and_a_word() {
    let desk = Desk::new();
    let echo = desk.file("echo.wasm", tasks::ECHO.wasm);
    let garbage = desk.file("garbage.wasm", "not wasm at all");
    let wat = desk.file("task.wat", WRITER);
    let stranger = wat::parse_str(r#"(module (import "env" "launch" (func)))"#).unwrap();
    let stranger = desk.file("stranger.wasm", stranger);
    let missing = desk.text("missing");
    let model = format!("m={}", desk.file("model.pt", "PK\u{3}\u{4} a pickle"));
    let long = "x".repeat(70_000);
    let file = format!("../up={echo}");
    let twice = format!("a={echo}");
    let cases: [(&[&str], &str, &str); 14] = [
        (&[&missing], "file", "missing: No such file"),
        (&[&desk.text("")], "file", "directory"),
        (&[&garbage], "not_wasm", "garbage.wasm: not a WebAssembly module"),
        (&[&wat], "text", "task.wat: this is WebAssembly text"),
        (&[&stranger], "import_unknown", "import `env.launch` is not offered"),
        (&[&echo, "--stdin", &missing], "file", "missing: No such file"),
        (&[&echo, "--arg", &long], "argument", "length of the arguments in bytes is 70000"),
        (&[&echo, "--in", &file], "argument", "file name `../up` is refused"),
        (&[&echo, "--in", &twice, "--in", &twice], "argument", "file `a` is given twice"),
        (&[&echo, "--model", &model], "model_malformed", "model.pt: not an ONNX model"),
        (&[&echo, "--fuel", "0"], "argument", "limits.fuel_max is 0"),
        (&[&echo, "--memory-max", "5000000000"], "limit_too_large", "over the bound of 4294967296"),
        (&[&echo, "--memory-max", "65536"], "memory_limit", "raise the limit"),
        (&[&echo, "--wall-max", "90000000"], "limit_too_large", "over the bound of 86400000"),
    ];
    for (args, word, line) in cases {
        let output = run(args, b"").await;
        let log = text(&output.stderr);
        assert_eq!((output.status.code(), log.lines().count()), (Some(2), 1), "{word}: {log}");
        assert!(log.starts_with("error: ") && log.contains(line) && output.stdout.is_empty(), "{word}: {log}");
        let (code, said) = json(args, b"").await;
        assert_eq!((code, &said["outcome"], &said["reason"]), (2, &"rejected".into(), &word.into()), "{said}");
        assert!(said["commitment"].is_null() && said["detail"].as_str().unwrap().contains(line), "{said}");
    }
    for args in [&[][..], &[&echo, "--fuel", "-1"], &[&echo, "--env", "x"], &[&echo, "--frobnicate"]] {
        let output = run(args, b"").await;
        assert!(output.status.code() == Some(2) && output.stdout.is_empty(), "{args:?}: {}", text(&output.stderr));
    }
}

/// What the hosts signed about the job's only shard.
async fn signed(cluster: &Cluster, request: &JobRequest) -> Checked {
    let job = cluster.submit(request).await;
    assert_eq!(cluster.ended(job).await.phase, "done");
    let receipts: Vec<ReceiptAnswer> = cluster.client.get(&format!("/v1/jobs/{job}/receipts")).await.unwrap();
    let route = format!("/v1/jobs/{job}/receipts/{}", receipts[0].index);
    let bytes = cluster.client.download(&route).await.unwrap().collect().await.unwrap();
    Record::from_bytes(&bytes).unwrap().check().unwrap()
}

#[tokio::test]
async fn what_run_commits_to_is_what_the_hosts_of_a_grid_sign() {
    let cluster = Cluster::start(EXE, &[Conduct::Honest; 2]).await;
    let desk = Desk::new();
    // The task that prints all that could differ: arguments, variables, files, random bytes, the clock.
    let clock = desk.file("clock.wasm", tasks::CLOCK.wasm);
    let word = format!("word={}", desk.file("word", "quorum"));
    let input = desk.file("input", "some input");
    let request = JobRequest {
        module: cluster.publish(tasks::CLOCK.wasm).await,
        args: vec!["one".into()],
        env: [("COLOUR".to_owned(), "red".to_owned())].into(),
        files: [("word".to_owned(), cluster.publish(&b"quorum"[..]).await.parse().unwrap())].into(),
        input: InputRequest::Text("some input".into()),
        limits: LimitsRequest { fuel_max: Some(1_000_000_000), ..LimitsRequest::default() },
        ..JobRequest::default()
    };
    let args = [
        &[clock.as_str(), "--arg", "one", "--env", "COLOUR=red", "--in", &word],
        &["--stdin", &input, "--fuel", "1000000000"][..],
    ]
    .concat();
    let checked = signed(&cluster, &request).await;
    let (code, said) = json(&args, b"").await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(said["engine_fingerprint"], checked.execution.engine.to_string());
    assert_eq!(said["task"], checked.execution.task.to_string());
    assert_eq!(said["output_hash"], checked.execution.output.to_string());
    assert_eq!(said["fuel_used"], checked.execution.fuel_used);
    assert_eq!(said["commitment"], checked.commitment.to_string());

    // Other limits are another task: other random bytes, another commitment. A job over no input is a task over none.
    let (_, other) = json(&args[..args.len() - 2], b"").await;
    assert_ne!(other["commitment"], said["commitment"]);
    let trap = desk.file("trap.wasm", tasks::TRAP.wasm);
    let request = JobRequest { module: cluster.publish(tasks::TRAP.wasm).await, ..JobRequest::default() };
    let (_, said) = json(&[&trap], b"").await;
    assert_eq!(said["commitment"], signed(&cluster, &request).await.commitment.to_string());

    // Inferences are committed to as well.
    let digits = desk.file("digits.wasm", tasks::DIGITS.wasm);
    let model = format!("digits={}", desk.file("digits.onnx", tasks::data::DIGITS_MODEL));
    let pixels: Vec<u8> =
        tasks::data::DIGITS_PIXELS.split_inclusive(|byte| *byte == b'\n').take(20).flatten().copied().collect();
    let request = JobRequest {
        module: cluster.publish(tasks::DIGITS.wasm).await,
        models: Some([("digits".to_owned(), cluster.publish(tasks::data::DIGITS_MODEL).await.parse().unwrap())].into()),
        input: InputRequest::Inline(pixels.clone().into()),
        ..JobRequest::default()
    };
    let checked = signed(&cluster, &request).await;
    let (_, said) = json(&[&digits, "--model", &model, "--stdin", "-"], &pixels).await;
    assert!(checked.execution.nn_root.is_some(), "nothing was inferred");
    assert_eq!(said["commitment"], checked.commitment.to_string());
}
