//! What host and sandbox process say to each other: frames over one Unix socket, one question and one answer at a time.
//!
//! A frame is 16 bytes (length of the head, how the body comes, length of the body), the head in canonical CBOR, and the body
//! as it is. Sections of the body, such as inputs and outputs, are cut from it without a copy. A body that the host sends may
//! come as a memory file instead of inline; a sandbox process sends inline, since it can make no file.
//!
//! While a task runs the host says [`Ask::Cancel`] or nothing, so that any byte that can be read then is a cancellation; one
//! that came too late is read and ignored.

use std::{
    collections::VecDeque,
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
};

use bytes::Bytes;
use registry::{
    canon::{self, CanonError},
    id::ModelHash,
};
use rustix::{
    cmsg_space,
    event::PollFlags,
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        recvmsg, sendmsg,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::content::{Content, ContentError};
use crate::{
    limits,
    sandbox::{
        EngineDescription, HostFault, LoadError, Measured, ModelInfo, ModuleInfo, Ran, Request, SandboxError,
        SandboxOptions, Span, jail::Gap,
    },
};

/// What the host asks. Answers come in order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) enum Ask {
    /// Enter the jail and start the engine: the first question. [`Answer::Ready`] or [`Answer::Failed`].
    Hello { options: SandboxOptions, own_dir: String, data_bytes_max: u64 },
    /// Load the module that is the body. [`Answer::Module`].
    Module { info: ModuleInfo },
    /// Load the model that is the body. [`Answer::Model`].
    Model {
        hash: ModelHash,
        /// Whether to get ready for an inference too: see [`ThreadSandbox::warm_model`](crate::sandbox::ThreadSandbox).
        warm: bool,
    },
    /// Have models hold no more memory than this. [`Answer::Shrunk`].
    Shrink { bytes_max: u64 },
    /// Time the inference backend. [`Answer::Measured`].
    Measure,
    /// Run. The request has its bytes taken out; standard input, files, a record to feed, and a snapshot, in order, are the
    /// body. [`Answer::Ran`].
    Run { request: Request, span: Span, lengths: Vec<u64> },
    /// Stop what runs. No answer of its own.
    Cancel,
}

/// What the process answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) enum Answer {
    Ready {
        engine: EngineDescription,
        gaps: Vec<Gap>,
        /// Memory in bytes that models can use on what they run on; 0 where that is not known.
        backend_bytes: u64,
    },
    Failed {
        error: SandboxError,
    },
    Module {
        loaded: Result<(), LoadError>,
    },
    Model {
        loaded: Result<ModelInfo, LoadError>,
        sessions: Sessions,
    },
    Shrunk {
        sessions: Sessions,
    },
    Measured {
        measured: Result<Measured, SandboxError>,
    },
    /// The result has its bytes taken out; standard output, standard error, files, and the record of inferences, in order, or
    /// else a snapshot, are the body.
    Ran {
        ran: Result<Ran, HostFault>,
        lengths: Vec<u64>,
        sessions: Sessions,
    },
}

/// The models that a process has ready, with the memory in bytes that each holds.
pub(super) type Sessions = Vec<(ModelHash, u64)>;

/// Why nothing comes, or goes.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("the other side is gone")]
    Closed,
    #[error("socket: {0}")]
    Socket(Errno),
    #[error("{what} of {bytes} bytes is over the bound of {bytes_max}")]
    TooLong { what: &'static str, bytes: u64, bytes_max: u64 },
    #[error("head: {0}")]
    Head(#[from] CanonError),
    #[error("body: {0}")]
    Content(#[from] ContentError),
    #[error("sections do not add up to the body")]
    Sections,
    #[error("frame of an unknown kind {0}")]
    Kind(u32),
    #[error("took longer than {ms_max} ms")]
    Deadline { ms_max: u64 },
    #[error("cancelled, and did not let go")]
    Cancelled,
}

impl From<Errno> for WireError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::CONNRESET | Errno::PIPE => Self::Closed,
            errno => Self::Socket(errno),
        }
    }
}

/// Waits until a socket can be read or written, or gives up.
pub(super) trait Wait {
    fn wait(&mut self, socket: BorrowedFd<'_>, event: PollFlags) -> Result<(), WireError>;
}

/// How long a frame may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) head_bytes_max: usize,
    pub(super) body_bytes_max: u64,
}

const PREFIX_BYTES: usize = 16;
const INLINE: u32 = 0;
const PASSED: u32 = 1;

/// The body of a frame that is sent.
pub(super) enum Body<'a> {
    /// In these pieces.
    Inline(&'a [&'a [u8]]),
    /// As a memory file. The other side has to take descriptors.
    Passed(&'a Content),
}

/// Sends one frame.
pub(super) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    head: &T,
    body: &Body<'_>,
    wait: &mut impl Wait,
) -> Result<(), WireError> {
    let head = canon::encode(head);
    let (kind, bytes, pieces, passed) = match *body {
        Body::Inline(pieces) => (INLINE, pieces.iter().map(|piece| piece.len() as u64).sum(), pieces, None),
        Body::Passed(content) => (PASSED, content.bytes(), &[][..], Some(content.file())),
    };
    let mut prefix = [0; PREFIX_BYTES];
    prefix[..4].copy_from_slice(&u32::try_from(head.len()).unwrap_or(u32::MAX).to_le_bytes());
    prefix[4..8].copy_from_slice(&kind.to_le_bytes());
    prefix[8..].copy_from_slice(&bytes.to_le_bytes());
    let mut slices = vec![IoSlice::new(&prefix), IoSlice::new(&head)];
    slices.extend(pieces.iter().map(|piece| IoSlice::new(piece)));
    send_all(socket, &mut slices, passed, wait)
}

/// Most pieces that one system call takes.
const PIECES_MAX: usize = 1024;

fn send_all(
    socket: BorrowedFd<'_>,
    mut slices: &mut [IoSlice<'_>],
    mut passed: Option<BorrowedFd<'_>>,
    wait: &mut impl Wait,
) -> Result<(), WireError> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    while !slices.is_empty() {
        let fds = passed.map(|fd| [fd]);
        let mut control = SendAncillaryBuffer::new(&mut space);
        if let Some(fds) = &fds {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        let some = &slices[..slices.len().min(PIECES_MAX)];
        match sendmsg(socket, some, &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => {
                // A descriptor goes with the first byte.
                passed = None;
                IoSlice::advance_slices(&mut slices, sent);
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait.wait(socket, PollFlags::OUT)?,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Cuts a body into sections that have to add up to it.
pub(super) fn cut(mut body: Bytes, lengths: &[u64]) -> Result<VecDeque<Bytes>, WireError> {
    let mut sections = VecDeque::with_capacity(lengths.len());
    for length in lengths {
        let length = usize::try_from(*length).ok().filter(|length| *length <= body.len()).ok_or(WireError::Sections)?;
        sections.push_back(body.split_to(length));
    }
    if body.is_empty() { Ok(sections) } else { Err(WireError::Sections) }
}

/// The reading end of a socket.
pub(super) struct Reader {
    chunk: Box<[u8]>,
    /// What of the chunk is not read yet.
    start: usize,
    end: usize,
    /// Descriptors that came and belong to frames not read yet; absent where none are taken.
    passed: Option<VecDeque<OwnedFd>>,
}

impl Reader {
    /// A reader that takes descriptors, or one that the kernel drops them for.
    pub(super) fn new(takes_descriptors: bool) -> Self {
        let chunk = vec![0; limits::SANDBOX_INLINE_BYTES_MAX + (16 << 10)].into_boxed_slice();
        Self { chunk, start: 0, end: 0, passed: takes_descriptors.then(VecDeque::new) }
    }

    /// Whether more was read from the socket than what was asked for.
    pub(super) fn is_ahead(&self) -> bool {
        self.start < self.end
    }

    /// Reads one frame.
    pub(super) fn receive<T: DeserializeOwned + Serialize>(
        &mut self,
        socket: BorrowedFd<'_>,
        bounds: Bounds,
        wait: &mut impl Wait,
    ) -> Result<(T, Bytes), WireError> {
        let prefix: Vec<u8> = self.read(socket, PREFIX_BYTES, wait)?;
        let number = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| prefix[at + byte]));
        let (head_bytes, kind) = (number(0), number(4));
        let body_bytes = u64::from_le_bytes(std::array::from_fn(|byte| prefix[8 + byte]));
        let head_bytes_max = bounds.head_bytes_max as u64;
        if u64::from(head_bytes) > head_bytes_max {
            return Err(WireError::TooLong { what: "head", bytes: head_bytes.into(), bytes_max: head_bytes_max });
        }
        if body_bytes > bounds.body_bytes_max {
            return Err(WireError::TooLong { what: "body", bytes: body_bytes, bytes_max: bounds.body_bytes_max });
        }
        let head = self.read(socket, head_bytes as usize, wait)?;
        let body = match kind {
            INLINE => self.read(socket, usize::try_from(body_bytes).unwrap_or(usize::MAX), wait)?.into(),
            PASSED => {
                let fd = self.passed.as_mut().and_then(VecDeque::pop_front).ok_or(WireError::Kind(kind))?;
                Content::map(fd, body_bytes)?
            }
            kind => return Err(WireError::Kind(kind)),
        };
        Ok((canon::decode(&head, bounds.head_bytes_max)?, body))
    }

    /// Reads so many bytes. Memory is taken as they come, not as they are announced.
    fn read(&mut self, socket: BorrowedFd<'_>, bytes: usize, wait: &mut impl Wait) -> Result<Vec<u8>, WireError> {
        let mut read = Vec::with_capacity(bytes.min(1 << 20));
        while read.len() < bytes {
            if self.start == self.end {
                self.fill(socket, wait)?;
            }
            let take = (bytes - read.len()).min(self.end - self.start);
            read.extend_from_slice(&self.chunk[self.start..self.start + take]);
            self.start += take;
        }
        Ok(read)
    }

    fn fill(&mut self, socket: BorrowedFd<'_>, wait: &mut impl Wait) -> Result<(), WireError> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        loop {
            let mut control = match self.passed {
                Some(_) => RecvAncillaryBuffer::new(&mut space),
                None => RecvAncillaryBuffer::default(),
            };
            wait.wait(socket, PollFlags::IN)?;
            let chunk = &mut [IoSliceMut::new(&mut self.chunk)];
            match recvmsg(socket, chunk, &mut control, RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC) {
                Ok(received) if received.bytes == 0 => return Err(WireError::Closed),
                Ok(received) => {
                    (self.start, self.end) = (0, received.bytes);
                    if let Some(passed) = &mut self.passed {
                        for message in control.drain() {
                            if let RecvAncillaryMessage::ScmRights(fds) = message {
                                passed.extend(fds);
                            }
                        }
                    }
                    return Ok(());
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// A pair of connected sockets.
pub(super) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// Never waits: what is to be read is there already.
    struct Now;

    impl Wait for Now {
        fn wait(&mut self, _: BorrowedFd<'_>, _: PollFlags) -> Result<(), WireError> {
            Ok(())
        }
    }

    const BOUNDS: Bounds = Bounds { head_bytes_max: 1 << 10, body_bytes_max: 1 << 20 };

    fn receive(bytes: &[u8], takes_descriptors: bool) -> Result<(Ask, Bytes), WireError> {
        let (ours, theirs) = pair().unwrap();
        rustix::net::send(&ours, bytes, SendFlags::empty()).unwrap();
        drop(ours);
        Reader::new(takes_descriptors).receive(theirs.as_fd(), BOUNDS, &mut Now)
    }

    fn frame(head_bytes: u32, kind: u32, body_bytes: u64, rest: &[u8]) -> Vec<u8> {
        [&head_bytes.to_le_bytes()[..], &kind.to_le_bytes(), &body_bytes.to_le_bytes(), rest].concat()
    }

    #[test]
    fn content_crosses_inline_and_as_a_memory_file() {
        let content = Content::seal(&[b"in a ", b"file"]).unwrap();
        let pieces: [&[u8]; 2] = [b"in ", b"line"];
        for (body, expected) in [(Body::Inline(&pieces), &b"in line"[..]), (Body::Passed(&content), b"in a file")] {
            let (ours, theirs) = pair().unwrap();
            let mut reader = Reader::new(true);
            // Two frames at once: the second is read from what the first left.
            for ask in [Ask::Model { hash: ModelHash::of(b""), warm: false }, Ask::Cancel] {
                send(ours.as_fd(), &ask, &body, &mut Now).unwrap();
            }
            let (first, body): (Ask, _) = reader.receive(theirs.as_fd(), BOUNDS, &mut Now).unwrap();
            assert!(matches!(first, Ask::Model { .. }) && body == expected, "{first:?} {body:?}");
            let (second, body): (Ask, _) = reader.receive(theirs.as_fd(), BOUNDS, &mut Now).unwrap();
            assert!(matches!(second, Ask::Cancel) && body == expected && !reader.is_ahead(), "{second:?} {body:?}");
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let head = canon::encode(&Ask::Cancel);
        let length = head.len() as u32;
        assert!(matches!(receive(&frame(length, INLINE, 0, &head), false), Ok((Ask::Cancel, _))));
        let refused = |bytes: Vec<u8>| receive(&bytes, true).unwrap_err();
        assert!(matches!(refused(frame(u32::MAX, INLINE, 0, &head)), WireError::TooLong { what: "head", .. }));
        assert!(matches!(refused(frame(length, INLINE, u64::MAX, &head)), WireError::TooLong { what: "body", .. }));
        assert!(matches!(refused(frame(length, 7, 0, &head)), WireError::Kind(7)));
        assert!(matches!(refused(frame(length, PASSED, 4, &head)), WireError::Kind(PASSED)));
        assert!(matches!(refused(frame(length, INLINE, 4, &head)), WireError::Closed));
        assert!(matches!(refused(frame(3, INLINE, 0, b"\xff\xff\xff")), WireError::Head(_)));
        assert!(matches!(refused(b"short".to_vec()), WireError::Closed));
    }

    #[test]
    fn sections_add_up_to_the_body() {
        let body = Bytes::from_static(b"abcdef");
        let sections = cut(body.clone(), &[2, 0, 4]).unwrap();
        assert_eq!(sections, [&b"ab"[..], b"", b"cdef"]);
        for lengths in [&[2][..], &[7], &[2, 5], &[u64::MAX, 6]] {
            assert!(matches!(cut(body.clone(), lengths), Err(WireError::Sections)), "{lengths:?}");
        }
    }
}
