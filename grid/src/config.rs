//! The parameters of the decisions. Times are milliseconds.

use std::collections::BTreeSet;

use registry::id::OperatorId;
use serde::{Deserialize, Serialize};

use crate::{
    audit::AuditConfig,
    bounds::{self, OutOfBounds},
    ledger::Rules,
};

/// Parameters of one grid. Part of the machine's state: a replay uses the ones that decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Executions of distinct operators that a disputed shard may have before it is inconclusive.
    pub replicas_max: u8,
    /// Added to a task's own wall limit before its lease ends: queueing at the host, transfer, signing.
    pub lease_slack_ms: u64,
    /// How long a host may be away before its work moves.
    pub host_grace_ms: u64,
    /// Wait before the first retry of a faulted shard; doubles with each further fault.
    pub retry_ms_min: u64,
    /// Longest wait before a retry.
    pub retry_ms_max: u64,
    /// A running execution is no straggler before this time.
    pub hedge_ms_min: u64,
    /// A straggler has run this many times as long as the job's average execution.
    pub hedge_factor: u64,
    /// Work that a host is given ahead, as the time that it takes.
    pub ahead_ms: u64,
    /// Hosts that are looked at for one placement.
    pub candidates_max: usize,
    /// Shards of a job that are looked at before a free host is left idle.
    pub scan_max: usize,
    /// Jobs that are looked at for one event before the others have to wait for the next.
    pub scan_jobs_max: usize,
    /// Finished jobs that are remembered.
    pub finished_jobs_max: usize,
    /// Shards of finished jobs that are remembered; the job that finished last stays however many it has.
    pub finished_shards_max: u64,
    /// Jobs that may be unfinished at a time.
    pub open_jobs_max: usize,
    /// Operators that the grid's owner answers for: they have standing from the start, and referee where results differ.
    pub vouched: BTreeSet<OperatorId>,
    /// How often results are audited.
    pub audit: AuditConfig,
    /// When what was earned is settled, and who gets what a liar loses.
    pub ledger: Rules,
    /// Postings that are kept at hand; half of them are archived when there are more.
    pub postings_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            replicas_max: 5,
            lease_slack_ms: 30_000,
            host_grace_ms: 3_000,
            retry_ms_min: 50,
            retry_ms_max: 10_000,
            hedge_ms_min: 2_000,
            hedge_factor: 4,
            ahead_ms: 50,
            candidates_max: 64,
            scan_max: 32,
            scan_jobs_max: 256,
            finished_jobs_max: 10_000,
            finished_shards_max: 100_000,
            open_jobs_max: 10_000,
            vouched: BTreeSet::new(),
            audit: AuditConfig::default(),
            ledger: Rules::default(),
            postings_max: 16_384,
        }
    }
}

impl Config {
    /// Whether a grid can decide by these. The ledger's rules are checked by themselves: see [`Rules::check`].
    ///
    /// # Errors
    /// Names the first that is out of its bounds.
    pub fn check(&self) -> Result<(), OutOfBounds> {
        let day = 86_400_000;
        let looked_at = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let many = 1 << 20;
        bounds::check([
            // Two that differ and a referee.
            ("replicas_max", self.replicas_max.into(), 3, 64),
            ("lease_slack_ms", self.lease_slack_ms, 1, day),
            ("host_grace_ms", self.host_grace_ms, 1, day),
            ("retry_ms_max", self.retry_ms_max, 1, day),
            ("retry_ms_min", self.retry_ms_min, 1, self.retry_ms_max),
            ("hedge_ms_min", self.hedge_ms_min, 1, day),
            ("hedge_factor", self.hedge_factor, 1, 1_000),
            ("ahead_ms", self.ahead_ms, 0, day),
            ("candidates_max", looked_at(self.candidates_max), 1, many),
            ("scan_max", looked_at(self.scan_max), 1, many),
            ("scan_jobs_max", looked_at(self.scan_jobs_max), 1, many),
            ("finished_jobs_max", looked_at(self.finished_jobs_max), 1, 1 << 32),
            ("open_jobs_max", looked_at(self.open_jobs_max), 1, 1 << 32),
            ("postings_max", looked_at(self.postings_max), 1, 1 << 32),
        ])?;
        self.audit.check(self.replicas_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_could_decide_by_is_refused_by_name() {
        Config::default().check().unwrap();
        let audit = AuditConfig::default();
        let audited = |audit: AuditConfig| Config { audit, ..Config::default() };
        for (config, expected) in [
            (
                Config { candidates_max: 0, ..Config::default() },
                "candidates_max is 0, outside the bounds of 1 to 1048576",
            ),
            (
                Config { retry_ms_min: 20_000, ..Config::default() },
                "retry_ms_min is 20000, outside the bounds of 1 to 10000",
            ),
            (Config { replicas_max: 2, ..Config::default() }, "replicas_max is 2"),
            (
                audited(AuditConfig { rate_ppm_min: 0, ..audit }),
                "audit.rate_ppm_min is 0, outside the bounds of 1 to 1000000",
            ),
            (audited(AuditConfig { colluding_ppm: 1_000_000, ..audit }), "audit.colluding_ppm is 1000000"),
            (audited(AuditConfig { margin_ppm: 999_999, ..audit }), "audit.margin_ppm is 999999"),
            (audited(AuditConfig { auditors: 0, ..audit }), "audit.auditors is 0, outside the bounds of 1 to 4"),
            (audited(AuditConfig { newcomers_quorum: 1, ..audit }), "audit.newcomers_quorum is 1"),
            (audited(AuditConfig { half_life_ms: 0, ..audit }), "audit.half_life_ms is 0"),
        ] {
            let refusal = config.check().unwrap_err().to_string();
            assert!(refusal.starts_with(expected), "{refusal}");
        }
    }
}
