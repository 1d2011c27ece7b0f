//! `ecs-bridge local`

use std::io::{BufRead, Write};

use clap::{Args, Subcommand};
use ecs_bridge_local::pattern::Pattern;
use ecs_bridge_local::{LocalError, Options, options, process};
use serde::Deserialize;
use serde_json::{Value, json};

/// Run the bridge on this machine with its functions, DynamoDB, and an emulator of ECS that runs containers as processes
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, after_long_help = options::after_help())]
pub struct Local {
    #[command(subcommand)]
    helper: Option<Helper>,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Helper {
    /// Read lines of {"pattern", "event"}, and write true, false or {"error"} for each
    #[command(hide = true)]
    MatchPattern,
    /// End the processes that a run left behind, once standard input closes
    #[command(hide = true)]
    Watchdog {
        /// The name of the run
        run: String,
    },
}

impl Local {
    pub fn run(self) -> Result<(), LocalError> {
        match self.helper {
            None => ecs_bridge_local::run(&self.options),
            Some(Helper::MatchPattern) => Ok(match_patterns()?),
            Some(Helper::Watchdog { run }) => {
                process::watch(&run);
                Ok(())
            }
        }
    }
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
            Err(error) => writeln!(output, "{}", json!({"error": error.to_string()}))?,
        }
    }
    Ok(())
}
