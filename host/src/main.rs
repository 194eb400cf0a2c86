//! The binary: see `quorate --help`.

fn main() -> std::process::ExitCode {
    host::cli::main()
}
