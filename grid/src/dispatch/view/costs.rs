//! What jobs cost and would cost, and what is paid for executions.

use std::collections::BTreeMap;

use registry::{
    credits::Credits,
    device::{DeviceAsk, DeviceKind},
    id::{JobId, RequesterId},
    job::{JobSpec, Reduce},
    price::{PriceTable, Usage},
};
use serde::{Deserialize, Serialize};

use super::{
    super::{cast::Cast, job::ShardKey},
    Job, State,
};
use crate::{
    engines::EngineAsk,
    ledger::{Ask, PaymentKey, Quote, QuoteError, Standing, quote},
    place,
};

/// What a job may cost and has cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Costs {
    /// Who pays.
    pub requester: RequesterId,
    /// The most, in micro-credits.
    pub cap: Credits,
    /// Paid for what verdicts are for, and not returned.
    pub spent: Credits,
    /// Set aside for executions under way and for such as have no verdict yet.
    pub held: Credits,
    /// Back with who pays.
    pub refunded: Credits,
}

/// What an execution costs whoever pays for its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Pay {
    /// It may cost so much: that is set aside until there is a verdict.
    Held {
        /// The most, in micro-credits.
        worst: Credits,
    },
    /// The verdict is for it.
    Paid {
        /// What it cost, in micro-credits.
        bill: Credits,
        /// Whether that can still be lost.
        standing: Standing,
    },
    /// Nobody pays for it.
    Unpaid {
        /// Why.
        why: &'static str,
    },
}

/// What a job would cost at the prices of some hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostQuote {
    /// Hosts that are there, could run it and ask these prices.
    pub hosts: u32,
    /// The prices.
    pub prices: PriceTable,
    /// What the job would cost if all of it ran there.
    pub quote: Quote,
}

impl State {
    pub(super) fn costs(&self, id: JobId) -> Option<Costs> {
        let (terms, budget) = (self.ledger.terms(id)?, self.ledger.budget(id)?);
        // Parts of a cap that holds are within its bound.
        let both = |one: Credits, other: Credits| one.plus(other).unwrap_or(Credits::MAX);
        Some(Costs {
            requester: terms.requester,
            cap: budget.cap,
            spent: both(budget.work.spent, budget.audits.spent),
            held: both(budget.work.held, budget.audits.held),
            refunded: budget.refunded,
        })
    }

    /// What a job that is cut into so many shards would cost, if each task used as much fuel and wrote as much as one that was
    /// tried: at the prices of the hosts that are there and could run it, the cheapest first.
    ///
    /// # Errors
    /// When a price is out of bounds, the task that was tried over the job's limits, or the worst case over all credits.
    pub fn quotes(
        &self,
        spec: &JobSpec,
        shards: usize,
        (fuel, output_bytes): (u64, u64),
        cap: Credits,
    ) -> Result<Vec<HostQuote>, QuoteError> {
        let (audit_ppm, auditors) = self.config.audit.usual(spec.policy);
        let device = match (spec.models.is_empty(), spec.device) {
            (true, _) => None,
            (false, DeviceAsk::Gpu) => Some(DeviceKind::Gpu),
            (false, DeviceAsk::Any | DeviceAsk::Cpu) => Some(DeviceKind::Cpu),
        };
        let ask = Ask {
            sample: Usage { fuel, memory_bytes: spec.limits.memory_bytes_max, output_bytes, device },
            limits: spec.limits,
            device: spec.device,
            tasks: u32::try_from(shards).unwrap_or(u32::MAX).saturating_add(u32::from(spec.reduce == Reduce::Task)),
            replicas: spec.policy.quorum(),
            replicas_max: self.config.replicas_max,
            audit_ppm,
            auditors,
            cap,
        };
        let quoted = |(prices, hosts)| Ok(HostQuote { hosts, quote: quote(&ask, &prices)?, prices });
        let mut quotes = self.tables(spec).into_iter().map(quoted).collect::<Result<Vec<_>, QuoteError>>()?;
        quotes.sort_by_key(|quote| quote.quote.expected);
        Ok(quotes)
    }

    /// The price tables of the hosts that could run the job, and how many ask each.
    fn tables(&self, spec: &JobSpec) -> BTreeMap<PriceTable, u32> {
        let mut tables = BTreeMap::new();
        let ask = EngineAsk::from(spec);
        let there = self.fleet.hosts().filter(|(_, host)| host.connected && host.suspended.is_none());
        for (_, host) in there.filter(|(_, host)| place::capable(&spec.limits, &ask, host).is_ok()) {
            *tables.entry(host.offer.prices.clone()).or_insert(0) += 1;
        }
        tables
    }
}

/// What an execution that gave a receipt costs, and why.
pub(super) fn pay(state: &State, id: JobId, job: &Job, key: ShardKey, cast: &Cast) -> Option<Pay> {
    let shard = job.shard(key)?;
    state.ledger.terms(id)?;
    let paid = PaymentKey { job: id, shard: job.info(key), node: cast.node() };
    if let Some(payment) = state.ledger.payment(paid) {
        return Some(Pay::Paid { bill: payment.bill, standing: payment.standing });
    }
    if let Some(worst) = cast.assignment().and_then(|assignment| state.ledger.held(id, assignment)) {
        return Some(Pay::Held { worst });
    }
    let truth = shard.accepted.as_ref().map(|(commitment, _)| *commitment);
    let why = if shard.probers.contains(&cast.operator()) {
        "it repeated a result to show what its operator is worth: that is what a new name costs"
    } else if truth.is_some_and(|truth| truth != cast.commitment()) {
        "the verdict is for another result"
    } else if truth.is_none() {
        "the job ended before there was a verdict"
    } else {
        "its operator was caught, or has been paid for this shard"
    };
    Some(Pay::Unpaid { why })
}
