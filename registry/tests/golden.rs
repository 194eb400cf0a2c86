//! The bytes of everything that is hashed or signed, written down. When one of these fails, ids and signatures made
//! before would not hold any more: give the changed type a new domain version instead of changing the bytes here.

use std::collections::BTreeMap;

use registry::{
    audit::{Secret, draw},
    canon,
    device::{Device, DeviceAsk, DeviceKind},
    id::{
        BlobHash, EngineFingerprint, JobId, ManifestHash, ModelHash, ModuleHash, NodeId, OperatorId, ReceiptId,
        StateRoot, TaskId,
    },
    job::{Class, JobInput, JobSpec, Limits, Policy, Profile, Reduce, ShardInfo, Split, Stage, task_id},
    log::{
        history::{self, HistoryHead},
        job, link,
    },
    manifest::{
        Lint, LintCondition, LintDifference, LintRun, LintSubject, Manifest, ModelEncoding, ModelManifest, TaskManifest,
    },
    membership::{NodeCert, Ticket},
    name::NameStatement,
    price::PriceTable,
    receipt::{Execution, Outcome, Output, OutputFile, Receipt, Trap},
    reputation::{Availability, Cause, Change, Standing, StandingRules, Work},
    segment::{Global, MemoryState, PAGE_BYTES, SegmentRecord, Snapshot, State, Stream, chained, memory_root},
    sign::{Batch, Head, SecretKey, Signed, Tip},
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key() -> SecretKey {
    SecretKey::from_bytes(&[1; 32])
}

fn job() -> JobSpec {
    JobSpec {
        args: vec!["--fast".into()],
        env: BTreeMap::from([("LANG".into(), "C".into())]),
        files: BTreeMap::from([("table.csv".into(), BlobHash([2; 32]))]),
        models: BTreeMap::from([("digits".into(), ModelHash([3; 32]))]),
        input: JobInput::Inline(b"a\nb\n".to_vec().into()),
        split: Split::Records { bytes: 10, delimiter: b'\n' },
        reduce: Reduce::Task,
        policy: Policy::Quorum(3),
        ..JobSpec::new(ModuleHash([1; 32]), 7)
    }
}

fn execution() -> Execution {
    Execution {
        task: TaskId([4; 32]),
        module: ModuleHash([1; 32]),
        class: Class::Exact,
        engine: EngineFingerprint([5; 32]),
        outcome: Outcome::Trap(Trap::Unreachable),
        fuel_used: 1_000_000,
        output: BlobHash([6; 32]),
        nn_root: Some(BlobHash([7; 32])),
        segment_root: None,
    }
}

fn receipt() -> Receipt {
    Receipt {
        job: JobId([8; 32]),
        shard: ShardInfo { stage: Stage::Map, index: 3, count: 36 },
        execution: execution(),
        device: None,
        node: NodeId(key().public()),
        operator: OperatorId([9; 32]),
        nonce: 42,
        price_micro: 0,
        nn_record: None,
        segment_record: None,
    }
}

fn prices() -> PriceTable {
    PriceTable {
        giga_fuel_micro: 1_000,
        gib_second_micro: 500,
        mib_out_micro: 20,
        model_second_micro: BTreeMap::from([(DeviceKind::Gpu, 9_000), (DeviceKind::Cpu, 100)]),
    }
}

#[test]
fn short_values_byte_for_byte() {
    let shard = ShardInfo { stage: Stage::Reduce, index: 0, count: 1 };
    assert_eq!(hex(&canon::encode(&shard)), "a36573746167656672656475636565696e6465780065636f756e7401");
    assert_eq!(hex(&canon::encode(&Outcome::Exit(3))), "a1646578697403");
    assert_eq!(hex(&canon::encode(&Outcome::Ok)), "626f6b");
    let lint = Lint {
        runs: vec![LintRun { condition: LintCondition::UsedMemory, engine: EngineFingerprint([1; 32]) }],
        difference: Some(LintDifference { condition: LintCondition::Busy, subject: LintSubject::Stdout }),
    };
    assert_eq!(
        hex(&canon::encode(&lint)),
        [
            "a2",
            "6472756e73",
            "81a269636f6e646974696f6e6b757365645f6d656d6f727966656e67696e655820",
            &"01".repeat(32),
            "6a646966666572656e6365",
            "a269636f6e646974696f6e6462757379677375626a656374667374646f7574",
        ]
        .concat()
    );
    // What jobs take unless they ask takes no byte.
    let native = JobSpec::new(ModuleHash([1; 32]), 7);
    let portable = JobSpec { profile: Profile::Portable, ..native.clone() };
    let said = hex(&canon::encode(&"profile")) + &hex(&canon::encode(&"portable"));
    assert!(!hex(&canon::encode(&native)).contains(&said) && hex(&canon::encode(&portable)).contains(&said));
    assert_eq!(canon::encode(&portable).len(), canon::encode(&native).len() + said.len() / 2);
    let gpu = JobSpec { device: DeviceAsk::Gpu, device_memory_bytes_min: 1 << 33, ..native.clone() };
    let said = hex(&canon::encode(&"device")) + &hex(&canon::encode(&"gpu"));
    let memory = hex(&canon::encode(&"device_memory_bytes_min")) + "1b0000000200000000";
    for bytes in [canon::encode(&gpu), canon::encode(&gpu.template())] {
        assert!(hex(&bytes).contains(&said) && hex(&bytes).contains(&memory));
    }
    assert!(!hex(&canon::encode(&native)).contains(&hex(&canon::encode(&"device"))));
    assert_eq!(canon::encode(&gpu).len(), canon::encode(&native).len() + (said.len() + memory.len()) / 2);
    let device = Device { kind: DeviceKind::Gpu, provider: "cuda".into(), name: "NVIDIA H200".into() };
    let spoken = "a3646b696e64636770756870726f76696465726463756461646e616d656b4e56494449412048323030";
    assert_eq!(hex(&canon::encode(&device)), spoken);
    let named = Receipt { device: Some(device.clone()), ..receipt() };
    let added = 1 + "device".len() + canon::encode(&device).len();
    assert_eq!(canon::encode(&named).len(), canon::encode(&receipt()).len() + added);
    let spoken = [
        "a46f676967615f6675656c5f6d6963726f1903e8706769625f7365636f6e645f6d6963726f1901f46d6d69625f6f75745f6d6963726f14",
        "726d6f64656c5f7365636f6e645f6d6963726fa263637075186463677075192328",
    ];
    assert_eq!(hex(&canon::encode(&prices())), spoken.concat());
    let cert = NodeCert { node: NodeId([1; 32]), issued_ms: 5 };
    assert_eq!(hex(&canon::encode(&cert)), format!("a2646e6f64655820{}696973737565645f6d7305", "01".repeat(32)));
}

fn state() -> State {
    State {
        module: ModuleHash([1; 32]),
        task: TaskId([2; 32]),
        engine: EngineFingerprint([3; 32]),
        index: 0,
        before: chained([]),
        fuel_used: 4,
        slept_ns: 5,
        random_bytes: 6,
        memory: MemoryState { pages: 1, root: memory_root(&[7; PAGE_BYTES]), refused: false },
        globals: vec![Global::I32(1), Global::I64(2), Global::F32(3), Global::F64(4)],
        stdin_bytes: 8,
        stdout: Stream::of(b"a"),
        log: Stream::of(b""),
    }
}

fn states() -> SegmentRecord {
    SegmentRecord { states: (1..=3).map(|state| StateRoot([state; 32])).collect() }
}

#[test]
fn hashes_of_longer_values() {
    let manifest = Manifest::Task(TaskManifest {
        description: "a task".into(),
        module: ModuleHash([1; 32]),
        module_bytes: 10,
        models: BTreeMap::from([(
            "digits".into(),
            ModelManifest {
                model: ModelHash([3; 32]),
                model_bytes: 20,
                encoding: ModelEncoding::Onnx,
                tolerance: None,
            },
        )]),
        class: Class::Exact,
        limits: Limits::default(),
        sample: None,
        lint: None,
    });
    let output = Output {
        stdout: BlobHash([1; 32]),
        stdout_bytes: 5,
        files: vec![OutputFile { path: "a/b".into(), hash: BlobHash([2; 32]), bytes: 6 }],
    };
    let shard = ShardInfo { stage: Stage::Map, index: 3, count: 36 };
    let found = [
        ("job", hex(job().id().as_bytes())),
        ("template", hex(job().template().hash().as_bytes())),
        ("task", hex(task_id(job().template().hash(), shard, BlobHash([1; 32])).as_bytes())),
        ("manifest", hex(manifest.hash().as_bytes())),
        ("output", hex(output.hash().as_bytes())),
        ("commitment", hex(execution().commitment().as_bytes())),
        ("receipt", hex(receipt().id().as_bytes())),
        ("price table", hex(prices().id().as_bytes())),
        ("memory", hex(memory_root(&[7; 3 * PAGE_BYTES]).as_bytes())),
        ("state", hex(state().root().as_bytes())),
        ("chain", hex(chained(&states().states).as_bytes())),
        ("segments", hex(states().root().unwrap().as_bytes())),
        ("snapshot", hex(BlobHash::of(&Snapshot::encode(&state(), &[], &[7; PAGE_BYTES], b"a", b"")).as_bytes())),
    ];
    let golden = [
        ("job", "efbf25c32beb1aa8a47c3d69b57673aee864082a0a10d50844e771cd071a3d12"),
        ("template", "0075c882a1483a258d172b84f4297380663d366ca0aa67703d3293bd50b33866"),
        ("task", "ccf998676095cd1d5c4b38bdf6da95de7035428d289eea509297813bd9fd842a"),
        ("manifest", "e104f6cdb94d673b9db1d34f8b3205c303dcf6d6e7961d2cb0bbc76f7d2c69e1"),
        ("output", "a5a4b7ffdbf1ed3b2b63a6258275ae48d6641b4770f3ce63868f225be8b94baa"),
        ("commitment", "c9f9715d911839d14c9e6bbf9657823131f3eca39d8e823c2e6b95d2c9c90621"),
        ("receipt", "9b46b89d28bd1b578d8f11844ecf9b94fedcdee6e3dcafad10976642dcba897a"),
        ("price table", "d122c8fa371cca4b2b6f08db2a17b38cb6d12006a20ef7e1f899189b3474eb94"),
        ("memory", "b954f6737892ee3ced00d5116dc93030239a969021092be76d60b5381d764e8f"),
        ("state", "bb321a47394689dc9bfbcc4e1703a8ee4a2ac136075141b4cee59d31ac611e2e"),
        ("chain", "196249a8c00700808ee24fcacb6410931cf1c63970d22e377b85233033a81562"),
        ("segments", "ebef45205bbc25f2bfb80325dc1d7124c18da93bab2a9c0b572d5ecbfbd9288a"),
        ("snapshot", "14bbe62eedf61d2fe1349c7b67a8ba0536dfe3f652ed980e3d8b0fc45b94f1ac"),
    ];
    assert_eq!(found, golden.map(|(what, hash)| (what, hash.to_owned())));
}

#[test]
fn signatures() {
    let name = NameStatement::Publish { name: "alice/digits@1".parse().unwrap(), manifest: ManifestHash([1; 32]) };
    let found = [
        hex(blake3::hash(&canon::encode(&Signed::seal(&receipt(), &key()))).as_bytes()),
        hex(blake3::hash(&canon::encode(&Signed::seal(&name, &key()))).as_bytes()),
    ];
    assert_eq!(
        found,
        [
            "45348a04f65c58105ce1a232adf4a852aed2aeeae821de31caf00c6a293986b3",
            "bd17d0376305f69f14d2e3d7db74167bfc17c5c862ed0a5e10f71ba9f54d1b84"
        ]
    );
}

#[test]
fn batches_and_logs() {
    let receipts = [41, 42, 43].map(|nonce| Receipt { nonce, ..receipt() });
    let (batch, tip) = Batch::seal(&receipts, Tip::START, &key()).unwrap();
    let head: Head = batch.head.peek().unwrap();
    let key = hex(&key().public());
    let spoken = [
        "a5646e6f64655820",
        &key,
        "637365710064707265765820",
        &"00".repeat(32),
        "64726f6f745820",
        &head.root.to_string(),
        "65636f756e7403",
    ];
    assert_eq!(hex(&canon::encode(&head)), spoken.concat());
    let hash = |bytes: &[u8]| hex(blake3::hash(bytes).as_bytes());
    let found = [
        ("head", tip.last.to_string()),
        ("root", head.root.to_string()),
        ("batch", hash(&canon::encode(&batch))),
        ("statement of a batch", hash(&canon::encode(&batch.signed().unwrap()[2]))),
        ("link", link(JobId([8; 32]), 3, job::START, b"record").to_string()),
    ];
    let golden = [
        ("head", "aa51a1019c9d0b832d37ed8fa3f55f8a6142149a4b285bd036e78a0015d4d2ba"),
        ("root", "30ce5a47d723b0a88dd516e738dc51676e6b4449d8ef188f1f583b08ce612eb7"),
        ("batch", "d0ca6b229c420a131909a341ba2d50d231b007d1660b12b745b96b618ac4681a"),
        ("statement of a batch", "c1dd19698af0196f1cdb26ec7041e70fa4fc1845bc9600401b2a367af24c6999"),
        ("link", "48fd22b5ab5826d03f4abc0b2aed387f7b86a654847d054cb645130bab8b1660"),
    ];
    assert_eq!(found, golden.map(|(what, hash)| (what, hash.to_owned())));
}

#[test]
fn histories() {
    let rules =
        StandingRules { half_life_ms: 7_776_000_000, newcomer_micro: 2_000_000_000, free_task_micro: 1_000_000 };
    let work = Work { job: JobId([8; 32]), shard: receipt().shard, task: TaskId([4; 32]) };
    let after = Standing { checked_micro: 5_000_000, at_ms: 7, confirmed: 5 };
    let node = NodeId([7; 32]);
    let causes = [
        Cause::Found { class: Class::Exact, standing: after, rules, qualified: true },
        Cause::Confirmed {
            class: Class::Tolerant,
            work,
            receipt: Some(ReceiptId([2; 32])),
            worth_micro: 1_000_000,
            rules,
            after,
        },
        Cause::Refuted { work, receipt: ReceiptId([2; 32]), against: Some(ReceiptId([3; 32])) },
        Cause::Expelled { job: JobId([8; 32]), shard: receipt().shard, node },
        Cause::Vouched,
        Cause::Released { rules },
        Cause::Faulted { node, so_far: Availability { given: 9, faults: 2 } },
    ];
    let vouched = Change { at_ms: 7, cause: Cause::Vouched };
    assert_eq!(hex(&canon::encode(&vouched)), "a26561745f6d730765636175736567766f7563686564");
    let changes: Vec<Vec<u8>> = causes.iter().map(|cause| canon::encode(&Change { at_ms: 7, cause: *cause })).collect();
    let operator = OperatorId([9; 32]);
    let link = history::link(operator, 3, job::START, &changes[1]);
    let entry = history::Entry { seq: 3, prev: job::START, change: Change { at_ms: 7, cause: causes[1] } };
    let head = HistoryHead {
        coordinator: NodeId(key().public()),
        operator,
        entries: 4,
        link,
        at_ms: 8,
        rules,
        available: Availability { given: 9, faults: 2 },
    };
    let hash = |bytes: &[u8]| hex(blake3::hash(bytes).as_bytes());
    let found = [
        ("changes", hash(&changes.concat())),
        ("link", link.to_string()),
        ("entry", hash(&canon::encode(&entry))),
        ("signed head", hash(&canon::encode(&Signed::seal(&head, &key())))),
    ];
    let golden = [
        ("changes", "df03c392c9258f49aacd8016cdea318a7e1524686233554cf4a9442c7c10a13a"),
        ("link", "de3c91c913b4d60c9f353c3501d716d86c4a9e3be5a9f05cd89563ff0e035ee4"),
        ("entry", "c88bfcbaa15aafa6382f9393795cdcdea60c886e6fdbe08fa6e18c51a0576f80"),
        ("signed head", "00b060282a086cdbe25b3a19b2fd96b511438c66f3dd67aded716f8caf177458"),
    ];
    assert_eq!(found, golden.map(|(what, hash)| (what, hash.to_owned())));
}

#[test]
fn a_ticket_as_people_pass_it_on() {
    let ticket = Ticket { coordinator: NodeId([1; 32]), addrs: vec!["127.0.0.1:4433".parse().unwrap()], expires_ms: 9 };
    assert_eq!(
        ticket.to_string(),
        "quorate1unvwg33pojsgs3tborxxewbaaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeawkylemrzhhalogezdolrqfyyc4mj2gq2dgm3kmv4ha2lsmvzv63ltbe"
    );
}

#[test]
fn draws_byte_for_byte() {
    let secret = Secret::from_bytes([1; 32]);
    assert_eq!(secret.hash().to_string(), "07e34dd7d5bc5301a613b5269b4146c7107bf3e7023c913c51558129cdf36db7");
    let draw = draw(&secret, ReceiptId([2; 32]), JobId([3; 32]));
    assert_eq!(draw.auditor().to_string(), "a41be650f75e9787dea7c91e06b10ed10c884059420ce3e9de7e5a0852abf352");
    // Where the draw lies among a million.
    let rates = (0..=1_000_000).collect::<Vec<u32>>();
    assert_eq!(rates.partition_point(|rate| !draw.audits(*rate)), 777666);
}
