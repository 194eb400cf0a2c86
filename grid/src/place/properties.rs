//! Placement over fleets and asks of every kind.

use proptest::prelude::*;
use registry::{
    device::{DeviceAsk, DeviceKind},
    job::{Class, Profile},
    price::PriceTable,
};

use super::{tests::*, *};
use crate::{
    engines::{
        EngineOffer, Engines,
        tests::{fingerprint, on},
    },
    flow::Offer,
};

/// Every engine that there is: hosts of one engine differ in memory and speed alone.
fn kinds() -> Vec<EngineOffer> {
    vec![
        EngineOffer::exact(fingerprint(0), Profile::Native),
        EngineOffer::exact(fingerprint(1), Profile::Portable),
        on(DeviceKind::Cpu, 2, Class::Exact, 0),
        on(DeviceKind::Cpu, 3, Class::Homogeneous, 0),
        on(DeviceKind::Gpu, 4, Class::Homogeneous, 0),
        on(DeviceKind::Gpu, 5, Class::Tolerant, 0),
        on(DeviceKind::Gpu, 6, Class::Tolerant, 0),
    ]
}

fn engines() -> impl Strategy<Value = Engines> {
    let chosen = proptest::sample::subsequence(kinds(), 1..=7).prop_shuffle();
    (chosen, proptest::collection::vec((0u64..4, 0u64..4), 7)).prop_map(|(mut engines, measured)| {
        for (engine, (memory, mflops)) in engines.iter_mut().zip(measured) {
            (engine.device_memory_bytes, engine.mflops) = (memory, mflops);
        }
        Engines(engines)
    })
}

/// Engines, operator, memory of a task in MiB, whether it is connected.
type Member = (Engines, u8, u64, bool);

fn fleet() -> impl Strategy<Value = Vec<Member>> {
    proptest::collection::vec((engines(), 1u8..6, 100u64..400, proptest::bool::weighted(0.8)), 0..8)
}

fn made(members: &[Member]) -> Fleet {
    let mut fleet = Fleet::new(50);
    let cert = cert(1, 1);
    for ((engines, operator, memory, connected), node) in members.iter().zip(1u8..) {
        let (id, owner) = (NodeId([node; 32]), OperatorId([*operator; 32]));
        let offer = Offer {
            slots: 1,
            queue_max: 0,
            memory_bytes_max: memory << 20,
            engines: engines.clone(),
            prices: PriceTable::default(),
        };
        fleet.up(id, owner, cert.clone(), offer, Subnet::Relayed, 0);
        if !connected {
            fleet.down(id, 0);
        }
    }
    fleet
}

fn ask() -> impl Strategy<Value = EngineAsk> {
    let profile = prop_oneof![4 => Just(Profile::Native), 1 => Just(Profile::Portable)];
    let class = prop_oneof![Just(Class::Exact), Just(Class::Homogeneous), Just(Class::Tolerant)];
    let device = prop_oneof![Just(DeviceAsk::Any), Just(DeviceAsk::Cpu), Just(DeviceAsk::Gpu)];
    let memory = prop_oneof![3 => Just(0u64), 1 => 1u64..5];
    (profile, class, device, memory, any::<bool>()).prop_map(
        |(profile, class, device, device_memory_bytes_min, infers)| EngineAsk {
            profile,
            class,
            device,
            device_memory_bytes_min,
            infers,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]
    #[test]
    fn an_engine_that_is_chosen_suits_and_a_gpu_is_never_replaced(
        members in fleet(),
        ask in ask(),
        quorum in 1u8..4,
        earlier in proptest::option::of(0u8..7),
    ) {
        let fleet = made(&members);
        let limits = Limits::default();
        let earlier = earlier.map(fingerprint);
        let need = Need { ask, quorum, engine: earlier, ..need(&limits) };
        let config = Config::default();
        let Some((node, chosen)) = pick(&need, &fleet, &config) else {
            for (node, fit) in explain(&need, &fleet, &config) {
                prop_assert!(fit.is_err(), "{node:?} was passed over: {fit:?}");
            }
            return Ok(());
        };
        let host = fleet.get(node).unwrap();
        prop_assert!(host.connected && capable(&limits, &ask, host).is_ok());
        let engine = host.offer.engines.get(chosen).unwrap();
        prop_assert_eq!(engine.profile, ask.profile);
        prop_assert!(engine.class <= ask.class && engine.device_memory_bytes >= ask.device_memory_bytes_min);
        let kind = engine.device.as_ref().map(|device| device.kind);
        match ask.device {
            DeviceAsk::Any => {}
            DeviceAsk::Cpu => prop_assert_ne!(kind, Some(DeviceKind::Gpu)),
            DeviceAsk::Gpu => prop_assert_eq!(kind, Some(DeviceKind::Gpu)),
        }
        let enough = |engine: &EngineOffer| fleet.operators(engine.fingerprint) >= usize::from(quorum);
        match earlier {
            Some(earlier) if fleet.has_other_operator(earlier, &[]) => prop_assert_eq!(chosen, earlier),
            Some(earlier) if chosen == earlier => {}
            _ => {
                prop_assert!(enough(engine));
                let others: Vec<_> =
                    host.offer.engines.0.iter().filter(|other| ask.suits(other) && enough(other)).collect();
                let for_speed = ask.class != Class::Exact && (ask.infers || ask.device != DeviceAsk::Any);
                if for_speed {
                    prop_assert!(others.iter().all(|other| other.mflops <= engine.mflops));
                } else {
                    prop_assert_eq!(others[0], engine);
                }
            }
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn a_gpu_is_found_however_many_hosts_have_none(members in 65usize..200, at in any::<proptest::sample::Index>()) {
        let mut fleet = Fleet::new(50);
        let (at, cert) = (at.index(members), cert(1, 1));
        for index in 0..members {
            let (node, operator) = (NodeId([index as u8; 32]), OperatorId([index as u8; 32]));
            let engine = if index == at { kinds().remove(5) } else { kinds().remove(2) };
            let offer = Offer { engines: Engines(vec![engine]), ..offer(ENGINE) };
            fleet.up(node, operator, cert.clone(), offer, Subnet::Relayed, 0);
        }
        let limits = Limits::default();
        let ask = EngineAsk { device: DeviceAsk::Gpu, class: Class::Tolerant, ..EngineAsk::default() };
        let need = Need { ask, quorum: 1, ..need(&limits) };
        prop_assert_eq!(picked(&need, &fleet), Some(at as u8));
    }
}
