//! Tasks in steps: state that is worked on piece by piece, so that it can be kept in between.
//!
//! The host calls [`Steps::step`] again and again, with nothing on the stack in between, and keeps the task's state after
//! every so many calls: it is hashed into what the host signs, so that a dispute is about one piece and not the whole, and a
//! task whose host is lost goes on elsewhere. The author writes a state, how it begins and how it goes on:
//!
//! ```
//! use guest_sdk::{Next, Steps};
//!
//! /// How many steps a number takes to 1 in Collatz's game.
//! struct Collatz {
//!     number: u64,
//!     steps: u64,
//! }
//!
//! impl Steps for Collatz {
//!     type Error = String;
//!
//!     fn begin(input: Vec<u8>) -> Result<Self, String> {
//!         let text = String::from_utf8(input).map_err(|error| error.to_string())?;
//!         let number = text.trim().parse().map_err(|error| format!("{text:?} is no number: {error}"))?;
//!         Ok(Self { number, steps: 0 })
//!     }
//!
//!     fn step(&mut self) -> Result<Next, String> {
//!         if self.number <= 1 {
//!             return Ok(Next::Done(self.steps.to_string().into_bytes()));
//!         }
//!         self.number = if self.number % 2 == 0 { self.number / 2 } else { 3 * self.number + 1 };
//!         self.steps += 1;
//!         Ok(Next::More)
//!     }
//! }
//!
//! # mod task {
//! # use super::Collatz;
//! guest_sdk::steps!(Collatz);
//! # }
//! # fn main() {
//! let mut output = Vec::new();
//! guest_sdk::steps_with::<Collatz>(&b"27"[..], &mut output, std::io::sink());
//! assert_eq!(output, b"111");
//! # }
//! ```
//!
//! A step should take some milliseconds: much shorter ones cost their calls, much longer ones are long pieces. A task may
//! write to standard output in any step; what it says with [`Next::Done`] comes last.

use std::{
    cell::RefCell,
    fmt::Display,
    io::{self, Read, Write},
    process,
};

use crate::{
    abi::{STEP_DONE, STEP_MORE},
    entry::{Exit, Stop, end},
};

/// A task in steps, and its state between them.
pub trait Steps: Sized {
    /// Why it cannot go on. An error of [`begin`](Self::begin) is bad input; one of [`step`](Self::step) a failure.
    type Error: Display;

    /// The state that it begins with, of all of standard input.
    ///
    /// # Errors
    /// When the input is not what the task reads.
    fn begin(input: Vec<u8>) -> Result<Self, Self::Error>;

    /// One step.
    ///
    /// # Errors
    /// When the task fails: it has then written nothing more.
    fn step(&mut self) -> Result<Next, Self::Error>;
}

/// What comes after a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Another one.
    More,
    /// Nothing: these bytes are the end of the output.
    Done(Vec<u8>),
}

/// Makes a program of a type that is [`Steps`]: its `main`, and the function that the host calls for each step. Natively, `main`
/// runs all steps.
#[macro_export]
macro_rules! steps {
    ($task:ty) => {
        #[cfg(target_arch = "wasm32")]
        ::std::thread_local! {
            static TASK: ::std::cell::RefCell<::std::option::Option<$task>> =
                const { ::std::cell::RefCell::new(::std::option::Option::None) };
        }

        #[cfg(target_arch = "wasm32")]
        fn main() -> $crate::Exit {
            TASK.with($crate::begin)
        }

        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "the host finds the function by this name, which nothing else here has")]
        #[unsafe(no_mangle)]
        extern "C" fn step() -> i32 {
            TASK.with($crate::step)
        }

        #[cfg(not(target_arch = "wasm32"))]
        #[allow(dead_code, reason = "of a task that is a module of a test")]
        fn main() -> $crate::Exit {
            $crate::steps_with::<$task>(::std::io::stdin(), ::std::io::stdout(), ::std::io::stderr())
        }
    };
}

/// All steps of a task over streams of the caller's.
pub fn steps_with<T: Steps>(input: impl Read, mut output: impl Write, log: impl Write) -> Exit {
    let all = || -> Result<(), Stop> {
        let mut task = begun::<T>(input)?;
        while stepped(&mut task, &mut output)? == STEP_MORE {}
        Ok(())
    };
    end(log, all())
}

/// Begins a task: its `main`, for [`steps!`].
#[doc(hidden)]
pub fn begin<T: Steps>(task: &RefCell<Option<T>>) -> Exit {
    let begun = begun(io::stdin().lock()).map(|begun| drop(task.replace(Some(begun))));
    end(io::stderr().lock(), begun)
}

/// One step of a task that has begun, for [`steps!`]. Ends the program when it fails.
#[doc(hidden)]
pub fn step<T: Steps>(task: &RefCell<Option<T>>) -> i32 {
    let mut task = task.borrow_mut();
    // The host steps no task that has not begun.
    let Some(task) = task.as_mut() else { return STEP_DONE };
    match stepped(task, io::stdout().lock()) {
        Ok(next) => next,
        Err(stop) => process::exit(end(io::stderr().lock(), Err(stop)).code().into()),
    }
}

fn begun<T: Steps>(mut input: impl Read) -> Result<T, Stop> {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes).map_err(|error| Stop::BadInput(format!("input cannot be read: {error}")))?;
    T::begin(bytes).map_err(|error| Stop::BadInput(error.to_string()))
}

fn stepped<T: Steps>(task: &mut T, mut output: impl Write) -> Result<i32, Stop> {
    match task.step().map_err(|error| Stop::Failed(error.to_string()))? {
        Next::More => Ok(STEP_MORE),
        Next::Done(bytes) => {
            output.write_all(&bytes).and_then(|()| output.flush()).map_err(Stop::unwritten)?;
            Ok(STEP_DONE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts down from its input, and fails at 13.
    struct Countdown(u32);

    impl Steps for Countdown {
        type Error = String;

        fn begin(input: Vec<u8>) -> Result<Self, String> {
            let text = String::from_utf8(input).map_err(|error| error.to_string())?;
            text.parse().map(Self).map_err(|error| format!("{text:?}: {error}"))
        }

        fn step(&mut self) -> Result<Next, String> {
            match self.0 {
                0 => return Ok(Next::Done(b"lift-off".to_vec())),
                13 => return Err("unlucky".to_owned()),
                _ => self.0 -= 1,
            }
            Ok(Next::More)
        }
    }

    fn run(input: &str) -> (Exit, String, String) {
        let (mut output, mut log) = (Vec::new(), Vec::new());
        let exit = steps_with::<Countdown>(input.as_bytes(), &mut output, &mut log);
        (exit, String::from_utf8(output).unwrap(), String::from_utf8(log).unwrap())
    }

    #[test]
    fn a_task_steps_until_it_is_done() {
        assert_eq!(run("7"), (Exit::Done, "lift-off".to_owned(), String::new()));
        assert_eq!(run("0"), (Exit::Done, "lift-off".to_owned(), String::new()));
    }

    #[test]
    fn a_beginning_that_fails_is_bad_input_and_a_step_that_fails_a_failure() {
        let (exit, output, log) = run("seven");
        assert_eq!((exit, output.as_str()), (Exit::BadInput, ""));
        assert!(log.starts_with("\"seven\": "), "{log}");
        assert_eq!(run("20"), (Exit::Failed, String::new(), "unlucky\n".to_owned()));
    }

    #[test]
    fn steps_one_by_one_come_to_the_same() {
        let task = RefCell::new(Some(Countdown(3)));
        let steps = (0..).take_while(|_| step(&task) == STEP_MORE).count();
        assert_eq!((steps, step::<Countdown>(&RefCell::new(None))), (3, STEP_DONE));
    }
}
