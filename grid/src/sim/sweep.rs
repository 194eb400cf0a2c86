//! Many runs: over shares of liars and over seeds, with the spread.
//!
//! [`plan`] lists the runs and [`points`] sums up their reports, so that whoever has threads may run them in any order in between.

use std::{collections::BTreeMap, fmt, ops::Range};

use serde::Serialize;

use super::{
    Adversary, Broken, Options, Report, report::Executions, run as run_one, statistics::Share, stepped::Stepped,
};

/// What several seeds of the same options gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// Who worked against the grid.
    pub adversary: Adversary,
    /// How results were checked.
    pub policy: String,
    /// How many liars there were, in parts per million.
    pub liars_ppm: u32,
    /// How many runs this is of.
    pub seeds: u64,
    /// Accepted results that are wrong, in all runs.
    pub wrong: Share,
    /// The bound of that share, exceeded with a chance of 5 %.
    pub wrong_bound_95: f64,
    /// The share in the best and in the worst run.
    pub wrong_spread: (f64, f64),
    /// Executions for each accepted result, over all runs.
    pub cost: f64,
    /// The same in the cheapest and in the dearest run.
    pub cost_spread: (f64, f64),
    /// Executions that were ordered, by what for, in all runs.
    pub executions: Executions,
    /// What came of steps, in all runs, where tasks have any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stepped: Option<Stepped>,
    /// Accepted results, in all runs.
    pub accepted: u64,
    /// Honest operators that get no more work, in all runs.
    pub honest_suspended: u64,
    /// Names under which something wrong was signed, and those that were caught.
    pub lied: u64,
    /// Those of them that were caught.
    pub caught: u64,
    /// What lying has brought liars less what it has cost them, in tasks, in the run in which that is most.
    pub balance_max: i64,
    /// Jobs that were not done.
    pub jobs_failed: u64,
    /// Time until a result stands that one in a hundred takes longer than, in the worst run.
    pub accepted_after_ms_p99: u64,
}

/// The runs of a sweep.
pub fn plan(options: &Options, liars_ppm: &[u32], seeds: Range<u64>) -> Vec<Options> {
    let each = |liars_ppm: u32| seeds.clone().map(move |seed| Options { liars_ppm, seed, ..options.clone() });
    liars_ppm.iter().flat_map(|liars_ppm| each(*liars_ppm)).collect()
}

/// Sums up what runs gave, a point for each adversary, policy and share of liars.
pub fn points(reports: &[Report]) -> Vec<Point> {
    let mut groups: BTreeMap<(Adversary, &str, u32), Vec<&Report>> = BTreeMap::new();
    for report in reports {
        groups.entry((report.adversary, &report.policy, report.liars_ppm)).or_default().push(report);
    }
    groups.into_values().filter_map(|group| point(&group)).collect()
}

/// Runs a sweep, one run after another.
///
/// # Errors
/// The first invariant that did not hold.
pub fn run(options: &Options, liars_ppm: &[u32], seeds: Range<u64>) -> Result<Vec<Point>, Broken> {
    let reports: Result<Vec<Report>, Broken> = plan(options, liars_ppm, seeds).iter().map(run_one).collect();
    Ok(points(&reports?))
}

fn point(group: &[&Report]) -> Option<Point> {
    let first = group.first()?;
    let spread = |value: fn(&Report) -> f64| {
        let values = group.iter().map(|report| value(report));
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(value), most.max(value)))
    };
    let sum = |value: fn(&Report) -> u64| group.iter().map(|report| value(report)).sum::<u64>();
    let wrong = group.iter().fold(Share::default(), |sum, report| sum.and(report.wrong));
    let executions = group.iter().fold(Executions::default(), |sum, report| sum.and(&report.executions));
    let stepped = group.iter().filter_map(|report| report.stepped).reduce(|sum, stepped| sum.and(&stepped));
    let all = executions.sum() as f64 + stepped.map_or(0.0, |stepped| stepped.trial_executions());
    let accepted = sum(|report| report.accepted);
    Some(Point {
        adversary: first.adversary,
        policy: first.policy.clone(),
        liars_ppm: first.liars_ppm,
        seeds: group.len() as u64,
        wrong,
        wrong_bound_95: wrong.bound_95(),
        wrong_spread: spread(|report| report.wrong.value()),
        cost: all / accepted.max(1) as f64,
        cost_spread: spread(|report| report.cost),
        executions,
        stepped,
        accepted,
        honest_suspended: sum(|report| report.honest_suspended),
        lied: sum(|report| report.ejection.lied),
        caught: sum(|report| report.ejection.caught),
        balance_max: group.iter().map(|report| report.purse.balance()).max().unwrap_or(0),
        jobs_failed: sum(Report::jobs_failed),
        accepted_after_ms_p99: group.iter().map(|report| report.accepted_after_ms.p99).max().unwrap_or(0),
    })
}

/// Points as a table, a line each.
#[derive(Debug)]
pub struct Table<'a>(pub &'a [Point]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<26}{:<10}{:>7}{:>6}{:>9}{:>10}{:>10}{:>10}{:>8}{:>15}{:>8}{:>8}{:>8}{:>8}{:>9}{:>7}{:>7}",
            "adversary",
            "policy",
            "liars",
            "seeds",
            "wrong",
            "share",
            "95 %",
            "worst",
            "cost",
            "spread",
            "audits",
            "qualif.",
            "disputes",
            "again",
            "balance",
            "failed",
            "honest"
        )?;
        for point in self.0 {
            let each = |count: u64| count as f64 / point.accepted.max(1) as f64;
            let (least, most) = point.cost_spread;
            writeln!(
                f,
                "{:<26}{:<10}{:>6.1}%{:>6}{:>9}{:>10.1e}{:>10.1e}{:>10.1e}{:>8.4}{:>15}{:>8.4}{:>8.4}{:>8.4}{:>8.4}{:>9}{:>7}{:>7}",
                point.adversary.to_string(),
                point.policy,
                f64::from(point.liars_ppm) / 1e4,
                point.seeds,
                point.wrong.events,
                point.wrong.value(),
                point.wrong_bound_95,
                point.wrong_spread.1,
                point.cost,
                format!("{least:.4}-{most:.4}"),
                each(point.executions.audits),
                each(point.executions.qualification),
                each(point.executions.disputes),
                each(point.executions.again),
                point.balance_max,
                point.jobs_failed,
                point.honest_suspended,
            )?;
        }
        self.fmt_stepped(f)
    }
}

impl Table<'_> {
    /// What came of steps, in a table of its own; nothing where no task has any.
    fn fmt_stepped(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stepped: Vec<_> = self.0.iter().filter_map(|point| Some((point, point.stepped?))).collect();
        if stepped.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\n{:<26}{:<10}{:>7}{:>9}{:>8}{:>8}{:>8}{:>10}{:>8}{:>8}{:>10}{:>11}{:>8}{:>9}",
            "adversary",
            "policy",
            "liars",
            "segments",
            "trials",
            "settled",
            "failed",
            "overtaken",
            "states",
            "in vain",
            "refereed",
            "executions",
            "resumed",
            "saved"
        )?;
        for (point, stepped) in stepped {
            let trials = &stepped.trials;
            writeln!(
                f,
                "{:<26}{:<10}{:>6.1}%{:>9}{:>8}{:>8}{:>8}{:>10}{:>8}{:>8}{:>10}{:>11.1}{:>8}{:>9.1}",
                point.adversary.to_string(),
                point.policy,
                f64::from(point.liars_ppm) / 1e4,
                stepped.segments,
                trials.begun,
                trials.settled,
                trials.failed,
                trials.overtaken,
                trials.states_asked,
                trials.states_in_vain(),
                trials.segments_refereed,
                stepped.trial_executions(),
                stepped.checkpoints.resumed,
                stepped.saved_executions(),
            )?;
        }
        Ok(())
    }
}
