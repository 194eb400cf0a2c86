//! Tells the types of files: the example of a task over a directory, with magika's model.
//!
//! In: names of files under `/in`, one a line; without any, all of them. Out: one line a file, its fields separated by
//! tabs: name, type, score, what the model itself said (`undefined` where it was not asked).
//!
//! The job declares the model under the name `magika`: i32 `[N, 2048]` to f32 `[N, types]`. Two of its input files are the
//! package's own, and are not told the types of: `magika.json`, the model's configuration, and `magika-kinds.json`, what is
//! known of each type. What becomes of the model's answer is what magika 1.0.3 does in its mode of high confidence.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use guest_sdk::{
    Exit,
    nn::{self, Context, Graph, Tensor},
};
use serde::Deserialize;

const CONFIG: &str = "magika.json";
const KINDS: &str = "magika-kinds.json";
/// The label of files that the model was not asked about.
const UNASKED: &str = "undefined";

/// What of the model's configuration decides here.
#[derive(Debug, Deserialize)]
struct Config {
    beg_size: usize,
    end_size: usize,
    block_size: usize,
    min_file_size_for_dl: usize,
    padding_token: i32,
    medium_confidence_threshold: f64,
    target_labels_space: Vec<String>,
    thresholds: BTreeMap<String, f64>,
    overwrite_map: BTreeMap<String, String>,
}

/// What is known of a type.
#[derive(Debug, Deserialize)]
struct Kind {
    is_text: bool,
}

/// A file, as far as it can be told without the model.
enum Seen {
    Type(&'static str),
    Features(Vec<i32>),
}

/// What is said of a file.
#[derive(Debug, Clone, PartialEq)]
struct Verdict {
    label: String,
    score: f32,
    model_label: String,
}

fn main() -> Exit {
    guest_sdk::text(|list| run(Path::new(guest_sdk::abi::DIR_IN), list))
}

/// A list of files to lines of verdicts.
fn run(dir: &Path, list: &str) -> Result<String, Error> {
    let config: Config = read_json(&dir.join(CONFIG))?;
    let kinds: BTreeMap<String, Kind> = read_json(&dir.join(KINDS))?;
    let mut files = guest_sdk::files_of(dir, list)?;
    files.retain(|file| file.name != CONFIG && file.name != KINDS);

    let mut verdicts = vec![None; files.len()];
    let mut asked = Vec::new();
    for (at, file) in files.iter().enumerate() {
        match config.look(&mut fs::File::open(&file.path)?)? {
            Seen::Type(label) => verdicts[at] = Some(Verdict::unasked(label)),
            Seen::Features(features) => asked.push((at, features)),
        }
    }
    let mut context = Graph::by_name("magika")?.context()?;
    for (at, features) in asked {
        verdicts[at] = Some(config.judge(&config.infer(&mut context, features)?, &kinds));
    }
    let line = |(file, verdict): (&guest_sdk::InputFile, &Option<Verdict>)| {
        verdict
            .as_ref()
            .map(|Verdict { label, score, model_label }| format!("{}\t{label}\t{score}\t{model_label}\n", file.name))
    };
    Ok(files.iter().zip(&verdicts).filter_map(line).collect())
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let bad = |detail: String| Error::Config { file: path.display().to_string(), detail };
    let bytes = fs::read(path).map_err(|error| bad(error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))
}

impl Config {
    /// Reads a block from each end of a file, strips them of whitespace, and takes the model's bytes from the outer sides.
    /// A file that is too short for that, or has too little but whitespace in its first block, is text or not.
    fn look(&self, file: &mut (impl Read + Seek)) -> io::Result<Seen> {
        let size = file.seek(SeekFrom::End(0))?;
        let block = size.min(self.block_size as u64);
        if size == 0 {
            return Ok(Seen::Type("empty"));
        }
        let first = read_at(file, 0, block)?;
        let start = first.iter().position(|byte| !is_space(*byte)).unwrap_or(first.len());
        let begin = &first[start..];
        if begin.len() < self.min_file_size_for_dl {
            // Shorter files are in the block as a whole.
            return Ok(Seen::Type(if std::str::from_utf8(&first).is_ok() { "txt" } else { "unknown" }));
        }
        let last = read_at(file, size - block, block)?;
        let end = &last[..last.iter().rposition(|byte| !is_space(*byte)).map_or(0, |at| at + 1)];

        let begin = &begin[..begin.len().min(self.beg_size)];
        let end = &end[end.len().saturating_sub(self.end_size)..];
        let padding = std::iter::repeat(self.padding_token);
        let bytes = |bytes: &[u8]| bytes.iter().map(|byte| i32::from(*byte)).collect::<Vec<_>>();
        let mut features = bytes(begin);
        features.extend(padding.take(self.beg_size - begin.len() + self.end_size - end.len()));
        features.extend(bytes(end));
        Ok(Seen::Features(features))
    }

    /// Scores of a file for each type. Files go one by one: what ONNX Runtime says of some changes by 6e-3 with their company.
    fn infer(&self, context: &mut Context, features: Vec<i32>) -> Result<Vec<f32>, nn::Error> {
        let input = Tensor::new(vec![1, (self.beg_size + self.end_size) as u32], features)?;
        Ok(context.infer(&input, &[1, self.target_labels_space.len() as u32])?.data().to_vec())
    }

    /// The type of the highest score, or a general one where the score is too low to say it.
    fn judge(&self, scores: &[f32], kinds: &BTreeMap<String, Kind>) -> Verdict {
        let mut best = (UNASKED, f32::NEG_INFINITY);
        for (label, score) in self.target_labels_space.iter().zip(scores) {
            if *score > best.1 {
                best = (label, *score);
            }
        }
        let (model_label, score) = best;
        let label = self.overwrite_map.get(model_label).map_or(model_label, String::as_str);
        let threshold = self.thresholds.get(model_label).unwrap_or(&self.medium_confidence_threshold);
        let is_text = kinds.get(label).is_some_and(|kind| kind.is_text);
        let label = match f64::from(score) >= *threshold {
            true => label,
            false if is_text => "txt",
            false => "unknown",
        };
        Verdict { label: label.to_owned(), score, model_label: model_label.to_owned() }
    }
}

impl Verdict {
    fn unasked(label: &str) -> Self {
        Self { label: label.to_owned(), score: 1.0, model_label: UNASKED.to_owned() }
    }
}

/// Whitespace as Python's bytes have it.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn read_at(file: &mut (impl Read + Seek), offset: u64, length: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[derive(Debug)]
enum Error {
    Config { file: String, detail: String },
    Read(io::Error),
    Inference(nn::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

impl From<nn::Error> for Error {
    fn from(error: nn::Error) -> Self {
        Self::Inference(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config { file, detail } => write!(f, "{file} is not of magika's package: {detail}"),
            Self::Read(error) => write!(f, "a file cannot be read: {error}"),
            Self::Inference(error) => error.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn config() -> Config {
        let labels = ["rust", "markdown", "randombytes"].map(str::to_owned);
        Config {
            beg_size: 12,
            end_size: 10,
            block_size: 16,
            min_file_size_for_dl: 4,
            padding_token: 256,
            medium_confidence_threshold: 0.5,
            target_labels_space: labels.into(),
            thresholds: [("markdown".to_owned(), 0.75)].into(),
            overwrite_map: [("randombytes".to_owned(), "unknown".to_owned())].into(),
        }
    }

    fn features(content: &[u8]) -> Vec<i32> {
        match config().look(&mut Cursor::new(content)).unwrap() {
            Seen::Features(features) => features,
            Seen::Type(label) => panic!("{label}"),
        }
    }

    fn unasked(content: &[u8]) -> &'static str {
        match config().look(&mut Cursor::new(content)).unwrap() {
            Seen::Type(label) => label,
            Seen::Features(features) => panic!("{features:?}"),
        }
    }

    #[test]
    fn features_are_the_outer_bytes_without_whitespace_around() {
        let padded = |begin: &[u8], padding: usize, end: &[u8]| {
            let bytes = |bytes: &[u8]| bytes.iter().map(|byte| i32::from(*byte)).collect::<Vec<_>>();
            [bytes(begin), vec![256; padding], bytes(end)].concat()
        };
        assert_eq!(features(b" \x0babcd\n"), padded(b"abcd\n", 12 - 5 + 10 - 6, b" \x0babcd"));
        assert_eq!(features(b"0123456789abcdefghijklmnopqrstuvwxyz"), padded(b"0123456789ab", 0, b"qrstuvwxyz"));
    }

    #[test]
    fn what_is_too_short_is_text_or_not() {
        assert_eq!([b"".as_slice(), b"abc", b"\xff\xfe"].map(unasked), ["empty", "txt", "unknown"]);
        assert_eq!(unasked(&[b' '; 40]), "txt");
        assert_eq!(unasked("               ä   abcdefgh".as_bytes()), "unknown", "the block ends inside a character");
    }

    #[test]
    fn a_low_score_gives_a_general_type() {
        let kinds = [("rust", true), ("markdown", true), ("unknown", false)];
        let kinds = kinds.map(|(name, is_text)| (name.to_owned(), Kind { is_text })).into();
        let label = |scores: [f32; 3]| config().judge(&scores, &kinds).label;
        assert_eq!(label([0.5, 0.25, 0.25]), "rust");
        assert_eq!(label([0.4, 0.3, 0.3]), "txt");
        assert_eq!(label([0.2, 0.7, 0.1]), "txt");
        assert_eq!(label([0.2, 0.75, 0.05]), "markdown");
        assert_eq!(label([0.1, 0.1, 0.8]), "unknown");
        let verdict = config().judge(&[0.1, 0.1, 0.8], &kinds);
        assert_eq!((verdict.model_label.as_str(), verdict.score), ("randombytes", 0.8));
    }
}
