//! Which host runs a shard: filter, then score. Every rejected host has a [`Reason`], and `why` shows it.

use std::fmt;

use registry::{
    id::{EngineFingerprint, ModuleHash, NodeId, OperatorId},
    job::{Limits, Profile},
};
use serde::Serialize;

use crate::{
    config::Config,
    fleet::{Fleet, Host},
};

/// What a shard needs of its next host.
#[derive(Debug, Clone, Copy)]
pub struct Need<'a> {
    /// Its module.
    pub module: ModuleHash,
    /// Its limits.
    pub limits: &'a Limits,
    /// Distinct operators that have to agree.
    pub quorum: u8,
    /// Which of a host's engines it takes.
    pub profile: Profile,
    /// The engine of its earlier executions.
    pub engine: Option<EngineFingerprint>,
    /// Operators that have had it.
    pub operators: &'a [OperatorId],
    /// Hosts that failed to run it.
    pub faulted: &'a [NodeId],
}

/// Why a host does not run a shard now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Not connected.
    Away,
    /// Caught signing a result that a quorum contradicts.
    Suspended,
    /// Holds as many assignments as it can.
    Full {
        /// Assignments that it holds.
        in_flight: u32,
    },
    /// The same operator has had this shard.
    SameOperator,
    /// It failed to run this shard, and a host that has not may still do so.
    Failed,
    /// A task may have less memory there than this one asks for.
    Memory {
        /// Asked for, in bytes.
        asked: u64,
        /// Offered, in bytes.
        offered: u64,
    },
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
            Self::Full { in_flight } => write!(f, "is full: it holds {in_flight} assignments"),
            Self::SameOperator => {
                f.write_str("belongs to an operator that has had this shard; the quorum asks for distinct ones")
            }
            Self::Failed => f.write_str("failed to run this shard, and another host may still do so"),
            Self::Memory { asked, offered } => write!(f, "offers {offered} bytes of memory a task, of {asked} asked"),
            Self::Engine => f.write_str("runs another engine than this shard's earlier executions"),
            Self::EngineAlone { operators, quorum } => {
                write!(f, "runs an engine that {operators} connected operators have, of {quorum} for the quorum")
            }
        }
    }
}

/// How well a host suits a shard; larger is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Score(pub i64);

/// Whether the host `node` may run the shard, and how well it suits.
///
/// # Errors
/// The first rule that says no.
pub fn consider(need: &Need<'_>, node: NodeId, host: &Host, fleet: &Fleet, config: &Config) -> Result<Score, Reason> {
    if !host.connected {
        return Err(Reason::Away);
    }
    if host.suspended.is_some() {
        return Err(Reason::Suspended);
    }
    if need.operators.contains(&host.operator) {
        return Err(Reason::SameOperator);
    }
    if need.limits.memory_bytes_max > host.offer.memory_bytes_max {
        return Err(Reason::Memory { asked: need.limits.memory_bytes_max, offered: host.offer.memory_bytes_max });
    }
    let own = host.offer.engines.of(need.profile);
    match need.engine {
        Some(engine) if engine == own => {}
        Some(engine) if fleet.has_other_operator(engine, need.operators) => return Err(Reason::Engine),
        // No earlier execution, or nobody is left who could repeat it on its engine.
        _ => {
            let operators = fleet.operators(own);
            if operators < usize::from(need.quorum) {
                return Err(Reason::EngineAlone { operators, quorum: need.quorum });
            }
        }
    }
    let window = host.window(config.ahead_ms);
    if host.in_flight >= window {
        return Err(Reason::Full { in_flight: host.in_flight });
    }
    // A host that fails everything at once always has room: while the others are busy it must not use up all attempts.
    if need.faulted.contains(&node) && another_may(need, own, fleet) {
        return Err(Reason::Failed);
    }
    Ok(score(need, node, host, window))
}

/// Whether a connected host that did not fail the shard could run it in place of one on `engine`, now or when it has room.
fn another_may(need: &Need<'_>, engine: EngineFingerprint, fleet: &Fleet) -> bool {
    fleet.hosts().any(|(node, host)| {
        host.connected
            && host.suspended.is_none()
            && host.offer.engines.of(need.profile) == engine
            && host.offer.memory_bytes_max >= need.limits.memory_bytes_max
            && !need.faulted.contains(&node)
            && !need.operators.contains(&host.operator)
    })
}

/// A host that has the module beats one that has to fetch it, unless it is far busier; one that failed the shard is last.
fn score(need: &Need<'_>, node: NodeId, host: &Host, window: u32) -> Score {
    let free = i64::from(window - host.in_flight) * 100 / i64::from(window.max(1));
    let warm = if host.warm.contains(&need.module) { 50 } else { 0 };
    let failed_it = i64::from(need.faulted.contains(&node)) * 10_000;
    let record = host.record;
    let unreliable = i64::try_from(record.faults * 100 / record.assigned.max(1)).unwrap_or(100);
    Score(free + warm - failed_it - unreliable)
}

/// The best of the hosts with room, if any may run the shard.
pub fn pick(need: &Need<'_>, fleet: &Fleet, config: &Config) -> Option<NodeId> {
    let mut best: Option<(Score, NodeId)> = None;
    for (node, host) in fleet.with_room(config.candidates_max) {
        if let Ok(score) = consider(need, node, host, fleet, config)
            && best.is_none_or(|(highest, _)| score > highest)
        {
            best = Some((score, node));
        }
    }
    best.map(|(_, node)| node)
}

/// Every host with its score or the reason against it.
pub fn explain(need: &Need<'_>, fleet: &Fleet, config: &Config) -> Vec<(NodeId, Result<Score, Reason>)> {
    fleet.hosts().map(|(node, host)| (node, consider(need, node, host, fleet, config))).collect()
}

#[cfg(test)]
mod tests {
    use registry::{
        membership::NodeCert,
        sign::{SecretKey, Signed},
    };

    use super::*;
    use crate::flow::{Engines, Offer};

    const ENGINE: EngineFingerprint = EngineFingerprint([9; 32]);
    const PORTABLE: EngineFingerprint = EngineFingerprint([8; 32]);

    fn cert(node: u8, operator: u8) -> Signed<NodeCert> {
        let cert = NodeCert { node: NodeId([node; 32]), issued_ms: 0 };
        Signed::seal(&cert, &SecretKey::from_bytes(&[operator; 32]))
    }

    fn offer(engine: EngineFingerprint) -> Offer {
        Offer {
            slots: 1,
            queue_max: 0,
            memory_bytes_max: 1 << 30,
            engines: Engines { native: engine, portable: PORTABLE },
        }
    }

    fn fleet(hosts: &[(u8, u8)]) -> Fleet {
        let mut fleet = Fleet::new(50);
        for &(node, operator) in hosts {
            fleet.up(NodeId([node; 32]), OperatorId([operator; 32]), cert(node, operator), offer(ENGINE), 0);
        }
        fleet
    }

    fn need(limits: &Limits) -> Need<'_> {
        Need {
            module: ModuleHash::of(b"m"),
            limits,
            quorum: 2,
            profile: Profile::Native,
            engine: None,
            operators: &[],
            faulted: &[],
        }
    }

    fn reason(need: &Need<'_>, fleet: &Fleet, node: u8) -> Option<Reason> {
        explain(need, fleet, &Config::default())
            .into_iter()
            .find(|(id, _)| *id == NodeId([node; 32]))
            .and_then(|(_, result)| result.err())
    }

    #[test]
    fn every_rejected_host_has_its_reason() {
        let limits = Limits::default();
        let need = need(&limits);
        let mut fleet = fleet(&[(1, 1), (2, 2), (3, 3)]);
        let had_it = Need { operators: &[OperatorId([1; 32])], ..need };
        assert_eq!(reason(&had_it, &fleet, 1), Some(Reason::SameOperator));
        fleet.up(NodeId([4; 32]), OperatorId([4; 32]), cert(4, 4), offer(EngineFingerprint([0; 32])), 0);
        assert_eq!(reason(&Need { engine: Some(EngineFingerprint([0; 32])), ..need }, &fleet, 1), Some(Reason::Engine));
        let greedy = Limits { memory_bytes_max: 2 << 30, ..limits };
        assert!(matches!(reason(&Need { limits: &greedy, ..need }, &fleet, 1), Some(Reason::Memory { .. })));
        fleet.take(NodeId([1; 32]));
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
        assert_eq!(pick(&need, &fleet, &Config::default()), Some(NodeId([2; 32])));
    }

    #[test]
    fn a_host_that_failed_the_shard_waits_while_another_is_busy_and_not_when_nobody_else_is_there() {
        let limits = Limits::default();
        let mut fleet = fleet(&[(1, 1), (2, 2)]);
        let faulted = [NodeId([1; 32])];
        let need = Need { faulted: &faulted, quorum: 1, ..need(&limits) };
        fleet.take(NodeId([2; 32]));
        assert_eq!(reason(&need, &fleet, 1), Some(Reason::Failed));
        assert_eq!(pick(&need, &fleet, &Config::default()), None);
        fleet.down(NodeId([2; 32]), 0);
        assert_eq!(pick(&need, &fleet, &Config::default()), Some(NodeId([1; 32])));
    }

    #[test]
    fn work_goes_round() {
        let limits = Limits::default();
        let mut fleet = fleet(&[(1, 1), (2, 2), (3, 3)]);
        let mut picked = Vec::new();
        while let Some(node) = pick(&need(&limits), &fleet, &Config::default()) {
            fleet.take(node);
            picked.push(node.0[0]);
        }
        picked.sort_unstable();
        assert_eq!(picked, [1, 2, 3]);
    }
}
