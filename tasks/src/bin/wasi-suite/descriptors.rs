//! Descriptors: closing, renumbering, rights, flags, preopened directories.

use crate::{Case, abi::*};

pub(crate) const CASES: &[Case] = &[
    ("close_preopen", close_preopen),
    ("dangling_fd", dangling_fd),
    ("dir_fd_op_failures", dir_fd_op_failures),
    ("directory_seek", directory_seek),
    ("fd_fdstat_set_rights", fd_fdstat_set_rights),
    ("fd_flags_set", fd_flags_set),
    ("isatty", isatty),
    ("overwrite_preopen", overwrite_preopen),
    ("path_open_preopen", path_open_preopen),
    ("path_open_read_without_rights", path_open_read_without_rights),
    ("path_open_read_write", path_open_read_write),
    ("renumber", renumber),
    ("sock_not_sock", sock_not_sock),
    ("stdio", stdio),
    ("truncation_rights", truncation_rights),
];

fn root_again() -> Fd {
    let stat = fd_fdstat_get(ROOT).unwrap();
    path_open(ROOT, 0, ".", wasi::OFLAGS_DIRECTORY, stat.fs_rights_base, stat.fs_rights_inheriting, 0).unwrap()
}

fn close_preopen() {
    let dir = root_again();
    assert!(dir > ROOT);
    assert_eq!(fd_close(ROOT), Ok(()));
    assert_eq!(fd_fdstat_get(dir).unwrap().fs_filetype, wasi::FILETYPE_DIRECTORY);
    assert_eq!(fd_close(ROOT), Err(wasi::ERRNO_BADF));
    assert_eq!(preopen(ROOT), Err(wasi::ERRNO_BADF));
    // What is still open reaches what it did.
    assert_eq!(path_stat(dir, 0, "tmp").unwrap().kind, DIRECTORY);
}

fn dangling_fd() {
    let dir = scratch();
    let file = create(dir, "file");
    assert_eq!(write(file, b"kept"), Ok(4));
    assert_eq!(path_unlink_file(dir, "file"), Ok(()));
    assert_eq!(open_fails(dir, "file", 0), wasi::ERRNO_NOENT);
    let mut kept = [0; 8];
    assert_eq!((pread(file, &mut [&mut kept], 0), &kept[..4]), (Ok(4), &b"kept"[..]));
    assert_eq!(stat(file).unwrap().names, 0);
    // A file of the same name is another one.
    touch(dir, "file");
    assert_ne!(path_stat(dir, 0, "file").unwrap().ino, stat(file).unwrap().ino);
    assert_eq!(fd_close(file), Ok(()));
    path_create_directory(dir, "sub").unwrap();
    let sub = open(dir, "sub", wasi::OFLAGS_DIRECTORY, 0).unwrap();
    assert_eq!(path_remove_directory(dir, "sub"), Ok(()));
    assert_eq!(open_fails(sub, "file", wasi::OFLAGS_CREAT), wasi::ERRNO_NOENT);
    assert_eq!(names(sub), [""; 0]);
    assert_eq!(fd_close(sub), Ok(()));
}

fn dir_fd_op_failures() {
    let dir = root_again();
    assert_eq!(stat(dir).unwrap().kind, DIRECTORY);
    assert_eq!(preopen_name(ROOT, 0), Err(wasi::ERRNO_NAMETOOLONG));
    let len = preopen(ROOT).unwrap();
    assert_eq!(preopen_name(ROOT, len + 1).unwrap()[..len], b"/"[..]);
    let mut buffer = [0; 128];
    assert_eq!(read(dir, &mut buffer), Err(wasi::ERRNO_ISDIR));
    assert_eq!(pread(dir, &mut [&mut buffer], 0), Err(wasi::ERRNO_ISDIR));
    assert_eq!(write(dir, &buffer), Err(wasi::ERRNO_BADF));
    assert_eq!(pwrite(dir, &[&buffer], 0), Err(wasi::ERRNO_BADF));
    for whence in [wasi::WHENCE_CUR, wasi::WHENCE_SET, wasi::WHENCE_END] {
        assert_eq!(fd_seek(dir, 0, whence), Err(wasi::ERRNO_ISDIR));
    }
    assert_eq!(fd_tell(dir), Err(wasi::ERRNO_ISDIR));
    assert_eq!(fd_allocate(dir, 0, 1), Err(wasi::ERRNO_ISDIR));
    assert_eq!(fd_filestat_set_size(dir, 0), Err(wasi::ERRNO_ISDIR));
}

fn directory_seek() {
    let dir = scratch();
    path_create_directory(dir, "sub").unwrap();
    let sub = open(dir, "sub", wasi::OFLAGS_DIRECTORY, wasi::RIGHTS_FD_SEEK).unwrap();
    assert_eq!(fd_seek(sub, 0, wasi::WHENCE_CUR), Err(wasi::ERRNO_ISDIR));
    let stat = fd_fdstat_get(sub).unwrap();
    assert_eq!(stat.fs_filetype, wasi::FILETYPE_DIRECTORY);
    assert_eq!(stat.fs_rights_base & wasi::RIGHTS_FD_SEEK, 0);
}

fn fd_fdstat_set_rights() {
    let dir = scratch();
    let wanted = READ_WRITE | wasi::RIGHTS_FD_SEEK | wasi::RIGHTS_FD_TELL;
    let file = open(dir, "file", wasi::OFLAGS_CREAT, wanted).unwrap();
    assert_eq!(write(file, &[0, 1, 2, 3]), Ok(4));
    assert_eq!(fd_seek(file, 0, wasi::WHENCE_SET), Ok(0));
    let mut buffer = [9; 4];
    assert_eq!((read(file, &mut buffer), buffer), (Ok(4), [0, 1, 2, 3]));
    let left = fd_fdstat_get(file).unwrap().fs_rights_base & !READ_WRITE;
    assert_eq!(crate::abi::fd_fdstat_set_rights(file, left, 0), Ok(()));
    let rights = fd_fdstat_get(file).unwrap().fs_rights_base;
    assert_eq!((rights & READ_WRITE, rights & wasi::RIGHTS_FD_SEEK), (0, wasi::RIGHTS_FD_SEEK));
    assert_eq!(read(file, &mut buffer), Err(wasi::ERRNO_BADF));
    assert_eq!(write(file, &buffer), Err(wasi::ERRNO_BADF));
    // What was given up does not come back.
    assert_eq!(crate::abi::fd_fdstat_set_rights(file, wanted, 0), Err(wasi::ERRNO_NOTCAPABLE));
    assert_eq!(crate::abi::fd_fdstat_set_rights(file, left, ALL), Err(wasi::ERRNO_NOTCAPABLE));
}

fn fd_flags_set() {
    let dir = scratch();
    let file = path_open(dir, 0, "file", wasi::OFLAGS_CREAT, ALL, 0, wasi::FDFLAGS_APPEND).unwrap();
    assert_eq!(fd_fdstat_get(file).unwrap().fs_flags, wasi::FDFLAGS_APPEND);
    let mut buffer = [9; 100];
    let at = |offset| assert_eq!(fd_seek(file, offset, wasi::WHENCE_SET), Ok(offset as u64));
    assert_eq!(write(file, &[0; 100]), Ok(100));
    at(0);
    assert_eq!((read(file, &mut buffer), buffer), (Ok(100), [0; 100]));
    // Appends wherever the descriptor is.
    at(0);
    assert_eq!(write(file, &[1; 100]), Ok(100));
    assert_eq!(fd_tell(file), Ok(200));
    at(100);
    assert_eq!((read(file, &mut buffer), buffer), (Ok(100), [1; 100]));
    // And no longer.
    assert_eq!(fd_fdstat_set_flags(file, 0), Ok(()));
    at(0);
    assert_eq!(write(file, &[2; 100]), Ok(100));
    at(0);
    assert_eq!((read(file, &mut buffer), buffer), (Ok(100), [2; 100]));
    assert_eq!(path_stat(dir, 0, "file").unwrap().size, 200);
    assert_eq!(fd_fdstat_set_flags(file, 1 << 5), Err(wasi::ERRNO_INVAL));
}

fn isatty() {
    use std::io::IsTerminal;

    let dir = scratch();
    let file = create(dir, "file");
    assert_eq!(fd_fdstat_get(file).unwrap().fs_filetype, wasi::FILETYPE_REGULAR_FILE);
    for fd in 0..3 {
        assert_ne!(fd_fdstat_get(fd).unwrap().fs_filetype, wasi::FILETYPE_CHARACTER_DEVICE);
    }
    assert!(!std::io::stdin().is_terminal() && !std::io::stdout().is_terminal() && !std::io::stderr().is_terminal());
    assert!(!std::fs::File::open("/tmp/case/file").unwrap().is_terminal());
}

fn overwrite_preopen() {
    let dir = scratch();
    let old = stat(dir).unwrap();
    assert_eq!(fd_renumber(dir, ROOT), Ok(()));
    assert_eq!(stat(ROOT), Ok(old));
    assert_eq!(fd_fdstat_get(dir).map(|_| ()), Err(wasi::ERRNO_BADF));
    assert_eq!(preopen(ROOT), Err(wasi::ERRNO_BADF));
    // Nothing leads back up.
    assert_eq!(path_stat(ROOT, 0, "../case"), Err(wasi::ERRNO_NOTCAPABLE));
    assert_eq!(fd_close(ROOT), Ok(()));
}

fn path_open_preopen() {
    let base = wasi::RIGHTS_PATH_CREATE_DIRECTORY
        | wasi::RIGHTS_PATH_CREATE_FILE
        | wasi::RIGHTS_PATH_LINK_SOURCE
        | wasi::RIGHTS_PATH_LINK_TARGET
        | wasi::RIGHTS_PATH_OPEN
        | wasi::RIGHTS_FD_READDIR
        | wasi::RIGHTS_PATH_READLINK
        | wasi::RIGHTS_PATH_RENAME_SOURCE
        | wasi::RIGHTS_PATH_RENAME_TARGET
        | wasi::RIGHTS_PATH_SYMLINK
        | wasi::RIGHTS_PATH_REMOVE_DIRECTORY
        | wasi::RIGHTS_PATH_UNLINK_FILE
        | wasi::RIGHTS_PATH_FILESTAT_GET
        | wasi::RIGHTS_PATH_FILESTAT_SET_TIMES
        | wasi::RIGHTS_FD_FILESTAT_GET
        | wasi::RIGHTS_FD_FILESTAT_SET_TIMES;
    assert_eq!(preopen_name(ROOT, preopen(ROOT).unwrap()).unwrap(), b"/");
    assert_eq!(preopen(ROOT + 1), Err(wasi::ERRNO_BADF), "there is one preopened directory");
    let stat = fd_fdstat_get(ROOT).unwrap();
    assert_eq!(stat.fs_rights_base & base, base);
    assert_eq!(stat.fs_rights_inheriting & ALL & !wasi::RIGHTS_SOCK_SHUTDOWN, ALL & !wasi::RIGHTS_SOCK_SHUTDOWN);
    assert!(path_open(ROOT, 0, ".", 0, stat.fs_rights_base, stat.fs_rights_inheriting, 0).is_ok());
    assert!(open(ROOT, ".", 0, 0).is_ok());
    assert!(open(ROOT, ".", wasi::OFLAGS_DIRECTORY, 0).is_ok());
    assert!(open(ROOT, ".", wasi::OFLAGS_DIRECTORY, wasi::RIGHTS_FD_READ).is_ok());
    assert_eq!(open(ROOT, ".", wasi::OFLAGS_DIRECTORY, READ_WRITE), Err(wasi::ERRNO_ISDIR));
}

fn path_open_read_without_rights() {
    let dir = scratch();
    touch(dir, "file");
    let file = open(dir, "file", 0, 0).unwrap();
    let stat = fd_fdstat_get(file).unwrap();
    assert_eq!((stat.fs_rights_base | stat.fs_rights_inheriting) & wasi::RIGHTS_FD_READ, 0);
    assert_eq!(read(file, &mut [0]), Err(wasi::ERRNO_BADF));
    assert_eq!(fd_allocate(file, 0, 1), Err(wasi::ERRNO_BADF));
    assert_eq!(fd_filestat_set_size(file, 1), Err(wasi::ERRNO_BADF));
}

fn path_open_read_write() {
    let dir = scratch();
    touch(dir, "file");
    let rights = |fd| fd_fdstat_get(fd).unwrap().fs_rights_base & READ_WRITE;
    let mut buffer = [0; 100];
    let reader = open(dir, "file", 0, wasi::RIGHTS_FD_READ).unwrap();
    assert_eq!(rights(reader), wasi::RIGHTS_FD_READ);
    assert_eq!(read(reader, &mut buffer), Ok(0));
    assert_eq!(write(reader, &[1; 50]), Err(wasi::ERRNO_BADF));
    let writer = open(dir, "file", 0, wasi::RIGHTS_FD_WRITE).unwrap();
    assert_eq!(rights(writer), wasi::RIGHTS_FD_WRITE);
    assert_eq!(read(writer, &mut buffer), Err(wasi::ERRNO_BADF));
    assert_eq!(write(writer, &[1; 50]), Ok(50));
    let both = open(dir, "file", 0, READ_WRITE).unwrap();
    assert_eq!(rights(both), READ_WRITE);
    assert_eq!(read(both, &mut buffer), Ok(50));
    assert_eq!(write(both, &[2; 25]), Ok(25));
    assert_eq!(stat(both).unwrap().size, 75);
    // The reader has stayed where it was, and sees what the others wrote.
    assert_eq!(read(reader, &mut buffer), Ok(75));
}

fn renumber() {
    let dir = scratch();
    let (from, to) = (create(dir, "file1"), create(dir, "file2"));
    let (stat_from, ino) = (fd_fdstat_get(from).unwrap(), stat(from).unwrap().ino);
    assert_eq!(fd_renumber(from, to), Ok(()));
    assert_eq!(fd_close(from), Err(wasi::ERRNO_BADF));
    let stat_to = fd_fdstat_get(to).unwrap();
    assert_eq!(stat_from.fs_filetype, stat_to.fs_filetype);
    assert_eq!(stat_from.fs_flags, stat_to.fs_flags);
    assert_eq!(stat_from.fs_rights_base, stat_to.fs_rights_base);
    assert_eq!(stat_from.fs_rights_inheriting, stat_to.fs_rights_inheriting);
    assert_eq!(stat(to).unwrap().ino, ino);
    // What is not open is no place to move to.
    assert_eq!(fd_renumber(to, from), Err(wasi::ERRNO_BADF));
    assert_eq!(fd_renumber(from, to), Err(wasi::ERRNO_BADF));
    assert_eq!(fd_renumber(to, to), Ok(()));
    assert_eq!(fd_close(to), Ok(()));
    // The number is free again.
    assert_eq!(open(dir, "file2", 0, 0), Ok(from));
}

fn sock_not_sock() {
    let dir = scratch();
    let file = create(dir, "file");
    for (fd, errno) in [(file, wasi::ERRNO_NOTSOCK), (0, wasi::ERRNO_NOTSOCK), (99, wasi::ERRNO_BADF)] {
        assert_eq!(sock_shutdown(fd, wasi::SDFLAGS_RD), Err(errno));
        assert_eq!(sock_accept(fd, 0), Err(errno));
        assert_eq!(recv(fd), Err(errno));
        assert_eq!(send(fd), Err(errno));
    }
}

fn stdio() {
    let dir = scratch();
    for from in [0, 1] {
        let to = create(dir, "file");
        assert_eq!(fd_renumber(from, to), Ok(()));
        assert!(fd_fdstat_get(to).is_ok());
        assert_eq!(fd_fdstat_get(from).map(|_| ()), Err(wasi::ERRNO_BADF));
        assert_eq!(path_unlink_file(dir, "file"), Ok(()));
    }
    // The second file got number 0, which was free, and became standard output. Number 1 is free now.
    assert_eq!(write(0, b"x"), Ok(1));
    assert_eq!(open(dir, ".", 0, 0), Ok(1));
    assert_eq!(write(1, b"x"), Err(wasi::ERRNO_BADF), "a directory is no standard output");
}

fn truncation_rights() {
    let dir = scratch();
    touch(dir, "file");
    let stat = fd_fdstat_get(dir).unwrap();
    assert_eq!((stat.fs_filetype, stat.fs_flags), (wasi::FILETYPE_DIRECTORY, 0));
    assert_eq!(stat.fs_rights_base & wasi::RIGHTS_FD_FILESTAT_SET_SIZE, 0);
    let truncate = || open(dir, "file", wasi::OFLAGS_TRUNC, 0).map(fd_close);
    assert_eq!(truncate(), Ok(Ok(())));
    let inheriting = stat.fs_rights_inheriting & !wasi::RIGHTS_FD_FILESTAT_SET_SIZE;
    assert_eq!(crate::abi::fd_fdstat_set_rights(dir, stat.fs_rights_base, inheriting), Ok(()));
    assert_eq!(truncate(), Ok(Ok(())));
    let base = stat.fs_rights_base & !wasi::RIGHTS_PATH_FILESTAT_SET_SIZE;
    assert_eq!(crate::abi::fd_fdstat_set_rights(dir, base, inheriting), Ok(()));
    assert_eq!(fd_fdstat_get(dir).unwrap().fs_rights_base & wasi::RIGHTS_PATH_FILESTAT_SET_SIZE, 0);
    assert_eq!(truncate(), Err(wasi::ERRNO_NOTCAPABLE));
}
