//! What Prometheus reads.

use std::process::Stdio;

use host::testing::skipped;
use support::{Cluster, Conduct};
use tokio::io::AsyncWriteExt;

use crate::{EXE, digits};

/// Port of the metrics of the one host of a test.
async fn free_port() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

/// Value of the first sample whose name and labels start so.
fn sample(text: &str, start: &str) -> Option<f64> {
    text.lines().find(|line| line.starts_with(start))?.rsplit_once(' ')?.1.parse().ok()
}

#[tokio::test]
async fn coordinator_and_host_tell_what_they_did() {
    let listen = format!("127.0.0.1:{}", free_port().await);
    let mut cluster =
        Cluster::start_with(EXE, &[Conduct::Honest], &[], &["--slots", "1", "--metrics-listen", &listen]).await;
    cluster.add_host(Conduct::Honest, &["--slots", "1"]);
    cluster.joined(2).await;
    let job = digits::submit(&cluster, 100).await;
    cluster.result(job).await;
    let coordinator = cluster.client.text("/metrics").await.unwrap();
    let host = cluster.until("the host tells its metrics", async || get(&listen).await).await;
    assert_eq!(sample(&coordinator, "quorate_hosts{state=\"connected\"}"), Some(2.0), "{coordinator}");
    assert!(sample(&host, "quorate_host_tasks_total{outcome=\"ok\"").unwrap_or(0.0) >= 1.0, "{host}");
    for (what, text) in [("coordinator", &coordinator), ("host", &host)] {
        assert!(text.lines().filter(|line| !line.starts_with('#')).count() < 1000, "too many series at the {what}");
        promtool(what, text).await;
    }
}

async fn get(listen: &str) -> Option<String> {
    let token = host::gateway::token::Token::from_text(&"0".repeat(64))?;
    host::client::Client::new(&format!("http://{listen}"), &token).ok()?.text("/metrics").await.ok()
}

/// Prometheus' own opinion, where it is installed; `.ci/run` installs it and asks for it.
async fn promtool(what: &str, text: &str) {
    let mut command = tokio::process::Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        return skipped("promtool is not installed (Debian's package prometheus)", "QUORATE_REQUIRE_PROMTOOL");
    };
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "promtool about the {what}: {said}");
}
