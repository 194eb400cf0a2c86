//! The machine against a small world: hosts that are honest, lie, crash or lose things, on virtual time, from one seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use registry::{
    canon,
    device::{Device, DeviceKind},
    dispute::End,
    id::{EngineFingerprint, ModuleHash, StateRoot},
    job::{JobInput, Policy, Reduce, ShardInfo, Split, task_id},
    price::{PriceTable, Usage},
    receipt::{Execution, Outcome, Receipt},
    reputation::{Cause, Shown},
    segment::SegmentRecord,
    sign::SecretKey,
};

use super::*;
use crate::{engines::Engines, flow::Until, plan::Cutter};

mod audit;
mod checkpoints;
mod devices;
mod heirs;
mod history;
mod money;
mod trials;

const ENGINE: EngineFingerprint = EngineFingerprint([9; 32]);

/// How a host behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conduct {
    Honest,
    /// Signs an output of its own.
    Liar,
    /// Signs what all of them sign in place of the truth.
    Colluder,
    /// Never answers.
    Silent,
    /// Answers that it cannot.
    Faulty,
    /// Signs that models ran on the processor, whatever was ordered.
    Downgrading,
    /// Signs twice the fuel that it took, and asks for it.
    Greedy,
}

struct Host {
    key: SecretKey,
    operator: SecretKey,
    conduct: Conduct,
    engines: Engines,
    /// Where it is seen.
    subnet: Subnet,
    inbox: VecDeque<Assignment>,
}

impl Host {
    fn node(&self) -> NodeId {
        NodeId(self.key.public())
    }
}

fn operator_key(index: u8) -> SecretKey {
    SecretKey::from_bytes(&[index + 100; 32])
}

/// What a host says that models ran on.
fn device(host: &Host, assignment: &Assignment, spec: &JobSpec) -> Option<Device> {
    let truth = host.engines.get(assignment.engine)?.device.clone().filter(|_| !spec.models.is_empty())?;
    let downgraded = Device { kind: DeviceKind::Cpu, ..truth.clone() };
    Some(if host.conduct == Conduct::Downgrading { downgraded } else { truth })
}

/// The machine, its journal, and the world around it.
struct World {
    config: Config,
    state: State,
    journal: Vec<(Millis, Event)>,
    now: Millis,
    hosts: Vec<Host>,
    specs: BTreeMap<JobId, JobSpec>,
    seed: u64,
    accepted: Vec<Record>,
    evidence: Vec<(NodeId, Record)>,
    ended: BTreeSet<JobId>,
    concats: VecDeque<JobId>,
    forgotten: Vec<JobId>,
    /// What all hosts ask.
    prices: PriceTable,
    /// Who pays for all jobs.
    payer: Option<Payer>,
    invoices: Vec<Invoice>,
    archived: Vec<Posting>,
    /// Whether tasks have steps.
    steps: bool,
    /// Records of segments that were signed.
    segments: BTreeMap<BlobHash, SegmentRecord>,
    /// What the driver is to look into.
    parts: VecDeque<Sides>,
    /// What became of operators' standings.
    changes: Vec<(OperatorId, Change)>,
    /// What follows from that alone.
    shown: BTreeMap<OperatorId, Shown>,
}

/// Two results of a shard that part somewhere.
type Sides = (JobId, ShardInfo, Box<[(Witness, BlobHash); 2]>);

/// States of a task with steps, as a host signs them: a liar's are others from the fourth on.
fn states(conduct: Conduct, index: usize) -> SegmentRecord {
    let lies = |at: u8| at >= 3 && matches!(conduct, Conduct::Liar | Conduct::Colluder);
    let who = if conduct == Conduct::Liar { index as u8 } else { 99 };
    let root = |at: u8| StateRoot([if lies(at) { 100 + who } else { at }; 32]);
    SegmentRecord { states: (0..6).map(root).collect() }
}

impl World {
    fn new(conducts: &[Conduct], seed: u64) -> Self {
        Self::with(Config::default(), conducts, seed)
    }

    fn with(config: Config, conducts: &[Conduct], seed: u64) -> Self {
        Self::priced(PriceTable::default(), config, conducts, seed)
    }

    fn priced(prices: PriceTable, config: Config, conducts: &[Conduct], seed: u64) -> Self {
        let hosts = conducts.iter().zip(1u8..).map(|(conduct, index)| Host {
            key: SecretKey::from_bytes(&[index; 32]),
            operator: operator_key(index),
            conduct: *conduct,
            engines: Engines::plain(ENGINE, ENGINE),
            subnet: Subnet::Relayed,
            inbox: VecDeque::new(),
        });
        let mut world = Self {
            state: State::new(config.clone()),
            config,
            journal: Vec::new(),
            now: 1_000,
            hosts: hosts.collect(),
            specs: BTreeMap::new(),
            seed,
            accepted: Vec::new(),
            evidence: Vec::new(),
            ended: BTreeSet::new(),
            concats: VecDeque::new(),
            forgotten: Vec::new(),
            prices,
            payer: None,
            invoices: Vec::new(),
            archived: Vec::new(),
            steps: false,
            segments: BTreeMap::new(),
            parts: VecDeque::new(),
            changes: Vec::new(),
            shown: BTreeMap::new(),
        };
        world.feed(Event::HistoriesBegin);
        for index in 0..world.hosts.len() {
            world.join(index);
        }
        world
    }

    fn random(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below
    }

    fn join(&mut self, index: usize) {
        let host = &self.hosts[index];
        let (node, operator) = (host.node(), OperatorId(host.operator.public()));
        let cert = Arc::new(Signed::seal(&NodeCert { node, issued_ms: 0 }, &host.operator));
        let (engines, prices, subnet) = (host.engines.clone(), self.prices.clone(), host.subnet);
        let offer = Offer { slots: 2, queue_max: 4, memory_bytes_max: 1 << 30, engines, prices };
        let holding = host.inbox.iter().map(|assignment| assignment.id).collect();
        self.feed(Event::HostUp { node, operator, cert, offer, subnet, holding });
    }

    fn submit(&mut self, input: &[u8], change: impl FnOnce(&mut JobSpec)) -> JobId {
        let mut spec = JobSpec::new(ModuleHash::of(b"module"), self.specs.len() as u64);
        spec.input = JobInput::Inline(input.to_vec().into());
        spec.split = Split::Lines(1);
        change(&mut spec);
        let mut cutter = Cutter::new(&spec.split, None).unwrap();
        cutter.push(input).unwrap();
        let plan = cutter.finish().unwrap();
        let id = spec.id();
        self.specs.insert(id, spec.clone());
        let secret = Secret::from_bytes([7; 32]);
        self.feed(Event::Submitted { spec: Box::new(spec), plan, secret, payer: self.payer });
        id
    }

    fn feed(&mut self, event: Event) {
        self.journal.push((self.now, event.clone()));
        for effect in on_event(&mut self.state, event, self.now) {
            match effect {
                Effect::Assign { node, assignment } => self.host(node).inbox.push_back(assignment),
                Effect::Revoke { node, assignment } => self.host(node).inbox.retain(|open| open.id != assignment),
                Effect::Keep { record, accused: None, .. } => self.accepted.push(record),
                Effect::Keep { record, accused: Some(node), .. } => self.evidence.push((node, record)),
                Effect::Concat { job, .. } => self.concats.push_back(job),
                Effect::Notify { job, notice: Notice::Ended { .. } } => {
                    assert!(self.ended.insert(job), "a job ended twice")
                }
                Effect::Forget { job, .. } => self.forgotten.push(job),
                Effect::Archive { postings } => self.archived.extend(postings),
                Effect::Invoice { invoice } => self.invoices.push(*invoice),
                Effect::Part { job, shard, sides } => self.parts.push_back((job, shard, sides)),
                Effect::Changed { operator, change } => self.changed(operator, *change),
                Effect::Acknowledge { .. } | Effect::Notify { .. } => {}
            }
        }
        self.state.check().unwrap();
        self.check_histories();
    }

    fn host(&mut self, node: NodeId) -> &mut Host {
        self.hosts.iter_mut().find(|host| host.node() == node).unwrap()
    }

    /// What an honest execution of the assignment writes.
    fn truth(assignment: &Assignment) -> Vec<u8> {
        [assignment.input.as_bytes().as_slice(), b"!"].concat()
    }

    /// The host works off its oldest assignment.
    fn answer(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        if host.conduct == Conduct::Silent {
            return;
        }
        let Some(assignment) = host.inbox.pop_front() else { return };
        let node = host.node();
        if host.conduct == Conduct::Faulty {
            let fault = Fault::new("deadline", "the task ran past its deadline");
            self.feed(Event::Faulted { node, assignment: assignment.id, fault });
            return;
        }
        if let Some(until) = assignment.until {
            let found = self.find(index, &assignment, until);
            self.feed(Event::Found { node, assignment: assignment.id, found });
            return;
        }
        let mut stdout = Self::truth(&assignment);
        match host.conduct {
            Conduct::Liar => stdout.push(index as u8),
            Conduct::Colluder => stdout.push(255),
            Conduct::Honest | Conduct::Silent | Conduct::Faulty | Conduct::Downgrading | Conduct::Greedy => {}
        }
        let output = Output { stdout: BlobHash::of(&stdout), stdout_bytes: stdout.len() as u64, files: Vec::new() };
        let spec = &self.specs[&assignment.job];
        let segments = self.steps.then(|| states(host.conduct, index));
        self.segments.extend(segments.clone().map(|record| (BlobHash::of(&record.to_bytes()), record)));
        let execution = Execution {
            task: task_id(spec.template().hash(), assignment.shard, assignment.input),
            module: spec.module,
            class: spec.class,
            engine: assignment.engine,
            outcome: Outcome::Ok,
            fuel_used: if host.conduct == Conduct::Greedy { 20 } else { 10 },
            output: output.hash(),
            nn_root: spec.models.values().next().map(|model| BlobHash::from(*model)),
            segment_root: segments.as_ref().and_then(SegmentRecord::root),
        };
        let operator = OperatorId(host.operator.public());
        let mut receipt = Receipt {
            job: assignment.job,
            shard: assignment.shard,
            execution,
            device: device(host, &assignment, spec),
            node,
            operator,
            nonce: assignment.id.0,
            price_micro: 0,
            nn_record: spec.models.values().next().map(|model| BlobHash::from(*model)),
            segment_record: segments.as_ref().map(|record| BlobHash::of(&record.to_bytes())),
        };
        let usage = Usage::of(&receipt, &output, spec.limits.memory_bytes_max);
        receipt.price_micro = self.prices.bill(&usage).unwrap().total.micro();
        let receipt = Attested::check(Signed::seal(&receipt, &host.key), node).unwrap();
        self.feed(Event::Receipt { node, receipt, output, task_us: 1_000 });
    }

    /// What a host finds that runs a task to a state: whoever lies about a task's states says what it signed.
    fn find(&self, index: usize, assignment: &Assignment, until: Until) -> Found {
        let conduct = self.hosts[index].conduct;
        let root = states(conduct, index).states[until.state as usize];
        let snapshot = BlobHash::of(&root.0);
        let checkpoint = Checkpoint { index: until.state, fuel_used: 7, snapshot, bytes: 32 };
        let from = assignment.from.map(|from| from.index + 1);
        assert!(from.is_none_or(|from| from == until.state), "one segment is run: {from:?} to {}", until.state);
        Found { end: End::State(root), checkpoint: until.keeps.then_some(checkpoint) }
    }

    /// Looks where two results part.
    fn part(&mut self, (job, shard, sides): Sides) {
        let [first, second] = sides.each_ref().map(|(_, record)| &self.segments[record]);
        let parting = Parting::new((sides[0].0.clone(), first), (sides[1].0.clone(), second));
        self.feed(Event::Parted { job, shard, parting: Some(Box::new(parting)) });
    }

    fn run(&mut self) {
        for _ in 0..20_000 {
            if self.ended.len() == self.specs.len() {
                return;
            }
            self.step();
        }
        panic!("jobs did not end: {:?}", self.state.job_views(10));
    }

    fn step(&mut self) {
        if let Some(job) = self.concats.pop_front() {
            self.feed(Event::Concatenated { job, input: BlobHash::of(b"parts"), bytes: 5 });
            return;
        }
        if let Some(part) = self.parts.pop_front() {
            self.part(part);
            return;
        }
        let busy: Vec<usize> = (0..self.hosts.len())
            .filter(|index| self.hosts[*index].conduct != Conduct::Silent && !self.hosts[*index].inbox.is_empty())
            .collect();
        if busy.is_empty() {
            self.now = self.state.next_timer().expect("something is due while jobs are unfinished").max(self.now);
            self.feed(Event::Tick);
        } else {
            let turn = self.random(busy.len() as u64) as usize;
            self.now += self.random(20);
            if self.state.next_timer().is_some_and(|due| due <= self.now) {
                self.feed(Event::Tick);
            }
            self.answer(busy[turn]);
        }
    }

    /// Runs until all jobs have ended, and crashes a host after so many steps, again and again.
    fn run_with(&mut self, crashes: &[(usize, usize)]) {
        for (host, steps) in crashes {
            for _ in 0..*steps {
                if self.ended.len() < self.specs.len() {
                    self.step();
                }
            }
            self.crash(host % self.hosts.len());
        }
        self.run();
    }

    /// Drops a host's connection; it comes back with or without its assignments.
    fn crash(&mut self, index: usize) {
        let node = self.hosts[index].node();
        self.feed(Event::HostDown { node });
        if self.random(2) == 0 {
            self.hosts[index].inbox.clear();
        }
        self.now += self.random(6_000);
        self.feed(Event::Tick);
        self.join(index);
    }

    fn check_replay(&self) {
        let mut replayed = State::new(self.config.clone());
        for (now, event) in &self.journal {
            let bytes = canon::encode(event);
            on_event(&mut replayed, canon::decode(&bytes, bytes.len()).unwrap(), *now);
        }
        assert!(replayed == self.state, "the replayed machine differs");
        let snapshot = canon::encode(&self.state);
        let restored: State = canon::decode(&snapshot, snapshot.len()).unwrap();
        assert!(restored == self.state, "the snapshot differs");
    }
}

fn result(world: &World, job: JobId) -> Vec<Part> {
    world.state.job(job).unwrap().result().unwrap_or_else(|| panic!("{:?}", phase(world, job)))
}

fn phase(world: &World, job: JobId) -> &Phase {
    &world.state.job(job).unwrap().phase
}

#[test]
fn a_job_over_honest_hosts_costs_its_quorum_and_no_more() {
    let mut world = World::new(&[Conduct::Honest; 4], 1);
    let job = world.submit(b"a\nb\nc\nd\n", |_| {});
    world.run();
    let parts = result(&world, job);
    assert_eq!(parts.iter().map(|part| part.shard.index).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(world.state.job(job).unwrap().executions, 8);
    world.accepted.iter().for_each(|record| assert_eq!(record.check().unwrap().operators.len(), 2));
    world.check_replay();
}

#[test]
fn a_liar_is_caught_with_evidence_and_gets_no_more_work() {
    let mut world = World::new(&[Conduct::Honest, Conduct::Honest, Conduct::Honest, Conduct::Liar], 2);
    let input: String = (0..30).map(|line| format!("{line}\n")).collect();
    let job = world.submit(input.as_bytes(), |_| {});
    world.run();
    assert!(matches!(phase(&world, job), Phase::Done));
    let liar = world.hosts[3].node();
    assert!(!world.evidence.is_empty());
    for (node, record) in &world.evidence {
        assert_eq!(*node, liar);
        assert_eq!(record.check().unwrap().accused.unwrap().0, liar);
    }
    assert!(world.state.host(liar).unwrap().suspended.is_some());
    let assigned = world.state.host(liar).unwrap().record.assigned;
    world.submit(b"more\nwork\n", |_| {});
    world.run();
    assert_eq!(world.state.host(liar).unwrap().record.assigned, assigned);
}

#[test]
fn a_reduce_runs_over_the_maps_outputs_under_the_same_policy() {
    let mut world = World::new(&[Conduct::Honest; 3], 3);
    let job = world.submit(b"a\nb\n", |spec| spec.reduce = Reduce::Task);
    world.run();
    let parts = result(&world, job);
    assert_eq!(parts.len(), 1);
    assert_eq!(world.accepted.len(), 3, "two shards and the reduce task have a record each");
    world.check_replay();
}

#[test]
fn a_quorum_that_cannot_be_reached_waits_with_a_reason_and_ends_at_the_deadline() {
    let mut world = World::new(&[Conduct::Honest], 4);
    let job = world.submit(b"a\n", |spec| spec.deadline_ms = 120_000);
    let why = world.state.why(job, registry::job::Stage::Map, 0).unwrap();
    assert!(why.summary.contains("a quorum of 2 needs as many operators, 1 are connected"), "{}", why.summary);
    assert_eq!(why.hosts.len(), 1);
    world.run();
    assert!(matches!(phase(&world, job), Phase::Failed { reason } if reason.word == "deadline"));
}

#[test]
fn a_task_that_every_host_refuses_fails_its_job_at_once_with_the_last_fault() {
    let mut world = World::new(&[Conduct::Faulty; 3], 5);
    let start = world.now;
    let job = world.submit(b"a\n", |spec| spec.attempts_max = 4);
    world.run();
    let Phase::Failed { reason } = phase(&world, job) else { panic!("{:?}", phase(&world, job)) };
    assert!(reason.word == "attempts" && reason.detail.contains("ran past its deadline"), "{reason}");
    assert!(world.now - start < 10_000, "it took {} ms", world.now - start);
}

#[test]
fn disagreement_of_five_is_inconclusive_and_nobody_is_blamed() {
    let mut world = World::new(&[Conduct::Liar; 6], 6);
    let job = world.submit(b"a\n", |_| {});
    world.run();
    assert!(matches!(phase(&world, job), Phase::Failed { reason } if reason.word == "inconclusive"));
    let mark = world.state.unsteady(ModuleHash::of(b"module")).unwrap();
    assert_eq!((mark.job, mark.times), (job, 1));
    assert!(matches!(&world.accepted[..], [Record::Inconclusive(record)] if record.witnesses.len() == 5));
    assert!(world.evidence.is_empty());
    assert!(world.state.host_views().iter().all(|host| host.suspended.is_none()));
}

#[test]
fn a_silent_host_is_hedged_and_costs_no_result() {
    let mut world = World::new(&[Conduct::Honest, Conduct::Honest, Conduct::Silent], 7);
    let job = world.submit(b"a\nb\nc\nd\ne\nf\n", |_| {});
    let start = world.now;
    world.run();
    assert!(matches!(phase(&world, job), Phase::Done));
    assert!(world.now - start < 95_000, "it took {} ms", world.now - start);
}

#[test]
fn a_host_that_comes_back_empty_handed_has_its_work_moved_at_once() {
    let mut world = World::new(&[Conduct::Silent, Conduct::Honest, Conduct::Honest], 8);
    let job = world.submit(b"a\n", |_| {});
    world.hosts[0].inbox.clear();
    let node = world.hosts[0].node();
    world.feed(Event::HostDown { node });
    world.join(0);
    world.hosts[0].conduct = Conduct::Honest;
    world.run();
    assert!(matches!(phase(&world, job), Phase::Done));
}

#[test]
fn a_host_that_comes_back_under_another_operator_leaves_the_records_checkable() {
    let mut world = World::new(&[Conduct::Honest, Conduct::Silent, Conduct::Honest], 13);
    let job = world.submit(b"a\n", |_| {});
    for index in [0, 2] {
        world.answer(index);
        world.hosts[index].operator = SecretKey::from_bytes(&[200 + index as u8; 32]);
        world.join(index);
    }
    world.run();
    assert_eq!(phase(&world, job), &Phase::Done);
    world.accepted.iter().for_each(|record| drop(record.check().unwrap()));
}

#[test]
fn a_job_of_one_shard_is_hedged_before_its_lease_ends() {
    let mut world = World::new(&[Conduct::Silent, Conduct::Honest, Conduct::Honest], 14);
    let start = world.now;
    let job = world.submit(b"a\n", |_| {});
    world.run();
    assert_eq!(phase(&world, job), &Phase::Done);
    assert!(world.now - start < 10_000, "it took {} ms", world.now - start);
}

#[test]
fn a_cancelled_job_takes_its_work_back() {
    let mut world = World::new(&[Conduct::Silent; 3], 9);
    let job = world.submit(b"a\nb\n", |_| {});
    assert!(world.hosts.iter().any(|host| !host.inbox.is_empty()));
    world.feed(Event::Cancelled { job });
    assert!(world.hosts.iter().all(|host| host.inbox.is_empty()));
    assert_eq!(phase(&world, job), &Phase::Cancelled);
}

#[test]
fn a_receipt_about_other_work_is_a_fault_of_its_host() {
    let mut world = World::new(&[Conduct::Silent, Conduct::Honest, Conduct::Honest], 10);
    let job = world.submit(b"a\nb\n", |_| {});
    let host = &world.hosts[0];
    let assignment = host.inbox[0].clone();
    let node = host.node();
    let shard = ShardInfo { index: 1 - assignment.shard.index, ..assignment.shard };
    let output = Output { stdout: BlobHash::of(b""), stdout_bytes: 0, files: Vec::new() };
    let execution = Execution {
        task: task_id(BlobHash::of(b"other"), shard, assignment.input),
        module: ModuleHash::of(b"module"),
        class: registry::job::Class::Exact,
        engine: ENGINE,
        outcome: Outcome::Ok,
        fuel_used: 1,
        output: output.hash(),
        nn_root: None,
        segment_root: None,
    };
    let operator = OperatorId(host.operator.public());
    let receipt = Receipt {
        job,
        shard,
        execution,
        device: None,
        nn_record: None,
        segment_record: None,
        node,
        operator,
        nonce: assignment.id.0,
        price_micro: 0,
    };
    let receipt = Attested::check(Signed::seal(&receipt, &host.key), node).unwrap();
    world.hosts[0].inbox.pop_front();
    world.feed(Event::Receipt { node, receipt, output, task_us: 1 });
    assert_eq!(world.state.host(node).unwrap().record.faults, 1);
    let why = world.state.why(job, registry::job::Stage::Map, assignment.shard.index).unwrap();
    assert!(why.shard.last_fault.unwrap().detail.contains("names another shard"));
    world.hosts[0].conduct = Conduct::Honest;
    world.run();
    assert!(matches!(phase(&world, job), Phase::Done));
}

#[test]
fn old_jobs_are_forgotten_by_number_and_by_size() {
    let mut world = World::new(&[Conduct::Honest; 2], 12);
    world.state.config.finished_jobs_max = 3;
    world.state.config.finished_shards_max = 10;
    let jobs: Vec<JobId> = (0..5).map(|_| world.submit(b"a\nb\nc\nd\n", |_| {})).collect();
    world.run();
    let remembered: Vec<bool> = jobs.iter().map(|job| world.state.job(*job).is_some()).collect();
    assert_eq!(remembered.iter().filter(|remembered| **remembered).count(), 2, "8 of 10 shards fit, 12 do not");
    assert_eq!(world.forgotten.len(), 3);
    let large = world.submit(&b"line\n".repeat(20), |_| {});
    world.run();
    assert!(world.state.job(large).is_some(), "the last one stays however large it is");
}

#[test]
fn jobs_that_nobody_can_run_do_not_hold_up_the_others() {
    let mut world = World::new(&[Conduct::Honest; 3], 11);
    for _ in 0..600 {
        world.submit(b"a\n", |spec| {
            spec.policy = Policy::Quorum(5);
            spec.attempts_max = 5;
            spec.deadline_ms = 600_000;
            spec.limits.wall_ms_max = 1_000;
        });
    }
    let job = world.submit(b"a\n", |_| {});
    while !world.ended.contains(&job) {
        world.step();
    }
    assert!(world.now < 30_000, "it took until {}", world.now);
}

fn conducts() -> impl Strategy<Value = Vec<Conduct>> {
    let other = prop_oneof![Just(Conduct::Honest), Just(Conduct::Liar), Just(Conduct::Silent), Just(Conduct::Faulty)];
    proptest::collection::vec(other, 0..4).prop_map(|mut conducts| {
        conducts.extend([Conduct::Honest; 3]);
        conducts
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn every_job_ends_every_result_has_its_quorum_and_the_journal_replays(
        conducts in conducts(),
        seed in any::<u64>(),
        lines in 0usize..12,
        quorum in 2u8..=3,
        reduce in any::<bool>(),
        crashes in proptest::collection::vec((0usize..7, 0usize..40), 0..4),
    ) {
        let mut world = World::new(&conducts, seed);
        let input: String = (0..lines).map(|line| format!("line {line}\n")).collect();
        let jobs: Vec<JobId> = (0..2).map(|_| world.submit(input.as_bytes(), |spec| {
            spec.policy = Policy::Quorum(quorum);
            spec.reduce = if reduce { Reduce::Task } else { Reduce::Concat };
            spec.attempts_max = 30;
        })).collect();
        world.run_with(&crashes);
        for record in &world.accepted {
            let checked = record.check().unwrap();
            prop_assert!(checked.operators.len() >= usize::from(quorum));
        }
        let liars: BTreeSet<NodeId> = world.hosts.iter().filter(|host| host.conduct == Conduct::Liar).map(Host::node).collect();
        for (accused, record) in &world.evidence {
            prop_assert!(liars.contains(accused), "an honest host was accused");
            prop_assert!(record.check().is_ok());
        }
        for job in jobs {
            if let Some(parts) = world.state.job(job).unwrap().result() {
                prop_assert_eq!(parts.len(), if reduce { 1 } else { lines.max(1) });
            }
        }
        world.check_replay();
    }
}
