//! What is told of a run: what it cost, what was wrong, who was caught, how long results took.

use std::{collections::BTreeMap, fmt};

use registry::{
    canon,
    receipt::{Output, Receipt},
};
use serde::Serialize;

use super::{
    Adversary,
    purse::Purse,
    random::mix,
    statistics::{Percentiles, Share},
    stepped::Stepped,
    work::{Answer, Work},
    world::{Operator, World},
};
use crate::{dispatch::Purpose, flow::Millis};

/// A signature with its key.
const SIGNED_BYTES: usize = 64 + 32;

/// What is counted while a run goes on.
#[derive(Debug)]
pub(super) struct Tally {
    began_ms: Millis,
    pub(super) events: u64,
    pub(super) receipts: u64,
    pub(super) faults: u64,
    /// Results of ended jobs that were replaced.
    pub(super) put_right: u64,
    executions: Executions,
    wrong: u64,
    accepted: u64,
    unsteady: u64,
    withdrawn: u64,
    wrong_withdrawn: u64,
    jobs: BTreeMap<String, u64>,
    waits_ms: Vec<u64>,
    peak: Peak,
    audit_bytes: u64,
    pub(super) stepped: Stepped,
    digest: u64,
}

/// Executions that were ordered, by what for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Executions {
    /// What the policy asks for before anything is known.
    pub work: u64,
    /// Repetitions of what was drawn, or of what only a newcomer has signed.
    pub audits: u64,
    /// Repetitions by newcomers.
    pub qualification: u64,
    /// Where results differed.
    pub disputes: u64,
    /// In place of slow ones, lost ones, and such as are not believed any more.
    pub again: u64,
}

impl Executions {
    /// Both of two.
    pub fn and(self, other: &Self) -> Self {
        Self {
            work: self.work + other.work,
            audits: self.audits + other.audits,
            qualification: self.qualification + other.qualification,
            disputes: self.disputes + other.disputes,
            again: self.again + other.again,
        }
    }

    /// All of them.
    pub fn sum(&self) -> u64 {
        self.work + self.audits + self.qualification + self.disputes + self.again
    }
}

/// The most that there was of something at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Peak {
    /// Executions under way.
    pub open_executions: usize,
    /// Unfinished jobs.
    pub open_jobs: usize,
    /// Things that were to happen.
    pub queue: usize,
    /// Hosts that ever joined.
    pub hosts: usize,
}

impl Tally {
    pub(super) fn new(began_ms: Millis) -> Self {
        Self {
            began_ms,
            events: 0,
            receipts: 0,
            faults: 0,
            put_right: 0,
            executions: Executions::default(),
            wrong: 0,
            accepted: 0,
            unsteady: 0,
            withdrawn: 0,
            wrong_withdrawn: 0,
            jobs: BTreeMap::new(),
            waits_ms: Vec::new(),
            peak: Peak::default(),
            audit_bytes: 0,
            stepped: Stepped::default(),
            digest: 0,
        }
    }

    /// Something was decided: two runs that decide the same have the same digest.
    pub(super) fn note(&mut self, kind: u64, which: u64) {
        self.digest = mix(self.digest ^ mix(kind << 56 ^ which)).wrapping_add(self.events);
    }

    pub(super) fn ordered(&mut self, purpose: Option<Purpose>) {
        let counted = match purpose {
            Some(Purpose::Work) | None => &mut self.executions.work,
            Some(Purpose::Audit) => &mut self.executions.audits,
            Some(Purpose::Qualification) => &mut self.executions.qualification,
            Some(Purpose::Dispute) => &mut self.executions.disputes,
            Some(Purpose::Again) => &mut self.executions.again,
        };
        *counted += 1;
    }

    /// Measures the first receipt: the others are as long.
    pub(super) fn sized(&mut self, receipt: &Receipt, output: &Output) {
        if self.audit_bytes == 0 {
            let bytes = canon::encode(receipt).len() + canon::encode(output).len() + SIGNED_BYTES;
            self.audit_bytes = bytes as u64;
        }
    }

    pub(super) fn withdrawn(&mut self, answer: Option<Answer>) {
        self.withdrawn += 1;
        self.wrong_withdrawn += u64::from(answer.is_some_and(|answer| answer != Answer::TRUTH));
    }

    pub(super) fn ended(&mut self, work: &Work, phase: &str, operators: &mut [Operator]) {
        *self.jobs.entry(phase.to_owned()).or_default() += 1;
        if phase != "done" {
            return;
        }
        for task in &work.tasks {
            let Some((answer, when)) = task.stands else { continue };
            self.accepted += 1;
            self.waits_ms.push(when.saturating_sub(task.ordered_ms.unwrap_or(work.submitted_ms)));
            if work.is_unsteady {
                self.unsteady += 1;
            } else if answer != Answer::TRUTH {
                self.wrong += 1;
                if let Some((operator, _)) = task.votes.iter().find(|(_, other)| *other == answer) {
                    operators[*operator as usize].wrong += 1;
                }
            }
        }
    }

    pub(super) fn peak(&mut self, open_executions: usize, queue: usize, open_jobs: usize, hosts: usize) {
        let peak = &mut self.peak;
        peak.open_executions = peak.open_executions.max(open_executions);
        peak.queue = peak.queue.max(queue);
        peak.open_jobs = peak.open_jobs.max(open_jobs);
        peak.hosts = peak.hosts.max(hosts);
    }
}

/// What became of those who signed what is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Ejection {
    /// Names under which something wrong was signed.
    pub lied: u64,
    /// Those of them that were caught.
    pub caught: u64,
    /// Time from the first lie until then.
    pub after_ms: Percentiles,
    /// Wrong results that each of them left behind.
    pub wrong_each: Percentiles,
}

/// What is told of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What shows it again.
    pub seed: u64,
    /// How results were checked.
    pub policy: String,
    /// Who worked against the grid.
    pub adversary: Adversary,
    /// How many of them, in parts per million.
    pub liars_ppm: u32,
    /// Machines that ever joined, and operators.
    pub hosts: u64,
    /// Names of operators, those under which somebody came back included.
    pub operators: u64,
    /// Results of jobs that were done.
    pub accepted: u64,
    /// How many jobs ended how.
    pub jobs: BTreeMap<String, u64>,
    /// Executions that were ordered, for those results and for others.
    pub executions: Executions,
    /// Executions for each accepted result; the pieces that trials took are parts of executions.
    pub cost: f64,
    /// Accepted results that are wrong.
    pub wrong: Share,
    /// The bound of that share, exceeded with a chance of 5 %.
    pub wrong_bound_95: f64,
    /// Results that stood and were withdrawn before their job was done, and how many of those were wrong.
    pub withdrawn: Share,
    /// Wrong results that were delivered and replaced afterwards, since a newcomer and a referee said otherwise. They are counted as
    /// wrong all the same.
    pub put_right: u64,
    /// Accepted results of modules that write something else each time: nothing is true of these.
    pub unsteady: u64,
    /// Who lied, and what became of it.
    pub ejection: Ejection,
    /// Honest operators that get no more work: none, but where nobody referees.
    pub honest_suspended: u64,
    /// Executions that gave no result.
    pub faults: u64,
    /// Time from when a task was first given to a host until its result stood for good.
    pub accepted_after_ms: Percentiles,
    /// What an audit's answer takes on the wire, in bytes: a receipt, signed, with the names of its output. The input and the output
    /// themselves are not in it.
    pub audit_bytes: u64,
    /// What came of steps, where tasks have any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stepped: Option<Stepped>,
    /// What liars have of it.
    pub purse: Purse,
    /// Virtual time of the run.
    pub virtual_ms: Millis,
    /// Things that happened.
    pub events: u64,
    /// The most that there was at a time.
    pub peak: Peak,
    /// The same for runs in which the same was decided.
    pub digest: u64,
}

impl Report {
    /// Jobs that were not done.
    pub fn jobs_failed(&self) -> u64 {
        self.jobs.iter().filter(|(phase, _)| *phase != "done").map(|(_, count)| count).sum()
    }

    pub(super) fn of(world: World<'_>, ended_ms: Millis, purse: Purse) -> Self {
        let World { options, operators, hosts, tally, .. } = world;
        let stepped = (options.steps > 1).then_some(Stepped { segments: options.steps, ..tally.stepped });
        let executions = tally.executions.sum() as f64 + stepped.map_or(0.0, |stepped| stepped.trial_executions());
        let wrong = Share { events: tally.wrong, of: tally.accepted - tally.unsteady };
        let honest_suspended = operators.iter().filter(|operator| !operator.lies && operator.caught_ms.is_some());
        Self {
            seed: options.seed,
            policy: options.policy.to_string(),
            adversary: options.adversary,
            liars_ppm: options.liars_ppm,
            hosts: hosts.len() as u64,
            operators: operators.len() as u64,
            accepted: tally.accepted,
            jobs: tally.jobs,
            executions: tally.executions,
            cost: executions / tally.accepted.max(1) as f64,
            wrong,
            wrong_bound_95: wrong.bound_95(),
            withdrawn: Share { events: tally.wrong_withdrawn, of: tally.withdrawn },
            put_right: tally.put_right,
            unsteady: tally.unsteady,
            ejection: ejection(&operators),
            honest_suspended: honest_suspended.count() as u64,
            faults: tally.faults,
            accepted_after_ms: Percentiles::of(tally.waits_ms),
            audit_bytes: tally.audit_bytes,
            virtual_ms: ended_ms - tally.began_ms,
            stepped,
            purse,
            events: tally.events,
            peak: tally.peak,
            digest: tally.digest,
        }
    }
}

fn ejection(operators: &[Operator]) -> Ejection {
    let lied: Vec<&Operator> = operators.iter().filter(|operator| operator.first_lie_ms.is_some()).collect();
    let after = |operator: &&Operator| Some(operator.caught_ms?.saturating_sub(operator.first_lie_ms?));
    let after: Vec<u64> = lied.iter().filter_map(after).collect();
    Ejection {
        lied: lied.len() as u64,
        caught: after.len() as u64,
        after_ms: Percentiles::of(after),
        wrong_each: Percentiles::of(lied.iter().map(|operator| operator.wrong).collect()),
    }
}

/// A table, a line for each measure.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { executions, ejection, accepted_after_ms: after, .. } = self;
        let each = |count: u64| count as f64 / self.accepted.max(1) as f64;
        let jobs: Vec<String> = self.jobs.iter().map(|(phase, count)| format!("{count} {phase}")).collect();
        let liars = f64::from(self.liars_ppm) / 1e4;
        let rows = [
            ("adversary", format!("{}, {liars} %: {}", self.adversary, self.adversary.about())),
            ("policy, seed", format!("{}, {}", self.policy, self.seed)),
            ("hosts, operators", format!("{}, {}", self.hosts, self.operators)),
            ("jobs", jobs.join(", ")),
            ("accepted results", self.accepted.to_string()),
            ("cost", format!("{:.4} executions a result", self.cost)),
            ("  work", format!("{:.4}", each(executions.work))),
            ("  audits", format!("{:.4}", each(executions.audits))),
            ("  qualification", format!("{:.4}", each(executions.qualification))),
            ("  disputes", format!("{:.4}", each(executions.disputes))),
            ("  again", format!("{:.4}", each(executions.again))),
            ("wrong results", format!("{} of {}", self.wrong.events, self.wrong.of)),
            ("  share", format!("{:.2e}, below {:.2e} with 95 %", self.wrong.value(), self.wrong_bound_95)),
            ("  withdrawn in time", format!("{} of {} withdrawn", self.withdrawn.events, self.withdrawn.of)),
            ("  put right later", self.put_right.to_string()),
            ("liars' names", format!("{} lied, {} caught", ejection.lied, ejection.caught)),
            ("  caught after", format!("{} ms half, {} ms all", ejection.after_ms.p50, ejection.after_ms.max)),
            ("  wrong results each", format!("{} half, {} most", ejection.wrong_each.p50, ejection.wrong_each.max)),
            ("liars' balance", format!("{} tasks", self.purse.balance())),
            ("  lies paid", format!("{} of {} paid executions", self.purse.lies_paid, self.purse.paid)),
            ("  lost by liars", format!("{} stake, {} returned", self.purse.slashed, self.purse.returned)),
            ("honest suspended", self.honest_suspended.to_string()),
            ("faults", self.faults.to_string()),
            ("accepted after", format!("{} ms half, {} ms 99 %, {} ms all", after.p50, after.p99, after.max)),
            ("an audit's answer", format!("{} bytes", self.audit_bytes)),
            ("virtual time", format!("{} ms", self.virtual_ms)),
            ("events", self.events.to_string()),
            (
                "at most at a time",
                format!("{} executions, {} jobs open", self.peak.open_executions, self.peak.open_jobs),
            ),
            ("digest", format!("{:016x}", self.digest)),
        ];
        let stepped = self.stepped.map(|stepped| stepped.rows());
        let mut rows = rows.iter().chain(stepped.iter().flatten());
        rows.try_for_each(|(name, value)| writeln!(f, "{name:<22}{value}"))
    }
}
