//! What each model is asked: the inputs that the example tasks give it, taken down, and ones that are made of them.
//!
//! The task runs over files with a model that also answers what it was asked, so the record of the task has every input, to
//! the bit. What a tolerance is calibrated on and what is judged by it comes from other files.

use std::{collections::BTreeMap, error::Error};

use bytes::Bytes;
use host::{
    calibrate::samples::{Random, Sample, random},
    limits,
    sandbox::{
        Answer, ModelInfo, NnRecord, NnTensor, Request, Response, Sandbox, SandboxOptions, TensorDecl, model_preflight,
    },
};
use registry::{
    canon,
    id::{ModelHash, ModuleHash},
    job::Limits,
};
use support::{
    models::Models,
    standins::{Dice, showing},
};
use tasks::TaskModule;

type Files = Vec<(String, Vec<u8>)>;

/// A model, with what it is asked.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) model: Vec<u8>,
    /// What its tolerance is measured over.
    pub(crate) calibrated: Vec<Sample>,
    /// What is judged by it.
    pub(crate) judged: Vec<Sample>,
    /// What an element is where an input ends before its tensor does.
    pub(crate) padding: i32,
}

impl Subject {
    fn new(
        name: &'static str,
        model: Vec<u8>,
        [calibrated, judged]: [Vec<Sample>; 2],
        (low, high): (f64, f64),
    ) -> Result<Self, Box<dyn Error>> {
        let facts = model_preflight(&model)?;
        let inputs: Vec<TensorDecl> = facts.inputs;
        let info = ModelInfo { hash: ModelHash::of(&model), bytes: facts.bytes, inputs, outputs: facts.outputs };
        let with = |mut samples: Vec<Sample>, share: usize, seed| -> Result<Vec<Sample>, Box<dyn Error>> {
            let count = u32::try_from(samples.len() / share)?;
            samples.extend(random(&info, Random { samples: count, seed, open_dim: 1, low, high })?);
            Ok(samples)
        };
        let (calibrated, judged) = (with(calibrated, RANDOM_SHARE, 1)?, with(judged, RANDOM_SHARE, 2)?);
        Ok(Self { name, model, calibrated, judged, padding: 0 })
    }
}

/// One random sample for so many that are not.
const RANDOM_SHARE: usize = 5;
/// Files that one task gets.
const TASK_FILES: usize = 250;

/// Handwritten digits: those that the judge sees are not those of the calibration.
pub(crate) fn digits(_models: &Models) -> Result<Subject, Box<dyn Error>> {
    let model = tasks::data::DIGITS_MODEL;
    let mut all = taken_down(&tasks::DIGITS, ("digits", model), &[], tasks::data::DIGITS_PIXELS)?;
    let judged = all.split_off(600);
    Subject::new("digits", model.to_vec(), [all, judged], (0.0, 16.0))
}

/// Files of all types, whole and in pieces.
pub(crate) fn magika(models: &Models) -> Result<Subject, Box<dyn Error>> {
    let model = models.read("magika.onnx");
    let configuration: Files = ["magika.json", "magika-kinds.json"].map(|name| (name.into(), models.read(name))).into();
    let mut sources = models.files("identify/files");
    sources.extend(tasks::data::TEXTS.map(|(name, text)| (name.to_owned(), text.to_vec())));
    let mut dice = Dice(3);
    let mut samples = |from: usize, pieces: usize| -> Result<Vec<Sample>, Box<dyn Error>> {
        let mut files = Files::new();
        for (name, content) in sources.iter().skip(from).step_by(2) {
            files.push((name.clone(), content.clone()));
            for piece in 0..if content.len() > PIECE_BYTES { pieces } else { 0 } {
                let start = (dice.roll() * (content.len() - PIECE_BYTES) as f64) as usize;
                let length = 64 + (dice.roll() * (4 * PIECE_BYTES) as f64) as usize;
                let end = content.len().min(start + length);
                files.push((format!("{name}-{piece}"), content[start..end].to_vec()));
            }
        }
        let mut samples = Vec::new();
        for files in files.chunks(TASK_FILES) {
            let files = [files, &configuration].concat();
            samples.extend(taken_down(&tasks::IDENTIFY, ("magika", &model), &files, b"")?);
        }
        Ok(samples)
    };
    let both = [samples(0, 10)?, samples(1, 38)?];
    // The model's own number for a byte that is not there.
    Ok(Subject { padding: 256, ..Subject::new("magika", model, both, (0.0, 256.0))? })
}

/// Files with pieces taken out of them are longer than this.
const PIECE_BYTES: usize = 2048;

/// Sounds: speech, noise and tones, as they are and played backwards at half the volume.
pub(crate) fn silero(models: &Models) -> Result<Subject, Box<dyn Error>> {
    let model = models.read("silero.onnx");
    let files = models.files("speech");
    let samples = |names: &[&str], backwards: bool| {
        let named = files.iter().filter(|(name, _)| names.iter().any(|own| *name == format!("{own}.wav"))).cloned();
        let mut files: Files = named.collect();
        if backwards {
            let turned: Files =
                files.iter().map(|(name, wav)| (format!("turned-{name}"), half_and_backwards(wav))).collect();
            files.extend(turned);
        }
        taken_down(&tasks::SPEECH, ("silero", &model), &files, b"")
    };
    let both = [samples(&["talk", "tone", "silence"], false)?, samples(&["no-pause", "noise", "talk-in-noise"], true)?];
    Subject::new("silero", model, both, (-1.0, 1.0))
}

fn half_and_backwards(wav: &[u8]) -> Vec<u8> {
    // The header that all of them have.
    let (header, sound) = wav.split_at(44.min(wav.len()));
    let samples = sound.as_chunks().0.iter().rev();
    let turned = samples.flat_map(|sample| (i16::from_le_bytes(*sample) / 2).to_le_bytes());
    header.iter().copied().chain(turned).collect()
}

/// Images of lines of text, as they are and spoiled.
pub(crate) fn orient(models: &Models) -> Result<Subject, Box<dyn Error>> {
    let model = models.read("orient.onnx");
    let images = taken_down(&tasks::ORIENT, ("orient", &model), &models.files("orient"), b"")?;
    let mut dice = Dice(4);
    let mut samples = |from: usize, copies: usize| -> Vec<Sample> {
        let mut samples = Vec::new();
        for image in images.iter().skip(from).step_by(2) {
            samples.push(image.clone());
            samples.extend((0..copies).map(|copy| spoiled(image, copy, &mut dice)));
        }
        samples
    };
    let both = [samples(0, 13), samples(1, 30)];
    Subject::new("orient", model, both, (-1.0, 1.0))
}

/// The image shifted, turned, fainter or brighter, and with noise over it.
fn spoiled(image: &Sample, copy: usize, dice: &mut Dice) -> Sample {
    let input = &image.inputs[0];
    let mut pixels: Vec<f32> = input.data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let width = input.dims.last().map_or(1, |width| *width as usize);
    let shift = (dice.roll() * width as f64 / 4.0) as usize;
    let (gain, noise) = (1.0 - dice.roll() as f32 / 2.0, if copy.is_multiple_of(2) { 0.05 } else { 0.4 });
    for row in pixels.chunks_mut(width) {
        row.rotate_right(shift);
        if copy.is_multiple_of(3) {
            row.reverse();
        }
        row.iter_mut().for_each(|pixel| *pixel = (*pixel * gain + noise * dice.spread()).clamp(-1.0, 1.0));
    }
    let data: Vec<u8> = pixels.iter().flat_map(|pixel| pixel.to_le_bytes()).collect();
    let name = format!("{} {copy}", image.name);
    Sample { name, inputs: vec![NnTensor { data: data.into(), ..input.clone() }] }
}

/// Every input that a task gives its model: batches cut into inferences of one, where the model has one input.
fn taken_down(
    task: &TaskModule,
    (name, model): (&str, &[u8]),
    files: &[(String, Vec<u8>)],
    stdin: &'static [u8],
) -> Result<Vec<Sample>, Box<dyn Error>> {
    let showing = showing(model);
    let sandbox = Sandbox::new(SandboxOptions::default())?;
    let (module, hash) = (ModuleHash::of(task.wasm), ModelHash::of(&showing));
    sandbox.load_module(module, task.wasm)?;
    let inputs = sandbox.load_model(hash, &showing)?.inputs.len();
    let request = Request {
        stdin: Bytes::from_static(stdin),
        files: files.iter().map(|(name, content)| (name.clone(), Bytes::from(content.clone()))).collect(),
        models: BTreeMap::from([(name.to_owned(), hash)]),
        limits: Limits { fuel_max: u64::MAX / 2, wall_ms_max: limits::WALL_MS_MAX, ..Limits::default() },
        record: true,
        ..Request::new(module)
    };
    let done = match sandbox.run(request) {
        Response::Done(done) => done,
        Response::Fault(fault) => return Err(format!("{}: {fault}", task.name).into()),
    };
    let failed = || format!("{} fails: {}", task.name, String::from_utf8_lossy(&done.stderr));
    let record: NnRecord =
        canon::decode(done.nn_record.as_ref().ok_or_else(failed)?, limits::NN_RECORD_FILE_BYTES_MAX)?;
    let mut samples = Vec::new();
    for (at, answered) in record.inferences.into_iter().enumerate() {
        let Answer::Outputs(mut outputs) = answered.answer else { return Err(failed().into()) };
        let asked = outputs.split_off(outputs.len() - inputs);
        match asked.as_slice() {
            [one] => samples.extend(rows(one).map(|row| Sample { name: format!("{at}"), inputs: vec![row] })),
            _ => samples.push(Sample { name: format!("{at}"), inputs: asked }),
        }
    }
    Ok(samples)
}

/// A batch, one by one.
fn rows(batch: &NnTensor) -> impl Iterator<Item = NnTensor> {
    let count = batch.dims.first().map_or(1, |count| *count as usize).max(1);
    let dims: Vec<u32> = batch.dims.iter().enumerate().map(|(axis, dim)| if axis == 0 { 1 } else { *dim }).collect();
    let length = (batch.data.len() / count).max(1);
    batch.data.chunks(length).map(move |row| NnTensor {
        element: batch.element,
        dims: dims.clone(),
        data: row.to_vec().into(),
    })
}
