//! What does it cost to infer inside the sandbox?
//!
//! tract's own kernels against tract compiled to wasm, admitted and metered, on the digits and on the real models where they
//! are installed. Interleaved; medians of the thread's processor time of one inference, of the portable profile and of the
//! native one. The first use of a model with a shape, which tasks share, stands beside it.
#![allow(clippy::print_stdout, reason = "a bench prints its table")]

use std::{error::Error, time::Duration};

use benches::{interleaved, quantile, row, stock::thread_time, table, us};
use guest_sdk::abi::nn::TensorType;
use host::sandbox::{
    BackendOptions, Sandbox, SandboxOptions,
    direct::{DirectInputs, DirectModel},
};
use registry::job::Profile;
use support::models::Models;

const ROUNDS: usize = 15;

type Inputs = Vec<(TensorType, Vec<u32>, Vec<u8>)>;

fn floats(dims: &[u32]) -> (TensorType, Vec<u32>, Vec<u8>) {
    let count = dims.iter().product::<u32>();
    let number = |at: u32| (f64::from(at.wrapping_mul(2_654_435_761) >> 8) / f64::from(1u32 << 24)) as f32;
    (TensorType::F32, dims.to_vec(), (0..count).flat_map(|at| number(at).to_le_bytes()).collect())
}

/// Models with one inference's inputs.
fn cases() -> Vec<(&'static str, Vec<u8>, Inputs)> {
    let mut cases = vec![("digits", tasks::data::DIGITS_MODEL.to_vec(), vec![floats(&[1, 64])])];
    let Some(models) = Models::or_skip() else { return cases };
    let bytes = (0..2048u32).flat_map(|at| (at * 7 % 257).to_le_bytes()).collect();
    cases.push(("magika", models.read("magika.onnx"), vec![(TensorType::I32, vec![1, 2048], bytes)]));
    cases.push(("orient", models.read("orient.onnx"), vec![floats(&[1, 3, 48, 192])]));
    let rate = (TensorType::I64, Vec::new(), 16_000i64.to_le_bytes().to_vec());
    let silero = models.read("silero.onnx");
    let inputs = match DirectModel::load(BackendOptions::Tract, None, &silero) {
        Ok(model) if model.inputs().len() == 2 => vec![floats(&[1, 576]), floats(&[2, 1, 128])],
        _ => vec![floats(&[1, 576]), floats(&[2, 1, 128]), rate],
    };
    cases.push(("silero", silero, inputs));
    cases
}

fn timed(work: impl FnOnce() -> Result<(), String>) -> Duration {
    let before = thread_time();
    work().unwrap_or_else(|error| panic!("{error}"));
    thread_time().saturating_sub(before)
}

fn main() -> Result<(), Box<dyn Error>> {
    let sandbox = |profile| {
        Sandbox::new(SandboxOptions { profile, backend: BackendOptions::Referee, ..SandboxOptions::default() })
    };
    let (portable, native) = (sandbox(Profile::Portable)?, sandbox(Profile::Native)?);
    let compiled = portable.compile_stats().compile_micros;
    let mut rows = vec![row!["model", "tract", "in the sandbox", "portable", "ratios", "", "first use", "portable"]];
    for (name, file, inputs) in cases() {
        let inputs = DirectInputs::new(inputs);
        let own = DirectModel::load(BackendOptions::Tract, None, &file)?;
        // The module is compiled with the first model.
        drop((DirectModel::load_in(&native, &file)?, DirectModel::load_in(&portable, &file)?));
        let first = |sandbox| -> Result<(DirectModel, Duration), Box<dyn Error>> {
            let before = thread_time();
            let model = DirectModel::load_in(sandbox, &file)?;
            model.open(&inputs)?;
            Ok((model, thread_time().saturating_sub(before)))
        };
        let before = thread_time();
        own.open(&inputs)?;
        let own_first = thread_time().saturating_sub(before);
        let ((native, _), (portable, portable_first)) = (first(&native)?, first(&portable)?);
        let run = |model: &DirectModel| timed(|| model.run(&inputs).map(drop));
        let [own, native, portable] =
            interleaved(ROUNDS, [&mut || run(&own), &mut || run(&native), &mut || run(&portable)])
                .map(|times| quantile(&times, 500));
        let ratio = |time: Duration| format!("{:.1}", time.as_secs_f64() / own.as_secs_f64());
        rows.push(row![
            name,
            us(own),
            us(native),
            us(portable),
            ratio(native),
            ratio(portable),
            us(own_first),
            us(portable_first)
        ]);
    }
    table(&rows);
    let compile_s = (portable.compile_stats().compile_micros - compiled) as f64 / 1e6;
    println!("the module has {} bytes and compiles in {compile_s:.1} s", tasks::REFEREE.wasm.len());
    Ok(())
}
