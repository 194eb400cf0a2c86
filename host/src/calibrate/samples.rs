//! What a model is asked: tensors from files, or random ones of the shapes that it declares.
//!
//! A directory of samples has for each an `.npy` file, for models of one input, or a directory with a file `NAME.npy` for each
//! input. In a file's name, characters other than letters, digits, `.`, `_` and `-` of an input's name are `_`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use guest_sdk::abi::nn::TensorType;

use super::npy::{self, NpyError};
use crate::{
    limits,
    sandbox::{ModelInfo, NnTensor, TensorDecl},
};

/// How files of tensors end.
const EXTENSION: &str = "npy";

/// What a model is asked once: its inputs, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Where it is from.
    pub name: String,
    /// Its tensors.
    pub inputs: Vec<NnTensor>,
}

impl Sample {
    /// Bytes of all its tensors.
    pub fn bytes(&self) -> u64 {
        self.inputs.iter().map(|input| input.data.len() as u64).sum()
    }
}

/// Why there are no samples.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// A file or directory cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is no tensor.
    #[error("{}: {source}", path.display())]
    Tensor {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: NpyError,
    },
    /// A file is longer than a tensor may be.
    #[error("{}: {bytes} bytes, over the bound of {bytes_max} for a tensor", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// As found.
        bytes: u64,
        /// Largest allowed.
        bytes_max: u64,
    },
    /// A tensor is another than the model takes.
    #[error("{sample}: input `{input}` is {found}, and the model takes {expected}")]
    Misfit {
        /// Which sample.
        sample: String,
        /// Which input.
        input: String,
        /// As found.
        found: String,
        /// As declared.
        expected: String,
    },
    /// There is none.
    #[error("{}: no .npy files and no directories of them", path.display())]
    None {
        /// The directory.
        path: PathBuf,
    },
    /// The model does not say of what type an input is, or a random one of its shape would be too large.
    #[error("input `{input}` is declared as {declared}: no random tensor can be made of that, so give --inputs")]
    Open {
        /// Which input.
        input: String,
        /// As declared.
        declared: String,
    },
}

/// The samples in a directory, by name.
///
/// # Errors
/// When something in it is no sample of the model.
pub fn from_dir(dir: &Path, model: &ModelInfo) -> Result<Vec<Sample>, SampleError> {
    let failed = |source| SampleError::File { path: dir.to_owned(), source };
    let entries = fs::read_dir(dir).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| path.is_dir() || path.extension().is_some_and(|extension| extension == EXTENSION));
    paths.sort();
    if paths.is_empty() {
        return Err(SampleError::None { path: dir.to_owned() });
    }
    let sample = |path: PathBuf| {
        let files = match (path.is_dir(), model.inputs.as_slice()) {
            (true, inputs) => inputs.iter().map(|input| path.join(file_name(&input.name))).collect(),
            (false, _) => vec![path.clone()],
        };
        let inputs = files.iter().map(|file| tensor(file)).collect::<Result<Vec<_>, _>>()?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        checked(Sample { name, inputs }, model)
    };
    paths.into_iter().map(sample).collect()
}

/// The file of an input.
fn file_name(input: &str) -> String {
    let harmless = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' };
    format!("{}.{EXTENSION}", input.chars().map(harmless).collect::<String>())
}

fn tensor(path: &Path) -> Result<NnTensor, SampleError> {
    let failed = |source| SampleError::File { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(failed)?.len();
    if bytes > limits::NN_TENSOR_BYTES_MAX {
        return Err(SampleError::TooLarge { path: path.to_owned(), bytes, bytes_max: limits::NN_TENSOR_BYTES_MAX });
    }
    let bytes = fs::read(path).map_err(failed)?;
    npy::read(&bytes).map_err(|source| SampleError::Tensor { path: path.to_owned(), source })
}

fn checked(sample: Sample, model: &ModelInfo) -> Result<Sample, SampleError> {
    let misfit = |input: &str, found: String, expected: String| SampleError::Misfit {
        sample: sample.name.clone(),
        input: input.to_owned(),
        found,
        expected,
    };
    if sample.inputs.len() != model.inputs.len() {
        let names: Vec<&str> = model.inputs.iter().map(|input| input.name.as_str()).collect();
        let expected = format!("{} ({})", model.inputs.len(), names.join(", "));
        return Err(misfit("*", format!("{} tensors", sample.inputs.len()), expected));
    }
    for (input, decl) in sample.inputs.iter().zip(&model.inputs) {
        let element = input.element_type().map_or("?", TensorType::word);
        let fits = |(dim, own): (&Option<u32>, &u32)| dim.is_none_or(|dim| dim == *own);
        let shape = decl
            .dims
            .as_ref()
            .is_none_or(|dims| dims.len() == input.dims.len() && dims.iter().zip(&input.dims).all(fits));
        if !shape || decl.element.as_ref().is_some_and(|decl| decl != element) {
            return Err(misfit(&decl.name, format!("{element} {:?}", input.dims), shown(decl)));
        }
    }
    Ok(sample)
}

/// A declaration in words.
fn shown(decl: &TensorDecl) -> String {
    let dim = |dim: &Option<u32>| dim.map_or_else(|| "?".to_owned(), |dim| dim.to_string());
    let dims = decl.dims.as_ref().map_or_else(
        || "of any shape".to_owned(),
        |dims| format!("[{}]", dims.iter().map(dim).collect::<Vec<_>>().join(", ")),
    );
    format!("{} {dims}", decl.element.as_deref().unwrap_or("of any type"))
}

/// What random tensors are like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Random {
    /// How many samples.
    pub samples: u32,
    /// The same seed gives the same samples.
    pub seed: u64,
    /// What dimensions are that the model leaves open.
    pub open_dim: u32,
    /// Elements are from this.
    pub low: f64,
    /// To this: below it for floats.
    pub high: f64,
}

impl Default for Random {
    fn default() -> Self {
        Self { samples: 1_000, seed: 0, open_dim: 1, low: 0.0, high: 1.0 }
    }
}

/// Random samples of the shapes that the model declares.
///
/// # Errors
/// When it leaves more open than dimensions.
pub fn random(model: &ModelInfo, random: Random) -> Result<Vec<Sample>, SampleError> {
    let mut dice =
        blake3::Hasher::new().update(b"quorate/samples/1\0").update(&random.seed.to_le_bytes()).finalize_xof();
    let mut next = || {
        let mut bytes = [0; 8];
        dice.fill(&mut bytes);
        // As many bits as a double has digits: from 0 to below 1.
        (u64::from_le_bytes(bytes) >> 11) as f64 * 2f64.powi(-53)
    };
    let mut sample = |number: u32| {
        let inputs =
            model.inputs.iter().map(|decl| random_tensor(decl, random, &mut next)).collect::<Result<_, _>>()?;
        Ok(Sample { name: format!("random {number}"), inputs })
    };
    (0..random.samples).map(&mut sample).collect()
}

fn random_tensor(decl: &TensorDecl, random: Random, next: &mut impl FnMut() -> f64) -> Result<NnTensor, SampleError> {
    let open = || SampleError::Open { input: decl.name.clone(), declared: shown(decl) };
    let element = TensorType::ALL.into_iter().find(|element| decl.element.as_deref() == Some(element.word()));
    let element = element.ok_or_else(open)?;
    let dims: Vec<u32> =
        decl.dims.as_ref().ok_or_else(open)?.iter().map(|dim| dim.unwrap_or(random.open_dim)).collect();
    let elements = dims.iter().try_fold(1u64, |product, dim| product.checked_mul((*dim).into()));
    let elements = elements.filter(|elements| *elements <= limits::NN_TENSOR_BYTES_MAX / 8).ok_or_else(open)?;
    let data: Vec<u8> = (0..elements).flat_map(|_| random_element(element, random, next())).collect();
    Ok(NnTensor { element: element as u8, dims, data: data.into() })
}

fn random_element(element: TensorType, Random { low, high, .. }: Random, share: f64) -> Vec<u8> {
    let value = low + (high - low) * share;
    let whole = (low + (high - low + 1.0) * share).floor();
    match element {
        TensorType::F16 => half(value).to_le_bytes().to_vec(),
        TensorType::F32 => (value as f32).to_le_bytes().to_vec(),
        TensorType::F64 => value.to_le_bytes().to_vec(),
        TensorType::U8 => vec![whole as u8],
        TensorType::I32 => (whole as i32).to_le_bytes().to_vec(),
        TensorType::I64 => (whole as i64).to_le_bytes().to_vec(),
    }
}

/// A double as a half, cut off: for random values it does not matter which neighbour it is.
fn half(value: f64) -> u16 {
    let sign = if value < 0.0 { 0x8000 } else { 0 };
    let size = value.abs().min(65504.0);
    if size < 2f64.powi(-14) {
        return sign | (size * 2f64.powi(24)) as u16;
    }
    let exponent = size.log2().floor() as i32;
    let mantissa = (size / 2f64.powi(exponent) * 1024.0) as u16 & 0x3ff;
    sign | ((exponent + 15) as u16) << 10 | mantissa
}

#[cfg(test)]
mod tests {
    use registry::id::ModelHash;

    use super::*;

    /// Name, element type and dimensions.
    type Declared<'a> = (&'a str, Option<&'a str>, Option<Vec<Option<u32>>>);

    fn model(inputs: &[Declared<'_>]) -> ModelInfo {
        let decl = |(name, element, dims): &Declared<'_>| TensorDecl {
            name: (*name).to_owned(),
            element: element.map(str::to_owned),
            dims: dims.clone(),
        };
        ModelInfo { hash: ModelHash([0; 32]), bytes: 0, inputs: inputs.iter().map(decl).collect(), outputs: Vec::new() }
    }

    fn npy(dims: &str, data: &[f32]) -> Vec<u8> {
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {dims}, }}\n");
        let data = data.iter().flat_map(|value| value.to_le_bytes()).collect();
        [b"\x93NUMPY\x01\0".to_vec(), (header.len() as u16).to_le_bytes().to_vec(), header.into_bytes(), data].concat()
    }

    #[test]
    fn a_file_is_a_sample_and_a_directory_is_one_with_a_file_for_each_input() {
        let dir = tempfile::tempdir().unwrap();
        let one = model(&[("x", Some("f32"), Some(vec![None, Some(2)]))]);
        assert!(matches!(from_dir(dir.path(), &one), Err(SampleError::None { .. })));
        fs::write(dir.path().join("b.npy"), npy("(1, 2)", &[1.0, 2.0])).unwrap();
        fs::write(dir.path().join("a.npy"), npy("(2, 2)", &[1.0; 4])).unwrap();
        fs::write(dir.path().join("notes.txt"), "no tensor").unwrap();
        let samples = from_dir(dir.path(), &one).unwrap();
        assert_eq!(samples.iter().map(|sample| sample.name.as_str()).collect::<Vec<_>>(), ["a.npy", "b.npy"]);

        let two = model(&[("x:0", Some("f32"), None), ("state", Some("f32"), Some(vec![Some(1)]))]);
        let refused = from_dir(dir.path(), &two).unwrap_err().to_string();
        assert!(refused.contains("is 1 tensors, and the model takes 2 (x:0, state)"), "{refused}");
        let sub = dir.path().join("0");
        fs::create_dir(&sub).unwrap();
        for name in ["a.npy", "b.npy"] {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        fs::write(sub.join("x_0.npy"), npy("(2,)", &[1.0, 2.0])).unwrap();
        fs::write(sub.join("state.npy"), npy("(1,)", &[3.0])).unwrap();
        assert_eq!(from_dir(dir.path(), &two).unwrap()[0].inputs.len(), 2);
        fs::write(sub.join("state.npy"), npy("(2,)", &[3.0, 4.0])).unwrap();
        let refused = from_dir(dir.path(), &two).unwrap_err().to_string();
        assert!(refused.contains("input `state` is f32 [2], and the model takes f32 [1]"), "{refused}");
    }

    #[test]
    fn a_seed_gives_the_same_samples_within_their_range() {
        let model = model(&[("x", Some("f32"), Some(vec![None, Some(3)])), ("n", Some("i32"), Some(vec![Some(4)]))]);
        let asked = Random { samples: 50, seed: 7, open_dim: 2, low: -2.0, high: 2.0 };
        let samples = random(&model, asked).unwrap();
        assert_eq!(samples, random(&model, asked).unwrap());
        assert_ne!(samples, random(&model, Random { seed: 8, ..asked }).unwrap());
        let (mut floats, mut whole) = (Vec::new(), Vec::new());
        for sample in &samples {
            assert_eq!((sample.inputs[0].dims.as_slice(), sample.inputs[1].dims.as_slice()), (&[2, 3][..], &[4][..]));
            floats.extend(super::super::judge::floats(&sample.inputs[0]).unwrap());
            whole.extend(sample.inputs[1].data.chunks(4).map(|bytes| i32::from_le_bytes(bytes.try_into().unwrap())));
        }
        assert!(floats.iter().all(|value| (-2.0..=2.0).contains(value)) && floats.iter().any(|value| *value < -1.0));
        whole.sort_unstable();
        whole.dedup();
        assert_eq!(whole, [-2, -1, 0, 1, 2]);
    }

    #[test]
    fn what_is_left_open_cannot_be_made_up() {
        for decl in [
            ("x", None, Some(vec![Some(1)])),
            ("x", Some("f32"), None),
            ("x", Some("f32"), Some(vec![Some(u32::MAX); 2])),
        ] {
            let refused = random(&model(&[decl]), Random::default()).unwrap_err();
            assert!(refused.to_string().contains("give --inputs"), "{refused}");
        }
    }

    #[test]
    fn halves_are_near_what_they_are_made_of() {
        for (value, bits) in [(0.0, 0), (1.0, 0x3c00), (-2.0, 0xc000), (65504.0, 0x7bff), (1e9, 0x7bff), (0.5, 0x3800)]
        {
            assert_eq!(half(value), bits, "{value}");
        }
    }
}
