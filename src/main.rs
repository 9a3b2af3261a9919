//! The `dray` command: arguments in, exit code out.

mod cli;

// musl's own allocator is slow under threads; the released binary is a static musl build.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::run()
}
