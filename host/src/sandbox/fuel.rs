//! A task's fuel: a slice with the guest, the rest with the host.
//!
//! The slice is a global of the rewritten module ([`super::admit`]), which its functions count down; the guest comes here when
//! it is spent. Whoever wants to know what is left adds the two.

use wasmtime::{AsContextMut, Caller, Global, Linker, Val};

use super::{
    admit,
    state::{State, Stop},
};
use crate::limits;

/// What is left for one task.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fuel {
    /// The guest's slice; none before the module is instantiated.
    slice: Option<Global>,
    /// What is not with the guest.
    rest: u64,
    /// The most that a slice has.
    slice_max: u64,
}

impl Fuel {
    pub(super) fn new(fuel_max: u64) -> Self {
        Self { slice: None, rest: fuel_max, slice_max: limits::FUEL_SLICE }
    }

    /// The same in other slices, of which a guest must not see anything.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn in_slices_of(self, slice_max: u64) -> Self {
        Self { slice_max, ..self }
    }

    /// Hands the first slice to an instance, whose [`admit::FUEL`] this is.
    pub(super) fn start(store: &mut impl AsContextMut<Data = State>, slice: Global) -> wasmtime::Result<()> {
        let mut fuel = store.as_context().data().fuel;
        fuel.slice = Some(slice);
        let all = fuel.rest;
        fuel.give(store, all)?;
        store.as_context_mut().data_mut().fuel = fuel;
        Ok(())
    }

    /// All that is left, none when more was spent than there was.
    pub(super) fn left(&self, store: &mut impl AsContextMut) -> u64 {
        self.left_after(store, 0)
    }

    /// Whether more was spent than there was.
    pub(super) fn is_overdrawn(&self, store: &mut impl AsContextMut) -> bool {
        let slice = self.slice.map_or(0, |slice| slice.get(store).i64().unwrap_or(0));
        self.rest.checked_add_signed(slice).is_none()
    }

    /// The same, if `debt` of what the guest was charged is still to be done.
    fn left_after(&self, store: &mut impl AsContextMut, debt: i64) -> u64 {
        let slice = self.slice.map_or(0, |slice| slice.get(store).i64().unwrap_or(0));
        self.rest.saturating_add_signed(slice.saturating_add(debt))
    }

    /// Replaces all that is left.
    pub(super) fn give(&mut self, store: &mut impl AsContextMut, left: u64) -> wasmtime::Result<()> {
        let slice = left.min(self.slice_max);
        self.rest = left - slice;
        match self.slice {
            Some(global) => global.set(store, Val::I64(slice.cast_signed())),
            None => {
                self.rest = left;
                Ok(())
            }
        }
    }
}

/// Links what rewritten modules call.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(admit::MODULE, admit::REFUEL, refuel)?;
    linker.func_wrap(admit::MODULE, admit::OVERFLOW, |_: Caller<'_, State>| -> wasmtime::Result<()> {
        Err(Stop::Stack.into())
    })?;
    Ok(())
}

/// The slice is spent: the next one, or the end.
fn refuel(mut caller: Caller<'_, State>, debt: i64) -> wasmtime::Result<()> {
    let mut fuel = caller.data().fuel;
    if fuel.left_after(&mut caller, debt) == 0 {
        return Err(Stop::Fuel.into());
    }
    if let Some(stop) = caller.data().interrupted() {
        return Err(stop.into());
    }
    let left = fuel.left_after(&mut caller, debt);
    fuel.give(&mut caller, left)?;
    // What was charged ahead stays charged.
    if debt != 0
        && let Some(slice) = fuel.slice
    {
        let given = slice.get(&mut caller).i64().unwrap_or(0);
        slice.set(&mut caller, Val::I64(given.saturating_sub(debt)))?;
    }
    caller.data_mut().fuel = fuel;
    Ok(())
}
