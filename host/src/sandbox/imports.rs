//! The allow-list: every function that a module may import, with its type. Nothing else links.

use guest_sdk::abi;

/// Name and type of one function: `i` is an i32, `I` an i64, results follow `>`.
pub(super) type Import = (&'static str, &'static str);

/// All of `wasi_snapshot_preview1`.
pub(super) const WASI: [Import; 46] = [
    ("args_get", "ii>i"),
    ("args_sizes_get", "ii>i"),
    ("clock_res_get", "ii>i"),
    ("clock_time_get", "iIi>i"),
    ("environ_get", "ii>i"),
    ("environ_sizes_get", "ii>i"),
    ("fd_advise", "iIIi>i"),
    ("fd_allocate", "iII>i"),
    ("fd_close", "i>i"),
    ("fd_datasync", "i>i"),
    ("fd_fdstat_get", "ii>i"),
    ("fd_fdstat_set_flags", "ii>i"),
    ("fd_fdstat_set_rights", "iII>i"),
    ("fd_filestat_get", "ii>i"),
    ("fd_filestat_set_size", "iI>i"),
    ("fd_filestat_set_times", "iIIi>i"),
    ("fd_pread", "iiiIi>i"),
    ("fd_prestat_dir_name", "iii>i"),
    ("fd_prestat_get", "ii>i"),
    ("fd_pwrite", "iiiIi>i"),
    ("fd_read", "iiii>i"),
    ("fd_readdir", "iiiIi>i"),
    ("fd_renumber", "ii>i"),
    ("fd_seek", "iIii>i"),
    ("fd_sync", "i>i"),
    ("fd_tell", "ii>i"),
    ("fd_write", "iiii>i"),
    ("path_create_directory", "iii>i"),
    ("path_filestat_get", "iiiii>i"),
    ("path_filestat_set_times", "iiiiIIi>i"),
    ("path_link", "iiiiiii>i"),
    ("path_open", "iiiiiIIii>i"),
    ("path_readlink", "iiiiii>i"),
    ("path_remove_directory", "iii>i"),
    ("path_rename", "iiiiii>i"),
    ("path_symlink", "iiiii>i"),
    ("path_unlink_file", "iii>i"),
    ("poll_oneoff", "iiii>i"),
    ("proc_exit", "i>"),
    ("proc_raise", "i>i"),
    ("random_get", "ii>i"),
    ("sched_yield", ">i"),
    ("sock_accept", "iii>i"),
    ("sock_recv", "iiiiii>i"),
    ("sock_send", "iiiii>i"),
    ("sock_shutdown", "ii>i"),
];

/// The inference functions.
pub(super) const NN: [Import; 6] = [
    ("compute", "i>i"),
    ("get_output", "iiiii>i"),
    ("init_execution_context", "ii>i"),
    ("load", "iiiii>i"),
    ("load_by_name", "iii>i"),
    ("set_input", "iii>i"),
];

/// The hash functions.
pub(super) const HASH: [Import; 2] = [("blake3", "iii>i"), ("sha256", "iii>i")];

/// The whole list: module, name and type.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn all() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let lists: [(&str, &[Import]); 3] = [(abi::WASI_MODULE, &WASI), (abi::nn::MODULE, &NN), (abi::hash::MODULE, &HASH)];
    lists.into_iter().flat_map(|(module, list)| list.iter().map(move |(name, signature)| (module, *name, *signature)))
}

/// The type of an allowed import, or none when it is not on the list.
pub(super) fn signature(module: &str, name: &str) -> Option<&'static str> {
    let list: &[Import] = match module {
        abi::WASI_MODULE => &WASI,
        abi::nn::MODULE => &NN,
        abi::hash::MODULE => &HASH,
        _ => return None,
    };
    list.binary_search_by_key(&name, |(name, _)| name).ok().and_then(|at| list.get(at)).map(|(_, signature)| *signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lists_are_sorted_and_every_name_is_found() {
        for (module, list) in
            [(abi::WASI_MODULE, &WASI[..]), (abi::nn::MODULE, &NN[..]), (abi::hash::MODULE, &HASH[..])]
        {
            assert!(list.is_sorted());
            for (name, expected) in list {
                assert_eq!(signature(module, name), Some(*expected));
            }
        }
        assert_eq!(signature("env", "memory"), None);
    }
}
