//! The three shapes of a task's `main`, and how it ends.
//!
//! Each reads all of stdin, calls the author's function and writes stdout, so that a task that fails has written
//! nothing: its result is its exit code alone. Only [`lines`] writes as it goes, because its input may be larger than
//! the guest's memory. Whatever is said about a failure goes to stderr, which is a log and no part of the result.

use std::{
    fmt::Display,
    io::{self, BufRead, BufWriter, Read, Write},
    process::{ExitCode, Termination},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::abi::{EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED};

/// How a task ended. Returned from `main`, it becomes the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use = "return it from `main`, or the host sees a success"]
pub enum Exit {
    /// The output is complete.
    Done,
    /// The task's own function returned an error, or its output could not be written.
    Failed,
    /// The input is not what the task reads.
    BadInput,
}

impl Exit {
    /// The exit code that the host sees.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => EXIT_DONE,
            Self::Failed => EXIT_FAILED,
            Self::BadInput => EXIT_BAD_INPUT,
        }
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

/// A task over typed values: one CBOR value on stdin, one on stdout.
///
/// The value's type is the contract with whoever submits the job; [`encode`] and [`decode`] are the other side of it.
pub fn run<In, Out, E>(task: impl FnOnce(In) -> Result<Out, E>) -> Exit
where
    In: DeserializeOwned,
    Out: Serialize,
    E: Display,
{
    run_with(io::stdin().lock(), io::stdout().lock(), io::stderr().lock(), task)
}

/// [`run`] over streams of the caller's.
pub fn run_with<In, Out, E>(
    input: impl Read,
    output: impl Write,
    log: impl Write,
    task: impl FnOnce(In) -> Result<Out, E>,
) -> Exit
where
    In: DeserializeOwned,
    Out: Serialize,
    E: Display,
{
    whole(input, output, log, |bytes| {
        let value =
            decode(&bytes).map_err(|error| Stop::BadInput(format!("input is not the CBOR expected: {error}")))?;
        let result = task(value).map_err(|error| Stop::Failed(error.to_string()))?;
        encode(&result).map_err(|error| Stop::Failed(format!("output has no CBOR form: {error}")))
    })
}

/// A task over one UTF-8 text: all of stdin in, all of stdout out.
pub fn text<E: Display>(task: impl FnOnce(&str) -> Result<String, E>) -> Exit {
    text_with(io::stdin().lock(), io::stdout().lock(), io::stderr().lock(), task)
}

/// [`text`] over streams of the caller's.
pub fn text_with<E: Display>(
    input: impl Read,
    output: impl Write,
    log: impl Write,
    task: impl FnOnce(&str) -> Result<String, E>,
) -> Exit {
    whole(input, output, log, |bytes| {
        let text = String::from_utf8(bytes).map_err(|error| Stop::BadInput(format!("input is not UTF-8: {error}")))?;
        task(&text).map(String::into_bytes).map_err(|error| Stop::Failed(error.to_string()))
    })
}

/// A task over lines: each line of stdin, without its end, becomes one line of stdout.
///
/// Needs memory for one line only. The first error ends the task; lines before it have been written.
pub fn lines<Out: Display, E: Display>(task: impl FnMut(&str) -> Result<Out, E>) -> Exit {
    lines_with(io::stdin().lock(), io::stdout().lock(), io::stderr().lock(), task)
}

/// [`lines`] over streams of the caller's.
pub fn lines_with<Out: Display, E: Display>(
    input: impl BufRead,
    output: impl Write,
    log: impl Write,
    mut task: impl FnMut(&str) -> Result<Out, E>,
) -> Exit {
    let mut output = BufWriter::new(output);
    let each = || -> Result<(), Stop> {
        for (number, line) in (1u64..).zip(input.lines()) {
            let line = line.map_err(|error| Stop::BadInput(format!("line {number}: {error}")))?;
            let result = task(&line).map_err(|error| Stop::Failed(format!("line {number}: {error}")))?;
            writeln!(output, "{result}").map_err(Stop::unwritten)?;
        }
        output.flush().map_err(Stop::unwritten)
    };
    end(log, each())
}

/// The CBOR bytes of a value, as [`run`] writes them.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_cbor::Error> {
    serde_cbor::to_vec(value)
}

/// The value of these CBOR bytes, as [`run`] reads them: exactly one value, nothing after it.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_cbor::Error> {
    serde_cbor::from_slice(bytes)
}

/// Why a task stops early: an [`Exit`] other than done, with its line for the log.
pub(crate) enum Stop {
    Failed(String),
    BadInput(String),
}

impl Stop {
    pub(crate) fn unwritten(error: io::Error) -> Self {
        Self::Failed(format!("output cannot be written: {error}"))
    }
}

/// All of the input, through the task, to the output.
fn whole(
    mut input: impl Read,
    mut output: impl Write,
    log: impl Write,
    task: impl FnOnce(Vec<u8>) -> Result<Vec<u8>, Stop>,
) -> Exit {
    let pipeline = || -> Result<(), Stop> {
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes).map_err(|error| Stop::BadInput(format!("input cannot be read: {error}")))?;
        let result = task(bytes)?;
        output.write_all(&result).and_then(|()| output.flush()).map_err(Stop::unwritten)
    };
    end(log, pipeline())
}

/// How a task ends, with a line for the log when it is not done.
pub(crate) fn end(mut log: impl Write, result: Result<(), Stop>) -> Exit {
    let (exit, line) = match result {
        Ok(()) => return Exit::Done,
        Err(Stop::Failed(line)) => (Exit::Failed, line),
        Err(Stop::BadInput(line)) => (Exit::BadInput, line),
    };
    // The log may be full or closed; the exit code is what counts, and it stands.
    let _ = writeln!(log, "{line}");
    exit
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// Runs a typed task over bytes and gives its exit, stdout and stderr.
    fn sum(input: &[u8]) -> (Exit, Vec<u8>, String) {
        let (mut output, mut log) = (Vec::new(), Vec::new());
        let exit = run_with(input, &mut output, &mut log, |numbers: Vec<u64>| {
            numbers.iter().try_fold(0u64, |sum, n| sum.checked_add(*n)).ok_or("the sum passes 64 bits")
        });
        (exit, output, String::from_utf8(log).unwrap())
    }

    #[test]
    fn a_typed_task_reads_and_writes_cbor() {
        let (exit, output, log) = sum(&encode(&[1u64, 2, 39]).unwrap());
        assert_eq!((exit, decode::<u64>(&output).unwrap(), log.as_str()), (Exit::Done, 42, ""));
    }

    #[test]
    fn a_failing_task_writes_nothing_and_says_why_in_the_log() {
        let (exit, output, log) = sum(&encode(&[u64::MAX, 1]).unwrap());
        assert_eq!((exit, output, log.as_str()), (Exit::Failed, vec![], "the sum passes 64 bits\n"));
    }

    #[test]
    fn input_that_is_not_the_type_is_bad_input() {
        let two_values = [encode(&[1u64]).unwrap(), encode(&[2u64]).unwrap()].concat();
        for input in [&b""[..], b"\xff", &encode(&"text").unwrap(), &two_values] {
            let (exit, output, log) = sum(input);
            assert_eq!((exit, output.len()), (Exit::BadInput, 0), "{input:?}");
            assert_eq!(log.lines().count(), 1, "{log}");
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_bad_input() {
        let (mut output, mut log) = (Vec::new(), Vec::new());
        let upper = |text: &str| Ok::<_, Infallible>(text.to_uppercase());
        assert_eq!(text_with(&b"grid\n"[..], &mut output, &mut log, upper), Exit::Done);
        assert_eq!(output, b"GRID\n");
        assert_eq!(text_with(&b"\xc3("[..], &mut output, &mut log, upper), Exit::BadInput);
    }

    #[test]
    fn lines_become_lines_until_one_fails() {
        let (mut output, mut log) = (Vec::new(), Vec::new());
        let double = |line: &str| line.parse::<u32>().map(|n| n * 2);
        assert_eq!(lines_with(&b"1\r\n2\nthree\n4"[..], &mut output, &mut log, double), Exit::Failed);
        assert_eq!(output, b"2\n4\n");
        assert!(String::from_utf8(log).unwrap().starts_with("line 3: "));
    }

    #[test]
    fn output_that_cannot_be_written_is_a_failure() {
        let input = encode(&[1u64; 8]).unwrap();
        let exit = run_with(&input[..], &mut [0u8; 2][..], io::sink(), Ok::<Vec<u64>, Infallible>);
        assert_eq!(exit, Exit::Failed);
    }
}
