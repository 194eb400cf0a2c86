//! Runs a model over tensors as they come: how `quorate calibrate` asks a backend what a model answers.
//!
//! In: inferences one after another, each the number of its inputs and for each input its type (a number of wasi-nn), its
//! number of dimensions, the dimensions, its length in bytes, all as 32 bits with the little end first, and its elements.
//! The job declares the model under the name `model`. Out: how many inferences there were. What they answered is in the
//! record of the task, for a job whose class is not exact.

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
    #![allow(unsafe_code, reason = "calling the host is a foreign call")]

    use std::{
        io::{self, Read},
        process::ExitCode,
    };

    #[link(wasm_import_module = "wasi_ephemeral_nn")]
    unsafe extern "C" {
        fn load_by_name(name: *const u8, name_len: usize, graph: *mut u32) -> u32;
        fn init_execution_context(graph: u32, context: *mut u32) -> u32;
        fn set_input(context: u32, index: u32, tensor: *const RawTensor) -> u32;
        fn compute(context: u32) -> u32;
    }

    /// `tensor` of the specification.
    #[repr(C)]
    struct RawTensor {
        dims: *const u32,
        dims_len: usize,
        kind: u8,
        data: *const u8,
        data_len: usize,
    }

    const NAME: &str = "model";

    pub(super) fn main() -> ExitCode {
        match run() {
            Ok(inferences) => {
                println!("{inferences}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        }
    }

    fn run() -> Result<usize, String> {
        let mut bytes = Vec::new();
        io::stdin().read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        let context = context()?;
        let mut rest = &bytes[..];
        let mut inferences = 0;
        while !rest.is_empty() {
            let inputs = number(&mut rest)?;
            for index in 0..inputs {
                let errno = input(context, index, &mut rest)?;
                if errno != 0 {
                    return Err(format!("inference {inferences}: input {index} is refused: errno {errno}"));
                }
            }
            // Whether it fails is a part of the record.
            // SAFETY: no pointers.
            let _ = unsafe { compute(context) };
            inferences += 1;
        }
        Ok(inferences)
    }

    fn context() -> Result<u32, String> {
        let (mut graph, mut context) = (0, 0);
        // SAFETY: name and handles outlive the calls.
        let errno = unsafe {
            match load_by_name(NAME.as_ptr(), NAME.len(), &mut graph) {
                0 => init_execution_context(graph, &mut context),
                errno => errno,
            }
        };
        if errno == 0 { Ok(context) } else { Err(format!("model is refused: errno {errno}")) }
    }

    /// Sets an input to the next tensor; gives the host's error number.
    fn input(context: u32, index: u32, rest: &mut &[u8]) -> Result<u32, String> {
        let kind = u8::try_from(number(rest)?).map_err(|_| "no such type")?;
        let rank = number(rest)?;
        let dims = (0..rank).map(|_| number(rest)).collect::<Result<Vec<u32>, _>>()?;
        let len = number(rest)? as usize;
        let (data, after) = rest.split_at_checked(len).ok_or("tensor is cut short")?;
        *rest = after;
        let tensor =
            RawTensor { dims: dims.as_ptr(), dims_len: dims.len(), kind, data: data.as_ptr(), data_len: data.len() };
        // SAFETY: the tensor and what it points to outlive the call, and the host copies what it keeps.
        Ok(unsafe { set_input(context, index, &tensor) })
    }

    fn number(rest: &mut &[u8]) -> Result<u32, String> {
        let (number, after) = rest.split_first_chunk().ok_or("input is cut short")?;
        *rest = after;
        Ok(u32::from_le_bytes(*number))
    }
}
