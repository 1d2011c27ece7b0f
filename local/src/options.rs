//! The flags of `ecs-bridge local`.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use crate::ecs::{SHAPE_TAG, SHAPE_VARIABLE, Shapes, Throttle};

/// How a local stack is to be.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Folder of the functions' binaries (submit, task-state, reconcile) [default: that of this program]
    #[arg(long, value_name = "DIR")]
    pub functions_dir: Option<PathBuf>,
    /// Run no functions: DynamoDB and ECS alone, events go nowhere
    #[arg(long)]
    pub no_functions: bool,
    /// Processes of each function
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub processes: usize,
    /// The deployment's name
    #[arg(long, value_name = "NAME", default_value = "local", value_parser = name)]
    pub deployment: String,
    /// The cluster's name
    #[arg(long, value_name = "NAME", default_value = "local", value_parser = name)]
    pub cluster: String,
    /// Profiles, a JSON object [default: `default` runs the task definition demo, `sidecar` demo-sidecar]
    #[arg(long, value_name = "FILE")]
    pub profiles: Option<PathBuf>,
    /// Task definitions, a JSON array of RegisterTaskDefinition requests, beside the built-in demo and demo-sidecar
    #[arg(long, value_name = "FILE")]
    pub task_definitions: Option<PathBuf>,
    /// Take table, event pattern and time limits from this template [default: the one that this program was built with]
    #[arg(long, value_name = "FILE")]
    pub template: Option<PathBuf>,
    /// Seconds between two runs of reconcile; 0 for never
    #[arg(long, value_name = "S", default_value_t = 60.0, value_parser = seconds)]
    pub reconcile_every: f64,
    /// Write addresses and names here, as JSON, once all is up
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Write the functions' environment here, as NAME=VALUE lines, for running one of them elsewhere
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
    /// Write the output of functions and containers here, a file each [default: functions to standard error, containers nowhere]
    #[arg(long, value_name = "DIR")]
    pub log_dir: Option<PathBuf>,
    /// Use ports N (submissions), N+1 (Lambda), N+2 (DynamoDB), N+3 (ECS) [default: free ones]
    #[arg(long, value_name = "N")]
    pub port_base: Option<u16>,
    /// An environment variable for the functions
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub function_env: Vec<(String, String)>,
    /// An environment variable for all containers; without a value, that of this program
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = variable)]
    pub container_env: Vec<(String, String)>,
    /// Go on when the process that started this one ends
    #[arg(long)]
    pub outlive_parent: bool,

    /// Divide the functions' own timers by this (ECS_BRIDGE_TIMER_SCALE)
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = scale, help_heading = "Time")]
    pub timer_scale: f64,
    /// Divide the stand-in's delays by this: ECS's steps and memory, stop timeouts, Lambda's retries
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = scale, help_heading = "Time")]
    pub time_scale: f64,
    /// Seconds from a task's creation to PENDING
    #[arg(long, value_name = "S", default_value_t = 0.3, value_parser = seconds, help_heading = "Time")]
    pub provision_s: f64,
    /// Seconds from PENDING to the start of its containers
    #[arg(long, value_name = "S", default_value_t = 0.3, value_parser = seconds, help_heading = "Time")]
    pub pull_s: f64,
    /// Seconds from the last container's exit to STOPPED
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = seconds, help_heading = "Time")]
    pub teardown_s: f64,
    /// Do not start `true`, `false`, `sh -c 'exit N'` and `sleep S` as processes, but end as they would; S is scaled
    #[arg(long, help_heading = "Time")]
    pub simulate: bool,

    /// What all chances below hang on; the same seed makes the same choices
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Faults")]
    pub seed: u64,
    /// Deliver this share of the events twice
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = share, help_heading = "Faults")]
    pub duplicate: f64,
    /// Lose this share of the events
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = share, help_heading = "Faults")]
    pub drop: f64,
    /// Deliver each event late by so much, so that they change places
    #[arg(long, value_name = "MIN..MAX", default_value = "0..0", help_heading = "Faults")]
    pub delay_ms: Delay,
    /// Let so many RunTask calls a second through, and BURST at once [default BURST: RATE]
    #[arg(long, value_name = "RATE[/BURST]", help_heading = "Faults")]
    pub throttle: Option<Throttle>,
    /// Tasks that fit in the cluster; more are answered in RunTask's failures
    #[arg(long, value_name = "N", help_heading = "Faults")]
    pub capacity: Option<usize>,
    /// Let this share of the tasks fail before their containers start
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = share, help_heading = "Faults")]
    pub fail_start: f64,
    /// Answer this share of the ECS calls with a 500 or not at all, though they happened
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = share, help_heading = "Faults")]
    pub api_error: f64,
    /// Take so long for each ECS call
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Faults")]
    pub api_latency_ms: u64,
    /// Know a task in DescribeTasks and ListTasks only so long after its creation
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Faults")]
    pub consistency_lag_ms: u64,
}

/// A range of milliseconds, `MIN..MAX`.
#[derive(Clone, Debug)]
pub struct Delay(pub RangeInclusive<u64>);

impl FromStr for Delay {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let range = text.split_once("..").and_then(|(least, most)| Some(least.parse().ok()?..=most.parse().ok()?));
        range.filter(|range| !range.is_empty()).map(Self).ok_or("two numbers with .. between them, the smaller first")
    }
}

impl FromStr for Throttle {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (rate, burst) = text.split_once('/').unwrap_or((text, text));
        let parse = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
        match (parse(rate), parse(burst)) {
            // A bucket that holds less than one would never let anything through.
            (Some(rate), Some(burst)) => Ok(Self { rate, burst: burst.max(1.0) }),
            _ => Err("a number above 0, or two with / between them"),
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
        Some(("", _)) => Err("a variable has a name".into()),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => {
            std::env::var(text).map(|value| (text.to_owned(), value)).map_err(|_| format!("{text} is not set here"))
        }
    }
}

/// What `--help` says after the flags.
#[must_use]
pub fn after_help() -> String {
    format!(
        "\
Shapes: what a task does beyond the usual. Ask for one or more (words between spaces) with the tag {SHAPE_TAG} on the
RunTask request, or with the variable {SHAPE_VARIABLE} in a container override's environment:
{}
Beside ECS's API, the ECS address answers:
  GET  /_local/calls                 how often each operation was called
  GET  /_local/tasks                 all tasks of this run, and how often each one's command was started
  GET  /_local/faults                how much was made to go wrong
  GET  /_local/events                the last 1000 events
  POST /_local/events                put any event on the bus: {{\"matched\": bool}}
  POST /_local/tasks/ID/ACTION       spot-notice, termination-notice, spot-interruption, infrastructure-health,
                                     forget (MISSING from now on), tell (its present state, as one more event)
  POST /_local/rules                 for the next `times` calls of `operation` (RunTask), or only those of
                                     `submission_id`: {{\"shapes\": \"...\"}}, {{\"error\": {{\"code\", \"message\"}}}},
                                     {{\"failure\": REASON}}, or {{\"answer\": \"server_error\" | \"none\"}} (it happens);
                                     DELETE drops all rules
and the Lambda address, beside Invoke:
  GET  /_local/processes             functions' processes with their pids; DELETE /_local/processes/PID kills one
  GET  /_local/invocations           counts by function: errors, time-outs, retries, events still pending, ...
  GET  /_local/abandoned             events that were given up after three tries",
        Shapes::help()
    )
}
