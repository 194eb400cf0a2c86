//! What task authors and teams do, by the command line.

use host::client::answers::JobAnswer;
use registry::receipt::Record;
use support::{Cluster, Conduct, cli};

use crate::EXE;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a verb that has to work; gives its standard output.
async fn say(cluster: &Cluster, args: &[&str], stdin: &[u8]) -> String {
    let output = cluster.cli(args, stdin).await;
    assert!(output.status.success(), "quorate {args:?}: {}\n{}", text(&output.stderr), cluster.logs());
    text(&output.stdout)
}

#[tokio::test]
async fn a_program_of_somebody_else_submitted_as_it_is_gives_its_own_output() {
    let cluster = Cluster::start(EXE, &[Conduct::Honest; 2]).await;
    let solver = concat!(env!("CARGO_MANIFEST_DIR"), "/data/boolector.wasm");
    let formula = b"(set-logic QF_BV)(declare-const x (_ BitVec 8))(assert (= (bvmul x x) #x31))\
        (assert (bvult x #x10))(check-sat)(get-value (x))";
    let args = ["submit", solver, "--input", "-", "--arg=--smt2", "--arg=-m"];
    let output = cluster.cli(&args, formula).await;
    // Solvers say `sat` with exit code 10, and a task that exits with anything but 0 is not `ok`.
    let (said, log) = (text(&output.stdout), text(&output.stderr));
    assert!(said.starts_with("sat\n") && said.contains("#b00000111"), "{said}\n{log}");
    assert!(output.status.code() == Some(1) && log.contains("exit(10)"), "{log}");
}

#[tokio::test]
async fn from_push_to_receipts_by_name() {
    let cluster = Cluster::start(EXE, &[Conduct::Honest; 2]).await;
    let wasm = cluster.scratch("digits.wasm");
    let model = cluster.scratch("digits.onnx");
    let pixels = cluster.scratch("pixels.csv");
    std::fs::write(&wasm, tasks::DIGITS.wasm).unwrap();
    std::fs::write(&model, tasks::data::DIGITS_MODEL).unwrap();
    std::fs::write(&pixels, tasks::data::DIGITS_PIXELS).unwrap();
    let (wasm, pixels) = (wasm.to_string_lossy(), pixels.to_string_lossy());
    let model = format!("digits={}", model.to_string_lossy());
    let sample = cluster.scratch("sample.csv");
    let first = tasks::data::DIGITS_PIXELS.split_inclusive(|byte| *byte == b'\n').next().unwrap();
    std::fs::write(&sample, first).unwrap();
    let sample = sample.to_string_lossy();
    let args = ["push", &wasm, "--name", "alice/digits@1", "--model", &model, "--sample", &sample];
    let pushed = say(&cluster, &args, b"").await;
    let verdict = "equal under plain, used_memory, unoptimised, process, busy";
    assert!(pushed.contains(verdict), "{pushed}");
    let shown = say(&cluster, &["names", "alice/digits@1"], b"").await;
    assert!(shown.contains(verdict) && shown.contains("digits"), "{shown}");
    let said = say(&cluster, &["submit", "alice/digits@1", "--input", &pixels, "--split", "lines=300"], b"").await;
    assert_eq!(said.as_bytes(), crate::digits::truth());

    let jobs = say(&cluster, &["jobs", "--json"], b"").await;
    let jobs: Vec<JobAnswer> = serde_json::from_str(&jobs).unwrap();
    let id = jobs[0].id.to_string();
    assert_eq!(say(&cluster, &["results", &id], b"").await, said);
    let nodes = say(&cluster, &["nodes"], b"").await;
    assert!(nodes.lines().count() >= 3, "{nodes}");
    let why = say(&cluster, &["why", &id, "--shard", "1"], b"").await;
    assert!(why.contains("accepted: its quorum of 2 agrees"), "{why}");

    let receipts = cluster.scratch("receipts");
    say(&cluster, &["receipt", "get", &id, "--out", &receipts.to_string_lossy()], b"").await;
    let files: Vec<_> = std::fs::read_dir(&receipts).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 6, "{files:?}");
    let verified = cli(EXE, None, &["receipt", "verify", &receipts.to_string_lossy()], b"").await;
    assert!(verified.status.success(), "{}", text(&verified.stderr));
    let mut bytes = std::fs::read(&files[0]).unwrap();
    Record::from_bytes(&bytes).unwrap().check().unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&files[0], &bytes).unwrap();
    let forged = cli(EXE, None, &["receipt", "verify", &files[0].to_string_lossy()], b"").await;
    assert_eq!(forged.status.code(), Some(1), "a forged receipt passes");
}

#[tokio::test]
async fn a_yanked_version_takes_no_new_jobs_and_its_number_is_gone_for_good() {
    let cluster = Cluster::start(EXE, &[Conduct::Honest; 2]).await;
    let wasm = cluster.scratch("echo.wasm");
    std::fs::write(&wasm, tasks::ECHO.wasm).unwrap();
    let wasm = wasm.to_string_lossy();
    say(&cluster, &["push", &wasm, "--name", "alice/echo@1"], b"").await;
    let shown = say(&cluster, &["names", "alice/echo@1", "--json"], b"").await;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let runs = shown["task"]["lint"]["runs"].as_array().unwrap();
    assert!(shown["task"]["lint"]["difference"].is_null() && runs.len() >= 5, "{shown}");
    assert_eq!(say(&cluster, &["submit", "alice/echo@1", "--inline", "hello"], b"").await, "hello");
    say(&cluster, &["yank", "alice/echo@1", "--reason", "repeats everything"], b"").await;
    let refused = cluster.cli(&["submit", "alice/echo@1", "--inline", "hello"], b"").await;
    assert!(
        !refused.status.success() && text(&refused.stderr).contains("repeats everything"),
        "{}",
        text(&refused.stderr)
    );
    let names = say(&cluster, &["names"], b"").await;
    assert!(names.contains("alice/echo@1") && names.contains("repeats everything"), "{names}");
}

#[tokio::test]
async fn a_module_that_fails_tells_its_submitter_how() {
    let cluster = Cluster::start(EXE, &[Conduct::Honest; 2]).await;
    let wasm = cluster.scratch("exit.wasm");
    std::fs::write(&wasm, tasks::EXIT.wasm).unwrap();
    let output = cluster.cli(&["submit", &wasm.to_string_lossy(), "--arg", "3"], b"").await;
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains('3'), "{:?}: {said}", output.status);
}

#[tokio::test]
async fn every_verb_has_help_and_every_shell_its_completions() {
    for verb in
        ["up", "node", "run", "push", "submit", "jobs", "job", "results", "receipt", "nodes", "why", "cancel", "demo"]
    {
        let output = cli(EXE, None, &[verb, "--help"], b"").await;
        assert!(output.status.success() && text(&output.stdout).contains("Usage"), "{verb}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let output = cli(EXE, None, &["completions", shell], b"").await;
        assert!(output.status.success() && output.stdout.len() > 1000, "{shell}");
    }
}
