//! WASI preview 1: each case of the guest `wasi-suite` by its name in the public test suite, and the documented table.
//!
//! A case that fails panics in the guest, so the message of the test holds the guest's line.

use std::collections::BTreeSet;

use host::sandbox::{Finished, Request, Response};
use registry::{id::ModuleHash, job::Limits, receipt::Outcome};

use crate::sandbox::SANDBOX;

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

/// Runs a case in the surroundings that it expects.
fn finished(case: &str) -> Finished {
    run(case, request(case))
}

fn request(case: &str) -> Request {
    let wasm = tasks::WASI_SUITE.wasm;
    let module = ModuleHash::of(wasm);
    SANDBOX.load_module(module, wasm).expect("the suite passes preflight");
    let mut request = Request { args: texts(&[case]), ..Request::new(module) };
    request.files.insert("words.txt".into(), "hello".into());
    request.limits = Limits { fuel_max: 2_000_000_000, ..Limits::default() };
    match case {
        "args_some" => request.args.extend(texts(&["", "two words", "ünïcødé", "--", "=\"'\\"])),
        "env_some" => {
            let vars = [("A", ""), ("b", "x=y=z"), ("ünï", "cødé"), ("SPACE", " a b ")];
            request.env = vars.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        }
        "stdin_some" | "poll_oneoff_stdio" => request.stdin = "hello".into(),
        "scratch_ends" => request.limits.scratch_bytes_max = 64 << 10,
        _ => {}
    }
    request
}

fn run(case: &str, request: Request) -> Finished {
    match SANDBOX.run(request) {
        Response::Done(finished) => finished,
        Response::Fault(fault) => panic!("{case}: the host failed: {fault}"),
    }
}

fn passes(case: &str) -> Finished {
    let finished = finished(case);
    let log = String::from_utf8_lossy(&finished.stderr);
    assert_eq!(finished.outcome, Outcome::Ok, "{case}: {log}");
    finished
}

/// A test for each case, under the case's name.
macro_rules! cases {
    ($($name:ident)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];

        mod case {
            $(#[test] fn $name() { super::passes(stringify!($name)); })*
        }
    };
}

cases! {
    args_none args_some big_random_buf clock_res_get clock_time_get close_preopen dangling_fd dangling_symlink
    descriptors_end dir_fd_op_failures directory_seek env_none env_some fd_advise fd_fdstat_set_rights fd_filestat_get
    fd_filestat_set fd_flags_set fd_readdir fdopendir_with_access file_allocate file_pread_pwrite file_seek_tell
    file_truncation file_unbuffered_write fopen_with_access fopen_with_no_access fstflags_validate interesting_paths
    isatty link_outputs link_renames lseek names_end no_way_out nofollow_errors output_files_end overwrite_preopen
    path_exists path_filestat path_lengths_end path_link path_open_create_existing path_open_dirfd_not_dir
    path_open_missing path_open_nonblock path_open_preopen path_open_read_without_rights path_open_read_write path_rename
    path_rename_dir_trailing_slashes path_rename_file_trailing_slashes path_symlink_trailing_slashes poll_oneoff_clock
    poll_oneoff_stdio pwrite_with_append readlink regular_file_isdir remove_directory_trailing_slashes
    remove_nonempty_directory renumber sched_yield scratch_ends sock_not_sock stat_dev_ino stdin_empty stdin_some stdio
    symlink_create symlink_filestat symlink_loop symlink_no_way_out truncation_rights unicode_paths
    unlink_file_trailing_slashes
}

/// The claim of `wasi-suite` in `sandbox`: what the guest knows is what is run.
#[test]
pub(crate) fn every_case_of_the_guest_is_a_test() {
    let listed = passes("list").stdout;
    let known: BTreeSet<&str> = std::str::from_utf8(&listed).expect("names are text").lines().collect();
    assert_eq!(known, NAMES.iter().copied().collect());
}

#[test]
fn a_case_that_fails_says_where() {
    let failed = finished("no such case");
    assert_eq!(failed.outcome, Outcome::Trap(registry::receipt::Trap::Unreachable));
    let log = String::from_utf8_lossy(&failed.stderr);
    assert!(log.contains("wasi-suite.rs:") && log.contains("a case of this name"), "{log}");
}

#[test]
fn every_name_of_a_file_is_an_output_and_a_symbolic_link_is_none() {
    let files = passes("link_outputs").files;
    let twice = bytes::Bytes::from_static(b"twice over");
    assert_eq!(files, [("file".to_owned(), twice.clone()), ("sub/same".to_owned(), twice)]);
}

#[test]
fn each_name_under_out_takes_room_of_its_own() {
    let with = |bytes| {
        let mut request = request("link_outputs");
        request.limits.output_bytes_max = bytes;
        run("link_outputs", request).outcome
    };
    // Ten bytes twice, and where three symbolic links lead.
    let needed = 2 * 10 + "file../insymbolic".len() as u64;
    assert_eq!((with(needed), with(needed - 1)), (Outcome::Ok, Outcome::OutputOut));
}

/// Rows of the table in `docs/WASI.md`: name and word.
fn documented() -> Vec<(&'static str, &'static str)> {
    let text = include_str!("../../docs/WASI.md");
    let row = |line: &'static str| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        Some((cells.next()?.trim_end_matches('`'), cells.next()?))
    };
    text.lines().take_while(|line| *line != "## Files").filter_map(row).collect()
}

#[test]
fn the_documented_table_is_the_list_of_imports_and_uses_three_words() {
    let documented = documented();
    let names: Vec<&str> = documented.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, host::sandbox::wasi_functions().collect::<Vec<_>>());
    for (name, word) in documented {
        assert!(["supported", "virtual", "refused"].contains(&word), "{name} is {word}");
        // A socket is refused and nothing else is.
        assert_eq!(word == "refused", name.starts_with("sock_"), "{name}");
    }
}
