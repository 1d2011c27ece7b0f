//! `ecs-bridge`: the local stack, and what a person at a terminal wants of a bridge.

use std::io::{BufRead, Write};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use ecs_bridge_local::pattern::Pattern;
use ecs_bridge_local::{Options, options, process};
use serde::Deserialize;
use serde_json::Value;

#[derive(Parser)]
#[command(name = "ecs-bridge", version, about = "Run commands on Amazon ECS and learn how they ended")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the bridge on this machine: its functions, DynamoDB, and a stand-in for ECS whose containers are processes
    #[command(args_conflicts_with_subcommands = true, after_long_help = options::after_help())]
    Local(Local),
}

#[derive(Args)]
struct Local {
    #[command(subcommand)]
    helper: Option<LocalHelper>,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum LocalHelper {
    /// Reads {"pattern", "event"} lines; answers each with true, false, or {"error"}
    #[command(hide = true)]
    MatchPattern,
    /// Ends what a run left behind, once standard input closes
    #[command(hide = true)]
    Watchdog { run: String },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Local(Local { helper: Some(LocalHelper::MatchPattern), .. }) => match_patterns().map_err(Into::into),
        Command::Local(Local { helper: Some(LocalHelper::Watchdog { run }), .. }) => {
            process::watch(&run);
            Ok(())
        }
        Command::Local(Local { helper: None, options }) => ecs_bridge_local::run(&options).map_err(Into::into),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(error);
            ExitCode::FAILURE
        }
    }
}

/// The error, and what caused it, on one line.
fn report(error: Box<dyn std::error::Error>) {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(&format!(": {error}"));
        cause = error.source();
    }
    eprintln!("ecs-bridge: {line}");
}

#[derive(Deserialize)]
struct PatternAndEvent {
    pattern: Value,
    event: Value,
}

fn match_patterns() -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let PatternAndEvent { pattern, event } = serde_json::from_str(&line?)?;
        match Pattern::parse(&pattern) {
            Ok(pattern) => writeln!(output, "{}", pattern.matches(&event))?,
            Err(error) => writeln!(output, "{}", serde_json::json!({"error": error.to_string()}))?,
        }
    }
    Ok(())
}
