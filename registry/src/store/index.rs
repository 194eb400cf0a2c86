//! Who holds how many bytes, who is pinned, in use, and used last. Pure: no clock, no disk, no locks.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::id::BlobHash;

/// One blob, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Length of the blob; of a partial one the length it will have.
    pub(super) len: u64,
    /// What it counts against the quota. 0 for a file published by reference.
    pub(super) disk_bytes: u64,
    /// Whether all of it is there.
    pub(super) complete: bool,
    /// Position in the order of last use.
    used: u64,
}

/// Why there is no room.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shortage {
    pub(super) pinned_bytes: u64,
    pub(super) held_bytes: u64,
}

/// The books of the store.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: HashMap<BlobHash, Entry>,
    by_use: BTreeMap<u64, BlobHash>,
    pins: HashMap<BlobHash, BTreeSet<String>>,
    holds: HashMap<BlobHash, u32>,
    uses: u64,
    disk_bytes: u64,
}

impl Index {
    pub(super) fn get(&self, hash: &BlobHash) -> Option<&Entry> {
        self.entries.get(hash)
    }

    /// Length of a complete blob. The empty blob is always here.
    pub(super) fn complete_len(&self, hash: &BlobHash) -> Option<u64> {
        match self.entries.get(hash) {
            Some(entry) => entry.complete.then_some(entry.len),
            None => (*hash == BlobHash::of(b"")).then_some(0),
        }
    }

    /// Enters a blob, or corrects its entry, as used last.
    pub(super) fn put(&mut self, hash: BlobHash, len: u64, disk_bytes: u64, complete: bool) {
        self.remove(&hash);
        let used = self.next_use();
        self.disk_bytes += disk_bytes;
        self.by_use.insert(used, hash);
        self.entries.insert(hash, Entry { len, disk_bytes, complete, used });
    }

    /// Takes a blob out of the books; its pins and holds stay.
    pub(super) fn remove(&mut self, hash: &BlobHash) -> Option<Entry> {
        let entry = self.entries.remove(hash)?;
        self.by_use.remove(&entry.used);
        self.disk_bytes -= entry.disk_bytes;
        Some(entry)
    }

    /// Notes a use: this blob is now the last to be deleted.
    pub(super) fn touch(&mut self, hash: &BlobHash) {
        let used = self.next_use();
        if let Some(entry) = self.entries.get_mut(hash) {
            self.by_use.remove(&entry.used);
            entry.used = used;
            self.by_use.insert(used, *hash);
        }
    }

    fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }

    /// Uses so far.
    pub(super) fn uses(&self) -> u64 {
        self.uses
    }

    /// Whether this owner did not pin it before.
    pub(super) fn pin(&mut self, hash: BlobHash, owner: &str) -> bool {
        self.pins.entry(hash).or_default().insert(owner.to_owned())
    }

    pub(super) fn unpin(&mut self, hash: &BlobHash, owner: &str) {
        if let Some(owners) = self.pins.get_mut(hash) {
            owners.remove(owner);
            if owners.is_empty() {
                self.pins.remove(hash);
            }
        }
    }

    /// Who pins this blob.
    pub(super) fn pin_owner(&self, hash: &BlobHash) -> Option<&str> {
        self.pins.get(hash)?.first().map(String::as_str)
    }

    /// While held, a blob is not deleted. May be called before the blob is there.
    pub(super) fn hold(&mut self, hash: BlobHash) {
        *self.holds.entry(hash).or_default() += 1;
    }

    pub(super) fn release(&mut self, hash: &BlobHash) {
        if let Some(count) = self.holds.get_mut(hash) {
            *count -= 1;
            if *count == 0 {
                self.holds.remove(hash);
            }
        }
    }

    pub(super) fn is_held(&self, hash: &BlobHash) -> bool {
        self.holds.contains_key(hash)
    }

    /// Every blob in the order of last use, the oldest first.
    pub(super) fn by_use(&self) -> impl Iterator<Item = (&BlobHash, &Entry)> {
        self.by_use.values().filter_map(|hash| self.entries.get_key_value(hash))
    }

    /// Bytes on disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }

    /// Bytes on disk that pins hold.
    pub(super) fn pinned_bytes(&self) -> u64 {
        self.pins.keys().filter_map(|hash| self.entries.get(hash)).map(|entry| entry.disk_bytes).sum()
    }

    fn held_bytes(&self) -> u64 {
        let unpinned = self.holds.keys().filter(|hash| !self.pins.contains_key(hash));
        unpinned.filter_map(|hash| self.entries.get(hash)).map(|entry| entry.disk_bytes).sum()
    }

    /// Whether `need` more bytes could ever be had by deleting.
    pub(super) fn could_fit(&self, need: u64, quota: u64) -> Result<(), Shortage> {
        let (pinned_bytes, held_bytes) = (self.pinned_bytes(), self.held_bytes());
        if (pinned_bytes + held_bytes).saturating_add(need) <= quota {
            Ok(())
        } else {
            Err(Shortage { pinned_bytes, held_bytes })
        }
    }

    /// Which blobs to delete so that `need` more bytes fit: none while they do; otherwise the least recently used, up to
    /// `slack` bytes more than needed.
    pub(super) fn victims(&self, need: u64, quota: u64, slack: u64) -> Result<Vec<BlobHash>, Shortage> {
        if self.disk_bytes.saturating_add(need) <= quota {
            return Ok(Vec::new());
        }
        self.could_fit(need, quota)?;
        let must_free = self.disk_bytes.saturating_add(need) - quota;
        let mut freed = 0;
        let mut victims = Vec::new();
        for (hash, entry) in self.by_use() {
            if freed >= must_free.saturating_add(slack) {
                break;
            }
            if entry.disk_bytes > 0 && !self.pins.contains_key(hash) && !self.is_held(hash) {
                freed += entry.disk_bytes;
                victims.push(*hash);
            }
        }
        Ok(victims)
    }

    /// Re-derives what the totals must be.
    #[cfg(test)]
    pub(super) fn sanity_check(&self) {
        assert_eq!(self.disk_bytes, self.entries.values().map(|entry| entry.disk_bytes).sum::<u64>(), "disk_bytes");
        assert_eq!(self.by_use.len(), self.entries.len(), "each entry has one place in the order");
        for (used, hash) in &self.by_use {
            assert_eq!(self.entries[hash].used, *used, "{hash:?} is where its entry says");
        }
        assert!(self.holds.values().all(|count| *count > 0), "no empty hold stays");
        assert!(self.pins.values().all(|owners| !owners.is_empty()), "no empty pin stays");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(nth: u8) -> BlobHash {
        BlobHash([nth; 32])
    }

    fn three_of_ten_bytes() -> Index {
        let mut index = Index::default();
        for nth in 1..=3 {
            index.put(blob(nth), 10, 10, true);
        }
        index
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut index = three_of_ten_bytes();
        index.touch(&blob(1));
        assert_eq!(index.victims(5, 30, 0).unwrap(), [blob(2)]);
        assert_eq!(index.victims(5, 30, 10).unwrap(), [blob(2), blob(3)], "slack frees one more");
        assert_eq!(index.victims(0, 30, 10).unwrap(), [], "nothing goes while it fits");
        index.sanity_check();
    }

    #[test]
    fn pinned_held_and_referenced_blobs_stay() {
        let mut index = three_of_ten_bytes();
        index.put(blob(4), 99, 0, true);
        index.pin(blob(1), "a");
        index.pin(blob(1), "b");
        index.hold(blob(2));
        assert_eq!(index.victims(10, 30, 0).unwrap(), [blob(3)]);
        assert_eq!(index.victims(11, 30, 0), Err(Shortage { pinned_bytes: 10, held_bytes: 10 }));
        index.unpin(&blob(1), "a");
        assert_eq!(index.pinned_bytes(), 10, "the other owner still pins");
        index.unpin(&blob(1), "b");
        index.release(&blob(2));
        assert_eq!(index.victims(11, 30, 0).unwrap(), [blob(1), blob(2)]);
        index.sanity_check();
    }

    #[test]
    fn correcting_an_entry_counts_it_once() {
        let mut index = three_of_ten_bytes();
        index.put(blob(1), 10, 0, true);
        assert_eq!(index.disk_bytes(), 20);
        assert_eq!(index.remove(&blob(1)).map(|entry| entry.len), Some(10));
        assert_eq!(index.remove(&blob(1)), None);
        index.sanity_check();
    }
}
