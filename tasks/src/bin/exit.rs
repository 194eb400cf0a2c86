//! Ends with the exit code in its first argument, from 0 to 255; with 2 when there is none.

use guest_sdk::abi::EXIT_BAD_INPUT;

fn main() {
    let code = std::env::args().nth(1).and_then(|code| code.parse::<u8>().ok());
    std::process::exit(code.unwrap_or(EXIT_BAD_INPUT).into());
}
