//! What a job will cost, before it runs: from one task that was tried (the manifest's sample, or a dry run) and the prices.
//!
//! Three numbers. *Expected* is what it costs if every task is as the one that was tried. *Least cap* is the smallest cap
//! under which it then also ends: the last task can only be ordered while its worst case is free, and so can the last audit.
//! *Worst* is what it never costs more than.
//!
//! How many audits there are is drawn at random. The reserve is for the mean, three times its square root and three more:
//! fewer than one job in a thousand draws more (`tests`), and those take the rest of the cap.

use registry::{
    credits::{Credits, CreditsError, PPM},
    device::DeviceAsk,
    id::PriceId,
    job::Limits,
    price::{Bill, PriceError, PriceTable, Usage},
};
use serde::{Deserialize, Serialize};

/// What is to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// What a task used when it was tried.
    pub sample: Usage,
    /// What each task may use.
    pub limits: Limits,
    /// What its models run on.
    pub device: DeviceAsk,
    /// Tasks, the reduce among them.
    pub tasks: u32,
    /// Executions of each that have to agree.
    pub replicas: u8,
    /// Executions of each that are paid at most, if they do not.
    pub replicas_max: u8,
    /// Millionths of the tasks that are audited.
    pub audit_ppm: u32,
    /// Auditors of each.
    pub auditors: u8,
    /// What the job may cost.
    pub cap: Credits,
}

/// What it will cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quote {
    /// At which prices.
    pub prices: PriceId,
    /// A task as it was tried.
    pub task: Bill,
    /// The most that one execution can cost, and so what is held for it.
    pub task_worst: Credits,
    /// Executions for the result.
    pub executions: u64,
    /// Executions that audits are expected to take, rounded up.
    pub audits: u64,
    /// Executions that the audit reserve is for.
    pub audits_reserved: u64,
    /// For the result.
    pub work: Credits,
    /// For audits, as expected.
    pub audit: Credits,
    /// What of the cap is set aside for audits and disputes: [`Terms::audit_reserve`](super::Terms::audit_reserve).
    pub audit_reserve: Credits,
    /// Work and audits.
    pub expected: Credits,
    /// The smallest cap under which the job ends if its tasks are as the one that was tried.
    pub cap_least: Credits,
    /// What the job never costs more than, whatever its cap.
    pub worst: Credits,
    /// Whether the cap is as large as the least one.
    pub fits: bool,
}

/// Why there is no quote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// There is no bill for a task.
    #[error("no quote: {0}")]
    Price(#[from] PriceError),
    /// The job could cost more than there may be.
    #[error("no quote: {0}; lower the limits of its tasks, or split the job")]
    Credits(#[from] CreditsError),
    /// A task that was tried does not fit the limits that it is asked for with.
    #[error("no quote: the task that was tried used {used} of {what}, and the limit is {limit}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// By the one that was tried.
        used: u64,
        /// Allowed.
        limit: u64,
    },
}

/// What the job will cost at these prices.
///
/// # Errors
/// When a price is out of bounds, the sample over the limits, or the worst case over the bound of [`Credits`].
pub fn quote(ask: &Ask, prices: &PriceTable) -> Result<Quote, QuoteError> {
    check_sample(ask)?;
    let task = prices.bill(&ask.sample)?;
    let task_worst = prices.worst(&ask.limits, ask.device)?.total;
    let tasks = u64::from(ask.tasks);
    let executions = tasks * u64::from(ask.replicas);
    let auditors = u64::from(ask.auditors);
    let audited = (tasks * u64::from(ask.audit_ppm.min(PPM))).div_ceil(PPM.into());
    let (audits, audits_reserved) = (audited * auditors, reserved(audited).min(tasks) * auditors);
    let work = task.total.times(executions)?;
    let audit = task.total.times(audits)?;
    let audit_reserve = up_to_the_last(audits_reserved, task.total, task_worst)?;
    let cap_least = up_to_the_last(executions, task.total, task_worst)?.plus(audit_reserve)?;
    let audits_most = if audited == 0 { 0 } else { tasks * auditors };
    let replicas_most = u64::from(ask.replicas.max(ask.replicas_max));
    Ok(Quote {
        prices: prices.id(),
        task,
        task_worst,
        executions,
        audits,
        audits_reserved,
        work,
        audit,
        audit_reserve,
        expected: work.plus(audit)?,
        cap_least,
        worst: task_worst.times(tasks * replicas_most + audits_most)?,
        fits: ask.cap >= cap_least,
    })
}

fn check_sample(ask: &Ask) -> Result<(), QuoteError> {
    let Ask { sample, limits, .. } = ask;
    let bounds = [
        ("fuel", sample.fuel, limits.fuel_max),
        ("memory in bytes", sample.memory_bytes, limits.memory_bytes_max),
        ("output in bytes", sample.output_bytes, limits.output_bytes_max),
    ];
    match bounds.into_iter().find(|(_, used, limit)| used > limit) {
        Some((what, used, limit)) => Err(QuoteError::Limit { what, used, limit }),
        None => Ok(()),
    }
}

/// What of a cap is set aside for audits when it is not known what a task takes: their share of all executions.
pub fn audit_reserve(cap: Credits, tasks: u32, replicas: u8, rate_ppm: u32, auditors: u8) -> Credits {
    let audited = (u64::from(tasks) * u64::from(rate_ppm.min(PPM))).div_ceil(PPM.into());
    let audits = u128::from(reserved(audited).min(tasks.into())) * u128::from(auditors);
    let all = (u128::from(tasks) * u128::from(replicas.max(1)) + audits).max(1);
    cap.share(u32::try_from(audits * u128::from(PPM) / all).unwrap_or(PPM))
}

/// Audits that a reserve is for when so many are expected.
pub(super) fn reserved(expected: u64) -> u64 {
    if expected == 0 { 0 } else { expected + 3 * (expected.isqrt() + 1) + 3 }
}

/// So many executions, and room for the worst case of the last.
fn up_to_the_last(executions: u64, each: Credits, worst: Credits) -> Result<Credits, CreditsError> {
    match executions.checked_sub(1) {
        None => Ok(Credits::ZERO),
        Some(others) => each.times(others)?.plus(worst),
    }
}
