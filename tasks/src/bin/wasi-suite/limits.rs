//! What a task may have at most: bytes, names, descriptors, lengths. Each refusal costs nothing, and room that is given back
//! can be taken again. The bounds here are the host's, or those that the host's test asks for.

use crate::{Case, abi::*};

pub(crate) const CASES: &[Case] = &[
    ("descriptors_end", descriptors_end),
    ("names_end", names_end),
    ("output_files_end", output_files_end),
    ("path_lengths_end", path_lengths_end),
    ("scratch_ends", scratch_ends),
];

const FDS_MAX: usize = 256;
const NAMES_MAX: usize = 4096;
/// What the test gives: 64 KiB.
const SCRATCH_BYTES: u64 = 64 << 10;

fn descriptors_end() {
    let dir = scratch();
    touch(dir, "file");
    let opened: Vec<_> = std::iter::from_fn(|| open(dir, "file", 0, 0).ok()).collect();
    // The streams, the root and this directory.
    assert_eq!(opened.len(), FDS_MAX - 5);
    assert_eq!(open(dir, "new", wasi::OFLAGS_CREAT, 0), Err(wasi::ERRNO_MFILE));
    assert_eq!(names(dir), ["file"], "a refused open makes no file");
    assert_eq!(fd_close(opened[7]), Ok(()));
    assert_eq!(open(dir, "file", 0, 0), Ok(opened[7]));
}

fn names_end() {
    let dir = scratch();
    touch(dir, "file");
    // The directory and the file are names too.
    for n in 2..NAMES_MAX {
        let name = format!("{n}");
        match n % 3 {
            0 => assert_eq!(path_create_directory(dir, &name), Ok(())),
            1 => assert_eq!(path_link(dir, 0, "file", dir, &name), Ok(())),
            _ => assert_eq!(path_symlink("x", dir, &name), Ok(())),
        }
    }
    assert_eq!(path_create_directory(dir, "more"), Err(wasi::ERRNO_NOSPC));
    assert_eq!(path_symlink("x", dir, "more"), Err(wasi::ERRNO_NOSPC));
    assert_eq!(path_link(dir, 0, "file", dir, "more"), Err(wasi::ERRNO_NOSPC));
    assert_eq!(open(dir, "more", wasi::OFLAGS_CREAT, 0), Err(wasi::ERRNO_NOSPC));
    assert_eq!(path_rename(dir, "2", dir, "more"), Ok(()), "a rename takes no name");
    assert_eq!(path_unlink_file(dir, "more"), Ok(()));
    touch(dir, "more");
}

fn output_files_end() {
    let dir = scratch();
    touch(dir, "one");
    touch(ROOT, "out/0");
    let more = |n: usize| path_link(ROOT, 0, "out/0", ROOT, &format!("out/{n}"));
    let made = 1 + (1..NAMES_MAX).take_while(|n| more(*n).is_ok()).count();
    assert_eq!(made, 1024);
    assert_eq!(open(ROOT, "out/more", wasi::OFLAGS_CREAT, 0), Err(wasi::ERRNO_NOSPC));
    assert_eq!(path_rename(dir, "one", ROOT, "out/more"), Err(wasi::ERRNO_NOSPC));
    // Directories and symbolic links are no files.
    assert_eq!(path_create_directory(ROOT, "out/dir"), Ok(()));
    assert_eq!(path_symlink("0", ROOT, "out/link"), Ok(()));
    assert_eq!(path_rename(dir, "one", ROOT, "out/7"), Ok(()), "one for another");
    assert_eq!(path_unlink_file(ROOT, "out/0"), Ok(()));
    touch(ROOT, "out/more");
}

fn path_lengths_end() {
    let dir = scratch();
    let name = "x".repeat(255);
    touch(dir, &name);
    assert_eq!(open_fails(dir, &"x".repeat(256), wasi::OFLAGS_CREAT), wasi::ERRNO_NAMETOOLONG);
    assert!(open(dir, &format!("{}{name}", "./".repeat(1920)), 0, 0).is_ok());
    assert_eq!(open_fails(dir, &"./".repeat(2049), 0), wasi::ERRNO_NAMETOOLONG);
    // Nor does a tree grow deeper step by step.
    let (mut at, mut depth) = (dir, 0);
    while path_create_directory(at, "deeper").is_ok() {
        at = open(at, "deeper", 0, 0).unwrap();
        depth += 1;
        assert!(depth < 250, "paths have no end");
    }
    assert_eq!(path_create_directory(at, "deeper"), Err(wasi::ERRNO_NAMETOOLONG));
    // Neither by moving one tree below another.
    path_create_directory(dir, "a").unwrap();
    path_create_directory(dir, &format!("a/{name}")).unwrap();
    path_rename(dir, "deeper", dir, &format!("a/{name}/deeper")).expect_err("the path would be too long");
}

fn scratch_ends() {
    let dir = scratch();
    let file = create(dir, "file");
    assert_eq!(fd_filestat_set_size(file, SCRATCH_BYTES), Ok(()));
    for refused in [
        fd_filestat_set_size(file, SCRATCH_BYTES + 1),
        fd_filestat_set_size(file, u64::MAX >> 8),
        fd_allocate(file, SCRATCH_BYTES, 1),
        pwrite(file, &[b"x"], SCRATCH_BYTES).map(|_| ()),
        pwrite(file, &[b"x"], u64::MAX >> 8).map(|_| ()),
        path_symlink("x", dir, "link"),
    ] {
        assert_eq!(refused, Err(wasi::ERRNO_NOSPC));
    }
    assert_eq!(stat(file).unwrap().size, SCRATCH_BYTES);
    // Another name takes no room, and gives none back when it goes.
    assert_eq!(path_link(dir, 0, "file", dir, "same"), Ok(()));
    assert_eq!(path_unlink_file(dir, "file"), Ok(()));
    assert_eq!(path_symlink("x", dir, "link"), Err(wasi::ERRNO_NOSPC));
    // An open file keeps its room until it is closed.
    assert_eq!(path_unlink_file(dir, "same"), Ok(()));
    assert_eq!(path_symlink("x", dir, "link"), Err(wasi::ERRNO_NOSPC));
    assert_eq!(fd_close(file), Ok(()));
    for _ in 0..3 {
        let file = create(dir, "again");
        assert_eq!(write(file, &[1; SCRATCH_BYTES as usize]), Ok(SCRATCH_BYTES as usize));
        assert_eq!((fd_close(file), path_unlink_file(dir, "again")), (Ok(()), Ok(())));
    }
}
