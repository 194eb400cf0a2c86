//! Stores that take blobs from each other.

use iroh::{
    endpoint::Connection,
    protocol::{AcceptError, ProtocolHandler},
};
use iroh_blobs::protocol::{ChunkRanges, ChunkRangesExt};

use super::*;

/// Answers every request with a length and bytes of its own making.
#[derive(Debug, Clone)]
struct Liar {
    claimed_bytes: u64,
    bytes: Bytes,
}

impl ProtocolHandler for Liar {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        while let Ok((mut send, mut recv)) = connection.accept_bi().await {
            recv.read_to_end(4096).await.ok();
            send.write_all(&self.claimed_bytes.to_le_bytes()).await.ok();
            send.write_all(&self.bytes).await.ok();
            send.finish().ok();
        }
        Ok(())
    }
}

impl Liar {
    async fn start(claimed_bytes: u64, bytes: Bytes) -> Router {
        Router::builder(endpoint().await).accept(ALPN, Self { claimed_bytes, bytes }).spawn()
    }
}

fn faults(error: &StoreError) -> &[ProviderFailure] {
    match error {
        StoreError::FetchFailed { providers, .. } | StoreError::FetchTimedOut { providers, .. } => providers,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn blobs_of_every_size_come_from_one_provider() {
    let blobs: Vec<_> =
        INTERESTING_SIZES.into_iter().enumerate().map(|(seed, size)| content(seed as u64, size)).collect();
    let provider = Peer::with(&blobs).await;
    let asker = Peer::start().await;
    for blob in &blobs {
        let hash = BlobHash::of(blob);
        let fetched = asker.store.fetch(asker.endpoint(), hash, &[provider.addr()], limits(2 << 20)).await.unwrap();
        assert_eq!((fetched.len, fetched.bytes_moved), (blob.len() as u64, blob.len() as u64));
        assert_eq!(asker.store.read(hash, 2 << 20).await.unwrap(), blob);
        let again = asker.store.fetch(asker.endpoint(), hash, &[], limits(2 << 20)).await.unwrap();
        assert_eq!(again.bytes_moved, 0, "what is here is not fetched");
    }
    let before = asker.store.usage();
    asker.store.index().sanity_check();
    asker.store.shutdown().await.unwrap();
    let reopened = open(&asker.dir.path().join("store")).await;
    assert_eq!(reopened.usage(), before, "what was fetched is kept");
    reopened.shutdown().await.unwrap();
    provider.stop().await;
}

#[tokio::test]
async fn a_dead_and_an_empty_provider_are_skipped() {
    let blob = content(1, 300_000);
    let (empty, full, asker) =
        (Peer::start().await, Peer::with(std::slice::from_ref(&blob)).await, Peer::start().await);
    let hash = BlobHash::of(&blob);
    let providers = [nobody(), empty.addr(), full.addr()];
    let fetched = asker.store.fetch(asker.endpoint(), hash, &providers, limits(1 << 20)).await.unwrap();
    assert_eq!(fetched.from, [Contribution { node: full.id(), bytes: 300_000 }]);
    assert!(matches!(fetched.given_up[0].fault, ProviderFault::ConnectTimedOut { .. }), "{:?}", fetched.given_up);
    assert!(matches!(fetched.given_up[1].fault, ProviderFault::Missing), "{:?}", fetched.given_up);

    let unknown = BlobHash([3; 32]);
    let error = asker.store.fetch(asker.endpoint(), unknown, &[nobody(), empty.addr()], limits(1 << 20)).await;
    let error = error.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("no connection within connect_ms_max = 1000"), "{text}");
    assert!(text.contains(&format!("{} does not have the blob", empty.id().short())), "{text}");
    assert!(error.retryable() && !text.contains('\n'));
    assert_eq!(asker.store.usage().blobs, 1, "a failed fetch leaves no trace");
    for peer in [empty, full, asker] {
        peer.stop().await;
    }
}

#[tokio::test]
async fn corrupt_data_is_noticed_and_the_next_provider_used() {
    let blob = content(1, 10_000);
    let hash = BlobHash::of(&blob);
    let liar = Liar::start(10_000, content(2, 10_000)).await;
    let (full, asker) = (Peer::with(std::slice::from_ref(&blob)).await, Peer::start().await);
    let providers = [addr(liar.endpoint()), full.addr()];
    let fetched = asker.store.fetch(asker.endpoint(), hash, &providers, limits(1 << 20)).await.unwrap();
    assert!(matches!(fetched.given_up[0].fault, ProviderFault::Corrupt { .. }), "{:?}", fetched.given_up);
    assert_eq!(asker.store.read(hash, 1 << 20).await.unwrap(), blob);
    full.stop().await;
    asker.stop().await;
}

#[tokio::test]
async fn a_false_length_before_true_data_spoils_nothing() {
    let blob = content(1, 100 * 16 * 1024 - 77);
    let hash = BlobHash::of(&blob);
    let (full, asker) = (Peer::with(std::slice::from_ref(&blob)).await, Peer::start().await);
    let answer = full.store.inner.fs.export_bao(iroh_hash(hash), ChunkRanges::all()).bao_to_vec().await.unwrap();
    let answer = Bytes::from(answer).slice(8..);
    for claimed_bytes in [120 * 16 * 1024, 100 * 16 * 1024, 90 * 16 * 1024, 16 * 1024, 1] {
        let liar = Liar::start(claimed_bytes, answer.clone()).await;
        let lied = asker.store.fetch(asker.endpoint(), hash, &[addr(liar.endpoint())], limits(8 << 20)).await;
        let error = lied.unwrap_err();
        assert!(matches!(faults(&error)[0].fault, ProviderFault::Corrupt { .. }), "{claimed_bytes}: {error}");
    }
    let fetched = asker.store.fetch(asker.endpoint(), hash, &[full.addr()], limits(8 << 20)).await.unwrap();
    assert_eq!(fetched.len, blob.len() as u64);
    assert_eq!(asker.store.read(hash, 8 << 20).await.unwrap(), blob);
    asker.store.index().sanity_check();
    full.stop().await;
    asker.stop().await;
}

#[tokio::test]
async fn a_file_changed_at_the_provider_is_noticed_and_the_good_part_kept() {
    let blob = content(1, 4 << 20);
    let hash = BlobHash::of(&blob);
    let (spoilt, full, asker) =
        (Peer::start().await, Peer::with(std::slice::from_ref(&blob)).await, Peer::start().await);
    let path = spoilt.dir.path().join("model");
    std::fs::write(&path, &blob).unwrap();
    assert_eq!(spoilt.store.publish_path(&path).await.unwrap().hash, hash);
    std::fs::write(&path, [&blob[..3 << 20], &vec![0; 1 << 20]].concat()).unwrap();

    let error = asker.store.fetch(asker.endpoint(), hash, &[spoilt.addr()], limits(8 << 20)).await.unwrap_err();
    assert_eq!(faults(&error)[0].node, spoilt.id());
    let kept = asker.store.usage().bytes;
    assert!((2 << 20..=3 << 20).contains(&kept), "kept {kept} bytes");

    let providers = [spoilt.addr(), full.addr()];
    let fetched = asker.store.fetch(asker.endpoint(), hash, &providers, limits(8 << 20)).await.unwrap();
    let rest = (4 << 20) - kept;
    let from_full = fetched.from.iter().find(|contribution| contribution.node == full.id()).unwrap();
    assert!(from_full.bytes <= rest, "{} of {rest} missing bytes", from_full.bytes);
    assert_eq!(asker.store.read(hash, 8 << 20).await.unwrap(), blob);
    for peer in [spoilt, full, asker] {
        peer.stop().await;
    }
}

#[tokio::test]
async fn a_fetch_goes_on_where_an_earlier_one_ended_even_after_a_restart() {
    let blob = content(1, 6 << 20);
    let hash = BlobHash::of(&blob);
    let (full, asker) = (Peer::with(std::slice::from_ref(&blob)).await, Peer::start().await);
    let (connection, _) = asker.store.inner.peers.connect(asker.endpoint(), full.addr()).await.unwrap();
    let first_part = ChunkRanges::bytes(..2u64 << 20);
    let incoming = transfer::ask(&connection, hash, first_part, 5_000).await.ok().unwrap();
    asker.store.reserve("test", hash, incoming.claimed_bytes).await.unwrap();
    assert!(incoming.keep(&asker.store.inner.fs, |_| {}).await.is_ok());
    asker.store.shutdown().await.unwrap();

    let store = open(&asker.dir.path().join("store")).await;
    assert_eq!(store.usage(), Usage { blobs: 1, bytes: 2 << 20, pinned_bytes: 0 });
    assert!(!store.has(hash), "a part is not the blob");
    assert!(matches!(store.read(hash, 8 << 20).await, Err(StoreError::NotFound { .. })));
    let fetched = store.fetch(asker.endpoint(), hash, &[full.addr()], limits(8 << 20)).await.unwrap();
    assert_eq!(fetched.bytes_moved, 4 << 20, "exactly what was missing");
    assert_eq!(store.read(hash, 8 << 20).await.unwrap(), blob);
    store.shutdown().await.unwrap();
    full.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_blob_is_split_over_providers_and_survives_the_loss_of_one() {
    let blob = content(1, (40 << 20) + 5);
    let len = blob.len() as u64;
    let hash = BlobHash::of(&blob);
    let (one, two, asker) = (
        Peer::with(std::slice::from_ref(&blob)).await,
        Peer::with(std::slice::from_ref(&blob)).await,
        Peer::start().await,
    );
    let providers = [one.addr(), two.addr(), nobody()];
    let fetched = asker.store.fetch(asker.endpoint(), hash, &providers, limits(64 << 20)).await.unwrap();
    assert_eq!((fetched.len, fetched.bytes_moved), (len, len), "each byte came once");
    assert_eq!(fetched.from.len(), 2, "{:?}", fetched.from);
    assert_eq!(asker.store.read(hash, 64 << 20).await.unwrap(), blob);
    for peer in [one, two, asker] {
        peer.stop().await;
    }
}

#[tokio::test]
async fn a_claim_beyond_the_limit_is_refused_before_anything_is_fetched() {
    let blob = content(1, 200_000);
    let hash = BlobHash::of(&blob);
    let (full, asker) = (Peer::with(std::slice::from_ref(&blob)).await, Peer::start().await);
    let liar = Liar::start(1 << 50, Bytes::new()).await;
    let providers = [full.addr(), addr(liar.endpoint())];
    let error = asker.store.fetch(asker.endpoint(), hash, &providers, limits(100_000)).await.unwrap_err();
    assert!(matches!(faults(&error)[0].fault, ProviderFault::TooLarge { claimed_bytes: 200_000, .. }), "{error}");
    assert!(matches!(faults(&error)[1].fault, ProviderFault::TooLarge { .. }), "{error}");
    assert_eq!((asker.store.usage().bytes, asker.store.stats().bytes_fetched), (0, 0));

    // Within the limit, but a lie: nothing may be deleted for a blob that does not exist.
    let liar = Liar::start(900 << 20, Bytes::new()).await;
    let kept = asker.store.publish_bytes(content(5, 50_000)).await.unwrap().hash;
    let error = asker.store.fetch(asker.endpoint(), hash, &[addr(liar.endpoint())], limits(1 << 40)).await.unwrap_err();
    assert_eq!(faults(&error).len(), 1, "{error}");
    assert!(asker.store.has(kept));
    full.stop().await;
    asker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_who_want_the_same_blob_share_one_fetch() {
    let blob = content(1, 3 << 20);
    let hash = BlobHash::of(&blob);
    let (full, asker) = (Peer::with(std::slice::from_ref(&blob)).await, Peer::start().await);
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (store, endpoint, provider) = (asker.store.clone(), asker.endpoint().clone(), full.addr());
            tokio::spawn(async move { store.fetch(&endpoint, hash, &[provider], limits(8 << 20)).await })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().len, 3 << 20);
    }
    assert_eq!(asker.store.stats().bytes_fetched, 3 << 20, "the bytes came once");
    full.stop().await;
    asker.stop().await;
}

#[tokio::test]
async fn who_joins_a_failing_fetch_with_better_providers_goes_on_alone() {
    let blob = content(1, 100_000);
    let hash = BlobHash::of(&blob);
    let (full, asker) = (Peer::with(std::slice::from_ref(&blob)).await, Peer::start().await);
    let (bad, good) = ([nobody()], [full.addr()]);
    let first = asker.store.fetch(asker.endpoint(), hash, &bad, limits(1 << 20));
    let second = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        asker.store.fetch(asker.endpoint(), hash, &good, limits(1 << 20)).await
    };
    let (first, second) = tokio::join!(first, second);
    assert!(first.is_err());
    assert_eq!(second.unwrap().bytes_moved, 100_000);
    full.stop().await;
    asker.stop().await;
}

#[tokio::test]
async fn a_caller_who_gives_up_ends_the_fetch() {
    let asker = Peer::start().await;
    let hash = BlobHash([4; 32]);
    let limits = FetchLimits { bytes_max: 1 << 20, wall_ms_max: 100 };
    let error = asker.store.fetch(asker.endpoint(), hash, &[nobody()], limits).await.unwrap_err();
    assert!(matches!(error, StoreError::FetchTimedOut { wall_ms_max: 100, .. }) && error.retryable(), "{error}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(asker.store.inner.flights.is_empty(), "nothing goes on in the background");
    asker.stop().await;
}

#[tokio::test]
async fn a_fetch_makes_room_or_says_why_not() {
    let full = Peer::with(&[content(1, 100_000)]).await;
    let hash = BlobHash::of(&content(1, 100_000));
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), small(150_000)).await.unwrap();
    let endpoint = endpoint().await;
    let old = store.publish_bytes(content(2, 100_000)).await.unwrap().hash;
    store.pin(old).await.unwrap();
    let error = store.fetch(&endpoint, hash, &[full.addr()], limits(1 << 20)).await.unwrap_err();
    assert!(matches!(error, StoreError::QuotaExceeded { pinned_bytes: 100_000, .. }), "{error}");
    store.unpin(old).await.unwrap();
    store.fetch(&endpoint, hash, &[full.addr()], limits(1 << 20)).await.unwrap();
    assert!(store.has(hash) && !store.has(old));
    store.shutdown().await.unwrap();
    full.stop().await;
}

#[tokio::test]
async fn a_provider_that_restarted_is_asked_over_a_new_connection() {
    let blobs = [content(1, 100_000), content(2, 100_000)];
    let provider = Peer::with(&blobs).await;
    let asker = Peer::start().await;
    let fetch = |blob: &Bytes| {
        let (store, endpoint, hash, provider) =
            (asker.store.clone(), asker.endpoint().clone(), BlobHash::of(blob), provider.addr());
        async move { store.fetch(&endpoint, hash, &[provider], limits(1 << 20)).await }
    };
    fetch(&blobs[0]).await.unwrap();
    let (connection, reused) = asker.store.inner.peers.connect(asker.endpoint(), provider.addr()).await.unwrap();
    assert!(reused);
    connection.close(7u32.into(), b"test");
    fetch(&blobs[1]).await.unwrap();
    asker.stop().await;
    provider.stop().await;
}
