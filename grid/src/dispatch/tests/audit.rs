//! Results that are accepted on one operator's word, and what is drawn, repeated and withdrawn so that this means something.

use registry::{
    job::{Class, Stage},
    receipt::Accepted,
};

use super::*;
use crate::audit::{AuditConfig, TASK_MICRO};

/// A grid whose owner answers for the first hosts.
fn grid(vouched: u8, conducts: &[Conduct], seed: u64) -> World {
    grid_with(vouched, conducts, seed, AuditConfig::default())
}

fn grid_with(vouched: u8, conducts: &[Conduct], seed: u64, audit: AuditConfig) -> World {
    let vouched = (1..=vouched).map(|index| OperatorId(operator_key(index).public())).collect();
    World::with(Config { vouched, audit, ..Config::default() }, conducts, seed)
}

pub(super) fn lines(count: usize) -> Vec<u8> {
    (0..count).flat_map(|line| format!("{line}\n").into_bytes()).collect()
}

/// The host's operator has shown so many tasks.
pub(super) fn shown(world: &mut World, index: usize, tasks: u64) {
    let operator = OperatorId(world.hosts[index].operator.public());
    let (config, worth) = (world.config.audit, tasks * TASK_MICRO);
    world.state.reputation.confirm(&config, operator, Class::Exact, worth, world.now);
    world.found(operator);
    standing::sort(&mut world.state, world.hosts[index].node());
}

pub(super) fn is_suspended(world: &World, index: usize) -> bool {
    world.state.host(world.hosts[index].node()).unwrap().suspended.is_some()
}

fn is_qualified(world: &World, index: usize) -> bool {
    let operator = OperatorId(world.hosts[index].operator.public());
    world.state.reputation.qualified(Class::Exact).contains(&operator)
}

/// Whether each of the job's results is what an honest execution writes.
fn is_right(world: &World, job: JobId) -> bool {
    let of = world.state.job(job).unwrap();
    result(world, job).iter().all(|part| {
        let (planned, _) = of.work(part.shard.stage, part.shard.index).unwrap();
        part.output.stdout == BlobHash::of(&[planned.input.as_bytes().as_slice(), b"!"].concat())
    })
}

/// Who stands alone for a result, once for each.
fn unchecked(state: &State) -> impl Iterator<Item = OperatorId> {
    state.jobs.values().flat_map(|job| job.unchecked.iter()).map(|(operator, _)| operator)
}

/// Goes on after all jobs have ended, until there is nothing left to do.
fn go_on(world: &mut World) {
    let is_busy = |world: &World| {
        let busy = world.hosts.iter().any(|host| host.conduct != Conduct::Silent && !host.inbox.is_empty());
        busy || world.state.next_timer().is_some()
    };
    while is_busy(world) {
        world.step();
    }
}

/// The last record of each shard.
fn records(world: &World) -> BTreeMap<u32, Accepted> {
    let accepted = world.accepted.iter().map(|record| {
        let Record::Accepted(accepted) = record else { panic!("evidence among the accepted") };
        (record.check().unwrap().shard.index, accepted.clone())
    });
    accepted.collect()
}

#[test]
fn one_execution_is_enough_but_for_what_is_drawn_and_anybody_can_draw_again() {
    let audit = AuditConfig { rate_ppm_min: 100_000, ..AuditConfig::default() };
    let mut world = grid_with(3, &[Conduct::Honest; 3], 1, audit);
    let job = world.submit(&lines(400), |_| {});
    assert_eq!(world.state.job(job).unwrap().secret().1, None, "the secret is not told while it draws");
    world.run();
    let (hash, secret) = world.state.job(job).unwrap().secret();
    let secret = secret.unwrap();
    assert_eq!(secret.hash(), hash);
    let records = records(&world);
    assert_eq!(records.len(), 400);
    for (shard, accepted) in &records {
        let drawn = accepted.drawn.unwrap();
        let first = accepted.witnesses[0].open().unwrap();
        assert_eq!((drawn.rate_ppm, drawn.receipt), (100_000, first.id()));
        let operators = if drawn.audits(&secret, job) { 2 } else { 1 };
        assert_eq!(accepted.witnesses.len(), operators, "shard {shard}");
    }
    let executions = world.state.job(job).unwrap().executions;
    assert!((410..=470).contains(&executions), "{executions} executions of 400 shards at a rate of a tenth");
    world.check_replay();
}

#[test]
fn an_auditor_is_seen_elsewhere_as_long_as_anybody_is() {
    let audit = AuditConfig { rate_ppm_min: 1_000_000, ..AuditConfig::default() };
    let mut world = grid_with(0, &[Conduct::Honest; 6], 21, audit);
    for index in 0..6 {
        let site = if index < 3 { [203, 0, 113] } else { [198, 51, 100] };
        world.hosts[index].subnet = Subnet::V4(site);
        world.join(index);
        shown(&mut world, index, 1_000_000);
    }
    let apart: Vec<NodeId> = world.hosts[3..].iter().map(Host::node).collect();
    world.submit(&lines(40), |_| {});
    world.run();
    for accepted in records(&world).into_values() {
        let signers = accepted.witnesses.iter().map(|witness| witness.open().unwrap().node);
        assert_eq!(signers.filter(|node| apart.contains(node)).count(), 1, "those here audit those there");
    }
    apart.into_iter().for_each(|node| world.feed(Event::HostDown { node }));
    let job = world.submit(&lines(40), |_| {});
    world.run();
    assert_eq!(phase(&world, job), &Phase::Done, "nobody waits for a host that is away");
}

#[test]
fn a_newcomer_repeats_what_stands_until_it_has_standing() {
    let audit = AuditConfig { newcomer_micro: 5 * TASK_MICRO, ..AuditConfig::default() };
    let mut world = grid_with(2, &[Conduct::Honest; 3], 2, audit);
    let job = world.submit(&lines(100), |_| {});
    while !is_qualified(&world, 2) {
        world.step();
        let alone = unchecked(&world.state).any(|operator| operator.0 == world.hosts[2].operator.public());
        assert!(!alone || is_qualified(&world, 2), "nothing stands on a newcomer's word");
    }
    world.run();
    assert!(is_right(&world, job));
    let why = world.state.why(job, registry::job::Stage::Map, 0).unwrap();
    assert!(why.summary.starts_with("accepted"), "{}", why.summary);
    world.check_replay();
}

#[test]
fn a_newcomer_that_lies_is_caught_by_what_it_repeats() {
    let mut world = grid(2, &[Conduct::Honest, Conduct::Honest, Conduct::Liar], 3);
    let job = world.submit(&lines(60), |_| {});
    world.run();
    assert!(is_suspended(&world, 2) && is_right(&world, job));
    let liar = world.hosts[2].node();
    assert!(!world.evidence.is_empty());
    for (accused, record) in &world.evidence {
        assert_eq!((*accused, record.check().unwrap().accused.unwrap().0), (liar, liar));
    }
    // Each lie takes two executions, its own and one more to know who is wrong; the grid is not dearer for it afterwards.
    let executions = world.state.job(job).unwrap().executions;
    assert!((62..=75).contains(&executions), "{executions} executions of 60 shards");
    world.check_replay();
}

#[test]
fn newcomers_repeat_results_of_ended_jobs_and_a_referee_says_who_was_wrong() {
    // An honest one earns standing on what is over, though nothing is left to run.
    let audit = AuditConfig { newcomer_micro: 3 * TASK_MICRO, ..AuditConfig::default() };
    let mut world = grid_with(2, &[Conduct::Honest, Conduct::Honest, Conduct::Silent], 11, audit);
    let job = world.submit(&lines(20), |_| {});
    world.run();
    let paid = world.state.job(job).unwrap().executions;
    world.hosts[2].conduct = Conduct::Honest;
    go_on(&mut world);
    assert!(is_qualified(&world, 2));
    assert_eq!(world.state.job(job).unwrap().executions, paid, "the job is not dearer for it");
    world.check_replay();

    // A liar is caught by it.
    let mut world = grid(2, &[Conduct::Honest, Conduct::Honest, Conduct::Silent], 12);
    let job = world.submit(&lines(20), |_| {});
    world.run();
    world.hosts[2].conduct = Conduct::Liar;
    go_on(&mut world);
    assert!(is_suspended(&world, 2) && is_right(&world, job));
    world.evidence.iter().for_each(|(_, record)| drop(record.check().unwrap()));
    world.check_replay();
}

#[test]
fn what_was_delivered_and_wrong_is_told_and_put_right() {
    let never = AuditConfig { rate_ppm_min: 0, stake_micro: u64::MAX / 8, ..AuditConfig::default() };
    let mut world = grid_with(1, &[Conduct::Silent, Conduct::Colluder, Conduct::Silent], 13, never);
    shown(&mut world, 1, 1_000_000_000_000);
    let job = world.submit(b"a\n", |_| {});
    let node = world.hosts[0].node();
    // The referee is away, so that the liar has the shard for itself, or gets it once the referee's lease is over.
    world.feed(Event::HostDown { node });
    world.run();
    assert!(!is_right(&world, job), "nobody has looked at it yet");
    world.hosts[0].inbox.clear();
    world.hosts[0].conduct = Conduct::Honest;
    world.join(0);
    world.hosts[2].conduct = Conduct::Honest;
    go_on(&mut world);
    assert!(is_right(&world, job), "the honest newcomer repeated it, and the referee agreed with it");
    let why = world.state.why(job, Stage::Map, 0).unwrap();
    let referee = why.shard.executions.iter().find(|it| it.node == node).unwrap();
    assert_eq!((referee.purpose, referee.fate), (Purpose::Dispute, "confirmed"));
    assert!(why.summary.contains("one that the grid's owner answers for came to the same"), "{}", why.summary);
    assert!(is_suspended(&world, 1) && !is_suspended(&world, 2));
    assert_eq!(world.evidence.len(), 1);
    assert_eq!(world.evidence[0].1.check().unwrap().accused.unwrap().0, world.hosts[1].node());
}

#[test]
fn whoever_uses_what_rests_on_the_word_of_one_that_was_caught_since_is_told() {
    let never = AuditConfig { rate_ppm_min: 0, stake_micro: u64::MAX / 8, ..AuditConfig::default() };
    let mut world = grid_with(1, &[Conduct::Honest, Conduct::Honest, Conduct::Silent], 13, never);
    shown(&mut world, 1, 1_000_000_000_000);
    let before = world.submit(&lines(40), |_| {});
    world.run();
    assert_eq!(world.state.job_view(before).unwrap().doubtful, None);
    (world.hosts[1].conduct, world.hosts[2].conduct) = (Conduct::Liar, Conduct::Honest);
    world.hosts[2].inbox.clear();
    world.join(2);
    let after = world.submit(b"disputed\n", |spec| spec.policy = Policy::Quorum(2));
    world.run();
    assert!(is_suspended(&world, 1) && is_right(&world, after));
    let caught = OperatorId(world.hosts[1].operator.public());
    let doubtful = world.state.job_view(before).unwrap().doubtful.expect("it did most of it");
    assert!(doubtful.results > 8 && doubtful.shards.len() == 8 && doubtful.operators == BTreeSet::from([caught]));
    let says = format!("{} of its results (shard {}, ", doubtful.results, doubtful.shards[0].index);
    assert!(doubtful.to_string().starts_with(&says) && doubtful.to_string().contains(", ...) rest on"), "{doubtful}");
    let summary = |index: u32| world.state.why(before, Stage::Map, index).unwrap().summary;
    assert!(summary(doubtful.shards[0].index).contains("was caught since"));
    assert!((0..40).any(|index| !summary(index).contains("caught")), "the referee's results are not doubtful");
    assert_eq!(world.state.job_view(after).unwrap().doubtful, None, "two have signed it");
}

#[test]
fn a_quorum_of_which_all_were_caught_since_is_doubtful_too() {
    // Nobody repeats what was delivered: it would be put right.
    let audit = AuditConfig { qualification_first: 0, qualification_ppm: 0, ..AuditConfig::default() };
    let conducts = [Conduct::Silent, Conduct::Colluder, Conduct::Colluder, Conduct::Silent];
    let mut world = grid_with(1, &conducts, 3, audit);
    for index in [0, 3] {
        let node = world.hosts[index].node();
        world.feed(Event::HostDown { node });
    }
    let by_two = |spec: &mut JobSpec| spec.policy = Policy::Quorum(2);
    let first = world.submit(b"a\n", by_two);
    world.run();
    assert!(!is_right(&world, first));
    for index in [0, 3] {
        world.hosts[index].conduct = Conduct::Honest;
        world.hosts[index].inbox.clear();
        world.join(index);
    }
    for round in 0..30 {
        world.submit(format!("b{round}\nc{round}\n").as_bytes(), by_two);
        world.run();
    }
    assert!(is_suspended(&world, 1) && is_suspended(&world, 2));
    let doubtful = world.state.job_view(first).unwrap().doubtful.unwrap();
    assert_eq!((doubtful.results, doubtful.operators.len()), (1, 2));
    assert!(doubtful.to_string().contains("the word of operators that were caught since"), "{doubtful}");
}

#[test]
fn what_stood_on_a_liars_word_is_run_again_when_an_audit_catches_it() {
    let audit = AuditConfig { rate_ppm_min: 100_000, ..AuditConfig::default() };
    let mut world = grid_with(1, &[Conduct::Honest, Conduct::Honest, Conduct::Liar], 4, audit);
    shown(&mut world, 1, 1_000_000);
    shown(&mut world, 2, 1_000_000);
    let job = world.submit(&lines(200), |_| {});
    let mut wrong = 0;
    while !is_suspended(&world, 2) {
        world.step();
        let liar = OperatorId(world.hosts[2].operator.public());
        wrong = wrong.max(unchecked(&world.state).filter(|operator| *operator == liar).count());
    }
    assert!(wrong > 0, "some of its lies were accepted before");
    world.run();
    assert!(is_right(&world, job), "all of them were withdrawn");
    assert!(!is_suspended(&world, 0) && !is_suspended(&world, 1));
    assert!(!is_qualified(&world, 2));
}

#[test]
fn what_waits_for_a_referee_goes_before_all_other_work_of_it() {
    let mut world = grid(1, &[Conduct::Honest, Conduct::Honest, Conduct::Liar], 5);
    let others: Vec<JobId> =
        (0..5).map(|job| world.submit(&lines(40 + job), |spec| spec.policy = Policy::None)).collect();
    let disputed = world.submit(b"disputed\n", |spec| spec.policy = Policy::Quorum(2));
    // The referee has all that it can have, and answers nothing until the other two have answered.
    while world.state.job(disputed).unwrap().executions < 2 {
        world.answer(1);
        world.answer(2);
    }
    assert!(world.hosts[0].inbox.iter().all(|assignment| assignment.job != disputed));
    assert!(others.iter().all(|job| !world.state.jobs[job].queued.is_empty()), "all of them wait for it too");
    world.answer(0);
    assert_eq!(world.hosts[0].inbox.back().map(|assignment| assignment.job), Some(disputed));
    world.run();
    assert!(is_right(&world, disputed) && is_suspended(&world, 2));
    world.check_replay();
}

#[test]
fn operators_that_collude_cannot_put_the_blame_on_an_honest_one() {
    use Conduct::{Colluder, Honest};
    let audit = AuditConfig { rate_ppm_min: 300_000, ..AuditConfig::default() };
    for seed in 0..20 {
        let mut world = grid_with(1, &[Honest, Honest, Colluder, Colluder, Colluder], seed, audit);
        (1..5).for_each(|index| shown(&mut world, index, 1_000_000));
        world.submit(&lines(60), |_| {});
        world.submit(&lines(60), |spec| spec.policy = Policy::Quorum(2));
        world.run();
        assert!(!is_suspended(&world, 0) && !is_suspended(&world, 1), "seed {seed}");
        assert!(world.evidence.iter().all(|(node, _)| world.hosts[2..].iter().any(|host| host.node() == *node)));
    }
}

#[test]
fn a_module_whose_results_never_agree_fails_its_job_and_blames_nobody() {
    let mut world = grid(1, &[Conduct::Liar; 6], 6);
    (1..6).for_each(|index| shown(&mut world, index, 1_000_000));
    world.state.config.audit.rate_ppm_min = 1_000_000;
    let job = world.submit(b"a\n", |_| {});
    world.run();
    assert!(matches!(phase(&world, job), Phase::Failed { reason } if reason.word == "inconclusive"));
    assert!(world.evidence.is_empty() && (0..6).all(|index| !is_suspended(&world, index)));
}

#[test]
fn a_grid_of_newcomers_asks_two_of_each_result_and_repeats_none() {
    let mut world = grid(0, &[Conduct::Honest; 4], 7);
    let job = world.submit(&lines(50), |_| {});
    world.run();
    assert_eq!(world.state.job(job).unwrap().executions, 100);
    assert!(records(&world).values().all(|accepted| accepted.quorum == 2 && accepted.drawn.is_none()));
}

#[test]
fn where_only_newcomers_can_run_a_job_they_do() {
    let mut world = grid(1, &[Conduct::Honest; 3], 8);
    let node = world.hosts[0].node();
    world.feed(Event::HostDown { node });
    world.hosts[0].inbox.clear();
    let job = world.submit(&lines(10), |_| {});
    world.run();
    assert_eq!(phase(&world, job), &Phase::Done);
    assert!(records(&world).values().all(|accepted| accepted.quorum == 2));
}

#[test]
fn whom_the_owner_answers_for_can_change() {
    let mut world = grid(0, &[Conduct::Honest; 3], 9);
    assert!(!is_qualified(&world, 0) && world.state.newcomers.len() == 3);
    let vouched = BTreeSet::from([OperatorId(world.hosts[0].operator.public())]);
    let config = Box::new(Config { vouched, ..world.config.clone() });
    world.feed(Event::Configured { config });
    assert!(is_qualified(&world, 0) && world.state.newcomers.len() == 2);
    world.feed(Event::Configured { config: Box::new(world.config.clone()) });
    assert!(!is_qualified(&world, 0) && world.state.newcomers.len() == 3);
    world.check_replay();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn audited_jobs_end_and_nobody_honest_is_accused(
        conducts in conducts(),
        seed in any::<u64>(),
        count in 1usize..30,
        reduce in any::<bool>(),
        known in any::<u8>(),
        rate_ppm_min in 0u32..=1_000_000,
        crashes in proptest::collection::vec((0usize..7, 0usize..40), 0..4),
    ) {
        // The honest ones come last; one of them is the owner's.
        let owner = u8::try_from(conducts.len()).unwrap();
        let vouched = BTreeSet::from([OperatorId(operator_key(owner).public())]);
        let audit = AuditConfig { rate_ppm_min, newcomer_micro: 4 * TASK_MICRO, ..AuditConfig::default() };
        let mut world = World::with(Config { vouched, audit, ..Config::default() }, &conducts, seed);
        (0..conducts.len()).filter(|index| known >> index & 1 == 1).for_each(|index| shown(&mut world, index, 1_000));
        let (before, events) = (world.state.clone(), world.journal.len());
        let jobs: Vec<JobId> = (0..2).map(|_| world.submit(&lines(count), |spec| {
            spec.reduce = if reduce { Reduce::Task } else { Reduce::Concat };
            spec.attempts_max = 60;
        })).collect();
        world.run_with(&crashes);
        let honest = |node: &NodeId| {
            world.hosts.iter().any(|host| host.node() == *node && !matches!(host.conduct, Conduct::Liar | Conduct::Colluder))
        };
        for (accused, record) in &world.evidence {
            prop_assert!(!honest(accused), "an honest host was accused");
            prop_assert!(record.check().is_ok());
        }
        for record in &world.accepted {
            prop_assert!(record.check().is_ok());
        }
        for job in jobs {
            if let Some(parts) = world.state.job(job).unwrap().result() {
                prop_assert_eq!(parts.len(), if reduce { 1 } else { count });
            }
            prop_assert!(world.state.job(job).unwrap().phase.is_ended());
        }
        prop_assert!(unchecked(&world.state).next().is_none(), "nothing of ended jobs waits to be checked");
        // What was shown before is no event: the machine starts from there.
        let mut replayed = before;
        world.journal.iter().skip(events).for_each(|(now, event)| drop(on_event(&mut replayed, event.clone(), *now)));
        prop_assert!(replayed == world.state, "the replayed machine differs");
    }
}
