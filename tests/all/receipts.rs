//! Logs over real processes: a job's and its hosts', checked from their files alone; what is tampered with is refused by name.

use std::path::Path;

use host::{gateway::wire::JobRequest, launch::Process};
use registry::{
    audit::Secret,
    canon,
    id::NodeId,
    log::{Entry, JobHead, Kind, file, job},
    receipt::Receipt,
    sign::{Batch, SecretKey, Signed},
};
use support::{Cluster, Conduct};

use crate::{EXE, digits};

/// Batches that tampering needs, and jobs that may be run until there are as many.
const BATCHES: usize = 3;
const MORE_JOBS_MAX: u64 = 50;

async fn say(args: &[&str]) -> (Option<i32>, String) {
    let output = support::cli(EXE, None, args, b"").await;
    let (said, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), format!("{said}{log}"))
}

async fn holds(file: &Path, what: &str) {
    let (code, said) = say(&["receipt", "verify", file.to_str().unwrap()]).await;
    assert!(code == Some(0) && said.contains(what), "{said}");
}

async fn is_refused(file: &Path, content: &[u8], reason: &str) {
    std::fs::write(file, content).unwrap();
    let (code, said) = say(&["receipt", "verify", file.to_str().unwrap()]).await;
    assert!(code == Some(1) && said.contains("BAD ") && said.contains(reason), "{said:?} is not {reason:?}");
}

/// What a log's file holds.
fn items(content: &[u8], kind: Kind) -> Vec<Vec<u8>> {
    let mut items = file::Items::new(kind, content.strip_prefix(kind.line()).unwrap());
    std::iter::from_fn(|| items.next().unwrap()).collect()
}

fn joined(kind: Kind, items: &[Vec<u8>]) -> Vec<u8> {
    let mut content = kind.line().to_vec();
    items.iter().for_each(|item| file::push(&mut content, item));
    content
}

/// Everything with one part left out, with two parts that changed places, with one part twice, and cut short.
async fn is_refused_in_pieces(file: &Path, kind: Kind, items: &[Vec<u8>]) {
    let (one, two) = (1, 2);
    let gap = [&items[..one], &items[two..]].concat();
    is_refused(file, &joined(kind, &gap), "entry 1: log has a gap: number 1 is missing").await;
    let mut swapped = items.to_vec();
    swapped.swap(one, two);
    is_refused(file, &joined(kind, &swapped), "entry 1: log is reordered: number 2 stands where 1 belongs").await;
    let twice = [&items[..two], &items[one..]].concat();
    is_refused(file, &joined(kind, &twice), "entry 2: number 1 is repeated").await;
    let whole = joined(kind, items);
    is_refused(file, &whole[..whole.len() - 1], "log is truncated").await;
}

#[tokio::test]
async fn logs_of_a_job_and_of_its_hosts_verify_offline_and_tampered_ones_are_refused_by_name() {
    let mut cluster = Cluster::start(EXE, &[Conduct::Liar, Conduct::Honest, Conduct::Honest, Conduct::Honest]).await;
    let id = digits::submit(&cluster, 50).await;
    assert_eq!(cluster.result(id).await, digits::truth());
    let jobs_log = cluster.scratch("job.log");
    let (job_file, job) = (jobs_log.to_str().unwrap(), id.to_string());
    let got = cluster.cli(&["receipt", "get", &job, "--log", job_file], b"").await;
    assert!(got.status.success(), "{}", String::from_utf8_lossy(&got.stderr));
    let listed = String::from_utf8(cluster.cli(&["receipt", "list", &job], b"").await.stdout).unwrap();
    let head = listed.trim_end().rsplit(' ').next().unwrap().to_owned();

    let host_dir = cluster.hosts[1].dir().to_owned();
    let (hosts_log, late_log) = (cluster.scratch("host.log"), cluster.scratch("late.log"));
    let export = async |to: &Path| {
        let (dir, to) = (host_dir.to_str().unwrap(), to.to_str().unwrap());
        let (code, said) = say(&["receipt", "export", "--data-dir", dir, "--out", to]).await;
        assert_eq!(code, Some(0), "{said}");
    };
    // While the host runs, and after it was killed.
    export(&hosts_log).await;
    // How many receipts one batch has is for the machine's load to say: more jobs are more batches.
    for nonce in 0..MORE_JOBS_MAX {
        if items(&std::fs::read(&hosts_log).unwrap(), Kind::Host).len() > BATCHES {
            break;
        }
        let request = JobRequest { nonce: Some(nonce), ..digits::request(&cluster, 200).await };
        let more = cluster.submit(&request).await;
        assert_eq!(cluster.result(more).await, digits::truth());
        export(&hosts_log).await;
    }
    cluster.hosts.iter_mut().for_each(Process::kill);
    cluster.kill_coordinator();
    holds(&jobs_log, "shards accepted; signed by coordinator").await;
    holds(&hosts_log, "log of heads 0 to").await;
    export(&late_log).await;
    holds(&late_log, "log of heads 0 to").await;
    let (code, said) = say(&["receipt", "verify", job_file, "--head", &head]).await;
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = say(&["receipt", "verify", job_file, "--head", &"0".repeat(64)]).await;
    assert!(code == Some(1) && said.contains("truncated, or another one"), "{said}");
    let (code, said) = say(&["receipt", "verify", "--json", job_file, hosts_log.to_str().unwrap()]).await;
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!((said[0]["job_log"]["job"].as_str(), said[0]["job_log"]["head"].as_str()), (Some(&*job), Some(&*head)));
    assert!(said[1]["host_log"]["receipts"].as_u64().unwrap() > 0, "{said}");

    let tampered = cluster.scratch("tampered.log");
    let whole = items(&std::fs::read(&jobs_log).unwrap(), Kind::Job);
    is_refused_in_pieces(&tampered, Kind::Job, &whole).await;
    let [one, other] = [1, 2].map(|index: usize| entry(&whole[index]));
    let exchanged = canon::encode(&job::Item::Entry(Box::new(Entry { record: other.record, ..one })));
    let exchanged = [&whole[..1], &[exchanged], &whole[2..]].concat();
    is_refused(&tampered, &joined(Kind::Job, &exchanged), "an entry was exchanged").await;

    let whole = items(&std::fs::read(&hosts_log).unwrap(), Kind::Host);
    assert!(whole.len() > BATCHES, "{} batches", whole.len());
    is_refused_in_pieces(&tampered, Kind::Host, &whole).await;
    let batch: Batch<Receipt> = canon::decode(&whole[1], file::BATCH_BYTES_MAX).unwrap();
    let mut forged = canon::encode(&batch);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let forged = [&whole[..1], &[forged], &whole[2..]].concat();
    is_refused(&tampered, &joined(Kind::Host, &forged), "entry 1: ").await;
}

fn entry(item: &[u8]) -> Entry {
    match job::Item::from_bytes(item).unwrap() {
        job::Item::Entry(entry) => *entry,
        end => panic!("{end:?}"),
    }
}

#[tokio::test]
async fn who_has_a_jobs_log_draws_its_audits_again_with_no_grid_there() {
    let mut cluster = Cluster::start_vouched(EXE, &[Conduct::Honest; 3]).await;
    let submitted = cluster.client.submit(&digits::request(&cluster, 18).await).await.unwrap();
    assert_eq!(cluster.result(submitted.id).await, digits::truth());
    let log = cluster.scratch("job.log");
    let (log, job) = (log.to_str().unwrap(), submitted.id.to_string());
    let got = String::from_utf8(cluster.cli(&["receipt", "get", &job, "--log", log], b"").await.stdout).unwrap();
    assert!(got.contains("quorate job verify --log"), "{got}");
    cluster.hosts.iter_mut().for_each(Process::kill);
    cluster.kill_coordinator();

    let (code, said) = say(&["receipt", "verify", log]).await;
    let coordinator = said.split("signed by coordinator ").nth(1).and_then(|rest| rest.split(' ').next());
    let coordinator = coordinator.unwrap_or_else(|| panic!("{code:?} {said}")).to_owned();
    let (key, told) = (["--coordinator-key", &coordinator], submitted.secret_hash.to_string());
    let pinned = ["job", "verify", "--log", log, key[0], key[1], "--secret-hash", &told];
    let (code, said) = say(&pinned).await;
    assert!(code == Some(0) && said.contains("holds: of 100 results") && said.contains(&coordinator), "{said}");
    assert!(!said.contains("by the log's own word"), "{said}");
    let (code, said) = say(&["job", "verify", &job, "--log", log]).await;
    assert!(code == Some(0) && said.contains("by the log's own word"), "{said}");
    let (code, said) = say(&["receipt", "verify", log, key[0], key[1]]).await;
    assert_eq!(code, Some(0), "{said}");

    let other = SecretKey::from_bytes(&[5; 32]);
    let stranger = NodeId(other.public());
    let named = stranger.to_string();
    for args in [["job", "verify", "--log", log], ["receipt", "verify", "--json", log]] {
        let (code, said) = say(&[&args[..], &["--coordinator-key", &named]].concat()).await;
        assert!(
            code == Some(1) && said.contains("is signed by coordinator") && said.contains("another grid's"),
            "{said}"
        );
    }
    // Somebody else's end, which is signed well: it is theirs, and they have told no secret.
    let whole = items(&std::fs::read(log).unwrap(), Kind::Job);
    let (end, entries) = whole.split_last().unwrap();
    let job::Item::Signed(signed) = job::Item::from_bytes(end).unwrap() else { panic!("the end is not signed") };
    let head = JobHead { coordinator: stranger, secret: None, ..signed.peek().unwrap() };
    let ends = |head: &JobHead, key: &SecretKey| {
        let end = canon::encode(&job::Item::Signed(Box::new(Signed::seal(head, key))));
        joined(Kind::Job, &[entries, &[end]].concat())
    };
    std::fs::write(log, ends(&head, &other)).unwrap();
    let (code, said) = say(&["job", "verify", "--log", log]).await;
    assert!(code == Some(1) && said.contains("had not ended"), "{said}");
    let (code, said) = say(&pinned).await;
    assert!(code == Some(1) && said.contains("is signed by coordinator"), "{said}");
    // Who tells a secret of its own is believed where nothing is pinned, and it is said who that is.
    let secret = Secret::from_bytes([0; 32]);
    let ours = JobHead { secret: Some(secret), secret_hash: secret.hash(), ..head };
    std::fs::write(log, ends(&ours, &other)).unwrap();
    let (code, said) = say(&["job", "verify", "--log", log, "--secret-hash", &told]).await;
    assert!(code == Some(1) && said.contains("not the one that was committed to"), "{said}");
    let verified = support::cli(EXE, None, &["job", "verify", "--log", log, "--json"], b"").await;
    let said: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    let (by, hash) = (said["coordinator"].as_str(), said["secret_hash"].as_str());
    assert_eq!((by, hash), (Some(&*named), Some(&*ours.secret_hash.to_string())), "{said}");
    let (code, said) = say(&["job", "verify", &"0".repeat(64), "--log", log]).await;
    assert!(code == Some(1) && said.contains("is the log of job"), "{said}");
    // And one that says it were the coordinator's.
    let head = signed.peek().unwrap();
    is_refused(Path::new(log), &ends(&head, &other), "head names coordinator").await;
    let lacking = joined(Kind::Job, &[&entries[..entries.len() - 1], std::slice::from_ref(end)].concat());
    is_refused(Path::new(log), &lacking, "log is truncated").await;
}
