//! What a host counts.

use std::time::Duration;

use prometheus::{Counter, Histogram, HistogramOpts, IntCounter, IntGauge};
use registry::{
    device::Device,
    receipt::Outcome,
    store::{StoreStats, Usage},
};

use super::{
    Metrics, SECONDS,
    family::{BlobMetrics, Words, counter, gauge, level, seconds_counter},
    register,
    words::{COMPILES, DEVICES, FAULTS, MODELS, OUTCOMES, SANDBOX_ENDS},
};
use crate::sandbox::{CompileStats, ModelStats, ProcessStats};

/// A handle on what a host counts. Cheap to clone.
#[derive(Clone)]
pub struct HostMetrics {
    metrics: Metrics,
    tasks: Words,
    inferred: Words,
    faults: Words,
    fuel: IntCounter,
    seconds: Histogram,
    in_flight: IntGauge,
    running: IntGauge,
    connected: IntGauge,
    blobs: BlobMetrics,
    sandboxes: IntGauge,
    sandboxes_started: IntCounter,
    sandboxes_ended: Words,
    compiles: Words,
    compile_seconds: Counter,
    models: Words,
    model_sessions: IntGauge,
    model_bytes: IntGauge,
}

impl HostMetrics {
    /// Adds a host's metrics to the process's.
    pub fn new(metrics: &Metrics) -> Self {
        let of = &metrics.registry;
        let words = |name: &str, help: &str, label: &str, set| Words::new(of, name, help, label, set);
        let seconds = HistogramOpts::new("quorate_host_task_seconds", "Time of an execution that gave a result.");
        Self {
            tasks: words("quorate_host_tasks_total", "Executions that gave a result.", "outcome", OUTCOMES),
            inferred: words(
                "quorate_host_tasks_inferred_total",
                "Executions that ran models, by what these ran on.",
                "device",
                DEVICES,
            ),
            faults: words("quorate_host_faults_total", "Executions that gave no result.", "fault", FAULTS),
            fuel: counter(of, "quorate_host_fuel_total", "Fuel spent by executions that gave a result."),
            seconds: register(of, Histogram::with_opts(seconds.buckets(SECONDS.to_vec()))),
            in_flight: gauge(of, "quorate_host_in_flight", "Assignments that the host holds."),
            running: gauge(of, "quorate_host_running", "Assignments that run now."),
            connected: gauge(of, "quorate_host_connected", "1 while the host is connected to its coordinator, else 0."),
            blobs: BlobMetrics::new(of, "host_"),
            sandboxes: gauge(of, "quorate_host_sandboxes", "Sandbox processes."),
            sandboxes_started: counter(of, "quorate_host_sandboxes_started_total", "Sandbox processes started."),
            sandboxes_ended: words(
                "quorate_host_sandboxes_ended_total",
                "Sandbox processes ended.",
                "end",
                SANDBOX_ENDS,
            ),
            compiles: words(
                "quorate_host_modules_total",
                "Modules that the host made ready: compiled, found compiled on disk, refused, or failed by the host.",
                "result",
                COMPILES,
            ),
            compile_seconds: seconds_counter(
                of,
                "quorate_host_compile_seconds_total",
                "Time that compilers of modules ran.",
            ),
            models: words(
                "quorate_host_models_total",
                "Models of tasks that were found loaded, sessions made of models, models refused, sessions let go of.",
                "result",
                MODELS,
            ),
            model_sessions: gauge(of, "quorate_host_model_sessions", "Models that are loaded, once for each process."),
            model_bytes: gauge(of, "quorate_host_model_bytes", "Memory that loaded models hold."),
            metrics: metrics.clone(),
        }
    }

    /// An execution gave a result.
    pub fn task_done(&self, outcome: Outcome, task: Duration, fuel_used: u64) {
        self.tasks.count(outcome.word());
        self.fuel.inc_by(fuel_used);
        self.seconds.observe(task.as_secs_f64());
    }

    /// An execution that gave a result ran models on this; on nothing that is told apart, or none, when absent.
    pub fn task_inferred(&self, device: Option<&Device>) {
        if let Some(device) = device {
            self.inferred.count(device.kind.word());
        }
    }

    /// An execution gave no result; a word that is not known counts as `other`.
    pub fn task_faulted(&self, word: &str) {
        self.faults.count(word);
    }

    /// Assignments that the host holds now.
    pub fn set_in_flight(&self, assignments: usize) {
        self.in_flight.set(level(assignments));
    }

    /// More or fewer assignments run.
    pub fn running(&self, change: i64) {
        self.running.add(change);
    }

    /// Whether the host is connected to its coordinator.
    pub fn set_connected(&self, connected: bool) {
        self.connected.set(connected.into());
    }

    /// Reads what the store says: once a scrape.
    pub fn set_blobs(&self, usage: Usage, stats: StoreStats) {
        self.blobs.set(usage, stats);
    }

    /// Reads what the sandbox says of its processes: once a scrape.
    pub fn set_sandbox(&self, stats: ProcessStats) {
        let ProcessStats { alive, started, idle, retired, deadline, cancelled, garbage, died } = stats;
        self.sandboxes.set(level(alive));
        self.sandboxes_started.inc_by(started.saturating_sub(self.sandboxes_started.get()));
        // In the order of the words.
        self.sandboxes_ended.raise(&[idle, retired, deadline, cancelled, garbage, died]);
    }

    /// Reads what the sandbox says: once a scrape.
    pub fn set_compiles(&self, stats: CompileStats) {
        let CompileStats { compiled, cached, refused, failed, compile_micros } = stats;
        for (word, total) in COMPILES.iter().zip([compiled, cached, refused, failed]) {
            self.compiles.set(word, total);
        }
        let seconds = Duration::from_micros(compile_micros).as_secs_f64();
        self.compile_seconds.inc_by((seconds - self.compile_seconds.get()).max(0.0));
    }

    /// Reads what the sandbox says of its models: once a scrape.
    pub fn set_models(&self, stats: ModelStats) {
        let ModelStats { found, loaded, refused, evicted, sessions, bytes } = stats;
        // In the order of the words.
        self.models.raise(&[found, loaded, refused, evicted]);
        self.model_sessions.set(level(sessions));
        self.model_bytes.set(level(bytes));
    }

    /// The text format of the whole process, as Prometheus scrapes it.
    pub fn render(&self) -> String {
        self.metrics.render()
    }
}
