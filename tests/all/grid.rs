//! The main job over real processes: results, liars, losses.

use host::{
    client::answers::HostAnswer,
    gateway::wire::{InputRequest, JobRequest},
};
use registry::{
    job::{Policy, Profile, Reduce, Split},
    receipt::Record,
};
use support::{Cluster, Conduct};

use crate::{EXE, digits};

#[tokio::test]
async fn a_liar_is_caught_and_every_accepted_digit_is_right() {
    let cluster = Cluster::start(EXE, &[Conduct::Liar, Conduct::Honest, Conduct::Honest, Conduct::Honest]).await;
    let job = digits::submit(&cluster, 50).await;
    assert_eq!(cluster.result(job).await, digits::truth());
    let receipts: Vec<host::client::answers::ReceiptAnswer> =
        cluster.client.get(&format!("/v1/jobs/{job}/receipts")).await.unwrap();
    let liars: Vec<_> = receipts.iter().filter_map(|receipt| receipt.accused).collect();
    assert!(!liars.is_empty(), "nobody was caught");
    let nodes: Vec<host::client::answers::HostAnswer> = cluster.client.get("/v1/nodes").await.unwrap();
    let suspended: Vec<_> = nodes.iter().filter(|node| node.suspended.is_some()).map(|node| node.node).collect();
    assert_eq!(suspended.len(), 1);
    assert!(liars.iter().all(|liar| suspended.contains(liar)));
}

#[tokio::test]
async fn two_liars_of_four_who_do_not_know_of_each_other_change_nothing() {
    let cluster = Cluster::start(EXE, &[Conduct::Liar, Conduct::Liar, Conduct::Honest, Conduct::Honest]).await;
    let job = digits::submit(&cluster, 50).await;
    assert_eq!(cluster.result(job).await, digits::truth());
}

#[tokio::test]
async fn a_host_killed_in_the_middle_costs_no_result() {
    let mut cluster = Cluster::start(EXE, &[Conduct::Honest; 3]).await;
    let job = digits::submit(&cluster, 4).await;
    cluster.accepted(job, 10).await;
    cluster.hosts[0].kill();
    assert_eq!(cluster.result(job).await, digits::truth());
}

#[tokio::test]
async fn a_coordinator_killed_in_the_middle_goes_on_where_it_was() {
    let mut cluster = Cluster::start(EXE, &[Conduct::Honest; 2]).await;
    let job = digits::submit(&cluster, 2).await;
    cluster.accepted(job, 10).await;
    cluster.kill_coordinator();
    cluster.restart_coordinator().await;
    let after = cluster.client.job(job).await.unwrap();
    assert!(after.accepted >= 10, "{} shards were accepted before, {} after", 10, after.accepted);
    assert_eq!(cluster.result(job).await, digits::truth());
}

#[tokio::test]
async fn a_coordinator_killed_between_jobs_remembers_them() {
    let mut cluster = Cluster::start(EXE, &[Conduct::Honest; 2]).await;
    let job = digits::submit(&cluster, 200).await;
    cluster.result(job).await;
    cluster.kill_coordinator();
    cluster.restart_coordinator().await;
    assert_eq!(cluster.result(job).await, digits::truth());
    cluster.joined(2).await;
    let job = digits::submit(&cluster, 300).await;
    assert_eq!(cluster.result(job).await, digits::truth());
}

#[tokio::test]
async fn a_portable_job_runs_on_engines_that_know_no_processor() {
    let cluster = Cluster::start(EXE, &[Conduct::Honest; 2]).await;
    let module = cluster.publish(tasks::KERNEL.wasm).await;
    let request = |profile| JobRequest {
        module: module.clone(),
        args: vec!["nbody".to_owned(), "1000".to_owned()],
        policy: Policy::Quorum(2),
        profile,
        ..JobRequest::default()
    };
    let nodes: Vec<HostAnswer> = cluster.client.get("/v1/nodes").await.unwrap();
    let mut results = Vec::new();
    for profile in [Profile::Native, Profile::Portable] {
        let job = cluster.submit(&request(profile)).await;
        results.push(cluster.result(job).await);
        let bytes =
            cluster.client.download(&format!("/v1/jobs/{job}/receipts/0")).await.unwrap().collect().await.unwrap();
        let signed = Record::from_bytes(&bytes).unwrap().check().unwrap().execution.engine;
        let offers = |node: &HostAnswer| {
            let mut engines = node.engines.iter();
            engines.any(|engine| engine.profile == profile && engine.fingerprint == signed)
        };
        assert!(nodes.iter().all(offers), "{nodes:?}");
    }
    assert!(!results[0].is_empty() && results[0] == results[1]);
}

#[tokio::test]
async fn a_portable_job_infers_in_the_sandbox() {
    let cluster = Cluster::start(EXE, &[Conduct::Honest; 2]).await;
    let request = digits::request(&cluster, 600).await;
    let request = JobRequest { profile: Profile::Portable, policy: Policy::Quorum(2), ..request };
    let job = cluster.submit(&request).await;
    // The same labels as tract's own kernels say, if not the same bits.
    assert_eq!(cluster.result(job).await, digits::truth());
}

#[tokio::test]
async fn words_of_real_texts_are_counted_by_map_and_reduce() {
    let cluster = Cluster::start(EXE, &[Conduct::Honest; 2]).await;
    let module = cluster.publish(tasks::WORDCOUNT.wasm).await;
    let text: &[u8] = tasks::data::HAMLET;
    let input = cluster.publish(text).await.parse().unwrap();
    let request = JobRequest {
        module,
        input: InputRequest::Blob(input),
        split: Split::Records { bytes: 20_000, delimiter: b'\n' },
        reduce: Reduce::Task,
        ..JobRequest::default()
    };
    let job = cluster.submit(&request).await;
    let sharded = cluster.result(job).await;
    let whole = JobRequest { split: Split::Each, reduce: Reduce::Concat, ..request };
    let job = cluster.submit(&whole).await;
    assert_eq!(String::from_utf8_lossy(&sharded), String::from_utf8_lossy(&cluster.result(job).await));
}

#[tokio::test]
async fn outputs_too_large_to_travel_with_their_receipts_arrive_all_the_same() {
    let cluster = Cluster::start(EXE, &[Conduct::Honest; 2]).await;
    let module = cluster.publish(tasks::ECHO.wasm).await;
    let bytes: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
    let input = cluster.publish(bytes.clone()).await.parse().unwrap();
    let split = Split::Ranges(vec![(0, 3_000_000), (3_000_000, 3_000_010), (3_000_010, 4_000_000)]);
    let job =
        cluster.submit(&JobRequest { module, input: InputRequest::Blob(input), split, ..JobRequest::default() }).await;
    assert!(cluster.result(job).await == bytes, "the output differs from the input");
}

#[tokio::test]
async fn a_job_that_no_quorum_can_be_found_for_says_so_and_can_be_cancelled() {
    let cluster = Cluster::start(EXE, &[Conduct::Honest]).await;
    let module = cluster.publish(tasks::ECHO.wasm).await;
    let job = cluster.submit(&JobRequest { module, policy: Policy::Quorum(2), ..JobRequest::default() }).await;
    let id = job.to_string();
    let why = cluster.cli(&["why", &id], b"").await;
    let said = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(said.contains("a quorum of 2 needs as many operators"), "{said}");
    assert!(cluster.cli(&["cancel", &id], b"").await.status.success());
    assert_eq!(cluster.ended(job).await.phase, "cancelled");
}

#[tokio::test]
async fn a_coordinator_with_local_hosts_of_its_own_runs_jobs() {
    let cluster = Cluster::start_with(EXE, &[], &["--hosts", "2"], &[]).await;
    cluster.joined(2).await;
    let module = cluster.publish(tasks::ECHO.wasm).await;
    let input = InputRequest::Text("hello".into());
    let job = cluster.submit(&JobRequest { module, input, policy: Policy::Quorum(1), ..JobRequest::default() }).await;
    assert_eq!(cluster.result(job).await, b"hello");
}
