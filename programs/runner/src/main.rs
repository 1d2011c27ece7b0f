//! The program in the containers of a pool: polls the bridge's runner API for commands and runs them.
//!
//! It depends only on that function's protocol, and not on Airflow.

mod api;
mod aws;
mod config;
mod credentials;
mod doorbell;
mod events;
mod failures;
mod log;
mod outcome;
mod process;
mod runner;
mod zygote;

use std::process::ExitCode;
use std::sync::mpsc::channel;

use crate::api::{RunnerApi, TIMEOUT};
use crate::aws::Aws;
use crate::config::Config;
use crate::doorbell::Doorbell;
use crate::events::{Event, watch_signals};
use crate::log::log;
use crate::outcome::Outcome;
use crate::runner::Runner;
use crate::zygote::Zygote;

const HELP: &str = "\
Polls the runner API of the ECS bridge for commands, and runs them sequentially.

Usage: ecs-bridge-runner [--zygote COMMAND]

Options:
  --zygote COMMAND  fork commands from this program if it can run them; words separated by spaces
                    [env: ECS_BRIDGE_ZYGOTE]
  --help            print this text
  --version         print the version

Set by the bridge on the containers of a pool:
  ECS_BRIDGE_RUNNER_API_URL       the URL of the runner API, or
  ECS_BRIDGE_RUNNER_API_FUNCTION  its name or ARN, to invoke it through the Lambda API
  ECS_BRIDGE_RUNNER_ID            the id of this runner
  ECS_BRIDGE_RUNNER_TOKEN         the secret of this runner
  ECS_BRIDGE_POLL_INTERVAL_MS     the first delay after a failed call [default: 1000]
  ECS_BRIDGE_DOORBELL_URL         the SQS queue that announces new submissions [default: poll at intervals]

Also read: AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI (otherwise AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
AWS_SESSION_TOKEN), AWS_REGION, AWS_ENDPOINT_URL_LAMBDA, AWS_ENDPOINT_URL_SQS, AWS_CA_BUNDLE, HTTPS_PROXY, NO_PROXY.

Exit codes of this program (it reports the exit code of a command to the bridge):
    0  closed by the bridge, or stopped by a signal after the first response
  200  the configuration is invalid
  201  no AWS credentials
  202  the runner API rejected this runner, or AWS rejected its calls for a minute (for an hour, if it had an exit code
       to report)
  203  another process already runs as this runner
  204  no response of the runner API for an hour
A runner that is stopped before its first response exits with the code of its last failed call.
";

const MISCONFIGURED: u8 = 200;

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
            log!("unknown arguments; see --help");
            return MISCONFIGURED.into();
        }
    };
    run(zygote).unwrap_or_else(|(code, message)| {
        log!("{message}");
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
        let code = if problems.credentials_only { Outcome::NoCredentials.exit_code() } else { MISCONFIGURED };
        (code, problems.messages.join("\necs-bridge-runner: "))
    })?;
    let zygote = config.zygote.and_then(|words| {
        let sender = sender.clone();
        let report = move |message: Option<_>| sender.send(message.map_or(Event::ZygoteClosed, Event::Zygote)).is_ok();
        let started = Zygote::start(&words, report);
        started
            .inspect_err(|error| log!("cannot start the zygote: {error}; each command is started in a new process"))
            .ok()
    });
    let ca_bundle = variable("AWS_CA_BUNDLE");
    let misconfigured = |message: String| (MISCONFIGURED, message);
    let aws = |timeout| Aws::new(config.credentials.clone(), ca_bundle.as_deref(), timeout);
    let report = move |received| sender.send(Event::Doorbell(received)).is_ok();
    let doorbell = config.doorbell.map(|(queue_url, target)| Doorbell::new(queue_url, target, aws, report));
    let doorbell = doorbell.transpose().map_err(misconfigured)?;
    let api = RunnerApi::new(config.endpoint, config.runner_id, config.token, aws(TIMEOUT).map_err(misconfigured)?);
    let outcome = Runner::new(api, events, zygote, doorbell, config.poll_interval).run();
    Ok(outcome.exit_code().into())
}
