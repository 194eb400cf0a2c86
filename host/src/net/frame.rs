//! Frames: a length in four bytes, big-endian, and that many bytes of one canonical message.
//!
//! A length is checked before anything is read or allocated, and memory grows only as bytes really come.

use std::io;

use registry::canon::{self, CanonError};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::wire::{Breach, Message};

/// Bytes of a frame's length.
const HEAD_BYTES: usize = 4;
/// Room for a body before its bytes have come.
const BODY_BYTES: usize = 64 << 10;

/// Why there is no message.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than allowed here.
    #[error("frame of {bytes} bytes is over the bound of {bytes_max} bytes")]
    TooLong {
        /// As announced.
        bytes: usize,
        /// As allowed.
        bytes_max: usize,
    },
    /// The stream ends within a frame.
    #[error("stream ends within a frame")]
    Cut,
    /// Not a message.
    #[error("frame holds no message: {0}")]
    Canon(#[from] CanonError),
    /// A message that breaks a rule.
    #[error("message breaks a rule: {0}")]
    Breach(#[from] Breach),
    /// The stream broke.
    #[error("stream broke: {0}")]
    Stream(io::Error),
}

impl FrameError {
    /// Whether the other side is to blame, rather than the network between.
    pub fn is_garbage(&self) -> bool {
        match self {
            Self::TooLong { .. } | Self::Canon(_) | Self::Breach(_) => true,
            Self::Cut | Self::Stream(_) => false,
        }
    }
}

/// The next message; none when the stream ends where a frame would start.
///
/// # Errors
/// When the stream breaks, or what comes is no message of at most `bytes_max` bytes.
pub async fn read<M: Message>(
    stream: &mut (impl AsyncRead + Unpin),
    bytes_max: usize,
) -> Result<Option<M>, FrameError> {
    let Some(bytes) = head(stream).await? else { return Ok(None) };
    if bytes > bytes_max {
        return Err(FrameError::TooLong { bytes, bytes_max });
    }
    let mut body = Vec::with_capacity(bytes.min(BODY_BYTES));
    stream.take(bytes as u64).read_to_end(&mut body).await.map_err(FrameError::Stream)?;
    if body.len() != bytes {
        return Err(FrameError::Cut);
    }
    decode(&body, bytes_max).map(Some)
}

/// The length of the next frame.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<usize>, FrameError> {
    let mut head = [0; HEAD_BYTES];
    let mut filled = 0;
    while filled < HEAD_BYTES {
        match stream.read(&mut head[filled..]).await.map_err(FrameError::Stream)? {
            0 if filled == 0 => return Ok(None),
            0 => return Err(FrameError::Cut),
            more => filled += more,
        }
    }
    Ok(Some(u32::from_be_bytes(head) as usize))
}

/// The message in a frame's body.
///
/// # Errors
/// When it is none.
pub fn decode<M: Message>(body: &[u8], bytes_max: usize) -> Result<M, FrameError> {
    let message: M = canon::decode(body, bytes_max)?;
    message.check()?;
    Ok(message)
}

/// Appends a message as a frame.
///
/// # Panics
/// When the message is longer than a length can say: batches are cut far below that.
pub fn push(frames: &mut Vec<u8>, message: &impl Message) {
    let body = canon::encode(message);
    let bytes = u32::try_from(body.len()).expect("a batch is cut at a few hundred kilobytes");
    frames.extend_from_slice(&bytes.to_be_bytes());
    frames.extend_from_slice(&body);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use grid::{
        engines::Engines,
        flow::{AssignmentId, Checkpoint, Fault, Found, Offer, Until},
    };
    use proptest::prelude::*;
    use registry::{
        device::{DEVICE_TEXT_BYTES_MAX, Device, DeviceKind},
        dispute::End,
        id::{BlobHash, EngineFingerprint, JobId, ModuleHash, NodeId, OperatorId, StateRoot, TaskId},
        job::{Class, JobSpec, ShardInfo, Stage},
        membership::NodeCert,
        price::PriceTable,
        receipt::{Execution, Outcome, Output, OutputFile, Receipt},
        sign::{SecretKey, Signed},
    };

    use super::*;
    use crate::{
        limits,
        net::wire::{Done, Hello, Order, Refused, Stdin, ToCoordinator, ToHost, VERSION, Welcome},
    };

    async fn read_all<M: Message>(mut bytes: &[u8]) -> Vec<M> {
        let mut messages = Vec::new();
        while let Some(message) = read(&mut bytes, limits::FRAME_BYTES_MAX).await.unwrap() {
            messages.push(message);
        }
        messages
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn shard(index: u32) -> ShardInfo {
        ShardInfo { stage: Stage::Map, index, count: 100 }
    }

    fn done(nonce: u64, stdout: &[u8], inline: bool) -> Arc<Done> {
        let key = SecretKey::from_bytes(&[3; 32]);
        let file = OutputFile { path: "a/b".into(), hash: BlobHash::of(b"f"), bytes: 1 };
        let output = Output { stdout: BlobHash::of(stdout), stdout_bytes: stdout.len() as u64, files: vec![file] };
        let execution = Execution {
            task: TaskId([3; 32]),
            module: ModuleHash::of(b"m"),
            class: Class::Exact,
            engine: EngineFingerprint([4; 32]),
            outcome: Outcome::Exit(3),
            fuel_used: 1000,
            output: output.hash(),
            nn_root: Some(BlobHash::of(b"nn")),
            segment_root: None,
        };
        let receipt = Receipt {
            job: JobId([1; 32]),
            shard: shard(1),
            execution,
            device: Some(longest()),
            node: NodeId(key.public()),
            operator: OperatorId([5; 32]),
            nonce,
            price_micro: 0,
            nn_record: None,
            segment_record: None,
        };
        let stdout = inline.then(|| Bytes::copy_from_slice(stdout));
        Arc::new(Done { receipt: Signed::seal(&receipt, &key), output, stdout, task_us: 12 })
    }

    /// A device with all the text that it may have.
    fn longest() -> Device {
        let text = "x".repeat(DEVICE_TEXT_BYTES_MAX);
        Device { kind: DeviceKind::Gpu, provider: text.clone(), name: text }
    }

    fn hello() -> Hello {
        let key = SecretKey::from_bytes(&[7; 32]);
        let cert = Signed::seal(&NodeCert { node: NodeId([1; 32]), issued_ms: 5 }, &key);
        let offer = Offer {
            slots: 2,
            queue_max: 8,
            memory_bytes_max: 1 << 30,
            engines: Engines::plain(EngineFingerprint([4; 32]), EngineFingerprint([5; 32])),
            prices: PriceTable::default(),
        };
        Hello {
            version: VERSION,
            cert,
            offer,
            holding: vec![AssignmentId(1), AssignmentId(u64::MAX)],
            agent: "q/1".into(),
        }
    }

    fn to_coordinator() -> impl Strategy<Value = ToCoordinator> {
        let receipt = (any::<u64>(), proptest::collection::vec(any::<u8>(), 0..100), any::<bool>())
            .prop_map(|(nonce, stdout, inline)| done(nonce, &stdout, inline));
        let fault = (any::<u64>(), "[a-z_]{1,20}", ".{0,40}")
            .prop_map(|(id, word, detail)| (AssignmentId(id), Fault::new(word, detail)));
        prop_oneof![
            Just(ToCoordinator::Heartbeat),
            Just(ToCoordinator::Hello(Box::new(hello()))),
            proptest::collection::vec(receipt, 0..4).prop_map(ToCoordinator::Receipts),
            proptest::collection::vec(fault, 0..4).prop_map(ToCoordinator::Faults),
            proptest::collection::vec((any::<u64>().prop_map(AssignmentId), checkpoint()), 0..4)
                .prop_map(ToCoordinator::Checkpoints),
            proptest::collection::vec((any::<u64>().prop_map(AssignmentId), found()), 0..4)
                .prop_map(ToCoordinator::Found),
        ]
    }

    fn checkpoint() -> impl Strategy<Value = Checkpoint> {
        (any::<u32>(), any::<u64>(), 0..=limits::CHECKPOINT_BYTES_MAX).prop_map(|(index, fuel_used, bytes)| {
            Checkpoint { index, fuel_used, snapshot: BlobHash::of(&index.to_le_bytes()), bytes }
        })
    }

    fn found() -> impl Strategy<Value = Found> {
        let end = any::<u8>().prop_map(|byte| End::State(StateRoot([byte; 32])));
        (end, proptest::option::of(checkpoint())).prop_map(|(end, checkpoint)| Found { end, checkpoint })
    }

    fn to_host() -> impl Strategy<Value = ToHost> {
        let stdin = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..100).prop_map(|bytes| Stdin::Inline(bytes.into())),
            (0..1000u64, 0..1000u64).prop_map(|(start, len)| Stdin::Slice {
                blob: BlobHash::of(b"b"),
                start,
                end: start + len
            }),
        ];
        let from = proptest::option::of(checkpoint());
        let until =
            proptest::option::of((any::<u32>(), any::<bool>()).prop_map(|(state, keeps)| Until { state, keeps }));
        let order = (any::<u64>(), 0..100u32, stdin, any::<u64>(), from, until);
        let order = order.prop_map(|(id, index, stdin, lease_ms, from, until)| Order {
            id: AssignmentId(id),
            job: JobId([1; 32]),
            shard: shard(index),
            input: BlobHash::of(b"in"),
            engine: EngineFingerprint([4; 32]),
            stdin,
            from,
            until,
            lease_ms,
        });
        let template = Arc::new(JobSpec::new(ModuleHash::of(b"m"), 1).template());
        let ids = proptest::collection::vec(any::<u64>().prop_map(AssignmentId), 0..10);
        prop_oneof![
            Just(ToHost::Heartbeat),
            Just(ToHost::Welcome(Welcome { version: VERSION, agent: "q/1".into() })),
            Just(ToHost::Refused(Refused { word: "cert".into(), detail: "no".into(), retry: false })),
            Just(ToHost::Templates(vec![(JobId([1; 32]), template)])),
            proptest::collection::vec(order, 0..4).prop_map(ToHost::Assign),
            ids.clone().prop_map(ToHost::Revoke),
            ids.prop_map(ToHost::Acknowledge),
        ]
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = block_on(read::<ToCoordinator>(&mut &bytes[..], limits::FRAME_BYTES_MAX));
            let _ = block_on(read::<ToHost>(&mut &bytes[..], limits::FRAME_BYTES_MAX));
            let _ = decode::<ToCoordinator>(&bytes, limits::FRAME_BYTES_MAX);
            let _ = decode::<ToHost>(&bytes, limits::FRAME_BYTES_MAX);
        }

        #[test]
        fn damaged_messages_never_panic_and_what_decodes_is_canonical(
            message in to_coordinator(),
            at in any::<proptest::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut body = canon::encode(&message);
            let at = at.index(body.len());
            body[at] = byte;
            if let Ok(message) = decode::<ToCoordinator>(&body, limits::FRAME_BYTES_MAX) {
                prop_assert_eq!(canon::encode(&message), body);
            }
        }

        #[test]
        fn messages_come_back_as_they_went(
            up in proptest::collection::vec(to_coordinator(), 0..5),
            down in proptest::collection::vec(to_host(), 0..5),
        ) {
            let mut frames = Vec::new();
            up.iter().for_each(|message| push(&mut frames, message));
            prop_assert_eq!(block_on(read_all::<ToCoordinator>(&frames)), up);
            let mut frames = Vec::new();
            down.iter().for_each(|message| push(&mut frames, message));
            prop_assert_eq!(block_on(read_all::<ToHost>(&frames)), down);
        }

        #[test]
        fn weights_bound_what_items_take(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let done = done(u64::MAX, &bytes, true);
            prop_assert!(canon::encode(&done).len() <= done.weight());
            let order = Order {
                id: AssignmentId(u64::MAX), job: JobId([1; 32]), shard: shard(u32::MAX), input: BlobHash::of(b"in"),
                engine: EngineFingerprint([4; 32]), stdin: Stdin::Inline(bytes.into()), lease_ms: u64::MAX,
                from: Some(Checkpoint {
                    index: u32::MAX, fuel_used: u64::MAX, snapshot: BlobHash::of(b"s"), bytes: u64::MAX,
                }),
                until: Some(Until { state: u32::MAX, keeps: true }),
            };
            prop_assert!(canon::encode(&order).len() <= order.weight());
        }
    }

    #[test]
    fn a_long_frame_is_refused_by_its_length_alone() {
        let mut bytes = &u32::MAX.to_be_bytes()[..];
        let refused = block_on(read::<ToCoordinator>(&mut bytes, 1000)).unwrap_err();
        assert!(matches!(refused, FrameError::TooLong { bytes_max: 1000, .. }) && refused.is_garbage(), "{refused}");
    }

    #[test]
    fn a_stream_that_ends_within_a_frame_is_cut_and_not_garbage() {
        let mut frames = Vec::new();
        push(&mut frames, &ToHost::Heartbeat);
        for end in 1..frames.len() {
            let cut = block_on(read::<ToHost>(&mut &frames[..end], 1000)).unwrap_err();
            assert!(matches!(cut, FrameError::Cut) && !cut.is_garbage(), "{cut}");
        }
        assert!(block_on(read::<ToHost>(&mut &frames[..0], 1000)).unwrap().is_none());
    }

    #[test]
    fn too_many_items_and_odd_words_are_refused_by_name() {
        let refusal = |message: &dyn Fn() -> String| message();
        let many = ToCoordinator::Faults(vec![(AssignmentId(1), Fault::new("w", "")); limits::BATCH_ITEMS_MAX + 1]);
        assert!(refusal(&|| many.check().unwrap_err().to_string()).contains("over the bound of 1024"));
        let odd = ToCoordinator::Faults(vec![(AssignmentId(1), Fault { word: "a\nb".into(), detail: String::new() })]);
        assert_eq!(odd.check(), Err(Breach::Word { what: "fault" }));
        let held = Hello { holding: vec![AssignmentId(1); limits::HOLDING_MAX + 1], ..hello() };
        assert!(ToCoordinator::Hello(Box::new(held)).check().is_err());
    }
}
