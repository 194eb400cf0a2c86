//! Layer 3: privileges. A host may run as root; what it jails does not need it.

use rustix::{
    process::{DumpableBehavior, Signal, set_dumpable_behavior, set_parent_process_death_signal},
    thread::{CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities, set_no_new_privs},
};

use super::{JailError, Layer, refused};

/// Drops every capability, and the ways to get one back.
pub(super) fn enter() -> Result<(), JailError> {
    let call = |call| refused(Layer::Privileges, call);
    set_no_new_privs(true).map_err(call("PR_SET_NO_NEW_PRIVS"))?;
    clear_ambient_capability_set().map_err(call("PR_CAP_AMBIENT_CLEAR_ALL"))?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(call("capset"))?;
    // Nobody of the same user reads its memory, and it leaves no core.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(call("PR_SET_DUMPABLE"))
}

/// Has the kernel kill this process when the thread that started it ends.
pub(super) fn bind_to_parent(bound: bool) -> Result<(), JailError> {
    if !bound {
        return Ok(());
    }
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(refused(Layer::Privileges, "PR_SET_PDEATHSIG"))
}
