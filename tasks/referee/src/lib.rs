//! tract in the sandbox: the inference backend that is a module itself.
//!
//! The host calls `_start` for each question, and keeps and restores this module's memory between calls, so that the answer
//! depends on the model and the inputs alone. What it does is in files of the host's, which are compiled in here: the native
//! backend reads, checks and runs models by the same code.
//!
//! A panic ends the call: the host drops the memory with it, and the model fails.

use std::{
    cell::Cell,
    io::{self, Read, Write},
};

// A package outside this one would be named by where it lies, and the module's hash, which is part of the engine's fingerprint,
// would be another in each clone.
extern crate self as guest_sdk;

#[allow(dead_code, reason = "some of it is for tasks alone")]
#[path = "../../../guest-sdk/src/abi.rs"]
pub mod abi;
mod limits;

/// The part of the host's tree that is compiled in, under its names there, and what makes a backend of it.
#[path = "../../../host/src/sandbox"]
mod sandbox {
    #[path = "../../../tasks/referee/src/answer.rs"]
    pub(crate) mod answer;

    pub(crate) mod nn {
        #[allow(dead_code, reason = "some of it is the host's alone")]
        pub(crate) mod tensor;
        pub(crate) mod tract {
            mod bounded;
            pub(crate) mod model;
            mod tanh;
        }
        pub(crate) mod referee {
            #[allow(dead_code, reason = "the other half of it is for the other side")]
            pub(crate) mod wire;
        }
    }
}

unsafe extern "C" {
    /// Has what libraries want to be done before anything else, once.
    fn __wasm_call_ctors();
}

thread_local! {
    static STARTED: Cell<bool> = const { Cell::new(false) };
}

/// Answers one question.
#[unsafe(no_mangle)]
pub extern "C" fn _start() {
    if !STARTED.replace(true) {
        // SAFETY: it is the first call of an instance, whose memory is as the linker made it.
        unsafe { __wasm_call_ctors() };
    }
    let mut question = Vec::new();
    io::stdin().lock().read_to_end(&mut question).expect("standard input is a question");
    let answer = sandbox::answer::answer(question);
    let mut stdout = io::stdout().lock();
    // It keeps what follows the last new line, and nothing flushes it at the end of a program that does not end.
    stdout.write_all(&answer).and_then(|()| stdout.flush()).expect("standard output has room for an answer");
}
