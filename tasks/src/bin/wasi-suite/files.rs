//! Files: reading, writing, seeking, sizes, times.

use std::{
    fs,
    io::{Read, Seek, SeekFrom, Write},
};

use crate::{Case, abi::*};

pub(crate) const CASES: &[Case] = &[
    ("fd_advise", advise),
    ("fd_filestat_get", fd_filestat_get),
    ("fd_filestat_set", fd_filestat_set),
    ("file_allocate", file_allocate),
    ("file_pread_pwrite", file_pread_pwrite),
    ("file_seek_tell", file_seek_tell),
    ("file_truncation", file_truncation),
    ("file_unbuffered_write", file_unbuffered_write),
    ("fopen_with_access", fopen_with_access),
    ("fopen_with_no_access", fopen_with_no_access),
    ("fstflags_validate", fstflags_validate),
    ("lseek", lseek),
    ("path_filestat", path_filestat),
    ("pwrite_with_append", pwrite_with_append),
    ("stat_dev_ino", stat_dev_ino),
];

fn advise() {
    let dir = scratch();
    let file = create(dir, "file");
    let size = || stat(file).unwrap().size;
    assert_eq!(size(), 0);
    assert_eq!(fd_filestat_set_size(file, 100), Ok(()));
    assert_eq!(size(), 100);
    assert_eq!(fd_advise(file, 10, 50, wasi::ADVICE_NORMAL), Ok(()));
    assert_eq!(fd_advise(file, 0, 0, wasi::ADVICE_NOREUSE), Ok(()));
    assert_eq!(size(), 100);
    assert_eq!(fd_allocate(file, 100, 100), Ok(()));
    assert_eq!(size(), 200);
    assert_eq!(fd_advise(file, u64::MAX, 2, wasi::ADVICE_NORMAL), Err(wasi::ERRNO_INVAL));
    assert_eq!(fd_advise(dir, 0, 0, wasi::ADVICE_NORMAL), Err(wasi::ERRNO_ISDIR));
    assert_eq!(fd_advise(0, 0, 0, wasi::ADVICE_NORMAL), Err(wasi::ERRNO_SPIPE));
}

fn fd_filestat_get() {
    for stream in 0..3 {
        let stat = stat(stream).unwrap();
        assert_eq!((stat.kind, stat.size, stat.names), (UNKNOWN, 0, 1));
        assert_eq!(fd_filestat_set_times(stream, 1, 1, wasi::FSTFLAGS_MTIM), Err(wasi::ERRNO_BADF));
    }
    let input = open(ROOT, "in/words.txt", 0, wasi::RIGHTS_FD_READ).unwrap();
    let stat_of_input = stat(input).unwrap();
    assert_eq!((stat_of_input.kind, stat_of_input.size), (FILE, 5));
    assert_eq!(stat(99), Err(wasi::ERRNO_BADF));
}

fn fd_filestat_set() {
    let dir = scratch();
    let file = create(dir, "file");
    let old = stat(file).unwrap();
    assert_eq!((old.size, old.kind, old.names), (0, FILE, 1));
    assert_eq!(fd_filestat_set_size(file, 100), Ok(()));
    assert_eq!(stat(file).unwrap().size, 100);
    let modified = old.modified - 100;
    assert_eq!(fd_filestat_set_times(file, modified, modified, wasi::FSTFLAGS_MTIM), Ok(()));
    assert_eq!(stat(file), Ok(Stat { size: 100, modified, ..old }));
    assert_eq!(fd_filestat_set_times(file, 7, 8, wasi::FSTFLAGS_ATIM), Ok(()));
    assert_eq!(stat(file), Ok(Stat { size: 100, modified, accessed: 7, ..old }));
    // Now is what the virtual clock says.
    let before = clock_time_get(wasi::CLOCKID_REALTIME, 0).unwrap();
    assert_eq!(fd_filestat_set_times(file, 0, 0, wasi::FSTFLAGS_MTIM_NOW), Ok(()));
    let after = clock_time_get(wasi::CLOCKID_REALTIME, 0).unwrap();
    assert!((before..=after).contains(&stat(file).unwrap().modified));
    assert_eq!(stat(file).unwrap().accessed, 7);
    assert_eq!(fd_filestat_set_size(file, 10), Ok(()));
    assert_eq!(stat(file).unwrap().size, 10);
}

fn file_allocate() {
    let file = create(scratch(), "file");
    for (offset, len, size) in [(0, 100, 100), (10, 10, 100), (90, 20, 110)] {
        assert_eq!(fd_allocate(file, offset, len), Ok(()));
        assert_eq!(stat(file).unwrap().size, size);
    }
    let mut buffer = [9; 110];
    assert_eq!((pread(file, &mut [&mut buffer], 0), buffer), (Ok(110), [0; 110]));
    assert_eq!(fd_allocate(file, u64::MAX, 1), Err(wasi::ERRNO_INVAL));
}

fn file_pread_pwrite() {
    let file = create(scratch(), "file");
    assert_eq!(pwrite(file, &[&[0, 1, 2, 3]], 0), Ok(4));
    assert_eq!(fd_tell(file), Ok(0), "an offset leaves the position alone");
    let (mut first, mut second) = ([9; 2], [9; 2]);
    assert_eq!(pread(file, &mut [&mut first, &mut second], 0), Ok(4));
    assert_eq!((first, second), ([0, 1], [2, 3]));
    assert_eq!(pwrite(file, &[&[0, 1], &[2, 3]], 0), Ok(4));
    let mut buffer = [9; 4];
    assert_eq!((pread(file, &mut [&mut buffer], 2), buffer), (Ok(2), [2, 3, 9, 9]));
    assert_eq!(pwrite(file, &[&[1, 0]], 2), Ok(2));
    assert_eq!((pread(file, &mut [&mut buffer], 0), buffer), (Ok(4), [0, 1, 1, 0]));
    assert_eq!(pread(file, &mut [&mut buffer], 100), Ok(0));
    // Past the end there are zeros.
    assert_eq!(pwrite(file, &[&[7]], 6), Ok(1));
    assert_eq!((pread(file, &mut [&mut buffer], 3), buffer), (Ok(4), [0, 0, 0, 7]));
    assert_eq!(pread(0, &mut [&mut buffer], 0), Err(wasi::ERRNO_SPIPE));
    assert_eq!(pwrite(1, &[&[7]], 0), Err(wasi::ERRNO_SPIPE));
}

fn file_seek_tell() {
    let file = create(scratch(), "file");
    assert_eq!(fd_tell(file), Ok(0));
    assert_eq!(write(file, &[0; 100]), Ok(100));
    assert_eq!(fd_tell(file), Ok(100));
    assert_eq!(fd_seek(file, -50, wasi::WHENCE_CUR), Ok(50));
    assert_eq!(fd_seek(file, 0, wasi::WHENCE_SET), Ok(0));
    assert_eq!(fd_seek(file, 1000, wasi::WHENCE_CUR), Ok(1000));
    assert_eq!(fd_seek(file, -2000, wasi::WHENCE_CUR), Err(wasi::ERRNO_INVAL));
    assert_eq!(fd_seek(file, -1, wasi::WHENCE_END), Ok(99));
    assert_eq!(fd_seek(file, 0, wasi::WHENCE_SET), Ok(0));
    assert_eq!(read(file, &mut [0; 100]), Ok(100));
    assert_eq!(fd_tell(file), Ok(100));
    for stream in 0..3 {
        assert_eq!(fd_seek(stream, 0, wasi::WHENCE_CUR), Err(wasi::ERRNO_SPIPE));
    }
}

fn file_truncation() {
    let dir = scratch();
    let file = open(dir, "file", wasi::OFLAGS_CREAT, wasi::RIGHTS_FD_WRITE).unwrap();
    assert_eq!(write(file, b"this will be gone"), Ok(17));
    let again = open(dir, "file", wasi::OFLAGS_CREAT | wasi::OFLAGS_TRUNC, READ_WRITE).unwrap();
    assert_eq!(read(again, &mut [0; 100]), Ok(0));
    assert_eq!(stat(file).unwrap().size, 0);
}

fn file_unbuffered_write() {
    let dir = scratch();
    let (reader, writer) = (create(dir, "file"), open(dir, "file", 0, wasi::RIGHTS_FD_WRITE).unwrap());
    let mut buffer = [0; 4];
    for byte in [1, 2] {
        assert_eq!(write(writer, &[byte]), Ok(1));
        assert_eq!((read(reader, &mut buffer), buffer[0]), (Ok(1), byte));
        assert_eq!((fd_sync(writer), fd_datasync(writer)), (Ok(()), Ok(())));
    }
    assert_eq!((fd_sync(99), fd_datasync(99)), (Err(wasi::ERRNO_BADF), Err(wasi::ERRNO_BADF)));
}

/// The same through the standard library, by absolute paths.
fn fopen_with_access() {
    assert_eq!(fs::read("/in/words.txt").unwrap(), b"hello");
    fs::write("/out/copy.txt", b"hello").unwrap();
    let mut file = fs::OpenOptions::new().read(true).append(true).open("/out/copy.txt").unwrap();
    file.write_all(b" again").unwrap();
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello again");
    assert!(fs::OpenOptions::new().write(true).create_new(true).open("/out/copy.txt").is_err());
}

fn fopen_with_no_access() {
    let kind = |path: &str| fs::write(path, b"x").unwrap_err().kind();
    assert_eq!(kind("/in/words.txt"), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(kind("/in/new"), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(kind("/new"), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(fs::read("/etc/passwd").unwrap_err().kind(), std::io::ErrorKind::NotFound);
    for change in [
        fs::remove_file("/in/words.txt"),
        fs::rename("/in/words.txt", "/tmp/words.txt"),
        fs::remove_dir("/tmp"),
        fs::remove_dir_all("/in"),
    ] {
        assert_eq!(change.unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }
    assert_eq!(fs::read("/in/words.txt").unwrap(), b"hello");
    let flags = wasi::FSTFLAGS_MTIM;
    assert_eq!(path_filestat_set_times(ROOT, 0, "in/words.txt", 0, 1, flags), Err(wasi::ERRNO_ROFS));
    let input = open(ROOT, "in/words.txt", 0, wasi::RIGHTS_FD_READ).unwrap();
    assert_eq!(fd_filestat_set_times(input, 0, 1, flags), Err(wasi::ERRNO_ROFS));
    assert_eq!(open(ROOT, "in/words.txt", wasi::OFLAGS_TRUNC, 0), Err(wasi::ERRNO_ROFS));
}

fn fstflags_validate() {
    let file = create(scratch(), "file");
    for flags in [wasi::FSTFLAGS_MTIM | wasi::FSTFLAGS_MTIM_NOW, wasi::FSTFLAGS_ATIM | wasi::FSTFLAGS_ATIM_NOW, 1 << 4]
    {
        assert_eq!(fd_filestat_set_times(file, 100, 200, flags), Err(wasi::ERRNO_INVAL));
    }
}

fn lseek() {
    scratch();
    let mut file = fs::File::create_new("/tmp/case/file").unwrap();
    file.write_all(&[1; 9]).unwrap();
    for (to, at) in [
        (SeekFrom::Start(3), 3),
        (SeekFrom::Current(4), 7),
        (SeekFrom::Current(-7), 0),
        (SeekFrom::End(0), 9),
        (SeekFrom::End(-8), 1),
        (SeekFrom::End(8), 17),
    ] {
        assert_eq!(file.seek(to).unwrap(), at);
    }
    assert!(file.seek(SeekFrom::Current(-18)).is_err());
    assert_eq!(file.stream_position().unwrap(), 17);
}

fn path_filestat() {
    let dir = scratch();
    assert_ne!(fd_fdstat_get(dir).unwrap().fs_rights_base & wasi::RIGHTS_PATH_FILESTAT_GET, 0);
    let flags = wasi::FDFLAGS_APPEND | wasi::FDFLAGS_SYNC;
    let file = path_open(dir, 0, "file", wasi::OFLAGS_CREAT, READ_WRITE, 0, flags).unwrap();
    assert_eq!(fd_fdstat_get(file).unwrap().fs_flags, flags);
    let old = path_stat(dir, 0, "file").unwrap();
    assert_eq!(old.size, 0);
    let set = |modified, times| path_filestat_set_times(dir, 0, "file", 0, modified, times);
    let modified = old.modified - 100;
    assert_eq!(set(modified, wasi::FSTFLAGS_MTIM), Ok(()));
    assert_eq!(path_stat(dir, 0, "file"), Ok(Stat { modified, ..old }));
    assert_eq!(set(1, wasi::FSTFLAGS_MTIM | wasi::FSTFLAGS_MTIM_NOW), Err(wasi::ERRNO_INVAL));
    assert_eq!(set(1, wasi::FSTFLAGS_ATIM | wasi::FSTFLAGS_ATIM_NOW), Err(wasi::ERRNO_INVAL));
    assert_eq!(path_stat(dir, 0, "file"), Ok(Stat { modified, ..old }));
    assert_eq!(path_stat(dir, 2, "file"), Err(wasi::ERRNO_INVAL));
    assert_eq!(path_stat(dir, 0, "missing"), Err(wasi::ERRNO_NOENT));
    // Writing does not move the times: they are the guest's own.
    assert_eq!(write(file, b"x"), Ok(1));
    assert_eq!(path_stat(dir, 0, "file"), Ok(Stat { modified, size: 1, ..old }));
}

fn pwrite_with_append() {
    let file = path_open(scratch(), 0, "file", wasi::OFLAGS_CREAT, ALL, 0, wasi::FDFLAGS_APPEND).unwrap();
    assert_eq!(write(file, b"abcd"), Ok(4));
    assert_eq!(pwrite(file, &[b"efgh"], 0), Ok(4));
    assert_eq!(fd_seek(file, 0, wasi::WHENCE_END), Ok(4));
    let mut buffer = [0; 4];
    assert_eq!((pread(file, &mut [&mut buffer], 0), &buffer), (Ok(4), b"efgh"));
}

fn stat_dev_ino() {
    let dir = scratch();
    let (a, b) = (stat(create(dir, "a")).unwrap(), stat(create(dir, "b")).unwrap());
    assert_eq!(a.dev, b.dev);
    assert_ne!(a.ino, b.ino);
    assert_eq!(path_stat(ROOT, 0, "tmp/case/a"), Ok(a));
}
