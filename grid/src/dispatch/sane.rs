//! What holds of a state at every time, derived anew from its parts: for simulations and tests, since it walks all of it.

use std::collections::BTreeSet;

use registry::job::{Class, Stage};

use super::{State, cast::Cast, queue::Line};

/// A rule that a state breaks: a defect of the machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {detail}")]
pub struct Insane {
    /// What should hold.
    pub rule: &'static str,
    /// Where it does not.
    pub detail: String,
}

impl State {
    /// Derives what can be derived, and compares it with what is kept.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn check(&self) -> Result<(), Insane> {
        self.check_open()?;
        self.check_shards()?;
        self.check_newcomers()?;
        self.check_money()?;
        holds("nothing is left to be judged", &self.unjudged.len(), &0)?;
        let shards = self.ended.iter().filter_map(|id| self.jobs.get(id)).map(|job| u64::from(job.shard_count())).sum();
        holds("shards of ended jobs are counted", &self.ended_shards, &shards)
    }

    /// Executions under way: of connected halves that agree, and each with its timer.
    fn check_open(&self) -> Result<(), Insane> {
        for (id, open) in self.open.iter() {
            holds("an open execution has its timer", &self.timers.contains(&open.timer), &true)?;
            let host = self.fleet.get(open.node);
            let has_it = host.is_some_and(|host| host.assignments.binary_search(&id).is_ok());
            holds("an open execution is its host's", &(id, has_it), &(id, true))?;
            // What is repeated may be of a job that is over, and even forgotten.
            let Some(job) = self.jobs.get(&open.job) else {
                holds("an open execution is of a job that is remembered, or repeats a result", &open.probe, &true)?;
                continue;
            };
            let list = job.shard(open.shard).map(|shard| if open.probe { &shard.probes[..] } else { &shard.open[..] });
            let known = list.is_some_and(|list| list.contains(&(id, open.operator)));
            holds("an open execution is its shard's", &known, &true)?;
        }
        let mut held = 0;
        for (node, host) in self.fleet.hosts() {
            held += host.assignments.len();
            let in_order = host.assignments.is_sorted_by(|one, other| one < other);
            holds(
                "hosts have their executions in the order in which they were given",
                &(node, in_order),
                &(node, true),
            )?;
        }
        holds("hosts have the executions that are open", &held, &self.open.len())
    }

    fn check_shards(&self) -> Result<(), Insane> {
        for job in self.jobs.values() {
            let open = job.shards().filter(|_| !job.phase.is_ended());
            let mut alone = 0;
            for (operator, key) in open.filter_map(|(key, shard)| Some((shard.sole_supporter()?, key))) {
                alone += 1;
                holds(
                    "what one operator stands for is known",
                    &(key, job.unchecked.contains(operator, key)),
                    &(key, true),
                )?;
            }
            holds("results that one operator stands for are counted", &job.unchecked.len(), &alone)?;
        }
        for (id, job) in self.jobs.iter().filter(|(_, job)| !job.phase.is_ended()) {
            let accepted = job.shards().filter(|(key, shard)| key.stage == Stage::Map && shard.accepted.is_some());
            holds("accepted shards are counted", &job.accepted_count(), &(accepted.count() as u32))?;
            for line in Line::ALL.into_iter().filter(|line| job.queued.has(*line)) {
                holds("a job with queued shards has its turn", &(line, self.turns.contains(line, *id)), &(line, true))?;
            }
            for (key, shard) in job.shards() {
                if shard.accepted.is_some() {
                    holds("nothing is open of an accepted shard", &(id, key, shard.open.len()), &(id, key, 0))?;
                }
            }
        }
        Ok(())
    }

    /// Every order of a job that somebody pays for is held for until there is a verdict on it, and nothing else is.
    fn check_money(&self) -> Result<(), Insane> {
        self.ledger
            .check()
            .map_err(|violation| Insane { rule: "the ledger's invariants hold", detail: violation.to_string() })?;
        for (id, job) in self.jobs.iter().filter(|(id, _)| self.ledger.knows(**id)) {
            let held: BTreeSet<_> = self.ledger.held_of(*id).collect();
            let (mut under_way, mut undecided) = (BTreeSet::new(), BTreeSet::new());
            for (_, shard) in job.shards().filter(|_| !job.phase.is_ended()) {
                under_way.extend(shard.open.iter().map(|(assignment, _)| *assignment));
                let casts = shard.casts.iter().filter(|_| shard.accepted.is_none());
                undecided.extend(casts.filter_map(Cast::assignment));
            }
            holds("an execution under way is held for", &(id, under_way.difference(&held).count()), &(id, 0))?;
            let others = held.iter().filter(|held| !under_way.contains(held) && !undecided.contains(held));
            holds("nothing is held for what has its verdict", &(id, others.count()), &(id, 0))?;
        }
        Ok(())
    }

    fn check_newcomers(&self) -> Result<(), Insane> {
        let qualified = self.reputation.qualified(Class::Exact);
        let newcomers = self
            .fleet
            .hosts()
            .filter(|(_, host)| host.connected && host.suspended.is_none() && !qualified.contains(&host.operator));
        holds("newcomers are known", &self.newcomers, &newcomers.map(|(node, _)| node).collect())?;
        for (node, host) in self.fleet.hosts() {
            let trusted = self.reputation.classes(host.operator);
            holds("hosts are trusted as their operators are", &(node, &host.trusted), &(node, &trusted))?;
        }
        holds("hosts are kept where they are seen", &self.fleet.seen_is_kept(), &true)?;
        holds("what hosts ask is counted", &self.fleet.asks_are_counted(), &true)?;
        holds("hosts with room are known", &self.fleet.room_is_kept(), &true)
    }
}

fn holds<T: PartialEq + std::fmt::Debug>(rule: &'static str, kept: &T, derived: &T) -> Result<(), Insane> {
    if kept == derived {
        return Ok(());
    }
    let shown = |value: &T| format!("{value:?}").chars().take(400).collect::<String>();
    Err(Insane { rule, detail: format!("{} is kept where {} was derived", shown(kept), shown(derived)) })
}
