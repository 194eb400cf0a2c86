//! What is known of the hosts: who they are, what they offer, what they are busy with, and how they did.
//!
//! A host that disconnects stays here: its work moves after a grace, its history does not. The set of hosts with room is
//! kept as it changes, so that placing a task never walks the whole fleet.
//!
//! - `listed`: how they are found.
//! - `room`: which of them could take an assignment (`places`), and whose they are (`urn`).
//! - `seen`: where those are that may audit.

mod listed;
mod places;
mod room;
mod seen;
mod urn;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
    sync::Arc,
};

use registry::{
    device::{DeviceAsk, DeviceKind},
    id::{EngineFingerprint, JobId, ModuleHash, NodeId, OperatorId},
    job::{Class, ShardInfo},
    membership::NodeCert,
    price::PriceTable,
    sign::Signed,
};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use self::{listed::Listed, room::Room, seen::Seen};
use crate::{
    engines::EngineAsk,
    flow::{AssignmentId, Millis, Offer},
    reputation::Classes,
    subnet::Subnet,
};

/// Modules that a host is remembered to have at hand.
pub const WARM_MODULES_MAX: usize = 64;
/// Assumed duration of a task before the first one is back, in microseconds.
const UNKNOWN_TASK_US: u64 = 50_000;
/// Different offers that are looked through for one like a new host's.
const ALIKE_MAX: usize = 16;

/// Why a host gets no more work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// The job in which it was caught.
    pub job: JobId,
    /// The shard whose quorum it contradicted.
    pub shard: ShardInfo,
    /// The node of the same operator that was caught.
    pub node: NodeId,
}

/// How a host did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Executions that it was given.
    pub assigned: u64,
    /// Executions whose commitment was accepted.
    pub confirmed: u64,
    /// Executions whose commitment a quorum contradicts.
    pub contradicted: u64,
    /// Executions that gave no result.
    pub faults: u64,
}

/// One host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Who answers for it.
    pub operator: OperatorId,
    /// That operator's place among those of the fleet.
    owner: u32,
    /// The operator's word for that.
    pub cert: Arc<Signed<NodeCert>>,
    /// What it offers, which many others may offer too.
    pub offer: Arc<Offer>,
    /// Where it is seen.
    #[serde(default, skip_serializing_if = "Subnet::is_relayed")]
    pub subnet: Subnet,
    /// Whether it is connected.
    pub connected: bool,
    /// When that last changed.
    pub since_ms: Millis,
    /// Whether it has been away for its grace: nobody waits for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_lost: bool,
    /// Assignments that it holds, oldest first.
    pub assignments: SmallVec<[AssignmentId; 4]>,
    /// Running average of its time for a task, in microseconds.
    pub task_us: u64,
    /// Modules that it ran lately, in order.
    pub warm: SmallVec<[ModuleHash; 1]>,
    /// How it did.
    pub record: Record,
    /// Classes in which its operator's results may be accepted alone.
    #[serde(default)]
    pub trusted: Classes,
    /// Why it gets no more work, if so.
    pub suspended: Option<Box<Suspension>>,
    /// Whether it is among those with room: looked at far more often than it changes.
    is_roomy: bool,
}

impl Host {
    /// How many assignments it holds.
    pub fn in_flight(&self) -> u32 {
        u32::try_from(self.assignments.len()).unwrap_or(u32::MAX)
    }

    /// Assignments that it may hold: its slots, and as many more as it is expected to finish in `ahead_ms`.
    pub fn window(&self, ahead_ms: u64) -> u32 {
        let ahead = u64::from(self.offer.slots).saturating_mul(ahead_ms * 1000) / self.task_us.max(1);
        self.offer.slots.saturating_add(self.offer.queue_max.min(u32::try_from(ahead).unwrap_or(u32::MAX)))
    }

    /// Whether it ran the module lately.
    pub fn is_warm(&self, module: ModuleHash) -> bool {
        self.warm.binary_search(&module).is_ok()
    }

    fn warmed(&mut self, module: ModuleHash) {
        if self.is_warm(module) {
            return;
        }
        if self.warm.len() >= WARM_MODULES_MAX {
            self.warm.remove(0);
        }
        let at = self.warm.partition_point(|other| *other < module);
        self.warm.insert(at, module);
    }

    /// Where it is seen, if it may audit.
    fn seen(&self) -> Option<(OperatorId, Subnet)> {
        let may_audit = self.connected && self.suspended.is_none() && self.trusted != Classes::default();
        may_audit.then_some((self.operator, self.subnet))
    }

    fn has_gpu(&self) -> bool {
        self.offer.engines.has(DeviceKind::Gpu)
    }

    fn has_room(&self, ahead_ms: u64) -> bool {
        self.connected && self.suspended.is_none() && self.in_flight() < self.window(ahead_ms)
    }
}

/// All of the nodes in their order, those after `start` first.
pub fn after(nodes: &BTreeSet<NodeId>, start: Option<NodeId>) -> impl Iterator<Item = NodeId> {
    let from = start.map_or(Bound::Unbounded, Bound::Excluded);
    let early = start.map(|start| nodes.range(..=start));
    nodes.range((from, Bound::Unbounded)).chain(early.into_iter().flatten()).copied()
}

/// Offers of hosts that joined lately. What many hosts offer alike is kept once; that is all that it is for.
#[derive(Debug, Clone, Default)]
struct Alike(VecDeque<Arc<Offer>>);

impl Alike {
    fn share(&mut self, offer: Offer) -> Arc<Offer> {
        if let Some(same) = self.0.iter().find(|other| ***other == offer) {
            return same.clone();
        }
        let offer = Arc::new(offer);
        self.0.truncate(ALIKE_MAX - 1);
        self.0.push_front(offer.clone());
        offer
    }
}

/// It says nothing of the fleet.
impl PartialEq for Alike {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Alike {}

/// All hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fleet {
    /// Every one that ever joined, as they did.
    hosts: Listed<NodeId, Host>,
    #[serde(skip)]
    alike: Alike,
    /// Whose they are and were: whose host came first is first.
    owners: Listed<OperatorId, BTreeSet<NodeId>>,
    /// Hosts that could take an assignment now.
    room: Room,
    /// Connected, unsuspended hosts by operator, by engine.
    engines: BTreeMap<EngineFingerprint, BTreeMap<OperatorId, u32>>,
    /// What connected, unsuspended hosts ask, and how many of them each.
    asks: BTreeMap<PriceTable, u32>,
    /// Where those are seen that may audit.
    #[serde(default, skip_serializing_if = "Seen::is_empty")]
    seen: Seen,
    suspended: BTreeMap<OperatorId, Suspension>,
    /// Where the next search for a host starts: after this place.
    cursor: Option<usize>,
    ahead_ms: u64,
}

impl Fleet {
    /// An empty fleet whose hosts are given work `ahead_ms` ahead.
    pub fn new(ahead_ms: u64) -> Self {
        Self { ahead_ms, ..Self::default() }
    }

    /// The host, if it ever joined.
    pub fn get(&self, node: NodeId) -> Option<&Host> {
        self.hosts.get(node)
    }

    /// Every host that ever joined, in the order in which they did.
    pub fn hosts(&self) -> impl Iterator<Item = (NodeId, &Host)> {
        self.hosts.iter()
    }

    /// Whether any host could take an assignment.
    pub fn has_room(&self) -> bool {
        self.room.len() > 0
    }

    /// How many hosts could take an assignment.
    pub fn room(&self) -> usize {
        self.room.len()
    }

    /// Whether the host could take an assignment.
    pub fn is_roomy(&self, node: NodeId) -> bool {
        self.get(node).is_some_and(|host| host.is_roomy)
    }

    /// Hosts of an operator.
    pub fn hosts_of(&self, operator: OperatorId) -> impl Iterator<Item = (NodeId, &Host)> {
        let nodes = self.owners.get(operator).into_iter().flatten();
        nodes.filter_map(|node| Some((*node, self.get(*node)?)))
    }

    /// Hosts with room that may have such a device, of operators that are trusted in the class where one is given. `max` at most,
    /// starting after the one that was [`Fleet::take`]n last.
    pub fn with_room(
        &self,
        device: DeviceAsk,
        trusted: Option<Class>,
        max: usize,
    ) -> impl Iterator<Item = (NodeId, &Host)> {
        self.room.of(device, trusted).after(self.cursor).take(max).filter_map(|place| self.hosts.at(place))
    }

    /// The same in an order in which each of the operators is as likely to be the first as any other. `max` at most.
    pub fn drawn(
        &self,
        device: DeviceAsk,
        trusted: Option<Class>,
        lot: NodeId,
        max: usize,
    ) -> impl Iterator<Item = (NodeId, &Host)> {
        let (room, operators) = (self.room.of(device, trusted), self.room.drawn(device, trusted, lot));
        let nodes = operators.filter_map(|operator| self.owners.at(operator as usize));
        // Of one with very many the search begins anywhere, and is not long.
        let nodes = nodes.flat_map(move |(_, nodes)| after(nodes, Some(lot)).take(max));
        let places = nodes.filter_map(|node| self.hosts.place(node)).filter(|place| room.contains(*place));
        places.take(max).filter_map(|place| self.hosts.at(place))
    }

    /// None of the next `max` hosts with room was of use: the next search starts behind them. Says whether there are others.
    pub fn pass_over(&mut self, max: usize) -> bool {
        let others = self.room.len() > max;
        if others {
            self.cursor = self.room.of(DeviceAsk::Any, None).after(self.cursor).take(max).last();
        }
        others
    }

    /// Distinct operators with a connected host on this engine.
    pub fn operators(&self, engine: EngineFingerprint) -> usize {
        self.engines.get(&engine).map_or(0, BTreeMap::len)
    }

    /// Whether an operator besides these has a connected host on this engine.
    pub fn has_other_operator(&self, engine: EngineFingerprint, besides: &[OperatorId]) -> bool {
        self.engines.get(&engine).is_some_and(|operators| operators.keys().any(|operator| !besides.contains(operator)))
    }

    /// The most distinct operators that any one engine has that suits.
    pub fn operators_max(&self, ask: &EngineAsk) -> usize {
        let connected = self.hosts().filter(|(_, host)| host.connected);
        let engines = connected.flat_map(|(_, host)| &host.offer.engines.0);
        let suiting = engines.filter(|engine| ask.suits(engine));
        suiting.map(|engine| self.operators(engine.fingerprint)).max().unwrap_or(0)
    }

    /// Connected hosts that are seen elsewhere and whose results may be accepted alone in some class, where there are enough of them
    /// to audit what is done here.
    pub fn elsewhere(&self, than: Subnet) -> impl Iterator<Item = (NodeId, &Host)> {
        self.seen.elsewhere(than).filter_map(|node| Some((node, self.get(node)?)))
    }

    /// A host joins, or comes back with a new offer.
    pub fn up(
        &mut self,
        node: NodeId,
        operator: OperatorId,
        cert: Arc<Signed<NodeCert>>,
        offer: Offer,
        subnet: Subnet,
        now: Millis,
    ) {
        let offer = self.alike.share(offer);
        self.uncount(node);
        let suspended = self.suspended.get(&operator).cloned().map(Box::new);
        if let Some(nodes) = self.hosts.get(node).and_then(|host| self.owners.at_mut(host.owner as usize)) {
            nodes.remove(&node);
        }
        let owner = self.owns(operator, node);
        match self.hosts.get_mut(node) {
            Some(host) => {
                (host.operator, host.owner, host.cert, host.offer) = (operator, owner, cert, offer);
                (host.connected, host.since_ms, host.suspended) = (true, now, suspended);
                host.is_lost = false;
                host.subnet = subnet;
            }
            None => {
                let new = Host {
                    operator,
                    owner,
                    cert,
                    offer,
                    subnet,
                    connected: true,
                    since_ms: now,
                    is_lost: false,
                    assignments: SmallVec::new(),
                    task_us: UNKNOWN_TASK_US,
                    warm: SmallVec::new(),
                    record: Record::default(),
                    trusted: Classes::default(),
                    suspended,
                    is_roomy: false,
                };
                self.hosts.push(node, new);
            }
        }
        self.count(node);
    }

    /// A host's connection is gone.
    pub fn down(&mut self, node: NodeId, now: Millis) {
        self.uncount(node);
        self.change(node, |host| {
            if host.connected {
                (host.connected, host.since_ms) = (false, now);
            }
        });
    }

    /// A host that is away is not waited for any more.
    pub fn lose(&mut self, node: NodeId) {
        self.change(node, |host| host.is_lost = !host.connected);
    }

    /// A host was given an assignment.
    pub fn take(&mut self, node: NodeId, assignment: AssignmentId) {
        self.cursor = self.change(node, |host| {
            host.assignments.push(assignment);
            host.record.assigned += 1;
        });
    }

    /// A host is rid of an assignment, whatever came of it.
    pub fn release(&mut self, node: NodeId, assignment: AssignmentId) {
        self.change(node, |host| host.assignments.retain(|held| *held != assignment));
    }

    /// A host finished an execution of `module` in `task_us`, by its own word.
    pub fn finished(&mut self, node: NodeId, module: ModuleHash, task_us: u64) {
        self.change(node, |host| {
            host.task_us = (host.task_us * 7 + task_us.min(3_600_000_000)) / 8;
            host.warmed(module);
        });
    }

    /// Changes how a host did.
    pub fn record(&mut self, node: NodeId, change: impl FnOnce(&mut Record)) {
        if let Some(host) = self.hosts.get_mut(node) {
            change(&mut host.record);
        }
    }

    /// An operator was caught: none of its hosts gets work again.
    pub fn suspend(&mut self, operator: OperatorId, suspension: &Suspension) {
        self.suspended.entry(operator).or_insert_with(|| suspension.clone());
        for node in self.owners.get(operator).cloned().unwrap_or_default() {
            self.uncount(node);
            self.change(node, |host| _ = host.suspended.get_or_insert_with(|| Box::new(suspension.clone())));
        }
    }

    /// In these classes the results of a host's operator may be accepted alone.
    pub fn trust(&mut self, node: NodeId, classes: Classes) {
        if self.get(node).is_none_or(|host| host.trusted == classes) {
            return;
        }
        self.unsee(node);
        self.leave(node);
        self.change(node, |host| host.trusted = classes);
        self.see(node);
    }

    /// Whether an operator was caught.
    pub fn is_suspended(&self, operator: OperatorId) -> bool {
        self.suspended.contains_key(&operator)
    }

    /// The price tables of connected hosts that are not suspended.
    pub fn asks(&self) -> impl ExactSizeIterator<Item = &PriceTable> {
        self.asks.keys()
    }

    /// In what an operator was caught, if it was.
    pub fn suspension(&self, operator: OperatorId) -> Option<&Suspension> {
        self.suspended.get(&operator)
    }

    /// Every operator that was caught, and in what.
    pub fn suspensions(&self) -> impl Iterator<Item = (OperatorId, &Suspension)> {
        self.suspended.iter().map(|(operator, suspension)| (*operator, suspension))
    }

    /// The host is the operator's from now on. Gives the operator's place.
    fn owns(&mut self, operator: OperatorId, node: NodeId) -> u32 {
        let place = self.owners.place(operator).unwrap_or_else(|| {
            self.owners.push(operator, BTreeSet::new());
            self.owners.len() - 1
        });
        if let Some(nodes) = self.owners.at_mut(place) {
            nodes.insert(node);
        }
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    fn counts(&self, node: NodeId) -> Option<(Vec<EngineFingerprint>, OperatorId)> {
        let host = self.hosts.get(node).filter(|host| host.connected && host.suspended.is_none())?;
        Some((host.offer.engines.fingerprints().collect(), host.operator))
    }

    fn count(&mut self, node: NodeId) {
        if let Some((engines, operator)) = self.counts(node) {
            let prices = self.get(node).map(|host| host.offer.prices.clone()).unwrap_or_default();
            *self.asks.entry(prices).or_default() += 1;
            self.see(node);
            for engine in engines {
                *self.engines.entry(engine).or_default().entry(operator).or_default() += 1;
            }
        }
        self.change(node, |_| {});
    }

    fn uncount(&mut self, node: NodeId) {
        self.leave(node);
        let Some((engines, operator)) = self.counts(node) else { return };
        if let Some(prices) = self.hosts.get(node).map(|host| &host.offer.prices)
            && let Some(hosts) = self.asks.get_mut(prices)
        {
            *hosts -= 1;
            if *hosts == 0 {
                self.asks.remove(prices);
            }
        }
        self.unsee(node);
        for engine in engines {
            let Some(operators) = self.engines.get_mut(&engine) else { continue };
            if let Some(hosts) = operators.get_mut(&operator) {
                *hosts -= 1;
                if *hosts == 0 {
                    operators.remove(&operator);
                }
            }
            if operators.is_empty() {
                self.engines.remove(&engine);
            }
        }
    }

    fn see(&mut self, node: NodeId) {
        if let Some((operator, subnet)) = self.get(node).and_then(Host::seen) {
            self.seen.insert(node, operator, subnet);
        }
    }

    fn unsee(&mut self, node: NodeId) {
        if let Some((operator, subnet)) = self.get(node).and_then(Host::seen) {
            self.seen.remove(node, operator, subnet);
        }
    }

    /// Changes a host, which is with those that have room from then on if it has any. Gives its place.
    fn change(&mut self, node: NodeId, change: impl FnOnce(&mut Host)) -> Option<usize> {
        let place = self.hosts.place(node)?;
        let host = self.hosts.at_mut(place)?;
        change(host);
        let has_room = host.has_room(self.ahead_ms);
        self.put(place, has_room);
        Some(place)
    }

    /// It is not with those that have room, until it is looked at anew: what it is found by there changes.
    fn leave(&mut self, node: NodeId) {
        if let Some(place) = self.hosts.place(node) {
            self.put(place, false);
        }
    }

    fn put(&mut self, place: usize, has_room: bool) {
        if let Some(host) = self.hosts.at_mut(place).filter(|host| host.is_roomy != has_room) {
            host.is_roomy = has_room;
            self.room.change(place, host, has_room);
        }
    }

    /// Whether what hosts ask is counted as it is.
    pub fn asks_are_counted(&self) -> bool {
        let mut asks: BTreeMap<&PriceTable, u32> = BTreeMap::new();
        for (_, host) in self.hosts().filter(|(_, host)| host.connected && host.suspended.is_none()) {
            *asks.entry(&host.offer.prices).or_default() += 1;
        }
        asks.into_iter().eq(self.asks.iter().map(|(prices, hosts)| (prices, *hosts)))
    }

    /// Whether hosts are kept where they are seen.
    pub fn seen_is_kept(&self) -> bool {
        self.seen.is_of(self.hosts().filter_map(|(node, host)| Some((node, host.seen()?))))
    }

    /// Whether hosts with room are kept as they are.
    pub fn room_is_kept(&self) -> bool {
        let is_known = self.hosts().all(|(_, host)| host.is_roomy == host.has_room(self.ahead_ms));
        let places = self.hosts().zip(0..).map(|((_, host), place)| (place, host));
        is_known && self.room.is_of(places.filter(|(_, host)| host.is_roomy))
    }
}
