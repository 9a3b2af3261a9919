//! What a subcommand runs with: the global flags, the output, and a runtime for what waits on the network.

use std::future::Future;

use dray::file::Inputs;

use super::error::{CliError, Kind};
use super::global::Global;
use super::output::Output;
use super::upstream;

/// What a subcommand runs with.
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) output: Output,
    /// The files that the command reads, which it must not overwrite.
    pub(crate) inputs: Inputs,
}

impl Context {
    pub(crate) fn new(global: Global, mut inputs: Inputs) -> Self {
        start_logging(&global);
        for path in upstream::credential_files() {
            inputs.add(&path);
        }
        Self { output: Output::new(&global), global, inputs }
    }

    /// How many threads read and hash: as many as were asked for, but not more than there are processors.
    pub(crate) fn threads(&self) -> usize {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        usize::from(self.global.concurrency).min(processors)
    }
}

/// Runs `future` until it ends or the user presses Ctrl-C.
///
/// An interrupt drops the future where it stands. Everything that writes is made so that what it leaves behind
/// is continued or ignored by the next run.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CliError::failed)?;
    let result = runtime.block_on(interruptible(future));
    // Threads that still read or write must not hold up the end of an interrupted process.
    runtime.shutdown_background();
    result
}

/// Lets Ctrl-C end the work of `future`.
pub(crate) async fn interruptible<T>(
    future: impl Future<Output = Result<T, CliError>>,
) -> Result<T, CliError> {
    tokio::select! {
        // Listening begins when this is first asked for: that must be before the work does anything.
        biased;
        _ = tokio::signal::ctrl_c() => Err(CliError::new(Kind::Interrupted, "interrupted")
            .hint("run the same command again to continue")),
        result = future => result,
    }
}

/// Runs work that computes or reads files, so that Ctrl-C ends it too.
pub(crate) fn block_on_work<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CliError> + Send + 'static,
) -> Result<T, CliError> {
    block_on(async {
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(panic) => Err(CliError::failed(panic)),
        }
    })
}

/// Runs a server, which knows by itself when to stop.
pub(crate) fn serve<T>(future: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CliError::failed)?;
    let result = runtime.block_on(future);
    runtime.shutdown_background();
    result
}

/// Completes when the process is asked to stop.
pub(crate) async fn stop_signal() {
    stop_signals(1).await;
}

/// Completes when the process was asked to stop this many times. None is lost that comes soon after another.
pub(crate) async fn stop_signals(times: usize) {
    #[cfg(unix)]
    let streams = {
        use tokio::signal::unix::{SignalKind, signal};
        signal(SignalKind::interrupt()).and_then(|int| Ok((int, signal(SignalKind::terminate())?)))
    };
    #[cfg(windows)]
    let streams = tokio::signal::windows::ctrl_c()
        .and_then(|pressed| Ok((pressed, tokio::signal::windows::ctrl_break()?)));
    // Where nothing can be listened to, nothing can come.
    let Ok((mut one, mut other)) = streams else { return std::future::pending().await };
    for _ in 0..times {
        tokio::select! {
            _ = one.recv() => {}
            _ = other.recv() => {}
        }
    }
}

/// Sends the library's log lines to stderr: warnings unless quiet, more with `-v`, or as `RUST_LOG` says.
fn start_logging(global: &Global) {
    use tracing_subscriber::filter::{LevelFilter, Targets};
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::util::SubscriberInitExt as _;
    let level = match global.verbose {
        0 if global.quiet => LevelFilter::ERROR,
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    let wanted = std::env::var("RUST_LOG").ok().and_then(|text| text.parse().ok());
    let targets: Targets = wanted.unwrap_or_else(|| Targets::new().with_target("dray", level));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .with_target(false);
    let _ = tracing_subscriber::registry().with(lines).with(targets).try_init();
}
