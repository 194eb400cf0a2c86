//! What a process tells Prometheus, and nothing else: no decision reads a metric.
//!
//! One [`Metrics`] a process, made by whoever wires the process; the parts get a handle on their own family
//! ([`CoordinatorMetrics`], [`HostMetrics`]). Names begin with `quorate_` and end with their unit. Labels come from
//! closed sets: a word that is not in its set counts as `other`, so that no client can grow the series. Counters start
//! at 0 when the process starts: a crash loses nothing that Prometheus does not expect.

mod coordinator;
mod family;
mod host;
mod process;
mod words;

use prometheus::{Registry, TextEncoder, core::Collector};

pub use self::{coordinator::CoordinatorMetrics, family::Words, host::HostMetrics};

/// Content type of what [`Metrics::render`] gives.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds in seconds of every histogram of times: from a cached answer to the longest task that is usual.
const SECONDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Every metric of one process.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    process: process::ProcessMetrics,
}

impl Metrics {
    /// Those of the process itself; a role adds its own.
    pub fn new() -> Self {
        let registry = Registry::new();
        let process = process::ProcessMetrics::new(&registry);
        Self { registry, process }
    }

    /// The text format, as Prometheus scrapes it.
    pub fn render(&self) -> String {
        self.process.read();
        // The encoder fails on duplicate names, which `register` refuses, and on a full writer, which a string is not.
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Metrics({} families)", self.registry.gather().len())
    }
}

/// Adds a metric to the registry.
///
/// # Panics
/// When two metrics share a name: a broken invariant of this module.
fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("a metric has a well-formed name and a help text");
    registry.register(Box::new(metric.clone())).expect("every metric has a name of its own");
    metric
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        process::{Command, Stdio},
        time::Duration,
    };

    use grid::{
        config::Config,
        dispatch::{Event, State},
    };
    use registry::receipt::Outcome;

    use super::*;
    use crate::{
        sandbox::{CompileStats, ModelStats, ProcessStats},
        testing::skipped,
    };

    fn used() -> Metrics {
        let metrics = Metrics::new();
        let coordinator = CoordinatorMetrics::new(&metrics);
        coordinator.observe_event(&Event::Tick);
        coordinator.http_answered("/v1/jobs", "POST", 200, Duration::from_millis(2));
        coordinator.journal_committed(3, 0.002);
        coordinator.set_gauges(&State::new(Config::default()));
        let host = HostMetrics::new(&metrics);
        host.task_done(Outcome::Ok, Duration::from_millis(5), 1000);
        host.task_faulted("deadline");
        host.set_in_flight(2);
        host.set_connected(true);
        host.set_sandbox(ProcessStats { alive: 2, started: 5, died: 3, ..ProcessStats::default() });
        let stats = CompileStats { compiled: 2, cached: 5, compile_micros: 1_500_000, ..CompileStats::default() };
        host.set_compiles(stats);
        host.set_compiles(stats);
        host.set_models(ModelStats { found: 7, loaded: 2, sessions: 2, bytes: 99, ..ModelStats::default() });
        metrics
    }

    #[test]
    fn what_was_counted_is_rendered() {
        let text = used().render();
        for line in [
            "quorate_events_total{event=\"tick\"} 1",
            "quorate_http_requests_total{method=\"post\",route=\"/v1/jobs\",status=\"2xx\"} 1",
            "quorate_journal_batch_events_sum 3",
            "quorate_host_tasks_total{outcome=\"ok\"} 1",
            "quorate_host_fuel_total 1000",
            "quorate_host_faults_total{fault=\"deadline\"} 1",
            "quorate_host_connected 1",
            "quorate_host_sandboxes 2",
            "quorate_host_sandboxes_started_total 5",
            "quorate_host_sandboxes_ended_total{end=\"died\"} 3",
            "quorate_host_modules_total{result=\"cached\"} 5",
            "quorate_host_compile_seconds_total 1.5",
            "quorate_host_models_total{result=\"found\"} 7",
            "quorate_host_models_total{result=\"loaded\"} 2",
            "quorate_host_model_sessions 2",
            "quorate_host_model_bytes 99",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        }
    }

    #[test]
    fn words_that_are_not_known_share_one_series() {
        let metrics = Metrics::new();
        let host = HostMetrics::new(&metrics);
        let coordinator = CoordinatorMetrics::new(&metrics);
        let series = || metrics.render().lines().count();
        let before = series();
        for word in ["one", "two\"}", "three\n"] {
            host.task_faulted(word);
            coordinator.http_answered(word, word, 999, Duration::ZERO);
        }
        assert_eq!(series(), before, "a word grew the series");
        assert!(metrics.render().contains("quorate_host_faults_total{fault=\"other\"} 3"));
    }

    #[test]
    #[allow(clippy::print_stdout, reason = "a test that cannot run says so")]
    fn promtool_finds_nothing_to_say() {
        let promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut promtool) = promtool else {
            return skipped("promtool is not installed (Debian's package prometheus)", "QUORATE_REQUIRE_PROMTOOL");
        };
        promtool.stdin.take().unwrap().write_all(used().render().as_bytes()).unwrap();
        let said = promtool.wait_with_output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        assert!(said.status.success() && text.trim().is_empty(), "{text}");
    }
}
