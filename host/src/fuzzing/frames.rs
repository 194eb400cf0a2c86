//! What must hold of any bytes that claim to be a canonical value, or frames between a host and its coordinator.
//!
//! Nothing panics. What decodes is the one spelling of its value: no shorter and no longer bytes decode, and it encodes to
//! what it came from. What a stream gives as messages is what was on it.

use std::sync::Arc;

use arbitrary::Unstructured;
use bytes::Bytes;
use futures::FutureExt;
use grid::{
    engines::{EngineOffer, Engines},
    flow::{AssignmentId, Checkpoint, Fault, Found, Offer, Until},
};
use registry::{
    audit::Secret,
    canon,
    device::{Device, DeviceAsk, DeviceKind},
    dispute::End,
    id::{
        BlobHash, EngineFingerprint, JobId, LinkId, ManifestHash, ModelHash, ModuleHash, NodeId, OperatorId, StateRoot,
        TaskId,
    },
    job::{Class, JobInput, JobSpec, Limits, Policy, Profile, ShardInfo, Split, Stage, TaskKey, TaskTemplate},
    log::{
        Conflict, Entry, Heads, History, HostLog, JobHead, JobLog, Kind, Receipts, chain, file,
        history::{self, Expected, HistoryHead},
        job,
    },
    manifest::{
        Lint, LintCondition, LintDifference, LintRun, LintSubject, Manifest, ModelEncoding, ModelManifest, TaskManifest,
    },
    membership::{NodeCert, Ticket},
    name::{Name, NameEntry, NameStatement},
    price::PriceTable,
    receipt::{
        Accepted, Evidence, Execution, Inconclusive, Outcome, Output, OutputFile, Receipt, Record, Trap, Witness,
    },
    reputation::{Availability, Cause, Change, Shown, Standing, StandingRules, Work},
    sign::{Batch, Head, SecretKey, Signed, Statement, Tip},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    limits,
    net::{
        frame,
        wire::{Done, Hello, Message, Order, Refused, Stdin, ToCoordinator, ToHost, VERSION, Welcome},
    },
};

/// One type that bytes may be taken for; tells whether these were.
type Reader = fn(&[u8]) -> Result<bool, String>;

/// Every type that comes through the codec from outside.
const READERS: [(&str, Reader); 29] = [
    ("job", value::<JobSpec>),
    ("template", value::<TaskTemplate>),
    ("task key", value::<TaskKey>),
    ("shard", value::<ShardInfo>),
    ("limits", value::<Limits>),
    ("outcome", value::<Outcome>),
    ("execution", value::<Execution>),
    ("output", value::<Output>),
    ("receipt", value::<Receipt>),
    ("witness", value::<Witness>),
    ("record", record),
    ("lint", value::<Lint>),
    ("manifest", value::<Manifest>),
    ("certificate", value::<NodeCert>),
    ("name entry", value::<NameEntry>),
    ("name statement", value::<NameStatement>),
    ("signed receipt", signed::<Receipt>),
    ("signed certificate", signed::<NodeCert>),
    ("signed name", signed::<NameStatement>),
    ("signed head", signed::<Head>),
    ("batch", batch),
    ("entry of a job's log", entry),
    ("two heads", conflict),
    ("entry of a history", change),
    ("signed head of a history", signed::<HistoryHead>),
    ("signed head of a job's log", signed::<JobHead>),
    ("log", log),
    ("message to a coordinator", message::<ToCoordinator>),
    ("message to a host", message::<ToHost>),
];

/// Takes bytes for each type; tells how many they were.
///
/// # Errors
/// Names the type that breaks a rule.
pub fn canonical(bytes: &[u8]) -> Result<u32, String> {
    let mut found = 0;
    for (what, read) in READERS {
        found += u32::from(read(bytes).map_err(|rule| format!("{what}: {rule}"))?);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        found += u32::from(texts(text)?);
    }
    Ok(found)
}

fn value<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Result<bool, String> {
    decoded::<T>(bytes).map(|value| value.is_some())
}

/// The value, which no neighbour of these bytes is a spelling of too.
fn decoded<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Result<Option<T>, String> {
    let Ok(value) = canon::decode::<T>(bytes, limits::FRAME_BYTES_MAX) else { return Ok(None) };
    if canon::encode(&value) != bytes {
        return Err("decodes, and encodes to other bytes".into());
    }
    if canon::decode::<T>(bytes, bytes.len().saturating_sub(1)).is_ok() {
        return Err("decodes although it is longer than allowed".into());
    }
    let (longer, shorter) = ([bytes, &[0]].concat(), bytes.split_last().map_or(bytes, |(_, rest)| rest));
    for other in [&longer, shorter] {
        if canon::decode::<T>(other, limits::FRAME_BYTES_MAX).is_ok() {
            return Err("decodes, and so does it with a byte more or less".into());
        }
    }
    Ok(Some(value))
}

fn signed<T: Statement>(bytes: &[u8]) -> Result<bool, String> {
    let Some(signed) = decoded::<Signed<T>>(bytes)? else { return Ok(false) };
    if signed.open().is_ok() && signed.peek().is_err() {
        return Err("opens, and cannot be looked at".into());
    }
    Ok(true)
}

fn record(bytes: &[u8]) -> Result<bool, String> {
    let Some(record) = decoded::<Record>(bytes)? else { return Ok(false) };
    // Whether it holds is not the question, that the question is safe is.
    let _ = record.check();
    Ok(true)
}

fn batch(bytes: &[u8]) -> Result<bool, String> {
    let Some(batch) = decoded::<Batch<Receipt>>(bytes)? else { return Ok(false) };
    let opened = batch.open_by(|head| head.open().map(drop));
    let Ok((head, receipts)) = opened else { return Ok(true) };
    let signed = batch.signed().map_err(|error| format!("opens, and has no paths: {error}"))?;
    let alone: Result<Vec<_>, _> = signed.iter().map(|signed| signed.open().map(|(receipt, _)| receipt)).collect();
    match alone {
        Ok(alone) if alone == receipts && receipts.len() == head.count as usize => Ok(true),
        _ => Err("opens, and its statements alone do not".into()),
    }
}

fn entry(bytes: &[u8]) -> Result<bool, String> {
    let Some(item) = decoded::<job::Item>(bytes)? else { return Ok(false) };
    if let job::Item::Entry(entry) = item {
        let _ = JobLog::default().push(&entry, &mut Heads::default());
    }
    Ok(true)
}

fn change(bytes: &[u8]) -> Result<bool, String> {
    let Some(entry) = decoded::<history::Entry>(bytes)? else { return Ok(false) };
    let mut shown = Shown::default();
    let taken = shown.apply(&entry.change).is_ok();
    if !taken && shown != Shown::default() {
        return Err("is refused, and changes something".into());
    }
    Ok(true)
}

fn conflict(bytes: &[u8]) -> Result<bool, String> {
    let Some(conflict) = decoded::<Conflict>(bytes)? else { return Ok(false) };
    let _ = conflict.to_string();
    Ok(true)
}

/// A log says something, or names what is wrong with it; with a byte more it says nothing.
fn log(bytes: &[u8]) -> Result<bool, String> {
    let Some(kind) = Kind::of(bytes) else { return Ok(false) };
    let holds = |bytes: &[u8]| {
        let (items, mut heads) = (&bytes[kind.line().len()..], Heads::default());
        match kind {
            Kind::Host => HostLog::check(items, &mut heads).is_ok(),
            Kind::Job => JobLog::check(items, &mut heads).is_ok(),
            Kind::History => History::check(items, &Expected::default(), Some(&Receipts::default())).is_ok(),
        }
    };
    if holds(bytes) && holds(&[bytes, &[0]].concat()) {
        return Err("holds, and so does it with a byte more".into());
    }
    Ok(true)
}

fn message<M: Message>(bytes: &[u8]) -> Result<bool, String> {
    let form = value::<M>(bytes)?;
    let taken = frame::decode::<M>(bytes, limits::FRAME_BYTES_MAX).is_ok();
    if taken && !form { Err("is taken, and is not canonical".into()) } else { Ok(taken) }
}

/// Names and tickets: what is read is what is shown.
fn texts(text: &str) -> Result<bool, String> {
    if let Ok(name) = text.parse::<Name>() {
        return if name.to_string() == text { Ok(true) } else { Err(format!("name {text:?} is shown as {name}")) };
    }
    if let Ok(ticket) = text.parse::<Ticket>() {
        let same = ticket.to_string().parse::<Ticket>();
        return if same.as_ref() == Ok(&ticket) { Ok(true) } else { Err(format!("ticket {text:?} is not read again")) };
    }
    Ok(false)
}

/// Reads frames from a stream until it ends or breaks, in both directions; tells how many messages were on it.
///
/// # Errors
/// When the messages are not what was on the stream.
pub fn stream(bytes: &[u8]) -> Result<u32, String> {
    Ok(messages::<ToCoordinator>(bytes)? + messages::<ToHost>(bytes)?)
}

fn messages<M: Message>(bytes: &[u8]) -> Result<u32, String> {
    let (mut rest, mut count, mut again) = (bytes, 0, Vec::new());
    loop {
        let read = frame::read::<M>(&mut rest, limits::FRAME_BYTES_MAX).now_or_never();
        match read.ok_or("waits for a stream that is all there")? {
            Ok(Some(message)) => frame::push(&mut again, &message),
            Ok(None) if rest.is_empty() && again == bytes => return Ok(count),
            Ok(None) => return Err("stream ends before its end, or with other messages than were on it".into()),
            Err(_) if bytes.starts_with(&again) => return Ok(count),
            Err(_) => return Err("stream gave other messages than were on it".into()),
        }
        count += 1;
    }
}

/// Bytes that are nearly a value or a stream of frames: one of [`samples`], damaged.
///
/// # Errors
/// When the fuzzer's bytes are too few.
pub fn damaged(u: &mut Unstructured<'_>, samples: &[Vec<u8>]) -> arbitrary::Result<Vec<u8>> {
    let mut bytes = u.choose(samples)?.clone();
    for _ in 0..u.int_in_range(0..=4)? {
        let at = u.choose_index(bytes.len() + 1)?;
        match u.int_in_range(0..=5)? {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, u.arbitrary()?),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 => {
                let other = u.choose(samples)?;
                let from = u.choose_index(other.len() + 1)?;
                let until = (from + u.int_in_range(0..=64)?).min(other.len());
                bytes.splice(at..at, other[from..until].iter().copied());
            }
            4 if at < bytes.len() => bytes[at] = bytes[at].wrapping_add(u.choose(&[1, 0xff, 0x20, 0x80]).copied()?),
            _ if at < bytes.len() => bytes[at] = u.arbitrary()?,
            _ => bytes.push(u.arbitrary()?),
        }
    }
    Ok(bytes)
}

/// Sound values of every type that is read, and sound streams.
pub fn samples() -> Vec<Vec<u8>> {
    let key = SecretKey::from_bytes(&[1; 32]);
    let mut all = registry_samples(&key);
    all.extend(log_samples(&key));
    all.extend(history_samples(&key));
    let (up, down) = messages_samples(&key);
    let framed = |frames: &mut Vec<u8>, message: &dyn Fn(&mut Vec<u8>)| message(frames);
    let mut stream = Vec::new();
    for message in &up {
        all.push(canon::encode(message));
        framed(&mut stream, &|frames| frame::push(frames, message));
    }
    all.push(std::mem::take(&mut stream));
    for message in &down {
        all.push(canon::encode(message));
        framed(&mut stream, &|frames| frame::push(frames, message));
    }
    all.push(stream);
    all
}

fn shard() -> ShardInfo {
    ShardInfo { stage: Stage::Map, index: 3, count: 36 }
}

fn job() -> JobSpec {
    JobSpec {
        args: vec!["--fast".into()],
        env: [("LANG".into(), "C".into())].into(),
        files: [("table.csv".into(), BlobHash([2; 32]))].into(),
        models: [("digits".into(), ModelHash([3; 32]))].into(),
        input: JobInput::Inline(b"a\nb\n".to_vec().into()),
        split: Split::Records { bytes: 10, delimiter: b'\n' },
        policy: Policy::Quorum(3),
        class: Class::Tolerant,
        device: DeviceAsk::Gpu,
        device_memory_bytes_min: 1 << 33,
        ..JobSpec::new(ModuleHash([1; 32]), 7)
    }
}

fn output() -> Output {
    let file = OutputFile { path: "a/b".into(), hash: BlobHash([2; 32]), bytes: 6 };
    Output { stdout: BlobHash([1; 32]), stdout_bytes: 5, files: vec![file] }
}

fn device() -> Device {
    Device { kind: DeviceKind::Gpu, provider: "cuda".into(), name: "NVIDIA H200".into() }
}

fn prices() -> PriceTable {
    let model_second_micro = [(DeviceKind::Cpu, 3), (DeviceKind::Gpu, u64::MAX)].into();
    PriceTable { giga_fuel_micro: 1, gib_second_micro: 1 << 40, mib_out_micro: 0, model_second_micro }
}

fn engines() -> Engines {
    let mut engines = Engines::plain(EngineFingerprint([4; 32]), EngineFingerprint([5; 32]));
    let gpu = EngineOffer::exact(EngineFingerprint([6; 32]), Profile::Native);
    let gpu = EngineOffer { class: Class::Tolerant, device: Some(device()), mflops: 1 << 24, ..gpu };
    engines.0.push(EngineOffer { device_memory_bytes: 1 << 37, ..gpu });
    engines
}

fn receipt(key: &SecretKey, outcome: Outcome) -> Receipt {
    let execution = Execution {
        task: TaskId([4; 32]),
        module: ModuleHash([1; 32]),
        class: Class::Exact,
        engine: EngineFingerprint([5; 32]),
        outcome,
        fuel_used: 1_000_000,
        output: output().hash(),
        nn_root: Some(BlobHash([7; 32])),
        segment_root: None,
    };
    Receipt {
        job: JobId([8; 32]),
        shard: shard(),
        execution,
        device: Some(device()),
        node: NodeId(key.public()),
        operator: OperatorId(key.public()),
        nonce: 42,
        price_micro: 0,
        nn_record: None,
        segment_record: None,
    }
}

fn witness(key: &SecretKey, outcome: Outcome) -> Witness {
    let cert = NodeCert { node: NodeId(key.public()), issued_ms: 5 };
    Witness { receipt: Signed::seal(&receipt(key, outcome), key), cert: Signed::seal(&cert, key) }
}

/// A batch, what its statements are alone, and logs.
fn log_samples(key: &SecretKey) -> Vec<Vec<u8>> {
    let receipts = [Outcome::Ok, Outcome::FuelOut, Outcome::MemoryOut].map(|outcome| receipt(key, outcome));
    let (batch, tip) = Batch::seal(&receipts, Tip::START, key).expect("three are not too many");
    let (next, _) = Batch::seal(&receipts[..1], tip, key).expect("one is not too many");
    let signed = batch.signed().expect("was sealed just now");
    let conflict = Conflict { one: batch.head.clone(), other: next.head.clone() };
    let mut host = Kind::Host.line().to_vec();
    [&batch, &next].iter().for_each(|batch| file::push(&mut host, &canon::encode(batch)));
    let cert = Signed::seal(&NodeCert { node: NodeId(key.public()), issued_ms: 5 }, key);
    let witness = Witness { receipt: signed[0].clone(), cert };
    let record = Record::Accepted(Accepted { quorum: 1, witnesses: vec![witness], drawn: None });
    let entry = Entry { seq: 0, prev: job::START, record };
    vec![
        canon::encode(&signed[2]),
        canon::encode(&batch),
        canon::encode(&batch.head),
        canon::encode(&conflict),
        canon::encode(&job::Item::Entry(Box::new(entry.clone()))),
        canon::encode(&job::Item::End { entries: 1, head: job::START }),
        canon::encode(&Signed::seal(&job_head(key, 1, job::START), key)),
        host,
        job::file(JobId([8; 32]), &[entry], key, |entries, link| job_head(key, entries, link)),
    ]
}

fn job_head(key: &SecretKey, entries: u64, link: LinkId) -> JobHead {
    let (secret, at_ms, policy) = (Secret::from_bytes([7; 32]), 5, Policy::Audit);
    let (coordinator, job, secret_hash) = (NodeId(key.public()), JobId([8; 32]), secret.hash());
    JobHead { coordinator, job, entries, link, at_ms, policy, secret_hash, secret: Some(secret) }
}

/// A history with each kind of entry, its entries and its head alone.
fn history_samples(key: &SecretKey) -> Vec<Vec<u8>> {
    let (operator, node) = (OperatorId([9; 32]), NodeId(key.public()));
    let (class, job) = (Class::Exact, JobId([8; 32]));
    let receipt = receipt(key, Outcome::Ok);
    let work = Work { job, shard: shard(), task: receipt.execution.task };
    let rules = StandingRules { half_life_ms: 1 << 33, newcomer_micro: 2_000_000_000, free_task_micro: 1 };
    let found = Standing { checked_micro: 5_000_000, at_ms: 3, confirmed: 5 };
    let after = found.confirmed(rules, 1_000_000, 7);
    let causes = [
        Cause::Found { class, standing: found, rules, qualified: false },
        Cause::Confirmed { class, work, receipt: None, worth_micro: 1_000_000, rules, after },
        Cause::Vouched,
        Cause::Released { rules },
        Cause::Faulted { node, so_far: Availability { given: 9, faults: 2 } },
        Cause::Refuted { work, receipt: receipt.id(), against: Some(receipt.id()) },
        Cause::Expelled { job, shard: shard(), node },
    ];
    let (mut prev, mut entries) = (chain::START, Vec::new());
    for (seq, cause) in (0..).zip(causes) {
        let entry = history::Entry { seq, prev, change: Change { at_ms: 7, cause } };
        prev = history::link(operator, seq, prev, &canon::encode(&entry.change));
        entries.push(entry);
    }
    let available = Availability { given: 9, faults: 2 };
    let file = |entries: &[history::Entry], link| {
        let entries_len = entries.len() as u64;
        let head = HistoryHead { coordinator: node, operator, entries: entries_len, link, at_ms: 8, rules, available };
        let mut file = history::beginning(&head, key);
        entries.iter().for_each(|entry| history::push(&mut file, entry));
        (canon::encode(&Signed::seal(&head, key)), file)
    };
    // With receipts at hand, an entry that names one which is not there is refused: the short one holds.
    let ((head, whole), (_, short)) = (file(&entries, prev), file(&entries[..1], entries[1].prev));
    entries.iter().map(canon::encode).chain([head, whole, short]).collect()
}

fn registry_samples(key: &SecretKey) -> Vec<Vec<u8>> {
    let model =
        ModelManifest { model: ModelHash([3; 32]), model_bytes: 20, encoding: ModelEncoding::Onnx, tolerance: None };
    let lint = Lint {
        runs: vec![LintRun { condition: LintCondition::UsedMemory, engine: EngineFingerprint([1; 32]) }],
        difference: Some(LintDifference { condition: LintCondition::Busy, subject: LintSubject::Stdout }),
    };
    let manifest = Manifest::Task(TaskManifest {
        description: "a task".into(),
        module: ModuleHash([1; 32]),
        module_bytes: 10,
        models: [("digits".into(), model.clone())].into(),
        class: Class::Exact,
        limits: Limits::default(),
        sample: None,
        lint: Some(lint.clone()),
    });
    let name: Name = "alice/digits@1".parse().expect("is a name");
    let publish = NameStatement::Publish { name: name.clone(), manifest: ManifestHash([1; 32]) };
    let accepted = Accepted { quorum: 1, witnesses: vec![witness(key, Outcome::Ok)], drawn: None };
    let evidence = Evidence { accepted: accepted.clone(), accused: witness(key, Outcome::Trap(Trap::Unreachable)) };
    let signed = [Outcome::Ok, Outcome::FuelOut].map(|outcome| (witness(key, outcome), output()));
    let inconclusive = Inconclusive::of(2, signed);
    let task = TaskKey { template: job().template().hash(), shard: shard(), input: BlobHash([1; 32]) };
    let addrs = vec![([127, 0, 0, 1], 4433).into()];
    let ticket = Ticket { coordinator: NodeId(key.public()), addrs, expires_ms: 9 };
    vec![
        canon::encode(&job()),
        canon::encode(&job().template()),
        canon::encode(&task),
        canon::encode(&shard()),
        canon::encode(&Limits::default()),
        canon::encode(&Outcome::Exit(3)),
        canon::encode(&receipt(key, Outcome::Ok).execution),
        canon::encode(&output()),
        canon::encode(&receipt(key, Outcome::MemoryOut)),
        canon::encode(&witness(key, Outcome::FuelOut)),
        canon::encode(&Record::Accepted(accepted)),
        canon::encode(&Record::Evidence(evidence)),
        canon::encode(&Record::Inconclusive(inconclusive)),
        canon::encode(&lint),
        canon::encode(&manifest),
        canon::encode(&Manifest::Model(model)),
        canon::encode(&NodeCert { node: NodeId([1; 32]), issued_ms: 5 }),
        canon::encode(&NameEntry { manifest: ManifestHash([1; 32]), yanked: Some("wrong".into()) }),
        canon::encode(&publish),
        canon::encode(&Signed::seal(&publish, key)),
        canon::encode(&Signed::seal(&NameStatement::Yank { name: name.clone(), reason: "wrong".into() }, key)),
        canon::encode(&Signed::seal(&receipt(key, Outcome::Ok), key)),
        canon::encode(&Signed::seal(&NodeCert { node: NodeId([1; 32]), issued_ms: 5 }, key)),
        name.to_string().into_bytes(),
        ticket.to_string().into_bytes(),
    ]
}

fn messages_samples(key: &SecretKey) -> (Vec<ToCoordinator>, Vec<ToHost>) {
    let Witness { receipt, cert } = witness(key, Outcome::Ok);
    let offer = Offer { slots: 2, queue_max: 8, memory_bytes_max: 1 << 30, engines: engines(), prices: prices() };
    let holding = vec![AssignmentId(1), AssignmentId(u64::MAX)];
    let stdout = Some(Bytes::from_static(b"out\n"));
    let checkpoint = Checkpoint { index: 3, fuel_used: 70_000, snapshot: BlobHash::of(b"s"), bytes: 65_600 };
    let order = |stdin| Order {
        id: AssignmentId(7),
        job: JobId([1; 32]),
        shard: shard(),
        input: BlobHash::of(b"in"),
        engine: EngineFingerprint([5; 32]),
        stdin,
        from: Some(checkpoint),
        until: Some(Until { state: 4, keeps: true }),
        lease_ms: 30_000,
    };
    let slice = Stdin::Slice { blob: BlobHash::of(b"b"), start: 3, end: 300 };
    let up = vec![
        ToCoordinator::Hello(Box::new(Hello { version: VERSION, cert, offer, holding, agent: "q/1".into() })),
        ToCoordinator::Receipts(vec![Arc::new(Done { receipt, output: output(), stdout, task_us: 12 })]),
        ToCoordinator::Faults(vec![(AssignmentId(9), Fault::new("deadline", "too late"))]),
        ToCoordinator::Checkpoints(vec![(AssignmentId(9), checkpoint)]),
        ToCoordinator::Found(vec![(
            AssignmentId(9),
            Found { end: End::State(StateRoot([8; 32])), checkpoint: Some(checkpoint) },
        )]),
        ToCoordinator::Heartbeat,
    ];
    let down = vec![
        ToHost::Welcome(Welcome { version: VERSION, agent: "q/1".into() }),
        ToHost::Refused(Refused { word: "cert".into(), detail: "no".into(), retry: false }),
        ToHost::Templates(vec![(JobId([1; 32]), Arc::new(job().template()))]),
        ToHost::Assign(vec![order(Stdin::Inline(Bytes::from_static(b"in"))), order(slice)]),
        ToHost::Revoke(vec![AssignmentId(1)]),
        ToHost::Acknowledge(vec![AssignmentId(2), AssignmentId(3)]),
        ToHost::Heartbeat,
    ];
    (up, down)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_a_sample_that_is_read_as_it() {
        let samples = samples();
        for (what, read) in READERS {
            assert!(samples.iter().any(|sample| read(sample).unwrap()), "no sample is a {what}");
        }
        assert!(samples.iter().all(|sample| canonical(sample).unwrap() + stream(sample).unwrap() > 0));
        assert_eq!(samples.iter().map(|sample| stream(sample).unwrap()).max(), Some(7));
    }
}
