//! Large fleets, of which one event looks at a part.

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

#[test]
fn the_one_host_that_can_run_a_shard_is_found_among_any_number_that_cannot() {
    let mut state = State::new(Config::default());
    for number in 0..250u8 {
        let memory_bytes_max = if number == 200 { 8 << 30 } else { 1 << 30 };
        let engines = Engines::plain(fingerprint(1), fingerprint(2));
        let offer = Offer { slots: 1, queue_max: 0, memory_bytes_max, engines, prices: PriceTable::default() };
        let (node, operator) = (NodeId([number; 32]), OperatorId([number; 32]));
        let (cert, subnet, holding) = (Signed::nothing(), Subnet::Relayed, Vec::new());
        on_event(&mut state, Event::HostUp { node, operator, cert, offer, subnet, holding }, 0);
    }
    let limits = Limits { memory_bytes_max: 4 << 30, ..Limits::default() };
    let spec = JobSpec { limits, policy: Policy::None, ..JobSpec::new(ModuleHash::of(b"module"), 1) };
    let planned = PlannedShard { slice: Slice { blob: None, start: 0, end: 1 }, input: BlobHash::of(b"") };
    let submitted = Event::Submitted {
        spec: Box::new(spec),
        plan: Plan { shards: vec![planned] },
        secret: Secret::from_bytes([1; 32]),
        payer: None,
    };
    let mut effects = on_event(&mut state, submitted, 0);
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
