//! A container: a local process in its own process group. To avoid the fork, a timer can simulate a trivial command.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::Scale;
use crate::process;

/// SIGKILL and SIGTERM as ECS reports them.
const KILLED: i32 = 128 + 9;
const TERMINATED: i32 = 128 + 15;

/// The command, environment and stop behavior of a container.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub(super) argv: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) directory: Option<PathBuf>,
    /// The time from SIGTERM to SIGKILL.
    pub(super) stop_timeout: Duration,
    pub(super) restart: Option<Restart>,
    /// The file that receives its output.
    pub(super) log: Option<PathBuf>,
    /// The time scale of simulated trivial commands, if they are simulated.
    pub(super) simulate: Option<Scale>,
    /// A unique environment variable that identifies processes that left the process group, as the commands of
    /// runners do.
    pub(super) mark: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Restart {
    pub(super) ignored: Vec<i32>,
    /// The minimum runtime before a restart.
    pub(super) after: Duration,
}

/// The order to the containers of a task. It only escalates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stop {
    No,
    Terminate,
    Kill,
}

/// A started container.
pub(super) struct Running {
    spec: Spec,
    body: Body,
    started: Instant,
}

enum Body {
    Process(Child),
    Simulated { end: Instant, code: i32 },
}

impl Running {
    /// Starts the command.
    pub(super) fn start(spec: Spec) -> io::Result<Self> {
        let started = Instant::now();
        if let Some((duration, code)) = spec.simulate.and_then(|scale| simulate_command(&spec.argv, scale)) {
            return Ok(Self { spec, body: Body::Simulated { end: started + duration, code }, started });
        }
        let child = spawn(&spec)?;
        Ok(Self { spec, body: Body::Process(child), started })
    }

    /// Waits for the exit, with restarts by its policy, and returns the exit code as ECS reports it. Calls
    /// `restarted` at every start except the first.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<Stop>, restarted: Arc<dyn Fn() + Send + Sync>) -> i32 {
        loop {
            let code = match &mut self.body {
                Body::Process(child) => {
                    let code = wait(child, &mut stop, self.spec.stop_timeout).await;
                    // A container ends with its first process, and so do all processes that it started.
                    if let Some(mark) = &self.spec.mark {
                        while process::kill_marked(mark) {
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                    }
                    code
                }
                Body::Simulated { end, code } => simulated(*end, *code, &mut stop).await,
            };
            let again = self.spec.restart.as_ref().is_some_and(|policy| {
                !policy.ignored.contains(&code) && self.started.elapsed() >= policy.after && *stop.borrow() == Stop::No
            });
            if !again {
                return code;
            }
            match Self::start(self.spec.clone()) {
                Ok(next) => self = next,
                Err(_) => return code,
            }
            restarted();
        }
    }
}

fn spawn(spec: &Spec) -> io::Result<Child> {
    let (program, arguments) =
        spec.argv.split_first().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no command"))?;
    let (stdout, stderr) = match &spec.log {
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            (Stdio::from(file.try_clone()?), Stdio::from(file))
        }
        None => (Stdio::null(), Stdio::null()),
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(spec.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .process_group(0)
        .kill_on_drop(true);
    if let Some(directory) = &spec.directory {
        command.current_dir(directory);
    }
    command.spawn()
}

async fn wait(child: &mut Child, stop: &mut watch::Receiver<Stop>, stop_timeout: Duration) -> i32 {
    let leader = child.id();
    let signal = |send: fn(u32) -> bool| leader.is_some_and(send);
    let mut kill_at: Option<Instant> = None;
    let mut last = Stop::No;
    let status = loop {
        let overdue = async {
            match kill_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            status = child.wait() => break status,
            () = overdue => {
                signal(process::kill_group);
                kill_at = None;
            }
            wanted = next_stop(stop, last) => {
                last = wanted;
                if wanted == Stop::Terminate {
                    signal(process::terminate_group);
                    kill_at = Some(Instant::now() + stop_timeout);
                } else {
                    signal(process::kill_group);
                }
            }
        }
    };
    // A container ends with its first process, and so does its group. The kernel assigns PIDs sequentially, so this
    // one is not reused yet.
    signal(process::kill_group);
    status.map_or(1, exit_code)
}

/// Waits for an order above `last`, or forever if the sender no longer exists.
async fn next_stop(stop: &mut watch::Receiver<Stop>, last: Stop) -> Stop {
    match stop.wait_for(|wanted| *wanted > last).await.map(|wanted| *wanted) {
        Ok(wanted) => wanted,
        Err(_) => std::future::pending().await,
    }
}

async fn simulated(end: Instant, code: i32, stop: &mut watch::Receiver<Stop>) -> i32 {
    tokio::select! {
        biased;
        () = tokio::time::sleep_until(end) => code,
        wanted = next_stop(stop, Stop::No) => if wanted == Stop::Terminate { TERMINATED } else { KILLED },
    }
}

/// Returns the duration and exit code of `true`, `false`, `sh -c 'exit N'` and `sleep S`.
fn simulate_command(argv: &[String], scale: Scale) -> Option<(Duration, i32)> {
    let words: Vec<_> = argv.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["true"] => Some((Duration::ZERO, 0)),
        ["false"] => Some((Duration::ZERO, 1)),
        ["sh", "-c", script] => {
            let code: u8 = script.strip_prefix("exit ")?.trim().parse().ok()?;
            Some((Duration::ZERO, i32::from(code)))
        }
        ["sleep", seconds] => {
            let duration = Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?;
            Some((scale.shorten(duration), 0))
        }
        _ => None,
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(argv: &[&str], simulate: bool) -> Spec {
        Spec {
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            environment: vec![("PATH".into(), std::env::var("PATH").unwrap())],
            directory: None,
            stop_timeout: Duration::from_millis(100),
            restart: None,
            log: None,
            simulate: simulate.then_some(Scale(1.0)),
            mark: None,
        }
    }

    async fn run(spec: Spec, wish: Stop) -> i32 {
        let (_keep, stop) = watch::channel(wish);
        Running::start(spec).unwrap().run(stop, Arc::new(|| ())).await
    }

    #[tokio::test]
    async fn command_exit_code_is_kept_when_simulated() {
        for simulate in [false, true] {
            assert_eq!(run(spec(&["true"], simulate), Stop::No).await, 0);
            assert_eq!(run(spec(&["sh", "-c", "exit 7"], simulate), Stop::No).await, 7);
        }
    }

    #[tokio::test]
    async fn signal_exit_code_is_128_plus_number() {
        assert_eq!(run(spec(&["sh", "-c", "kill -9 $$"], false), Stop::No).await, 137);
        for simulate in [false, true] {
            assert_eq!(run(spec(&["sleep", "3600"], simulate), Stop::Terminate).await, 143);
            assert_eq!(run(spec(&["sleep", "3600"], simulate), Stop::Kill).await, 137);
        }
    }

    #[tokio::test]
    async fn command_ignoring_sigterm_is_killed_after_timeout() {
        let stubborn = spec(&["sh", "-c", "trap '' TERM; while :; do sleep 3600; done"], false);
        let (wishes, stop) = watch::channel(Stop::No);
        let running = tokio::spawn(Running::start(stubborn).unwrap().run(stop, Arc::new(|| ())));
        wishes.send_replace(Stop::Terminate);
        // SIGTERM kills the process if it arrives before the trap is set.
        assert!([137, 143].contains(&running.await.unwrap()));
    }

    #[tokio::test]
    async fn missing_command_does_not_start() {
        assert!(Running::start(spec(&["/no/such/program"], false)).is_err());
        assert!(Running::start(spec(&[], false)).is_err());
    }

    #[tokio::test]
    async fn restart_policy_applies_until_ignored_code() {
        let file = std::env::temp_dir().join(format!("ecs-bridge-restart-{}", std::process::id()));
        let script = format!("echo x >> {0}; test $(wc -l < {0}) -lt 3", file.display());
        let mut spec = spec(&["sh", "-c", &script], false);
        spec.restart = Some(Restart { ignored: vec![1], after: Duration::ZERO });
        assert_eq!(run(spec, Stop::No).await, 1);
        assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 3);
        std::fs::remove_file(&file).unwrap();
    }
}
