//! The host's `wasi_ephemeral_nn` functions, each behind a safe function of the same name.
//!
//! The only unsafe code of this crate. What makes it sound is the same for every call: each pointer is made here, from
//! a live reference, together with its true length; the host reads or writes no more than that and keeps no pointer.

#![allow(unsafe_code, reason = "calling the host is a foreign call")]

use super::AnyTensor;
use crate::abi::nn::{ENCODING_ONNX, Errno, TARGET_CPU};

/// `tensor` of the specification's witx, laid out as on a 32-bit machine: 20 bytes.
#[repr(C)]
struct RawTensor {
    dims: *const u32,
    dims_len: usize,
    kind: u8,
    data: *const u8,
    data_len: usize,
}

/// `graph_builder` of the specification: one part of a model.
#[repr(C)]
struct RawBuilder {
    data: *const u8,
    data_len: usize,
}

const _: () = assert!(size_of::<RawTensor>() == 20 && std::mem::offset_of!(RawTensor, data) == 12);

mod host {
    use super::{RawBuilder, RawTensor};

    // A link attribute takes no constant; the name is `abi::nn::MODULE`.
    #[link(wasm_import_module = "wasi_ephemeral_nn")]
    unsafe extern "C" {
        pub(super) fn load(
            builders: *const RawBuilder,
            builders_len: usize,
            encoding: u32,
            target: u32,
            graph: *mut u32,
        ) -> u32;
        pub(super) fn load_by_name(name: *const u8, name_len: usize, graph: *mut u32) -> u32;
        pub(super) fn init_execution_context(graph: u32, context: *mut u32) -> u32;
        pub(super) fn set_input(context: u32, index: u32, tensor: *const RawTensor) -> u32;
        pub(super) fn compute(context: u32) -> u32;
        pub(super) fn get_output(context: u32, index: u32, out: *mut u8, out_len: usize, written: *mut usize) -> u32;
    }
}

pub(super) fn load(model: &[u8]) -> Result<u32, Errno> {
    let builder = RawBuilder { data: model.as_ptr(), data_len: model.len() };
    let mut graph = 0;
    // SAFETY: `builder`, the model it points to and `graph` outlive the call, and the host copies what it keeps.
    done(unsafe { host::load(&builder, 1, ENCODING_ONNX, TARGET_CPU, &mut graph) })?;
    Ok(graph)
}

pub(super) fn load_by_name(name: &str) -> Result<u32, Errno> {
    let mut graph = 0;
    // SAFETY: `name` and `graph` outlive the call.
    done(unsafe { host::load_by_name(name.as_ptr(), name.len(), &mut graph) })?;
    Ok(graph)
}

pub(super) fn init_execution_context(graph: u32) -> Result<u32, Errno> {
    let mut context = 0;
    // SAFETY: `context` outlives the call.
    done(unsafe { host::init_execution_context(graph, &mut context) })?;
    Ok(context)
}

pub(super) fn set_input(context: u32, index: u32, tensor: &AnyTensor) -> Result<(), Errno> {
    let raw = RawTensor {
        dims: tensor.dims.as_ptr(),
        dims_len: tensor.dims.len(),
        kind: tensor.kind as u8,
        data: tensor.bytes.as_ptr(),
        data_len: tensor.bytes.len(),
    };
    // SAFETY: `raw` and the tensor it points into outlive the call, and the host copies what it keeps.
    done(unsafe { host::set_input(context, index, &raw) })
}

pub(super) fn compute(context: u32) -> Result<(), Errno> {
    // SAFETY: passes no pointer.
    done(unsafe { host::compute(context) })
}

pub(super) fn get_output(context: u32, index: u32, out: &mut [u8]) -> Result<usize, Errno> {
    let mut written = 0;
    // SAFETY: `out` and `written` outlive the call.
    done(unsafe { host::get_output(context, index, out.as_mut_ptr(), out.len(), &mut written) })?;
    Ok(written)
}

/// A number outside the specification is a host that does not keep it: the least specific error.
fn done(code: u32) -> Result<(), Errno> {
    match Errno::from_code(code) {
        Some(Errno::Success) => Ok(()),
        Some(errno) => Err(errno),
        None => Err(Errno::RuntimeError),
    }
}
