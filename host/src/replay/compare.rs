//! The first difference between what was signed and what was found, and where in the output it lies.

use std::fmt;

use bytes::Bytes;
use registry::{
    id::{BlobHash, ModuleHash, TaskId},
    job::Class,
    preimage::Preimage,
    receipt::{Execution, Outcome, Output},
};
use serde::{Deserialize, Serialize};

use super::{ReplayError, Sources, answers::AnswerDifference};
use crate::{
    limits,
    sandbox::{Finished, Inference},
};

/// Bytes shown of each side from just before the first one that differs.
const SHOWN_BYTES: usize = 24;
/// Of these, bytes before it.
const BEFORE_BYTES: usize = 8;

/// What running the task again gave.
pub(crate) struct Found {
    pub(crate) execution: Execution,
    pub(crate) output: Output,
    pub(crate) finished: Finished,
}

/// What of an execution is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// All that was signed.
    Everything,
    /// What an engine of other conditions should agree on.
    OutcomeAndOutput,
}

/// The first thing that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum Difference {
    /// The job's template, the shard and the input give another task.
    Task { signed: TaskId, found: TaskId },
    /// The task has another module.
    Module { signed: ModuleHash, found: ModuleHash },
    /// The task has another class.
    Class { signed: Class, found: Class },
    /// How it ended.
    Outcome { signed: Outcome, found: Outcome },
    /// Fuel spent.
    Fuel { signed: u64, found: u64 },
    /// What it wrote.
    Output {
        signed: BlobHash,
        found: BlobHash,
        #[serde(skip_serializing_if = "Option::is_none")]
        place: Option<Place>,
    },
    /// What went into models and came out.
    Inferences {
        signed: Option<BlobHash>,
        found: Option<BlobHash>,
        #[serde(skip_serializing_if = "Option::is_none")]
        first: Option<InferenceDifference>,
    },
    /// A model's answer is not as good as this machine's.
    Answer(AnswerDifference),
    /// The states after its steps.
    Segments { signed: Option<BlobHash>, found: Option<BlobHash> },
}

/// The first part of an output that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Place {
    /// The file below `/out`; standard output when absent. Text from a guest, not to be trusted.
    pub(crate) file: Option<String>,
    /// What was signed; the file was not when absent.
    pub(crate) signed: Option<Part>,
    /// What was found; the file was not when absent.
    pub(crate) found: Option<Part>,
    /// The first byte that differs, when what was signed is at hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<Bytewise>,
}

/// One side of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Part {
    pub(crate) hash: BlobHash,
    pub(crate) bytes: u64,
}

/// The first byte that differs, with a few around it, escaped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Bytewise {
    pub(crate) offset: usize,
    pub(crate) signed: String,
    pub(crate) found: String,
}

/// The first inference that differs; absent on the side that has fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct InferenceDifference {
    /// From 0, in the order they ran.
    pub(crate) index: usize,
    pub(crate) signed: Option<Inference>,
    pub(crate) found: Option<Inference>,
}

/// The inferences that an execution's `nn_root` is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Inferences(pub(super) Vec<Inference>);

impl Preimage for Inferences {
    const WHAT: &'static str = "inferences";
    const DOMAIN: &'static str = "quorate/nn/1";
    const BYTES_MAX: usize = limits::NN_INFERENCES_MAX * 128;
}

/// The first difference, in the order in which one explains the next.
pub(super) fn first(signed: &Execution, found: &Execution, scope: Scope) -> Option<Difference> {
    // A field that is added to what is signed has to be compared here.
    let Execution { task, module, class, engine: _, outcome, fuel_used, output, nn_root, segment_root } = *signed;
    let everything = scope == Scope::Everything;
    if task != found.task {
        return Some(Difference::Task { signed: task, found: found.task });
    }
    if module != found.module {
        return Some(Difference::Module { signed: module, found: found.module });
    }
    if class != found.class {
        return Some(Difference::Class { signed: class, found: found.class });
    }
    if outcome != found.outcome {
        return Some(Difference::Outcome { signed: outcome, found: found.outcome });
    }
    if everything && fuel_used != found.fuel_used {
        return Some(Difference::Fuel { signed: fuel_used, found: found.fuel_used });
    }
    if output != found.output {
        return Some(Difference::Output { signed: output, found: found.output, place: None });
    }
    if everything && nn_root != found.nn_root {
        return Some(Difference::Inferences { signed: nn_root, found: found.nn_root, first: None });
    }
    if everything && segment_root != found.segment_root {
        return Some(Difference::Segments { signed: segment_root, found: found.segment_root });
    }
    None
}

/// The same with the place, as far as what was signed is at hand.
pub(super) async fn locate(
    sources: &Sources,
    difference: Difference,
    found: &Found,
) -> Result<Difference, ReplayError> {
    Ok(match difference {
        Difference::Output { signed, found: hash, .. } => {
            let mut place = sources.preimage::<Output>(signed.0)?.and_then(|output| place(&output, &found.output));
            if let Some(place) = &mut place {
                locate_byte(sources, place, &found.finished).await?;
            }
            Difference::Output { signed, found: hash, place }
        }
        Difference::Inferences { signed, found: root, .. } => {
            let listed = match signed {
                Some(root) => sources.preimage::<Inferences>(root.0)?.map(|Inferences(listed)| listed),
                None => Some(Vec::new()),
            };
            let first = listed.and_then(|listed| inference(&listed, &found.finished.inferences));
            Difference::Inferences { signed, found: root, first }
        }
        other => other,
    })
}

/// The first part that differs: standard output, then files by path.
fn place(signed: &Output, found: &Output) -> Option<Place> {
    let stdout = |output: &Output| Part { hash: output.stdout, bytes: output.stdout_bytes };
    if stdout(signed) != stdout(found) {
        return Some(Place { file: None, signed: Some(stdout(signed)), found: Some(stdout(found)), at: None });
    }
    let part = |output: &Output, path: &str| {
        let file = output.files.iter().find(|file| file.path == path)?;
        Some(Part { hash: file.hash, bytes: file.bytes })
    };
    let mut paths: Vec<&String> = signed.files.iter().chain(&found.files).map(|file| &file.path).collect();
    paths.sort();
    let sides = paths.into_iter().map(|path| (path, part(signed, path), part(found, path)));
    let (path, signed, found) = sides.into_iter().find(|(_, signed, found)| signed != found)?;
    Some(Place { file: Some(path.clone()), signed, found, at: None })
}

async fn locate_byte(sources: &Sources, place: &mut Place, finished: &Finished) -> Result<(), ReplayError> {
    let (Some(signed), Some(_)) = (place.signed, place.found) else { return Ok(()) };
    let found = match &place.file {
        None => Some(&finished.stdout),
        Some(path) => finished.files.iter().find(|(other, _)| other == path).map(|(_, bytes)| bytes),
    };
    if let (Some(signed), Some(found)) = (sources.find("output", signed.hash, limits::OUTPUT_BYTES_MAX).await?, found) {
        place.at = bytewise(&signed, found);
    }
    Ok(())
}

fn bytewise(signed: &Bytes, found: &Bytes) -> Option<Bytewise> {
    if signed == found {
        return None;
    }
    let common = signed.iter().zip(found.iter()).take_while(|(signed, found)| signed == found).count();
    let shown = |bytes: &Bytes| {
        let start = common.saturating_sub(BEFORE_BYTES).min(bytes.len());
        bytes[start..bytes.len().min(start + SHOWN_BYTES)].escape_ascii().to_string()
    };
    Some(Bytewise { offset: common, signed: shown(signed), found: shown(found) })
}

pub(super) fn inference(signed: &[Inference], found: &[Inference]) -> Option<InferenceDifference> {
    let differs = |index: &usize| signed.get(*index) != found.get(*index);
    let index = (0..signed.len().max(found.len())).find(differs)?;
    Some(InferenceDifference { index, signed: signed.get(index).copied(), found: found.get(index).copied() })
}

/// One line for people.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = |root: &Option<BlobHash>| root.map_or_else(|| "none".to_owned(), |root| root.short());
        match self {
            Self::Task { signed, found } => {
                write!(
                    f,
                    "task id: signed {}, but the job, the shard and the input give {}",
                    signed.short(),
                    found.short()
                )
            }
            Self::Module { signed, found } => {
                write!(f, "module: signed {}, but the job has {}", signed.short(), found.short())
            }
            Self::Class { signed, found } => write!(f, "class: signed {signed:?}, found {found:?}"),
            Self::Outcome { signed, found } => write!(f, "outcome: signed {signed}, found {found}"),
            Self::Fuel { signed, found } => write!(f, "fuel: signed {signed}, found {found}"),
            Self::Output { signed, found, place: None } => {
                write!(f, "output: signed {}, found {}", signed.short(), found.short())
            }
            Self::Output { place: Some(place), .. } => write!(f, "output: {place}"),
            Self::Inferences { signed, found, first: None } => {
                write!(f, "inferences: signed root {}, found {}", root(signed), root(found))
            }
            Self::Inferences { first: Some(first), .. } => write!(f, "inferences: {first}"),
            Self::Answer(difference) => write!(f, "inferences: {difference}"),
            Self::Segments { signed, found } => {
                write!(f, "segments: signed root {}, found {}", root(signed), root(found))
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(path) => write!(f, "file `{}`", path.escape_default())?,
            None => f.write_str("standard output")?,
        }
        match (&self.signed, &self.found, &self.at) {
            (_, _, Some(Bytewise { offset, signed, found })) => {
                write!(f, " from byte {offset} on: signed \"{signed}\", found \"{found}\"")
            }
            (Some(signed), Some(found), None) => write!(f, ": signed {signed}, found {found}"),
            (None, _, _) => f.write_str(" was found and not signed"),
            (_, None, _) => f.write_str(" was signed and not found"),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes", self.hash.short(), self.bytes)
    }
}

impl fmt::Display for InferenceDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = self.index;
        match (self.signed, self.found) {
            (Some(signed), Some(found)) if signed.model != found.model => {
                write!(f, "number {index} is of model {}, found {}", signed.model.short(), found.model.short())
            }
            (Some(signed), Some(found)) if signed.input != found.input => {
                write!(f, "number {index} has input {}, found {}", signed.input.short(), found.input.short())
            }
            (Some(signed), Some(found)) => {
                write!(f, "number {index} gave {}, found {}", signed.output.short(), found.output.short())
            }
            (Some(_), None) => write!(f, "number {index} was signed and not found"),
            (None, _) => write!(f, "number {index} was found and not signed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use registry::{
        id::{EngineFingerprint, ModelHash},
        receipt::OutputFile,
    };

    use super::*;

    fn execution() -> Execution {
        Execution {
            task: TaskId([1; 32]),
            module: ModuleHash([2; 32]),
            class: Class::Exact,
            engine: EngineFingerprint([3; 32]),
            outcome: Outcome::Ok,
            fuel_used: 7,
            output: BlobHash([4; 32]),
            nn_root: Some(BlobHash([5; 32])),
            segment_root: None,
        }
    }

    fn output(stdout: &[u8], files: &[(&str, &[u8])]) -> Output {
        let file = |(path, bytes): &(&str, &[u8])| OutputFile {
            path: (*path).to_owned(),
            hash: BlobHash::of(bytes),
            bytes: bytes.len() as u64,
        };
        Output {
            stdout: BlobHash::of(stdout),
            stdout_bytes: stdout.len() as u64,
            files: files.iter().map(file).collect(),
        }
    }

    #[test]
    fn differences_come_in_the_order_in_which_one_explains_the_next() {
        let other = Execution {
            task: TaskId([9; 32]),
            module: ModuleHash([9; 32]),
            class: Class::Tolerant,
            engine: EngineFingerprint([9; 32]),
            outcome: Outcome::FuelOut,
            fuel_used: 9,
            output: BlobHash([9; 32]),
            nn_root: None,
            segment_root: Some(BlobHash([9; 32])),
        };
        let mut found = other.clone();
        type Heal = fn(&mut Execution);
        let heal: [(&str, Heal); 8] = [
            ("task id", |found| found.task = execution().task),
            ("module", |found| found.module = execution().module),
            ("class", |found| found.class = execution().class),
            ("outcome", |found| found.outcome = execution().outcome),
            ("fuel", |found| found.fuel_used = execution().fuel_used),
            ("output", |found| found.output = execution().output),
            ("inferences", |found| found.nn_root = execution().nn_root),
            ("segments", |found| found.segment_root = execution().segment_root),
        ];
        for (word, heal) in heal {
            let said = first(&execution(), &found, Scope::Everything).unwrap().to_string();
            assert!(said.starts_with(&format!("{word}: signed")), "{word}: {said}");
            heal(&mut found);
        }
        assert_eq!(first(&execution(), &found, Scope::Everything), None);
        assert_eq!(Execution { engine: execution().engine, ..found }, execution());
    }

    #[test]
    fn on_another_engine_outcome_and_output_alone_count() {
        let found = Execution { fuel_used: 1, nn_root: None, ..execution() };
        assert_eq!(first(&execution(), &found, Scope::OutcomeAndOutput), None);
        let found = Execution { output: BlobHash([0; 32]), ..found };
        assert!(matches!(first(&execution(), &found, Scope::OutcomeAndOutput), Some(Difference::Output { .. })));
    }

    #[test]
    fn the_part_of_an_output_is_named() {
        let signed = output(b"same", &[("a", b"1"), ("b", b"2")]);
        let cases: [(Output, &str); 5] = [
            (output(b"other!", &[]), "standard output: signed"),
            (output(b"same", &[("a", b"1"), ("b", b"3")]), "file `b`: signed"),
            (output(b"same", &[("b", b"2")]), "file `a` was signed and not found"),
            (output(b"same", &[("a", b"1"), ("aa", b""), ("b", b"3")]), "file `aa` was found and not signed"),
            (output(b"same", &[]), "file `a` was signed and not found"),
        ];
        for (found, expected) in cases {
            let said = place(&signed, &found).unwrap().to_string();
            assert!(said.starts_with(expected), "{said}");
        }
        assert_eq!(place(&signed, &signed), None);
    }

    #[test]
    fn the_first_byte_is_shown_with_a_few_around_it_escaped() {
        let of = |text: &'static str| Bytes::from_static(text.as_bytes());
        let at = bytewise(&of("0123456789\u{1b}abc"), &of("0123456789Xabc")).unwrap();
        assert_eq!((at.offset, at.signed.as_str(), at.found.as_str()), (10, "23456789\\x1babc", "23456789Xabc"));
        let at = bytewise(&of("ab"), &of("abc")).unwrap();
        assert_eq!((at.offset, at.signed.as_str(), at.found.as_str()), (2, "ab", "abc"));
        assert_eq!(bytewise(&of("ab"), &of("ab")), None);
    }

    #[test]
    fn the_first_inference_is_numbered_and_says_in_what_it_differs() {
        let of = |input: u8, output: u8| Inference {
            model: ModelHash([1; 32]),
            input: BlobHash([input; 32]),
            output: BlobHash([output; 32]),
        };
        let signed = [of(1, 1), of(2, 2)];
        let said = |found: &[Inference]| inference(&signed, found).map(|first| first.to_string());
        assert_eq!(said(&signed), None);
        assert!(said(&[of(1, 1), of(2, 3)]).unwrap().starts_with("number 1 gave 0202020202"));
        assert!(said(&[of(9, 1), of(2, 3)]).unwrap().starts_with("number 0 has input 0101010101"));
        assert_eq!(said(&[of(1, 1)]).unwrap(), "number 1 was signed and not found");
        assert_eq!(said(&[of(1, 1), of(2, 2), of(3, 3)]).unwrap(), "number 2 was found and not signed");
    }
}
