//! The program. What it does begins in `lib.rs`.

use std::process::ExitCode;

// What unwinds a panic becomes part of the program, so that no libgcc_s has to be found and loaded at each start.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "a block of foreign items, which is empty")]
#[link(name = "gcc_eh")]
unsafe extern "C" {}

fn main() -> ExitCode {
    rally_hook::run()
}
