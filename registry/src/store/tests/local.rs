//! One store on its own.

use n0_future::{StreamExt, stream};
use tokio::io::AsyncReadExt;

use super::*;

fn chunks(bytes: &Bytes, chunk: usize) -> Vec<std::io::Result<Bytes>> {
    bytes.chunks(chunk).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect()
}

#[tokio::test]
async fn what_was_published_reads_back_in_every_way() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for (seed, size) in INTERESTING_SIZES.into_iter().enumerate() {
        let bytes = content(seed as u64, size);
        let published = store.publish_bytes(bytes.clone()).await.unwrap();
        assert_eq!(published, Published { hash: BlobHash::of(&bytes), len: size as u64 });
        let hash = published.hash;
        assert!(store.has(hash), "size {size}");
        assert_eq!(store.len(hash).unwrap(), size as u64);
        assert_eq!(store.read(hash, 2 << 20).await.unwrap(), bytes, "size {size}");
        let (from, to) = (size / 3, size - size / 4);
        let range = store.read_range(hash, from as u64, (to - from) as u64).await.unwrap();
        assert_eq!(range, bytes.slice(from..to), "size {size}");
        let mut read = Vec::new();
        store.reader(hash).unwrap().read_to_end(&mut read).await.unwrap();
        assert_eq!(read, bytes, "size {size}");
        let copy = dir.path().join(format!("copy-{size}"));
        assert_eq!(store.export(hash, &copy).await.unwrap(), size as u64);
        assert_eq!(std::fs::read(&copy).unwrap(), bytes, "size {size}");
    }
    store.index().sanity_check();
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_stream_is_published_like_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for (seed, size) in INTERESTING_SIZES.into_iter().enumerate() {
        let bytes = content(100 + seed as u64, size);
        let hash = BlobHash::of(&bytes);
        let source = stream::iter(chunks(&bytes, 10_000));
        let published = store.publish_stream(source, 2 << 20, Some(hash)).await.unwrap();
        assert_eq!(published, Published { hash, len: size as u64 });
        assert_eq!(store.read(hash, 2 << 20).await.unwrap(), bytes, "size {size}");
    }
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_refused_stream_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let bytes = content(1, 300_000);
    let before = store.usage();

    let endless = stream::repeat(Bytes::from_static(&[7; 4096])).map(Ok);
    let error = store.publish_stream(endless, 100_000, None).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { bytes_max: 100_000, .. }), "{error}");

    let expected = Some(BlobHash::of(b"something else"));
    let error = store.publish_stream(stream::iter(chunks(&bytes, 9_999)), 1 << 20, expected).await.unwrap_err();
    assert!(matches!(&error, StoreError::HashMismatch { found, .. } if *found == BlobHash::of(&bytes)), "{error}");
    assert!(!error.retryable());

    let broken = chunks(&bytes, 50_000).into_iter().take(3).chain([Err(std::io::ErrorKind::ConnectionReset.into())]);
    let error = store.publish_stream(stream::iter(broken.collect::<Vec<_>>()), 1 << 20, None).await.unwrap_err();
    assert!(matches!(error, StoreError::Source { bytes: 150_000, .. }), "{error}");

    assert_eq!(store.usage(), before);
    assert!(!store.has(BlobHash::of(&bytes)));
    assert_eq!(store.listed("test").await.unwrap(), [], "the database holds nothing either");
    assert_eq!(disk_bytes(&dir.path().join("data")) + disk_bytes(&dir.path().join("temp")), 0);
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_file_is_published_where_it_lies() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store")).await;
    let bytes = content(2, 3 << 20);
    let path = dir.path().join("model.onnx");
    std::fs::write(&path, &bytes).unwrap();
    let published = store.publish_path(&path).await.unwrap();
    assert_eq!(published.hash, BlobHash::of(&bytes));
    assert_eq!(store.read(published.hash, 4 << 20).await.unwrap(), bytes);
    assert_eq!(store.usage(), Usage { blobs: 1, bytes: 0, pinned_bytes: 0 }, "a referenced file costs no quota");
    let own = disk_bytes(&dir.path().join("store").join("data"));
    assert!(own < bytes.len() as u64 / 50, "only the hash tree was written, not {own} bytes");

    let changed = [&bytes[..100_000], b"x", &bytes[100_001..]].concat();
    std::fs::write(&path, changed).unwrap();
    let error = store.read(published.hash, 4 << 20).await.unwrap_err();
    assert!(matches!(error, StoreError::Backend { stage: "read", .. }), "a changed file gives no bytes: {error}");
    assert_eq!(store.read_range(published.hash, 0, 1000).await.unwrap(), bytes.slice(..1000), "what is intact, reads");

    let error = store.publish_path(dir.path()).await.unwrap_err().to_string();
    assert!(error.contains("publish files only"), "{error}");
    let error = store.publish_path(&dir.path().join("none")).await.unwrap_err();
    assert!(matches!(error, StoreError::File { .. }), "{error}");
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn bounds_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { blob_bytes_max: 1000, ..small(1 << 20) };
    let store = Store::open(dir.path(), options).await.unwrap();
    let error = store.publish_bytes(content(1, 1001)).await.unwrap_err().to_string();
    assert!(error.contains("1001") && error.contains("1000"), "{error}");
    let hash = store.publish_bytes(content(1, 1000)).await.unwrap().hash;
    assert!(matches!(store.read(hash, 999).await, Err(StoreError::TooLarge { bytes_max: 999, .. })));
    assert!(matches!(store.read_range(hash, 990, 11).await, Err(StoreError::Range { blob_bytes: 1000, .. })));
    assert!(matches!(store.read_range(hash, u64::MAX, 2).await, Err(StoreError::Range { .. })));
    let nothing = BlobHash([1; 32]);
    assert!(matches!(store.read(nothing, 1).await, Err(StoreError::NotFound { .. })));
    assert!(matches!(store.pin(nothing).await, Err(StoreError::NotFound { .. })));
    assert!(matches!(store.pin_for(hash, "a/b").await, Err(StoreError::PinOwner { .. })));
    store.shutdown().await.unwrap();
    assert!(matches!(store.read(hash, 1000).await, Err(StoreError::Closed { .. })));
    let none = StoreOptions { quota_bytes_max: 0, ..StoreOptions::default() };
    assert!(matches!(Store::open(dir.path(), none).await, Err(StoreError::Options { .. })));
}

#[tokio::test]
async fn blobs_and_pins_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let mut hashes = Vec::new();
    for (seed, size) in INTERESTING_SIZES.into_iter().enumerate() {
        hashes.push(store.publish_bytes(content(seed as u64, size)).await.unwrap().hash);
    }
    let (pinned, kept) = (hashes[5], hashes[3]);
    store.pin(pinned).await.unwrap();
    store.pin_for(kept, "job-1").await.unwrap();
    store.unpin_for(kept, "job-2").await.unwrap();
    let usage = store.usage();
    store.shutdown().await.unwrap();
    store.shutdown().await.unwrap();

    let store = open(dir.path()).await;
    assert_eq!(store.usage(), usage);
    for (seed, size) in INTERESTING_SIZES.into_iter().enumerate() {
        assert_eq!(store.read(hashes[seed], 2 << 20).await.unwrap(), content(seed as u64, size));
    }
    assert!(store.is_pinned(pinned) && store.is_pinned(kept) && !store.is_pinned(hashes[1]));
    store.unpin(pinned).await.unwrap();
    store.shutdown().await.unwrap();
    let store = open(dir.path()).await;
    assert!(!store.is_pinned(pinned) && store.is_pinned(kept));
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_second_open_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let second = tokio::time::timeout(Duration::from_secs(2), Store::open(dir.path(), small(1 << 20))).await.unwrap();
    let error = second.unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }) && error.retryable(), "{error}");
    assert!(error.to_string().contains("in use by another process") && !error.to_string().contains('\n'));
    store.shutdown().await.unwrap();
    open(dir.path()).await.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_dropped_store_keeps_its_blobs_and_frees_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let hash = store.publish_bytes(content(1, 100_000)).await.unwrap().hash;
    drop(store);
    for _ in 0..100 {
        match Store::open(dir.path(), small(1 << 20)).await {
            Ok(store) => {
                assert_eq!(store.read(hash, 1 << 20).await.unwrap(), content(1, 100_000));
                return store.shutdown().await.unwrap();
            }
            Err(StoreError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the directory stays in use");
}
