//! Who is served, and what is counted.

use std::sync::atomic::AtomicBool;

use super::*;

#[tokio::test]
async fn a_refused_peer_gets_nothing_and_is_told_so() {
    let provider = Peer::start_with(Arc::new(|_| false)).await;
    let hash = provider.store.publish_bytes(content(1, 50_000)).await.unwrap().hash;
    let asker = Peer::start().await;
    let error = asker.store.fetch(asker.endpoint(), hash, &[provider.addr()], limits(1 << 20)).await.unwrap_err();
    let StoreError::FetchFailed { providers, .. } = &error else { panic!("{error}") };
    assert!(matches!(providers[0].fault, ProviderFault::Refused), "{error}");
    assert!(!error.retryable());
    assert_eq!(provider.store.stats().bytes_served, 0);
    assert_eq!(asker.store.usage(), Usage::default());
    asker.stop().await;
    provider.stop().await;
}

#[tokio::test]
async fn a_peer_that_was_struck_off_gets_nothing_over_its_open_connection() {
    let admitted = Arc::new(AtomicBool::new(true));
    let list = admitted.clone();
    let provider = Peer::start_with(Arc::new(move |_| list.load(Ordering::Relaxed))).await;
    let asker = Peer::start().await;
    let first = provider.store.publish_bytes(content(1, 50_000)).await.unwrap().hash;
    let second = provider.store.publish_bytes(content(2, 50_000)).await.unwrap().hash;
    let fetched = asker.store.fetch(asker.endpoint(), first, &[provider.addr()], limits(1 << 20)).await.unwrap();
    assert_eq!(fetched.bytes_moved, 50_000);
    admitted.store(false, Ordering::Relaxed);
    let error = asker.store.fetch(asker.endpoint(), second, &[provider.addr()], limits(1 << 20)).await.unwrap_err();
    assert!(error.to_string().contains("refused this node"), "{error}");
    asker.stop().await;
    provider.stop().await;
}

#[tokio::test]
async fn both_sides_count_what_moved() {
    let provider = Peer::with(&[content(1, 500_000)]).await;
    let asker = Peer::start().await;
    let hash = BlobHash::of(&content(1, 500_000));
    asker.store.fetch(asker.endpoint(), hash, &[provider.addr()], limits(1 << 20)).await.unwrap();
    let asked = asker.store.stats();
    assert_eq!((asked.blobs_fetched, asked.bytes_fetched), (1, 500_000));
    // The count of the sender comes by a message.
    for _ in 0..100 {
        if provider.store.stats().requests_served == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let served = provider.store.stats();
    assert_eq!((served.requests_served, served.bytes_served), (1, 500_000));
    asker.stop().await;
    provider.stop().await;
}
