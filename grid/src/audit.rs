//! How often an operator's results are audited: once it has signed, and more often the less is known of it.
//!
//! ```text
//! q = max(q_min, t0 / (t (1 - f)), mu v / ((S + mu v) (1 - f^m)))
//! ```
//!
//! - `t`: the worth of its work that was checked and held, [`Standing`](crate::reputation::Standing): what was paid for it, or would
//!   have been at the least of the prices of those that signed it. Below `t0` it is a newcomer and decides nothing by itself; above, the second term falls as its record grows, so that who comes back under a new name
//!   has bought little with the old one.
//! - `S`: what it loses even if it lied alone and keeps its stake, `v`: what this task is worth, `mu`: a margin. With the third term a lie does not pay, since
//!   `S d >= (1 - d) v` for `d = q (1 - f^m)`, the chance that one lie is caught.
//! - `f`: the share of colluding work that is reckoned with, `m`: auditors of an audit. An auditor of them confirms the lie.
//! - `q_min` holds for everybody, always. With the usual one of 5 %, one auditor and a fifth of bad work a lie about a task does not pay for
//!   whoever has a stake of 25 tasks alone: what else it may lose is on top, and none of it needs to be believed.
//!
//! All in whole numbers, so that every machine finds the same rate: worth in micro-credits, shares in parts per million.

use registry::{
    audit::PPM,
    job::Policy,
    reputation::{FREE_TASK_MICRO, StandingRules},
};
use serde::{Deserialize, Serialize};

use crate::bounds::{self, OutOfBounds};

/// What one task is worth, in micro-credits, as long as nobody pays for it and nobody says otherwise.
pub const TASK_MICRO: u64 = FREE_TASK_MICRO;
/// Most that a worth may be; with it no product of two overflows 128 bits.
const WORTH_MICRO_MAX: u64 = 1 << 60;

/// A century.
const HALF_LIFE_MS_MAX: u64 = 100 * 365 * 24 * 3_600 * 1_000;

/// Rates are up to so many times the least one, as a rule.
const USUAL_RATES: u32 = 2;

/// The rates' parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// `q_min`: every operator's results are audited at this rate at least, in parts per million.
    pub rate_ppm_min: u32,
    /// `t0`: an operator whose checked work is worth less is a newcomer, in micro-credits.
    pub newcomer_micro: u64,
    /// `f`: share of colluding work that is reckoned with, in parts per million.
    pub colluding_ppm: u32,
    /// `mu`: how much dearer than its gain a lie shall be, in parts per million.
    pub margin_ppm: u32,
    /// `m`: further operators that an audit asks.
    pub auditors: u8,
    /// Part of `S` that no ledger knows of: what being expelled costs an operator besides what it has earned, since it had to work for its
    /// standing; in micro-credits.
    pub stake_micro: u64,
    /// Distinct operators that have to agree where none has standing.
    pub newcomers_quorum: u8,
    /// Accepted results that newcomers may repeat to gain standing, in parts per million of all.
    pub qualification_ppm: u32,
    /// Results that they may repeat before anything was accepted.
    pub qualification_first: u32,
    /// Accepted results that are remembered for that.
    pub qualification_window: usize,
    /// Time in which standing halves.
    pub half_life_ms: u64,
    /// What a result is worth that nobody pays for, in micro-credits: for standing, and as what a lie about it gains.
    #[serde(skip_serializing_if = "registry::reputation::is_usual")]
    pub free_task_micro: u64,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            rate_ppm_min: 50_000,
            newcomer_micro: 2_000 * TASK_MICRO,
            colluding_ppm: 200_000,
            margin_ppm: PPM,
            auditors: 1,
            stake_micro: 25 * TASK_MICRO,
            newcomers_quorum: 2,
            qualification_ppm: 50_000,
            qualification_first: 16,
            qualification_window: 1_024,
            half_life_ms: 90 * 24 * 3_600 * 1_000,
            free_task_micro: FREE_TASK_MICRO,
        }
    }
}

impl AuditConfig {
    /// What standing is reckoned by.
    pub fn rules(&self) -> StandingRules {
        let Self { half_life_ms, newcomer_micro, free_task_micro, .. } = *self;
        StandingRules { half_life_ms, newcomer_micro, free_task_micro }
    }

    /// Whether results can be audited by these, where a shard may have so many executions: something is audited always, by somebody, and a
    /// lie is to cost what it gains at least.
    ///
    /// # Errors
    /// Names the first that is out of its bounds.
    pub fn check(&self, replicas_max: u8) -> Result<(), OutOfBounds> {
        let (whole, others) = (u64::from(PPM), u64::from(replicas_max.saturating_sub(1)));
        bounds::check([
            ("audit.rate_ppm_min", self.rate_ppm_min.into(), 1, whole),
            ("audit.newcomer_micro", self.newcomer_micro, 0, WORTH_MICRO_MAX),
            ("audit.colluding_ppm", self.colluding_ppm.into(), 0, whole - 1),
            ("audit.margin_ppm", self.margin_ppm.into(), whole, 1_000 * whole),
            ("audit.auditors", self.auditors.into(), 1, others),
            ("audit.stake_micro", self.stake_micro, 0, WORTH_MICRO_MAX),
            ("audit.newcomers_quorum", self.newcomers_quorum.into(), 2, replicas_max.into()),
            ("audit.qualification_ppm", self.qualification_ppm.into(), 0, whole),
            ("audit.half_life_ms", self.half_life_ms, 1, HALF_LIFE_MS_MAX),
            ("audit.free_task_micro", self.free_task_micro, 1, WORTH_MICRO_MAX),
        ])
    }

    /// Which part of a job's results is audited as a rule, in parts per million, and by how many: what its budget is reckoned with.
    pub fn usual(&self, policy: Policy) -> (u32, u8) {
        match policy {
            Policy::Audit => (self.rate_ppm_min.saturating_mul(USUAL_RATES), self.auditors),
            Policy::None | Policy::Quorum(_) => (0, 0),
        }
    }
}

/// The audit rate in parts per million of an operator with so much checked work, which can lose so much, for a task worth so
/// much; all in micro-credits.
pub fn rate_ppm(config: &AuditConfig, checked_micro: u64, at_risk_micro: u64, task_micro: u64) -> u32 {
    let whole = u128::from(PPM);
    let honest = whole - u128::from(config.colluding_ppm.min(PPM - 1));
    let bounded = |worth: u64| u128::from(worth.min(WORTH_MICRO_MAX));
    let by_record = (bounded(config.newcomer_micro) * whole * whole).div_ceil((bounded(checked_micro) * honest).max(1));
    let gain = bounded(task_micro) * u128::from(config.margin_ppm) / whole;
    let told = whole - power_ppm(config.colluding_ppm, config.auditors);
    let by_gain = (gain * whole).div_ceil((bounded(at_risk_micro) + gain).max(1));
    let by_gain = (by_gain * whole).div_ceil(told.max(1));
    let rate = by_record.max(by_gain).max(u128::from(config.rate_ppm_min)).min(whole);
    u32::try_from(rate).unwrap_or(PPM)
}

/// `share` to the power of `times`, both in parts per million.
fn power_ppm(share_ppm: u32, times: u8) -> u128 {
    (0..times).fold(u128::from(PPM), |product, _| product * u128::from(share_ppm.min(PPM)) / u128::from(PPM))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(checked_tasks: u64, stake_tasks: u64) -> u32 {
        rate_ppm(&AuditConfig::default(), checked_tasks * TASK_MICRO, stake_tasks * TASK_MICRO, TASK_MICRO)
    }

    #[test]
    fn the_rate_falls_with_the_record_down_to_what_the_stake_bears() {
        // t0 = 2,000 and f = 0.2: 2,500 checked tasks are audited always, ten times as many at a tenth.
        assert_eq!(rate(0, 1_000), PPM);
        assert_eq!(rate(2_500, 1_000), PPM);
        assert_eq!(rate(25_000, 1_000), 100_000);
        // 20 tasks at risk: 1 / 21 / 0.8.
        assert_eq!(rate(10_000_000, 20), 59_525);
        assert_eq!(rate(10_000_000, 1_000_000), 50_000, "the least is audited, whatever speaks for the host");
        assert_eq!(rate(10_000_000, 0), PPM, "who has nothing to lose is audited always");
    }

    #[test]
    fn more_auditors_need_fewer_audits() {
        let config = AuditConfig { auditors: 2, ..AuditConfig::default() };
        // 1 / 16 / 0.96
        assert_eq!(rate_ppm(&config, 10_000_000 * TASK_MICRO, 15 * TASK_MICRO, TASK_MICRO), 65_105);
    }

    proptest! {
        #[test]
        fn a_lie_never_pays_and_no_number_is_too_large(
            checked in any::<u64>(),
            at_risk in any::<u64>(),
            task in any::<u64>(),
            colluding_ppm in 0..=PPM,
            auditors in 1u8..5,
        ) {
            let config = AuditConfig { colluding_ppm, auditors, ..AuditConfig::default() };
            let rate = rate_ppm(&config, checked, at_risk, task);
            prop_assert!((config.rate_ppm_min..=PPM).contains(&rate));
            let caught = f64::from(rate) / 1e6 * (1.0 - (f64::from(colluding_ppm) / 1e6).powi(auditors.into()));
            let (at_risk, task) = (at_risk.min(WORTH_MICRO_MAX) as f64, task.min(WORTH_MICRO_MAX) as f64);
            prop_assert!(rate == PPM || at_risk * caught >= (1.0 - caught) * task * 0.999);
        }

        #[test]
        fn a_better_record_never_raises_the_rate(checked in any::<u32>(), more in any::<u32>(), at_risk in any::<u32>()) {
            let rate = |checked: u64| rate_ppm(&AuditConfig::default(), checked, at_risk.into(), TASK_MICRO);
            prop_assert!(rate(u64::from(checked) + u64::from(more)) <= rate(checked.into()));
        }
    }
}
