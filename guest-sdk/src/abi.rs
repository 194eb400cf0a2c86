//! The only contract between guest and host: names and numbers, no code.
//!
//! A guest is a WASI preview-1 command. Everything else it may touch is listed here, and the host uses these same
//! constants.

/// The exported function that a task with steps is called by again and again, after `_start` has returned: no parameters, an
/// `i32` as its result.
pub const STEP: &str = "step";
/// Result of [`STEP`]: the task is done. Any other is for more.
pub const STEP_DONE: i32 = 0;
/// Result of [`STEP`]: call it again.
pub const STEP_MORE: i32 = 1;

/// Environment variable that holds the shard's index in its job, from 0.
pub const ENV_SHARD: &str = "QUORATE_SHARD";
/// Environment variable that holds the number of shards of the job.
pub const ENV_SHARDS: &str = "QUORATE_SHARDS";
/// Environment variable that says which part of the job runs: [`STAGE_MAP`] or [`STAGE_REDUCE`].
pub const ENV_STAGE: &str = "QUORATE_STAGE";
/// Value of [`ENV_STAGE`] in a shard.
pub const STAGE_MAP: &str = "map";
/// Value of [`ENV_STAGE`] in the one task that joins the shards' outputs.
pub const STAGE_REDUCE: &str = "reduce";

/// Named input blobs appear here, read-only.
pub const DIR_IN: &str = "/in";
/// Files written here belong to the output.
pub const DIR_OUT: &str = "/out";
/// Scratch, gone with the task.
pub const DIR_TMP: &str = "/tmp";

/// Exit code of a task that did its work.
pub const EXIT_DONE: u8 = 0;
/// Exit code of a task whose own work failed; what a task's `Err` becomes.
pub const EXIT_FAILED: u8 = 1;
/// Exit code of a task that could not read its input.
pub const EXIT_BAD_INPUT: u8 = 2;

/// Import module of the WASI functions.
pub const WASI_MODULE: &str = "wasi_snapshot_preview1";

/// Hashing by the host: functions of a message's address and length and of where its digest goes, as 32-bit numbers.
/// They give [`DONE`](hash::DONE) or [`OUTSIDE_MEMORY`](hash::OUTSIDE_MEMORY).
pub mod hash {
    /// Import module of the hash functions, `blake3` and `sha256`.
    pub const MODULE: &str = "quorate_hash";
    /// Length in bytes of a digest of either function.
    pub const DIGEST_BYTES: usize = 32;
    /// The digest is written.
    pub const DONE: u32 = 0;
    /// The message or the place for its digest lies outside the guest's memory; nothing is written.
    pub const OUTSIDE_MEMORY: u32 = 1;
}

/// wasi-nn as core modules import it (module `wasi_ephemeral_nn`): the numbers of the specification's witx.
pub mod nn {
    /// Import module of the inference functions.
    pub const MODULE: &str = "wasi_ephemeral_nn";

    /// `tensor_type` of the specification.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    #[repr(u8)]
    pub enum TensorType {
        /// IEEE half, 2 bytes.
        F16 = 0,
        /// IEEE single, 4 bytes.
        F32 = 1,
        /// IEEE double, 8 bytes.
        F64 = 2,
        /// Unsigned byte.
        U8 = 3,
        /// Signed, 4 bytes.
        I32 = 4,
        /// Signed, 8 bytes.
        I64 = 5,
    }

    impl TensorType {
        /// Every type, in the order of their numbers.
        pub const ALL: [Self; 6] = [Self::F16, Self::F32, Self::F64, Self::U8, Self::I32, Self::I64];

        /// The type with this number, if there is one.
        pub fn from_code(code: u32) -> Option<Self> {
            Self::ALL.get(usize::try_from(code).ok()?).copied()
        }

        /// A stable word, as declarations of models have it.
        pub const fn word(self) -> &'static str {
            match self {
                Self::F16 => "f16",
                Self::F32 => "f32",
                Self::F64 => "f64",
                Self::U8 => "u8",
                Self::I32 => "i32",
                Self::I64 => "i64",
            }
        }

        /// Bytes of one element.
        pub const fn element_bytes(self) -> usize {
            match self {
                Self::U8 => 1,
                Self::F16 => 2,
                Self::F32 | Self::I32 => 4,
                Self::F64 | Self::I64 => 8,
            }
        }
    }

    /// `nn_errno` of the specification; 0 is success.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    #[repr(u16)]
    pub enum Errno {
        /// The call did what it says.
        Success = 0,
        /// An argument is wrong.
        InvalidArgument = 1,
        /// The encoding of a model is unknown here.
        InvalidEncoding = 2,
        /// A guest pointer or length lies outside the guest's memory.
        MissingMemory = 3,
        /// The handle is in use.
        Busy = 4,
        /// The backend failed.
        RuntimeError = 5,
        /// The operation is not supported.
        UnsupportedOperation = 6,
        /// The value or a quota is too large.
        TooLarge = 7,
        /// No graph has that name.
        NotFound = 8,
    }

    impl Errno {
        /// Every number, in order.
        pub const ALL: [Self; 9] = [
            Self::Success,
            Self::InvalidArgument,
            Self::InvalidEncoding,
            Self::MissingMemory,
            Self::Busy,
            Self::RuntimeError,
            Self::UnsupportedOperation,
            Self::TooLarge,
            Self::NotFound,
        ];

        /// The meaning of this number, if the specification gives it one.
        pub fn from_code(code: u32) -> Option<Self> {
            Self::ALL.get(usize::try_from(code).ok()?).copied()
        }
    }

    /// `graph_encoding` of the specification for ONNX.
    pub const ENCODING_ONNX: u32 = 1;
    /// `execution_target` of the specification: the processor.
    pub const TARGET_CPU: u32 = 0;
    /// `execution_target` of the specification: a GPU.
    pub const TARGET_GPU: u32 = 1;
    /// `execution_target` of the specification: an accelerator of another kind.
    pub const TARGET_TPU: u32 = 2;
}
