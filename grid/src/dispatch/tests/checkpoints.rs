//! States that hosts keep of long tasks: who goes on from them, and who must not.

use registry::job::Stage;

use super::*;
use crate::flow::Checkpoint;

pub(super) fn checkpoint(index: u32) -> Checkpoint {
    let fuel_used = 1_000 * u64::from(index + 1);
    Checkpoint { index, fuel_used, snapshot: BlobHash::of(&index.to_le_bytes()), bytes: 70_000 }
}

/// A grid in which the first hosts are of one operator, and the owner answers for the operators of these.
pub(super) fn grid(of_one: usize, vouched: &[u8], hosts: usize) -> World {
    let vouched = vouched.iter().map(|index| OperatorId(operator_key(*index).public())).collect();
    let mut world = World::with(Config { vouched, ..Config::default() }, &vec![Conduct::Silent; hosts], 1);
    for index in 0..of_one {
        world.hosts[index].operator = operator_key(1);
        world.join(index);
    }
    world
}

fn submit(world: &mut World, policy: Policy) -> JobId {
    world.submit(b"a\n", |spec| spec.policy = policy)
}

/// Who has which assignments.
pub(super) fn given(world: &World) -> Vec<(usize, Assignment)> {
    let hosts = world.hosts.iter().enumerate();
    hosts.flat_map(|(index, host)| host.inbox.iter().map(move |assignment| (index, assignment.clone()))).collect()
}

pub(super) fn only(world: &World) -> (usize, Assignment) {
    let given = given(world);
    assert_eq!(given.len(), 1, "{given:?}");
    given.into_iter().next().unwrap()
}

pub(super) fn keeps(world: &mut World, (index, assignment): &(usize, Assignment), checkpoint: Checkpoint) {
    let node = world.hosts[*index].node();
    world.feed(Event::Checkpoint { node, assignment: assignment.id, checkpoint });
}

/// The host is gone for good, and what it had is given to others where it can be.
fn loses(world: &mut World, index: usize) {
    let node = world.hosts[index].node();
    world.hosts[index].inbox.clear();
    world.feed(Event::HostDown { node });
    for _ in 0..2 {
        world.now += world.config.host_grace_ms.max(world.config.retry_ms_max) + 1;
        world.feed(Event::Tick);
    }
}

fn resumed(world: &World, job: JobId) -> u32 {
    world.state.why(job, Stage::Map, 0).unwrap().shard.resumed
}

#[test]
fn a_task_that_loses_its_host_goes_on_at_another_one_of_its_operator() {
    let mut world = grid(3, &[], 6);
    let job = submit(&mut world, Policy::None);
    let mut first = only(&world);
    for lost in 0..3 {
        if first.0 < 3 {
            break;
        }
        // Of another operator: what it keeps is nobody's.
        keeps(&mut world, &first, checkpoint(lost));
        loses(&mut world, first.0);
        first = only(&world);
        assert_eq!(first.1.from, None);
    }
    assert!(first.0 < 3, "{first:?}");
    keeps(&mut world, &first, checkpoint(4));
    keeps(&mut world, &first, checkpoint(3));
    let running = world.state.why(job, Stage::Map, 0).unwrap().shard;
    assert_eq!(running.executions[0].checkpoint, Some(checkpoint(4)), "an earlier state takes nothing back");
    loses(&mut world, first.0);
    let second = only(&world);
    assert!(second.0 < 3 && second.0 != first.0, "its operator has other hosts: {second:?}");
    assert_eq!((second.1.from, resumed(&world, job)), (Some(checkpoint(4)), 1));
    // It is lost before it has kept anything of its own: what it went on from is still there.
    loses(&mut world, second.0);
    let third = only(&world);
    assert_eq!((third.1.from, resumed(&world, job)), (Some(checkpoint(4)), 2));
    world.hosts[third.0].conduct = Conduct::Honest;
    world.run();
    assert_eq!(phase(&world, job), &Phase::Done);
    world.check_replay();
}

#[test]
fn nobody_answers_for_what_another_operator_kept() {
    let mut world = grid(1, &[], 2);
    submit(&mut world, Policy::None);
    let first = only(&world);
    keeps(&mut world, &first, checkpoint(2));
    loses(&mut world, first.0);
    let second = only(&world);
    assert_eq!((second.0, second.1.from), (1 - first.0, None));
    let waits = world.state.why(second.1.job, Stage::Map, 0).unwrap().shard;
    assert_eq!(waits.checkpoint, Some(checkpoint(2)), "it is kept, should its operator come back");
}

#[test]
fn operators_that_the_owner_answers_for_go_on_from_each_others_states() {
    let mut world = grid(1, &[1, 2], 3);
    submit(&mut world, Policy::None);
    let mut first = only(&world);
    if first.0 == 2 {
        loses(&mut world, 2);
        first = only(&world);
    }
    keeps(&mut world, &first, checkpoint(7));
    loses(&mut world, first.0);
    let second = only(&world);
    assert_eq!((second.0, second.1.from), (1 - first.0, Some(checkpoint(7))));
}

#[test]
fn where_somebody_pays_an_operator_is_paid_for_its_own_steps_alone() {
    let mut world = money::grid(2, &[Conduct::Silent; 3], 1, 100_000, 10_000);
    // The first and the third are of one operator; the second is another one's that the owner answers for.
    world.hosts[2].operator = operator_key(1);
    world.join(2);
    let job = world.submit(b"a\n", |spec| (spec.policy, spec.limits) = (Policy::None, money::limits()));
    let mut held = only(&world);
    if held.0 == 1 {
        keeps(&mut world, &held, checkpoint(0));
        loses(&mut world, 1);
        held = only(&world);
        assert_eq!(held.1.from, None);
        world.join(1);
    }
    keeps(&mut world, &held, checkpoint(3));
    let first = held.0;
    loses(&mut world, first);
    let next = only(&world);
    assert_eq!((next.0, next.1.from), (2 - first, Some(checkpoint(3))), "its operator has another host");
    world.hosts[next.0].conduct = Conduct::Honest;
    world.run();
    assert_eq!(phase(&world, job), &Phase::Done);
    let (first, other) = (OperatorId(operator_key(1).public()), OperatorId(operator_key(2).public()));
    assert!(!world.state.ledger().at_risk(first).is_zero() && world.state.ledger().at_risk(other).is_zero());
}

#[test]
fn a_state_that_cannot_be_gone_on_from_is_forgotten() {
    let mut world = grid(2, &[], 2);
    let job = submit(&mut world, Policy::None);
    let first = only(&world);
    keeps(&mut world, &first, checkpoint(2));
    loses(&mut world, first.0);
    let second = only(&world);
    assert_eq!(second.1.from, Some(checkpoint(2)));
    let node = world.hosts[second.0].node();
    world.hosts[second.0].inbox.clear();
    let fault = Fault::new(checkpoint::REFUSED, "snapshot is not here any more");
    world.feed(Event::Faulted { node, assignment: second.1.id, fault });
    world.now += world.config.retry_ms_max + 1;
    world.feed(Event::Tick);
    let third = only(&world);
    assert_eq!((third.1.from, resumed(&world, job)), (None, 1));
}

#[test]
fn two_results_of_a_quorum_never_grow_from_one_state() {
    let mut world = grid(1, &[1, 2, 3, 4], 4);
    submit(&mut world, Policy::Quorum(2));
    let both = given(&world);
    assert_eq!(both.len(), 2);
    keeps(&mut world, &both[0], checkpoint(2));
    both.iter().for_each(|(index, _)| loses(&mut world, *index));
    let from: Vec<_> = given(&world).into_iter().map(|(_, assignment)| assignment.from).collect();
    assert_eq!(from.len(), 2);
    assert_eq!(from.iter().flatten().count(), 1, "{from:?}");
}

#[test]
fn once_there_is_a_result_whoever_checks_it_begins_anew() {
    let mut world = grid(1, &[1, 2, 3], 3);
    submit(&mut world, Policy::Quorum(2));
    let both = given(&world);
    keeps(&mut world, &both[0], checkpoint(2));
    world.hosts[both[1].0].conduct = Conduct::Honest;
    world.answer(both[1].0);
    loses(&mut world, both[0].0);
    let (_, checks) = only(&world);
    assert_eq!(checks.from, None);
}

#[test]
fn a_host_keeps_states_of_nothing_but_its_own_work() {
    let mut world = grid(2, &[], 2);
    let job = submit(&mut world, Policy::None);
    let (index, assignment) = only(&world);
    keeps(&mut world, &(1 - index, assignment.clone()), checkpoint(2));
    keeps(&mut world, &(index, Assignment { id: AssignmentId(99), ..assignment }), checkpoint(2));
    assert_eq!(world.state.why(job, Stage::Map, 0).unwrap().shard.executions[0].checkpoint, None);
}

/// The host has kept a state, says that it cannot go on, and time passes.
fn fails(world: &mut World, held: &(usize, Assignment), state: u32) {
    keeps(world, held, checkpoint(state));
    let node = world.hosts[held.0].node();
    world.hosts[held.0].inbox.clear();
    let fault = Fault::new("sandbox_died", "the task's sandbox process ended");
    world.feed(Event::Faulted { node, assignment: held.1.id, fault });
    world.now += world.config.retry_ms_max + 1;
    world.feed(Event::Tick);
}

#[test]
fn a_host_that_keeps_states_and_fails_leaves_the_shard_to_others() {
    // It fails at what it had inherited: its state is no good.
    let mut world = grid(1, &[], 2);
    submit(&mut world, Policy::None);
    let first = only(&world);
    fails(&mut world, &first, 2);
    let again = only(&world);
    assert_eq!((again.0, again.1.from), (first.0, Some(checkpoint(2))), "a moment of weakness is forgiven");
    fails(&mut world, &again, 2);
    let other = only(&world);
    assert_eq!((other.0, other.1.from), (1 - first.0, None));
    // It says each time that it got farther: no more than so often.
    let mut world = grid(1, &[], 2);
    submit(&mut world, Policy::None);
    let (first, mut orders) = (only(&world).0, 0);
    while only(&world).0 == first {
        let held = only(&world);
        fails(&mut world, &held, orders);
        orders += 1;
    }
    assert_eq!((orders, only(&world).1.from), (5, None));
}

#[test]
fn a_state_of_another_engine_than_the_one_under_way_waits() {
    let mut world = grid(1, &[1, 2, 3], 3);
    let other = EngineFingerprint([8; 32]);
    submit(&mut world, Policy::Quorum(2));
    let both = given(&world);
    keeps(&mut world, &both[0], checkpoint(2));
    // Whoever comes back has another engine, and the execution that is under way has the old one.
    world.hosts[both[0].0].inbox.clear();
    world.hosts[both[0].0].engines = Engines::plain(other, other);
    world.join(both[0].0);
    world.now += world.config.retry_ms_max + 1;
    world.feed(Event::Tick);
    let engines: BTreeSet<_> = given(&world).into_iter().map(|(_, assignment)| assignment.engine).collect();
    assert_eq!(engines, BTreeSet::from([ENGINE]));
}
