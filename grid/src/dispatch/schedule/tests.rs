//! Large fleets, of which one event looks at a part.

use std::sync::Arc;

use registry::{
    audit::Secret,
    id::{BlobHash, ModuleHash, NodeId, OperatorId},
    job::{JobSpec, Limits, Policy},
    price::PriceTable,
    sign::Signed,
};

use crate::{
    config::Config,
    dispatch::{Effect, Event, State, on_event},
    engines::{Engines, tests::fingerprint},
    flow::{Offer, Plan, PlannedShard, Slice},
    subnet::Subnet,
};

/// A grid of hosts that join one after the other, each of an operator of its own.
fn grid(hosts: u8, offer: impl Fn(u8) -> Offer) -> State {
    let mut state = State::new(Config::default());
    for number in 0..hosts {
        let (node, operator) = (NodeId([number; 32]), OperatorId([number; 32]));
        let (cert, subnet, holding) = (Arc::new(Signed::nothing()), Subnet::Relayed, Vec::new());
        on_event(&mut state, Event::HostUp { node, operator, cert, offer: offer(number), subnet, holding }, 0);
    }
    state
}

fn offer(memory_bytes_max: u64) -> Offer {
    let engines = Engines::plain(fingerprint(1), fingerprint(2));
    Offer { slots: 1, queue_max: 0, memory_bytes_max, engines, prices: PriceTable::default() }
}

fn submitted(spec: JobSpec, shards: u64) -> Event {
    let planned = |start| PlannedShard { slice: Slice { blob: None, start, end: start + 1 }, input: BlobHash::of(b"") };
    let plan = Plan { shards: (0..shards).map(planned).collect() };
    Event::Submitted { spec: Box::new(spec), plan, secret: Secret::from_bytes([1; 32]), payer: None }
}

#[test]
fn who_joins_next_to_itself_is_not_asked_for_the_same() {
    let mut state = grid(200, |_| offer(1 << 30));
    let spec = JobSpec { policy: Policy::Quorum(2), ..JobSpec::new(ModuleHash::of(b"module"), 1) };
    let effects = on_event(&mut state, submitted(spec, 100), 0);
    let mut asked: Vec<Vec<u8>> = vec![Vec::new(); 100];
    for effect in effects {
        if let Effect::Assign { node, assignment } = effect {
            asked[assignment.shard.index as usize].push(node.0[0]);
        }
    }
    // One of 199 others is as likely as any: fewer than one pair is expected to lie side by side.
    let beside = asked.iter().filter(|pair| matches!(pair[..], [one, other] if one.abs_diff(other) == 1)).count();
    assert!(beside < 8, "{beside} pairs of 100 joined one after the other");
    assert!(asked.iter().filter(|pair| pair.len() == 2).count() >= 99);
    state.check().unwrap();
}

#[test]
fn the_one_host_that_can_run_a_shard_is_found_among_any_number_that_cannot() {
    let mut state = grid(250, |number| offer(if number == 200 { 8 << 30 } else { 1 << 30 }));
    let limits = Limits { memory_bytes_max: 4 << 30, ..Limits::default() };
    let spec = JobSpec { limits, policy: Policy::None, ..JobSpec::new(ModuleHash::of(b"module"), 1) };
    let mut effects = on_event(&mut state, submitted(spec, 1), 0);
    let given = |effects: &[Effect]| {
        effects.iter().find_map(|effect| match effect {
            Effect::Assign { node, .. } => Some(node.0[0]),
            _ => None,
        })
    };
    assert_eq!(given(&effects), None, "it is none of the first");
    while given(&effects).is_none() {
        let due = state.next_timer().unwrap();
        assert!(due <= 10_000, "nobody waits for it");
        effects.extend(on_event(&mut state, Event::Tick, due));
    }
    assert_eq!(given(&effects), Some(200));
    state.check().unwrap();
}
