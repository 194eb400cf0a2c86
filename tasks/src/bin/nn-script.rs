//! Calls wasi-nn as a script says, through the public `wasi-nn` crate: what any Rust guest sees of it.
//!
//! In: one call a line, words separated by blanks; graphs and contexts are counted from 0 as they are made.
//!
//! ```text
//! named NAME                                a graph that the job declares
//! bytes FILE..                              a graph of these files below /in, a part each
//! files FILE..                              the same, by the crate's own way to read files
//! as ENCODING TARGET FILE                   the same with another encoding (onnx, openvino, ..) or target (cpu, gpu, ..)
//! context GRAPH
//! input CONTEXT INDEX TYPE DIMS NUMBERS     DIMS as 1x64, NUMBERS as 1,2.5 or zeros:64
//! compute CONTEXT
//! output CONTEXT INDEX TYPE COUNT           room for so many numbers
//! repeat COUNT CALL..                       the same call again and again
//! sdk FILE TYPE NUMBERS                     one inference on a file's model through `guest-sdk` instead; TYPE is f16 or f32
//! ```
//!
//! Out: one line each, `ok`, `ok` and the numbers, or the name of the error; of repeated calls how many had which. Half-precision
//! numbers are given and shown as what they are, although the crate, like Rust, has no type for them.

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
    use std::{collections::BTreeMap, fmt::Display, io, path::PathBuf, process::ExitCode, str::FromStr};

    use guest_sdk::{
        abi::DIR_IN,
        nn::{self, F16, Tensor},
    };
    use wasi_nn::{Error, ExecutionTarget, Graph, GraphBuilder, GraphEncoding, GraphExecutionContext, TensorType};

    /// Everything that the script has opened. Neither can be closed in preview 1, so that they live as long as the task.
    #[derive(Default)]
    struct Opened {
        graphs: Vec<&'static Graph>,
        contexts: Vec<GraphExecutionContext<'static>>,
    }

    pub(super) fn main() -> ExitCode {
        let mut opened = Opened::default();
        for (number, line) in io::stdin().lines().enumerate() {
            let words = line.map_err(|error| error.to_string());
            match words.and_then(|line| call(&mut opened, &line.split_whitespace().collect::<Vec<_>>())) {
                Ok(answer) => println!("{answer}"),
                Err(error) => {
                    eprintln!("line {}: {error}", number + 1);
                    return ExitCode::FAILURE;
                }
            }
        }
        ExitCode::SUCCESS
    }

    /// What came of one line; an error is one of the script.
    fn call(opened: &mut Opened, words: &[&str]) -> Result<String, String> {
        if let ["repeat", count, again @ ..] = words {
            let mut answers = BTreeMap::<String, u32>::new();
            for _ in 0..number(count)? {
                *answers.entry(call(opened, again)?).or_default() += 1;
            }
            let counted: Vec<String> = answers.into_iter().map(|(answer, count)| format!("{count} {answer}")).collect();
            return Ok(counted.join(", "));
        }
        let builder = GraphBuilder::new(GraphEncoding::Onnx, ExecutionTarget::CPU);
        let done = match words {
            ["named", name] => opened.open(builder.build_from_cache(name)),
            ["bytes", files @ ..] => opened.open(builder.build_from_bytes(read(files)?)),
            ["files", files @ ..] => {
                opened.open(builder.build_from_files(files.iter().map(|file| path(file)).collect::<Vec<_>>()))
            }
            ["as", encoding, target, file] => {
                let builder = GraphBuilder::new(self::encoding(encoding)?, self::target(target)?);
                opened.open(builder.build_from_bytes(read(&[file])?))
            }
            ["context", graph] => {
                let graph = *opened.graphs.get(number(graph)?).ok_or("no such graph")?;
                graph.init_execution_context().map(|context| opened.contexts.push(context))
            }
            ["input", context, index, kind, dims, numbers] => {
                let dims = dims.split('x').map(number).collect::<Result<Vec<_>, _>>()?;
                input(opened.context(context)?, number(index)?, kind, &dims, numbers)?
            }
            ["compute", context] => opened.context(context)?.compute(),
            ["output", context, index, kind, count] => {
                let output = output(opened.context(context)?, number(index)?, kind, number(count)?)?;
                return Ok(output.map_or_else(|error| name(&error), |numbers| format!("ok {numbers}")));
            }
            ["sdk", file, kind, numbers] => return sdk(&read(&[file])?.concat(), kind, &list(numbers)?),
            _ => return Err(format!("no such call: {}", words.join(" "))),
        };
        Ok(done.map_or_else(|error| name(&error), |()| "ok".to_owned()))
    }

    /// One inference of a model from memory by this project's own wrapper.
    fn sdk(model: &[u8], kind: &str, numbers: &[f32]) -> Result<String, String> {
        let inferred = match kind {
            "f16" => infer::<F16>(model, numbers),
            "f32" => infer::<f32>(model, numbers),
            _ => return Err(format!("no such type: {kind}")),
        };
        match inferred {
            Ok(numbers) => Ok(format!("ok {}", joined(&numbers))),
            Err(nn::Error::Host { errno, .. }) => Ok(format!("{errno:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    fn infer<T: nn::Element + From<f32> + Into<f32>>(model: &[u8], numbers: &[f32]) -> Result<Vec<f32>, nn::Error> {
        let dims = vec![u32::try_from(numbers.len()).unwrap_or(u32::MAX)];
        let input = Tensor::new(dims.clone(), numbers.iter().map(|number| T::from(*number)).collect())?;
        let output: Tensor<T> = nn::Graph::from_bytes(model)?.context()?.infer(&input, &dims)?;
        Ok(output.into_data().into_iter().map(Into::into).collect())
    }

    fn joined(numbers: &[impl Display]) -> String {
        numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    impl Opened {
        fn open(&mut self, graph: Result<Graph, Error>) -> Result<(), Error> {
            self.graphs.push(Box::leak(Box::new(graph?)));
            Ok(())
        }

        fn context(&mut self, at: &str) -> Result<&mut Inferring, String> {
            Ok(self.contexts.get_mut(number(at)?).ok_or("no such context")?)
        }
    }

    type Inferring = GraphExecutionContext<'static>;

    /// Sets an input by the name of its type; the outer error is one of the script.
    fn input(
        context: &mut Inferring,
        index: usize,
        kind: &str,
        dims: &[usize],
        numbers: &str,
    ) -> Result<Result<(), Error>, String> {
        Ok(match kind {
            "f16" => {
                let halves: Vec<u16> = list(numbers)?.into_iter().map(|number: f32| F16::from(number).0).collect();
                context.set_input(index, TensorType::F16, dims, halves)
            }
            "f32" => context.set_input(index, TensorType::F32, dims, list::<f32>(numbers)?),
            "f64" => context.set_input(index, TensorType::F64, dims, list::<f64>(numbers)?),
            "u8" => context.set_input(index, TensorType::U8, dims, list::<u8>(numbers)?),
            "i32" => context.set_input(index, TensorType::I32, dims, list::<i32>(numbers)?),
            "i64" => context.set_input(index, TensorType::I64, dims, list::<i64>(numbers)?),
            _ => return Err(format!("no such type: {kind}")),
        })
    }

    /// The numbers of an output by the name of its type; the outer error is one of the script.
    fn output(context: &Inferring, index: usize, kind: &str, count: usize) -> Result<Result<String, Error>, String> {
        Ok(match kind {
            "f16" => numbers(context, index, count, |half: &u16| f32::from(F16(*half))),
            "f32" => numbers(context, index, count, f32::clone),
            "f64" => numbers(context, index, count, f64::clone),
            "u8" => numbers(context, index, count, u8::clone),
            "i32" => numbers(context, index, count, i32::clone),
            "i64" => numbers(context, index, count, i64::clone),
            _ => return Err(format!("no such type: {kind}")),
        })
    }

    fn numbers<T: Default + Clone, S: Display>(
        context: &Inferring,
        index: usize,
        count: usize,
        show: impl Fn(&T) -> S,
    ) -> Result<String, Error> {
        let mut room = vec![T::default(); count];
        let found = context.get_output(index, &mut room)? / size_of::<T>();
        Ok(joined(&room.iter().take(found).map(show).collect::<Vec<_>>()))
    }

    fn number(word: &str) -> Result<usize, String> {
        word.parse().map_err(|_| format!("no number: {word}"))
    }

    /// `1,2,3` or `zeros:64`.
    fn list<T: FromStr + Default + Clone>(numbers: &str) -> Result<Vec<T>, String> {
        if let Some(count) = numbers.strip_prefix("zeros:") {
            return Ok(vec![T::default(); number(count)?]);
        }
        numbers
            .split(',')
            .map(|number| number.parse().map_err(|_| format!("no number of that type: {number}")))
            .collect()
    }

    fn path(file: &str) -> PathBuf {
        PathBuf::from(DIR_IN).join(file)
    }

    fn read(files: &[&str]) -> Result<Vec<Vec<u8>>, String> {
        files.iter().map(|file| std::fs::read(path(file)).map_err(|error| format!("{file}: {error}"))).collect()
    }

    fn encoding(word: &str) -> Result<GraphEncoding, String> {
        Ok(match word {
            "openvino" => GraphEncoding::Openvino,
            "onnx" => GraphEncoding::Onnx,
            "tensorflow" => GraphEncoding::Tensorflow,
            "pytorch" => GraphEncoding::Pytorch,
            "tensorflowlite" => GraphEncoding::TensorflowLite,
            "autodetect" => GraphEncoding::Autodetec,
            _ => return Err(format!("no such encoding: {word}")),
        })
    }

    fn target(word: &str) -> Result<ExecutionTarget, String> {
        Ok(match word {
            "cpu" => ExecutionTarget::CPU,
            "gpu" => ExecutionTarget::GPU,
            "tpu" => ExecutionTarget::TPU,
            "auto" => ExecutionTarget::AUTO,
            _ => return Err(format!("no such target: {word}")),
        })
    }

    fn name(error: &Error) -> String {
        match error {
            Error::IoError(error) => error.kind().to_string(),
            Error::BackendError(error) => format!("{error:?}"),
        }
    }
}
