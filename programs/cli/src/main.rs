//! `ecs-bridge`: runs the local stack; submits, follows, shows, lists and stops submissions; shows and changes pools; examines
//! deployments, and what AWS does.

// Parts of the modules are for the commands of `account` only.
#![cfg_attr(not(feature = "account"), allow(dead_code))]

#[cfg(feature = "account")]
mod account;
mod bridge;
#[cfg(feature = "account")]
mod doctor;
mod ids;
mod local;
#[cfg(feature = "account")]
mod logs;
mod manual;
mod output;
mod pools;
mod ps;
mod show;
mod stats;
mod stop;
mod submit;
mod submit_file;
#[cfg(feature = "account")]
mod verify;
mod wait;

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};

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
    #[cfg(feature = "account")]
    Logs(logs::Logs),
    Ps(ps::Ps),
    Stats(stats::Stats),
    #[cfg(feature = "account")]
    Doctor(doctor::Doctor),
    #[cfg(feature = "account")]
    VerifyAws(verify::VerifyAws),
    Stop(stop::Stop),
    Wait(wait::Wait),
    Pool(pools::PoolCommand),
    /// Same as `ecs-bridge pool list`
    Pools(pools::Pools),
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
        Command::Local(command) => ended(command.run()),
        Command::Submit(command) => command.run(),
        Command::Wait(command) => command.run(),
        Command::Show(command) => ended(command.run()),
        #[cfg(feature = "account")]
        Command::Logs(command) => ended(command.run()),
        #[cfg(feature = "account")]
        Command::Doctor(command) => command.run(),
        #[cfg(feature = "account")]
        Command::VerifyAws(command) => command.run(),
        Command::Ps(command) => ended(command.run()),
        Command::Stats(command) => ended(command.run()),
        Command::Pools(command) => ended(command.run()),
        Command::Pool(command) => ended(command.run()),
        Command::Completions { shell } => {
            // Into memory first: generate panics where the reader closes the pipe early.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "ecs-bridge", &mut script);
            let _ = std::io::stdout().write_all(&script);
            ExitCode::SUCCESS
        }
        Command::Man { dir } => ended(manual::write_pages(Cli::command(), &dir)),
        Command::Markdown => {
            output::say(manual::markdown(Cli::command()).trim_end());
            ExitCode::SUCCESS
        }
        Command::Stop(command) => command.run().unwrap_or_else(|error| ended(Err(error))),
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

fn ended<E: Error>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::report(&error);
            ExitCode::FAILURE
        }
    }
}
