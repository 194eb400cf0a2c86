//! What ONNX Runtime tells through its C interface alone: the safe crate has no way to ask.
#![allow(
    unsafe_code,
    reason = "a C interface; every pointer is the library's own and read while its owner is borrowed"
)]

use std::{
    error::Error as _,
    ffi::{CStr, c_char},
    path::Path,
    ptr,
};

use ort::{
    AsPointer, Error,
    device::Device,
    memory::Allocator,
    session::Session,
    sys::{OrtApiBase, OrtKeyValuePairs},
};

/// The version that the library at this path says it has. It opens it, once more or for the first time.
pub(super) fn version(path: &Path) -> Result<String, String> {
    // SAFETY: opening a library runs its initialisers. This one is named by the owner of the machine, and nothing that came
    // from a grid can name another.
    let library = unsafe { libloading::Library::new(path) }.map_err(|error| reason(&error, path))?;
    // SAFETY: the symbol has had this type since the first version of the library.
    let base = unsafe { library.get::<unsafe extern "C" fn() -> *const OrtApiBase>(b"OrtGetApiBase") };
    let base = base.map_err(|_| "it is no ONNX Runtime: it has no OrtGetApiBase".to_owned())?;
    // SAFETY: the function takes nothing, and what it gives is a constant of the library, which is open.
    let version = unsafe { base().as_ref().map(|base| text((base.GetVersionString)())) };
    version.ok_or_else(|| "it is no ONNX Runtime: it has no interface".to_owned())
}

/// What the system said, without the path that it begins with.
fn reason(error: &libloading::Error, path: &Path) -> String {
    let said = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    let own = format!("{}: ", path.display());
    said.strip_prefix(&own).map_or_else(|| said.clone(), str::to_owned)
}

/// A C string of the library's, copied.
///
/// # Safety
/// It is null, or ends with a zero and lives for the call.
unsafe fn text(chars: *const c_char) -> String {
    if chars.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(chars) }.to_string_lossy().into_owned()
}

/// Which provider runs which operators of a session that was asked to keep that: name of the provider, operator.
pub(super) fn assignments(session: &Session) -> Result<Vec<(String, String)>, Error> {
    let api = ort::api();
    let mut found = Vec::new();
    let (mut subgraphs, mut count) = (ptr::null(), 0);
    // SAFETY: the session is borrowed, and owns everything that is pointed to below; each pair of pointer and length is the
    // library's word on its own array; each call's error is looked at before what it wrote.
    unsafe {
        let session = AsPointer::ptr(session);
        Error::result_from_status((api.Session_GetEpGraphAssignmentInfo)(session, &mut subgraphs, &mut count))?;
        for subgraph in (0..count).map(|at| *subgraphs.add(at)) {
            let mut name = ptr::null();
            Error::result_from_status((api.EpAssignedSubgraph_GetEpName)(subgraph, &mut name))?;
            let provider = text(name);
            let (mut nodes, mut count) = (ptr::null(), 0);
            Error::result_from_status((api.EpAssignedSubgraph_GetNodes)(subgraph, &mut nodes, &mut count))?;
            for node in (0..count).map(|at| *nodes.add(at)) {
                let mut operator = ptr::null();
                Error::result_from_status((api.EpAssignedNode_GetOperatorType)(node, &mut operator))?;
                found.push((provider.clone(), text(operator)));
            }
        }
    }
    Ok(found)
}

/// What an allocator of a session says of itself, if it keeps count.
pub(super) fn statistics(allocator: &Allocator) -> Vec<(String, String)> {
    let api = ort::api();
    let mut list = ptr::null_mut();
    // SAFETY: the allocator is borrowed; the list is this call's to release, and read before it is.
    unsafe {
        let asked = Error::result_from_status((api.AllocatorGetStats)(AsPointer::ptr(allocator), &mut list));
        if asked.is_err() {
            return Vec::new();
        }
        let found = pairs(list);
        (api.ReleaseKeyValuePairs)(list);
        found
    }
}

/// What a device says of itself: first what its provider says, then what the machine does.
pub(super) fn properties(device: &Device<'_>) -> Vec<(String, String)> {
    let api = ort::api();
    // SAFETY: the device is borrowed from its environment and owns both lists.
    unsafe {
        let hardware = (api.EpDevice_Device)(AsPointer::ptr(device));
        let mut found = pairs((api.EpDevice_EpMetadata)(AsPointer::ptr(device)));
        found.extend(pairs((api.HardwareDevice_Metadata)(hardware)));
        found
    }
}

/// # Safety
/// The list is null, or one of the library's that lives for the call.
unsafe fn pairs(list: *const OrtKeyValuePairs) -> Vec<(String, String)> {
    if list.is_null() {
        return Vec::new();
    }
    let (mut keys, mut values, mut count) = (ptr::null(), ptr::null(), 0);
    // SAFETY: the library sets all three to arrays of its own and their length.
    unsafe {
        (ort::api().GetKeyValuePairs)(list, &mut keys, &mut values, &mut count);
        (0..count).map(|at| (text(*keys.add(at)), text(*values.add(at)))).collect()
    }
}

/// An NVIDIA GPU, as its driver tells.
pub(super) struct CudaDevice {
    pub(super) name: String,
    pub(super) memory_bytes: u64,
}

/// The first GPU that the NVIDIA driver has.
pub(super) fn cuda_device() -> Result<CudaDevice, String> {
    type Init = unsafe extern "C" fn(u32) -> i32;
    type Get = unsafe extern "C" fn(*mut i32, i32) -> i32;
    type Name = unsafe extern "C" fn(*mut c_char, i32, i32) -> i32;
    type Memory = unsafe extern "C" fn(*mut usize, i32) -> i32;
    let missing = |_| "no CUDA device: the NVIDIA driver's libcuda.so.1 is not there".to_owned();
    let call = |what: &str, code: i32| match code {
        0 => Ok(()),
        code => Err(format!("no CUDA device: {what} fails with {code}")),
    };
    let (mut device, mut chars, mut memory) = (0, [0; 256], 0);
    // SAFETY: the driver's library is the system's. The functions have had these types since CUDA 4; each gets the address of
    // what it fills, with its length, and the library stays open until after the last call.
    unsafe {
        let driver = libloading::Library::new("libcuda.so.1").map_err(missing)?;
        let init = driver.get::<Init>(b"cuInit").map_err(missing)?;
        let get = driver.get::<Get>(b"cuDeviceGet").map_err(missing)?;
        let name = driver.get::<Name>(b"cuDeviceGetName").map_err(missing)?;
        let total = driver.get::<Memory>(b"cuDeviceTotalMem_v2").map_err(missing)?;
        call("cuInit", init(0))?;
        call("cuDeviceGet", get(&mut device, 0))?;
        call("cuDeviceGetName", name(chars.as_mut_ptr(), 255, device))?;
        call("cuDeviceTotalMem", total(&mut memory, device))?;
        // The driver is not made to be closed once it runs.
        std::mem::forget(driver);
        Ok(CudaDevice { name: text(chars.as_ptr()), memory_bytes: memory as u64 })
    }
}
