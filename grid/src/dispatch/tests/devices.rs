//! Jobs that ask for devices, over hosts that have them, have none, or say one thing and do another.

use registry::{
    device::DeviceAsk,
    id::ModelHash,
    job::{Class, Stage},
};

use super::*;
use crate::engines::tests::{fingerprint, on, rich};

/// A world in which the hosts at these places have a GPU.
fn world(conducts: &[Conduct], gpus: &[usize]) -> World {
    let mut world = World::new(conducts, 20);
    for index in 0..conducts.len() {
        let tract = Engines(rich().0[..2].to_vec());
        world.hosts[index].engines = if gpus.contains(&index) { rich() } else { tract };
        world.join(index);
    }
    world
}

fn with_model(spec: &mut JobSpec, device: DeviceAsk, class: Class) {
    spec.models = [("model".to_owned(), ModelHash::of(b"model"))].into();
    (spec.device, spec.class, spec.policy) = (device, class, Policy::Quorum(1));
}

#[test]
fn a_job_that_asks_for_a_gpu_runs_where_one_is_and_nowhere_else() {
    let mut world = world(&[Conduct::Honest; 5], &[3]);
    let job = world.submit(b"a\nb\nc\nd\n", |spec| with_model(spec, DeviceAsk::Gpu, Class::Tolerant));
    world.run();
    assert_eq!(phase(&world, job), &Phase::Done);
    let gpu = world.hosts[3].node();
    for record in &world.accepted {
        let checked = record.check().unwrap();
        assert_eq!(checked.execution.engine, fingerprint(4));
        assert!(checked.devices.iter().all(|device| device.kind == DeviceKind::Gpu) && checked.devices.len() == 1);
    }
    let assigned: Vec<u64> =
        world.hosts.iter().map(|host| world.state.host(host.node()).unwrap().record.assigned).collect();
    assert_eq!(world.state.host(gpu).unwrap().record.assigned, assigned.iter().sum::<u64>());
    let why = world.state.why(job, Stage::Map, 0).unwrap();
    let devices: Vec<DeviceKind> = why.shard.executions.iter().flat_map(|it| &it.device).map(|it| it.kind).collect();
    assert_eq!(devices, [DeviceKind::Gpu], "what ran is told after the end, too");
    world.check_replay();
}

#[test]
fn a_job_that_no_host_has_a_gpu_for_says_so_and_runs_on_nothing_until_one_joins() {
    let mut world = world(&[Conduct::Honest; 3], &[]);
    let job = world.submit(b"a\n", |spec| with_model(spec, DeviceAsk::Gpu, Class::Tolerant));
    let expected = "none of the 3 connected hosts can run it: each has no GPU, which the job asks for";
    assert_eq!(world.state.job_view(job).unwrap().waits.unwrap(), expected);
    let why = world.state.why(job, Stage::Map, 0).unwrap();
    assert_eq!(why.summary, format!("waits: {expected}"));
    assert!(why.hosts.iter().all(|host| host.reason.as_deref().unwrap().contains("has no GPU")));
    assert!(world.hosts.iter().all(|host| host.inbox.is_empty()));
    // Another lack on one of them.
    let mut large = rich();
    large.0[3].device_memory_bytes = 1;
    world.hosts[2].engines = large;
    world.state.jobs.get_mut(&job).unwrap().spec.device_memory_bytes_min = 2;
    world.join(2);
    let waits = world.state.job_view(job).unwrap().waits.unwrap();
    assert!(waits.contains("1 has a device with 1 bytes of memory, of 2 asked; 2 has no GPU"), "{waits}");
    world.hosts[2].engines = rich();
    world.join(2);
    assert_eq!(world.state.job_view(job).unwrap().waits, None);
    world.answer(2);
    assert_eq!(phase(&world, job), &Phase::Done);
}

#[test]
fn a_job_that_waited_for_a_gpu_until_its_deadline_says_for_what() {
    let mut world = world(&[Conduct::Honest; 2], &[]);
    let job = world.submit(b"a\n", |spec| with_model(spec, DeviceAsk::Gpu, Class::Tolerant));
    world.run();
    let Phase::Failed { reason } = phase(&world, job) else { panic!("{:?}", phase(&world, job)) };
    assert_eq!(reason.word, "deadline");
    assert!(reason.detail.contains("none of the 2 connected hosts can run it: each has no GPU"), "{reason}");
}

#[test]
fn a_receipt_that_names_no_gpu_for_a_job_that_asked_for_one_is_never_accepted() {
    let mut world = world(&[Conduct::Downgrading, Conduct::Honest], &[0, 1]);
    let job = world.submit(b"a\nb\nc\nd\ne\nf\n", |spec| {
        with_model(spec, DeviceAsk::Gpu, Class::Tolerant);
        spec.attempts_max = 30;
    });
    world.run();
    assert_eq!(phase(&world, job), &Phase::Done);
    let liar = world.state.host(world.hosts[0].node()).unwrap();
    assert!(liar.record.faults > 0 && liar.record.confirmed == 0, "{:?}", liar.record);
    let honest = world.hosts[1].node();
    for record in &world.accepted {
        let Record::Accepted(accepted) = record else { panic!("nobody is accused") };
        assert!(accepted.witnesses.iter().all(|witness| witness.receipt.peek().unwrap().node == honest));
    }
    world.check_replay();
}

#[test]
fn a_receipt_that_lies_about_its_device_is_a_fault_whatever_was_asked() {
    // The fastest engine of class tolerant is the GPU.
    let mut world = world(&[Conduct::Downgrading], &[0]);
    let job = world.submit(b"a\n", |spec| {
        with_model(spec, DeviceAsk::Any, Class::Tolerant);
        spec.attempts_max = 2;
    });
    world.run();
    let Phase::Failed { reason } = phase(&world, job) else { panic!("{:?}", phase(&world, job)) };
    assert!(reason.detail.contains("garbage: the receipt names another device"), "{reason}");
}

#[test]
fn executions_of_a_shard_stay_on_one_engine_and_a_quorum_takes_one_that_enough_have() {
    // Three GPUs of as many kinds, and one library on the processor that all have.
    let mut world = World::new(&[Conduct::Honest; 3], 21);
    for index in 0..3u8 {
        let gpu = on(DeviceKind::Gpu, 10 + index, Class::Tolerant, 1_000_000);
        world.hosts[usize::from(index)].engines = Engines([rich().0[..3].to_vec(), vec![gpu]].concat());
        world.join(index.into());
    }
    let job = world.submit(b"a\nb\n", |spec| {
        with_model(spec, DeviceAsk::Any, Class::Tolerant);
        spec.policy = Policy::Quorum(2);
    });
    world.run();
    assert_eq!(phase(&world, job), &Phase::Done);
    for record in &world.accepted {
        assert_eq!(
            record.check().unwrap().execution.engine,
            fingerprint(3),
            "of the engines that two have the fastest"
        );
    }
    let alone = world.submit(b"c\n", |spec| {
        with_model(spec, DeviceAsk::Gpu, Class::Tolerant);
        spec.policy = Policy::Quorum(2);
    });
    let waits = world.state.job_view(alone).unwrap().waits.unwrap();
    assert!(
        waits.contains("a quorum of 2 needs as many operators, 1 are connected on one engine that suits"),
        "{waits}"
    );
}
