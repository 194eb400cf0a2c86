//! What a process does to itself before it reads anything untrusted, so that code which breaks out of WebAssembly, or out of
//! a parser, finds itself in an empty room. There is no way back: a jailed process does its work and ends.
//!
//! Each layer is the kernel's, each is entered by itself, and each stops something alone: `tests/all/isolation.rs` tries
//! every cell of this table with native code, one layer at a time.
//!
//! | native code tries to | privileges | descriptors | rlimits | landlock | seccomp |
//! |---|---|---|---|---|---|
//! | read a descriptor of its parent | | stopped | | | |
//! | read a file of the host | | | | stopped | stopped |
//! | ask whether a file of the host exists | | | | | stopped |
//! | write a file outside its own directory | | | | stopped | stopped |
//! | fill the disk | | | killed | | stopped |
//! | connect by TCP | | | | stopped | killed |
//! | send by UDP | | | | | killed |
//! | speak to a service at an abstract Unix address | | | | stopped | killed |
//! | start another process | | | | | killed |
//! | run another program | | | | stopped | killed |
//! | allocate without end | | | stopped | | |
//! | allocate shared memory, which is not counted as data | | | | | stopped |
//! | open descriptors without end | | | stopped | | stopped |
//! | compute without end | | | killed | | |
//! | kill a process outside | | | | stopped | stopped |
//! | trace a process outside | stopped | | | stopped | killed |
//! | change what is mounted | stopped | | | stopped | killed |
//! | raise its own limits | stopped | | | | stopped |
//!
//! *Stopped* is an error number, *killed* the end of the process. The column of *privileges* speaks of a host that runs as root:
//! any other has none to lose, so that its processes mount nothing and raise nothing anyway, and may trace each other unless
//! landlock or seccomp is there.
//!
//! # With a driver inside
//! What infers on a GPU does so through its driver: libraries with threads of their own, which open files and devices as they
//! work. [`Jail::drivers`] leaves that much open, and a process enters in two steps: everything but seccomp before the driver
//! is loaded ([`open`]), so that it and its threads are inside from the start; seccomp for all threads when the driver is up
//! ([`shut`]), and before anything of others is read. Compared with the table:
//! - files of the system's libraries, of `/sys` and of the driver's configuration can be read, and whether any file exists be
//!   asked; landlock stops all others, and there is no such jail without landlock;
//! - requests to the GPU's device files (`ioctl`) are not looked at: a flaw of the kernel's driver is within reach;
//! - shared memory can be had without bound, and address space; what the GPU keeps between tasks is up to its driver.
//!
//! An old kernel has not all of it. What is missing is never silent: [`enter`] gives the [`Gap`]s, for the parent to say, and
//! to refuse where its owner wants it so.

mod descriptors;
mod landlock;
mod privileges;
mod rlimits;
mod seccomp;

use std::{fmt, io, path::PathBuf};

use serde::{Deserialize, Serialize};

/// One layer of a jail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// No capability, and no program that gives one back.
    Privileges,
    /// No descriptor but the standard three.
    Descriptors,
    /// The kernel's limits on memory, time, files and descriptors.
    Rlimits,
    /// No path but one directory, no TCP, no signal to a process outside.
    Landlock,
    /// No system call but those that computing needs.
    Seccomp,
}

impl Layer {
    /// All of them, in the order in which they are entered.
    pub const ALL: [Self; 5] = [Self::Descriptors, Self::Rlimits, Self::Privileges, Self::Landlock, Self::Seccomp];

    /// A stable word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Privileges => "privileges",
            Self::Descriptors => "descriptors",
            Self::Rlimits => "rlimits",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A set of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layers(u8);

impl Layers {
    /// Every layer: what a host uses. Others are for tests of one layer.
    pub const ALL: Self = Self(u8::MAX);
    /// No layer.
    pub const NONE: Self = Self(0);

    /// One layer alone.
    pub const fn only(layer: Layer) -> Self {
        Self(layer.bit())
    }

    /// The same without one.
    #[must_use]
    pub const fn without(self, layer: Layer) -> Self {
        Self(self.0 & !layer.bit())
    }

    /// Whether a layer is in it.
    pub const fn has(self, layer: Layer) -> bool {
        self.0 & layer.bit() != 0
    }
}

/// What a process may still do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jail {
    /// What is entered.
    pub layers: Layers,
    /// Processor time in seconds in the life of the process, all threads together, before it is killed.
    pub cpu_s_max: Option<u64>,
    /// Memory in bytes that the process may write to: heap, stacks of threads, and private mappings.
    pub data_bytes_max: Option<u64>,
    /// Address space in bytes, reserved or used: what its page tables may grow with.
    pub address_bytes_max: Option<u64>,
    /// Length in bytes of a file that it may write, one in memory too.
    pub file_bytes_max: u64,
    /// Descriptors that it may have open.
    pub descriptors_max: u64,
    /// Its current directory, and with [`Layer::Landlock`] the only place where it may open anything. [`Layer::Seccomp`] lets
    /// it open nothing at all.
    pub own_dir: PathBuf,
    /// Whether it is killed when the thread that started it ends.
    pub dies_with_parent: bool,
    /// What a driver of a GPU needs, if one is to work inside.
    pub drivers: Option<Drivers>,
}

/// What stays open for a driver of a GPU. Paths that do not exist are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drivers {
    /// Files and directories that may be read.
    pub readable: Vec<PathBuf>,
    /// Device files, and directories of them, that may be read, written and asked.
    pub devices: Vec<PathBuf>,
}

/// Protection that this kernel does not give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(deny_unknown_fields)]
#[error("layer {layer} is not complete: {detail}")]
pub struct Gap {
    /// Of which layer.
    pub layer: Layer,
    /// What is missing.
    pub detail: String,
}

/// Why a process is not jailed. It must not go on.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// It has threads, which would stay outside.
    #[error("process has {threads} threads before it is jailed: enter first, then start threads")]
    Threads {
        /// As counted.
        threads: usize,
    },
    /// The own directory.
    #[error("own directory {}: {source}", path.display())]
    OwnDir {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel has the layer and refused it.
    #[error("layer {layer}: {call}: {source}")]
    Refused {
        /// Which layer.
        layer: Layer,
        /// What was asked of the kernel.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A driver opens files as it works, and nothing but landlock says which.
    #[error("layer landlock: the kernel has none, and without it a GPU's driver could open any file of this machine")]
    Drivers,
    /// The rules of a layer do not fit together: a bug.
    #[error("layer {layer}: {detail}")]
    Rules {
        /// Which layer.
        layer: Layer,
        /// What the library said.
        detail: String,
    },
}

fn refused(layer: Layer, call: &'static str) -> impl FnOnce(rustix::io::Errno) -> JailError {
    move |errno| JailError::Refused { layer, call, source: errno.into() }
}

/// Enters the jail. Call it first thing in the process: what was opened before is closed, and threads that run already would
/// stay outside.
///
/// # Errors
/// When the process has threads, or the kernel refuses what it claims to have. A layer that the kernel lacks is no error but
/// one of the [`Gap`]s.
pub fn enter(jail: &Jail) -> Result<Vec<Gap>, JailError> {
    let mut gaps = open(jail)?;
    gaps.extend(shut(jail)?);
    Ok(gaps)
}

/// Enters all layers but the last: from here on the process can load a driver. [`shut`] has to follow, before anything of others
/// is read.
///
/// # Errors
/// As [`enter`].
pub fn open(jail: &Jail) -> Result<Vec<Gap>, JailError> {
    // Where it cannot be counted there is no /proc, and nothing to be afraid of at the start of a process.
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        return Err(JailError::Threads { threads });
    }
    let mut gaps = Vec::new();
    if jail.layers.has(Layer::Descriptors) {
        gaps.extend(descriptors::enter()?);
    }
    std::env::set_current_dir(&jail.own_dir)
        .map_err(|source| JailError::OwnDir { path: jail.own_dir.clone(), source })?;
    if jail.layers.has(Layer::Rlimits) {
        rlimits::enter(jail)?;
    }
    // A change of credentials would clear what `bind_to_parent` sets, so that comes second.
    if jail.layers.has(Layer::Privileges) {
        privileges::enter()?;
    }
    privileges::bind_to_parent(jail.dies_with_parent)?;
    if jail.layers.has(Layer::Landlock) {
        gaps.extend(landlock::enter(jail)?);
    }
    Ok(gaps)
}

/// Enters the last layer, with all threads that there are by now.
///
/// # Errors
/// As [`enter`].
pub fn shut(jail: &Jail) -> Result<Option<Gap>, JailError> {
    if jail.layers.has(Layer::Seccomp) { seccomp::enter(jail.drivers.is_some()) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_layers_has_what_was_put_into_it() {
        for layer in Layer::ALL {
            let others = Layer::ALL.into_iter().filter(|other| *other != layer);
            assert!(Layers::only(layer).has(layer) && !Layers::ALL.without(layer).has(layer) && Layers::ALL.has(layer));
            for other in others {
                assert!(!Layers::only(layer).has(other) && Layers::ALL.without(layer).has(other));
            }
        }
    }

    #[test]
    fn a_process_with_threads_is_not_jailed() {
        // As every process of this harness is: the main thread waits for the one that runs the test.
        let jail = Jail {
            layers: Layers::ALL,
            cpu_s_max: None,
            data_bytes_max: None,
            address_bytes_max: None,
            file_bytes_max: 0,
            descriptors_max: 8,
            own_dir: PathBuf::from("/"),
            dies_with_parent: false,
            drivers: None,
        };
        assert!(matches!(enter(&jail), Err(JailError::Threads { threads: 2.. })));
    }

    #[test]
    fn every_filter_compiles_for_every_architecture_that_has_one() {
        for has_drivers in [false, true] {
            seccomp::programs(has_drivers).unwrap();
        }
    }
}
