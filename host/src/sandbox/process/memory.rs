//! Memory for the models of all processes of a pool: each has its own sessions, and together they keep to one bound.
//!
//! A process that is to load a model takes room for it first. Where there is none, processes that have nothing to do let go of
//! theirs; where that does not do, the task waits until another one ends, holding nothing meanwhile, so that of tasks that wait
//! for each other one goes on. What sessions grow by while a task runs is counted when it is done, and given back by those
//! that rest.
//!
//! What a process says that it holds is believed for this sum alone: the kernel bounds what it can have.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// The sum.
pub(super) struct Memory {
    bytes_max: AtomicU64,
    held: Mutex<Held>,
    freed: Condvar,
    evicted: AtomicU64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Of sessions, and of room that was taken for some.
    pub(super) bytes: u64,
    pub(super) sessions: u64,
}

impl Memory {
    pub(super) fn new(bytes_max: u64) -> Arc<Self> {
        let bytes_max = AtomicU64::new(bytes_max);
        Arc::new(Self { bytes_max, held: Mutex::default(), freed: Condvar::new(), evicted: AtomicU64::new(0) })
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is no more than so much.
    pub(super) fn bound(&self, bytes_max: u64) {
        self.bytes_max.fetch_min(bytes_max, Ordering::Relaxed);
    }

    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max.load(Ordering::Relaxed)
    }

    pub(super) fn held(&self) -> Held {
        *self.lock()
    }

    /// Bytes that it is over its bound by, were so many more taken.
    pub(super) fn excess(&self, more: u64) -> u64 {
        self.held().bytes.saturating_add(more).saturating_sub(self.bytes_max())
    }

    /// Sessions that processes let go of since the start.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Waits until somebody may have given room back, or for so long.
    pub(super) fn wait(&self, ms: u64) {
        let held = self.lock();
        drop(self.freed.wait_timeout(held, Duration::from_millis(ms)).unwrap_or_else(PoisonError::into_inner));
    }

    /// Has everybody look again who waits: a process has nothing to do any more.
    pub(super) fn look(&self) {
        self.freed.notify_all();
    }
}

/// What one process has of it. Given back when dropped.
pub(super) struct Room {
    memory: Arc<Memory>,
    own: Held,
}

impl Room {
    pub(super) fn new(memory: &Arc<Memory>) -> Self {
        Self { memory: Arc::clone(memory), own: Held::default() }
    }

    /// Has so many bytes in all, if that keeps to the bound.
    pub(super) fn take(&mut self, bytes: u64) -> bool {
        let mut held = self.memory.lock();
        let sum = held.bytes.saturating_sub(self.own.bytes).saturating_add(bytes);
        let fits = sum <= self.memory.bytes_max();
        if fits {
            (held.bytes, self.own.bytes) = (sum, bytes);
        }
        fits
    }

    /// Has this, as it turned out.
    pub(super) fn set(&mut self, own: Held) {
        let mut held = self.memory.lock();
        held.bytes = held.bytes.saturating_sub(self.own.bytes).saturating_add(own.bytes);
        held.sessions = held.sessions.saturating_sub(self.own.sessions).saturating_add(own.sessions);
        if own.bytes < self.own.bytes {
            self.memory.freed.notify_all();
        }
        self.own = own;
    }

    /// Counts sessions that were let go of.
    pub(super) fn evicted(&self, sessions: usize) {
        self.memory.evicted.fetch_add(sessions as u64, Ordering::Relaxed);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.set(Held::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_within_the_bound_and_given_back() {
        let memory = Memory::new(10);
        let (mut one, mut two) = (Room::new(&memory), Room::new(&memory));
        assert!(one.take(6) && !two.take(5) && two.take(4));
        // One has grown, which it did not ask for.
        one.set(Held { bytes: 9, sessions: 2 });
        assert_eq!((memory.held(), memory.excess(0), memory.excess(2)), (Held { bytes: 13, sessions: 2 }, 3, 5));
        assert!(!two.take(2) && !one.take(7) && one.take(6));
        drop(two);
        assert_eq!(memory.held(), Held { bytes: 6, sessions: 2 });
        assert!(one.take(10) && !one.take(11));
        memory.bound(8);
        assert!(!one.take(9) && one.take(8));
    }
}
