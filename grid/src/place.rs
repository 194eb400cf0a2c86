//! Which host runs a shard: filter, then score. Every rejected host has a [`Reason`], and `why` shows it.

use std::{collections::BTreeSet, fmt};

use registry::{
    credits::Credits,
    device::DeviceAsk,
    id::{EngineFingerprint, ModuleHash, NodeId, OperatorId},
    job::{Class, Limits},
    price::PriceTable,
};
use serde::Serialize;

use crate::{
    config::Config,
    engines::{EngineAsk, Lack},
    fleet::{Fleet, Host},
    subnet::Subnet,
};

/// Of so many hosts that may run a shard the best is taken: hardly worse than the best of all, and a large fleet is not walked.
const CHOICE: usize = 16;
/// Price tables that are compared with what a shard may cost before any host is looked at.
const ASKS_MAX: usize = 8;

/// What a shard needs of its next host.
#[derive(Debug, Clone, Copy)]
pub struct Need<'a> {
    /// Its module.
    pub module: ModuleHash,
    /// Its limits.
    pub limits: &'a Limits,
    /// Distinct operators that have to agree.
    pub quorum: u8,
    /// What it asks of the engine.
    pub ask: EngineAsk,
    /// The engine of its earlier executions.
    pub engine: Option<EngineFingerprint>,
    /// Operators that have had it.
    pub operators: &'a [OperatorId],
    /// Hosts that failed to run it.
    pub faulted: &'a [NodeId],
    /// Whose hosts may run it.
    pub among: Among<'a>,
    /// What its next execution may cost.
    pub budget: Credits,
    /// Of an audit, and where several have to agree of all but the first: what was drawn for who is next, and where that is not to be.
    /// Otherwise the search starts after the host that was given work last.
    pub lot: Option<Lot>,
}

/// What was drawn for who is to audit, or to agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lot {
    /// The order in which operators are asked, each as likely to be the first as any other, and where the search starts among an
    /// operator's hosts. It has the form of a machine's name.
    pub order: NodeId,
    /// Where the host was seen whose result is audited. An auditor is seen elsewhere, unless the grid's owner answers for one of the
    /// two or too few are elsewhere: see [`Fleet::elsewhere`].
    pub apart: Option<Subnet>,
}

/// Whose hosts may run a shard.
#[derive(Debug, Clone, Copy)]
pub enum Among<'a> {
    /// Anybody's.
    All,
    /// Those of operators whose results may be accepted alone in the class that the shard asks for.
    Qualified,
    /// Those of operators that the grid's owner answers for, since results differ.
    Referees(&'a BTreeSet<OperatorId>),
    /// Those of operators that may go on from what was kept of an execution that came to nothing.
    Heirs(&'a BTreeSet<OperatorId>),
}

impl Among<'_> {
    fn admits(&self, host: &Host, class: Class) -> Result<(), Reason> {
        match self {
            Among::All => Ok(()),
            Among::Qualified if host.trusted.contains(class) => Ok(()),
            Among::Referees(operators) | Among::Heirs(operators) if operators.contains(&host.operator) => Ok(()),
            Among::Qualified => Err(Reason::Newcomer),
            Among::Referees(_) => Err(Reason::NoReferee),
            Among::Heirs(_) => Err(Reason::NoHeir),
        }
    }
}

/// Why a host does not run a shard now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Not connected.
    Away,
    /// Caught signing a result that a quorum contradicts.
    Suspended,
    /// Its operator's results are not accepted alone yet.
    Newcomer,
    /// The shard's results differ, and the grid's owner does not answer for its operator.
    NoReferee,
    /// It may not go on from what another operator has kept of the shard.
    NoHeir,
    /// Holds as many assignments as it can.
    Full {
        /// Assignments that it holds.
        in_flight: u32,
    },
    /// The same operator has had this shard.
    SameOperator,
    /// It is seen where the host is whose result is audited, and a host that is not may audit it.
    SameSubnet {
        /// Where.
        subnet: Subnet,
    },
    /// It failed to run this shard, and a host that has not may still do so.
    Failed,
    /// A task may have less memory there than this one asks for.
    Memory {
        /// Asked for, in bytes.
        asked: u64,
        /// Offered, in bytes.
        offered: u64,
    },
    /// It asks for more than the job may still cost.
    Price {
        /// What an execution may cost there.
        worst: Credits,
        /// What the job's cap leaves.
        free: Credits,
    },
    /// It has no engine for it.
    Lacks(Lack),
    /// Its results could not be compared with those at hand.
    Engine,
    /// Too few operators run its engine to reach the quorum.
    EngineAlone {
        /// Operators on its engine.
        operators: usize,
        /// Operators needed.
        quorum: u8,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away => f.write_str("is not connected"),
            Self::Suspended => f.write_str("is suspended: its operator signed a result that a quorum contradicts"),
            Self::Newcomer => f.write_str(
                "has no standing yet: too little of its operator's work was checked for its results to be accepted alone",
            ),
            Self::NoReferee => {
                f.write_str("is no referee: this shard's results differ, and one that the grid's owner vouches for decides")
            }
            Self::NoHeir => f.write_str("is of another operator than the one that kept a state of this shard"),
            Self::Full { in_flight } => write!(f, "is full: it holds {in_flight} assignments"),
            Self::SameOperator => {
                f.write_str("belongs to an operator that has had this shard; the quorum asks for distinct ones")
            }
            Self::Failed => f.write_str("failed to run this shard, and another host may still do so"),
            Self::Memory { asked, offered } => write!(f, "offers {offered} bytes of memory a task, of {asked} asked"),
            Self::Price { worst, free } if free.is_zero() => {
                write!(f, "asks for up to {worst} credits an execution, and the job has none: submit it with a cap")
            }
            Self::Price { worst, free } => {
                write!(f, "asks for up to {worst} credits an execution, and the job's cap leaves {free}")
            }
            Self::SameSubnet { subnet } => {
                write!(f, "is seen in network {subnet}, as the host whose result is audited, and another may audit it")
            }
            Self::Lacks(lack) => write!(f, "{lack}"),
            Self::Engine => f.write_str("runs another engine than this shard's earlier executions"),
            Self::EngineAlone { operators, quorum } => {
                write!(f, "runs an engine that {operators} connected operators have, of {quorum} for the quorum")
            }
        }
    }
}

impl Need<'_> {
    /// Whether the host is seen where an auditor is not to be.
    fn is_too_near(&self, host: &Host, config: &Config) -> bool {
        self.lot.and_then(|lot| lot.apart) == Some(host.subnet) && !config.vouched.contains(&host.operator)
    }

    /// The same, where anybody may audit if nobody elsewhere can, now or when it has room.
    fn settled(self, fleet: &Fleet, config: &Config) -> Self {
        let Some((lot, apart)) = self.lot.and_then(|lot| Some((lot, lot.apart?))) else {
            return self;
        };
        let may = |(node, host)| matches!(consider(&self, node, host, fleet, config), Ok(_) | Err(Reason::Full { .. }));
        if fleet.elsewhere(apart).any(may) {
            return self;
        }
        Self { lot: Some(Lot { apart: None, ..lot }), ..self }
    }
}

/// How well a host suits a shard; larger is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Score(pub i64);

impl Score {
    /// Of a host that has the module and never failed, and is idle by half: any other is hardly better.
    pub const ENOUGH: Self = Self(100);
}

/// How a host would run a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    /// How well it suits.
    pub score: Score,
    /// On which of its engines.
    pub engine: EngineFingerprint,
}

/// Whether the host could ever run the shard, were it idle and in good standing, and the others as they may be.
///
/// # Errors
/// What it lacks.
pub fn capable(limits: &Limits, ask: &EngineAsk, host: &Host) -> Result<(), Reason> {
    if limits.memory_bytes_max > host.offer.memory_bytes_max {
        return Err(Reason::Memory { asked: limits.memory_bytes_max, offered: host.offer.memory_bytes_max });
    }
    ask.lack(&host.offer.engines.0).map_or(Ok(()), |lack| Err(Reason::Lacks(lack)))
}

/// Whether the host could run the shard on this engine of its own, whatever room and connection it has now.
pub fn could_on(engine: EngineFingerprint, limits: &Limits, ask: &EngineAsk, host: &Host) -> bool {
    let suits = || host.offer.engines.get(engine).is_some_and(|own| ask.suits(own));
    host.suspended.is_none() && suits() && capable(limits, ask, host).is_ok()
}

/// What an execution costs at most.
fn worst(limits: &Limits, device: DeviceAsk, prices: &PriceTable) -> Credits {
    if prices.is_free() {
        return Credits::ZERO;
    }
    // What has no bill is over the bound of all credits.
    prices.worst(limits, device).map_or(Credits::MAX, |bill| bill.total)
}

/// Whether none of the hosts asks as little as the shard's next execution may cost. Not looked at where they ask too many
/// different things: then each is looked at as it comes.
fn is_too_dear(need: &Need<'_>, fleet: &Fleet) -> bool {
    let asks = fleet.asks();
    asks.len() <= ASKS_MAX && asks.into_iter().all(|prices| worst(need.limits, need.ask.device, prices) > need.budget)
}

/// Whether an execution costs no more there than it may.
///
/// # Errors
/// What it may cost.
pub fn affordable(limits: &Limits, device: DeviceAsk, free: Credits, host: &Host) -> Result<(), Reason> {
    let worst = worst(limits, device, &host.offer.prices);
    if worst > free { Err(Reason::Price { worst, free }) } else { Ok(()) }
}

/// Whether the host `node` may run the shard, how well it suits, and on which engine.
///
/// # Errors
/// The first rule that says no.
pub fn consider(need: &Need<'_>, node: NodeId, host: &Host, fleet: &Fleet, config: &Config) -> Result<Fit, Reason> {
    if !host.connected {
        return Err(Reason::Away);
    }
    if host.suspended.is_some() {
        return Err(Reason::Suspended);
    }
    if need.operators.contains(&host.operator) {
        return Err(Reason::SameOperator);
    }
    need.among.admits(host, need.ask.class)?;
    if need.is_too_near(host, config) {
        return Err(Reason::SameSubnet { subnet: host.subnet });
    }
    capable(need.limits, &need.ask, host)?;
    affordable(need.limits, need.ask.device, need.budget, host)?;
    let engine = engine(need, host, fleet)?;
    let window = host.window(config.ahead_ms);
    if host.in_flight() >= window {
        return Err(Reason::Full { in_flight: host.in_flight() });
    }
    // A host that fails everything at once always has room: while the others are busy it must not use up all attempts.
    if need.faulted.contains(&node) && another_may(need, engine, fleet) {
        return Err(Reason::Failed);
    }
    Ok(Fit { score: score(need, node, host, window), engine })
}

/// The engine that a capable host would run the shard on: see [`engines`](crate::engines).
fn engine(need: &Need<'_>, host: &Host, fleet: &Fleet) -> Result<EngineFingerprint, Reason> {
    let engines = &host.offer.engines;
    if let Some(earlier) = need.engine {
        if engines.get(earlier).is_some_and(|own| need.ask.suits(own)) {
            return Ok(earlier);
        }
        if fleet.has_other_operator(earlier, need.operators) {
            return Err(Reason::Engine);
        }
    }
    // No earlier execution, or nobody is left who could repeat it on its engine.
    let (operators, quorum) = (|engine| fleet.operators(engine), need.quorum);
    if let Some(best) = engines.best(&need.ask, |engine| operators(engine) >= usize::from(quorum)) {
        return Ok(best.fingerprint);
    }
    let most = engines.0.iter().filter(|engine| need.ask.suits(engine)).map(|engine| operators(engine.fingerprint));
    Err(Reason::EngineAlone { operators: most.max().unwrap_or(0), quorum })
}

/// Whether a connected host that did not fail the shard could run it in place of one on `engine`, now or when it has room.
fn another_may(need: &Need<'_>, engine: EngineFingerprint, fleet: &Fleet) -> bool {
    fleet.hosts().any(|(node, host)| {
        host.connected
            && could_on(engine, need.limits, &need.ask, host)
            && !need.faulted.contains(&node)
            && !need.operators.contains(&host.operator)
            && need.among.admits(host, need.ask.class).is_ok()
            && affordable(need.limits, need.ask.device, need.budget, host).is_ok()
    })
}

/// Whether any of these operators has a connected host that could run the shard, now or when it has room, and may.
pub fn any_of(operators: &BTreeSet<OperatorId>, need: &Need<'_>, fleet: &Fleet, may: impl Fn(&Host) -> bool) -> bool {
    operators.iter().filter(|operator| !need.operators.contains(operator)).any(|operator| {
        fleet.hosts_of(*operator).any(|(_, host)| {
            host.connected
                && host.suspended.is_none()
                && capable(need.limits, &need.ask, host).is_ok()
                && engine(need, host, fleet).is_ok()
                && may(host)
        })
    })
}

/// A host that has the module beats one that has to fetch it, unless it is far busier; one that failed the shard is last.
fn score(need: &Need<'_>, node: NodeId, host: &Host, window: u32) -> Score {
    let free = i64::from(window - host.in_flight()) * 100 / i64::from(window.max(1));
    let warm = if host.is_warm(need.module) { 50 } else { 0 };
    let failed_it = i64::from(need.faulted.contains(&node)) * 10_000;
    let record = host.record;
    let unreliable = i64::try_from(record.faults * 100 / record.assigned.max(1)).unwrap_or(100);
    Score(free + warm - failed_it - unreliable)
}

/// The best of the hosts with room, if any may run the shard, and its engine. For an audit the first that may: an auditor is who was
/// drawn, and not who looks best.
pub fn pick(need: &Need<'_>, fleet: &Fleet, config: &Config) -> Option<(NodeId, EngineFingerprint)> {
    if is_too_dear(need, fleet) {
        return None;
    }
    let (need, max) = (&need.settled(fleet, config), config.candidates_max);
    let (device, class) = (need.ask.device, need.ask.class);
    let trusted = match need.among {
        // Few, and anywhere: the one that may could be behind any number of others.
        Among::Referees(operators) | Among::Heirs(operators) => {
            let hosts = operators.iter().flat_map(|operator| fleet.hosts_of(*operator));
            return best(need, hosts.filter(|(node, _)| fleet.is_roomy(*node)), fleet, config);
        }
        Among::Qualified => Some(class),
        Among::All => None,
    };
    let drawn = need.lot.and_then(|lot| best(need, fleet.drawn(device, trusted, lot.order, max), fleet, config));
    // Where few suit, none of those that are drawn may: the search goes round then, until it has come by all of them.
    drawn.or_else(|| best(need, fleet.with_room(device, trusted, max), fleet, config))
}

fn best<'a>(
    need: &Need<'_>,
    hosts: impl Iterator<Item = (NodeId, &'a Host)>,
    fleet: &Fleet,
    config: &Config,
) -> Option<(NodeId, EngineFingerprint)> {
    let choice = if need.lot.is_some() { 1 } else { CHOICE };
    let fits = hosts.filter_map(|(node, host)| Some((consider(need, node, host, fleet, config).ok()?, node, host)));
    let mut best: Option<(Fit, NodeId)> = None;
    for (fit, node, host) in fits.take(choice) {
        if best.is_none_or(|(highest, _)| fit.score > highest.score) {
            best = Some((fit, node));
        }
        if fit.score >= Score::ENOUGH && host.is_warm(need.module) {
            break;
        }
    }
    best.map(|(fit, node)| (node, fit.engine))
}

/// Every host with its score or the reason against it.
pub fn explain(need: &Need<'_>, fleet: &Fleet, config: &Config) -> Vec<(NodeId, Result<Fit, Reason>)> {
    let need = need.settled(fleet, config);
    fleet.hosts().map(|(node, host)| (node, consider(&need, node, host, fleet, config))).collect()
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use registry::{
        canon,
        membership::NodeCert,
        price::PriceTable,
        sign::{SecretKey, Signed},
    };

    use super::*;
    use crate::{
        engines::Engines,
        flow::{AssignmentId, Offer},
        reputation::Classes,
    };

    pub(super) const ENGINE: EngineFingerprint = EngineFingerprint([9; 32]);
    const PORTABLE: EngineFingerprint = EngineFingerprint([8; 32]);

    pub(super) fn cert(node: u8, operator: u8) -> Arc<Signed<NodeCert>> {
        let cert = NodeCert { node: NodeId([node; 32]), issued_ms: 0 };
        Arc::new(Signed::seal(&cert, &SecretKey::from_bytes(&[operator; 32])))
    }

    pub(super) fn offer(engine: EngineFingerprint) -> Offer {
        let (engines, prices) = (Engines::plain(engine, PORTABLE), PriceTable::default());
        Offer { slots: 1, queue_max: 0, memory_bytes_max: 1 << 30, engines, prices }
    }

    fn fleet(hosts: &[(u8, u8)]) -> Fleet {
        let mut fleet = Fleet::new(50);
        for &(node, operator) in hosts {
            fleet.up(
                NodeId([node; 32]),
                OperatorId([operator; 32]),
                cert(node, operator),
                offer(ENGINE),
                Subnet::Relayed,
                0,
            );
        }
        fleet
    }

    pub(super) fn need(limits: &Limits) -> Need<'_> {
        Need {
            module: ModuleHash::of(b"m"),
            limits,
            quorum: 2,
            ask: EngineAsk::default(),
            engine: None,
            operators: &[],
            faulted: &[],
            among: Among::All,
            budget: Credits::ZERO,
            lot: None,
        }
    }

    fn reason(need: &Need<'_>, fleet: &Fleet, node: u8) -> Option<Reason> {
        explain(need, fleet, &Config::default())
            .into_iter()
            .find(|(id, _)| *id == NodeId([node; 32]))
            .and_then(|(_, result)| result.err())
    }

    pub(super) fn picked(need: &Need<'_>, fleet: &Fleet) -> Option<u8> {
        pick(need, fleet, &Config::default()).map(|(node, _)| node.0[0])
    }

    #[test]
    fn every_rejected_host_has_its_reason() {
        let limits = Limits::default();
        let need = need(&limits);
        let mut fleet = fleet(&[(1, 1), (2, 2), (3, 3)]);
        let had_it = Need { operators: &[OperatorId([1; 32])], ..need };
        assert_eq!(reason(&had_it, &fleet, 1), Some(Reason::SameOperator));
        fleet.up(
            NodeId([4; 32]),
            OperatorId([4; 32]),
            cert(4, 4),
            offer(EngineFingerprint([0; 32])),
            Subnet::Relayed,
            0,
        );
        assert_eq!(reason(&Need { engine: Some(EngineFingerprint([0; 32])), ..need }, &fleet, 1), Some(Reason::Engine));
        let greedy = Limits { memory_bytes_max: 2 << 30, ..limits };
        assert!(matches!(reason(&Need { limits: &greedy, ..need }, &fleet, 1), Some(Reason::Memory { .. })));
        fleet.take(NodeId([1; 32]), AssignmentId(1));
        assert_eq!(reason(&need, &fleet, 1), Some(Reason::Full { in_flight: 1 }));
        fleet.down(NodeId([2; 32]), 0);
        assert_eq!(reason(&need, &fleet, 2), Some(Reason::Away));
        assert_eq!(reason(&need, &fleet, 3), None);
    }

    #[test]
    fn a_quorum_is_not_begun_where_it_cannot_be_reached() {
        let limits = Limits::default();
        let fleet = fleet(&[(1, 1), (2, 1)]);
        assert_eq!(reason(&need(&limits), &fleet, 1), Some(Reason::EngineAlone { operators: 1, quorum: 2 }));
        assert_eq!(pick(&need(&limits), &fleet, &Config::default()), None);
    }

    #[test]
    fn a_host_that_failed_the_shard_is_the_last_resort() {
        let limits = Limits::default();
        let fleet = fleet(&[(1, 1), (2, 2)]);
        let faulted = [NodeId([1; 32])];
        let need = Need { faulted: &faulted, ..need(&limits) };
        assert_eq!(picked(&need, &fleet), Some(2));
    }

    #[test]
    fn a_host_that_failed_the_shard_waits_while_another_is_busy_and_not_when_nobody_else_is_there() {
        let limits = Limits::default();
        let mut fleet = fleet(&[(1, 1), (2, 2)]);
        let faulted = [NodeId([1; 32])];
        let need = Need { faulted: &faulted, quorum: 1, ..need(&limits) };
        fleet.take(NodeId([2; 32]), AssignmentId(1));
        assert_eq!(reason(&need, &fleet, 1), Some(Reason::Failed));
        assert_eq!(pick(&need, &fleet, &Config::default()), None);
        fleet.down(NodeId([2; 32]), 0);
        assert_eq!(picked(&need, &fleet), Some(1));
    }

    #[test]
    fn an_auditor_is_who_was_drawn_and_not_who_looks_best() {
        let limits = Limits::default();
        let mut fleet = fleet(&[(1, 1), (2, 2), (3, 3)]);
        for node in [1, 2] {
            fleet.record(NodeId([node; 32]), |record| (record.assigned, record.faults) = (10, 5));
        }
        assert_eq!(picked(&need(&limits), &fleet), Some(3));
        let drawn = |order: u8| {
            let lot = Lot { order: NodeId([order; 32]), apart: None };
            picked(&Need { lot: Some(lot), ..need(&limits) }, &fleet)
        };
        assert_eq!((0..60).filter_map(drawn).collect::<BTreeSet<_>>(), BTreeSet::from([1, 2, 3]));
    }

    #[test]
    fn an_operator_audits_no_more_often_for_having_more_hosts() {
        let limits = Limits::default();
        let hosts: Vec<(u8, u8)> =
            (0..196).map(|node| (node, 0)).chain((0..4).map(|more| (196 + more, 1 + more))).collect();
        let mut fleet = fleet(&hosts);
        hosts.iter().for_each(|(node, _)| fleet.trust(NodeId([*node; 32]), Classes::only(Class::Exact)));
        let mut audits = [0; 5];
        for number in 0..1_000u32 {
            let lot = Lot { order: NodeId(canon::hash("test", &number)), apart: None };
            let need = Need { lot: Some(lot), among: Among::Qualified, quorum: 1, ..need(&limits) };
            let auditor = pick(&need, &fleet, &Config::default()).and_then(|(node, _)| fleet.get(node));
            audits[usize::from(auditor.unwrap().operator.0[0])] += 1;
        }
        assert!(audits.iter().all(|times| (120..280).contains(times)), "{audits:?}");
        assert!(fleet.room_is_kept());
    }

    #[test]
    fn the_one_host_that_can_audit_is_found_among_any_number_that_cannot() {
        let limits = Limits { memory_bytes_max: 4 << 30, ..Limits::default() };
        let hosts: Vec<(u8, u8)> = (0..250).map(|node| (node, node)).collect();
        let mut fleet = fleet(&hosts);
        let (able, spacious) = (NodeId([200; 32]), Offer { memory_bytes_max: 8 << 30, ..offer(ENGINE) });
        fleet.up(able, OperatorId([200; 32]), cert(200, 200), spacious, Subnet::Relayed, 0);
        hosts.iter().for_each(|(node, _)| fleet.trust(NodeId([*node; 32]), Classes::only(Class::Exact)));
        for (number, among) in (0..20u32).flat_map(|number| [(number, Among::Qualified), (number, Among::All)]) {
            let lot = Lot { order: NodeId(canon::hash("test", &number)), apart: None };
            let need = Need { lot: Some(lot), among, quorum: 1, ..need(&limits) };
            let max = Config::default().candidates_max;
            let found = (0..=250 / max).any(|_| picked(&need, &fleet) == Some(200) || !fleet.pass_over(max));
            assert!(found, "lot {number}, {among:?}");
        }
    }

    #[test]
    fn an_auditor_elsewhere_is_waited_for_and_nobody_waits_for_one_that_is_not_there() {
        let limits = Limits::default();
        let subnets = [7, 7, 8, 8].map(|site| Subnet::V4([203, 0, site]));
        let mut fleet = Fleet::new(50);
        for (node, subnet) in (1..).zip(subnets) {
            let (id, operator) = (NodeId([node; 32]), OperatorId([node; 32]));
            fleet.up(id, operator, cert(node, node), offer(ENGINE), subnet, 0);
            fleet.trust(id, Classes::only(Class::Exact));
        }
        let lot = |order: u8| Some(Lot { order: NodeId([order; 32]), apart: Some(subnets[0]) });
        let (operators, quorum) = (&[OperatorId([1; 32])], 1);
        let need = Need { lot: lot(1), operators, quorum, ..need(&limits) };
        let drawn = |order: u8| picked(&Need { lot: lot(order), ..need }, &fleet);
        assert_eq!((0..60).filter_map(drawn).collect::<BTreeSet<_>>(), BTreeSet::from([3, 4]));
        assert_eq!(reason(&need, &fleet, 2), Some(Reason::SameSubnet { subnet: subnets[0] }));
        fleet.take(NodeId([3; 32]), AssignmentId(1));
        fleet.take(NodeId([4; 32]), AssignmentId(2));
        assert_eq!(picked(&need, &fleet), None);
        let vouched = Config { vouched: [OperatorId([2; 32])].into(), ..Config::default() };
        assert_eq!(pick(&need, &fleet, &vouched).map(|(node, _)| node), Some(NodeId([2; 32])), "the owner's own may");
        fleet.down(NodeId([3; 32]), 0);
        assert_eq!((picked(&need, &fleet), fleet.seen_is_kept()), (Some(2), true), "one operator of three is too few");
    }

    #[test]
    fn referees_and_hosts_with_standing_are_found_among_any_number_of_others() {
        let limits = Limits::default();
        let hosts: Vec<(u8, u8)> = (1..=200).map(|node| (node, node)).collect();
        let mut fleet = fleet(&hosts);
        let few = BTreeSet::from([OperatorId([150; 32])]);
        let referees = Need { among: Among::Referees(&few), ..need(&limits) };
        assert_eq!(picked(&referees, &fleet), Some(150));
        let qualified = Need { among: Among::Qualified, ..need(&limits) };
        assert_eq!(picked(&qualified, &fleet), None, "nobody said that its results may be accepted alone");
        fleet.trust(NodeId([150; 32]), Classes::only(Class::Exact));
        assert_eq!(picked(&qualified, &fleet), Some(150));
        fleet.take(NodeId([150; 32]), AssignmentId(1));
        assert_eq!((picked(&referees, &fleet), picked(&qualified, &fleet)), (None, None));
        fleet.release(NodeId([150; 32]), AssignmentId(1));
        assert_eq!((picked(&qualified, &fleet), fleet.room_is_kept()), (Some(150), true));
    }

    #[test]
    fn work_goes_round() {
        let limits = Limits::default();
        let mut fleet = fleet(&[(1, 1), (2, 2), (3, 3)]);
        let mut picked = Vec::new();
        while let Some((node, _)) = pick(&need(&limits), &fleet, &Config::default()) {
            fleet.take(node, AssignmentId(1));
            picked.push(node.0[0]);
        }
        picked.sort_unstable();
        assert_eq!(picked, [1, 2, 3]);
    }
}
