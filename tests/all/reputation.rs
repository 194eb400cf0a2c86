//! Histories of operators over real processes: exported, checked with everything stopped, and refused by name when tampered with.

use std::path::{Path, PathBuf};

use host::{
    client::answers::OperatorAnswer,
    launch::{Process, TICKET_FILE},
};
use registry::{
    log::{
        Kind, file,
        history::{Entry, HistoryHead},
    },
    membership::Ticket,
    reputation::Cause,
    sign::{SecretKey, Signed},
};
use serde_json::Value;
use support::{Cluster, Conduct};

use crate::{EXE, digits};

async fn say(args: &[&str]) -> (Option<i32>, String) {
    let output = support::cli(EXE, None, args, b"").await;
    let (said, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), format!("{said}{log}"))
}

/// What a history says that holds.
async fn holds(file: &Path, args: &[&str]) -> Value {
    let verify = ["reputation", "verify", "--json", file.to_str().unwrap()];
    let (code, said) = say(&[&verify[..], args].concat()).await;
    assert_eq!(code, Some(0), "{said}");
    serde_json::from_str::<Value>(&said).unwrap()["said"].clone()
}

async fn is_refused(file: &Path, args: &[&str], reason: &str) {
    let verify = ["reputation", "verify", file.to_str().unwrap()];
    let (code, said) = say(&[&verify[..], args].concat()).await;
    assert!(code == Some(1) && said.contains(reason), "{said:?} is not {reason:?}");
}

async fn operators(cluster: &Cluster) -> Vec<OperatorAnswer> {
    cluster.client.get("/v1/reputation").await.unwrap()
}

async fn export(cluster: &Cluster, operator: &OperatorAnswer, name: &str) -> PathBuf {
    let (file, operator) = (cluster.scratch(name), operator.operator.to_string());
    let output = cluster.cli(&["reputation", "export", &operator, "--out", file.to_str().unwrap()], b"").await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    file
}

/// The signed head, and the entries.
fn items(content: &[u8]) -> Vec<Vec<u8>> {
    let mut items = file::Items::new(Kind::History, content.strip_prefix(Kind::History.line()).unwrap());
    std::iter::from_fn(|| items.next().unwrap()).collect()
}

fn joined(items: &[Vec<u8>]) -> Vec<u8> {
    let mut content = Kind::History.line().to_vec();
    items.iter().for_each(|item| file::push(&mut content, item));
    content
}

fn entry(item: &[u8]) -> Entry {
    registry::canon::decode(item, file::HISTORY_ITEM_BYTES_MAX).unwrap()
}

#[tokio::test]
async fn an_operators_standing_is_computed_again_from_its_signed_history_with_everything_stopped() {
    let mut cluster = Cluster::start(EXE, &[Conduct::Liar, Conduct::Honest, Conduct::Honest, Conduct::Honest]).await;
    let job = digits::submit(&cluster, 50).await;
    assert_eq!(cluster.result(job).await, digits::truth());
    let ticket = std::fs::read_to_string(cluster.data_dir().join(TICKET_FILE)).unwrap();
    let coordinator = ticket.trim().parse::<Ticket>().unwrap().coordinator.to_string();

    let known = operators(&cluster).await;
    let liar = known.iter().find(|operator| operator.suspended.is_some()).expect("the liar is caught");
    let honest = known.iter().find(|operator| !operator.classes.is_empty()).expect("results were checked");
    assert!(liar.classes.is_empty() && liar.entries > 0, "{liar:?}");
    let said = String::from_utf8(cluster.cli(&["reputation"], b"").await.stdout).unwrap();
    assert!(said.contains("expelled") && said.contains(&honest.head.to_string()), "{said}");
    let (liars, honests) = (export(&cluster, liar, "liar.log").await, export(&cluster, honest, "honest.log").await);
    let kept = cluster.scratch("job.log");
    let got = cluster.cli(&["receipt", "get", &job.to_string(), "--log", kept.to_str().unwrap()], b"").await;
    assert!(got.status.success(), "{}", String::from_utf8_lossy(&got.stderr));

    // What was told before a crash is there after it, and goes on.
    cluster.kill_coordinator();
    cluster.restart_coordinator().await;
    cluster.joined(4).await;
    let again = operators(&cluster).await;
    let same = again.iter().find(|operator| operator.operator == honest.operator).unwrap();
    assert_eq!((same.entries, same.head), (honest.entries, honest.head));
    assert_eq!(same.classes[0].standing, honest.classes[0].standing);
    let more = digits::submit(&cluster, 200).await;
    assert_eq!(cluster.result(more).await, digits::truth());
    let later = export(&cluster, honest, "later.log").await;

    cluster.hosts.iter_mut().for_each(Process::kill);
    cluster.kill_coordinator();
    let (head, operator) = (honest.head.to_string(), honest.operator.to_string());
    let pinned = ["--operator", &operator, "--coordinator-key", &coordinator, "--head", &head];
    let said = holds(&honests, &[&pinned[..], &["--receipts", kept.to_str().unwrap()]].concat()).await;
    let standing = &honest.classes[0].standing;
    let computed: registry::reputation::Standing =
        serde_json::from_value(said["shown"]["standings"]["exact"].clone()).unwrap();
    assert_eq!(computed, *standing);
    assert_eq!(said["receipts"].as_u64(), Some(standing.confirmed), "{said}");
    assert_eq!(
        (said["certified"].as_u64(), said["entries"].as_u64()),
        (Some(standing.confirmed), Some(honest.entries))
    );
    let said = holds(&liars, &["--receipts", kept.to_str().unwrap()]).await;
    assert_eq!(
        (said["shown"]["expelled"].as_bool(), said["shown"]["standings"]["exact"].is_null()),
        (Some(true), true)
    );
    assert!(said["refuted"].as_u64() > Some(0), "{said}");
    let said = holds(&later, &pinned).await;
    assert!(said["entries"].as_u64() > Some(honest.entries), "{said}");
    let (_, text) = say(&["reputation", "verify", liars.to_str().unwrap()]).await;
    assert!(text.contains("none: expelled"), "{text}");

    // An older file where a newer head is known; another coordinator, another operator, receipts that are not there.
    let newer = said["link"].as_str().unwrap().to_owned();
    is_refused(&honests, &["--head", &newer], "does not go through head").await;
    is_refused(&honests, &["--coordinator-key", &operator], "it is signed by coordinator").await;
    is_refused(&honests, &["--operator", &coordinator], "history is of operator").await;
    is_refused(&later, &["--receipts", kept.to_str().unwrap()], "is in none of the files given").await;
    is_refused_when_tampered_with(&cluster, &std::fs::read(&honests).unwrap()).await;
}

async fn is_refused_when_tampered_with(cluster: &Cluster, whole: &[u8]) {
    let file = cluster.scratch("tampered.log");
    let refused = async |content: &[u8], reason: &str| {
        std::fs::write(&file, content).unwrap();
        is_refused(&file, &[], reason).await;
    };
    let items = items(whole);
    assert!(items.len() > 5, "{} items", items.len());
    for at in [Kind::History.line().len() + 40, whole.len() / 2, whole.len() - 9] {
        let mut altered = whole.to_vec();
        altered[at] ^= 1;
        refused(&altered, "entry ").await;
    }
    // Items are a head and then the entries: item 2 is entry 1.
    refused(&joined(&[&items[..2], &items[3..]].concat()), "entry 1: log has a gap: number 1 is missing").await;
    let mut swapped = items.clone();
    swapped.swap(2, 3);
    refused(&joined(&swapped), "entry 1: log is reordered: number 2 stands where 1 belongs").await;
    refused(&joined(&[&items[..3], &items[2..]].concat()), "entry 2: number 1 is repeated").await;
    refused(&joined(&items[..items.len() - 1]), "log is truncated").await;
    let mut forged = entry(&items[2]);
    if let Cause::Confirmed { after, .. } = &mut forged.change.cause {
        after.checked_micro += 1_000_000;
    }
    let forged = [&items[..2], &[registry::canon::encode(&forged)], &items[3..]].concat();
    refused(&joined(&forged), "entry 1: numbers do not follow").await;
    // The same head, signed by somebody else.
    let head: Signed<HistoryHead> = registry::canon::decode(&items[0], file::HISTORY_ITEM_BYTES_MAX).unwrap();
    let other = Signed::seal(&head.peek().unwrap(), &SecretKey::from_bytes(&[1; 32]));
    let other = [&[registry::canon::encode(&other)], &items[1..]].concat();
    refused(&joined(&other), "entry 0: head names coordinator").await;
}
