//! Stories about logs: whole ones say what is in them, and each way to tamper with one has a name.

use proptest::prelude::*;

use super::*;
use crate::{
    audit::Secret,
    canon,
    id::{BlobHash, EngineFingerprint, JobId, LinkId, ModuleHash, NodeId, OperatorId, TaskId},
    job::{Class, Policy, ShardInfo, Stage},
    membership::NodeCert,
    receipt::{Accepted, Execution, Outcome, Receipt, Record, Witness},
    sign::{Batch, Head, SecretKey, Signed, Statement, Tip},
};

const SHARDS: u32 = 6;

fn key(host: u8) -> SecretKey {
    SecretKey::from_bytes(&[host; 32])
}

fn receipt(host: u8, shard: u32) -> Receipt {
    let execution = Execution {
        task: TaskId([3; 32]),
        module: ModuleHash::of(b"module"),
        class: Class::Exact,
        engine: EngineFingerprint([4; 32]),
        outcome: Outcome::Ok,
        fuel_used: 1000,
        output: BlobHash::of(&shard.to_be_bytes()),
        nn_root: None,
        segment_root: None,
    };
    Receipt {
        job: JobId([1; 32]),
        shard: ShardInfo { stage: Stage::Map, index: shard, count: SHARDS },
        execution,
        device: None,
        node: NodeId(key(host).public()),
        operator: OperatorId(key(host + 100).public()),
        nonce: shard.into(),
        price_micro: 0,
        nn_record: None,
        segment_record: None,
    }
}

/// A host's batches, of one receipt, of two, and so on.
fn batches(host: u8, count: u32) -> Vec<Batch<Receipt>> {
    let mut tip = Tip::START;
    let seal = |number: u32| {
        let receipts: Vec<Receipt> = (0..=number).map(|shard| receipt(host, 10 * number + shard)).collect();
        let (batch, next) = Batch::seal(&receipts, tip, &key(host)).unwrap();
        tip = next;
        batch
    };
    (0..count).map(seal).collect()
}

fn host_file(batches: &[Batch<Receipt>]) -> Vec<u8> {
    let mut file = Vec::new();
    batches.iter().for_each(|batch| file::push(&mut file, &canon::encode(batch)));
    file
}

fn host(batches: &[Batch<Receipt>]) -> Result<host::HostSaid, Place> {
    HostLog::check(host_file(batches).as_slice(), &mut Heads::default())
}

fn host_refusal(batches: &[Batch<Receipt>]) -> String {
    host(batches).unwrap_err().to_string()
}

/// A job's records, each of one host's receipt, all of them signed as one batch.
fn entries() -> Vec<Entry> {
    let receipts: Vec<Receipt> = (0..SHARDS).map(|shard| receipt(1, shard)).collect();
    let (batch, _) = Batch::seal(&receipts, Tip::START, &key(1)).unwrap();
    chained(batch.signed().unwrap().into_iter().map(record).collect())
}

fn record(receipt: Signed<Receipt>) -> Record {
    let cert = NodeCert { node: NodeId(key(1).public()), issued_ms: 0 };
    let witness = Witness { receipt, cert: Signed::seal(&cert, &key(101)) };
    Record::Accepted(Accepted { quorum: 1, witnesses: vec![witness], drawn: None })
}

fn chained(records: Vec<Record>) -> Vec<Entry> {
    let mut prev = job::START;
    let entry = |(seq, record): (u64, Record)| {
        let entry = Entry { seq, prev, record };
        prev = link(JobId([1; 32]), seq, prev, &entry.record.to_bytes());
        entry
    };
    (0..).zip(records).map(entry).collect()
}

fn check_job(file: &[u8]) -> Result<job::JobSaid, Place> {
    JobLog::check(file.strip_prefix(Kind::Job.line()).unwrap(), &mut Heads::default())
}

fn job_refusal(entries: &[Entry]) -> String {
    check_job(&job_file(1, entries)).unwrap_err().to_string()
}

/// The file of these entries, signed as the log of job `job`.
fn job_file(job: u8, entries: &[Entry]) -> Vec<u8> {
    job::file(JobId([job; 32]), entries, &key(50), |entries, link| job_head(job, entries, link))
}

fn job_head(job: u8, entries: u64, link: LinkId) -> JobHead {
    JobHead {
        coordinator: NodeId(key(50).public()),
        job: JobId([job; 32]),
        entries,
        link,
        at_ms: 5,
        policy: Policy::Audit,
        secret_hash: Secret::from_bytes([3; 32]).hash(),
        secret: Some(Secret::from_bytes([3; 32])),
    }
}

/// The end of a file, as one item.
fn end(item: &job::Item) -> Vec<u8> {
    let mut end = Vec::new();
    file::push(&mut end, &canon::encode(item));
    end
}

fn signed_end(head: &JobHead, signer: u8) -> Vec<u8> {
    end(&job::Item::Signed(Box::new(Signed::seal(head, &key(signer)))))
}

#[test]
fn a_hosts_log_says_who_signed_how_much_and_may_begin_late() {
    let batches = batches(1, 5);
    let said = host(&batches).unwrap();
    let head = batches[4].head.peek().unwrap().id();
    let node = NodeId(key(1).public());
    assert_eq!(said, host::HostSaid { node, first: 0, last: 4, head, receipts: 15 });
    let late = host(&batches[2..]).unwrap();
    assert_eq!((late.first, late.last, late.receipts), (2, 4, 12));
    assert!(host_refusal(&[]).contains("entry 0: log has no entries"));
}

#[test]
fn each_way_to_tamper_with_a_hosts_log_has_a_name() {
    let whole = batches(1, 5);
    let gap = [&whole[..2], &whole[3..]].concat();
    assert!(host_refusal(&gap).contains("entry 2: log has a gap: number 2 is missing"), "{}", host_refusal(&gap));
    let mut reordered = whole.clone();
    reordered.swap(2, 3);
    assert!(host_refusal(&reordered).contains("entry 2: log is reordered: number 3 stands where 2 belongs"));
    let backwards: Vec<_> = whole[3..].iter().chain(&whole[..3]).cloned().collect();
    assert!(host_refusal(&backwards).contains("log is reordered: number 0 stands where 5 belongs"));
    let replayed = [&whole[..3], &whole[1..2], &whole[3..]].concat();
    assert!(host_refusal(&replayed).contains("entry 3: number 1 is repeated: a replayed entry"));
    let foreign = [&whole[..2], &batches(2, 3)[2..], &whole[2..]].concat();
    assert!(host_refusal(&foreign).contains("entry 2: head is of node"), "{}", host_refusal(&foreign));

    let file = host_file(&whole);
    for cut in [1, 3, 100, file.len() / 2] {
        let error = HostLog::check(&file[..file.len() - cut], &mut Heads::default()).unwrap_err();
        assert!(error.to_string().contains("log is truncated"), "{error}");
    }
    let long = [&u32::MAX.to_be_bytes()[..], &file].concat();
    let error = HostLog::check(long.as_slice(), &mut Heads::default()).unwrap_err();
    assert!(error.to_string().contains("over the bound"), "{error}");
}

#[test]
fn two_heads_of_one_number_are_evidence_wherever_they_come_from() {
    let whole = batches(1, 3);
    let tip = whole[0].head.peek().unwrap().tip();
    let (other, _) = Batch::seal(&[receipt(1, 99)], tip, &key(1)).unwrap();
    let twice = [&whole[..2], std::slice::from_ref(&other)].concat();
    assert!(host_refusal(&twice).contains("entry 2: equivocation: node"), "{}", host_refusal(&twice));

    // In a record, beside a log that was checked before.
    let mut heads = Heads::default();
    HostLog::check(host_file(&whole).as_slice(), &mut heads).unwrap();
    let record = record(other.signed().unwrap().remove(0));
    assert!(record.check().is_ok());
    let error = record.check_by(&mut heads).unwrap_err();
    assert!(error.to_string().contains("signed two heads with number 1"), "{error}");
    // What it is refused by is evidence for anybody, and reads back.
    let crate::receipt::RecordError::Conflict(conflict) = error else { panic!("{error}") };
    let conflict: Conflict = canon::decode(&canon::encode(&*conflict), 2000).unwrap();
    let node = NodeId(key(1).public());
    assert_eq!(conflict.check().unwrap(), Some(heads::Contradiction::Equivocation { node, seq: 1 }));
    let harmless = Conflict { one: conflict.one.clone(), other: conflict.one };
    assert_eq!(harmless.check().unwrap(), None);
}

#[test]
fn a_head_that_follows_another_than_was_signed_is_a_fork() {
    let whole = batches(1, 3);
    let elsewhere = Tip { heads: 2, ..Tip::START };
    let (fork, _) = Batch::seal(&[receipt(1, 99)], elsewhere, &key(1)).unwrap();
    let forked = [&whole[..2], &[fork]].concat();
    assert!(host_refusal(&forked).contains("entry 2: fork: node"), "{}", host_refusal(&forked));
    // The other way round: the later one was seen first.
    let mut heads = Heads::new(10);
    heads.believe(&forked[2].head).unwrap();
    let error = heads.believe(&whole[1].head).unwrap_err();
    assert!(error.to_string().contains("fork"), "{error}");
}

#[test]
fn a_known_head_is_not_taken_for_another_signature() {
    let mut heads = Heads::new(10);
    let [batch, other] = [1, 2].map(|host| batches(host, 1).remove(0));
    heads.believe(&batch.head).unwrap();
    let mut forged = serde_json::to_value(&batch.head).unwrap();
    forged["signature"] = serde_json::to_value(&other.head).unwrap()["signature"].take();
    let forged: Signed<Head> = serde_json::from_value(forged).unwrap();
    assert!(heads.believe(&forged).unwrap_err().to_string().contains("signature over quorate/head/1"));
}

#[test]
fn heads_are_remembered_up_to_their_bound() {
    let whole = batches(1, 5);
    let mut heads = Heads::new(2);
    whole.iter().for_each(|batch| heads.believe(&batch.head).unwrap());
    let (other, _) = Batch::seal(&[receipt(1, 99)], Tip::START, &key(1)).unwrap();
    // Long forgotten; it is signed, and that is all that can be said.
    heads.believe(&other.head).unwrap();
}

#[test]
fn receipts_of_others_are_not_signed_for() {
    let (foreign, _) = Batch::seal(&[receipt(1, 0), receipt(2, 1)], Tip::START, &key(1)).unwrap();
    assert!(host_refusal(&[foreign]).contains("receipt of node"));
    // As a record, it is signed by another machine than it names.
    let (foreign, _) = Batch::seal(&[receipt(2, 1)], Tip::START, &key(1)).unwrap();
    let record = record(foreign.signed().unwrap().remove(0));
    assert!(record.check().unwrap_err().to_string().contains("but another key signed it"));
}

#[test]
fn a_jobs_log_says_what_was_kept_and_where_it_ends() {
    let entries = entries();
    let file = job_file(1, &entries);
    let said = check_job(&file).unwrap();
    let last = entries.last().unwrap();
    let head = link(JobId([1; 32]), last.seq, last.prev, &last.record.to_bytes());
    let (job, signed) = (JobId([1; 32]), Some(job_head(1, 6, head)));
    let expected = job::JobSaid { job, records: 6, evidence: 0, inconclusive: 0, accepted: 6, shards: 6, head, signed };
    assert_eq!(said, expected);
    let most = JobHead { entries: u64::MAX, at_ms: u64::MAX, policy: Policy::Quorum(u8::MAX), ..job_head(1, 6, head) };
    assert!(canon::encode(&most).len() <= JobHead::BYTES_MAX);
    // As files end that are older than signed ends.
    let bare = &file[..file.len() - signed_end(&job_head(1, 6, head), 50).len()];
    let older = [bare, &end(&job::Item::End { entries: 6, head })].concat();
    assert_eq!(check_job(&older).unwrap(), job::JobSaid { signed: None, ..expected });
    assert!(job_refusal(&[]).contains("log has no entries"));
}

#[test]
fn each_way_to_tamper_with_a_jobs_log_has_a_name() {
    let whole = entries();
    let records: Vec<Record> = whole.iter().map(|entry| entry.record.clone()).collect();
    let refused = |entries: &[Entry], reason: &str| {
        let refusal = job_refusal(entries);
        assert!(refusal.contains(reason), "{refusal:?} is not {reason:?}");
    };
    refused(&[&whole[..2], &whole[3..]].concat(), "entry 2: log has a gap: number 2 is missing");
    let mut reordered = whole.clone();
    reordered.swap(2, 3);
    refused(&reordered, "entry 2: log is reordered: number 3 stands where 2 belongs");
    refused(&[&whole[..3], &whole[1..2], &whole[3..]].concat(), "entry 3: number 1 is repeated");
    let twice = chained([&records[..3], &records[1..2]].concat());
    refused(&twice, "entry 3: record is repeated: it is that of entry 1 again");
    let mut exchanged = whole.clone();
    exchanged[2].record = records[5].clone();
    refused(&exchanged, "entry 3: entry is chained to");
    refused(&whole[1..], "log has a gap: number 0 is missing");

    let file = job_file(1, &whole);
    let refusal = |file: &[u8]| check_job(file).unwrap_err().to_string();
    assert!(refusal(&file[..file.len() - 1]).contains("entry 6: log is truncated"));
    let end_bytes = signed_end(&job_head(1, 6, job::START), 50).len();
    let (bare, its_end) = file.split_at(file.len() - end_bytes);
    assert!(refusal(bare).contains("entry 6: log is truncated"));
    let short = job_file(1, &whole[..5]);
    let cut = [&short[..short.len() - end_bytes], its_end].concat();
    assert!(refusal(&cut).contains("entry 5: log is truncated"));
    let more = [&file[..], its_end].concat();
    assert!(refusal(&more).contains("log goes on after its end"));
    let other_job = job_file(2, &whole);
    assert!(refusal(&other_job).contains("entry is chained to"), "{}", refusal(&other_job));

    let head = check_job(&file).unwrap().head;
    let ends = |head: &JobHead, signer: u8| refusal(&[bare, &signed_end(head, signer)].concat());
    assert!(ends(&job_head(2, 6, head), 50).contains("entry 6: head is of job 0202"));
    assert!(ends(&job_head(1, 6, head), 51).contains("entry 6: head names coordinator"));
    assert!(ends(&job_head(1, 5, head), 50).contains("entry is chained to"));
    assert!(ends(&job_head(1, 7, head), 50).contains("log is truncated"));
    let mut forged = file.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert!(refusal(&forged).contains("signature over quorate/job-log-head/1"), "{}", refusal(&forged));
}

#[test]
fn records_of_another_job_or_cut_are_refused() {
    let sealed = |receipt: &Receipt| record(Signed::seal(receipt, &key(1)));
    let other_job = Receipt { job: JobId([2; 32]), ..receipt(1, 1) };
    let refusal = job_refusal(&chained(vec![sealed(&receipt(1, 0)), sealed(&other_job)]));
    assert!(refusal.contains("entry 1: record is of job 0202"), "{refusal}");
    let shard = ShardInfo { count: SHARDS + 1, ..receipt(1, 1).shard };
    let refusal = job_refusal(&chained(vec![sealed(&receipt(1, 0)), sealed(&Receipt { shard, ..receipt(1, 1) })]));
    assert!(refusal.contains("of another cut"), "{refusal}");
}

#[test]
fn files_say_which_log_they_hold() {
    assert_eq!(Kind::of(&job_file(1, &entries())), Some(Kind::Job));
    assert_eq!(Kind::of(Kind::Host.line()), Some(Kind::Host));
    assert_eq!(Kind::of(&entries()[0].record.to_bytes()), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_changed_byte_of_a_log_is_noticed(at in any::<prop::sample::Index>(), change in 1u8..) {
        let file = host_file(&batches(1, 3));
        let mut changed = file.clone();
        changed[at.index(file.len())] ^= change;
        prop_assert!(HostLog::check(changed.as_slice(), &mut Heads::default()).is_err());
        let file = job_file(1, &entries());
        let mut changed = file.clone();
        let line = Kind::Job.line().len();
        changed[line + at.index(file.len() - line)] ^= change;
        prop_assert!(check_job(&changed).is_err());
    }

    #[test]
    fn what_is_left_of_a_chain_holds_only_if_it_is_one_piece(keep in proptest::collection::vec(any::<bool>(), 6)) {
        let whole = batches(1, 6);
        let kept: Vec<_> = whole.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(batch, _)| batch.clone()).collect();
        let pieces = keep.split(|keep| !keep).filter(|piece| !piece.is_empty()).count();
        prop_assert_eq!(host(&kept).is_ok(), pieces == 1);
    }
}
