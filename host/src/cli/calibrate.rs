//! `quorate calibrate`: how far the backends of this machine differ on a model.

use std::path::PathBuf;

use clap::Args;
use registry::{id::ModelHash, tolerance::Tolerance};

use super::{CliError, Exit, Outcome, output, push, run::compile_options};
use crate::{
    calibrate::{
        backends::{self, AtHand},
        file::Calibration,
        fit::SAFETY,
        measure::{Asked, Pair, compare},
        samples::{self, Random, Sample},
    },
    limits,
    sandbox::{ModelInfo, SandboxOptions},
};

#[derive(Debug, Args)]
pub(super) struct CalibrateArgs {
    /// The model, an ONNX file.
    model: PathBuf,
    /// Samples: for each a NumPy file (.npy), or a directory with a file NAME.npy for each input of the model.
    #[arg(long, value_name = "DIR")]
    inputs: Option<PathBuf>,
    /// How many samples to make up, where there are no --inputs.
    #[arg(long, value_name = "N", default_value_t = 1_000, conflicts_with = "inputs")]
    samples: u32,
    /// Samples that are made up with the same seed are the same.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Elements of samples that are made up, from LOW to HIGH.
    #[arg(long, value_name = "LOW..HIGH", default_value = "0..1", value_parser = range)]
    range: (f64, f64),
    /// What dimensions that the model leaves open are in samples that are made up.
    #[arg(long, value_name = "N", default_value_t = 1)]
    open_dim: u32,
    /// Backends, by how their names begin; all that are at hand unless it is given. May be given again.
    #[arg(long = "backend", visible_alias = "backends", value_name = "NAME", value_delimiter = ',')]
    backends: Vec<String>,
    /// How many of the largest elements of a row of scores are compared; 0 for none.
    #[arg(long, value_name = "K", default_value_t = 1)]
    top_k: u32,
    /// Write the tolerance to a file: `push --tolerance` puts it into the model's manifest.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write one JSON value to standard output, for programs.
    #[arg(long)]
    json: bool,
}

/// `LOW..HIGH`.
fn range(text: &str) -> Result<(f64, f64), String> {
    let parsed = text.split_once("..").and_then(|(low, high)| Some((low.parse().ok()?, high.parse().ok()?)));
    let ordered = |(low, high): &(f64, f64)| low <= high && low.is_finite() && high.is_finite();
    parsed.filter(ordered).ok_or_else(|| "expected LOW..HIGH, e.g. 0..255".to_owned())
}

pub(super) async fn run(args: CalibrateArgs) -> Outcome {
    // It runs for long and does not wait for anything else.
    let done = tokio::task::spawn_blocking(move || calibrate(&args)).await;
    done.unwrap_or_else(|_| Err(CliError::Failed("calibrating panicked".to_owned())))
}

fn calibrate(args: &CalibrateArgs) -> Outcome {
    let model = push::read(&args.model, limits::MODEL_BYTES_MAX)?;
    let asked = asked(args, &model)?;
    let samples = samples(args, &asked[0].model)?;
    let mut answers = Vec::with_capacity(asked.len());
    for asked in &asked {
        let failed = |error| CliError::Failed(format!("{}: {error}", asked.name));
        answers.push((asked.name.clone(), asked.answers(&samples).map_err(failed)?));
    }
    let top_k = Some(args.top_k).filter(|k| *k > 0);
    let (pairs, tolerance) = compare(&answers, top_k);
    let calibration = Calibration {
        model: ModelHash::of(&model),
        tolerance,
        safety: SAFETY,
        samples: samples.len() as u64,
        backends: asked.iter().map(|asked| format!("{} ({})", asked.name, asked.backend)).collect(),
        pairs,
    };
    if let Some(path) = &args.out {
        let text = serde_json::to_vec_pretty(&calibration).map_err(std::io::Error::from)?;
        std::fs::write(path, text).map_err(|source| CliError::File { path: path.clone(), source })?;
    }
    show(&calibration, args)?;
    Ok(Exit::Ok)
}

/// The backends that can run the model; one that cannot is told and left out.
fn asked(args: &CalibrateArgs, model: &[u8]) -> Result<Vec<Asked>, CliError> {
    let none = |word| CliError::Usage(format!("no backend at hand has a name that begins with `{word}`"));
    let mut all = Vec::new();
    for AtHand { name, options } in backends::named(&args.backends).map_err(none)? {
        let options = SandboxOptions { compile: compile_options(), ..options };
        match Asked::start(AtHand { name: name.clone(), options }, model) {
            Ok(asked) => all.push(asked),
            Err(error) => output::note(&output::escaped(&format!("{name} is left out: {error}"))),
        }
    }
    match all.len() {
        0 => Err(CliError::Usage(format!("{}: no backend at hand can run it", args.model.display()))),
        1 => {
            let message =
                "one backend alone can run it, so there is nothing to compare: see `quorate doctor` for others";
            Err(CliError::Failed(message.to_owned()))
        }
        _ => Ok(all),
    }
}

fn samples(args: &CalibrateArgs, model: &ModelInfo) -> Result<Vec<Sample>, CliError> {
    let (low, high) = args.range;
    let made_up = Random { samples: args.samples, seed: args.seed, open_dim: args.open_dim, low, high };
    let samples = match &args.inputs {
        Some(dir) => samples::from_dir(dir, model),
        None => samples::random(model, made_up),
    };
    samples.map_err(|error| CliError::Usage(error.to_string()))
}

fn show(calibration: &Calibration, args: &CalibrateArgs) -> Result<(), CliError> {
    if args.json {
        return output::json(calibration);
    }
    let share = |ppm: Option<u32>| ppm.map_or_else(|| "-".to_owned(), |ppm| format!("{:.4} %", f64::from(ppm) / 1e4));
    let row = |Pair { one, other, closeness, agreement_ppm }: &Pair| {
        vec![
            format!("{one} - {other}"),
            closeness.answers.to_string(),
            format!("{:.2e}", closeness.max_abs),
            format!("{:.2e}", closeness.max_rel),
            share(*agreement_ppm),
            closeness.integers_differing.to_string(),
        ]
    };
    let rows: Vec<_> = calibration.pairs.iter().map(row).collect();
    let top = format!("top-{}", args.top_k);
    output::table(&["backends", "samples", "max abs", "max rel", &top, "integers differing"], &rows)?;
    let Tolerance { atol_exp2, rtol_exp2, top } = calibration.tolerance;
    let agreement = top.map_or_else(String::new, |top| {
        let percent = f64::from(top.agreement_ppm) / 1e4;
        format!(", the largest {} of a row the same in {percent:.4} % of a task's rows", top.k)
    });
    output::line(&format!(
        "tolerance, {SAFETY} times that and rounded up: |a-b| <= 2^{atol_exp2} + 2^{rtol_exp2} |b| ({:.1e} and {:.1e}){agreement}",
        2f64.powi(atol_exp2.into()),
        2f64.powi(rtol_exp2.into()),
    ))?;
    if calibration.pairs.iter().any(|pair| pair.closeness.integers_differing > 0) {
        output::note("warning: outputs that are no floats differ between backends, and no tolerance is for them");
    }
    if let Some(path) = &args.out {
        output::note(&format!("written to {}: `quorate push --tolerance` puts it into a manifest", path.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_two_ordered_ends() {
        assert_eq!(range("0..255"), Ok((0.0, 255.0)));
        assert_eq!(range("-1.5..1e3"), Ok((-1.5, 1000.0)));
        for text in ["", "1", "2..1", "a..b", "0..inf", "..1"] {
            assert!(range(text).is_err(), "{text}");
        }
    }
}
