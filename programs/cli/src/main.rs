//! `ecs-bridge`: runs the local stack; submits, follows, lists and stops submissions; lists and changes pools; checks
//! deployments, and AWS.

// Some functions are used only by the commands of `account`.
#![cfg_attr(not(feature = "account"), allow(dead_code))]

#[cfg(feature = "account")]
mod account;
mod client;
mod commands;
mod container_logs;
mod error;
mod flags;
mod follow;
mod ids;
mod manual;
mod output;
mod record;
mod wait_reasons;

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};

#[cfg(feature = "account")]
use crate::commands::{doctor, verify};
use crate::commands::{local, logs, pool, pool_list, ps, show, stats, stop, submit, wait};

#[derive(Parser)]
#[command(name = "ecs-bridge", version, about = "Run commands on Amazon ECS and follow their outcomes")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Local(local::Local),
    Submit(submit::Submit),
    Show(show::Show),
    Logs(logs::Logs),
    Ps(ps::Ps),
    Stats(stats::Stats),
    #[cfg(feature = "account")]
    Doctor(doctor::Doctor),
    #[cfg(feature = "account")]
    VerifyAws(verify::VerifyAws),
    Stop(stop::Stop),
    Wait(wait::Wait),
    Pool(pool::Pool),
    /// Same as `ecs-bridge pool list`
    Pools(pool_list::PoolList),
    /// Write shell completions to standard output
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write one man page for each command
    Man {
        /// Folder for the pages
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// Write the reference of all commands as Markdown
    #[command(hide = true)]
    Markdown,
}

fn main() -> ExitCode {
    match parse().command {
        Command::Local(command) => exit_code(command.run()),
        Command::Submit(command) => command.run(),
        Command::Wait(command) => command.run(),
        Command::Show(command) => exit_code(command.run()),
        Command::Logs(command) => exit_code(command.run()),
        #[cfg(feature = "account")]
        Command::Doctor(command) => command.run(),
        #[cfg(feature = "account")]
        Command::VerifyAws(command) => command.run(),
        Command::Ps(command) => exit_code(command.run()),
        Command::Stats(command) => exit_code(command.run()),
        Command::Pools(command) => exit_code(command.run()),
        Command::Pool(command) => exit_code(command.run()),
        Command::Completions { shell } => {
            // Into memory first: generate panics where the reader closes the pipe early.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "ecs-bridge", &mut script);
            let _ = std::io::stdout().write_all(&script);
            ExitCode::SUCCESS
        }
        Command::Man { dir } => exit_code(manual::write_pages(Cli::command(), &dir)),
        Command::Markdown => {
            output::say(manual::markdown(Cli::command()).trim_end());
            ExitCode::SUCCESS
        }
        Command::Stop(command) => command.run().unwrap_or_else(|error| exit_code(Err(error))),
    }
}

/// Parses the arguments. A command without `--` before it gets a hint.
fn parse() -> Cli {
    let arguments: Vec<_> = std::env::args().collect();
    Cli::try_parse().unwrap_or_else(|mut error| {
        let is_submit = arguments.get(1).is_some_and(|name| name == "submit") && !arguments.iter().any(|it| it == "--");
        if is_submit && error.kind() == ErrorKind::UnknownArgument {
            let invalid = match error.get(ContextKind::InvalidArg) {
                Some(ContextValue::String(invalid)) => invalid.clone(),
                _ => "COMMAND".to_owned(),
            };
            if !invalid.starts_with('-') {
                let tip = format!("write -- before the command: ecs-bridge submit [OPTIONS] -- {invalid}");
                error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
            }
        }
        error.exit()
    })
}

fn exit_code<E: Error>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::report(&error);
            ExitCode::FAILURE
        }
    }
}
