//! The error numbers of preview 1 that are used here.

use crate::sandbox::state::{Fail, Full};

/// `errno` of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(in crate::sandbox) enum Errno {
    BadF = 8,
    Exist = 20,
    Fault = 21,
    FBig = 22,
    IlSeq = 25,
    Inval = 28,
    IsDir = 31,
    Loop = 32,
    MFile = 33,
    NameTooLong = 37,
    NoEnt = 44,
    NoSpc = 51,
    NotDir = 54,
    NotEmpty = 55,
    NotSock = 57,
    Overflow = 61,
    Perm = 63,
    RoFs = 69,
    SPipe = 70,
    XDev = 75,
    NotCapable = 76,
}

impl From<Errno> for Fail {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno as u32)
    }
}

impl From<Full> for Fail {
    fn from(full: Full) -> Self {
        match full {
            Full::Output => Self::Stop(crate::sandbox::state::Stop::Output),
            Full::Scratch => Errno::NoSpc.into(),
        }
    }
}
