//! Hosts that could take an assignment now, by what they are looked for: few may be of use among many that are not.

use registry::{device::DeviceAsk, id::NodeId, job::Class, reputation::CLASSES};
use serde::{Deserialize, Serialize};

use super::{Host, places::Places, urn::Urn};

/// Such hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Room {
    all: Group,
    /// Those whose operators' results may be accepted alone, in the order of the classes.
    trusted: [Group; CLASSES.len()],
}

/// Some of them, and those of these that have a GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Group {
    any: Hosts,
    gpu: Hosts,
}

/// Hosts, and whose they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Hosts {
    places: Places,
    operators: Urn,
}

impl Group {
    fn change(&mut self, place: usize, host: &Host, has_room: bool) {
        let both = [Some(&mut self.any), host.has_gpu().then_some(&mut self.gpu)];
        for hosts in both.into_iter().flatten() {
            hosts.places.set(place, has_room);
            hosts.operators.count(host.owner, has_room);
        }
    }
}

impl Room {
    pub(super) fn len(&self) -> usize {
        self.all.any.places.len()
    }

    /// The host at this place has room from now on, or none.
    pub(super) fn change(&mut self, place: usize, host: &Host, has_room: bool) {
        self.all.change(place, host, has_room);
        for (class, group) in CLASSES.into_iter().zip(&mut self.trusted) {
            if host.trusted.contains(class) {
                group.change(place, host, has_room);
            }
        }
    }

    /// Those that may have such a device, of operators that are trusted in the class where one is given.
    fn hosts(&self, device: DeviceAsk, trusted: Option<Class>) -> &Hosts {
        let of_class = |class| CLASSES.into_iter().zip(&self.trusted).find(|(other, _)| *other == class);
        let group = trusted.and_then(of_class).map_or(&self.all, |(_, group)| group);
        match device {
            DeviceAsk::Gpu => &group.gpu,
            DeviceAsk::Any | DeviceAsk::Cpu => &group.any,
        }
    }

    /// Their places.
    pub(super) fn of(&self, device: DeviceAsk, trusted: Option<Class>) -> &Places {
        &self.hosts(device, trusted).places
    }

    /// The numbers of their operators, as they are drawn.
    pub(super) fn drawn(
        &self,
        device: DeviceAsk,
        trusted: Option<Class>,
        NodeId(lot): NodeId,
    ) -> impl Iterator<Item = u32> {
        self.hosts(device, trusted).operators.drawn(lot)
    }

    /// Whether these, each of which has room, are all that are here, and are found by what they are looked for.
    pub(super) fn is_of<'a>(&self, hosts: impl Iterator<Item = (usize, &'a Host)>) -> bool {
        let mut derived = Self::default();
        hosts.for_each(|(place, host)| derived.change(place, host, true));
        let are_same = |one: &Hosts, other: &Hosts| {
            one.places.after(None).eq(other.places.after(None))
                && one.operators.in_order() == other.operators.in_order()
        };
        let mut pairs = self.groups().zip(derived.groups());
        self.len() == derived.len()
            && pairs.all(|(one, other)| are_same(&one.any, &other.any) && are_same(&one.gpu, &other.gpu))
    }

    fn groups(&self) -> impl Iterator<Item = &Group> {
        std::iter::once(&self.all).chain(&self.trusted)
    }
}
