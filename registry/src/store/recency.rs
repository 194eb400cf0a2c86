//! The file `recency`: the hashes of all blobs in the order of last use, the oldest first, 32 bytes each after a header.
//!
//! It is a hint. A file that is missing, torn or of another version is read as far as it goes, and costs nothing but a
//! worse choice of what to delete.

use std::{collections::HashMap, fs, io, path::Path};

use crate::id::{BlobHash, ID_BYTES};

const HEADER: &[u8; 16] = b"quorate recency1";

/// Rank of each blob: higher is used later.
pub(super) fn load(path: &Path) -> HashMap<BlobHash, u64> {
    let bytes = fs::read(path).unwrap_or_default();
    let Some(hashes) = bytes.strip_prefix(HEADER) else { return HashMap::new() };
    let (hashes, _torn) = hashes.as_chunks::<ID_BYTES>();
    hashes.iter().enumerate().map(|(rank, hash)| (BlobHash(*hash), rank as u64)).collect()
}

/// Replaces the file in one step.
pub(super) fn save(path: &Path, order: &[BlobHash]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(HEADER.len() + order.len() * ID_BYTES);
    bytes.extend_from_slice(HEADER);
    for hash in order {
        bytes.extend_from_slice(hash.as_bytes());
    }
    let fresh = path.with_extension("new");
    fs::write(&fresh, bytes)?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_reads_back_and_a_torn_file_costs_only_its_tail() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recency");
        assert!(load(&path).is_empty());
        let order: Vec<_> = (1..=3).map(|nth| BlobHash([nth; 32])).collect();
        save(&path, &order).unwrap();
        assert_eq!(load(&path)[&order[2]], 2);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
        assert_eq!(load(&path).len(), 2);
        fs::write(&path, b"something else").unwrap();
        assert!(load(&path).is_empty());
    }
}
