//! The program `quorate`, as the tests run it.

fn main() -> std::process::ExitCode {
    host::cli::main()
}
