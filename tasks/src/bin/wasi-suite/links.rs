//! Links, hard and symbolic.

use crate::{Case, abi::*};

pub(crate) const CASES: &[Case] = &[
    ("dangling_symlink", dangling_symlink),
    ("link_outputs", link_outputs),
    ("link_renames", link_renames),
    ("nofollow_errors", nofollow_errors),
    ("path_link", link),
    ("path_symlink_trailing_slashes", path_symlink_trailing_slashes),
    ("readlink", read_link),
    ("symlink_create", symlink_create),
    ("symlink_filestat", symlink_filestat),
    ("symlink_loop", symlink_loop),
    ("symlink_no_way_out", symlink_no_way_out),
];

fn dangling_symlink() {
    let dir = scratch();
    path_symlink("target", dir, "link").unwrap();
    assert_eq!(open_fails(dir, "link", wasi::OFLAGS_DIRECTORY), wasi::ERRNO_NOTDIR);
    assert_eq!(open_fails(dir, "link", 0), wasi::ERRNO_LOOP);
    assert_eq!(follow(dir, "link", 0, 0), Err(wasi::ERRNO_NOENT));
    assert_eq!(path_stat(dir, 1, "link"), Err(wasi::ERRNO_NOENT));
    // Making a file through it makes what it leads to.
    assert!(follow(dir, "link", wasi::OFLAGS_CREAT, ALL).is_ok());
    assert_eq!(names(dir), ["link", "target"]);
    assert_eq!(path_unlink_file(dir, "link"), Ok(()));
    assert_eq!(names(dir), ["target"]);
}

/// What is under `/out` afterwards is checked from outside.
fn link_outputs() {
    let file = create(ROOT, "out/file");
    assert_eq!(write(file, b"twice"), Ok(5));
    path_create_directory(ROOT, "out/sub").unwrap();
    assert_eq!(path_link(ROOT, 0, "out/file", ROOT, "out/sub/same"), Ok(()));
    assert_eq!(write(file, b" over"), Ok(5));
    path_symlink("file", ROOT, "out/symbolic").unwrap();
    path_symlink("../in", ROOT, "out/input").unwrap();
    path_symlink("symbolic", ROOT, "out/sub/dangling").unwrap();
    // A file has all its names in one zone.
    assert_eq!(path_link(ROOT, 0, "out/file", ROOT, "tmp/same"), Err(wasi::ERRNO_XDEV));
    assert_eq!(path_link(ROOT, 0, "in/words.txt", ROOT, "out/words"), Err(wasi::ERRNO_XDEV));
    assert_eq!(path_link(ROOT, 0, "out/file", ROOT, "in/same"), Err(wasi::ERRNO_ROFS));
    assert_eq!(path_symlink("x", ROOT, "in/link"), Err(wasi::ERRNO_ROFS));
    assert_eq!(path_symlink("x", ROOT, "link"), Err(wasi::ERRNO_ROFS));
    assert_eq!(path_rename(ROOT, "out/file", ROOT, "tmp/file"), Err(wasi::ERRNO_XDEV));
}

fn link_renames() {
    let dir = scratch();
    touch(dir, "file");
    path_link(dir, 0, "file", dir, "same").unwrap();
    // Two names of one file: nothing to do.
    assert_eq!(path_rename(dir, "file", dir, "same"), Ok(()));
    assert_eq!(names(dir), ["file", "same"]);
    assert_eq!(path_stat(dir, 0, "same").unwrap().names, 2);
    // A link moves as itself and is replaced as itself.
    path_create_directory(dir, "sub").unwrap();
    path_symlink("sub", dir, "link").unwrap();
    assert_eq!(path_rename(dir, "link/", dir, "moved"), Err(wasi::ERRNO_NOTDIR));
    assert_eq!(path_rename(dir, "link", dir, "moved"), Ok(()));
    assert_eq!(path_stat(dir, 0, "moved").unwrap().kind, LINK);
    assert_eq!(path_rename(dir, "file", dir, "moved"), Ok(()));
    assert_eq!(path_stat(dir, 0, "moved").unwrap().kind, FILE);
    assert_eq!(path_stat(dir, 0, "sub").unwrap().kind, DIRECTORY);
    assert_eq!(path_unlink_file(dir, "same"), Ok(()));
    assert_eq!(path_stat(dir, 0, "moved").unwrap().names, 1);
    // Removing by a link with a slash does not reach what it leads to.
    path_symlink("sub", dir, "link").unwrap();
    assert_eq!(path_remove_directory(dir, "link/"), Err(wasi::ERRNO_NOTDIR));
    assert_eq!(path_remove_directory(dir, "link"), Err(wasi::ERRNO_NOTDIR));
    assert_eq!(path_create_directory(dir, "link"), Err(wasi::ERRNO_EXIST));
    // Names are listed each for itself, though they are of one file.
    for n in 0..50 {
        path_link(dir, 0, "moved", dir, &format!("sub/{n}")).unwrap();
    }
    let sub = open(dir, "sub", 0, 0).unwrap();
    let (mut seen, mut cookie, mut done) = (Vec::new(), 0, false);
    while !done {
        let (entries, all) = readdir(sub, 60, cookie).unwrap();
        cookie = entries.last().map_or(cookie, |entry| entry.next);
        seen.extend(entries.into_iter().map(|entry| entry.name));
        done = all;
    }
    assert_eq!(seen.len(), 52);
    assert_eq!(path_stat(dir, 0, "moved").unwrap().names, 51);
}

fn nofollow_errors() {
    let dir = scratch();
    let followed = |oflags| follow(dir, "link", oflags, 0).map(fd_close);
    path_create_directory(dir, "target").unwrap();
    path_symlink("target", dir, "link").unwrap();
    assert_eq!(open_fails(dir, "link", wasi::OFLAGS_DIRECTORY), wasi::ERRNO_NOTDIR);
    assert_eq!(open_fails(dir, "link", 0), wasi::ERRNO_LOOP);
    assert_eq!(followed(wasi::OFLAGS_DIRECTORY), Ok(Ok(())));
    assert_eq!(path_unlink_file(dir, "link"), Ok(()));
    assert_eq!(path_remove_directory(dir, "target"), Ok(()));
    touch(dir, "target");
    path_symlink("target", dir, "link").unwrap();
    assert_eq!(open_fails(dir, "link", wasi::OFLAGS_DIRECTORY), wasi::ERRNO_NOTDIR);
    assert_eq!(open_fails(dir, "link", 0), wasi::ERRNO_LOOP);
    assert_eq!(open_fails(dir, "link", wasi::OFLAGS_TRUNC), wasi::ERRNO_LOOP);
    assert_eq!(followed(wasi::OFLAGS_DIRECTORY), Err(wasi::ERRNO_NOTDIR));
    assert_eq!(followed(0), Ok(Ok(())));
}

fn link() {
    let dir = scratch();
    let file = create(dir, "file");
    path_create_directory(dir, "sub").unwrap();
    let sub = open(dir, "sub", wasi::OFLAGS_DIRECTORY, 0).unwrap();
    for (to, name) in [(dir, "link"), (sub, "link")] {
        assert_eq!(path_link(dir, 0, "file", to, name), Ok(()));
        let other = open(to, name, 0, ALL).unwrap();
        assert_eq!(stat(other), stat(file));
        assert_eq!(stat(file).unwrap().names, 2);
        let (a, b) = (fd_fdstat_get(file).unwrap(), fd_fdstat_get(other).unwrap());
        assert_eq!(a.fs_filetype, b.fs_filetype);
        assert_eq!((a.fs_flags, a.fs_rights_base), (b.fs_flags, b.fs_rights_base));
        assert_eq!(write(other, b"x"), Ok(1));
        assert_eq!(path_unlink_file(to, name), Ok(()));
    }
    assert_eq!((stat(file).unwrap().names, stat(file).unwrap().size), (1, 1));
    // What is there already stays.
    touch(dir, "link");
    for taken in ["link", "file", "sub"] {
        assert_eq!(path_link(dir, 0, "file", dir, taken), Err(wasi::ERRNO_EXIST), "{taken}");
    }
    assert_eq!(path_link(dir, 0, "sub", dir, "new"), Err(wasi::ERRNO_PERM));
    assert_eq!(path_link(dir, 0, "file", dir, "new/"), Err(wasi::ERRNO_NOENT));
    assert_eq!(path_link(dir, 0, "file/", dir, "new"), Err(wasi::ERRNO_NOTDIR));
    assert_eq!(path_link(dir, 0, "missing", dir, "new"), Err(wasi::ERRNO_NOENT));
    // A symbolic link is linked itself, wherever it leads.
    for target in ["missing", "symlink"] {
        path_symlink(target, dir, "symlink").unwrap();
        assert_eq!(path_link(dir, 0, "symlink", dir, "again"), Ok(()));
        assert_eq!(path_stat(dir, 0, "again"), path_stat(dir, 0, "symlink"));
        assert_eq!(path_link(dir, 0, "file", dir, "symlink"), Err(wasi::ERRNO_EXIST));
        let followed = wasi::LOOKUPFLAGS_SYMLINK_FOLLOW;
        assert_eq!(path_link(dir, followed, "symlink", dir, "new"), Err(wasi::ERRNO_INVAL));
        assert_eq!(path_unlink_file(dir, "symlink"), Ok(()));
        assert_eq!(path_unlink_file(dir, "again"), Ok(()));
    }
}

fn path_symlink_trailing_slashes() {
    let dir = scratch();
    assert_eq!(path_symlink("source", dir, "target/"), Err(wasi::ERRNO_NOENT));
    assert_eq!(path_symlink("source", dir, "target"), Ok(()));
    assert_eq!(path_unlink_file(dir, "target"), Ok(()));
    path_create_directory(dir, "target").unwrap();
    assert_eq!(path_symlink("source", dir, "target/"), Err(wasi::ERRNO_EXIST));
    assert_eq!(path_symlink("source", dir, "target"), Err(wasi::ERRNO_EXIST));
    assert_eq!(path_remove_directory(dir, "target"), Ok(()));
    touch(dir, "target");
    assert_eq!(path_symlink("source", dir, "target/"), Err(wasi::ERRNO_NOTDIR));
    assert_eq!(path_symlink("source", dir, "target"), Err(wasi::ERRNO_EXIST));
}

fn read_link() {
    let dir = scratch();
    touch(dir, "target");
    path_symlink("target", dir, "link").unwrap();
    let mut buffer = [0; 10];
    assert_eq!((readlink(dir, "link", &mut buffer), &buffer), (Ok(6), b"target\0\0\0\0"));
    let mut short = [0; 4];
    assert_eq!((readlink(dir, "link", &mut short), &short), (Ok(4), b"targ"));
    assert_eq!(path_stat(dir, 0, "link").unwrap().size, 6);
    assert_eq!(readlink(dir, "target", &mut buffer), Err(wasi::ERRNO_INVAL));
    assert_eq!(readlink(dir, "missing", &mut buffer), Err(wasi::ERRNO_NOENT));
    assert_eq!(std::fs::read_link("/tmp/case/link").unwrap(), std::path::Path::new("target"));
}

fn symlink_create() {
    let dir = scratch();
    touch(dir, "file");
    path_create_directory(dir, "sub").unwrap();
    path_symlink("file", dir, "to_file").unwrap();
    path_symlink("sub/", dir, "to_dir").unwrap();
    assert!(follow(dir, "to_file", 0, READ_WRITE).is_ok());
    assert!(follow(dir, "to_dir", wasi::OFLAGS_DIRECTORY, 0).is_ok());
    touch(dir, "to_dir/inside");
    assert_eq!(path_stat(dir, 0, "sub/inside").unwrap().kind, FILE);
    let (entries, _) = readdir(dir, 4096, 0).unwrap();
    let kinds: Vec<_> = entries[2..].iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [FILE, DIRECTORY, LINK, LINK]);
    for (target, errno) in [
        ("/", wasi::ERRNO_NOTCAPABLE),
        ("", wasi::ERRNO_NOENT),
        ("a\0", wasi::ERRNO_ILSEQ),
        (&"x/".repeat(2049), wasi::ERRNO_NAMETOOLONG),
    ] {
        assert_eq!(path_symlink(target, dir, "bad"), Err(errno));
    }
}

fn symlink_filestat() {
    let dir = scratch();
    let file = create(dir, "file");
    path_symlink("file", dir, "link").unwrap();
    let (of_file, of_link) = (stat(file).unwrap(), path_stat(dir, 0, "link").unwrap());
    let set = |flags, modified| path_filestat_set_times(dir, flags, "link", 0, modified, wasi::FSTFLAGS_MTIM);
    let modified = of_link.modified - 200;
    assert_eq!(set(0, modified), Ok(()));
    assert_eq!(path_stat(dir, 0, "link"), Ok(Stat { modified, ..of_link }));
    assert_eq!(stat(file), Ok(of_file));
    assert_eq!(path_stat(dir, wasi::LOOKUPFLAGS_SYMLINK_FOLLOW, "link"), Ok(of_file));
    assert_eq!(set(wasi::LOOKUPFLAGS_SYMLINK_FOLLOW, 5), Ok(()));
    assert_eq!(stat(file), Ok(Stat { modified: 5, ..of_file }));
    assert_eq!(path_stat(dir, 0, "link"), Ok(Stat { modified, ..of_link }));
}

fn symlink_loop() {
    let dir = scratch();
    path_symlink("loop", dir, "loop").unwrap();
    assert_eq!(open_fails(dir, "loop", 0), wasi::ERRNO_LOOP);
    assert_eq!(follow(dir, "loop", wasi::OFLAGS_CREAT, 0), Err(wasi::ERRNO_LOOP));
    assert_eq!(path_stat(dir, 0, "loop/file"), Err(wasi::ERRNO_LOOP));
    path_symlink("b", dir, "a").unwrap();
    path_symlink("a/x/y/z", dir, "b").unwrap();
    assert_eq!(path_stat(dir, 1, "a"), Err(wasi::ERRNO_LOOP));
    // A chain is followed for forty links.
    touch(dir, "0");
    for n in 1..=41 {
        path_symlink(&(n - 1).to_string(), dir, &n.to_string()).unwrap();
    }
    assert_eq!(path_stat(dir, 1, "40").unwrap().kind, FILE);
    assert_eq!(path_stat(dir, 1, "41"), Err(wasi::ERRNO_LOOP));
}

/// A link is a path in place of its name: it leads no further up than that path would.
fn symlink_no_way_out() {
    let dir = scratch();
    path_create_directory(dir, "sub").unwrap();
    for (name, target) in [
        ("up", ".."),
        ("in", "../../in/words.txt"),
        ("sub/up", ".."),
        ("sub/out", "../.."),
        ("sub/far", "up/../sub/../.."),
    ] {
        path_symlink(target, dir, name).unwrap();
    }
    for path in ["up", "up/", "up/case", "in", "sub/out", "sub/out/case", "sub/far", "sub/up/up"] {
        assert_eq!(follow(dir, path, wasi::OFLAGS_CREAT, 0), Err(wasi::ERRNO_NOTCAPABLE), "{path}");
    }
    assert_eq!(path_stat(dir, 1, "sub/up").unwrap().ino, stat(dir).unwrap().ino);
    assert_eq!(path_stat(dir, 1, "sub/up/sub").unwrap().kind, DIRECTORY);
    // From the root the same links lead to what is there.
    assert_eq!(path_stat(ROOT, 1, "tmp/case/in").unwrap().size, 5);
    assert_eq!(follow(ROOT, "tmp/case/in", 0, READ_WRITE), Err(wasi::ERRNO_ROFS));
    // A directory that moves away takes its links along.
    path_create_directory(dir, "deep").unwrap();
    path_rename(dir, "sub", dir, "deep/sub").unwrap();
    assert_eq!(path_stat(dir, 1, "deep/sub/out").unwrap().ino, stat(dir).unwrap().ino);
}
