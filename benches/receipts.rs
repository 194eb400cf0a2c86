//! How many receipts a second does a host sign and a coordinator check, one by one and by the batch?
//!
//! The same receipts are signed each for itself, and in batches of 1 to 1024 with one signature each; and checked each for
//! itself, and with each head checked once. Interleaved; medians of the thread's processor time. What a receipt takes in bytes says what the
//! path to the root costs on the wire and on disk.
#![allow(clippy::print_stdout, reason = "a bench prints its table")]

use std::{error::Error, hint::black_box, time::Duration};

use benches::{interleaved, quantile, row, stock::thread_time, table};
use registry::{
    canon,
    id::{BlobHash, EngineFingerprint, JobId, ModuleHash, NodeId, OperatorId, TaskId},
    job::{Class, ShardInfo, Stage},
    log::Heads,
    receipt::{Execution, Outcome, Receipt},
    sign::{Batch, SecretKey, SignatureError, Signed, Tip},
};

const ROUNDS: usize = 15;
/// Receipts of one run.
const RECEIPTS: usize = 1024;
const BATCHES: [usize; 5] = [1, 16, 64, 256, 1024];

fn receipt(nonce: u64, key: &SecretKey) -> Receipt {
    let execution = Execution {
        task: TaskId(canon::hash("bench", &nonce)),
        module: ModuleHash([1; 32]),
        class: Class::Exact,
        engine: EngineFingerprint([2; 32]),
        outcome: Outcome::Ok,
        fuel_used: 1_000_000 + nonce,
        output: BlobHash(canon::hash("bench", &nonce)),
        nn_root: Some(BlobHash([3; 32])),
        segment_root: None,
    };
    Receipt {
        job: JobId([4; 32]),
        shard: ShardInfo { stage: Stage::Map, index: nonce as u32, count: RECEIPTS as u32 },
        execution,
        device: None,
        node: NodeId(key.public()),
        operator: OperatorId([5; 32]),
        nonce,
        price_micro: 0,
        nn_record: None,
        segment_record: None,
    }
}

fn singly(receipts: &[Receipt], key: &SecretKey) -> Vec<Signed<Receipt>> {
    receipts.iter().map(|receipt| Signed::seal(receipt, key)).collect()
}

fn in_batches(receipts: &[Receipt], size: usize, key: &SecretKey) -> Result<Vec<Signed<Receipt>>, SignatureError> {
    let (mut tip, mut all) = (Tip::START, Vec::with_capacity(receipts.len()));
    for chunk in receipts.chunks(size) {
        let (batch, next) = Batch::seal(chunk, tip, key)?;
        all.extend(batch.signed()?);
        tip = next;
    }
    Ok(all)
}

/// Checks all, each head once.
fn open(signed: &[Signed<Receipt>]) -> bool {
    let mut heads = Heads::new(RECEIPTS);
    signed.iter().all(|signed| black_box(signed.open_by(|head| heads.believe(head))).is_ok())
}

fn timed(mut work: impl FnMut()) -> impl FnMut() -> Duration {
    move || {
        let before = thread_time();
        work();
        thread_time().saturating_sub(before)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let key = SecretKey::from_bytes(&[7; 32]);
    let receipts: Vec<Receipt> = (0..RECEIPTS as u64).map(|nonce| receipt(nonce, &key)).collect();
    let mut signed = vec![singly(&receipts, &key)];
    for size in BATCHES {
        signed.push(in_batches(&receipts, size, &key)?);
    }
    assert!(signed.iter().all(|signed| open(signed)), "what was signed is believed");

    let sign = |size: usize| {
        timed({
            let (receipts, key) = (&receipts, &key);
            move || drop(black_box(in_batches(receipts, size, key)))
        })
    };
    let check = |index: usize| {
        timed({
            let signed = &signed[index];
            move || {
                black_box(open(signed));
            }
        })
    };
    let mut sign_singly = timed(|| drop(black_box(singly(&receipts, &key))));
    let [mut s1, mut s16, mut s64, mut s256, mut s1024] = BATCHES.map(sign);
    let [mut c, mut c1, mut c16, mut c64, mut c256, mut c1024] = [0, 1, 2, 3, 4, 5].map(check);
    let times = interleaved(
        ROUNDS,
        [
            &mut sign_singly,
            &mut s1,
            &mut s16,
            &mut s64,
            &mut s256,
            &mut s1024,
            &mut c,
            &mut c1,
            &mut c16,
            &mut c64,
            &mut c256,
            &mut c1024,
        ],
    );
    let rates = times.map(|times| RECEIPTS as f64 / quantile(&times, 500).as_secs_f64());
    let (signs, checks) = rates.split_at(1 + BATCHES.len());

    println!("{RECEIPTS} receipts a run, median of {ROUNDS}, interleaved, one thread\n");
    let mut rows = vec![row!["signed", "signed/s", "x singly", "checked/s", "x singly", "bytes each"]];
    let names = std::iter::once("singly".to_owned()).chain(BATCHES.map(|size| format!("in batches of {size}")));
    for (index, name) in names.enumerate() {
        let bytes: usize = signed[index].iter().map(|signed| canon::encode(signed).len()).sum();
        rows.push(row![
            name,
            format!("{:.0}", signs[index]),
            format!("{:.2}", signs[index] / signs[0]),
            format!("{:.0}", checks[index]),
            format!("{:.2}", checks[index] / checks[0]),
            (bytes / RECEIPTS).to_string()
        ]);
    }
    table(&rows);
    Ok(())
}
