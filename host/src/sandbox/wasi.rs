//! WASI preview 1, virtual by construction: nothing of the host can leak, because nothing here asks the host.
//!
//! Standard input is bytes, standard output and error are bounded buffers, arguments and variables come from the task, the
//! [`tree`] of files is in memory, the clock follows fuel and sleeping, randomness follows the task's seed. There is one
//! preopened directory, `/` as descriptor 3, with `in`, `out` and `tmp` in it. Sockets do not exist. What each function does
//! is a table in `docs/WASI.md`.

pub(super) mod clock;
pub(super) mod errno;
pub(super) mod fds;
mod files;
mod io;
mod path;
mod poll;
mod proc;
pub(super) mod random;
mod sock;
mod stat;
pub(super) mod tree;

use guest_sdk::abi::WASI_MODULE;
use wasmtime::{Caller, Linker};

use self::errno::Errno;
use super::state::{State, Stop, call};

/// Links functions by name: each is a plain function over [`Call`] and its arguments.
macro_rules! link {
    ($linker:ident, $($name:literal => $body:path, ($($arg:ident: $ty:ty),*);)*) => {$(
        $linker.func_wrap(WASI_MODULE, $name, |caller: Caller<'_, State>, $($arg: $ty),*| {
            call(caller, Errno::Fault as u32, |call| $body(call, $($arg),*))
        })?;
    )*};
}

/// Adds every function of preview 1.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    link!(linker,
        "args_get" => proc::args_get, (argv: u32, buffer: u32);
        "args_sizes_get" => proc::args_sizes_get, (count: u32, bytes: u32);
        "environ_get" => proc::environ_get, (environ: u32, buffer: u32);
        "environ_sizes_get" => proc::environ_sizes_get, (count: u32, bytes: u32);
        "proc_raise" => proc::proc_raise, (signal: u32);
        "sched_yield" => proc::sched_yield, ();
        "clock_res_get" => clock::clock_res_get, (id: u32, out: u32);
        "clock_time_get" => clock::clock_time_get, (id: u32, precision: u64, out: u32);
        "random_get" => random::random_get, (buffer: u32, len: u32);
        "poll_oneoff" => poll::poll_oneoff, (subscriptions: u32, events: u32, count: u32, written: u32);
        "sock_accept" => sock::accept, (fd: u32, flags: u32, out: u32);
        "sock_recv" => sock::recv, (fd: u32, iovs: u32, iovs_len: u32, flags: u32, out_len: u32, out_flags: u32);
        "sock_send" => sock::send, (fd: u32, iovs: u32, iovs_len: u32, flags: u32, out_len: u32);
        "sock_shutdown" => sock::shutdown, (fd: u32, how: u32);
    );
    link!(linker,
        "fd_read" => io::fd_read, (fd: u32, iovs: u32, iovs_len: u32, out: u32);
        "fd_pread" => io::fd_pread, (fd: u32, iovs: u32, iovs_len: u32, offset: u64, out: u32);
        "fd_write" => io::fd_write, (fd: u32, iovs: u32, iovs_len: u32, out: u32);
        "fd_pwrite" => io::fd_pwrite, (fd: u32, iovs: u32, iovs_len: u32, offset: u64, out: u32);
        "fd_seek" => files::fd_seek, (fd: u32, delta: i64, whence: u32, out: u32);
        "fd_tell" => files::fd_tell, (fd: u32, out: u32);
        "fd_close" => files::fd_close, (fd: u32);
        "fd_renumber" => files::fd_renumber, (from: u32, to: u32);
        "fd_advise" => files::fd_advise, (fd: u32, offset: u64, len: u64, advice: u32);
        "fd_allocate" => files::fd_allocate, (fd: u32, offset: u64, len: u64);
        "fd_datasync" => files::fd_sync, (fd: u32);
        "fd_sync" => files::fd_sync, (fd: u32);
        "fd_filestat_set_size" => files::fd_filestat_set_size, (fd: u32, size: u64);
        "fd_readdir" => files::fd_readdir, (fd: u32, buffer: u32, len: u32, cookie: u64, used: u32);
        "fd_fdstat_get" => stat::fd_fdstat_get, (fd: u32, out: u32);
        "fd_fdstat_set_flags" => stat::fd_fdstat_set_flags, (fd: u32, flags: u32);
        "fd_fdstat_set_rights" => stat::fd_fdstat_set_rights, (fd: u32, rights: u64, inheriting: u64);
        "fd_filestat_get" => stat::fd_filestat_get, (fd: u32, out: u32);
        "fd_filestat_set_times" => stat::fd_filestat_set_times, (fd: u32, accessed: u64, modified: u64, flags: u32);
        "fd_prestat_get" => stat::fd_prestat_get, (fd: u32, out: u32);
        "fd_prestat_dir_name" => stat::fd_prestat_dir_name, (fd: u32, path: u32, len: u32);
    );
    link!(linker,
        "path_create_directory" => path::path_create_directory, (fd: u32, path: u32, len: u32);
        "path_filestat_get" => path::path_filestat_get, (fd: u32, flags: u32, path: u32, len: u32, out: u32);
        "path_filestat_set_times" => path::path_filestat_set_times,
            (fd: u32, flags: u32, path: u32, len: u32, accessed: u64, modified: u64, times: u32);
        "path_link" => path::path_link,
            (fd: u32, flags: u32, path: u32, len: u32, new_fd: u32, new_path: u32, new_len: u32);
        "path_open" => path::path_open,
            (fd: u32, lookup: u32, path: u32, len: u32, oflags: u32, rights: u64, inheriting: u64, flags: u32, out: u32);
        "path_readlink" => path::path_readlink, (fd: u32, path: u32, len: u32, buffer: u32, buffer_len: u32, used: u32);
        "path_remove_directory" => path::path_remove_directory, (fd: u32, path: u32, len: u32);
        "path_rename" => path::path_rename, (fd: u32, path: u32, len: u32, new_fd: u32, new_path: u32, new_len: u32);
        "path_symlink" => path::path_symlink, (target: u32, target_len: u32, fd: u32, path: u32, len: u32);
        "path_unlink_file" => path::path_unlink_file, (fd: u32, path: u32, len: u32);
    );
    linker.func_wrap(WASI_MODULE, "proc_exit", |_: Caller<'_, State>, code: u32| -> wasmtime::Result<()> {
        Err(Stop::Exit(code).into())
    })?;
    Ok(())
}
