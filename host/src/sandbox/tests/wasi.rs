//! The virtual machine room: clock, sleep, randomness, streams.

use super::*;

#[test]
fn sleeping_292_years_returns_at_once_and_the_clock_has_moved() {
    // A relative clock subscription of i64::MAX nanoseconds on the monotonic clock.
    let bytes = module(
        "",
        "(i32.store (i32.const 16) (i32.const 1))
         (i64.store (i32.const 24) (i64.const 9223372036854775807))
         (drop (call $clock_time_get (i32.const 1) (i64.const 1) (i32.const 200)))
         (if (call $poll_oneoff (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 180)) (then unreachable))
         (drop (call $clock_time_get (i32.const 1) (i64.const 1) (i32.const 208)))
         (i64.store (i32.const 216) (i64.sub (i64.load (i32.const 208)) (i64.load (i32.const 200))))
         (call $say (i32.const 1) (i32.const 216) (i32.const 8))",
    );
    let finished = run(request(&bytes));
    let passed = u64::from_le_bytes(finished.stdout[..].try_into().unwrap());
    assert_eq!(finished.outcome, Outcome::Ok);
    let slept = 9_223_372_036_854_775_807;
    assert!((slept..slept + 10_000).contains(&passed), "{passed}");
}

#[test]
fn standard_input_is_read_to_its_end() {
    let bytes = module(
        "",
        "(i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 4))
         (loop $more
            (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
            (call $say (i32.const 1) (i32.const 100) (i32.load (i32.const 8)))
            (br_if $more (i32.load (i32.const 8))))",
    );
    let finished = run(Request { stdin: "eleven bytes".into(), ..request(&bytes) });
    assert_eq!(&finished.stdout[..], b"eleven bytes");
}

/// Opens a path with creation and write rights and exits with the error number.
fn open(path: &str, oflags: u32, rights: u64) -> Outcome {
    let bytes = module(
        &format!(r#"(data (i32.const 0) "{path}")"#),
        &format!(
            "(call $proc_exit (call $path_open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const {}) (i32.const {oflags})
             (i64.const {rights}) (i64.const 0) (i32.const 0) (i32.const 200)))",
            path.len()
        ),
    );
    let mut request = request(&bytes);
    request.files.insert("words.txt".to_owned(), "hello".into());
    run(request).outcome
}

#[test]
fn paths_lead_where_posix_says_and_never_out() {
    let (read, write, create) = (2, 64, 1);
    let cases = [
        ("in/words.txt", 0, read, 0),
        ("./in//../in/words.txt", 0, read, 0),
        ("../../in/words.txt", 0, read, 76),
        ("in", 0, read, 0),
        ("in/", 2, read, 0),
        ("..", 2, read, 76),
        ("in/../..", 2, read, 76),
        ("in/words.txt/", 0, read, 54),
        ("in/words.txt/x", 0, read, 54),
        ("in/words.txt", 2, read, 54),
        ("in/words.txt", 0, write, 69),
        ("in/new", create, write, 69),
        ("new", create, write, 69),
        ("etc/passwd", 0, read, 44),
        ("/in/words.txt", 0, read, 76),
        ("", 0, read, 44),
        ("out/new", 0, write, 44),
        ("out/new", create, write, 0),
        ("out/new/", create, write, 31),
        ("out/missing/new", create, write, 44),
        ("out", create | 4, write, 20),
        ("out", 0, write, 31),
        ("tmp/new", create, write, 0),
    ];
    for (path, oflags, rights, errno) in cases {
        let expected = if errno == 0 { Outcome::Ok } else { Outcome::Exit(errno) };
        assert_eq!(open(path, oflags, rights), expected, "{path} {oflags} {rights}");
    }
    assert_eq!(open(&"x".repeat(256), 0, read), Outcome::Exit(37));
    assert_eq!(open(&"a/".repeat(2100), 0, read), Outcome::Exit(37));
}
