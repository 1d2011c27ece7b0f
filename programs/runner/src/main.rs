//! The program in the containers of a pool: polls the bridge's runner API for commands and runs them.
//!
//! It depends only on that function's protocol, and not on Airflow.

mod api;
mod aws;
mod config;
mod credentials;
mod doorbell;
mod process;
mod runner;
mod zygote;

use std::process::ExitCode;
use std::sync::mpsc::{Sender, channel};

use rustix::process::Signal;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;

use crate::api::{RunnerApi, TIMEOUT};
use crate::aws::Aws;
use crate::config::Config;
use crate::doorbell::{Doorbell, Heard};
use crate::runner::{End, Runner};
use crate::zygote::Zygote;

const HELP: &str = "\
Takes commands from the ECS bridge's runner API and runs them, one after the other.

Usage: ecs-bridge-runner [--zygote COMMAND]

Options:
  --zygote COMMAND  fork commands from this program where it can run them; words separated by spaces
                    [env: ECS_BRIDGE_ZYGOTE]
  --help            print this
  --version         print the version

Set by the bridge on the containers of a pool:
  ECS_BRIDGE_RUNNER_API_URL          the runner API's URL, or
  ECS_BRIDGE_RUNNER_API_FUNCTION     its name or ARN, to be invoked through the Lambda API
  ECS_BRIDGE_RUNNER_ID         this runner's id
  ECS_BRIDGE_RUNNER_TOKEN      this runner's secret
  ECS_BRIDGE_POLL_INTERVAL_MS  the first delay after a failed call [default: 1000]
  ECS_BRIDGE_DOORBELL_URL      the SQS queue that announces new submissions [default: ask again and again]

Also read: AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI (else AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
AWS_SESSION_TOKEN), AWS_REGION, AWS_ENDPOINT_URL_LAMBDA, AWS_ENDPOINT_URL_SQS, AWS_CA_BUNDLE, HTTPS_PROXY, NO_PROXY.

Exit codes; a command's own exit code goes to the bridge, and is never this program's:
    0  closed by the bridge, or stopped by a signal after it got an answer
  200  the configuration is wrong
  201  no AWS credentials
  202  the runner API refused this runner, or rejected its calls for a minute (for an hour, while it had an exit code
       to report)
  203  another process already runs as this runner
  204  the runner API gave no answer for an hour
A runner that is stopped before it ever got an answer ends with the code of its last failed call.
";

/// Prints a message to stderr. Errors are ignored because a closed stderr must not end the runner.
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "ecs-bridge-runner: {}", format_args!($($argument)*));
    }};
}

/// The events that wake a runner.
pub enum Event {
    /// A signal to pass on.
    Signal {
        /// The signal.
        signal: Signal,
        /// `true` if it also stops the runner.
        stops: bool,
    },
    /// At least one child has ended.
    ChildEnded,
    /// A message from the zygote or from a process that it forked.
    Zygote(zygote::Message),
    /// The zygote has closed its socket, or broken the protocol.
    ZygoteClosed,
    /// A wait for the doorbell has ended.
    Heard(Heard),
}

const MISCONFIGURED: u8 = 200;
const NO_CREDENTIALS: u8 = 201;

fn main() -> ExitCode {
    let arguments: Option<Vec<String>> =
        std::env::args_os().skip(1).map(|argument| argument.into_string().ok()).collect();
    let arguments = arguments.unwrap_or_else(|| vec![String::new()]);
    let zygote = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => None,
        ["--zygote", command] => Some(command.to_owned()),
        ["--help" | "-h"] => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        ["--version" | "-V"] => {
            println!("ecs-bridge-runner {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        _ => {
            say!("unknown arguments; see --help");
            return MISCONFIGURED.into();
        }
    };
    run(zygote).unwrap_or_else(|(code, message)| {
        say!("{message}");
        code.into()
    })
}

fn run(zygote: Option<String>) -> Result<ExitCode, (u8, String)> {
    let failed = |error: std::io::Error| (MISCONFIGURED, error.to_string());
    let (sender, events) = channel();
    // This comes first because the kernel drops signals for which PID 1 has no handler.
    watch_signals(sender.clone()).map_err(failed)?;
    process::adopt_orphans().map_err(failed)?;
    let variable = |name: &str| std::env::var(name).ok();
    let config = Config::read(variable, zygote).map_err(|problems| {
        let code = if problems.credentials_only { NO_CREDENTIALS } else { MISCONFIGURED };
        (code, problems.messages.join("\necs-bridge-runner: "))
    })?;
    let zygote = config.zygote.and_then(|words| {
        let started = Zygote::start(&words, sender.clone());
        started.inspect_err(|error| say!("could not start the zygote: {error}")).ok()
    });
    let ca_bundle = variable("AWS_CA_BUNDLE");
    let misconfigured = |message: String| (MISCONFIGURED, message);
    let aws = |timeout| Aws::new(config.credentials.clone(), ca_bundle.as_deref(), timeout);
    let doorbell = config.doorbell.map(|(queue_url, target)| Doorbell::new(queue_url, target, aws, sender));
    let doorbell = doorbell.transpose().map_err(misconfigured)?;
    let api = RunnerApi::new(config.endpoint, config.runner_id, config.token, aws(TIMEOUT).map_err(misconfigured)?);
    let end = Runner::new(api, events, zygote, doorbell, config.poll_interval).run();
    Ok(match end {
        End::Closed => 0,
        End::NoCredentials => NO_CREDENTIALS,
        End::Refused => 202,
        End::OtherIncarnation => 203,
        End::Unreachable => 204,
    }
    .into())
}

fn watch_signals(events: Sender<Event>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGCHLD, SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH])?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            // ECS sends SIGTERM, but an image may set another signal with STOPSIGNAL.
            let stops = matches!(signal, SIGTERM | SIGINT | SIGQUIT);
            let event = match Signal::from_named_raw(signal) {
                Some(Signal::CHILD) => Event::ChildEnded,
                Some(signal) => Event::Signal { signal, stops },
                None => continue,
            };
            if events.send(event).is_err() {
                break;
            }
            if stops {
                say!("stopping: received signal {signal}");
            }
        }
    });
    Ok(())
}
