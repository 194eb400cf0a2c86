//! Things that come and go, found without a search.

/// Where something lies in a [`Slab`]; nothing that came later answers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket {
    slot: u32,
    generation: u32,
}

/// Things that come and go, without a search.
#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(super) fn insert(&mut self, value: T) -> Ticket {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let (generation, place) = &mut self.slots[slot as usize];
        *place = Some(value);
        Ticket { slot, generation: *generation }
    }

    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<T> {
        let (generation, place) = self.slots.get_mut(ticket.slot as usize)?;
        let value = if *generation == ticket.generation { place.take() } else { None };
        if value.is_some() {
            *generation = generation.wrapping_add(1);
            self.free.push(ticket.slot);
        }
        value
    }

    pub(super) fn get(&self, ticket: Ticket) -> Option<&T> {
        let (generation, place) = self.slots.get(ticket.slot as usize)?;
        if *generation == ticket.generation { place.as_ref() } else { None }
    }

    pub(super) fn get_mut(&mut self, ticket: Ticket) -> Option<&mut T> {
        let (generation, place) = self.slots.get_mut(ticket.slot as usize)?;
        if *generation == ticket.generation { place.as_mut() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_answers_to_the_ticket_of_what_was_there_before() {
        let mut slab = Slab::default();
        let first = slab.insert(1);
        assert_eq!((slab.remove(first), slab.remove(first)), (Some(1), None));
        let second = slab.insert(2);
        assert_eq!((slab.get(first), slab.get(second)), (None, Some(&2)));
        assert_eq!(slab.get_mut(first), None);
    }
}
