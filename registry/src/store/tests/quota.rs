//! The quota: who goes, who stays, and that the disk is really freed.

use super::*;

const BLOB: usize = 100 * KIB as usize;

async fn publish(store: &Store, seed: u64) -> BlobHash {
    store.publish_bytes(content(seed, BLOB)).await.unwrap().hash
}

fn here(store: &Store, hashes: &[BlobHash]) -> Vec<bool> {
    hashes.iter().map(|hash| store.has(*hash)).collect()
}

#[tokio::test]
async fn the_least_recently_used_go_and_free_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), small(3 * BLOB as u64)).await.unwrap();
    let mut blobs = Vec::new();
    for seed in 0..3 {
        blobs.push(publish(&store, seed).await);
    }
    store.pin(blobs[1]).await.unwrap();
    store.read(blobs[0], BLOB as u64).await.unwrap();
    store.publish_bytes(content(2, BLOB)).await.unwrap();
    store.read(blobs[0], BLOB as u64).await.unwrap();
    blobs.push(publish(&store, 3).await);
    assert_eq!(here(&store, &blobs), [true, true, false, true], "1 is pinned, 0 was read after 2");
    blobs.push(publish(&store, 4).await);
    assert_eq!(here(&store, &blobs), [false, true, false, true, true]);
    assert_eq!(store.usage(), Usage { blobs: 3, bytes: 3 * BLOB as u64, pinned_bytes: BLOB as u64 });
    assert_eq!(disk_bytes(&dir.path().join("data")), 3 * BLOB as u64, "the files of the others are gone");
    assert_eq!(store.stats().blobs_evicted, 2);
    assert!(matches!(store.read(blobs[0], BLOB as u64).await, Err(StoreError::NotFound { .. })));
    assert_eq!(publish(&store, 0).await, blobs[0], "what was deleted can come again");
    assert_eq!(store.read(blobs[0], BLOB as u64).await.unwrap(), content(0, BLOB));
    store.index().sanity_check();
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn pins_that_hold_the_space_refuse_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let quota = 2 * BLOB as u64;
    let store = Store::open(dir.path(), small(quota)).await.unwrap();
    let (first, second) = (publish(&store, 1).await, publish(&store, 2).await);
    store.pin(first).await.unwrap();
    store.pin(second).await.unwrap();
    let error = store.publish_bytes(content(3, BLOB)).await.unwrap_err();
    let StoreError::QuotaExceeded { quota_bytes_max, pinned_bytes, held_bytes: 0, .. } = error else {
        panic!("{error}")
    };
    assert_eq!((quota_bytes_max, pinned_bytes), (quota, quota));
    let text = error.to_string();
    assert!(text.contains("quota_bytes_max = 204800") && text.contains("unpin"), "{text}");
    let source = n0_future::stream::iter([Ok(content(3, BLOB))]);
    let error = store.publish_stream(source, quota, None).await.unwrap_err();
    assert!(matches!(error, StoreError::QuotaExceeded { .. }), "{error}");
    assert!(matches!(store.remove(first).await, Err(StoreError::Pinned { .. })));
    store.unpin(first).await.unwrap();
    publish(&store, 3).await;
    assert_eq!(here(&store, &[first, second]), [false, true]);
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_is_being_read_stays_until_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), small(BLOB as u64)).await.unwrap();
    let hash = publish(&store, 1).await;
    let reader = store.reader(hash).unwrap();
    let error = store.publish_bytes(content(2, BLOB)).await.unwrap_err();
    assert!(matches!(error, StoreError::QuotaExceeded { .. }) && error.retryable(), "{error}");
    assert!(matches!(store.remove(hash).await, Err(StoreError::Busy { .. })));
    drop(reader);
    publish(&store, 2).await;
    assert!(!store.has(hash));
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_order_of_use_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), small(3 * BLOB as u64)).await.unwrap();
    let mut blobs = Vec::new();
    for seed in 0..3 {
        blobs.push(publish(&store, seed).await);
    }
    store.read(blobs[0], BLOB as u64).await.unwrap();
    store.shutdown().await.unwrap();
    let store = Store::open(dir.path(), small(3 * BLOB as u64)).await.unwrap();
    publish(&store, 3).await;
    assert_eq!(here(&store, &blobs), [true, false, true]);
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_removed_blob_is_gone_and_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let (gone, kept) = (publish(&store, 1).await, publish(&store, 2).await);
    store.remove(gone).await.unwrap();
    store.remove(gone).await.unwrap();
    assert_eq!(here(&store, &[gone, kept]), [false, true]);
    assert_eq!(disk_bytes(&dir.path().join("data")), BLOB as u64);
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_publishers_stay_within_the_quota() {
    let dir = tempfile::tempdir().unwrap();
    let quota = 5 * BLOB as u64;
    let store = Store::open(dir.path(), small(quota)).await.unwrap();
    let publishers: Vec<_> = (0..4)
        .map(|publisher| {
            let store = store.clone();
            tokio::spawn(async move {
                for nth in 0..10 {
                    let hash = publish(&store, publisher * 5 + nth).await;
                    // Others may already have pushed it out; but if it is here, it is whole.
                    if let Ok(bytes) = store.read(hash, BLOB as u64).await {
                        assert_eq!(BlobHash::of(&bytes), hash);
                    }
                }
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await.unwrap();
    }
    store.index().sanity_check();
    assert!(store.usage().bytes <= quota);
    let listed = store.listed("test").await.unwrap();
    assert_eq!(listed.len() as u64, store.usage().blobs, "the books and the database agree");
    for hash in listed {
        assert_eq!(BlobHash::of(&store.read(hash, BLOB as u64).await.unwrap()), hash);
    }
    assert!(disk_bytes(&dir.path().join("data")) <= quota);
    store.shutdown().await.unwrap();
}
