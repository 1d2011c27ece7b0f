//! The flags of `ecs-bridge local`.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use crate::ecs::{SHAPE_TAG, SHAPE_VARIABLE, Shapes, Throttle};

/// The options of a local stack.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Directory of the functions' binaries (submit, task-state, reconcile) [default: that of this program]
    #[arg(long, value_name = "DIR")]
    pub functions_dir: Option<PathBuf>,
    /// Run DynamoDB and ECS only; events are not delivered
    #[arg(long)]
    pub no_functions: bool,
    /// Number of processes of each function
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub processes: usize,
    /// The deployment's name
    #[arg(long, value_name = "NAME", default_value = "local", value_parser = name)]
    pub deployment: String,
    /// The cluster's name
    #[arg(long, value_name = "NAME", default_value = "local", value_parser = name)]
    pub cluster: String,
    /// File of the profiles, a JSON object [default: `default` runs the task definition demo, `sidecar` demo-sidecar]
    #[arg(long, value_name = "FILE")]
    pub profiles: Option<PathBuf>,
    /// File of further task definitions than demo and demo-sidecar, a JSON array of RegisterTaskDefinition requests
    #[arg(long, value_name = "FILE")]
    pub task_definitions: Option<PathBuf>,
    /// The template of table, event pattern and timeouts [default: the one that this program was built with]
    #[arg(long, value_name = "FILE")]
    pub template: Option<PathBuf>,
    /// Seconds between two runs of reconcile; 0 for none
    #[arg(long, value_name = "S", default_value_t = 60.0, value_parser = seconds)]
    pub reconcile_every: f64,
    /// Write addresses and names to this file, as JSON, once everything has started
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Write the functions' environment to this file, as NAME=VALUE lines, to run one of them elsewhere
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
    /// Write the output of each function and container to a file in this directory [default: functions to standard error, containers discarded]
    #[arg(long, value_name = "DIR")]
    pub log_dir: Option<PathBuf>,
    /// Use the ports N (submit), N+1 (Lambda), N+2 (DynamoDB) and N+3 (ECS) [default: free ones]
    #[arg(long, value_name = "N")]
    pub port_base: Option<u16>,
    /// Environment variable of the functions; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub function_env: Vec<(String, String)>,
    /// Environment variable of all containers, by default with the value that it has here; may be repeated
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = variable)]
    pub container_env: Vec<(String, String)>,
    /// Refuse calls of submit that are not signed with the access key `local` and the secret `local`, as a function URL does
    #[arg(long)]
    pub require_signature: bool,
    /// Give the functions no URLs, as the template does under FunctionUrl: false; callers and runners invoke them
    #[arg(long, conflicts_with = "require_signature")]
    pub no_function_urls: bool,
    /// Continue when the parent process ends
    #[arg(long)]
    pub outlive_parent: bool,

    /// Divide the functions' own timers by this (ECS_BRIDGE_TIMER_SCALE)
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = scale, help_heading = "Time")]
    pub timer_scale: f64,
    /// Divide the delays of the stand-in by this: steps and memory of ECS, stop timeouts, retries of Lambda
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
    /// Simulate `true`, `false`, `sh -c 'exit N'` and `sleep S` instead of starting processes; S is scaled
    #[arg(long, help_heading = "Time")]
    pub simulate: bool,

    /// Seed of all faults below; the same seed makes the same choices
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
    /// Throttle RunTask above RATE calls a second and BURST at once [default BURST: RATE]
    #[arg(long, value_name = "RATE[/BURST]", help_heading = "Faults")]
    pub throttle: Option<Throttle>,
    /// Number of tasks that fit into the cluster; RunTask answers with failures beyond it
    #[arg(long, value_name = "N", help_heading = "Faults")]
    pub capacity: Option<usize>,
    /// Capacity provider, launch type or subnet without capacity: RunTask answers with a failure; may be repeated
    #[arg(long, value_name = "NAME", help_heading = "Faults")]
    pub no_capacity: Vec<String>,
    /// Fail this share of the tasks before their containers start
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = share, help_heading = "Faults")]
    pub fail_start: f64,
    /// Answer this share of the ECS calls with a 500 or not at all, although they took effect
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = share, help_heading = "Faults")]
    pub api_error: f64,
    /// Answer this share of the RunTask calls with a failure for lack of capacity, although they launched a task
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
    /// Milliseconds from the creation of a task until DescribeTasks and ListTasks return it
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
        range.filter(|range| !range.is_empty()).map(Self).ok_or("two numbers separated by .., the smaller first")
    }
}

impl FromStr for Throttle {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (rate, burst) = text.split_once('/').unwrap_or((text, text));
        let parse = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
        match (parse(rate), parse(burst)) {
            // A bucket that holds less than one call would refuse all.
            (Some(rate), Some(burst)) => Ok(Self { rate, burst: burst.max(1.0) }),
            _ => Err("a number above 0, or two separated by /"),
        }
    }
}

fn share(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or("a number from 0 to 1")
}

fn scale(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|scale: &f64| scale.is_finite() && *scale > 0.0).ok_or("a number above 0")
}

fn seconds(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|seconds| (0.0..=1e9).contains(seconds)).ok_or("a number of seconds")
}

fn name(text: &str) -> Result<String, &'static str> {
    let valid = (1..=32).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    valid.then(|| text.to_owned()).ok_or("1 to 32 letters, digits, - and _")
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some(("", _)) => Err("the variable has no name".into()),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => std::env::var(text).map(|value| (text.to_owned(), value)).map_err(|_| format!("{text} is not set")),
    }
}

/// The text of `--help` after the flags.
#[must_use]
pub fn after_help() -> String {
    format!(
        "\
Shapes are unusual behaviours of a task. Request one or more, separated by spaces, with the tag {SHAPE_TAG} of the RunTask
request, or with the variable {SHAPE_VARIABLE} in the environment of a container override:
{}
Besides ECS's API, the ECS address answers:
  GET  /_local/calls                 the number of calls by operation
  GET  /_local/tasks                 all tasks of this run, with the number of starts of their commands
  GET  /_local/faults                the number of injected faults
  GET  /_local/events                the last 1000 events
  POST /_local/events                puts any event on the bus: {{\"matched\": bool}}
  POST /_local/tasks/ID/ACTION       spot-notice, termination-notice, spot-interruption, infrastructure-health,
                                     forget (MISSING from now on), send-event (its current state, once more),
                                     report-lost, report-out-of-memory (its host reports that it has stopped; it runs on)
  POST /_local/rules                 for the next `times` calls of `operation` (RunTask), or only those of
                                     `submission_id`, or of `task_definition`: {{\"shapes\": \"...\"}}, {{\"error\": {{\"code\", \"message\"}}}},
                                     {{\"failure\": REASON}}, {{\"answer\": \"server_error\" | \"none\"}} (it happens), or
                                     {{\"forget_token\": true}} (a repeat starts another task);
                                     DELETE drops all rules
  GET  /_local/notifications         those that Step Functions and event buses got (notify); rules take
                                     SendTaskSuccess, SendTaskFailure and PutEvents too
  PUT  /_local/capacity              {{\"without\": [NAME, ...]}}, as --no-capacity, from now on
and the Lambda address, besides Invoke:
  GET  /_local/processes             the functions' processes with their pids; DELETE /_local/processes/PID kills one
  GET  /_local/invocations           counts by function: errors, timeouts, retries, pending events, ...
  GET  /_local/abandoned             events that failed three times",
        Shapes::help()
    )
}
