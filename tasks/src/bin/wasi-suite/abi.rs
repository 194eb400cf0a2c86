//! WASI's functions with Rust's types around them: what a case calls.

#![allow(unsafe_code, reason = "WASI's own functions are foreign")]

pub(crate) use wasi::{Errno, Fd};

/// The one preopened directory, `/`.
pub(crate) const ROOT: Fd = 3;
/// All thirty rights.
pub(crate) const ALL: u64 = (1 << 30) - 1;
/// Reading and writing.
pub(crate) const READ_WRITE: u64 = wasi::RIGHTS_FD_READ | wasi::RIGHTS_FD_WRITE;

/// Forwards functions that take no pointers.
macro_rules! forward {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty;)*) => {$(
        pub(crate) fn $name($($arg: $ty),*) -> Result<$out, Errno> {
            // SAFETY: numbers and strings that outlive the call; the crate makes pointers of them.
            unsafe { wasi::$name($($arg),*) }
        }
    )*};
}

forward! {
    clock_res_get(clock: wasi::Clockid) -> u64;
    clock_time_get(clock: wasi::Clockid, precision: u64) -> u64;
    fd_advise(fd: Fd, offset: u64, len: u64, advice: wasi::Advice) -> ();
    fd_allocate(fd: Fd, offset: u64, len: u64) -> ();
    fd_close(fd: Fd) -> ();
    fd_datasync(fd: Fd) -> ();
    fd_fdstat_get(fd: Fd) -> wasi::Fdstat;
    fd_fdstat_set_flags(fd: Fd, flags: u16) -> ();
    fd_fdstat_set_rights(fd: Fd, rights: u64, inheriting: u64) -> ();
    fd_filestat_set_size(fd: Fd, size: u64) -> ();
    fd_filestat_set_times(fd: Fd, accessed: u64, modified: u64, flags: u16) -> ();
    fd_renumber(fd: Fd, to: Fd) -> ();
    fd_seek(fd: Fd, delta: i64, whence: wasi::Whence) -> u64;
    fd_sync(fd: Fd) -> ();
    fd_tell(fd: Fd) -> u64;
    path_create_directory(fd: Fd, path: &str) -> ();
    path_filestat_set_times(fd: Fd, flags: u32, path: &str, accessed: u64, modified: u64, times: u16) -> ();
    path_link(fd: Fd, flags: u32, path: &str, new_fd: Fd, new_path: &str) -> ();
    path_open(fd: Fd, lookup: u32, path: &str, oflags: u16, rights: u64, inheriting: u64, flags: u16) -> Fd;
    path_remove_directory(fd: Fd, path: &str) -> ();
    path_rename(fd: Fd, path: &str, new_fd: Fd, new_path: &str) -> ();
    path_symlink(target: &str, fd: Fd, path: &str) -> ();
    path_unlink_file(fd: Fd, path: &str) -> ();
    sched_yield() -> ();
    sock_accept(fd: Fd, flags: u16) -> Fd;
    sock_shutdown(fd: Fd, how: u8) -> ();
}

/// A `filestat` that can be compared and printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    pub(crate) kind: u8,
    pub(crate) names: u64,
    pub(crate) size: u64,
    pub(crate) accessed: u64,
    pub(crate) modified: u64,
    pub(crate) changed: u64,
}

impl From<wasi::Filestat> for Stat {
    fn from(stat: wasi::Filestat) -> Self {
        Self {
            dev: stat.dev,
            ino: stat.ino,
            kind: stat.filetype.raw(),
            names: stat.nlink,
            size: stat.size,
            accessed: stat.atim,
            modified: stat.mtim,
            changed: stat.ctim,
        }
    }
}

pub(crate) const DIRECTORY: u8 = wasi::FILETYPE_DIRECTORY.raw();
pub(crate) const FILE: u8 = wasi::FILETYPE_REGULAR_FILE.raw();
pub(crate) const LINK: u8 = wasi::FILETYPE_SYMBOLIC_LINK.raw();
pub(crate) const UNKNOWN: u8 = wasi::FILETYPE_UNKNOWN.raw();

pub(crate) fn stat(fd: Fd) -> Result<Stat, Errno> {
    // SAFETY: takes no pointer of ours.
    unsafe { wasi::fd_filestat_get(fd) }.map(Stat::from)
}

pub(crate) fn path_stat(fd: Fd, flags: u32, path: &str) -> Result<Stat, Errno> {
    // SAFETY: the path outlives the call.
    unsafe { wasi::path_filestat_get(fd, flags, path) }.map(Stat::from)
}

pub(crate) fn read(fd: Fd, buffer: &mut [u8]) -> Result<usize, Errno> {
    let part = wasi::Iovec { buf: buffer.as_mut_ptr(), buf_len: buffer.len() };
    // SAFETY: the vector is of a buffer that outlives the call.
    unsafe { wasi::fd_read(fd, &[part]) }
}

/// Reads into several buffers at once, at an offset.
pub(crate) fn pread(fd: Fd, buffers: &mut [&mut [u8]], offset: u64) -> Result<usize, Errno> {
    let parts: Vec<_> =
        buffers.iter_mut().map(|part| wasi::Iovec { buf: part.as_mut_ptr(), buf_len: part.len() }).collect();
    // SAFETY: the vectors are of buffers that outlive the call.
    unsafe { wasi::fd_pread(fd, &parts, offset) }
}

pub(crate) fn write(fd: Fd, bytes: &[u8]) -> Result<usize, Errno> {
    let part = wasi::Ciovec { buf: bytes.as_ptr(), buf_len: bytes.len() };
    // SAFETY: the vector is of bytes that outlive the call.
    unsafe { wasi::fd_write(fd, &[part]) }
}

/// Writes several buffers at once, at an offset.
pub(crate) fn pwrite(fd: Fd, buffers: &[&[u8]], offset: u64) -> Result<usize, Errno> {
    let parts: Vec<_> = buffers.iter().map(|part| wasi::Ciovec { buf: part.as_ptr(), buf_len: part.len() }).collect();
    // SAFETY: the vectors are of bytes that outlive the call.
    unsafe { wasi::fd_pwrite(fd, &parts, offset) }
}

pub(crate) fn random(buffer: &mut [u8]) -> Result<(), Errno> {
    // SAFETY: a buffer of this length.
    unsafe { wasi::random_get(buffer.as_mut_ptr(), buffer.len()) }
}

pub(crate) fn readlink(fd: Fd, path: &str, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: a buffer of this length.
    unsafe { wasi::path_readlink(fd, path, buffer.as_mut_ptr(), buffer.len()) }
}

/// The name of a preopened directory, read into `len` bytes.
pub(crate) fn preopen_name(fd: Fd, len: usize) -> Result<Vec<u8>, Errno> {
    let mut name = vec![0; len];
    // SAFETY: a buffer of this length.
    unsafe { wasi::fd_prestat_dir_name(fd, name.as_mut_ptr(), len) }.map(|()| name)
}

/// The length of the name of a preopened directory.
pub(crate) fn preopen(fd: Fd) -> Result<usize, Errno> {
    // SAFETY: there are preopened directories and nothing else, so that is what the union holds.
    unsafe { wasi::fd_prestat_get(fd).map(|stat| stat.u.dir.pr_name_len) }
}

pub(crate) fn recv(fd: Fd) -> Result<usize, Errno> {
    let mut buffer = [0; 8];
    let part = wasi::Iovec { buf: buffer.as_mut_ptr(), buf_len: buffer.len() };
    // SAFETY: the vector is of a buffer that outlives the call.
    unsafe { wasi::sock_recv(fd, &[part], 0) }.map(|(len, _)| len)
}

pub(crate) fn send(fd: Fd) -> Result<usize, Errno> {
    let part = wasi::Ciovec { buf: b"x".as_ptr(), buf_len: 1 };
    // SAFETY: the vector is of a constant.
    unsafe { wasi::sock_send(fd, &[part], 0) }
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) next: u64,
    pub(crate) ino: u64,
    pub(crate) kind: u8,
    pub(crate) name: String,
}

/// Entries from a cookie on, as many as fit whole into so many bytes, and whether that was all.
pub(crate) fn readdir(fd: Fd, bytes: usize, cookie: u64) -> Result<(Vec<Entry>, bool), Errno> {
    const HEAD_BYTES: usize = 24;
    let mut buffer = vec![0; bytes];
    // SAFETY: a buffer of this length.
    let used = unsafe { wasi::fd_readdir(fd, buffer.as_mut_ptr(), buffer.len(), cookie)? };
    let word = |at: usize| u64::from_le_bytes(buffer[at..at + 8].try_into().expect("eight bytes"));
    let (mut entries, mut at) = (Vec::new(), 0);
    while at + HEAD_BYTES <= used {
        let name_bytes = u32::from_le_bytes(buffer[at + 16..at + 20].try_into().expect("four bytes")) as usize;
        let Some(name) = buffer[..used].get(at + HEAD_BYTES..at + HEAD_BYTES + name_bytes) else { break };
        let name = std::str::from_utf8(name).expect("names are text").to_owned();
        entries.push(Entry { next: word(at), ino: word(at + 8), kind: buffer[at + 20], name });
        at += HEAD_BYTES + name_bytes;
    }
    Ok((entries, used < bytes))
}

/// Names in a directory, `.` and `..` left out.
pub(crate) fn names(fd: Fd) -> Vec<String> {
    let (entries, all) = readdir(fd, 64 << 10, 0).expect("a directory lists");
    assert!(all);
    entries.into_iter().map(|entry| entry.name).filter(|name| name != "." && name != "..").collect()
}

/// What a subscription waits for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wait {
    Clock { clock: wasi::Clockid, timeout_ns: u64, flags: u16 },
    Read(Fd),
    Write(Fd),
}

/// What came of a subscription: its index, error, kind and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) index: u64,
    pub(crate) errno: Errno,
    pub(crate) kind: u8,
    pub(crate) bytes: u64,
}

pub(crate) fn poll(waits: &[Wait]) -> Result<Vec<Event>, Errno> {
    let subscription = |(index, wait): (usize, &Wait)| {
        let fd = |file_descriptor| wasi::SubscriptionFdReadwrite { file_descriptor };
        let (tag, u) = match *wait {
            Wait::Clock { clock: id, timeout_ns: timeout, flags } => {
                let clock = wasi::SubscriptionClock { id, timeout, precision: 0, flags };
                (wasi::EVENTTYPE_CLOCK, wasi::SubscriptionUU { clock })
            }
            Wait::Read(of) => (wasi::EVENTTYPE_FD_READ, wasi::SubscriptionUU { fd_read: fd(of) }),
            Wait::Write(of) => (wasi::EVENTTYPE_FD_WRITE, wasi::SubscriptionUU { fd_write: fd(of) }),
        };
        wasi::Subscription { userdata: index as u64, u: wasi::SubscriptionU { tag: tag.raw(), u } }
    };
    let subscriptions: Vec<_> = waits.iter().enumerate().map(subscription).collect();
    let mut events = Vec::<wasi::Event>::with_capacity(waits.len());
    // SAFETY: as many events as subscriptions fit, and the host says how many it wrote.
    unsafe {
        let len = wasi::poll_oneoff(subscriptions.as_ptr(), events.as_mut_ptr(), waits.len())?;
        events.set_len(len);
    }
    let event = |event: wasi::Event| Event {
        index: event.userdata,
        errno: event.error,
        kind: event.type_.raw(),
        bytes: event.fd_readwrite.nbytes,
    };
    Ok(events.into_iter().map(event).collect())
}

/// A directory under `/tmp` for a case alone, open with every right.
pub(crate) fn scratch() -> Fd {
    path_create_directory(ROOT, "tmp/case").expect("a directory");
    path_open(ROOT, 0, "tmp/case", wasi::OFLAGS_DIRECTORY, ALL & !READ_WRITE & !NOT_OF_DIRECTORIES, ALL, 0)
        .expect("the directory opens")
}

/// Rights that open for writing.
const NOT_OF_DIRECTORIES: u64 = wasi::RIGHTS_FD_ALLOCATE | wasi::RIGHTS_FD_FILESTAT_SET_SIZE;

/// Opens without following a link at the end.
pub(crate) fn open(dir: Fd, path: &str, oflags: u16, rights: u64) -> Result<Fd, Errno> {
    path_open(dir, 0, path, oflags, rights, 0, 0)
}

/// Opens with following a link at the end.
pub(crate) fn follow(dir: Fd, path: &str, oflags: u16, rights: u64) -> Result<Fd, Errno> {
    path_open(dir, wasi::LOOKUPFLAGS_SYMLINK_FOLLOW, path, oflags, rights, 0, 0)
}

/// Makes a file, or opens it, for reading and writing.
pub(crate) fn create(dir: Fd, path: &str) -> Fd {
    open(dir, path, wasi::OFLAGS_CREAT, ALL).expect("a file")
}

/// Makes an empty file and closes it.
pub(crate) fn touch(dir: Fd, path: &str) {
    fd_close(create(dir, path)).expect("it closes");
}

/// The error of an open that fails.
pub(crate) fn open_fails(dir: Fd, path: &str, oflags: u16) -> Errno {
    open(dir, path, oflags, 0).expect_err("it opened")
}
