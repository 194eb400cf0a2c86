//! Audits over real processes: what they cost, whom they catch, and that anybody can draw again.

use std::path::Path;

use grid::dispatch::Purpose;
use host::{
    client::answers::{HostAnswer, JobAnswer, ReceiptAnswer, WhyAnswer},
    gateway::wire::JobRequest,
    launch::Process,
};
use registry::{id::JobId, job::Policy};
use support::{Cluster, Conduct};

use crate::{EXE, digits};

/// Shards of the digits at this many lines each.
const LINES: u64 = 18;
const SHARDS: u64 = 100;

async fn say(cluster: &Cluster, args: &[&str]) -> (Option<i32>, String) {
    let output = cluster.cli(args, b"").await;
    let (said, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), format!("{said}{log}"))
}

async fn executions(cluster: &Cluster, job: JobId) -> u64 {
    let job: JobAnswer = cluster.client.job(job).await.unwrap();
    assert_eq!((job.accepted, u64::from(job.shards)), (job.shards, SHARDS));
    job.executions
}

#[tokio::test]
async fn a_job_of_known_hosts_costs_little_more_than_one_execution_each_and_anybody_can_draw_again() {
    let mut cluster = Cluster::start_vouched(EXE, &[Conduct::Honest; 3]).await;
    let request = digits::request(&cluster, LINES).await;
    let submitted = cluster.client.submit(&request).await.unwrap();
    let job = submitted.id;
    assert_eq!(cluster.result(job).await, digits::truth());
    // Six standard deviations of what is drawn at 5 %; a host that is slow once may cost a second execution as well.
    let executions = executions(&cluster, job).await;
    assert!((SHARDS..=SHARDS + 19).contains(&executions), "{executions} executions of {SHARDS} shards");

    let (id, told) = (job.to_string(), submitted.secret_hash.to_string());
    let (code, said) = say(&cluster, &["job", "verify", &id, "--secret-hash", &told]).await;
    assert!(code == Some(0) && said.contains("holds: of 100 results"), "{said}");
    let (code, said) = say(&cluster, &["job", "verify", &id, "--secret-hash", &"0".repeat(64)]).await;
    assert!(code == Some(1) && said.contains("not the one that was committed to"), "{said}");
    let whys = whys(&cluster, job).await;
    let drawn =
        whys.iter().filter(|why| why.summary.contains("drawn for an audit, at") && !why.summary.contains("not drawn"));
    let drawn: Vec<&WhyAnswer> = drawn.collect();
    assert!(said_drawn(&cluster, &id, &told).await == drawn.len(), "{drawn:?}");
    assert!(drawn.iter().all(|why| why.executions.iter().any(|it| it.purpose == Purpose::Audit)), "{drawn:?}");
    let alone = whys.iter().filter(|why| why.summary.starts_with("accepted on one operator's word: not drawn"));
    assert!(alone.count() + drawn.len() >= 90, "a few were asked twice since somebody was slow");
    let (_, said) = say(&cluster, &["why", &id, "--shard", "1"]).await;
    assert!(said.contains("for the result") && said.contains("ASKED"), "{said}");
    let (_, said) = say(&cluster, &["nodes"]).await;
    assert_eq!(said.matches("vouched").count(), 3, "{said}");
    let metrics = cluster.client.text("/metrics").await.unwrap();
    let counted = |by: &str| {
        let line = format!("quorate_acceptances_total{{by=\"{by}\"}} ");
        metrics.lines().find_map(|it| it.strip_prefix(&line)?.parse::<u64>().ok()).unwrap()
    };
    assert_eq!(counted("word") + counted("audit"), SHARDS);

    // The owner still answers for them after a restart, since it says so again.
    cluster.kill_coordinator();
    cluster.restart_coordinator().await;
    cluster.joined(3).await;
    let nodes: Vec<HostAnswer> = cluster.client.get("/v1/nodes").await.unwrap();
    assert!(nodes.iter().all(|node| node.vouched && node.qualified), "{nodes:?}");
    let (code, said) = say(&cluster, &["job", "verify", &id, "--secret-hash", &told]).await;
    assert!(code == Some(0) && said.contains("holds: of 100 results"), "{said}");
}

/// Why each shard of the digits is where it is.
async fn whys(cluster: &Cluster, job: JobId) -> Vec<WhyAnswer> {
    let mut whys = Vec::new();
    for shard in 0..SHARDS {
        whys.push(cluster.client.get(&format!("/v1/jobs/{job}/why?shard={shard}")).await.unwrap());
    }
    whys
}

/// How many results the verification says that were drawn for an audit.
async fn said_drawn(cluster: &Cluster, job: &str, told: &str) -> usize {
    let (code, said) = say(cluster, &["job", "verify", job, "--secret-hash", told, "--json"]).await;
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, said["holds"].as_bool()), (Some(0), Some(true)), "{said}");
    usize::try_from(said["by_audit"].as_u64().unwrap()).unwrap()
}

/// Somebody, once it is caught.
async fn caught(cluster: &Cluster) -> HostAnswer {
    let caught = cluster.until("the stranger is caught", async || {
        let nodes: Vec<HostAnswer> = cluster.client.get("/v1/nodes").await.ok()?;
        nodes.into_iter().find(|node| node.suspended.is_some())
    });
    caught.await
}

#[tokio::test]
async fn who_asked_for_one_operators_word_alone_is_told_when_that_is_caught() {
    let mut cluster = Cluster::start_vouched(EXE, &[Conduct::Liar, Conduct::Honest, Conduct::Honest]).await;
    let request = JobRequest { policy: Policy::None, ..digits::request(&cluster, LINES).await };
    // Only the liar is there, and nobody contradicts it.
    cluster.hosts[1..].iter_mut().for_each(Process::kill);
    cluster.joined(1).await;
    let trusting = cluster.submit(&request).await;
    assert!(cluster.result(trusting).await != digits::truth(), "the liar was asked, and nobody else");
    let home = cluster.data_dir().to_owned();
    for (host, name) in cluster.hosts[1..].iter_mut().zip(["host-2", "host-3"]) {
        let dir = host.dir().to_owned();
        *host = Process::host(Path::new(EXE), name, &dir, &home, &["--slots", "1"]).unwrap();
    }
    cluster.joined(3).await;
    digits::submit(&cluster, LINES).await;
    caught(&cluster).await;
    let id = trusting.to_string();
    for command in ["job", "results"] {
        let (code, said) = say(&cluster, &[command, &id]).await;
        let told =
            said.contains("of its results (shard ") && said.contains("word of an operator that was caught since");
        assert!(code == Some(0) && told, "{said}");
    }
    let doubtful = cluster.client.job(trusting).await.unwrap().doubtful.unwrap();
    let (_, said) = say(&cluster, &["why", &id, "--shard", &doubtful.shards[0].index.to_string()]).await;
    assert!(said.contains("was caught since, so it may be wrong"), "{said}");
}

#[tokio::test]
async fn a_stranger_that_lies_is_caught_by_what_it_repeats() {
    let hosts = [Conduct::Liar, Conduct::Honest, Conduct::Honest, Conduct::Honest];
    let cluster = Cluster::start_vouched(EXE, &hosts).await;
    let job = digits::submit(&cluster, LINES).await;
    assert_eq!(cluster.result(job).await, digits::truth());
    let executions = executions(&cluster, job).await;
    assert!(executions <= SHARDS + 25, "{executions} executions of {SHARDS} shards");
    // It may have its first result to repeat when the job has ended already.
    let caught = caught(&cluster).await;
    assert!(!caught.vouched && caught.contradicted > 0, "{caught:?}");
    let id = job.to_string();
    let (code, said) = say(&cluster, &["job", "verify", &id]).await;
    assert!(code == Some(0) && said.contains("1 hosts are accused with evidence"), "{said}");
    // Why it gets no more work: what it signed, what the record of it is, and where it says what that cost.
    let receipts: Vec<ReceiptAnswer> = cluster.client.get(&format!("/v1/jobs/{job}/receipts")).await.unwrap();
    let record = receipts.iter().find(|receipt| receipt.accused == Some(caught.node)).unwrap();
    let (_, said) = say(&cluster, &["why", &id, "--shard", &record.shard.index.to_string()]).await;
    let place =
        format!("-evidence-{} of `quorate receipt get`, record {} of the job's log", caught.node.short(), record.seq);
    assert!(said.replace(".cbor", "").contains(&place), "{said}");
    assert!(said.contains("to show its worth") && said.contains("contradicted"), "{said}");
    assert!(said.contains(&format!("operator {} gets no more work", caught.operator)), "{said}");
}

#[tokio::test]
async fn without_a_policy_to_audit_there_is_nothing_to_draw() {
    let cluster = Cluster::start(EXE, &[Conduct::Honest; 2]).await;
    let module = cluster.publish(tasks::ECHO.wasm).await;
    let job = cluster.submit(&JobRequest { module, policy: Policy::None, ..JobRequest::default() }).await;
    cluster.result(job).await;
    assert_eq!(cluster.client.job(job).await.unwrap().executions, 1);
    let (code, said) = say(&cluster, &["job", "verify", &job.to_string()]).await;
    assert!(code == Some(2) && said.contains("policy none, so nothing was drawn"), "{said}");
}
