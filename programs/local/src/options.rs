//! The flags of `ecs-bridge local`.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use crate::ecs::{SHAPE_TAG, SHAPE_VARIABLE, Shapes, Throttle};

/// The options of a local stack.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Directory of the function binaries (submit, task-state, reconcile, runner-api) [default: the directory of this program]
    #[arg(long, value_name = "DIR")]
    pub functions_dir: Option<PathBuf>,
    /// Run DynamoDB and ECS only, and deliver no events
    #[arg(long)]
    pub no_functions: bool,
    /// Number of processes of each function
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub processes: usize,
    /// Name of the deployment
    #[arg(long, value_name = "NAME", default_value = "local", value_parser = name)]
    pub deployment: String,
    /// Name of the cluster
    #[arg(long, value_name = "NAME", default_value = "local", value_parser = name)]
    pub cluster: String,
    /// JSON file of the profiles [default: `default` runs the task definition demo, `sidecar` runs demo-sidecar]
    #[arg(long, value_name = "FILE")]
    pub profiles: Option<PathBuf>,
    /// JSON file of more task definitions: an array of RegisterTaskDefinition requests
    #[arg(long, value_name = "FILE")]
    pub task_definitions: Option<PathBuf>,
    /// CloudFormation template with the table, event pattern and timeouts [default: the template that this program was built with]
    #[arg(long, value_name = "FILE")]
    pub template: Option<PathBuf>,
    /// Time between two runs of reconcile: a number of seconds, or a number with s, m, h or d; 0 disables reconcile
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
    pub reconcile_every: f64,
    /// Write addresses and names to this JSON file after all parts have started, and remove it at the end. Other commands find
    /// the local stack through this file: see --local [default: ~/.local/state/ecs-bridge/local.json, or the same under
    /// XDG_STATE_HOME]
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Write the environment of the functions to this file as NAME=VALUE lines, to run a function elsewhere
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
    /// Write the output of each function and container to a file in this directory [default: a temporary directory, which is
    /// removed at the end]
    #[arg(long, value_name = "DIR")]
    pub log_dir: Option<PathBuf>,
    /// Use the ports N (submit), N+1 (Lambda), N+2 (DynamoDB), N+3 (ECS) and N+4 (runner-api) [default: free ports]
    #[arg(long, value_name = "N")]
    pub port_base: Option<u16>,
    /// Environment variable of the functions; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub function_env: Vec<(String, String)>,
    /// Environment variable of all containers, by default with its current value; may be repeated
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = variable)]
    pub container_env: Vec<(String, String)>,
    /// Reject calls of submit that are not signed with the access key `local` and the secret `local`, as a function URL does
    #[arg(long)]
    pub require_signature: bool,
    /// Create no function URLs, as FunctionUrl: false in the template; callers and runners invoke the functions
    #[arg(long, conflicts_with = "require_signature")]
    pub no_function_urls: bool,
    /// Continue when the parent process ends
    #[arg(long)]
    pub outlive_parent: bool,

    /// Divide the timers of the functions by X (ECS_BRIDGE_TIMER_SCALE)
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = scale, help_heading = "Time")]
    pub timer_scale: f64,
    /// Divide the delays of the emulator by X: task transitions and retention of ECS, stop timeouts, retries of Lambda
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = scale, help_heading = "Time")]
    pub time_scale: f64,
    /// Seconds from the creation of a task to PENDING
    #[arg(long, value_name = "S", default_value_t = 0.3, value_parser = seconds, help_heading = "Time")]
    pub provision_s: f64,
    /// Seconds from PENDING to the start of its containers
    #[arg(long, value_name = "S", default_value_t = 0.3, value_parser = seconds, help_heading = "Time")]
    pub pull_s: f64,
    /// Seconds from the exit of the last container to STOPPED
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = seconds, help_heading = "Time")]
    pub teardown_s: f64,
    /// Simulate `true`, `false`, `sh -c 'exit N'` and `sleep S` without processes, and scale S
    #[arg(long, help_heading = "Time")]
    pub simulate: bool,

    /// Seed of all injected faults; the same seed makes the same choices
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Faults")]
    pub seed: u64,
    /// Deliver this share of the events twice
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = share, help_heading = "Faults")]
    pub duplicate: f64,
    /// Drop this share of the events
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = share, help_heading = "Faults")]
    pub drop: f64,
    /// Delay each event by this many milliseconds, so that events are reordered
    #[arg(long, value_name = "MIN..MAX", default_value = "0..0", help_heading = "Faults")]
    pub delay_ms: Delay,
    /// Throttle RunTask above RATE calls per second and BURST at once [default BURST: RATE]
    #[arg(long, value_name = "RATE[/BURST]", help_heading = "Faults")]
    pub throttle: Option<Throttle>,
    /// Number of tasks that fit into the cluster; RunTask returns failures above this number
    #[arg(long, value_name = "N", help_heading = "Faults")]
    pub capacity: Option<usize>,
    /// Capacity provider, launch type or subnet without capacity, for which RunTask returns a failure; may be repeated
    #[arg(long, value_name = "NAME", help_heading = "Faults")]
    pub no_capacity: Vec<String>,
    /// Fail this share of the tasks before their containers start
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = share, help_heading = "Faults")]
    pub fail_start: f64,
    /// Return a 500 or no response for this share of the ECS calls, although they take effect
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = share, help_heading = "Faults")]
    pub api_error: f64,
    /// Return a capacity failure for this share of the RunTask calls, although they launch a task
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = share, help_heading = "Faults")]
    pub launched_failure: f64,
    /// Lose this share of the messages that announce submissions to the runners of pools
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = share, help_heading = "Faults")]
    pub lost_messages: f64,
    /// Deliver this share of those messages twice
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = share, help_heading = "Faults")]
    pub doubled_messages: f64,
    /// Milliseconds that each ECS call takes
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Faults")]
    pub api_latency_ms: u64,
    /// Milliseconds from the creation of a task to the moment when DescribeTasks and ListTasks return it
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Faults")]
    pub consistency_lag_ms: u64,
    /// Milliseconds by which the table's indexes lag behind it
    #[arg(long, value_name = "MIN..MAX", default_value = "0..0", help_heading = "Faults")]
    pub index_lag_ms: Delay,
}

/// A range of milliseconds, `MIN..MAX`.
#[derive(Clone, Debug)]
pub struct Delay(pub RangeInclusive<u64>);

impl FromStr for Delay {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let range = text.split_once("..").and_then(|(least, most)| Some(least.parse().ok()?..=most.parse().ok()?));
        range
            .filter(|range| !range.is_empty())
            .map(Self)
            .ok_or("must be two numbers separated by .., the smaller first")
    }
}

impl FromStr for Throttle {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (rate, burst) = text.split_once('/').unwrap_or((text, text));
        let parse = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
        match (parse(rate), parse(burst)) {
            // A bucket that holds less than one call would reject all calls.
            (Some(rate), Some(burst)) => Ok(Self { rate, burst: burst.max(1.0) }),
            _ => Err("must be a number above 0, or two such numbers separated by /"),
        }
    }
}

fn share(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or("must be a number from 0 to 1")
}

fn scale(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|scale: &f64| scale.is_finite() && *scale > 0.0).ok_or("must be a number above 0")
}

/// Parses the time of every flag of `ecs-bridge`: a number of seconds, or a number with a unit. Returns seconds.
///
/// # Errors
/// If it is no such time. The message states what it must be.
pub fn time(text: &str) -> Result<f64, &'static str> {
    let unit = match text.chars().last() {
        Some('s') => 1.0,
        Some('m') => 60.0,
        Some('h') => 3_600.0,
        Some('d') => 86_400.0,
        _ => return seconds(text).map_err(|_| TIME),
    };
    let number = text.get(..text.len().saturating_sub(1)).unwrap_or_default();
    seconds(number).map(|number| number * unit).map_err(|_| TIME)
}

const TIME: &str = "must be a number of seconds, or a number with the unit s, m, h or d, such as 90s or 15m";

fn seconds(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|seconds| (0.0..=1e9).contains(seconds)).ok_or("must be a number of seconds")
}

fn name(text: &str) -> Result<String, &'static str> {
    let valid = (1..=32).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    valid.then(|| text.to_owned()).ok_or("must be 1 to 32 letters, digits, - and _")
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some(("", _)) => Err("must be NAME=VALUE with a name before the =".into()),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => std::env::var(text)
            .map(|value| (text.to_owned(), value))
            .map_err(|_| "must be NAME=VALUE, or the name of a variable that is set".into()),
    }
}

/// The text of `--help` after the flags.
#[must_use]
pub fn after_help() -> String {
    format!(
        "\
Shapes are unusual behaviors of a task. Request one or more, separated by spaces, with the tag {SHAPE_TAG} of the RunTask
request, or with the variable {SHAPE_VARIABLE} in the environment of a container override:
{}
The ECS address also serves these paths:
  GET  /_local/calls                 the number of calls by operation
  GET  /_local/tasks                 all tasks of this run, with the number of starts of their commands
  GET  /_local/faults                the number of injected faults
  GET  /_local/events                the last 1000 events
  POST /_local/events                puts an event on the bus: {{\"matched\": bool}}
  POST /_local/tasks/ID/ACTION       spot-notice, termination-notice, spot-interruption, infrastructure-health,
                                     forget (DescribeTasks returns MISSING), send-event (sends its current state again),
                                     report-lost, report-out-of-memory (reports that it has stopped; it keeps running)
  POST /_local/rules                 for the next `times` calls of `operation` (RunTask), or only those of
                                     `submission_id`, or of `task_definition`: {{\"shapes\": \"...\"}}, {{\"error\": {{\"code\", \"message\"}}}},
                                     {{\"failure\": REASON}}, {{\"answer\": \"server_error\" | \"none\"}} (it happens), or
                                     {{\"forget_token\": true}} (a repeat starts another task);
                                     DELETE drops all rules
  GET  /_local/notifications         notifications that Step Functions and event buses received; rules accept
                                     SendTaskSuccess, SendTaskFailure and PutEvents as well
  PUT  /_local/capacity              {{\"without\": [NAME, ...]}}, replaces the values of --no-capacity
The Lambda address serves Invoke and these paths:
  GET  /_local/processes             processes of the functions with their pids; DELETE /_local/processes/PID kills one
  GET  /_local/invocations           counts by function: errors, timeouts, retries, pending events, ...
  GET  /_local/abandoned             events that failed three times",
        Shapes::help()
    )
}
