//! A run of a stack: starts it, waits for a signal or the end of the parent, and ends everything that it started.

use std::io::{self, Write};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::error::{LocalError, explain};
use super::files::Files;
use super::parts::Stack;
use crate::clock::Millis;
use crate::options::Options;
use crate::process;
use crate::rng::Chance;

/// The arguments that make `ecs-bridge` the watchdog of a run; the name of the run follows.
pub const WATCHDOG: [&str; 2] = ["local", "watchdog"];

/// Runs a stack until SIGINT, SIGTERM or, without `outlive_parent`, the end of the parent.
///
/// # Errors
/// If it does not start.
pub fn run(options: &Options) -> Result<(), LocalError> {
    process::raise_file_limit();
    let run = Chance::new(Millis::now().0).uuid("run", &std::process::id().to_string());
    let program = std::env::current_exe()?;
    let mut watchdog = process::start_watchdog(&program, &[&WATCHDOG[..], &[run.as_str()]].concat())?;
    let (options, files) = Files::of(options, &run)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        // The handlers are installed first, so that a signal during the start ends the stack in order.
        let shutdown = Shutdown::new(!options.outlive_parent)?;
        tokio::select! {
            result = serve(&options, &run) => result.map_err(|error| explain(error, &options, files.logs.is_none())),
            () = shutdown.wait() => Ok(()),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    // The watchdog detects that its input closes, and kills the remaining processes, including grandchildren.
    drop(watchdog.stdin.take());
    watchdog.wait()?;
    drop(files);
    result
}

async fn serve(options: &Options, run: &str) -> Result<(), LocalError> {
    let stack = Stack::start(options, run).await?;
    // A closed pipe is not an error.
    let _ = writeln!(io::stdout(), "{}", stack.banner(options.ready_file.as_deref()));
    std::future::pending().await
}

/// The signals and events that end a run.
struct Shutdown {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    watch_parent: bool,
}

impl Shutdown {
    fn new(watch_parent: bool) -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            watch_parent,
        })
    }

    async fn wait(mut self) {
        let parent = nix::unistd::getppid();
        let orphaned = async {
            let mut polls = tokio::time::interval(Duration::from_millis(250));
            while !self.watch_parent || nix::unistd::getppid() == parent {
                polls.tick().await;
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
            () = orphaned => {}
        }
    }
}
