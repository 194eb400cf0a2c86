//! Jobs that somebody pays for, over real processes: caps, bills that anybody computes again, restarts, and what is refused.

use std::{fs, path::Path};

use grid::ledger::Invoice;
use host::{
    client::answers::{HostAnswer, JobAnswer},
    gateway::wire::AccountRow,
};
use registry::{
    credits::Credits,
    id::{JobId, RequesterId},
    job::Policy,
};
use serde_json::Value;
use support::{Cluster, Conduct, cli};

use crate::{EXE, digits};

const ALICE: RequesterId = RequesterId([0xa1; 32]);
/// Shards of the digits at this many lines each.
const LINES: u64 = 60;
const PRICES: &str = "
    [host.prices]
    giga_fuel_micro = 1000000
    mib_out_micro = 10
";

async fn say(cluster: &Cluster, args: &[&str]) -> (Option<i32>, String) {
    // Bills and receipts are verified without a grid.
    let is_offline = matches!(args, ["bill", ..] | ["receipt", "verify", ..]);
    let output = if is_offline { cli(EXE, None, args, b"").await } else { cluster.cli(args, b"").await };
    let (said, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), format!("{said}{log}"))
}

async fn well(cluster: &Cluster, args: &[&str]) -> String {
    let (code, said) = say(cluster, args).await;
    assert_eq!(code, Some(0), "{args:?}: {said}");
    said
}

async fn refused(cluster: &Cluster, args: &[&str], because: &str) {
    let (code, said) = say(cluster, args).await;
    assert!(code != Some(0) && said.contains(because), "{args:?} exits with {code:?}: {said}");
}

/// Three hosts that the owner answers for, and that ask the same.
async fn cluster(scratch: &tempfile::TempDir) -> Cluster {
    let config = scratch.path().join("host.toml");
    fs::write(&config, PRICES).unwrap();
    Cluster::start_vouched_with(EXE, &[Conduct::Honest; 3], &["--config", config.to_str().unwrap()]).await
}

async fn balance(cluster: &Cluster, account: &str) -> i64 {
    let rows: Vec<AccountRow> = cluster.client.get("/v1/ledger").await.unwrap();
    rows.iter().find(|row| row.account == account).map_or(0, |row| row.balance_micro)
}

async fn paid(cluster: &Cluster, cap: &str) -> JobId {
    let mut request = digits::request(cluster, LINES).await;
    request.payer = Some(grid::flow::Payer { requester: ALICE, cap: cap.parse().unwrap() });
    cluster.client.submit(&request).await.unwrap().id
}

#[tokio::test]
async fn a_job_is_paid_from_its_cap_by_verdicts_and_anybody_computes_its_bill_again() {
    let scratch = tempfile::tempdir().unwrap();
    let mut cluster = cluster(&scratch).await;
    let alice = format!("requester:{ALICE}");
    well(&cluster, &["ledger", "deposit", "--account", &alice, "1000"]).await;

    let job = paid(&cluster, "400").await;
    assert_eq!(cluster.result(job).await, digits::truth());
    let view: JobAnswer = cluster.client.job(job).await.unwrap();
    let costs = view.costs.unwrap();
    let sum = |amounts: &[Credits]| amounts.iter().map(|amount| amount.micro()).sum::<u64>();
    assert_eq!((costs.requester, sum(&[costs.spent, costs.held, costs.refunded])), (ALICE, 400_000_000));
    let id = job.to_string();
    let invoice: Invoice = cluster.client.get(&format!("/v1/jobs/{id}/invoice")).await.unwrap();
    invoice.check().unwrap();
    assert!(invoice.lines.len() as u32 >= view.shards && !invoice.total.is_zero(), "{invoice:?}");
    let left = 1_000_000_000 - i64::try_from(invoice.total.micro()).unwrap();
    assert_eq!(balance(&cluster, &alice).await, left);
    let said = well(&cluster, &["why", &id, "--shard", "0"]).await;
    assert!(said.contains("pending"), "{said}");
    assert!(well(&cluster, &["job", &id]).await.contains("of a cap of 400"));

    // The bill, from files alone; and each thing that somebody might change in it.
    let (bill, receipts) = (scratch.path().join("bill.json"), scratch.path().join("receipts"));
    let (bill_path, receipts_path) = (bill.to_str().unwrap(), receipts.to_str().unwrap());
    well(&cluster, &["ledger", "invoice", &id, "--out", bill_path]).await;
    well(&cluster, &["receipt", "get", &id, "--content", "--out", receipts_path]).await;
    let said = well(&cluster, &["bill", "verify", bill_path, receipts_path]).await;
    assert!(said.contains("each computed from its receipt"), "{said}");
    tampered(&cluster, &bill, receipts_path).await;

    // All of it is on disk.
    let before: Vec<AccountRow> = cluster.client.get("/v1/ledger").await.unwrap();
    cluster.kill_coordinator();
    cluster.restart_coordinator().await;
    assert_eq!(cluster.client.get::<Vec<AccountRow>>("/v1/ledger").await.unwrap(), before);
    let sum: i64 = before.iter().map(|row| row.balance_micro).sum();
    assert_eq!(sum, 0, "{before:?}");
    let said = well(&cluster, &["ledger", "statement", &alice]).await;
    assert!(said.contains("deposited") && said.contains("escrowed") && said.contains("refunded"), "{said}");
    let said = well(&cluster, &["ledger", "statement", &alice, "--format", "csv"]).await;
    assert!(said.starts_with("posting,at_ms,cause"), "{said}");
    let said = well(&cluster, &["ledger", "invoice", &id, "--format", "csv"]).await;
    assert_eq!(said.lines().count(), invoice.lines.len() + 1);
}

/// Makes something else of a bill.
type Change<'a> = &'a dyn Fn(&mut Value);

async fn tampered(cluster: &Cluster, bill: &Path, receipts: &str) {
    let honest: Value = serde_json::from_slice(&fs::read(bill).unwrap()).unwrap();
    let forged = bill.with_extension("forged");
    let dearer = |bill: &mut Value| bill["lines"][0]["usage"]["fuel"] = 9_000_000_000_u64.into();
    let total = |bill: &mut Value| bill["total"] = 7.into();
    let other = |bill: &mut Value| bill["lines"][0]["receipt"] = "00".repeat(32).into();
    let table = |bill: &mut Value| {
        let prices = bill["prices"].as_object_mut().unwrap();
        prices.values_mut().for_each(|table| table["giga_fuel_micro"] = 2_000_000.into());
    };
    let changes: [(Change<'_>, &str); 4] = [
        (&dearer, "and its usage costs"),
        (&total, "and its lines are"),
        (&other, "no record has receipt 0000"),
        (&table, "invoice has no prices"),
    ];
    for (change, because) in changes {
        let mut bill = honest.clone();
        change(&mut bill);
        fs::write(&forged, bill.to_string()).unwrap();
        refused(cluster, &["bill", "verify", forged.to_str().unwrap(), receipts], because).await;
    }
    refused(
        cluster,
        &["bill", "verify", bill.to_str().unwrap(), bill.parent().unwrap().join("none").to_str().unwrap()],
        "none",
    )
    .await;
}

#[tokio::test]
async fn what_is_not_there_is_not_spent_and_a_quote_says_what_would_be() {
    let scratch = tempfile::tempdir().unwrap();
    let cluster = cluster(&scratch).await;
    let alice = format!("requester:{ALICE}");
    refused(&cluster, &["ledger", "deposit", "--account", &alice, "0"], "nothing is deposited").await;
    refused(&cluster, &["ledger", "deposit", "--account", &alice, "-1"], "").await;
    refused(&cluster, &["ledger", "deposit", "--account", &alice, "1000000000001"], "bound").await;
    refused(&cluster, &["ledger", "deposit", "--account", "mint", "1"], "expected requester or operator").await;
    refused(&cluster, &["ledger", "withdraw", "--account", &alice, "1"], "0 credits").await;
    refused(&cluster, &["ledger", "statement", "escrow:1"], "is no account").await;
    well(&cluster, &["ledger", "deposit", "--account", &alice, "10"]).await;

    // Nobody pays: it waits, and says for what.
    let free = cluster.client.submit(&digits::request(&cluster, LINES).await).await.unwrap().id;
    let view: JobAnswer = cluster.client.job(free).await.unwrap();
    assert!(view.waits.unwrap().contains("submit it with a cap"));
    refused(&cluster, &["ledger", "invoice", &free.to_string()], "has no escrow").await;

    // More than there is is refused as it comes, and nothing of it is left.
    let mut request = digits::request(&cluster, LINES).await;
    request.payer = Some(grid::flow::Payer { requester: ALICE, cap: "11".parse().unwrap() });
    let refusal = cluster.client.submit(&request).await.unwrap_err().to_string();
    assert!(refusal.contains("has 10.000000 credits, 1.000000 too few"), "{refusal}");
    assert_eq!(balance(&cluster, &alice).await, 10_000_000);

    // A cap below one execution's worst case is refused by every host, and says so.
    let job = paid(&cluster, "0.000001").await;
    let view: JobAnswer = cluster.client.job(job).await.unwrap();
    assert!(view.waits.unwrap().contains("the job's cap leaves 0.000001"));

    let module = scratch.path().join("digits.wasm");
    fs::write(&module, tasks::DIGITS.wasm).unwrap();
    let report = scratch.path().join("report.json");
    fs::write(&report, r#"{"outcome":"ok","fuel_used":2000000,"output_bytes":100}"#).unwrap();
    let args = ["submit", module.to_str().unwrap(), "--inline", "x", "--quote", report.to_str().unwrap()];
    let said = well(&cluster, &args).await;
    assert!(said.contains("LEAST CAP") && said.contains("0.002001"), "{said}");
}

#[tokio::test]
async fn what_nobody_reproduced_is_shown_with_its_receipts_and_paid_by_a_bill_that_anybody_computes_again() {
    let scratch = tempfile::tempdir().unwrap();
    let config = scratch.path().join("host.toml");
    fs::write(&config, PRICES).unwrap();
    // Each signs something else, as if the module did something else on each run.
    let node = ["--slots", "1", "--config", config.to_str().unwrap()];
    let cluster = Cluster::start_with(EXE, &[Conduct::Liar; 5], &[], &node).await;
    well(&cluster, &["ledger", "deposit", "--account", &format!("requester:{ALICE}"), "1000"]).await;
    let mut request = digits::request(&cluster, 1_000_000).await;
    request.payer = Some(grid::flow::Payer { requester: ALICE, cap: "400".parse().unwrap() });
    request.policy = Policy::Quorum(2);
    let job = cluster.client.submit(&request).await.unwrap().id;
    assert_eq!(cluster.ended(job).await.reason.unwrap().word, "inconclusive");
    let id = job.to_string();
    let nodes: Vec<HostAnswer> = cluster.client.get("/v1/nodes").await.unwrap();
    assert!(nodes.iter().all(|node| node.suspended.is_none()), "nobody is accused");
    let metrics = cluster.client.text("/metrics").await.unwrap();
    assert!(metrics.contains("quorate_records_total{kind=\"inconclusive\"} 1"), "{metrics}");

    let [bill, receipts, log] = ["bill.json", "receipts", "job.log"].map(|name| scratch.path().join(name));
    let [bill, receipts, log] = [&bill, &receipts, &log].map(|path| path.to_str().unwrap());
    well(&cluster, &["ledger", "invoice", &id, "--out", bill]).await;
    well(&cluster, &["receipt", "get", &id, "--content", "--out", receipts, "--log", log]).await;
    let said = well(&cluster, &["receipt", "verify", receipts, log]).await;
    assert!(said.contains("5 operators signed 5 different results, and nobody is accused"), "{said}");
    assert!(said.contains("1 of results that differ, with 0 of 1 shards accepted"), "{said}");
    let said = well(&cluster, &["bill", "verify", bill, receipts]).await;
    assert!(said.contains("holds: 5 executions"), "{said}");
    tampered(&cluster, Path::new(bill), receipts).await;
    assert!(well(&cluster, &["job", &id]).await.contains("results of this module differed once"));
    let module = scratch.path().join("digits.wasm");
    fs::write(&module, tasks::DIGITS.wasm).unwrap();
    let said = well(&cluster, &["submit", module.to_str().unwrap(), "--inline", "x", "--no-wait"]).await;
    assert!(said.contains("careful: results of this module differed once, and nobody reproduced any"), "{said}");
    refused(&cluster, &["receipt", "replay", receipts], "0 of 5 receipts that differ say what comes out here").await;
}
