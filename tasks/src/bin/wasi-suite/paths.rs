//! Paths: opening, listing, removing, renaming, and what is no way out.

use crate::{Case, abi::*};

pub(crate) const CASES: &[Case] = &[
    ("fd_readdir", fd_readdir),
    ("fdopendir_with_access", fdopendir_with_access),
    ("interesting_paths", interesting_paths),
    ("no_way_out", no_way_out),
    ("path_exists", path_exists),
    ("path_open_create_existing", path_open_create_existing),
    ("path_open_dirfd_not_dir", path_open_dirfd_not_dir),
    ("path_open_missing", path_open_missing),
    ("path_open_nonblock", path_open_nonblock),
    ("path_rename", rename),
    ("path_rename_dir_trailing_slashes", path_rename_dir_trailing_slashes),
    ("path_rename_file_trailing_slashes", path_rename_file_trailing_slashes),
    ("regular_file_isdir", regular_file_isdir),
    ("remove_directory_trailing_slashes", remove_directory_trailing_slashes),
    ("remove_nonempty_directory", remove_nonempty_directory),
    ("unicode_paths", unicode_paths),
    ("unlink_file_trailing_slashes", unlink_file_trailing_slashes),
];

fn fd_readdir() {
    let dir = scratch();
    let (entries, all) = readdir(dir, 256, 0).unwrap();
    let shown: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.kind)).collect();
    assert_eq!((shown, all), (vec![(".", DIRECTORY), ("..", DIRECTORY)], true));
    assert_eq!(entries[0].ino, stat(dir).unwrap().ino);
    let file = create(dir, "file");
    let (entries, all) = readdir(dir, 256, 0).unwrap();
    assert_eq!((entries.len(), all), (3, true));
    assert_eq!((entries[2].name.as_str(), entries[2].kind, entries[2].ino), ("file", FILE, stat(file).unwrap().ino));
    // A cookie goes on after its entry.
    assert_eq!(readdir(dir, 256, entries[1].next), Ok((entries[2..].to_vec(), true)));
    assert_eq!(readdir(dir, 256, entries[2].next), Ok((Vec::new(), true)));
    assert_eq!(path_unlink_file(dir, "file"), Ok(()));

    (0..1000).for_each(|n| touch(dir, &format!("file.{n}")));
    let (mut seen, mut cookie) = (Vec::new(), 0);
    loop {
        let (entries, all) = readdir(dir, 256, cookie).unwrap();
        cookie = entries.last().map_or(cookie, |entry| entry.next);
        // What was listed may go, and nothing that was not is skipped.
        for entry in entries.iter().filter(|entry| entry.kind == FILE) {
            assert_eq!(path_unlink_file(dir, &entry.name), Ok(()));
        }
        seen.extend(entries.into_iter().map(|entry| entry.name));
        if all {
            break;
        }
    }
    let expected: Vec<_> =
        [".", ".."].map(str::to_owned).into_iter().chain((0..1000).map(|n| format!("file.{n}"))).collect();
    assert_eq!(seen, expected, "in the order they were made");
    assert_eq!(names(dir), [""; 0]);
    assert_eq!(readdir(file, 256, 0), Err(wasi::ERRNO_NOTDIR));
}

/// Through the standard library, which reads with buffers of its own.
fn fdopendir_with_access() {
    let names = |path: &str| -> Vec<String> {
        let entries = std::fs::read_dir(path).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert_eq!(names("/"), ["in", "out", "tmp"]);
    assert_eq!(names("/in"), ["words.txt"]);
    std::fs::create_dir_all("/tmp/a/b/c").unwrap();
    (0..300).for_each(|n| std::fs::write(format!("/tmp/a/b/{n}"), b"x").unwrap());
    assert_eq!(names("/tmp/a/b").len(), 301);
    std::fs::remove_dir_all("/tmp/a").unwrap();
    assert_eq!(names("/tmp"), [""; 0]);
    assert!(std::fs::read_dir("/tmp/a").is_err());
}

fn interesting_paths() {
    let dir = scratch();
    path_create_directory(dir, "dir").unwrap();
    path_create_directory(dir, "dir/nested").unwrap();
    touch(dir, "dir/nested/file");
    let cases = [
        ("/dir/nested/file", Some(wasi::ERRNO_NOTCAPABLE)),
        ("dir/.//nested/../../dir/nested/../nested///./file", None),
        ("dir/nested/file\0", Some(wasi::ERRNO_ILSEQ)),
        ("dir/nested/file/", Some(wasi::ERRNO_NOTDIR)),
        ("dir/nested/file///", Some(wasi::ERRNO_NOTDIR)),
        ("dir/nested/file/.", Some(wasi::ERRNO_NOTDIR)),
        ("dir/nested/file/..", Some(wasi::ERRNO_NOTDIR)),
        ("dir/nested/", None),
        ("dir/nested///", None),
        // Too many `..`, though what they lead through exists.
        ("dir/nested/../../../case/dir/nested/file", Some(wasi::ERRNO_NOTCAPABLE)),
        ("", Some(wasi::ERRNO_NOENT)),
    ];
    for (path, errno) in cases {
        assert_eq!(open(dir, path, 0, 0).err(), errno, "{path:?}");
    }
}

/// No function takes a path above its directory, and none takes one of the fixed directories away.
fn no_way_out() {
    let dir = scratch();
    touch(dir, "file");
    path_create_directory(dir, "sub").unwrap();
    for up in
        ["..", "../", "../case", "sub/../..", "sub/../../case/file", "../../in/words.txt", "/", "/in/words.txt", "//"]
    {
        let not = Err(wasi::ERRNO_NOTCAPABLE);
        assert_eq!(open(dir, up, 0, 0).map(|_| ()), not, "{up}");
        assert_eq!(follow(dir, up, wasi::OFLAGS_CREAT, ALL).map(|_| ()), not, "{up}");
        assert_eq!(path_stat(dir, 0, up).map(|_| ()), not, "{up}");
        assert_eq!(path_filestat_set_times(dir, 0, up, 1, 1, wasi::FSTFLAGS_MTIM), not, "{up}");
        assert_eq!(path_create_directory(dir, up), not, "{up}");
        assert_eq!(path_remove_directory(dir, up), not, "{up}");
        assert_eq!(path_unlink_file(dir, up), not, "{up}");
        assert_eq!(path_rename(dir, up, dir, "new"), not, "{up}");
        assert_eq!(path_rename(dir, "file", dir, up), not, "{up}");
        assert_eq!(path_link(dir, 0, up, dir, "new"), not, "{up}");
        assert_eq!(path_link(dir, 0, "file", dir, up), not, "{up}");
        assert_eq!(path_symlink("file", dir, up), not, "{up}");
        assert_eq!(readlink(dir, up, &mut [0; 9]).map(|_| ()), not, "{up}");
    }
    assert_eq!(open(ROOT, "..", 0, 0), Err(wasi::ERRNO_NOTCAPABLE));
    for fixed in ["in", "out", "tmp", "in/", "in/words.txt"] {
        assert!(
            [Err(wasi::ERRNO_ROFS), Err(wasi::ERRNO_NOTDIR)].contains(&path_remove_directory(ROOT, fixed)),
            "{fixed}"
        );
        assert!([Err(wasi::ERRNO_ROFS), Err(wasi::ERRNO_ISDIR)].contains(&path_unlink_file(ROOT, fixed)), "{fixed}");
        assert_eq!(path_rename(ROOT, fixed, ROOT, "tmp/new"), Err(wasi::ERRNO_ROFS), "{fixed}");
        assert_eq!(path_rename(ROOT, "tmp/case/sub", ROOT, fixed), Err(wasi::ERRNO_ROFS), "{fixed}");
    }
    // A directory moves into no other zone and not into itself.
    assert_eq!(path_rename(ROOT, "tmp/case", ROOT, "out/case"), Err(wasi::ERRNO_XDEV));
    assert_eq!(path_rename(dir, "sub", dir, "sub/sub"), Err(wasi::ERRNO_INVAL));
    assert_eq!(names(dir), ["file", "sub"]);
    // A descriptor stays where its directory goes.
    let sub = open(dir, "sub", wasi::OFLAGS_DIRECTORY, 0).unwrap();
    path_create_directory(dir, "deep").unwrap();
    assert_eq!(path_rename(dir, "sub", dir, "deep/sub"), Ok(()));
    assert_eq!(path_stat(sub, 0, ".."), Err(wasi::ERRNO_NOTCAPABLE));
    touch(sub, "inside");
    assert_eq!(path_stat(dir, 0, "deep/sub/inside").unwrap().kind, FILE);
}

fn path_exists() {
    let dir = scratch();
    path_create_directory(dir, "sub").unwrap();
    touch(dir, "sub/file");
    path_symlink("sub/file", dir, "link1").unwrap();
    path_symlink("sub", dir, "link2").unwrap();
    let kind = |flags, path| path_stat(dir, flags, path).unwrap().kind;
    let followed = wasi::LOOKUPFLAGS_SYMLINK_FOLLOW;
    assert_eq!((kind(0, "sub"), kind(followed, "sub")), (DIRECTORY, DIRECTORY));
    assert_eq!((kind(0, "sub/file"), kind(followed, "sub/file")), (FILE, FILE));
    assert_eq!((kind(0, "link1"), kind(followed, "link1")), (LINK, FILE));
    assert_eq!((kind(0, "link2"), kind(followed, "link2"), kind(0, "link2/")), (LINK, DIRECTORY, DIRECTORY));
    assert_eq!(kind(0, "link2/file"), FILE);
}

fn path_open_create_existing() {
    let dir = scratch();
    touch(dir, "file");
    path_create_directory(dir, "sub").unwrap();
    path_symlink("missing", dir, "link").unwrap();
    for path in ["file", "sub", "link"] {
        assert_eq!(open_fails(dir, path, wasi::OFLAGS_CREAT | wasi::OFLAGS_EXCL), wasi::ERRNO_EXIST, "{path}");
    }
}

fn path_open_dirfd_not_dir() {
    let dir = scratch();
    let file = create(dir, "file");
    assert_eq!(open_fails(file, "foo", wasi::OFLAGS_CREAT), wasi::ERRNO_NOTDIR);
    assert_eq!(open_fails(0, "foo", wasi::OFLAGS_CREAT), wasi::ERRNO_NOTDIR);
    assert_eq!(open_fails(99, "foo", wasi::OFLAGS_CREAT), wasi::ERRNO_BADF);
}

fn path_open_missing() {
    let dir = scratch();
    for path in ["file", "missing/file", "missing/"] {
        assert_eq!(open_fails(dir, path, 0), wasi::ERRNO_NOENT, "{path}");
    }
}

fn path_open_nonblock() {
    let dir = scratch();
    let file = path_open(dir, 0, "file", wasi::OFLAGS_CREAT, ALL, 0, wasi::FDFLAGS_NONBLOCK).unwrap();
    assert_eq!(fd_fdstat_get(file).unwrap().fs_flags, wasi::FDFLAGS_NONBLOCK);
    assert_eq!(path_open(dir, 0, "file", 0, 0, 0, 1 << 5), Err(wasi::ERRNO_INVAL));
    assert_eq!(path_open(dir, 2, "file", 0, 0, 0, 0), Err(wasi::ERRNO_INVAL));
}

fn rename() {
    let dir = scratch();
    let to_target = |from| path_rename(dir, from, dir, "target");
    path_create_directory(dir, "source").unwrap();
    assert_eq!(to_target("source"), Ok(()));
    assert_eq!(open_fails(dir, "source", wasi::OFLAGS_DIRECTORY), wasi::ERRNO_NOENT);
    // An empty directory is replaced, a full one is not.
    path_create_directory(dir, "source").unwrap();
    let source = path_stat(dir, 0, "source").unwrap().ino;
    assert_eq!(to_target("source"), Ok(()));
    assert_eq!(path_stat(dir, 0, "target").unwrap().ino, source);
    path_create_directory(dir, "source").unwrap();
    touch(dir, "target/file");
    assert_eq!(to_target("source"), Err(wasi::ERRNO_NOTEMPTY));
    assert_eq!(path_rename(dir, "source", dir, "target/file"), Err(wasi::ERRNO_NOTDIR));
    assert_eq!(path_rename(dir, "target/file", dir, "source"), Err(wasi::ERRNO_ISDIR));
    // A file replaces a file.
    touch(dir, "a");
    touch(dir, "b");
    let a = path_stat(dir, 0, "a").unwrap();
    assert_eq!(path_rename(dir, "a", dir, "b"), Ok(()));
    assert_eq!(open_fails(dir, "a", 0), wasi::ERRNO_NOENT);
    assert_eq!(path_stat(dir, 0, "b"), Ok(a));
    assert_eq!(path_rename(dir, "b", dir, "b"), Ok(()));
    assert_eq!(path_stat(dir, 0, "b"), Ok(a));
    assert_eq!(to_target("missing"), Err(wasi::ERRNO_NOENT));
    // From one zone to the other.
    assert_eq!(path_rename(dir, "b", ROOT, "out/b"), Ok(()));
    assert_eq!(path_stat(ROOT, 0, "out/b"), Ok(a));
    assert_eq!(names(dir), ["target", "source"]);
}

fn path_rename_dir_trailing_slashes() {
    let dir = scratch();
    path_create_directory(dir, "source").unwrap();
    for (from, to) in [("source/", "target"), ("target", "source/"), ("source/", "target/"), ("target", "source")] {
        assert_eq!(path_rename(dir, from, dir, to), Ok(()), "{from} {to}");
    }
    assert_eq!(names(dir), ["source"]);
}

fn path_rename_file_trailing_slashes() {
    let dir = scratch();
    touch(dir, "source");
    for (from, to) in [("source/", "target"), ("source", "target/"), ("source/", "target/")] {
        assert_eq!(path_rename(dir, from, dir, to), Err(wasi::ERRNO_NOTDIR), "{from} {to}");
    }
    touch(dir, "target");
    assert_eq!(path_rename(dir, "source", dir, "target/"), Err(wasi::ERRNO_NOTDIR));
    assert_eq!(names(dir), ["source", "target"]);
}

fn regular_file_isdir() {
    let dir = scratch();
    touch(dir, "file");
    path_create_directory(dir, "sub").unwrap();
    assert_eq!(open_fails(dir, "file", wasi::OFLAGS_DIRECTORY), wasi::ERRNO_NOTDIR);
    assert_eq!(open(dir, "sub", 0, wasi::RIGHTS_FD_WRITE), Err(wasi::ERRNO_ISDIR));
    assert_eq!(open_fails(dir, "sub", wasi::OFLAGS_TRUNC), wasi::ERRNO_ISDIR);
    assert_eq!(path_create_directory(dir, "file"), Err(wasi::ERRNO_EXIST));
    assert_eq!(path_create_directory(dir, "file/sub"), Err(wasi::ERRNO_NOTDIR));
}

fn remove_directory_trailing_slashes() {
    let dir = scratch();
    for path in ["sub", "sub/", "sub//"] {
        path_create_directory(dir, path).unwrap();
        assert_eq!(path_remove_directory(dir, path), Ok(()), "{path}");
    }
    touch(dir, "file");
    for path in ["file", "file/"] {
        assert_eq!(path_remove_directory(dir, path), Err(wasi::ERRNO_NOTDIR), "{path}");
    }
    assert_eq!(path_remove_directory(dir, "."), Err(wasi::ERRNO_INVAL));
}

fn remove_nonempty_directory() {
    let dir = scratch();
    path_create_directory(dir, "sub").unwrap();
    path_create_directory(dir, "sub/nested").unwrap();
    assert_eq!(path_remove_directory(dir, "sub"), Err(wasi::ERRNO_NOTEMPTY));
    assert_eq!(path_remove_directory(dir, "sub/nested"), Ok(()));
    assert_eq!(path_remove_directory(dir, "sub"), Ok(()));
}

fn unicode_paths() {
    let dir = scratch();
    for name in ["ünïcødé", "文字", "🦀", "e\u{301}", "\u{e9}", "a b", "-rf", "..."] {
        touch(dir, name);
        assert_eq!(path_stat(dir, 0, name).unwrap().kind, FILE, "{name}");
    }
    assert_eq!(names(dir), ["ünïcødé", "文字", "🦀", "e\u{301}", "\u{e9}", "a b", "-rf", "..."]);
}

fn unlink_file_trailing_slashes() {
    let dir = scratch();
    path_create_directory(dir, "sub").unwrap();
    touch(dir, "file");
    assert_eq!(path_unlink_file(dir, "sub"), Err(wasi::ERRNO_ISDIR));
    assert_eq!(path_unlink_file(dir, "sub/"), Err(wasi::ERRNO_ISDIR));
    assert_eq!(path_unlink_file(dir, "file/"), Err(wasi::ERRNO_NOTDIR));
    assert_eq!(path_unlink_file(dir, "file"), Ok(()));
}
