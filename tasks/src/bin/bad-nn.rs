//! Misuses wasi-nn in every way it knows: bad pointers, handles, names, tensors.
//!
//! Each must be refused with an error number; none may panic the host, and none may be done. With a model declared
//! under the name `digits` (f32 `[N, 64]` to f32 `[N, 10]`) it goes all the way, without one it stops at handles.
//! Prints one line a case, `case: errno`, and exits with 1 if the host did any of it, naming the case on stderr.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "stdout is the task's output, stderr its log")]

#[cfg(target_arch = "wasm32")]
fn main() -> std::process::ExitCode {
    guest::main()
}

#[cfg(not(target_arch = "wasm32"))]
fn main() {
    eprintln!("this task calls the host's wasi-nn, which only a wasm module has");
}

#[cfg(target_arch = "wasm32")]
mod guest {
    #![allow(unsafe_code, reason = "the point of this task is to call the host with what no safe wrapper would pass")]

    use std::process::ExitCode;

    use guest_sdk::abi::nn::{ENCODING_ONNX, Errno, TARGET_CPU, TARGET_GPU, TensorType};

    // Pointers and lengths as the host sees them: plain numbers, right or wrong. The host checks them against the
    // guest's memory, so no call below can write outside of what its arguments say; those that are wrong on purpose
    // point past its end.
    #[link(wasm_import_module = "wasi_ephemeral_nn")]
    unsafe extern "C" {
        fn load(builders: u32, builders_len: u32, encoding: u32, target: u32, graph: u32) -> u32;
        fn load_by_name(name: u32, name_len: u32, graph: u32) -> u32;
        fn init_execution_context(graph: u32, context: u32) -> u32;
        fn set_input(context: u32, index: u32, tensor: u32) -> u32;
        fn compute(context: u32) -> u32;
        fn get_output(context: u32, index: u32, out: u32, out_len: u32, written: u32) -> u32;
    }

    /// Past the end of any guest's memory that is allowed here.
    const OUTSIDE: u32 = 0xffff_0000;
    const NO_HANDLE: u32 = 12_345;

    /// `tensor` of the specification, with numbers for pointers.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct RawTensor {
        dims: u32,
        dims_len: u32,
        kind: u32,
        data: u32,
        data_len: u32,
    }

    fn at<T: ?Sized>(value: &T) -> u32 {
        (&raw const *value).cast::<u8>() as u32
    }

    /// Where the host may put a handle or a length.
    struct Slot(u32);

    impl Slot {
        fn at(&mut self) -> u32 {
            (&raw mut self.0) as u32
        }

        /// Reads what the host wrote: the compiler has not seen the write.
        fn get(&self) -> u32 {
            // SAFETY: a live, aligned `u32`.
            unsafe { (&raw const self.0).read_volatile() }
        }
    }

    /// Cases tried, and those that the host should not have done.
    #[derive(Default)]
    struct Cases {
        done: Vec<String>,
    }

    impl Cases {
        fn refused(&mut self, case: impl Into<String>, errno: u32) {
            let case = case.into();
            show(&case, errno);
            if errno == Errno::Success as u32 {
                self.done.push(case);
            }
        }
    }

    fn show(case: &str, errno: u32) {
        match Errno::from_code(errno) {
            Some(known) => println!("{case}: {known:?}"),
            None => println!("{case}: {errno}, which the specification does not have"),
        }
    }

    pub(super) fn main() -> ExitCode {
        let mut cases = Cases::default();
        names(&mut cases);
        models_from_bytes(&mut cases);
        handles(&mut cases);
        if let Some(graph) = declared(b"digits") {
            contexts(&mut cases, graph);
        }
        for case in &cases.done {
            eprintln!("the host did it: {case}");
        }
        ExitCode::from(u8::from(!cases.done.is_empty()))
    }

    fn declared(name: &[u8]) -> Option<u32> {
        let mut slot = Slot(0);
        // SAFETY: both pointers are to live values.
        let errno = unsafe { load_by_name(at(name), name.len() as u32, slot.at()) };
        show("load_by_name of the declared model", errno);
        (errno == Errno::Success as u32).then(|| slot.get())
    }

    fn names(cases: &mut Cases) {
        let mut slot = Slot(0);
        let known = b"digits";
        let long = vec![b'x'; 1 << 20];
        let tried: [(&str, u32, u32, u32); 9] = [
            ("unknown name", at(b"no such model"), 13, slot.at()),
            ("empty name", at(known), 0, slot.at()),
            ("name not UTF-8", at(b"\xc3\x28\xff"), 3, slot.at()),
            ("name with a path", at(b"../digits"), 9, slot.at()),
            ("name of 1 MiB", at(&long[..]), 1 << 20, slot.at()),
            ("name outside memory", OUTSIDE, 6, slot.at()),
            ("name that wraps around memory", u32::MAX - 2, 6, slot.at()),
            ("name longer than memory", at(known), u32::MAX, slot.at()),
            ("handle put outside memory", at(known), 6, u32::MAX - 1),
        ];
        for (case, name, len, out) in tried {
            // SAFETY: see the imports.
            cases.refused(format!("load_by_name, {case}"), unsafe { load_by_name(name, len, out) });
        }
    }

    fn models_from_bytes(cases: &mut Cases) {
        let mut slot = Slot(0);
        let garbage = b"this is no model";
        let builder = [at(garbage), garbage.len() as u32];
        let parts = [builder, builder];
        let outside = [OUTSIDE, 64];
        let wraps = [u32::MAX - 4, 64];
        let tried: [(&str, u32, u32, u32, u32, u32); 11] = [
            ("two parts", at(&parts), 2, ENCODING_ONNX, TARGET_CPU, slot.at()),
            ("target GPU", at(&builder), 1, ENCODING_ONNX, TARGET_GPU, slot.at()),
            ("garbage", at(&builder), 1, ENCODING_ONNX, TARGET_CPU, slot.at()),
            ("no bytes", at(&builder), 0, ENCODING_ONNX, TARGET_CPU, slot.at()),
            ("encoding 250", at(&builder), 1, 250, TARGET_CPU, slot.at()),
            ("target 250", at(&builder), 1, ENCODING_ONNX, 250, slot.at()),
            ("builders outside memory", OUTSIDE, 1, ENCODING_ONNX, TARGET_CPU, slot.at()),
            ("builders longer than memory", at(&builder), u32::MAX, ENCODING_ONNX, TARGET_CPU, slot.at()),
            ("bytes outside memory", at(&outside), 1, ENCODING_ONNX, TARGET_CPU, slot.at()),
            ("bytes that wrap around memory", at(&wraps), 1, ENCODING_ONNX, TARGET_CPU, slot.at()),
            ("handle put outside memory", at(&builder), 1, ENCODING_ONNX, TARGET_CPU, OUTSIDE),
        ];
        for (case, builders, len, encoding, target, out) in tried {
            // SAFETY: see the imports.
            cases.refused(format!("load, {case}"), unsafe { load(builders, len, encoding, target, out) });
        }
    }

    fn handles(cases: &mut Cases) {
        let mut slot = Slot(0);
        let mut out = [0u8; 64];
        let (dims, data) = ([1u32, 64], [0f32; 64]);
        let tensor = good(&dims, &data);
        for handle in [NO_HANDLE, u32::MAX] {
            // SAFETY: every pointer is to a live value.
            unsafe {
                cases.refused(
                    format!("init_execution_context, graph {handle}"),
                    init_execution_context(handle, slot.at()),
                );
                cases.refused(format!("set_input, context {handle}"), set_input(handle, 0, at(&tensor)));
                cases.refused(format!("compute, context {handle}"), compute(handle));
                let out = out.as_mut_ptr() as u32;
                cases.refused(format!("get_output, context {handle}"), get_output(handle, 0, out, 64, slot.at()));
            }
        }
    }

    /// The tensor that the model takes; the bad ones below differ from it in one thing each.
    fn good(dims: &[u32; 2], data: &[f32]) -> RawTensor {
        RawTensor {
            dims: at(dims),
            dims_len: 2,
            kind: TensorType::F32 as u32,
            data: at(data),
            data_len: size_of_val(data) as u32,
        }
    }

    fn contexts(cases: &mut Cases, graph: u32) {
        let mut slot = Slot(0);
        // SAFETY: the pointers are right, or see the imports.
        let context = unsafe {
            cases.refused("init_execution_context, handle put outside memory", init_execution_context(graph, OUTSIDE));
            show("init_execution_context of the declared model", init_execution_context(graph, slot.at()));
            slot.get()
        };
        // SAFETY: passes no pointer.
        cases.refused("compute, no input", unsafe { compute(context) });
        outputs(cases, context, "before an inference");
        inputs(cases, context);
        // SAFETY: passes no pointer.
        cases.refused("compute, after bad inputs only", unsafe { compute(context) });
        outputs_of_an_inference(cases, context);
    }

    fn inputs(cases: &mut Cases, context: u32) {
        let (dims, data) = ([1u32, 64], [0f32; 64]);
        let good = good(&dims, &data);
        let (product, zero, huge, wraps) = ([2u32, 64], [0u32, 64], [u32::MAX, u32::MAX], [1u32 << 31, 1 << 31]);
        let many = vec![1u32; 1 << 16];
        let tried = [
            ("more elements in the shape than data", RawTensor { dims: at(&product), ..good }),
            ("a dimension of 0", RawTensor { dims: at(&zero), ..good }),
            ("dimensions whose product overflows", RawTensor { dims: at(&huge), ..good }),
            ("dimensions whose product wraps to 0", RawTensor { dims: at(&wraps), data_len: 0, ..good }),
            ("65,536 dimensions", RawTensor { dims: at(&many[..]), dims_len: 1 << 16, ..good }),
            ("no dimensions", RawTensor { dims_len: 0, ..good }),
            ("dimensions outside memory", RawTensor { dims: OUTSIDE, ..good }),
            ("dimensions longer than memory", RawTensor { dims_len: u32::MAX, ..good }),
            ("type 250", RawTensor { kind: 250, ..good }),
            ("type f16", RawTensor { kind: TensorType::F16 as u32, ..good }),
            ("type f64", RawTensor { kind: TensorType::F64 as u32, ..good }),
            ("type u8 with its right size", RawTensor { kind: TensorType::U8 as u32, data_len: 64, ..good }),
            ("type i64 with f32 data", RawTensor { kind: TensorType::I64 as u32, ..good }),
            ("one byte short", RawTensor { data_len: good.data_len - 1, ..good }),
            ("no data", RawTensor { data_len: 0, ..good }),
            ("data outside memory", RawTensor { data: OUTSIDE, ..good }),
            ("data that wraps around memory", RawTensor { data: u32::MAX - 3, ..good }),
            ("data longer than memory", RawTensor { data_len: u32::MAX, ..good }),
        ];
        for (case, tensor) in &tried {
            // SAFETY: see the imports.
            cases.refused(format!("set_input, {case}"), unsafe { set_input(context, 0, at(tensor)) });
        }
        // SAFETY: see the imports.
        unsafe {
            cases.refused("set_input, tensor outside memory", set_input(context, 0, OUTSIDE));
            cases.refused("set_input, tensor across the end of the address space", set_input(context, 0, u32::MAX - 7));
            cases.refused("set_input, index 1 of a model of one input", set_input(context, 1, at(&good)));
            cases.refused("set_input, index 4,294,967,295", set_input(context, u32::MAX, at(&good)));
        }
    }

    fn outputs(cases: &mut Cases, context: u32, when: &str) {
        let mut slot = Slot(0);
        let mut out = [0u8; 64];
        let tried = [("an output", 0, 64), ("index 9", 9, 64), ("index 4,294,967,295", u32::MAX, 64)];
        for (case, index, len) in tried {
            // SAFETY: both pointers are to live values.
            let errno = unsafe { get_output(context, index, out.as_mut_ptr() as u32, len, slot.at()) };
            cases.refused(format!("get_output, {case} {when}"), errno);
        }
    }

    /// With a good inference behind it, the ways to take its output wrongly.
    fn outputs_of_an_inference(cases: &mut Cases, context: u32) {
        let (dims, data) = ([1u32, 64], [0f32; 64]);
        let mut slot = Slot(0);
        let mut out = [0u8; 40];
        let out_at = out.as_mut_ptr() as u32;
        let tried = [
            ("room one byte short", 0, out_at, 39, slot.at()),
            ("no room", 0, out_at, 0, slot.at()),
            ("index 1 of a model of one output", 1, out_at, 40, slot.at()),
            ("room outside memory", 0, OUTSIDE, 40, slot.at()),
            ("room that wraps around memory", 0, u32::MAX - 3, 40, slot.at()),
            ("length put outside memory", 0, out_at, 40, OUTSIDE),
        ];
        // SAFETY: every pointer is to a live value of the size given, or see the imports.
        unsafe {
            show("set_input, as the model takes it", set_input(context, 0, at(&good(&dims, &data))));
            show("compute, as it should be", compute(context));
            for (case, index, room, len, written) in tried {
                cases.refused(format!("get_output, {case}"), get_output(context, index, room, len, written));
            }
            show("get_output, as it should be", get_output(context, 0, out_at, 40, slot.at()));
        }
    }
}
