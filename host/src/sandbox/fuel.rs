//! A task's fuel: a slice with the guest, the rest with the host.
//!
//! The slice is a global of the rewritten module ([`super::admit`]), which its functions count down; the guest comes here when
//! it is spent. Whoever wants to know what is left adds the two.

use wasmtime::{AsContextMut, Caller, Global, Linker, Store, Val};

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
        fuel.give(store, all, 0)?;
        store.as_context_mut().data_mut().fuel = fuel;
        Ok(())
    }

    /// All that is left; negative when more was spent than there was.
    pub(super) fn balance(&self, store: &mut impl AsContextMut) -> i128 {
        let slice = self.slice.map_or(0, |slice| slice.get(store).i64().unwrap_or(0));
        i128::from(self.rest) + i128::from(slice)
    }

    /// Replaces all that is left, of which `debt` was charged already for what is still to be done.
    pub(super) fn give(&mut self, store: &mut impl AsContextMut, left: u64, debt: i64) -> wasmtime::Result<()> {
        let Some(global) = self.slice else {
            self.rest = left;
            return Ok(());
        };
        let slice = left.min(self.slice_max);
        self.rest = left - slice;
        global.set(store, Val::I64(slice.cast_signed().saturating_sub(debt)))
    }
}

/// Charges a task for what the host does between two calls of its guest, and says what is left. Where the slice ends, it looks
/// whether the task has to end, as a guest's own check does.
pub(super) fn charge(store: &mut Store<State>, price: u64) -> wasmtime::Result<u64> {
    let fuel = store.data().fuel;
    let left = fuel.balance(store) - i128::from(price);
    let slice = fuel.slice.map(|slice| (slice, slice.get(&mut *store).i64().unwrap_or(0)));
    match (slice, i64::try_from(price)) {
        (Some((slice, in_slice)), Ok(price)) if in_slice > price => {
            slice.set(&mut *store, Val::I64(in_slice - price))?;
            Ok(self::left(left))
        }
        _ => renew(store, price),
    }
}

/// The same, and begins a new slice, so that what comes next does not depend on what was before.
pub(super) fn renew(store: &mut Store<State>, price: u64) -> wasmtime::Result<u64> {
    let mut fuel = store.data().fuel;
    let Ok(left) = u64::try_from(fuel.balance(store) - i128::from(price)) else { return Err(Stop::Fuel.into()) };
    if let Some(stop) = store.data().interrupted() {
        return Err(stop.into());
    }
    fuel.give(store, left, 0)?;
    store.data_mut().fuel = fuel;
    Ok(left)
}

/// A balance as what may still be spent.
pub(super) fn left(balance: i128) -> u64 {
    u64::try_from(balance.max(0)).unwrap_or(u64::MAX)
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
    let left = left(fuel.balance(&mut caller) + i128::from(debt));
    if left == 0 {
        return Err(Stop::Fuel.into());
    }
    if let Some(stop) = caller.data().interrupted() {
        return Err(stop.into());
    }
    fuel.give(&mut caller, left, debt)?;
    caller.data_mut().fuel = fuel;
    Ok(())
}
