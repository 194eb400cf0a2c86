//! What was loaded, by hash: each value is made once, however many ask at once, and the least recently used leave first.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// A cache of shared values with sizes, bounded by their sum.
///
/// A value that is in use lives on after it left the cache. Looking one up takes a read lock and an atomic store.
pub(super) struct Cache<K, V, E> {
    bytes_max: u64,
    clock: AtomicU64,
    entries: RwLock<HashMap<K, Entry<V>>>,
    making: Mutex<HashMap<K, Making<V, E>>>,
}

struct Entry<V> {
    value: Arc<V>,
    bytes: u64,
    used: AtomicU64,
}

/// The slot that everyone who asks for the same key meanwhile waits on.
type Making<V, E> = Arc<OnceLock<Result<Arc<V>, E>>>;

impl<K: Copy + Eq + Hash + Ord, V, E: Clone> Cache<K, V, E> {
    pub(super) fn new(bytes_max: u64) -> Self {
        let (entries, making) = (RwLock::new(HashMap::new()), Mutex::new(HashMap::new()));
        Self { bytes_max, clock: AtomicU64::new(0), entries, making }
    }

    /// The value, if it is here.
    pub(super) fn get(&self, key: K) -> Option<Arc<V>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(&key)?;
        entry.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Some(Arc::clone(&entry.value))
    }

    /// The value, made by `make` with its size in bytes if it is not here. Who asks while it is being made waits for it.
    pub(super) fn get_or_make(&self, key: K, make: impl FnOnce() -> Result<(V, u64), E>) -> Result<Arc<V>, E> {
        if let Some(value) = self.get(key) {
            return Ok(value);
        }
        let slot = Arc::clone(self.making.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default());
        let made = slot.get_or_init(|| {
            let (value, bytes) = make()?;
            Ok(self.insert(key, Arc::new(value), bytes))
        });
        self.making.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        made.clone()
    }

    fn insert(&self, key: K, value: Arc<V>, bytes: u64) -> Arc<V> {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let used = AtomicU64::new(self.clock.fetch_add(1, Ordering::Relaxed));
        entries.insert(key, Entry { value: Arc::clone(&value), bytes, used });
        let mut sum: u64 = entries.values().map(|entry| entry.bytes).sum();
        let by_age: BTreeMap<u64, K> =
            entries.iter().map(|(key, entry)| (entry.used.load(Ordering::Relaxed), *key)).collect();
        // What was just made stays, even alone over the bound: its owner is about to run it.
        for (_, old) in by_age.into_iter().filter(|(_, old)| *old != key) {
            if sum <= self.bytes_max {
                break;
            }
            sum -= entries.remove(&old).map_or(0, |entry| entry.bytes);
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_leaves_first() {
        let cache: Cache<u8, &str, ()> = Cache::new(2);
        for (key, value) in [(1, "one"), (2, "two")] {
            cache.get_or_make(key, || Ok((value, 1))).unwrap();
        }
        assert_eq!(cache.get(1).as_deref(), Some(&"one"));
        cache.get_or_make(3, || Ok(("three", 1))).unwrap();
        assert_eq!((cache.get(1).is_some(), cache.get(2).is_some(), cache.get(3).is_some()), (true, false, true));
    }

    #[test]
    fn many_who_ask_at_once_get_one_value_made_once() {
        let (cache, made): (Cache<u8, u64, ()>, _) = (Cache::new(10), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let value = cache.get_or_make(7, || {
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        Ok((made.fetch_add(1, Ordering::SeqCst), 1))
                    });
                    assert_eq!(*value.unwrap(), 0);
                });
            }
        });
        assert_eq!(made.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_failure_is_told_and_not_kept() {
        let cache: Cache<u8, u8, &str> = Cache::new(10);
        assert_eq!(cache.get_or_make(1, || Err("no")).unwrap_err(), "no");
        assert_eq!(*cache.get_or_make(1, || Ok((5, 1))).unwrap(), 5);
    }
}
