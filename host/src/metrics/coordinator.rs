//! What a coordinator counts: events and effects as they pass, the rest when it is asked.

use std::time::Duration;

use grid::{
    dispatch::{Effect, Event, Notice, State},
    engines::EngineAsk,
};
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};
use registry::{
    device::DeviceKind,
    receipt::Record,
    store::{StoreStats, Usage},
};

use super::{
    Metrics, SECONDS,
    family::{BlobMetrics, OTHER, Words, counter, gauge, level},
    register,
    words::{ACCEPTANCES, DEVICES, EVENTS, FAULTS, METHODS, OUTCOMES, PHASES, RECORDS, ROUTES, STATUSES},
};

/// Upper bounds of the events in one commit.
const BATCHES: [f64; 9] = [1.0, 4.0, 16.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];

/// A handle on what a coordinator counts. Cheap to clone.
#[derive(Clone)]
pub struct CoordinatorMetrics {
    metrics: Metrics,
    events: Words,
    jobs_ended: Words,
    jobs_planned: IntCounter,
    assignments: IntCounter,
    revocations: IntCounter,
    shards_accepted: IntCounter,
    shards_withdrawn: IntCounter,
    acceptances: Words,
    hosts_caught: IntCounter,
    receipts: Words,
    receipts_inferred: Words,
    fuel: IntCounter,
    faults: Words,
    records: Words,
    task_seconds: Histogram,
    shard_executions: Histogram,
    jobs_open: IntGauge,
    executions_open: IntGauge,
    operators_max: IntGauge,
    hosts: IntGaugeVec,
    hosts_devices: IntGaugeVec,
    host_slots: IntGauge,
    host_in_flight: IntGauge,
    http: Http,
    journal_seconds: Histogram,
    journal_batch: Histogram,
    blobs: BlobMetrics,
}

#[derive(Clone)]
struct Http {
    requests: IntCounterVec,
    seconds: HistogramVec,
    in_flight: IntGauge,
    connections: IntGauge,
}

fn histogram(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::new(name, help).buckets(buckets.to_vec())
}

impl CoordinatorMetrics {
    /// Adds a coordinator's metrics to the process's.
    pub fn new(metrics: &Metrics) -> Self {
        let of = &metrics.registry;
        let words = |name: &str, help: &str, label: &str, set| Words::new(of, name, help, label, set);
        let http = Http {
            requests: register(
                of,
                IntCounterVec::new(
                    Opts::new("quorate_http_requests_total", "HTTP requests answered."),
                    &["route", "method", "status"],
                ),
            ),
            seconds: register(
                of,
                HistogramVec::new(
                    histogram("quorate_http_request_seconds", "Time to the head of an HTTP response.", &SECONDS),
                    &["route"],
                ),
            ),
            in_flight: gauge(of, "quorate_http_in_flight", "HTTP requests whose response has not begun."),
            connections: gauge(of, "quorate_http_connections", "Open HTTP connections."),
        };
        // So that a process's series are there from its start, whoever asks what.
        http.requests.with_label_values(&[OTHER, OTHER, OTHER]);
        http.seconds.with_label_values(&[OTHER]);
        let task_seconds = histogram("quorate_task_seconds", "Time of an execution, by its host's own word.", &SECONDS);
        let executions = [1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 12.0];
        let executions = histogram("quorate_shard_executions", "Executions that an accepted shard cost.", &executions);
        let seconds = histogram("quorate_journal_commit_seconds", "Time of a commit of the journal.", &SECONDS);
        let batch = histogram("quorate_journal_batch_events", "Events in a commit of the journal.", &BATCHES);
        Self {
            events: words("quorate_events_total", "Events that the coordinator took.", "event", EVENTS),
            jobs_ended: words("quorate_jobs_ended_total", "Jobs that ended.", "phase", PHASES),
            jobs_planned: counter(of, "quorate_jobs_planned_total", "Jobs that were accepted."),
            assignments: counter(of, "quorate_assignments_total", "Executions that were ordered."),
            revocations: counter(of, "quorate_revocations_total", "Executions that were called off."),
            shards_accepted: counter(of, "quorate_shards_accepted_total", "Shards whose result stands."),
            shards_withdrawn: counter(of, "quorate_shards_withdrawn_total", "Results that did not stand for long."),
            acceptances: words(
                "quorate_acceptances_total",
                "Results that were accepted: on one operator's word, after an audit, or by a quorum.",
                "by",
                ACCEPTANCES,
            ),
            hosts_caught: counter(of, "quorate_hosts_caught_total", "Contradictions that hosts were caught in."),
            receipts: words("quorate_receipts_total", "Receipts that came in.", "outcome", OUTCOMES),
            receipts_inferred: words(
                "quorate_receipts_inferred_total",
                "Receipts of executions that ran models, by the device that they name.",
                "device",
                DEVICES,
            ),
            fuel: counter(of, "quorate_receipts_fuel_total", "Fuel that receipts claim, each execution for itself."),
            faults: words("quorate_faults_total", "Executions that gave no result.", "fault", FAULTS),
            records: words("quorate_records_total", "Records kept.", "kind", RECORDS),
            task_seconds: register(of, Histogram::with_opts(task_seconds)),
            shard_executions: register(of, Histogram::with_opts(executions)),
            jobs_open: gauge(of, "quorate_jobs_open", "Jobs that have not ended."),
            executions_open: gauge(of, "quorate_executions_open", "Executions under way."),
            operators_max: gauge(of, "quorate_operators", "Operators connected on one engine: the largest quorum."),
            hosts: register(of, IntGaugeVec::new(Opts::new("quorate_hosts", "Hosts that ever joined."), &["state"])),
            hosts_devices: register(
                of,
                IntGaugeVec::new(
                    Opts::new("quorate_hosts_devices", "Connected hosts that offer to infer on such a device."),
                    &["device"],
                ),
            ),
            host_slots: gauge(of, "quorate_hosts_slots", "Tasks that the connected hosts run at a time."),
            host_in_flight: gauge(of, "quorate_hosts_in_flight", "Assignments that the connected hosts hold."),
            http,
            journal_seconds: register(of, Histogram::with_opts(seconds)),
            journal_batch: register(of, Histogram::with_opts(batch)),
            blobs: BlobMetrics::new(of, ""),
            metrics: metrics.clone(),
        }
    }

    /// Counts an event before the machine takes it.
    pub fn observe_event(&self, event: &Event) {
        self.events.count(match event {
            Event::Submitted { .. } => "submitted",
            Event::Configured { .. } => "configured",
            Event::Entered { .. } => "entered",
            Event::HostUp { .. } => "host_up",
            Event::HostDown { .. } => "host_down",
            Event::Receipt { .. } => "receipt",
            Event::Faulted { .. } => "faulted",
            Event::Checkpoint { .. } => "checkpoint",
            Event::Parted { .. } => "parted",
            Event::Found { .. } => "found",
            Event::Concatenated { .. } => "concatenated",
            Event::Broken { .. } => "broken",
            Event::Cancelled { .. } => "cancelled",
            Event::Restarted => "restarted",
            Event::HistoriesBegin => "histories_begin",
            Event::Tick => "tick",
        });
        if let Event::Receipt { receipt, task_us, .. } = event {
            let execution = &receipt.receipt().execution;
            self.receipts.count(execution.outcome.word());
            if let Some(device) = &receipt.receipt().device {
                self.receipts_inferred.count(device.kind.word());
            }
            self.fuel.inc_by(execution.fuel_used);
            self.task_seconds.observe(Duration::from_micros(*task_us).as_secs_f64());
        }
    }

    /// Counts what the machine says about it.
    pub fn observe_effect(&self, effect: &Effect) {
        match effect {
            Effect::Assign { .. } => self.assignments.inc(),
            Effect::Revoke { .. } => self.revocations.inc(),
            Effect::Keep { record: Record::Accepted(accepted), .. } => {
                self.records.count("accepted");
                self.acceptances.count(match (accepted.drawn, accepted.quorum) {
                    (_, 1) => "word",
                    (Some(_), _) => "audit",
                    (None, _) => "quorum",
                });
            }
            Effect::Keep { record: Record::Evidence(_), .. } => self.records.count("evidence"),
            Effect::Keep { record: Record::Dispute(_), .. } => self.records.count("dispute"),
            Effect::Keep { record: Record::Inconclusive(_), .. } => self.records.count("inconclusive"),
            Effect::Notify { notice, .. } => self.observe_notice(notice),
            Effect::Acknowledge { .. }
            | Effect::Concat { .. }
            | Effect::Part { .. }
            | Effect::Forget { .. }
            | Effect::Archive { .. }
            | Effect::Changed { .. }
            | Effect::Invoice { .. } => {}
        }
    }

    fn observe_notice(&self, notice: &Notice) {
        match notice {
            Notice::Planned { .. } => self.jobs_planned.inc(),
            Notice::Accepted { executions, .. } => {
                self.shards_accepted.inc();
                self.shard_executions.observe(f64::from(*executions));
            }
            Notice::Withdrawn { .. } => self.shards_withdrawn.inc(),
            Notice::Faulted { fault, .. } => self.faults.count(&fault.word),
            Notice::Caught { .. } => self.hosts_caught.inc(),
            Notice::Ended { phase } => self.jobs_ended.count(phase),
        }
    }

    /// Reads the gauges off the state: once a scrape.
    pub fn set_gauges(&self, state: &State) {
        self.jobs_open.set(level(state.open_jobs()));
        self.executions_open.set(level(state.open_count()));
        self.operators_max.set(level(state.operators_max(&EngineAsk::default())));
        let (mut connected, mut away, mut suspended, mut slots, mut in_flight) = (0, 0, 0, 0u64, 0u64);
        let mut devices = [(DeviceKind::Cpu, 0), (DeviceKind::Gpu, 0)];
        for host in state.host_views() {
            match (&host.suspended, host.connected) {
                (Some(_), _) => suspended += 1,
                (None, true) => connected += 1,
                (None, false) => away += 1,
            }
            if host.connected {
                for (kind, hosts) in &mut devices {
                    *hosts += i64::from(host.engines.has(*kind));
                }
                slots = slots.saturating_add(host.slots.into());
                in_flight = in_flight.saturating_add(host.in_flight.into());
            }
        }
        for (word, hosts) in [("connected", connected), ("away", away), ("suspended", suspended)] {
            self.hosts.with_label_values(&[word]).set(hosts);
        }
        for (kind, hosts) in devices {
            self.hosts_devices.with_label_values(&[kind.word()]).set(hosts);
        }
        self.host_slots.set(level(slots));
        self.host_in_flight.set(level(in_flight));
    }

    /// Counts one answered request; `time` runs to the head of the response. `route` is the pattern, not the path.
    pub fn http_answered(&self, route: &str, method: &str, status: u16, time: Duration) {
        let route = ROUTES.iter().find(|known| **known == route).unwrap_or(&OTHER);
        let method = METHODS.iter().find(|(known, _)| *known == method).map_or(OTHER, |(_, word)| word);
        let class = usize::from(status / 100).checked_sub(1).and_then(|class| STATUSES.get(class));
        self.http.requests.with_label_values(&[route, method, class.unwrap_or(&OTHER)]).inc();
        self.http.seconds.with_label_values(&[route]).observe(time.as_secs_f64());
    }

    /// A request came, or its response began.
    pub fn http_in_flight(&self, change: i64) {
        self.http.in_flight.add(change);
    }

    /// A connection was opened, or closed.
    pub fn http_connections(&self, change: i64) {
        self.http.connections.add(change);
    }

    /// Counts one commit of the journal.
    pub fn journal_committed(&self, events: usize, seconds: f64) {
        self.journal_seconds.observe(seconds);
        self.journal_batch.observe(events as f64);
    }

    /// Reads what the store says: once a scrape.
    pub fn set_blobs(&self, usage: Usage, stats: StoreStats) {
        self.blobs.set(usage, stats);
    }

    /// The text format of the whole process, as Prometheus scrapes it.
    pub fn render(&self) -> String {
        self.metrics.render()
    }
}
