//! What was loaded, by hash: each value is made once, however many ask at once, and the least recently used leave first.
//!
//! A value may grow while it is kept: [`Cache::settle`] counts anew, and makes room. What values can let go of by themselves goes
//! before whole values do, since it is made again without loading anything.

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
    evicted: AtomicU64,
    entries: RwLock<HashMap<K, Entry<V>>>,
    making: Mutex<HashMap<K, Making<V, E>>>,
}

struct Entry<V> {
    value: Arc<V>,
    bytes: AtomicU64,
    used: AtomicU64,
}

/// The slot that everyone who asks for the same key meanwhile waits on.
type Making<V, E> = Arc<OnceLock<Result<Arc<V>, E>>>;

impl<K: Copy + Eq + Hash + Ord, V, E: Clone> Cache<K, V, E> {
    pub(super) fn new(bytes_max: u64) -> Self {
        let (entries, making) = (RwLock::new(HashMap::new()), Mutex::new(HashMap::new()));
        Self { bytes_max, clock: AtomicU64::new(0), evicted: AtomicU64::new(0), entries, making }
    }

    /// Bytes that its values may have together.
    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
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
            // It may have been made since it was looked for.
            if let Some(value) = self.get(key) {
                return Ok(value);
            }
            let (value, bytes) = make()?;
            Ok(self.insert(key, Arc::new(value), bytes))
        });
        self.making.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        made.clone()
    }

    /// Counts what the values hold now. Where that is over `bytes_max` together, has them shrink, the least recently used
    /// first; where that does not do, the least recently used leave.
    pub(super) fn settle(&self, bytes_max: u64, held: impl Fn(&V) -> u64, shrink: impl Fn(&V, u64)) {
        let sum = {
            let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
            let count = |entry: &Entry<V>| {
                let bytes = held(&entry.value);
                entry.bytes.store(bytes, Ordering::Relaxed);
                bytes
            };
            let mut sum: u64 = entries.values().map(count).sum();
            if sum <= bytes_max {
                return;
            }
            for entry in by_age(&entries).iter().filter_map(|key| entries.get(key)) {
                let Some(excess) = sum.checked_sub(bytes_max).filter(|excess| *excess > 0) else { break };
                let before = entry.bytes.load(Ordering::Relaxed);
                shrink(&entry.value, before.saturating_sub(excess));
                sum = sum.saturating_sub(before).saturating_add(count(entry));
            }
            sum
        };
        if sum > bytes_max {
            evict(&mut self.entries.write().unwrap_or_else(PoisonError::into_inner), bytes_max, None, &self.evicted);
        }
    }

    /// Keys with the bytes that their values held when they were last counted.
    pub(super) fn sizes(&self) -> Vec<(K, u64)> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.iter().map(|(key, entry)| (*key, entry.bytes.load(Ordering::Relaxed))).collect()
    }

    /// How many have left since the start.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    fn insert(&self, key: K, value: Arc<V>, bytes: u64) -> Arc<V> {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let used = AtomicU64::new(self.clock.fetch_add(1, Ordering::Relaxed));
        entries.insert(key, Entry { value: Arc::clone(&value), bytes: AtomicU64::new(bytes), used });
        // What was just made stays, even alone over the bound: its owner is about to run it.
        evict(&mut entries, self.bytes_max, Some(key), &self.evicted);
        value
    }
}

/// Keys, the least recently used first.
fn by_age<K: Copy + Ord, V>(entries: &HashMap<K, Entry<V>>) -> Vec<K> {
    let by_age: BTreeMap<u64, K> =
        entries.iter().map(|(key, entry)| (entry.used.load(Ordering::Relaxed), *key)).collect();
    by_age.into_values().collect()
}

fn evict<K: Copy + Eq + Hash + Ord, V>(
    entries: &mut HashMap<K, Entry<V>>,
    bytes_max: u64,
    stays: Option<K>,
    evicted: &AtomicU64,
) {
    let mut sum: u64 = entries.values().map(|entry| entry.bytes.load(Ordering::Relaxed)).sum();
    for old in by_age(entries).into_iter().filter(|old| Some(*old) != stays) {
        if sum <= bytes_max {
            break;
        }
        sum -= entries.remove(&old).map_or(0, |entry| entry.bytes.load(Ordering::Relaxed));
        evicted.fetch_add(1, Ordering::Relaxed);
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
    fn values_that_grew_shrink_before_any_leaves() {
        let cache: Cache<u8, AtomicU64, ()> = Cache::new(10);
        let held = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let shrink = |value: &AtomicU64, bytes_max: u64| {
            value.fetch_min(bytes_max.max(2), Ordering::Relaxed);
        };
        let settled = |bytes_max: u64| {
            cache.settle(bytes_max, held, shrink);
            let mut sizes = cache.sizes();
            sizes.sort_unstable();
            sizes
        };
        for key in [1, 2, 3] {
            cache.get_or_make(key, || Ok((AtomicU64::new(2), 2))).unwrap();
        }
        cache.get(1).unwrap().store(5, Ordering::Relaxed);
        cache.get(2).unwrap().store(4, Ordering::Relaxed);
        // The third was used before the others, and has nothing to let go of.
        assert_eq!(settled(11), [(1, 5), (2, 4), (3, 2)]);
        assert_eq!(settled(9), [(1, 3), (2, 4), (3, 2)]);
        assert_eq!((settled(5), cache.evicted()), (vec![(1, 2), (2, 2)], 1));
        assert_eq!((settled(0), cache.evicted()), (vec![], 3));
    }

    #[test]
    fn a_failure_is_told_and_not_kept() {
        let cache: Cache<u8, u8, &str> = Cache::new(10);
        assert_eq!(cache.get_or_make(1, || Err("no")).unwrap_err(), "no");
        assert_eq!(*cache.get_or_make(1, || Ok((5, 1))).unwrap(), 5);
    }
}
