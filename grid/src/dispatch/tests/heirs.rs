//! Who may go on from a state is waited for while it is busy, and for no longer than that is worth it; nothing else is held up meanwhile.

use registry::job::Stage;

use super::{
    audit::lines,
    checkpoints::{checkpoint, grid, keeps, only},
    *,
};

/// A shard of which a state was kept after a minute, and whose host is as busy with other work as all others are when it loses it.
fn lost_by_a_busy_host() -> (World, JobId, usize) {
    let mut world = grid(1, &[], 2);
    let job = world.submit(b"a\n", long);
    let held = only(&world);
    world.submit(&lines(40), long);
    world.now += 60_000;
    keeps(&mut world, &held, checkpoint(2));
    let node = world.hosts[held.0].node();
    world.hosts[held.0].inbox.retain(|assignment| assignment.job != job);
    world.feed(Event::Faulted { node, assignment: held.1.id, fault: Fault::new("lease", "its lease has ended") });
    world.now += world.config.retry_ms_max + 1;
    world.feed(Event::Tick);
    world.hosts.iter_mut().for_each(|host| host.conduct = Conduct::Honest);
    (world, job, held.0)
}

/// What the host is given when it has done something else.
fn next(world: &mut World, index: usize, job: JobId) -> Option<Assignment> {
    world.answer(index);
    world.hosts[index].inbox.iter().find(|assignment| assignment.job == job).cloned()
}

#[test]
fn who_may_go_on_is_waited_for_while_it_is_busy() {
    let (mut world, job, first) = lost_by_a_busy_host();
    assert_eq!(next(&mut world, 1 - first, job), None, "another one would begin anew");
    let why = world.state.why(job, Stage::Map, 0).unwrap();
    assert!(why.summary.contains("go on from state 2") && why.summary.contains("waits"), "{}", why.summary);
    let reason = |index: usize| {
        let node = world.hosts[index].node();
        why.hosts.iter().find(|host| host.node == node).and_then(|host| host.reason.clone()).unwrap_or_default()
    };
    assert!(reason(first).contains("full") && reason(1 - first).contains("another operator"), "{:?}", why.hosts);
    let next = next(&mut world, first, job).expect("it comes before other work");
    assert_eq!(next.from, Some(checkpoint(2)));
    world.run();
    world.check_replay();
}

#[test]
fn who_may_go_on_is_waited_for_no_longer_than_its_state_has_taken() {
    let (mut world, job, first) = lost_by_a_busy_host();
    world.now += 60_000;
    world.feed(Event::Tick);
    // It has its turn with the other job.
    let turns = [0, 1].map(|_| next(&mut world, 1 - first, job));
    assert_eq!(turns[1].as_ref().map(|assignment| assignment.from), Some(None), "{turns:?}");
    // Nor is one that is gone, once it has had its time to come back.
    let (mut world, job, first) = lost_by_a_busy_host();
    let node = world.hosts[first].node();
    world.feed(Event::HostDown { node });
    assert_eq!(next(&mut world, 1 - first, job), None);
    world.now += world.config.host_grace_ms;
    world.feed(Event::Tick);
    let turns = [0, 1].map(|_| next(&mut world, 1 - first, job));
    assert_eq!(turns[1].as_ref().map(|assignment| assignment.from), Some(None), "{turns:?}");
}

/// The host comes, or comes back, as one of an operator, with so many slots and so much memory for a task.
fn join(world: &mut World, index: usize, operator: u8, slots: u32, memory_bytes_max: u64) {
    world.hosts[index].operator = operator_key(operator);
    let host = &world.hosts[index];
    let (node, operator) = (host.node(), OperatorId(host.operator.public()));
    let cert = Arc::new(Signed::seal(&NodeCert { node, issued_ms: 0 }, &host.operator));
    let (engines, prices, subnet) = (host.engines.clone(), world.prices.clone(), host.subnet);
    let offer = Offer { slots, queue_max: 0, memory_bytes_max, engines, prices };
    let holding = host.inbox.iter().map(|assignment| assignment.id).collect();
    world.feed(Event::HostUp { node, operator, cert, offer, subnet, holding });
}

/// Hosts of one slot each, that never answer, each of an operator of its own; the first of them are there.
fn hosts(there: usize, all: usize) -> World {
    let mut world = World::new(&vec![Conduct::Silent; all], 1);
    for index in 0..all {
        if index < there { join(&mut world, index, index as u8 + 1, 1, 1 << 30) } else { leave(&mut world, index) }
    }
    world
}

fn leave(world: &mut World, index: usize) {
    let node = world.hosts[index].node();
    world.hosts[index].inbox.clear();
    world.feed(Event::HostDown { node });
}

/// One that may take ten minutes, and that one operator runs.
fn long(spec: &mut JobSpec) {
    (spec.policy, spec.limits.wall_ms_max, spec.deadline_ms) = (Policy::None, 600_000, 3_600_000);
}

fn given(world: &World, job: JobId) -> Vec<(usize, Assignment)> {
    checkpoints::given(world).into_iter().filter(|(_, assignment)| assignment.job == job).collect()
}

/// Who has the job's executions, and whether they go on from a state.
fn goes_on(world: &World, job: JobId) -> Vec<(usize, bool)> {
    given(world, job).into_iter().map(|(index, assignment)| (index, assignment.from.is_some())).collect()
}

fn fails_with(world: &mut World, (index, assignment): &(usize, Assignment), word: &str) {
    let node = world.hosts[*index].node();
    world.hosts[*index].inbox.retain(|open| open.id != assignment.id);
    world.feed(Event::Faulted { node, assignment: assignment.id, fault: Fault::new(word, "it came to nothing") });
}

fn loses(world: &mut World, held: &(usize, Assignment)) {
    fails_with(world, held, "lease");
}

/// Time passes up to the next thing that is due, until the job has an execution; says how long that took.
fn until_given(world: &mut World, job: JobId) -> Millis {
    let began = world.now;
    while given(world, job).is_empty() {
        world.now = world.state.next_timer().expect("nothing is due, and nobody has it").max(world.now);
        world.feed(Event::Tick);
    }
    world.now - began
}

#[test]
fn what_else_is_missing_of_a_shard_waits_for_no_heir() {
    let mut world = hosts(4, 4);
    let job = world.submit(b"a\n", |spec| spec.policy = Policy::Quorum(2));
    let both = given(&world, job);
    world.now += 50_000;
    keeps(&mut world, &both[0], checkpoint(2));
    both.iter().for_each(|held| loses(&mut world, held));
    let heir = both[0].0;
    assert!(until_given(&mut world, job) < 1_000);
    let mut both = goes_on(&world, job);
    both.sort_unstable_by_key(|(_, goes_on)| *goes_on);
    assert!(both.len() == 2 && !both[0].1 && both[1] == (heir, true), "{both:?}");
    // The same where the heir is busy: the other one is begun by somebody else at once.
    let mut world = hosts(4, 4);
    let job = world.submit(b"a\n", |spec| spec.policy = Policy::Quorum(2));
    let both = given(&world, job);
    world.now += 50_000;
    keeps(&mut world, &both[0], checkpoint(2));
    let idle: Vec<usize> = (0..4).filter(|index| *index != both[0].0).collect();
    both.iter().for_each(|held| loses(&mut world, held));
    idle.iter().for_each(|index| leave(&mut world, *index));
    world.submit(b"b\n", long);
    idle.iter().for_each(|index| join(&mut world, *index, *index as u8 + 1, 1, 1 << 30));
    assert!(until_given(&mut world, job) < 1_000);
    assert!(matches!(goes_on(&world, job)[..], [(other, false)] if other != both[0].0));
}

#[test]
fn a_job_that_is_over_hides_nobody_behind_it_in_the_line() {
    let mut world = hosts(1, 1);
    let [_, second, third] = [0, 1, 2].map(|_| world.submit(b"a\n", long));
    world.feed(Event::Cancelled { job: second });
    world.hosts[0].conduct = Conduct::Honest;
    world.answer(0);
    assert_eq!(goes_on(&world, third), [(0, false)]);
}

#[test]
fn while_an_heir_is_waited_for_all_hosts_are_looked_at_for_others() {
    let mut world = World::with(Config { candidates_max: 4, ..Config::default() }, &[Conduct::Silent; 16], 1);
    (0..16).for_each(|index| {
        join(&mut world, index, index as u8 + 1, 1, if index == 14 { 4 << 30 } else { 1 << 30 });
    });
    let kept = world.submit(b"a\n", long);
    let held = only(&world);
    world.now += 600_000 - 1;
    keeps(&mut world, &held, checkpoint(2));
    loses(&mut world, &held);
    let busy = world.submit(&lines(16), long);
    world.now += 11_000;
    world.feed(Event::Tick);
    for (index, _) in given(&world, busy).into_iter().filter(|(index, _)| *index != held.0) {
        world.hosts[index].conduct = Conduct::Honest;
        world.answer(index);
    }
    assert_eq!(goes_on(&world, kept), [], "its heir is busy");
    let large = world.submit(b"x\n", |spec| {
        long(spec);
        spec.limits.memory_bytes_max = 2 << 30;
    });
    assert!(until_given(&mut world, large) <= 10_000);
    assert!(given(&world, kept).is_empty(), "and still is");
}

#[test]
fn in_all_nobody_is_waited_for_longer_than_its_states_have_taken() {
    let mut world = hosts(1, 2);
    let job = world.submit(b"a\n", |spec| {
        long(spec);
        spec.limits.memory_bytes_max = 1 << 20;
    });
    world.submit(&lines(20), long);
    let (mut held, mut ran, mut waited) = (only(&world), 0, 0);
    for round in 0..6 {
        world.now += 200;
        ran += 200;
        keeps(&mut world, &held, checkpoint(round));
        loses(&mut world, &held);
        // Its host makes room as late as it may, and only for it.
        let began = world.now;
        world.now += 199;
        world.feed(Event::Tick);
        world.hosts[0].conduct = Conduct::Honest;
        world.answer(0);
        world.hosts[0].conduct = Conduct::Silent;
        if round == 1 {
            // It can do nothing else.
            join(&mut world, 1, 2, 1, 1 << 20);
        }
        until_given(&mut world, job);
        waited += world.now - began;
        held = given(&world, job).remove(0);
        if held.0 == 1 {
            break;
        }
    }
    assert!(waited <= ran + world.config.retry_ms_max, "{waited} ms were waited for {ran} ms of work");
}

#[test]
fn a_host_that_comes_back_without_its_work_goes_on_with_it() {
    let mut world = hosts(0, 3);
    (0..2).for_each(|index| join(&mut world, index, 1, 1, 1 << 30));
    let job = world.submit(b"a\n", long);
    let held = only(&world);
    world.submit(b"b\n", long);
    world.now += 50_000;
    keeps(&mut world, &held, checkpoint(2));
    world.hosts[held.0].inbox.clear();
    join(&mut world, held.0, 1, 1, 1 << 30);
    join(&mut world, 2, 3, 1, 1 << 30);
    assert!(until_given(&mut world, job) < 1_000);
    assert_eq!(goes_on(&world, job), [(held.0, true)], "the other host of its operator is busy");
}

#[test]
fn what_waits_for_one_operator_hides_nothing_that_waits_for_another() {
    let mut world = hosts(0, 3);
    join(&mut world, 0, 1, 40, 1 << 30);
    let job = world.submit(&lines(41), long);
    let of_one = given(&world, job);
    join(&mut world, 1, 2, 1, 1 << 30);
    let of_other = given(&world, job).into_iter().find(|(index, _)| *index == 1).unwrap();
    world.now += 100_000;
    of_one.iter().chain([&of_other]).for_each(|held| keeps(&mut world, held, checkpoint(2)));
    world.submit(&lines(40), long);
    of_one.iter().chain([&of_other]).for_each(|held| loses(&mut world, held));
    assert!(until_given(&mut world, job) < 1_000);
    assert_eq!(goes_on(&world, job), [(1, true)]);
}

#[test]
fn once_nobody_is_waited_for_a_shard_has_its_turn_with_all_others() {
    let mut world = hosts(0, 2);
    join(&mut world, 0, 1, 10, 1 << 30);
    let mine = world.submit(&lines(10), long);
    world.now += 10_000;
    for held in given(&world, mine) {
        keeps(&mut world, &held, checkpoint(2));
        loses(&mut world, &held);
    }
    leave(&mut world, 0);
    let other = world.submit(&lines(10), long);
    world.now += world.config.host_grace_ms + world.config.retry_ms_max;
    world.feed(Event::Tick);
    join(&mut world, 1, 2, 1, 1 << 30);
    world.hosts[1].conduct = Conduct::Honest;
    let mut order = Vec::new();
    while let Some(assignment) = world.hosts[1].inbox.front() {
        assert_eq!(assignment.from, None);
        order.push(assignment.job == mine);
        world.answer(1);
    }
    assert_eq!(order.len(), 20);
    assert!(order.chunks(2).all(|pair| pair[0] != pair[1]), "they take turns: {order:?}");
    assert!(order.contains(&true) && world.state.job(other).unwrap().phase == Phase::Done);
}

#[test]
fn a_coordinator_that_starts_again_waits_as_it_did_and_derives_who_waits_anew() {
    let mut world = hosts(1, 2);
    let job = world.submit(b"a\n", long);
    world.submit(&lines(3), long);
    world.now += 50_000;
    let held = only(&world);
    keeps(&mut world, &held, checkpoint(2));
    loses(&mut world, &held);
    world.now += 500;
    world.feed(Event::Tick);
    // As an older one has left it, that kept otherwise who waits.
    world.state.jobs.values_mut().for_each(|job| job.queued = Default::default());
    world.state.turns = Default::default();
    world.feed(Event::Restarted);
    join(&mut world, 1, 2, 1, 1 << 30);
    assert!(given(&world, job).is_empty(), "the host that it was on has its time to come back");
    join(&mut world, 0, 1, 2, 1 << 30);
    assert_eq!(goes_on(&world, job), [(0, true)]);
}

#[test]
fn a_state_that_says_to_be_farther_than_any_can_be_is_not_kept() {
    let mut world = hosts(1, 1);
    let job = world.submit(b"a\n", long);
    let held = only(&world);
    let fuel_max = world.specs[&job].limits.fuel_max;
    keeps(&mut world, &held, Checkpoint { fuel_used: fuel_max + 1, ..checkpoint(2) });
    assert_eq!(world.state.why(job, Stage::Map, 0).unwrap().shard.executions[0].checkpoint, None);
    assert!(!world.state.wants_checkpoint(world.hosts[0].node(), held.1.id, fuel_max + 1));
    assert!(world.state.wants_checkpoint(world.hosts[0].node(), held.1.id, fuel_max));
}
