//! Hosts that could take an assignment now, by what they are looked for: few may be of use among many that are not.

use registry::{
    device::DeviceAsk,
    id::{NodeId, OperatorId},
    job::Class,
    reputation::CLASSES,
};
use serde::{Deserialize, Serialize};

use super::{Host, places::Places, urn::Urn};

/// Such hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Room {
    all: Places,
    /// Those that have a GPU.
    gpu: Places,
    /// Those whose operators' results may be accepted alone, in the order of the classes.
    trusted: [Trusted; CLASSES.len()],
}

/// Those of one class.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Trusted {
    hosts: Places,
    operators: Urn,
    /// Operators with a GPU among them.
    operators_gpu: Urn,
}

impl Room {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The host at this place has room from now on, or none.
    pub(super) fn change(&mut self, place: usize, host: &Host, has_room: bool) {
        self.all.set(place, has_room);
        let has_gpu = host.has_gpu();
        if has_gpu {
            self.gpu.set(place, has_room);
        }
        for (class, trusted) in CLASSES.into_iter().zip(&mut self.trusted) {
            if host.trusted.contains(class) {
                trusted.hosts.set(place, has_room);
                trusted.operators.count(host.operator, has_room);
                if has_gpu {
                    trusted.operators_gpu.count(host.operator, has_room);
                }
            }
        }
    }

    fn trusted(&self, class: Class) -> Option<&Trusted> {
        CLASSES.into_iter().zip(&self.trusted).find(|(other, _)| *other == class).map(|(_, trusted)| trusted)
    }

    /// Places of those that may have such a device, of operators that are trusted in the class where one is given.
    pub(super) fn of(&self, device: DeviceAsk, trusted: Option<Class>) -> &Places {
        let trusted = trusted.and_then(|class| self.trusted(class));
        match (device, trusted) {
            (DeviceAsk::Gpu, _) => &self.gpu,
            (_, Some(trusted)) => &trusted.hosts,
            (_, None) => &self.all,
        }
    }

    /// Operators that are trusted in the class and may have such a device, as they are drawn.
    pub(super) fn drawn(
        &self,
        device: DeviceAsk,
        class: Class,
        NodeId(lot): NodeId,
    ) -> impl Iterator<Item = OperatorId> {
        let urn = self.trusted(class).map(|trusted| match device {
            DeviceAsk::Gpu => &trusted.operators_gpu,
            DeviceAsk::Any | DeviceAsk::Cpu => &trusted.operators,
        });
        urn.into_iter().flat_map(move |urn| urn.drawn(lot))
    }

    /// Whether these, each of which has room, are all that are here, and are found by what they are looked for.
    pub(super) fn is_of<'a>(&self, hosts: impl Iterator<Item = (usize, &'a Host)>) -> bool {
        let mut derived = Self::default();
        hosts.for_each(|(place, host)| derived.change(place, host, true));
        let are_same = |one: &Places, other: &Places| one.len() == other.len() && one.after(None).eq(other.after(None));
        let are_alike = |(one, other): (&Trusted, &Trusted)| {
            let urns = [(&one.operators, &other.operators), (&one.operators_gpu, &other.operators_gpu)];
            are_same(&one.hosts, &other.hosts) && urns.iter().all(|(one, other)| one.in_order() == other.in_order())
        };
        are_same(&self.all, &derived.all)
            && are_same(&self.gpu, &derived.gpu)
            && self.trusted.iter().zip(&derived.trusted).all(are_alike)
    }
}
