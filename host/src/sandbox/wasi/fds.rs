//! The table of open descriptors: 0, 1 and 2 are the standard streams, 3 is `/`.

use super::{
    errno::Errno,
    tree::{self, Ino},
};
use crate::{limits, sandbox::state::State};

pub(super) const RIGHT_READ: u64 = 1 << 1;
pub(super) const RIGHT_WRITE: u64 = 1 << 6;
const RIGHT_ALLOCATE: u64 = 1 << 8;
const RIGHT_SET_SIZE: u64 = 1 << 22;
/// Of a directory: emptying files while they are opened.
pub(super) const RIGHT_PATH_SET_SIZE: u64 = 1 << 19;
/// Rights that only writing needs.
pub(super) const RIGHTS_WRITE: u64 = RIGHT_WRITE | RIGHT_ALLOCATE | RIGHT_SET_SIZE;
/// All thirty rights of the specification.
pub(super) const RIGHTS_ALL: u64 = (1 << 30) - 1;
/// Seeking and telling: a stream has neither, which is how libc knows it from a file.
const RIGHTS_SEEK: u64 = 1 << 2 | 1 << 5;
/// What a directory can be opened with.
pub(super) const RIGHTS_DIR: u64 = RIGHTS_ALL & !(RIGHT_READ | RIGHTS_WRITE | RIGHTS_SEEK);
/// Flag of a descriptor that always writes at the end.
pub(super) const FLAG_APPEND: u16 = 1;

/// What a descriptor stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) enum Kind {
    Stdin,
    Stdout,
    Stderr,
    Dir(Ino),
    File(Ino),
}

/// An open descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) struct Fd {
    pub(super) kind: Kind,
    /// Where the next read or write starts.
    pub(super) at: u64,
    pub(super) flags: u16,
    pub(super) rights: u64,
    pub(super) inheriting: u64,
    pub(super) preopened: bool,
}

impl Fd {
    fn stream(kind: Kind, right: u64) -> Self {
        let rights = RIGHTS_ALL & !RIGHTS_SEEK & !(RIGHT_READ | RIGHTS_WRITE) | right;
        Self { kind, at: 0, flags: 0, rights, inheriting: 0, preopened: false }
    }
}

/// The descriptors of one task.
#[derive(Debug)]
pub(in crate::sandbox) struct Fds(Vec<Option<Fd>>);

impl Fds {
    pub(in crate::sandbox) fn new() -> Self {
        let root = Fd {
            kind: Kind::Dir(tree::ROOT),
            at: 0,
            flags: 0,
            rights: RIGHTS_DIR,
            inheriting: RIGHTS_ALL,
            preopened: true,
        };
        Self(vec![
            Some(Fd::stream(Kind::Stdin, RIGHT_READ)),
            Some(Fd::stream(Kind::Stdout, RIGHT_WRITE)),
            Some(Fd::stream(Kind::Stderr, RIGHT_WRITE)),
            Some(root),
        ])
    }

    /// Whether they are those that a task begins with, as they were then.
    pub(in crate::sandbox) fn are_first(&self) -> bool {
        let Self(first) = Self::new();
        let (own, more) = self.0.split_at(first.len().min(self.0.len()));
        own == first && more.iter().all(Option::is_none)
    }

    pub(super) fn get(&self, fd: u32) -> Result<&Fd, Errno> {
        self.0.get(fd as usize).and_then(Option::as_ref).ok_or(Errno::BadF)
    }

    pub(super) fn get_mut(&mut self, fd: u32) -> Result<&mut Fd, Errno> {
        self.0.get_mut(fd as usize).and_then(Option::as_mut).ok_or(Errno::BadF)
    }

    /// The lowest free number, if another descriptor may be opened.
    pub(super) fn free(&self) -> Result<usize, Errno> {
        let free = self.0.iter().position(Option::is_none).unwrap_or(self.0.len());
        if free < limits::FDS_MAX { Ok(free) } else { Err(Errno::MFile) }
    }

    /// Puts a descriptor at the lowest free number.
    pub(super) fn insert(&mut self, fd: Fd) -> Result<u32, Errno> {
        let free = self.free()?;
        if free == self.0.len() {
            self.0.push(None);
        }
        *self.0.get_mut(free).ok_or(Errno::MFile)? = Some(fd);
        u32::try_from(free).map_err(|_| Errno::MFile)
    }

    /// Takes a descriptor out.
    pub(super) fn remove(&mut self, fd: u32) -> Result<Fd, Errno> {
        self.0.get_mut(fd as usize).and_then(Option::take).ok_or(Errno::BadF)
    }

    /// Puts a descriptor where another one was just removed.
    pub(super) fn put(&mut self, fd: u32, value: Fd) {
        if let Some(slot) = self.0.get_mut(fd as usize) {
            *slot = Some(value);
        }
    }
}

impl State {
    /// Bytes that a read of `fd` would find at once.
    pub(super) fn readable(&self, fd: u32) -> Result<u64, Errno> {
        let fd = self.fds.get(fd)?;
        let left = match fd.kind {
            Kind::Stdin => (self.stdin.len() - self.stdin_at.min(self.stdin.len())) as u64,
            Kind::File(ino) => {
                let len = self.tree.as_ref().ok_or(Errno::BadF)?.node(ino)?.bytes().len() as u64;
                len.saturating_sub(fd.at)
            }
            Kind::Stdout | Kind::Stderr | Kind::Dir(_) => 0,
        };
        Ok(left)
    }
}
