//! Two results of a task with steps differ: one segment says who is wrong.

use registry::job::Stage;

use super::{audit::is_suspended, *};

/// A grid whose owner answers for the first hosts, and in which tasks have steps.
fn grid(vouched: u8, conducts: &[Conduct], seed: u64) -> World {
    let vouched = (1..=vouched).map(|index| OperatorId(operator_key(index).public())).collect();
    let mut world = World::with(Config { vouched, ..Config::default() }, conducts, seed);
    world.steps = true;
    world
}

/// The orders that were given of segments, as far as they are in the journal.
fn segments(world: &World) -> Vec<(NodeId, Found)> {
    let found = world.journal.iter().filter_map(|(_, event)| match event {
        Event::Found { node, found, .. } => Some((*node, *found)),
        _ => None,
    });
    found.collect()
}

fn disputes(world: &World) -> Vec<(NodeId, Box<registry::dispute::Dispute>)> {
    let disputes = world.evidence.iter().filter_map(|(node, record)| match record {
        Record::Dispute(dispute) => Some((*node, dispute.clone())),
        _ => None,
    });
    disputes.collect()
}

fn is_right(world: &World, job: JobId) -> bool {
    let of = world.state.job(job).unwrap();
    result(world, job).iter().all(|part| {
        let (planned, _) = of.work(part.shard.stage, part.shard.index).unwrap();
        part.output.stdout == BlobHash::of(&[planned.input.as_bytes().as_slice(), b"!"].concat())
    })
}

/// What four hosts do, of which the owner answers for two.
const STRANGERS: [Conduct; 4] = [Conduct::Honest, Conduct::Honest, Conduct::Honest, Conduct::Liar];

/// The two strangers have the job's shards, and the referees come back.
fn given_to_strangers(world: &mut World, lines: &[u8]) -> JobId {
    for referee in 0..2 {
        let node = world.hosts[referee].node();
        world.feed(Event::HostDown { node });
    }
    let job = world.submit(lines, |spec| spec.policy = Policy::Quorum(2));
    for referee in 0..2 {
        world.join(referee);
    }
    job
}

/// They have answered, and differ.
fn with_strangers(conducts: [Conduct; 4], test: impl FnOnce(World, JobId)) {
    let mut world = grid(2, &conducts, 1);
    let job = given_to_strangers(&mut world, b"a\n");
    (2..4).for_each(|stranger| world.answer(stranger));
    assert_eq!(world.parts.len(), 1);
    test(world, job);
}

#[test]
fn a_liar_is_caught_by_one_segment_and_the_referee_runs_no_more_of_it() {
    for seed in 0..20 {
        let mut world = grid(2, &STRANGERS, seed);
        let job = given_to_strangers(&mut world, b"a\nb\nc\nd\n");
        world.run();
        assert!(is_right(&world, job), "seed {seed}");
        let caught = disputes(&world);
        assert!(!caught.is_empty() && is_suspended(&world, 3), "seed {seed}");
        for (node, dispute) in &caught {
            assert_eq!(*node, world.hosts[3].node(), "seed {seed}");
            assert_eq!((dispute.segment, dispute.start.map(|start| start.state)), (3, Some(StateRoot([2; 32]))));
            let record = Record::Dispute(dispute.clone());
            assert_eq!(record.check().unwrap().accused.map(|(node, _)| node), Some(*node));
        }
        for (node, found) in segments(&world) {
            // A side gave the state, without a referee; and a referee ran one segment.
            let is_referee = world.hosts[..2].iter().any(|host| host.node() == node);
            assert_eq!(found.checkpoint.is_none(), is_referee, "seed {seed}");
        }
        world.check_replay();
    }
}

#[test]
fn while_a_trial_is_on_nobody_runs_the_whole_task() {
    with_strangers(STRANGERS, |mut world, job| {
        let why = |world: &World| world.state.why(job, Stage::Map, 0).unwrap();
        assert!(why(&world).summary.contains("where they part is looked for"), "{}", why(&world).summary);
        let part = world.parts.pop_front().unwrap();
        world.part(part);
        assert!(why(&world).summary.contains("part in segment 3: the state before it"), "{}", why(&world).summary);
        let given: Vec<_> = world.hosts.iter().flat_map(|host| &host.inbox).cloned().collect();
        assert_eq!(given.iter().map(|order| order.until).collect::<Vec<_>>(), [Some(Until { state: 2, keeps: true })]);
        let side = world.hosts.iter().position(|host| !host.inbox.is_empty()).unwrap();
        world.answer(side);
        assert!(why(&world).summary.contains("a referee runs it"), "{}", why(&world).summary);
        let referee = world.hosts.iter().position(|host| !host.inbox.is_empty()).unwrap();
        assert!(referee < 2, "host {referee}");
        let order = world.hosts[referee].inbox[0].clone();
        assert_eq!((order.until, order.from.unwrap().index), (Some(Until { state: 3, keeps: false }), 2));
        world.answer(referee);
        assert_eq!((disputes(&world).len(), is_suspended(&world, 3)), (1, true));
        world.run();
        assert!(is_right(&world, job));
        // Two whole executions agree, and the liar's does not count.
        assert_eq!(why(&world).shard.executions.len(), 2);
        world.check_replay();
    });
}

#[test]
fn a_side_that_withholds_the_state_gains_nothing() {
    with_strangers(STRANGERS, |mut world, job| {
        let part = world.parts.pop_front().unwrap();
        world.part(part);
        // The first says that it cannot, the second gives another state than it signed: a referee runs the whole task.
        for asked in 0..2 {
            let side = world.hosts.iter().position(|host| !host.inbox.is_empty()).unwrap();
            let order = world.hosts[side].inbox.pop_front().unwrap();
            assert!(order.until.is_some_and(|until| until.keeps), "{order:?}");
            let (node, assignment) = (world.hosts[side].node(), order.id);
            if asked == 0 {
                world.feed(Event::Faulted { node, assignment, fault: Fault::new("deadline", "too slow") });
            } else {
                let checkpoint = Checkpoint { index: 2, fuel_used: 7, snapshot: BlobHash::of(b"x"), bytes: 9 };
                let found = Found { end: End::State(StateRoot([77; 32])), checkpoint: Some(checkpoint) };
                world.feed(Event::Found { node, assignment, found });
            }
        }
        let referee = world.hosts.iter().position(|host| !host.inbox.is_empty()).unwrap();
        assert_eq!((referee < 2, world.hosts[referee].inbox[0].until), (true, None));
        world.run();
        assert!(is_right(&world, job) && is_suspended(&world, 3) && disputes(&world).is_empty());
        world.check_replay();
    });
}

#[test]
fn a_side_that_takes_long_is_not_waited_for_alone() {
    with_strangers(STRANGERS, |mut world, job| {
        let part = world.parts.pop_front().unwrap();
        world.part(part);
        let first = world.hosts.iter().position(|host| !host.inbox.is_empty()).unwrap();
        let asked = world.hosts[first].inbox.pop_front().unwrap();
        let began = world.now;
        let is_idle = |world: &World| world.hosts.iter().all(|host| host.inbox.is_empty());
        while is_idle(&world) {
            world.now = world.state.next_timer().unwrap();
            world.feed(Event::Tick);
        }
        assert!(world.now - began < asked.lease_ms / 2, "{} of {} ms", world.now - began, asked.lease_ms);
        let second = world.hosts.iter().position(|host| !host.inbox.is_empty()).unwrap();
        assert_eq!((second != first, world.hosts[second].inbox[0].until), (true, asked.until));
        // Its own answer is as good as before; the other is not wanted any more.
        world.hosts[first].inbox.push_back(asked);
        world.answer(first);
        let referee = world.hosts.iter().position(|host| !host.inbox.is_empty()).unwrap();
        assert_eq!((referee < 2, world.hosts[second].inbox.len()), (true, 0));
        world.run();
        assert!(is_right(&world, job) && is_suspended(&world, 3));
        assert_eq!(disputes(&world).len(), 1);
        world.check_replay();
    });
    // Where neither answers, a referee runs all of it once their leases are over.
    with_strangers(STRANGERS, |mut world, job| {
        let part = world.parts.pop_front().unwrap();
        world.part(part);
        for _ in 0..2 {
            while world.hosts.iter().all(|host| host.inbox.is_empty()) {
                world.now = world.state.next_timer().unwrap();
                world.feed(Event::Tick);
            }
            (2..4).for_each(|side| world.hosts[side].inbox.clear());
        }
        world.run();
        assert!(is_right(&world, job) && is_suspended(&world, 3) && disputes(&world).is_empty());
        world.check_replay();
    });
}

#[test]
fn where_no_side_is_right_or_nothing_can_be_told_a_referee_runs_all_of_it() {
    with_strangers([Conduct::Honest, Conduct::Honest, Conduct::Colluder, Conduct::Liar], |mut world, job| {
        world.run();
        assert!(is_right(&world, job) && disputes(&world).is_empty());
        assert!(is_suspended(&world, 2) && is_suspended(&world, 3));
    });
    with_strangers(STRANGERS, |mut world, job| {
        let (job_, shard, _) = world.parts.pop_front().unwrap();
        world.feed(Event::Parted { job: job_, shard, parting: None });
        // Said twice, it changes nothing more.
        world.feed(Event::Parted { job: job_, shard, parting: None });
        world.run();
        assert!(is_right(&world, job) && is_suspended(&world, 3) && segments(&world).is_empty());
    });
}

#[test]
fn a_coordinator_that_was_away_looks_again_where_they_part() {
    with_strangers(STRANGERS, |mut world, job| {
        world.parts.clear();
        world.feed(Event::Restarted);
        assert_eq!(world.parts.len(), 1);
        for index in 0..world.hosts.len() {
            world.join(index);
        }
        world.run();
        assert!(is_right(&world, job));
        assert_eq!(disputes(&world).len(), 1);
        world.check_replay();
    });
}

#[test]
fn a_referee_that_is_lost_is_replaced_by_one_that_runs_all_of_it() {
    with_strangers(STRANGERS, |mut world, job| {
        let part = world.parts.pop_front().unwrap();
        world.part(part);
        let side = world.hosts.iter().position(|host| !host.inbox.is_empty()).unwrap();
        world.answer(side);
        let referee = world.hosts.iter().position(|host| !host.inbox.is_empty()).unwrap();
        let node = world.hosts[referee].node();
        world.hosts[referee].inbox.clear();
        world.feed(Event::HostDown { node });
        world.run();
        assert!(is_right(&world, job) && is_suspended(&world, 3) && disputes(&world).is_empty());
    });
}

#[test]
fn nothing_is_signed_or_paid_for_a_segment() {
    with_strangers(STRANGERS, |mut world, job| {
        let part = world.parts.pop_front().unwrap();
        world.part(part);
        let side = world.hosts.iter().position(|host| !host.inbox.is_empty()).unwrap();
        // A receipt in place of the state is garbage, and the other side is asked.
        let order = world.hosts[side].inbox.pop_front().unwrap();
        world.hosts[side].inbox.push_back(Assignment { until: None, ..order.clone() });
        world.answer(side);
        assert_eq!(world.state.open_job(world.hosts[side].node(), order.id), None);
        let other = world.hosts.iter().position(|host| !host.inbox.is_empty()).unwrap();
        assert!(other != side && world.hosts[other].inbox[0].until.is_some_and(|until| until.keeps));
        // And nobody finds a state that it was not asked for.
        let (node, id) = (world.hosts[side].node(), world.hosts[other].inbox[0].id);
        let found = Found { end: End::State(StateRoot([2; 32])), checkpoint: None };
        world.feed(Event::Found { node, assignment: id, found });
        world.run();
        assert!(is_right(&world, job));
        assert_eq!(disputes(&world).len(), 1);
    });
}

#[test]
fn a_liar_that_is_refuted_is_not_paid_and_loses_what_it_had_at_risk() {
    let mut caught = 0;
    for seed in 0..20 {
        let mut world = money::grid(2, &STRANGERS, seed, 100_000, 10_000);
        world.steps = true;
        let job = world.submit(b"a\nb\nc\nd\n", |spec| {
            (spec.policy, spec.limits) = (Policy::Quorum(2), money::limits());
        });
        world.run();
        assert!(is_right(&world, job), "seed {seed}");
        caught += disputes(&world).len();
        let liar = OperatorId(world.hosts[3].operator.public());
        assert!(!is_suspended(&world, 3) || world.state.ledger().at_risk(liar).is_zero(), "seed {seed}");
    }
    assert!(caught > 0);
}

#[test]
fn what_comes_too_late_or_from_nobody_who_referees_changes_nothing() {
    // The job is over before it is known where its results part.
    with_strangers(STRANGERS, |mut world, job| {
        world.feed(Event::Cancelled { job });
        let part = world.parts.pop_front().unwrap();
        world.part(part);
        assert!(world.hosts.iter().all(|host| host.inbox.is_empty()));
    });
    // The owner thinks better of who referees while one does.
    with_strangers(STRANGERS, |mut world, job| {
        let part = world.parts.pop_front().unwrap();
        world.part(part);
        for _ in 0..2 {
            if let Some(referee) = world.hosts[..2].iter().position(|host| !host.inbox.is_empty()) {
                let mut config = world.config.clone();
                config.vouched.remove(&OperatorId(world.hosts[referee].operator.public()));
                world.config = config.clone();
                world.feed(Event::Configured { config: Box::new(config) });
            }
            let busy = world.hosts.iter().position(|host| !host.inbox.is_empty()).unwrap();
            world.answer(busy);
        }
        assert!(disputes(&world).is_empty() && !is_suspended(&world, 3));
        world.run();
        assert!(is_right(&world, job) && is_suspended(&world, 3));
    });
}

#[test]
fn liars_do_not_use_up_the_attempts_of_a_shard() {
    let mut conducts = vec![Conduct::Honest; 3];
    conducts.extend([Conduct::Liar; 6]);
    let mut world = grid(2, &conducts, 3);
    for referee in 0..2 {
        let node = world.hosts[referee].node();
        world.feed(Event::HostDown { node });
    }
    let job = world.submit(b"a\n", |spec| (spec.policy, spec.attempts_max) = (Policy::Quorum(2), 6));
    (0..2).for_each(|referee| world.join(referee));
    world.run();
    assert!(is_right(&world, job));
    assert!(disputes(&world).len() <= 2, "a third dispute is a referee's");
}

/// Strangers that have staked, and whether each has lost it; with the shards of the disputes that were kept.
fn staked(strangers: [Conduct; 3], seed: u64) -> ([bool; 3], Vec<ShardInfo>) {
    let [first, second, third] = strangers;
    let mut world = money::grid(2, &[Conduct::Honest, Conduct::Honest, first, second, third], seed, 100_000, 10_000);
    world.steps = true;
    let operators = [2, 3, 4].map(|index| money::stake(&mut world, index, 10_000));
    let lines: String = (0..3).map(|line| format!("{line} of {seed}\n")).collect();
    world.submit(lines.as_bytes(), |spec| (spec.policy, spec.limits) = (Policy::Quorum(2), money::limits()));
    world.run();
    let shard =
        |(_, dispute): &(NodeId, Box<registry::dispute::Dispute>)| dispute.first.witness.receipt.peek().unwrap().shard;
    let shards = disputes(&world).iter().map(shard).collect();
    (operators.map(|operator| world.state.ledger().is_slashed(operator)), shards)
}

#[test]
fn who_signs_what_another_was_refuted_for_has_not_erred_alone() {
    let (mut together, mut alone) = (0, 0);
    for seed in 0..60 {
        let (slashed, shards) = staked([Conduct::Honest, Conduct::Colluder, Conduct::Colluder], seed);
        // The second signed what the first was refuted for.
        if let [first, second] = shards[..]
            && first == second
        {
            // The first of them only where the second had signed by then: what it signed is known afterwards.
            assert!(!slashed[0] && (slashed[1] || slashed[2]), "seed {seed}: {slashed:?}");
            together += 1;
        }
        let (slashed, shards) = staked([Conduct::Honest, Conduct::Honest, Conduct::Colluder], seed);
        assert_eq!(slashed, [false; 3], "seed {seed}: one wrong result may be broken hardware");
        alone += shards.len();
    }
    assert!(together > 0 && alone > 0, "{together} together, {alone} alone");
}

/// Two strangers of three say the same of a job's shard, and nothing tells where the third parts from them. Referees come just before,
/// and with them what `meanwhile` brings. A sixth, who lies too, is away.
fn a_majority(has_steps: bool, attempts_max: u32, meanwhile: impl FnOnce(&mut World)) -> (World, JobId) {
    let [honest, lies] = [Conduct::Honest, Conduct::Colluder];
    let mut world = grid(2, &[honest, honest, honest, lies, lies, lies], 1);
    world.steps = has_steps;
    [0, 1, 5].into_iter().for_each(|absent| down(&mut world, absent));
    let policy = Policy::Quorum(2);
    let job = world.submit(b"a\n", |spec| (spec.policy, spec.attempts_max) = (policy, attempts_max));
    while !world.hosts[2..5].iter().all(|host| host.inbox.len() == 1) {
        world.now = world.state.next_timer().unwrap();
        world.feed(Event::Tick);
    }
    (0..2).for_each(|referee| world.join(referee));
    meanwhile(&mut world);
    (2..5).for_each(|stranger| world.answer(stranger));
    while let Some((parted, shard, _)) = world.parts.pop_front() {
        world.feed(Event::Parted { job: parted, shard, parting: None });
    }
    (world, job)
}

/// It ends as it should, and nobody waits for its deadline.
fn goes_on((mut world, job): (World, JobId)) {
    let due = world.now;
    world.run();
    assert!(world.state.job(job).unwrap().phase.is_ended() && world.now < due + 600_000);
    assert_eq!(phase(&world, job), &Phase::Done);
    world.check_replay();
}

fn down(world: &mut World, index: usize) {
    let node = world.hosts[index].node();
    world.feed(Event::HostDown { node });
}

#[test]
fn where_results_differ_a_referee_is_waited_for_as_long_as_one_is_there() {
    for has_steps in [false, true] {
        let (mut world, job) = a_majority(has_steps, 9, |_| {});
        assert!(world.accepted.is_empty(), "two of three say the same, and a referee is there");
        assert_eq!(world.hosts[..2].iter().map(|host| host.inbox.len()).sum::<usize>(), 1);
        world.run();
        assert!(is_suspended(&world, 3) && is_suspended(&world, 4) && !is_suspended(&world, 2));
        goes_on((world, job));
        // Both are lost, the one that has it and the one that could have.
        let (mut world, job) = a_majority(has_steps, 9, |_| {});
        assert!(world.accepted.is_empty());
        (0..2).for_each(|referee| world.hosts[referee].inbox.clear());
        (0..2).for_each(|referee| down(&mut world, referee));
        goes_on((world, job));
        // It may not be tried once more.
        let (world, job) = a_majority(has_steps, 3, |_| {});
        assert_eq!(world.accepted.len(), 1);
        goes_on((world, job));
    }
}

#[test]
fn a_referee_that_goes_before_it_is_asked_is_not_waited_for() {
    for has_steps in [false, true] {
        let lines: String = (0..60).map(|line| format!("{line}\n")).collect();
        let (mut world, job) = a_majority(has_steps, 9, |world| {
            // The first of them is given it at once, since strangers take long, and fails; others are to wait a little then.
            let order = world.hosts[0].inbox.pop_front().unwrap();
            let (node, fault) = (world.hosts[0].node(), Fault::new("memory", "too little"));
            world.feed(Event::Faulted { node, assignment: order.id, fault });
            world.submit(lines.as_bytes(), |spec| spec.policy = Policy::None);
        });
        let has = |world: &World, index: usize| world.hosts[index].inbox.iter().any(|order| order.job == job);
        assert!(world.accepted.is_empty() && !has(&world, 0) && !has(&world, 1), "both have enough to do");
        (0..2).for_each(|referee| down(&mut world, referee));
        world.now += world.config.host_grace_ms - 1;
        (0..2).for_each(|_| world.answer(2));
        assert!(world.accepted.iter().all(|record| job_of(record) != job), "they may come back");
        assert!(!has(&world, 2) && !has(&world, 3) && !has(&world, 4), "nobody else is asked meanwhile");
        world.now += 1;
        world.feed(Event::Tick);
        assert!(world.state.job(job).unwrap().phase.is_ended(), "what is known has to do, whoever has room");
        goes_on((world, job));
    }
}

fn job_of(record: &Record) -> JobId {
    record.agreeing()[0].receipt.peek().unwrap().job
}

#[test]
fn a_coordinator_that_starts_again_waits_for_its_referees_as_it_did() {
    for has_steps in [false, true] {
        let (mut world, job) = a_majority(has_steps, 9, |_| {});
        (0..2).for_each(|referee| world.hosts[referee].inbox.clear());
        world.feed(Event::Restarted);
        world.now += 1;
        (2..6).for_each(|stranger| world.join(stranger));
        world.now += 2 * world.config.host_grace_ms;
        world.feed(Event::Tick);
        assert!(world.accepted.is_empty() && !world.state.job(job).unwrap().phase.is_ended());
        world.join(0);
        world.run();
        assert!(is_suspended(&world, 3) && is_suspended(&world, 4) && !is_suspended(&world, 2));
        goes_on((world, job));
    }
}

#[test]
fn while_a_referee_takes_long_nobody_but_referees_is_asked() {
    for has_steps in [false, true] {
        let (mut world, job) = a_majority(has_steps, 9, |world| world.join(5));
        let begun = world.now;
        while world.now < begun + 60_000 && world.accepted.is_empty() {
            world.now = world.state.next_timer().unwrap();
            world.feed(Event::Tick);
            let asked: Vec<usize> = (0..6).filter(|index| !world.hosts[*index].inbox.is_empty()).collect();
            assert!(asked.iter().all(|index| *index < 2), "{asked:?}");
        }
        assert!(world.accepted.is_empty(), "both take long");
        goes_on((world, job));
    }
}

#[test]
fn a_majority_of_colluders_does_not_overtake_the_trial_that_is_about_its_lie() {
    let conducts = [Conduct::Honest, Conduct::Honest, Conduct::Honest, Conduct::Colluder, Conduct::Colluder];
    let mut world = grid(2, &conducts, 1);
    for referee in 0..2 {
        let node = world.hosts[referee].node();
        world.feed(Event::HostDown { node });
    }
    let job = world.submit(b"a\n", |spec| spec.policy = Policy::Quorum(2));
    // Those that have it take their time, and the third is asked too.
    while !world.hosts[2..].iter().all(|host| host.inbox.len() == 1) {
        world.now = world.state.next_timer().unwrap();
        assert!(world.now < 80_000, "before their leases end");
        world.feed(Event::Tick);
    }
    (0..2).for_each(|referee| world.join(referee));
    (2..5).for_each(|stranger| world.answer(stranger));
    assert_eq!((world.parts.len(), world.accepted.len()), (1, 0), "two of three say the same, and the trial is on");
    // A referee that was to run the whole task cannot.
    for referee in 0..2 {
        while let Some(order) = world.hosts[referee].inbox.pop_front() {
            let (node, fault) = (world.hosts[referee].node(), Fault::new("deadline", "too slow"));
            world.feed(Event::Faulted { node, assignment: order.id, fault });
        }
    }
    world.run();
    assert!(is_right(&world, job));
    assert!(is_suspended(&world, 3) && is_suspended(&world, 4) && !is_suspended(&world, 2));
    assert_eq!(disputes(&world).len(), 2);
    world.check_replay();
}
