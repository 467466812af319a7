//! The `r58` binary; everything is in the library beside it.

use std::process::ExitCode;

/// What a heartbeat says becomes many small strings, made by one thread and let go by another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    r58::cli::main()
}
