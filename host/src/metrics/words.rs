//! The closed sets of words that labels come from.

/// Routes of the gateway, as they are labelled; see `gateway::router`.
pub(super) const ROUTES: &[&str] = &[
    "/healthz",
    "/metrics",
    "/v1/blobs",
    "/v1/blobs/{hash}",
    "/v1/names",
    "/v1/names/{publisher}/{name}/{version}",
    "/v1/jobs",
    "/v1/jobs/{id}",
    "/v1/jobs/{id}/events",
    "/v1/jobs/{id}/results",
    "/v1/jobs/{id}/results/files",
    "/v1/jobs/{id}/results/files/{shard}/{*path}",
    "/v1/jobs/{id}/receipts",
    "/v1/jobs/{id}/receipts/{index}",
    "/v1/jobs/{id}/log",
    "/v1/jobs/{id}/spec",
    "/v1/jobs/{id}/shards/{stage}/{index}/input",
    "/v1/jobs/{id}/shards/{stage}/{index}/output",
    "/v1/jobs/{id}/shards/{stage}/{index}/stdout",
    "/v1/jobs/{id}/why",
    "/v1/jobs/{id}/invoice",
    "/v1/quote",
    "/v1/ledger",
    "/v1/ledger/statement",
    "/v1/reputation",
    "/v1/reputation/{operator}/history",
    "/v1/engine",
    "/v1/nodes",
    "/v1/ticket",
];
pub(super) const METHODS: &[(&str, &str)] = &[("GET", "get"), ("HEAD", "head"), ("POST", "post"), ("DELETE", "delete")];
pub(super) const STATUSES: &[&str] = &["1xx", "2xx", "3xx", "4xx", "5xx"];
/// How results come to be accepted.
pub(super) const ACCEPTANCES: &[&str] = &["word", "audit", "quorum"];
pub(super) const EVENTS: &[&str] = &[
    "submitted",
    "configured",
    "entered",
    "host_up",
    "host_down",
    "receipt",
    "faulted",
    "checkpoint",
    "parted",
    "found",
    "concatenated",
    "broken",
    "cancelled",
    "restarted",
    "histories_begin",
    "tick",
];
/// Kinds of records, see `registry::receipt::Record`.
pub(super) const RECORDS: &[&str] = &["accepted", "evidence", "dispute", "inconclusive"];
pub(super) const OUTCOMES: &[&str] = &["ok", "exit", "trap", "fuel_out", "memory_out", "output_out"];
/// Words of faults: those of `sandbox::HostFault`, of the compiler, of the dispatch, and of the worker.
pub(super) const FAULTS: &[&str] = &[
    "deadline",
    "cancelled",
    "module_missing",
    "model_missing",
    "model",
    "model_memory",
    "model_too_large",
    "host_memory",
    "stack_overflow",
    "limit_too_large",
    "bad_request",
    "no_slot",
    "no_engine",
    "engine_lacks",
    "backend",
    "sandbox_died",
    "internal",
    "host_restarted",
    "host_lost",
    "lease",
    "garbage",
    "content_missing",
    "receipt_log",
    "compile",
    "compile_budget",
    "compiler_crashed",
    "compiler_failed",
    "evicted",
    "input_hash",
    "snapshot",
    "state_missing",
    "record_missing",
    "record_wrong",
    "evicted",
    "no_input",
    "output_limit",
    "output_missing",
    "output_store",
    "queue_full",
    "shutting_down",
    "attempts",
    "inconclusive",
];
/// Kinds of devices, see `registry::device`.
pub(super) const DEVICES: &[&str] = &["cpu", "gpu"];
/// Why a sandbox process ended: see `sandbox::ProcessStats`.
pub(super) const SANDBOX_ENDS: &[&str] = &["idle", "retired", "deadline", "cancelled", "garbage", "died"];
/// In the order of `sandbox::CompileStats`.
pub(super) const COMPILES: &[&str] = &["compiled", "cached", "refused", "failed"];
/// In the order of `sandbox::ModelStats`.
pub(super) const MODELS: &[&str] = &["found", "loaded", "refused", "evicted"];
pub(super) const PHASES: &[&str] = &["done", "failed", "cancelled"];
