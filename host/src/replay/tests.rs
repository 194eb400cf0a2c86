//! Records made here, replayed here: what was signed is the test's to choose.

use registry::{
    id::{ModuleHash, OperatorId},
    job::{JobInput, JobSpec, Split, Stage, TaskKey},
    membership::NodeCert,
    preimage::Preimage,
    receipt::{Accepted, Evidence, Outcome, Receipt, Witness},
    sign::{SecretKey, Signed},
};

use super::*;
use crate::sandbox::{CpuClass, SandboxOptions};

/// A job of two lines for the echo, of which the second is signed for, and a folder with what it is made of.
struct Desk {
    _dir: tempfile::TempDir,
    folder: Folder,
    spec: JobSpec,
    shard: ShardInfo,
    truth: Execution,
}

impl Desk {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().join(CONTENT_DIR));
        let module = ModuleHash::of(tasks::ECHO.wasm);
        let spec = JobSpec {
            input: JobInput::Inline(b"one\ntwo\n".to_vec().into()),
            split: Split::Lines(1),
            ..JobSpec::new(module, 1)
        };
        folder.put(&spec).unwrap();
        folder.put_blob(tasks::ECHO.wasm).unwrap();
        let shard = ShardInfo { stage: Stage::Map, index: 1, count: 2 };
        let key = TaskKey { template: spec.template().hash(), shard, input: BlobHash::of(b"two\n") };
        let output = registry::receipt::Output { stdout: key.input, stdout_bytes: 4, files: Vec::new() };
        folder.put(&output).unwrap();
        let truth = Execution {
            task: TaskId(key.name()),
            module,
            class: spec.class,
            engine: Sandbox::description_of(&task::alone()).unwrap().fingerprint(),
            outcome: Outcome::Ok,
            fuel_used: 0,
            output: output.hash(),
            nn_root: None,
            segment_root: None,
        };
        let mut desk = Self { _dir: dir, folder, spec, shard, truth };
        // What the fuel is, a first replay says: everything else is known beforehand.
        let first = desk.replay(&desk.accepted(&desk.truth)).await.unwrap();
        match first.difference {
            Some(Difference::Fuel { signed: 0, found }) => desk.truth.fuel_used = found,
            other => panic!("{other:?}"),
        }
        desk
    }

    fn witness(&self, host: u8, execution: &Execution) -> Witness {
        let (node, operator) = (SecretKey::from_bytes(&[host; 32]), SecretKey::from_bytes(&[host + 100; 32]));
        let receipt = Receipt {
            job: self.spec.id(),
            shard: self.shard,
            execution: execution.clone(),
            device: None,
            node: NodeId(node.public()),
            operator: OperatorId(operator.public()),
            nonce: 9,
            price_micro: 0,
            nn_record: None,
            segment_record: None,
        };
        let cert = NodeCert { node: NodeId(node.public()), issued_ms: 0 };
        Witness { receipt: Signed::seal(&receipt, &node), cert: Signed::seal(&cert, &operator) }
    }

    fn quorum(&self, execution: &Execution) -> Accepted {
        Accepted { quorum: 2, witnesses: vec![self.witness(1, execution), self.witness(2, execution)], drawn: None }
    }

    fn accepted(&self, execution: &Execution) -> Record {
        Record::Accepted(self.quorum(execution))
    }

    fn evidence(&self, accepted: &Execution, accused: &Execution) -> Record {
        let accused = self.witness(3, accused);
        Record::Evidence(Evidence { accepted: self.quorum(accepted), accused })
    }

    async fn play(&self, record: &Record, any_engine: bool) -> Result<Replayed, ReplayError> {
        let mut player = Player::new(Sources::open(&[]).await.unwrap(), any_engine, None);
        player.look_into(self.folder.clone());
        player.replay(record).await
    }

    async fn replay(&self, record: &Record) -> Result<Replayed, ReplayError> {
        self.play(record, false).await
    }

    /// The first difference of an accepted record.
    async fn difference(&self, execution: &Execution) -> String {
        let replayed = self.replay(&self.accepted(execution)).await.unwrap();
        assert_eq!(replayed.verdict, Verdict::Different);
        replayed.difference.unwrap().to_string()
    }

    fn remove(&self, name: [u8; 32]) {
        std::fs::remove_file(self.folder.path(name)).unwrap();
    }
}

#[tokio::test]
async fn what_was_signed_comes_out_again_from_the_job_alone() {
    let desk = Desk::new().await;
    let replayed = desk.replay(&desk.accepted(&desk.truth)).await.unwrap();
    assert_eq!((replayed.verdict, replayed.difference), (Verdict::Equal, None));
    assert_eq!(replayed.ran_on, Some(desk.truth.engine));
}

#[tokio::test]
async fn an_input_is_the_one_that_the_job_says_or_the_task_names() {
    let mut desk = Desk::new().await;
    let hash = BlobHash::of(b"two\n");
    let whole = b"one\ntwo\n";
    let inputs = [
        (JobInput::Inline(whole.to_vec().into()), Split::Lines(1)),
        (JobInput::Blobs(vec![BlobHash::of(b"one\n"), hash]), Split::Each),
        (JobInput::Blob(BlobHash::of(whole)), Split::Lines(1)),
    ];
    for (input, split) in inputs {
        let cut = matches!(input, JobInput::Blob(_));
        desk.spec = JobSpec { input, split, ..desk.spec.clone() };
        desk.folder.put(&desk.spec).unwrap();
        let key = TaskKey { template: desk.spec.template().hash(), shard: desk.shard, input: hash };
        assert_eq!(desk.truth.task, TaskId(key.name()), "a task's id names no job");
        let record = desk.accepted(&desk.truth);
        if cut {
            // Cut again from the whole, or named by the task's own bytes.
            let refused = desk.replay(&record).await.unwrap_err().to_string();
            assert!(refused.starts_with("input of task "), "{refused}");
            desk.folder.put_blob(whole).unwrap();
            assert_eq!(desk.replay(&record).await.unwrap().verdict, Verdict::Equal);
            desk.remove(BlobHash::of(whole).0);
            desk.folder.put(&key).unwrap();
        }
        desk.folder.put_blob(b"two\n").unwrap();
        assert_eq!(desk.replay(&record).await.unwrap().verdict, Verdict::Equal);
        desk.remove(hash.0);
    }
    // Another shard's input than the job's is another task, whatever was put into the folder.
    desk.spec = JobSpec { input: JobInput::None, split: Split::Each, ..desk.spec.clone() };
    desk.folder.put(&desk.spec).unwrap();
    desk.folder.put_blob(b"two\n").unwrap();
    let replayed = desk.replay(&desk.accepted(&desk.truth)).await.unwrap();
    assert!(matches!(replayed.difference, Some(Difference::Task { .. })), "{:?}", replayed.difference);
}

#[tokio::test]
async fn the_first_difference_is_named_and_located() {
    let desk = Desk::new().await;
    let said = desk.difference(&Execution { outcome: Outcome::Exit(3), fuel_used: 1, ..desk.truth.clone() }).await;
    assert_eq!(said, "outcome: signed exit(3), found ok");
    let said = desk.difference(&Execution { fuel_used: 1, ..desk.truth.clone() }).await;
    assert_eq!(said, format!("fuel: signed 1, found {}", desk.truth.fuel_used));
    let lie = registry::receipt::Output { stdout: BlobHash::of(b"twX\n"), stdout_bytes: 4, files: Vec::new() };
    let lied = Execution { output: lie.hash(), ..desk.truth.clone() };
    assert!(desk.difference(&lied).await.starts_with("output: signed "));
    desk.folder.put(&lie).unwrap();
    assert!(desk.difference(&lied).await.starts_with("output: standard output: signed "));
    desk.folder.put_blob(b"twX\n").unwrap();
    let said = desk.difference(&lied).await;
    assert_eq!(said, r#"output: standard output from byte 2 on: signed "twX\n", found "two\n""#);
    let said = desk.difference(&Execution { nn_root: Some(BlobHash([1; 32])), ..desk.truth.clone() }).await;
    assert_eq!(said, "inferences: signed root 0101010101, found none");
}

#[tokio::test]
async fn a_task_that_the_job_does_not_have_is_a_difference_before_anything_runs() {
    let desk = Desk::new().await;
    let replayed =
        desk.replay(&desk.accepted(&Execution { task: TaskId([7; 32]), ..desk.truth.clone() })).await.unwrap();
    assert_eq!((replayed.verdict, replayed.ran_on), (Verdict::Different, None));
    assert!(matches!(replayed.difference, Some(Difference::Task { .. })), "{:?}", replayed.difference);
    let said = desk.difference(&Execution { module: ModuleHash([7; 32]), ..desk.truth.clone() }).await;
    assert!(said.starts_with("module: signed 0707070707, but the job has"), "{said}");
}

#[tokio::test]
async fn evidence_is_held_against_both_sides() {
    let desk = Desk::new().await;
    let lie = Execution { output: BlobHash([1; 32]), ..desk.truth.clone() };
    let replayed = desk.replay(&desk.evidence(&desk.truth, &lie)).await.unwrap();
    let accused = replayed.accused.unwrap();
    assert_eq!(replayed.verdict, Verdict::Equal);
    assert_eq!(accused.node, NodeId(SecretKey::from_bytes(&[3; 32]).public()));
    assert!(matches!(accused.difference, Some(Difference::Output { .. })));

    let replayed = desk.replay(&desk.evidence(&lie, &desk.truth)).await.unwrap();
    assert_eq!(replayed.verdict, Verdict::AccusedRight);
    assert_eq!(replayed.accused.unwrap().difference, None);

    let other = Execution { fuel_used: 1, ..desk.truth.clone() };
    let replayed = desk.replay(&desk.evidence(&lie, &other)).await.unwrap();
    assert_eq!(replayed.verdict, Verdict::Different);
}

#[tokio::test]
async fn another_engine_is_said_and_not_run_unless_wanted() {
    let desk = Desk::new().await;
    let own = Sandbox::description_of(&task::alone()).unwrap();
    let theirs = crate::sandbox::EngineDescription { wasmtime: "1.0.0".into(), ..own };
    let signed = Execution { engine: theirs.fingerprint(), fuel_used: 1, ..desk.truth.clone() };
    let refused = desk.replay(&desk.accepted(&signed)).await.unwrap_err();
    assert!(refused.word() == "engine" && refused.to_string().contains("not at hand"), "{refused}");
    desk.folder.put(&theirs).unwrap();
    let refused = desk.replay(&desk.accepted(&signed)).await.unwrap_err().to_string();
    assert!(refused.contains("wasmtime 1.0.0 there"), "{refused}");
    // Another engine may spend other fuel.
    let replayed = desk.play(&desk.accepted(&signed), true).await.unwrap();
    assert_eq!(replayed.verdict, Verdict::Equal);
    assert!(replayed.engines.unwrap().contains("wasmtime 1.0.0 there"));
    let wrong = Execution { output: BlobHash([1; 32]), ..signed };
    assert_eq!(desk.play(&desk.accepted(&wrong), true).await.unwrap().verdict, Verdict::Different);
}

#[tokio::test]
async fn an_engine_that_this_process_cannot_have_beside_its_own_is_told_to_have_another() {
    let desk = Desk::new().await;
    let class = Some(CpuClass::Generic);
    let generic = Sandbox::description_of(&SandboxOptions { cpu_class: class, ..task::alone() }).unwrap();
    let signed = Execution { engine: generic.fingerprint(), ..desk.truth.clone() };
    let mut player = Player::new(Sources::open(&[]).await.unwrap(), false, None);
    player.look_into(desk.folder.clone());
    player.replay(&desk.accepted(&desk.truth)).await.unwrap();
    let replayed = player.replay(&desk.accepted(&signed)).await;
    if CpuClass::detect() == CpuClass::Generic {
        assert_eq!(replayed.unwrap().verdict, Verdict::Equal);
    } else {
        let refused = replayed.unwrap_err();
        assert!(refused.word() == "sandbox" && refused.to_string().contains("start another process"), "{refused}");
    }
}

#[tokio::test]
async fn content_that_is_missing_or_changed_is_named() {
    let desk = Desk::new().await;
    let record = desk.accepted(&desk.truth);
    let module = desk.folder.path(desk.spec.module.0);
    std::fs::write(&module, tasks::EXIT.wasm).unwrap();
    let refused = desk.replay(&record).await.unwrap_err();
    assert!(refused.word() == "hash" && refused.to_string().contains("module has hash"), "{refused}");
    desk.remove(desk.spec.module.0);
    let refused = desk.replay(&record).await.unwrap_err();
    assert!(refused.word() == "content_missing" && refused.to_string().starts_with("module "), "{refused}");
    desk.remove(desk.spec.id().0);
    let refused = desk.replay(&record).await.unwrap_err();
    assert!(refused.word() == "content_missing" && refused.to_string().starts_with("job "), "{refused}");
}

#[tokio::test]
async fn what_a_replay_keeps_tells_another_where_it_differs() {
    let desk = Desk::new().await;
    let kept = tempfile::tempdir().unwrap();
    let mut player = Player::new(Sources::open(&[]).await.unwrap(), false, Some(kept.path().to_owned()));
    player.look_into(desk.folder.clone());
    player.replay(&desk.accepted(&desk.truth)).await.unwrap();
    let folder = Folder::new(kept.path().to_owned());
    for name in [BlobHash::of(b"two\n").0, desk.truth.output.0, desk.truth.engine.0] {
        assert!(folder.has(name));
    }
}
